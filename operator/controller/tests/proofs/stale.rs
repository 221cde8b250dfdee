//! Proof 4: what the operator watches lags behind what is, while its live reads are current.

use std::time::Duration;

use serde_json::json;

use crate::bench::{Bench, PROVIDER, run};
use crate::end_state;
use crate::scenarios::{RAISE, RESTORE, SHRINK, begin, golden, ready};

const OPERATOR: &str = "operator-0";

#[test]
fn caches_that_are_steps_behind_delay_and_never_mislead() {
    for scenario in [SHRINK, RAISE, RESTORE] {
        let (_, end) = golden(scenario);
        for steps in [1, 2, 3, 5, 8] {
            println!("{}: {steps} writes behind", scenario.name);
            run(|bench| {
                let end = &end;
                async move {
                    let _operator = begin(&bench, scenario).await;
                    bench.cluster.server.lag(OPERATOR, steps);
                    (scenario.act)(&bench).await;
                    bench.until(scenario.name, scenario.done).await;
                    bench.cluster.server.lag(OPERATOR, 0);
                    bench.until(scenario.name, scenario.done).await;
                    bench.assert_quiet(Duration::from_secs(20)).await;
                    bench.assert_safe();
                    end_state::same(end, &bench.end(), scenario.name);
                }
            });
        }
    }
}

/// Caches stand still while the world moves on, from each moment of a shrink.
fn frozen(at: Duration, meanwhile: fn(&Bench)) {
    let (_, end) = golden(SHRINK);
    run(|bench| async move {
        let _operator = ready(&bench, SHRINK.nodes).await;
        (SHRINK.act)(&bench).await;
        tokio::time::sleep(at).await;
        bench.cluster.server.freeze(OPERATOR);
        meanwhile(&bench);
        tokio::time::sleep(Duration::from_secs(20)).await;
        bench.assert_safe();
        bench.cluster.server.thaw(OPERATOR);
        bench.until(SHRINK.name, SHRINK.done).await;
        bench.assert_quiet(Duration::from_secs(20)).await;
        bench.assert_safe();
        end_state::same(&end, &bench.end(), SHRINK.name);
    });
}

/// A pod that somebody binds to the node that goes, past the scheduler and the cordon.
fn bind_late(bench: &Bench) {
    bench.cluster.create(
        "pods",
        json!({
            "metadata": {"namespace": "shop", "name": "late", "labels": {"app": "late"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "late", "uid": "late-uid", "controller": true}]},
            "spec": {"nodeName": format!("{PROVIDER}-2"), "containers": [{"name": "web", "image": "registry.example/web:1"}]},
        }),
    );
}

#[test]
fn a_pod_that_comes_behind_a_frozen_cache_is_seen_by_the_last_look() {
    for seconds in 0..14 {
        frozen(Duration::from_secs(seconds), |bench| {
            if bench.cluster.get("nodes", "", &format!("{PROVIDER}-2")).is_some() {
                bind_late(bench);
                // And another one under its name.
                let late = bench.cluster.get("pods", "shop", "late").expect("the pod");
                bench.cluster.remove_pod(&late);
                bind_late(bench);
            }
        });
    }
}

#[test]
fn a_node_that_is_made_again_behind_a_frozen_cache_is_another_one() {
    for seconds in 0..14 {
        frozen(Duration::from_secs(seconds), |bench| {
            bench.cluster.delete("nodes", "", &format!("{PROVIDER}-2"));
        });
    }
}
