//! `spec.placement`: which pods go to virtual nodes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rule, shape, wire_enum::wire_enum};

wire_enum! {
    /// Whose pod webhook brings pods to virtual nodes.
    pub enum WebhookMode {
        /// The operator's own.
        Operator,
        /// The provider's, which is verified and reported.
        Vendor,
        /// None.
        None,
    }
}

wire_enum! {
    /// How strongly a rule binds a pod to virtual nodes.
    pub enum PlacementMode {
        /// Only virtual nodes.
        Require,
        /// Virtual nodes only for what ordinary nodes can't take.
        Prefer,
    }
}

/// Brings pods to virtual nodes without touching their manifests.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Operator: the operator's own pod webhook. Vendor: the provider's, which is only verified. None: no webhook. Default:
    /// Operator with provider type StatefulSet, otherwise Vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookMode>,

    /// Rules, at most 32, each name once. Default: none.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PlacementRule>,
}

/// One rule: the pods it selects and what they get. What a pod says itself always wins.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule::selects()]))]
pub struct PlacementRule {
    /// Name of the rule, a DNS label.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub name: String,

    /// Namespaces of the pods. Default: all, if podSelector is set.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Labels of the pods. Default: all, if namespaceSelector is set.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,

    /// Require: only virtual nodes. Prefer: virtual nodes only for what ordinary nodes can't take.
    pub mode: PlacementMode,

    /// Labels added to the pod, never overwriting its own. Default: none.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::label_value()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations added to the pod, never overwriting its own, for example `k8s.aliyun.com/eci-use-specs: 2-4Gi`. Default:
    /// none.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::text(4096)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
