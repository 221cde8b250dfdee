//! Pods with anything in them that the schema of Pod allows: what placement does not look at has to stay as it is.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| json!(SchemaGenerator::default().into_root_schema_for::<Pod>()));

/// A pod in which each optional field is there or not. A shorter tape makes a smaller pod.
pub(super) fn pod_of_schema() -> impl Strategy<Value = Value> {
    prop::collection::vec(any::<u8>(), 0..1_000).prop_map(|tape| {
        let mut pod = value(&SCHEMA, &mut tape.into_iter());
        // The status is not the creator's.
        let is = json!({ "apiVersion": "v1", "kind": "Pod", "status": null });
        json_patch::merge(&mut pod, &is);
        pod
    })
}

/// The next choice among `of`; the first one when the tape has ended.
fn choice(tape: &mut impl Iterator<Item = u8>, of: u8) -> u8 {
    tape.next().unwrap_or_default() % of
}

fn value(schema: &Value, tape: &mut impl Iterator<Item = u8>) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = SCHEMA.pointer(reference.trim_start_matches('#'));
        return value(target.expect("a definition"), tape);
    }
    let word = match schema["format"].as_str() {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("byte") => "YQ==",
        _ => ["", "1", "a", "x.y/z"][usize::from(choice(tape, 4))],
    };
    match schema["type"].as_str() {
        Some("object") => object(schema, tape),
        Some("array") => (0..choice(tape, 3))
            .map(|_| value(&schema["items"], tape))
            .collect(),
        Some("string") => json!(word),
        Some("boolean") => json!(choice(tape, 2) == 1),
        Some("integer") => json!(choice(tape, 4)),
        Some("number") => json!(f64::from(choice(tape, 4)) / 2.0),
        // Of a quantity, or of a number that may be a string, the schema says no type.
        None => json!("1"),
        Some(other) => panic!("type {other}: {schema}"),
    }
}

fn object(schema: &Value, tape: &mut impl Iterator<Item = u8>) -> Value {
    let mut object = Map::new();
    let required = |key: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|r| r.contains(&json!(key)))
    };
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        if required(key) || key == "spec" || choice(tape, 3) == 2 {
            object.insert(key.clone(), value(field, tape));
        }
    }
    if schema["additionalProperties"].is_object() {
        for key in ["one", "two"].iter().take(choice(tape, 3).into()) {
            object.insert((*key).to_owned(), value(&schema["additionalProperties"], tape));
        }
    }
    object.into()
}

proptest! {
    #[test]
    fn what_is_generated_is_a_pod(pod in pod_of_schema()) {
        let read: Result<Pod, _> = serde_json::from_value(pod.clone());
        prop_assert!(read.is_ok(), "{:?} {}", read.err(), pod);
    }
}

/// Parts of a pod that matter to placement, or might: each is made now and then.
#[test]
fn all_corners_of_a_pod_are_made() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let pods: Vec<Value> = (0..2_000)
        .map(|_| pod_of_schema().new_tree(&mut runner).expect("a pod").current())
        .collect();
    for path in [
        "/metadata/ownerReferences/0",
        "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution",
        "/spec/containers/0/resources/limits",
        "/spec/ephemeralContainers/0",
        "/spec/initContainers/0/restartPolicy",
        "/spec/resourceClaims/0",
        "/spec/topologySpreadConstraints/0/labelSelector",
        "/spec/volumes/0/projected",
    ] {
        assert!(pods.iter().any(|pod| pod.pointer(path).is_some()), "{path}");
    }
}
