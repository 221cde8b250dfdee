//! What compute defaults make of a pod is the same on all three ways: webhook, `eci-profile` and ResourcePolicy.

use std::collections::BTreeMap;

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{labelled, pool, stored, with};
use crate::observed::{Observed, PolicyCrd};
use crate::profile::wanted_selectors;
use crate::scheduling::{VERSION, plan_scheduling};
use crate::step::Step;

type Labels = BTreeMap<String, String>;

/// `alibabacloud.com/acs` alone may differ: it brings the pod, and a unit says so by its resource.
fn without_trigger(labels: &Value) -> Labels {
    let mut labels: Labels = serde_json::from_value(labels.clone()).unwrap_or_default();
    labels.remove("alibabacloud.com/acs");
    labels
}

/// A cluster whose scheduler takes any ResourcePolicy.
fn policies_of(pool: &vnp_crds::VirtualNodePool) -> Vec<Value> {
    let crd = json!({
        "spec": { "versions": [{ "name": VERSION, "served": true, "schema": { "openAPIV3Schema": { "type": "object",
            "properties": { "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } }] },
        "status": { "conditions": [{ "type": "Established", "status": "True" }] },
    });
    let mut seen: Observed = crate::testing::observed(pool.clone(), 1);
    seen.namespaces = std::sync::Arc::new([("shop".to_owned(), Labels::new())].into());
    seen.scheduling.crd = PolicyCrd::read(Some(&crd));
    seen.scheduling.policies = Some(Default::default());
    let part = plan_scheduling(&seen, true);
    let bodies = part.steps.into_iter().filter_map(|step| match step {
        Step::ApplyPolicy(apply) => Some(apply.body),
        _ => None,
    });
    bodies.collect()
}

proptest! {
    #[test]
    fn all_ways_give_the_same(
        class in of(select(vec!["general-purpose", "performance", "gpu", "gpu-hpn", "some-other"])),
        qos in of(select(vec!["default", "best-effort"])),
        series in of(select(vec!["T4", "A10"])),
    ) {
        let pool = pool("burst", 2026, json!({
            "computeDefaults": { "class": class, "qos": qos, "gpuModelSeries": series },
            "placement": { "rules": [{ "name": "all", "mode": "Require", "podSelector": { "matchLabels": { "app": "a" } } }] },
            "scheduling": { "resourcePolicies": [{ "name": "web", "namespaces": ["shop"], "units": [{ "resource": "acs" }] }] },
        }));
        let gpu = json!({ "spec": { "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu": "1" } } }] } });
        let mut pod = stored(std::slice::from_ref(&pool), &with(labelled(&[("app", "a")]), gpu), &[]);
        pod["metadata"]["labels"].as_object_mut().unwrap().remove("app");
        let webhook = without_trigger(&pod["metadata"]["labels"]);

        let policies = policies_of(&pool);
        prop_assert_eq!(policies.len(), 1);
        let unit = &policies[0]["spec"]["units"][0];
        prop_assert_eq!(&without_trigger(&unit["podLabels"]), &webhook);
        let key = "alibabacloud.com/gpu-model-series";
        prop_assert_eq!(&unit["nodeSelector"][key], &pod["spec"]["nodeSelector"][key]);

        let selectors = wanted_selectors(&pool);
        prop_assert_eq!(selectors.len(), 1);
        let effect = &selectors[0].value["effect"]["labels"];
        // An entry of the profile can't tell which pods request a GPU.
        let expected = if matches!(class, Some("gpu" | "gpu-hpn")) { Labels::new() } else { webhook };
        prop_assert_eq!(without_trigger(effect), expected);
        let acs = "alibabacloud.com/acs";
        if !matches!(class, Some("gpu" | "gpu-hpn")) {
            prop_assert_eq!(&effect[acs], &pod["metadata"]["labels"][acs]);
        }
    }
}
