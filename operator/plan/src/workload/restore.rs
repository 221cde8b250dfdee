//! A workload that somebody deleted while its nodes are needed comes back as it was, with the same provider pods.
//!
//! Our finalizer keeps the object, and with it the pods, until a copy is kept and the pods are nobody's; only then it may
//! go, and is made again from the copy. Each state between two writes is recognised by what the cluster shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vnp_crds::EventReason;

use super::{owned, patch};
use crate::finding::{EventNote, Finding, ProviderState};
use crate::observed::{Observed, ProviderPod, SavedCopy, Workload};
use crate::plan::Part;
use crate::step::{PatchPurpose, Step};
use crate::wording::counted;

/// Finalizers that belong to a deletion and not to the object.
const OF_DELETION: [&str; 2] = ["foregroundDeletion", "orphan"];

/// Content of Secret `vnp-restore-<pool-uid>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// UID of the object that was deleted. A copy of another one is an old one.
    uid: String,
    /// The body that makes it again.
    object: Value,
    /// `metadata.managedFields` of the object. A POST makes everything the poster's, and what a POST wrote nobody's later
    /// apply can take away; so each field is given back to the manager it had.
    #[serde(default)]
    managers: Vec<Value>,
}

/// Name of the Secret that keeps the copy.
pub(super) fn copy_name(observed: &Observed) -> String {
    format!("vnp-restore-{}", observed.pool_uid())
}

/// What has to be done before anything else is done with the workload; `None` when it is neither deleted nor restored.
pub(super) fn plan(observed: &Observed, target: Option<i32>) -> Option<Part> {
    let copy = observed.restore_copy.as_ref();
    match (observed.workload.there().map(AsRef::as_ref), copy) {
        (None, Some(copy)) => Some(create_again(observed, copy, target)),
        (None, None) => None,
        (Some(workload), _) if workload.deleting() => {
            observed.held_workload()?;
            Some(let_go(observed, workload, target))
        }
        (Some(workload), Some(copy)) => back(observed, workload, copy),
        (Some(_), None) => None,
    }
}

/// Deleted, and kept by finalizers.
fn let_go(observed: &Observed, workload: &Workload, target: Option<i32>) -> Part {
    let mut part = Part::default();
    let owned = observed
        .provider_pods
        .values()
        .filter(|p| p.owner_uids.iter().any(|o| o == workload.uid()));
    let owned: Vec<_> = owned.collect();
    let copy = observed.restore_copy.as_ref();
    if workload.replicas() == 0 && !needed(observed, target) && owned.iter().all(|pod| pod.deleting) {
        part.findings.push(absent(format!(
            "StatefulSet {} was deleted and nothing runs on it{}",
            workload.name(),
            still_held(workload)
        )));
        if workload.has_finalizer() && owned.is_empty() {
            part.steps.extend(copy.map(drop_copy));
            part.steps.push(finalizer_off(workload));
        }
        return part;
    }
    // A pause holds every write before our finalizer goes.
    let pause = match observed.pool.is_paused() && workload.has_finalizer() {
        true => " and the pool is not paused any more",
        false => "",
    };
    part.findings.push(absent(format!(
        "StatefulSet {} was deleted by somebody while its nodes are needed, and is made again once it is gone{pause}{}; \
         change the pool instead",
        workload.name(),
        still_held(workload)
    )));
    let now = keep(workload);
    // Once our finalizer is off, the object may vanish at any moment: the copy that is there is the one that counts.
    let kept = copy.filter(|c| !workload.has_finalizer() || c.content == now);
    if kept.is_none() {
        if let Some(old) = copy {
            part.steps.push(drop_copy(old));
        }
        part.steps.push(Step::SaveCopy {
            name: copy_name(observed),
            content: now,
        });
    }
    part.steps.extend(owned.iter().map(|pod| Step::OrphanProviderPod {
        pod: pod.key.clone(),
        uid: pod.uid.clone(),
        owner_uid: workload.uid().to_owned(),
    }));
    if kept.is_some() && owned.is_empty() && workload.has_finalizer() {
        part.steps.push(finalizer_off(workload));
    }
    part
}

/// By whose finalizers, once ours is off: nobody but they can let it go.
fn still_held(workload: &Workload) -> String {
    let theirs: Vec<&str> = workload
        .finalizers()
        .into_iter()
        .filter(|f| !OF_DELETION.contains(f))
        .collect();
    if workload.has_finalizer() || theirs.is_empty() {
        return String::new();
    }
    let since = workload
        .raw
        .pointer("/metadata/deletionTimestamp")
        .and_then(Value::as_str)
        .unwrap_or("before");
    format!(
        " (deleted since {since}, and held by {}: the controllers that set these finalizers must take them off)",
        theirs.join(", ")
    )
}

/// Gone, and a copy is there.
fn create_again(observed: &Observed, copy: &SavedCopy, target: Option<i32>) -> Part {
    let mut part = Part::default();
    let Ok(kept) = serde_json::from_value::<Kept>(copy.content.clone()) else {
        part.findings.push(absent(format!(
            "Secret {} holds the deleted StatefulSet and can't be read: create the StatefulSet again by hand, with its \
             former replicas, and delete the Secret",
            copy.name
        )));
        return part;
    };
    let body = Workload::new(kept.object);
    if body.replicas() == 0 && !needed(observed, target) {
        part.steps.push(drop_copy(copy));
        return part;
    }
    part.findings.push(absent(format!(
        "StatefulSet {} is created again from its copy",
        body.name()
    )));
    part.steps.push(Step::CreateWorkload { body: body.raw });
    part
}

/// There again, or something else is there under its name.
fn back(observed: &Observed, workload: &Workload, copy: &SavedCopy) -> Option<Part> {
    let source = copy.content.get("uid").and_then(Value::as_str);
    if source == Some(workload.uid()) {
        // A look from before the deletion: the copy is needed yet.
        return Some(Part::default());
    }
    let mut part = Part::default();
    let held = observed.held_workload().is_some() && workload.has_finalizer();
    let foreign = workload
        .pool_label()
        .is_some_and(|pool| pool != observed.pool_name());
    if !held && !foreign {
        // Somebody was faster than the copy. What stands there runs our nodes from now on, so it is taken over.
        let (operations, changes) = super::adopt::take_over(&observed.pool, workload).unwrap_or_else(|_| {
            let labels = [(vnp_crds::POOL_LABEL, Some(observed.pool_name().to_owned()))].into();
            let mut operations = patch::metadata_map(&workload.raw, "labels", &labels);
            operations.extend(patch::add_finalizer(workload));
            (operations, vec![format!("label {}", vnp_crds::POOL_LABEL)])
        });
        part.steps
            .push(patch::step(workload, operations, PatchPurpose::TakeOver, changes));
        return Some(part);
    }
    part.steps.extend(owners_again(workload, copy));
    part.steps.push(drop_copy(copy));
    if held {
        part.findings.push(Finding::Event(EventNote {
            reason: EventReason::WorkloadRestored,
            subject: workload.name().to_owned(),
            note: format!(
                "StatefulSet {} had been deleted by somebody and is there again with {}; {}",
                workload.name(),
                counted(workload.replicas(), "replica"),
                outlived(observed, workload)
            ),
        }));
    }
    Some(part)
}

/// What became of the provider pods. One that is older than the workload has outlived the one before it.
fn outlived(observed: &Observed, workload: &Workload) -> String {
    if workload.ordinals().is_empty() {
        return "it has no providers".to_owned();
    }
    let made = workload
        .raw
        .pointer("/metadata/creationTimestamp")
        .and_then(Value::as_str);
    let Some(made) = made.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return "see its provider pods".to_owned();
    };
    let older = |pod: &ProviderPod| !pod.deleting && pod.created.is_some_and(|created| created < made);
    let kept = workload
        .ordinals()
        .filter(|o| observed.provider_pods.get(o).is_some_and(|pod| older(pod)));
    match (kept.count(), workload.ordinals().count()) {
        (kept, all) if kept == all => "its provider pods went on".to_owned(),
        (0, _) => "its provider pods were taken down as well and start anew".to_owned(),
        (kept, all) => format!("{kept} of {all} provider pods went on, the others start anew"),
    }
}

/// Gives each field back to its manager, when the object is the one that was made from the copy.
fn owners_again(workload: &Workload, copy: &SavedCopy) -> Option<Step> {
    let kept = serde_json::from_value::<Kept>(copy.content.clone()).ok()?;
    let present = managers(workload);
    let ours = present
        .iter()
        .all(|m| m.get("manager").and_then(Value::as_str) == Some(vnp_crds::FIELD_MANAGER));
    let same = !owned::differs(&kept.object["spec"], &workload.raw["spec"]);
    if kept.managers.is_empty() || kept.managers == present || !ours || !same {
        return None;
    }
    let status = all_managers(workload).filter(|m| of_status(m)).cloned();
    let managers: Vec<Value> = kept.managers.into_iter().chain(status).collect();
    let operation = patch::replace(patch::pointer(&["metadata", "managedFields"]), managers.into());
    let changes = vec!["field managers as before the deletion".to_owned()];
    Some(patch::step(
        workload,
        vec![operation],
        PatchPurpose::TakeOver,
        changes,
    ))
}

fn all_managers(workload: &Workload) -> impl Iterator<Item = &Value> {
    workload
        .raw
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn of_status(entry: &Value) -> bool {
    entry.get("subresource").and_then(Value::as_str) == Some("status")
}

fn managers(workload: &Workload) -> Vec<Value> {
    all_managers(workload)
        .filter(|m| !of_status(m))
        .cloned()
        .collect()
}

/// Whether a node is wanted or anything is left of one.
fn needed(observed: &Observed, target: Option<i32>) -> bool {
    let bound = observed
        .bound
        .keys()
        .any(|o| observed.pods_on(*o).next().is_some());
    target != Some(0) || bound
}

/// What it takes to make the object again: labels, annotations, finalizers, spec. Not the fence: whoever held it must not
/// shrink the new one.
fn keep(workload: &Workload) -> Value {
    let metadata = |field: &str| workload.raw.get("metadata").and_then(|m| m.get(field)).cloned();
    let mut annotations: Map<String, Value> = metadata("annotations")
        .and_then(|a| a.as_object().cloned())
        .unwrap_or_default();
    annotations.shift_remove(vnp_crds::SHRINKING_ANNOTATION);
    let mut finalizers: Vec<&str> = workload
        .finalizers()
        .into_iter()
        .filter(|f| !OF_DELETION.contains(f))
        .collect();
    if !workload.has_finalizer() {
        finalizers.push(vnp_crds::WORKLOAD_FINALIZER);
    }
    json!(Kept {
        uid: workload.uid().to_owned(),
        managers: managers(workload),
        object: json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {
                "name": workload.name(),
                "namespace": workload.namespace(),
                "labels": metadata("labels").unwrap_or_else(|| json!({})),
                "annotations": annotations,
                "finalizers": finalizers,
            },
            "spec": workload.raw.get("spec").cloned().unwrap_or_default(),
        }),
    })
}

fn finalizer_off(workload: &Workload) -> Step {
    let changes = vec![format!("finalizer {} removed", vnp_crds::WORKLOAD_FINALIZER)];
    patch::step(
        workload,
        patch::remove_finalizer(workload),
        PatchPurpose::LetGo,
        changes,
    )
}

pub(super) fn drop_copy(copy: &SavedCopy) -> Step {
    Step::DropCopy {
        name: copy.name.clone(),
        uid: copy.uid.clone(),
    }
}

fn absent(message: String) -> Finding {
    Finding::Provider {
        state: ProviderState::Absent,
        message,
    }
}
