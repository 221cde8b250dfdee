//! The StatefulSet controller, and the scheduler for the pods that it makes: providers run on an ordinary node.

use serde_json::{Value, json};
use vnp_fake_api_server::stateful_sets::StatefulSets;

use crate::cluster::{Cluster, name, text};

/// One look.
pub(crate) fn control(cluster: &Cluster, controller: &mut StatefulSets) {
    controller.control(&cluster.server.actor("statefulset-controller"));
    for pod in cluster.list("pods") {
        let provider = pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
        if provider && text(&pod, "/spec/nodeName").is_empty() {
            let now = cluster.now().to_string();
            cluster.change("pods", text(&pod, "/metadata/namespace"), name(&pod), |pod| {
                pod["spec"]["nodeName"] = json!("ordinary");
                pod["status"]["startTime"] = json!(now);
            });
        }
    }
}

/// Condition Ready of a pod that is not going.
pub(crate) fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
