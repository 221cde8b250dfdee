//! What a paused pool still does, and what it says it would do.

use vnp_crds::DrainPhase;

use crate::observed::Observed;
use crate::plan::Plan;
use crate::profile;
use crate::step::{PatchPurpose, Step};

/// Lines of `status.pendingChanges` at most.
const LINES: usize = 10;

/// Takes out of the plan everything but the two writes that a pause must not hold: our fence comes off, so that no
/// shrink can follow, and a workload that is gone already comes back, because its pods have nobody else.
pub(crate) fn pause(seen: &Observed, mut plan: Plan) -> Plan {
    (plan.facts.pending_changes, plan.facts.pending_total) = pending(seen, &plan);
    // Without the pool's finalizer nothing may be made, so nothing is made again either.
    let bare = plan
        .tracks
        .iter()
        .any(|t| t.steps.contains(&Step::AddPoolFinalizer));
    for track in &mut plan.tracks {
        track.steps.retain(|s| !bare && allowed(seen, s));
    }
    plan.tracks.retain(|t| !t.steps.is_empty());
    plan.reads.clear();
    plan.orders.clear();
    plan.settles.clear();
    plan
}

fn allowed(seen: &Observed, step: &Step) -> bool {
    match step {
        Step::PatchWorkload(patch) => patch.purpose == PatchPurpose::Unfence,
        Step::CreateWorkload { .. } => seen.restore_copy.is_some(),
        Step::DropCopy { name, .. } => seen.restore_copy.as_ref().is_some_and(|c| c.name == *name),
        _ => false,
    }
}

fn pending(seen: &Observed, plan: &Plan) -> (Vec<String>, usize) {
    let going = plan
        .facts
        .draining
        .iter()
        .filter(|n| n.phase != DrainPhase::Aborted);
    let drains = going.map(|n| format!("drain {}", n.name));
    let writes = plan.tracks.iter().flat_map(|t| &t.steps).flat_map(lines);
    let profile = profile::pending_profile_changes(seen);
    let mut lines: Vec<String> = writes.chain(drains).chain(profile).collect();
    lines.dedup();
    let total = lines.len();
    let more = lines.len().saturating_sub(LINES);
    if more > 0 {
        lines.truncate(LINES - 1);
        lines.push(format!("and {} more", more + 1));
    }
    (lines, total)
}

fn lines(step: &Step) -> Vec<String> {
    match step {
        Step::AddPoolFinalizer => vec!["add the pool's finalizer".to_owned()],
        Step::CreateWorkload { .. } => vec!["create the provider StatefulSet".to_owned()],
        Step::DeleteWorkload { .. } => vec!["delete the provider StatefulSet".to_owned()],
        Step::ApplyWorkload { changes, .. } => changes.clone(),
        Step::PatchWorkload(patch) => patch.changes.clone(),
        Step::Uncordon { node, .. } => vec![format!("uncordon {node}")],
        Step::ApplyPolicy(apply) => vec![format!("apply ResourcePolicy {}", apply.policy)],
        Step::DeletePolicy { policy, .. } => vec![format!("delete ResourcePolicy {policy}")],
        Step::DeleteNode { node, .. } => vec![format!("remove Node {node}")],
        Step::LabelNode { node, .. } => vec![format!("label Node {node}")],
        _ => Vec::new(),
    }
}
