//! Proof 3: every call fails once in every way that a call can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use vnp_fake_api_server::{Fault, Gate, Refusal};

use crate::bench::run;
use crate::end_state;
use crate::scenarios::{
    DELETION, RAISE, RESTORE, SHRINK, Scenario, begin, golden, purpose, worth_disturbing,
};

fn refusal(code: u16, reason: &'static str, retry_after: Option<u32>) -> Fault {
    Fault::Refuse(Refusal {
        retry_after,
        ..Refusal::new(code, reason, "injected")
    })
}

/// So many calls of each purpose are failed: both lists that prove a node empty are among them, and every write but the
/// last evictions.
const OFTEN: usize = 3;

/// One of each sort of failure, for calls of whose purpose the first one was failed in every way: refused, not known whether
/// it was carried out, carried out with an answer that can't be read.
pub(crate) const DISTINCT: [&str; 4] = ["409", "500", "reset after it was carried out", "half an answer"];

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

/// Every `nth` call of the operators fails, in each distinct way by turns, unless the gate of somebody else stops it. With
/// the count of calls so far.
pub(crate) fn now_and_then(nth: usize, other: Option<Gate>) -> (Gate, Arc<AtomicUsize>) {
    let mut ways = faults().to_vec();
    ways.retain(|(name, _)| DISTINCT.contains(name));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let gate: Gate = Arc::new(move |call| {
        let theirs = other.as_ref().map(|gate| gate(call));
        let number = worth_disturbing(call).then(|| count.fetch_add(1, Ordering::Relaxed) + 1);
        let ours = match number.filter(|number| number.is_multiple_of(nth)) {
            Some(number) => ways[number / nth % ways.len()].1.clone(),
            None => Fault::Pass,
        };
        async move {
            match theirs {
                Some(theirs) => match theirs.await {
                    Fault::Pass => ours,
                    stopped => stopped,
                },
                None => ours,
            }
        }
        .boxed()
    });
    (gate, calls)
}

/// A purpose of calls, and which of its calls from 0.
type Occasion = (String, usize);

/// Runs with a fault at each occasion that `which` picks, and gives how many there were.
fn fail(
    scenario: Scenario,
    fault: &Fault,
    which: impl Fn(&Occasion) -> bool + Send + Sync + 'static,
    end: &BTreeMap<String, Value>,
) -> usize {
    run(|bench| async move {
        let _operator = begin(&bench, scenario).await;
        let failed = Arc::new(AtomicUsize::new(0));
        let (fault, fired, counts) = (fault.clone(), failed.clone(), Mutex::new(BTreeMap::new()));
        let gate: Gate = Arc::new(move |call| {
            let now = worth_disturbing(call) && {
                let mut counts = counts.lock().expect("a count of calls");
                let occasion = next_of(&mut counts, purpose(call));
                which(&occasion)
            };
            if now {
                fired.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(if now { fault.clone() } else { Fault::Pass }).boxed()
        });
        bench.cluster.server.set_gate(gate);
        (scenario.act)(&bench).await;
        bench.until(scenario.name, scenario.done).await;
        bench.assert_quiet(Duration::from_secs(20)).await;
        bench.assert_safe();
        end_state::same(end, &bench.end(), scenario.name);
        failed.load(Ordering::Relaxed)
    })
}

fn next_of(counts: &mut BTreeMap<String, usize>, purpose: String) -> Occasion {
    let count = counts.entry(purpose.clone()).or_default();
    *count += 1;
    (purpose, *count - 1)
}

#[test]
fn a_shrink_survives_each_fault_of_each_call() {
    let (calls, end) = golden(SHRINK);
    let mut counts = BTreeMap::new();
    let mut occasions: Vec<Occasion> = calls.into_iter().map(|call| next_of(&mut counts, call)).collect();
    occasions.retain(|(_, nth)| *nth < OFTEN);
    println!("{} purposes, failed at {occasions:#?}", counts.len());
    for occasion in occasions {
        let again = occasion.1 > 0;
        for (name, fault) in faults()
            .into_iter()
            .filter(|(name, _)| !again || DISTINCT.contains(name))
        {
            println!("{occasion:?}: {name}");
            let one = occasion.clone();
            let failed = fail(SHRINK, &fault, move |occasion| *occasion == one, &end);
            assert_eq!(failed, 1, "{occasion:?} did not come about");
        }
    }
}

#[test]
fn everything_survives_a_fault_at_the_first_call_of_every_kind() {
    for scenario in [SHRINK, RAISE, DELETION, RESTORE] {
        let (calls, end) = golden(scenario);
        let purposes: BTreeSet<String> = calls.into_iter().collect();
        for (name, fault) in faults() {
            println!("{}: {name}", scenario.name);
            let failed = fail(scenario, &fault, |(_, nth)| *nth == 0, &end);
            // What a fault puts off may never be asked for, but most of it is.
            assert!(2 * failed > purposes.len(), "{failed} of {}", purposes.len());
        }
    }
}
