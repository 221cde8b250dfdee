//! Providers: each provider pod that runs keeps a Node with heartbeats, makes an instance for every pod bound to it and
//! has it deleted when the pod goes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::cloud::Cloud;
use crate::cluster::{Cluster, name, number, text, uid};
use crate::safety::FOREIGN;

/// Which virtual-kubelet the providers are built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kubelet {
    /// 0.10: heartbeats in the Node's status; a deleted Node is registered again; a pod's object goes with its instance.
    #[default]
    V0_10,
    /// 1.12: a Lease; only a start registers the Node, and meanwhile the Lease is made again and collected by turns; its own
    /// labels come back; a pod's instance goes at once, its object after the grace period.
    V1_12,
}

const LEASES: &str = "leases.coordination.k8s.io";
/// From the pod's creation to Ready.
const START: SignedDuration = SignedDuration::from_secs(2);
/// From a pod's deletionTimestamp to its end.
const STOP: SignedDuration = SignedDuration::from_secs(1);
const HEARTBEAT: SignedDuration = SignedDuration::from_secs(4);
/// What 1.12 writes besides its Lease: the Node's status and labels.
const STATUS: SignedDuration = SignedDuration::from_secs(60);
/// The node lifecycle controller's patience.
const SILENCE: SignedDuration = SignedDuration::from_secs(40);

/// What is remembered of them: when each process was first seen, when each pod began to go, when each node was heard.
#[derive(Default)]
pub(crate) struct Providers {
    seen: BTreeMap<String, Timestamp>,
    going: BTreeMap<String, Timestamp>,
    heard: BTreeMap<String, Timestamp>,
    started: BTreeMap<String, String>,
    /// UID of the Node that a provider registered, and when it wrote more than its Lease.
    registered: BTreeMap<String, (String, Timestamp)>,
}

impl Providers {
    /// One look.
    pub(crate) fn run(&mut self, cluster: &Cluster, cloud: &mut Cloud, kubelet: Kubelet, sick: &[String]) {
        let now = cluster.now();
        let pods = cluster.list("pods");
        for pod in pods.iter().filter(|p| text(p, "/spec/nodeName") == "ordinary") {
            self.process(cluster, cloud, kubelet, pod, &pods, sick);
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
        kubelet: Kubelet,
        pod: &Value,
        pods: &[std::sync::Arc<Value>],
        sick: &[String],
    ) {
        let now = cluster.now();
        let node = name(pod);
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if self.gone(uid(pod), now, STOP) {
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
            self.registered.remove(node);
            register(cluster, node);
        }
        match kubelet {
            Kubelet::V0_10 => self.beat(cluster, node, now),
            Kubelet::V1_12 => self.renew(cluster, node, now),
        }
        for pod in bound {
            self.serve(cluster, cloud, kubelet, node, pod, now);
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
        register(cluster, node);
        self.heard.insert(node.to_owned(), now);
        set_ready(cluster, node, "True", Some(&now.to_string()));
    }

    /// A heartbeat of 1.12.
    fn renew(&mut self, cluster: &Cluster, node: &str, now: Timestamp) {
        let there = cluster.get("nodes", "", node);
        if let Some(there) = there.as_deref() {
            let known = self.registered.get(node);
            let own = known.is_none_or(|(_, at)| now.duration_since(*at) >= STATUS);
            if own {
                self.registered
                    .insert(node.to_owned(), (uid(there).to_owned(), now));
                set_ready(cluster, node, "True", Some(&now.to_string()));
                cluster.change("nodes", "", node, |node| {
                    node["metadata"]["labels"]["type"] = json!("virtual-kubelet");
                });
            }
        }
        let due = self
            .heard
            .get(node)
            .is_none_or(|at| now.duration_since(*at) >= HEARTBEAT);
        if !due {
            return;
        }
        self.heard.insert(node.to_owned(), now);
        if cluster.get(LEASES, "kube-node-lease", node).is_some() {
            cluster.change(LEASES, "kube-node-lease", node, |lease| {
                lease["spec"]["renewTime"] = json!(format!("{now:.6}"));
            });
            return;
        }
        let owner = self.registered.get(node).map_or("", |(uid, _)| uid);
        cluster.create(
            LEASES,
            json!({
                "metadata": {
                    "namespace": "kube-node-lease", "name": node,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner}],
                },
                "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
            }),
        );
    }

    /// One pod on a virtual node.
    fn serve(
        &mut self,
        cluster: &Cluster,
        cloud: &mut Cloud,
        kubelet: Kubelet,
        node: &str,
        pod: &Value,
        now: Timestamp,
    ) {
        let namespace = text(pod, "/metadata/namespace");
        let finished = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            let first = !self.going.contains_key(uid(pod));
            let time = match kubelet {
                Kubelet::V0_10 => STOP,
                Kubelet::V1_12 => {
                    SignedDuration::from_secs(number(pod, "/metadata/deletionGracePeriodSeconds"))
                }
            };
            let gone = self.gone(uid(pod), now, time);
            // 0.10 has the instance deleted with the object: what real providers do when the cloud throttles them.
            let asks = match kubelet {
                Kubelet::V0_10 => gone,
                Kubelet::V1_12 => first,
            };
            if asks {
                cloud.delete(uid(pod));
            }
            if gone {
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
    fn gone(&mut self, pod: &str, now: Timestamp, time: SignedDuration) -> bool {
        let since = *self.going.entry(pod.to_owned()).or_insert(now);
        now.duration_since(since) >= time
    }
}

/// Makes the Node unless it is there.
fn register(cluster: &Cluster, node: &str) {
    if cluster.get("nodes", "", node).is_none() {
        cluster.create(
            "nodes",
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": node, "labels": {"type": "virtual-kubelet", FOREIGN: "theirs"},
                             "annotations": {FOREIGN: "as it is"}, "finalizers": [FOREIGN]},
                "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]},
                "status": {"capacity": {"pods": "100"}},
            }),
        );
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
