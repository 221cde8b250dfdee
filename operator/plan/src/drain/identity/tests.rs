use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use vnp_crds::{DaemonSetPods, SHRINKING_ANNOTATION};

use super::*;
use crate::drain::settle::Settle;
use crate::drain::tests::{list, look, plan_at, report, shrinks};
use crate::finding::{Blocker, Finding};
use crate::observed::Workload;
use crate::testing::{after, fence_of, now, observed, pool, provider_pod};

const NODE: &str = "virtual-node-eci-2";

/// Ordinal 2 of 3 is to go. It has no Node and never had one; its first list was empty, and so is the second.
fn nameless(provider: impl FnOnce(&mut ProviderPod)) -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    let mut pool = (*seen.pool).clone();
    pool.status = serde_json::from_value(json!({
        "provider": { "type": "StatefulSet", "registered": [0, 1], "started": [0, 1], "replicas": 3 },
    }))
    .unwrap();
    seen.pool = Arc::new(pool);
    seen.nodes.remove(&2);
    let mut pod = ProviderPod {
        ready: false,
        addresses: vec!["10.0.0.7".to_owned()],
        host: Some("host-a".to_owned()),
        ..provider_pod(2)
    };
    provider(&mut pod);
    seen.provider_pods.insert(2, Arc::new(pod));
    let mut raw = seen.workload.there().unwrap().raw.clone();
    raw["metadata"]["annotations"] = json!({ SHRINKING_ANNOTATION: fence_of(2, "none") });
    seen.workload = Workload::new(raw).into();
    let first = list(after(-1), Vec::new());
    seen.memory.entry(2).or_default().settle =
        Settle::begin(fence_of(2, "none"), None, first, 0, DaemonSetPods::Evict).ok();
    seen
}

/// A virtual node under another name.
fn other(name: &str, pods: usize) -> UnclaimedNode {
    UnclaimedNode {
        node: NodeTrace {
            name: name.to_owned(),
            labels: BTreeMap::from([("type".to_owned(), "virtual-kubelet".to_owned())]),
            ready: true,
            beat: Some(after(-5)),
            ..NodeTrace::default()
        },
        pods,
        more: false,
        elsewhere: false,
    }
}

fn with_others(seen: &mut Observed, others: Vec<UnclaimedNode>) {
    look(seen, 2, now(), Vec::new());
    seen.live.get_mut(&2).unwrap().unclaimed = Some(Arc::new(others));
}

fn held(plan: &DrainPlan) -> Option<Blocker> {
    plan.findings.iter().find_map(|f| match f {
        Finding::Blocker(b) => Some(b.clone()),
        _ => None,
    })
}

fn never_ran(pod: &mut ProviderPod) {
    pod.created = Some(after(-600));
}

fn crashes(pod: &mut ProviderPod) {
    pod.ran = true;
    pod.restarts = 3;
}

#[test]
fn a_provider_that_is_ready_is_never_taken_for_one_that_did_not_come_up() {
    let mut seen = nameless(|p| p.ready = true);
    let unread = plan_at(&seen, 2, now());
    assert_eq!((unread.reads.as_slice(), shrinks(&unread).len()), (&[2][..], 0));
    assert_eq!(held(&unread).unwrap().reason, BlockerReason::NodeMissing);
    let mut own = other("burst", 3);
    own.node.addresses = vec!["10.0.0.7".to_owned()];
    with_others(&mut seen, vec![other("foreign", 1), own]);
    let plan = plan_at(&seen, 2, now());
    assert_eq!((shrinks(&plan).len(), plan.steps.len()), (0, 0));
    let blocker = held(&plan).unwrap();
    assert_eq!(
        (blocker.reason, blocker.object.as_str(), blocker.pods),
        (BlockerReason::NodeMissing, NODE, 4)
    );
    assert_eq!(
        blocker.message,
        "the provider virtual-node-eci-2 is Ready, but there is no Node virtual-node-eci-2, so nobody knows which instances it \
         runs, and it is not taken away; virtual nodes that no pool claims: burst (3 pods; provider virtual-node-eci-2 has its \
         address 10.0.0.7), foreign (1 pod; it is alive, and the \
         provider may be behind it, which runs or ran just now); if one of them is its own, empty it first (kubectl drain burst), then let the \
         provider name its Node after its pod (no --nodename, and DEFAULT_NODE_NAME from metadata.name), or if nothing of it \
         runs, annotate the pool virtualnodes.dev/abandon-node=virtual-node-eci-2/none"
    );
    // Nothing would be lost: another template may be the cure.
    assert_eq!(plan.held_by_provider, None);
    with_others(&mut seen, Vec::new());
    let plan = plan_at(&seen, 2, now());
    assert_eq!((shrinks(&plan).len(), plan.held_by_provider), (0, Some(2)));
    assert!(
        held(&plan)
            .unwrap()
            .message
            .contains("no virtual node that no pool claims")
    );
}

fn set_started(seen: &mut Observed, started: Option<Vec<Ordinal>>) {
    let mut pool = (*seen.pool).clone();
    pool.status.as_mut().unwrap().provider.as_mut().unwrap().started = started;
    seen.pool = Arc::new(pool);
}

/// As a status says that an operator without this field wrote: which were Ready is not known, so each may have been.
#[test]
fn where_nobody_noted_who_was_ready_none_is_taken_away_unseen() {
    let mut seen = nameless(never_ran);
    set_started(&mut seen, None);
    with_others(&mut seen, Vec::new());
    let plan = plan_at(&seen, 2, now());
    assert_eq!(shrinks(&plan), [0; 0]);
    assert!(held(&plan).is_some());
}

#[test]
fn one_that_was_ready_is_not_either() {
    let mut seen = nameless(|_| {});
    set_started(&mut seen, Some(vec![0, 1, 2]));
    with_others(&mut seen, Vec::new());
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0]);
    seen.provider_pods.remove(&2);
    with_others(&mut seen, Vec::new());
    let plan = plan_at(&seen, 2, now());
    assert_eq!(shrinks(&plan), [0; 0]);
    assert!(
        held(&plan)
            .unwrap()
            .message
            .contains("provider pod virtual-node-eci-2 is missing")
    );
}

#[test]
fn ready_seen_only_live_counts() {
    let mut seen = nameless(never_ran);
    with_others(&mut seen, Vec::new());
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);
    let live = seen.live.get_mut(&2).unwrap();
    live.provider_pod = Some(Arc::new(provider_pod(2)));
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0]);
}

#[test]
fn what_was_not_looked_for_is_not_absent() {
    let mut seen = nameless(never_ran);
    with_others(&mut seen, Vec::new());
    seen.live.get_mut(&2).unwrap().unclaimed = None;
    let plan = plan_at(&seen, 2, now());
    assert_eq!((shrinks(&plan).len(), plan.reads.as_slice()), (0, &[2][..]));
}

#[test]
fn pods_on_a_virtual_node_that_nobody_claims_hold_what_may_be_its_provider() {
    let dead = |name| {
        let mut node = other(name, 1);
        node.node.ready = false;
        node
    };
    let silent = |name| {
        let mut node = other(name, 1);
        node.node.beat = Some(after(-41));
        node
    };
    let unread = |name| UnclaimedNode {
        more: true,
        ..other(name, 0)
    };
    type Change = fn(&mut ProviderPod);
    let cases: [(&str, Change, UnclaimedNode, bool); 8] = [
        (
            "it crashes, and may have registered it",
            crashes,
            other("x", 1),
            true,
        ),
        ("the same without pods", crashes, other("x", 0), false),
        (
            "it never ran, and the Node lives",
            never_ran,
            other("x", 1),
            false,
        ),
        (
            "one before it may have run, and the Node is dead",
            never_ran,
            dead("x"),
            true,
        ),
        ("or silent", never_ran, silent("x"), true),
        ("more pods than were read", crashes, unread("x"), true),
        (
            "the pod is too new to have been there at that heartbeat",
            |p| p.created = Some(after(-60)),
            other("x", 1),
            true,
        ),
        (
            "nobody knows since when it waits",
            |p| p.created = None,
            other("x", 1),
            true,
        ),
    ];
    for (what, provider, node, holds) in cases {
        let mut seen = nameless(provider);
        with_others(&mut seen, vec![node]);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(shrinks(&plan).is_empty(), holds, "{what}");
        assert_eq!(
            held(&plan).is_some_and(|b| b.message.contains("x (")),
            holds,
            "{what}"
        );
    }
    // Without a pod nobody knows since when none has been there.
    let mut seen = nameless(never_ran);
    seen.provider_pods.remove(&2);
    with_others(&mut seen, vec![other("x", 1)]);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [0; 0]);
}

#[test]
fn a_node_is_claimed_by_its_name_and_virtual_by_label_taint_or_provider() {
    let mut seen = nameless(|_| {});
    let mut elsewhere = pool(json!({ "provider": { "name": "other-eci" } }));
    elsewhere.metadata.name = Some("other".to_owned());
    seen.others = vec![Arc::new(elsewhere)];
    let named = |name: &str| other(name, 0).node;
    let ordinary = |name: &str| NodeTrace {
        name: name.to_owned(),
        ..NodeTrace::default()
    };
    let cases = [
        (named("burst"), true),
        (named("virtual-node-eci-1"), false),
        (named("virtual-node-eci-7"), true),
        (named("virtual-node-eci-07"), true),
        (named("other-eci-4"), false),
        (named("other-eci-"), true),
        (ordinary("host-b"), false),
        (
            NodeTrace {
                taints: vec!["alibabacloud.com/eci".to_owned()],
                ..ordinary("b")
            },
            true,
        ),
        (
            NodeTrace {
                addresses: vec!["10.0.0.7".to_owned()],
                ..ordinary("b")
            },
            true,
        ),
        // A provider on its host's network has the same address.
        (
            NodeTrace {
                addresses: vec!["10.0.0.7".to_owned()],
                ..ordinary("host-a")
            },
            false,
        ),
        (
            NodeTrace {
                lease_holder: Some(NODE.to_owned()),
                ..ordinary("b")
            },
            true,
        ),
        (
            NodeTrace {
                addresses: vec![NODE.to_owned()],
                ..ordinary("b")
            },
            true,
        ),
    ];
    for (node, expected) in cases {
        assert_eq!(unclaimed(&seen, &node), expected, "{node:?}");
    }
    let mut reserved = named("b");
    reserved
        .labels
        .insert("alibabacloud.com/node-type".to_owned(), "reserved".to_owned());
    assert!(!unclaimed(&seen, &reserved));
    // One of ours that is being removed is known.
    let mut removed = crate::testing::node(7);
    removed
        .labels
        .insert(vnp_crds::POOL_LABEL.to_owned(), "burst".to_owned());
    seen.nodes.insert(7, Arc::new(removed));
    assert!(!unclaimed(&seen, &named("virtual-node-eci-7")));
}

/// A crash-looping provider that was never Ready, and a Node under another name that lives while it is down.
#[test]
fn a_provider_that_only_ever_crashed_goes_when_the_node_lives_without_any_of_them() {
    let crashed = |ago: i64| {
        move |p: &mut ProviderPod| {
            crashes(p);
            p.stopped = Some(after(-ago));
        }
    };
    type Change = fn(&mut Observed, &mut NodeTrace);
    let cases: [(&str, i64, Change, bool); 9] = [
        ("nothing links them", 81, |_, _| {}, false),
        ("it ran just now", 80, |_, _| {}, true),
        (
            "its address",
            81,
            |_, n| n.addresses = vec!["10.0.0.7".to_owned()],
            true,
        ),
        (
            "its Lease",
            81,
            |_, n| n.lease_holder = Some(NODE.to_owned()),
            true,
        ),
        ("no address that could tell", 81, |_, n| n.addresses.clear(), true),
        ("it is not Ready", 81, |_, n| n.ready = false, true),
        (
            "another provider runs, and nobody knows under which name",
            81,
            |seen, _| {
                seen.nodes.remove(&1);
            },
            true,
        ),
        (
            "a machine has the name of its Node",
            81,
            |seen, _| ordinary(seen, 1),
            true,
        ),
        (
            "another provider without a Node is down too",
            81,
            |seen, _| {
                seen.nodes.remove(&1);
                let mut pod = provider_pod(1);
                pod.ready = false;
                crashes(&mut pod);
                pod.stopped = Some(after(-100));
                seen.provider_pods.insert(1, Arc::new(pod));
            },
            false,
        ),
    ];
    for (what, ago, change, holds) in cases {
        let mut seen = nameless(crashed(ago));
        let mut node = other("x", 1);
        node.node.addresses = vec!["10.9.9.9".to_owned()];
        change(&mut seen, &mut node.node);
        node.elsewhere = elsewhere(&seen, 2, &node.node, now());
        with_others(&mut seen, vec![node]);
        let live = seen.live.get_mut(&2).unwrap();
        live.provider_pod = seen.provider_pods.get(&2).cloned();
        let plan = plan_at(&seen, 2, now());
        assert_eq!(shrinks(&plan).is_empty(), holds, "{what}");
        let said = held(&plan).map(|b| b.message);
        assert_eq!(said.is_some_and(|m| m.contains("x (1 pod; ")), holds, "{what}");
    }
}

/// The Node of that ordinal as a kubelet of another machine makes one.
fn ordinary(seen: &mut Observed, ordinal: Ordinal) {
    crate::testing::with_node(seen, ordinal, |n| {
        n.labels = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
        n.addresses = vec!["192.0.2.1".to_owned()];
    });
}

#[test]
fn a_machine_that_bears_the_provider_s_name_is_left_alone_and_said() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    ordinary(&mut seen, 2);
    crate::testing::bind(&mut seen, 2, vec![crate::testing::pod("a")]);
    let plan = crate::plan(&seen, now());
    let mut steps = plan.tracks.iter().flat_map(|t| &t.steps);
    let touches = |s: &crate::step::Step| s.node() == Some(NODE) || matches!(s, crate::step::Step::Shrink(_));
    assert!(!steps.any(touches), "{:?}", plan.tracks);
    assert!(plan.orders.is_empty());
    assert_eq!(plan.facts.nodes, 2);
    let drain = plan_at(&seen, 2, now());
    let blocker = held(&drain).unwrap();
    assert_eq!(
        (blocker.reason, blocker.object.as_str()),
        (BlockerReason::NodeMissing, NODE)
    );
    assert!(
        blocker
            .message
            .contains("nothing says that the Node of its name is its own"),
        "{}",
        blocker.message
    );
    assert!(
        blocker
            .message
            .contains("kubectl label node virtual-node-eci-2 type=virtual-kubelet"),
        "{}",
        blocker.message
    );
    // Each of these says whose it is.
    type Change = fn(&mut crate::observed::NodeView);
    let marks: [Change; 3] = [
        |n| {
            n.labels.insert("type".to_owned(), "virtual-kubelet".to_owned());
        },
        |n| {
            n.taints = vec![k8s_openapi::api::core::v1::Taint {
                key: virtual_node::TAINT.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Default::default()
            }];
        },
        |n| n.addresses = vec!["10.0.0.7".to_owned()],
    ];
    for mark in marks {
        let mut seen = seen.clone();
        let mut pod = provider_pod(2);
        pod.addresses = vec!["10.0.0.7".to_owned()];
        seen.provider_pods.insert(2, Arc::new(pod));
        crate::testing::with_node(&mut seen, 2, mark);
        let plan = plan_at(&seen, 2, now());
        assert!(
            plan.steps
                .iter()
                .any(|s| matches!(s, crate::step::Step::Cordon { .. })),
            "{:?}",
            plan.findings
        );
    }
}

/// Its provider is gone, by whose address alone it was known.
#[test]
fn an_unmarked_node_that_was_drained_here_is_deleted_as_its_note_says() {
    for (cordoned, noted, deleted) in [
        (true, "node-2", true),
        (false, "node-2", false),
        (true, "another", false),
    ] {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        crate::testing::with_node(&mut seen, 2, |_| {});
        ordinary(&mut seen, 2);
        crate::testing::with_node(&mut seen, 2, |n| {
            n.uid = "node-2".to_owned();
            n.labels
                .insert(vnp_crds::POOL_LABEL.to_owned(), "burst".to_owned());
            if cordoned {
                crate::testing::set_our_cordon(n);
            }
        });
        let mut pool = (*seen.pool).clone();
        pool.status = serde_json::from_value(
            json!({ "provider": { "type": "StatefulSet", "replicas": 2, "retired": [
            { "ordinal": 2, "nodeUid": noted, "time": now().to_string(), "abandoned": false },
        ] } }),
        )
        .unwrap();
        seen.pool = Arc::new(pool);
        look(&mut seen, 2, now(), Vec::new());
        let live = seen.live.get_mut(&2).unwrap();
        live.provider_pod = None;
        live.node = seen.nodes.get(&2).cloned();
        let plan = plan_at(&seen, 2, now());
        let deletes = |s: &crate::step::Step| matches!(s, crate::step::Step::DeleteNode { .. });
        assert_eq!(
            plan.steps.iter().any(deletes),
            deleted,
            "{cordoned} {noted}: {:?}",
            plan.findings
        );
    }
}

/// It was known by the address of a provider that has another one now.
#[test]
fn of_an_unmarked_node_that_drains_it_is_said_what_is_known() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    ordinary(&mut seen, 2);
    let first = held(&plan_at(&seen, 2, now())).unwrap().message;
    assert!(first.contains("give that machine another name"), "{first}");
    report(&mut seen, vnp_crds::DrainPhase::Evicting, None);
    crate::testing::with_node(&mut seen, 2, crate::testing::set_our_cordon);
    let begun = held(&plan_at(&seen, 2, now())).unwrap().message;
    assert!(
        begun.contains("it was the provider's when the drain began")
            && begun.contains("kubectl label node virtual-node-eci-2 type=virtual-kubelet"),
        "{begun}"
    );
    assert!(!begun.contains("that machine"), "{begun}");
}

#[test]
fn a_machine_with_the_pool_s_label_is_not_deleted() {
    let seen_with = |ordinary_node: bool| {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        crate::testing::with_node(&mut seen, 2, |_| {});
        if ordinary_node {
            ordinary(&mut seen, 2);
            crate::testing::with_node(&mut seen, 2, |n| {
                n.labels
                    .insert(vnp_crds::POOL_LABEL.to_owned(), "burst".to_owned());
            });
        }
        look(&mut seen, 2, now(), Vec::new());
        let live = seen.live.get_mut(&2).unwrap();
        live.provider_pod = None;
        live.node = seen.nodes.get(&2).cloned();
        plan_at(&seen, 2, now())
    };
    let deletes = |plan: &DrainPlan| {
        plan.steps
            .iter()
            .any(|s| matches!(s, crate::step::Step::DeleteNode { .. }))
    };
    assert!(deletes(&seen_with(false)));
    let plan = seen_with(true);
    assert!(!deletes(&plan));
    assert!(held(&plan).unwrap().message.contains("not deleted"));
}

/// A policy of the API server puts the count back that a shrink lowers.
#[test]
fn a_shrink_that_is_stored_otherwise_is_said_and_not_made_again_at_once() {
    let mut seen = nameless(never_ran);
    with_others(&mut seen, Vec::new());
    let plan = plan_at(&seen, 2, now());
    let is_shrink = |s: &&crate::step::Step| matches!(s, crate::step::Step::Shrink(_));
    let shrink = plan.steps.iter().find(is_shrink).unwrap();
    let stored = (**seen.workload.there().unwrap()).clone();
    let at = seen.clone();
    crate::workload::note_stored(&mut seen.recall, &at, shrink, &stored, now());
    for (seconds, again) in [(0, false), (599, false), (600, true)] {
        seen.recall = crate::workload::remember(&seen, after(seconds));
        let plan = plan_at(&seen, 2, now());
        assert_eq!(!shrinks(&plan).is_empty(), again, "{seconds}");
        let waits = plan.nodes[0].phase == vnp_crds::DrainPhase::Emptying && plan.reads.is_empty();
        assert_eq!(
            waits, !again,
            "{seconds}: {:?} {:?}",
            plan.nodes[0].phase, plan.reads
        );
        let said = crate::plan(&seen, now()).findings.into_iter().any(
            |f| matches!(f, Finding::Stalled { message, .. } if message.contains("spec.replicas 3 -> 2")),
        );
        assert!(said, "{seconds}");
    }
    // The pool wants the count that is stored.
    let mut cancelled = seen.clone();
    let mut pool = (*cancelled.pool).clone();
    pool.spec.replicas = Some(3);
    cancelled.pool = Arc::new(pool);
    assert!(
        crate::workload::remember(&cancelled, after(601))
            .rewritten
            .is_empty()
    );
    assert!(!crate::workload::remember(&seen, after(601)).rewritten.is_empty());
    // It came true, by whomever.
    let mut raw = stored.raw.clone();
    raw["spec"]["replicas"] = json!(2);
    seen.workload = Workload::new(raw).into();
    assert!(crate::workload::remember(&seen, after(601)).rewritten.is_empty());
}

/// It may be anybody's: nothing on it says that it is a virtual one, and nothing that it is not.
#[test]
fn a_node_that_cannot_be_read_and_holds_pods_holds_what_may_be_its_provider() {
    let unreadable = |pods| {
        let mut node = other("x", pods);
        node.node.labels.clear();
        node.node.ready = false;
        node.node.beat = None;
        node.node.unreadable = true;
        node
    };
    let seen = nameless(never_ran);
    assert!(unclaimed(&seen, &unreadable(1).node));
    assert!(!elsewhere(&seen, 2, &unreadable(1).node, now()));
    for (pods, holds) in [(1, true), (0, false)] {
        let mut seen = nameless(never_ran);
        with_others(&mut seen, vec![unreadable(pods)]);
        assert_eq!(shrinks(&plan_at(&seen, 2, now())).is_empty(), holds, "{pods}");
    }
    // Of one that bears the provider's name it is not known that it is another machine's.
    let mut own = observed(pool(json!({ "replicas": 2 })), 3);
    crate::testing::with_node(&mut own, 2, |n| {
        n.labels.clear();
        n.unreadable = true;
    });
    assert!(!foreign(&own.nodes[&2], None));
}
