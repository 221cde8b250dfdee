//! The ways onto virtual nodes, from the pools' specs, in the order in which they are tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector};
use vnp_crds::{
    PlacementMode, PlacementRule, ResourcePolicy, TRUE, VirtualNodePool, WebhookMode, trigger_label,
};

use crate::accept::{refused_without_nodes, seniority, served};
use crate::compute::ComputeEffect;
use crate::selection::{self, Reach, UnreadableSelector, is_qualified_name};

/// The label with its own name that the API server puts on every namespace (KEP-2161).
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    /// The first one that has the pod places it: rules of the oldest pool first, in the order of its list; then the
    /// triggers, which belong to the oldest pool.
    pub(super) places: Vec<Route>,
    /// Policies that name a scheduler, the oldest pool's first. They place nothing, they name the scheduler that does.
    pub(super) policies: Vec<Route>,
    /// All pools, whoever places their pods. Where there are several, a rule has to say which one's nodes it means.
    pub(super) pools: Vec<Provider>,
}

/// Whose nodes a pool has.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) pool: String,
    /// Nodes are named `<name>-<ordinal>`.
    pub(super) name: String,
}

/// One way onto virtual nodes.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// What it is called on a pod: `<pool>/<rule>`. A trigger's name has a `=`, a policy's a dot: no rule's name has.
    pub(super) id: String,
    /// What it is called in the webhook configuration.
    pub(super) entry: String,
    pub(super) reach: Reach,
    pub(super) kind: Kind,
    pub(super) pool: Arc<PoolSide>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Rule {
        mode: PlacementMode,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    },
    Trigger,
    Policy,
}

/// What a pool gives to pods, whichever way they come.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolSide {
    pub(super) name: String,
    pub(super) compute: ComputeEffect,
    pub(super) scheduler: Option<String>,
}

/// A rule that can't be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleTrouble {
    /// One of its selectors.
    #[error("spec.placement.rules[name={rule}].{field} {source}")]
    Selector {
        rule: String,
        field: &'static str,
        source: UnreadableSelector,
    },
    /// A key that would make the API server refuse every pod of the rule.
    #[error(
        "spec.placement.rules[name={rule}].{field} has the key {key:?}, which no pod can have: use an optional DNS prefix and a \
         name of at most 63 letters, digits, -, _ and ."
    )]
    Key {
        rule: String,
        field: &'static str,
        key: String,
    },
    /// An annotation with which the API server would refuse every pod of the rule, or that makes a pod something else.
    #[error(
        "spec.placement.rules[name={rule}].annotations has {key}: {value:?}, which the API server checks against the pod and \
         would refuse: set it in the pod itself"
    )]
    Annotation {
        rule: String,
        key: String,
        value: String,
    },
}

impl Routes {
    pub(super) fn of(pools: &[Arc<VirtualNodePool>]) -> Self {
        let mut served: Vec<&VirtualNodePool> = pools
            .iter()
            .map(AsRef::as_ref)
            .filter(|pool| served(pool))
            .collect();
        served.sort_by(|a, b| seniority(a).cmp(&seniority(b)));
        let pools = served.iter().filter_map(|pool| {
            Some(Provider {
                pool: pool.metadata.name.clone()?,
                name: pool.spec.provider.name.clone().unwrap_or_default(),
            })
        });
        let pools = pools.collect();
        let ours: Vec<(&VirtualNodePool, Arc<PoolSide>)> = served
            .into_iter()
            .filter(|pool| places(pool))
            .map(|pool| (pool, Arc::new(PoolSide::of(pool))))
            .collect();
        let rules = ours.iter().flat_map(|(pool, side)| rules(pool, side));
        let triggers = ours.first().into_iter().flat_map(|(_, side)| {
            triggers().into_iter().map(|trigger| Route {
                id: format!("{}/{}", side.name, trigger.label),
                entry: format!("{}.triggers", trigger.entry),
                reach: trigger.reach,
                kind: Kind::Trigger,
                pool: side.clone(),
            })
        });
        Self {
            places: rules.chain(triggers).collect(),
            policies: ours
                .iter()
                .flat_map(|(pool, side)| policies(pool, side))
                .collect(),
            pools,
        }
    }

    /// The routes that need no rule.
    pub(super) fn triggers(&self) -> impl Iterator<Item = &Route> {
        let triggers = |route: &&Route| matches!(route.kind, Kind::Trigger);
        self.places.iter().filter(triggers)
    }
}

/// Whether pods come to this pool through our own webhook. A pause stops writes, not placement: the pool's nodes are there,
/// and its pods would wait for ever, or run elsewhere.
pub fn places(pool: &VirtualNodePool) -> bool {
    pool.spec.webhook() == WebhookMode::Operator
        && pool.metadata.deletion_timestamp.is_none()
        && !refused_without_nodes(pool)
}

impl PoolSide {
    fn of(pool: &VirtualNodePool) -> Self {
        let scheduling = pool.spec.scheduling.as_ref();
        Self {
            name: pool.metadata.name.clone().unwrap_or_default(),
            compute: ComputeEffect::of(pool.spec.compute_defaults.as_ref()),
            scheduler: scheduling
                .and_then(|s| s.scheduler_name.clone())
                .filter(|name| !name.is_empty()),
        }
    }
}

fn rules(pool: &VirtualNodePool, side: &Arc<PoolSide>) -> Vec<Route> {
    let rules = pool.spec.placement.iter().flat_map(|placement| &placement.rules);
    rules
        .filter(|rule| trouble(rule).is_none())
        .filter_map(|rule| {
            Some(Route {
                id: format!("{}/{}", side.name, rule.name),
                entry: format!("{}.{}.rules", rule.name, side.name),
                reach: rule_reach(rule).ok()?,
                kind: Kind::Rule {
                    mode: rule.mode,
                    labels: rule.labels.clone(),
                    annotations: rule.annotations.clone(),
                },
                pool: side.clone(),
            })
        })
        .collect()
}

fn policies(pool: &VirtualNodePool, side: &Arc<PoolSide>) -> Vec<Route> {
    let scheduling = pool.spec.scheduling.iter().filter(|_| side.scheduler.is_some());
    let policies = scheduling.flat_map(|scheduling| &scheduling.resource_policies);
    policies
        .filter_map(|policy| {
            Some(Route {
                id: format!("{}/policy.{}", side.name, policy.name),
                entry: format!("{}.{}.policies", policy.name, side.name),
                reach: policy_reach(policy).ok()?,
                kind: Kind::Policy,
                pool: side.clone(),
            })
        })
        .collect()
}

/// What of a rule can't be followed.
pub(crate) fn trouble(rule: &PlacementRule) -> Option<RuleTrouble> {
    let key = |field: &'static str, map: &BTreeMap<String, String>, fits: fn(&str) -> bool| {
        let key = map.keys().find(|key| !fits(key))?.clone();
        let rule = rule.name.clone();
        Some(RuleTrouble::Key { rule, field, key })
    };
    // Keys of annotations are compared in lower case. Source: apimachinery `ValidateAnnotations`.
    rule_reach(rule)
        .err()
        .or_else(|| key("labels", &rule.labels, is_qualified_name))
        .or_else(|| {
            key("annotations", &rule.annotations, |key| {
                is_qualified_name(&key.to_lowercase())
            })
        })
        .or_else(|| {
            let (key, value) = rule
                .annotations
                .iter()
                .find(|(key, value)| is_checked(key, value))?;
            Some(RuleTrouble::Annotation {
                rule: rule.name.clone(),
                key: key.clone(),
                value: value.clone(),
            })
        })
}

/// The API server looks into these annotations of a pod. Source: `ValidatePodSpecificAnnotations` of kube-apiserver.
fn is_checked(key: &str, value: &str) -> bool {
    const KEYS: [&str; 3] = [
        "kubernetes.io/config.mirror",
        "scheduler.alpha.kubernetes.io/tolerations",
        "seccomp.security.alpha.kubernetes.io/pod",
    ];
    const OF_CONTAINERS: [&str; 2] = [
        "container.seccomp.security.alpha.kubernetes.io/",
        "container.apparmor.security.beta.kubernetes.io/",
    ];
    let number = || value.parse().is_ok_and(|cost: i32| cost.to_string() == value);
    KEYS.contains(&key)
        || OF_CONTAINERS.iter().any(|prefix| key.starts_with(prefix))
        || key == "controller.kubernetes.io/pod-deletion-cost" && !number()
}

/// The pods that a rule means.
///
/// # Errors
/// [`RuleTrouble::Selector`] for a selector that is none.
pub(crate) fn rule_reach(rule: &PlacementRule) -> Result<Reach, RuleTrouble> {
    let read = |field: &'static str, selector: &Option<LabelSelector>| {
        let selector = selector.as_ref().map(selection::read).transpose();
        selector
            .map(Option::unwrap_or_default)
            .map_err(|source| RuleTrouble::Selector {
                rule: rule.name.clone(),
                field,
                source,
            })
    };
    Ok(Reach {
        namespaces: read("namespaceSelector", &rule.namespace_selector)?,
        pods: read("podSelector", &rule.pod_selector)?,
    })
}

/// The pods that a policy means.
///
/// # Errors
/// [`UnreadableSelector`] for a selector that is none.
pub(crate) fn policy_reach(policy: &ResourcePolicy) -> Result<Reach, UnreadableSelector> {
    let namespaces = match &policy.namespace_selector {
        Some(selector) => selection::read(selector)?,
        None => {
            let names = policy.namespaces.iter().cloned().collect();
            Expression::In(NAME_LABEL.to_owned(), names).into()
        }
    };
    let pods = selection::read(&LabelSelector {
        match_labels: Some(policy.selector.clone()),
        match_expressions: None,
    })?;
    Ok(Reach { namespaces, pods })
}

/// A documented label that brings pods to virtual nodes by itself.
struct Trigger {
    /// Key and value.
    label: String,
    /// First part of its name in the webhook configuration.
    entry: &'static str,
    reach: Reach,
}

/// The triggers: pod labels first, a pod's own word is stronger than its namespace's.
fn triggers() -> Vec<Trigger> {
    let on = |key: &str, value: &str| Selector::from(Expression::Equal(key.to_owned(), value.to_owned()));
    let pod = |entry, key: &str| Trigger {
        label: format!("{key}={TRUE}"),
        entry,
        reach: Reach {
            pods: on(key, TRUE),
            ..Reach::default()
        },
    };
    let namespace = |entry, key: &str, value: &str| Trigger {
        label: format!("namespace {key}={value}"),
        entry,
        reach: Reach {
            namespaces: on(key, value),
            ..Reach::default()
        },
    };
    vec![
        pod("pod-eci", trigger_label::ECI),
        pod("pod-acs", trigger_label::ACS),
        pod("pod-eci-legacy", trigger_label::LEGACY_ECI),
        namespace("namespace-eci", trigger_label::ECI, TRUE),
        namespace(
            "namespace-injection",
            trigger_label::LEGACY_INJECTION,
            trigger_label::LEGACY_INJECTION_VALUE,
        ),
    ]
}
