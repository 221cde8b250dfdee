//! When a pod is asked for again that was not evicted.

use jiff::Timestamp;

use super::jitter::between;
use crate::drain::answer::Answer;

/// Answers that hold for every pod of a namespace.
pub(super) fn namespace_hold(answer: &Answer, namespace: &str, now: Timestamp) -> Option<Timestamp> {
    match answer {
        Answer::NamespaceTerminating | Answer::Forbidden { rbac: true, .. } => {
            Some(between(30.0, 60.0, namespace, 0, now))
        }
        _ => None,
    }
}

/// When a pod that was not evicted may be asked for again.
pub(super) fn held_until(
    answer: &Answer,
    uid: &str,
    tries: u32,
    gated: bool,
    budgets: usize,
    now: Timestamp,
) -> Timestamp {
    let doubled = |first: f64, last: f64| {
        let to = (first * f64::from(1u32 << tries.min(16))).min(last);
        between(to / 2.0, to, uid, tries, now)
    };
    match answer {
        // The gate says when.
        Answer::Budget
        | Answer::BudgetUnsynced { .. }
        | Answer::BudgetStale { .. }
        | Answer::BudgetMapFull
            if gated =>
        {
            now
        }
        Answer::SeveralBudgets if gated && budgets > 1 => now,
        // The server knows a budget that we have not seen yet, or the pod is ready by now.
        Answer::Budget
        | Answer::BudgetUnsynced { .. }
        | Answer::BudgetStale { .. }
        | Answer::BudgetMapFull => between(12.75, 15.0, uid, tries, now),
        Answer::SeveralBudgets | Answer::NamespaceTerminating => between(30.0, 60.0, uid, tries, now),
        // A webhook may refuse thousands of pods one by one; each is asked less and less.
        Answer::Forbidden { .. } => doubled(60.0, 240.0),
        Answer::BudgetRaceLost | Answer::PodRaceLost => doubled(1.0, 8.0),
        Answer::Unknown { .. } => doubled(2.0, 60.0),
        // The brake says when.
        Answer::FlowControl { .. } | Answer::Accepted | Answer::Gone | Answer::OtherUid => now,
    }
}
