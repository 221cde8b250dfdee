//! Which pods run with older defaults: exactly those that would be made otherwise now.

use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::{labelled, labels, pool, stored, with};
use crate::observed::{BoundPod, Observed, Placed, PodPhase};
use crate::placement::outdated;

const NODE: i32 = 0;

fn ruled(defaults: &Value, mode: &str) -> Arc<VirtualNodePool> {
    let rules = json!([{ "name": "all", "mode": mode }]);
    pool(
        "burst",
        2026,
        json!({ "placement": { "rules": rules }, "computeDefaults": defaults }),
    )
}

/// The stored pod as it is seen on a node of the pool.
fn bound(stored: &Value) -> BoundPod {
    let map = |path: &str| -> std::collections::BTreeMap<String, String> {
        let map = stored.pointer(path).cloned().unwrap_or(json!({}));
        serde_json::from_value(map).unwrap()
    };
    let annotations = map("/metadata/annotations");
    let mut pod = crate::testing::pod("a");
    pod.labels = map("/metadata/labels");
    pod.gpu = stored.pointer("/spec/containers/0/resources").is_some();
    pod.placed = annotations.get("virtualnodes.dev/placed-by").map(|by| {
        Box::new(Placed {
            by: by.clone(),
            compute: annotations.get("virtualnodes.dev/compute-defaults").cloned(),
        })
    });
    pod
}

/// Pool `burst` as it is now with that pod in a namespace with these labels.
fn seen(pool: &Arc<VirtualNodePool>, pod: BoundPod, namespace: &[(&str, &str)]) -> Observed {
    let mut seen = crate::testing::observed((**pool).clone(), 1);
    seen.namespaces = Arc::new([("shop".to_owned(), labels(namespace))].into());
    seen.bound = [(NODE, Arc::new(vec![pod]))].into();
    seen
}

fn count(seen: &Observed) -> Option<usize> {
    outdated(seen, seen.pods_on(NODE))
}

/// What defaults decide on a pod.
fn choice(stored: &Value) -> Value {
    let label = |key: &str| stored["metadata"]["labels"][key].clone();
    json!([
        label("alibabacloud.com/compute-class"),
        label("alibabacloud.com/compute-qos"),
        label("alibabacloud.com/gpu-model-series"),
        stored["spec"]["nodeSelector"]["alibabacloud.com/gpu-model-series"],
    ])
}

fn defaults() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!({ "class": "performance" }),
        json!({ "class": "performance", "qos": "best-effort" }),
        json!({ "class": "gpu", "gpuModelSeries": "T4" }),
        json!({ "class": "gpu", "gpuModelSeries": "A10", "qos": "best-effort" }),
        json!({ "class": "gpu-hpn", "gpuModelSeries": "T4" }),
        json!({ "class": "gpu-hpn", "gpuModelSeries": "A10" }),
    ])
}

const OWN: [(&str, &str); 6] = [
    ("alibabacloud.com/compute-class", "gpu"),
    ("alibabacloud.com/compute-qos", "best-effort"),
    ("alibabacloud.com/gpu-model-series", "P100"),
    ("alibabacloud.com/eci", "true"),
    ("alibabacloud.com/acs", "true"),
    ("eci", "true"),
];

proptest! {
    #[test]
    fn a_pod_is_outdated_when_it_would_be_made_otherwise_now(
        before in defaults(), now in defaults(), mode in select(vec!["Require", "Prefer"]),
        own in subsequence(OWN.to_vec(), 0..3), gpu in any::<bool>(), series in of(Just("P100")),
        namespace in subsequence(vec![("alibabacloud.com/eci", "true")], 0..=1),
    ) {
        let mut pod = labelled(&own);
        if gpu {
            let resources = json!({ "limits": { "nvidia.com/gpu": "1" } });
            pod["spec"]["containers"][0]["resources"] = resources;
        }
        if let Some(series) = series {
            pod = with(pod, json!({ "spec": { "nodeSelector": { "alibabacloud.com/gpu-model-series": series } } }));
        }
        let then = stored(&[ruled(&before, mode)], &pod, &namespace);
        let anew = stored(&[ruled(&now, mode)], &pod, &namespace);
        let seen = seen(&ruled(&now, mode), bound(&then), &namespace);
        let differs = choice(&then) != choice(&anew);
        prop_assert_eq!(count(&seen), Some(usize::from(differs)), "{} {}", then, anew);
    }
}

#[test]
fn only_pods_that_still_run_and_that_the_webhook_placed_are_counted() {
    let (older, newer) = (json!({ "class": "performance" }), json!({ "class": "other" }));
    let stored = stored(&[ruled(&older, "Require")], &labelled(&[]), &[]);
    let one = bound(&stored);
    let now = ruled(&newer, "Require");
    assert_eq!(count(&seen(&ruled(&older, "Require"), one.clone(), &[])), Some(0));
    assert_eq!(count(&seen(&now, one.clone(), &[])), Some(1));
    let by = |by: &str| {
        let compute = one.placed.clone().unwrap().compute;
        let by = by.to_owned();
        Some(Box::new(Placed { by, compute }))
    };
    for uncounted in [
        BoundPod {
            phase: PodPhase::Succeeded,
            ..one.clone()
        },
        BoundPod {
            deletion: Some(crate::testing::after(0)),
            ..one.clone()
        },
        BoundPod {
            mirror: true,
            ..one.clone()
        },
        BoundPod {
            placed: None,
            ..one.clone()
        },
        BoundPod {
            placed: by("gone/all"),
            ..one.clone()
        },
        BoundPod {
            placed: by("burst/policy.web"),
            ..one.clone()
        },
    ] {
        assert_eq!(
            count(&seen(&now, uncounted.clone(), &[])),
            Some(0),
            "{uncounted:?}"
        );
    }
    for webhook in ["Vendor", "None"] {
        let spec = json!({ "placement": { "webhook": webhook }, "computeDefaults": newer });
        assert_eq!(count(&seen(&pool("burst", 2026, spec), one.clone(), &[])), None);
    }
}

/// A pod on a node of one pool may have been placed by another.
#[test]
fn each_pod_is_compared_with_the_pool_that_placed_it() {
    let older = ruled(&json!({ "class": "performance" }), "Require");
    let pod = bound(&stored(std::slice::from_ref(&older), &labelled(&[]), &[]));
    let here = pool("here", 2027, json!({ "computeDefaults": { "class": "other" } }));
    let mut seen = seen(&here, pod, &[]);
    seen.others = vec![older];
    assert_eq!(count(&seen), Some(0));
    seen.others = vec![ruled(&json!(null), "Require")];
    assert_eq!(count(&seen), Some(1));
}
