//! Pods that a drain can't get rid of by itself: each is told by name, counted as blocked, and holds the node.

use super::*;
use crate::drain::memory::Refusal;
use crate::observed::BoundPod;

fn in_namespace(namespace: &str, name: &str) -> BoundPod {
    let mut pod = pod(name);
    pod.key.namespace = namespace.to_owned();
    pod
}

fn told(plan: &DrainPlan) -> Vec<(BlockerReason, String, i32)> {
    let blockers = plan.findings.iter().filter_map(|f| match f {
        Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.pods)),
        _ => None,
    });
    blockers.collect()
}

#[test]
fn what_hangs_is_named_and_what_uses_its_grace_period_is_not() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    let leaving = |name: &str, deletion: i64, finalizers: bool| {
        let mut pod = pod(name);
        pod.deletion = Some(after(deletion));
        pod.finalizers = finalizers.then(|| "example.com/hold".into());
        pod
    };
    let mut bare = pod("bare");
    bare.controller = None;
    let pods = vec![
        leaving("held", -60, true),
        leaving("slow", -60, false),
        leaving("late", -10, false),
        leaving("in-grace", 20, false),
        bare,
    ];
    bind(&mut seen, 2, pods);
    cordon(&mut seen, 2);
    memory(&mut seen, 2, |m| m.departures.record(7, 1, 20.0, now()));
    let plan = plan_at(&seen, 2, now());
    let expected = [
        (BlockerReason::BarePods, "shop/bare"),
        (BlockerReason::StuckTerminating, "shop/held"),
        (BlockerReason::StuckTerminating, "shop/slow"),
    ];
    let mut told = told(&plan);
    told.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(
        told,
        expected.map(|(reason, object)| (reason, object.to_owned(), 1))
    );
    let texts = format!("{:?}", plan.findings);
    assert!(texts.contains("finalizer example.com/hold holds it"), "{texts}");
    let node = &plan.nodes[0];
    assert_eq!(
        (node.pods_remaining, node.pods_terminating, node.pods_blocked),
        (5, 4, 3)
    );
    let order = &plan.orders[0];
    assert_eq!((order.pods.len(), order.terminating), (0, 4));
    assert_eq!(
        (order.overdue, order.departed),
        (3, 7),
        "what is in its grace period is not overdue"
    );
    assert!(plan.steps.is_empty() && shrinks(&plan).is_empty());
}

#[test]
fn a_namespace_that_refuses_blocks_all_its_pods() {
    for reason in [
        BlockerReason::NamespaceTerminating,
        BlockerReason::EvictionForbidden,
    ] {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
        let mut pods: Vec<BoundPod> = ["a", "b", "c"].map(|name| in_namespace("ending", name)).into();
        pods.push(pod("other"));
        bind(&mut seen, 2, pods);
        cordon(&mut seen, 2);
        let refusal = |object: &str| Refusal {
            forced: false,
            reason,
            object: object.to_owned(),
            message: "no".to_owned(),
            since: after(-30),
        };
        memory(&mut seen, 2, |m| {
            m.refusals.insert("uid-a".to_owned(), refusal("ending"));
        });
        let plan = plan_at(&seen, 2, now());
        assert_eq!(told(&plan), [(reason, "ending".to_owned(), 3)]);
        assert_eq!(plan.nodes[0].pods_blocked, 3);
        assert_eq!(
            plan.orders[0].pods.len(),
            4,
            "one of them is asked for again later"
        );

        // A policy that refuses one pod says nothing of the others.
        memory(&mut seen, 2, |m| {
            m.refusals.insert("uid-a".to_owned(), refusal("ending/a"));
        });
        let plan = plan_at(&seen, 2, now());
        assert_eq!(told(&plan), [(reason, "ending/a".to_owned(), 1)]);
    }
}
