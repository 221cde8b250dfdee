//! Nodes, with who holds their cordon.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;
use vnp_crds::CORDON_FIELD_MANAGER;
use vnp_plan::observed::{CordonOwner, Finalizer, NodeTrace, NodeView, Silence};
use vnp_plan::room::{Amounts, amount};

use super::{Condition, Meta, ready};
use crate::observe::read::Unreadable;

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
}

impl SlimNode {
    /// As a Node of which nobody knows yet whose it is, without what its Lease says.
    pub fn trace(self) -> NodeTrace {
        NodeTrace {
            name: self.view.name,
            labels: self.view.labels,
            taints: self.view.taints.into_iter().map(|t| t.key).collect(),
            addresses: self.view.addresses,
            ready: self.view.ready,
            beat: self.status_beat,
            lease_holder: None,
            unreadable: self.view.unreadable,
        }
    }

    /// One that can't be read, as the worst that it may be: there, and of no use.
    pub fn worst(object: &Unreadable) -> Self {
        Self {
            metadata: object.metadata.clone(),
            status_beat: None,
            view: NodeView {
                name: object.metadata.name.clone().unwrap_or_default(),
                uid: object.metadata.uid.clone().unwrap_or_default(),
                labels: object.labels(),
                unreadable: true,
                ..NodeView::default()
            },
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
    #[serde(rename = "f:metadata", default)]
    metadata: MetaFields,
}

#[derive(Deserialize, Default)]
struct MetaFields {
    /// Each as `v:"<name>"`.
    #[serde(rename = "f:finalizers", default)]
    finalizers: BTreeMap<String, IgnoredAny>,
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
    capacity: BTreeMap<String, String>,
    allocatable: Option<BTreeMap<String, String>>,
    conditions: Vec<Condition>,
    addresses: Vec<Address>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    address: String,
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

fn finalizers(names: Vec<String>, managed: &[ManagedFields]) -> Vec<Finalizer> {
    let set_by = |name: &str| {
        let key = format!("v:{}", serde_json::json!(name));
        let mut entries = managed.iter();
        let entry = entries.find(|m| m.fields_v1.metadata.finalizers.contains_key(&key))?;
        Some(entry.manager.clone())
    };
    let read = |name: String| Finalizer {
        manager: set_by(&name),
        name,
    };
    names.into_iter().map(read).collect()
}

/// The API server fills in `allocatable` from `capacity` where a Node says only that. What is no quantity is nothing.
fn allocatable(status: &NodeStatus) -> Amounts {
    let offered = status.allocatable.as_ref().unwrap_or(&status.capacity);
    let read =
        |(resource, quantity): (&String, &String)| Some((resource.clone(), amount(resource, quantity)?));
    offered.iter().filter_map(read).collect()
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
        let allocatable = allocatable(&status);
        Self {
            metadata: meta.identity(),
            status_beat: ready.and_then(|c| c.last_heartbeat.as_ref()).map(|t| t.0),
            view: NodeView {
                name: meta.name.unwrap_or_default(),
                uid: meta.uid.unwrap_or_default(),
                labels: meta.labels.unwrap_or_default(),
                ready: ready.is_some_and(|c| c.status == "True"),
                unschedulable: spec.unschedulable,
                cordon_owner: cordon_owner(spec.unschedulable, &managed_fields),
                cordon_term: meta.annotations.unwrap_or_default().cordon_term,
                no_execute: no_execute(&spec.taints),
                taints: spec.taints,
                addresses: status.addresses.into_iter().map(|a| a.address).collect(),
                allocatable,
                deleting: meta.deletion_timestamp.is_some(),
                deleted_at: meta.deletion_timestamp.map(|t| t.0),
                finalizers: finalizers(meta.finalizers.unwrap_or_default(), &managed_fields),
                ..NodeView::default()
            },
        }
    }
}
