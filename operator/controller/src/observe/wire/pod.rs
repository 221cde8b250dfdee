//! Pods: instances on virtual nodes, and providers.

mod needs;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use vnp_crds::virtual_node;
use vnp_plan::observed::{
    BoundPod, Member, MemberState, ObjectKey, Patience, Patiences, Placed, PodOwner, PodPhase, ProviderPod,
    Silence, WaitingPod,
};

use super::{Annotations, Condition, Meta, ready};
use crate::observe::read::Unreadable;

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
    /// As a pod that waits for a node and may go to a virtual one.
    pub waiting: Option<WaitingPod>,
    /// What keeps it from being Ready.
    trouble: Option<String>,
    /// Since when condition Ready says so.
    ready_since: Option<Timestamp>,
    /// An eviction or another disruption is its end.
    disrupted: bool,
    restarts: i32,
    /// A container left a trace of having been started.
    ran: bool,
    stopped: Option<Timestamp>,
    addresses: Vec<String>,
    finalizers: Vec<String>,
    owner_uids: Vec<String>,
    images: BTreeMap<String, String>,
}

impl SlimPod {
    /// As a pod of its StatefulSet.
    pub fn member(&self) -> Member {
        let (state, since) = match self.bound.deletion {
            Some(deletion) => (MemberState::Terminating, Some(deletion)),
            None if self.bound.ready => (MemberState::Ready, self.ready_since),
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

    /// One that can't be read, as the worst that it may be: running, and holding its node.
    pub fn worst(object: &Unreadable) -> Self {
        let owners = object
            .raw
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array);
        let owners = owners.into_iter().flatten();
        let node = object.raw.pointer("/spec/nodeName").and_then(Value::as_str);
        let metadata = Meta {
            name: object.metadata.name.clone(),
            namespace: object.metadata.namespace.clone(),
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
            labels: Some(object.labels()),
            owner_references: Some(
                owners
                    .filter_map(|o| OwnerReference::deserialize(o).ok())
                    .collect(),
            ),
            ..Meta::default()
        };
        let wire = PodWire {
            metadata,
            spec: PodSpec {
                node_name: node.map(ToOwned::to_owned),
                ..PodSpec::default()
            },
            status: PodStatus::default(),
        };
        let mut pod = Self::from(wire);
        pod.waiting = None;
        pod.ran = true;
        pod.bound.unreadable = true;
        pod.bound.requires_virtual = true;
        pod
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
            ready: self.bound.ready,
            trouble: self.trouble,
            ready_since: self.ready_since,
            restarts: self.restarts,
            created: self.bound.created,
            deleting: self.bound.deletion.is_some(),
            deletion: self.bound.deletion,
            finalizers: self.finalizers,
            unreadable: self.bound.unreadable,
            owner_uids: self.owner_uids,
            images: self.images,
            addresses: self.addresses,
            host: self.node,
            ran: self.ran,
            stopped: self.stopped,
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
    tolerations: Option<Vec<Toleration>>,
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
    overhead: Option<Quantities>,
    resources: Option<Resources>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<core::v1::NodeAffinity>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Toleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
    toleration_seconds: Option<i64>,
}

/// How long the pod stays on a Node with that taint: as the first toleration that matches says. Source: component-helpers
/// `scheduling/corev1`, `GetMatchingTolerations`.
fn patience(tolerations: Option<&[Toleration]>, why: Silence) -> Patience {
    let mut all = tolerations.into_iter().flatten();
    match all.find(|t| t.of_silence(why)).map(|t| t.toleration_seconds) {
        None => Patience::Seconds(0),
        Some(None) => Patience::Forever,
        Some(Some(seconds)) => Patience::Seconds(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)),
    }
}

impl Toleration {
    /// Of a taint that the node lifecycle controller sets, which has no value.
    fn of_silence(&self, why: Silence) -> bool {
        let said = |text: &Option<String>| text.clone().unwrap_or_default();
        let (key, effect) = (said(&self.key), said(&self.effect));
        let exists = match said(&self.operator).as_str() {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && said(&self.value).is_empty(),
            _ => false,
        };
        exists && (key.is_empty() || key == why.taint()) && (effect.is_empty() || effect == "NoExecute")
    }

    /// Of the taint on virtual nodes. A value is taken for the provider's.
    fn of_virtual_nodes(&self) -> bool {
        let key = self.key.as_deref().filter(|k| !k.is_empty());
        let named = match key {
            Some(key) => key == virtual_node::TAINT,
            None => self.operator.as_deref() == Some("Exists"),
        };
        let effect = self.effect.as_deref().filter(|e| !e.is_empty());
        named && effect.is_none_or(|e| e == virtual_node::TAINT_EFFECT)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
    resources: Option<Resources>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resources {
    limits: Option<Quantities>,
    requests: Option<Quantities>,
}

/// Whatever a quantity looks like, the pod is read.
type Quantities = BTreeMap<String, Value>;

/// The resources that are GPUs, the same as in the plan's `placement/gpu.rs`.
const GPUS: [&str; 2] = ["nvidia.com/gpu", "alibabacloud.com/ppu"];

impl Container {
    fn requests_gpu(&self) -> bool {
        let lists = self.resources.iter().flat_map(|r| [&r.limits, &r.requests]);
        let mut asked = lists
            .flatten()
            .flat_map(|quantities| GPUS.map(|gpu| quantities.get(gpu)));
        asked.any(|quantity| quantity.is_some_and(|q| q != "0"))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    reason: Option<String>,
    nominated_node_name: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    image: String,
    allocated_resources: Option<Quantities>,
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
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    reason: Option<String>,
    /// Read as text: a time that makes no sense is not known, and no reason to give up the pod.
    finished_at: Option<String>,
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

impl ContainerStatus {
    /// When it ended last. `Err` when it may be running, or nobody tells when it ended.
    fn stopped(&self) -> Result<Option<Timestamp>, ()> {
        if !self.began() {
            return Ok(None);
        }
        if self.state.running.is_some() || self.started == Some(true) {
            return Err(());
        }
        let ends = [&self.state.terminated, &self.last_state.terminated];
        let end = ends.into_iter().flatten().next().ok_or(())?;
        let at = end.finished_at.as_deref().ok_or(())?;
        at.parse().map(Some).map_err(|_| ())
    }
}

/// Pending, and nothing shows that an instance was made. Anything that is not understood counts as started.
fn never_started(metadata: &Meta, status: &PodStatus) -> bool {
    let instance = metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.eci_instance.is_some() || a.acs_instance.is_some());
    let addressed = status.pod_ip.as_deref().is_some_and(|ip| !ip.is_empty()) || !status.pod_ips.is_empty();
    status.phase.as_deref() == Some("Pending") && !instance && !addressed && !status.began()
}

/// The Node that a static pod's mirror belongs to has made the mirror, and owns it. The annotation alone proves nothing:
/// anybody may write it, and `spec.nodeName`, into a new pod. Source: kubelet, `pkg/kubelet/pod/mirror_client.go`.
fn mirror(metadata: &Meta, node: Option<&str>) -> bool {
    let annotated = metadata.annotations.as_ref().is_some_and(|a| a.mirror.is_some());
    let owners = metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|o| o.controller == Some(true));
    annotated
        && controllers.any(|o| o.api_version == "v1" && o.kind == "Node" && Some(o.name.as_str()) == node)
}

impl PodStatus {
    fn all_containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.container_statuses
            .iter()
            .chain(&self.init_container_statuses)
            .chain(&self.ephemeral_container_statuses)
    }

    /// A container of any kind left a trace of having been started.
    fn began(&self) -> bool {
        self.all_containers().any(ContainerStatus::began)
    }

    /// When the last container ended, if none runs.
    fn stopped(&self) -> Option<Timestamp> {
        let ends: Result<Vec<_>, ()> = self.all_containers().map(ContainerStatus::stopped).collect();
        ends.ok()?.into_iter().flatten().max()
    }
}

/// Longest cause that is repeated from a pod's status, in characters.
const TROUBLE_LIMIT: usize = 256;

/// What keeps a pod from being Ready, as its scheduler or its kubelet says. The same trouble gives the same words while a
/// kubelet tries again: how long it backs off, and whether it pulls or waits just now, is left out (P6).
fn trouble(status: &PodStatus) -> Option<String> {
    let unscheduled = status
        .conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let words = condition.message.as_deref().or(condition.reason.as_deref());
        return Some(short(format!(
            "no node takes it: {}",
            words.unwrap_or("no reason is given")
        )));
    }
    let containers = || {
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
    };
    containers()
        .find_map(ContainerStatus::trouble)
        .or_else(|| status.reason.clone().map(|reason| format!("the pod is {reason}")))
        .map(short)
}

impl ContainerStatus {
    fn trouble(&self) -> Option<String> {
        let (name, state) = (&self.name, &self.state);
        if let Some(Waiting { reason, message }) = &state.waiting {
            match reason.as_deref().unwrap_or_default() {
                "ErrImagePull" | "ImagePullBackOff" => {
                    return Some(format!(
                        "ImagePullBackOff: image {} of container {name} can't be pulled",
                        self.image
                    ));
                }
                "CrashLoopBackOff" => {
                    return Some(
                        self.failed()
                            .unwrap_or_else(|| format!("container {name} ends at once")),
                    );
                }
                "" | "ContainerCreating" | "PodInitializing" => return self.failed(),
                other => {
                    let words = message.as_deref().unwrap_or("no reason is given");
                    return Some(format!("{other}: container {name}: {words}"));
                }
            }
        }
        self.failed()
    }

    /// It ended with an error, just now or before its last start.
    fn failed(&self) -> Option<String> {
        let ends = [&self.state.terminated, &self.last_state.terminated];
        let end = ends.into_iter().flatten().find(|end| end.exit_code != 0)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        Some(format!(
            "container {} ended with exit code {} ({reason})",
            self.name, end.exit_code
        ))
    }
}

fn short(text: String) -> String {
    match text.char_indices().nth(TROUBLE_LIMIT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// How a pod asks not to be disturbed. Source: Karpenter, "Pod-level controls"; FAQ of the Cluster Autoscaler; ACK, which
/// reads a label (kubernetes-sigs/alibaba-cloud-csi-driver#1181), written here in either form.
fn undisturbed(annotations: &Annotations, labels: Option<&BTreeMap<String, String>>) -> Option<&'static str> {
    let label = labels.and_then(|l| l.get(DRAIN_POD)).map(String::as_str);
    let skips = [annotations.drain_pod.as_deref(), label].contains(&Some("skip"));
    if annotations.do_not_disrupt.as_deref() == Some("true") {
        Some("karpenter.sh/do-not-disrupt: \"true\"")
    } else if annotations.safe_to_evict.as_deref() == Some("false") {
        Some("cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\"")
    } else {
        skips.then_some("alibabacloud.com/drain-pod: skip")
    }
}

const DRAIN_POD: &str = "alibabacloud.com/drain-pod";
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

/// A pod with the label that is bound to no node.
fn waiting(metadata: &Meta, spec: &PodSpec, status: &PodStatus) -> Option<WaitingPod> {
    let pool = metadata.labels.as_ref()?.get(vnp_crds::OVERFLOW_LABEL)?;
    if spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return None;
    }
    let scheduled = status.conditions.iter().find(|c| c.type_ == "PodScheduled");
    let tolerations = spec.tolerations.as_deref();
    Some(WaitingPod {
        key: ObjectKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        },
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        pool: pool.clone(),
        unschedulable: scheduled
            .is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable")),
        nominated: status
            .nominated_node_name
            .as_deref()
            .is_some_and(|n| !n.is_empty()),
        deleting: metadata.deletion_timestamp.is_some(),
        tolerates: tolerations
            .into_iter()
            .flatten()
            .any(Toleration::of_virtual_nodes),
        has_tolerations: tolerations.is_some(),
    })
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
        let waiting = waiting(&metadata, &spec, &status);
        let mirror = mirror(&metadata, spec.node_name.as_deref());
        let ran = status.began();
        let stopped = status.stopped();
        let ready = ready(&status.conditions);
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners
            .iter()
            .find(|o| o.controller == Some(true))
            .map(|o| PodOwner {
                api_version: o.api_version.clone(),
                kind: o.kind.clone(),
                name: o.name.clone(),
                uid: o.uid.clone(),
            });
        let annotations = metadata.annotations.unwrap_or_default();
        let finalizers = metadata.finalizers.unwrap_or_default();
        let phase = match status.phase.as_deref() {
            Some("Running") => PodPhase::Running,
            Some("Succeeded") => PodPhase::Succeeded,
            Some("Failed") => PodPhase::Failed,
            Some("Pending") => PodPhase::Pending,
            _ => PodPhase::Unknown,
        };
        let bound = BoundPod {
            key: ObjectKey {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.unwrap_or_default(),
            },
            uid: metadata.uid.unwrap_or_default(),
            phase,
            ready: ready.is_some_and(|c| c.status == "True"),
            before_deletion: metadata.deletion_timestamp.is_none().then_some(phase),
            evicted: evicted(&status.conditions),
            deletion: metadata.deletion_timestamp.map(|t| t.0),
            created: metadata.creation_timestamp.map(|t| t.0),
            undisturbed: undisturbed(&annotations, metadata.labels.as_ref()),
            labels: metadata.labels.unwrap_or_default(),
            controller,
            mirror,
            instance_id: annotations
                .eci_instance
                .or(annotations.acs_instance)
                .filter(|id| !id.is_empty()),
            placed: annotations.placed_by.map(|by| {
                Box::new(Placed {
                    by,
                    compute: annotations.compute,
                })
            }),
            gpu: spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
                .any(Container::requests_gpu),
            finalizers: (!finalizers.is_empty()).then(|| finalizers.join(", ").into_boxed_str()),
            grace_seconds: spec.termination_grace_period_seconds,
            requires_virtual: requires_virtual(&spec),
            patience: Patiences {
                unreachable: patience(spec.tolerations.as_deref(), Silence::Unreachable),
                not_ready: patience(spec.tolerations.as_deref(), Silence::NotReady),
            },
            needs: Arc::new(needs::needs(&spec, &status)),
            never_started,
            unreadable: false,
        };
        Self {
            metadata: identity,
            node: spec.node_name.filter(|n| !n.is_empty()),
            bound,
            waiting,
            trouble: trouble(&status).filter(|_| ready.is_none_or(|c| c.status != "True")),
            ready_since: ready.and_then(|c| c.last_transition.as_ref()).map(|t| t.0),
            disrupted: status
                .conditions
                .iter()
                .any(|c| c.type_ == "DisruptionTarget" && c.status == "True"),
            restarts: status
                .container_statuses
                .iter()
                .fold(0, |sum, c| sum.saturating_add(c.restart_count)),
            ran,
            stopped,
            addresses: status.pod_ips.into_iter().map(|ip| ip.ip).collect(),
            finalizers,
            owner_uids: owners.into_iter().map(|o| o.uid).collect(),
            images: spec.containers.into_iter().map(|c| (c.name, c.image)).collect(),
        }
    }
}
