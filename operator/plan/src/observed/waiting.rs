//! Pods that wait for a node and may go to a virtual one, and pods that may not.

use crate::observed::ObjectKey;
use crate::placement::Unfit;

/// A pod with label [`vnp_crds::OVERFLOW_LABEL`] that is bound to no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The pool that the label names.
    pub pool: String,
    /// The scheduler says that no node takes it: condition PodScheduled is False with reason Unschedulable.
    pub unschedulable: bool,
    /// The scheduler makes room for it on a node: `status.nominatedNodeName`.
    pub nominated: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It tolerates the taint of virtual nodes already.
    pub tolerates: bool,
    /// It has a list of tolerations, which one can be appended to.
    pub has_tolerations: bool,
}

/// Whether the operator may patch pods, which is a right of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Right {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It may.
    Granted,
    /// It may not.
    Missing,
}

/// One of the pods that a rule or a label selects and that are left alone for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftAlonePod {
    /// `<pool>/<rule>`, or `<pool>/<trigger>`.
    pub by: String,
    /// Why.
    pub why: Unfit,
    /// It carries what was added to it before, when it did fit.
    pub placed: bool,
    /// Namespace and name, or what its name begins with.
    pub pod: String,
}
