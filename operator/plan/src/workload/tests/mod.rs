//! The module as a whole, against the stand-in of an API server in `server`.

mod adopting;
mod contesting;
mod creating;
mod restoring;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_crds::{EventReason, VirtualNodePool};

use super::server::Server;
use super::*;
use crate::observed::{CordonOwner, ProviderPod, WorkloadSeen};
use crate::testing::{bind, pod, pool};

fn create(spec: Value) -> VirtualNodePool {
    pool(spec)
}

fn adopt(spec: Value) -> VirtualNodePool {
    let mut base = json!({ "provider": { "management": "Adopt", "image": null } });
    json_patch::merge(&mut base, &spec);
    pool(base)
}

fn deleted(mut pool: VirtualNodePool) -> VirtualNodePool {
    pool.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        crate::testing::now(),
    ));
    pool
}

/// A StatefulSet that somebody made: a sidecar, foreign variables, a reference behind our key, a space after the comma,
/// the same name twice.
fn foreign() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "virtual-node-eci", "namespace": "kube-system", "uid": "theirs", "resourceVersion": "5",
            "generation": 1, "labels": { "team": "infra" },
        },
        "spec": {
            "replicas": 3,
            "serviceName": "virtual-node-eci",
            "selector": { "matchLabels": { "app": "vk" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "somethingNew": { "b": 1, "a": [2] },
            "template": {
                "metadata": { "labels": { "app": "vk" } },
                "spec": { "containers": [
                    { "name": "side", "image": "side:1" },
                    { "name": "vk", "image": "vk:1", "env": [
                        { "name": "ECI_REGION", "value": "cn-hangzhou" },
                        { "name": "ECI_VSWITCH", "value": "vsw-a, vsw-b" },
                        { "name": "COPY", "value": "$(ECI_VSWITCH)" },
                        { "name": "ECI_SECURITY_GROUP", "value": "sg-a" },
                        { "name": "TWICE", "value": "1" },
                        { "name": "TWICE", "value": "2" },
                    ] },
                ] },
            },
        },
    })
}

const ZONES: &str = "vsw-a,vsw-b";

fn zones(switches: &str) -> Value {
    let ids: Vec<&str> = switches.split(',').collect();
    json!({ "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ids }] })
}

fn env_of(workload: &Workload, container: usize) -> Vec<(String, String)> {
    let env = workload.containers()[container]["env"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    env.iter()
        .map(|e| (text(&e["name"]), text(&e["value"])))
        .collect()
}

/// Nothing on the workload holds it for the pool any more; a created one keeps its label.
fn released(seen: &Observed) -> bool {
    let adopted = seen.pool.spec.provider.management() == Management::Adopt;
    let held = seen.held_workload().is_some_and(|w| adopted || w.has_finalizer());
    !held && seen.restore_copy.is_none() && seen.template_copy.is_none()
}

/// Without what the server and our bookkeeping change.
fn bare(workload: &Workload) -> String {
    let mut raw = workload.raw.clone();
    let metadata = raw["metadata"].as_object_mut().unwrap();
    metadata.shift_remove("resourceVersion");
    metadata.shift_remove("generation");
    raw.as_object_mut().unwrap().shift_remove("status");
    raw.to_string()
}

fn stalled(part: &Part) -> Vec<&str> {
    let message = |f: &'_ Finding| matches!(f, Finding::Stalled { .. });
    part.findings
        .iter()
        .filter(|f| message(f))
        .filter_map(|f| {
            if let Finding::Stalled { message, .. } = f {
                Some(message.as_str())
            } else {
                None
            }
        })
        .collect()
}

fn told(part: &Part, reason: EventReason) -> bool {
    part.findings
        .iter()
        .any(|f| matches!(f, Finding::Event(e) if e.reason == reason))
}
