//! Fields that somebody else keeps setting back. After three times in ten minutes they are left alone, so that two
//! controllers do not restart providers for ever.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{Management, VirtualNodePool};

use super::desired::{self, Desired, same_meaning};
use super::{adopt, create, env, owned, rewritten, roll};
use crate::accept::provider_container;
use crate::drain::installations;
use crate::observed::{Observed, Recall, SeenField, Workload};
use crate::rewritten::age;

const WINDOW: SignedDuration = SignedDuration::from_mins(10);
const LIMIT: usize = 3;
/// How long a ResourcePolicy is remembered that was written in vain and is not written any more.
const POLICIES_FOR: SignedDuration = SignedDuration::from_hours(1);

/// The template of a workload that we created, as one field.
pub(super) const TEMPLATE: &str = "template";
/// The count.
pub(super) const REPLICAS: &str = "replicas";
/// Label, finalizer and originals.
pub(super) const TAKEOVER: &str = "label and finalizer";

/// Who is named when the API server knows nobody.
pub(super) const NOBODY: &str = "somebody";

/// The field manager that contests the field, if one does.
pub(super) fn contested<'a>(recall: &'a Recall, field: &str) -> Option<&'a str> {
    let times = recall.set_back.get(field)?;
    let (last, by) = times.last()?;
    let (first, _) = times.get(times.len().checked_sub(LIMIT)?)?;
    (last.duration_since(*first) <= WINDOW).then_some(by.as_str())
}

/// What to remember after a pass that saw `observed`, to be in [`Observed::recall`] of the next one. Losing it makes the
/// operator slower to revert and slower to give up a contested field, nothing else.
pub fn remember(observed: &Observed, now: Timestamp) -> Recall {
    let mut recall = observed.recall.clone();
    recall.roll_step_since = roll::waiting_for(observed, now).map(|ordinal| {
        let known = recall.roll_step_since.filter(|(o, _)| *o == ordinal);
        known.unwrap_or((ordinal, now))
    });
    age(&mut recall.policies_rewritten, now);
    recall
        .policies_rewritten
        .retain(|_, r| now.duration_since(r.tried) <= POLICIES_FOR);
    recall.other_fence = installations::other_fence(observed).map(|fence| {
        let known = recall.other_fence.filter(|(known, _)| known == fence);
        known.unwrap_or_else(|| (fence.to_owned(), now))
    });
    let Some(workload) = observed.held_workload().filter(|w| !w.deleting()) else {
        recall.fields.clear();
        recall.set_back.clear();
        recall.rewritten.clear();
        return recall;
    };
    rewritten::age(&mut recall, observed, workload, now);
    let fields = fields(observed, workload);
    recall.fields.retain(|field, _| fields.contains_key(field));
    recall.set_back.retain(|field, _| fields.contains_key(field));
    for (field, (seen, by)) in fields {
        let before = recall.fields.insert(field.clone(), seen.clone());
        match before.filter(|before| before.wanted == seen.wanted) {
            // A new wish is tried like the first one.
            None => {
                recall.set_back.remove(&field);
            }
            Some(before) if before.in_place && !seen.in_place => {
                recall.set_back.entry(field).or_default().push((now, by));
            }
            Some(_) if seen.in_place => {
                if let Some(times) = recall.set_back.get_mut(&field) {
                    times.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
                }
            }
            Some(_) => {}
        }
    }
    recall.set_back.retain(|_, times| !times.is_empty());
    recall
}

/// The field for people; of a template the first part that differs.
pub(super) fn describe(observed: &Observed, field: &str) -> String {
    let lost = observed
        .held_workload()
        .filter(|_| field == TEMPLATE)
        .and_then(|workload| {
            let template = serde_json::json!(create::template(&observed.pool));
            create::first_difference(
                workload,
                &create::apply_body(&observed.pool, workload, &template, 0, None),
            )
        });
    lost.filter(|path| !path.is_empty())
        .map_or_else(|| field.to_owned(), |path| owned::readable(&path))
}

/// Each field that is ours, and who owns it when we do not.
pub(super) fn fields(observed: &Observed, workload: &Workload) -> BTreeMap<String, (SeenField, String)> {
    let pool = &observed.pool;
    let mut fields = BTreeMap::new();
    let mut note = |name: &str, wanted: String, in_place: bool, by: Option<&str>| {
        let by = by.unwrap_or(NOBODY).to_owned();
        fields.insert(name.to_owned(), (SeenField { wanted, in_place }, by));
    };
    if let Some(target) = crate::target::target(observed) {
        note(
            REPLICAS,
            target.to_string(),
            workload.replicas() >= target,
            workload.replicas_manager(),
        );
    }
    note(TAKEOVER, String::new(), adopt::taken_over(pool, workload), None);
    let hash = desired::hash(pool);
    if workload.annotation(vnp_crds::REVERTED_ANNOTATION) == Some(hash.as_str()) {
        // We took it back ourselves.
        return fields;
    }
    match pool.spec.provider.management() {
        Management::Create => {
            let body = create::apply_body(
                pool,
                workload,
                &serde_json::json!(create::template(pool)),
                0,
                None,
            );
            let lost = create::first_difference(workload, &body);
            let by = lost.as_ref().and_then(|path| owned::other_owner(workload, path));
            note(TEMPLATE, hash, lost.is_none(), by);
        }
        Management::Adopt => adopted_fields(pool, workload, &mut note),
    }
    fields
}

fn adopted_fields(
    pool: &VirtualNodePool,
    workload: &Workload,
    note: &mut impl FnMut(&str, String, bool, Option<&str>),
) {
    let index = provider_container(workload, pool.spec.provider.container());
    let Some(there) = index.ok().and_then(|i| workload.containers().get(i)) else {
        return;
    };
    let container = format!("k:{}", serde_json::json!({ "name": there["name"] }));
    let path = |rest: &[&str]| template_path(&container, rest);
    let desired = Desired::of(pool);
    for (name, wanted) in &desired.env {
        let key = format!("k:{}", serde_json::json!({ "name": name }));
        let by = owned::other_owner(workload, &path(&["f:env", &key]));
        note(
            &format!("env {name}"),
            wanted.clone(),
            same_meaning(name, env::value(there, name), wanted),
            by,
        );
    }
    if let Some(wanted) = desired.image {
        let in_place = there.get("image").and_then(serde_json::Value::as_str) == Some(wanted.as_str());
        note(
            "image",
            wanted,
            in_place,
            owned::other_owner(workload, &path(&["f:image"])),
        );
    }
}

fn template_path(container: &str, rest: &[&str]) -> Vec<String> {
    let head = ["f:spec", "f:template", "f:spec", "f:containers", container];
    head.iter().chain(rest).map(|s| (*s).to_owned()).collect()
}
