//! The kind itself: `spec`, its defaults and what follows from both.

// The lint takes keys that repeat within different `printcolumn(...)` for duplicates.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, ResourceExt, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ComputeDefaults, Drain, DrainSettings, Management, Network, PAUSED_ANNOTATION, Placement, Profile,
    Provider, ProviderType, Scheduling, TRUE, VirtualNodePoolStatus, WebhookMode, rule, shape,
    wire_enum::wire_enum,
};

wire_enum! {
    /// What happens to the nodes when the pool is deleted.
    pub enum DeletionPolicy {
        /// All nodes are drained, then what the operator made is removed.
        Drain,
        /// Nodes, pods and count stay.
        Retain,
    }
}

/// Desired state of a pool of virtual nodes.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "virtualnodes.dev",
    version = "v1alpha1",
    kind = "VirtualNodePool",
    plural = "virtualnodepools",
    shortname = "vnp",
    category = "virtualnodes",
    doc = "A pool of virtual nodes: Kubernetes Nodes whose pods run as container instances of the cloud. Shrinking or deleting a pool drains its nodes first.",
    status = "VirtualNodePoolStatus",
    derive = "PartialEq",
    annotation("argocd.argoproj.io/sync-options", "Prune=false,Delete=false"),
    annotation("helm.sh/resource-policy", "keep"),
    annotation("kustomize.toolkit.fluxcd.io/prune", "disabled"),
    selectable = ".spec.provider.type",
    selectable = ".spec.paused",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.targetReplicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.targetReplicas",
        description = "Accepted number of nodes"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes",
        description = "Node objects of the pool"
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availableNodes",
        description = "Nodes that are Ready, schedulable and have a healthy provider"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether this generation is fully realised and nothing drains"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Where the pool stands, in one word"
    ),
    printcolumn(
        name = "Pods-Left",
        type_ = "string",
        json_path = ".status.drain.summary",
        description = "Pods left and pods at the start of the drain under way"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Pods",
        type_ = "integer",
        json_path = ".status.pods",
        priority = 1,
        description = "Pods bound to the pool's nodes"
    ),
    printcolumn(
        name = "Class",
        type_ = "string",
        json_path = ".spec.computeDefaults.class",
        priority = 1,
        description = "Compute class of pods that say nothing themselves"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.conditions[?(@.type=='Ready')].lastTransitionTime",
        priority = 1,
        description = "How long Ready has had its value"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1,
        description = "What the pool waits for"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct VirtualNodePoolSpec {
    /// Desired number of virtual nodes, 0 to 100, with provider type StatefulSet only. Default: the number stays what it is,
    /// at first the count of an adopted workload and 1 for a created one; raises by hand are then accepted.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// While true, nothing but status and events is written, and status.pendingChanges lists what would be. Cordons stay, a
    /// pool that is deleted waits. Default: false. The annotation `virtualnodes.dev/paused: "true"` does the same.
    #[serde(default)]
    pub paused: bool,

    /// Drain: deleting the pool drains all nodes, then removes what the operator made; an adopted workload stays, with 0
    /// replicas and its original values. Retain: nodes, pods and count stay. Default: Drain with management Create, Retain
    /// with Adopt. May be changed while the pool is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Region of the instances, for example `cn-hangzhou`. Written to ECI_REGION. Immutable.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub region: String,

    /// Network of the instances. Written to the provider's environment and to `eci-profile` alike, because the vendor does not
    /// document which of the two wins.
    pub network: Network,

    /// Resource group of the instances, as `rg-...`. Default: the account's default group. Written to
    /// ALIYUN_RESOURCEGROUP_ID and the profile key resourceGroupId.
    #[schemars(regex(pattern = "^rg-[a-z0-9]+$"), length(max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,

    /// Compute class of pods that this pool's rules and policies select and that say nothing themselves. Default: absent,
    /// they become plain ECI instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_defaults: Option<ComputeDefaults>,

    /// The controller in the cluster that registers the nodes and turns their pods into instances.
    pub provider: Provider,

    /// What this pool says in the cluster-wide ConfigMap `kube-system/eci-profile`. Default: its network is synced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,

    /// Which pods go to virtual nodes without touching their manifests. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// Use of the vendor's scheduler. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// How a node is emptied before it goes. Default: every field its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

fn rules() -> Vec<Rule> {
    vec![
        rule::forbidden(
            "!has(self.replicas) || self.provider.type == 'StatefulSet'",
            "replicas",
            "replicas %s is only for provider type StatefulSet, with %s there is one node per zone of spec.network.zones: \
             remove it",
            &["self.replicas", "self.provider.type"],
        ),
        rule::immutable("region"),
    ]
}

impl VirtualNodePoolSpec {
    /// Drain settings in force.
    pub fn drain(&self) -> DrainSettings {
        match &self.drain {
            Some(drain) => drain.settings(self.provider.type_),
            None => Drain::default().settings(self.provider.type_),
        }
    }

    /// Deletion policy in force: what we made we clear away, what we found we leave running.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or(match self.provider.management() {
            Management::Create => DeletionPolicy::Drain,
            Management::Adopt => DeletionPolicy::Retain,
        })
    }

    /// Profile section in force.
    pub fn profile(&self) -> Profile {
        self.profile.clone().unwrap_or_default()
    }

    /// Webhook in force.
    pub fn webhook(&self) -> WebhookMode {
        self.placement
            .as_ref()
            .and_then(|placement| placement.webhook)
            .unwrap_or(match self.provider.type_ {
                ProviderType::StatefulSet => WebhookMode::Operator,
                ProviderType::Deployment | ProviderType::Addon => WebhookMode::Vendor,
            })
    }
}

impl VirtualNodePool {
    /// Whether the pool is paused, by field or by annotation.
    pub fn is_paused(&self) -> bool {
        self.spec.paused
            || self
                .annotations()
                .get(PAUSED_ANNOTATION)
                .is_some_and(|value| value == TRUE)
    }

    /// The number of nodes asked for: `spec.replicas`, else the target accepted before. `None` on a pool that says nothing
    /// and was never observed.
    pub fn target_replicas(&self) -> Option<i32> {
        self.spec
            .replicas
            .or_else(|| self.status.as_ref().and_then(|status| status.target_replicas))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Reap, Switch};

    fn pool(overlay: Value) -> VirtualNodePool {
        let mut value = json!({
            "apiVersion": crate::API_VERSION,
            "kind": crate::KIND,
            "metadata": { "name": "burst" },
            "spec": {
                "region": "cn-hangzhou",
                "network": {
                    "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-1"] }],
                    "securityGroupId": "sg-1",
                },
                "provider": {
                    "type": "StatefulSet", "management": "Create", "namespace": "kube-system",
                    "name": "virtual-node-eci", "image": "registry.example/vk:1",
                },
            },
        });
        merge(&mut value, overlay);
        serde_json::from_value(value).unwrap()
    }

    fn merge(base: &mut Value, overlay: Value) {
        match (base, overlay) {
            (Value::Object(base), Value::Object(overlay)) => {
                for (key, value) in overlay {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, overlay) => *base = overlay,
        }
    }

    #[test]
    fn a_minimal_pool_has_every_default() {
        let pool = pool(json!({}));
        assert!(!pool.is_paused());
        assert_eq!(pool.target_replicas(), None);
        assert_eq!(
            pool.spec.drain(),
            Drain::default().settings(ProviderType::StatefulSet)
        );
        assert_eq!(pool.spec.drain().reap, Reap::RestartProvider);
        assert_eq!(pool.spec.deletion_policy(), DeletionPolicy::Drain);
        assert_eq!(pool.spec.profile().sync, Switch::Enabled);
        assert_eq!(pool.spec.webhook(), WebhookMode::Operator);
    }

    #[test]
    fn a_spec_survives_the_round_trip() {
        let pool = pool(json!({ "spec": { "replicas": 3, "drain": { "burst": 7 } } }));
        let copy: VirtualNodePool = serde_json::from_value(serde_json::to_value(&pool).unwrap()).unwrap();
        assert_eq!(copy, pool);
    }

    #[test]
    fn field_and_annotation_pause() {
        assert!(pool(json!({ "spec": { "paused": true } })).is_paused());
        let annotated =
            |value: &str| pool(json!({ "metadata": { "annotations": { PAUSED_ANNOTATION: value } } }));
        assert!(annotated("true").is_paused());
        assert!(!annotated("yes").is_paused());
    }

    #[test]
    fn deletion_policy_follows_management() {
        let adopt = json!({ "spec": { "provider": { "management": "Adopt" } } });
        assert_eq!(pool(adopt).spec.deletion_policy(), DeletionPolicy::Retain);
        let explicit =
            json!({ "spec": { "provider": { "management": "Adopt" }, "deletionPolicy": "Drain" } });
        assert_eq!(pool(explicit).spec.deletion_policy(), DeletionPolicy::Drain);
        let retained = json!({ "spec": { "deletionPolicy": "Retain" } });
        assert_eq!(pool(retained).spec.deletion_policy(), DeletionPolicy::Retain);
    }

    #[test]
    fn webhook_follows_the_provider() {
        let addon = json!({ "spec": { "provider": { "type": "Addon" } } });
        assert_eq!(pool(addon).spec.webhook(), WebhookMode::Vendor);
        let none = json!({ "spec": { "placement": { "webhook": "None" } } });
        assert_eq!(pool(none).spec.webhook(), WebhookMode::None);
    }

    #[test]
    fn the_accepted_target_stands_in_for_absent_replicas() {
        assert_eq!(
            pool(json!({ "status": { "targetReplicas": 4 } })).target_replicas(),
            Some(4)
        );
        let both = json!({ "spec": { "replicas": 0 }, "status": { "targetReplicas": 4 } });
        assert_eq!(pool(both).target_replicas(), Some(0));
    }
}
