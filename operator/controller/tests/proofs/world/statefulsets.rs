//! The StatefulSet controller as far as providers need it: podManagementPolicy Parallel and OrderedReady, ordinals.start,
//! RollingUpdate with a partition, OnDelete.

use serde_json::{Value, json};

use crate::cluster::{Cluster, name, number, text, uid};

/// One look.
pub(crate) fn control(cluster: &Cluster) {
    for set in cluster.list("statefulsets.apps") {
        if set["metadata"]["deletionTimestamp"].is_null() {
            keep(cluster, &set);
        }
    }
}

fn keep(cluster: &Cluster, set: &Value) {
    let (namespace, own) = (text(set, "/metadata/namespace"), name(set));
    let revision = revision(set);
    let start = number(set, "/spec/ordinals/start");
    let wanted = start..start + number(set, "/spec/replicas");
    let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition");
    let rolls = text(set, "/spec/updateStrategy/type") != "OnDelete";
    adopt(cluster, set);
    let pods: Vec<_> = cluster
        .list("pods")
        .into_iter()
        .filter(|p| text(p, "/metadata/namespace") == namespace && owner(p) == uid(set))
        .collect();
    let ordinal = |pod: &Value| {
        name(pod)
            .rsplit_once('-')
            .and_then(|(_, n)| n.parse::<i64>().ok())
    };
    let of = |n: i64| pods.iter().find(|p| ordinal(p) == Some(n));
    let ordered = text(set, "/spec/podManagementPolicy") != "Parallel";
    for n in wanted.clone() {
        match of(n) {
            None => make(cluster, set, n, &revision),
            Some(pod) if ordered && !ready(pod) => break,
            Some(_) => {}
        }
        if ordered && of(n).is_none() {
            break;
        }
    }
    for pod in pods
        .iter()
        .filter(|p| ordinal(p).is_some_and(|n| !wanted.contains(&n)))
    {
        cluster.delete("pods", namespace, name(pod));
    }
    let outdated = wanted
        .clone()
        .rev()
        .filter(|n| *n >= partition)
        .filter_map(of)
        .find(|p| text(p, "/metadata/labels/controller-revision-hash") != revision);
    let all_ready = wanted.clone().all(|n| of(n).is_some_and(|p| ready(p)));
    if let Some(pod) = outdated.filter(|p| rolls && (all_ready || !ready(p))) {
        cluster.delete("pods", namespace, name(pod));
    }
    let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| f(p)).count();
    let updated = count(&|p| text(p, "/metadata/labels/controller-revision-hash") == revision);
    cluster.change("statefulsets.apps", namespace, own, |set| {
        let status = json!({
            "observedGeneration": set["metadata"]["generation"],
            "replicas": pods.len(),
            "readyReplicas": count(&ready),
            "updatedReplicas": updated,
            "updateRevision": revision,
            "currentRevision": if updated == pods.len() { json!(revision) } else { set["status"]["currentRevision"].clone() },
        });
        set["status"] = status;
    });
}

/// Takes pods that carry its labels and belong to nobody.
fn adopt(cluster: &Cluster, set: &Value) {
    let app = &set["spec"]["selector"]["matchLabels"]["app"];
    for pod in cluster.list("pods") {
        let orphan = pod["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty);
        if orphan && pod["metadata"]["labels"]["app"] == *app {
            cluster.change("pods", text(set, "/metadata/namespace"), name(&pod), |pod| {
                pod["metadata"]["ownerReferences"] = owner_reference(set);
            });
        }
    }
}

fn owner_reference(set: &Value) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name(set), "uid": uid(set), "controller": true,
            "blockOwnerDeletion": true}])
}

fn make(cluster: &Cluster, set: &Value, ordinal: i64, revision: &str) {
    let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
    labels["controller-revision-hash"] = json!(revision);
    cluster.create(
        "pods",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": set["metadata"]["namespace"], "name": format!("{}-{ordinal}", name(set)), "labels": labels,
                "ownerReferences": owner_reference(set),
            },
            // Providers run on an ordinary node.
            "spec": {"nodeName": "ordinary", "containers": set["spec"]["template"]["spec"]["containers"]},
            "status": {"phase": "Pending", "startTime": cluster.now().to_string()},
        }),
    );
}

/// A name for the template, as the controller gives to each ControllerRevision.
fn revision(set: &Value) -> String {
    let mut template = set["spec"]["template"].clone();
    template.sort_all_objects();
    let text = template.to_string();
    let sum = text
        .bytes()
        .fold(5381_u32, |sum, b| sum.wrapping_mul(33) ^ u32::from(b));
    format!("{}-{sum:08x}", name(set))
}

fn owner(pod: &Value) -> &str {
    text(pod, "/metadata/ownerReferences/0/uid")
}

/// Condition Ready of a pod that is not going.
pub(crate) fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
