//! What this version does not act on yet. It is refused by name, never accepted in silence; what equals its default asks
//! for nothing and is never refused.

use vnp_crds::{ComputeQos, ProviderType, Reason, VirtualNodePoolSpec};

use super::Refusal;

fn not_yet(field: &str, value: impl std::fmt::Display, remedy: &str) -> Refusal {
    Refusal::new(
        Reason::NotSupportedYet,
        format!("{field} is {value}, which this version does not act on; {remedy}."),
    )
}

/// A form of the provider that is not served: nothing at all is written for it.
pub(super) fn provider_type(spec: &VirtualNodePoolSpec) -> Option<Refusal> {
    match spec.provider.type_ {
        ProviderType::StatefulSet => None,
        other => Some(not_yet(
            "spec.provider.type",
            other,
            "nothing is written for this pool; delete it, or make one with type StatefulSet",
        )),
    }
}

/// Sections that are left undone while the rest works.
pub(super) fn sections(spec: &VirtualNodePoolSpec) -> Vec<Refusal> {
    const UNDONE: &str = "it is left undone, the rest of the pool works; remove it";
    let mut refused = Vec::new();
    let mut refuse = |field: &str, value: String| refused.push(not_yet(field, value, UNDONE));
    if let Some(placement) = spec.placement.as_ref().filter(|p| !p.rules.is_empty()) {
        refuse(
            "spec.placement.rules",
            set(placement.rules.iter().map(|r| r.name.as_str())),
        );
    }
    let scheduler = spec.scheduling.as_ref().and_then(|s| s.scheduler_name.as_deref());
    if let Some(name) = scheduler.filter(|n| !n.is_empty()) {
        refuse("spec.scheduling.schedulerName", name.to_owned());
    }
    if let Some(compute) = &spec.compute_defaults {
        if let Some(class) = compute.class.as_deref().filter(|c| !c.is_empty()) {
            refuse("spec.computeDefaults.class", class.to_owned());
        }
        if let Some(qos) = compute.qos.filter(|q| *q != ComputeQos::Default) {
            refuse("spec.computeDefaults.qos", qos.to_string());
        }
        if let Some(series) = compute.gpu_model_series.as_deref().filter(|s| !s.is_empty()) {
            refuse("spec.computeDefaults.gpuModelSeries", series.to_owned());
        }
    }
    refused
}

fn set<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("set ({})", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::pool;

    fn spec(overlay: Value) -> VirtualNodePoolSpec {
        pool(json!({ "spec": overlay })).spec
    }

    #[test]
    fn what_equals_its_default_asks_for_nothing() {
        for overlay in [
            json!({}),
            json!({ "placement": {} }),
            json!({ "placement": { "rules": [] } }),
            json!({ "placement": { "webhook": "Operator" } }),
            json!({ "placement": { "webhook": "None" } }),
            json!({ "placement": { "webhook": "Vendor" } }),
            json!({ "scheduling": {} }),
            json!({ "scheduling": { "resourcePolicies": [] } }),
            json!({ "scheduling": { "resourcePolicies": [{ "name": "web", "namespaces": ["shop"] }] } }),
            json!({ "computeDefaults": {} }),
            json!({ "computeDefaults": { "qos": "default" } }),
            json!({ "drain": {} }),
            json!({ "drain": { "timeoutSeconds": 60, "onTimeout": "ForceDelete" } }),
            json!({ "drain": { "timeoutSeconds": 60, "onTimeout": "Abort" } }),
            json!({ "drain": { "onTimeout": "Wait", "stages": [] } }),
            json!({ "drain": { "pace": "Unlimited", "reap": "None", "barePods": "Evict", "capacityCheck": "Ignore" } }),
        ] {
            let spec = spec(overlay.clone());
            assert_eq!(provider_type(&spec), None, "{overlay}");
            assert_eq!(sections(&spec), [], "{overlay}");
        }
    }

    #[test]
    fn each_section_is_named_with_its_value() {
        let rule = json!({ "name": "batch", "mode": "Require" });
        for (overlay, field, value) in [
            (
                json!({ "placement": { "rules": [rule] } }),
                "spec.placement.rules",
                "batch",
            ),
            (
                json!({ "scheduling": { "schedulerName": "x" } }),
                "spec.scheduling.schedulerName",
                "x",
            ),
            (
                json!({ "computeDefaults": { "class": "gpu" } }),
                "spec.computeDefaults.class",
                "gpu",
            ),
            (
                json!({ "computeDefaults": { "qos": "best-effort" } }),
                "spec.computeDefaults.qos",
                "best-effort",
            ),
            (
                json!({ "computeDefaults": { "gpuModelSeries": "T4" } }),
                "spec.computeDefaults.gpuModelSeries",
                "T4",
            ),
        ] {
            let spec = spec(overlay);
            let refused = sections(&spec);
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(
                refused[0].message.starts_with(field) && refused[0].message.contains(value),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn forms_that_are_not_served() {
        for form in ["Deployment", "Addon"] {
            let refused = provider_type(&spec(json!({ "provider": { "type": form } }))).unwrap();
            assert!(refused.message.contains(form), "{refused:?}");
        }
    }
}
