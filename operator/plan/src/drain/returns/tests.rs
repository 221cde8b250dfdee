use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_crds::DrainPhase;

use super::*;
use crate::drain::tests::{cordon, plan_at, report};
use crate::drain::{DrainPlan, Finding};
use crate::observed::{ObjectKey, Observed, PodOwner, PodPhase};
use crate::testing::{after, bind, now, observed, pod, pool, with_node};

/// A pod of a revision of Deployment `web`.
fn web(name: &str, hash: &str) -> BoundPod {
    owned(
        name,
        "ReplicaSet",
        &format!("web-{hash}"),
        json!({ "pod-template-hash": hash }),
    )
}

fn owned(name: &str, kind: &str, owner: &str, labels: Value) -> BoundPod {
    BoundPod {
        controller: Some(PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            name: owner.to_owned(),
            uid: format!("uid-of-{owner}"),
        }),
        labels: serde_json::from_value(labels).unwrap(),
        ..pod(name)
    }
}

fn bare(name: &str) -> BoundPod {
    BoundPod {
        controller: None,
        ..pod(name)
    }
}

/// Node 2 of 3 drains.
fn draining(drain: Value, pods: Vec<BoundPod>) -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2, "drain": drain })), 3);
    bind(&mut seen, 2, pods);
    cordon(&mut seen, 2);
    seen
}

fn came(seen: &mut Observed, pods: &[BoundPod], at: i64) {
    let memory = seen.memory.entry(2).or_default();
    pods.iter().for_each(|p| memory.returned.see(p, after(at)));
}

fn offered(plan: &DrainPlan) -> Vec<&str> {
    let pods = plan.orders.iter().flat_map(|o| &o.pods);
    pods.map(|p| p.pod.name.as_str()).collect()
}

fn blocked(plan: &DrainPlan) -> Vec<(BlockerReason, String, i32)> {
    let blockers = plan.findings.iter().filter_map(|f| match f {
        Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.pods)),
        _ => None,
    });
    blockers.collect()
}

fn arriving(object: &str, pods: i32) -> (BlockerReason, String, i32) {
    (BlockerReason::NewPodsKeepArriving, object.to_owned(), pods)
}

#[test]
fn what_makes_a_pod_is_found_over_its_revisions_and_runs() {
    let made = |pod: &BoundPod| pod.made_by().to_string();
    let minute = after(-600).as_second() / 60;
    for (pod, by) in [
        (web("a", "6d5f"), "Deployment/shop/web"),
        (
            owned(
                "a",
                "ReplicaSet",
                "web-7c",
                json!({ "rollouts-pod-template-hash": "7c" }),
            ),
            "Rollout/shop/web",
        ),
        // The label is no proof by itself, and neither is the name.
        (
            owned("a", "ReplicaSet", "web", json!({ "pod-template-hash": "7c" })),
            "ReplicaSet/shop/web",
        ),
        (
            owned("a", "ReplicaSet", "web-7c", json!({})),
            "ReplicaSet/shop/web-7c",
        ),
        (
            owned("a", "ReplicaSet", "-7c", json!({ "pod-template-hash": "" })),
            "ReplicaSet/shop/-7c",
        ),
        (
            owned("a", "Job", &format!("report-{minute}"), json!({})),
            "CronJob/shop/report",
        ),
        (
            owned("a", "Job", "report-20260101", json!({})),
            "Job/shop/report-20260101",
        ),
        (
            owned("db-0", "StatefulSet", "db", json!({})),
            "StatefulSet/shop/db",
        ),
        (owned("a", "Runner", "r-1", json!({})), "Runner/shop/r-1"),
        (bare("a"), "Namespace/shop"),
    ] {
        assert_eq!(made(&pod), by);
        assert_eq!(ControllerKey::parse(by), Some(pod.made_by()));
    }
}

#[test]
fn pods_of_a_deployment_that_come_back_are_left_alone_over_its_rollouts() {
    let (old, new) = (web("a", "old"), web("b", "new"));
    let mut seen = draining(json!({}), vec![old.clone(), new.clone(), pod("other")]);
    came(&mut seen, &[old.clone(), old.clone()], 0);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(
        (offered(&plan), blocked(&plan)),
        (vec!["a", "b", "other"], vec![])
    );

    // The third one is of another revision.
    came(&mut seen, &[new], 0);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(offered(&plan), ["other"]);
    assert_eq!(blocked(&plan), [arriving("Deployment/shop/web", 2)]);
    assert_eq!(plan.nodes[0].pods_blocked, 2);
}

#[test]
fn every_kind_of_controller_is_named_and_pods_without_one_by_their_namespace() {
    for (kind, object, returns) in [
        ("StatefulSet", "StatefulSet/shop/x", 3),
        ("GameServer", "GameServer/shop/x", 3),
        ("Job", "Job/shop/x", 3),
    ] {
        let one = owned("x-0", kind, "x", json!({}));
        let mut seen = draining(json!({ "barePods": "Evict" }), vec![one.clone()]);
        came(&mut seen, &vec![one; returns], 0);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(
            (offered(&plan), blocked(&plan)),
            (vec![], vec![arriving(object, 1)]),
            "{kind}"
        );
    }
    // Of bare pods only those are left alone that came themselves.
    let late = ["b", "c", "d"].map(bare);
    let pods: Vec<BoundPod> = std::iter::once(bare("a")).chain(late.clone()).collect();
    let mut seen = draining(json!({ "barePods": "Evict" }), pods);
    came(&mut seen, &late, 0);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(offered(&plan), ["a"]);
    assert_eq!(blocked(&plan), [arriving("Namespace/shop", 3)]);
}

#[test]
fn bare_pods_that_are_held_anyway_are_counted_once() {
    let late = ["b", "c", "d"].map(bare);
    let mut seen = draining(json!({}), late.to_vec());
    came(&mut seen, &late, 0);
    let plan = plan_at(&seen, 2, now());
    assert!(
        blocked(&plan).contains(&arriving("Namespace/shop", 3)),
        "{:?}",
        blocked(&plan)
    );
    assert_eq!(plan.nodes[0].pods_blocked, 3);
}

#[test]
fn from_time_to_time_one_pod_is_tried_and_then_the_next() {
    let mut pods = ["a", "b", "c"].map(|n| web(n, "h")).to_vec();
    let mut seen = draining(json!({}), pods.clone());
    came(&mut seen, &pods, 0);
    let beat = |seen: &mut Observed, at: i64| {
        with_node(seen, 2, |n| {
            n.heartbeat = Some(crate::observed::Heartbeat {
                seen_at: after(at),
                beats: 99,
            });
        });
    };
    beat(&mut seen, 299);
    let plan = plan_at(&seen, 2, after(299));
    assert_eq!(offered(&plan), Vec::<&str>::new());
    assert!(plan.wake_at.is_some_and(|at| at <= after(300)));
    let plan = plan_at(&seen, 2, after(300));
    assert_eq!(offered(&plan), ["a"]);
    assert_eq!(blocked(&plan), [arriving("Deployment/shop/web", 3)]);
    let told = format!("{:?}", plan.findings);
    assert!(
        told.contains("are left alone, but for one that is tried from time to time"),
        "{told}"
    );

    // Nothing else is tried before it is gone.
    pods[0].deletion = Some(after(330));
    bind(&mut seen, 2, pods.clone());
    assert_eq!(offered(&plan_at(&seen, 2, after(301))), Vec::<&str>::new());
    pods.remove(0);
    bind(&mut seen, 2, pods.clone());
    assert_eq!(offered(&plan_at(&seen, 2, after(310))), ["b"]);

    // Another one comes: all of them are left alone for another while.
    let back = web("d", "h");
    pods.push(back.clone());
    bind(&mut seen, 2, pods);
    came(&mut seen, &[back], 312);
    assert_eq!(offered(&plan_at(&seen, 2, after(313))), Vec::<&str>::new());
}

#[test]
fn pods_of_which_none_came_back_for_long_go_like_all_others() {
    let mut pods = ["a", "b", "c"].map(|n| web(n, "h")).to_vec();
    let mut seen = draining(json!({}), pods.clone());
    came(&mut seen, &pods, 0);
    let offered_at = |seen: &mut Observed, pods: &[BoundPod], at: i64| {
        bind(seen, 2, pods.to_vec());
        with_node(seen, 2, |n| {
            n.heartbeat = Some(crate::observed::Heartbeat {
                seen_at: after(at),
                beats: 99,
            });
        });
        let plan = plan_at(seen, 2, after(at));
        (
            offered(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>(),
            blocked(&plan),
        )
    };
    assert_eq!(offered_at(&mut seen, &pods, 599).0, ["a"]);
    pods[0].deletion = Some(after(640));
    let (offer, _) = offered_at(&mut seen, &pods, 610);
    assert_eq!(offer, [""; 0], "the one on its way out may still be replaced");
    pods.remove(0);
    assert_eq!(
        offered_at(&mut seen, &pods, 650),
        (vec!["b".to_owned(), "c".to_owned()], Vec::new())
    );
    // One that comes back makes it true again.
    let back = web("d", "h");
    came(&mut seen, std::slice::from_ref(&back), 651);
    pods.push(back);
    assert_eq!(offered_at(&mut seen, &pods, 652).0, [""; 0]);
}

#[test]
fn a_pod_that_is_held_anyway_is_not_the_one_that_is_tried() {
    let mut pods = ["a", "b", "c"].map(|n| web(n, "h")).to_vec();
    pods[0].undisturbed = Some("karpenter.sh/do-not-disrupt");
    let mut seen = draining(json!({}), pods.clone());
    came(&mut seen, &pods, 0);
    with_node(&mut seen, 2, |n| {
        n.heartbeat = Some(crate::observed::Heartbeat {
            seen_at: after(300),
            beats: 99,
        });
    });
    assert_eq!(offered(&plan_at(&seen, 2, after(300))), ["b"]);
}

/// The status of the drain as a pass before left it.
fn reported(seen: &mut Observed, remaining: i32, progress: i64) {
    report(seen, DrainPhase::Evicting, None);
    let mut pool = (*seen.pool).clone();
    let drain = pool.status.as_mut().and_then(|s| s.drain.as_mut()).unwrap();
    drain.nodes[0].pods_remaining = remaining;
    drain.nodes[0].last_progress_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(
        progress,
    )));
    seen.pool = Arc::new(pool);
}

#[test]
fn only_what_does_not_come_back_is_progress() {
    let pods = ["a", "b", "c"].map(|n| web(n, "h"));
    let mut seen = draining(json!({}), pods.to_vec());
    reported(&mut seen, 4, -700);
    came(&mut seen, &pods, -500);
    let known = |seen: &mut Observed, lasting, at| {
        let progress = crate::drain::memory::Progress {
            lasting,
            at: after(at),
        };
        seen.memory.entry(2).or_default().progress = Some(progress);
    };
    // Three of four that come back are left: one left, which is another one tomorrow.
    known(&mut seen, 0, -700);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(plan.nodes[0].last_progress, after(-700));
    assert_eq!(plan.progress[&2].lasting, 0);
    // A pod that was there from the beginning has left.
    known(&mut seen, 1, -700);
    assert_eq!(plan_at(&seen, 2, now()).nodes[0].last_progress, now());
    // That was seen in an earlier pass, whose report was not written.
    known(&mut seen, 0, -60);
    assert_eq!(plan_at(&seen, 2, now()).nodes[0].last_progress, after(-60));
    // Late pods that leave are none, whosever they are.
    let other = bare("late");
    let mut all = pods.to_vec();
    all.push(other.clone());
    bind(&mut seen, 2, all);
    came(&mut seen, &[other], 0);
    assert_eq!(plan_at(&seen, 2, now()).progress[&2].lasting, 0);
}

#[test]
fn a_pod_made_for_a_node_that_is_gone_does_not_bring_it_back() {
    let late = BoundPod {
        created: Some(after(-20)),
        phase: PodPhase::Pending,
        instance_id: None,
        never_started: true,
        ..web("late", "h")
    };
    let removed = |gone: Option<i64>, pods: Vec<BoundPod>| {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        let mut pool = (*seen.pool).clone();
        let mut entry = json!({ "ordinal": 2, "time": after(-600).to_string(), "abandoned": false });
        if let Some(gone) = gone {
            entry["goneTime"] = json!(after(gone).to_string());
        }
        pool.status = serde_json::from_value(json!({ "provider": {
            "type": "StatefulSet", "registered": [0, 1, 2], "retired": [entry] } }))
        .unwrap();
        seen.pool = Arc::new(pool);
        bind(&mut seen, 2, pods);
        seen
    };
    let told = |seen: &Observed| -> Vec<String> {
        let plan = crate::plan(seen, now());
        let events = plan.findings.into_iter().filter_map(|f| match f {
            Finding::Event(e) => Some(format!("{:?}: {}", e.reason, e.note)),
            _ => None,
        });
        events.collect()
    };
    let events = told(&removed(Some(-60), vec![late.clone()]));
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].starts_with("UnknownOrdinal: pods were made for virtual-node-eci-2 after it was removed, by Deployment/shop/web (first: "),
        "{events:?}"
    );
    let alone = BoundPod {
        controller: None,
        ..late.clone()
    };
    let bare = told(&removed(Some(-60), vec![alone]));
    assert!(
        bare[0].starts_with(
            "UnknownOrdinal: pods without a controller were made in namespace shop for virtual-node-eci-2 after it was removed"
        ) && bare[0].contains("find who makes them"),
        "{bare:?}"
    );
    // The garbage collector of pods ended it.
    let failed = BoundPod {
        phase: PodPhase::Failed,
        never_started: false,
        ..late.clone()
    };
    assert!(told(&removed(Some(-60), vec![failed]))[0].starts_with("UnknownOrdinal"));
    // What may have an instance brings its provider back.
    let early = BoundPod {
        created: Some(after(-55)),
        ..late.clone()
    };
    let with_instance = BoundPod {
        instance_id: Some("eci-1".to_owned()),
        ..late.clone()
    };
    let running = BoundPod {
        phase: PodPhase::Running,
        never_started: false,
        ..late.clone()
    };
    for (gone, pods) in [
        (None, vec![late.clone()]),
        (Some(-60), vec![early]),
        (Some(-60), vec![with_instance]),
        (Some(-60), vec![late.clone(), running]),
    ] {
        let events = told(&removed(gone, pods));
        assert!(events.iter().any(|e| e.starts_with("RaceLost")), "{events:?}");
    }
    // A Node of ours is there: somebody could start it yet.
    let mut seen = removed(Some(-60), vec![late]);
    with_node(&mut seen, 2, |_| {});
    let events = told(&seen);
    assert!(events.iter().any(|e| e.starts_with("RaceLost")), "{events:?}");
}

#[test]
fn since_when_nothing_is_left_of_an_ordinal_is_kept_and_void_when_something_is_back() {
    let gone = |change: &dyn Fn(&mut Observed)| {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        let mut pool = (*seen.pool).clone();
        pool.status = serde_json::from_value(json!({ "provider": {
            "type": "StatefulSet", "registered": [0, 1, 2], "retired": [
                { "ordinal": 2, "time": after(-600).to_string(), "abandoned": false, "goneTime": after(-60).to_string() }] } }))
        .unwrap();
        seen.pool = Arc::new(pool);
        change(&mut seen);
        plan_at(&seen, 2, now()).retired[0].gone_time.clone().map(|t| t.0)
    };
    assert_eq!(gone(&|_| {}), Some(after(-60)));
    assert_eq!(gone(&|seen| with_node(seen, 2, |_| {})), None);
    let provider = |seen: &mut Observed| {
        let pod = crate::testing::provider_pod(2);
        seen.provider_pods.insert(2, Arc::new(pod));
    };
    assert_eq!(gone(&provider), None);
}

proptest! {
    /// A Deployment whose pods come back with every eviction: however often passes are made and pods die, few instances are
    /// made of it, and nothing of it counts as progress after that.
    #[test]
    fn a_controller_that_puts_its_pods_back_makes_few_instances(
        pods in 1..20usize, burst in 1..20usize, passes in prop::collection::vec(1..120i64, 1..60)
    ) {
        let mut here: Vec<BoundPod> = (0..pods).map(|i| web(&format!("p-{i}"), "h")).collect();
        let mut seen = draining(json!({}), here.clone());
        let (mut at, mut made) = (0, 0usize);
        for wait in passes {
            at += wait;
            bind(&mut seen, 2, here.clone());
            with_node(&mut seen, 2, |n| {
                n.heartbeat = Some(crate::observed::Heartbeat { seen_at: after(at), beats: 9 });
            });
            let plan = plan_at(&seen, 2, after(at));
            let gone: Vec<ObjectKey> =
                plan.orders.iter().flat_map(|o| &o.pods).take(burst).map(|p| p.pod.clone()).collect();
            for key in gone {
                here.retain(|p| p.key != key);
                made += 1;
                let back = web(&format!("q-{made}"), "h");
                came(&mut seen, std::slice::from_ref(&back), at);
                here.push(back);
            }
            here.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let tries = usize::try_from(at / 300).unwrap();
        prop_assert!(made <= 2 + burst.min(pods) + tries, "{made} in {at} s");
    }
}
