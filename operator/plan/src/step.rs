//! What a plan may ask for. A `Step` is exactly one write to the API server with its preconditions, or it is nothing.

use std::collections::BTreeMap;
use std::fmt;

use json_patch::Patch;
use k8s_openapi::ByteString;
use serde_json::Value;

use crate::observed::{ObjectKey, Term};
use crate::proof::Shrink;

/// One API write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts our finalizer on the pool: JSON patch that tests the pool's UID and resourceVersion.
    AddPoolFinalizer,
    /// Takes our finalizer off the pool, likewise.
    RemovePoolFinalizer,
    /// POSTs the StatefulSet; 409 means that somebody was faster and is looked at again.
    CreateWorkload {
        /// The whole body.
        body: Value,
    },
    /// Server-side apply of a workload that we created, field manager [`vnp_crds::FIELD_MANAGER`], forced; the body carries the UID.
    ApplyWorkload {
        /// The apply body, without `replicas`.
        body: Value,
        /// What for: [`PatchPurpose::Configure`] or [`PatchPurpose::Revert`].
        purpose: PatchPurpose,
        /// What it changes, for people: one line each.
        changes: Vec<String>,
    },
    /// JSON patch of the workload whose first operations test UID and resourceVersion.
    PatchWorkload(WorkloadPatch),
    /// Lowers the replica count by one. Only a proof makes one.
    Shrink(Shrink),
    /// Deletes a workload that we created, UID precondition, dependents in the background.
    DeleteWorkload {
        /// UID of the object meant.
        uid: String,
    },
    /// Writes a Secret of the operator's namespace. It never replaces one: 409 means it is kept already.
    SaveCopy {
        /// Name of the Secret.
        name: String,
        /// Content of its only key.
        content: Value,
    },
    /// Deletes such a Secret, UID precondition.
    DropCopy {
        /// Name of the Secret.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Removes from a provider pod the ownerReference to a workload that is going, so that it outlives it.
    OrphanProviderPod {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: String,
        /// UID of the owner to remove.
        owner_uid: String,
    },
    /// Deletes a provider pod, UID precondition, its own grace period: its StatefulSet starts another one.
    DeleteProviderPod {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: String,
        /// Why.
        why: RestartReason,
    },
    /// Applies `spec.unschedulable: true` and [`vnp_crds::CORDON_TERM_ANNOTATION`] as field manager
    /// [`vnp_crds::CORDON_FIELD_MANAGER`], with the Node's UID.
    Cordon {
        /// Node name.
        node: String,
        /// Node UID.
        uid: String,
        /// This leader's term.
        term: Term,
    },
    /// Applies nothing as [`vnp_crds::CORDON_FIELD_MANAGER`], with the Node's UID and resourceVersion: what only we set goes,
    /// a person's cordon stays, and so does one that another leader has written since.
    Uncordon {
        /// Node name.
        node: String,
        /// Node UID.
        uid: String,
        /// Node resourceVersion.
        resource_version: String,
    },
    /// Applies our pool label to a Node as [`vnp_crds::FIELD_MANAGER`], or nothing to take it back; with the Node's UID.
    LabelNode {
        /// Node name.
        node: String,
        /// Node UID.
        uid: String,
        /// The pool, `None` to remove.
        pool: Option<String>,
    },
    /// Deletes a Node, UID precondition.
    DeleteNode {
        /// Node name.
        node: String,
        /// Node UID.
        uid: String,
    },
    /// Server-side apply, not forced, of a profile ConfigMap that is absent, field manager [`vnp_crds::FIELD_MANAGER`]: a
    /// Role can hold a creation to one name only when the request carries the name, which a POST does not. 409 means that
    /// somebody was faster and is looked at again.
    CreateProfile(ProfilePatch),
    /// Merge patch of changed keys of a profile ConfigMap, with its resourceVersion, same field manager.
    PatchProfile(ProfilePatch),
    /// Deletes a profile ConfigMap that we created and that holds nothing any more; both are preconditions.
    DeleteProfile {
        /// The ConfigMap.
        config_map: ObjectKey,
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// Server-side apply of a ResourcePolicy, field manager [`vnp_crds::FIELD_MANAGER`]. Forced for one that is ours, whose
    /// UID the body carries; not forced for a new one, so that one which somebody else has made meanwhile stays theirs.
    ApplyPolicy(PolicyApply),
    /// Deletes a ResourcePolicy of ours, UID precondition.
    DeletePolicy {
        /// The policy.
        policy: ObjectKey,
        /// Its UID.
        uid: String,
    },
    /// JSON patch of a pod that waits for a node: appends the toleration of virtual nodes, tests UID and resourceVersion.
    Tolerate(Tolerate),
    /// Writes the Secret with the webhook's certificates: a POST when it is absent, else a merge patch with its
    /// resourceVersion.
    WriteCertificates(CertificateWrite),
    /// Server-side apply of the MutatingWebhookConfiguration, field manager [`vnp_crds::FIELD_MANAGER`]: not forced when it is
    /// not there yet, forced and with its UID when it is ours.
    ApplyWebhook {
        /// It is not there yet.
        create: bool,
        /// The apply body.
        body: Value,
    },
    /// Deletes the MutatingWebhookConfiguration; both are preconditions.
    DeleteWebhook {
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// Writes records into the ConfigMap `vnp-audit-<pool>`: a POST when it is absent, else a merge patch with its
    /// resourceVersion.
    RecordAudit(AuditPatch),
}

impl Step {
    /// The Node that it writes to.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Cordon { node, .. }
            | Self::Uncordon { node, .. }
            | Self::LabelNode { node, .. }
            | Self::DeleteNode { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// Why a provider pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// Its node is empty: a start removes instances that the provider forgot.
    Reap,
    /// Its template did not get healthy and was taken back.
    Revert,
}

/// A JSON patch of the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPatch {
    /// The operations; the first two test UID and resourceVersion.
    pub patch: Patch,
    /// What for.
    pub purpose: PatchPurpose,
    /// What it changes, for people: one line each, as `status.pendingChanges` shows it.
    pub changes: Vec<String>,
}

/// What a patch of the workload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchPurpose {
    /// Label, finalizer and, for Adopt, the annotation with the originals.
    TakeOver,
    /// Env or image to what the pool says; starts a roll.
    Configure,
    /// The roll's next ordinal, or the partition's own value at its end.
    Roll,
    /// The template before the roll.
    Revert,
    /// Raises the replica count; tests the old count.
    ScaleUp,
    /// Annotation `shrinking`: this leader may shrink this ordinal.
    Fence,
    /// Takes the fence away: nobody may.
    Unfence,
    /// Gives back what was taken over.
    Release,
    /// Takes our finalizer off, so that a deleted workload may go.
    LetGo,
}

/// Changed keys of a profile ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfilePatch {
    /// The ConfigMap.
    pub config_map: ObjectKey,
    /// Body of the merge patch, `metadata.resourceVersion` included; of a creation, the whole object.
    pub body: Value,
    /// What it changes, for people: one line each.
    pub changes: Vec<String>,
}

/// A ResourcePolicy as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyApply {
    /// Namespace and name.
    pub policy: ObjectKey,
    /// It is not there yet.
    pub create: bool,
    /// The apply body.
    pub body: Value,
}

/// A pod that may go to virtual nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerate {
    /// The pod.
    pub pod: ObjectKey,
    /// The operations; the first two test UID and resourceVersion.
    pub patch: Patch,
}

/// The Secret with the webhook's certificates, as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateWrite {
    /// The Secret.
    pub secret: ObjectKey,
    /// Its resourceVersion, `None` when it is absent.
    pub resource_version: Option<String>,
    /// Its values.
    pub data: SecretData,
}

/// Values of a Secret. They are not shown.
#[derive(Clone, PartialEq)]
pub struct SecretData(pub BTreeMap<String, ByteString>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Changed keys of the ConfigMap with the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPatch {
    /// The ConfigMap.
    pub config_map: ObjectKey,
    /// Its resourceVersion, `None` when it is absent.
    pub resource_version: Option<String>,
    /// New value of each changed key, `None` to remove it.
    pub data: BTreeMap<String, Option<String>>,
}
