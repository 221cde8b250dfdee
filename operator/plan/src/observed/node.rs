use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;

use super::Term;

use super::patience::Silence;

use crate::room::Amounts;

/// A Node object of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; a Node that registered again has another one.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Who holds `spec.unschedulable`, from `managedFields`.
    pub cordon_owner: CordonOwner,
    /// Annotation [`vnp_crds::CORDON_TERM_ANNOTATION`], as it stands there.
    pub cordon_term: Option<String>,
    /// `status.addresses`, of whatever type.
    pub addresses: Vec<String>,
    /// `status.allocatable`.
    pub allocatable: Amounts,
    /// Since when it carries the node lifecycle controller's taints of effect NoExecute.
    pub no_execute: Vec<(Silence, Timestamp)>,
    /// The newest sign of life: Lease or Node status, whichever changed last.
    pub heartbeat: Option<Heartbeat>,
    /// The Node is being deleted.
    pub deleting: bool,
    /// `metadata.deletionTimestamp`.
    pub deleted_at: Option<Timestamp>,
    /// What holds it when it is deleted.
    pub finalizers: Vec<Finalizer>,
    /// It does not fit its type: known are its name and its labels.
    pub unreadable: bool,
}

impl NodeView {
    /// A cordon of ours is in effect, whichever leader set it.
    pub fn holds_our_cordon(&self) -> bool {
        self.unschedulable && self.cordon_owner.ours()
    }

    /// It is, and the leader of this term has written it: no leader before can take it back any more.
    pub fn cordoned_in_term(&self, term: &Term) -> bool {
        self.holds_our_cordon() && self.cordon_term.as_deref() == Some(term.to_string().as_str())
    }
}

/// A Node with what tells whose it is, as it stood in a complete list of all Nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTrace {
    /// `metadata.name`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Keys of `spec.taints`.
    pub taints: Vec<String>,
    /// `status.addresses`, of whatever type.
    pub addresses: Vec<String>,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// `lastHeartbeatTime` of condition `Ready`, or `renewTime` of its Lease, whichever is later.
    pub beat: Option<Timestamp>,
    /// `spec.holderIdentity` of its Lease.
    pub lease_holder: Option<String>,
    /// It can't be read: it may be anybody's.
    pub unreadable: bool,
}

/// A virtual node that bears no name of a pool's node, and what is bound to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnclaimedNode {
    /// The Node.
    pub node: NodeTrace,
    /// Pods bound to it, mirror pods left out.
    pub pods: usize,
    /// There are more than `pods` says: the list was not read to its end.
    pub more: bool,
    /// While it is alive, none of the workload's other providers can be behind it, and nothing on it points to one.
    pub elsewhere: bool,
}

/// A finalizer, with the field manager that set it where the API server knows one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finalizer {
    /// Name.
    pub name: String,
    /// Field manager.
    pub manager: Option<String>,
}

impl fmt::Display for Finalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.manager {
            Some(manager) => write!(f, "{} (set by {manager})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Who owns `spec.unschedulable: true` of a Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CordonOwner {
    /// It is not set by anybody.
    #[default]
    Nobody,
    /// Only by our field manager.
    Us,
    /// Only by others: a person's cordon.
    Others,
    /// By us and by others: when ours goes, theirs stays.
    Both,
}

impl CordonOwner {
    /// Our field manager holds it.
    pub fn ours(self) -> bool {
        matches!(self, Self::Us | Self::Both)
    }
}

/// A sign of life of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// When this process saw it change, on this process's clock. For the first sight after a start: the stamp that
    /// the provider wrote, when that is earlier.
    pub seen_at: Timestamp,
    /// How often this process has seen it change.
    pub beats: u64,
}

impl NodeView {
    /// A capacity reservation that the vendor calls a virtual node too; it is never touched.
    /// Source: ack-virtual-node documentation, label `alibabacloud.com/node-type=reserved`.
    pub fn reserved(&self) -> bool {
        self.labels
            .get("alibabacloud.com/node-type")
            .is_some_and(|v| v == "reserved")
    }

    /// The pool that our label names.
    pub fn pool_label(&self) -> Option<&str> {
        self.labels.get(vnp_crds::POOL_LABEL).map(String::as_str)
    }
}
