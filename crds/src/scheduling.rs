//! `spec.scheduling`: the order in which the vendor's scheduler fills node kinds.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{network::Switch, rule, shape, wire_enum::wire_enum};

wire_enum! {
    /// What a policy does when no unit can take a pod.
    pub enum PolicyStrategy {
        /// Units in their order, other nodes when they are full. The only value that the vendor documents.
        Prefer = "prefer",
        /// Only the units. Known to some editions of the scheduler.
        Required = "required",
    }
}

wire_enum! {
    /// When a pod may preempt others.
    pub enum PreemptPolicy {
        /// After every unit was tried.
        AfterAllUnits,
        /// In each unit, before the next one is tried.
        BeforeNextUnit,
    }
}

wire_enum! {
    /// When the next unit is tried.
    pub enum NextUnitsPolicy {
        /// The unit has `max` pods.
        ExceedMax,
        /// The unit has no room, and no pod of it is terminating.
        LackResourceAndNoTerminating,
        /// The unit has no room, or `max` pods.
        LackResourceOrExceedMax,
        /// The pod has waited for `timeoutSeconds`, or the unit has `max` pods.
        TimeoutOrExceedMax,
    }
}

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

    /// prefer: units in their order. Default: prefer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<PolicyStrategy>,

    /// When a pod may preempt others, scheduler 6.1 and later; not for acs units. Default: the scheduler's, which is
    /// AfterAllUnits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preempt_policy: Option<PreemptPolicy>,

    /// Enabled: pods older than the policy do not count, scheduler 6.1 and later. Needs a unit with a maximum. Default: the
    /// scheduler's, which is Disabled since 6.4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_previous_pod: Option<Switch>,

    /// Enabled: terminating pods do not count, scheduler 6.1 and later. Needs a unit with a maximum. Default: the
    /// scheduler's, which is Enabled since 6.4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_terminating_pod: Option<Switch>,

    /// Labels by whose values pods are counted apart, for example pod-template-hash, at most 10, scheduler 6.2 and later; a
    /// pod without one of them is rejected. Needs a unit with a maximum. Default: all pods are counted together.
    #[schemars(
        length(max = 10),
        inner(regex(pattern = shape::LABEL_KEY), length(max = 317)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_label_keys: Vec<String>,

    /// When the next unit is tried, scheduler 6.4 and later. Default: the scheduler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_try_next_units: Option<WhenTryNextUnits>,
}

/// One node kind of a policy.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyUnit {
    /// Kind of resource, for example idc, ecs, eci, acs or elastic. An open set: the installed ResourcePolicy CRD decides.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub resource: String,

    /// Most pods of the policy on this kind. Default: no limit.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,

    /// Most of each resource that pods of the policy request on this kind, for example cpu: "64", scheduler 6.9.5 and
    /// later. Default: no limit.
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = shape::quantity()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max_resources: BTreeMap<String, String>,

    /// Labels of the nodes of this kind. Default: all of them.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::label_value()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Labels that the scheduler writes to the pods it places here; only pods with them count. On acs units the labels of
    /// computeDefaults are added to them and overwrite none. Default: none.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::label_value()))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,

    /// Annotations that the scheduler writes to the pods it places here. Default: none.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = shape::text(4096)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
}

/// When the next unit of a policy is tried.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = next_units_rules()))]
pub struct WhenTryNextUnits {
    /// ExceedMax, LackResourceAndNoTerminating, LackResourceOrExceedMax (what the scheduler does by itself) or
    /// TimeoutOrExceedMax.
    pub policy: NextUnitsPolicy,

    /// How long a pod waits for a unit, in seconds, with policy TimeoutOrExceedMax; acs units ignore it. Default: the
    /// scheduler's, which is 900.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

fn policy_rules() -> Vec<Rule> {
    let mut rules = vec![rule::invalid(
        "(has(self.namespaces) && self.namespaces.size() > 0) != has(self.namespaceSelector)",
        "policy %s sets %s: set exactly one of namespaces and namespaceSelector",
        &["self.name", "has(self.namespaceSelector) ? 'both' : 'neither'"],
    )];
    // The vendor documents all three as effective together with a maximum only.
    for (field, set) in [
        ("ignorePreviousPod", "has(self.ignorePreviousPod)"),
        ("ignoreTerminatingPod", "has(self.ignoreTerminatingPod)"),
        (
            "matchLabelKeys",
            "has(self.matchLabelKeys) && self.matchLabelKeys.size() > 0",
        ),
    ] {
        rules.push(rule::forbidden(
            &format!(
                "!({set}) || (has(self.units) && self.units.exists(u, has(u.max) || has(u.maxResources)))"
            ),
            field,
            &format!("{field} of policy %s counts pods against a maximum, and no unit has one: set max on a unit, or remove {field}"),
            &["self.name"],
        ));
    }
    rules
}

fn next_units_rules() -> Vec<Rule> {
    vec![rule::forbidden(
        "!has(self.timeoutSeconds) || self.policy == 'TimeoutOrExceedMax'",
        "timeoutSeconds",
        "timeoutSeconds has no meaning with policy %s: remove it, or set policy TimeoutOrExceedMax",
        &["self.policy"],
    )]
}
