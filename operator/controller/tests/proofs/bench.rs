//! One run: a cluster in its ordinary state, the pool under test, and ways to wait and to look.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vnp_fake_api_server::Entry;

use crate::cluster::{Cluster, name, number, text};
use crate::safety::{FOREIGN, THEIRS};
use crate::world::{Application, World};
use crate::{end_state, safety};

/// Name of the pool.
pub(crate) const POOL: &str = "burst";
/// Name of its provider.
pub(crate) const PROVIDER: &str = "virtual-node-eci";
/// Clients whose names begin so are operators.
pub(crate) const OPERATORS: &str = "operator-";
/// Longest run, in virtual time: a revert, two leases, every back-off and a few full lists fit in.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// A run.
pub(crate) struct Bench {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// What goes on in it.
    pub(crate) world: World,
}

/// Runs a test on a clock that jumps from one event to the next.
pub(crate) fn run<F: Future>(test: impl FnOnce(Bench) -> F) -> F::Output {
    runtime().block_on(async { test(Bench::new()).await })
}

/// One thread, and time that passes only when nothing else is left to do.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

impl Bench {
    /// A cluster with a pool that no operator has seen. Call it inside a runtime.
    pub(crate) fn new() -> Self {
        let cluster = Cluster::new();
        let (world, _) = World::start(&cluster);
        for namespace in ["shop", vnp_crds::OPERATOR_NAMESPACE] {
            cluster.create("namespaces", json!({"metadata": {"name": namespace}}));
        }
        cluster.create(
            "configmaps",
            json!({
                "metadata": {"namespace": "kube-system", "name": "eci-profile", "annotations": {FOREIGN: "as it is"},
                             "labels": {FOREIGN: "theirs"}, "finalizers": [FOREIGN]},
                "data": {
                    "vSwitchIds": "vsw-old", "featureGates": "WaitForFirstConsumer=true", THEIRS: "as it is",
                    "selectors": json!([{"name": THEIRS, "objectSelector": {"matchLabels": {"app": "theirs"}}}]).to_string(),
                },
            }),
        );
        for (application, pods, max_unavailable) in [("web", 6, 2), ("db", 2, 1)] {
            cluster.create(
                "poddisruptionbudgets.policy",
                json!({
                    "metadata": {"namespace": "shop", "name": application},
                    "spec": {"maxUnavailable": max_unavailable, "selector": {"matchLabels": {"app": application}}},
                }),
            );
            world.parts().applications.push(Application {
                name: application,
                pods,
            });
        }
        cluster.create("virtualnodepools.virtualnodes.dev", pool());
        Self { cluster, world }
    }

    /// Waits until `true`, and says what did not come.
    pub(crate) async fn until(&self, what: &str, mut there: impl FnMut(&Self) -> bool) {
        let begin = tokio::time::Instant::now();
        let end = begin + LONGEST;
        while !there(self) {
            drop(self.world.parts());
            assert!(
                tokio::time::Instant::now() < end,
                "{what} within {LONGEST:?}; the pool's status: {}\npods: {:#?}\nlast writes: {:#?}",
                self.pool()["status"],
                self.virtual_pods()
                    .iter()
                    .map(|p| whereabouts(p))
                    .collect::<Vec<_>>(),
                self.writes(0).iter().rev().take(12).map(line).collect::<Vec<_>>()
            );
            // What takes long takes half an hour.
            let long = begin.elapsed() > Duration::from_secs(300);
            tokio::time::sleep(Duration::from_millis(if long { 10_000 } else { 500 })).await;
        }
    }

    /// Waits until the pool is Ready as it is wanted now, on so many nodes, all pods run and nothing is left in the cloud.
    pub(crate) async fn until_settled(&self, nodes: usize) {
        self.until(&format!("{nodes} settled nodes"), |bench| bench.settled(nodes))
            .await;
    }

    /// See [`Self::until_settled`].
    pub(crate) fn settled(&self, nodes: usize) -> bool {
        self.ready(nodes) && self.world.parts().cloud.instances().len() == self.virtual_pods().len()
    }

    /// The same whatever the cloud has: on a node that stays, its provider may have forgotten an instance, which its next
    /// start removes.
    pub(crate) fn ready(&self, nodes: usize) -> bool {
        let pool = self.pool();
        let there = self.cluster.list("nodes");
        let pods = self.virtual_pods();
        let running =
            |p: &Value| text(p, "/status/phase") == "Running" && p["metadata"]["deletionTimestamp"].is_null();
        let annotations = self.workload().map(|w| w["metadata"]["annotations"].clone());
        pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
            && condition(&pool, "Ready") == "True"
            && there.len() == nodes
            && there.iter().all(|n| n["spec"]["unschedulable"] != true)
            && number(&pool, "/status/provider/readyReplicas") == i64::try_from(nodes).unwrap_or(0)
            && number(&pool, "/status/nodes") == i64::try_from(nodes).unwrap_or(0)
            && pods.len()
                == self
                    .world
                    .parts()
                    .applications
                    .iter()
                    .map(|a| a.pods)
                    .sum::<usize>()
            && pods.iter().all(|p| running(p))
            && number(&pool, "/status/pods") == i64::try_from(pods.len()).unwrap_or(0)
            && annotations.is_some_and(|a| a[vnp_crds::SHRINKING_ANNOTATION].is_null())
    }

    /// Every node of the pool is gone, and the pool is Ready so.
    pub(crate) fn without_nodes(&self) -> bool {
        let pool = self.pool();
        condition(&pool, "Ready") == "True"
            && number(&pool, "/status/nodes") == 0
            && self.cluster.list("nodes").is_empty()
    }

    /// The provider was there before the pool, which adopts it.
    pub(crate) fn adopt(&self) {
        let env = |name: &str, value: &str| json!({"name": name, "value": value});
        self.cluster.create(
            "statefulsets.apps",
            json!({
                "metadata": {"namespace": "kube-system", "name": PROVIDER},
                "spec": {
                    "replicas": 2, "serviceName": "", "selector": {"matchLabels": {"app": PROVIDER}},
                    "template": {
                        "metadata": {"labels": {"app": PROVIDER}},
                        "spec": {"containers": [{
                            "name": "provider", "image": "registry.example/virtual-nodes-eci:v0",
                            "env": [
                                env("ECI_REGION", "cn-hangzhou"), env("THEIRS", "as it is"), env("ECI_VSWITCH", "vsw-old, vsw-a"),
                                env("ECI_VPC", "vpc-old"),
                            ],
                        }]},
                    },
                },
            }),
        );
        self.edit(json!({"provider": {"management": "Adopt", "image": null}}));
    }

    /// The pool, null when it is gone.
    pub(crate) fn pool(&self) -> Value {
        let pool = self.cluster.get("virtualnodepools.virtualnodes.dev", "", POOL);
        pool.map_or(Value::Null, |p| Value::clone(&p))
    }

    /// Changes the pool as a commit in Git would.
    pub(crate) fn edit(&self, spec: Value) {
        self.cluster.patch(
            "virtualnodepools.virtualnodes.dev",
            "",
            POOL,
            json!({ "spec": spec }),
        );
    }

    /// Cordons a node as a person does, or takes that back: not what the operator cordoned.
    pub(crate) fn cordon(&self, ordinal: i64, cordoned: bool) {
        let node = format!("{PROVIDER}-{ordinal}");
        let there = self.cluster.get("nodes", "", &node);
        if there.is_some_and(|n| cordoned || safety::cordoned_by_others(&n)) {
            let value = if cordoned { json!(true) } else { Value::Null };
            self.cluster
                .patch("nodes", "", &node, json!({"spec": {"unschedulable": value}}));
        }
    }

    /// The provider's StatefulSet.
    pub(crate) fn workload(&self) -> Option<std::sync::Arc<Value>> {
        self.cluster.get("statefulsets.apps", "kube-system", PROVIDER)
    }

    /// Pods of applications.
    pub(crate) fn virtual_pods(&self) -> Vec<std::sync::Arc<Value>> {
        let mut pods = self.cluster.list("pods");
        pods.retain(|p| text(p, "/metadata/namespace") == "shop");
        pods
    }

    /// What operators wrote that changed anything but their lease, from that place in the journal on.
    pub(crate) fn writes(&self, from: usize) -> Vec<Entry> {
        let mut writes = self.cluster.server.journal_from(from);
        writes.retain(|e| {
            e.client.starts_with(OPERATORS) && e.changed() && e.key.resource != "leases.coordination.k8s.io"
        });
        writes
    }

    /// Nothing is written when nothing happens: the second half of "it gets there and stays there".
    pub(crate) async fn assert_quiet(&self, watched: Duration) {
        // What follows from the last event may still come: a debounce, a second look, another leader's first one.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let from = self.cluster.server.journal().len();
        tokio::time::sleep(watched).await;
        let writes: Vec<String> = self
            .writes(from)
            .iter()
            .map(|e| format!("{} {}", line(e), told(e)))
            .collect();
        assert!(
            writes.is_empty(),
            "P6: written although nothing changed: {writes:#?}"
        );
    }

    /// All promises, after every write.
    pub(crate) fn assert_safe(&self) {
        safety::check(&self.cluster);
    }

    /// How it ended.
    pub(crate) fn end(&self) -> BTreeMap<String, Value> {
        end_state::of(&self.cluster, self.world.parts().cloud.instances().len())
    }
}

/// A pod in one line.
fn whereabouts(pod: &Value) -> String {
    format!(
        "{} on {:?} {} {}",
        name(pod),
        text(pod, "/spec/nodeName"),
        text(pod, "/status/phase"),
        text(pod, "/metadata/deletionTimestamp")
    )
}

/// One write in one line.
pub(crate) fn line(entry: &Entry) -> String {
    format!(
        "{:?} {} {} {} {}/{} {} {}",
        entry.at,
        entry.client,
        entry.verb,
        entry.key.resource,
        entry.key.namespace,
        entry.key.name,
        entry.subresource,
        entry.code
    )
}

/// What a write to a status changed.
fn told(entry: &Entry) -> String {
    let (Some(before), Some(after)) = (&entry.before, &entry.after) else {
        return String::new();
    };
    let patch = json_patch::diff(&before["status"], &after["status"]);
    patch.iter().map(|o| format!("\n    {o}")).collect()
}

/// Status of a condition, empty when it is not there.
pub(crate) fn condition<'a>(pool: &'a Value, kind: &str) -> &'a str {
    let conditions = pool["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|c| c["type"] == kind))
        .map_or("", |c| text(c, "/status"))
}

fn pool() -> Value {
    json!({
        "apiVersion": vnp_crds::API_VERSION, "kind": vnp_crds::KIND,
        "metadata": {"name": POOL, "annotations": {FOREIGN: "as it is"}, "labels": {FOREIGN: "theirs"}, "finalizers": [FOREIGN]},
        "spec": {
            "replicas": 3, "region": "cn-hangzhou",
            "network": {
                "zones": [{"zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-a"]}], "securityGroupId": "sg-a",
            },
            "provider": {
                "type": "StatefulSet", "management": "Create", "namespace": "kube-system", "name": PROVIDER,
                "image": "registry.example/virtual-nodes-eci:v1",
            },
            "drain": {"cordonSettleSeconds": 1, "emptySettleSeconds": 2, "instanceDeletesPerSecond": 5},
        },
    })
}
