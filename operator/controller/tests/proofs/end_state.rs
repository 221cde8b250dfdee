//! What a run ends in, without what may differ from run to run: UIDs, times, versions, names of pods, who restarted when.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::{Cluster, text};

/// Fields that tell when and in which order, not what.
const MOMENTS: [&str; 25] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "lastTransitionTime",
    "lastHeartbeatTime",
    "time",
    "startTime",
    "nodeUid",
    "observedGeneration",
    "controller-revision-hash",
    "updateRevision",
    "currentRevision",
    "startedAt",
    "lastProgressTime",
    "emptySince",
    "since",
    "reapedProviderUid",
    "recordons",
    "pod",
    "at",
    "removedAt",
    "emptiedAt",
    "retired",
];

/// The end of a run: objects by key, how many pods run on which node, how many instances there are.
#[must_use]
pub(crate) fn of(cluster: &Cluster, instances: usize) -> BTreeMap<String, Value> {
    let mut end = BTreeMap::from([("instances".to_owned(), json!(instances))]);
    for (resource, named) in [
        ("virtualnodepools.virtualnodes.dev", true),
        ("statefulsets.apps", true),
        ("nodes", true),
        ("secrets", true),
        ("configmaps", true),
        ("poddisruptionbudgets.policy", true),
        ("pods", false),
    ] {
        for object in cluster.list(resource) {
            let mut object = Value::clone(&object);
            if named {
                // What is kept for the record differs with what died when.
                if text(&object, "/metadata/name").starts_with("vnp-audit-") {
                    continue;
                }
                strip(&mut object);
                object.sort_all_objects();
                let key = format!("{resource}/{}", text(&object, "/metadata/name"));
                end.insert(key, object);
            } else {
                // Which of the nodes that stay has how many is the scheduler's business.
                let key = format!("pods of {}", text(&object, "/metadata/labels/app"));
                let count = end.get(&key).and_then(Value::as_i64).unwrap_or(0);
                end.insert(key, json!(count + 1));
            }
        }
    }
    end
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !MOMENTS.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Panics with what differs.
pub(crate) fn same(expected: &BTreeMap<String, Value>, actual: &BTreeMap<String, Value>, what: &str) {
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|k| expected.get(*k) != actual.get(*k))
        .map(|k| {
            format!(
                "{k}:\n  expected {:?}\n  got      {:?}",
                expected.get(k).map(Value::to_string),
                actual.get(k).map(Value::to_string)
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{what} ends differently:\n{}",
        differences.join("\n")
    );
}
