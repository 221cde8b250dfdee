//! Providers: each provider pod that runs keeps a Node with heartbeats, makes an instance for every pod bound to it and
//! has it deleted when the pod goes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::cloud::Cloud;
use crate::cluster::{Cluster, name, text, uid};

/// From the pod's creation to Ready.
const START: SignedDuration = SignedDuration::from_secs(2);
/// From a pod's deletionTimestamp to its end.
const STOP: SignedDuration = SignedDuration::from_secs(1);
const HEARTBEAT: SignedDuration = SignedDuration::from_secs(4);
/// The node lifecycle controller's patience.
const SILENCE: SignedDuration = SignedDuration::from_secs(40);

/// What is remembered of them: when each process was first seen, when each pod began to go, when each node was heard.
#[derive(Default)]
pub(crate) struct Providers {
    seen: BTreeMap<String, Timestamp>,
    going: BTreeMap<String, Timestamp>,
    heard: BTreeMap<String, Timestamp>,
    started: BTreeMap<String, String>,
}

impl Providers {
    /// One look.
    pub(crate) fn run(&mut self, cluster: &Cluster, cloud: &mut Cloud, sick: &[String]) {
        let now = cluster.now();
        let pods = cluster.list("pods");
        for pod in pods.iter().filter(|p| text(p, "/spec/nodeName") == "ordinary") {
            self.process(cluster, cloud, pod, &pods, sick, now);
        }
        cloud.work(now);
        for node in cluster.list("nodes") {
            let silent = self
                .heard
                .get(name(&node))
                .is_none_or(|at| now.duration_since(*at) > SILENCE);
            if silent {
                set_ready(cluster, name(&node), "Unknown", None);
            }
        }
    }

    fn process(
        &mut self,
        cluster: &Cluster,
        cloud: &mut Cloud,
        pod: &Value,
        pods: &[std::sync::Arc<Value>],
        sick: &[String],
        now: Timestamp,
    ) {
        let node = name(pod);
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if self.gone(uid(pod), now) {
                cluster.remove_pod(pod);
            }
            return;
        }
        let since = *self.seen.entry(uid(pod).to_owned()).or_insert(now);
        let well = now.duration_since(since) >= START && !sick.iter().any(|s| s == node);
        set_pod_ready(cluster, pod, well);
        if !well {
            return;
        }
        let bound: Vec<_> = pods
            .iter()
            .filter(|p| text(p, "/spec/nodeName") == node)
            .collect();
        if self.started.get(node).is_none_or(|process| process != uid(pod)) {
            self.started.insert(node.to_owned(), uid(pod).to_owned());
            cloud.reap(node, &bound.iter().map(|p| uid(p).to_owned()).collect::<Vec<_>>());
        }
        self.beat(cluster, node, now);
        for pod in bound {
            self.serve(cluster, cloud, node, pod, now);
        }
    }

    fn beat(&mut self, cluster: &Cluster, node: &str, now: Timestamp) {
        let due = self
            .heard
            .get(node)
            .is_none_or(|at| now.duration_since(*at) >= HEARTBEAT);
        let there = cluster.get("nodes", "", node).is_some();
        if there && !due {
            return;
        }
        if !there {
            cluster.create(
                "nodes",
                json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": node, "labels": {"type": "virtual-kubelet", "example.com/zone": "j"}},
                    "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]},
                    "status": {"capacity": {"pods": "100"}},
                }),
            );
        }
        self.heard.insert(node.to_owned(), now);
        set_ready(cluster, node, "True", Some(&now.to_string()));
    }

    /// One pod on a virtual node.
    fn serve(&mut self, cluster: &Cluster, cloud: &mut Cloud, node: &str, pod: &Value, now: Timestamp) {
        let namespace = text(pod, "/metadata/namespace");
        let finished = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if self.gone(uid(pod), now) {
                // The object first: what real providers do when the cloud throttles them.
                cloud.delete(uid(pod));
                cluster.remove_pod(pod);
            }
        } else if !finished && !cloud.instances().values().any(|i| i.pod == uid(pod)) {
            let id = cloud.make(node, uid(pod));
            cluster.change("pods", namespace, name(pod), |pod| {
                pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-id"] = json!(id);
                pod["status"] = json!({
                    "phase": "Running", "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "started": true}],
                });
            });
        }
    }

    /// Whether a pod that is being deleted has had its time.
    fn gone(&mut self, pod: &str, now: Timestamp) -> bool {
        let since = *self.going.entry(pod.to_owned()).or_insert(now);
        now.duration_since(since) >= STOP
    }
}

fn set_pod_ready(cluster: &Cluster, pod: &Value, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let told = pod["status"]["conditions"][0]["status"].as_str();
    if told == Some(status) {
        return;
    }
    cluster.change("pods", text(pod, "/metadata/namespace"), name(pod), |pod| {
        pod["status"]["phase"] = json!("Running");
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        pod["status"]["containerStatuses"] =
            json!([{"name": "provider", "ready": ready, "restartCount": 0, "started": ready}]);
    });
}

fn set_ready(cluster: &Cluster, node: &str, status: &str, beat: Option<&str>) {
    cluster.change("nodes", "", node, |node| {
        let before = node["status"]["conditions"][0]["lastHeartbeatTime"].clone();
        node["status"]["conditions"] = json!([{
            "type": "Ready", "status": status, "lastHeartbeatTime": beat.map_or(before, |b| json!(b)),
        }]);
    });
}
