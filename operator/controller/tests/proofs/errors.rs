//! Proof 3: every call fails once in every way that a call can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use vnp_fake_api_server::{Fault, Gate, Refusal};

use crate::bench::run;
use crate::end_state;
use crate::scenarios::{DELETION, RAISE, RESTORE, SHRINK, Scenario, golden, ready, worth_disturbing};

fn refusal(code: u16, reason: &'static str, retry_after: Option<u32>) -> Fault {
    Fault::Refuse(Refusal {
        retry_after,
        ..Refusal::new(code, reason, "injected")
    })
}

/// Each way to fail, by what it is called.
fn faults() -> [(&'static str, Fault); 9] {
    [
        ("409", refusal(409, "Conflict", None)),
        ("429", refusal(429, "TooManyRequests", Some(1))),
        ("500", refusal(500, "InternalError", None)),
        ("503", refusal(503, "ServiceUnavailable", None)),
        ("504", refusal(504, "Timeout", None)),
        ("reset before", Fault::ResetBefore),
        ("reset after it was carried out", Fault::ResetAfter),
        ("half an answer", Fault::Truncate),
        ("no answer although it was carried out", Fault::ParkAfter),
    ]
}

/// Runs with a fault at the first call of each kind that `which` picks.
fn fail(
    scenario: Scenario,
    fault: &Fault,
    which: impl Fn(&str) -> bool + Send + Sync + 'static,
    end: &BTreeMap<String, Value>,
) {
    run(|bench| async move {
        let _operator = ready(&bench, scenario.nodes).await;
        let (fault, failed) = (fault.clone(), Mutex::new(BTreeSet::new()));
        let gate: Gate = Arc::new(move |call| {
            let kind = format!("{} {}", call.verb, call.path);
            let now =
                worth_disturbing(call) && which(&kind) && failed.lock().expect("a set of calls").insert(kind);
            std::future::ready(if now { fault.clone() } else { Fault::Pass }).boxed()
        });
        bench.cluster.server.set_gate(gate);
        (scenario.act)(&bench).await;
        bench.until(scenario.name, scenario.done).await;
        bench.assert_quiet(Duration::from_secs(20)).await;
        bench.assert_safe();
        end_state::same(end, &bench.end(), scenario.name);
    });
}

#[test]
fn a_shrink_survives_each_fault_of_each_call() {
    let (calls, end) = golden(SHRINK);
    let kinds: BTreeSet<String> = calls.into_iter().collect();
    println!("{} kinds of calls", kinds.len());
    for kind in kinds {
        for (name, fault) in faults() {
            println!("{kind}: {name}");
            let one = kind.clone();
            fail(SHRINK, &fault, move |kind| kind == one, &end);
        }
    }
}

#[test]
fn everything_survives_a_fault_at_the_first_call_of_every_kind() {
    for scenario in [SHRINK, RAISE, DELETION, RESTORE] {
        let (_, end) = golden(scenario);
        for (name, fault) in faults() {
            println!("{}: {name}", scenario.name);
            fail(scenario, &fault, |_| true, &end);
        }
    }
}
