//! The Eviction API. Source: Kubernetes 1.37 `pkg/registry/core/pod/storage/eviction.go`.

use serde_json::{Value, json};

use crate::delete::delete;
use crate::kinds;
use crate::managers::{Author, after_update};
use crate::refusal::Refusal;
use crate::select::selects;
use crate::shape;
use crate::store::Key;
use crate::write::Write;

/// Above this many unconfirmed evictions a budget allows no more.
const MAP_LIMIT: usize = 2000;
const NOT_NOW: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts a pod.
pub(crate) fn evict(write: &mut Write<'_>, name: &str, eviction: &Value) -> Result<(u16, Value), Refusal> {
    let named = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if named != name {
        return Err(Refusal::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    write.namespace_takes(name)?;
    let options = if eviction["deleteOptions"].is_object() {
        eviction["deleteOptions"].clone()
    } else {
        json!({})
    };
    write.dry_run |= options["dryRun"].as_array().is_some_and(|d| !d.is_empty());
    let pod = write.found(name)?;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let deleting = !pod["metadata"]["deletionTimestamp"].is_null();
    if deleting || matches!(phase, "Succeeded" | "Failed" | "Pending") {
        return gone(write, name, pod, &options);
    }
    let budgets: Vec<(Key, Value)> = write
        .store
        .objects()
        .iter()
        .filter(|(key, budget)| {
            key.resource == "poddisruptionbudgets.policy"
                && key.namespace == write.namespace
                && selects(&budget["spec"]["selector"], &pod["metadata"]["labels"])
        })
        .map(|(key, budget)| (key.clone(), Value::clone(budget)))
        .collect();
    match budgets.as_slice() {
        [] => {}
        [(key, budget)] => {
            if !outside_of(budget, &pod) {
                decrement(write, name, key, budget.clone())?;
            }
        }
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Refusal::new(500, "", message));
        }
    }
    gone(write, name, pod, &options)
}

/// Says in the pod why it goes, and deletes it.
fn gone(write: &mut Write<'_>, name: &str, pod: Value, options: &Value) -> Result<(u16, Value), Refusal> {
    matches_uid(options, &pod, name)?;
    if !write.dry_run {
        condition(write, name, pod);
    }
    delete(write, name, options)?;
    let accepted =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok((201, accepted))
}

/// A pod that is not ready is not what the budget protects, if the rest of its pods is healthy.
fn outside_of(budget: &Value, pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    !ready
        && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
            || (count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0))
}

fn decrement(write: &mut Write<'_>, pod: &str, key: &Key, mut budget: Value) -> Result<(), Refusal> {
    let name = key.name.as_str();
    let number = |at: &Value| at.as_i64().unwrap_or(0);
    let status = &budget["status"];
    let forbidden = |why: &str| Err(Refusal::forbidden("policy", "poddisruptionbudget", name, why));
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Refusal::too_many(NOT_NOW, 10).with_cause("DisruptionBudget", &cause));
    }
    let allowed = number(&status["disruptionsAllowed"]);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"]
        .as_object()
        .is_some_and(|m| m.len() > MAP_LIMIT)
    {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let cause = match sync_failure(status) {
            Some(why) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number(&status["desiredHealthy"]),
                number(&status["currentHealthy"])
            ),
        };
        return Err(Refusal::too_many(NOT_NOW, 0).with_cause("DisruptionBudget", &cause));
    }
    if write.dry_run {
        return Ok(());
    }
    let stamp = write.store.clock.stamp();
    let generation = budget["metadata"]["generation"].clone();
    let status = &mut budget["status"];
    status["disruptionsAllowed"] = json!(allowed - 1);
    if status["disruptedPods"].is_null() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = json!(stamp);
    if allowed == 1 {
        exhausted(status, &stamp, generation);
    }
    let author = Author {
        manager: "kube-apiserver".to_owned(),
        operation: "Update",
        subresource: "status",
    };
    if let (Some(kind), Some(old)) = (kinds::named(key.resource), write.store.get(key)) {
        let managers = after_update(shape::of(kind), old, &budget, &author, &stamp);
        managers.into_object(&kind.api_version(), &mut budget);
    }
    write.store.put(key.clone(), budget);
    Ok(())
}

fn sync_failure(status: &Value) -> Option<&str> {
    let conditions = status["conditions"].as_array()?;
    let failed = conditions.iter().find(|c| {
        c["type"] == "DisruptionAllowed" && c["status"] == "False" && c["reason"] == "SyncFailed"
    })?;
    failed["message"].as_str()
}

fn exhausted(status: &mut Value, stamp: &str, generation: Value) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|c| c["type"] != "DisruptionAllowed");
    conditions.push(json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": stamp, "observedGeneration": generation,
    }));
    status["conditions"] = conditions.into();
}

fn matches_uid(options: &Value, pod: &Value, name: &str) -> Result<(), Refusal> {
    for (field, words, what) in [
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "resourceVersion", "modified"),
    ] {
        let Some(expected) = options["preconditions"][field].as_str() else {
            continue;
        };
        let found = pod["metadata"][field].as_str().unwrap_or_default();
        if expected != found {
            let mut refusal = Refusal::new(
                409,
                "Conflict",
                format!(
                    "Operation cannot be fulfilled on Pod \"{name}\": the {words} in the precondition ({expected}) does not \
                 match the {words} in record ({found}). The object might have been {what}"
                ),
            );
            refusal.details = Box::new(json!({"name": name, "kind": "Pod"}));
            return Err(refusal);
        }
    }
    Ok(())
}

/// Says why the pod goes, as the server does before it deletes.
fn condition(write: &mut Write<'_>, name: &str, mut pod: Value) {
    let stamp = write.store.clock.stamp();
    let mut conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions.retain(|c| c["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": stamp,
    }));
    pod["status"]["conditions"] = conditions.into();
    let key = Key::new(kinds::named("pods").unwrap_or(write.kind), write.namespace, name);
    write.store.put(key, pod);
}
