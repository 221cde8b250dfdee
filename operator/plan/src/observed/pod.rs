use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use vnp_crds::DaemonSetPods;

use super::patience::Patiences;
use crate::room::Needs;

/// Kind in the [`ControllerKey`] of pods without a controller.
const NAMESPACE: &str = "Namespace";
/// Labels with the hash at the end of a ReplicaSet's name, and the kind that makes it.
const REVISION_LABELS: [(&str, &str); 2] = [
    ("rollouts-pod-template-hash", "Rollout"),
    ("pod-template-hash", "Deployment"),
];
/// How long after its minute a CronJob's Job may still make pods, in minutes: 31 days.
const JOB_MINUTES: i64 = 31 * 24 * 60;

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What makes pods, over the objects that it makes in between: a Deployment, not the ReplicaSet of one of its revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerKey {
    /// Its kind; `Namespace` for whoever makes pods without a controller there.
    pub kind: String,
    /// Namespace and name; no name for a namespace.
    pub object: ObjectKey,
}

impl fmt::Display for ControllerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object.name.is_empty() {
            write!(f, "{}/{}", self.kind, self.object.namespace)
        } else {
            write!(f, "{}/{}", self.kind, self.object)
        }
    }
}

impl ControllerKey {
    /// As [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, object) = text.split_once('/')?;
        let (namespace, name) = object.split_once('/').unwrap_or((object, ""));
        Some(Self {
            kind: kind.to_owned(),
            object: ObjectKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        })
    }
}

/// A pod bound to a virtual node: one cloud instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Condition `Ready` is `True`: what a PodDisruptionBudget counts as healthy.
    pub ready: bool,
    /// `metadata.deletionTimestamp`: the moment by which it should be gone, not the moment of the request.
    pub deletion: Option<Timestamp>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Labels, for budgets.
    pub labels: BTreeMap<String, String>,
    /// The ownerReference with `controller: true`.
    pub controller: Option<PodOwner>,
    /// A static pod's mirror: annotation `kubernetes.io/config.mirror`, and its Node for a controller. Anybody may set the
    /// annotation alone.
    pub mirror: bool,
    /// Names of its own finalizers, `a, b`; `None` without any.
    pub finalizers: Option<Box<str>>,
    /// The annotation or label by which it asks not to be disturbed.
    pub undisturbed: Option<&'static str>,
    /// It is Pending, and neither an IP, nor a started container, nor an instance id shows that an instance was ever asked
    /// for.
    pub never_started: bool,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// It can run nowhere but on virtual nodes: nodeSelector or required affinity asks for `type=virtual-kubelet`.
    pub requires_virtual: bool,
    /// How long it stays on a Node that is not Ready.
    pub patience: Patiences,
    /// What the scheduler looks at, shared by pods that are alike.
    pub needs: Arc<Needs>,
    /// The cloud's id of its instance, once the provider has written it.
    pub instance_id: Option<String>,
    /// What the webhook did to it.
    pub placed: Option<Box<Placed>>,
    /// A container requests a GPU.
    pub gpu: bool,
    /// Its phase when it was seen last without `deletion`; `None` when it was being deleted from the first sight on.
    pub before_deletion: Option<PodPhase>,
    /// It was seen with condition `DisruptionTarget` of reason `EvictionByEvictionAPI`, which the server sets with an
    /// eviction that it accepts and a provider may overwrite.
    pub evicted: bool,
    /// It does not fit its type: known are its name, its node and perhaps its owner. It is taken for the worst.
    pub unreadable: bool,
}

/// What the operator's webhook recorded on a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// `<pool>/<rule>`.
    pub by: String,
    /// The compute defaults that the pod got.
    pub compute: Option<String>,
}

/// Phase of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not started yet.
    #[default]
    Pending,
    /// Its node does not tell, or the phase is one that this version does not know.
    Unknown,
    /// Running.
    Running,
    /// Every container ended well.
    Succeeded,
    /// A container ended badly.
    Failed,
}

impl BoundPod {
    /// It has ended. It is an instance all the same, until its object is gone.
    pub fn finished(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// It can run on virtual nodes only, and somebody sent it there, so it tells what such pods tolerate.
    pub(crate) fn meant_for_virtual_nodes(&self) -> bool {
        self.requires_virtual && !self.finished() && !self.daemon_set() && !self.unreadable
    }

    /// It belongs to a DaemonSet.
    pub fn daemon_set(&self) -> bool {
        self.controller.as_ref().is_some_and(|c| c.kind == "DaemonSet")
    }

    /// It belongs to a StatefulSet.
    pub fn stateful_set(&self) -> Option<&PodOwner> {
        self.controller.as_ref().filter(|c| c.kind == "StatefulSet")
    }

    /// It does not hold its node under this `spec.drain.daemonSetPods`: a DaemonSet's pod without an instance. Source: P1
    /// names this exception; what ever started is an instance, and holds.
    pub fn left_out(&self, setting: DaemonSetPods) -> bool {
        setting == DaemonSetPods::IgnoreNeverStarted && self.daemon_set() && self.never_started
    }

    /// What made it, over rollouts. A ReplicaSet is its Deployment's or Rollout's when its name ends in the hash that these
    /// write on its pods; a Job is its CronJob's when its name ends in the minute for which a CronJob made it.
    /// Source: Kubernetes `deployment/sync.go` and `cronjob/utils.go`, Argo Rollouts `rollout/sync.go`.
    pub fn made_by(&self) -> ControllerKey {
        let namespace = self.key.namespace.clone();
        let Some(owner) = &self.controller else {
            return ControllerKey {
                kind: NAMESPACE.to_owned(),
                object: ObjectKey {
                    namespace,
                    name: String::new(),
                },
            };
        };
        let (kind, name) = self.above(owner).unwrap_or((&owner.kind, &owner.name));
        ControllerKey {
            kind: kind.to_owned(),
            object: ObjectKey {
                namespace,
                name: name.to_owned(),
            },
        }
    }

    /// Kind and name of what made the controller of this pod.
    fn above<'a>(&'a self, owner: &'a PodOwner) -> Option<(&'static str, &'a str)> {
        match owner.kind.as_str() {
            "ReplicaSet" => REVISION_LABELS.iter().find_map(|(label, kind)| {
                let hash = self.labels.get(*label).filter(|hash| !hash.is_empty())?;
                let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
                Some((*kind, name))
            }),
            "Job" => {
                let (name, minute) = owner.name.rsplit_once('-')?;
                let minute: i64 = minute.parse().ok()?;
                let made = self.created?.as_second().div_euclid(60);
                let of_its_time = (0..=JOB_MINUTES).contains(&(made - minute));
                of_its_time.then_some(("CronJob", name))
            }
            _ => None,
        }
    }
}

/// The controller that owns a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOwner {
    /// `apiVersion`, for instance `apps/v1`.
    pub api_version: String,
    /// Kind, for instance `ReplicaSet`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// A pod of the provider's StatefulSet: the process behind one virtual node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// Of a pod that is not Ready: what its status says about it, for people.
    pub trouble: Option<String>,
    /// When condition `Ready` changed last.
    pub ready_since: Option<Timestamp>,
    /// Sum of the containers' restart counts.
    pub restarts: i32,
    /// Label `controller-revision-hash`.
    pub revision: String,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// `metadata.deletionTimestamp`: when it should be gone.
    pub deletion: Option<Timestamp>,
    /// Names of its finalizers.
    pub finalizers: Vec<String>,
    /// It does not fit its type, so nothing is known of its health.
    pub unreadable: bool,
    /// UIDs of all its owners.
    pub owner_uids: Vec<String>,
    /// Image of each container by name.
    pub images: BTreeMap<String, String>,
    /// `status.podIPs`.
    pub addresses: Vec<String>,
    /// `spec.nodeName`: the ordinary node that it runs on.
    pub host: Option<String>,
    /// A container of it started at some time, whether it runs now or not.
    pub ran: bool,
    /// When the last of its containers ended, if none runs and it is known of all that started.
    pub stopped: Option<Timestamp>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `spec.selector`; absent selects nothing in policy/v1, empty selects every pod of the namespace.
    pub selector: Option<LabelSelector>,
    /// `status.disruptionsAllowed`.
    pub allowed: i32,
    /// `status.observedGeneration` has reached `metadata.generation`.
    pub current: bool,
    /// When this process saw `allowed` change last.
    pub changed_at: Timestamp,
    /// `spec.unhealthyPodEvictionPolicy` is `AlwaysAllow`.
    pub always_allows_unhealthy: bool,
    /// `spec.minAvailable`.
    pub min_available: Option<IntOrString>,
    /// `spec.maxUnavailable`.
    pub max_unavailable: Option<IntOrString>,
    /// `status.currentHealthy`.
    pub healthy: i32,
    /// `status.desiredHealthy`.
    pub desired: i32,
    /// `status.expectedPods`.
    pub expected: i32,
    /// Why kube-controller-manager can't work it out: the message of condition `DisruptionAllowed` with reason
    /// `SyncFailed`.
    pub sync_failed: Option<String>,
    /// It does not fit its type: it may cover every pod of its namespace, and allow nothing.
    pub unreadable: bool,
}
