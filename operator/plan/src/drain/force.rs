//! Forced deletion at the deadline (`spec.drain.onTimeout: ForceDelete`): every pod of the node, whatever budget, stage,
//! DaemonSet or want of a controller would hold it, but for one that its controller puts there again and again. Finalizers
//! stay, and the node is still shown to be empty before it goes.

use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::EventReason;

use super::health::ProviderMark;
use super::order::{DrainOrder, EvictionCandidate};
use super::returns::Returning;
use super::{DrainPlan, Scene, candidates, signed};
use crate::finding::{EventNote, Finding};
use crate::observed::{BoundPod, NodeView, Ordinal};
use crate::plan::NodeInDrain;

/// Longest grace in seconds that a forced deletion leaves. It is also what the API server gives a pod that asks for none.
const LONGEST_GRACE: u32 = 30;

/// The pod's own grace, at most [`LONGEST_GRACE`]. Never 0: that removes the object at once and leaves the instance (P2).
pub(super) fn grace(pod: &BoundPod) -> NonZeroU32 {
    let longest = i64::from(LONGEST_GRACE);
    let own = pod.grace_seconds.unwrap_or(longest).clamp(1, longest);
    u32::try_from(own)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}

/// Not being deleted yet, or only later than a forced deletion would have it.
fn to_delete(pod: &BoundPod, now: Timestamp) -> bool {
    let by = now + SignedDuration::from_secs(i64::from(grace(pod).get()));
    pod.deletion.is_none_or(|deletion| deletion > by)
}

/// Gives the node's order and what still holds pods.
pub(super) fn order(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    node: &NodeView,
    provider: &ProviderMark,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) {
    let memory = scene.seen.memory.get(&ordinal);
    let refusals = memory.map(|m| &m.refusals);
    let mut held = candidates::Held::default();
    let mut pods: Vec<&BoundPod> = Vec::new();
    let (mut terminating, mut overdue) = (0, 0);
    let returning = Returning::of(memory, scene.seen.pods_on(ordinal), scene.now, |_| true);
    for pod in scene.seen.pods_on(ordinal) {
        let back = returning.judge(pod);
        match back.filter(|_| pod.deletion.is_none() && returning.may_be_late(pod)) {
            Some(back) if back.tried => held.beside(back, scene.now),
            Some(back) => {
                held.add(back.reason, back.object, back.message, scene.now);
                continue;
            }
            None => {}
        }
        if to_delete(pod, scene.now) {
            // What an eviction was refused for earlier holds nothing here.
            let refusal = refusals.and_then(|r| r.get(&pod.uid)).filter(|r| r.forced);
            if let Some(r) = refusal {
                held.add(r.reason, r.object.clone(), r.message.clone(), r.since);
            }
            pods.push(pod);
        } else if let Some(deletion) = pod.deletion {
            terminating += 1;
            overdue += u32::from(deletion < scene.now);
            candidates::stuck(scene.now, pod, deletion, &mut held, plan);
        }
    }
    returning.wake.into_iter().for_each(|at| plan.wake(at));
    entry.pods_blocked = i32::try_from(held.pods()).unwrap_or(i32::MAX);
    held.report(scene, plan);
    pods.sort_by_key(|p| (!p.finished(), p.daemon_set(), &p.key));
    plan.orders.push(DrainOrder {
        pods: pods
            .into_iter()
            .map(|pod| EvictionCandidate {
                pod: pod.key.clone(),
                uid: pod.uid.clone(),
                budgets: Vec::new(),
                exempt: false,
                turn_of: None,
                force: Some(grace(pod)),
            })
            .collect(),
        terminating,
        overdue,
        ..candidates::empty_order(scene, ordinal, node, provider)
    });
}

/// Tells people that pods will be deleted by force.
pub(super) fn announce(scene: &Scene<'_>, entry: &NodeInDrain, force_at: Timestamp, plan: &mut DrainPlan) {
    plan.wake(force_at);
    let timeout = scene.settings.timeout.map(signed).unwrap_or_default();
    plan.findings.push(Finding::Event(EventNote {
        reason: EventReason::ForceAnnounced,
        subject: format!("{} {}", entry.name, entry.started_at),
        note: format!(
            "the pods that are left on {} at {force_at} are deleted past budgets (spec.drain.timeoutSeconds: {}, onTimeout: \
             ForceDelete); to prevent that, raise timeoutSeconds, set onTimeout: Wait or {}",
            entry.name,
            timeout.as_secs(),
            scene.keep_hint()
        ),
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{after, now, pod};

    proptest! {
        #[test]
        fn the_grace_is_the_pods_own_within_1_and_30_seconds(own in proptest::option::of(any::<i64>())) {
            let pod = BoundPod { grace_seconds: own, ..pod("a") };
            let given = i64::from(grace(&pod).get());
            prop_assert_eq!(given, own.unwrap_or(30).clamp(1, 30));
        }
    }

    #[test]
    fn a_long_goodbye_is_shortened_once() {
        let slow = |deletion| BoundPod {
            grace_seconds: Some(3600),
            deletion,
            ..pod("a")
        };
        assert!(to_delete(&slow(None), now()));
        assert!(to_delete(&slow(Some(after(3000))), now()));
        // As it is after the second deletion.
        assert!(!to_delete(&slow(Some(after(30))), now()));
        assert!(!to_delete(&slow(Some(after(-60))), now()));
    }
}
