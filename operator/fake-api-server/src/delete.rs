//! Deletion: preconditions, grace periods, finalizers. Source: apiserver `pkg/registry/rest/delete.go`,
//! `pkg/registry/generic/registry/store.go`, and the pod strategy.

use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::write::{Write, mark_deleted};

/// Deletes an object; the answer is the object while it stays, and a `Status` when it is gone.
pub(crate) fn delete(write: &mut Write<'_>, name: &str, options: &Value) -> Result<(u16, Value), Refusal> {
    let kind = write.kind;
    let mut object = write.found(name)?;
    preconditions(write, name, options, &object)?;
    let orphan = options["propagationPolicy"] == "Orphan" || options["orphanDependents"] == true;
    let foreground = options["propagationPolicy"] == "Foreground";
    let before = object.clone();
    for (wanted, finalizer) in [(orphan, "orphan"), (foreground, "foregroundDeletion")] {
        if wanted && !has_finalizer(&object, finalizer) {
            let finalizers = object["metadata"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            object["metadata"]["finalizers"] = finalizers.into_iter().chain([json!(finalizer)]).collect();
        }
    }
    let deleting = !object["metadata"]["deletionTimestamp"].is_null();
    let grace = if kind.pod() {
        pod_grace(&object, options)
    } else {
        0
    };
    let held = object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    if kind.resource == "namespaces" {
        if !deleting {
            mark_deleted(&write.store.clock, &mut object, 0);
            object["metadata"]
                .as_object_mut()
                .map(|m| m.shift_remove("deletionGracePeriodSeconds"));
            object["status"]["phase"] = json!("Terminating");
            object = put(write, name, object);
        }
        return Ok((200, object));
    }
    let current = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    // A pod is marked also when it goes at once.
    if (grace > 0 || held || kind.pod()) && (!deleting || grace < current) {
        mark_deleted(&write.store.clock, &mut object, grace);
    }
    if object != before {
        object = put(write, name, object);
    }
    if grace > 0 || held {
        return Ok((200, object));
    }
    let gone = if write.dry_run {
        Some(object.into())
    } else {
        write.store.take(&write.key(name))
    };
    let gone = gone.ok_or_else(|| Refusal::not_found(kind, name))?;
    if kind.pod() {
        return Ok((200, Value::clone(&gone)));
    }
    let mut details = json!({"name": name});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    details["kind"] = kind.plural.into();
    details["uid"] = gone["metadata"]["uid"].clone();
    Ok((
        200,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
    ))
}

fn put(write: &mut Write<'_>, name: &str, object: Value) -> Value {
    if write.dry_run {
        return object;
    }
    let key = write.key(name);
    Value::clone(&write.store.put(key, object))
}

fn preconditions(write: &Write<'_>, name: &str, options: &Value, object: &Value) -> Result<(), Refusal> {
    for (field, words, what) in [
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ] {
        let Some(expected) = options["preconditions"][field].as_str() else {
            continue;
        };
        let found = object["metadata"][field].as_str().unwrap_or_default();
        if expected != found {
            return Err(Refusal::other_than(
                write.kind, name, words, expected, found, what,
            ));
        }
    }
    Ok(())
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| f.iter().any(|f| f == finalizer))
}

/// How long a pod may take. One without a node, or finished, takes no time.
fn pod_grace(pod: &Value, options: &Value) -> i64 {
    let own = || {
        pod["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30)
    };
    let asked = options["gracePeriodSeconds"].as_i64().unwrap_or_else(own);
    let bound = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !bound || finished {
        return 0;
    }
    match asked {
        0 => 0,
        asked => asked.max(1),
    }
}
