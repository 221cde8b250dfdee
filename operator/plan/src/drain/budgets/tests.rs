use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;
use crate::testing::{now, pod};

fn budget() -> Budget {
    Budget {
        key: ObjectKey {
            namespace: "shop".into(),
            name: "web".into(),
        },
        selector: Some(LabelSelector::default()),
        current: true,
        healthy: 3,
        desired: 3,
        expected: 4,
        ..Budget::default()
    }
}

/// `canIgnorePDB` and what follows it in `eviction.go`, word for word: whether the server asks about `disruptionsAllowed`.
fn server_asks(phase: &str, ready: bool, policy: Option<&str>, healthy: i32, desired: i32) -> bool {
    if ["Succeeded", "Failed", "Pending"].contains(&phase) {
        return false;
    }
    if !ready {
        if policy == Some("AlwaysAllow") {
            return false;
        }
        if healthy >= desired && desired > 0 {
            return false;
        }
    }
    true
}

proptest! {
    #[test]
    fn the_rule_is_the_servers(
        phase in prop::sample::select(vec![
            (PodPhase::Pending, "Pending"), (PodPhase::Running, "Running"), (PodPhase::Succeeded, "Succeeded"),
            (PodPhase::Failed, "Failed"), (PodPhase::Unknown, "Unknown"),
        ]),
        ready in any::<bool>(),
        policy in prop::option::of(prop::sample::select(vec!["AlwaysAllow", "IfHealthyBudget"])),
        healthy in 0..4i32,
        desired in 0..4i32,
        current in any::<bool>(),
    ) {
        let pod = BoundPod { phase: phase.0, ready, ..pod("a") };
        let always = policy == Some("AlwaysAllow");
        let budget = Budget { always_allows_unhealthy: always, healthy, desired, current, ..budget() };
        let exempt = Covering(vec![&budget]).exempt(&pod);
        prop_assert_eq!(!exempt, server_asks(phase.1, ready, policy, healthy, desired));
    }
}

#[test]
fn of_two_budgets_the_server_lets_only_what_it_asks_no_budget_about_pass() {
    let one = Budget {
        always_allows_unhealthy: true,
        ..budget()
    };
    let two = Covering(vec![&one, &one]);
    let unready = BoundPod {
        ready: false,
        ..pod("a")
    };
    assert!(!two.exempt(&unready), "500, whatever the policy");
    let pending = BoundPod {
        phase: PodPhase::Pending,
        ..unready.clone()
    };
    assert!(two.exempt(&pending));
    let leaving = BoundPod {
        deletion: Some(now()),
        ..unready
    };
    assert!(two.exempt(&leaving));
}

fn why(budget: &Budget) -> Option<String> {
    Covering(vec![budget]).why("shop/web")
}

#[test]
fn a_budget_that_can_never_be_met_says_so_and_what_helps() {
    let share = |text: &str| Some(IntOrString::String(text.into()));
    let int = |n| Some(IntOrString::Int(n));
    for (never, cause, remedy) in [
        (
            Budget {
                max_unavailable: int(0),
                ..budget()
            },
            "its maxUnavailable is 0",
            "raise it (kubectl -n shop edit pdb web)",
        ),
        (
            Budget {
                max_unavailable: share("0%"),
                ..budget()
            },
            "its maxUnavailable is 0%",
            "raise it",
        ),
        (
            Budget {
                min_available: share("100%"),
                ..budget()
            },
            "its minAvailable is 100%",
            "lower it",
        ),
        (
            Budget {
                min_available: int(4),
                desired: 4,
                ..budget()
            },
            "its minAvailable 4 leaves none of its 4 pods to spare",
            "run more pods",
        ),
        // Without a controller, and of controllers that are scaled to 0 or can't be scaled.
        (
            Budget {
                max_unavailable: int(1),
                min_available: None,
                expected: 0,
                ..budget()
            },
            "no controller that it can count wants any of its pods, so that kube-controller-manager counts none of them",
            "give it minAvailable as a number",
        ),
        (
            Budget {
                min_available: share("80%"),
                desired: 4,
                ..budget()
            },
            "its minAvailable 80% leaves none of its 4 pods to spare",
            "lower it",
        ),
        (
            Budget {
                max_unavailable: int(1),
                expected: 0,
                desired: 0,
                healthy: 1,
                ..budget()
            },
            "no controller that it can count wants any of its pods",
            "give it minAvailable as a number",
        ),
    ] {
        let message = why(&never).unwrap();
        assert!(
            message.contains("never allows") && message.contains(cause) && message.contains(remedy),
            "{message}"
        );
    }
}

#[test]
fn a_budget_that_waits_for_healthy_pods_may_be_met() {
    let int = |n| Some(IntOrString::Int(n));
    for may in [
        Budget {
            max_unavailable: int(1),
            healthy: 1,
            ..budget()
        },
        Budget {
            min_available: int(3),
            healthy: 1,
            ..budget()
        },
        Budget {
            min_available: int(0),
            desired: 0,
            expected: 0,
            ..budget()
        },
        // What it says of its pods is of an older budget.
        Budget {
            min_available: int(4),
            desired: 4,
            current: false,
            ..budget()
        },
    ] {
        assert_eq!(why(&may), None, "{may:?}");
    }
}

#[test]
fn a_budget_whose_sync_failed_is_named_with_the_reason_even_if_it_was_never_worked_out() {
    let failed = |current| Budget {
        current,
        max_unavailable: Some(IntOrString::Int(1)),
        sync_failed: Some("jobs.batch does not implement the scale subresource".into()),
        ..budget()
    };
    for budget in [failed(true), failed(false)] {
        let covering = Covering(vec![&budget]);
        assert_eq!(covering.spent(), Some(&budget.key));
        let message = why(&budget).unwrap();
        assert!(
            message.contains("can't work it out: jobs.batch does not implement the scale subresource"),
            "{message}"
        );
    }
}
