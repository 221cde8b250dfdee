//! Which events a pass is worth.
//!
//! Events come from three places, each kind from one of them:
//!
//! * **The plan**, as [`Finding::Event`]: what only a decision knows. CordonContested, ForceAnnounced, ForeignScale,
//!   RaceLost, NodeAbandoned, UnknownOrdinal, ConfigWarning; ProviderRestarted where it restarts to reap.
//! * **Writes that were taken**: ScalingUp, WorkloadRestored, and ProviderRestarted or RolloutReverted when the plan told
//!   none.
//! * **The status before and after**: DrainStarted (a new entry in `drain.nodes`), DrainCancelled (an entry went and its
//!   node stays), Drained (a new entry in `provider.retired`), NodeRemoved (an entry of a retired ordinal went with its
//!   Node), DrainTimedOut and RolloutReverted (Stalled says so now). They are told after that status was written, so a
//!   restart in between does not repeat them.
//!
//! DrainBlocked is told for each blocker while it holds the drain; [`super::told`] makes one event of that. A reason that
//! the plan tells in a pass is never told from elsewhere in the same pass.

use std::collections::BTreeSet;

use vnp_crds::{
    BlockerReason, ConditionType, DrainingNode, EventReason, Reason, RetiredOrdinal, VirtualNodePoolStatus,
};
use vnp_plan::finding::{Blocker, EventNote, Finding};
use vnp_plan::step::{PatchPurpose, RestartReason, Step};

use super::situation::Pass;

fn note(reason: EventReason, subject: impl Into<String>, note: impl Into<String>) -> EventNote {
    EventNote {
        reason,
        subject: subject.into(),
        note: note.into(),
    }
}

/// What the plan tells, what was done, and what holds the drain.
pub(super) fn at_once(pass: &Pass<'_>, held_by: &[Blocker]) -> BTreeSet<EventNote> {
    let planned = planned(pass);
    let untold = |n: &EventNote| !planned.iter().any(|p| p.reason == n.reason);
    let done = pass
        .attempts
        .done
        .iter()
        .filter_map(|step| of_step(pass, step))
        .filter(untold);
    let blocked = held_by.iter().filter_map(of_blocker).filter(untold);
    let mut all: BTreeSet<EventNote> = done.chain(blocked).collect();
    all.extend(planned);
    all
}

fn planned(pass: &Pass<'_>) -> BTreeSet<EventNote> {
    let events = pass.plan.findings.iter();
    events
        .filter_map(|f| {
            if let Finding::Event(note) = f {
                Some(note.clone())
            } else {
                None
            }
        })
        .collect()
}

/// The event of a blocker that holds the drain. A contested cordon has its own, which the plan tells.
pub(super) fn of_blocker(blocker: &Blocker) -> Option<EventNote> {
    let told_otherwise = blocker.reason == BlockerReason::CordonContested;
    let subject = format!("{} {}", blocker.reason, blocker.object);
    (!told_otherwise).then(|| note(EventReason::DrainBlocked, subject, blocker.to_string()))
}

fn of_step(pass: &Pass<'_>, step: &Step) -> Option<EventNote> {
    match step {
        Step::PatchWorkload(patch) => match patch.purpose {
            PatchPurpose::ScaleUp => {
                let change = patch.changes.join(", ");
                Some(note(EventReason::ScalingUp, change.as_str(), change.as_str()))
            }
            PatchPurpose::Revert => {
                let change = patch.changes.join(", ");
                Some(note(
                    EventReason::RolloutReverted,
                    change.as_str(),
                    change.as_str(),
                ))
            }
            _ => None,
        },
        Step::CreateWorkload { .. } => {
            let copy = pass.observed.restore_copy.as_ref()?;
            let text =
                "the workload was deleted by somebody and is back as it was, with the same provider pods";
            Some(note(EventReason::WorkloadRestored, copy.uid.as_str(), text))
        }
        Step::DeleteProviderPod { pod, uid, why } => {
            let text = match why {
                RestartReason::Reap => {
                    format!("provider pod {pod} is restarted to remove instances it may have forgotten")
                }
                RestartReason::Revert => {
                    format!("provider pod {pod} is restarted with the template before the change")
                }
            };
            Some(note(EventReason::ProviderRestarted, uid.as_str(), text))
        }
        Step::DeleteNode { node, uid } => Some(removed(node, Some(uid))),
        _ => None,
    }
}

/// What the change from one written status to the next is worth.
pub(super) fn between(pass: &Pass<'_>, next: &VirtualNodePoolStatus) -> BTreeSet<EventNote> {
    let previous = pass.previous();
    let planned = planned(pass);
    let mut all = BTreeSet::new();
    let before = previous.map(draining).unwrap_or_default();
    let after = draining(next);

    for node in after
        .iter()
        .filter(|n| !before.iter().any(|known| same_drain(known, n)))
    {
        let text = format!(
            "draining {}: {} pods are to leave",
            node.name, node.pods_remaining
        );
        all.insert(note(EventReason::DrainStarted, drain_key(node), text));
    }
    for node in before
        .iter()
        .filter(|n| !after.iter().any(|left| left.ordinal == n.ordinal))
    {
        let retired = retired(next)
            .iter()
            .any(|r| r.ordinal == node.ordinal && r.time >= node.started_at);
        let there = pass.observed.nodes.contains_key(&node.ordinal);
        match (retired, there) {
            (true, false) => {
                all.insert(removed(&node.name, node.uid.as_deref()));
            }
            (false, true) => {
                let text = format!(
                    "{} stays: its drain ended with {} pods on it",
                    node.name, node.pods_remaining
                );
                all.insert(note(EventReason::DrainCancelled, drain_key(node), text));
            }
            // Taken away while its Node waits to be deleted, or gone without ever having been up.
            (true, true) | (false, false) => {}
        }
    }
    let known = previous.map(retired).unwrap_or_default();
    for entry in retired(next)
        .iter()
        .filter(|r| !r.abandoned && !known.contains(r))
    {
        let name = pass.observed.node_name(entry.ordinal);
        let text = format!("{name} holds no pod any more and its provider is taken away");
        all.insert(note(
            EventReason::Drained,
            format!("{name} {}", entry.time.0),
            text,
        ));
    }
    for (reason, event) in [
        (Reason::DrainTimedOut, EventReason::DrainTimedOut),
        (Reason::RolloutReverted, EventReason::RolloutReverted),
    ] {
        if let Some(message) = stalled_by(next, reason)
            && previous.and_then(|status| stalled_by(status, reason)).is_none()
        {
            all.insert(note(event, reason.as_str(), message));
        }
    }
    all.retain(|n| !planned.iter().any(|p| p.reason == n.reason));
    all
}

fn removed(node: &str, uid: Option<&str>) -> EventNote {
    let subject = format!("{node} {}", uid.unwrap_or_default());
    note(EventReason::NodeRemoved, subject, format!("{node} is removed"))
}

fn draining(status: &VirtualNodePoolStatus) -> &[DrainingNode] {
    status.drain.as_ref().map_or(&[], |drain| &drain.nodes)
}

fn retired(status: &VirtualNodePoolStatus) -> &[RetiredOrdinal] {
    status.provider.as_ref().map_or(&[], |provider| &provider.retired)
}

fn same_drain(a: &DrainingNode, b: &DrainingNode) -> bool {
    a.ordinal == b.ordinal && a.started_at == b.started_at
}

fn drain_key(node: &DrainingNode) -> String {
    format!("{} {}", node.name, node.started_at.0)
}

fn stalled_by(status: &VirtualNodePoolStatus, reason: Reason) -> Option<&str> {
    let stalled = status.condition(ConditionType::Stalled)?;
    (stalled.reason == reason.as_str()).then_some(stalled.message.as_str())
}
