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
    labels.remove(ACS);
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

const CLASS: &str = "alibabacloud.com/compute-class";
const QOS: &str = "alibabacloud.com/compute-qos";
const SERIES: &str = "alibabacloud.com/gpu-model-series";
const ACS: &str = "alibabacloud.com/acs";

fn classes() -> impl Strategy<Value = Option<&'static str>> {
    of(select(vec![
        "general-purpose",
        "performance",
        "gpu",
        "gpu-hpn",
        "some-other",
    ]))
}

fn qos() -> impl Strategy<Value = Option<&'static str>> {
    of(select(vec!["default", "best-effort"]))
}

fn series() -> impl Strategy<Value = Option<&'static str>> {
    of(select(vec!["T4", "A10"]))
}

/// Labels that say something of the instance already.
fn said() -> impl Strategy<Value = Labels> {
    (
        classes(),
        qos(),
        series(),
        of(select(vec!["alibabacloud.com/eci", "eci"])),
    )
        .prop_map(|(class, qos, series, eci)| {
            let eci = eci.map(|key| (key, "true"));
            let labels = [
                class.map(|v| (CLASS, v)),
                qos.map(|v| (QOS, v)),
                series.map(|v| (SERIES, v)),
                eci,
            ];
            labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        })
}

proptest! {
    /// Whoever says something already, the pod, the rule or the unit: what defaults add to it is the same.
    #[test]
    fn all_ways_give_the_same(class in classes(), qos in qos(), series in series(), said in said()) {
        let of = |rule_labels: &Labels| pool("burst", 2026, json!({
            "computeDefaults": { "class": class, "qos": qos, "gpuModelSeries": series },
            "placement": { "rules": [{ "name": "all", "mode": "Require", "podSelector": { "matchLabels": { "app": "a" } },
                                       "labels": rule_labels }] },
            "scheduling": { "resourcePolicies": [{ "name": "web", "namespaces": ["shop"],
                                                   "units": [{ "resource": "acs", "podLabels": said }] }] },
        }));
        let (silent, speaking) = (of(&Labels::new()), of(&said));
        let gpu = json!({ "spec": { "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu": "1" } } }] } });
        let placed = |pool: &std::sync::Arc<vnp_crds::VirtualNodePool>, own: &Labels| {
            let own = json!({ "metadata": { "labels": own } });
            let pod = with(with(labelled(&[("app", "a")]), gpu.clone()), own);
            let mut pod = stored(std::slice::from_ref(pool), &pod, &[]);
            pod["metadata"]["labels"].as_object_mut().unwrap().remove("app");
            pod
        };
        let (by_pod, by_rule) = (placed(&silent, &said), placed(&speaking, &Labels::new()));
        let webhook = without_trigger(&by_rule["metadata"]["labels"]);
        prop_assert_eq!(&without_trigger(&by_pod["metadata"]["labels"]), &webhook);
        let model = &by_rule["spec"]["nodeSelector"][SERIES];
        prop_assert_eq!(&by_pod["spec"]["nodeSelector"][SERIES], model);

        let pair = |labels: &Labels| (labels.get(CLASS).cloned(), labels.get(QOS).cloned());
        let defaults = (class.map(str::to_owned), class.and(qos).map(str::to_owned));
        prop_assert!([pair(&said), defaults].contains(&pair(&webhook)), "a pair that nobody chose: {:?}", webhook);

        let policies = policies_of(&speaking);
        prop_assert_eq!(policies.len(), 1);
        let unit = &policies[0]["spec"]["units"][0];
        prop_assert_eq!(&without_trigger(&unit["podLabels"]), &webhook);
        prop_assert_eq!(&unit["nodeSelector"][SERIES], model);

        let selectors = wanted_selectors(&speaking);
        prop_assert_eq!(selectors.len(), 1);
        let effect = &selectors[0].value["effect"]["labels"];
        // An entry of the profile can't tell which pods request a GPU.
        if matches!(class, Some("gpu" | "gpu-hpn")) {
            prop_assert_eq!(without_trigger(effect), said);
        } else {
            prop_assert_eq!(without_trigger(effect), webhook);
            prop_assert_eq!(&effect[ACS], &by_rule["metadata"]["labels"][ACS]);
        }
    }
}
