//! Properties over pods generated from the real schema and generated pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PreferredSchedulingTerm, ResourceRequirements, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::configuration::{asks, asks_about, configuration, selects};
use super::pod_schema::pod_of_schema;
use super::{labels, may_run_on, patched, pool, virtual_node};
use crate::observed::NodeView;
use crate::placement::{Mutation, Placing, Review, VirtualNodes};

type Map = BTreeMap<String, String>;

/// Labels that anything here looks at, with values that count and ones that do not.
const LABELS: [(&str, &str); 16] = [
    ("app", "web"),
    ("app", "job"),
    ("tier", "a"),
    ("alibabacloud.com/eci", "true"),
    ("alibabacloud.com/eci", "false"),
    ("alibabacloud.com/acs", "true"),
    ("eci", "true"),
    ("alibabacloud.com/compute-class", "gpu"),
    ("alibabacloud.com/compute-class", "gpu-hpn"),
    ("alibabacloud.com/compute-class", "performance"),
    ("alibabacloud.com/compute-qos", "default"),
    ("alibabacloud.com/compute-qos", "best-effort"),
    ("alibabacloud.com/gpu-model-series", "A10"),
    ("virtualnodes.dev/overflow", "other"),
    ("virtualnodes.dev/webhook", "disabled"),
    ("x", "y"),
];

const NAMESPACE_LABELS: [(&str, &str); 4] = [
    ("alibabacloud.com/eci", "true"),
    ("virtual-node-affinity-injection", "enabled"),
    ("team", "a"),
    ("team", "b"),
];

const ANNOTATIONS: [(&str, &str); 6] = [
    ("k8s.aliyun.com/eci-use-specs", "1-2Gi"),
    ("virtualnodes.dev/explain", "true"),
    ("virtualnodes.dev/placed-by", "p0/r1"),
    ("virtualnodes.dev/placed-by", "gone/x"),
    ("kubernetes.io/config.mirror", "x"),
    ("a~b/c", "d"),
];

fn some_of(pairs: &'static [(&'static str, &'static str)], most: usize) -> impl Strategy<Value = Map> {
    prop::collection::vec(select(pairs), 0..=most).prop_map(|pairs| {
        let owned = pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        owned.collect()
    })
}

fn requirement() -> impl Strategy<Value = NodeSelectorRequirement> {
    let key = select(vec![
        "type",
        "zone",
        "virtualnodes.dev/pool",
        "alibabacloud.com/gpu-model-series",
    ]);
    let value = select(vec!["virtual-kubelet", "a", "p1", "T4"]);
    (key, select(vec!["In", "NotIn", "Exists", "DoesNotExist"]), value).prop_map(|(key, operator, value)| {
        NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: operator.ends_with("In").then(|| vec![value.to_owned()]),
        }
    })
}

fn term() -> impl Strategy<Value = NodeSelectorTerm> {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec!["n".to_owned()]),
    };
    (
        of(prop::collection::vec(requirement(), 0..3)),
        of(Just(vec![field])),
    )
        .prop_map(|(match_expressions, match_fields)| NodeSelectorTerm {
            match_expressions,
            match_fields,
        })
}

fn node_affinity() -> impl Strategy<Value = NodeAffinity> {
    let preferred = term().prop_map(|preference| {
        vec![PreferredSchedulingTerm {
            preference,
            weight: 1,
        }]
    });
    (of(prop::collection::vec(term(), 0..3)), of(preferred)).prop_map(|(terms, preferred)| NodeAffinity {
        required_during_scheduling_ignored_during_execution: terms
            .map(|node_selector_terms| NodeSelector { node_selector_terms }),
        preferred_during_scheduling_ignored_during_execution: preferred,
    })
}

fn toleration() -> impl Strategy<Value = Toleration> {
    let key = of(select(vec!["virtual-kubelet.io/provider", "other"]));
    let operator = of(select(vec!["Exists", "Equal"]));
    let value = of(select(vec!["alibabacloud", "azure"]));
    let effect = of(select(vec!["NoSchedule", "NoExecute"]));
    (key, operator, value, effect).prop_map(|(key, operator, value, effect)| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Toleration {
            key: owned(key),
            operator: owned(operator),
            value: owned(value),
            effect: owned(effect),
            ..Toleration::default()
        }
    })
}

fn container() -> impl Strategy<Value = Container> {
    let quantity = || of(select(vec!["0", "1", "2Gi"]));
    let list = move || {
        of(
            (quantity(), quantity(), quantity()).prop_map(|(cpu, memory, gpu)| {
                let pairs = [("cpu", cpu), ("memory", memory), ("nvidia.com/gpu", gpu)];
                let set = pairs
                    .into_iter()
                    .filter_map(|(k, v)| Some((k.to_owned(), Quantity(v?.to_owned()))));
                set.collect::<BTreeMap<_, _>>()
            }),
        )
    };
    (of((list(), list())), of(Just("Always"))).prop_map(|(resources, restart_policy)| Container {
        name: "c".to_owned(),
        resources: resources.map(|(limits, requests)| ResourceRequirements {
            limits,
            requests,
            ..ResourceRequirements::default()
        }),
        restart_policy: restart_policy.map(str::to_owned),
        ..Container::default()
    })
}

fn metadata() -> impl Strategy<Value = ObjectMeta> {
    let owner =
        (select(vec!["ReplicaSet", "DaemonSet", "Job"]), of(any::<bool>())).prop_map(|(kind, controller)| {
            vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: kind.to_owned(),
                controller,
                ..OwnerReference::default()
            }]
        });
    (of(some_of(&LABELS, 5)), of(some_of(&ANNOTATIONS, 3)), of(owner)).prop_map(
        |(labels, annotations, owner_references)| ObjectMeta {
            labels,
            annotations,
            owner_references,
            ..ObjectMeta::default()
        },
    )
}

/// A pod of the schema, in which the parts that placement looks at have values that count.
fn pod() -> impl Strategy<Value = Value> {
    (pod_of_schema(), telling_pod()).prop_map(|(mut pod, mut telling)| {
        // A node choice that is none would be all that any of these pods has.
        for (object, field) in [("/spec", "nodeName")].into_iter().chain(NEEDS) {
            let object = pod.pointer_mut(object).and_then(Value::as_object_mut);
            object.map(|object| object.remove(field));
        }
        for list in ["/spec/containers", "/spec/initContainers"] {
            for container in pod
                .pointer_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                container
                    .as_object_mut()
                    .map(|container| container.remove("securityContext"));
            }
        }
        for list in ["/spec/containers", "/spec/initContainers"] {
            let own = telling.pointer_mut(list).and_then(Value::as_array_mut);
            for (index, own) in own.into_iter().flatten().enumerate() {
                let mut container = pod
                    .pointer(&format!("{list}/{index}"))
                    .cloned()
                    .unwrap_or_default();
                json_patch::merge(&mut container, own);
                *own = container;
            }
        }
        json_patch::merge(&mut pod, &telling);
        pod
    })
}

fn telling_pod() -> impl Strategy<Value = Value> {
    let selector = some_of(
        &[
            ("type", "virtual-kubelet"),
            ("type", "ssd"),
            ("zone", "a"),
            ("virtualnodes.dev/pool", "p1"),
        ],
        2,
    );
    let spec = (
        of(selector),
        of(of(node_affinity())),
        of(prop::collection::vec(toleration(), 0..3)),
        prop::collection::vec(container(), 1..3),
        of(prop::collection::vec(container(), 0..2)),
        of(select(vec!["default-scheduler", "", "mine"])),
        prop::option::weighted(0.1, Just("node")),
    );
    (metadata(), spec).prop_map(
        |(metadata, (node_selector, affinity, tolerations, containers, init_containers, scheduler, node))| {
            json!(Pod {
                metadata,
                spec: Some(PodSpec {
                    node_selector,
                    affinity: affinity.map(|node_affinity| Affinity {
                        node_affinity,
                        ..Affinity::default()
                    }),
                    tolerations,
                    containers,
                    init_containers,
                    scheduler_name: scheduler.map(str::to_owned),
                    node_name: node.map(str::to_owned),
                    ..PodSpec::default()
                }),
                ..Pod::default()
            })
        },
    )
}

fn label_selector(pairs: &'static [(&'static str, &'static str)]) -> impl Strategy<Value = Value> {
    prop_oneof![
        some_of(pairs, 1).prop_map(|labels| json!({ "matchLabels": labels })),
        (select(pairs), select(vec!["Exists", "DoesNotExist"])).prop_map(
            |((key, _), operator)| json!({ "matchExpressions": [{ "key": key, "operator": operator }] })
        ),
        (select(pairs), select(vec!["In", "NotIn"])).prop_map(|((key, value), operator)| json!({
            "matchExpressions": [{ "key": key, "operator": operator, "values": [value] }]
        })),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let pods = label_selector(&LABELS);
    let namespaces = label_selector(&NAMESPACE_LABELS);
    (
        of(pods),
        of(namespaces),
        select(vec!["Require", "Prefer"]),
        some_of(&LABELS[..14], 2),
        some_of(&ANNOTATIONS[..1], 1),
    )
        .prop_map(|(pods, namespaces, mode, labels, annotations)| {
            json!({
                "podSelector": pods, "namespaceSelector": namespaces, "mode": mode,
                "labels": labels, "annotations": annotations,
            })
        })
}

fn spec() -> impl Strategy<Value = Value> {
    let defaults = select(vec![
        json!(null),
        json!({ "class": "performance", "qos": "best-effort" }),
        json!({ "class": "gpu", "gpuModelSeries": "T4" }),
        json!({ "class": "gpu-hpn", "qos": "default", "gpuModelSeries": "T4" }),
    ]);
    let policy = label_selector(&NAMESPACE_LABELS)
        .prop_map(|s| json!([{ "name": "p", "namespaceSelector": s, "selector": { "tier": "a" } }]));
    let webhook = select(vec!["Operator", "Operator", "None"]);
    let scheduler = of(Just("ack-co-scheduler"));
    (defaults, webhook, prop::collection::vec(rule(), 0..3), of(policy), scheduler).prop_map(
        |(defaults, webhook, mut rules, policies, scheduler)| {
            for (index, rule) in rules.iter_mut().enumerate() {
                rule["name"] = json!(format!("r{index}"));
            }
            json!({
                "computeDefaults": defaults,
                "placement": { "webhook": webhook, "rules": rules },
                "scheduling": { "schedulerName": scheduler, "resourcePolicies": policies.unwrap_or(json!([])) },
            })
        },
    )
}

fn pools() -> impl Strategy<Value = Vec<Arc<VirtualNodePool>>> {
    prop::collection::vec(spec(), 1..4).prop_map(|specs| {
        let named = specs.into_iter().zip(2020..).enumerate();
        named
            .map(|(index, (spec, year))| pool(&format!("p{index}"), year, spec))
            .collect()
    })
}

fn mutate(pools: &[Arc<VirtualNodePool>], pod: &Value, namespace_labels: &Map) -> Mutation {
    mutate_among(pools, &[], pod, namespace_labels)
}

fn mutate_among(
    pools: &[Arc<VirtualNodePool>],
    nodes: &[NodeView],
    pod: &Value,
    namespace_labels: &Map,
) -> Mutation {
    Placing::compile(pools).mutate(&Review {
        pod,
        namespace: "shop",
        namespace_labels,
        nodes: &VirtualNodes::of(nodes),
    })
}

/// Nodes of the pools, and virtual ones of nobody.
fn nodes() -> impl Strategy<Value = Vec<NodeView>> {
    let zone = of(select(vec!["a", "b"]));
    let node = (select(vec!["p0", "p1", "p2", "nobody"]), 0..2, zone).prop_map(|(pool, ordinal, zone)| {
        let name = format!("virtual-node-{pool}-{ordinal}");
        let mut labels = virtual_node(pool);
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        labels.extend([("kubernetes.io/os", "linux")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        labels.remove("zone");
        labels.extend(zone.map(|zone| ("zone".to_owned(), zone.to_owned())));
        if pool == "nobody" {
            labels.remove("virtualnodes.dev/pool");
        }
        NodeView {
            name,
            labels,
            ..NodeView::default()
        }
    });
    prop::collection::vec(node, 1..4)
}

/// What the pod needs of its host, which is nothing unless a property is about it.
const NEEDS: [(&str, &str); 6] = [
    ("/spec", "hostNetwork"),
    ("/spec", "hostPID"),
    ("/spec", "hostIPC"),
    ("/spec", "os"),
    ("/spec", "volumes"),
    ("/spec/affinity", "nodeAffinity"),
];

fn need() -> impl Strategy<Value = Value> {
    select(vec![
        json!({ "hostNetwork": true }),
        json!({ "hostPID": true }),
        json!({ "hostIPC": true }),
        json!({ "os": { "name": "windows" } }),
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }),
        json!({ "containers": [{ "name": "c", "securityContext": { "privileged": true } }] }),
        json!({ "nodeSelector": { "kubernetes.io/hostname": "host-0" } }),
        json!({ "nodeSelector": { "kubernetes.io/os": "windows" } }),
    ])
}

/// Every key of `before` has its value in `after`.
fn survives(before: &Value, after: &Value, path: &str, except: &str) -> Result<(), TestCaseError> {
    for (key, value) in before
        .pointer(path)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if key != except {
            prop_assert_eq!(
                after.pointer(path).and_then(|m| m.get(key)),
                Some(value),
                "{}",
                path
            );
        }
    }
    Ok(())
}

const TERMS: &str =
    "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

fn label_of<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["labels"].get(key)?.as_str()
}

fn list<'a>(pod: &'a Value, path: &str) -> &'a [Value] {
    pod.pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn twice_is_once(pools in pools(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2)) {
        let first = mutate(&pools, &pod, &namespace);
        prop_assert_eq!(&first.unreadable, &None);
        let stored = patched(&pod, &first);
        let second = mutate(&pools, &stored, &namespace);
        prop_assert_eq!(json!(second.patch), json!([]), "{}", stored);
    }

    #[test]
    fn the_result_is_a_pod_in_which_its_own_values_survive(
        pools in pools(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        let after = patched(&pod, &mutate(&pools, &pod, &namespace));
        let read: Result<Pod, _> = serde_json::from_value(after.clone());
        prop_assert!(read.is_ok(), "{}", after);
        survives(&pod, &after, "/metadata/labels", "")?;
        survives(&pod, &after, "/metadata/annotations", "virtualnodes.dev/placed-by")?;
        survives(&pod, &after, "/spec/nodeSelector", "")?;
        let own = list(&pod, "/spec/tolerations");
        prop_assert_eq!(&list(&after, "/spec/tolerations")[..own.len()], own);
        prop_assert!(list(&after, "/spec/tolerations").len() <= own.len() + 1);
        if pod["spec"]["schedulerName"] == "mine" {
            prop_assert_eq!(&after["spec"]["schedulerName"], "mine");
        }
        let (terms, before) = (list(&after, TERMS), list(&pod, TERMS));
        // A pod without a required node affinity may get one, for the label of the pool.
        let new_affinity = pod.pointer(TERMS).is_none() && after.pointer(TERMS).is_some();
        if new_affinity {
            prop_assert_eq!(terms.len(), 1);
            let expressions = list(&terms[0], "/matchExpressions");
            let about_pool = expressions.len() == 1 && expressions[0]["key"] == "virtualnodes.dev/pool";
            prop_assert!(about_pool && expressions[0]["operator"] == "NotIn", "{}", after);
        } else {
            prop_assert_eq!(terms.len(), before.len());
        }
        for (term, own) in terms.iter().zip(before) {
            let own = list(own, "/matchExpressions");
            prop_assert_eq!(&list(term, "/matchExpressions")[..own.len()], own);
        }
        // Nothing else is touched.
        let mut rest = after.clone();
        for path in ["/metadata/labels", "/metadata/annotations", "/spec/nodeSelector", "/spec/tolerations",
                     "/spec/schedulerName", TERMS] {
            let (section, field) = path.rsplit_once('/').unwrap();
            let own = pod.pointer(path).cloned();
            let Some(object) = rest.pointer_mut(section).and_then(Value::as_object_mut) else { continue };
            match own {
                Some(own) => object.insert(field.to_owned(), own),
                None => object.remove(field),
            };
        }
        let mut pod = pod;
        if new_affinity {
            // Its emptied frame stays in the copy; beside it nothing changed.
            for pod in [&mut rest, &mut pod] {
                let frame = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {} } });
                json_patch::merge(&mut pod["spec"]["affinity"], &frame);
            }
        }
        prop_assert_eq!(rest, pod);
    }

    /// A pod that only may go to virtual nodes loses no ordinary one, and goes to no other pool's.
    #[test]
    fn prefer_rules_out_other_pools_only(pools in pools(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2)) {
        let mutation = mutate(&pools, &pod, &namespace);
        let after = patched(&pod, &mutation);
        let overflow = |pod: &Value| pod["metadata"]["labels"].get("virtualnodes.dev/overflow").cloned();
        let placed_by = mutation.placed_by.unwrap_or_default();
        let own = placed_by.split('/').next().unwrap_or_default();
        let marked = overflow(&pod).is_none() && overflow(&after) == Some(json!(own));
        let speaks = json!([pod["spec"]["nodeSelector"], pod.pointer(TERMS)]).to_string().contains("virtualnodes.dev/pool");
        // The API server refuses a list without alternatives.
        let refused = pod.pointer(TERMS) == Some(&json!([]));
        if !marked || speaks || refused {
            return Ok(());
        }
        let ordinary = [labels(&[]), labels(&[("zone", "a")]), labels(&[("type", "ssd")])];
        for node in ordinary.into_iter().chain([virtual_node(own)]) {
            prop_assert_eq!(may_run_on(&after, &node), may_run_on(&pod, &node), "{:?} {}", node, after);
        }
        for other in pools.iter().filter_map(|p| p.metadata.name.as_deref()).filter(|name| *name != own) {
            prop_assert!(!may_run_on(&after, &virtual_node(other)), "{} {}", other, after);
        }
    }

    /// Whatever else the pod says, one that a virtual node can't run gets nothing that brings it there.
    #[test]
    fn who_can_not_run_there_is_left_alone(
        pools in pools(), nodes in nodes(), mut pod in pod(), need in need(), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        json_patch::merge(&mut pod["spec"], &need);
        // Nobody knows the labels of a reserved node.
        let defaults = pools.iter().filter_map(|p| p.spec.compute_defaults.as_ref()?.class.as_deref());
        let classes = defaults.chain(label_of(&pod, "alibabacloud.com/compute-class"));
        if need["nodeSelector"]["kubernetes.io/hostname"].is_string() && classes.into_iter().any(|class| class == "gpu-hpn") {
            return Ok(());
        }
        let mutation = mutate_among(&pools, &nodes, &pod, &namespace);
        let mut after = patched(&pod, &mutation);
        // A policy may still name the scheduler, and record that.
        for pod in [&mut after, &mut pod] {
            json_patch::merge(pod, &json!({ "spec": { "schedulerName": null }, "metadata": { "annotations": null } }));
        }
        prop_assert_eq!(after, pod);
    }

    /// Whoever is sent to virtual nodes finds one that it may run on, or that may still come.
    #[test]
    fn who_is_placed_finds_a_node(
        pools in pools(), nodes in nodes(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        let mutation = mutate_among(&pools, &nodes, &pod, &namespace);
        let after = patched(&pod, &mutation);
        let placed = pod["spec"]["nodeSelector"]["type"] != after["spec"]["nodeSelector"]["type"];
        let class = label_of(&after, "alibabacloud.com/compute-class");
        if !placed || class == Some("gpu-hpn") {
            return Ok(());
        }
        let there = nodes.iter().any(|node| may_run_on(&after, &node.labels));
        // A pool without a Node yet, or one whose Nodes differ, may get another one.
        let mut may_come = pools.iter().filter_map(|p| p.metadata.name.as_deref()).filter(|name| {
            let own: Vec<_> = nodes.iter().filter(|n| n.labels.get("virtualnodes.dev/pool").is_some_and(|p| p == name)).collect();
            own.windows(2).any(|pair| pair[0].labels.get("zone") != pair[1].labels.get("zone")) || own.is_empty()
        });
        prop_assert!(there || may_come.next().is_some(), "{:?} {}", nodes, after);
    }

    /// The other way round: nothing but these reasons keeps a pod from a node that it may run on.
    #[test]
    fn nobody_is_left_alone_who_could_go(
        pools in pools(), nodes in nodes(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        let Some(left) = mutate_among(&pools, &nodes, &pod, &namespace).left_alone else { return Ok(()) };
        for node in nodes.iter().filter(|n| n.labels.get("virtualnodes.dev/pool") == Some(&left.pool)) {
            prop_assert!(!may_run_on(&pod, &node.labels), "{:?} {}", node, pod);
        }
    }

    /// The API server asks once more after others changed the pod; a policy of a user that is applied twice adds twice.
    #[test]
    fn what_others_add_twice_makes_us_add_nothing_twice(
        pools in pools(), nodes in nodes(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2), theirs in some_of(&LABELS, 2),
    ) {
        let adds = |pod: &mut Value| {
            json_patch::merge(&mut pod["metadata"]["labels"], &json!(theirs));
            let toleration = json!({ "key": "theirs", "operator": "Exists" });
            match pod["spec"]["tolerations"].as_array_mut() {
                Some(list) => list.push(toleration),
                None => pod["spec"]["tolerations"] = json!([toleration]),
            }
        };
        let mut pod = pod;
        adds(&mut pod);
        let mut stored = patched(&pod, &mutate_among(&pools, &nodes, &pod, &namespace));
        adds(&mut stored);
        let again = mutate_among(&pools, &nodes, &stored, &namespace);
        let after = patched(&stored, &again);
        let ours = list(&after, "/spec/tolerations").iter().filter(|t| {
            **t == json!({ "key": "virtual-kubelet.io/provider", "operator": "Exists" })
        });
        let own = list(&pod, "/spec/tolerations").iter().filter(|t| t["key"] == "virtual-kubelet.io/provider").count();
        prop_assert!(ours.count() <= own + 1, "{}", after);
        for term in list(&after, TERMS) {
            let expressions = list(term, "/matchExpressions");
            let added = expressions.iter().filter(|e| e["key"] == "type" && e["values"] == json!(["virtual-kubelet"]) && e["operator"] == "In");
            let own = list(&pod, TERMS).iter().flat_map(|t| list(t, "/matchExpressions")).filter(|e| e["key"] == "type").count();
            prop_assert!(added.count() <= own + 1, "{}", after);
        }
        let third = mutate_among(&pools, &nodes, &after, &namespace);
        prop_assert_eq!(json!(third.patch), json!([]), "{}", after);
    }

    /// Required terms are ANDed, never widened: where the pod may run afterwards is where it might before, or fewer nodes.
    #[test]
    fn no_new_node_is_allowed(pools in pools(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2)) {
        let mutation = mutate(&pools, &pod, &namespace);
        let after = patched(&pod, &mutation);
        let ordinary = [labels(&[]), labels(&[("zone", "a")]), labels(&[("type", "ssd")])];
        let series = ("alibabacloud.com/gpu-model-series", "T4");
        let reserved = labels(&[("type", "virtual-kubelet"), series]);
        let nodes = ordinary.iter().cloned().chain(["p0", "p1", "p2"].map(virtual_node)).chain([reserved]);
        let mut virtual_before = false;
        let mut virtual_after = false;
        for node in nodes {
            let (before, now) = (may_run_on(&pod, &node), may_run_on(&after, &node));
            prop_assert!(before || !now, "{:?} {}", node, after);
            if node.get("type").is_some_and(|v| v == "virtual-kubelet") {
                virtual_before |= before;
                virtual_after |= now;
            }
        }
        let placed = pod["spec"]["nodeSelector"]["type"] != after["spec"]["nodeSelector"]["type"];
        if placed {
            for node in &ordinary {
                prop_assert!(!may_run_on(&after, node), "{}", after);
            }
            for term in list(&after, TERMS) {
                let wanted = json!({ "key": "type", "operator": "In", "values": ["virtual-kubelet"] });
                let expressions = list(term, "/matchExpressions");
                let empty = expressions.is_empty() && list(term, "/matchFields").is_empty();
                prop_assert!(empty || expressions.contains(&wanted), "{}", after);
            }
        }
        // A pool's own nodes are asked for only by a rule of several pools; then the pod may have none of them in reach.
        let narrowed = after["spec"]["nodeSelector"] != json!({ "type": "virtual-kubelet" });
        prop_assert!(!virtual_before || virtual_after || narrowed, "{}", after);
    }

    /// The API server asks about every pod that something means, and about no other.
    #[test]
    fn the_configuration_has_the_pods_that_are_placed(
        pools in pools(), own in some_of(&LABELS, 4), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        let pod = json!({ "metadata": { "labels": own }, "spec": { "containers": [] } });
        let meant = mutate(&pools, &pod, &namespace).placed_by.is_some();
        let entries = configuration(&pools).and_then(|c| c.webhooks).unwrap_or_default();
        let asked = entries.iter().any(|entry| asks(entry, "shop", &namespace, &own));
        prop_assert_eq!(asked, meant);
    }

    /// Each call may take two seconds when nobody answers.
    #[test]
    fn a_pod_is_asked_about_once(
        mut pools in pools(), own in some_of(&LABELS, 4), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        pools.truncate(2);
        let entries = configuration(&pools).and_then(|c| c.webhooks).unwrap_or_default();
        let asked: Vec<_> = entries.iter().filter(|entry| asks(entry, "shop", &namespace, &own)).map(|e| &e.name).collect();
        prop_assert!(asked.len() <= 1, "{:?}", asked);
    }

    /// One that the API server can't read makes it refuse them all.
    #[test]
    fn every_condition_is_cel(pools in pools()) {
        let entries = configuration(&pools).and_then(|c| c.webhooks).unwrap_or_default();
        let mut names = std::collections::BTreeSet::new();
        for entry in &entries {
            prop_assert!(names.insert(&entry.name), "{} twice", entry.name);
            for condition in entry.match_conditions.iter().flatten() {
                let compiled = cel::Program::compile(&condition.expression);
                prop_assert!(compiled.is_ok(), "{}: {:?}", condition.expression, compiled.err());
            }
        }
    }

    /// What a rule adds is no reason to ask again; what others change afterwards is.
    #[test]
    fn of_a_placed_pod_only_its_own_entry_knows_nothing_yet(
        pools in pools(), pod in pod(), namespace in some_of(&NAMESPACE_LABELS, 2),
    ) {
        let mutation = mutate(&pools, &pod, &namespace);
        let after = patched(&pod, &mutation);
        let entries = configuration(&pools).and_then(|c| c.webhooks).unwrap_or_default();
        let asking = |pod: &Value| -> Vec<String> {
            let asking = entries.iter().filter(|entry| asks_about(entry, "shop", &namespace, pod));
            asking.map(|entry| entry.name.clone()).collect()
        };
        let placed_by = |pod: &Value| pod.pointer("/metadata/annotations/virtualnodes.dev~1placed-by").cloned();
        if placed_by(&pod).is_some() || placed_by(&after).is_none() {
            return Ok(());
        }
        let by = mutation.placed_by.unwrap_or_default();
        let (own, rule) = by.split_once('/').map(|(pool, rule)| (format!("{rule}.{pool}.rules.virtualnodes.dev"), rule)).unwrap();
        let now = asking(&after);
        let own = entries.iter().find(|entry| entry.name == own && asks_about(entry, "shop", &namespace, &pod));
        // Unless the rule added what its own selector doesn't have.
        let own = own.filter(|entry| selects(entry, "shop", &namespace, &after));
        prop_assert!(own.is_none_or(|own| now.contains(&own.name)), "{:?} {:?} {}", own, now, after);
        let required = after["spec"]["nodeSelector"]["type"] == "virtual-kubelet";
        let triggers = now.iter().any(|name| name.ends_with(".triggers.virtualnodes.dev"));
        let by_rule = !rule.contains(['=', '.']);
        prop_assert!(!(by_rule && required && triggers), "{:?} {}", now, after);
    }
}
