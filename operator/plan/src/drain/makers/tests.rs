use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::drain::tests::{cordon, plan_at};
use crate::drain::{DrainPlan, Finding};
use crate::observed::{Observed, PodOwner, PodPhase};
use crate::testing::{bind, now, observed, pod, pool};

fn owned(name: &str, api_version: &str, kind: &str) -> BoundPod {
    BoundPod {
        controller: Some(PodOwner {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "x".to_owned(),
            uid: "uid-of-x".to_owned(),
        }),
        ..pod(name)
    }
}

fn draining(drain: Value, pods: Vec<BoundPod>) -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2, "drain": drain })), 3);
    bind(&mut seen, 2, pods);
    cordon(&mut seen, 2);
    seen
}

fn told(seen: &mut Observed, pod: &BoundPod, scaling: Scaling) {
    let kind = ControllerKind::from(pod.controller.as_ref().unwrap());
    seen.controllers = Arc::new(BTreeMap::from([(kind, scaling)]));
}

/// The pods offered, and the blockers with their messages.
fn outcome(plan: &DrainPlan) -> (Vec<&str>, Vec<(BlockerReason, &str, &str)>) {
    let offered = plan.orders.iter().flat_map(|o| &o.pods);
    let blocked = plan.findings.iter().filter_map(|f| match f {
        Finding::Blocker(b) => Some((b.reason, b.object.as_str(), b.message.as_str())),
        _ => None,
    });
    (offered.map(|p| p.pod.name.as_str()).collect(), blocked.collect())
}

#[test]
fn known_makers_are_evicted_and_need_no_discovery() {
    for (api_version, kind) in [
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
        ("apps.kruise.io/v1alpha1", "CloneSet"),
        ("apps.kruise.io/v1beta1", "StatefulSet"),
        ("argoproj.io/v1alpha1", "Rollout"),
    ] {
        let seen = draining(json!({}), vec![owned("a", api_version, kind)]);
        assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec!["a"], vec![]), "{kind}");
    }
}

#[test]
fn a_custom_kind_makes_its_pods_again_when_it_is_scaled() {
    let game = owned("a", "game.example/v1", "Fleet");
    let mut seen = draining(json!({}), vec![game.clone()]);
    assert_eq!(
        outcome(&plan_at(&seen, 2, now())),
        (vec![], vec![]),
        "it is asked for at this moment"
    );
    told(&mut seen, &game, Scaling::Scaled);
    assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec!["a"], vec![]));
    // Of another version, it is another kind.
    bind(&mut seen, 2, vec![owned("a", "game.example/v2", "Fleet")]);
    assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec![], vec![]));
}

#[test]
fn pods_that_nobody_makes_again_go_by_bare_pods() {
    let runner = owned("a", "actions.github.com/v1alpha1", "EphemeralRunner");
    let error = || Scaling::Unknown {
        error: "503: overloaded".to_owned(),
    };
    for (pod, answer, words) in [
        (runner.clone(), Some(Scaling::Fixed), "has no scale subresource"),
        (
            runner.clone(),
            Some(error()),
            "does not tell whether that kind has a scale subresource (503: overloaded)",
        ),
        // The executor of a Spark driver.
        (
            owned("a", "v1", "Pod"),
            None,
            "a Pod (v1), is not known to make pods again",
        ),
    ] {
        for (policy, reason) in [
            ("Block", Some(BlockerReason::BarePods)),
            ("WaitForCompletion", Some(BlockerReason::WaitingForCompletion)),
            ("Evict", None),
        ] {
            let mut seen = draining(json!({ "barePods": policy }), vec![pod.clone()]);
            if let Some(answer) = &answer {
                told(&mut seen, &pod, answer.clone());
            }
            let plan = plan_at(&seen, 2, now());
            let (offered, blocked) = outcome(&plan);
            let object = format!("{}/shop/x", pod.controller.as_ref().unwrap().kind);
            assert_eq!(offered.is_empty(), reason.is_some(), "{policy}");
            assert_eq!(blocked.first().map(|b| b.0), reason, "{policy}");
            if let Some((_, named, message)) = blocked.first() {
                assert_eq!(*named, object);
                assert!(
                    message.contains(words) && message.contains("barePods"),
                    "{message}"
                );
            }
        }
    }
    // What has ended is gone either way.
    let ended = BoundPod {
        phase: PodPhase::Failed,
        undisturbed: Some("x"),
        ..runner
    };
    let seen = draining(json!({}), vec![ended]);
    assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec!["a"], vec![]));
}

#[test]
fn pods_that_ask_not_to_be_disturbed_are_held_and_named_unless_the_pool_ignores_that() {
    let quiet = |name: &str| BoundPod {
        undisturbed: Some("karpenter.sh/do-not-disrupt: \"true\""),
        ..pod(name)
    };
    let pods = || vec![quiet("a"), quiet("b"), pod("c")];
    for absent in [json!({}), json!({ "disruptionAnnotations": "Respect" })] {
        let seen = draining(absent, pods());
        let plan = plan_at(&seen, 2, now());
        let (offered, blocked) = outcome(&plan);
        assert_eq!(offered, ["c"]);
        let [(reason, object, message)] = blocked[..] else {
            panic!("{blocked:?}")
        };
        assert_eq!(
            (reason, object),
            (BlockerReason::DoNotDisrupt, "ReplicaSet/shop/shop")
        );
        assert!(
            message.contains("karpenter.sh/do-not-disrupt: \"true\""),
            "{message}"
        );
        assert_eq!(plan.nodes[0].pods_blocked, 2);
    }
    let seen = draining(json!({ "disruptionAnnotations": "Ignore" }), pods());
    assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec!["a", "b", "c"], vec![]));
    // Without a controller, it is held by the first thing that holds it.
    let bare = BoundPod {
        controller: None,
        ..quiet("a")
    };
    for (policy, reason) in [
        ("Block", BlockerReason::BarePods),
        ("Evict", BlockerReason::DoNotDisrupt),
    ] {
        let seen = draining(json!({ "barePods": policy }), vec![bare.clone()]);
        let plan = plan_at(&seen, 2, now());
        let (offered, blocked) = outcome(&plan);
        assert_eq!((offered.len(), blocked.len()), (0, 1));
        assert_eq!((blocked[0].0, blocked[0].1), (reason, "shop/a"));
    }
}

#[test]
fn a_forced_deletion_asks_neither() {
    let runner = BoundPod {
        undisturbed: Some("x"),
        ..owned("a", "actions.github.com/v1alpha1", "EphemeralRunner")
    };
    let mut seen = draining(
        json!({ "timeoutSeconds": 100, "onTimeout": "ForceDelete" }),
        vec![runner],
    );
    crate::drain::tests::report(&mut seen, vnp_crds::DrainPhase::Evicting, None);
    let mut pool = (*seen.pool).clone();
    let drain = pool.status.as_mut().and_then(|s| s.drain.as_mut()).unwrap();
    let time = |at| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::testing::after(at));
    drain.nodes[0].started_at = time(-600);
    drain.nodes[0].force_announced_time = Some(time(-500));
    seen.pool = Arc::new(pool);
    assert_eq!(outcome(&plan_at(&seen, 2, now())), (vec!["a"], vec![]));
}
