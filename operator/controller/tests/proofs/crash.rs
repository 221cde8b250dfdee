//! Proof 2: the operator dies before and after every single call that it makes, and another one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::Notify;
use vnp_fake_api_server::{Fault, Gate};

use crate::bench::run;
use crate::end_state;
use crate::operator::Running;
use crate::scenarios::{DELETION, QUIET, RAISE, RESTORE, SHRINK, Scenario, begin, golden, worth_disturbing};

/// Dies with the `nth` call, `after` or before it is carried out.
fn die(scenario: Scenario, nth: usize, after: bool, golden: &BTreeMap<String, Value>) {
    run(|bench| async move {
        let operator = begin(&bench, scenario).await;
        let dead = Arc::new(Notify::new());
        let (count, at) = (AtomicUsize::new(0), dead.clone());
        let gate: Gate = Arc::new(move |call| {
            let now = worth_disturbing(call) && count.fetch_add(1, Ordering::Relaxed) == nth;
            if now {
                at.notify_one();
            }
            let fault = match (now, after) {
                (false, _) => Fault::Pass,
                (true, false) => Fault::ParkBefore,
                (true, true) => Fault::ParkAfter,
            };
            std::future::ready(fault).boxed()
        });
        bench.cluster.server.set_gate(gate);
        let next = async {
            dead.notified().await;
            operator.kill();
            Running::start(&bench.cluster, "operator-1")
        };
        let all = async {
            (scenario.act)(&bench).await;
            bench.until(scenario.name, scenario.done).await;
        };
        let (mut next, mut all) = (std::pin::pin!(next), std::pin::pin!(all));
        let _next = tokio::select! {
            next = &mut next => {
                all.await;
                next
            }
            // Calls that come after the end, such as those of a debounce.
            () = &mut all => match tokio::time::timeout(2 * QUIET, next).await {
                Ok(next) => {
                    bench.until(scenario.name, scenario.done).await;
                    next
                }
                Err(_) => panic!("{}: call {nth} did not come", scenario.name),
            },
        };
        bench.assert_quiet(Duration::from_secs(20)).await;
        bench.assert_safe();
        end_state::same(golden, &bench.end(), scenario.name);
    });
}

fn at_every_call(scenario: Scenario) {
    let (calls, end) = golden(scenario);
    println!("{}: {} calls", scenario.name, calls.len());
    for (nth, call) in calls.iter().enumerate() {
        let writes = !call.starts_with("get") && !call.starts_with("list");
        for after in [false, true] {
            if after && !writes {
                continue;
            }
            let told = std::panic::catch_unwind(|| die(scenario, nth, after, &end));
            if let Err(panic) = told {
                eprintln!(
                    "died {} call {nth}: {call}",
                    if after { "after" } else { "before" }
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn a_shrink_survives_death_at_every_call() {
    at_every_call(SHRINK);
}

#[test]
fn a_raise_survives_death_at_every_call() {
    at_every_call(RAISE);
}

#[test]
fn a_deletion_survives_death_at_every_call() {
    at_every_call(DELETION);
}

#[test]
fn a_restore_survives_death_at_every_call() {
    at_every_call(RESTORE);
}
