//! Everything one pass looks at, as plain data. Nothing here can be refreshed or re-read: a decision is a function
//! of these values and of `now`.

mod controllers;
mod node;
mod patience;
mod pod;
mod scheduling;
mod stateful_set;
mod term;
mod waiting;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use vnp_crds::VirtualNodePool;

pub use controllers::{ControllerKind, ControllerKinds, Scaling, remade_by_nature};
pub use node::{CordonOwner, Finalizer, Heartbeat, NodeTrace, NodeView, UnclaimedNode};
pub use patience::{Patience, Patiences, Silence};
pub use pod::{BoundPod, Budget, ControllerKey, ObjectKey, Placed, PodOwner, PodPhase, ProviderPod};
pub use scheduling::{Policies, PolicyCrd, PolicySeen, SchedulingSeen};
pub use stateful_set::{Member, MemberState, Members, Wanted, missing};
pub use term::Term;
pub use waiting::{LeftAlonePod, Right, WaitingPod};
pub use workload::{Blind, UpdateStrategy, Workload, WorkloadSeen};

use crate::drain::audit::Trail;
use crate::drain::memory::DrainMemory;
use crate::proof::LiveFacts;
use crate::rewritten::Rewrites;
use crate::webhook::WebhookState;
use crate::webhook::later::LaterMutators;
use crate::webhook::vendor::VendorSeen;

/// The number at the end of a virtual node's name, counted from the StatefulSet's `ordinals.start`.
pub type Ordinal = i32;

/// The cluster as one pass over one pool sees it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The pool, from the cache.
    pub pool: Arc<VirtualNodePool>,
    /// All other pools of the cluster, from the cache.
    pub others: Vec<Arc<VirtualNodePool>>,
    /// How this operator was started and which leader term it serves.
    pub operator: OperatorFacts,
    /// The provider's StatefulSet.
    pub workload: WorkloadSeen,
    /// Pods of the workload's namespace named `<provider.name>-<ordinal>`.
    pub provider_pods: BTreeMap<Ordinal, Arc<ProviderPod>>,
    /// Node objects named `<provider.name>-<ordinal>`, whoever made them.
    pub nodes: BTreeMap<Ordinal, Arc<NodeView>>,
    /// Pods whose `spec.nodeName` is `<provider.name>-<ordinal>`, whether that Node exists or not; sorted by key.
    pub bound: BTreeMap<Ordinal, Arc<Vec<BoundPod>>>,
    /// The StatefulSets with pods in `bound`, by UID, each with all its pods.
    pub stateful_sets: BTreeMap<String, Arc<Members>>,
    /// How many pods of these StatefulSets are wanted, by UID, where a pod of one is missing and it is known.
    pub wanted: BTreeMap<String, Wanted>,
    /// What the API server says of the kinds of controllers of pods in `bound`, but for those that are known anyway.
    pub controllers: Arc<ControllerKinds>,
    /// All PodDisruptionBudgets of the cluster.
    pub budgets: Arc<Vec<Budget>>,
    /// Labels of all namespaces, by name.
    pub namespaces: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// Secret `vnp-restore-<pool-uid>`: the workload as it was before it was deleted by somebody.
    pub restore_copy: Option<SavedCopy>,
    /// Secret `vnp-template-<pool-uid>`: the template that a roll in progress replaces.
    pub template_copy: Option<SavedCopy>,
    /// ConfigMap `vnp-audit-<pool>`; `None` when it is not known whether there is one, and then nothing is recorded.
    pub audit: Option<Arc<Trail>>,
    /// `kube-system/eci-profile`, `None` when absent.
    pub profile: Option<Arc<ConfigMap>>,
    /// `kube-system/acs-profile`, `None` when absent, as it is outside ACS clusters.
    pub acs_profile: Option<Arc<ConfigMap>>,
    /// The provider's newest Warning event on a profile, when it is younger than the ConfigMap's last change.
    pub profile_rejection: Option<String>,
    /// The vendor's scheduler: its CRD, and the ResourcePolicies that are there.
    pub scheduling: SchedulingSeen,
    /// Version of the API server, as `v1.37.2`; empty when it does not tell, `None` while it was not asked.
    pub kubernetes: Option<String>,
    /// The operator's webhook.
    pub webhook: WebhookState,
    /// The vendor's webhook; looked at while a pool relies on it.
    pub vendor_webhook: VendorSeen,
    /// What changes pods after the operator's webhook was asked.
    pub later: LaterMutators,
    /// Pods of the last hour that this replica was asked about and that its webhook left alone, one for each rule and reason.
    pub left_alone: Vec<LeftAlonePod>,
    /// Whether pods of rules with `mode: Prefer` can be let overflow.
    pub overflow: Right,
    /// Objects that do not fit their type, of all kinds that are watched. Each is taken for the worst that it may be.
    pub flaws: Vec<Flaw>,
    /// Watches that have failed for long: what they feed may be out of date.
    pub failing: Vec<FailingWatch>,
    /// What this process remembers of each ordinal's drain. It may make a decision later, never bolder.
    pub memory: BTreeMap<Ordinal, DrainMemory>,
    /// What this process remembers of the roll and of contested fields. A throttle as well.
    pub recall: Recall,
    /// The live reads that the plan asked for in this pass; empty before it asked.
    pub live: BTreeMap<Ordinal, LiveFacts>,
}

impl Observed {
    /// UID of the pool; empty only for an object that never was on a server.
    pub fn pool_uid(&self) -> &str {
        self.pool.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Name of the pool.
    pub fn pool_name(&self) -> &str {
        self.pool.metadata.name.as_deref().unwrap_or_default()
    }

    /// True once somebody deleted the pool.
    pub fn deleting(&self) -> bool {
        self.pool.metadata.deletion_timestamp.is_some()
    }

    /// Name of the virtual node and of the provider pod with that ordinal.
    pub fn node_name(&self, ordinal: Ordinal) -> String {
        format!(
            "{}-{ordinal}",
            self.pool.spec.provider.name.as_deref().unwrap_or_default()
        )
    }

    /// The workload, when it exists and carries our label naming this pool: only then it is held by this pool.
    pub fn held_workload(&self) -> Option<&Arc<Workload>> {
        self.workload
            .there()
            .filter(|w| w.pool_label() == Some(self.pool_name()))
    }

    /// Pods bound to the ordinal that count: all but mirror pods.
    pub fn pods_on(&self, ordinal: Ordinal) -> impl Iterator<Item = &BoundPod> {
        self.bound
            .get(&ordinal)
            .into_iter()
            .flat_map(|pods| pods.iter())
            .filter(|p| !p.mirror)
    }

    /// What is the matter with an object that can't be read.
    pub fn flaw(&self, kind: &str, key: &str) -> Option<&Flaw> {
        self.flaws.iter().find(|f| f.kind == kind && f.key == key)
    }

    /// Pods that keep the ordinal from going: all that count, but for those that `spec.drain.daemonSetPods` leaves out.
    pub fn holding(&self, ordinal: Ordinal) -> impl Iterator<Item = &BoundPod> {
        let setting = self.pool.spec.drain().daemon_set_pods;
        self.pods_on(ordinal).filter(move |p| !p.left_out(setting))
    }
}

/// A watch that fails again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingWatch {
    /// The kind that it is about.
    pub kind: &'static str,
    /// How it failed last.
    pub error: String,
}

/// An object that is there and does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// Its kind.
    pub kind: &'static str,
    /// `<namespace>/<name>` or `<name>`.
    pub key: String,
    /// What is the matter with it.
    pub error: String,
}

/// Facts about the running operator that decisions depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorFacts {
    /// Namespaces in which workloads may be managed (`--provider-namespaces`).
    pub provider_namespaces: Vec<String>,
    /// Namespace of the operator: its Lease, Secrets and ConfigMaps.
    pub namespace: String,
    /// This leader's time in office; part of every fence and cordon.
    pub term: Term,
    /// When this process began to lead.
    pub leading_since: Timestamp,
    /// Evictions per second of all pools together (`--evictions-per-second`); 0 caps nothing.
    pub evictions_per_second: u32,
}

/// A Secret in the operator's namespace that keeps an object over a dangerous moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedCopy {
    /// Name of the Secret.
    pub name: String,
    /// UID of the Secret.
    pub uid: String,
    /// What was kept, decoded from the Secret's only key.
    pub content: Value,
}

/// What the process remembers about its writes to the workload, by pool. Lost at a restart, and nothing breaks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recall {
    /// When the present roll step was first seen unhealthy, by ordinal.
    pub roll_step_since: Option<(Ordinal, Timestamp)>,
    /// The fence of another installation on the workload, and since when it has been seen.
    pub other_fence: Option<(String, Timestamp)>,
    /// Times at which a field of ours was found set back by somebody else, newest last, by field path.
    pub set_back: BTreeMap<String, Vec<(Timestamp, String)>>,
    /// The same for keys of the profile, as the cluster loop remembers them for all pools.
    pub profile_set_back: BTreeMap<String, Vec<(Timestamp, String)>>,
    /// Fields that were written and stored with another value, by field path.
    pub rewritten: Rewrites,
    /// The same of ResourcePolicies, by object.
    pub policies_rewritten: Rewrites,
    /// The same of keys of the profile, as the cluster loop remembers them for all pools.
    pub profile_rewritten: Rewrites,
    /// What was wanted of each field at the last look, and whether it was in place, by field path.
    pub fields: BTreeMap<String, SeenField>,
}

/// A field that was written, answered with success, and stored with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// What was wanted of it, as in [`SeenField::wanted`].
    pub wanted: String,
    /// What stands there and what is wanted, for people.
    pub difference: String,
    /// The field manager that owns what stands there, when it is another one.
    pub by: Option<String>,
    /// When that was seen first.
    pub since: Timestamp,
    /// When it was written last.
    pub tried: Timestamp,
    /// It may be written again.
    pub due: bool,
}

/// A field of the workload as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenField {
    /// What the pool wanted of it, by its text or its hash.
    pub wanted: String,
    /// The workload said so.
    pub in_place: bool,
}
