//! Which events a pass is worth.
//!
//! Events come from three places, each kind from one of them:
//!
//! * **The plan**, as [`Finding::Event`]: what only a decision knows. Where it speaks of a write (ScalingUp,
//!   RolloutReverted, WorkloadRestored), the event is told only if that write was taken in the same
//!   pass, so that neither a refused write nor a pause makes it untrue. The others are told as they come:
//!   ProviderRestarted, CordonContested, ForceAnnounced, ForeignScale, RaceLost, NodeAbandoned, UnknownOrdinal, ConfigWarning.
//! * **A write that was refused**: ConfigWarning, for the audit trail, which no condition speaks of.
//! * **The status before and after**: DrainStarted (a new entry in `drain.nodes`, past the settle), DrainCancelled (an entry went and its
//!   node stays), Drained (a new entry in `provider.retired` of a node without pods), NodeRemoved (an entry of a retired ordinal went with its
//!   Node: an answered DELETE is none yet, a finalizer may hold the Node), DrainTimedOut (Stalled says so now), Conflict, InvalidSpec and ProfileUnreadable (a condition is False with
//!   that reason now), ForceDeleted (with Drained, when pods were deleted by force). They are told after that status was written, so a restart in between
//!   does not repeat them.
//!
//! DrainBlocked is told for each reason while it holds the drain; [`super::told`] makes one event of that. A reason that
//! the plan tells in a pass is not told from elsewhere in the same pass.

use std::collections::{BTreeMap, BTreeSet};

use vnp_crds::{
    BlockerReason, ConditionType, DrainPhase, DrainingNode, EventReason, Reason, RetiredOrdinal,
    VirtualNodePoolStatus,
};
use vnp_plan::drain::audit::AUDIT_PREFIX;
use vnp_plan::finding::{Blocker, EventNote, Finding};
use vnp_plan::observed::Ordinal;
use vnp_plan::plan::TrackKind;
use vnp_plan::step::{PatchPurpose, Step};
use vnp_plan::wording::counted;

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
    let unrecorded = pass
        .attempts
        .refused
        .iter()
        .filter(|r| r.track == TrackKind::Audit)
        .map(|r| note(EventReason::ConfigWarning, "audit trail", unrecorded(&r.message)));
    let mut all: BTreeSet<EventNote> = of_blockers(held_by)
        .into_iter()
        .filter(untold)
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
        EventReason::RolloutReverted => {
            let applied = |s: &&Step| matches!(s, Step::ApplyWorkload { purpose, .. } if *purpose == PatchPurpose::Revert);
            patched(PatchPurpose::Revert) || done.iter().any(applied)
        }
        EventReason::WorkloadRestored => done.iter().any(|s| matches!(s, Step::DropCopy { .. })),
        _ => true,
    }
}

/// The events of the blockers that hold the drain: one for each reason, whose objects are of one kind. What is held by three
/// hundred budgets, or by as many pods that don't go, is told once. A contested cordon has its own, which the plan tells.
pub(super) fn of_blockers(held_by: &[Blocker]) -> Vec<EventNote> {
    let told_otherwise = |b: &Blocker| b.reason == BlockerReason::CordonContested && b.terminal;
    let mut by_reason: BTreeMap<BlockerReason, (&Blocker, usize)> = BTreeMap::new();
    for blocker in held_by.iter().filter(|b| !told_otherwise(b)) {
        by_reason.entry(blocker.reason).or_insert((blocker, 0)).1 += 1;
    }
    let event = |(reason, (first, count)): (BlockerReason, (&Blocker, usize))| {
        let text = match count {
            1 => first.to_string(),
            _ => format!(
                "{first}; {} more of that reason in status.drain.blockers",
                count - 1
            ),
        };
        note(EventReason::DrainBlocked, reason.to_string(), text)
    };
    by_reason.into_iter().map(event).collect()
}

/// What the change from one written status to the next is worth.
pub(super) fn between(pass: &Pass<'_>, next: &VirtualNodePoolStatus) -> BTreeSet<EventNote> {
    let previous = pass.previous();
    let planned = planned(pass);
    let mut all = BTreeSet::new();
    let before = previous.map(draining).unwrap_or_default();
    let after = draining(next);

    // A Node that only has to be removed may have been left out of the list before, and what is given up does not start.
    let leaving = |n: &DrainingNode| {
        let over = [DrainPhase::Shrinking, DrainPhase::Removing, DrainPhase::Aborted];
        over.contains(&n.phase)
    };
    let told = |n: &DrainingNode| {
        let known = previous.filter(|status| before.iter().any(|k| same_drain(k, n) && begun(status, k)));
        known.is_some()
    };
    for node in after.iter().filter(|n| !leaving(n) && begun(next, n) && !told(n)) {
        let mut text = format!(
            "draining {} with {} on it",
            node.name,
            counted(node.pods_remaining, "pod")
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
        match (retired, there, wanted(pass, node.ordinal)) {
            (true, false, _) => {
                all.insert(removed(&node.name, node.uid.as_deref()));
            }
            (false, true, Some(target)) => {
                let text = format!(
                    "{} stays with {} on it, because the pool wants {}",
                    node.name,
                    counted(pass.observed.holding(node.ordinal).count(), "pod"),
                    counted(target, "node")
                );
                let key = match previous {
                    Some(status) if begun(status, node) => drain_key(node),
                    _ => format!("{} {}", node.name, node.uid.as_deref().unwrap_or_default()),
                };
                all.insert(note(EventReason::DrainCancelled, key, text));
            }
            // Taken away while its Node waits to be deleted, gone without ever having been up, or not drained just now
            // though nobody wants it.
            (true, true, _) | (false, false, _) | (false, true, None) => {}
        }
    }
    let known = previous.map(retired).unwrap_or_default();
    // Whoever lowered the count: of an ordinal that went with its pods the plan tells.
    let empty = |r: &&RetiredOrdinal| pass.observed.holding(r.ordinal).next().is_none();
    for entry in retired(next)
        .iter()
        .filter(|r| !r.abandoned && !known.iter().any(|k| k.ordinal == r.ordinal && k.time == r.time))
        .filter(empty)
    {
        let name = pass.observed.node_name(entry.ordinal);
        let text = format!("{name} holds no pod any more, and the workload no longer counts its provider");
        let subject = format!("{name} {}", entry.time.0);
        let drain = before.iter().find(|n| n.ordinal == entry.ordinal);
        let forced = drain.and_then(|drain| forced(pass, drain));
        all.extend(forced.map(|text| note(EventReason::ForceDeleted, subject.clone(), text)));
        all.insert(note(EventReason::Drained, subject, text));
    }
    if let Some(message) = timed_out(next)
        && previous.and_then(timed_out).is_none()
    {
        // Each drain may time out once.
        let drains: Vec<String> = after.iter().map(drain_key).collect();
        let subject = format!("DrainTimedOut {}", drains.join(", "));
        all.insert(note(EventReason::DrainTimedOut, subject, message));
    }
    all.extend(refusals(previous, next));
    all.retain(|n| !planned.iter().any(|p| p.reason == n.reason));
    all
}

/// What forced deletion did to the pods of a node that is empty now.
fn forced(pass: &Pass<'_>, drain: &DrainingNode) -> Option<String> {
    let since = drain.force_delete_time.as_ref()?.0;
    if drain.empty_since.as_ref().is_some_and(|empty| empty.0 < since) {
        return None;
    }
    let trail = pass.observed.audit.as_ref();
    let uid = drain.uid.as_deref().unwrap_or_default();
    let deleted = trail.and_then(|t| t.deleted_since(&drain.name, uid, drain.started_at.0, since));
    let record = format!("see ConfigMap {AUDIT_PREFIX}{}", pass.observed.pool_name());
    let why = format!("spec.drain.onTimeout is ForceDelete and its deadline was {since}");
    match deleted {
        Some(0) => None,
        Some(pods) => Some(format!(
            "{} of {} {} deleted past their budgets: {why}; {record}",
            counted(pods, "pod"),
            drain.name,
            if pods == 1 { "was" } else { "were" }
        )),
        None => Some(format!(
            "pods of {} may have been deleted past their budgets, how many was not recorded: {why}; {record}",
            drain.name
        )),
    }
}

/// The target, when the ordinal is below it.
fn wanted(pass: &Pass<'_>, ordinal: Ordinal) -> Option<i32> {
    let first = pass.observed.held_workload().map_or(0, |w| w.start_ordinal());
    pass.plan
        .facts
        .target
        .filter(|target| ordinal < first.saturating_add(*target))
}

/// What the pool asks for and does not get, when that is said for another reason than before.
fn refusals(
    previous: Option<&VirtualNodePoolStatus>,
    next: &VirtualNodePoolStatus,
) -> impl Iterator<Item = EventNote> {
    let asked = [
        ConditionType::Accepted,
        ConditionType::ProfileSynced,
        ConditionType::WebhookReady,
        ConditionType::SchedulingReady,
    ];
    asked.into_iter().filter_map(move |type_| {
        let said = next.condition(type_).filter(|c| c.status == "False")?;
        let before = previous.and_then(|status| status.condition(type_));
        if before.is_some_and(|c| c.status == said.status && c.reason == said.reason) {
            return None;
        }
        let reason = match said.reason.as_str() {
            exact if exact == Reason::Conflict.as_str() => EventReason::Conflict,
            exact if exact == Reason::ProfileUnreadable.as_str() => EventReason::ProfileUnreadable,
            _ if type_ == ConditionType::Accepted => EventReason::InvalidSpec,
            _ => return None,
        };
        let text = match reason {
            EventReason::InvalidSpec => format!("{}: {}", said.reason, said.message),
            _ => said.message.clone(),
        };
        Some(note(reason, format!("{type_} {}", said.reason), text))
    })
}

fn removed(node: &str, uid: Option<&str>) -> EventNote {
    let subject = format!("{node} {}", uid.unwrap_or_default());
    note(EventReason::NodeRemoved, subject, format!("{node} is gone"))
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

/// The drain is past the cordon's settle, or something holds it. A target that moves up and down every second gets no
/// drain that far.
fn begun(status: &VirtualNodePoolStatus, node: &DrainingNode) -> bool {
    let held = status
        .drain
        .as_ref()
        .is_some_and(|drain| !drain.blockers.is_empty());
    held || !matches!(node.phase, DrainPhase::Cordoning | DrainPhase::Settling)
}

/// This one drain of the Node: each has its start and its end.
fn drain_key(node: &DrainingNode) -> String {
    let uid = node.uid.as_deref().unwrap_or_default();
    format!("{} {uid} {}", node.name, node.started_at.0)
}

fn timed_out(status: &VirtualNodePoolStatus) -> Option<&str> {
    let stalled = status.condition(ConditionType::Stalled)?;
    (stalled.reason == Reason::DrainTimedOut.as_str()).then_some(stalled.message.as_str())
}
