//! Proof 8: what a tenant writes and this version can't read stops nothing but what it may concern.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Bench, PROVIDER, condition, run};
use crate::cluster::{name, text};
use crate::scenarios::ready;

fn blockers(bench: &Bench) -> Vec<String> {
    let pool = bench.pool();
    let all = pool.pointer("/status/drain/blockers").and_then(Value::as_array);
    let mut told: Vec<String> = all
        .into_iter()
        .flatten()
        .map(|b| format!("{} {}", text(b, "/reason"), text(b, "/object")))
        .collect();
    told.sort();
    told
}

/// Makes an object hold a value that its type does not take.
fn spoil(bench: &Bench, resource: &str, namespace: &str, object: &str, pointer: &str, value: Value) {
    bench.cluster.change(resource, namespace, object, |o| {
        if let Some(place) = o.pointer_mut(pointer) {
            *place = value;
        }
    });
}

#[test]
fn a_time_out_of_range_in_a_budget_changes_nothing() {
    run(|bench| async move {
        let late = json!([{"manager": "tenant", "operation": "Update", "apiVersion": "policy/v1",
                           "time": "9999-12-31T23:59:59Z", "fieldsType": "FieldsV1", "fieldsV1": {}}]);
        bench
            .cluster
            .change("poddisruptionbudgets.policy", "shop", "web", |b| {
                b["metadata"]["managedFields"] = late;
            });
        let _operator = ready(&bench, 3).await;
        bench.edit(json!({"replicas": 2}));
        bench.until_settled(2).await;
        bench.assert_quiet(Duration::from_secs(150)).await;
        bench.assert_safe();
    });
}

#[test]
fn a_pod_and_a_budget_that_cannot_be_read_hold_what_they_may_concern() {
    run(|bench| async move {
        let _operator = ready(&bench, 3).await;
        let last = format!("{PROVIDER}-2");
        let pods = bench.virtual_pods();
        let pod = pods
            .iter()
            .find(|p| text(p, "/spec/nodeName") == last)
            .expect("a pod on it");
        let (pod, grace) = (name(pod).to_owned(), "/spec/terminationGracePeriodSeconds");
        spoil(&bench, "pods", "shop", &pod, grace, json!("long"));
        bench.edit(json!({"replicas": 2}));
        let named = format!("Unreadable shop/{pod}");
        let left = |bench: &Bench| {
            let pods = bench.virtual_pods();
            pods.iter().filter(|p| text(p, "/spec/nodeName") == last).count()
        };
        bench
            .until("only the pod that can't be read", |b| {
                left(b) == 1 && blockers(b) == [named.clone()]
            })
            .await;
        bench
            .until("a person is asked for", |b| {
                condition(&b.pool(), "Stalled") == "True"
            })
            .await;
        assert_eq!((left(&bench), blockers(&bench)), (1, vec![named]));
        // The tenant mends the pod, and breaks the budget that covers nobody there: it may cover everybody.
        let policy = |value: Option<Value>| {
            bench
                .cluster
                .change("poddisruptionbudgets.policy", "shop", "db", |b| match value {
                    Some(value) => b["spec"]["unhealthyPodEvictionPolicy"] = value,
                    None => {
                        if let Some(spec) = b["spec"].as_object_mut() {
                            spec.remove("unhealthyPodEvictionPolicy");
                        }
                    }
                });
        };
        policy(Some(json!(7)));
        spoil(&bench, "pods", "shop", &pod, grace, json!(30));
        bench
            .until("the budget is named", |b| blockers(b) == ["Unreadable shop/db"])
            .await;
        assert_eq!(left(&bench), 1);
        policy(None);
        bench.until_settled(2).await;
        bench.assert_quiet(Duration::from_secs(150)).await;
        bench.assert_safe();
    });
}

#[test]
fn a_pool_that_cannot_be_read_says_so_and_goes_on_where_it_was() {
    run(|bench| async move {
        let _operator = ready(&bench, 3).await;
        bench.edit(json!({"replicas": 2}));
        let draining = |b: &Bench| b.pool().pointer("/status/drain/nodes/0/startedAt").cloned();
        bench
            .until("a drain", |b| draining(b).is_some_and(|at| !at.is_null()))
            .await;
        let began = draining(&bench);
        // A newer version may have taken it from a CRD that needs no waitFor.
        bench.edit(json!({"drain": {"stages": [{"name": "odd", "podSelector": {}}]}}));
        let said = |b: &Bench| {
            let pool = b.pool();
            let reason = |kind: &str| {
                let all = pool["status"]["conditions"].as_array();
                let one = all.and_then(|all| all.iter().find(|c| c["type"] == kind));
                one.map(|c| format!("{} {}", text(c, "/status"), text(c, "/reason")))
            };
            [reason("Ready"), reason("Stalled"), reason("Reconciling")]
        };
        let expected = [
            Some("False InvalidSpec".to_owned()),
            Some("True InvalidSpec".to_owned()),
            None,
        ];
        bench
            .until("the pool says that it can't be read", |b| said(b) == expected)
            .await;
        bench.assert_quiet(Duration::from_secs(150)).await;
        assert_eq!(draining(&bench), began, "the drain is remembered");
        bench.edit(json!({"drain": {"stages": null}}));
        bench.until_settled(2).await;
        bench.assert_quiet(Duration::from_secs(20)).await;
        bench.assert_safe();
    });
}
