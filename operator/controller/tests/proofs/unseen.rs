//! What an operator may not or does not look at is not known, and holds; the rest goes on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vnp_fake_api_server::{Fault, Gate, Refusal};

use crate::bench::{Bench, POOL, condition, run};
use crate::cluster::text;
use crate::operator::Running;
use crate::scenarios::ready;

const POOLS: &str = "virtualnodepools.virtualnodes.dev";
const ELSEWHERE: &str = "team-nodes";
const HELD: Duration = Duration::from_secs(900);

/// The API server shows no StatefulSets of that namespace: its Role is missing.
fn without_role() -> Gate {
    Arc::new(|call| {
        let about = &call.about;
        let refused = about.kind.plural == "statefulsets" && about.namespace == ELSEWHERE;
        let fault = if refused && call.client.starts_with("operator-") {
            Fault::Refuse(Refusal::new(403, "Forbidden", "statefulsets.apps is forbidden"))
        } else {
            Fault::Pass
        };
        Box::pin(std::future::ready(fault))
    })
}

fn pool(bench: &Bench, name: &str) -> Value {
    let pool = bench.cluster.get(POOLS, "", name);
    pool.map_or(Value::Null, |p| Value::clone(&p))
}

fn message<'a>(pool: &'a Value, kind: &str) -> &'a str {
    let conditions = pool["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|c| c["type"] == kind))
        .map_or("", |c| text(c, "/message"))
}

#[test]
fn a_namespace_without_its_role_concerns_its_own_pool_only() {
    run(|bench| async move {
        let mut away = bench.pool();
        away["metadata"] = json!({ "name": "away" });
        away["spec"]["provider"]["namespace"] = json!(ELSEWHERE);
        away["spec"]["provider"]["name"] = json!("away");
        bench
            .cluster
            .create("namespaces", json!({ "metadata": { "name": ELSEWHERE } }));
        bench.cluster.create(POOLS, away);
        bench.cluster.server.set_gate(without_role());
        let operator = Running::start_for(&bench.cluster, "operator-1", &["kube-system", ELSEWHERE]);
        // The profile too: it is written for all pools together.
        let synced =
            |pool: &Value| condition(pool, "Ready") == "True" && condition(pool, "ProfileSynced") == "True";
        bench
            .until("the pool that can be seen", |b| synced(&b.pool()))
            .await;
        let away = pool(&bench, "away");
        assert_eq!(condition(&away, "Accepted"), "False", "{}", away["status"]);
        let told = message(&away, "Accepted");
        assert!(
            told.contains("statefulsets.apps is forbidden") && told.contains("Role"),
            "{told}"
        );
        assert_eq!(operator.readiness.missing(), [""; 0]);
        // Granted: it goes on by itself.
        bench.cluster.server.open_gate();
        bench
            .until("the pool that was granted", |b| {
                condition(&pool(b, "away"), "Accepted") == "True"
            })
            .await;
        operator.stop().await;
    });
}

#[test]
fn a_namespace_that_is_dropped_holds_a_pool_that_goes() {
    for policy in ["Retain", "Drain"] {
        run(|bench| async move {
            ready(&bench, 3).await.stop().await;
            let before = bench.workload();
            let operator = Running::start_for(&bench.cluster, "operator-1", &[ELSEWHERE]);
            bench
                .cluster
                .patch(POOLS, "", POOL, json!({ "spec": { "deletionPolicy": policy } }));
            bench.cluster.delete(POOLS, "", POOL);
            tokio::time::sleep(HELD).await;
            let held = bench.pool();
            assert_eq!(
                held["metadata"]["finalizers"],
                json!([crate::safety::FOREIGN, vnp_crds::FINALIZER]),
                "{policy}"
            );
            let (told, blockers) = (message(&held, "Ready"), &held["status"]["drain"]["blockers"]);
            assert!(told.contains("--provider-namespaces"), "{policy}: {told}");
            assert!(
                blockers.is_null(),
                "{policy}: nobody is asked to break glass: {blockers}"
            );
            let spec = |w: &Option<Arc<Value>>| {
                w.as_ref()
                    .map(|w| (w["spec"].clone(), w["metadata"]["finalizers"].clone()))
            };
            assert_eq!(spec(&bench.workload()), spec(&before), "{policy}");
            assert_eq!(bench.cluster.list("nodes").len(), 3, "{policy}");
            operator.stop().await;
            let _again = Running::start(&bench.cluster, "operator-1");
            if policy == "Drain" {
                // The budgets keep the last node for ever: its pods have nowhere else to run.
                bench
                    .until("the drain of the last node", |b| {
                        b.pool()["status"]["drain"]["limitedBy"] == "Budget"
                            && b.cluster.list("nodes").len() == 1
                    })
                    .await;
                let retain = json!({ "spec": { "deletionPolicy": "Retain" } });
                bench.cluster.patch(POOLS, "", POOL, retain);
            }
            bench.until("the pool is gone", |b| b.pool().is_null()).await;
            bench.assert_safe();
        });
    }
}
