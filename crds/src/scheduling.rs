//! `spec.scheduling`: the order in which the vendor's scheduler fills node kinds.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rule, shape};

/// Use of the vendor's scheduler.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Scheduler for pods that a rule or policy selects, for example ack-co-scheduler. Replaces default-scheduler and no
    /// other. Default: none, pods keep theirs.
    #[schemars(regex(pattern = shape::DNS_SUBDOMAIN), length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,

    /// Policies to project as `scheduling.alibabacloud.com` ResourcePolicy objects, at most 32, each name once. Default: none.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_policies: Vec<ResourcePolicy>,
}

/// One policy: in which order the pods it selects fill node kinds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = policy_rules()))]
pub struct ResourcePolicy {
    /// Name of the policy, a DNS label.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub name: String,

    /// Namespaces that get the policy, one object each. Exactly one of namespaces and namespaceSelector is set.
    #[schemars(
        length(max = 64),
        inner(regex(pattern = shape::DNS_LABEL), length(max = 63)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,

    /// Labels of the namespaces that get the policy, one object each. Exactly one of namespaces and namespaceSelector is set.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Labels of the pods. Default: all of the namespace.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::label_value()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,

    /// Node kinds in the order they are filled, at most 10. Default: ecs, then eci (acs with computeDefaults).
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<PolicyUnit>,
}

/// One node kind of a policy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyUnit {
    /// Kind of resource, for example idc, ecs, eci or acs. An open set: the installed ResourcePolicy CRD decides.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub resource: String,

    /// Most pods of the policy on this kind. Default: no limit.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
}

fn policy_rules() -> Vec<Rule> {
    vec![rule::invalid(
        "(has(self.namespaces) && self.namespaces.size() > 0) != has(self.namespaceSelector)",
        "policy %s sets %s: set exactly one of namespaces and namespaceSelector",
        &["self.name", "has(self.namespaceSelector) ? 'both' : 'neither'"],
    )]
}
