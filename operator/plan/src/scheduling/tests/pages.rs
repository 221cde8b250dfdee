//! The ResourcePolicies of the vendor's pages, in their own YAML: a pool can ask for each as it stands.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{seen, spec};
use crate::observed::Observed;

const PAGES: [&str; 2] = [
    include_str!("pages/idc-then-eci.yaml"),
    include_str!("pages/acs-gpu.yaml"),
];

/// The page's spec, and the pool's policy with the same words.
fn page(text: &str) -> (Value, Value) {
    let page: Value = serde_saphyr::from_str(text).unwrap();
    let mut policy = page["spec"].clone();
    policy["name"] = page["metadata"]["name"].clone();
    policy["namespaces"] = json!(["shop"]);
    let mut wanted = page["spec"].clone();
    // What the pages' samples mean where they leave it out; some installed CRDs require it.
    wanted
        .as_object_mut()
        .unwrap()
        .entry("strategy")
        .or_insert(json!("prefer"));
    (wanted, policy)
}

/// That policy in a pool with these compute defaults.
fn asked(policy: &Value, defaults: &Value) -> Observed {
    let mut seen = seen(json!([policy]));
    let pool = Arc::make_mut(&mut seen.pool);
    pool.spec.compute_defaults = serde_json::from_value(defaults.clone()).unwrap();
    seen
}

#[test]
fn a_page_becomes_the_same_object() {
    for defaults in [
        json!(null),
        json!({ "class": "performance", "qos": "best-effort" }),
    ] {
        for text in PAGES {
            let (wanted, policy) = page(text);
            assert_eq!(spec(&asked(&policy, &defaults)), wanted, "{defaults} {text}");
        }
    }
}

#[test]
fn compute_defaults_say_what_the_page_writes_into_its_unit() {
    let (wanted, mut policy) = page(PAGES[1]);
    policy["units"] = json!([{ "resource": "acs" }]);
    let defaults = json!({ "class": "gpu", "qos": "default", "gpuModelSeries": "example-model" });
    assert_eq!(spec(&asked(&policy, &defaults)), wanted);
}
