//! Applications that want a number of pods, and the scheduler that binds them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cluster::{Cluster, name, text, uid};

/// How long the scheduler goes by what a Node said before.
const STALE: SignedDuration = SignedDuration::from_millis(750);

/// What a ReplicaSet is to its pods.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    /// Its name, and label `app` of its pods; they live in namespace `shop`.
    pub(crate) name: &'static str,
    /// How many pods it wants.
    pub(crate) pods: usize,
}

/// One look: each application makes what it lacks.
pub(crate) fn control(cluster: &Cluster, applications: &[Application], serial: &mut u64) {
    let pods = cluster.list("pods");
    for application in applications {
        let there = pods
            .iter()
            .filter(|p| text(p, "/metadata/labels/app") == application.name && counts(p))
            .count();
        for _ in there..application.pods {
            *serial += 1;
            cluster.create("pods", pod(application.name, *serial));
        }
        let surplus = pods
            .iter()
            .filter(|p| text(p, "/metadata/labels/app") == application.name && counts(p))
            .skip(application.pods);
        for pod in surplus {
            cluster.delete("pods", "shop", name(pod));
        }
    }
}

fn counts(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn pod(application: &str, serial: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": format!("{application}-{serial:04}"), "labels": {"app": application},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": application,
                                 "uid": format!("{application}-uid"), "controller": true}],
        },
        "spec": {
            "nodeSelector": {"type": "virtual-kubelet"}, "terminationGracePeriodSeconds": 3,
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "containers": [{"name": "web", "image": "registry.example/web:1"}],
        },
        "status": {"phase": "Pending"},
    })
}

/// Binds pods to the emptiest virtual node. It sees a cordon late.
#[derive(Default)]
pub(crate) struct Scheduler {
    cordoned: BTreeMap<String, Timestamp>,
}

impl Scheduler {
    /// One look.
    pub(crate) fn bind(&mut self, cluster: &Cluster) {
        let now = cluster.now();
        let nodes = cluster.list("nodes");
        self.cordoned.retain(|known, _| {
            nodes
                .iter()
                .any(|n| n["spec"]["unschedulable"] == true && uid(n) == known)
        });
        for node in nodes.iter().filter(|n| n["spec"]["unschedulable"] == true) {
            self.cordoned.entry(uid(node).to_owned()).or_insert(now);
        }
        let open: Vec<&str> = nodes
            .iter()
            .filter(|n| n["status"]["conditions"][0]["status"] == "True")
            .filter(|n| {
                let since = self.cordoned.get(uid(n));
                since.is_none_or(|at| now.duration_since(*at) < STALE)
            })
            .map(|n| name(n))
            .collect();
        let pods = cluster.list("pods");
        let mut load: BTreeMap<&str, usize> = open
            .iter()
            .map(|n| {
                (
                    *n,
                    pods.iter().filter(|p| text(p, "/spec/nodeName") == *n).count(),
                )
            })
            .collect();
        for pod in pods.iter().filter(|p| text(p, "/spec/nodeName").is_empty()) {
            let Some((node, count)) = load.iter_mut().min_by_key(|(name, count)| (**count, **name)) else {
                return;
            };
            *count += 1;
            cluster.change("pods", text(pod, "/metadata/namespace"), name(pod), |pod| {
                pod["spec"]["nodeName"] = json!(node);
            });
        }
    }
}
