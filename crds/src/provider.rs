//! `spec.provider`: the workload that registers the virtual nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{provider_rules, shape, wire_enum::wire_enum};

wire_enum! {
    /// Form of the provider.
    pub enum ProviderType {
        /// One replica is one node, `<name>-<ordinal>`.
        StatefulSet,
        /// One node per zone, `virtual-kubelet-<zone>`, from a Deployment that exists.
        Deployment,
        /// As Deployment, with the provider hosted outside the cluster.
        Addon,
    }
}

wire_enum! {
    /// Who made the workload.
    pub enum Management {
        /// The operator makes and owns the whole workload.
        Create,
        /// The workload exists; the operator owns the fields that the pool names.
        Adopt,
    }
}

/// The provider: the controller in the cluster that registers virtual nodes and turns their pods into instances.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = provider_rules::all()))]
pub struct Provider {
    /// Form of the provider: StatefulSet, Deployment or Addon. Immutable.
    #[serde(rename = "type")]
    pub type_: ProviderType,

    /// Create: the operator makes the workload and removes it with the pool. Adopt: the workload exists and is given back
    /// when the pool lets go. Required with a workload; Deployment and Addon know only Adopt. Create may become Adopt, not
    /// the other way round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,

    /// Namespace of the workload, one of the operator's `--provider-namespaces` (kube-system unless changed). Required with
    /// StatefulSet and Deployment, refused with Addon. Immutable.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// Name of the workload. With StatefulSet the nodes are named `<name>-<ordinal>`. Required with StatefulSet and
    /// Deployment, refused with Addon. Immutable.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 52))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Adopt only: the provider's container in the workload. Default: the only one that has ECI_REGION.
    #[schemars(regex(pattern = shape::DNS_LABEL_OR_EMPTY), length(max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,

    /// Image of the provider, with its tag or digest. Required by Create. With Adopt it is optional and sets the version;
    /// default: the image that is there stays.
    #[schemars(length(max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Create only: arguments of the provider. Default: none, the image's own.
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,

    /// Create only: further environment variables. Default: none. Names that other fields of the pool own are refused.
    #[schemars(
        length(max = 64),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = provider_rules::env()
        )
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// Create only: ServiceAccount of the provider, in its namespace. Default: the namespace's default account.
    #[schemars(regex(pattern = shape::DNS_SUBDOMAIN_OR_EMPTY), length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// Create only: Secret in the provider's namespace with the keys access-key-id and access-key-secret, which become
    /// ECI_ACCESS_KEY and ECI_SECRET_KEY. Default: none, the provider gets its credentials elsewhere.
    #[schemars(regex(pattern = shape::DNS_SUBDOMAIN_OR_EMPTY), length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_name: Option<String>,

    /// Create only: id of the cluster in the cloud, ALIYUN_CLUSTERID. Default: none. PrivateZone needs it.
    #[schemars(length(max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,

    /// Create only: resources of the provider's container, not of the instances. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Create only: Secrets to pull the image with. Default: none.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Create only: labels of the nodes where the provider itself may run. Default: none. It never runs on a virtual node.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::label_value()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Create only: taints that the provider itself tolerates. Default: none.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Create only: PriorityClass of the provider. Default: the cluster's default. A provider that is preempted leaves its
    /// instances without anybody who could delete them, so system-cluster-critical is a good choice in kube-system.
    #[schemars(regex(pattern = shape::DNS_SUBDOMAIN_OR_EMPTY), length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// Namespace and name of the provider's workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl std::fmt::Display for WorkloadRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Provider {
    /// Management in force: a provider form without a choice is always adopted.
    pub fn management(&self) -> Management {
        self.management.unwrap_or(Management::Adopt)
    }

    /// The workload, `None` for a form that has none in the cluster.
    pub fn workload(&self) -> Option<WorkloadRef<'_>> {
        Some(WorkloadRef {
            namespace: set(&self.namespace)?,
            name: set(&self.name)?,
        })
    }

    /// The container named, `None` when it is to be found by its environment.
    pub fn container(&self) -> Option<&str> {
        set(&self.container)
    }

    /// The image asked for, `None` when the one in place stays.
    pub fn image(&self) -> Option<&str> {
        set(&self.image)
    }

    /// The cluster's id in the cloud, `None` when not set.
    pub fn cluster_id(&self) -> Option<&str> {
        set(&self.cluster_id)
    }

    /// The Secret with the cloud credentials, `None` when not set.
    pub fn credentials_secret_name(&self) -> Option<&str> {
        set(&self.credentials_secret_name)
    }
}

/// An empty string means the same as an absent field, here as in the schema rules.
fn set(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider(value: serde_json::Value) -> Provider {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_workload_is_named_by_both_parts() {
        let statefulset = provider(json!({
            "type": "StatefulSet", "management": "Create", "namespace": "kube-system", "name": "virtual-node-eci",
        }));
        assert_eq!(
            statefulset.workload().unwrap().to_string(),
            "kube-system/virtual-node-eci"
        );
        assert_eq!(statefulset.management(), Management::Create);

        let addon = provider(json!({ "type": "Addon" }));
        assert_eq!(addon.workload(), None);
        assert_eq!(addon.management(), Management::Adopt);
    }

    #[test]
    fn empty_strings_are_not_set() {
        let provider = provider(json!({
            "type": "StatefulSet", "container": "", "image": "", "clusterId": "", "credentialsSecretName": "",
        }));
        assert_eq!(provider.container(), None);
        assert_eq!(provider.image(), None);
        assert_eq!(provider.cluster_id(), None);
        assert_eq!(provider.credentials_secret_name(), None);
    }
}
