//! Each state answers four questions in Ready's message: what goes on, because of what, what to do, and how long.

use serde_json::{Value, json};
use vnp_crds::{BlockerReason, ConditionType, DrainPhase, Reason};
use vnp_plan::finding::{Finding, ProviderState};
use vnp_plan::plan::Plan;

use crate::report::testing::{Story, at, blocked, draining, pool, provider, saying, settled};

/// A state with what its message has to say; an empty answer is one that the state does not need.
struct State {
    status: &'static str,
    pool: Value,
    plan: Plan,
    /// Passes over the same plan; the last one is looked at.
    seconds: &'static [i64],
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
    until: &'static str,
}

fn states() -> Vec<State> {
    let plain = || json!({});
    let drain = |settings: Value| json!({"spec": {"drain": settings}});
    let budget = || [blocked(BlockerReason::BlockedByBudget)];
    let mut coming = settled();
    coming.facts.nodes = 1;
    coming.findings = vec![Finding::Provider {
        state: ProviderState::ScalingUp,
        message:
            "virtual-node-eci-2: its provider pod is not Ready: no node takes it: 0/3 nodes are available"
                .to_owned(),
    }];
    let mut going = draining(9, []);
    going.facts.done_at = Some(at(200));
    let mut forced = draining(500, []);
    forced.facts.draining[0].force_announced = Some(at(540));
    forced.facts.draining[0].force_at = Some(at(600));
    let mut given_up = draining(0, []);
    given_up.facts.draining[0].phase = DrainPhase::Aborted;
    let mut waiting = settled();
    waiting.facts.pending_changes = vec!["replicas 3 -> 4".to_owned()];
    let reverted = Finding::Stalled {
        reason: Reason::RolloutReverted,
        message: "image vk:2 was taken back to vk:1: virtual-node-eci-2: its provider pod is not Ready: \
                  ImagePullBackOff, still not healthy after 180 seconds; correct spec.provider.image"
            .to_owned(),
    };
    let state = |status, pool, plan, seconds, [what, why, remedy, until]: [&'static str; 4]| State {
        status,
        pool,
        plan,
        seconds,
        what,
        why,
        remedy,
        until,
    };
    vec![
        state(
            "Provisioning",
            plain(),
            coming,
            &[0],
            [
                "virtual-node-eci-2",
                "0/3 nodes are available",
                "look at the provider pods in namespace kube-system",
                "Stalled at 2027-01-15T08:10:00Z",
            ],
        ),
        state(
            "NodesNotReady",
            plain(),
            saying([provider(ProviderState::Unhealthy)]),
            &[0],
            [
                "virtual-node-eci-2",
                "its Node is not Ready",
                "look at the provider pods",
                "Stalled at 2027-01-15T08:10:00Z",
            ],
        ),
        state(
            "ProviderUnavailable",
            plain(),
            draining(0, [blocked(BlockerReason::ProviderUnavailable)]),
            &[30],
            [
                "draining virtual-node-eci-2 (Evicting, 140 of 300 pods left, 10 being deleted)",
                "2 pods are held by ProviderUnavailable",
                "set spec.replicas: 3 to keep the node",
                "Stalled at 2027-01-15T08:10:00Z",
            ],
        ),
        state(
            "ProviderUnavailable",
            plain(),
            saying([provider(ProviderState::Unhealthy)]),
            &[0, 600],
            [
                "virtual-node-eci-2",
                "its Node is not Ready",
                "look at the provider pods in namespace kube-system",
                "nothing has moved since 2027-01-15T08:00:00Z",
            ],
        ),
        state(
            "RolloutReverted",
            plain(),
            saying([reverted]),
            &[0],
            [
                "image vk:2 was taken back",
                "ImagePullBackOff",
                "correct spec.provider.image",
                "after 180 seconds",
            ],
        ),
        state(
            "Draining",
            plain(),
            going,
            &[10],
            [
                "draining virtual-node-eci-2 (Evicting, 140 of 300 pods left, 10 being deleted)",
                "",
                "set spec.replicas: 3 to keep the node",
                "done by 2027-01-15T08:04:00Z",
            ],
        ),
        state(
            "DrainBlocked",
            plain(),
            draining(0, budget()),
            &[30],
            [
                "140 of 300 pods left",
                "2 pods are held by BlockedByBudget shop/checkout",
                "add replicas or relax it",
                "Stalled at 2027-01-15T08:10:00Z",
            ],
        ),
        state(
            "Draining",
            drain(json!({"timeoutSeconds": 600, "onTimeout": "ForceDelete"})),
            forced,
            &[541],
            [
                "draining virtual-node-eci-2",
                "are deleted past their budgets",
                "set spec.replicas: 3 to keep the node",
                "from 2027-01-15T08:10:00Z on",
            ],
        ),
        state(
            "DrainTimedOut",
            drain(json!({"timeoutSeconds": 600, "onTimeout": "Abort"})),
            given_up,
            &[600],
            [
                "the drain of virtual-node-eci-2 (140 of 300 pods left)",
                "took longer than spec.drain.timeoutSeconds",
                "raise timeoutSeconds",
                "until then nothing is tried again",
            ],
        ),
        state(
            "Paused",
            json!({"spec": {"paused": true}}),
            waiting,
            &[0],
            [
                "paused",
                "by spec.paused",
                "set spec.paused: false",
                "to write 1 change",
            ],
        ),
        state(
            "Deleting",
            json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}),
            draining(0, budget()),
            &[30],
            [
                "draining virtual-node-eci-2",
                "BlockedByBudget shop/checkout",
                "set spec.deletionPolicy: Retain",
                "Stalled at 2027-01-15T08:10:00Z",
            ],
        ),
        state(
            "Ready",
            plain(),
            settled(),
            &[0],
            ["3 virtual nodes", "as specified", "", ""],
        ),
    ]
}

#[test]
fn each_state_answers_what_why_what_to_do_and_how_long() {
    for state in states() {
        let mut story = Story::of(pool(state.pool.clone()));
        let mut shown = None;
        for second in state.seconds {
            shown = story
                .pass(&state.plan, *second)
                .status
                .condition(ConditionType::Ready)
                .cloned();
        }
        let ready = shown.unwrap();
        assert_eq!(ready.reason, state.status, "{}", ready.message);
        for answer in [state.what, state.why, state.remedy, state.until] {
            assert!(
                ready.message.contains(answer),
                "{} says nothing of {answer:?}: {}",
                state.status,
                ready.message
            );
        }
    }
}
