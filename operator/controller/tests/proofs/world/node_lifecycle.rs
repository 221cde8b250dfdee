//! The node lifecycle controller, as far as it taints Nodes by their condition Ready. The API server taints each new Node
//! `not-ready`; this is who takes that taint off.

use serde_json::{Value, json};

use crate::cluster::{Cluster, name};

/// Taint keys by status of condition Ready. Source: `taintEffects` of kube-controller-manager's node lifecycle controller.
const TAINTS: [(&str, &str); 2] = [
    ("False", "node.kubernetes.io/not-ready"),
    ("Unknown", "node.kubernetes.io/unreachable"),
];

/// One look.
pub(crate) fn taint(cluster: &Cluster) {
    for node in cluster.list("nodes") {
        let ready = node["status"]["conditions"][0]["status"]
            .as_str()
            .unwrap_or("False");
        let before = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let ours = |taint: &Value| TAINTS.iter().any(|(_, key)| taint["key"] == *key);
        let mut after: Vec<Value> = before.iter().filter(|t| !ours(t)).cloned().collect();
        let wanted = TAINTS.iter().filter(|(status, _)| *status == ready);
        after.extend(wanted.map(|(_, key)| json!({"key": key, "effect": "NoSchedule"})));
        if before != after {
            cluster.change("nodes", "", name(&node), |node| {
                node["spec"]["taints"] = json!(after);
            });
        }
    }
}
