//! Which events the passes of a pool are worth.

use std::sync::Arc;

use serde_json::json;
use vnp_crds::{BlockerReason, DrainPhase, EventReason, Reason, RetiredOrdinal};
use vnp_plan::drain::audit::Trail;
use vnp_plan::finding::{EventNote, Finding, ProfileState};
use vnp_plan::observed::{NodeView, Observed};
use vnp_plan::plan::{Plan, TrackKind};
use vnp_plan::step::{PatchPurpose, Step, WorkloadPatch};

use crate::report::attempts::{Attempts, RefusedWrite};
use crate::report::seconds::api_time;
use crate::report::situation::Pass;
use crate::report::testing::{Story, at, blocked, draining, pool, saying, settled};
use crate::report::transitions::{at_once, between, of_blockers};

fn pass_at<'a>(observed: &'a Observed, plan: &'a Plan, attempts: &'a Attempts<'a>, seconds: i64) -> Pass<'a> {
    Pass {
        observed,
        plan,
        attempts,
        standstill: None,
        done_at: None,
        now: at(seconds),
    }
}

/// Events of a pass: those told at once, and those of the change of status, as (reason, subject).
fn told(story: &mut Story, plan: &Plan, attempts: &Attempts<'_>, seconds: i64) -> Vec<(EventReason, String)> {
    let before = story.observed.clone();
    let report = story.pass_with(plan, attempts, seconds);
    let pass = pass_at(&before, plan, attempts, seconds);
    let mut all = at_once(&pass, &report.held_by);
    all.extend(between(&pass, &report.status));
    all.into_iter().map(|note| (note.reason, note.subject)).collect()
}

fn reasons(story: &mut Story, plan: &Plan, seconds: i64) -> Vec<EventReason> {
    told(story, plan, &Attempts::default(), seconds)
        .into_iter()
        .map(|(reason, _)| reason)
        .collect()
}

fn node(story: &mut Story, ordinal: i32) {
    let view = NodeView {
        name: format!("virtual-node-eci-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        labels: Default::default(),
        ready: true,
        ..NodeView::default()
    };
    story.observed.nodes.insert(ordinal, Arc::new(view));
}

fn retired(plan: &mut Plan, seconds: i64, abandoned: bool) {
    plan.facts.retired = vec![RetiredOrdinal {
        ordinal: 2,
        node_uid: Some("uid-2".into()),
        time: api_time(at(seconds)),
        abandoned,
        gone_time: None,
    }];
}

#[test]
fn a_drain_that_goes_through_tells_start_empty_and_end_once_each() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    assert_eq!(reasons(&mut story, &settled(), 0), []);
    let mut plan = draining(10, []);
    assert_eq!(reasons(&mut story, &plan, 10), [EventReason::DrainStarted]);
    assert_eq!(reasons(&mut story, &draining(20, []), 20), []);
    plan.facts.draining[0].phase = DrainPhase::Removing;
    retired(&mut plan, 30, false);
    assert_eq!(reasons(&mut story, &plan, 30), [EventReason::Drained]);
    assert_eq!(reasons(&mut story, &plan, 31), []);
    story.observed.nodes.clear();
    let mut done = settled();
    done.facts.target = Some(2);
    retired(&mut done, 30, false);
    assert_eq!(reasons(&mut story, &done, 40), [EventReason::NodeRemoved]);
    assert_eq!(reasons(&mut story, &done, 41), []);
}

/// That nothing of the ordinal is left any more is noted in its entry, and is no second drain.
#[test]
fn an_emptied_ordinal_is_told_once_though_its_entry_changes() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    let mut plan = draining(10, []);
    reasons(&mut story, &plan, 10);
    plan.facts.draining[0].phase = DrainPhase::Removing;
    retired(&mut plan, 30, false);
    assert_eq!(reasons(&mut story, &plan, 30), [EventReason::Drained]);
    for seconds in [40, 50] {
        plan.facts.retired[0].gone_time = Some(api_time(at(seconds)));
        assert_eq!(reasons(&mut story, &plan, seconds), []);
    }
    plan.facts.retired[0].gone_time = None;
    assert_eq!(reasons(&mut story, &plan, 60), []);
}

/// Only a cordon that somebody takes away again and again has an event of its own.
#[test]
fn a_node_that_another_installation_drains_too_is_told_as_blocked() {
    let mut story = Story::of(pool(json!({})));
    let plan = draining(0, [blocked(BlockerReason::CordonContested)]);
    story.pass(&plan, 0);
    let report = story.pass(&plan, 30);
    let notes = of_blockers(&report.held_by);
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (notes[0].reason, notes[0].subject.as_str()),
        (EventReason::DrainBlocked, "CordonContested")
    );
}

#[test]
fn a_drain_that_is_called_off_tells_that_its_node_stays() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    reasons(&mut story, &draining(10, []), 10);
    assert_eq!(reasons(&mut story, &settled(), 20), [EventReason::DrainCancelled]);
    // An ordinal retired long before is another story.
    reasons(&mut story, &draining(30, []), 30);
    let mut plan = settled();
    retired(&mut plan, -5000, true);
    assert_eq!(reasons(&mut story, &plan, 40), [EventReason::DrainCancelled]);
}

#[test]
fn each_drain_has_its_start_and_its_end() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    let mut flip = |seconds: i64| {
        let mut plan = draining(seconds, []);
        plan.facts.draining[0].started_at = at(seconds);
        let mut news = told(&mut story, &plan, &Attempts::default(), seconds);
        news.extend(told(&mut story, &settled(), &Attempts::default(), seconds + 1));
        news
    };
    let (first, second) = (flip(10), flip(12));
    let reasons = |news: &[(EventReason, String)]| news.iter().map(|n| n.0).collect::<Vec<_>>();
    assert_eq!(
        reasons(&first),
        [EventReason::DrainStarted, EventReason::DrainCancelled]
    );
    assert_eq!(reasons(&second), reasons(&first));
    assert!(
        first.iter().all(|news| !second.contains(news)),
        "{first:?} {second:?}"
    );
}

#[test]
fn a_target_that_moves_every_second_is_no_news() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    let mut flip = |seconds: i64| {
        let mut plan = draining(seconds, []);
        plan.facts.draining[0].started_at = at(seconds);
        plan.facts.draining[0].phase = DrainPhase::Settling;
        let mut news = told(&mut story, &plan, &Attempts::default(), seconds);
        news.extend(told(&mut story, &settled(), &Attempts::default(), seconds + 1));
        news
    };
    let first = flip(10);
    assert_eq!(
        first,
        [(EventReason::DrainCancelled, "virtual-node-eci-2 uid-2".to_owned())]
    );
    assert_eq!(
        flip(12),
        first,
        "the same reason and subject is told every ten minutes"
    );
    let mut plan = draining(20, []);
    plan.facts.draining[0].phase = DrainPhase::Settling;
    assert_eq!(reasons(&mut story, &plan, 20), []);
    assert_eq!(
        reasons(&mut story, &draining(20, []), 25),
        [EventReason::DrainStarted]
    );
    assert_eq!(reasons(&mut story, &draining(20, []), 30), []);
}

#[test]
fn a_node_that_nobody_wants_is_not_said_to_stay() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    reasons(&mut story, &draining(10, []), 10);
    let mut plan = settled();
    plan.facts.target = Some(2);
    assert_eq!(reasons(&mut story, &plan, 20), []);
}

#[test]
fn what_is_refused_is_told_once_for_each_reason() {
    let refused = |reason| {
        saying([Finding::Refused {
            reason,
            message: "field x".to_owned(),
        }])
    };
    let unreadable = saying([Finding::Profile {
        state: ProfileState::Unreadable,
        message: "key selectors".to_owned(),
    }]);
    let mut story = Story::of(pool(json!({})));
    for (plan, expected) in [
        (settled(), vec![]),
        (refused(Reason::Conflict), vec![EventReason::Conflict]),
        (refused(Reason::Conflict), vec![]),
        (refused(Reason::NotAProvider), vec![EventReason::InvalidSpec]),
        (unreadable.clone(), vec![EventReason::ProfileUnreadable]),
        (unreadable, vec![]),
        (settled(), vec![]),
        (refused(Reason::Conflict), vec![EventReason::Conflict]),
    ] {
        assert_eq!(reasons(&mut story, &plan, 10), expected);
    }
}

#[test]
fn what_was_deleted_by_force_is_counted_when_the_node_is_empty() {
    let record = |ended: &[(&str, i64)]| {
        let pods: Vec<_> = ended
            .iter()
            .enumerate()
            .map(|(n, (ended, seconds))| {
                json!({"pod": format!("shop/p-{n}"), "uid": format!("p-{n}"), "ended": ended, "at": at(*seconds).to_string()})
            })
            .collect();
        json!({"node": "virtual-node-eci-2", "uid": "uid-2", "ordinal": 2, "pool": "burst", "startedAt": at(0).to_string(),
               "emptiedAt": at(650).to_string(), "podsTotal": pods.len(), "pods": pods})
    };
    let by_budget = [("Evicted", 610), ("Deleted", 100)];
    let by_force = [
        ("Evicted", 100),
        ("Deleted", 600),
        ("Deleted", 640),
        ("Finished", 640),
    ];
    let unseen = [("Unknown", 620), ("Deleted", 640)];
    for (ended, expected) in [
        (Some(&by_budget[..]), None),
        (
            Some(&by_force),
            Some("2 pods of virtual-node-eci-2 were deleted past their budgets: "),
        ),
        (
            Some(&unseen),
            Some(
                "pods of virtual-node-eci-2 may have been deleted past their budgets, how many was not recorded: ",
            ),
        ),
        (None, Some("pods of virtual-node-eci-2 may have been")),
    ] {
        let mut story = Story::of(pool(json!({})));
        node(&mut story, 2);
        let mut plan = draining(640, []);
        plan.facts.draining[0].force_announced = Some(at(540));
        plan.facts.draining[0].force_at = Some(at(600));
        reasons(&mut story, &plan, 640);
        story.observed.audit = ended.map(|ended| {
            let map = json!({"data": {"virtual-node-eci-2.uid-2.json": record(ended).to_string()}});
            Trail::read(&serde_json::from_value(map).unwrap()).into()
        });
        plan.facts.draining[0].phase = DrainPhase::Removing;
        plan.facts.draining[0].force_announced = None;
        plan.facts.draining[0].force_at = None;
        retired(&mut plan, 690, false);
        let before = story.observed.clone();
        let report = story.pass(&plan, 690);
        let attempts = Attempts::default();
        let pass = pass_at(&before, &plan, &attempts, 690);
        let notes = between(&pass, &report.status);
        let forced: Vec<&str> = notes
            .iter()
            .filter(|n| n.reason == EventReason::ForceDeleted)
            .map(|n| n.note.as_str())
            .collect();
        assert_eq!(forced.len(), usize::from(expected.is_some()), "{forced:?}");
        assert!(
            forced.iter().all(|note| note.starts_with(expected.unwrap())),
            "{forced:?}"
        );
    }
}

#[test]
fn an_ordinal_that_never_came_up_goes_without_a_word() {
    let mut story = Story::of(pool(json!({})));
    reasons(&mut story, &draining(10, []), 10);
    assert_eq!(reasons(&mut story, &settled(), 20), []);
}

#[test]
fn an_abandoned_node_is_not_called_drained() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    let mut plan = draining(10, []);
    reasons(&mut story, &plan, 10);
    retired(&mut plan, 20, true);
    assert_eq!(reasons(&mut story, &plan, 20), []);
}

#[test]
fn what_holds_a_drain_is_told_with_its_reason_first() {
    let mut story = Story::of(pool(json!({})));
    // The plan itself tells of the person who uncordons, and ends with that.
    let Finding::Blocker(mut contested) = blocked(BlockerReason::CordonContested) else {
        panic!()
    };
    contested.terminal = true;
    let plan = draining(
        0,
        [
            blocked(BlockerReason::BlockedByBudget),
            Finding::Blocker(contested),
        ],
    );
    let report = story.pass(&plan, 30);
    let attempts = Attempts::default();
    let pass = pass_at(&story.observed, &plan, &attempts, 30);
    let notes: Vec<EventNote> = at_once(&pass, &report.held_by).into_iter().collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].reason, EventReason::DrainBlocked);
    assert!(
        notes[0].note.starts_with("BlockedByBudget shop/checkout: "),
        "{}",
        notes[0].note
    );
}

#[test]
fn many_objects_that_block_for_one_reason_are_one_event() {
    let stuck = |pod: &str| {
        let Finding::Blocker(mut blocker) = blocked(BlockerReason::StuckTerminating) else {
            panic!()
        };
        pod.clone_into(&mut blocker.object);
        Finding::Blocker(blocker)
    };
    let mut story = Story::of(pool(json!({})));
    let plan = draining(
        0,
        [
            stuck("shop/a"),
            stuck("shop/b"),
            stuck("shop/c"),
            blocked(BlockerReason::BlockedByBudget),
        ],
    );
    story.pass(&plan, 0);
    let report = story.pass(&plan, 30);
    let told = of_blockers(&report.held_by);
    let subjects: Vec<&str> = told.iter().map(|n| n.subject.as_str()).collect();
    assert_eq!(subjects, ["BlockedByBudget", "StuckTerminating"]);
    assert!(
        told[1].note.starts_with("StuckTerminating shop/a: ")
            && told[1]
                .note
                .ends_with("; 2 more of that reason in status.drain.blockers"),
        "{}",
        told[1].note
    );
}

#[test]
fn a_budget_beside_progress_is_no_event() {
    let mut story = Story::of(pool(json!({})));
    let plan = draining(29, [blocked(BlockerReason::BlockedByBudget)]);
    assert_eq!(reasons(&mut story, &plan, 30), [EventReason::DrainStarted]);
}

#[test]
fn an_event_about_a_write_is_told_when_the_write_was_taken() {
    let raise = Step::PatchWorkload(WorkloadPatch {
        patch: json_patch::Patch(Vec::new()),
        purpose: PatchPurpose::ScaleUp,
        changes: Vec::new(),
    });
    let revert = Step::PatchWorkload(WorkloadPatch {
        patch: json_patch::Patch(Vec::new()),
        purpose: PatchPurpose::Revert,
        changes: Vec::new(),
    });
    let drop = Step::DropCopy {
        name: String::new(),
        uid: String::new(),
    };
    let applied = |purpose| Step::ApplyWorkload {
        body: json!({}),
        purpose,
        changes: Vec::new(),
    };
    let (back, forward) = (applied(PatchPurpose::Revert), applied(PatchPurpose::Configure));
    for (reason, step) in [
        (EventReason::ScalingUp, &raise),
        (EventReason::RolloutReverted, &revert),
        (EventReason::RolloutReverted, &back),
        (EventReason::WorkloadRestored, &drop),
    ] {
        let mut story = Story::of(pool(json!({})));
        story.pass(&settled(), 0);
        let note = EventNote {
            reason,
            subject: "x".into(),
            note: "x".into(),
        };
        let plan = saying([Finding::Event(note)]);
        assert_eq!(
            told(&mut story, &plan, &Attempts::default(), 1),
            [],
            "{reason} without its write"
        );
        let other = Attempts {
            done: vec![&forward],
            refused: Vec::new(),
        };
        assert_eq!(
            told(&mut story, &plan, &other, 1),
            [],
            "{reason} with another write"
        );
        let attempts = Attempts {
            done: vec![step],
            refused: Vec::new(),
        };
        assert_eq!(told(&mut story, &plan, &attempts, 2), [(reason, "x".to_owned())]);
    }
}

#[test]
fn a_node_that_was_deleted_is_removed_once() {
    let mut story = Story::of(pool(json!({})));
    story.pass(&settled(), 0);
    let delete = Step::DeleteNode {
        node: "virtual-node-eci-2".into(),
        uid: "uid-2".into(),
    };
    let mut plan = draining(0, []);
    retired(&mut plan, 10, false);
    told(&mut story, &plan, &Attempts::default(), 10);
    let removed = (EventReason::NodeRemoved, "virtual-node-eci-2 uid-2".to_owned());
    let attempts = Attempts {
        done: vec![&delete],
        refused: Vec::new(),
    };
    // A DELETE that was answered is none yet: a finalizer may hold the Node.
    assert_eq!(told(&mut story, &plan, &attempts, 20), []);
    let mut done = settled();
    retired(&mut done, 10, false);
    assert_eq!(told(&mut story, &done, &Attempts::default(), 21), [removed]);
}

#[test]
fn a_refused_audit_trail_is_a_warning_and_nothing_else() {
    let plan = settled();
    let refused = |track| Attempts {
        done: Vec::new(),
        refused: vec![RefusedWrite {
            track,
            message: "not allowed to patch configmaps".to_owned(),
        }],
    };
    let of = |attempts: &Attempts<'_>| {
        let mut story = Story::of(pool(json!({})));
        story.pass(&plan, 0);
        let status = story.pass_with(&plan, attempts, 1).status;
        let warned = told(&mut story, &plan, attempts, 2);
        (status.conditions, warned)
    };
    let (quiet, _) = of(&Attempts::default());
    let (conditions, warned) = of(&refused(TrackKind::Audit));
    assert_eq!(conditions, quiet);
    assert_eq!(warned, [(EventReason::ConfigWarning, "audit trail".to_owned())]);
    let (conditions, warned) = of(&refused(TrackKind::Drain));
    assert_ne!(conditions, quiet);
    assert_eq!(warned, []);
}

#[test]
fn a_drain_that_timed_out_is_told_once() {
    let mut story = Story::of(pool(json!({})));
    let mut plan = draining(0, []);
    story.pass(&plan, 0);
    plan.facts.draining[0].phase = DrainPhase::Aborted;
    assert_eq!(reasons(&mut story, &plan, 10), [EventReason::DrainTimedOut]);
    assert_eq!(reasons(&mut story, &plan, 20), []);
}

#[test]
fn the_plan_has_the_first_word() {
    let note = EventNote {
        reason: EventReason::DrainBlocked,
        subject: "own".into(),
        note: "own".into(),
    };
    let plan = draining(0, [Finding::Event(note), blocked(BlockerReason::BlockedByBudget)]);
    let mut story = Story::of(pool(json!({})));
    story.pass(&plan, 0);
    let events = told(&mut story, &plan, &Attempts::default(), 30);
    assert_eq!(events, [(EventReason::DrainBlocked, "own".to_owned())]);
}

#[test]
fn a_node_that_somebody_scales_away_with_its_pods_is_not_called_drained() {
    let away = |pods: usize| {
        let mut story = Story::of(pool(json!({})));
        node(&mut story, 2);
        reasons(&mut story, &draining(10, []), 10);
        let pods = vec![vnp_plan::observed::BoundPod::default(); pods];
        story.observed.bound.insert(2, Arc::new(pods));
        let mut plan = settled();
        plan.facts.target = Some(2);
        retired(&mut plan, 20, false);
        reasons(&mut story, &plan, 20)
    };
    assert_eq!(away(1), []);
    assert_eq!(away(0), [EventReason::Drained]);
}

#[test]
fn a_drain_that_is_given_up_before_it_began_is_not_said_to_start() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    let mut plan = draining(0, []);
    plan.facts.draining[0].phase = DrainPhase::Settling;
    assert_eq!(reasons(&mut story, &plan, 1), []);
    plan.facts.draining[0].phase = DrainPhase::Aborted;
    assert_eq!(reasons(&mut story, &plan, 10), [EventReason::DrainTimedOut]);
}

#[test]
fn a_node_that_was_empty_before_the_deadline_had_nothing_deleted_by_force() {
    for (empty, expected) in [
        (590, vec![EventReason::Drained]),
        (640, vec![EventReason::ForceDeleted, EventReason::Drained]),
    ] {
        let mut story = Story::of(pool(json!({})));
        node(&mut story, 2);
        let mut plan = draining(empty, []);
        plan.facts.draining[0].force_announced = Some(at(540));
        plan.facts.draining[0].force_at = Some(at(600));
        plan.facts.draining[0].empty_since = Some(at(empty));
        reasons(&mut story, &plan, 645);
        // How the pods ended was not seen.
        plan.facts.draining[0].phase = DrainPhase::Removing;
        retired(&mut plan, 690, false);
        let mut told = reasons(&mut story, &plan, 690);
        told.sort();
        let mut expected = expected.clone();
        expected.sort();
        assert_eq!(told, expected, "{empty}");
    }
}

#[test]
fn the_pods_of_a_drain_that_is_called_off_are_those_that_are_there() {
    let mut story = Story::of(pool(json!({})));
    node(&mut story, 2);
    reasons(&mut story, &draining(10, []), 10);
    let pods = vec![vnp_plan::observed::BoundPod::default(); 7];
    story.observed.bound.insert(2, Arc::new(pods));
    let before = story.observed.clone();
    let plan = settled();
    let report = story.pass(&plan, 20);
    let attempts = Attempts::default();
    let pass = pass_at(&before, &plan, &attempts, 20);
    let notes: Vec<String> = between(&pass, &report.status)
        .into_iter()
        .map(|n| n.note)
        .collect();
    assert_eq!(
        notes,
        ["virtual-node-eci-2 stays with 7 pods on it, because the pool wants 3 nodes"]
    );
}
