//! When the drain under way will be over, if nothing holds it up: by the pods left, the pace, the settles, and the
//! instances that the cloud has yet to delete.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{DrainPhase, Pace, Reap};

use super::memory::Departures;
use super::{DrainPlan, Scene, signed};
use crate::finding::Finding;
use crate::observed::Ordinal;
use crate::plan::NodeInDrain;

/// From the last eviction to the end of its pod. Source: the default of terminationGracePeriodSeconds.
const LEAVING: SignedDuration = SignedDuration::from_secs(30);
/// A provider's restart, until its first heartbeat.
const RESTART: SignedDuration = SignedDuration::from_secs(30);
/// How far what was told may be off before something else is told.
const SLACK: SignedDuration = SignedDuration::from_secs(15);
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// When the nodes in drain will be empty and proved so. `None` while something blocks, pods are left to finish, or there
/// is nothing left to wait for.
pub(super) fn done_at(scene: &Scene<'_>, plan: &DrainPlan) -> Option<Timestamp> {
    let blocked = plan.findings.iter().any(|f| matches!(f, Finding::Blocker(_)));
    let mut nodes = plan.nodes.iter().filter(|n| under_way(n.phase)).peekable();
    if blocked || scene.held || plan.waits_for_turn || nodes.peek().is_none() {
        return None;
    }
    let nodes: Vec<&NodeInDrain> = nodes.collect();
    let sum = |count: fn(&NodeInDrain) -> i32| nodes.iter().map(|n| i64::from(count(n))).sum::<i64>();
    let (total, remaining) = (sum(|n| n.pods_total), sum(|n| n.pods_remaining));
    let unasked = remaining - sum(|n| n.pods_terminating);

    let cordon = nodes
        .iter()
        .map(|n| cordon_left(scene, n))
        .max()
        .unwrap_or_default();
    let evicting = evictions_take(scene, unasked, total - unasked);
    let leaving = if unasked > 0 {
        LEAVING
    } else {
        nodes
            .iter()
            .map(|n| leaving_left(scene, n.ordinal))
            .max()
            .unwrap_or_default()
    };
    let restart = nodes
        .iter()
        .map(|n| restart_left(scene, n))
        .max()
        .unwrap_or_default();
    let settle = nodes
        .iter()
        .map(|n| settle_left(scene, plan, n))
        .max()
        .unwrap_or_default();
    // The settle and the cloud's queue of deletions run side by side.
    let proved = cordon + evicting + leaving + restart + settle;
    let pods = u32::try_from(remaining).unwrap_or(0);
    let queues = nodes.iter().filter_map(|n| scene.seen.memory.get(&n.ordinal));
    let queue = queues
        .map(|m| queue_left(scene, &m.departures, pods, cordon + leaving))
        .max()
        .unwrap_or_default();
    scene.now.checked_add(proved.max(queue)).ok()
}

/// Until the cloud has deleted the instances of all pods that are gone and of those that go; `first`: until the next pod
/// goes. A queue that is idle has nothing to do until then.
fn queue_left(scene: &Scene<'_>, gone: &Departures, pods: u32, first: SignedDuration) -> SignedDuration {
    let rate = f64::from(scene.settings.instance_deletes_per_second);
    let queue = gone.backlog_with(pods, rate, scene.now);
    if queue.is_zero() || !gone.idle(rate, scene.now) {
        queue
    } else {
        queue + first
    }
}

fn under_way(phase: DrainPhase) -> bool {
    match phase {
        DrainPhase::Cordoning
        | DrainPhase::Settling
        | DrainPhase::Evicting
        | DrainPhase::Reaping
        | DrainPhase::Emptying => true,
        DrainPhase::Shrinking | DrainPhase::Removing | DrainPhase::Aborted => false,
    }
}

/// What is left of the time in which the scheduler gets to see the cordon.
fn cordon_left(scene: &Scene<'_>, node: &NodeInDrain) -> SignedDuration {
    if !matches!(node.phase, DrainPhase::Cordoning | DrainPhase::Settling) {
        return SignedDuration::ZERO;
    }
    let since = scene
        .seen
        .memory
        .get(&node.ordinal)
        .and_then(|m| m.cordoned_since);
    left(
        scene,
        since.unwrap_or(scene.now),
        signed(scene.settings.cordon_settle),
    )
}

/// How long the pods take that are not evicted yet, when so many were: the first ones were, or will be, a burst. The
/// operator's own cap is taken as if no other pool drained.
fn evictions_take(scene: &Scene<'_>, unasked: i64, asked: i64) -> SignedDuration {
    let at_rate = |pods: i64, per_second: u32| {
        let seconds = f64::from(u32::try_from(pods).unwrap_or(0)) / f64::from(per_second);
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
    };
    let own = match scene.settings.pace {
        Pace::Unlimited => SignedDuration::ZERO,
        Pace::Limited => {
            let burst = (i64::from(scene.settings.burst) - asked).max(0);
            at_rate(unasked - burst, scene.settings.evictions_per_second)
        }
    };
    match scene.seen.operator.evictions_per_second {
        0 => own,
        cap => own.max(at_rate(unasked, cap)),
    }
}

/// Until the last pod that is on its way out has had its grace period.
fn leaving_left(scene: &Scene<'_>, ordinal: Ordinal) -> SignedDuration {
    let last = scene.seen.holding(ordinal).filter_map(|p| p.deletion).max();
    last.map_or(SignedDuration::ZERO, |at| {
        at.duration_since(scene.now).clamp(SignedDuration::ZERO, LEAVING)
    })
}

fn restart_left(scene: &Scene<'_>, node: &NodeInDrain) -> SignedDuration {
    if scene.settings.reap == Reap::None || node.phase == DrainPhase::Emptying {
        return SignedDuration::ZERO;
    }
    left(scene, node.empty_since.unwrap_or(scene.now), RESTART)
}

/// The rest of `spec.drain.emptySettleSeconds`, all of it for a node that is not empty yet.
fn settle_left(scene: &Scene<'_>, plan: &DrainPlan, node: &NodeInDrain) -> SignedDuration {
    let began = plan.settles.get(&node.ordinal).map(|s| s.first.taken_at());
    left(
        scene,
        began.unwrap_or(scene.now),
        signed(scene.settings.empty_settle),
    )
}

fn left(scene: &Scene<'_>, since: Timestamp, whole: SignedDuration) -> SignedDuration {
    let passed = scene.now.duration_since(since).max(SignedDuration::ZERO);
    (whole - passed).max(SignedDuration::ZERO)
}

/// What is told of an estimate: the next full minute, and the same one as before for as long as it is nearly right. A
/// drain that goes at its pace is told one time, not one after the other (P6).
pub fn told(before: Option<Timestamp>, estimate: Timestamp) -> Timestamp {
    let right = |told: &Timestamp| {
        let early = told.duration_since(estimate);
        early >= SignedDuration::ZERO && early < MINUTE + SLACK + SLACK
    };
    before.filter(right).unwrap_or_else(|| {
        let seconds = estimate.as_second().saturating_add(SLACK.as_secs());
        let minute = MINUTE.as_secs();
        let up = seconds
            .div_euclid(minute)
            .saturating_add(1)
            .saturating_mul(minute);
        Timestamp::from_second(up).unwrap_or(Timestamp::MAX)
    })
}

#[cfg(test)]
mod tests {
    use crate::drain::abort::Aborts;
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;
    use vnp_crds::BlockerReason;

    use super::*;
    use crate::drain::tests::{cordon, plan_at};
    use crate::observed::{Heartbeat, Observed};
    use crate::testing::{after, bind, now, observed, pod, pool, with_node};

    fn draining(pods: usize, drain: serde_json::Value) -> Observed {
        let mut seen = observed(pool(json!({ "replicas": 2, "drain": drain })), 3);
        bind(
            &mut seen,
            2,
            (0..pods).map(|i| pod(&format!("p-{i:04}"))).collect(),
        );
        cordon(&mut seen, 2);
        seen
    }

    fn estimate(seen: &Observed, at: i64) -> Option<Timestamp> {
        plan_at(seen, 2, after(at)).done_at
    }

    #[test]
    fn the_parts_add_up() {
        // 3,000 pods, of which 100 go at once: 145 s, 30 s to leave, 30 s restart, 30 s settle; the cloud deletes as fast.
        assert_eq!(estimate(&draining(3000, json!({})), 0), Some(after(235)));
        let cautious = json!({ "evictionsPerSecond": 10, "emptySettleSeconds": 60, "reap": "None" });
        assert_eq!(estimate(&draining(3000, cautious), 0), Some(after(380)));
        // The cloud needs 1,450 s for what is evicted within seconds.
        let slow_cloud = json!({ "pace": "Unlimited", "instanceDeletesPerSecond": 2 });
        assert_eq!(estimate(&draining(3000, slow_cloud), 0), Some(after(1480)));
    }

    #[test]
    fn the_operators_own_cap_holds_whatever_the_pool_asks_for() {
        for pace in ["Limited", "Unlimited"] {
            let mut seen = draining(3000, json!({ "pace": pace }));
            seen.operator.evictions_per_second = 10;
            // 300 s at the cap, 30 s to leave, 30 s restart, 30 s settle.
            assert_eq!(estimate(&seen, 0), Some(after(390)), "{pace}");
            seen.operator.evictions_per_second = 100;
            // At most 100 a second: the pool's own pace, or the cloud, which deletes 2,900 in 145 s after the first 30.
            let at = if pace == "Limited" { 235 } else { 175 };
            assert_eq!(estimate(&seen, 0), Some(after(at)), "{pace}");
        }
    }

    #[test]
    fn nothing_is_promised_while_something_blocks_or_pods_are_left_to_finish() {
        let mut bare = pod("bare");
        bare.controller = None;
        for policy in ["Block", "WaitForCompletion"] {
            let mut seen = draining(0, json!({ "barePods": policy }));
            bind(&mut seen, 2, vec![bare.clone(), pod("web")]);
            assert_eq!(estimate(&seen, 0), None, "{policy}");
        }
        let stages = json!({ "stages": [{ "name": "all", "waitFor": "Completion", "podSelector": {} }] });
        let plan = plan_at(&draining(5, stages), 2, now());
        assert_eq!(plan.done_at, None);
        let waits =
            |f: &Finding| matches!(f, Finding::Blocker(b) if b.reason == BlockerReason::WaitingForCompletion);
        assert!(plan.findings.iter().any(waits));
        assert_eq!(plan_at(&observed(pool(json!({})), 3), 3, now()).done_at, None);
    }

    /// A drain from its first eviction to the empty node, at the modelled rate, with passes `step` seconds apart and pods
    /// that take `leaves` seconds to go. Returns what was told, in order, without repeats.
    fn drained(pods: usize, step: usize, leaves: i64) -> Vec<Timestamp> {
        let mut seen = draining(pods, json!({}));
        let all = seen.bound[&2].clone();
        let (mut before, mut list) = (None, Vec::new());
        let asked = |t: i64| (100 + 20 * t.max(-5)).clamp(0, pods as i64) as usize;
        for t in (0..).step_by(step) {
            let gone = if t < leaves { 0 } else { asked(t - leaves) };
            let known = pods - seen.bound.get(&2).map_or(0, |p| p.len());
            for _ in known..gone {
                seen.memory.get_mut(&2).unwrap().see_departure(0, 20.0, after(t));
            }
            let mut left: Vec<_> = all[gone..].to_vec();
            for (i, pod) in left.iter_mut().enumerate().filter(|(i, _)| gone + i < asked(t)) {
                let evicted_at = ((gone + i) as i64 - 100).max(0) / 20;
                pod.deletion = Some(after(evicted_at + 30));
            }
            bind(&mut seen, 2, left.clone());
            with_node(&mut seen, 2, |n| {
                n.heartbeat = Some(Heartbeat {
                    seen_at: after(t),
                    beats: 20,
                })
            });
            if left.is_empty() {
                return list;
            }
            let mut plan = plan_at(&seen, 2, after(t));
            plan.nodes[0].pods_total = pods as i32;
            let workload = seen.workload.there().unwrap().clone();
            let scene = Scene {
                seen: &seen,
                workload: &workload,
                settings: seen.pool.spec.drain(),
                target: 2,
                held: false,
                aborts: Aborts::default(),
                now: after(t),
            };
            let said = told(before, done_at(&scene, &plan).unwrap());
            if before != Some(said) {
                list.push(said);
            }
            before = Some(said);
        }
        unreachable!()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_drain_at_its_pace_is_told_one_time(pods in 150..1500usize, step in 1..7usize, leaves in 28..32i64) {
            let said = drained(pods, step, leaves);
            prop_assert_eq!(said.len(), 1, "{:?}", said);
        }

        #[test]
        fn what_is_told_is_a_full_minute_and_jitter_does_not_change_it(
            estimate in 0..10_000i64, jitter in prop::collection::vec(-10..10i64, 1..50)
        ) {
            let first = told(None, after(estimate));
            prop_assert_eq!(first.as_second() % 60, 0);
            prop_assert!(first > after(estimate) && first <= after(estimate + 75));
            let mut seen = BTreeSet::from([first]);
            let mut before = Some(first);
            for off in jitter {
                before = Some(told(before, after(estimate + off)));
                seen.extend(before);
            }
            prop_assert_eq!(seen.len(), 1);
        }
    }
}
