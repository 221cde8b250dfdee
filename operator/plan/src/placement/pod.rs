//! A pod, as far as placement looks at it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorTerm, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use vnp_crds::{WEBHOOK_DISABLED, WEBHOOK_LABEL, virtual_node};

/// A pod that is not shaped like one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod can't be read ({0}) and is left as it is")]
pub struct Unreadable(String);

/// Everything in it may be absent or null: the API server has not validated the pod yet.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PodView {
    pub(super) metadata: MetaView,
    pub(super) spec: SpecView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetaView {
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpecView {
    node_name: Option<String>,
    pub(super) node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<AffinityView>,
    pub(super) tolerations: Option<Vec<Toleration>>,
    scheduler_name: Option<String>,
    containers: Option<Vec<ContainerView>>,
    init_containers: Option<Vec<ContainerView>>,
    pub(super) resources: Option<ResourceRequirements>,
    pub(super) host_network: Option<bool>,
    #[serde(rename = "hostPID")]
    pub(super) host_pid: Option<bool>,
    #[serde(rename = "hostIPC")]
    pub(super) host_ipc: Option<bool>,
    pub(super) os: Option<OsView>,
    pub(super) volumes: Option<Vec<VolumeView>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct OsView {
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeView {
    #[serde(default)]
    pub(super) name: String,
    pub(super) host_path: Option<IgnoredAny>,
    pub(super) csi: Option<CsiView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct CsiView {
    #[serde(default)]
    pub(super) driver: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffinityView {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerView {
    #[serde(default)]
    pub(super) name: String,
    pub(super) resources: Option<ResourceRequirements>,
    pub(super) security_context: Option<SecurityView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct SecurityView {
    pub(super) privileged: Option<bool>,
}

/// Why placement is none of a pod's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aloof {
    /// Its node is chosen already.
    Bound,
    /// The API server's view of a static pod.
    Mirror,
    /// One for each node: a virtual one is no machine to look after.
    DaemonSet,
    /// Somebody said so.
    Disabled,
}

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Objects of a pod that the views here are of.
const OBJECTS: [&str; 4] = ["", "/metadata", "/spec", "/spec/affinity"];
const DEFAULT_SCHEDULER: &str = "default-scheduler";

impl PodView {
    pub(super) fn read(pod: &Value) -> Result<Self, Unreadable> {
        // Derived readers take a list for an object, and what is added would not fit into it.
        let list = OBJECTS
            .iter()
            .find(|path| pod.pointer(path).is_some_and(Value::is_array));
        if let Some(path) = list {
            return Err(Unreadable(format!(
                "a list stands where an object should be, at {path:?}"
            )));
        }
        Self::deserialize(pod).map_err(|cause| Unreadable(cause.to_string()))
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        Some(self.metadata.labels.as_ref()?.get(key)?.as_str())
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.metadata.annotations.as_ref()?.get(key)?.as_str())
    }

    /// Why the pod is left alone, whatever its labels.
    pub(super) fn aloof(&self) -> Option<Aloof> {
        let owners = self.metadata.owner_references.iter().flatten();
        let mut controllers = owners.filter(|owner| owner.controller == Some(true));
        let of_kind = |kind: &'static str| move |owner: &OwnerReference| owner.kind == kind;
        if self.spec.node_name.as_ref().is_some_and(|node| !node.is_empty()) {
            Some(Aloof::Bound)
        } else if self.annotation(MIRROR_ANNOTATION).is_some() && controllers.clone().any(of_kind("Node")) {
            Some(Aloof::Mirror)
        } else if controllers.any(of_kind("DaemonSet")) {
            Some(Aloof::DaemonSet)
        } else if self.label(WEBHOOK_LABEL) == Some(WEBHOOK_DISABLED) {
            Some(Aloof::Disabled)
        } else {
            None
        }
    }

    /// Nobody chose a scheduler.
    pub(super) fn has_default_scheduler(&self) -> bool {
        let name = self.spec.scheduler_name.as_deref().unwrap_or_default();
        name.is_empty() || name == DEFAULT_SCHEDULER
    }

    /// All containers: init containers and sidecars too.
    pub(super) fn containers(&self) -> impl Iterator<Item = &ContainerView> {
        let init = self.spec.init_containers.iter().flatten();
        init.chain(self.spec.containers.iter().flatten())
    }

    /// The alternatives of the required node affinity; empty when there is none.
    pub(super) fn required_terms(&self) -> &[NodeSelectorTerm] {
        let affinity = self.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        affinity
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
            .map_or(&[], |required| required.node_selector_terms.as_slice())
    }

    /// How many of `affinity`, its `nodeAffinity` and the required part of that the pod has, counted from outside.
    pub(super) fn affinity_depth(&self) -> usize {
        let Some(affinity) = &self.spec.affinity else {
            return 0;
        };
        let Some(nodes) = &affinity.node_affinity else {
            return 1;
        };
        let required = &nodes.required_during_scheduling_ignored_during_execution;
        if required.is_none() { 2 } else { 3 }
    }

    /// A taint with the key of virtual nodes is tolerated already. Source: component-helpers `Toleration.ToleratesTaint`.
    pub(super) fn tolerates(&self, taint: &VirtualTaint<'_>) -> bool {
        self.spec.tolerations.iter().flatten().any(|toleration| {
            let exists = toleration.operator.as_deref() == Some("Exists");
            let key = match toleration.key.as_deref().unwrap_or_default() {
                "" => exists,
                key => key == virtual_node::TAINT,
            };
            let effect = toleration.effect.as_deref().unwrap_or_default();
            let value = toleration.value.as_deref().unwrap_or_default();
            key && (effect.is_empty() || effect == taint.effect) && (exists || value == taint.value)
        })
    }
}

/// Value and effect of a taint whose key is [`virtual_node::TAINT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VirtualTaint<'a> {
    pub(super) value: &'a str,
    pub(super) effect: &'a str,
}

impl VirtualTaint<'static> {
    /// The one that the vendor documents.
    pub(super) const DOCUMENTED: Self = Self {
        value: virtual_node::TAINT_VALUE,
        effect: virtual_node::TAINT_EFFECT,
    };
}
