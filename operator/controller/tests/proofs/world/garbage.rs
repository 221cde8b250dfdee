//! The garbage collector: pods whose owner is gone.

use serde_json::Value;

use crate::cluster::{Cluster, name, text};

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
