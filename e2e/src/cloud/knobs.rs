//! What can be turned on a provider while it runs.

use std::time::Duration;

/// How the provider of a node behaves. The default is a quick, well-behaved one.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderKnobs {
    /// From the pod being bound to its instance running.
    pub start_delay: Duration,
    /// Which goes first when a pod is deleted.
    pub deletion_order: DeletionOrder,
    /// Between the one and the other.
    pub deletion_lag: Duration,
    /// How long the cloud works on one accepted deletion.
    pub deletion_takes: Duration,
    /// Fraction (0 to 1) of deletions that get lost: the Pod object goes, the instance stays until the provider is
    /// started again and reaps it.
    pub forget: f64,
    /// Chooses which deletions get lost.
    pub forget_seed: u64,
    /// Pods that take their time to end.
    pub slow_terminators: SlowTerminators,
    /// What keeps the node alive in the eyes of Kubernetes.
    pub heartbeat: Heartbeat,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Looked at when the provider starts: its Node is Ready, but no pod is ever handled and nothing reaped.
    pub deaf: bool,
    /// From its Node having vanished to registering it again. `None`: only a start registers it, and meanwhile its Lease
    /// is made again at each renewal, owned by the Node that is gone, and collected again.
    pub reregister_delay: Option<Duration>,
    /// How often it puts its own labels back. `None`: only a registration writes them.
    pub own_labels_interval: Option<Duration>,
    /// From its container having crashed to running again.
    pub restart_delay: Duration,
    /// Looked at when the provider starts: its Node bears this name instead of its pod's.
    pub node_name: Option<String>,
    /// How long pods with `restartPolicy` other than Always run until they have succeeded; `None` runs them for ever.
    pub job_runtime: Option<Duration>,
}

impl Default for ProviderKnobs {
    fn default() -> Self {
        Self {
            start_delay: Duration::from_millis(50),
            deletion_order: DeletionOrder::InstanceFirst,
            deletion_lag: Duration::ZERO,
            deletion_takes: Duration::ZERO,
            forget: 0.0,
            forget_seed: 0,
            slow_terminators: SlowTerminators::default(),
            heartbeat: Heartbeat::Lease,
            heartbeat_interval: Duration::from_secs(10),
            deaf: false,
            reregister_delay: Some(Duration::from_secs(2)),
            own_labels_interval: None,
            restart_delay: Duration::from_secs(1),
            node_name: None,
            job_runtime: Some(Duration::from_millis(500)),
        }
    }
}

impl ProviderKnobs {
    /// As virtual-kubelet 1.12.0 was measured to behave; the default is the open-source ECI provider on 0.10.
    #[must_use]
    pub fn virtual_kubelet_1_12() -> Self {
        Self {
            deletion_order: DeletionOrder::InstanceThenGrace,
            reregister_delay: None,
            own_labels_interval: Some(Duration::from_secs(60)),
            ..Self::default()
        }
    }
}

/// Which of the two goes first when a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionOrder {
    /// The instance, then the Pod object: the open-source ECI provider.
    InstanceFirst,
    /// The Pod object at once, the instance from a queue.
    ObjectFirst,
    /// The instance at once, the Pod object when its grace period is over; the other way round with pods that don't run
    /// any more: newer virtual-kubelets.
    InstanceThenGrace,
}

/// What keeps a node alive in the eyes of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The Lease in kube-node-lease is renewed: newer virtual-kubelets.
    Lease,
    /// Only the Node's status is written: the open-source ECI provider.
    NodeStatus,
    /// Nothing: the provider's pod is Ready and its node is left to turn `Unknown`.
    Silent,
}

/// Pods that take their time to end; by name, so the same pods in every run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlowTerminators {
    /// Fraction (0 to 1) of pods.
    pub fraction: f64,
    /// From the deletion being asked for to the pod having ended.
    pub delay: Duration,
}
