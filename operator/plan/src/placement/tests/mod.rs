//! Tests of placement, and what they share: pools, pods, and a scheduler's view of both.

mod configuration;
mod documented;
mod golden;
mod manual_forms;
mod outdated;
mod pod_schema;
mod properties;
mod rules;
mod three_paths;
mod unfit;
mod virtual_nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use json_patch::patch;
use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::pod::{PodView, VirtualTaint};
use super::{Mutation, Placing, Review, VirtualNodes};

/// Pool `name`, made in January of that year, with `spec` merged over a minimal one.
fn pool(name: &str, year: i32, spec: Value) -> Arc<VirtualNodePool> {
    let mut pool = crate::testing::pool(spec);
    pool.metadata.name = Some(name.to_owned());
    pool.metadata.uid = Some(format!("uid-{name}"));
    let created = json!(format!("{year}-01-01T00:00:00Z"));
    pool.metadata.creation_timestamp = serde_json::from_value(created).unwrap();
    pool.spec.provider.name = Some(format!("virtual-node-{name}"));
    Arc::new(pool)
}

/// Pool `burst` with these rules.
fn ruled(rules: Value) -> Arc<VirtualNodePool> {
    pool("burst", 2026, json!({ "placement": { "rules": rules } }))
}

/// A pod with these labels, and one container.
fn labelled(labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "web-", "labels": labels },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    })
}

/// That pod with `overlay` merged over it.
fn with(mut pod: Value, overlay: Value) -> Value {
    json_patch::merge(&mut pod, &overlay);
    pod
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    pairs.collect()
}

/// What becomes of a pod in namespace `shop`.
fn mutation(pools: &[Arc<VirtualNodePool>], pod: &Value, namespace: &[(&str, &str)]) -> Mutation {
    Placing::compile(pools).mutate(&Review {
        pod,
        namespace: "shop",
        namespace_labels: &labels(namespace),
        nodes: &VirtualNodes::default(),
    })
}

/// The pod as it is stored.
fn patched(pod: &Value, mutation: &Mutation) -> Value {
    let mut stored = pod.clone();
    patch(&mut stored, &mutation.patch).expect("the patch applies");
    stored
}

/// The stored pod in namespace `shop`.
fn stored(pools: &[Arc<VirtualNodePool>], pod: &Value, namespace: &[(&str, &str)]) -> Value {
    patched(pod, &mutation(pools, pod, namespace))
}

/// Whether the scheduler may put the pod on a node with these labels. Source: component-helpers `nodeaffinity`.
fn may_run_on(pod: &Value, node: &BTreeMap<String, String>) -> bool {
    let pod = PodView::read(pod).unwrap();
    let states = |r: &NodeSelectorRequirement| {
        let value = node.get(&r.key);
        let among = value.is_some_and(|v| r.values.iter().flatten().any(|known| known == v));
        match r.operator.as_str() {
            "In" => among,
            "NotIn" => !among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    let terms = pod.required_terms();
    let alternative = terms.iter().any(|term| {
        // Fields are the name of the node, which no node here has.
        let fields = term.match_fields.iter().flatten().count() == 0;
        let mut expressions = term.match_expressions.iter().flatten().peekable();
        fields && expressions.peek().is_some() && expressions.all(states)
    });
    let mut selector = pod.spec.node_selector.iter().flatten();
    selector.all(|(key, value)| node.get(key) == Some(value)) && (terms.is_empty() || alternative)
}

/// Labels of a Node of that pool.
fn virtual_node(pool: &str) -> BTreeMap<String, String> {
    labels(&[
        ("type", "virtual-kubelet"),
        ("virtualnodes.dev/pool", pool),
        ("zone", "a"),
    ])
}

/// It runs on virtual nodes and nowhere else.
fn is_virtual(pod: &Value) -> bool {
    let tolerates = PodView::read(pod).unwrap().tolerates(&VirtualTaint::DOCUMENTED);
    let ordinary = [
        labels(&[]),
        labels(&[("zone", "a")]),
        labels(&[("type", "other")]),
    ];
    tolerates && may_run_on(pod, &virtual_node("burst")) && !ordinary.iter().any(|node| may_run_on(pod, node))
}

fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["labels"].get(key)?.as_str()
}
