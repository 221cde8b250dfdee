//! What a later pass or another process needs from the status is in it, however much there is to list.

use serde_json::json;
use vnp_crds::{BlockerReason, DrainPhase, EventReason};
use vnp_plan::finding::{Blocker, Finding};
use vnp_plan::plan::Plan;

use crate::report::attempts::Attempts;
use crate::report::situation::Pass;
use crate::report::testing::{Story, at, draining, in_drain, pool};
use crate::report::transitions::between;

/// Node 2 drains, and 12 Nodes above wait to be removed.
fn crowded() -> Plan {
    let mut plan = draining(10, []);
    plan.facts.draining.extend((3..15).map(|ordinal| {
        let mut removed = in_drain(ordinal, 10);
        removed.phase = DrainPhase::Removing;
        removed
    }));
    plan
}

#[test]
fn nodes_in_removal_push_no_drain_that_goes_on_out_of_the_status() {
    let mut story = Story::of(pool(json!({})));
    let before = story.observed.clone();
    let report = story.pass(&crowded(), 20);
    let drain = report.status.drain.as_ref().unwrap();
    assert_eq!(drain.nodes.len(), 10);
    let going_on = report.status.draining(2).unwrap();
    assert_eq!(
        (going_on.started_at.0, going_on.phase),
        (at(0), DrainPhase::Evicting)
    );
    assert!(drain.nodes.is_sorted_by_key(|n| std::cmp::Reverse(n.ordinal)));
    // Only that one is a drain that began.
    let pass = Pass {
        observed: &before,
        plan: &crowded(),
        attempts: &Attempts::default(),
        standstill: None,
        done_at: None,
        now: at(20),
    };
    let started = between(&pass, &report.status);
    let started: Vec<_> = started
        .iter()
        .filter(|n| n.reason == EventReason::DrainStarted)
        .collect();
    assert_eq!(started.len(), 1, "{started:?}");
}

fn blockers(reason: BlockerReason, count: usize) -> impl Iterator<Item = Finding> {
    (0..count).map(move |n| {
        Finding::Blocker(Blocker {
            reason,
            object: format!("shop/p{n:02}"),
            pods: 1,
            since: None,
            message: "it is held".to_owned(),
            terminal: false,
        })
    })
}

#[test]
fn pods_left_to_finish_push_no_blocker_out_whose_time_counts() {
    let mut story = Story::of(pool(json!({})));
    let plan = draining(
        0,
        blockers(BlockerReason::WaitingForCompletion, 30).chain(blockers(BlockerReason::StatefulSetStuck, 1)),
    );
    story.pass(&plan, 0);
    let later = story.pass(&plan, 100);
    let listed = later.status.drain.unwrap().blockers;
    let stuck = listed
        .iter()
        .find(|b| b.reason == BlockerReason::StatefulSetStuck)
        .unwrap();
    assert_eq!((listed.len(), stuck.since.0), (10, at(0)));
}

#[test]
fn blockers_push_no_sign_out_that_pods_are_left_to_finish() {
    let mut story = Story::of(pool(json!({})));
    let plan = draining(
        0,
        blockers(BlockerReason::BarePods, 30).chain(blockers(BlockerReason::WaitingForCompletion, 1)),
    );
    let listed = story.pass(&plan, 0).status.drain.unwrap().blockers;
    assert_eq!(listed.len(), 10);
    assert!(
        listed
            .iter()
            .any(|b| b.reason == BlockerReason::WaitingForCompletion)
    );
}
