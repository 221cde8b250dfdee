use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::observed::PodPhase;
use crate::testing::pod;

fn amounts(cpu: i64, gpu: i64) -> Amounts {
    let all = [(CPU, cpu), ("nvidia.com/gpu", gpu)];
    let set = all.into_iter().filter(|(_, amount)| *amount > 0);
    set.map(|(resource, amount)| (resource.to_owned(), amount))
        .collect()
}

fn taint(key: &str, effect: Effect) -> Taint {
    Taint {
        key: key.to_owned(),
        value: "x".to_owned(),
        effect,
    }
}

fn on_node(taint: &Taint) -> k8s_openapi::api::core::v1::Taint {
    k8s_openapi::api::core::v1::Taint {
        key: taint.key.clone(),
        value: Some(taint.value.clone()),
        effect: taint.effect.to_string(),
        time_added: None,
    }
}

fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
    Toleration {
        key: key.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
    }
}

fn node(pods: i64, cpu: i64, gpu: i64) -> NodeView {
    let mut allocatable = amounts(cpu, gpu);
    allocatable.insert(PODS.to_owned(), pods);
    NodeView {
        name: "v-0".to_owned(),
        ready: true,
        allocatable,
        ..NodeView::default()
    }
}

#[test]
fn tolerations_are_read_as_the_scheduler_reads_them() {
    let seen = taint("a", Effect::NoSchedule);
    for (toleration, tolerates) in [
        (toleration("a", "Exists", "", ""), true),
        (toleration("a", "Exists", "", "NoSchedule"), true),
        (toleration("a", "Exists", "", "NoExecute"), false),
        (toleration("", "Exists", "", ""), true),
        (toleration("", "Exists", "", "NoExecute"), false),
        (toleration("", "Equal", "x", ""), false),
        (toleration("a", "", "x", ""), true),
        (toleration("a", "Equal", "y", ""), false),
        (toleration("b", "Exists", "", ""), false),
        (toleration("a", "Gt", "0", ""), false),
    ] {
        let needs = Needs {
            tolerations: vec![toleration.clone()],
            ..Needs::default()
        };
        assert_eq!(needs.tolerates(&seen), tolerates, "{toleration:?}");
    }
    assert_eq!(Effect::read("PreferNoSchedule"), None);
}

#[test]
fn the_node_choice_is_read_as_the_scheduler_reads_it() {
    let labels = BTreeMap::from([
        ("type".to_owned(), "virtual-kubelet".to_owned()),
        ("n".to_owned(), "5".to_owned()),
    ]);
    let expression = |key: &str, operator: &str, values: &[&str]| Expression {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    };
    let means = |labels_of: Vec<Expression>, fields: Vec<Expression>| {
        let terms = Some(vec![Term {
            labels: labels_of,
            fields,
        }]);
        let needs = Needs {
            terms,
            ..Needs::default()
        };
        needs.means("v-0", &labels)
    };
    for (e, expected) in [
        (expression("type", "In", &["virtual-kubelet"]), true),
        (expression("type", "NotIn", &["virtual-kubelet"]), false),
        (expression("other", "NotIn", &["x"]), true),
        (expression("type", "Exists", &[]), true),
        (expression("other", "DoesNotExist", &[]), true),
        (expression("n", "Gt", &["4"]), true),
        (expression("n", "Lt", &["5"]), false),
        (expression("type", "Like", &["virtual-kubelet"]), false),
    ] {
        assert_eq!(means(vec![e.clone()], vec![]), expected, "{e:?}");
    }
    assert!(means(vec![], vec![expression("metadata.name", "In", &["v-0"])]));
    assert!(!means(vec![], vec![expression("metadata.name", "In", &["v-1"])]));
    assert!(!means(vec![], vec![]), "an empty term matches nothing");
    let none = Needs {
        terms: Some(Vec::new()),
        ..Needs::default()
    };
    assert!(!none.means("v-0", &labels));
    assert!(Needs::default().means("v-0", &labels));
    let selector = BTreeMap::from([("type".to_owned(), "other".to_owned())]);
    assert!(
        !Needs {
            selector,
            ..Needs::default()
        }
        .means("v-0", &labels)
    );
}

#[test]
fn what_is_on_a_node_takes_its_room_until_it_has_ended() {
    let node = node(3, 1000, 0);
    let with = |cpu: i64| {
        let mut pod = pod("a");
        pod.needs = std::sync::Arc::new(Needs {
            requests: amounts(cpu, 0),
            ..Needs::default()
        });
        pod
    };
    let asks = Needs {
        requests: amounts(600, 0),
        ..Needs::default()
    };
    let mut ended = with(900);
    ended.phase = PodPhase::Failed;
    assert_eq!(Room::on(&node, [&with(400), &ended]).fits(&asks), Ok(()));
    let lacks = Room::on(&node, [&with(401)]).fits(&asks).unwrap_err();
    assert_eq!(
        lacks.to_string(),
        "too little cpu is left: a pod asks for 600m, the node has 1000m in all"
    );
    let full = [&with(0), &with(0), &with(0)];
    let lacks = Room::on(&node, full).fits(&Needs::default()).unwrap_err();
    assert_eq!(lacks.to_string(), "it takes no more pods (3 in all)");
    let gpu = Needs {
        requests: amounts(0, 1),
        ..Needs::default()
    };
    let lacks = Room::on(&node, []).fits(&gpu).unwrap_err();
    assert_eq!(
        lacks.to_string(),
        "too little nvidia.com/gpu is left: a pod asks for 1, the node has 0 in all"
    );
    let mut unreadable = with(0);
    unreadable.unreadable = true;
    assert_eq!(
        Room::on(&node, [&unreadable]).fits(&Needs::default()),
        Err(Refused::Unknown)
    );
}

fn needs() -> impl Strategy<Value = Needs> {
    let keys = prop::sample::select(vec!["", "a", "b"]);
    let operators = prop::sample::select(vec!["", "Exists"]);
    let effects = prop::sample::select(vec!["", "NoSchedule", "NoExecute"]);
    let tolerations = prop::collection::vec((keys, operators, effects), 0..3);
    (0..5_i64, 0..3_i64, tolerations).prop_map(|(cpu, gpu, tolerations)| Needs {
        requests: amounts(cpu, gpu),
        tolerations: tolerations
            .into_iter()
            .map(|(k, o, e)| toleration(k, o, "x", e))
            .collect(),
        ..Needs::default()
    })
}

fn nodes() -> impl Strategy<Value = NodeView> {
    let keys = prop::sample::select(vec!["a", "b"]);
    let effects = prop::sample::select(vec![Effect::NoSchedule, Effect::NoExecute]);
    let taints = prop::collection::vec((keys, effects), 0..2);
    let open = prop::bool::weighted(0.8);
    (0..6_i64, 0..12_i64, 0..4_i64, taints, open, open).prop_map(|(pods, cpu, gpu, taints, ready, here)| {
        NodeView {
            ready,
            deleting: !here,
            taints: taints
                .into_iter()
                .map(|(key, effect)| on_node(&taint(key, effect)))
                .collect(),
            ..node(pods, cpu, gpu)
        }
    })
}

/// The scheduler's own rules, written down once more in another way: whether all these pods may stand on the node together.
fn admits(node: &NodeView, pods: &[&Needs]) -> bool {
    let count = i64::try_from(pods.len()).unwrap();
    let total = |r: &str| {
        pods.iter()
            .map(|n| n.requests.get(r).copied().unwrap_or(0))
            .sum::<i64>()
    };
    let within = |r: &str| total(r) <= node.allocatable.get(r).copied().unwrap_or(0);
    let tolerated = |n: &&Needs| {
        node.taints.iter().all(|taint| {
            n.tolerations.iter().any(|t| {
                let key = t.key == taint.key || (t.key.is_empty() && t.operator == "Exists");
                let value = t.operator == "Exists" || Some(&t.value) == taint.value.as_ref();
                key && value && (t.effect.is_empty() || t.effect == taint.effect)
            })
        })
    };
    pods.is_empty()
        || (node.ready
            && !node.deleting
            && count <= node.allocatable[PODS]
            && within(CPU)
            && within("nvidia.com/gpu")
            && pods.iter().all(tolerated))
}

proptest! {
    /// Room is never claimed where the scheduler would refuse.
    #[test]
    fn every_place_is_one_that_the_scheduler_gives(
        pods in prop::collection::vec(needs(), 0..10),
        nodes in prop::collection::vec(nodes(), 0..4),
    ) {
        let movers: Vec<&Needs> = pods.iter().collect();
        let mut rooms: Vec<Room<'_>> = nodes.iter().map(|n| Room::on(n, [])).collect();
        let places = first_fit(&movers, &mut rooms);
        for (at, node) in nodes.iter().enumerate() {
            let there: Vec<&Needs> = movers.iter().zip(&places).filter(|(_, p)| **p == Some(at)).map(|(n, _)| *n).collect();
            prop_assert!(admits(node, &there), "{node:?} {there:?}");
        }
        // And what has no place fits on none of them any more.
        for (needs, _) in movers.iter().zip(&places).filter(|(_, p)| p.is_none()) {
            prop_assert!(rooms.iter().all(|room| room.fits(needs).is_err()));
        }
    }

    /// More room, a taint less or a pod less never leaves more pods without a node of their own kind.
    #[test]
    fn one_pod_fits_where_it_fitted_when_room_grows(needs in needs(), node in nodes(), more in 0..5_i64) {
        let fits = |node: &NodeView| Room::on(node, []).fits(&needs).is_ok();
        let mut larger = node.clone();
        for amount in larger.allocatable.values_mut() {
            *amount += more;
        }
        larger.taints.pop();
        prop_assert!(!fits(&node) || fits(&larger));
    }
}
