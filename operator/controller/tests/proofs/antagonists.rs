//! Proof 9: everybody else who writes to the cluster. Each antagonist joins a pool's whole life, and so does what the other
//! proofs do: the operator dies once, sees the cluster late, misses events, its calls fail, and its clock is wrong. The
//! promises hold, writes stay few, what is in the way is said, and all goes on by itself when the antagonist goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use vnp_fake_api_server::Entry;

use crate::bench::{Bench, OPERATORS, POOL, PROVIDER, line, run};
use crate::cluster::text;
use crate::errors;
use crate::operator::Running;
use crate::scenarios::{DELETION, begin, ready};
use crate::world::{ANTAGONISTS, Antagonist};

/// Writes of operators in any minute, refused ones included: a shrink alone needs about 50.
const WRITES_PER_MINUTE: usize = 150;
/// How long each part of the life lasts.
const PART: Duration = Duration::from_secs(75);

/// One of so many calls fails.
const FAILS: usize = 6;
/// So many events of the first operator's watches are lost, each time after that many others.
const LOST: usize = 10;
const BETWEEN: usize = 8;

/// A pool shrinks, grows again in the middle of it, loses its workload and is deleted, all beside an antagonist.
fn joins(antagonist: Antagonist) {
    run(|bench| async move {
        let operator = ready(&bench, 3).await;
        let from = bench.cluster.server.journal().len();
        let program = antagonist.program(&bench.cluster);
        bench.world.parts().antagonists.push(program);
        let (gate, calls) = errors::now_and_then(FAILS, antagonist.gate());
        bench.cluster.server.set_gate(gate);
        bench.cluster.server.lag("operator-0", 2);
        let first = bench.cluster.server.events_of("operator-0");
        let lost = (first..).step_by(BETWEEN + 1).take(LOST);
        for number in lost.clone() {
            bench.cluster.server.drop_event("operator-0", number);
        }
        bench.edit(json!({"replicas": 1}));
        tokio::time::sleep(PART).await;
        bench.edit(json!({"replicas": 2}));
        tokio::time::sleep(PART / 2).await;
        operator.kill();
        let came = bench.cluster.server.events_of("operator-0");
        assert!(lost.last() < Some(came), "only {} events came", came - first);
        let _next = Running::start(&bench.cluster, "operator-1");
        tokio::time::sleep(PART / 2).await;
        bench.cluster.delete("statefulsets.apps", "kube-system", PROVIDER);
        tokio::time::sleep(PART).await;
        (DELETION.act)(&bench).await;
        tokio::time::sleep(PART).await;
        bench.assert_safe();
        let failed = calls.load(Ordering::Relaxed) / FAILS;
        println!("{}: {failed} calls failed", antagonist.name);
        assert!(failed >= errors::DISTINCT.len(), "only {failed} calls failed");
        few_writes(&bench, from, antagonist);
        said(&bench, from, antagonist);
        bench.world.parts().antagonists.clear();
        bench.cluster.server.open_gate();
        antagonist.leave(&bench.cluster);
        bench
            .until("what goes on when nobody is in the way", DELETION.done)
            .await;
        bench.assert_safe();
    });
}

fn few_writes(bench: &Bench, from: usize, antagonist: Antagonist) {
    let mut writes = bench.cluster.server.journal_from(from);
    writes.retain(|e| e.client.starts_with(OPERATORS) && e.key.resource != "leases.coordination.k8s.io");
    let minute = |at: usize| {
        let first = writes[at].at;
        let end = writes[at..].partition_point(|e| e.at < first + Duration::from_secs(60));
        &writes[at..at + end]
    };
    let busiest = (0..writes.len())
        .map(minute)
        .max_by_key(|m| m.len())
        .unwrap_or_default();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for write in busiest {
        let kind = format!("{} {} {}", write.verb, write.key.resource, write.subresource);
        *kinds.entry(kind).or_default() += 1;
    }
    assert!(
        busiest.len() <= WRITES_PER_MINUTE,
        "{} writes in a minute against {}: {kinds:?}, such as {:#?}",
        busiest.len(),
        antagonist.name,
        busiest.iter().rev().take(12).map(line).collect::<Vec<_>>()
    );
}

/// The pool's status or an event said what is in the way, in words that lead to it.
fn said(bench: &Bench, from: usize, antagonist: Antagonist) {
    let journal = bench.cluster.server.journal_from(from);
    let words = |e: &Entry| match e.key.resource {
        "virtualnodepools.virtualnodes.dev" => {
            let pool = e.after.as_deref()?;
            let conditions = pool["status"]["conditions"]
                .as_array()?
                .iter()
                .map(|c| text(c, "/message"));
            let blockers = pool["status"]["drain"]["blockers"].to_string();
            Some(
                conditions
                    .chain([blockers.as_str()])
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
        }
        "events" => e
            .after
            .as_deref()
            .map(|event| format!("{} {}", text(event, "/reason"), text(event, "/message"))),
        _ => None,
    };
    let ours = journal
        .iter()
        .filter(|e| e.client.starts_with(OPERATORS) && e.changed());
    let told: BTreeSet<String> = ours
        .filter_map(words)
        .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(
        told.iter().any(|t| t.contains(antagonist.evidence)),
        "nothing of {POOL} says {:?} of {}; its last words: {:#?}",
        antagonist.evidence,
        antagonist.name,
        told
    );
}

/// Every n-th antagonist, so that they run side by side.
fn every(of: usize, first: usize) {
    let failed: Vec<&str> = ANTAGONISTS
        .into_iter()
        .skip(first)
        .step_by(of)
        .filter(|antagonist| std::panic::catch_unwind(|| joins(*antagonist)).is_err())
        .map(|antagonist| antagonist.name)
        .collect();
    assert!(failed.is_empty(), "the panics above came with {failed:?}");
}

#[test]
fn a_pool_lives_with_the_first_third_of_them() {
    every(3, 0);
}

#[test]
fn a_pool_lives_with_the_second_third_of_them() {
    every(3, 1);
}

#[test]
fn a_pool_lives_with_the_last_third_of_them() {
    every(3, 2);
}

#[test]
fn a_template_that_is_set_back_is_left_alone_while_the_pool_goes_as_well() {
    let antagonist = ANTAGONISTS
        .into_iter()
        .find(|a| a.name == "policy-that-rewrites")
        .expect("one that sets the image back at once");
    run(|bench| async move {
        let _operator = begin(&bench, DELETION).await;
        let from = bench.cluster.server.journal().len();
        let program = antagonist.program(&bench.cluster);
        bench.world.parts().antagonists.push(program);
        (DELETION.act)(&bench).await;
        tokio::time::sleep(PART).await;
        few_writes(&bench, from, antagonist);
    });
}
