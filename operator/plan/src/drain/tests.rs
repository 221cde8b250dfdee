mod deadline;
mod reported;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use vnp_crds::{BlockerReason, DrainPhase, SHRINKING_ANNOTATION};

use super::memory::DrainMemory;
use super::settle::Settle;
use super::*;
use crate::observed::{BoundPod, Budget, CordonOwner, Heartbeat, NodeView, ObjectKey, PodPhase};
use crate::proof::{ListAnswer, LiveFacts, QuorumList};
use crate::room::{Effect, Needs};
use crate::step::{PatchPurpose, WorkloadPatch};
use crate::testing::{
    after, bind, fence_of, node, now, observed, pod, pool, provider_pod, set_our_cordon, term, with_node,
    workload,
};

pub(super) fn plan_at(seen: &Observed, target: i32, at: Timestamp) -> DrainPlan {
    let workload = seen.workload.there().unwrap().clone();
    plan_drain(seen, &workload, target, &Holds::default(), at)
}

fn memory(seen: &mut Observed, ordinal: Ordinal, change: impl FnOnce(&mut DrainMemory)) {
    change(seen.memory.entry(ordinal).or_default());
}

pub(super) fn cordon(seen: &mut Observed, ordinal: Ordinal) {
    with_node(seen, ordinal, set_our_cordon);
    memory(seen, ordinal, |m| m.cordoned_since = Some(after(-60)));
}

pub(super) fn set_fence(seen: &mut Observed, value: &str) {
    let mut raw = seen.workload.there().unwrap().raw.clone();
    raw["metadata"]["annotations"] = json!({ SHRINKING_ANNOTATION: value });
    seen.workload = Workload::new(raw).into();
}

pub(super) fn list(at: Timestamp, pods: Vec<crate::observed::BoundPod>) -> QuorumList {
    let answer = ListAnswer {
        resource_version: Some("1".to_owned()),
        continue_token: None,
        pods,
    };
    QuorumList::complete(at, answer).unwrap()
}

pub(super) fn look(
    seen: &mut Observed,
    ordinal: Ordinal,
    at: Timestamp,
    pods: Vec<crate::observed::BoundPod>,
) {
    let live = LiveFacts {
        list: list(at, pods),
        pool: seen.pool.clone(),
        workload: seen.workload.there().cloned(),
        node: seen.nodes.get(&ordinal).cloned(),
        provider_pod: seen.provider_pods.get(&ordinal).cloned(),
        unclaimed: (!seen.nodes.contains_key(&ordinal)).then(Arc::default),
    };
    seen.live.insert(ordinal, live);
}

fn purposes(plan: &DrainPlan) -> Vec<PatchPurpose> {
    plan.steps
        .iter()
        .filter_map(|s| match s {
            Step::PatchWorkload(WorkloadPatch { purpose, .. }) => Some(*purpose),
            _ => None,
        })
        .collect()
}

pub(super) fn shrinks(plan: &DrainPlan) -> Vec<Ordinal> {
    plan.steps
        .iter()
        .filter_map(|s| {
            if let Step::Shrink(s) = s {
                Some(s.ordinal())
            } else {
                None
            }
        })
        .collect()
}

pub(super) fn blockers(plan: &DrainPlan) -> Vec<BlockerReason> {
    plan.findings
        .iter()
        .filter_map(|f| {
            if let Finding::Blocker(b) = f {
                Some(b.reason)
            } else {
                None
            }
        })
        .collect()
}

/// Node 2 of 3 is to go; it is cordoned, empty, reaped, fenced and one settle old.
pub(super) fn ripe() -> Observed {
    let spec = json!({ "replicas": 2, "drain": { "emptySettleSeconds": 30 } });
    let mut seen = observed(pool(spec), 3);
    cordon(&mut seen, 2);
    set_fence(&mut seen, &fence_of(2, "node-2"));
    report(&mut seen, DrainPhase::Emptying, Some("an earlier provider pod"));
    memory(&mut seen, 2, |m| {
        m.settle = Settle::begin(
            fence_of(2, "node-2"),
            Some(mark(2)),
            list(after(-40), Vec::new()),
            9,
            vnp_crds::DaemonSetPods::Evict,
        )
        .ok();
    });
    look(&mut seen, 2, now(), Vec::new());
    seen
}

fn mark(ordinal: Ordinal) -> health::ProviderMark {
    health::health(Some(&node(ordinal)), Some(&provider_pod(ordinal)), now()).unwrap()
}

pub(super) fn report(seen: &mut Observed, phase: DrainPhase, reaped: Option<&str>) {
    let mut pool = (*seen.pool).clone();
    pool.status = Some(
        serde_json::from_value(json!({
            "provider": { "type": "StatefulSet", "registered": [0, 1, 2], "retired": [] },
            "drain": {
                "summary": "0/0", "podsTotal": 0, "podsRemaining": 0, "podsTerminating": 0, "podsBlocked": 0,
                "limitedBy": "Settle", "blockers": [],
                "nodes": [{
                    "name": "virtual-node-eci-2", "uid": "node-2", "ordinal": 2, "phase": phase.as_str(),
                    "startedAt": "2026-12-31T00:00:00Z", "recordons": 0, "reapedProviderUid": reaped,
                    "podsTotal": 0, "podsRemaining": 0,
                }],
            },
        }))
        .unwrap(),
    );
    seen.pool = Arc::new(pool);
}

#[test]
fn nothing_is_done_when_the_count_is_the_target() {
    let plan = plan_at(&observed(pool(json!({ "replicas": 3 })), 3), 3, now());
    assert_eq!(plan.steps, Vec::new());
    assert_eq!(plan.nodes, Vec::new());
    assert_eq!(plan.wake_at, None);
}

#[test]
fn the_highest_ordinal_is_cordoned_first_and_only_that_one() {
    let mut seen = observed(pool(json!({ "replicas": 1 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    let plan = plan_at(&seen, 1, now());
    assert_eq!(
        plan.steps,
        [Step::Cordon {
            node: "virtual-node-eci-2".to_owned(),
            uid: "node-2".to_owned(),
            term: term(),
        }]
    );
    assert!(plan.orders.is_empty());
}

#[test]
fn no_eviction_before_the_cordon_has_settled() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    cordon(&mut seen, 2);
    memory(&mut seen, 2, |m| m.cordoned_since = Some(after(-4)));
    let early = plan_at(&seen, 2, now());
    assert!(early.orders.is_empty());
    assert_eq!(early.nodes[0].phase, DrainPhase::Settling);
    assert_eq!(early.wake_at, Some(after(1)));
    assert_eq!(plan_at(&seen, 2, after(1)).orders[0].pods.len(), 1);
}

#[test]
fn a_process_that_has_not_seen_the_cordon_settles_anew() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    cordon(&mut seen, 2);
    seen.memory.clear();
    assert!(plan_at(&seen, 2, now()).orders.is_empty());
}

#[test]
fn nothing_is_evicted_while_the_provider_is_sick() {
    type Harm = fn(&mut Observed);
    let harms: [Harm; 5] = [
        |s| with_node(s, 2, |n| n.ready = false),
        |s| {
            with_node(s, 2, |n| {
                n.heartbeat = Some(Heartbeat {
                    seen_at: after(-41),
                    beats: 9,
                })
            })
        },
        |s| with_node(s, 2, |n| n.heartbeat = None),
        |s| drop(s.provider_pods.remove(&2)),
        |s| drop(s.nodes.remove(&2)),
    ];
    for harm in harms {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
        bind(&mut seen, 2, vec![pod("a")]);
        cordon(&mut seen, 2);
        assert_eq!(plan_at(&seen, 2, now()).orders.len(), 1);
        harm(&mut seen);
        let plan = plan_at(&seen, 2, now());
        assert!(plan.orders.is_empty());
        let told = format!("{:?}", plan.findings);
        assert!(told.contains("nobody could delete its instances"), "{told}");
        let silent = seen.nodes.get(&2).is_some_and(|n| n.heartbeat.is_none());
        assert_eq!(
            told.contains("not been seen to send a heartbeat yet"),
            silent,
            "{told}"
        );
        let expected = if seen.nodes.contains_key(&2) {
            BlockerReason::ProviderUnavailable
        } else {
            BlockerReason::NodeMissing
        };
        assert_eq!(blockers(&plan), [expected]);
        assert_eq!(plan.held_by_provider, Some(2));
        // Only a start of its provider may bring a Node back.
        let message = plan.findings.iter().find_map(|f| match f {
            Finding::Blocker(b) => Some(b.message.as_str()),
            _ => None,
        });
        let advised =
            message.is_some_and(|m| m.contains("kubectl -n kube-system delete pod virtual-node-eci-2"));
        assert_eq!(advised, expected == BlockerReason::NodeMissing, "{message:?}");
    }
}

#[test]
fn a_spent_budget_is_named_without_asking() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a"), pod("b")]);
    cordon(&mut seen, 2);
    let key = ObjectKey {
        namespace: "shop".to_owned(),
        name: "checkout".to_owned(),
    };
    let selector = serde_json::from_value(json!({ "matchLabels": { "app": "shop" } })).unwrap();
    seen.budgets = Arc::new(vec![Budget {
        key: key.clone(),
        selector: Some(selector),
        current: true,
        ..Budget::default()
    }]);
    let plan = plan_at(&seen, 2, now());
    let Finding::Blocker(blocker) = &plan.findings[0] else {
        panic!("{:?}", plan.findings)
    };
    assert_eq!(
        (blocker.reason, blocker.object.as_str(), blocker.pods),
        (BlockerReason::BlockedByBudget, "shop/checkout", 2)
    );
    assert_eq!(plan.orders[0].pods[0].budgets, [key]);
}

#[test]
fn bare_pods_block_unless_the_user_says_otherwise_and_finished_ones_never_do() {
    for (policy, evicted, reason) in [
        ("Block", 1, Some(BlockerReason::BarePods)),
        ("WaitForCompletion", 1, Some(BlockerReason::WaitingForCompletion)),
        ("Evict", 2, None),
    ] {
        let mut seen = observed(pool(json!({ "replicas": 2, "drain": { "barePods": policy } })), 3);
        let mut bare = pod("bare");
        bare.controller = None;
        let mut ended = bare.clone();
        ended.key.name = "ended".to_owned();
        ended.phase = PodPhase::Succeeded;
        bind(&mut seen, 2, vec![bare, ended]);
        cordon(&mut seen, 2);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(plan.orders[0].pods.len(), evicted, "{policy}");
        assert_eq!(plan.orders[0].pods[0].pod.name, "ended", "{policy}");
        assert_eq!(blockers(&plan).first().copied(), reason, "{policy}");
    }
}

#[test]
fn survivors_must_have_room_for_pods_that_need_virtual_nodes() {
    let mut seen = observed(pool(json!({ "replicas": 1 })), 2);
    with_node(&mut seen, 0, |n| n.allocatable.extend([("pods".to_owned(), 2)]));
    bind(&mut seen, 0, vec![pod("x")]);
    bind(&mut seen, 1, vec![pod("a"), pod("b")]);
    let plan = plan_at(&seen, 1, now());
    assert_eq!(
        (plan.steps.len(), blockers(&plan)),
        (0, vec![BlockerReason::InsufficientCapacity])
    );
    assert_eq!(plan_at(&seen, 0, now()).steps.len(), 1, "not asked for target 0");
    // Only pods that would have to move to another virtual node need room there.
    for change in [
        |p: &mut BoundPod| p.requires_virtual = false,
        |p: &mut BoundPod| p.phase = PodPhase::Succeeded,
        |p: &mut BoundPod| p.controller.as_mut().unwrap().kind = "DaemonSet".to_owned(),
        |p: &mut BoundPod| {
            let by_name = (
                "kubernetes.io/hostname".to_owned(),
                "virtual-node-eci-1".to_owned(),
            );
            Arc::make_mut(&mut p.needs).selector.extend([by_name]);
        },
    ] {
        let mut seen = seen.clone();
        let mut other = pod("b");
        change(&mut other);
        bind(&mut seen, 1, vec![pod("a"), other]);
        assert_eq!(plan_at(&seen, 1, now()).steps.len(), 1);
    }
    // And only a node that can take them has any.
    for change in [
        |n: &mut NodeView| n.ready = false,
        |n: &mut NodeView| n.unschedulable = true,
        |n: &mut NodeView| n.deleting = true,
        |n: &mut NodeView| n.unreadable = true,
        |n: &mut NodeView| n.allocatable.clear(),
        |n: &mut NodeView| n.taints = vec![taint(Effect::NoSchedule)],
        |n: &mut NodeView| n.taints = vec![taint(Effect::NoExecute)],
    ] {
        let mut seen = seen.clone();
        with_node(&mut seen, 0, |n| {
            n.allocatable.extend([("pods".to_owned(), 1000)])
        });
        assert_eq!(plan_at(&seen, 1, now()).steps.len(), 1);
        with_node(&mut seen, 0, change);
        assert_eq!(
            blockers(&plan_at(&seen, 1, now())),
            vec![BlockerReason::InsufficientCapacity]
        );
    }
    let spec = json!({ "replicas": 1, "drain": { "capacityCheck": "Ignore" } });
    seen.pool = Arc::new(pool(spec));
    assert_eq!(plan_at(&seen, 1, now()).steps.len(), 1, "Ignore overrides");
}

fn taint(effect: Effect) -> k8s_openapi::api::core::v1::Taint {
    k8s_openapi::api::core::v1::Taint {
        key: "node.kubernetes.io/network-unavailable".to_owned(),
        effect: effect.to_string(),
        ..Default::default()
    }
}

#[test]
fn a_lack_of_room_names_the_pod_each_node_and_what_is_against_it() {
    let mut seen = observed(pool(json!({ "replicas": 4 })), 5);
    let asks = |name: &str, requests: &[(&str, i64)]| {
        let requests = requests.iter().map(|(r, a)| ((*r).to_owned(), *a)).collect();
        let needs = Arc::new(Needs {
            requests,
            ..Needs::default()
        });
        BoundPod { needs, ..pod(name) }
    };
    let offers = |cpu: i64, gpu: i64| {
        let all = [("pods", 10), ("cpu", cpu), ("nvidia.com/gpu", gpu)];
        all.into_iter()
            .map(|(r, a)| (r.to_owned(), a))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    with_node(&mut seen, 0, |n| n.taints = vec![taint(Effect::NoSchedule)]);
    with_node(&mut seen, 1, |n| n.allocatable = offers(4000, 1));
    with_node(&mut seen, 2, |n| n.allocatable = offers(1000, 1));
    seen.nodes.remove(&3);
    bind(&mut seen, 1, vec![asks("there", &[("cpu", 2500)])]);
    let movers = |cpu: i64| {
        vec![
            asks("a", &[("cpu", cpu)]),
            asks("b", &[("cpu", 1000), ("nvidia.com/gpu", 1)]),
        ]
    };
    bind(&mut seen, 4, movers(1500));
    assert_eq!(blockers(&plan_at(&seen, 4, now())), vec![]);
    bind(&mut seen, 4, movers(1600));
    let plan = plan_at(&seen, 4, now());
    let Some(Finding::Blocker(blocker)) = plan.findings.first() else {
        panic!("{:?}", plan.findings)
    };
    assert_eq!(
        (plan.steps.len(), blocker.object.as_str(), blocker.pods),
        (0, "virtual-node-eci-4", 2)
    );
    assert_eq!(
        blocker.message,
        "not all pods that run only on virtual nodes fit on the nodes that stay: shop/a does not (virtual-node-eci-0: \
         its taint node.kubernetes.io/network-unavailable:NoSchedule is not tolerated; virtual-node-eci-1: too little cpu is \
         left: a pod asks for 1600m, the node has 4000m in all; virtual-node-eci-2: too little cpu is left: a pod asks for \
         1600m, the node has 1000m in all; virtual-node-eci-3: there is no such Node); make room on these nodes, raise spec.replicas, or set spec.drain.capacityCheck: Ignore"
    );
    // What a pod that can't be read takes is not known.
    with_node(&mut seen, 1, |n| n.allocatable = offers(9000, 1));
    bind(&mut seen, 4, movers(1600));
    assert_eq!(blockers(&plan_at(&seen, 4, now())), vec![]);
    bind(
        &mut seen,
        1,
        vec![BoundPod {
            unreadable: true,
            ..pod("c")
        }],
    );
    assert_eq!(
        blockers(&plan_at(&seen, 4, now())),
        vec![BlockerReason::InsufficientCapacity]
    );
}

#[test]
fn what_cannot_be_read_is_held_and_named() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    let unreadable = BoundPod {
        unreadable: true,
        ..pod("a")
    };
    let elsewhere = |name: &str| {
        let mut pod = pod(name);
        pod.key.namespace = "other".to_owned();
        pod
    };
    bind(&mut seen, 2, vec![unreadable, pod("b"), elsewhere("c")]);
    let orders = |seen: &Observed| {
        let plan = plan_at(seen, 2, now());
        let pods: Vec<String> = plan.orders[0].pods.iter().map(|p| p.pod.to_string()).collect();
        let named = plan.findings.iter().filter_map(|f| match f {
            Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.pods)),
            _ => None,
        });
        (pods, named.collect::<Vec<_>>())
    };
    let pod_named = (BlockerReason::Unreadable, "shop/a".to_owned(), 1);
    assert_eq!(
        orders(&seen),
        (
            vec!["other/c".to_owned(), "shop/b".to_owned()],
            vec![pod_named.clone()]
        )
    );
    // A budget that can't be read may cover every pod of its namespace.
    seen.budgets = Arc::new(vec![Budget {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        unreadable: true,
        ..Budget::default()
    }]);
    let budget_named = (BlockerReason::Unreadable, "shop/web".to_owned(), 1);
    assert_eq!(
        orders(&seen),
        (vec!["other/c".to_owned()], vec![pod_named, budget_named])
    );
    // A Node that can't be read is not cordoned with each pass.
    with_node(&mut seen, 2, |n| {
        *n = NodeView {
            name: n.name.clone(),
            uid: n.uid.clone(),
            unreadable: true,
            ..NodeView::default()
        }
    });
    let plan = plan_at(&seen, 2, now());
    assert_eq!(
        (plan.steps.len(), blockers(&plan)),
        (0, vec![BlockerReason::ProviderUnavailable])
    );
}

#[test]
fn an_empty_node_is_reaped_before_it_is_fenced() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    let asks = plan_at(&seen, 2, now());
    assert_eq!(
        (asks.reads.as_slice(), asks.steps.len()),
        (&[2][..], 0),
        "a list first"
    );
    look(&mut seen, 2, now(), vec![pod("late")]);
    assert!(
        plan_at(&seen, 2, now()).steps.is_empty(),
        "a pod that only the list shows"
    );
    look(&mut seen, 2, now(), Vec::new());
    let plan = plan_at(&seen, 2, now());
    assert_eq!(plan.steps, [], "the status has to say so first");
    assert_eq!(plan.nodes[0].reaped_provider_uid.as_deref(), Some("provider-2"));
    assert!(plan.wake_at.is_some());
    report(&mut seen, DrainPhase::Reaping, Some("provider-2"));
    let plan = plan_at(&seen, 2, now());
    assert!(matches!(&plan.steps[..], [Step::DeleteProviderPod { uid, .. }] if uid == "provider-2"));
    assert_eq!(plan.nodes[0].reaped_provider_uid.as_deref(), Some("provider-2"));
}

/// An older CRD does not know the field, and the API server drops it from each status.
#[test]
fn without_a_note_of_it_no_provider_is_restarted() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    report(&mut seen, DrainPhase::Reaping, None);
    let mut pool = (*seen.pool).clone();
    let drain = pool.status.as_mut().unwrap().drain.as_mut().unwrap();
    drain.nodes[0].empty_since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-59)));
    seen.pool = Arc::new(pool);
    look(&mut seen, 2, now(), Vec::new());
    let plan = plan_at(&seen, 2, now());
    assert_eq!((plan.steps.len(), plan.findings.len()), (0, 0));
    let plan = plan_at(&seen, 2, after(1));
    assert_eq!(plan.steps, []);
    assert!(
        matches!(&plan.findings[..], [Finding::Blocker(b)] if b.message.contains("reapedProviderUid")),
        "{:?}",
        plan.findings
    );
    // It is tried on: the CRD may be applied at any time.
    assert_eq!(plan.nodes[0].reaped_provider_uid.as_deref(), Some("provider-2"));
}

#[test]
fn after_the_restart_only_a_heartbeat_of_the_new_provider_counts() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    report(&mut seen, DrainPhase::Reaping, Some("an earlier provider pod"));
    memory(&mut seen, 2, |m| m.provider.as_mut().unwrap().beats_before = 10);
    assert_eq!(plan_at(&seen, 2, now()).nodes[0].phase, DrainPhase::Reaping);
    with_node(&mut seen, 2, |n| n.heartbeat.as_mut().unwrap().beats = 11);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(purposes(&plan), [PatchPurpose::Fence]);
    memory(&mut seen, 2, |m| m.provider.as_mut().unwrap().departures = 1);
    assert_eq!(
        plan_at(&seen, 2, now()).reads,
        [2],
        "a pod went after the start: once more"
    );
}

#[test]
fn a_ripe_node_is_shrunk_away_with_every_test_in_the_patch() {
    let plan = plan_at(&ripe(), 2, now());
    assert_eq!(shrinks(&plan), [2]);
    let Some(Step::Shrink(shrink)) = plan.steps.last() else {
        panic!("{:?}", plan.steps)
    };
    let mut raw = ripe().workload.there().unwrap().raw.clone();
    json_patch::patch(&mut raw, shrink.patch()).unwrap();
    assert_eq!(raw["spec"]["replicas"], 2);
    for (pointer, other) in [
        ("/metadata/uid", json!("another")),
        ("/metadata/resourceVersion", json!("101")),
        (
            "/metadata/annotations/virtualnodes.dev~1shrinking",
            json!("2/node-2/4"),
        ),
        ("/spec/replicas", json!(4)),
    ] {
        let mut moved = ripe().workload.there().unwrap().raw.clone();
        *moved.pointer_mut(pointer).unwrap() = other;
        assert!(
            json_patch::patch(&mut moved, shrink.patch()).is_err(),
            "{pointer}"
        );
    }
}

#[test]
fn anything_that_moved_during_the_settle_voids_it() {
    type Harm = fn(&mut Observed);
    let harms: [(&str, Harm); 9] = [
        ("a pod in the second list", |s| {
            look(s, 2, now(), vec![pod("late")])
        }),
        ("the provider restarted", |s| {
            let mut other = provider_pod(2);
            other.restarts = 1;
            s.provider_pods.insert(2, Arc::new(other));
        }),
        ("the provider restarted, seen only live", |s| {
            let mut other = provider_pod(2);
            other.uid = "other".to_owned();
            s.live.get_mut(&2).unwrap().provider_pod = Some(Arc::new(other));
        }),
        ("the Node registered again, seen only live", |s| {
            let mut other = node(2);
            other.uid = "other".to_owned();
            s.live.get_mut(&2).unwrap().node = Some(Arc::new(other));
        }),
        ("the cordon is gone, seen only live", |s| {
            s.live.get_mut(&2).unwrap().node = Some(Arc::new(node(2)));
        }),
        ("the live pool wants three", |s| {
            s.live.get_mut(&2).unwrap().pool = Arc::new(pool(json!({ "replicas": 3 })));
        }),
        ("the live pool is paused", |s| {
            s.live.get_mut(&2).unwrap().pool = Arc::new(pool(json!({ "replicas": 2, "paused": true })));
        }),
        ("the fence went, seen only live", |s| {
            s.live.get_mut(&2).unwrap().workload = Some(Arc::new(workload(3)));
        }),
        ("a heartbeat is missing since the last departure", |s| {
            memory(s, 2, |m| m.departures.last = Some((after(-35), 10)));
        }),
    ];
    for (what, harm) in harms {
        let mut seen = ripe();
        harm(&mut seen);
        assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0], "{what}");
    }
}

#[test]
fn the_settle_waits_for_the_clouds_backlog() {
    let mut seen = ripe();
    memory(&mut seen, 2, |m| {
        m.departures = memory::Departures::after_restart(300, after(-40));
    });
    // 200 instances beyond the burst at 20/s need 10 s from -40 s on: done.
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);
    memory(&mut seen, 2, |m| {
        m.departures = memory::Departures::after_restart(2000, after(-40))
    });
    let plan = plan_at(&seen, 2, now());
    assert_eq!(shrinks(&plan), [0; 0]);
    assert!(plan.wake_at.unwrap() >= after(55));
    assert!(plan.settles.contains_key(&2), "the settle goes on");
}

#[test]
fn a_foreign_or_stale_fence_is_taken_back_before_anything_else() {
    let other_leader = format!("2/node-2/3/{}/leader_2", term().installation);
    let (former, ours) = ("2/node-2/3".to_owned(), fence_of(2, "node-2"));
    for (value, target) in [
        ("2/node-2/2".to_owned(), 2),
        (former, 2),
        (other_leader, 2),
        (ours, 3),
    ] {
        let mut seen = ripe();
        set_fence(&mut seen, &value);
        let plan = plan_at(&seen, target, now());
        assert_eq!(purposes(&plan), [PatchPurpose::Unfence], "{value}");
        assert!(
            matches!(plan.steps[0], Step::PatchWorkload(_)),
            "before the uncordon"
        );
        assert_eq!(shrinks(&plan), [0; 0]);
    }
}

#[test]
fn raising_the_target_undoes_our_cordon_and_nobody_elses() {
    let mut seen = observed(pool(json!({ "replicas": 3 })), 3);
    cordon(&mut seen, 2);
    with_node(&mut seen, 1, |n| {
        n.unschedulable = true;
        n.cordon_owner = CordonOwner::Others;
    });
    let plan = plan_at(&seen, 3, now());
    assert_eq!(
        plan.steps,
        [Step::Uncordon {
            node: "virtual-node-eci-2".to_owned(),
            uid: "node-2".to_owned(),
            resource_version: "7".to_owned(),
        }]
    );
    assert!(plan.orders.is_empty());
}

#[test]
fn a_cordon_of_a_leader_before_is_made_this_leaders_and_nothing_rests_on_it_until_then() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    cordon(&mut seen, 2);
    let other_leader = format!("3/{}/leader_2", term().installation);
    for written in [None, Some("2"), Some("3"), Some("x"), Some(other_leader.as_str())] {
        with_node(&mut seen, 2, |n| n.cordon_term = written.map(str::to_owned));
        let plan = plan_at(&seen, 2, now());
        assert!(
            matches!(&plan.steps[..], [Step::Cordon { term: t, .. }] if *t == term()),
            "{written:?}: {:?}",
            plan.steps
        );
        assert!(plan.orders.is_empty());
        assert_eq!(plan.nodes[0].recordons, 0, "nobody took it away");
    }
}

#[test]
fn a_cordon_stays_until_the_count_gives_the_node_its_provider_back() {
    // Shrunk to 2, wanted again, not raised yet: a pod that came now would meet a provider that is going.
    let mut seen = observed(pool(json!({ "replicas": 3 })), 2);
    cordon(&mut seen, 2);
    assert!(plan_at(&seen, 3, now()).steps.is_empty());
    let mut raised = observed(pool(json!({ "replicas": 3 })), 3);
    cordon(&mut raised, 2);
    assert!(matches!(
        plan_at(&raised, 3, now()).steps[..],
        [Step::Uncordon { .. }]
    ));
}

#[test]
fn a_fence_is_not_taken_back_after_its_shrink() {
    let mut seen = ripe();
    set_fence(&mut seen, "2/node-2/2");
    let plan = plan_at(&seen, 3, now());
    let Step::PatchWorkload(unfence) = &plan.steps[0] else {
        panic!("{:?}", plan.steps)
    };
    let mut raw = seen.workload.there().unwrap().raw.clone();
    json_patch::patch(&mut raw.clone(), &unfence.patch).unwrap();
    raw["spec"]["replicas"] = json!(2);
    assert!(json_patch::patch(&mut raw, &unfence.patch).is_err());
}

#[test]
fn a_cordon_that_is_taken_away_is_put_back_three_times() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    report(&mut seen, DrainPhase::Evicting, None);
    let plan = plan_at(&seen, 2, now());
    assert_eq!((plan.steps.len(), plan.nodes[0].recordons), (1, 1));
    let mut pool = (*seen.pool).clone();
    pool.status.as_mut().unwrap().drain.as_mut().unwrap().nodes[0].recordons = 3;
    seen.pool = Arc::new(pool);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(
        (plan.steps.len(), blockers(&plan)),
        (0, vec![BlockerReason::CordonContested])
    );
    with_node(&mut seen, 2, |n| {
        n.unschedulable = true;
        n.cordon_owner = CordonOwner::Others;
    });
    assert_eq!(
        plan_at(&seen, 2, now()).steps.len(),
        1,
        "somebody cordoned: it goes on"
    );
}

#[test]
fn a_node_is_deleted_only_after_its_provider_and_when_the_audit_is_noted() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    with_node(&mut seen, 2, |n| n.unschedulable = true);
    seen.provider_pods.insert(2, Arc::new(provider_pod(2)));
    report(&mut seen, DrainPhase::Emptying, Some("x"));
    let plan = plan_at(&seen, 2, now());
    assert_eq!(
        (plan.nodes[0].phase, plan.steps.len(), plan.reads.len()),
        (DrainPhase::Shrinking, 0, 0)
    );
    assert_eq!(
        (plan.retired[0].ordinal, plan.retired[0].node_uid.as_deref()),
        (2, Some("node-2"))
    );
    seen.provider_pods.remove(&2);
    assert!(
        plan_at(&seen, 2, now()).reads.is_empty(),
        "not noted in the status yet"
    );
    let mut pool = (*seen.pool).clone();
    pool.status.as_mut().unwrap().provider.as_mut().unwrap().retired = plan.retired.clone();
    seen.pool = Arc::new(pool);
    assert_eq!(plan_at(&seen, 2, now()).reads, [2]);
    look(&mut seen, 2, now(), vec![pod("raced")]);
    assert!(plan_at(&seen, 2, now()).steps.is_empty());
    look(&mut seen, 2, now(), Vec::new());
    let delete = Step::DeleteNode {
        node: "virtual-node-eci-2".to_owned(),
        uid: "node-2".to_owned(),
    };
    assert_eq!(plan_at(&seen, 2, now()).steps, [delete]);
    seen.live.get_mut(&2).unwrap().pool = Arc::new(crate::testing::pool(json!({ "replicas": 3 })));
    assert!(plan_at(&seen, 2, now()).steps.is_empty(), "wanted again");
}

#[test]
fn a_node_and_a_provider_pod_held_by_finalizers_are_named_with_their_holders() {
    let removing = |seen: &mut Observed| {
        report(seen, DrainPhase::Removing, Some("x"));
        let held = crate::observed::Finalizer {
            name: "example.com/hold".to_owned(),
            manager: Some("nodekeeper".to_owned()),
        };
        with_node(seen, 2, |n| {
            n.deleting = true;
            n.deleted_at = Some(after(-31));
            n.finalizers = vec![held];
        });
    };
    let told = |seen: &Observed| {
        let plan = plan_at(seen, 2, now());
        let blocker = plan.findings.iter().find_map(|f| match f {
            Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.since, b.message.clone())),
            _ => None,
        });
        assert!(
            plan.steps.is_empty() && plan.reads.is_empty(),
            "nothing more is written: {:?}",
            plan.steps
        );
        (blocker, plan.limited_by)
    };
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    removing(&mut seen);
    let (blocker, limited_by) = told(&seen);
    let (reason, object, since, message) = blocker.unwrap();
    assert_eq!(
        (reason, object.as_str(), since),
        (
            BlockerReason::FinalizerHolds,
            "virtual-node-eci-2",
            Some(after(-31))
        )
    );
    assert!(
        message.contains("held by example.com/hold (set by nodekeeper)"),
        "{message}"
    );
    assert_eq!(limited_by, Some(LimitedBy::Nothing));
    // Within seconds of the deletion that is nothing to speak of.
    with_node(&mut seen, 2, |n| n.deleted_at = Some(after(-29)));
    assert_eq!(told(&seen).0, None);
    // The provider pod before it, likewise.
    with_node(&mut seen, 2, |n| {
        n.deleting = false;
        n.deleted_at = None;
    });
    let mut pod = provider_pod(2);
    pod.deleting = true;
    pod.deletion = Some(after(-31));
    pod.finalizers = vec!["example.com/hold".to_owned()];
    seen.provider_pods.insert(2, Arc::new(pod));
    let (reason, object, since, _) = told(&seen).0.unwrap();
    assert_eq!(
        (reason, object.as_str(), since),
        (
            BlockerReason::FinalizerHolds,
            "kube-system/virtual-node-eci-2",
            Some(after(-31))
        )
    );
}

#[test]
fn a_provider_that_a_sick_lower_one_keeps_is_told_at_once_and_names_it() {
    let stuck = |policy: &str, ready: bool| {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        with_node(&mut seen, 2, |n| n.unschedulable = true);
        seen.provider_pods.insert(2, Arc::new(provider_pod(2)));
        report(&mut seen, DrainPhase::Emptying, Some("x"));
        let mut raw = seen.workload.there().unwrap().raw.clone();
        raw["spec"]["podManagementPolicy"] = json!(policy);
        seen.workload = crate::observed::Workload::new(raw).into();
        Arc::make_mut(seen.provider_pods.get_mut(&0).unwrap()).ready = ready;
        let plan = plan_at(&seen, 2, now());
        assert!(plan.steps.is_empty() && plan.reads.is_empty());
        plan.findings.into_iter().find_map(|f| match f {
            Finding::Blocker(b) => Some((b.reason, b.message.contains("virtual-node-eci-0 is not Ready"))),
            _ => None,
        })
    };
    assert_eq!(
        stuck("OrderedReady", false),
        Some((BlockerReason::StatefulSetStuck, true))
    );
    assert_eq!(stuck("OrderedReady", true), None);
    assert_eq!(stuck("Parallel", false), None);
}

#[test]
fn a_lower_provider_that_is_ready_and_not_available_yet_is_named_until_it_is() {
    let told = |policy: &str, ready_since: i64| {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        with_node(&mut seen, 2, |n| n.unschedulable = true);
        seen.provider_pods.insert(2, Arc::new(provider_pod(2)));
        report(&mut seen, DrainPhase::Emptying, Some("x"));
        let mut raw = seen.workload.there().unwrap().raw.clone();
        raw["spec"]["podManagementPolicy"] = json!(policy);
        raw["spec"]["minReadySeconds"] = json!(300);
        seen.workload = crate::observed::Workload::new(raw).into();
        Arc::make_mut(seen.provider_pods.get_mut(&1).unwrap()).ready_since = Some(after(ready_since));
        let plan = plan_at(&seen, 2, now());
        let told = plan.findings.into_iter().find_map(|f| match f {
            Finding::Blocker(b) => Some((b.reason, b.message)),
            _ => None,
        });
        (told, plan.wake_at)
    };
    let (said, wake_at) = told("OrderedReady", -299);
    let (reason, message) = said.unwrap();
    assert_eq!(
        (reason, wake_at),
        (BlockerReason::StatefulSetStuck, Some(after(1)))
    );
    assert!(
        message.contains("virtual-node-eci-1 has not been Ready for its spec.minReadySeconds (300) yet"),
        "{message}"
    );
    assert_eq!(told("OrderedReady", -300).0, None);
    assert_eq!(told("Parallel", -1).0, None);
}

/// The settles before the count was lowered may have been longer than the deadline.
#[test]
fn a_provider_pod_that_does_not_go_is_told_when_the_deadline_is_over_since_the_count_was_lowered() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    with_node(&mut seen, 2, |n| n.unschedulable = true);
    seen.provider_pods.insert(2, Arc::new(provider_pod(2)));
    report(&mut seen, DrainPhase::Emptying, Some("x"));
    let mut pool = (*seen.pool).clone();
    let status = pool.status.as_mut().unwrap();
    status.drain.as_mut().unwrap().nodes[0].last_progress_time = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-5_000)),
    );
    seen.pool = Arc::new(pool.clone());
    let lowered = plan_at(&seen, 2, now());
    assert!(blockers(&lowered).is_empty());
    let status = pool.status.as_mut().unwrap();
    status.provider.as_mut().unwrap().retired = lowered.retired;
    seen.pool = Arc::new(pool);
    let before = plan_at(&seen, 2, after(599));
    assert!(blockers(&before).is_empty() && before.wake_at == Some(after(600)));
    let over = plan_at(&seen, 2, after(600));
    let told = over.findings.iter().find_map(|f| match f {
        Finding::Blocker(b) => Some((b.reason, b.message.contains("virtual-node-eci-2 does not go"))),
        _ => None,
    });
    assert_eq!(told, Some((BlockerReason::StatefulSetStuck, true)));
}

/// What is told of pods on ordinals that the pool does not have.
fn unknown(plan: &DrainPlan) -> Vec<&str> {
    let notes = plan.findings.iter().filter_map(|f| match f {
        Finding::Event(e) if e.reason == vnp_crds::EventReason::UnknownOrdinal => Some(e.note.as_str()),
        _ => None,
    });
    notes.collect()
}

#[test]
fn a_pod_on_an_ordinal_that_nobody_knows_is_reported_and_nothing_else() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    bind(&mut seen, 99, vec![pod("stray")]);
    let plan = plan_at(&seen, 2, now());
    assert!(plan.steps.is_empty() && plan.orders.is_empty());
    assert_eq!(plan.findings.len(), 1);
    assert_eq!(
        unknown(&plan),
        [
            "pods are bound to virtual-node-eci-99, and the pool knows no virtual node of that name (first: shop/stray); take \
             spec.nodeName out of their manifests and delete them"
        ]
    );
}

#[test]
fn pods_on_a_node_that_is_there_are_not_told_to_be_deleted() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    with_node(&mut seen, 2, |n| n.labels.clear());
    bind(&mut seen, 2, vec![pod("a")]);
    let told = "pods are bound to virtual-node-eci-2 (first: shop/a), and StatefulSet kube-system/virtual-node-eci counts no \
                provider for it, without which nobody deletes their instances; ";
    let raise = "raise spec.replicas to 3 to have it back and drained, or delete the instances by hand";
    assert_eq!(unknown(&plan_at(&seen, 2, now())), [format!("{told}{raise}")]);
    // Nothing raises the count of a pool that goes, nor brings back what lies below the first ordinal.
    let mut deleted = (*seen.pool).clone();
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let mut goes = seen.clone();
    goes.pool = Arc::new(deleted);
    assert_eq!(
        unknown(&plan_at(&goes, 2, now())),
        [format!("{told}delete the instances by hand")]
    );
    let mut raw = seen.workload.there().unwrap().raw.clone();
    raw["spec"]["ordinals"] = json!({ "start": 5 });
    seen.workload = Workload::new(raw).into();
    assert_eq!(
        unknown(&plan_at(&seen, 2, now())),
        [format!("{told}delete the instances by hand")]
    );
}

#[test]
fn nobody_is_told_to_delete_what_spec_drain_leaves_out_or_a_machine_runs() {
    let ignore = json!({ "replicas": 2, "drain": { "daemonSetPods": "IgnoreNeverStarted" } });
    let mut seen = observed(pool(ignore), 2);
    let mut left_out = pod("agent");
    left_out.never_started = true;
    left_out.controller.as_mut().unwrap().kind = "DaemonSet".to_owned();
    bind(&mut seen, 99, vec![left_out.clone()]);
    assert_eq!(
        unknown(&plan_at(&seen, 2, now())),
        [
            "DaemonSet pods that never started are bound to virtual-node-eci-99, which is not there (first: shop/agent); \
             spec.drain.daemonSetPods leaves them out, and the pod garbage collector removes them"
        ]
    );
    let mirror = BoundPod {
        mirror: true,
        ..pod("mirror")
    };
    bind(&mut seen, 99, vec![mirror.clone()]);
    assert_eq!(unknown(&plan_at(&seen, 2, now())), Vec::<&str>::new());
    bind(&mut seen, 99, vec![mirror, pod("stray")]);
    assert!(unknown(&plan_at(&seen, 2, now()))[0].contains("(first: shop/stray)"));
}

#[test]
fn what_the_workload_no_longer_counts_is_emptied_while_its_provider_runs() {
    let told = |seen: &Observed| -> String {
        let plan = crate::plan(seen, now());
        let blocker = plan.findings.iter().find_map(|f| match f {
            Finding::Blocker(b) if b.object == "virtual-node-eci-2" => Some(b.message.clone()),
            _ => None,
        });
        blocker.unwrap()
    };
    // Below the first ordinal that the workload has now.
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    let mut raw = seen.workload.there().unwrap().raw.clone();
    raw["spec"]["ordinals"] = json!({ "start": 5 });
    seen.workload = Workload::new(raw).into();
    let back = "set spec.ordinals.start of StatefulSet kube-system/virtual-node-eci to 2 again";
    let runs = told(&seen);
    assert!(
        runs.contains("still runs") && runs.contains("kubectl drain virtual-node-eci-2"),
        "{runs}"
    );
    assert!(
        runs.contains(back) && !runs.contains("nobody can delete"),
        "{runs}"
    );
    seen.provider_pods.remove(&2);
    let gone = told(&seen);
    assert!(
        gone.contains("nobody can delete its instances") && gone.contains(back),
        "{gone}"
    );
    // Or the workload itself is gone, and left its providers behind.
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    let mut deleted = (*seen.pool).clone();
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    seen.pool = Arc::new(deleted);
    seen.workload = crate::observed::WorkloadSeen::Absent;
    let runs = told(&seen);
    assert!(
        runs.contains("still runs") && runs.contains("bring the workload back"),
        "{runs}"
    );
    bind(&mut seen, 2, Vec::new());
    let mut pool = (*seen.pool).clone();
    pool.status = serde_json::from_value(json!({ "provider": { "type": "StatefulSet", "retired": [
        { "ordinal": 2, "nodeUid": "node-2", "time": after(-6000).to_string(), "abandoned": false },
    ] } }))
    .unwrap();
    seen.pool = Arc::new(pool);
    let findings = crate::plan(&seen, now()).findings;
    let stuck = findings.iter().find_map(|f| match f {
        Finding::Blocker(b) if b.reason == BlockerReason::StatefulSetStuck => {
            Some((b.object.as_str(), b.message.as_str()))
        }
        _ => None,
    });
    let message = "the workload is gone, but the provider pod of virtual-node-eci-2 does not go; see kubectl -n kube-system \
                   describe pod virtual-node-eci-2";
    assert_eq!(stuck, Some(("virtual-node-eci", message)));
}

#[test]
fn an_ordinal_that_never_came_up_goes_without_a_healthy_provider() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    report(&mut seen, DrainPhase::Cordoning, None);
    let mut pool = (*seen.pool).clone();
    let status = pool.status.as_mut().unwrap();
    let provider = status.provider.as_mut().unwrap();
    provider.registered = vec![0, 1];
    provider.started = Some(vec![0, 1]);
    status.drain.as_mut().unwrap().nodes[0].uid = None;
    seen.pool = Arc::new(pool);
    seen.nodes.remove(&2);
    seen.provider_pods.remove(&2);
    assert_eq!(purposes(&plan_at(&seen, 2, now())), [PatchPurpose::Fence]);
    set_fence(&mut seen, &fence_of(2, "none"));
    assert_eq!(plan_at(&seen, 2, now()).reads, [2]);
    look(&mut seen, 2, now(), Vec::new());
    let first = plan_at(&seen, 2, now());
    memory(&mut seen, 2, |m| m.settle = first.settles.get(&2).cloned());
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0], "one list is not two");
    look(&mut seen, 2, after(1), Vec::new());
    assert_eq!(shrinks(&plan_at(&seen, 2, after(1))), [2]);
}

#[test]
fn break_glass_acts_on_the_exact_name_and_uid_only() {
    for (value, acts) in [
        ("virtual-node-eci-2/node-2", true),
        ("virtual-node-eci-2/other", false),
        ("virtual-node-eci-1/node-1", false),
    ] {
        let mut seen = observed(pool(json!({ "replicas": 1 })), 3);
        bind(&mut seen, 2, vec![pod("lost")]);
        with_node(&mut seen, 2, |n| n.ready = false);
        let mut pool = (*seen.pool).clone();
        pool.metadata.annotations =
            Some([(vnp_crds::ABANDON_ANNOTATION.to_owned(), value.to_owned())].into());
        seen.pool = Arc::new(pool);
        set_fence(&mut seen, &fence_of(2, "node-2"));
        look(&mut seen, 2, now(), vec![pod("lost")]);
        assert_eq!(
            shrinks(&plan_at(&seen, 1, now())).len(),
            usize::from(acts),
            "{value}"
        );
    }
}

/// A pool whose node 2 of 3 is to go: it has no Node, its provider is Ready, and a person gives it up.
fn given_up_without_a_node() -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    report(&mut seen, DrainPhase::Cordoning, None);
    let mut pool = (*seen.pool).clone();
    let status = pool.status.as_mut().unwrap();
    status.provider.as_mut().unwrap().registered = vec![0, 1];
    status.drain.as_mut().unwrap().nodes[0].uid = None;
    let value = "virtual-node-eci-2/none".to_owned();
    pool.metadata.annotations = Some([(vnp_crds::ABANDON_ANNOTATION.to_owned(), value)].into());
    seen.pool = Arc::new(pool);
    seen.nodes.remove(&2);
    set_fence(&mut seen, &fence_of(2, "none"));
    look(&mut seen, 2, now(), Vec::new());
    seen
}

/// What this pass would write of the break-glass stands in the status.
fn record(seen: &mut Observed) {
    let record = break_glass::to_record(seen);
    let mut pool = (*seen.pool).clone();
    pool.status
        .as_mut()
        .unwrap()
        .provider
        .as_mut()
        .unwrap()
        .break_glass = record;
    seen.pool = Arc::new(pool);
    look(seen, 2, now(), Vec::new());
}

#[test]
fn a_break_glass_for_a_node_that_is_not_there_serves_one_drain() {
    let mut seen = given_up_without_a_node();
    assert_eq!(
        shrinks(&plan_at(&seen, 2, now())),
        [0; 0],
        "not before the status says for which drain"
    );
    record(&mut seen);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);
    // A restart in between takes nothing from it, and another pass records nothing else.
    record(&mut seen);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);

    // Raised, and lowered again: the annotation is still there, the drain is another one.
    let mut pool = (*seen.pool).clone();
    let entry = &mut pool.status.as_mut().unwrap().drain.as_mut().unwrap().nodes[0];
    entry.started_at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-30));
    seen.pool = Arc::new(pool);
    record(&mut seen);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0]);

    // Taken off, and set again: it is meant for this one.
    let mut pool = (*seen.pool).clone();
    let annotations = pool.metadata.annotations.take();
    seen.pool = Arc::new(pool.clone());
    record(&mut seen);
    let mut pool = (*seen.pool).clone();
    pool.metadata.annotations = annotations;
    seen.pool = Arc::new(pool);
    record(&mut seen);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);
}

#[test]
fn nodes_in_removal_are_remembered_however_many_there_are() {
    let mut seen = observed(pool(json!({ "replicas": 1 })), 15);
    seen.workload = workload(1).into();
    report(&mut seen, DrainPhase::Removing, None);
    let mut pool = (*seen.pool).clone();
    let retired = |ordinal: Ordinal| vnp_crds::RetiredOrdinal {
        ordinal,
        node_uid: Some(format!("node-{ordinal}")),
        time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-60 * i64::from(ordinal))),
        abandoned: false,
        gone_time: None,
    };
    pool.status.as_mut().unwrap().provider.as_mut().unwrap().retired = (2..40).map(retired).collect();
    pool.status.as_mut().unwrap().drain = None;
    seen.pool = Arc::new(pool);
    let kept: Vec<Ordinal> = plan_at(&seen, 1, now())
        .retired
        .iter()
        .map(|r| r.ordinal)
        .collect();
    // All whose Node is there, and the last ten of the others.
    assert_eq!(kept, (2..15).chain(30..40).collect::<Vec<_>>());
}

#[test]
fn a_refused_drain_field_holds_a_drain_that_runs() {
    let mut seen = ripe();
    let held = Holds {
        refused: Some("spec.drain.stages".to_owned()),
        roll_in_step: false,
    };
    let plan = plan_drain(&seen, &seen.workload.there().unwrap().clone(), 2, &held, now());
    assert_eq!(shrinks(&plan), [0; 0]);
    bind(&mut seen, 2, vec![pod("a")]);
    let plan = plan_drain(&seen, &seen.workload.there().unwrap().clone(), 2, &held, now());
    assert!(plan.orders.is_empty());
}

#[test]
fn a_drain_starts_between_two_roll_steps() {
    let seen = observed(pool(json!({ "replicas": 2 })), 3);
    let held = Holds {
        refused: None,
        roll_in_step: true,
    };
    assert!(
        plan_drain(&seen, &seen.workload.there().unwrap().clone(), 2, &held, now())
            .nodes
            .is_empty()
    );
}

#[test]
fn an_incomplete_list_is_no_list() {
    let partial = ListAnswer {
        resource_version: Some("1".to_owned()),
        continue_token: Some("more".to_owned()),
        pods: Vec::new(),
    };
    assert!(QuorumList::complete(now(), partial).is_err());
    assert!(QuorumList::complete(now(), ListAnswer::default()).is_err());
}

#[test]
fn a_settle_needs_a_sign_of_life_even_when_no_departure_was_seen() {
    let mut seen = ripe();
    memory(&mut seen, 2, |m| {
        m.settle = Settle::begin(
            fence_of(2, "node-2"),
            Some(mark(2)),
            list(after(-40), Vec::new()),
            10,
            vnp_crds::DaemonSetPods::Evict,
        )
        .ok();
    });
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0]);
}

#[test]
fn a_pod_that_came_after_the_reap_is_reaped_after_even_by_another_process() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    report(&mut seen, DrainPhase::Emptying, Some("an earlier provider pod"));
    bind(&mut seen, 2, vec![pod("late")]);
    assert_eq!(plan_at(&seen, 2, now()).nodes[0].reaped_provider_uid, None);
}

#[test]
fn a_drain_without_progress_and_without_a_known_blocker_says_so() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    cordon(&mut seen, 2);
    report(&mut seen, DrainPhase::Evicting, None);
    let mut pool = (*seen.pool).clone();
    let entry = &mut pool.status.as_mut().unwrap().drain.as_mut().unwrap().nodes[0];
    entry.last_progress_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-601)));
    entry.pods_remaining = 1;
    seen.pool = Arc::new(pool);
    bind(&mut seen, 2, vec![pod("a")]);
    assert_eq!(blockers(&plan_at(&seen, 2, now())), [BlockerReason::Throttled]);
    // One of two leaves: of the other nothing is known.
    let leaving = BoundPod {
        deletion: Some(after(3000)),
        ..pod("b")
    };
    bind(&mut seen, 2, vec![pod("a"), leaving.clone()]);
    assert_eq!(blockers(&plan_at(&seen, 2, now())), [BlockerReason::Throttled]);
    // In its grace period a pod is held by nobody.
    bind(&mut seen, 2, vec![leaving]);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(blockers(&plan), []);
    assert!(
        plan.wake_at.is_some_and(|at| at <= after(3030)),
        "{:?}",
        plan.wake_at
    );
}

#[test]
fn a_pause_takes_our_own_fence_off() {
    let mut seen = ripe();
    let mut paused = (*seen.pool).clone();
    paused.spec.paused = true;
    seen.pool = Arc::new(paused);
    let plan = crate::plan(&seen, now());
    let steps: Vec<&Step> = plan.tracks.iter().flat_map(|t| &t.steps).collect();
    assert!(
        matches!(&steps[..], [Step::PatchWorkload(p)] if p.purpose == PatchPurpose::Unfence),
        "{steps:?}"
    );
    assert!(plan.settles.is_empty());
}

#[test]
fn what_cannot_be_read_is_not_called_dead() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    bind(&mut seen, 2, vec![pod("a")]);
    // Nothing has begun: nothing goes on.
    with_node(&mut seen, 2, |n| n.ready = false);
    let told = format!("{:?}", plan_at(&seen, 2, now()).findings);
    assert!(told.contains("the drain begins when it is healthy"), "{told}");
    with_node(&mut seen, 2, |n| n.ready = true);
    cordon(&mut seen, 2);
    report(&mut seen, DrainPhase::Evicting, None);
    for (node, remedy) in [
        (
            false,
            "see kubectl -n kube-system describe pod virtual-node-eci-2",
        ),
        (true, "see kubectl get node virtual-node-eci-2 -o yaml"),
    ] {
        let mut seen = seen.clone();
        if node {
            with_node(&mut seen, 2, |n| n.unreadable = true);
        } else {
            Arc::make_mut(seen.provider_pods.get_mut(&2).unwrap()).unreadable = true;
        }
        let told = format!("{:?}", plan_at(&seen, 2, now()).findings);
        let so =
            "so whether its instances could be deleted is not known; the drain goes on when it is healthy";
        assert!(told.contains(so) && told.contains(remedy), "{told}");
        assert!(!told.contains("nobody could"), "{told}");
    }
}

#[test]
fn a_paused_pool_gives_up_no_node() {
    for paused in [false, true] {
        let mut seen = ripe();
        let mut pool = (*seen.pool).clone();
        pool.spec.paused = paused;
        pool.metadata.annotations = Some(
            [(
                vnp_crds::ABANDON_ANNOTATION.to_owned(),
                "virtual-node-eci-2/node-2".to_owned(),
            )]
            .into(),
        );
        seen.pool = Arc::new(pool);
        let told = format!("{:?}", crate::plan(&seen, now()).findings);
        assert_eq!(told.contains("NodeAbandoned"), !paused, "{told}");
    }
}
