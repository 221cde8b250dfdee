//! The disruption controller.

use serde_json::json;

use super::statefulsets::ready;
use crate::cluster::{Cluster, name, number, text};

/// One look. Selectors are `matchLabels: {app: ...}`, bounds `maxUnavailable` as a number.
pub(crate) fn account(cluster: &Cluster) {
    let pods = cluster.list("pods");
    for budget in cluster.list("poddisruptionbudgets.policy") {
        let app = text(&budget, "/spec/selector/matchLabels/app");
        let namespace = text(&budget, "/metadata/namespace");
        let covered: Vec<_> = pods
            .iter()
            .filter(|p| text(p, "/metadata/namespace") == namespace && text(p, "/metadata/labels/app") == app)
            .filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"))
            .collect();
        // A pod that is going is not wanted any more, only missed.
        let wanted = covered
            .iter()
            .filter(|p| p["metadata"]["deletionTimestamp"].is_null())
            .count();
        let disrupted = budget["status"]["disruptedPods"].as_object();
        let healthy = covered
            .iter()
            .filter(|p| ready(p) && !disrupted.is_some_and(|d| d.contains_key(name(p))))
            .count();
        let desired = i64::try_from(wanted).unwrap_or(0) - number(&budget, "/spec/maxUnavailable");
        let allowed = (i64::try_from(healthy).unwrap_or(0) - desired).max(0);
        cluster.change(
            "poddisruptionbudgets.policy",
            namespace,
            name(&budget),
            |budget| {
                let going: Vec<String> = covered
                    .iter()
                    .filter(|p| p["metadata"]["deletionTimestamp"].is_null())
                    .map(|p| name(p).to_owned())
                    .collect();
                let status = &mut budget["status"];
                let mut disrupted = status["disruptedPods"].take();
                if let Some(disrupted) = disrupted.as_object_mut() {
                    disrupted.retain(|pod, _| going.contains(pod));
                }
                *status = json!({});
                // Empty, it is left out.
                if disrupted.as_object().is_some_and(|d| !d.is_empty()) {
                    status["disruptedPods"] = disrupted;
                }
                status["disruptionsAllowed"] = json!(allowed);
                status["currentHealthy"] = json!(healthy);
                status["desiredHealthy"] = json!(desired.max(0));
                status["expectedPods"] = json!(wanted);
                status["conditions"] = json!([]);
                let generation = budget["metadata"]["generation"].clone();
                budget["status"]["observedGeneration"] = generation;
            },
        );
    }
}
