//! The verdict of kstatus on a custom resource, as Flux and `kubectl wait` users get it.
//! Source: fluxcd/cli-utils, pkg/kstatus/status/{generic,status,core}.go.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Current,
    InProgress,
    Failed,
    Terminating,
}

pub(super) fn judge(object: &Value) -> Verdict {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Verdict::Terminating;
    }
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    if observed.is_some_and(|observed| Some(observed) != object["metadata"]["generation"].as_i64()) {
        return Verdict::InProgress;
    }
    let none = Vec::new();
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .unwrap_or(&none);
    for condition in conditions.iter().filter(|c| c["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return Verdict::InProgress,
            Some("Stalled") => return Verdict::Failed,
            _ => {}
        }
    }
    match conditions
        .iter()
        .find(|c| c["type"] == "Ready")
        .map(|c| &c["status"])
    {
        Some(status) if status != "True" => Verdict::InProgress,
        _ => Verdict::Current,
    }
}
