//! Deadlines in whole passes, each of which sees the status that the one before it wrote.

use std::num::NonZeroU32;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::Value;
use vnp_crds::{DrainPhase, OnTimeout, Reason};

use super::*;
use crate::observed::{BoundPod, PodOwner};

/// Three nodes of which node 2 is to go; it is cordoned and settled.
fn draining(drain: &Value) -> Observed {
    let spec = json!({ "replicas": 2, "drain": drain });
    let mut seen = observed(pool(spec), 3);
    cordon(&mut seen, 2);
    bind(&mut seen, 2, vec![pod("a")]);
    seen
}

fn edit(seen: &mut Observed, drain: &Value) {
    let mut pool = (*seen.pool).clone();
    pool.spec.drain = serde_json::from_value(drain.clone()).unwrap();
    seen.pool = Arc::new(pool);
}

/// The status that a pass leads to, in whole seconds as the API keeps it.
fn store(seen: &mut Observed, plan: &DrainPlan, target: i32) {
    let whole = |t: Timestamp| Timestamp::from_second(t.as_second()).unwrap().to_string();
    let nodes: Vec<Value> = plan
        .nodes
        .iter()
        .map(|n| {
            json!({
                "name": n.name, "uid": n.uid, "ordinal": n.ordinal, "phase": n.phase.as_str(),
                "startedAt": whole(n.started_at), "lastProgressTime": whole(n.last_progress),
                "forceAnnouncedTime": n.force_announced.map(whole), "recordons": n.recordons,
                "podsTotal": n.pods_total, "podsRemaining": n.pods_remaining,
            })
        })
        .collect();
    let mut pool = (*seen.pool).clone();
    pool.status = serde_json::from_value(json!({
        "targetReplicas": target,
        "provider": { "type": "StatefulSet", "registered": [0, 1, 2], "retired": [] },
        "drain": {
            "summary": "1/1", "podsTotal": 1, "podsRemaining": 1, "podsTerminating": 0, "podsBlocked": 0,
            "limitedBy": "Settle", "blockers": [], "nodes": nodes,
        },
    }))
    .unwrap();
    seen.pool = Arc::new(pool);
}

/// A pass whose status is stored.
fn pass(seen: &mut Observed, target: i32, at: Timestamp) -> DrainPlan {
    beat(seen, at);
    let plan = plan_at(seen, target, at);
    store(seen, &plan, target);
    plan
}

fn beat(seen: &mut Observed, at: Timestamp) {
    let ordinals: Vec<Ordinal> = seen.nodes.keys().copied().collect();
    for ordinal in ordinals {
        with_node(seen, ordinal, |n| {
            n.heartbeat = Some(Heartbeat {
                seen_at: at,
                beats: 10,
            })
        });
    }
}

fn forced(plan: &DrainPlan) -> Vec<(&str, Option<u32>)> {
    let pods = plan.orders.iter().flat_map(|o| &o.pods);
    pods.map(|p| (p.pod.name.as_str(), p.force.map(NonZeroU32::get)))
        .collect()
}

fn announced(plan: &DrainPlan) -> bool {
    plan.findings
        .iter()
        .any(|f| matches!(f, Finding::Event(e) if e.reason == vnp_crds::EventReason::ForceAnnounced))
}

fn phases(plan: &DrainPlan) -> Vec<(Ordinal, DrainPhase)> {
    plan.nodes.iter().map(|n| (n.ordinal, n.phase)).collect()
}

fn stalled(plan: &DrainPlan) -> bool {
    plan.findings.iter().any(|f| {
        matches!(
            f,
            Finding::Stalled {
                reason: Reason::DrainTimedOut,
                ..
            }
        )
    })
}

/// Past the deadline as before it: without end the DaemonSet would make a pod for each that is deleted.
#[test]
fn force_leaves_a_daemonset_alone_whose_pods_come_back() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "ForceDelete" }));
    let daemon = BoundPod {
        controller: Some(PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: "agent".to_owned(),
            uid: "ds".to_owned(),
        }),
        ..pod("daemon")
    };
    bind(&mut seen, 2, vec![pod("a"), daemon]);
    pass(&mut seen, 2, now());
    pass(&mut seen, 2, after(300));
    let returned = |seen: &mut Observed, at: i64| {
        let pods = seen.bound[&2].clone();
        let memory = seen.memory.get_mut(&2).unwrap();
        for pod in pods.iter().filter(|p| p.daemon_set()) {
            memory.returned.see(pod, after(at));
        }
    };
    returned(&mut seen, 355);
    let force = pass(&mut seen, 2, after(360));
    assert_eq!(forced(&force), [("a", Some(30)), ("daemon", Some(30))]);
    returned(&mut seen, 365);
    let force = pass(&mut seen, 2, after(370));
    assert_eq!(forced(&force), [("a", Some(30))]);
    let named = |f: &Finding| match f {
        Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.pods)),
        _ => None,
    };
    let blockers: Vec<_> = force.findings.iter().filter_map(named).collect();
    let reason = vnp_crds::BlockerReason::DaemonSetTargetsVirtualNode;
    assert_eq!(blockers, [(reason, "DaemonSet/shop/agent".to_owned(), 1)]);
}

/// What was there before is deleted once, whatever its controller does then.
#[test]
fn force_takes_the_pods_that_did_not_come_late_themselves() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "ForceDelete" }));
    bind(&mut seen, 2, vec![pod("a"), pod("late")]);
    pass(&mut seen, 2, now());
    pass(&mut seen, 2, after(300));
    let pods = seen.bound[&2].clone();
    let memory = seen.memory.get_mut(&2).unwrap();
    let late = pods.iter().find(|p| p.key.name == "late").unwrap();
    (0..5).for_each(|_| memory.returned.see(late, after(355)));
    assert_eq!(forced(&pass(&mut seen, 2, after(360))), [("a", Some(30))]);
}

#[test]
fn force_takes_every_pod_after_it_was_announced_and_stored() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "ForceDelete" }));
    let bare = BoundPod {
        controller: None,
        ..pod("bare")
    };
    let owner = PodOwner {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        name: "agent".to_owned(),
        uid: "ds".to_owned(),
    };
    let daemon = BoundPod {
        controller: Some(owner),
        grace_seconds: Some(0),
        ..pod("daemon")
    };
    let slow = BoundPod {
        deletion: Some(after(5_000)),
        grace_seconds: Some(6_000),
        ..pod("slow")
    };
    let going = BoundPod {
        deletion: Some(after(120)),
        ..pod("going")
    };
    bind(&mut seen, 2, vec![pod("a"), bare, daemon, slow, going]);
    seen.budgets = Arc::new(vec![Budget {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        selector: Some(Default::default()),
        allowed: 0,
        current: true,
        changed_at: now(),
        ..Budget::default()
    }]);

    let first = pass(&mut seen, 2, now());
    assert_eq!(
        forced(&first),
        [("a", None), ("daemon", None)],
        "the bare pod is blocked"
    );
    assert!(!announced(&first));
    // The write of this one is lost: nothing is forced by it, however late it gets.
    beat(&mut seen, after(50));
    assert!(announced(&plan_at(&seen, 2, after(50))));
    let told = pass(&mut seen, 2, after(300));
    assert!(announced(&told) && forced(&told).iter().all(|(_, grace)| grace.is_none()));
    assert_eq!(told.nodes[0].force_announced, Some(after(300)));
    let waits = pass(&mut seen, 2, after(359));
    assert!(forced(&waits).iter().all(|(_, grace)| grace.is_none()));
    assert_eq!(waits.nodes[0].force_announced, Some(after(300)));

    let force = pass(&mut seen, 2, after(360));
    let all = [
        ("a", Some(30)),
        ("bare", Some(30)),
        ("slow", Some(30)),
        ("daemon", Some(1)),
    ];
    assert_eq!(forced(&force), all);
    assert_eq!(force.orders[0].terminating, 1);
    assert!(force.orders[0].pods.iter().all(|p| p.budgets.is_empty()));

    // Taken back by an edit, at once, and with it the announcement.
    edit(
        &mut seen,
        &json!({ "timeoutSeconds": 1000, "onTimeout": "ForceDelete" }),
    );
    let raised = pass(&mut seen, 2, after(361));
    assert_eq!(forced(&raised), [("a", None), ("daemon", None)]);
    assert_eq!(raised.nodes[0].force_announced, None);
}

#[test]
fn force_waits_for_a_healthy_provider_and_for_the_end_of_a_pause() {
    let mut seen = draining(&json!({ "timeoutSeconds": 10, "onTimeout": "ForceDelete" }));
    pass(&mut seen, 2, now());
    with_node(&mut seen, 2, |n| n.ready = false);
    let sick = pass(&mut seen, 2, after(60));
    assert_eq!(sick.orders, []);
    with_node(&mut seen, 2, |n| n.ready = true);
    assert_eq!(forced(&pass(&mut seen, 2, after(61))), [("a", Some(30))]);

    let mut paused = draining(&json!({ "timeoutSeconds": 10, "onTimeout": "ForceDelete" }));
    let mut pool = (*paused.pool).clone();
    pool.spec.paused = true;
    paused.pool = Arc::new(pool);
    for second in [0, 60, 120] {
        let plan = pass(&mut paused, 2, after(second));
        assert!(!announced(&plan) && plan.nodes[0].force_announced.is_none());
    }
}

#[test]
fn wait_says_that_it_is_late_and_goes_on() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100 }));
    assert!(!stalled(&pass(&mut seen, 2, now())));
    let late = pass(&mut seen, 2, after(100));
    assert!(stalled(&late));
    assert_eq!(forced(&late), [("a", None)]);
}

#[test]
fn abort_takes_back_the_fence_then_the_cordon_and_keeps_the_node() {
    let abort = json!({ "timeoutSeconds": 100, "onTimeout": "Abort" });
    let mut seen = draining(&abort);
    pass(&mut seen, 2, now());
    set_fence(&mut seen, &fence_of(2, "node-2"));
    let plan = pass(&mut seen, 2, after(100));
    assert_eq!(phases(&plan), [(2, DrainPhase::Aborted)]);
    assert_eq!(plan.orders, []);
    assert!(!plan.busy(), "a roll need not wait for it");
    assert_eq!(purposes(&plan), [PatchPurpose::Unfence]);
    let uncordon = Step::Uncordon {
        node: node(2).name,
        uid: node(2).uid,
        resource_version: node(2).resource_version,
    };
    assert_eq!(plan.steps.last(), Some(&uncordon));

    seen.workload = workload(3).into();
    with_node(&mut seen, 2, |n| {
        n.unschedulable = false;
        n.cordon_owner = CordonOwner::Nobody;
    });
    // Any number of passes and restarts later.
    for second in [101, 10_000, 100_000] {
        seen.memory.clear();
        let kept = pass(&mut seen, 2, after(second));
        assert_eq!(phases(&kept), [(2, DrainPhase::Aborted)]);
        assert_eq!((kept.steps.len(), kept.nodes[0].started_at), (0, now()));
    }
    // Fields that are not the three change nothing.
    edit(
        &mut seen,
        &json!({ "timeoutSeconds": 100, "onTimeout": "Abort", "burst": 7 }),
    );
    assert_eq!(
        phases(&pass(&mut seen, 2, after(100_001))),
        [(2, DrainPhase::Aborted)]
    );

    // Even a timeout that would have passed since starts the drain anew, and so do another onTimeout and target.
    for (drain, target) in [
        (json!({ "timeoutSeconds": 200, "onTimeout": "Abort" }), 2),
        (json!({ "timeoutSeconds": 100, "onTimeout": "Wait" }), 2),
        (abort.clone(), 1),
    ] {
        let mut seen = seen.clone();
        edit(&mut seen, &drain);
        let again = pass(&mut seen, target, after(100_002));
        assert_eq!(phases(&again), [(2, DrainPhase::Cordoning)]);
        assert_eq!(again.nodes[0].started_at, after(100_002));
        assert!(
            matches!(again.steps.as_slice(), [Step::Cordon { .. }]),
            "{:?}",
            again.steps
        );
    }
    assert_eq!(pass(&mut seen, 3, after(100_003)).nodes, [], "wanted again");
}

#[test]
fn a_pool_that_goes_is_drained_past_an_abort() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "Abort" }));
    pass(&mut seen, 2, now());
    assert_eq!(
        phases(&pass(&mut seen, 2, after(100))),
        [(2, DrainPhase::Aborted)]
    );
    let mut deleted = (*seen.pool).clone();
    deleted.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(101)));
    seen.pool = Arc::new(deleted);
    let goes = pass(&mut seen, 0, after(101));
    assert_eq!(phases(&goes), [(2, DrainPhase::Evicting)]);
    let late = pass(&mut seen, 0, after(300));
    assert!(stalled(&late) && phases(&late) == [(2, DrainPhase::Evicting)]);
}

#[test]
fn lower_nodes_wait_behind_one_that_is_kept() {
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "Abort", "maxConcurrentNodes": 2 }));
    pass(&mut seen, 2, now());
    cordon(&mut seen, 1);
    pass(&mut seen, 1, after(50));
    let plan = pass(&mut seen, 1, after(100));
    assert_eq!(phases(&plan), [(2, DrainPhase::Aborted)]);
    let uncordoned: Vec<&str> = plan
        .steps
        .iter()
        .filter_map(|s| {
            if let Step::Uncordon { node, .. } = s {
                Some(node.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(uncordoned, ["virtual-node-eci-1", "virtual-node-eci-2"]);
}

#[derive(Clone, Debug)]
enum Turn {
    Clock(i64),
    Timeout(Option<i32>),
    OnTimeout(OnTimeout),
    Target(i32),
    /// The process dies before the status is written, and forgets everything.
    Crash,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => (0_i64..200).prop_map(Turn::Clock),
        2 => proptest::option::weighted(0.9, 1_i32..400).prop_map(Turn::Timeout),
        2 => prop_oneof![Just(OnTimeout::Wait), Just(OnTimeout::ForceDelete), Just(OnTimeout::Abort)]
            .prop_map(Turn::OnTimeout),
        1 => (2_i32..=3).prop_map(Turn::Target),
        1 => Just(Turn::Crash),
    ]
}

proptest! {
    /// Over edits, crashes and time: force only by a stored announcement that is old enough and past the deadline; a node that
    /// is kept has neither order, fence nor cordon of ours, and is not taken up again by itself.
    #[test]
    fn deadlines_hold_over_edits_and_crashes(turns in proptest::collection::vec(turn(), 1..50)) {
        let mut seen = draining(&json!({}));
        let (mut at, mut target) = (now(), 2);
        let mut drain = json!({ "timeoutSeconds": 100, "onTimeout": "ForceDelete" });
        for turn in turns {
            let mut crash = false;
            match &turn {
                Turn::Clock(s) => at += SignedDuration::from_millis(s * 1000 + 300),
                Turn::Timeout(t) => drain["timeoutSeconds"] = json!(t),
                Turn::OnTimeout(o) => drain["onTimeout"] = json!(o.as_str()),
                Turn::Target(t) => target = *t,
                Turn::Crash => crash = true,
            }
            edit(&mut seen, &drain);
            set_fence(&mut seen, &fence_of(2, "node-2"));
            cordon(&mut seen, 2);
            beat(&mut seen, at);
            let before = seen.pool.status.as_ref().and_then(|s| s.draining(2)).cloned();
            let plan = plan_at(&seen, target, at);
            let timeout = seen.pool.spec.drain().timeout.map(signed);
            if forced(&plan).iter().any(|(_, grace)| grace.is_some()) {
                let before = before.clone().unwrap();
                let (timeout, told) = (timeout.unwrap(), before.force_announced_time.unwrap().0);
                prop_assert!(at >= before.started_at.0 + timeout);
                prop_assert!(at.duration_since(told) >= timeout.min(SignedDuration::from_secs(60)));
            }
            let kept = phases(&plan) == [(2, DrainPhase::Aborted)];
            if kept {
                prop_assert!(plan.orders.is_empty() && shrinks(&plan).is_empty());
                prop_assert_eq!(purposes(&plan), [PatchPurpose::Unfence]);
                let uncordoned = matches!(plan.steps.last(), Some(Step::Uncordon { .. }));
                prop_assert!(uncordoned);
            }
            if matches!(turn, Turn::Clock(_) | Turn::Crash) && before.is_some_and(|b| b.phase == DrainPhase::Aborted) {
                prop_assert!(kept, "taken up again without an edit");
            }
            if crash {
                seen.memory.clear();
            } else {
                store(&mut seen, &plan, target);
            }
        }
    }
}

#[test]
fn a_drain_that_was_given_up_stays_so_while_its_workload_cannot_be_seen() {
    use crate::observed::{Blind, WorkloadSeen};
    let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": "Abort" }));
    pass(&mut seen, 2, now());
    assert_eq!(
        phases(&pass(&mut seen, 2, after(100))),
        [(2, DrainPhase::Aborted)]
    );
    let workload = std::mem::replace(&mut seen.workload, WorkloadSeen::Unknown(Blind::NotWatched));
    let unseen = crate::drain::as_reported(&seen, after(101));
    assert_eq!(phases(&unseen), [(2, DrainPhase::Aborted)]);
    assert_eq!(
        (unseen.nodes[0].last_progress, unseen.steps.len()),
        (after(100), 0)
    );
    // What is seen again is as it was left.
    seen.workload = workload;
    assert_eq!(
        phases(&pass(&mut seen, 2, after(102))),
        [(2, DrainPhase::Aborted)]
    );
}

fn deleted(seen: &mut Observed) {
    let mut pool = (*seen.pool).clone();
    pool.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    seen.pool = Arc::new(pool);
}

#[test]
fn a_pool_that_goes_is_not_told_to_raise_its_replicas() {
    let uncordoned = |seen: &mut Observed| {
        let mut pool = (*seen.pool).clone();
        let node = &mut pool.status.as_mut().unwrap().drain.as_mut().unwrap().nodes[0];
        (node.recordons, node.phase) = (3, DrainPhase::Evicting);
        seen.pool = Arc::new(pool);
        with_node(seen, 2, |n| {
            n.unschedulable = false;
            n.cordon_owner = CordonOwner::Nobody;
        });
    };
    for on_timeout in ["Wait", "Abort", "ForceDelete"] {
        for goes in [false, true] {
            // Given up, it has no more to say of its own.
            if on_timeout == "Abort" && !goes {
                continue;
            }
            let mut seen = draining(&json!({ "timeoutSeconds": 100, "onTimeout": on_timeout }));
            if goes {
                deleted(&mut seen);
            }
            let mut told = format!("{:?}", pass(&mut seen, 2, now()).findings);
            told += &format!("{:?}", pass(&mut seen, 2, after(100)).findings);
            uncordoned(&mut seen);
            told += &format!("{:?}", pass(&mut seen, 2, after(101)).findings);
            assert!(told.contains("CordonContested"), "{told}");
            assert_eq!(
                told.contains("raise spec.replicas"),
                !goes,
                "{on_timeout}: {told}"
            );
            assert_eq!(
                told.contains("spec.deletionPolicy: Retain"),
                goes,
                "{on_timeout}: {told}"
            );
        }
    }
}

#[test]
fn past_its_time_and_empty_nothing_is_to_be_deleted() {
    let message = |plan: &DrainPlan| {
        let stalled = plan.findings.iter().find_map(|f| match f {
            Finding::Stalled { message, .. } => Some(message.clone()),
            _ => None,
        });
        stalled.unwrap()
    };
    let mut seen = draining(&json!({ "timeoutSeconds": 100 }));
    pass(&mut seen, 2, now());
    let told = message(&pass(&mut seen, 2, after(100)));
    assert!(told.contains("set onTimeout: ForceDelete"), "{told}");
    assert!(
        !told.contains("status.drain.blockers"),
        "nothing stands there: {told}"
    );
    let mut held = seen.clone();
    with_node(&mut held, 2, |n| n.ready = false);
    let told = message(&pass(&mut held, 2, after(101)));
    assert!(told.contains("repair what status.drain.blockers names"), "{told}");
    bind(&mut seen, 2, Vec::new());
    let told = message(&pass(&mut seen, 2, after(102)));
    assert!(
        told.ends_with("no pod is left on it; raise spec.replicas to keep the node"),
        "{told}"
    );
}
