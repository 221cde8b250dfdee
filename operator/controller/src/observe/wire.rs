//! Objects as they come over the wire, cut down to what is used. serde skips the rest while it parses, so an object costs
//! its size only once: a Pod of several KiB leaves some hundred bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{apps, core};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use vnp_crds::CORDON_FIELD_MANAGER;
use vnp_plan::observed::{
    BoundPod, CordonOwner, Member, MemberState, NodeView, ObjectKey, PodOwner, PodPhase, ProviderPod,
};

macro_rules! resource {
    ($slim:ty, $full:ty, $scope:ty) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$full>::kind(&())
            }
            fn group((): &()) -> Cow<'_, str> {
                <$full>::group(&())
            }
            fn version((): &()) -> Cow<'_, str> {
                <$full>::version(&())
            }
            fn plural((): &()) -> Cow<'_, str> {
                <$full>::plural(&())
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(SlimPod, core::v1::Pod, NamespaceResourceScope);
resource!(SlimNode, core::v1::Node, ClusterResourceScope);
resource!(SlimNamespace, core::v1::Namespace, ClusterResourceScope);
resource!(RawWorkload, apps::v1::StatefulSet, NamespaceResourceScope);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    finalizers: Option<Vec<IgnoredAny>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// The few annotations that are read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
    #[serde(rename = "k8s.aliyun.com/eci-instance-id")]
    eci_instance: Option<String>,
    #[serde(rename = "alibabacloud.com/instance-id")]
    acs_instance: Option<String>,
}

impl Meta {
    /// What a watch needs: who it is and which version.
    fn identity(&self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            ..ObjectMeta::default()
        }
    }
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    #[serde(rename = "lastHeartbeatTime")]
    last_heartbeat: Option<Time>,
    #[serde(rename = "lastTransitionTime")]
    last_transition: Option<Time>,
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == "Ready")
}

fn evicted(conditions: &[Condition]) -> bool {
    let (type_, reason) = EVICTED;
    conditions
        .iter()
        .any(|c| c.type_ == type_ && c.status == "True" && c.reason.as_deref() == Some(reason))
}

/// A Pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PodWire")]
pub struct SlimPod {
    /// Name, namespace, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// As an instance on a virtual node.
    pub bound: BoundPod,
    ready: bool,
    /// Since when condition Ready says so.
    ready_since: Option<Timestamp>,
    /// An eviction or another disruption is its end.
    disrupted: bool,
    restarts: i32,
    owner_uids: Vec<String>,
    images: BTreeMap<String, String>,
}

impl SlimPod {
    /// As a pod of its StatefulSet.
    pub fn member(&self) -> Member {
        let (state, since) = match self.bound.deletion {
            Some(deletion) => (MemberState::Terminating, Some(deletion)),
            None if self.ready => (MemberState::Ready, self.ready_since),
            None => (MemberState::NotReady, self.ready_since.or(self.bound.created)),
        };
        Member {
            uid: self.bound.uid.clone(),
            state,
            since,
        }
    }

    /// As a pod of its StatefulSet that is not there any more. Its deletion timestamp is when it was to be gone.
    pub fn gone(&self) -> Member {
        Member {
            uid: self.bound.uid.clone(),
            state: MemberState::Gone {
                disrupted: self.disrupted,
            },
            since: self.bound.deletion,
        }
    }

    /// As the process behind a virtual node.
    pub fn provider(self) -> ProviderPod {
        ProviderPod {
            revision: self
                .bound
                .labels
                .get("controller-revision-hash")
                .cloned()
                .unwrap_or_default(),
            key: self.bound.key,
            uid: self.bound.uid,
            ready: self.ready,
            restarts: self.restarts,
            created: self.bound.created,
            deleting: self.bound.deletion.is_some(),
            owner_uids: self.owner_uids,
            images: self.images,
        }
    }
}

#[derive(Deserialize)]
struct PodWire {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    termination_grace_period_seconds: Option<i64>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<core::v1::NodeAffinity>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<IgnoredAny>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    restart_count: i32,
    started: Option<bool>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: ContainerState,
    last_state: ContainerState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
    terminated: Option<IgnoredAny>,
}

impl ContainerState {
    fn began(&self) -> bool {
        self.running.is_some() || self.terminated.is_some()
    }
}

impl ContainerStatus {
    /// Any trace of the container in any of its fields: providers fill them in as they like.
    fn began(&self) -> bool {
        self.started == Some(true)
            || self.restart_count > 0
            || self.container_id.as_deref().is_some_and(|id| !id.is_empty())
            || self.state.began()
            || self.last_state.began()
    }
}

/// Pending, and nothing shows that an instance was made. Anything that is not understood counts as started.
fn never_started(metadata: &Meta, status: &PodStatus) -> bool {
    let instance = metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.eci_instance.is_some() || a.acs_instance.is_some());
    let addressed = status.pod_ip.as_deref().is_some_and(|ip| !ip.is_empty()) || !status.pod_ips.is_empty();
    let containers = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses);
    status.phase.as_deref() == Some("Pending")
        && !instance
        && !addressed
        && !containers.into_iter().any(ContainerStatus::began)
}

const NODE_TYPE: &str = "type";
const VIRTUAL: &str = "virtual-kubelet";
/// Source: apiserver `pkg/registry/core/pod/storage/eviction.go`.
const EVICTED: (&str, &str) = ("DisruptionTarget", "EvictionByEvictionAPI");

/// Every way the scheduler may place the pod leads to virtual nodes: the terms of a required affinity are alternatives.
fn requires_virtual(spec: &PodSpec) -> bool {
    if spec
        .node_selector
        .as_ref()
        .and_then(|s| s.get(NODE_TYPE))
        .is_some_and(|v| v == VIRTUAL)
    {
        return true;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let Some(required) =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    else {
        return false;
    };
    let asks = |term: &core::v1::NodeSelectorTerm| {
        term.match_expressions.iter().flatten().any(|e| {
            e.key == NODE_TYPE && e.operator == "In" && e.values.as_deref() == Some(&[VIRTUAL.to_owned()])
        })
    };
    !required.node_selector_terms.is_empty() && required.node_selector_terms.iter().all(asks)
}

impl From<PodWire> for SlimPod {
    fn from(
        PodWire {
            metadata,
            spec,
            status,
        }: PodWire,
    ) -> Self {
        let identity = metadata.identity();
        let never_started = never_started(&metadata, &status);
        let ready = ready(&status.conditions);
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners
            .iter()
            .find(|o| o.controller == Some(true))
            .map(|o| PodOwner {
                kind: o.kind.clone(),
                name: o.name.clone(),
                uid: o.uid.clone(),
            });
        let annotations = metadata.annotations.unwrap_or_default();
        let phase = match status.phase.as_deref() {
            Some("Running") => PodPhase::Running,
            Some("Succeeded") => PodPhase::Succeeded,
            Some("Failed") => PodPhase::Failed,
            _ => PodPhase::Pending,
        };
        let bound = BoundPod {
            key: ObjectKey {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.unwrap_or_default(),
            },
            uid: metadata.uid.unwrap_or_default(),
            phase,
            before_deletion: metadata.deletion_timestamp.is_none().then_some(phase),
            evicted: evicted(&status.conditions),
            deletion: metadata.deletion_timestamp.map(|t| t.0),
            created: metadata.creation_timestamp.map(|t| t.0),
            labels: metadata.labels.unwrap_or_default(),
            controller,
            mirror: annotations.mirror.is_some(),
            instance_id: annotations
                .eci_instance
                .or(annotations.acs_instance)
                .filter(|id| !id.is_empty()),
            finalizers: metadata.finalizers.is_some_and(|f| !f.is_empty()),
            grace_seconds: spec.termination_grace_period_seconds,
            requires_virtual: requires_virtual(&spec),
            never_started,
        };
        Self {
            metadata: identity,
            node: spec.node_name.filter(|n| !n.is_empty()),
            bound,
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_since: ready.and_then(|c| c.last_transition.as_ref()).map(|t| t.0),
            disrupted: status
                .conditions
                .iter()
                .any(|c| c.type_ == "DisruptionTarget" && c.status == "True"),
            restarts: status
                .container_statuses
                .iter()
                .fold(0, |sum, c| sum.saturating_add(c.restart_count)),
            owner_uids: owners.into_iter().map(|o| o.uid).collect(),
            images: spec.containers.into_iter().map(|c| (c.name, c.image)).collect(),
        }
    }
}

/// A Namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NamespaceWire")]
pub struct SlimNamespace {
    /// Name, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// Labels, for stages.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct NamespaceWire {
    #[serde(default)]
    metadata: Meta,
}

impl From<NamespaceWire> for SlimNamespace {
    fn from(NamespaceWire { metadata }: NamespaceWire) -> Self {
        Self {
            metadata: metadata.identity(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

/// A Node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NodeWire")]
pub struct SlimNode {
    /// Name, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// Without heartbeat: that needs the Lease too.
    pub view: NodeView,
    /// `lastHeartbeatTime` of condition Ready.
    pub status_beat: Option<Timestamp>,
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
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    capacity: Capacity,
    conditions: Vec<Condition>,
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
fn count(quantity: &str) -> Option<i64> {
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
        let view = NodeView {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            ready: ready.is_some_and(|c| c.status == "True"),
            unschedulable: spec.unschedulable,
            cordon_owner: cordon_owner(spec.unschedulable, &managed_fields),
            pod_capacity: status.capacity.pods.as_deref().and_then(count),
            heartbeat: None,
            deleting: meta.deletion_timestamp.is_some(),
            labels: BTreeMap::new(),
        };
        Self {
            metadata: meta.identity(),
            status_beat: ready.and_then(|c| c.last_heartbeat.as_ref()).map(|t| t.0),
            view: NodeView {
                labels: meta.labels.unwrap_or_default(),
                ..view
            },
        }
    }
}

/// A StatefulSet, byte for byte what the server sent: our patches must let everything survive that is in it (P4).
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Value")]
pub struct RawWorkload {
    /// Name, namespace, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// All of it.
    pub raw: Value,
}

impl From<Value> for RawWorkload {
    fn from(raw: Value) -> Self {
        let text = |key: &str| raw.get("metadata")?.get(key)?.as_str().map(ToOwned::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Self { metadata, raw }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: Value) -> SlimPod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_is_read_as_instance_and_as_provider() {
        let pod = pod(json!({
            "metadata": {
                "name": "virtual-node-eci-1", "namespace": "kube-system", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "virtual-node-eci", "controller-revision-hash": "r1"},
                "annotations": {"kubernetes.io/config.mirror": "x"}, "finalizers": ["a/b"],
                "creationTimestamp": "2026-11-01T00:00:00Z", "deletionTimestamp": "2026-11-01T01:00:00Z",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "virtual-node-eci", "uid": "2", "controller": true}],
                "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {"f:containers": {}}}}],
            },
            "spec": {"nodeName": "host-a", "containers": [{"name": "vk", "image": "vk:1", "env": [{"name": "A"}]}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}],
                "containerStatuses": [{"name": "vk", "restartCount": 2, "ready": true}, {"name": "log", "restartCount": 1}],
            },
        }));
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(pod.node.as_deref(), Some("host-a"));
        assert!(pod.bound.mirror && pod.bound.finalizers && !pod.bound.requires_virtual);
        assert_eq!(pod.bound.phase, PodPhase::Running);
        assert_eq!(pod.bound.controller.as_ref().unwrap().kind, "StatefulSet");
        let provider = pod.provider();
        assert!(provider.ready && provider.deleting);
        assert_eq!((provider.restarts, provider.revision.as_str()), (3, "r1"));
        assert_eq!(provider.owner_uids, ["1", "2"]);
        assert_eq!(
            provider.images,
            BTreeMap::from([("vk".to_owned(), "vk:1".to_owned())])
        );
    }

    #[test]
    fn either_vendor_s_annotation_names_the_instance() {
        let id = |annotations: Value| {
            let metadata = json!({"name": "p", "namespace": "n", "annotations": annotations});
            pod(json!({"metadata": metadata})).bound.instance_id
        };
        assert_eq!(
            id(json!({"k8s.aliyun.com/eci-instance-id": "eci-1"})).as_deref(),
            Some("eci-1")
        );
        assert_eq!(
            id(json!({"alibabacloud.com/instance-id": "acs-1"})).as_deref(),
            Some("acs-1")
        );
        assert_eq!(
            id(json!({"k8s.aliyun.com/eci-instance-id": "", "other": "x"})),
            None
        );
    }

    #[test]
    fn a_bare_pending_pod_needs_nothing_but_a_name() {
        let pod = pod(json!({"metadata": {"name": "p", "namespace": "n"}}));
        assert_eq!(pod.node, None);
        assert!(pod.bound.bare() && !pod.bound.finished());
    }

    /// A pod as it was bound and never taken up by its provider.
    fn untouched() -> Value {
        json!({
            "metadata": {"name": "logs-x", "namespace": "n", "uid": "u", "annotations": {"team": "a"}},
            "spec": {"nodeName": "v-1"},
            "status": {"phase": "Pending",
                       "conditions": [{"type": "PodScheduled", "status": "True"}],
                       "containerStatuses": [{"name": "c", "restartCount": 0, "started": false, "containerID": "",
                                              "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}}]},
        })
    }

    /// One trace of an instance each, as merge patches.
    fn traces() -> Vec<Value> {
        let status = |key: &str, value: Value| json!({"status": {key: value}});
        let container = |trace: Value| json!([{"name": "a"}, trace]);
        let mut traces = vec![
            status("podIP", json!("10.0.0.1")),
            status("podIPs", json!([{"ip": "10.0.0.1"}])),
            status("phase", json!("Running")),
            status("phase", json!("Failed")),
            status("phase", json!("Unknown")),
            status("phase", Value::Null),
            json!({"metadata": {"annotations": {"k8s.aliyun.com/eci-instance-id": "eci-1"}}}),
            json!({"metadata": {"annotations": {"alibabacloud.com/instance-id": "acs-1"}}}),
        ];
        for kind in [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ] {
            for trace in [
                json!({"started": true}),
                json!({"restartCount": 1}),
                json!({"containerID": "eci://1"}),
                json!({"state": {"running": {}}}),
                json!({"state": {"terminated": {"exitCode": 1}}}),
                json!({"lastState": {"terminated": {"exitCode": 1}}}),
            ] {
                traces.push(status(kind, container(trace)));
            }
        }
        traces
    }

    #[test]
    fn any_trace_of_an_instance_makes_a_pod_one_that_started() {
        assert!(pod(untouched()).bound.never_started);
        for trace in traces() {
            let mut value = untouched();
            json_patch::merge(&mut value, &trace);
            assert!(!pod(value).bound.never_started, "{trace}");
        }
    }

    #[test]
    fn a_pod_is_read_as_a_member_of_its_statefulset() {
        let with = |deletion: Value, ready: &str| {
            pod(
                json!({"metadata": {"uid": "u", "creationTimestamp": "2026-11-01T00:00:00Z", "deletionTimestamp": deletion},
                       "status": {"conditions": [
                           {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-01T00:01:00Z"},
                           {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}}),
            )
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let seen = |pod: &SlimPod| (pod.member().state, pod.member().since);
        let minute = at("2026-11-01T00:01:00Z");
        assert_eq!(seen(&with(Value::Null, "True")), (MemberState::Ready, minute));
        assert_eq!(seen(&with(Value::Null, "False")), (MemberState::NotReady, minute));
        let leaving = with(json!("2026-11-01T00:02:00Z"), "True");
        assert_eq!(
            seen(&leaving),
            (MemberState::Terminating, at("2026-11-01T00:02:00Z"))
        );
        assert_eq!(leaving.gone().state, MemberState::Gone { disrupted: true });
        let fresh = pod(json!({"metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"}}));
        assert_eq!(seen(&fresh), (MemberState::NotReady, at("2026-11-01T00:00:00Z")));
    }

    #[test]
    fn only_pods_without_an_alternative_require_virtual_nodes() {
        let with = |spec: Value| pod(json!({"metadata": {}, "spec": spec})).bound.requires_virtual;
        let term = |values: Value| json!({"matchExpressions": [{"key": "type", "operator": "In", "values": values}]});
        let affinity = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        assert!(with(json!({"nodeSelector": {"type": "virtual-kubelet"}})));
        assert!(!with(json!({"nodeSelector": {"type": "gpu"}})));
        let virtual_only = term(json!(["virtual-kubelet"]));
        assert!(with(affinity(json!([virtual_only]))));
        assert!(!with(affinity(json!([virtual_only, term(json!(["gpu"]))]))));
        assert!(!with(affinity(json!([term(json!(["virtual-kubelet", "gpu"]))]))));
    }

    fn node(managed: Value, unschedulable: bool) -> SlimNode {
        serde_json::from_value(json!({
            "metadata": {"name": "v-0", "uid": "u", "resourceVersion": "3", "labels": {"type": "virtual-kubelet"},
                         "managedFields": managed},
            "spec": {"unschedulable": unschedulable, "taints": []},
            "status": {"capacity": {"cpu": "1k", "pods": "3k"}, "conditions": [
                {"type": "DiskPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-01T00:00:10Z"}]},
        }))
        .unwrap()
    }

    fn entry(manager: &str, operation: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {field: {}}}})
    }

    #[test]
    fn a_node_says_who_cordoned_it() {
        let ours = entry("virtualnodepool-cordon", "Apply", "f:unschedulable");
        let kubectl = entry("kubectl-cordon", "Update", "f:unschedulable");
        let taints = entry("kubectl", "Update", "f:taints");
        let owner = |managed: Value, on| node(managed, on).view.cordon_owner;
        assert_eq!(owner(json!([ours, taints]), true), CordonOwner::Us);
        assert_eq!(owner(json!([kubectl, ours]), true), CordonOwner::Both);
        assert_eq!(owner(json!([kubectl, taints]), true), CordonOwner::Others);
        assert_eq!(owner(json!([]), true), CordonOwner::Others);
        assert_eq!(owner(json!([ours]), false), CordonOwner::Nobody);
    }

    #[test]
    fn a_node_says_its_size_and_its_last_status_update() {
        let node = node(json!([]), false);
        assert_eq!(node.view.pod_capacity, Some(3000));
        assert!(node.view.ready);
        assert_eq!(node.status_beat, Some("2026-11-01T00:00:10Z".parse().unwrap()));
        assert_eq!(node.view.labels["type"], "virtual-kubelet");
        assert_eq!(
            ["110", "1k", "1Ki", "x", ""].map(count),
            [Some(110), Some(1000), Some(1024), None, None]
        );
    }

    #[test]
    fn a_workload_is_kept_as_it_came() {
        let raw = json!({"metadata": {"zeta": 1, "name": "w", "resourceVersion": "9"}, "spec": {"unknown": [3, 1]}, "a": null});
        let workload: RawWorkload = serde_json::from_str(&raw.to_string()).unwrap();
        assert_eq!(workload.raw.to_string(), raw.to_string());
        assert_eq!(workload.metadata.resource_version.as_deref(), Some("9"));
    }
}
