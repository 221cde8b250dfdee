//! Which events a pass is worth.
//!
//! Events come from four places, each kind from one of them:
//!
//! * **The plan**, as [`Finding::Event`]: what only a decision knows. Where it speaks of a write (ScalingUp,
//!   ProviderRestarted, RolloutReverted, WorkloadRestored), the event is told only if that write was taken in the same
//!   pass, so that neither a refused write nor a pause makes it untrue. The others are told as they come:
//!   CordonContested, ForceAnnounced, ForeignScale, RaceLost, NodeAbandoned, UnknownOrdinal, ConfigWarning.
//! * **A write that was taken**: NodeRemoved, for the Node that was deleted.
//! * **A write that was refused**: ConfigWarning, for the audit trail, which no condition speaks of.
//! * **The status before and after**: DrainStarted (a new entry in `drain.nodes`), DrainCancelled (an entry went and its
//!   node stays), Drained (a new entry in `provider.retired`), NodeRemoved (an entry of a retired ordinal went with its
//!   Node), DrainTimedOut (Stalled says so now). They are told after that status was written, so a restart in between
//!   does not repeat them.
//!
//! DrainBlocked is told for each blocker while it holds the drain; [`super::told`] makes one event of that. A reason that
//! the plan tells in a pass is not told from elsewhere in the same pass.

use std::collections::BTreeSet;

use vnp_crds::{
    BlockerReason, ConditionType, DrainingNode, EventReason, Reason, RetiredOrdinal, VirtualNodePoolStatus,
};
use vnp_plan::finding::{Blocker, EventNote, Finding};
use vnp_plan::plan::TrackKind;
use vnp_plan::step::{PatchPurpose, Step};

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
    let removed = pass.attempts.done.iter().filter_map(|step| match step {
        Step::DeleteNode { node, uid } => Some(removed(node, Some(uid))),
        _ => None,
    });
    let unrecorded = pass
        .attempts
        .refused
        .iter()
        .filter(|r| r.track == TrackKind::Audit)
        .map(|r| note(EventReason::ConfigWarning, "audit trail", unrecorded(&r.message)));
    let mut all: BTreeSet<EventNote> = held_by
        .iter()
        .filter_map(of_blocker)
        .filter(untold)
        .chain(removed)
        .chain(unrecorded)
        .collect();
    all.extend(planned);
    all
}

fn unrecorded(refusal: &str) -> String {
    format!("what removed nodes held can't be recorded, and the drain goes on without: {refusal}")
}

fn planned(pass: &Pass<'_>) -> BTreeSet<EventNote> {
    let events = pass.plan.findings.iter().filter_map(|f| {
        if let Finding::Event(note) = f {
            Some(note.clone())
        } else {
            None
        }
    });
    events
        .filter(|note| is_true(note.reason, &pass.attempts.done))
        .collect()
}

/// Whether the write that an event speaks of was taken.
fn is_true(reason: EventReason, done: &[&Step]) -> bool {
    let patched = |wanted| {
        done.iter()
            .any(|s| matches!(s, Step::PatchWorkload(p) if p.purpose == wanted))
    };
    match reason {
        EventReason::ScalingUp => patched(PatchPurpose::ScaleUp),
        EventReason::RolloutReverted => patched(PatchPurpose::Revert),
        EventReason::ProviderRestarted => done.iter().any(|s| matches!(s, Step::DeleteProviderPod { .. })),
        EventReason::WorkloadRestored => done.iter().any(|s| matches!(s, Step::DropCopy { .. })),
        _ => true,
    }
}

/// The event of a blocker that holds the drain. A contested cordon has its own, which the plan tells.
pub(super) fn of_blocker(blocker: &Blocker) -> Option<EventNote> {
    let told_otherwise = blocker.reason == BlockerReason::CordonContested;
    let subject = format!("{} {}", blocker.reason, blocker.object);
    (!told_otherwise).then(|| note(EventReason::DrainBlocked, subject, blocker.to_string()))
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
        let mut text = format!(
            "draining {}: {} pods are to leave",
            node.name, node.pods_remaining
        );
        if let Some(done) = pass.done_at() {
            text.push_str(&format!("; done by {done} if nothing holds it up"));
        }
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
    if let Some(message) = timed_out(next)
        && previous.and_then(timed_out).is_none()
    {
        all.insert(note(EventReason::DrainTimedOut, "DrainTimedOut", message));
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

/// The Node, not the one drain of it: a target that moves up and down every second is told once.
fn drain_key(node: &DrainingNode) -> String {
    format!("{} {}", node.name, node.uid.as_deref().unwrap_or_default())
}

fn timed_out(status: &VirtualNodePoolStatus) -> Option<&str> {
    let stalled = status.condition(ConditionType::Stalled)?;
    (stalled.reason == Reason::DrainTimedOut.as_str()).then_some(stalled.message.as_str())
}
