//! The pod by which the webhook is tried: created as a dry run, so that nothing is ever stored.

use serde_json::{Value, json};
use vnp_crds::{MANAGED_BY, MANAGED_BY_LABEL, PLACED_BY_ANNOTATION};

/// A pod that a documented trigger sends to virtual nodes. It satisfies the strictest Pod Security Standard, because the
/// namespace enforces it.
pub fn probe_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "webhook-probe-",
            "labels": {"alibabacloud.com/eci": "true", MANAGED_BY_LABEL: MANAGED_BY},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": "probe.invalid/never-pulled",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// Whether the pod came back changed by our webhook, and not by another one.
pub fn came_back_mutated(pod: &Value) -> bool {
    pod["metadata"]["annotations"][PLACED_BY_ANNOTATION].is_string()
}
