//! Which word is shown for what, and when times move.

use serde_json::json;
use vnp_crds::{BlockerReason, ConditionType, DrainPhase, Reason};
use vnp_plan::finding::{Finding, ProfileState, ProviderState, SchedulingState, WebhookFault};
use vnp_plan::observed::Workload;
use vnp_plan::plan::{Plan, TrackKind};
use vnp_plan::webhook::{Probed, WebhookState};

use crate::report::attempts::{Attempts, RefusedWrite};
use crate::report::status::Report;
use crate::report::testing::{Story, at, blocked, draining, pool, provider, saying, settled, workload};

/// (status, reason) of a condition.
fn of(report: &Report, type_: ConditionType) -> Option<(&str, &str)> {
    report
        .status
        .condition(type_)
        .map(|c| (c.status.as_str(), c.reason.as_str()))
}

fn ready(report: &Report) -> (&str, &str) {
    of(report, ConditionType::Ready).unwrap()
}

fn refused(reason: Reason) -> Finding {
    Finding::Refused {
        reason,
        message: format!("{reason} is the matter"),
    }
}

fn once(plan: &Plan, seconds: i64) -> Report {
    Story::of(pool(json!({}))).pass(plan, seconds)
}

#[test]
fn a_drain_whose_write_is_refused_says_by_whom_and_promises_no_end() {
    let mut story = Story::of(pool(json!({})));
    let mut plan = draining(0, []);
    plan.facts.done_at = Some(at(600));
    let message = |report: &Report| {
        let ready = report.status.condition(ConditionType::Ready);
        ready.unwrap().message.clone()
    };
    let before = story.pass(&plan, 0);
    assert_eq!(ready(&before), ("False", "Draining"));
    assert!(message(&before).contains("; done by "), "{}", message(&before));
    let attempts = Attempts {
        done: Vec::new(),
        refused: vec![RefusedWrite {
            track: TrackKind::Drain,
            message:
                "patch statefulsets.apps kube-system/vn: ValidatingAdmissionPolicy frozen refuses it: no"
                    .to_owned(),
        }],
    };
    let refused = story.pass_with(&plan, &attempts, 10);
    assert_eq!(ready(&refused), ("False", "Draining"));
    let said = message(&refused);
    assert_eq!(
        said.matches("ValidatingAdmissionPolicy frozen refuses it")
            .count(),
        1,
        "{said}"
    );
    assert!(!said.contains("done by"), "{said}");
}

#[test]
fn reasons_of_ready_follow_their_precedence() {
    let mut everything = draining(
        0,
        [
            refused(Reason::NotSupportedYet),
            refused(Reason::Conflict),
            blocked(BlockerReason::ProviderUnavailable),
            blocked(BlockerReason::BlockedByBudget),
            Finding::Stalled {
                reason: Reason::RolloutReverted,
                message: "image vk:2".to_owned(),
            },
            provider(ProviderState::Unhealthy),
            provider(ProviderState::Updating),
            provider(ProviderState::ScalingUp),
            provider(ProviderState::Absent),
            Finding::Profile {
                state: ProfileState::Pending,
                message: "key vSwitchIds".to_owned(),
            },
        ],
    );
    let mut aborted = everything.facts.draining[0].clone();
    aborted.ordinal = 1;
    aborted.phase = DrainPhase::Aborted;
    everything.facts.draining.push(aborted);

    let deleted = json!({"deletionTimestamp": "2027-01-15T08:00:00Z"});
    let report = |overlay| {
        let mut story = Story::of(pool(overlay));
        story.pass(&settled(), 0); // realised once: from now on growth is ScalingUp
        story.pass(&everything, 10)
    };
    let both = report(json!({"metadata": deleted, "spec": {"paused": true}}));
    assert_eq!(ready(&both), ("False", "Deleting"));
    assert_eq!(
        ready(&report(json!({"spec": {"paused": true}}))),
        ("False", "Paused")
    );

    // Take the top away, and the next shows.
    let mut story = Story::of(pool(json!({})));
    story.pass(&settled(), 0);
    let mut shown = Vec::new();
    let steps: [&dyn Fn(&mut Plan); 10] = [
        &|plan| {
            plan.findings.retain(|f| {
                !matches!(
                    f,
                    Finding::Refused {
                        reason: Reason::Conflict,
                        ..
                    }
                )
            })
        },
        &|plan| plan.findings.retain(|f| !matches!(f, Finding::Refused { .. })),
        &|plan| {
            plan.findings.retain(
                |f| !matches!(f, Finding::Blocker(b) if b.reason == BlockerReason::ProviderUnavailable),
            );
        },
        &|plan| plan.findings.retain(|f| !matches!(f, Finding::Blocker(_))),
        &|plan| plan.facts.draining.retain(|n| n.phase != DrainPhase::Aborted),
        &|plan| plan.findings.retain(|f| !matches!(f, Finding::Stalled { .. })),
        &|plan| {
            plan.findings.retain(|f| {
                !matches!(
                    f,
                    Finding::Provider {
                        state: ProviderState::Unhealthy,
                        ..
                    }
                )
            })
        },
        &|plan| {
            plan.findings.retain(|f| {
                !matches!(
                    f,
                    Finding::Provider {
                        state: ProviderState::Updating,
                        ..
                    }
                )
            })
        },
        &|plan| {
            plan.facts.draining.clear();
            plan.facts.target = Some(3);
        },
        &|plan| plan.findings.retain(|f| !matches!(f, Finding::Provider { .. })),
    ];
    let mut seconds = 10;
    for step in steps {
        shown.push(ready(&story.pass(&everything, seconds)).1.to_owned());
        step(&mut everything);
        seconds += 1;
    }
    shown.push(ready(&story.pass(&everything, seconds)).1.to_owned());
    assert_eq!(
        shown,
        [
            "Conflict",
            "InvalidSpec",
            "ProviderUnavailable",
            "DrainBlocked",
            "DrainTimedOut",
            "RolloutReverted",
            "NodesNotReady",
            "Updating",
            "Draining",
            "ScalingUp",
            "ConfigNotSynced",
        ]
    );
    assert_eq!(ready(&story.pass(&settled(), seconds)), ("True", "Ready"));
}

#[test]
fn the_exact_reason_of_a_refusal_is_in_accepted_and_stalled() {
    let report = once(
        &saying([
            refused(Reason::NotSupportedYet),
            refused(Reason::ContainerAmbiguous),
        ]),
        0,
    );
    assert_eq!(ready(&report), ("False", "InvalidSpec"));
    assert_eq!(
        of(&report, ConditionType::Accepted),
        Some(("False", "ContainerAmbiguous"))
    );
    assert_eq!(
        of(&report, ConditionType::Stalled),
        Some(("True", "ContainerAmbiguous"))
    );
    let message = &report.status.condition(ConditionType::Accepted).unwrap().message;
    assert_eq!(
        message,
        "ContainerAmbiguous is the matter; NotSupportedYet is the matter"
    );
}

#[test]
fn since_moves_with_the_status_and_not_with_the_words() {
    let mut story = Story::of(pool(json!({})));
    story.pass(&settled(), 0);
    let since = |report: &Report| {
        report
            .status
            .condition(ConditionType::Ready)
            .unwrap()
            .last_transition_time
            .0
    };
    assert_eq!(since(&story.pass(&draining(9, []), 10)), at(10));
    let blocked = story.pass(&draining(9, [blocked(BlockerReason::BlockedByBudget)]), 20);
    assert_eq!((ready(&blocked).1, since(&blocked)), ("DrainBlocked", at(10)));
    assert_eq!(since(&story.pass(&settled(), 30)), at(30));
}

#[test]
fn available_means_one_less_than_wanted_but_at_least_one() {
    let available = |target: Option<i32>, available: i32| {
        let mut plan = settled();
        plan.facts.target = target;
        plan.facts.available = available;
        let report = once(&plan, 0);
        of(&report, ConditionType::Available).unwrap().0.to_owned()
    };
    let table = [
        (Some(0), 0, "True"),
        (Some(1), 0, "False"),
        (Some(1), 1, "True"),
        (Some(2), 1, "True"),
        (Some(3), 1, "False"),
        (Some(3), 2, "True"),
        (None, 3, "Unknown"),
    ];
    for (target, nodes, expected) in table {
        assert_eq!(available(target, nodes), expected, "{nodes} of {target:?}");
    }
}

#[test]
fn what_was_not_asked_for_is_not_required() {
    let report = once(&settled(), 0);
    for type_ in [ConditionType::WebhookReady, ConditionType::SchedulingReady] {
        assert_eq!(of(&report, type_), Some(("True", "NotRequired")));
    }
    let mut story = Story::of(pool(json!({"spec": {"profile": {"sync": "Disabled"}}})));
    assert_eq!(
        of(&story.pass(&settled(), 0), ConditionType::ProfileSynced),
        Some(("True", "NotRequired"))
    );
}

#[test]
fn the_webhook_is_ready_when_a_dry_run_came_back_mutated() {
    let mut story = Story::of(pool(json!({})));
    story.observed.webhook = WebhookState::InPlace(Probed::NotYet);
    let said = |fault| {
        saying([Finding::Webhook {
            fault,
            message: "why".to_owned(),
        }])
    };
    for (fault, status, reason) in [
        (WebhookFault::Unknown, "Unknown", "Unknown"),
        (WebhookFault::Untold, "Unknown", "Unknown"),
        (WebhookFault::Misfit, "False", "NodesMismatch"),
        (WebhookFault::Refused, "False", "PodsRefused"),
        (WebhookFault::Pending, "False", "ConfigNotSynced"),
        (WebhookFault::Off, "False", "WebhookUnavailable"),
        (WebhookFault::Foreign, "False", "Conflict"),
        (WebhookFault::Unanswered, "False", "WebhookUnavailable"),
    ] {
        let report = story.pass(&said(fault), 0);
        assert_eq!(of(&report, ConditionType::WebhookReady), Some((status, reason)));
        assert_eq!(ready(&report).1, "ConfigNotSynced");
        assert_eq!(of(&report, ConditionType::Stalled), None);
    }
    let report = story.pass(&settled(), 1);
    assert_eq!(
        of(&report, ConditionType::WebhookReady),
        Some(("True", "Verified"))
    );
    // The next leader has not tried yet: what was found before still holds, but no fault is kept back by it.
    let report = story.pass(&said(WebhookFault::Unknown), 2);
    assert_eq!(
        of(&report, ConditionType::WebhookReady),
        Some(("True", "Verified"))
    );
    let report = story.pass(&said(WebhookFault::Untold), 3);
    assert_eq!(
        of(&report, ConditionType::WebhookReady),
        Some(("Unknown", "Unknown"))
    );
    let report = story.pass(&said(WebhookFault::Unanswered), 4);
    assert_eq!(ready(&report).1, "ConfigNotSynced");
    // What should only be known takes nothing away.
    let report = story.pass(&said(WebhookFault::Note), 5);
    assert_eq!(ready(&report).1, "Ready");
    let webhook = report.status.condition(ConditionType::WebhookReady).unwrap();
    assert_eq!(
        (webhook.status.as_str(), webhook.message.as_str()),
        ("True", "a pod created as a dry run came back mutated; why")
    );
}

#[test]
fn scheduling_says_the_worst_of_its_policies() {
    let web = json!({"name": "web", "namespaces": ["shop"]});
    let mut story = Story::of(pool(json!({"spec": {"scheduling": {"resourcePolicies": [web]}}})));
    let told = |state, message: &str| Finding::Scheduling {
        state,
        message: message.to_owned(),
    };
    let in_place = story.pass(&settled(), 0);
    assert_eq!(
        of(&in_place, ConditionType::SchedulingReady),
        Some(("True", "Synced"))
    );
    let left_out = told(SchedulingState::LeftOut, "preemptPolicy is left out");
    let report = story.pass(&saying([left_out.clone()]), 1);
    assert_eq!(
        of(&report, ConditionType::SchedulingReady),
        Some(("True", "Synced"))
    );
    assert_eq!(ready(&report).1, "Ready");
    let condition = report.status.condition(ConditionType::SchedulingReady).unwrap();
    assert!(
        condition.message.contains("preemptPolicy"),
        "{}",
        condition.message
    );
    for (state, status, reason) in [
        (SchedulingState::Pending, "False", "ConfigNotSynced"),
        (SchedulingState::Unknown, "Unknown", "Unknown"),
        (SchedulingState::Foreign, "False", "Conflict"),
        (SchedulingState::Unfit, "False", "InvalidSpec"),
        (SchedulingState::CrdMissing, "False", "CRDMissing"),
    ] {
        let report = story.pass(&saying([left_out.clone(), told(state, "why")]), 2);
        assert_eq!(
            of(&report, ConditionType::SchedulingReady),
            Some((status, reason))
        );
        let why = ready(&report);
        assert_eq!((why.0, why.1), ("False", "ConfigNotSynced"));
        let stalled = of(&report, ConditionType::Stalled);
        assert_eq!(stalled, None, "nothing else is blocked");
    }
}

#[test]
fn a_blocked_drain_names_the_blocker_and_wakes_when_it_counts_as_stalled() {
    let mut story = Story::of(pool(json!({"spec": {"drain": {"progressDeadlineSeconds": 60}}})));
    let plan = draining(100, [blocked(BlockerReason::BlockedByBudget)]);
    let early = story.pass(&plan, 101);
    assert_eq!((ready(&early).1, early.wake_at), ("Draining", Some(at(103))));
    assert!(
        early
            .status
            .condition(ConditionType::Ready)
            .unwrap()
            .message
            .contains("shop/checkout")
    );
    let held = story.pass(&plan, 103);
    assert_eq!(
        of(&held, ConditionType::Reconciling),
        Some(("True", "DrainBlocked"))
    );
    assert_eq!(held.wake_at, Some(at(160)));
    story.restart();
    let stalled = story.pass(&plan, 160);
    assert_eq!(
        of(&stalled, ConditionType::Stalled),
        Some(("True", "DrainBlocked"))
    );
    assert_eq!(of(&stalled, ConditionType::Reconciling), None);
    // A pod leaves: it goes on.
    let moved = story.pass(&draining(161, [blocked(BlockerReason::BlockedByBudget)]), 161);
    assert_eq!(
        (ready(&moved).1, of(&moved, ConditionType::Stalled)),
        ("Draining", None)
    );
}

#[test]
fn waiting_for_completion_is_draining_for_ever() {
    let report = once(
        &draining(0, [blocked(BlockerReason::WaitingForCompletion)]),
        1_000_000,
    );
    assert_eq!(
        (ready(&report).1, of(&report, ConditionType::Stalled)),
        ("Draining", None)
    );
}

#[test]
fn providers_that_do_not_come_up_stall_and_a_restart_does_not_hide_it() {
    let plan = saying([provider(ProviderState::Unhealthy)]);
    let mut story = Story::of(pool(json!({})));
    assert_eq!(story.pass(&plan, 0).wake_at, Some(at(600)));
    assert_eq!(ready(&story.pass(&plan, 599)).1, "NodesNotReady");
    assert_eq!(ready(&story.pass(&plan, 600)).1, "ProviderUnavailable");
    story.restart();
    assert_eq!(
        of(&story.pass(&plan, 601), ConditionType::Stalled),
        Some(("True", "ProviderUnavailable"))
    );
    // The time too is the one that was told.
    let told = message(&story.pass(&plan, 650), ConditionType::Stalled).to_owned();
    assert!(
        told.contains("nothing has moved since 2027-01-15T08:00:00Z"),
        "{told}"
    );
    // Other words mean that something moved.
    let other = Finding::Provider {
        state: ProviderState::Unhealthy,
        message: "virtual-node-eci-1: no Node".to_owned(),
    };
    assert_eq!(ready(&story.pass(&saying([other]), 602)).1, "NodesNotReady");
}

#[test]
fn a_roll_that_was_reverted_is_the_status_and_the_provider_is_not_as_specified() {
    let plan = saying([Finding::Stalled {
        reason: Reason::RolloutReverted,
        message: "image vk:2".to_owned(),
    }]);
    let report = once(&plan, 0);
    for type_ in [ConditionType::Ready, ConditionType::ProviderReady] {
        assert_eq!(of(&report, type_), Some(("False", "RolloutReverted")));
    }
    assert_eq!(
        of(&report, ConditionType::Stalled),
        Some(("True", "RolloutReverted"))
    );
}

#[test]
fn a_workload_with_fewer_replicas_than_wanted_is_not_as_specified() {
    let mut story = Story::of(pool(json!({})));
    let mut raw = workload().raw;
    raw["spec"]["replicas"] = json!(1);
    story.observed.workload = Workload::new(raw).into();
    let report = story.pass(&settled(), 0);
    let condition = report.status.condition(ConditionType::ProviderReady).unwrap();
    assert_eq!(condition.status, "False");
    assert_eq!(
        condition.message,
        "kube-system/virtual-node-eci has 1 of 3 replicas"
    );
    let contested = saying([Finding::Stalled {
        reason: Reason::FieldContested,
        message: "kubectl keeps lowering spec.replicas".to_owned(),
    }]);
    assert_eq!(
        of(&story.pass(&contested, 1), ConditionType::ProviderReady),
        Some(("False", "FieldContested"))
    );
}

#[test]
fn an_unreadable_profile_stalls_even_when_nobody_said_so() {
    let plan = saying([Finding::Profile {
        state: ProfileState::Unreadable,
        message: "key selectors".to_owned(),
    }]);
    let report = once(&plan, 0);
    assert_eq!(
        of(&report, ConditionType::Stalled),
        Some(("True", "ProfileUnreadable"))
    );
    assert_eq!(
        of(&report, ConditionType::ProfileSynced),
        Some(("False", "ProfileUnreadable"))
    );
}

#[test]
fn a_refused_write_is_never_ready() {
    let message = "statefulsets is forbidden: grant patch".to_owned();
    let attempts = Attempts {
        done: Vec::new(),
        refused: vec![RefusedWrite {
            track: TrackKind::Workload,
            message: message.clone(),
        }],
    };
    let report = Story::of(pool(json!({}))).pass_with(&settled(), &attempts, 0);
    assert_eq!(ready(&report), ("False", "Updating"));
    assert_eq!(
        of(&report, ConditionType::ProviderReady),
        Some(("False", "Updating"))
    );
    assert_eq!(
        report
            .status
            .condition(ConditionType::Reconciling)
            .unwrap()
            .message,
        message
    );
}

#[test]
fn nothing_is_called_healthy_that_was_not_seen() {
    let mut story = Story::of(pool(json!({})));
    story.observed.workload = vnp_plan::observed::WorkloadSeen::Absent;
    let report = story.pass(&settled(), 0);
    assert_eq!(
        of(&report, ConditionType::ProviderReady),
        Some(("Unknown", "Unknown"))
    );
    let report = story.pass(&saying([refused(Reason::NotAProvider)]), 0);
    assert_eq!(
        of(&report, ConditionType::ProfileSynced),
        Some(("Unknown", "Unknown"))
    );
}

#[test]
fn the_status_shows_the_workload_and_the_drain() {
    let mut plan = draining(
        7,
        (0..12).map(|n| {
            let Finding::Blocker(b) = blocked(BlockerReason::BlockedByBudget) else {
                unreachable!()
            };
            Finding::Blocker(vnp_plan::finding::Blocker {
                object: format!("shop/b-{n:02}"),
                ..b
            })
        }),
    );
    plan.facts.pending_changes = (0..14).map(|n| format!("change {n}")).collect();
    let status = once(&plan, 30).status;
    let provider = status.provider.unwrap();
    assert_eq!(provider.image.as_deref(), Some("registry.example/vk:1"));
    assert_eq!((provider.replicas, provider.ready_replicas), (Some(3), Some(3)));
    assert_eq!(status.selector.as_deref(), Some("app=virtual-node-eci"));
    assert_eq!(status.pending_changes.len(), 10);
    let drain = status.drain.unwrap();
    assert_eq!(drain.summary, "140/300");
    assert_eq!(drain.blockers.len(), 10);
    assert_eq!(drain.blockers[0].object, "shop/b-00");
    assert_eq!(
        (status.target_replicas, status.observed_generation),
        (Some(2), Some(4))
    );
}

#[test]
fn the_accepted_target_is_not_forgotten() {
    let mut story = Story::of(pool(json!({})));
    story.pass(&settled(), 0);
    let mut plan = settled();
    plan.facts.target = None;
    story.observed.workload = vnp_plan::observed::WorkloadSeen::Absent;
    let status = story.pass(&plan, 1).status;
    assert_eq!(status.target_replicas, Some(3));
    assert_eq!(status.selector.as_deref(), Some("app=virtual-node-eci"));
}

#[test]
fn a_deleted_pool_that_is_paused_says_why_it_stays() {
    let mut story = Story::of(pool(json!({
        "metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}, "spec": {"paused": true},
    })));
    let report = story.pass(&settled(), 0);
    assert_eq!(ready(&report), ("False", "Deleting"));
    assert!(
        report
            .status
            .condition(ConditionType::Ready)
            .unwrap()
            .message
            .contains("paused")
    );
    assert_eq!(of(&report, ConditionType::Paused), Some(("True", "Paused")));
}

#[test]
fn a_time_is_never_in_the_reader_s_future() {
    let mut story = Story::of(pool(json!({})));
    let since = |report: &Report, type_| report.status.condition(type_).unwrap().last_transition_time.0;
    story.pass(&settled(), 3600);
    // The clock is set back by an hour.
    let report = story.pass(&settled(), 10);
    for type_ in [
        ConditionType::Ready,
        ConditionType::Available,
        ConditionType::Accepted,
    ] {
        assert_eq!(since(&report, type_), at(10), "{type_}");
    }
    assert_eq!(since(&story.pass(&settled(), 20), ConditionType::Ready), at(10));
}

#[test]
fn a_refused_pool_is_not_provisioning() {
    let absent = Finding::Provider {
        state: ProviderState::Absent,
        message: "StatefulSet kube-system/virtual-node-eci does not exist".to_owned(),
    };
    let mut story = Story::of(pool(json!({})));
    story.observed.workload = vnp_plan::observed::WorkloadSeen::Absent;
    let mut plan = saying([refused(Reason::WorkloadNotFound), absent]);
    plan.facts.nodes = 0;
    let report = story.pass(&plan, 0);
    assert_eq!(ready(&report), ("False", "InvalidSpec"));
    assert_eq!(
        of(&report, ConditionType::ProviderReady),
        Some(("False", "WorkloadNotFound"))
    );
}

#[test]
fn counts_in_the_words_of_a_scheduler_do_not_start_the_deadline_anew() {
    let unscheduled = |nodes: i32| {
        saying([Finding::Provider {
            state: ProviderState::ScalingUp,
            message: format!("virtual-node-eci-2: no node takes it: 0/{nodes} nodes are available"),
        }])
    };
    let mut story = Story::of(pool(json!({})));
    story.pass(&unscheduled(5), 0);
    story.pass(&unscheduled(6), 300);
    let report = story.pass(&unscheduled(7), 600);
    assert_eq!(
        of(&report, ConditionType::Stalled),
        Some(("True", "ProviderUnavailable"))
    );
    story.restart();
    let report = story.pass(&unscheduled(8), 601);
    assert_eq!(
        of(&report, ConditionType::Stalled),
        Some(("True", "ProviderUnavailable"))
    );
}

#[test]
fn a_drain_says_when_it_is_done_and_says_the_same_while_it_goes_at_its_pace() {
    let mut story = Story::of(pool(json!({})));
    let mut said = Vec::new();
    for seconds in 1..120 {
        let mut plan = draining(seconds, []);
        plan.facts.done_at = Some(at(400 + seconds % 7));
        let report = story.pass(&plan, seconds);
        said.push(
            report
                .status
                .condition(ConditionType::Ready)
                .unwrap()
                .message
                .clone(),
        );
    }
    assert!(
        said[0].contains("; done by 20") && said[0].ends_with("if nothing holds it up"),
        "{}",
        said[0]
    );
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");

    let mut plan = draining(121, [blocked(BlockerReason::BlockedByBudget)]);
    plan.facts.done_at = None;
    let report = story.pass(&plan, 121);
    let message = &report.status.condition(ConditionType::Ready).unwrap().message;
    assert!(!message.contains("done by"), "{message}");
}

/// All Nodes are there, one of them of a provider that the StatefulSet does not count.
#[test]
fn a_pool_that_is_short_of_replicas_is_not_ready() {
    let mut plan = settled();
    plan.facts.target = Some(4);
    plan.facts.nodes = 4;
    plan.facts.available = 4;
    let mut story = Story::of(pool(json!({})));
    for second in [500, 501] {
        let status = story.pass(&plan, second).status;
        for type_ in [ConditionType::Ready, ConditionType::ProviderReady] {
            let said = status.condition(type_).unwrap();
            assert_eq!(
                (said.status.as_str(), said.reason.as_str()),
                ("False", "Provisioning")
            );
            assert!(said.message.contains("has 3 of 4 replicas"), "{}", said.message);
        }
    }
}

#[test]
fn nodes_of_a_workload_that_is_not_taken_over_are_not_called_missing() {
    let mut raw = workload().raw;
    raw["metadata"]["labels"] = json!({});
    for (target, paused) in [(2, false), (2, true), (0, true)] {
        let mut story = Story::of(pool(json!({"spec": {"paused": paused}})));
        story.observed.workload = Workload::new(raw.clone()).into();
        let mut plan = settled();
        plan.facts.target = Some(target);
        plan.facts.nodes = 0;
        plan.facts.available = 0;
        let report = story.pass(&plan, 0);
        let said = report.status.condition(ConditionType::Ready).unwrap();
        assert_eq!(said.status, "False");
        assert!(!said.message.contains("are registered"), "{}", said.message);
        assert!(
            said.message
                .ends_with("StatefulSet kube-system/virtual-node-eci is not taken over yet"),
            "{}",
            said.message
        );
    }
}

fn message(report: &Report, type_: ConditionType) -> &str {
    &report.status.condition(type_).unwrap().message
}

#[test]
fn what_another_webhook_did_proves_nothing_of_this_one() {
    let webhook = |mode: &str| pool(json!({"spec": {"placement": {"webhook": mode}}})).spec;
    let unknown = saying([Finding::Webhook {
        fault: WebhookFault::Unknown,
        message: "not looked at yet".to_owned(),
    }]);
    for (one, other) in [("Vendor", "Operator"), ("Operator", "Vendor")] {
        let mut story = Story::of(pool(json!({"spec": {"placement": {"webhook": one}}})));
        story.observed.webhook = WebhookState::InPlace(Probed::Mutated);
        story.pass(&settled(), 0);
        story.observed.webhook = WebhookState::InPlace(Probed::NotYet);
        let same = story.pass(&unknown, 1);
        assert_eq!(
            of(&same, ConditionType::WebhookReady),
            Some(("True", "Verified")),
            "{one}"
        );
        std::sync::Arc::make_mut(&mut story.observed.pool).spec = webhook(other);
        let report = story.pass(&unknown, 2);
        assert_eq!(
            of(&report, ConditionType::WebhookReady),
            Some(("Unknown", "Unknown")),
            "{other}"
        );
    }
}

#[test]
fn what_holds_from_before_is_said_as_it_was_said_then() {
    let mut story = Story::of(pool(json!({})));
    story.observed.webhook = WebhookState::InPlace(Probed::RefusedMutated {
        refusal: vnp_plan::webhook::refusal::Refusal {
            by: vnp_plan::webhook::refusal::Refuser::Policy("p".to_owned()),
            message: "no".to_owned(),
        },
        plain: vnp_plan::webhook::probe::Plain::Refused,
    });
    let before = story.pass(&settled(), 0);
    story.observed.webhook = WebhookState::InPlace(Probed::NotYet);
    let unknown = saying([Finding::Webhook {
        fault: WebhookFault::Unknown,
        message: "no pod was tried yet".to_owned(),
    }]);
    let after = story.pass(&unknown, 1);
    let type_ = ConditionType::WebhookReady;
    assert_eq!(message(&after, type_), message(&before, type_));
}

#[test]
fn of_a_pool_that_goes_or_is_not_served_nothing_is_called_in_place() {
    let policies = json!({"resourcePolicies": [{"name": "web", "namespaces": ["shop"]}]});
    let asked = [ConditionType::ProfileSynced, ConditionType::SchedulingReady];
    let unserved = json!({"spec": {"provider": {"type": "Deployment"}, "scheduling": policies}});
    let report = Story::of(pool(unserved)).pass(&saying([refused(Reason::NotSupportedYet)]), 0);
    for type_ in asked {
        assert_eq!(of(&report, type_), Some(("Unknown", "Unknown")), "{type_}");
        assert!(message(&report, type_).contains("spec.provider.type Deployment"));
    }
    // Its rules place no pod, whatever the webhook does for other pools.
    let rules = json!({"rules": [{"name": "a", "mode": "Require", "podSelector": {"matchLabels": {"a": "b"}}}],
                       "webhook": "Operator"});
    let mut story = Story::of(pool(
        json!({"spec": {"provider": {"type": "Deployment"}, "placement": rules}}),
    ));
    story.observed.webhook = WebhookState::InPlace(Probed::Mutated);
    let report = story.pass(&saying([refused(Reason::NotSupportedYet)]), 0);
    assert_eq!(
        of(&report, ConditionType::WebhookReady),
        Some(("Unknown", "Unknown"))
    );
    let deleted = json!({
        "metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}, "spec": {"scheduling": policies},
    });
    let report = Story::of(pool(deleted)).pass(&settled(), 0);
    for type_ in asked {
        assert_eq!(of(&report, type_), Some(("True", "NotRequired")), "{type_}");
        let said = message(&report, type_);
        assert!(
            !said.contains("in place") && !said.contains("says what"),
            "{said}"
        );
    }
}

#[test]
fn a_refused_pool_is_not_as_specified() {
    let type_ = ConditionType::ProviderReady;
    let mut plan = saying([refused(Reason::EnvFromReference)]);
    // A rule that can't be followed keeps nobody from looking at the workload.
    assert_eq!(of(&once(&plan, 0), type_), Some(("True", "ProviderHealthy")));
    plan.facts.workload_refused = true;
    let report = once(&plan, 0);
    assert_eq!(of(&report, type_), Some(("Unknown", "Unknown")));
    let said = message(&report, type_);
    assert!(
        said.contains("EnvFromReference") && said.contains("3 of 3 providers are Ready"),
        "{said}"
    );
    assert!(!said.contains("as specified"), "{said}");
    let deleted = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let report = Story::of(pool(deleted)).pass(&settled(), 0);
    assert_eq!(
        message(&report, type_),
        "3 of 3 providers of kube-system/virtual-node-eci are Ready"
    );
}

#[test]
fn what_the_server_refuses_is_said_before_what_was_to_be_written() {
    let attempts = Attempts {
        done: Vec::new(),
        refused: vec![RefusedWrite {
            track: TrackKind::Workload,
            message: "statefulsets is forbidden: grant patch".to_owned(),
        }],
    };
    for state in [
        ProviderState::Absent,
        ProviderState::ScalingUp,
        ProviderState::Updating,
    ] {
        let plan = saying([provider(state)]);
        let alone = once(&plan, 0);
        let report = Story::of(pool(json!({}))).pass_with(&plan, &attempts, 0);
        for type_ in [ConditionType::Ready, ConditionType::ProviderReady] {
            let starts = "statefulsets is forbidden: grant patch; virtual-node-eci-2: ";
            assert!(message(&report, type_).starts_with(starts), "{state:?} {type_}");
            assert_eq!(of(&report, type_), of(&alone, type_), "{state:?} {type_}");
        }
    }
    // What is said of a provider that is sick has nothing to do with it.
    let report =
        Story::of(pool(json!({}))).pass_with(&saying([provider(ProviderState::Unhealthy)]), &attempts, 0);
    assert!(message(&report, ConditionType::ProviderReady).starts_with("virtual-node-eci-2: "));
}
