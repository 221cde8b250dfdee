//! Ready's message of a drain: what, where, how many, because of what, what to do, until when.

use serde_json::json;
use vnp_crds::{BlockerReason, ConditionType, DrainPhase, LimitedBy};
use vnp_plan::finding::{Finding, ProviderState};
use vnp_plan::observed::{CordonOwner, NodeView, Workload};
use vnp_plan::plan::NodeInDrain;

use crate::report::status::Report;
use crate::report::testing::{
    Story, at, blocked, draining, in_drain, pool, provider, saying, settled, workload,
};

fn ready(report: &Report) -> &str {
    &report.status.condition(ConditionType::Ready).unwrap().message
}

#[test]
fn draining_and_blocked_have_one_shape() {
    let mut story = Story::of(pool(json!({"spec": {"drain": {"progressDeadlineSeconds": 60}}})));
    let mut plan = draining(100, []);
    plan.facts.done_at = Some(at(400));
    let where_ = "draining virtual-node-eci-2 (Evicting, 140 of 300 pods left, 10 being deleted); ";
    let keep = "set spec.replicas: 3 to keep the node; ";
    let report = story.pass(&plan, 101);
    let done = "done by 2027-01-15T08:07:00Z if nothing holds it up";
    assert_eq!(ready(&report), format!("{where_}{keep}{done}"));
    let plan = draining(100, [blocked(BlockerReason::BlockedByBudget)]);
    let held = "2 pods are held by BlockedByBudget shop/checkout: no disruption is allowed; add replicas or relax it; ";
    let report = story.pass(&plan, 103);
    let until = "Stalled at 2027-01-15T08:02:40Z unless a pod leaves before";
    assert_eq!(ready(&report), format!("{where_}{held}{keep}{until}"));
    // Without a pod that could leave, only what holds can end.
    let mut empty = blocked(BlockerReason::FinalizerHolds);
    if let Finding::Blocker(blocker) = &mut empty {
        blocker.pods = 0;
    }
    let lasts = Story::of(pool(json!({"spec": {"drain": {"progressDeadlineSeconds": 60}}})))
        .pass(&draining(100, [empty]), 110);
    assert!(
        ready(&lasts).ends_with("; Stalled at 2027-01-15T08:02:40Z if that lasts"),
        "{}",
        ready(&lasts)
    );
    // Past the deadline Stalled says the same as Ready.
    let report = story.pass(&plan, 160);
    let stalled = &report.status.condition(ConditionType::Stalled).unwrap().message;
    let since = "no pod has left since 2027-01-15T08:01:40Z";
    assert_eq!(ready(&report), format!("{where_}{held}{keep}{since}"));
    assert_eq!(stalled, ready(&report));
}

#[test]
fn a_node_that_is_taken_away_can_t_be_kept_and_a_deleted_pool_says_how_to_let_it_go() {
    let mut plan = draining(0, []);
    plan.facts.draining[0].phase = DrainPhase::Removing;
    plan.facts.draining[0].pods_remaining = 0;
    let report = Story::of(pool(json!({}))).pass(&plan, 1);
    assert_eq!(
        ready(&report),
        "draining virtual-node-eci-2 (Removing, no pod left)"
    );
    let deleted = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let report = Story::of(pool(deleted)).pass(&draining(0, []), 1);
    let message = ready(&report);
    assert!(
        message.contains("set spec.deletionPolicy: Retain to let the nodes go as they are"),
        "{message}"
    );
    assert!(!message.contains("to keep the node"), "{message}");
}

#[test]
fn the_time_of_a_forced_deletion_comes_first_whatever_holds_the_drain() {
    let force = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "ForceDelete"}}});
    for findings in [vec![], vec![blocked(BlockerReason::BlockedByBudget)]] {
        let mut story = Story::of(pool(force.clone()));
        let mut plan = draining(500, findings);
        let report = story.pass(&plan, 510);
        let ahead = "spec.drain.timeoutSeconds ends at 2027-01-15T08:10:00Z: then the pods left are deleted past their budgets";
        assert!(ready(&report).ends_with(ahead), "{}", ready(&report));
        plan.facts.draining[0].force_announced = Some(at(540));
        plan.facts.draining[0].force_at = Some(at(600));
        let report = story.pass(&plan, 541);
        let first = "from 2027-01-15T08:10:00Z on the pods left on virtual-node-eci-2 are deleted past their budgets; \
                     set spec.drain.onTimeout: Wait to prevent that; draining";
        assert!(ready(&report).starts_with(first), "{}", ready(&report));
        let report = story.pass(&plan, 544);
        assert!(!ready(&report).contains("Stalled at"), "{}", ready(&report));
        assert!(!ready(&report).contains(ahead), "{}", ready(&report));
        let node = &report.status.drain.as_ref().unwrap().nodes[0];
        assert_eq!(node.force_delete_time.as_ref().unwrap().0, at(600));
    }
}

#[test]
fn deadlines_are_told_before_they_come() {
    for (on_timeout, then) in [
        ("Wait", "then it is Stalled and goes on"),
        ("Abort", "then the node is kept"),
    ] {
        let drain = json!({"timeoutSeconds": 600, "onTimeout": on_timeout});
        let mut story = Story::of(pool(json!({"spec": {"drain": drain}})));
        let report = story.pass(&draining(0, []), 1);
        let told = format!("spec.drain.timeoutSeconds ends at 2027-01-15T08:10:00Z: {then}");
        assert!(ready(&report).ends_with(&told), "{}", ready(&report));
        assert_eq!(report.wake_at, Some(at(600)));
        let report = story.pass(&draining(0, []), 600);
        assert!(
            !ready(&report).contains("timeoutSeconds ends"),
            "{}",
            ready(&report)
        );
    }
}

#[test]
fn nothing_is_not_what_limits_a_drain_that_something_holds() {
    for (reason, expected) in [
        (BlockerReason::BlockedByBudget, LimitedBy::Budget),
        (BlockerReason::MultipleBudgets, LimitedBy::Budget),
        (BlockerReason::BarePods, LimitedBy::Blocker),
        (BlockerReason::ProviderUnavailable, LimitedBy::Blocker),
    ] {
        for planned in [None, Some(LimitedBy::Nothing), Some(LimitedBy::Settle)] {
            let mut plan = draining(0, [blocked(reason)]);
            plan.facts.limited_by = planned;
            let report = Story::of(pool(json!({}))).pass(&plan, 30);
            assert_eq!(
                report.status.drain.unwrap().limited_by,
                expected,
                "{reason} {planned:?}"
            );
        }
    }
    // Others leave at full speed beside what is held.
    for (blocked_pods, seconds, expected) in [
        (1, 1, LimitedBy::Nothing),
        (3, 1, LimitedBy::Blocker),
        (1, 30, LimitedBy::Blocker),
    ] {
        let mut plan = draining(0, [blocked(BlockerReason::BarePods)]);
        plan.facts.limited_by = Some(LimitedBy::Nothing);
        let node = &mut plan.facts.draining[0];
        (node.pods_remaining, node.pods_terminating, node.pods_blocked) = (3, 0, blocked_pods);
        let report = Story::of(pool(json!({}))).pass(&plan, seconds);
        assert_eq!(
            report.status.drain.unwrap().limited_by,
            expected,
            "{blocked_pods} after {seconds} s"
        );
    }
    let mut plan = draining(0, [blocked(BlockerReason::BarePods)]);
    plan.facts.limited_by = Some(LimitedBy::Rate);
    let report = Story::of(pool(json!({}))).pass(&plan, 1);
    assert_eq!(report.status.drain.unwrap().limited_by, LimitedBy::Rate);
}

#[test]
fn a_drain_that_was_given_up_keeps_its_last_blockers_and_leaves_no_pods_to_go() {
    let abort = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "Abort"}}});
    let mut story = Story::of(pool(abort));
    story.pass(&draining(0, [blocked(BlockerReason::BlockedByBudget)]), 30);
    let mut plan = draining(0, []);
    plan.facts.draining[0].phase = DrainPhase::Aborted;
    for second in [600, 700] {
        let report = story.pass(&plan, second);
        let drain = report.status.drain.clone().unwrap();
        assert_eq!(drain.summary, "");
        assert_eq!(drain.blockers[0].object, "shop/checkout");
        let message = ready(&report);
        assert!(
            message.starts_with("the drain of virtual-node-eci-2 (140 of 300 pods left) took longer"),
            "{message}"
        );
        assert!(
            message.contains("it was held by BlockedByBudget shop/checkout: no disruption"),
            "{message}"
        );
        story.restart();
    }
    // Another node that drains counts again, and what held the first one is the past.
    plan.facts.draining.push(in_drain(1, 700));
    let drain = story.pass(&plan, 710).status.drain.unwrap();
    assert_eq!((drain.summary.as_str(), drain.blockers.len()), ("280/600", 0));
}

#[test]
fn of_a_node_that_is_not_drained_yet_nobody_says_when_a_pod_left_it() {
    let mut plan = saying([blocked(BlockerReason::InsufficientCapacity)]);
    (plan.facts.target, plan.facts.nodes) = (Some(2), 3);
    let mut story = Story::of(pool(json!({})));
    story.pass(&plan, 0);
    let report = story.pass(&plan, 700);
    let stalled = report.status.condition(ConditionType::Stalled).unwrap();
    assert!(
        stalled.message.contains("the drain has not begun"),
        "{}",
        stalled.message
    );
    assert!(
        !stalled.message.contains("no pod has left"),
        "{}",
        stalled.message
    );
}

#[test]
fn a_paused_pool_says_how_to_go_on_and_how_much_waits() {
    let mut plan = settled();
    plan.facts.pending_changes = vec!["replicas 3 -> 4".to_owned(); 3];
    let report = Story::of(pool(json!({"spec": {"paused": true}}))).pass(&plan, 0);
    assert_eq!(
        ready(&report),
        "paused by spec.paused; set spec.paused: false to write 3 changes, which status.pendingChanges lists"
    );
    plan.facts.draining = vec![in_drain(2, 0)];
    let report = Story::of(pool(json!({"spec": {"paused": true}}))).pass(&plan, 0);
    assert_eq!(
        ready(&report),
        "paused by spec.paused; the drain of virtual-node-eci-2 waits; set spec.paused: false to write 3 changes, which \
         status.pendingChanges lists"
    );
    plan.facts.draining.clear();
    plan.facts.pending_total = 14;
    let annotated = json!({"metadata": {"annotations": {(vnp_crds::PAUSED_ANNOTATION): "true"}}});
    let report = Story::of(pool(annotated)).pass(&plan, 0);
    assert_eq!(
        ready(&report),
        "paused by annotation virtualnodes.dev/paused; remove annotation virtualnodes.dev/paused to write 14 changes, \
         which status.pendingChanges lists"
    );
}

#[test]
fn providers_that_come_up_say_where_to_look_and_until_when() {
    let mut story = Story::of(pool(json!({})));
    let plan = saying([provider(vnp_plan::finding::ProviderState::Unhealthy)]);
    let report = story.pass(&plan, 0);
    assert_eq!(
        ready(&report),
        "virtual-node-eci-2: its Node is not Ready; look at the provider pods in namespace kube-system; Stalled at \
         2027-01-15T08:10:00Z if nothing moves"
    );
    let refused = Finding::Refused {
        reason: vnp_crds::Reason::InvalidSpec,
        message: "field x".to_owned(),
    };
    assert_eq!(ready(&story.pass(&saying([refused]), 1)), "InvalidSpec: field x");
}

/// Only as many nodes as `maxConcurrentNodes` drain at once, from the top: those between them and the target go later.
#[test]
fn the_number_that_keeps_a_node_is_the_one_that_counts_it() {
    let told = |start: i32, nodes: &[(i32, DrainPhase)]| {
        let mut story = Story::of(pool(json!({})));
        let mut raw = workload().raw;
        raw["spec"]["replicas"] = json!(5);
        raw["spec"]["ordinals"] = json!({"start": start});
        story.observed.workload = Workload::new(raw).into();
        let mut plan = draining(0, []);
        plan.facts.draining = nodes
            .iter()
            .map(|(ordinal, phase)| NodeInDrain {
                phase: *phase,
                ..in_drain(*ordinal, 0)
            })
            .collect();
        ready(&story.pass(&plan, 1)).to_owned()
    };
    for (start, nodes, expected) in [
        (
            0,
            &[(4, DrainPhase::Evicting)][..],
            "; set spec.replicas: 5 to keep the node",
        ),
        (
            0,
            &[(4, DrainPhase::Removing), (3, DrainPhase::Evicting)],
            "; set spec.replicas: 4 to keep the node",
        ),
        (
            0,
            &[(4, DrainPhase::Evicting), (3, DrainPhase::Evicting)],
            "; set spec.replicas: 5 to keep the nodes",
        ),
        (
            10,
            &[(12, DrainPhase::Evicting)],
            "; set spec.replicas: 3 to keep the node",
        ),
    ] {
        let message = told(start, nodes);
        assert!(message.ends_with(expected), "{message}");
    }
}

#[test]
fn a_node_that_is_taken_away_has_no_deadline() {
    for on_timeout in ["Wait", "Abort", "ForceDelete"] {
        for phase in [DrainPhase::Shrinking, DrainPhase::Removing] {
            let drain = json!({"timeoutSeconds": 600, "onTimeout": on_timeout});
            let mut plan = draining(0, []);
            plan.facts.draining[0].phase = phase;
            plan.facts.draining[0].pods_remaining = 0;
            let report = Story::of(pool(json!({"spec": {"drain": drain}}))).pass(&plan, 1);
            assert!(!ready(&report).contains("timeoutSeconds"), "{}", ready(&report));
        }
    }
}

#[test]
fn nothing_is_deleted_by_force_where_no_pod_is_left() {
    let force = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "ForceDelete"}}});
    let mut plan = draining(500, []);
    plan.facts.draining[0].phase = DrainPhase::Emptying;
    plan.facts.draining[0].pods_remaining = 0;
    for announced in [None, Some(at(540))] {
        plan.facts.draining[0].force_announced = announced;
        plan.facts.draining[0].force_at = announced.map(|_| at(600));
        let report = Story::of(pool(force.clone())).pass(&plan, 541);
        assert!(!ready(&report).contains("budgets"), "{}", ready(&report));
    }
}

#[test]
fn two_forced_nodes_have_their_own_times() {
    let force = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "ForceDelete"}}});
    let mut plan = draining(500, []);
    plan.facts.draining.push(in_drain(1, 500));
    for (node, force_at) in plan.facts.draining.iter_mut().zip([700, 600]) {
        node.force_announced = Some(at(540));
        node.force_at = Some(at(force_at));
    }
    let report = Story::of(pool(force)).pass(&plan, 541);
    let first = "from 2027-01-15T08:10:00Z on the pods left on virtual-node-eci-1 are deleted past their budgets; from \
                 2027-01-15T08:11:40Z on the pods left on virtual-node-eci-2 are deleted past their budgets; set \
                 spec.drain.onTimeout: Wait to prevent that; draining";
    assert!(ready(&report).starts_with(first), "{}", ready(&report));
}

#[test]
fn a_sick_provider_holds_forced_deletion() {
    let force = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "ForceDelete"}}});
    let mut sick = Finding::Blocker(vnp_plan::finding::Blocker {
        reason: BlockerReason::ProviderUnavailable,
        object: "virtual-node-eci-2".to_owned(),
        pods: 140,
        since: Some(at(0)),
        message: "its Node is not Ready".to_owned(),
        terminal: false,
    });
    for (now, reason, starts) in [
        (
            590,
            BlockerReason::ProviderUnavailable,
            "from 2027-01-15T08:10:00Z on the pods left on",
        ),
        (
            610,
            BlockerReason::ProviderUnavailable,
            "the pods left on virtual-node-eci-2 may be deleted past their budgets since 2027-01-15T08:10:00Z, and that waits \
             for what ProviderUnavailable names; set spec.drain.onTimeout: Wait to prevent that; draining",
        ),
        (
            610,
            BlockerReason::BlockedByBudget,
            "from 2027-01-15T08:10:00Z on the pods left on",
        ),
    ] {
        if let Finding::Blocker(blocker) = &mut sick {
            blocker.reason = reason;
        }
        let mut plan = draining(500, [sick.clone()]);
        plan.facts.draining[0].force_announced = Some(at(540));
        plan.facts.draining[0].force_at = Some(at(600));
        let report = Story::of(pool(force.clone())).pass(&plan, now);
        assert!(ready(&report).starts_with(starts), "{}", ready(&report));
    }
}

/// Given up is decided in the pass that plans the uncordon, which may be refused.
#[test]
fn a_cordon_that_is_still_on_is_not_said_to_be_off() {
    let abort = json!({"spec": {"drain": {"timeoutSeconds": 600, "onTimeout": "Abort"}}});
    let mut plan = draining(0, []);
    plan.facts.draining[0].phase = DrainPhase::Aborted;
    let mut story = Story::of(pool(abort));
    assert!(ready(&story.pass(&plan, 600)).contains(", our cordon is off; "));
    let cordoned = NodeView {
        name: "virtual-node-eci-2".to_owned(),
        unschedulable: true,
        cordon_owner: CordonOwner::Us,
        ..NodeView::default()
    };
    story.observed.nodes.insert(2, std::sync::Arc::new(cordoned));
    let report = story.pass(&plan, 601);
    assert!(
        ready(&report).contains(", our cordon on virtual-node-eci-2 is still to be taken off; "),
        "{}",
        ready(&report)
    );
}

#[test]
fn where_there_is_no_workload_nobody_is_sent_to_its_pods() {
    let mut story = Story::of(pool(json!({})));
    for (second, until) in [
        (0, "Stalled at 2027-01-15T08:10:00Z if nothing moves"),
        (600, "nothing has moved since 2027-01-15T08:00:00Z"),
    ] {
        let report = story.pass(&saying([provider(ProviderState::Absent)]), second);
        assert_eq!(
            ready(&report),
            format!("virtual-node-eci-2: its Node is not Ready; {until}")
        );
    }
}
