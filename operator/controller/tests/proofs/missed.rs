//! Proof 5: every event of a watch is lost once, without a trace. What it would have told is found by the next full list.

use std::time::Duration;

use serde_json::json;

use crate::bench::run;
use crate::end_state;
use crate::scenarios::{SHRINK, golden, ready};

const OPERATOR: &str = "operator-0";

/// Events that an undisturbed shrink needs, from the edit until it is done.
fn events() -> (u64, u64) {
    run(|bench| async move {
        let _operator = ready(&bench, SHRINK.nodes).await;
        let from = bench.cluster.server.events_of(OPERATOR);
        (SHRINK.act)(&bench).await;
        bench.until(SHRINK.name, SHRINK.done).await;
        (from, bench.cluster.server.events_of(OPERATOR))
    })
}

#[test]
fn a_shrink_survives_the_loss_of_each_event() {
    let (_, end) = golden(SHRINK);
    let (from, to) = events();
    println!("{} events", to - from);
    for lost in from..to {
        println!("event {lost}");
        run(|bench| {
            let end = &end;
            async move {
                let _operator = ready(&bench, SHRINK.nodes).await;
                bench.cluster.server.drop_event(OPERATOR, lost);
                (SHRINK.act)(&bench).await;
                bench
                    .until(&format!("a shrink without event {lost}"), SHRINK.done)
                    .await;
                bench.assert_safe();
                // The status may tell of what was not seen until the next full list.
                for _ in 0..45 {
                    if bench.end() == *end {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                end_state::same(end, &bench.end(), &format!("a shrink without event {lost}"));
            }
        });
    }
}

#[test]
fn an_edit_that_was_not_heard_of_is_found() {
    run(|bench| async move {
        let _operator = ready(&bench, 2).await;
        let next = bench.cluster.server.events_of(OPERATOR);
        for number in next..next + 40 {
            bench.cluster.server.drop_event(OPERATOR, number);
        }
        bench.edit(json!({"replicas": 3}));
        bench.until_settled(3).await;
        bench.assert_safe();
    });
}
