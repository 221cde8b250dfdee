//! `spec.drain`: how a node is emptied before it goes.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ProviderType, rule, shape, wire_enum::wire_enum};

wire_enum! {
    /// How fast pods are evicted.
    pub enum Pace {
        /// At `evictionsPerSecond`.
        Limited,
        /// As fast as the API server takes it.
        Unlimited,
    }
}

wire_enum! {
    /// What removes instances that the provider forgot.
    pub enum Reap {
        /// Restart the provider of the empty node: at its start it removes what carries its node's name.
        RestartProvider,
        /// Nothing.
        None,
    }
}

wire_enum! {
    /// What happens when a drain passes `timeoutSeconds`.
    pub enum OnTimeout {
        /// Go on and report it.
        Wait,
        /// Delete the pods with a grace period, budgets or not, announced before.
        ForceDelete,
        /// Uncordon and keep the node.
        Abort,
    }
}

wire_enum! {
    /// What happens to pods that no controller would bring back.
    pub enum BarePods {
        /// They hold the drain.
        Block,
        /// The drain waits until they finish.
        WaitForCompletion,
        /// They are evicted.
        Evict,
    }
}

wire_enum! {
    /// What happens to pods of DaemonSets, which are instances as well.
    pub enum DaemonSetPods {
        /// They are evicted.
        Evict,
        /// Those that never started do not hold the node; the others are evicted.
        IgnoreNeverStarted,
    }
}

wire_enum! {
    /// What happens to pods that ask not to be disturbed.
    pub enum DisruptionAnnotations {
        /// They hold the drain.
        Respect,
        /// They are evicted like others.
        Ignore,
    }
}

wire_enum! {
    /// Whether a drain needs room for the pods elsewhere.
    pub enum CapacityCheck {
        /// Hold the drain while the other virtual nodes lack room.
        Enforce,
        /// Do not look.
        Ignore,
    }
}

wire_enum! {
    /// How the pods of a stage leave.
    pub enum StageWait {
        /// They are evicted.
        Eviction,
        /// The stage waits until they finish.
        Completion,
    }
}

/// How a node is emptied before it goes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// Limited: at most evictionsPerSecond. Unlimited: as fast as the API server takes it. Default: Limited.
    pub pace: Pace,

    /// Evictions per second of this pool, 1 to 1000, with pace Limited. Default: 20, the rate at which ECI refills its
    /// DeleteContainerGroup quota. The operator's `--evictions-per-second` caps all pools together.
    #[schemars(range(min = 1, max = 1000))]
    pub evictions_per_second: i32,

    /// Evictions that may come at once after a pause. Default: 100, ECI's DeleteContainerGroup burst.
    #[schemars(range(min = 1, max = 10_000))]
    pub burst: i32,

    /// Most pods between eviction and disappearance. Default: 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_terminating: i32,

    /// Most evictions in flight under one PodDisruptionBudget. Default: 16.
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent_per_budget: i32,

    /// Most nodes drained at the same time, 1 to 10, highest ordinal first. Default: 1.
    #[schemars(range(min = 1, max = 10))]
    pub max_concurrent_nodes: i32,

    /// Seconds between cordon and first eviction: the scheduler may not have seen the cordon yet. Default: 5.
    #[schemars(range(min = 0, max = 600))]
    pub cordon_settle_seconds: i32,

    /// Seconds that a node must stay empty before its provider goes, on top of the time the cloud needs for the deletions
    /// under way. Default: 30.
    #[schemars(range(min = 0, max = 86_400))]
    pub empty_settle_seconds: i32,

    /// Instances per second that the cloud deletes, to estimate that time. Default: 20, ECI's DeleteContainerGroup refill.
    #[schemars(range(min = 1, max = 1000))]
    pub instance_deletes_per_second: i32,

    /// RestartProvider: restart the provider of an empty node, so that it removes instances it has forgotten. None: do not.
    /// Default: RestartProvider with provider type StatefulSet, otherwise None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reap: Option<Reap>,

    /// Seconds without any pod leaving after which the drain counts as stalled. Waiting for completion does not count.
    /// Default: 600.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub progress_deadline_seconds: i32,

    /// Seconds from the start of a node's drain until onTimeout acts. Default: none, there is no deadline.
    #[schemars(range(min = 1, max = 2_592_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,

    /// Wait: report it and go on. ForceDelete: delete the pods with a grace period of at least 1 s, ignoring budgets, after
    /// an announcement. Abort: uncordon and keep the node. Default: Wait.
    pub on_timeout: OnTimeout,

    /// What happens to pods that nobody brings back: those without any controller, and those of a controller that is not
    /// known to make its pods again (its kind has no scale subresource). Block: they hold the drain. WaitForCompletion: it
    /// waits until they finish. Evict: they are evicted. Default: Block.
    pub bare_pods: BarePods,

    /// What happens to pods of DaemonSets. Evict: they are evicted like others. IgnoreNeverStarted: those that never started
    /// do not hold the node. Default: Evict.
    pub daemon_set_pods: DaemonSetPods,

    /// What happens to pods that ask not to be disturbed (karpenter.sh/do-not-disrupt, cluster-autoscaler.kubernetes.io/safe-to-evict,
    /// alibabacloud.com/drain-pod). Respect: they hold the drain. Ignore: they are evicted like others. Default: Respect.
    pub disruption_annotations: DisruptionAnnotations,

    /// Enforce: hold the drain while the other virtual nodes lack room for pods that require one. Ignore: do not look.
    /// Default: Enforce.
    pub capacity_check: CapacityCheck,

    /// Groups of pods to drain one after the other, at most 16, each name once; pods of no stage come last. Default: none.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<DrainStage>,
}

/// One group of pods within a drain.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule::selects()]))]
pub struct DrainStage {
    /// Name of the stage, a DNS label.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub name: String,

    /// Labels of the pods. Default: all, if namespaceSelector is set.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,

    /// Namespaces of the pods. Default: all, if podSelector is set.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Eviction: the pods are evicted. Completion: the stage waits until they finish.
    pub wait_for: StageWait,
}

impl Default for Drain {
    /// The CRD's defaults are generated from these values.
    fn default() -> Self {
        Self {
            pace: Pace::Limited,
            evictions_per_second: 20,
            burst: 100,
            max_terminating: 1000,
            max_concurrent_per_budget: 16,
            max_concurrent_nodes: 1,
            cordon_settle_seconds: 5,
            empty_settle_seconds: 30,
            instance_deletes_per_second: 20,
            reap: None,
            progress_deadline_seconds: 600,
            timeout_seconds: None,
            on_timeout: OnTimeout::Wait,
            bare_pods: BarePods::Block,
            daemon_set_pods: DaemonSetPods::Evict,
            disruption_annotations: DisruptionAnnotations::Respect,
            capacity_check: CapacityCheck::Enforce,
            stages: Vec::new(),
        }
    }
}

/// `spec.drain` with every default filled in and units in the types.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainSettings {
    /// `pace`
    pub pace: Pace,
    /// `evictionsPerSecond`, at least 1
    pub evictions_per_second: u32,
    /// `burst`, at least 1
    pub burst: u32,
    /// `maxTerminating`, at least 1
    pub max_terminating: u32,
    /// `maxConcurrentPerBudget`, at least 1
    pub max_concurrent_per_budget: u32,
    /// `maxConcurrentNodes`, at least 1
    pub max_concurrent_nodes: u32,
    /// `cordonSettleSeconds`
    pub cordon_settle: Duration,
    /// `emptySettleSeconds`
    pub empty_settle: Duration,
    /// `instanceDeletesPerSecond`, at least 1
    pub instance_deletes_per_second: u32,
    /// `reap`, by the provider type when absent
    pub reap: Reap,
    /// `progressDeadlineSeconds`
    pub progress_deadline: Duration,
    /// `timeoutSeconds`
    pub timeout: Option<Duration>,
    /// `onTimeout`
    pub on_timeout: OnTimeout,
    /// `barePods`
    pub bare_pods: BarePods,
    /// `daemonSetPods`
    pub daemon_set_pods: DaemonSetPods,
    /// `disruptionAnnotations`
    pub disruption_annotations: DisruptionAnnotations,
    /// `capacityCheck`
    pub capacity_check: CapacityCheck,
    /// `stages`
    pub stages: Vec<DrainStage>,
}

impl Drain {
    /// The settings in force with this form of provider.
    pub fn settings(&self, provider: ProviderType) -> DrainSettings {
        DrainSettings {
            pace: self.pace,
            evictions_per_second: positive(self.evictions_per_second),
            burst: positive(self.burst),
            max_terminating: positive(self.max_terminating),
            max_concurrent_per_budget: positive(self.max_concurrent_per_budget),
            max_concurrent_nodes: positive(self.max_concurrent_nodes),
            cordon_settle: seconds(self.cordon_settle_seconds),
            empty_settle: seconds(self.empty_settle_seconds),
            instance_deletes_per_second: positive(self.instance_deletes_per_second),
            reap: self.reap.unwrap_or(match provider {
                ProviderType::StatefulSet => Reap::RestartProvider,
                ProviderType::Deployment | ProviderType::Addon => Reap::None,
            }),
            progress_deadline: seconds(self.progress_deadline_seconds),
            timeout: self.timeout_seconds.map(seconds),
            on_timeout: self.on_timeout,
            bare_pods: self.bare_pods,
            daemon_set_pods: self.daemon_set_pods,
            disruption_annotations: self.disruption_annotations,
            capacity_check: self.capacity_check,
            stages: self.stages.clone(),
        }
    }
}

/// The schema refuses less than 1; a rate of zero would divide by zero in objects that bypassed it.
fn positive(value: i32) -> u32 {
    value.max(1).unsigned_abs()
}

fn seconds(value: i32) -> Duration {
    Duration::from_secs(value.max(0).unsigned_abs().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(serde_json::from_str::<Drain>("{}").unwrap(), Drain::default());
    }

    #[test]
    fn reap_depends_on_the_provider() {
        let drain = Drain::default();
        assert_eq!(
            drain.settings(ProviderType::StatefulSet).reap,
            Reap::RestartProvider
        );
        assert_eq!(drain.settings(ProviderType::Deployment).reap, Reap::None);
        assert_eq!(drain.settings(ProviderType::Addon).reap, Reap::None);

        let drain = Drain {
            reap: Some(Reap::None),
            ..Drain::default()
        };
        assert_eq!(drain.settings(ProviderType::StatefulSet).reap, Reap::None);
    }

    #[test]
    fn settings_carry_units() {
        let settings = Drain {
            timeout_seconds: Some(3600),
            ..Drain::default()
        }
        .settings(ProviderType::StatefulSet);
        assert_eq!(settings.cordon_settle, Duration::from_secs(5));
        assert_eq!(settings.empty_settle, Duration::from_secs(30));
        assert_eq!(settings.progress_deadline, Duration::from_secs(600));
        assert_eq!(settings.timeout, Some(Duration::from_secs(3600)));
        assert_eq!((settings.evictions_per_second, settings.burst), (20, 100));
        assert_eq!(
            (settings.max_terminating, settings.max_concurrent_per_budget),
            (1000, 16)
        );
    }

    #[test]
    fn rates_are_never_zero() {
        let drain = Drain {
            evictions_per_second: 0,
            instance_deletes_per_second: -3,
            ..Drain::default()
        };
        let settings = drain.settings(ProviderType::StatefulSet);
        assert_eq!(
            (
                settings.evictions_per_second,
                settings.instance_deletes_per_second
            ),
            (1, 1)
        );
    }
}
