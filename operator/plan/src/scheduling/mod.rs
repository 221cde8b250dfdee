//! `spec.scheduling.resourcePolicies`: one ResourcePolicy of the vendor's scheduler per policy and namespace, in the form
//! that the installed CRD takes. Objects that are not this pool's are never touched (P4).

mod desired;
mod minima;
mod namespaces;
mod reconcile;
mod schema;
mod warnings;

#[cfg(test)]
mod tests;

use serde_json::Value;
use vnp_crds::ResourcePolicy;

use crate::accept::served;
use crate::finding::{Finding, SchedulingState};
use crate::observed::{Observed, PolicyCrd};
use crate::plan::Part;

pub use reconcile::note_stored_policy;
pub use schema::PolicySchema;

/// API group of ResourcePolicies.
pub const GROUP: &str = "scheduling.alibabacloud.com";
/// The only version that the vendor documents.
pub const VERSION: &str = "v1alpha1";
/// Their kind.
pub const KIND: &str = "ResourcePolicy";
/// Their name in URLs and RBAC rules.
pub const PLURAL: &str = "resourcepolicies";
/// Name of their CustomResourceDefinition.
pub const CRD_NAME: &str = "resourcepolicies.scheduling.alibabacloud.com";

impl PolicyCrd {
    /// What a CustomResourceDefinition with the name [`CRD_NAME`] offers; `None`: there is none.
    pub fn read(crd: Option<&Value>) -> Self {
        let missing = |why: &str| {
            Self::Missing(format!(
                "ResourcePolicies can't be written: {why}. They are made as soon as it is there"
            ))
        };
        match crd.map(schema::read) {
            None => missing(&format!(
                "the CustomResourceDefinition {CRD_NAME} is not installed; enable the vendor's scheduler, in registered clusters \
                 the add-on ack-co-scheduler"
            )),
            Some(Err(why)) => missing(&why),
            Some(Ok(schema)) => Self::Installed(schema.into()),
        }
    }
}

/// Plans the pool's ResourcePolicies. `may_write`: the pool is accepted as far as it takes to make anything for it.
pub(crate) fn plan_scheduling(seen: &Observed, may_write: bool) -> Part {
    let mut part = Part::default();
    if !served(&seen.pool) {
        return part;
    }
    let wanted = wanted(seen);
    let schema = match &seen.scheduling.crd {
        PolicyCrd::Installed(schema) => schema,
        _ if wanted.is_empty() => return part,
        PolicyCrd::Missing(message) => {
            part.findings
                .push(finding(SchedulingState::CrdMissing, message.clone()));
            return part;
        }
        PolicyCrd::Unknown => {
            part.findings.push(unknown());
            return part;
        }
    };
    match &seen.scheduling.policies {
        Some(policies) => reconcile::reconcile(seen, wanted, schema, policies, may_write, &mut part),
        None if wanted.is_empty() => {}
        None => part.findings.push(unknown()),
    }
    part
}

/// No ResourcePolicy of the pool is left that was not told to go. One that nobody knows of goes with its owner, the pool.
pub(crate) fn released(seen: &Observed) -> bool {
    let policies = seen.scheduling.policies.iter().flat_map(|p| p.values());
    let mut ours = policies.filter(|p| p.belongs_to(seen.pool_name()));
    ours.all(|p| p.deleting)
}

/// The policies that the pool asks for; a pool that goes asks for none.
fn wanted(seen: &Observed) -> &[ResourcePolicy] {
    match &seen.pool.spec.scheduling {
        Some(scheduling) if !seen.deleting() => &scheduling.resource_policies,
        _ => &[],
    }
}

/// A policy of the spec, for people.
fn field(policy: &ResourcePolicy) -> String {
    format!("spec.scheduling.resourcePolicies[name={}]", policy.name)
}

fn finding(state: SchedulingState, message: String) -> Finding {
    Finding::Scheduling { state, message }
}

fn unknown() -> Finding {
    finding(
        SchedulingState::Unknown,
        format!(
            "whether {KIND} is installed and which there are is not known yet; if this stays, the operator lacks the rights of \
             config/rbac on {PLURAL}.{GROUP} and on their CustomResourceDefinition"
        ),
    )
}
