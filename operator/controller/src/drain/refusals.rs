//! What the last evictions were answered, for the status.

use std::collections::HashSet;

use jiff::Timestamp;
use vnp_crds::BlockerReason;
use vnp_plan::drain::answer::Answer;
use vnp_plan::drain::memory::{DrainMemory, Refusal};
use vnp_plan::drain::order::{DrainOrder, EvictionCandidate};

use crate::observe::memory::DrainMemories;

/// Forgets refusals of pods that are not offered any more.
pub(super) fn keep_offered(memories: &DrainMemories, pool_uid: &str, order: &DrainOrder) {
    let offered: HashSet<&str> = order.pods.iter().map(|p| p.uid.as_str()).collect();
    memories.with(pool_uid, order.ordinal, |memory| {
        memory.refusals.retain(|uid, _| offered.contains(uid.as_str()));
    });
}

/// Notes an answer. True when what is to be told changed.
pub(super) fn note(
    memory: &mut DrainMemory,
    pod: &EvictionCandidate,
    answer: &Answer,
    now: Timestamp,
) -> bool {
    let before = memory.refusals.len();
    if answer.settled() {
        memory.refusals.remove(&pod.uid);
    }
    if *answer == Answer::Accepted {
        // The server accepts again, and under these budgets: what was refused for the same cause is free as well.
        let budgets: Vec<String> = pod.asked().iter().map(ToString::to_string).collect();
        memory.refusals.retain(|_, refusal| match refusal.reason {
            BlockerReason::Throttled => false,
            BlockerReason::BlockedByBudget => !budgets.contains(&refusal.object),
            // The namespace as a whole was refused, and is not any more.
            BlockerReason::EvictionForbidden => refusal.object != pod.pod.namespace,
            _ => true,
        });
    }
    let removed = memory.refusals.len() < before;
    let Some((reason, object, message)) = answer.blocker(pod) else {
        return removed;
    };
    let known = memory.refusals.get(&pod.uid);
    let same = known.is_some_and(|k| k.reason == reason && k.object == object);
    let since = known.filter(|_| same).map_or(now, |k| k.since);
    let refusal = Refusal {
        reason,
        object,
        message,
        forced: pod.force.is_some(),
        since,
    };
    if known == Some(&refusal) {
        return removed;
    }
    memory.refusals.insert(pod.uid.clone(), refusal);
    true
}

#[cfg(test)]
mod tests {
    use vnp_plan::observed::ObjectKey;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn pod(name: &str) -> EvictionCandidate {
        EvictionCandidate {
            pod: key(name),
            uid: name.into(),
            budgets: vec![key("web")],
            exempt: false,
            turn_of: None,
            force: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_same_refusal_is_told_once_and_keeps_its_time() {
        let mut memory = DrainMemory::default();
        assert!(note(&mut memory, &pod("a"), &Answer::Budget, at(0)));
        assert!(!note(&mut memory, &pod("a"), &Answer::Budget, at(30)));
        assert_eq!(memory.refusals["a"].since, at(0));
        assert!(note(
            &mut memory,
            &pod("a"),
            &Answer::NamespaceTerminating,
            at(60)
        ));
        assert_eq!(memory.refusals["a"].since, at(60));
    }

    #[test]
    fn a_pod_that_goes_frees_those_refused_under_its_budget() {
        let mut memory = DrainMemory::default();
        note(&mut memory, &pod("a"), &Answer::Budget, at(0));
        note(
            &mut memory,
            &pod("b"),
            &Answer::FlowControl { retry_after: None },
            at(0),
        );
        note(
            &mut memory,
            &pod("c"),
            &Answer::Forbidden {
                rbac: false,
                by: None,
                text: "no".into(),
            },
            at(0),
        );
        assert!(note(&mut memory, &pod("d"), &Answer::Accepted, at(1)));
        assert_eq!(memory.refusals.keys().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_permission_that_is_back_frees_the_namespace() {
        let mut memory = DrainMemory::default();
        let forbidden = |rbac| Answer::Forbidden {
            rbac,
            by: None,
            text: "no".into(),
        };
        note(&mut memory, &pod("a"), &forbidden(true), at(0));
        note(&mut memory, &pod("b"), &forbidden(false), at(0));
        assert!(note(&mut memory, &pod("c"), &Answer::Accepted, at(1)));
        assert_eq!(memory.refusals.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_passes_by_itself_is_not_told() {
        let mut memory = DrainMemory::default();
        for answer in [
            Answer::BudgetRaceLost,
            Answer::PodRaceLost,
            Answer::Unknown { text: String::new() },
        ] {
            assert!(!note(&mut memory, &pod("a"), &answer, at(0)));
        }
        assert!(memory.refusals.is_empty());
    }
}
