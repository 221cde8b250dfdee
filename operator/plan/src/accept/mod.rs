//! What of a pool may be acted on: everything that the schema can't check, because it takes the cluster, the other pools
//! or this version of the operator to know.

mod container;
mod node_name;
mod policies;
mod rivals;
mod rules;
mod supported;
mod versions;
mod warnings;
mod workload;

#[cfg(test)]
pub(crate) mod testing;

use vnp_crds::{ConditionType, PlacementMode, ProviderType, Reason};

use crate::drain::stages::Stages;
use crate::finding::Finding;
use crate::observed::{Observed, Right};
use crate::profile;

pub use container::{ContainerDoubt, provider_container};
pub(crate) use rivals::seniority;
pub(crate) use warnings::warning;

/// What may be done with the pool, and what is to be said about its spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acceptance {
    /// [`Finding::Refused`] for each thing that can't be followed, and events about what is probably not meant.
    pub findings: Vec<Finding>,
    /// The workload may be written. Never a reason to stop the drain of a workload that the pool holds.
    pub workload: bool,
    /// The pool's part of the profile may be written. What it wrote before stays when not.
    pub profile: bool,
    /// Why no node of the pool may be drained.
    pub drain_held: Option<String>,
}

impl Acceptance {
    /// Nothing is refused: condition Accepted is True.
    pub fn accepted(&self) -> bool {
        !self.findings.iter().any(|f| matches!(f, Finding::Refused { .. }))
    }
}

/// One thing that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            reason: refusal.reason,
            message: refusal.message,
        }
    }
}

/// Judges the pool. A contradiction stops only what it makes unsafe:
///
/// * trouble with the workload stops writes to it, and the pool's profile with it, because both must say the same;
/// * a profile that contradicts an older pool's stops the profile alone: the env of this provider is nobody else's;
/// * a drain field that is not understood stops drains, because draining by half of what was asked is worse than waiting;
/// * a rule that can't be followed stops only itself.
pub fn accept(observed: &Observed) -> Acceptance {
    if let Some(refusal) = supported::provider_type(&observed.pool.spec) {
        return Acceptance {
            findings: vec![refusal.into()],
            ..Acceptance::default()
        };
    }
    let workload = workload::check(observed);
    let contradiction = profile::contradiction(&observed.pool, &observed.others);
    let drain = unreadable_stage(observed);
    let misspelt = misspelt_setting(observed);
    let powerless = powerless_rules(observed);

    let may_write = workload.is_none();
    let profile = may_write && contradiction.is_none() && misspelt.is_none();
    let drain_held = drain.as_ref().map(|r| r.message.clone());
    let conflict = contradiction.map(|c| Refusal::new(Reason::Conflict, c.to_string()));
    let mut findings: Vec<Finding> = workload
        .into_iter()
        .chain(conflict)
        .chain(misspelt)
        .chain(drain)
        .chain(powerless)
        .chain(rules::refusals(observed))
        .map(Finding::from)
        .collect();
    findings.extend(warnings::warnings(observed));
    findings.extend(node_name::warnings(observed));
    findings.extend(rules::warnings(observed));
    findings.extend(policies::warnings(observed));
    findings.extend(versions::warnings(observed));
    Acceptance {
        findings,
        workload: may_write,
        profile,
        drain_held,
    }
}

/// A selector of a stage that selects nobody knows what: the schema takes any word for an operator.
fn unreadable_stage(observed: &Observed) -> Option<Refusal> {
    let stages = &observed.pool.spec.drain().stages;
    let error = Stages::read(stages, &observed.namespaces).err()?;
    Some(Refusal::new(
        Reason::InvalidSpec,
        format!("{error}. No node is drained until it is repaired"),
    ))
}

/// A setting that no provider reads, because a field of the pool owns the key that was meant.
fn misspelt_setting(observed: &Observed) -> Option<Refusal> {
    let settings = observed.pool.spec.profile().settings;
    let (key, meant) = settings
        .keys()
        .find_map(|key| Some((key, profile::misspelt(key)?)))?;
    Some(Refusal::new(
        Reason::InvalidSpec,
        format!(
            "spec.profile.settings has the key {key}, which no provider reads; {meant} is meant and is written by a field of its \
             own; remove the setting. Until then this pool writes nothing to the profile"
        ),
    ))
}

/// Rules whose pods wait for ever where ordinary nodes are full. Everything else about the pool works.
fn powerless_rules(observed: &Observed) -> Option<Refusal> {
    let rules = &observed.pool.spec.placement.as_ref()?.rules;
    let prefer = rules.iter().filter(|r| r.mode == PlacementMode::Prefer);
    let names: Vec<&str> = prefer.map(|r| r.name.as_str()).collect();
    (observed.overflow == Right::Missing && !names.is_empty()).then(|| {
        Refusal::new(
            Reason::InvalidSpec,
            format!(
                "spec.placement.rules has {} with mode Prefer, for which the operator has to patch pods and may not: its pods \
                 stay on ordinary nodes; apply config/components/overflow, or use mode Require",
                names.join(", ")
            ),
        )
    })
}

/// Pools that this version serves.
pub(crate) fn served(pool: &vnp_crds::VirtualNodePool) -> bool {
    pool.spec.provider.type_ == ProviderType::StatefulSet
}

/// Whether the pool's workload is refused, as its status says, and no node is its own: nodes that pods could wait for
/// will not come.
pub(crate) fn refused_without_nodes(pool: &vnp_crds::VirtualNodePool) -> bool {
    const WORKLOAD: [Reason; 7] = [
        Reason::Conflict,
        Reason::WorkloadExists,
        Reason::WorkloadNotFound,
        Reason::NotAProvider,
        Reason::ContainerAmbiguous,
        Reason::EnvFromReference,
        Reason::NamespaceNotAllowed,
    ];
    pool.status.as_ref().is_some_and(|status| {
        let accepted = status.condition(ConditionType::Accepted);
        status.nodes.unwrap_or(0) == 0
            && accepted
                .is_some_and(|c| c.status == "False" && WORKLOAD.iter().any(|r| r.as_str() == c.reason))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::testing::{adopting, held, observed, pool, with_workload, workload};
    use super::*;

    fn reasons(acceptance: &Acceptance) -> Vec<Reason> {
        let refused = acceptance.findings.iter().filter_map(|f| match f {
            Finding::Refused { reason, .. } => Some(*reason),
            _ => None,
        });
        refused.collect()
    }

    #[test]
    fn a_plain_pool_may_do_everything() {
        let acceptance = accept(&observed(pool(json!({}))));
        assert_eq!(
            acceptance,
            Acceptance {
                workload: true,
                profile: true,
                drain_held: None,
                findings: Vec::new()
            }
        );
        assert!(acceptance.accepted());
    }

    #[test]
    fn a_form_that_is_not_served_may_do_nothing() {
        for form in ["Deployment", "Addon"] {
            let acceptance = accept(&observed(adopting(
                json!({ "spec": { "provider": { "type": form } } }),
            )));
            assert_eq!(reasons(&acceptance), [Reason::NotSupportedYet]);
            assert!(!acceptance.workload && !acceptance.profile && acceptance.drain_held.is_none());
        }
    }

    #[test]
    fn trouble_with_the_workload_stops_its_profile_and_never_the_drain() {
        let held = {
            let env = json!([{ "name": "ECI_VSWITCH", "valueFrom": {} }, { "name": "ECI_REGION", "value": "cn-hangzhou" }]);
            let mut overlay = held();
            let containers = json!([{ "name": "vk", "env": env }]);
            json_patch::merge(
                &mut overlay,
                &json!({ "spec": { "template": { "spec": { "containers": containers } } } }),
            );
            workload(overlay)
        };
        let acceptance = accept(&with_workload(observed(adopting(json!({}))), held));
        assert_eq!(reasons(&acceptance), [Reason::EnvFromReference]);
        assert!(!acceptance.workload && !acceptance.profile);
        assert_eq!(acceptance.drain_held, None);
    }

    #[test]
    fn another_profile_stops_the_profile_alone() {
        let older = pool(json!({
            "metadata": { "name": "a", "creationTimestamp": "2025-01-01T00:00:00Z" },
            "spec": { "provider": { "name": "other" }, "network": { "securityGroupId": "sg-2" } },
        }));
        let seen = Observed {
            others: vec![Arc::new(older)],
            ..observed(pool(json!({})))
        };
        let acceptance = accept(&seen);
        assert_eq!(reasons(&acceptance), [Reason::Conflict]);
        assert!(acceptance.workload && !acceptance.profile);
    }

    #[test]
    fn a_misspelt_setting_stops_the_profile_alone() {
        let seen = observed(pool(
            json!({ "spec": { "profile": { "settings": { "vswitchIds": "vsw-2" } } } }),
        ));
        let acceptance = accept(&seen);
        assert_eq!(reasons(&acceptance), [Reason::InvalidSpec]);
        assert!(acceptance.workload && !acceptance.profile);
        let told = format!("{:?}", acceptance.findings);
        assert!(
            told.contains("vswitchIds") && told.contains("vSwitchIds is meant"),
            "{told}"
        );
    }

    #[test]
    fn every_section_is_acted_on() {
        for overlay in [
            json!({ "placement": { "webhook": "Vendor" } }),
            json!({ "placement": { "rules": [{ "name": "batch", "mode": "Require" }] } }),
            json!({ "scheduling": { "schedulerName": "x" } }),
            json!({ "scheduling": { "resourcePolicies": [{ "name": "web", "namespaces": ["shop"] }] } }),
            json!({ "computeDefaults": { "class": "gpu", "qos": "best-effort", "gpuModelSeries": "T4" } }),
            json!({ "drain": { "timeoutSeconds": 60, "onTimeout": "ForceDelete", "stages": [] } }),
        ] {
            let acceptance = accept(&observed(pool(json!({ "spec": overlay }))));
            assert_eq!(reasons(&acceptance), [], "{overlay}");
        }
    }

    #[test]
    fn a_rule_that_needs_a_right_that_is_missing_is_named() {
        let of = |mode: &str, right| {
            let rule = json!({ "name": "batch", "podSelector": {}, "mode": mode });
            let mut seen = observed(pool(json!({ "spec": { "placement": { "rules": [rule] } } })));
            seen.overflow = right;
            let acceptance = accept(&seen);
            assert!(acceptance.workload && acceptance.profile && acceptance.drain_held.is_none());
            format!("{:?}", acceptance.findings)
        };
        let told = of("Prefer", Right::Missing);
        assert!(
            told.contains("batch with mode Prefer") && told.contains("config/components/overflow"),
            "{told}"
        );
        for (mode, right) in [
            ("Prefer", Right::Granted),
            ("Prefer", Right::Unknown),
            ("Require", Right::Missing),
        ] {
            assert!(!of(mode, right).contains("may not"), "{mode} {right:?}");
        }
    }

    #[test]
    fn a_stage_that_can_t_be_understood_holds_drains_and_one_that_can_does_not() {
        let of = |operator: &str| {
            let stage = json!({ "name": "web", "waitFor": "Eviction", "podSelector": {
                "matchExpressions": [{ "key": "tier", "operator": operator, "values": ["web"] }] } });
            accept(&observed(pool(json!({ "spec": { "drain": {
                "stages": [stage], "daemonSetPods": "IgnoreNeverStarted" } } }))))
        };
        assert_eq!((reasons(&of("In")), of("In").drain_held), (Vec::new(), None));
        let refused = of("in");
        assert_eq!(reasons(&refused), [Reason::InvalidSpec]);
        assert!(refused.workload && refused.profile);
        let held = refused.drain_held.unwrap();
        assert!(held.contains("spec.drain.stages[name=web].podSelector"), "{held}");
    }
}
