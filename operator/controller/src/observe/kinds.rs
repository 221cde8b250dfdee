//! What is kept of each watched kind.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use vnp_crds::{VirtualNodePool, virtual_node};
use vnp_plan::drain::audit::{AUDIT_PREFIX, Trail};
use vnp_plan::observed::{Budget, NodeView, ObjectKey, SavedCopy, Workload};

use super::mirror::{Kind, Worst};
use super::read::Unreadable;
use super::scope::Scope;
use super::wire::{RawWorkload, SlimNode};
use crate::runtime::clock::Clock;

/// Pools.
#[derive(Debug)]
pub struct Pools;

impl Kind for Pools {
    type Object = VirtualNodePool;
    type View = VirtualNodePool;

    fn wants(&self, _: &VirtualNodePool) -> bool {
        true
    }

    fn view(&self, mut pool: VirtualNodePool, _: Option<&VirtualNodePool>) -> VirtualNodePool {
        pool.metadata.managed_fields = None;
        pool
    }
}

/// Nodes with the name of a virtual node of a pool, and every other virtual node: what pods choose is held against all of them.
#[derive(Debug, Default)]
pub struct Nodes {
    /// What to keep.
    pub scope: Scope,
}

/// A Node and the heartbeat in its status.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Without heartbeat and resourceVersion.
    pub view: NodeView,
    /// `metadata.resourceVersion`, which each heartbeat changes.
    pub resource_version: String,
    /// `lastHeartbeatTime` of condition Ready.
    pub status_beat: Option<Timestamp>,
}

impl Kind for Nodes {
    type Object = SlimNode;
    type View = NodeRow;

    fn wants(&self, node: &SlimNode) -> bool {
        let label = node.view.labels.get(virtual_node::LABEL);
        self.scope.node(&node.view.name) || label.is_some_and(|value| value == virtual_node::LABEL_VALUE)
    }

    fn view(&self, node: SlimNode, _: Option<&NodeRow>) -> NodeRow {
        NodeRow {
            view: node.view,
            resource_version: node.metadata.resource_version.unwrap_or_default(),
            status_beat: node.status_beat,
        }
    }

    fn worst(&self, object: &Unreadable) -> Worst<NodeRow> {
        let node = SlimNode::worst(object);
        if self.wants(&node) {
            Worst::View(self.view(node, None))
        } else {
            Worst::Foreign
        }
    }
}

/// Heartbeats in kube-node-lease.
#[derive(Debug, Default)]
pub struct Leases {
    /// What to keep.
    pub scope: Scope,
}

impl Kind for Leases {
    type Object = Lease;
    type View = Option<Timestamp>;

    fn wants(&self, lease: &Lease) -> bool {
        lease.metadata.name.as_deref().is_some_and(|n| self.scope.node(n))
    }

    fn view(&self, lease: Lease, _: Option<&Self::View>) -> Self::View {
        lease.spec?.renew_time.map(|t| t.0)
    }

    fn worst(&self, object: &Unreadable) -> Worst<Self::View> {
        match object.metadata.name.as_deref() {
            Some(name) if self.scope.node(name) => Worst::AsBefore,
            _ => Worst::Foreign,
        }
    }
}

/// StatefulSets of a provider namespace.
#[derive(Debug)]
pub struct Workloads;

impl Kind for Workloads {
    type Object = RawWorkload;
    type View = Workload;

    fn wants(&self, _: &RawWorkload) -> bool {
        true
    }

    fn view(&self, workload: RawWorkload, _: Option<&Workload>) -> Workload {
        Workload::new(workload.raw)
    }
}

/// PodDisruptionBudgets.
#[derive(Debug)]
pub struct Budgets(pub Clock);

impl Kind for Budgets {
    type Object = PodDisruptionBudget;
    type View = Budget;

    fn wants(&self, _: &PodDisruptionBudget) -> bool {
        true
    }

    fn view(&self, budget: PodDisruptionBudget, before: Option<&Budget>) -> Budget {
        let status = budget.status.unwrap_or_default();
        let allowed = status.disruptions_allowed.unwrap_or(0);
        let unchanged = before.filter(|b| b.allowed == allowed).map(|b| b.changed_at);
        let failed = status
            .conditions
            .into_iter()
            .flatten()
            .find(|c| c.type_ == "DisruptionAllowed" && c.status == "False" && c.reason == "SyncFailed");
        let spec = budget.spec.unwrap_or_default();
        Budget {
            key: ObjectKey {
                namespace: budget.metadata.namespace.unwrap_or_default(),
                name: budget.metadata.name.unwrap_or_default(),
            },
            selector: spec.selector,
            allowed,
            current: status.observed_generation >= budget.metadata.generation,
            changed_at: unchanged.unwrap_or_else(|| self.0.steady()),
            always_allows_unhealthy: spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"),
            min_available: spec.min_available,
            max_unavailable: spec.max_unavailable,
            healthy: status.current_healthy.unwrap_or(0),
            desired: status.desired_healthy.unwrap_or(0),
            expected: status.expected_pods.unwrap_or(0),
            sync_failed: failed.map(|c| c.message),
            unreadable: false,
        }
    }

    /// It may cover every pod of its namespace and allow nothing.
    fn worst(&self, object: &Unreadable) -> Worst<Budget> {
        Worst::View(Budget {
            key: ObjectKey {
                namespace: object.metadata.namespace.clone().unwrap_or_default(),
                name: object.metadata.name.clone().unwrap_or_default(),
            },
            changed_at: Timestamp::UNIX_EPOCH,
            unreadable: true,
            ..Budget::default()
        })
    }
}

/// A profile ConfigMap. Its managedFields stay: they tell when it changed last.
#[derive(Debug)]
pub struct Profiles;

impl Kind for Profiles {
    type Object = ConfigMap;
    type View = ConfigMap;

    fn wants(&self, _: &ConfigMap) -> bool {
        true
    }

    fn view(&self, map: ConfigMap, _: Option<&ConfigMap>) -> ConfigMap {
        map
    }
}

/// Copies of workloads and templates in Secrets of our own namespace.
#[derive(Debug)]
pub struct Copies;

/// Prefix of the Secret with a workload as it was before it was deleted by somebody; the pool's UID follows.
pub const RESTORE_PREFIX: &str = "vnp-restore-";
/// Prefix of the Secret with the template that a roll replaces; the pool's UID follows.
pub const TEMPLATE_PREFIX: &str = "vnp-template-";

impl Kind for Copies {
    type Object = Secret;
    type View = SavedCopy;

    fn wants(&self, secret: &Secret) -> bool {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        name.starts_with(RESTORE_PREFIX) || name.starts_with(TEMPLATE_PREFIX)
    }

    /// Present, and of no use, as one with a content that can't be read.
    fn worst(&self, object: &Unreadable) -> Worst<SavedCopy> {
        let name = object.metadata.name.clone().unwrap_or_default();
        if !(name.starts_with(RESTORE_PREFIX) || name.starts_with(TEMPLATE_PREFIX)) {
            return Worst::Foreign;
        }
        Worst::View(SavedCopy {
            name,
            uid: object.metadata.uid.clone().unwrap_or_default(),
            content: serde_json::Value::Null,
        })
    }

    fn view(&self, secret: Secret, _: Option<&SavedCopy>) -> SavedCopy {
        let name = secret.metadata.name.unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        let content = data.values().next().map(|bytes| serde_json::from_slice(&bytes.0));
        let content = match content {
            Some(Ok(content)) => content,
            unreadable => {
                // It stays in sight as what it is: present, and of no use.
                let error = unreadable.and_then(Result::err).map(|e| e.to_string());
                tracing::error!(
                    secret = name,
                    error,
                    "a saved copy can't be read; delete the Secret if it is damaged"
                );
                serde_json::Value::Null
            }
        };
        SavedCopy {
            name,
            uid: secret.metadata.uid.unwrap_or_default(),
            content,
        }
    }
}

/// Audit trails in our own namespace, by name: the name is ours there, with our labels or without.
#[derive(Debug)]
pub struct Audits;

impl Kind for Audits {
    type Object = ConfigMap;
    type View = Trail;

    fn wants(&self, map: &ConfigMap) -> bool {
        let name = map.metadata.name.as_deref();
        name.is_some_and(|n| n.starts_with(AUDIT_PREFIX))
    }

    fn view(&self, map: ConfigMap, _: Option<&Trail>) -> Trail {
        Trail::read(&map)
    }
}

/// Warning events about ConfigMaps: the provider reports a profile that it does not take as such an event.
#[derive(Debug)]
pub struct Warnings;

/// A warning event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The ConfigMap that it is about.
    pub about: String,
    /// When it was given last.
    pub at: Timestamp,
    /// The text.
    pub note: String,
}

impl Kind for Warnings {
    type Object = Event;
    type View = Warning;

    fn wants(&self, event: &Event) -> bool {
        let about = event.involved_object.name.as_deref();
        event.type_.as_deref() == Some("Warning") && about.is_some_and(|n| super::PROFILES.contains(&n))
    }

    fn worst(&self, object: &Unreadable) -> Worst<Warning> {
        let about = object
            .raw
            .pointer("/involvedObject/name")
            .and_then(serde_json::Value::as_str);
        match about {
            Some(name) if super::PROFILES.contains(&name) => Worst::AsBefore,
            _ => Worst::Foreign,
        }
    }

    fn view(&self, event: Event, _: Option<&Warning>) -> Warning {
        // A repeated event carries its newest time in `series` or `lastTimestamp`, by the API it was written with.
        let series = event.series.and_then(|s| s.last_observed_time).map(|t| t.0);
        let times = [
            series,
            event.last_timestamp.map(|t| t.0),
            event.event_time.map(|t| t.0),
        ];
        let created = event.metadata.creation_timestamp.map(|t| t.0);
        Warning {
            about: event.involved_object.name.unwrap_or_default(),
            at: times
                .into_iter()
                .flatten()
                .max()
                .or(created)
                .unwrap_or(Timestamp::MIN),
            note: event.message.or(event.reason).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use k8s_openapi::serde_json::{self, json};

    use super::*;

    fn budget(allowed: i32, observed: i64) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "b", "uid": "u", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "a"}}},
            "status": {"disruptionsAllowed": allowed, "observedGeneration": observed,
                       "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
        }))
        .unwrap()
    }

    #[test]
    fn a_budget_remembers_when_its_allowance_changed() {
        let budgets = Budgets(Clock::of_host());
        let first = budgets.view(budget(0, 1), None);
        assert!(!first.current);
        let then = Budget {
            changed_at: Timestamp::UNIX_EPOCH,
            ..first
        };
        let same = budgets.view(budget(0, 2), Some(&then));
        assert_eq!((same.changed_at, same.current), (Timestamp::UNIX_EPOCH, true));
        assert!(budgets.view(budget(1, 2), Some(&then)).changed_at > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_budget_brings_what_the_servers_rule_looks_at() {
        let mut full = budget(0, 2);
        let overlay = json!({
            "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow", "minAvailable": "90%"},
            "status": {"currentHealthy": 4, "desiredHealthy": 5, "expectedPods": 6, "conditions": [{
                "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed",
                "message": "jobs.batch does not implement the scale subresource", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        let mut raw = serde_json::to_value(&full).unwrap();
        json_patch::merge(&mut raw, &overlay);
        full = serde_json::from_value(raw).unwrap();
        let view = Budgets(Clock::of_host()).view(full, None);
        assert!(view.always_allows_unhealthy);
        assert_eq!((view.healthy, view.desired, view.expected), (4, 5, 6));
        assert_eq!(view.min_available, Some(IntOrString::String("90%".into())));
        assert_eq!(
            view.sync_failed.as_deref(),
            Some("jobs.batch does not implement the scale subresource")
        );
    }

    #[test]
    fn only_copies_of_ours_are_kept_and_decoded() {
        let secret = |name: &str, value: &str| -> Secret {
            let data = k8s_openapi::ByteString(value.as_bytes().to_vec());
            serde_json::from_value(json!({"metadata": {"name": name, "uid": "u"}, "data": {"content": data}}))
                .unwrap()
        };
        assert!(!Copies.wants(&secret("webhook-tls", "{}")));
        assert!(Copies.wants(&secret("vnp-restore-1", "{}")));
        assert_eq!(
            Copies.view(secret("vnp-template-1", r#"{"a":1}"#), None).content,
            json!({"a": 1})
        );
        assert_eq!(
            Copies.view(secret("vnp-template-1", "oops"), None).content,
            json!(null)
        );
    }

    #[test]
    fn a_repeated_warning_has_its_newest_time() {
        let event: Event = serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "kube-system", "creationTimestamp": "2026-11-01T00:00:00Z"},
            "involvedObject": {"kind": "ConfigMap", "name": "eci-profile"}, "type": "Warning", "message": "no",
            "lastTimestamp": "2026-11-01T00:05:00Z", "eventTime": null,
        }))
        .unwrap();
        assert!(Warnings.wants(&event));
        let warning = Warnings.view(event, None);
        assert_eq!(warning.at, "2026-11-01T00:05:00Z".parse().unwrap());
        assert_eq!(warning.note, "no");
    }
}
