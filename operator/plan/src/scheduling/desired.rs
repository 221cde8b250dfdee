//! The ResourcePolicy that a policy of the pool asks for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use vnp_crds::{PolicyStrategy, PolicyUnit, ResourcePolicy, Switch, VirtualNodePool, compute_label};

use super::schema::PolicySchema;
use super::{GROUP, KIND, VERSION};
use crate::compute::{ComputeEffect, Said};
use crate::observed::ObjectKey;
use crate::workload::{APPLIED_ANNOTATION, digest_of};

/// The kind of resource that compute defaults are about.
pub(super) const ACS: &str = "acs";

/// `spec` with every field that the vendor documents. What the installed CRD does not take is left out afterwards.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    units: Vec<Unit<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preempt_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignore_previous_pod: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignore_terminating_pod: Option<bool>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    match_label_keys: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    when_try_next_units: Option<NextUnits>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unit<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    max_resources: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_selector: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pod_labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pod_annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct NextUnits {
    policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Timeout>,
}

/// A duration in the form that the CRD wants.
#[derive(Serialize)]
#[serde(untagged)]
enum Timeout {
    Seconds(i32),
    Text(String),
}

/// What is applied.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: String,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    labels: BTreeMap<&'static str, &'a str>,
    annotations: BTreeMap<&'static str, String>,
    owner_references: [Owner<'a>; 1],
}

/// The pool. It does not block its own deletion: an adopted policy would need the right to set its finalizers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    api_version: &'static str,
    kind: &'static str,
    name: &'a str,
    uid: &'a str,
    controller: bool,
}

/// Name of the object: pool and policy. A policy's name has no dot, so no two pools give one name.
pub(super) fn name(pool: &VirtualNodePool, policy: &ResourcePolicy) -> String {
    format!(
        "{}.{}",
        pool.metadata.name.as_deref().unwrap_or_default(),
        policy.name
    )
}

/// The whole spec of the policy.
pub(super) fn spec(pool: &VirtualNodePool, policy: &ResourcePolicy, schema: &PolicySchema) -> Value {
    // What was not asked for is not missed where the schema lacks it.
    let selector = !policy.selector.is_empty() || schema.knows("selector");
    let effect = ComputeEffect::of(pool.spec.compute_defaults.as_ref());
    let strategy = policy
        .strategy
        .or_else(|| schema.knows("strategy").then_some(PolicyStrategy::Prefer));
    let next = policy.when_try_next_units.as_ref().map(|next| NextUnits {
        policy: next.policy.as_str(),
        timeout: next.timeout_seconds.map(|seconds| {
            if schema.counts(["whenTryNextUnits", "timeout"]) {
                Timeout::Seconds(seconds)
            } else {
                Timeout::Text(format!("{seconds}s"))
            }
        }),
    });
    json!(Spec {
        selector: selector.then_some(&policy.selector),
        strategy: strategy.map(PolicyStrategy::as_str),
        units: units(&effect, policy),
        preempt_policy: policy.preempt_policy.map(|p| p.as_str()),
        ignore_previous_pod: policy.ignore_previous_pod.map(Switch::is_enabled),
        ignore_terminating_pod: policy.ignore_terminating_pod.map(Switch::is_enabled),
        match_label_keys: &policy.match_label_keys,
        when_try_next_units: next,
    })
}

/// The units asked for, or ordinary nodes first and then virtual ones.
fn units<'a>(effect: &'a ComputeEffect, policy: &'a ResourcePolicy) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = if policy.units.is_empty() {
        let virtual_nodes = if effect.is_acs() { ACS } else { "eci" };
        ["ecs", virtual_nodes].map(Unit::of).into()
    } else {
        policy.units.iter().map(Unit::from).collect()
    };
    for unit in units.iter_mut().filter(|u| u.resource == ACS) {
        unit.add(effect);
    }
    units
}

impl<'a> Unit<'a> {
    /// The compute defaults, where the unit says nothing itself.
    fn add(&mut self, effect: &'a ComputeEffect) {
        let node_series = self.node_selector.contains_key(compute_label::GPU_SERIES);
        let said = Said::by(effect, |key| self.pod_labels.get(key).copied(), node_series);
        let given = effect.complete(&said);
        self.pod_labels.extend(given.labels);
        self.node_selector.extend(given.node_selector);
    }

    fn of(resource: &'a str) -> Self {
        Self {
            resource,
            max: None,
            max_resources: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
        }
    }
}

impl<'a> From<&'a PolicyUnit> for Unit<'a> {
    fn from(unit: &'a PolicyUnit) -> Self {
        Self {
            max: unit.max,
            max_resources: borrowed(&unit.max_resources),
            node_selector: borrowed(&unit.node_selector),
            pod_labels: borrowed(&unit.pod_labels),
            pod_annotations: borrowed(&unit.pod_annotations),
            ..Self::of(&unit.resource)
        }
    }
}

fn borrowed(map: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// What tells one body from another, whatever the server makes of its values.
pub(super) fn digest(pool: &VirtualNodePool, spec: &Value) -> String {
    digest_of(&(&pool.metadata.uid, spec))
}

/// The body of the server-side apply. `uid` is that of the object to change, `None` of one to create.
pub(super) fn body(pool: &VirtualNodePool, key: &ObjectKey, uid: Option<&str>, spec: &Value) -> Value {
    let pool_name = pool.metadata.name.as_deref().unwrap_or_default();
    json!(Body {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: KIND,
        metadata: Metadata {
            name: &key.name,
            namespace: &key.namespace,
            uid,
            labels: BTreeMap::from([
                (vnp_crds::MANAGED_BY_LABEL, vnp_crds::MANAGED_BY),
                (vnp_crds::POOL_LABEL, pool_name),
            ]),
            annotations: BTreeMap::from([(APPLIED_ANNOTATION, digest(pool, spec))]),
            owner_references: [Owner {
                api_version: vnp_crds::API_VERSION,
                kind: vnp_crds::KIND,
                name: pool_name,
                uid: pool.metadata.uid.as_deref().unwrap_or_default(),
                controller: true,
            }],
        },
        spec,
    })
}
