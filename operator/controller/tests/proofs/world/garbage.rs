//! What clears away: the garbage collector for pods whose owner is gone, and whoever set a finalizer of its own.

use serde_json::{Value, json};

use crate::cluster::{Cluster, name, text};
use crate::safety::FOREIGN;

const LEASES: &str = "leases.coordination.k8s.io";

/// One look. Pods of applications name an owner that is never stored; only StatefulSets are followed.
pub(crate) fn collect(cluster: &Cluster) {
    let sets: Vec<String> = cluster
        .list("statefulsets.apps")
        .iter()
        .map(|s| text(s, "/metadata/uid").to_owned())
        .collect();
    for pod in cluster.list("pods") {
        let gone =
            |owner: &Value| owner["kind"] == "StatefulSet" && !sets.iter().any(|s| owner["uid"] == **s);
        let owners = pod["metadata"]["ownerReferences"].as_array();
        if text(&pod, "/spec/nodeName") == "ordinary"
            && owners.is_some_and(|all| !all.is_empty() && all.iter().all(gone))
        {
            cluster.delete("pods", text(&pod, "/metadata/namespace"), name(&pod));
        }
    }
}

/// One look at the Leases of nodes.
pub(crate) fn collect_leases(cluster: &Cluster) {
    let nodes = cluster.list("nodes");
    for lease in cluster.list(LEASES) {
        let owner = text(&lease, "/metadata/ownerReferences/0/uid");
        let there = nodes.iter().any(|n| text(n, "/metadata/uid") == owner);
        if text(&lease, "/metadata/namespace") == "kube-node-lease" && !there {
            cluster.delete(LEASES, "kube-node-lease", name(&lease));
        }
    }
}

/// One look of the owner of finalizer [`FOREIGN`], who is always the last to let go.
pub(crate) fn release(cluster: &Cluster) {
    for resource in ["nodes", "statefulsets.apps", "virtualnodepools.virtualnodes.dev"] {
        for object in cluster.list(resource) {
            let meta = &object["metadata"];
            if !meta["deletionTimestamp"].is_null() && meta["finalizers"] == json!([FOREIGN]) {
                let patch = json!({"metadata": {"finalizers": null}});
                cluster.patch(
                    resource,
                    text(&object, "/metadata/namespace"),
                    name(&object),
                    patch,
                );
            }
        }
    }
}
