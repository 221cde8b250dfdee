use std::sync::Arc;

use serde_json::Value;

use super::Ordinal;

/// The provider's StatefulSet as far as it is known. Not known is not absent: what is absent is given up or made anew, and
/// what is not known holds everything.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadSeen {
    /// It is there.
    There(Arc<Workload>),
    /// There is no object of that name.
    Absent,
    /// Nobody looked, or nobody may.
    Unknown(Blind),
}

/// Why it is not known whether there is a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blind {
    /// Its namespace is none of `--provider-namespaces`.
    NotWatched,
    /// The API server refuses to show the StatefulSets of its namespace; its words.
    Refused(String),
}

impl WorkloadSeen {
    /// The object, when it is there.
    pub fn there(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::There(workload) => Some(workload),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Why nobody knows.
    pub fn unknown(&self) -> Option<&Blind> {
        match self {
            Self::Unknown(blind) => Some(blind),
            Self::There(_) | Self::Absent => None,
        }
    }
}

impl From<Workload> for WorkloadSeen {
    fn from(workload: Workload) -> Self {
        Self::There(Arc::new(workload))
    }
}

/// The provider's StatefulSet as the server sent it. It is kept as JSON because whatever it holds, known to this
/// version or not, must survive our patches byte for byte (P4).
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The whole object.
    pub raw: Value,
}

/// `spec.updateStrategy.type` of a StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// The StatefulSet controller replaces pods, down to `partition`.
    RollingUpdate,
    /// A person deletes pods.
    OnDelete,
}

impl Workload {
    /// Wraps the object as read.
    pub fn new(raw: Value) -> Self {
        Self { raw }
    }

    fn text(&self, pointer: &str) -> &str {
        self.raw
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn int(&self, pointer: &str) -> Option<i32> {
        self.raw
            .pointer(pointer)
            .and_then(Value::as_i64)
            .and_then(|n| i32::try_from(n).ok())
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// Whether somebody deleted it; a finalizer then keeps it and its controller no longer acts on it.
    pub fn deleting(&self) -> bool {
        self.raw.pointer("/metadata/deletionTimestamp").is_some()
    }

    /// `spec.replicas`; the API server's default is 1.
    pub fn replicas(&self) -> i32 {
        self.int("/spec/replicas").unwrap_or(1)
    }

    /// `spec.ordinals.start`; 0 when absent.
    pub fn start_ordinal(&self) -> Ordinal {
        self.int("/spec/ordinals/start").unwrap_or(0)
    }

    /// The ordinals that the StatefulSet controller keeps pods for, lowest first.
    pub fn ordinals(&self) -> std::ops::Range<Ordinal> {
        let start = self.start_ordinal();
        start..start.saturating_add(self.replicas())
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.raw.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// The pool that our label names.
    pub fn pool_label(&self) -> Option<&str> {
        self.label(vnp_crds::POOL_LABEL)
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.raw.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// Finalizers in order.
    pub fn finalizers(&self) -> Vec<&str> {
        self.raw
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// Whether our `drain-first` finalizer is on it.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers().contains(&vnp_crds::WORKLOAD_FINALIZER)
    }

    /// `spec.template`.
    pub fn template(&self) -> &Value {
        self.raw.pointer("/spec/template").unwrap_or(&Value::Null)
    }

    /// `spec.template.spec.containers`.
    pub fn containers(&self) -> &[Value] {
        self.raw
            .pointer("/spec/template/spec/containers")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// `spec.updateStrategy.type`; the API server's default is RollingUpdate.
    pub fn update_strategy(&self) -> UpdateStrategy {
        match self.text("/spec/updateStrategy/type") {
            "OnDelete" => UpdateStrategy::OnDelete,
            _ => UpdateStrategy::RollingUpdate,
        }
    }

    /// `spec.updateStrategy.rollingUpdate.partition`.
    pub fn partition(&self) -> Option<Ordinal> {
        self.int("/spec/updateStrategy/rollingUpdate/partition")
    }

    /// `spec.minReadySeconds`: for so long a pod has to be Ready until it is available.
    pub fn min_ready_seconds(&self) -> i32 {
        self.int("/spec/minReadySeconds").unwrap_or_default()
    }

    /// `spec.podManagementPolicy` is OrderedReady, which is also the default: a lower ordinal that is not available holds
    /// back the creation and the removal of a higher one.
    pub fn ordered_ready(&self) -> bool {
        self.text("/spec/podManagementPolicy") != "Parallel"
    }

    /// `status.updateRevision`, once the StatefulSet controller has seen this generation.
    pub fn update_revision(&self) -> Option<&str> {
        let generation = self.raw.pointer("/metadata/generation").and_then(Value::as_i64)?;
        let seen = self
            .raw
            .pointer("/status/observedGeneration")
            .and_then(Value::as_i64)?;
        (seen >= generation)
            .then(|| self.text("/status/updateRevision"))
            .filter(|r| !r.is_empty())
    }

    /// `status.readyReplicas`.
    pub fn ready_replicas(&self) -> i32 {
        self.int("/status/readyReplicas").unwrap_or(0)
    }

    /// `spec.selector.matchLabels` as `a=b,c=d`, for the scale subresource.
    pub fn selector_text(&self) -> String {
        let Some(labels) = self
            .raw
            .pointer("/spec/selector/matchLabels")
            .and_then(Value::as_object)
        else {
            return String::new();
        };
        let mut pairs: Vec<String> = labels
            .iter()
            .filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)))
            .collect();
        pairs.sort();
        pairs.join(",")
    }

    /// The field manager that last wrote `spec.replicas`, from `managedFields`; the newest entry wins.
    pub fn replicas_manager(&self) -> Option<&str> {
        let entries = self.raw.pointer("/metadata/managedFields")?.as_array()?;
        entries
            .iter()
            .filter(|e| e.pointer("/fieldsV1/f:spec/f:replicas").is_some())
            .max_by_key(|e| {
                e.get("time")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            })
            .and_then(|e| e.get("manager")?.as_str())
    }
}
