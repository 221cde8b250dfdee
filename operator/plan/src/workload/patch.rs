//! JSON patches of the workload. What they do not name survives byte for byte (P4), and a parent that only we made goes
//! with the last thing in it.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Map, Value, json};

use crate::observed::Workload;
use crate::step::{PatchPurpose, Step, WorkloadPatch};

pub(super) fn pointer<T: AsRef<str>>(tokens: &[T]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().map(AsRef::as_ref))
}

pub(super) fn test(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path, value })
}

pub(super) fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

pub(super) fn replace(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path, value })
}

pub(super) fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

/// The patch as a step: it tests UID and resourceVersion before anything else.
pub(super) fn step(
    workload: &Workload,
    operations: Vec<PatchOperation>,
    purpose: PatchPurpose,
    changes: Vec<String>,
) -> Step {
    let mut all = vec![
        test(pointer(&["metadata", "uid"]), json!(workload.uid())),
        test(
            pointer(&["metadata", "resourceVersion"]),
            json!(workload.resource_version()),
        ),
    ];
    all.extend(operations);
    Step::PatchWorkload(WorkloadPatch {
        patch: Patch(all),
        purpose,
        changes,
    })
}

/// Sets and removes keys of `metadata.labels` or `metadata.annotations`; `None` removes.
pub(super) fn metadata_map(
    raw: &Value,
    field: &str,
    wanted: &BTreeMap<&str, Option<String>>,
) -> Vec<PatchOperation> {
    let path = |key: &str| pointer(&["metadata", field, key]);
    let Some(there) = raw
        .pointer(&format!("/metadata/{field}"))
        .and_then(Value::as_object)
    else {
        let new: Map<String, Value> = wanted
            .iter()
            .filter_map(|(key, value)| Some(((*key).to_owned(), json!(value.as_ref()?))))
            .collect();
        return if new.is_empty() {
            Vec::new()
        } else {
            vec![add(pointer(&["metadata", field]), new.into())]
        };
    };
    let sets = wanted.values().any(Option::is_some);
    let stays = there.keys().any(|key| !wanted.contains_key(key.as_str()));
    if !sets && !stays {
        return if there.is_empty() {
            Vec::new()
        } else {
            vec![remove(pointer(&["metadata", field]))]
        };
    }
    wanted
        .iter()
        .filter_map(
            |(key, value)| match (there.get(*key).and_then(Value::as_str), value) {
                (Some(old), Some(new)) if old == new => None,
                (_, Some(new)) => Some(add(path(key), json!(new))),
                (Some(_), None) => Some(remove(path(key))),
                (None, None) => None,
            },
        )
        .collect()
}

/// Puts our finalizer on, behind those that are there.
pub(super) fn add_finalizer(workload: &Workload) -> Vec<PatchOperation> {
    if workload.has_finalizer() {
        return Vec::new();
    }
    let ours = json!(vnp_crds::WORKLOAD_FINALIZER);
    match workload
        .raw
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
    {
        Some(_) => vec![add(pointer(&["metadata", "finalizers", "-"]), ours)],
        None => vec![add(pointer(&["metadata", "finalizers"]), json!([ours]))],
    }
}

/// Takes our finalizer off and no other.
pub(super) fn remove_finalizer(workload: &Workload) -> Vec<PatchOperation> {
    let finalizers = workload.finalizers();
    let Some(index) = finalizers.iter().position(|f| *f == vnp_crds::WORKLOAD_FINALIZER) else {
        return Vec::new();
    };
    if finalizers.len() == 1 {
        return vec![remove(pointer(&["metadata", "finalizers"]))];
    }
    let path = pointer(&["metadata", "finalizers", &index.to_string()]);
    vec![
        test(path.clone(), json!(vnp_crds::WORKLOAD_FINALIZER)),
        remove(path),
    ]
}

/// Sets `spec.updateStrategy.rollingUpdate.partition`, or removes it.
pub(super) fn partition(workload: &Workload, wanted: Option<i32>) -> Vec<PatchOperation> {
    const PATH: [&str; 4] = ["spec", "updateStrategy", "rollingUpdate", "partition"];
    if workload.partition() == wanted {
        return Vec::new();
    }
    let Some(value) = wanted else {
        return vec![remove(pointer(&PATH))];
    };
    let there = |depth: usize| {
        workload
            .raw
            .pointer(&format!("/{}", PATH[..depth].join("/")))
            .is_some()
    };
    // The server always sends the whole path; an object written by another tool in a test or a copy may not have it.
    if !there(2) {
        let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": value } });
        vec![add(pointer(&PATH[..2]), strategy)]
    } else if !there(3) {
        vec![add(pointer(&PATH[..3]), json!({ "partition": value }))]
    } else {
        vec![add(pointer(&PATH), json!(value))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(raw: &Value, operations: Vec<PatchOperation>) -> Value {
        let mut after = raw.clone();
        json_patch::patch(&mut after, &operations).unwrap();
        after
    }

    #[test]
    fn maps_come_and_go_with_our_keys() {
        let set = BTreeMap::from([("a/x", Some("1".to_owned())), ("a/y", None)]);
        let unset = BTreeMap::from([("a/x", None), ("a/y", None)]);
        for before in [
            json!({ "metadata": { "name": "w" } }),
            json!({ "metadata": { "name": "w", "labels": { "z": "9" } } }),
        ] {
            let with = apply(&before, metadata_map(&before, "labels", &set));
            assert_eq!(with["metadata"]["labels"]["a/x"], "1");
            assert_eq!(metadata_map(&with, "labels", &set), Vec::new());
            let without = apply(&with, metadata_map(&with, "labels", &unset));
            assert_eq!(without, before);
            assert_eq!(metadata_map(&without, "labels", &unset), Vec::new());
        }
    }

    #[test]
    fn only_our_finalizer_moves() {
        for before in [
            json!({ "metadata": {} }),
            json!({ "metadata": { "finalizers": ["a/1"] } }),
            json!({ "metadata": { "finalizers": ["a/1", "b/2"] } }),
        ] {
            let with = apply(&before, add_finalizer(&Workload::new(before.clone())));
            let held = Workload::new(with.clone());
            assert!(held.has_finalizer());
            assert_eq!(add_finalizer(&held), Vec::new());
            assert_eq!(apply(&with, remove_finalizer(&held)), before);
        }
    }

    #[test]
    fn the_partition_is_set_at_any_depth_and_removed_again() {
        for before in [
            json!({ "spec": {} }),
            json!({ "spec": { "updateStrategy": { "type": "RollingUpdate" } } }),
            json!({ "spec": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 1 } } } }),
        ] {
            let with = Workload::new(apply(&before, partition(&Workload::new(before.clone()), Some(3))));
            assert_eq!(with.partition(), Some(3));
            assert_eq!(partition(&with, Some(3)), Vec::new());
            let own = Workload::new(before).partition();
            assert_eq!(
                Workload::new(apply(&with.raw, partition(&with, own))).partition(),
                own
            );
        }
    }
}
