//! A pod's own choice of node against the virtual nodes that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::{label, labelled, labels, patched, pool, ruled, with};
use crate::observed::NodeView;
use crate::placement::{Mutation, Placing, Review, Unfit, VirtualNodes};

/// A Node of pool `burst`, whose provider is `virtual-node-burst`.
fn node(ordinal: i32, more: &[(&str, &str)]) -> NodeView {
    let name = format!("virtual-node-burst-{ordinal}");
    let own = [
        ("type", "virtual-kubelet"),
        ("kubernetes.io/hostname", &name),
        ("kubernetes.io/os", "linux"),
        ("zone", "a"),
    ];
    let all: Vec<_> = own.iter().chain(more).copied().collect();
    NodeView {
        labels: labels(&all),
        name: name.clone(),
        ..NodeView::default()
    }
}

fn tainted(value: &str) -> NodeView {
    NodeView {
        taints: vec![Taint {
            key: "virtual-kubelet.io/provider".into(),
            value: Some(value.into()),
            effect: "NoSchedule".into(),
            time_added: None,
        }],
        ..node(0, &[])
    }
}

fn all() -> Arc<VirtualNodePool> {
    ruled(json!([{ "name": "all", "mode": "Require", "podSelector": {} }]))
}

fn mutated(pools: &[Arc<VirtualNodePool>], nodes: &[NodeView], pod: &Value) -> Mutation {
    Placing::compile(pools).mutate(&Review {
        pod,
        namespace: "shop",
        namespace_labels: &BTreeMap::new(),
        nodes: &VirtualNodes::of(nodes),
    })
}

fn selecting(pairs: &[(&str, &str)]) -> Value {
    json!({ "spec": { "nodeSelector": labels(pairs) } })
}

fn term(part: &str, key: &str, operator: &str, values: &[&str]) -> Value {
    let values = if values.is_empty() {
        Value::Null
    } else {
        json!(values)
    };
    let term = json!({ part: [{ "key": key, "operator": operator, "values": values }] });
    json!({ "spec": { "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } } } })
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    term("matchExpressions", key, operator, values)
}

#[test]
fn a_choice_of_node_is_held_against_the_nodes_that_are_there() {
    let hostname = "kubernetes.io/hostname";
    // What the pod says, and whether it goes: with two Nodes there, and with none.
    for (choice, there, none) in [
        (json!({}), true, true),
        (selecting(&[(hostname, "host-0")]), false, false),
        (selecting(&[(hostname, "virtual-node-burst-1")]), true, true),
        (selecting(&[(hostname, "virtual-node-burst-7")]), true, true),
        (selecting(&[(hostname, "virtual-node-burst-x")]), false, false),
        (selecting(&[("kubernetes.io/os", "windows")]), false, false),
        (selecting(&[("kubernetes.io/os", "linux")]), true, true),
        (selecting(&[("zone", "a")]), true, true),
        (selecting(&[("zone", "b")]), false, true),
        (selecting(&[("disk", "ssd")]), false, true),
        (selecting(&[("rack", "2")]), true, true),
        (selecting(&[("virtualnodes.dev/pool", "burst")]), true, true),
        (selecting(&[("virtualnodes.dev/pool", "other")]), false, false),
        (expression(hostname, "In", &["host-0", "host-1"]), false, false),
        (
            expression(
                hostname,
                "NotIn",
                &["virtual-node-burst-0", "virtual-node-burst-1"],
            ),
            true,
            true,
        ),
        (expression(hostname, "Exists", &[]), true, true),
        (expression(hostname, "DoesNotExist", &[]), false, false),
        (expression("kubernetes.io/os", "In", &["windows"]), false, false),
        (expression("kubernetes.io/os", "NotIn", &["windows"]), true, true),
        (expression("zone", "In", &["b", "c"]), false, true),
        (expression("zone", "DoesNotExist", &[]), false, true),
        (expression("disk", "Exists", &[]), false, true),
        (expression("rack", "Gt", &["1"]), true, true),
        (expression("slot", "Gt", &["1"]), true, true),
        (expression("slot", "Lt", &["2"]), false, true),
        (expression("rack", "Lt", &["1"]), true, true),
        (expression("zone", "Like", &["a"]), false, false),
        (
            term("matchFields", "metadata.name", "In", &["host-0"]),
            false,
            false,
        ),
        (
            term("matchFields", "metadata.name", "In", &["virtual-node-burst-3"]),
            true,
            true,
        ),
        (
            term("matchFields", "metadata.name", "NotIn", &["host-0"]),
            true,
            true,
        ),
        (term("matchFields", "metadata.uid", "In", &["u"]), false, false),
    ] {
        let pod = with(labelled(&[]), choice);
        // Another one may have any rack, because these two don't agree.
        let nodes = [
            node(0, &[("rack", "1"), ("slot", "2")]),
            node(1, &[("rack", "2"), ("slot", "2")]),
        ];
        for (nodes, goes) in [(&nodes[..], there), (&[], none)] {
            let mutation = mutated(&[all()], nodes, &pod);
            let said = format!("{} with {} nodes", pod["spec"], nodes.len());
            assert_eq!(mutation.placed_by.is_some(), goes, "{said}");
            if goes && nodes.len() == 2 {
                continue;
            }
            let left = mutation.left_alone.as_ref().map(|left| left.why.clone());
            assert_eq!(left, (!goes).then_some(Unfit::NodeChoice), "{said}");
            assert_eq!(mutation.warnings.len(), usize::from(!goes), "{said}");
            if !goes {
                assert_eq!(patched(&pod, &mutation), pod);
            }
        }
    }
}

#[test]
fn one_alternative_is_enough() {
    let mut pod = with(labelled(&[]), expression("zone", "In", &["b"]));
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fits = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] });
    pod.pointer_mut(terms).unwrap().as_array_mut().unwrap().push(fits);
    assert!(mutated(&[all()], &[node(0, &[])], &pod).placed_by.is_some());
}

/// The rule holds its pods to the nodes of its own pool: those of another one are no way out.
#[test]
fn nodes_of_another_pool_do_not_count_for_a_rule_of_several() {
    let other = pool("other", 2027, json!({}));
    let theirs = NodeView {
        name: "virtual-node-other-0".into(),
        labels: labels(&[("type", "virtual-kubelet"), ("zone", "b")]),
        ..NodeView::default()
    };
    let nodes = [node(0, &[]), theirs];
    let pod = with(labelled(&[]), selecting(&[("zone", "b")]));
    let by_rule = mutated(&[all(), other.clone()], &nodes, &pod);
    assert_eq!(by_rule.left_alone.unwrap().why, Unfit::NodeChoice);
    // A label says nothing of pools.
    let labelled = with(pod, json!({ "metadata": { "labels": { "eci": "true" } } }));
    let pools = [pool("burst", 2026, json!({})), other];
    assert!(mutated(&pools, &nodes, &labelled).placed_by.is_some());
}

/// Virtual nodes that no pool has, as those of a reservation.
#[test]
fn virtual_nodes_of_nobody_count_for_a_label_and_reserved_ones_need_not_be_there() {
    let reserved = NodeView {
        name: "cn-hangzhou.reserved".into(),
        labels: labels(&[
            ("type", "virtual-kubelet"),
            ("alibabacloud.com/gpu-model-series", "T4"),
        ]),
        ..NodeView::default()
    };
    let series = selecting(&[("alibabacloud.com/gpu-model-series", "T4")]);
    let pod = with(labelled(&[("eci", "true")]), series.clone());
    let pools = [pool("burst", 2026, json!({}))];
    assert!(
        mutated(&pools, &[node(0, &[]), reserved], &pod)
            .placed_by
            .is_some()
    );
    assert_eq!(mutated(&pools, &[node(0, &[])], &pod).placed_by, None);
    let hpn = with(
        labelled(&[
            ("alibabacloud.com/acs", "true"),
            ("alibabacloud.com/compute-class", "gpu-hpn"),
        ]),
        series,
    );
    assert!(mutated(&pools, &[node(0, &[])], &hpn).placed_by.is_some());
}

#[test]
fn a_toleration_counts_for_the_taint_that_is_there() {
    let pod = with(
        labelled(&[]),
        json!({ "spec": { "tolerations": [
            { "key": "virtual-kubelet.io/provider", "operator": "Equal", "value": "alibabacloud", "effect": "NoSchedule" }] } }),
    );
    let tolerations = |nodes: &[NodeView]| {
        let mutation = mutated(&[all()], nodes, &pod);
        patched(&pod, &mutation)["spec"]["tolerations"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(tolerations(&[]), Some(1));
    assert_eq!(tolerations(&[tainted("alibabacloud")]), Some(1));
    assert_eq!(tolerations(&[tainted("azure")]), Some(2), "VKUBELET_TAINT_VALUE");
    assert_eq!(tolerations(&[node(0, &[])]), Some(1));
}

#[test]
fn a_pod_that_declines_is_no_news() {
    let pod = with(labelled(&[]), expression("type", "NotIn", &["virtual-kubelet"]));
    let mutation = mutated(&[all()], &[node(0, &[])], &pod);
    assert_eq!(mutation.left_alone.unwrap().why, Unfit::Declines);
    assert_eq!(mutation.warnings, [""; 0]);
    assert_eq!(label(&pod, "x"), None);
}
