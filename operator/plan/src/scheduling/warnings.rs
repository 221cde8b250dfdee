//! Policies that are written as they are asked for and probably not meant so.

use vnp_crds::{EventReason, ResourcePolicy, TRUE, trigger_label};

use super::desired::ACS;
use super::field;
use super::namespaces::Namespaces;
use crate::compute::ComputeEffect;
use crate::finding::{EventNote, Finding};
use crate::observed::Observed;

/// Warnings about a policy and the namespaces that get it.
pub(super) fn warnings(seen: &Observed, policy: &ResourcePolicy, homes: &Namespaces<'_>) -> Vec<Finding> {
    let warnings = [dead(seen, policy, homes), gpu(seen, policy)];
    warnings
        .into_iter()
        .flatten()
        .map(|(subject, note)| {
            Finding::Event(EventNote {
                reason: EventReason::ConfigWarning,
                subject: format!("{} {subject}", field(policy)),
                note,
            })
        })
        .collect()
}

/// The label `alibabacloud.com/eci` outranks a ResourcePolicy. Source: ACK documentation, "scheduling methods for virtual
/// nodes".
fn dead(seen: &Observed, policy: &ResourcePolicy, homes: &Namespaces<'_>) -> Option<(&'static str, String)> {
    let pods = [trigger_label::ECI, trigger_label::ACS, trigger_label::LEGACY_ECI];
    let on_pods = pods
        .into_iter()
        .find(|label| policy.selector.get(*label).is_some_and(|v| v == TRUE));
    if let Some(label) = on_pods {
        let note = format!(
            "{} selects pods with label {label}, which go to virtual nodes past every ResourcePolicy; select them by another \
             label, or take that one off the pods",
            field(policy)
        );
        return Some(("selector", note));
    }
    let triggers = [
        (trigger_label::ECI, TRUE),
        (
            trigger_label::LEGACY_INJECTION,
            trigger_label::LEGACY_INJECTION_VALUE,
        ),
    ];
    let namespace = homes.present.iter().find_map(|name| {
        let labels = seen.namespaces.get(*name)?;
        let (label, _) = triggers
            .into_iter()
            .find(|(label, value)| labels.get(*label).is_some_and(|v| v == value))?;
        Some((name, label))
    });
    let (name, label) = namespace?;
    let note = format!(
        "{} has no effect in namespace {name}: its label {label} brings all pods to virtual nodes past every ResourcePolicy; \
         remove the label, or leave the namespace out",
        field(policy)
    );
    Some(("namespaces", note))
}

/// A ResourcePolicy can't ask whether a pod requests a GPU.
fn gpu(seen: &Observed, policy: &ResourcePolicy) -> Option<(&'static str, String)> {
    let effect = ComputeEffect::of(seen.pool.spec.compute_defaults.as_ref());
    let acs = policy.units.is_empty() || policy.units.iter().any(|u| u.resource == ACS);
    (effect.gpu_only && acs).then(|| {
        let note = format!(
            "{} gives the GPU class of spec.computeDefaults to every pod that it places on acs; select only pods that request \
             a GPU, with requests equal to limits",
            field(policy)
        );
        ("gpu", note)
    })
}
