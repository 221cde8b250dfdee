//! The audit trail: which pods, and so which cloud instances, each removed node held last, and how each ended, kept for
//! the day on which somebody compares it with a bill.
//!
//! Everything bound is recorded in the pass that gives out the first order, because a restart loses what a process saw;
//! how each pod ended is added when the node is empty or given up.

mod record;
#[cfg(test)]
mod tests;
mod trail;
mod witness;

use jiff::SignedDuration;
use vnp_crds::DrainPhase;

pub use record::{Ended, NodeRecord, PodRecord};
pub use trail::Trail;
pub use witness::Witness;

use super::{DrainPlan, Scene, break_glass};
use crate::observed::ObjectKey;
use crate::plan::NodeInDrain;
use crate::step::{AuditPatch, Step};
use record::Look;

/// How long a Node whose provider is gone stays for a record that can't be written. The record is due since the node
/// is empty, a settle ago, so this is for refusals that last (a missing right, a namespace that goes, a policy); and
/// because such a refusal may last for ever, and a Node without provider helps nobody, the removal then goes on. A limit
/// in time and not a look at the answer, because it holds for every cause and over restarts.
const NODE_WAITS: SignedDuration = SignedDuration::from_secs(60);

/// Prefix of the ConfigMap's name; the pool's name follows.
pub const AUDIT_PREFIX: &str = "vnp-audit-";

/// Plans the write of what is to be recorded now, and holds the removal of Nodes whose record is not complete.
pub(super) fn advance(scene: &Scene<'_>, plan: &mut DrainPlan) {
    let unwritten = match &scene.seen.audit {
        None => plan
            .nodes
            .iter()
            .filter(|n| n.pods_total > 0)
            .map(|n| n.name.clone())
            .collect(),
        Some(trail) => record(scene, trail, plan),
    };
    let waiting: Vec<_> = plan
        .nodes
        .iter()
        .filter(|n| unwritten.contains(&n.name))
        .filter_map(|n| Some((n.name.clone(), waits_until(plan, n)?)))
        .filter(|(_, until)| *until > scene.now)
        .collect();
    for (name, until) in waiting {
        let held = |s: &Step| matches!(s, Step::DeleteNode { node, .. } if *node == name);
        if plan.steps.iter().any(held) {
            plan.steps.retain(|s| !held(s));
            plan.wake(until);
        }
    }
}

fn waits_until(plan: &DrainPlan, node: &NodeInDrain) -> Option<jiff::Timestamp> {
    let retired = plan.retired.iter().find(|r| r.ordinal == node.ordinal)?;
    retired.time.0.checked_add(NODE_WAITS).ok()
}

/// Plans the write; returns the nodes whose record it changes.
fn record(scene: &Scene<'_>, trail: &Trail, plan: &mut DrainPlan) -> Vec<String> {
    let nothing = Witness::default();
    let mut over = Vec::new();
    let mut records = Vec::new();
    let looks: Vec<_> = plan
        .nodes
        .iter()
        .filter_map(|entry| look(scene, plan, entry, &nothing).map(|look| (entry, look)))
        .map(|(entry, look)| (entry, trail.of(look.node, look.uid, look.started_at), look))
        .collect();
    if looks
        .iter()
        .all(|(_, before, look)| before.is_some_and(|b| look.adds_nothing(b)))
    {
        return Vec::new();
    }
    for (entry, before, look) in looks {
        let due = before.is_some()
            || entry.phase == DrainPhase::Evicting
            || look.abandoned
            || look.emptied_at.is_some();
        if !due {
            continue;
        }
        let record = look.over(before);
        if record.pods_total == 0 {
            continue;
        }
        over.extend(before.map(NodeRecord::key).filter(|key| *key != record.key()));
        records.push(record);
    }
    let nodes: Vec<(String, String)> = records.iter().map(|r| (r.key(), r.node.clone())).collect();
    let data = trail.changes(records, &over);
    let changed = nodes
        .into_iter()
        .filter(|(key, _)| data.contains_key(key))
        .map(|(_, node)| node)
        .collect();
    if !data.is_empty() {
        plan.audit.push(Step::RecordAudit(AuditPatch {
            config_map: ObjectKey {
                namespace: scene.seen.operator.namespace.clone(),
                name: format!("{AUDIT_PREFIX}{}", scene.seen.pool_name()),
            },
            resource_version: trail.resource_version.clone(),
            data,
        }));
    }
    changed
}

/// What is seen of a node that drains; `None` before the status names its drain, whose start tells it from others.
fn look<'a>(
    scene: &'a Scene<'_>,
    plan: &DrainPlan,
    entry: &'a NodeInDrain,
    nothing: &'a Witness,
) -> Option<Look<'a>> {
    let reported = scene.reported(entry.ordinal)?;
    if entry.uid.is_empty() {
        return None;
    }
    let going = matches!(entry.phase, DrainPhase::Shrinking | DrainPhase::Removing);
    let abandoned = going && break_glass::given_up(scene.seen, entry.ordinal, &entry.uid)
        || plan
            .retired
            .iter()
            .any(|r| r.ordinal == entry.ordinal && r.abandoned);
    let emptied_at = reported.empty_since.as_ref().map(|t| t.0);
    Some(Look {
        node: &entry.name,
        uid: &entry.uid,
        ordinal: entry.ordinal,
        pool: scene.seen.pool_name(),
        started_at: reported.started_at.0,
        // Only once it is in the status: the time of this pass would be another one in the next.
        emptied_at: emptied_at.filter(|_| entry.pods_remaining == 0),
        abandoned,
        bound: scene.seen.pods_on(entry.ordinal).collect(),
        left: scene
            .seen
            .memory
            .get(&entry.ordinal)
            .map_or(nothing.left(), |m| m.witness.left()),
        now: scene.now,
    })
}
