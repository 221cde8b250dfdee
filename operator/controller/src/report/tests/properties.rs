//! What holds for every status, whatever was found.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use vnp_crds::{BlockerReason, ConditionType, DrainPhase, Reason, VirtualNodePoolStatus};
use vnp_plan::finding::{Blocker, Finding, ProfileState, ProviderState};
use vnp_plan::plan::{Plan, TrackKind};

use crate::report::attempts::{Attempts, RefusedWrite};
use crate::report::quiet::{Verdict, verdict};
use crate::report::testing::{Story, at, in_drain, pool, settled};

const PROVIDER: [ProviderState; 4] = [
    ProviderState::Absent,
    ProviderState::Updating,
    ProviderState::ScalingUp,
    ProviderState::Unhealthy,
];
const PROFILE: [ProfileState; 4] = [
    ProfileState::Pending,
    ProfileState::Conflict,
    ProfileState::Unreadable,
    ProfileState::Rejected,
];

fn message() -> impl Strategy<Value = String> {
    "[a-d]{1,2}".prop_map(|word| format!("field {word}"))
}

fn finding() -> impl Strategy<Value = Finding> {
    let blocker = (
        select(BlockerReason::ALL),
        message(),
        0..9i32,
        proptest::option::of(0..500i64),
        message(),
        any::<bool>(),
    );
    prop_oneof![
        (select(&Reason::NOT_ACCEPTED[..]), message())
            .prop_map(|(reason, message)| Finding::Refused { reason, message }),
        (select(&PROVIDER[..]), message()).prop_map(|(state, message)| Finding::Provider { state, message }),
        (select(&PROFILE[..]), message()).prop_map(|(state, message)| Finding::Profile { state, message }),
        (select(&Reason::STALLED[..]), message())
            .prop_map(|(reason, message)| Finding::Stalled { reason, message }),
        blocker.prop_map(|(reason, object, pods, since, message, terminal)| {
            Finding::Blocker(Blocker {
                reason,
                object,
                pods,
                since: since.map(at),
                message,
                terminal,
            })
        }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let nodes = proptest::collection::vec((select(DrainPhase::ALL), 0..500i64), 0..4);
    (
        proptest::collection::vec(finding(), 0..6),
        nodes,
        proptest::option::of(0..5i32),
        0..5i32,
    )
        .prop_map(|(findings, nodes, target, count)| {
            let mut plan = Plan {
                findings,
                ..settled()
            };
            plan.facts.target = target;
            plan.facts.nodes = count;
            plan.facts.available = count;
            let nodes = nodes.into_iter().enumerate();
            plan.facts.draining = nodes
                .map(|(n, (phase, progress))| {
                    let ordinal = i32::try_from(n).unwrap_or_default();
                    vnp_plan::plan::NodeInDrain {
                        phase,
                        ..in_drain(ordinal, progress)
                    }
                })
                .collect();
            plan
        })
}

fn refused() -> impl Strategy<Value = Vec<RefusedWrite>> {
    let track = select(&[TrackKind::Pool, TrackKind::Workload, TrackKind::Drain][..]);
    proptest::collection::vec(
        (track, message()).prop_map(|(track, message)| RefusedWrite { track, message }),
        0..2,
    )
}

fn any_pool() -> impl Strategy<Value = vnp_crds::VirtualNodePool> {
    (any::<bool>(), any::<bool>()).prop_map(|(paused, deleted)| {
        let deletion = if deleted {
            json!("2027-01-15T08:00:00Z")
        } else {
            json!(null)
        };
        pool(json!({"metadata": {"deletionTimestamp": deletion}, "spec": {"paused": paused}}))
    })
}

fn is_true(status: &VirtualNodePoolStatus, type_: ConditionType) -> bool {
    status.condition(type_).is_some_and(|c| c.status == "True")
}

proptest! {
    #[test]
    fn the_same_pass_twice_writes_once(
        pool in any_pool(), plan in plan(), refused in refused(), now in 500..2000i64,
    ) {
        let mut story = Story::of(pool);
        let attempts = Attempts { done: Vec::new(), refused };
        story.pass_with(&plan, &attempts, now);
        let shown = story.observed.pool.status.clone();
        let second = story.pass_with(&plan, &attempts, now);
        prop_assert_eq!(verdict(shown.as_ref(), &second.status, None, at(now)), Verdict::Keep);
    }

    #[test]
    fn time_alone_changes_nothing_before_the_hour_that_was_named(
        pool in any_pool(), plan in plan(), now in 500..2000i64, later in 1..10_000i64,
    ) {
        let mut story = Story::of(pool);
        let first = story.pass(&plan, now);
        let shown = story.observed.pool.status.clone();
        let until = first.wake_at.map_or(i64::MAX, |wake| wake.as_second() - at(0).as_second());
        let then = story.pass(&plan, (now + later).min(until - 1).max(now));
        prop_assert_eq!(verdict(shown.as_ref(), &then.status, None, at(now + later)), Verdict::Keep);
    }

    #[test]
    fn the_order_of_findings_does_not_matter(
        pool in any_pool(), plan in plan(), now in 500..2000i64, turn in 0..6usize,
    ) {
        let mut turned = plan.clone();
        let by = turn % turned.findings.len().max(1);
        turned.findings.rotate_left(by);
        turned.findings.reverse();
        turned.facts.draining.reverse();
        let one = Story::of(pool.clone()).pass(&plan, now);
        let other = Story::of(pool).pass(&turned, now);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn working_and_stuck_are_never_both_true(pool in any_pool(), plan in plan(), now in 500..2000i64) {
        let status = Story::of(pool).pass(&plan, now).status;
        let (reconciling, stalled) =
            (is_true(&status, ConditionType::Reconciling), is_true(&status, ConditionType::Stalled));
        prop_assert!(!(reconciling && stalled));
        if is_true(&status, ConditionType::Ready) {
            prop_assert!(!reconciling && !stalled);
            prop_assert!(status.drain.is_none(), "Ready and draining");
        }
    }

    #[test]
    fn conditions_come_in_their_order_with_words_of_the_api(
        pool in any_pool(), plan in plan(), now in 500..2000i64,
    ) {
        let generation = pool.metadata.generation;
        let status = Story::of(pool).pass(&plan, now).status;
        let types: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
        let order: Vec<&str> =
            ConditionType::ALL.iter().map(|t| t.as_str()).filter(|t| types.contains(t)).collect();
        prop_assert_eq!(types, order);
        for condition in &status.conditions {
            prop_assert!(Reason::ALL.iter().any(|r| r.as_str() == condition.reason), "{}", condition.reason);
            prop_assert_eq!(condition.observed_generation, generation);
            prop_assert!(!condition.message.is_empty());
        }
        let ready = status.condition(ConditionType::Ready).unwrap();
        prop_assert!(Reason::READY.iter().any(|r| r.as_str() == ready.reason), "{}", &ready.reason);
    }
}
