//! What people do in the proofs, and how it goes when nothing goes wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};
use vnp_fake_api_server::{Call, Fault, Gate};

use crate::bench::{Bench, OPERATORS, POOL, PROVIDER, run};
use crate::cluster::text;
use crate::operator::Running;
use crate::safety::FOREIGN;
use crate::world::Kubelet;

/// An undisturbed run is watched for so long after its end.
pub(crate) const QUIET: Duration = Duration::from_secs(150);

/// Something that people do, and how one sees that it is done.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// For messages.
    pub(crate) name: &'static str,
    /// What the providers are built on.
    kubelet: Kubelet,
    /// So many virtual nodes before.
    pub(crate) nodes: u32,
    /// Does it. It may wait for a moment in between.
    pub(crate) act: for<'a> fn(&'a Bench) -> futures::future::BoxFuture<'a, ()>,
    /// It is done and settled.
    pub(crate) done: fn(&Bench) -> bool,
}

/// A shrink with pods under budgets.
pub(crate) const SHRINK: Scenario = Scenario {
    name: "a shrink",
    kubelet: Kubelet::V0_10,
    nodes: 3,
    act: |bench| {
        async {
            bench.edit(json!({"replicas": 2}));
        }
        .boxed()
    },
    done: |bench| bench.settled(2),
};

/// The target goes up again when the first pods have left.
pub(crate) const RAISE: Scenario = Scenario {
    name: "a raise in the middle of a drain",
    kubelet: Kubelet::V1_12,
    nodes: 3,
    act: |bench| {
        async {
            bench.edit(json!({"replicas": 2}));
            bench
                .until("an eviction", |b| {
                    b.cluster
                        .server
                        .journal()
                        .iter()
                        .any(|e| e.subresource == "eviction" && e.changed())
                })
                .await;
            bench.edit(json!({"replicas": 4}));
        }
        .boxed()
    },
    done: |bench| bench.settled(4),
};

/// The pool is deleted.
pub(crate) const DELETION: Scenario = Scenario {
    name: "a deletion",
    kubelet: Kubelet::V1_12,
    nodes: 1,
    act: |bench| {
        async {
            // The pods have nowhere to go, so their budgets would hold the last node for ever.
            for budget in ["web", "db"] {
                bench
                    .cluster
                    .delete("poddisruptionbudgets.policy", "shop", budget);
            }
            bench
                .cluster
                .delete("virtualnodepools.virtualnodes.dev", "", POOL);
        }
        .boxed()
    },
    done: |bench| {
        bench.pool().is_null()
            && bench.workload().is_none()
            && bench.cluster.list("nodes").is_empty()
            && bench.world.parts().cloud.instances().is_empty()
    },
};

/// Somebody deletes the StatefulSet.
pub(crate) const RESTORE: Scenario = Scenario {
    name: "a workload deleted by hand",
    kubelet: Kubelet::V0_10,
    nodes: 2,
    act: |bench| {
        async {
            let before = bench.workload().map(|w| w["metadata"]["uid"].clone());
            bench.cluster.delete("statefulsets.apps", "kube-system", PROVIDER);
            bench
                .until("another StatefulSet", |b| {
                    b.workload()
                        .is_some_and(|w| Some(&w["metadata"]["uid"]) != before.as_ref())
                })
                .await;
        }
        .boxed()
    },
    done: |bench| {
        bench.settled(2)
            && bench
                .workload()
                .is_some_and(|w| w["metadata"]["deletionTimestamp"].is_null())
            && bench.cluster.list("secrets").is_empty()
    },
};

/// A call worth a fault: everything but those of the lease, at which nothing else is different than between two others, and
/// watches.
pub(crate) fn worth_disturbing(call: &Call) -> bool {
    call.client.starts_with(OPERATORS)
        && call.about.kind.resource != "leases.coordination.k8s.io"
        && call.verb != "watch"
}

/// What a call is for: calls of one purpose differ in when they are made, and in the pod or event they are about.
pub(crate) fn purpose(call: &Call) -> String {
    let path = match call.about.namespace.as_str() {
        "shop" if !call.about.name.is_empty() => call.path.replace(&call.about.name, "*"),
        _ => call.path.clone(),
    };
    let asked = [
        "fieldSelector",
        "labelSelector",
        "resourceVersion",
        "fieldManager",
    ]
    .into_iter()
    .filter_map(|name| call.param(name).map(|value| format!(" {name}={value}")));
    let changed = match &call.body {
        Value::Array(steps) => steps
            .iter()
            .filter(|step| step["op"] != "test")
            .map(|step| format!(" {} {}", text(step, "/op"), text(step, "/path")))
            .collect(),
        Value::Object(parts) if call.verb == "patch" && call.about.subresource.is_empty() => parts
            .iter()
            .filter_map(|(part, inner)| Some((part, inner.as_object()?)))
            .flat_map(|(part, inner)| inner.keys().map(move |key| format!(" {part}.{key}")))
            .collect(),
        _ => Vec::new(),
    };
    let features: String = asked.chain(changed).collect();
    format!("{} {path}{features}", call.verb)
}

/// The calls of an undisturbed run from the moment people act, and its end.
pub(crate) fn golden(scenario: Scenario) -> (Vec<String>, BTreeMap<String, Value>) {
    run(|bench| async move {
        let _operator = begin(&bench, scenario).await;
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = calls.clone();
        let gate: Gate = Arc::new(move |call| {
            if worth_disturbing(call) {
                log.lock().expect("a list of calls").push(purpose(call));
            }
            std::future::ready(Fault::Pass).boxed()
        });
        bench.cluster.server.set_gate(gate);
        (scenario.act)(&bench).await;
        bench.until(scenario.name, scenario.done).await;
        bench.assert_quiet(QUIET).await;
        bench.assert_safe();
        let calls = calls.lock().expect("a list of calls").clone();
        (calls, bench.end())
    })
}

/// An operator that has made the pool as a scenario begins with it.
pub(crate) async fn begin(bench: &Bench, scenario: Scenario) -> Running {
    bench.world.parts().kubelet = scenario.kubelet;
    ready(bench, scenario.nodes).await
}

/// An operator that has made the pool with so many nodes.
pub(crate) async fn ready(bench: &Bench, nodes: u32) -> Running {
    bench.edit(json!({ "replicas": nodes }));
    let operator = Running::start(&bench.cluster, "operator-0");
    bench.until_settled(nodes as usize).await;
    let workload = bench.workload().expect("a StatefulSet");
    let mut finalizers = workload["metadata"]["finalizers"].clone();
    finalizers
        .as_array_mut()
        .expect("finalizers")
        .push(json!(FOREIGN));
    let foreign = json!({"metadata": {
        "annotations": {FOREIGN: "as it is"}, "labels": {FOREIGN: "theirs"}, "finalizers": finalizers,
    }});
    bench
        .cluster
        .patch("statefulsets.apps", "kube-system", PROVIDER, foreign);
    operator
}
