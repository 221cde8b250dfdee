//! Nodes, with who holds their cordon.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;
use vnp_crds::CORDON_FIELD_MANAGER;
use vnp_plan::observed::{CordonOwner, NodeTrace, NodeView, Silence};

use super::{Condition, Meta, ready};

/// A Node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NodeWire")]
pub struct SlimNode {
    /// Name, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// Without heartbeat, which needs the Lease too, and without resourceVersion, which says nothing about it.
    pub view: NodeView,
    /// `lastHeartbeatTime` of condition Ready.
    pub status_beat: Option<Timestamp>,
    addresses: Vec<String>,
}

impl SlimNode {
    /// As a Node of which nobody knows yet whose it is, without what its Lease says.
    pub fn trace(self) -> NodeTrace {
        NodeTrace {
            name: self.view.name,
            labels: self.view.labels,
            taints: self.view.taints.into_iter().map(|t| t.key).collect(),
            addresses: self.addresses,
            ready: self.view.ready,
            beat: self.status_beat,
            lease_holder: None,
        }
    }
}

#[derive(Deserialize)]
struct NodeWire {
    #[serde(default)]
    metadata: NodeMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeMeta {
    #[serde(flatten)]
    meta: Meta,
    managed_fields: Vec<ManagedFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    fields_v1: Fields,
}

#[derive(Deserialize, Default)]
struct Fields {
    #[serde(rename = "f:spec", default)]
    spec: SpecFields,
}

#[derive(Deserialize, Default)]
struct SpecFields {
    #[serde(rename = "f:unschedulable")]
    unschedulable: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
    taints: Vec<Taint>,
}

/// The node lifecycle controller always says since when.
fn no_execute(taints: &[Taint]) -> Vec<(Silence, Timestamp)> {
    let both = [Silence::Unreachable, Silence::NotReady].into_iter();
    both.filter_map(|why| {
        let mut of_both = taints.iter().filter(|t| t.key == why.taint());
        let taint = of_both.find(|t| t.effect == "NoExecute")?;
        Some((why, taint.time_added.as_ref()?.0))
    })
    .collect()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    capacity: Capacity,
    conditions: Vec<Condition>,
    addresses: Vec<Address>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    address: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Capacity {
    pods: Option<String>,
}

/// Who holds `spec.unschedulable`; the API server's own bookkeeping. A Node that is unschedulable with no entry for the
/// field was made so by somebody who leaves no trace, and not by us.
fn cordon_owner(unschedulable: bool, managed: &[ManagedFields]) -> CordonOwner {
    let mut holders = managed
        .iter()
        .filter(|m| m.fields_v1.spec.unschedulable.is_some());
    let is_ours = |m: &&ManagedFields| m.manager == CORDON_FIELD_MANAGER && m.operation == "Apply";
    let ours = holders.clone().any(|m| is_ours(&m));
    let others = holders.any(|m| !is_ours(&m));
    match (unschedulable, ours, others) {
        (false, ..) => CordonOwner::Nobody,
        (true, true, false) => CordonOwner::Us,
        (true, true, true) => CordonOwner::Both,
        (true, false, _) => CordonOwner::Others,
    }
}

/// A whole number of pods as the API server writes quantities: it shortens 1000 to `1k`.
pub(super) fn count(quantity: &str) -> Option<i64> {
    const SUFFIXES: [(&str, i64); 6] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((quantity.strip_suffix(suffix)?, *factor)))
        .unwrap_or((quantity, 1));
    number.parse::<i64>().ok()?.checked_mul(factor)
}

impl From<NodeWire> for SlimNode {
    fn from(
        NodeWire {
            metadata: NodeMeta { meta, managed_fields },
            spec,
            status,
        }: NodeWire,
    ) -> Self {
        let ready = ready(&status.conditions);
        Self {
            metadata: meta.identity(),
            status_beat: ready.and_then(|c| c.last_heartbeat.as_ref()).map(|t| t.0),
            addresses: status.addresses.into_iter().map(|a| a.address).collect(),
            view: NodeView {
                name: meta.name.unwrap_or_default(),
                uid: meta.uid.unwrap_or_default(),
                labels: meta.labels.unwrap_or_default(),
                ready: ready.is_some_and(|c| c.status == "True"),
                unschedulable: spec.unschedulable,
                cordon_owner: cordon_owner(spec.unschedulable, &managed_fields),
                cordon_term: meta.annotations.unwrap_or_default().cordon_term,
                pod_capacity: status.capacity.pods.as_deref().and_then(count),
                no_execute: no_execute(&spec.taints),
                taints: spec.taints,
                deleting: meta.deletion_timestamp.is_some(),
                ..NodeView::default()
            },
        }
    }
}
