//! Values that the server puts in by itself, and fields that it does not let change.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::shape;
use crate::tidy::remove;

/// At creation only.
pub(crate) fn created(kind: &Kind, object: &mut Value) {
    match kind.resource {
        "pods" => object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
        "statefulsets.apps" => object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        "poddisruptionbudgets.policy" => {
            object["status"] = json!({
                "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            });
        }
        "nodes" => {
            let names = [
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ];
            object["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 0}});
            for name in names {
                object["status"]["nodeInfo"][name] = json!("");
            }
        }
        "namespaces" => {
            object["status"] = json!({"phase": "Active"});
            let name = object["metadata"]["name"].clone();
            absent(&mut object["metadata"], "labels", json!({}));
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        _ => {}
    }
}

/// At creation, by admission.
pub(crate) fn admitted(kind: &Kind, object: &mut Value) {
    if kind.resource == "namespaces" {
        absent(object, "spec", json!({"finalizers": ["kubernetes"]}));
    }
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    match kind.resource {
        "pods" => {
            absent(spec, "priority", json!(0));
            absent(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
            for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
                tolerate(spec, key);
            }
        }
        "nodes" => {
            let mut taints = spec["taints"].as_array().cloned().unwrap_or_default();
            if !taints.iter().any(|t| t["key"] == "node.kubernetes.io/not-ready") {
                taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
            }
            spec["taints"] = taints.into();
        }
        _ => {}
    }
}

fn tolerate(spec: &mut Value, key: &str) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerated = tolerations.iter().any(|t| {
        (t["key"] == key || t["key"].is_null()) && (t["effect"] == "NoExecute" || t["effect"].is_null())
    });
    if !tolerated {
        tolerations
            .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
    }
    spec["tolerations"] = tolerations.into();
}

/// At every write.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    match kind.resource {
        "pods" => {
            let spec = &mut object["spec"];
            absent(spec, "enableServiceLinks", json!(true));
            pod_spec(spec);
            for container in spec
                .get_mut("containers")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                requests(container);
            }
            stamped(object, ["lastProbeTime", "lastTransitionTime"]);
        }
        "statefulsets.apps" => stateful_set(&mut object["spec"]),
        "secrets" => {
            absent(object, "type", json!("Opaque"));
            string_data(object);
        }
        "events" => absent(object, "source", json!({})),
        "nodes" => {
            absent(object, "spec", json!({}));
            stamped(object, ["lastHeartbeatTime", "lastTransitionTime"]);
        }
        _ if kind.custom() => shape::fill_defaults(shape::of(kind), object),
        _ => {}
    }
}

fn absent(at: &mut Value, field: &str, default: Value) {
    if at[field].is_null() {
        at[field] = default;
    }
}

fn string_data(secret: &mut Value) {
    let plain = secret["stringData"].take();
    remove(secret, "stringData");
    if let Value::Object(plain) = plain {
        for (key, value) in plain {
            secret["data"][key] = json!(k8s_openapi::ByteString(value.as_str().unwrap_or_default().into()));
        }
    }
}

fn stateful_set(spec: &mut Value) {
    absent(spec, "replicas", json!(1));
    absent(spec, "podManagementPolicy", json!("OrderedReady"));
    absent(spec, "updateStrategy", json!({"type": "RollingUpdate"}));
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        absent(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
        let rolling = &mut spec["updateStrategy"]["rollingUpdate"];
        absent(rolling, "partition", json!(0));
        absent(rolling, "maxUnavailable", json!(1));
    }
    absent(spec, "revisionHistoryLimit", json!(10));
    absent(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    absent(spec, "serviceName", json!(""));
    pod_spec(&mut spec["template"]["spec"]);
}

fn pod_spec(spec: &mut Value) {
    absent(spec, "restartPolicy", json!("Always"));
    absent(spec, "terminationGracePeriodSeconds", json!(30));
    absent(spec, "dnsPolicy", json!("ClusterFirst"));
    absent(spec, "securityContext", json!({}));
    absent(spec, "schedulerName", json!("default-scheduler"));
    if let Some(account) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        spec["serviceAccount"] = json!(account);
    }
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            fill_container(container);
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        fill_volume(volume);
    }
}

/// Requests follow limits, in pods but not in templates.
fn requests(container: &mut Value) {
    let resources = &mut container["resources"];
    if let Some(limits) = resources["limits"].as_object().cloned() {
        let mut requests = resources["requests"].as_object().cloned().unwrap_or_default();
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
        resources["requests"] = requests.into();
    }
    drop_null(container);
}

/// Times that Go writes as null when nobody set them.
fn stamped(object: &mut Value, times: [&str; 2]) {
    let conditions = object
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        for time in times {
            absent(condition, time, Value::Null);
        }
    }
}

fn fill_container(container: &mut Value) {
    absent(container, "resources", json!({}));
    absent(container, "terminationMessagePath", json!("/dev/termination-log"));
    absent(container, "terminationMessagePolicy", json!("File"));
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    let newest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    absent(
        container,
        "imagePullPolicy",
        json!(if newest { "Always" } else { "IfNotPresent" }),
    );
    for port in container["ports"].as_array_mut().into_iter().flatten() {
        absent(port, "protocol", json!("TCP"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &mut container[probe];
        if probe.is_object() {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                absent(probe, field, json!(value));
            }
            if probe["httpGet"].is_object() {
                absent(&mut probe["httpGet"], "scheme", json!("HTTP"));
                absent(&mut probe["httpGet"], "path", json!("/"));
            }
        }
    }
    for env in container["env"].as_array_mut().into_iter().flatten() {
        if env["valueFrom"]["fieldRef"].is_object() {
            absent(&mut env["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
    }
    drop_null(container);
}

/// Looking at an absent field with `[]` leaves a null behind.
fn drop_null(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.values_mut().for_each(drop_null);
        map.retain(|_, v| !v.is_null());
    } else if let Some(list) = value.as_array_mut() {
        list.iter_mut().for_each(drop_null);
    }
}

fn fill_volume(volume: &mut Value) {
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if volume[source].is_object() {
            absent(&mut volume[source], "defaultMode", json!(420));
        }
    }
    if volume["hostPath"].is_object() {
        absent(&mut volume["hostPath"], "type", json!(""));
    }
    drop_null(volume);
}

/// Fields of a StatefulSet's spec that may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Refuses changes of what can't change, and the values that the operator's world could get wrong.
pub(crate) fn immutable(kind: &Kind, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |field: &str, message: &str| {
        Err(Refusal::invalid(
            kind,
            name,
            &[("FieldValueForbidden", field, format!("Forbidden: {message}"))],
        ))
    };
    let finalizers = |v: &Value| {
        v["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let before = finalizers(old);
        let added: Vec<String> = finalizers(new)
            .iter()
            .filter(|f| !before.contains(f))
            .map(Value::to_string)
            .collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            return refuse("metadata.finalizers", &message);
        }
    }
    match kind.resource {
        "statefulsets.apps" => {
            if old["spec"]["serviceName"] != new["spec"]["serviceName"] {
                let message = format!(
                    "Invalid value: {}: field is immutable",
                    new["spec"]["serviceName"]
                );
                return Err(Refusal::invalid(
                    kind,
                    name,
                    &[("FieldValueInvalid", "spec.serviceName", message)],
                ));
            }
            let fixed = |v: &Value| {
                let mut spec = v["spec"].clone();
                MUTABLE.iter().for_each(|field| remove(&mut spec, field));
                spec
            };
            if fixed(old) != fixed(new) {
                let words = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                             'minReadySeconds' are forbidden";
                return refuse("spec", words);
            }
        }
        "poddisruptionbudgets.policy" => {
            for count in [
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ] {
                if let Some(negative) = new["status"][count].as_i64().filter(|n| *n < 0) {
                    let message = format!("Invalid value: {negative}: must be greater than or equal to 0");
                    let field = format!("status.{count}");
                    return Err(Refusal::invalid(
                        kind,
                        name,
                        &[("FieldValueInvalid", &field, message)],
                    ));
                }
            }
        }
        "secrets" | "configmaps" if old["immutable"] == true => {
            if old["data"] != new["data"] {
                return refuse("data", "field is immutable when `immutable` is set");
            }
            if new["immutable"] != true {
                return refuse("immutable", "field is immutable when `immutable` is set");
            }
        }
        _ => {}
    }
    Ok(())
}
