//! Objects as they come over the wire, cut down to what is used. serde skips the rest while it parses, so an object costs
//! its size only once: a Pod of several KiB leaves some hundred bytes.

mod node;
mod pod;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::{apps, core};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use vnp_plan::scheduling;

pub use self::node::SlimNode;
pub use self::pod::SlimPod;

macro_rules! resource {
    ($slim:ty, $full:ty, $scope:ty) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$full>::kind(&())
            }
            fn group((): &()) -> Cow<'_, str> {
                <$full>::group(&())
            }
            fn version((): &()) -> Cow<'_, str> {
                <$full>::version(&())
            }
            fn plural((): &()) -> Cow<'_, str> {
                <$full>::plural(&())
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(SlimPod, core::v1::Pod, NamespaceResourceScope);
resource!(SlimNode, core::v1::Node, ClusterResourceScope);
resource!(SlimNamespace, core::v1::Namespace, ClusterResourceScope);
resource!(RawWorkload, apps::v1::StatefulSet, NamespaceResourceScope);
resource!(RawCrd, CustomResourceDefinition, ClusterResourceScope);

/// The vendor publishes no types for it.
impl Resource for RawPolicy {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        scheduling::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        scheduling::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        scheduling::VERSION.into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        scheduling::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    finalizers: Option<Vec<String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// The few annotations that are read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
    #[serde(rename = "k8s.aliyun.com/eci-instance-id")]
    eci_instance: Option<String>,
    #[serde(rename = "alibabacloud.com/instance-id")]
    acs_instance: Option<String>,
    #[serde(rename = "virtualnodes.dev/cordoned-in-term")]
    cordon_term: Option<String>,
    #[serde(rename = "karpenter.sh/do-not-disrupt")]
    do_not_disrupt: Option<String>,
    #[serde(rename = "cluster-autoscaler.kubernetes.io/safe-to-evict")]
    safe_to_evict: Option<String>,
    #[serde(rename = "alibabacloud.com/drain-pod")]
    drain_pod: Option<String>,
    #[serde(rename = "virtualnodes.dev/placed-by")]
    placed_by: Option<String>,
    #[serde(rename = "virtualnodes.dev/compute-defaults")]
    compute: Option<String>,
}

impl Meta {
    /// What a watch needs: who it is and which version.
    fn identity(&self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            ..ObjectMeta::default()
        }
    }
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    #[serde(rename = "lastHeartbeatTime")]
    last_heartbeat: Option<Time>,
    #[serde(rename = "lastTransitionTime")]
    last_transition: Option<Time>,
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == "Ready")
}

/// A Namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NamespaceWire")]
pub struct SlimNamespace {
    /// Name, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// Labels, by which stages and policies select.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted.
    pub leaving: bool,
}

#[derive(Deserialize)]
struct NamespaceWire {
    #[serde(default)]
    metadata: Meta,
}

impl From<NamespaceWire> for SlimNamespace {
    fn from(NamespaceWire { metadata }: NamespaceWire) -> Self {
        Self {
            metadata: metadata.identity(),
            leaving: metadata.deletion_timestamp.is_some(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

macro_rules! raw {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(from = "Value")]
        pub struct $name {
            /// Name, namespace, uid, resourceVersion.
            pub metadata: ObjectMeta,
            /// All of it.
            pub raw: Value,
        }

        impl From<Value> for $name {
            fn from(raw: Value) -> Self {
                let text = |key: &str| raw.get("metadata")?.get(key)?.as_str().map(ToOwned::to_owned);
                let metadata = ObjectMeta {
                    name: text("name"),
                    namespace: text("namespace"),
                    uid: text("uid"),
                    resource_version: text("resourceVersion"),
                    ..ObjectMeta::default()
                };
                Self { metadata, raw }
            }
        }
    };
}

raw! {
    /// A StatefulSet, byte for byte what the server sent: our patches must let everything survive that is in it (P4).
    RawWorkload
}
raw! {
    /// A CustomResourceDefinition: its schema has no types.
    RawCrd
}
raw! {
    /// A ResourcePolicy of the vendor's scheduler.
    RawPolicy
}
