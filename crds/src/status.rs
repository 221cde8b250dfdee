//! `status`: what was observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lenient;
use crate::{ConditionType, DeletionPolicy, ProviderType, wire_enum::wire_enum};

/// What the operator observed. Counts are of objects seen, never of what was asked for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodePoolStatus {
    /// Generation of the spec that this status describes. -1 until the operator has seen the pool, so that tools which judge
    /// by it do not take a fresh pool for a finished one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Deletion policy in force.
    #[serde(
        default,
        deserialize_with = "lenient::word",
        skip_serializing_if = "Option::is_none"
    )]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Accepted number of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_replicas: Option<i32>,

    /// Node objects of the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i32>,

    /// Nodes that are Ready, schedulable and have a healthy provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_nodes: Option<i32>,

    /// Pods bound to the pool's nodes. Outside a drain it is written on a change of 5 % or more, at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,

    /// Pods that run with other compute defaults than they would get now; recreate them to bring them up to date. Absent
    /// unless placement.webhook is Operator, which alone records what a pod got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_outdated: Option<i32>,

    /// Label selector of the workload, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The provider as observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderStatus>,

    /// While paused: what would be written, at most 10 lines.
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_changes: Vec<String>,

    /// The drain under way, absent when nothing drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,

    /// Conditions, one per type, each with the generation it was set for.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The provider as observed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// Form of the provider.
    #[serde(rename = "type")]
    pub type_: ProviderType,

    /// Name of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Replicas that the workload asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// Provider pods that are Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// Image of the provider's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Ordinals whose Node was ever seen, ascending.
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registered: Vec<i32>,

    /// Ordinals whose provider was ever Ready, ascending. Such a provider may have registered a Node under whatever name, so
    /// it is never taken away for one that did not come up. When no operator noted it yet, the field is absent, and each
    /// ordinal that is there may have been Ready.
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Vec<i32>>,

    /// Ordinals removed in the last 24 hours: the last 10, and all whose Node is still there.
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RetiredOrdinal>,

    /// Which drain annotation `abandon-node: <node>/none` was set for. It gives up nothing in a later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
}

/// The drain of a node that is not there, which a person gave up.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakGlass {
    /// Value of the annotation.
    pub value: String,

    /// Start of the drain.
    pub started_at: Time,
}

/// An ordinal that was removed: a pod bound to it afterwards means that a race was lost.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetiredOrdinal {
    /// The ordinal.
    pub ordinal: i32,

    /// UID of its Node, absent when none was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,

    /// When it was removed.
    pub time: Time,

    /// Whether it was given up by annotation, pods and all.
    pub abandoned: bool,

    /// Since when neither its Node nor its provider was there: a pod made later is no lost race.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_time: Option<Time>,
}

wire_enum! {
    /// What sets the speed of a drain at the moment.
    pub enum LimitedBy {
        /// `evictionsPerSecond`, or the operator's cap.
        Rate,
        /// `maxTerminating`.
        TerminatingWindow,
        /// A PodDisruptionBudget.
        Budget,
        /// An earlier stage is not done.
        Stage,
        /// A settle time runs.
        Settle,
        /// What `blockers` names.
        Blocker,
        /// Nothing.
        Nothing,
    }
}

/// The drain under way.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Pods left and at the start, `2412/3000`; empty once the drain is given up.
    pub summary: String,

    /// Pods on the draining nodes when their drain began, or more when more came.
    pub pods_total: i32,

    /// Pods still bound to them.
    pub pods_remaining: i32,

    /// Pods among those that are terminating.
    pub pods_terminating: i32,

    /// Pods among those that something blocks.
    pub pods_blocked: i32,

    /// What sets the speed at the moment.
    #[serde(deserialize_with = "lenient::limit")]
    pub limited_by: LimitedBy,

    /// The nodes that drain, at most 10: those under way before those whose Node only has to be removed.
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<DrainingNode>,

    /// What holds the drain, sorted, at most 10.
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(
        default,
        deserialize_with = "lenient::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub blockers: Vec<Blocker>,
}

wire_enum! {
    /// Where a node's drain stands.
    pub enum DrainPhase {
        /// The node is being cordoned.
        Cordoning,
        /// Waiting until the scheduler has seen the cordon.
        Settling,
        /// Pods are being evicted.
        Evicting,
        /// The provider restarts to remove instances it has forgotten.
        Reaping,
        /// No pod is left; the proof that nothing is left in the cloud runs.
        Emptying,
        /// The workload is lowered.
        Shrinking,
        /// The provider pod goes, then the Node.
        Removing,
        /// The drain timed out and was given up; the node stays.
        Aborted,
    }
}

/// One draining node. The entry survives restarts of the operator and re-registrations of the Node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainingNode {
    /// Name of the Node.
    pub name: String,

    /// UID of the Node, the last one seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,

    /// Ordinal of its provider.
    pub ordinal: i32,

    /// Where its drain stands.
    #[serde(deserialize_with = "lenient::phase")]
    pub phase: DrainPhase,

    /// When its drain began.
    pub started_at: Time,

    /// When the last pod left, or the start; of an aborted drain, the deadline that had passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,

    /// Since when no pod is bound to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Time>,

    /// How often it had to be cordoned again.
    pub recordons: i32,

    /// When the forced deletion of its pods was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_announced_time: Option<Time>,

    /// From when on its pods are deleted past their budgets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_delete_time: Option<Time>,

    /// UID of the provider pod that was deleted to reap forgotten instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaped_provider_uid: Option<String>,

    /// Pods on it when its drain began, or more when more came.
    pub pods_total: i32,

    /// Pods still bound to it.
    pub pods_remaining: i32,
}

wire_enum! {
    /// Why pods do not leave.
    pub enum BlockerReason {
        /// A PodDisruptionBudget allows no eviction.
        BlockedByBudget,
        /// Several budgets select the pod, which the Eviction API refuses.
        MultipleBudgets,
        /// Pods that nobody would make again, and `barePods: Block`.
        BarePods,
        /// Pods that ask not to be disturbed, and `disruptionAnnotations: Respect`.
        DoNotDisrupt,
        /// Pods whose completion is waited for.
        WaitingForCompletion,
        /// Pods 30 s past their deletion timestamp.
        StuckTerminating,
        /// The namespace terminates and refuses evictions.
        NamespaceTerminating,
        /// A DaemonSet puts its pod back on the node.
        DaemonSetTargetsVirtualNode,
        /// A controller puts its pods back on the node in spite of the cordon.
        NewPodsKeepArriving,
        /// The API server forbids the eviction.
        EvictionForbidden,
        /// Nobody could delete the instances.
        ProviderUnavailable,
        /// There is no Node of that name while pods may run.
        NodeMissing,
        /// Somebody keeps uncordoning the node, or another installation of the operator holds it.
        CordonContested,
        /// The other virtual nodes lack room.
        InsufficientCapacity,
        /// The API server asks for fewer requests.
        Throttled,
        /// A StatefulSet does not bring a pod back: the provider's, or one whose pods leave one at a time.
        StatefulSetStuck,
        /// A pod, or a budget of its namespace, does not fit its type.
        Unreadable,
        /// Something holds an object that is deleted.
        FinalizerHolds,
    }
}

/// One cause that holds pods back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// Why.
    pub reason: BlockerReason,

    /// The object that blocks: `namespace/name` of a pod, a budget or a StatefulSet, the name of a node or a namespace, or
    /// `kind/name` and the like of others.
    pub object: String,

    /// Pods held back by it.
    pub pods: i32,

    /// Since when.
    pub since: Time,

    /// What to do about it.
    pub message: String,
}

impl VirtualNodePoolStatus {
    /// The condition of that type, if it was ever written.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.type_ == type_.as_str())
    }

    /// The entry of a draining node by its ordinal.
    pub fn draining(&self, ordinal: i32) -> Option<&DrainingNode> {
        self.drain
            .as_ref()?
            .nodes
            .iter()
            .find(|node| node.ordinal == ordinal)
    }
}
