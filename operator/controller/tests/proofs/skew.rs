//! Clocks of hosts fire no deadline (P7): a drain that a budget blocks, begun by an operator whose host is an hour wrong one
//! way and taken over by one whose host is an hour wrong the other way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Bench, POOL, condition, run};
use crate::cluster::text;
use crate::operator::Running;
use crate::scenarios::ready;

/// Less than the hosts are apart, and than either of them is off.
const TIMEOUT: u64 = 1800;
/// A forced deletion is announced so long before.
const NOTICE: u64 = 60;
/// For takeovers, debounces and stamps of whole seconds.
const SLACK: u64 = 15;

/// Every status of the pool that was ever stored.
fn statuses(bench: &Bench) -> Vec<Value> {
    let pool = |c: &vnp_fake_api_server::Change| {
        c.key.resource == "virtualnodepools.virtualnodes.dev" && c.key.name == POOL
    };
    bench.cluster.server.inspect(|store| {
        let history = store.history().iter().filter(|c| pool(c));
        history.map(|c| Value::clone(&c.after)).collect()
    })
}

fn announced(pool: &Value) -> bool {
    let nodes = pool["status"]["drain"]["nodes"].as_array();
    nodes.is_some_and(|all| all.iter().any(|n| !n["forceAnnouncedTime"].is_null()))
}

fn aborted(pool: &Value) -> bool {
    let nodes = pool["status"]["drain"]["nodes"].as_array();
    nodes.is_some_and(|all| all.iter().any(|n| n["phase"] == "Aborted"))
}

/// Statuses that tell of a deadline, and pods of applications that an operator deleted.
fn assert_nothing_fired(bench: &Bench) {
    for pool in statuses(bench) {
        let fired = announced(&pool) || aborted(&pool) || condition(&pool, "Stalled") == "True";
        assert!(!fired, "P7: a deadline fired early: {}", pool["status"]);
    }
    let deleted: Vec<_> = bench
        .writes(0)
        .into_iter()
        .filter(|e| e.verb == "delete" && e.key.resource == "pods" && e.key.namespace == "shop")
        .map(|e| e.key.name)
        .collect();
    assert!(deleted.is_empty(), "P7: deleted by force: {deleted:?}");
}

/// Drains under one operator, goes on under the next, and waits for what the timeout does by the API server's clock.
fn taken_over(on_timeout: &'static str, next: &'static str, fired: fn(&Value) -> bool, after: u64) {
    run(|bench| async move {
        let first = ready(&bench, 3).await;
        let closed = json!({"spec": {"maxUnavailable": 0}});
        for budget in ["web", "db"] {
            let patch = closed.clone();
            bench
                .cluster
                .patch("poddisruptionbudgets.policy", "shop", budget, patch);
        }
        let first = if next == "operator-1" {
            first
        } else {
            first.kill();
            Running::start(&bench.cluster, "operator-1")
        };
        bench.edit(json!({
            "replicas": 2,
            "drain": {"timeoutSeconds": TIMEOUT, "onTimeout": on_timeout, "progressDeadlineSeconds": 2 * TIMEOUT},
        }));
        bench
            .until("a blocked drain", |b| {
                b.pool()["status"]["drain"]["podsBlocked"]
                    .as_i64()
                    .is_some_and(|n| n > 0)
            })
            .await;
        let started = bench.pool()["status"]["drain"]["nodes"][0]["startedAt"].clone();
        let started: jiff::Timestamp = text(&json!({ "at": started }), "/at").parse().expect("a time");
        first.kill();
        let _second = Running::start(&bench.cluster, next);
        let due = started + Duration::from_secs(after);
        let left =
            |bench: &Bench| Duration::try_from(due.duration_since(bench.cluster.now())).unwrap_or_default();
        let wait = left(&bench).saturating_sub(Duration::from_secs(SLACK));
        assert!(
            wait > Duration::from_secs(after / 2),
            "begun at {started}, by whose clock?"
        );
        tokio::time::sleep(wait).await;
        assert_nothing_fired(&bench);
        // And it does fire, when it is time.
        tokio::time::sleep(left(&bench) + Duration::from_secs(SLACK)).await;
        assert!(fired(&bench.pool()), "nothing fired: {}", bench.pool()["status"]);
        bench.assert_safe();
    });
}

#[test]
fn a_forced_deletion_is_announced_by_the_api_servers_clock() {
    for next in ["operator-1", "operator-2"] {
        println!("{next} takes over");
        taken_over("ForceDelete", next, announced, TIMEOUT - NOTICE);
    }
}

#[test]
fn a_drain_is_given_up_by_the_api_servers_clock() {
    taken_over("Abort", "operator-1", aborted, TIMEOUT);
}

#[test]
fn a_drain_is_late_by_the_api_servers_clock() {
    let late = |pool: &Value| condition(pool, "Stalled") == "True";
    taken_over("Wait", "operator-1", late, TIMEOUT);
}
