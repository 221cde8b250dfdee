use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_crds::{DrainPhase, LimitedBy};

use super::*;
use crate::drain::tests::{blockers, cordon, look, plan_at, report, ripe, shrinks};
use crate::drain::{Finding, Step};
use crate::observed::{Budget, Member, MemberState, Observed, PodPhase};
use crate::proof::{Doubt, Empty, Expectation};
use crate::testing::{after, bind, now, observed, pod, pool, with_node};

/// Node 2 of 3 drains; `drain` is merged into spec.drain.
fn draining(drain: Value, pods: Vec<BoundPod>) -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2, "drain": drain })), 3);
    bind(&mut seen, 2, pods);
    cordon(&mut seen, 2);
    seen
}

fn tier(name: &str, tier: &str) -> BoundPod {
    let mut pod = pod(name);
    pod.labels.insert("tier".to_owned(), tier.to_owned());
    pod
}

fn stage(name: &str, wait_for: &str) -> Value {
    json!({ "name": name, "waitFor": wait_for, "podSelector": { "matchLabels": { "tier": name } } })
}

fn offered(plan: &DrainPlan) -> Vec<&str> {
    plan.orders
        .iter()
        .flat_map(|o| &o.pods)
        .map(|p| p.pod.name.as_str())
        .collect()
}

fn blocked(plan: &DrainPlan) -> Vec<(BlockerReason, String, i32)> {
    let blockers = plan.findings.iter().filter_map(|f| match f {
        Finding::Blocker(b) => Some((b.reason, b.object.clone(), b.pods)),
        _ => None,
    });
    blockers.collect()
}

fn set_pod(name: &str, set: &str) -> BoundPod {
    let mut pod = pod(name);
    pod.controller = Some(PodOwner {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: set.to_owned(),
        uid: format!("uid-of-{set}"),
    });
    pod
}

fn members(seen: &mut Observed, set: &str, states: &[(&str, MemberState)]) {
    let members = states.iter().map(|(name, state)| {
        let member = Member {
            uid: format!("uid-{name}"),
            state: *state,
            since: Some(after(-600)),
        };
        ((*name).to_owned(), member)
    });
    seen.stateful_sets
        .insert(format!("uid-of-{set}"), Arc::new(members.collect()));
}

#[test]
fn stages_leave_in_their_order_and_the_rest_last() {
    let stages = json!({ "stages": [stage("web", "Eviction"), stage("db", "Eviction")] });
    let mut done = tier("done", "other");
    done.phase = PodPhase::Succeeded;
    let mut pods = vec![tier("a", "other"), tier("b", "db"), tier("c", "web"), done];
    let mut seen = draining(stages, pods.clone());
    assert_eq!(offered(&plan_at(&seen, 2, now())), ["done", "c"]);

    // On its way, it still holds the others.
    pods[2].deletion = Some(after(10));
    pods.remove(3);
    bind(&mut seen, 2, pods.clone());
    let waiting = plan_at(&seen, 2, now());
    assert_eq!(offered(&waiting), Vec::<&str>::new());
    assert_eq!(waiting.limited_by, Some(LimitedBy::Stage));
    assert_eq!(blocked(&waiting), []);

    pods.remove(2);
    bind(&mut seen, 2, pods.clone());
    assert_eq!(offered(&plan_at(&seen, 2, now())), ["b"]);
    pods.remove(1);
    bind(&mut seen, 2, pods);
    assert_eq!(offered(&plan_at(&seen, 2, now())), ["a"]);
}

#[test]
fn a_blocked_stage_holds_later_ones_and_only_its_own_blocker_is_named() {
    let stages = json!({ "stages": [stage("web", "Eviction")] });
    let mut bare = tier("bare", "web");
    bare.controller = None;
    let mut later = pod("later");
    later.controller = None;
    let plan = plan_at(&draining(stages, vec![bare, later, pod("rest")]), 2, now());
    assert_eq!(offered(&plan), Vec::<&str>::new());
    assert_eq!(
        blocked(&plan),
        [(BlockerReason::BarePods, "shop/bare".to_owned(), 1)]
    );
    assert_eq!(plan.limited_by, Some(LimitedBy::Stage));
}

#[test]
fn a_completion_stage_is_one_line_and_no_lack_of_progress() {
    let drain = json!({ "stages": [stage("job", "Completion")], "progressDeadlineSeconds": 600 });
    let mut bare = tier("bare", "job");
    bare.controller = None;
    let mut ended = tier("ended", "job");
    ended.phase = PodPhase::Failed;
    let mut seen = draining(drain, vec![tier("a", "job"), bare, ended, pod("web")]);
    report(&mut seen, DrainPhase::Evicting, None);
    let plan = plan_at(&seen, 2, after(86_400));
    assert_eq!(
        offered(&plan),
        Vec::<&str>::new(),
        "the provider is silent after a day"
    );
    with_node(&mut seen, 2, |n| {
        n.heartbeat = Some(crate::observed::Heartbeat {
            seen_at: after(86_400),
            beats: 99,
        });
    });
    let plan = plan_at(&seen, 2, after(86_400));
    assert_eq!(offered(&plan), ["ended"]);
    assert_eq!(
        blocked(&plan),
        [(BlockerReason::WaitingForCompletion, "stage/job".to_owned(), 2)]
    );
}

/// The status says that the drain waits for completion, and that a pod left last a long time ago.
fn waited(seen: &mut Observed) {
    report(seen, DrainPhase::Evicting, None);
    let mut pool = (*seen.pool).clone();
    let drain = pool.status.as_mut().and_then(|s| s.drain.as_mut()).unwrap();
    drain.nodes[0].pods_remaining = 1;
    drain.nodes[0].last_progress_time =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-7200)));
    drain.blockers = serde_json::from_value(json!([{
        "reason": "WaitingForCompletion", "object": "stage/job", "pods": 1, "since": "2026-12-31T00:00:00Z", "message": "",
    }]))
    .unwrap();
    seen.pool = Arc::new(pool);
}

#[test]
fn the_deadline_for_progress_begins_when_the_waiting_for_completion_is_over() {
    for drain in [
        json!({ "stages": [stage("job", "Completion")] }),
        json!({ "barePods": "WaitForCompletion" }),
    ] {
        let mut running = tier("job", "job");
        running.controller = None;
        let mut seen = draining(drain.clone(), vec![running.clone()]);
        waited(&mut seen);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(blockers(&plan), [BlockerReason::WaitingForCompletion], "{drain}");
        assert_eq!(
            plan.nodes[0].last_progress,
            after(-7200),
            "nothing is written while nothing changes"
        );

        running.phase = PodPhase::Succeeded;
        bind(&mut seen, 2, vec![running]);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(
            blockers(&plan),
            [],
            "two hours ago is no lack of progress: {drain}"
        );
        assert_eq!(plan.nodes[0].last_progress, now());
    }
}

#[test]
fn pods_of_a_statefulset_leave_one_at_a_time_unless_a_budget_covers_them() {
    let pods = vec![
        set_pod("db-0", "db"),
        set_pod("db-1", "db"),
        set_pod("kv-0", "kv"),
        pod("web"),
    ];
    let mut seen = draining(json!({}), pods);
    let ready = MemberState::Ready;
    members(
        &mut seen,
        "db",
        &[("db-0", ready), ("db-1", ready), ("db-2", ready)],
    );
    members(&mut seen, "kv", &[("kv-0", ready)]);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(offered(&plan), ["db-1", "kv-0", "web"]);
    let turns: Vec<_> = plan.orders[0].pods.iter().map(|p| p.turn_of.as_deref()).collect();
    assert_eq!(turns, [Some("uid-of-db"), Some("uid-of-kv"), None]);

    members(
        &mut seen,
        "db",
        &[("db-0", ready), ("db-1", ready), ("db-2", MemberState::NotReady)],
    );
    let held = plan_at(&seen, 2, now());
    assert_eq!(offered(&held), ["kv-0", "web"]);
    assert_eq!(
        blocked(&held),
        [(BlockerReason::StatefulSetStuck, "shop/db".to_owned(), 2)]
    );
    assert_eq!(held.nodes[0].pods_blocked, 2);

    let budget = Budget {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: "all".to_owned(),
        },
        selector: Some(Default::default()),
        allowed: 1,
        current: true,
        changed_at: after(-600),
        ..Budget::default()
    };
    seen.budgets = Arc::new(vec![budget]);
    assert_eq!(
        offered(&plan_at(&seen, 2, now())),
        ["db-0", "db-1", "kv-0", "web"]
    );
}

/// Nine healthy pods hold the budget; what the server lets go past it is not held, wherever it sorts.
#[test]
fn what_the_server_lets_go_past_a_spent_budget_is_not_held_by_ours() {
    let healthy = (0..9).map(|n| pod(&format!("a-{n}")));
    let like = |name: &str, phase, ready| BoundPod {
        phase,
        ready,
        ..pod(name)
    };
    let mut pods: Vec<BoundPod> = healthy.collect();
    pods.push(like("z-pending", PodPhase::Pending, false));
    pods.push(like("z-unknown", PodPhase::Unknown, false));
    pods.push(like("z-unready", PodPhase::Running, false));
    let mut seen = draining(json!({}), pods);
    let spent = Budget {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        selector: Some(Default::default()),
        current: true,
        healthy: 9,
        desired: 10,
        expected: 12,
        ..Budget::default()
    };
    let exempt = |plan: &DrainPlan| -> Vec<String> {
        let pods = plan.orders[0].pods.iter().filter(|p| p.exempt);
        pods.map(|p| p.pod.name.clone()).collect()
    };
    for (budget, passes) in [
        (spent.clone(), vec!["z-pending"]),
        (
            Budget {
                always_allows_unhealthy: true,
                ..spent.clone()
            },
            vec!["z-pending", "z-unknown", "z-unready"],
        ),
        (
            Budget {
                healthy: 10,
                ..spent.clone()
            },
            vec!["z-pending", "z-unknown", "z-unready"],
        ),
        (Budget { desired: 0, ..spent }, vec!["z-pending"]),
    ] {
        seen.budgets = Arc::new(vec![budget]);
        let plan = plan_at(&seen, 2, now());
        assert_eq!(exempt(&plan), passes);
        let held = i32::try_from(12 - passes.len()).unwrap();
        assert_eq!(
            blocked(&plan),
            [(BlockerReason::BlockedByBudget, "shop/web".to_owned(), held)]
        );
        assert!(
            plan.orders[0].pods.iter().all(|p| p.budgets.len() == 1),
            "named all the same"
        );
    }
}

#[test]
fn two_nodes_that_drain_share_the_turn_of_a_statefulset() {
    let mut seen = observed(
        pool(json!({ "replicas": 1, "drain": { "maxConcurrentNodes": 2 } })),
        3,
    );
    for (node, name) in [(1, "db-1"), (2, "db-0")] {
        bind(&mut seen, node, vec![set_pod(name, "db")]);
        cordon(&mut seen, node);
    }
    members(
        &mut seen,
        "db",
        &[("db-0", MemberState::Ready), ("db-1", MemberState::Ready)],
    );
    assert_eq!(offered(&plan_at(&seen, 1, now())), ["db-0"]);
}

fn never_started(name: &str) -> BoundPod {
    let mut pod = pod(name);
    pod.controller = Some(PodOwner {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        name: "logs".to_owned(),
        uid: "ds".to_owned(),
    });
    pod.phase = PodPhase::Pending;
    pod.never_started = true;
    pod
}

fn ignoring(seen: &mut Observed) {
    let mut pool = (*seen.pool).clone();
    let drain = pool.spec.drain.get_or_insert_default();
    drain.daemon_set_pods = vnp_crds::DaemonSetPods::IgnoreNeverStarted;
    seen.pool = Arc::new(pool);
}

#[test]
fn a_daemonset_whose_pods_come_back_is_named_and_not_asked_again() {
    let agent = BoundPod {
        controller: Some(PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: "agent".to_owned(),
            uid: "ds".to_owned(),
        }),
        ..pod("agent-x")
    };
    let mut seen = draining(json!({}), vec![agent.clone(), pod("web")]);
    let memory = seen.memory.entry(2).or_default();
    memory.returned.see(&agent, now());
    let once = plan_at(&seen, 2, now());
    assert_eq!((offered(&once), blocked(&once)), (vec!["web", "agent-x"], vec![]));

    let memory = seen.memory.entry(2).or_default();
    memory.returned.see(&agent, now());
    let named = (
        BlockerReason::DaemonSetTargetsVirtualNode,
        "DaemonSet/shop/agent".to_owned(),
        1,
    );
    let twice = plan_at(&seen, 2, now());
    assert_eq!((offered(&twice), blocked(&twice)), (vec!["web"], vec![named]));
}

#[test]
fn a_daemonset_pod_that_never_started_holds_nothing_only_where_that_is_asked_for() {
    let mut seen = draining(json!({}), vec![never_started("logs"), pod("web")]);
    assert_eq!(offered(&plan_at(&seen, 2, now())), ["web", "logs"]);
    ignoring(&mut seen);
    let plan = plan_at(&seen, 2, now());
    assert_eq!(offered(&plan), ["web"]);
    assert_eq!(plan.nodes[0].pods_remaining, 1);
    let mut started = never_started("logs");
    started.never_started = false;
    bind(&mut seen, 2, vec![started]);
    assert_eq!(offered(&plan_at(&seen, 2, now())), ["logs"]);
}

#[test]
fn a_node_with_nothing_but_daemonset_pods_that_never_started_goes() {
    let mut seen = ripe();
    bind(&mut seen, 2, vec![never_started("logs")]);
    look(&mut seen, 2, now(), vec![never_started("logs")]);
    assert!(
        shrinks(&plan_at(&seen, 2, now())).is_empty(),
        "the default is strict"
    );
    ignoring(&mut seen);
    look(&mut seen, 2, now(), vec![never_started("logs")]);
    assert_eq!(shrinks(&plan_at(&seen, 2, now())), [2]);
    let mut started = never_started("logs");
    started.never_started = false;
    look(&mut seen, 2, now(), vec![started]);
    assert!(
        shrinks(&plan_at(&seen, 2, now())).is_empty(),
        "it started in the meantime"
    );
}

#[test]
fn the_first_list_is_judged_by_the_setting_of_the_live_pool() {
    let mut seen = ripe();
    let strict = seen.pool.clone();
    ignoring(&mut seen);
    look(&mut seen, 2, now(), Vec::new());
    let first = crate::drain::tests::list(after(-40), vec![never_started("logs")]);
    let fence = crate::testing::fence_of(2, "node-2");
    let mark = memory_of_settle(&seen).provider.clone();
    let settle = crate::drain::settle::Settle::begin(
        fence,
        mark,
        first,
        9,
        vnp_crds::DaemonSetPods::IgnoreNeverStarted,
    )
    .unwrap();
    let expect = Expectation {
        ordinal: 2,
        settle: &settle,
        not_before: after(-1),
        beats_at_last_departure: None,
        target: 2,
        term: &crate::testing::term(),
        now: now(),
    };
    let mut live = seen.live[&2].clone();
    assert!(Empty::prove(&live, &expect).is_ok());
    live.pool = strict;
    assert_eq!(
        Empty::prove(&live, &expect).unwrap_err(),
        Doubt::Pod("shop/logs".to_owned())
    );
}

fn memory_of_settle(seen: &Observed) -> &crate::drain::settle::Settle {
    seen.memory[&2].settle.as_ref().unwrap()
}

#[test]
fn a_removed_node_with_such_pods_is_deleted_and_not_brought_back() {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
    with_node(&mut seen, 2, |_| {});
    bind(&mut seen, 2, vec![never_started("logs")]);
    look(&mut seen, 2, now(), vec![never_started("logs")]);
    let deletes = |seen: &Observed| {
        let plan = plan_at(seen, 2, now());
        plan.steps.iter().any(|s| matches!(s, Step::DeleteNode { .. }))
    };
    assert!(!deletes(&seen), "the default is strict");
    ignoring(&mut seen);
    look(&mut seen, 2, now(), vec![never_started("logs")]);
    assert!(deletes(&seen));
    let rescued = |seen: &Observed| {
        let plan = crate::plan(seen, now());
        let steps = plan.tracks.iter().flat_map(|t| &t.steps);
        steps
            .into_iter()
            .any(|s| matches!(s, Step::PatchWorkload(p) if p.purpose == crate::step::PatchPurpose::ScaleUp))
    };
    assert!(!rescued(&seen));
    let mut started = never_started("logs");
    started.never_started = false;
    bind(&mut seen, 2, vec![started]);
    assert!(rescued(&seen));
}

prop_compose! {
    fn any_pod()(
        tier_of in prop::sample::select(vec!["web", "db", "job", "none"]),
        owner in prop::sample::select(vec!["StatefulSet", "StatefulSet", "ReplicaSet", "DaemonSet", ""]),
        set in prop::sample::select(vec!["x", "y"]),
        phase in prop::sample::select(vec![PodPhase::Running, PodPhase::Running, PodPhase::Pending, PodPhase::Succeeded]),
        deleted in prop::bool::weighted(0.15),
        never_started in any::<bool>(),
        covered in prop::bool::weighted(0.2),
        number in 0..50u32,
    ) -> BoundPod {
        let mut pod = tier(&format!("{set}-{number}"), tier_of);
        pod.controller = (!owner.is_empty()).then(|| PodOwner {
api_version: "apps/v1".to_owned(),
            kind: owner.to_owned(), name: set.to_owned(), uid: format!("uid-of-{set}"),
        });
        pod.phase = phase;
        pod.deletion = deleted.then(|| after(5));
        pod.never_started = never_started && phase == PodPhase::Pending;
        if covered {
            pod.labels.insert("covered".to_owned(), "yes".to_owned());
        }
        pod
    }
}

fn unique(pods: Vec<BoundPod>) -> Vec<BoundPod> {
    let mut names = BTreeSet::new();
    pods.into_iter().filter(|p| names.insert(p.key.clone())).collect()
}

proptest! {
    #[test]
    fn whatever_the_pods_the_policy_holds(
        pods in prop::collection::vec(any_pod(), 0..16).prop_map(unique),
        wait in prop::sample::select(vec!["Eviction", "Completion"]),
        cut in 0..16usize,
        ignore in any::<bool>(),
    ) {
        let ignore = if ignore { "IgnoreNeverStarted" } else { "Evict" };
        let drain = json!({
            "stages": [stage("web", "Eviction"), stage("job", wait)], "maxConcurrentNodes": 2, "daemonSetPods": ignore,
        });
        let mut seen = observed(pool(json!({ "replicas": 1, "drain": drain })), 3);
        let (one, two) = pods.split_at(cut.min(pods.len()));
        for (node, pods) in [(1, one), (2, two)] {
            bind(&mut seen, node, pods.to_vec());
            cordon(&mut seen, node);
        }
        let selector = json!({ "matchLabels": { "covered": "yes" } });
        seen.budgets = Arc::new(vec![Budget {
            selector: serde_json::from_value(selector).unwrap(),
            key: ObjectKey { namespace: "shop".to_owned(), name: "b".to_owned() },
            current: true, allowed: 1, changed_at: now(),
            ..Budget::default()
        }]);
        for set in ["x", "y"] {
            let owned = pods.iter().filter(|p| p.stateful_set().is_some_and(|o| o.name == set));
            let states: Vec<(&str, MemberState)> = owned
                .map(|p| (p.key.name.as_str(), if p.deletion.is_some() { MemberState::Terminating } else { MemberState::Ready }))
                .collect();
            members(&mut seen, set, &states);
        }
        let plan = plan_at(&seen, 1, now());
        let rank = |p: &BoundPod| match p.labels["tier"].as_str() { "web" => 0, "job" => 1, _ => 2 };
        let mut leaving: BTreeMap<String, usize> = BTreeMap::new();
        for order in &plan.orders {
            let here: Vec<&BoundPod> = seen.holding(order.ordinal).collect();
            for candidate in &order.pods {
                let pod = here.iter().find(|p| p.key == candidate.pod).unwrap();
                prop_assert!(pod.deletion.is_none());
                if pod.finished() {
                    continue;
                }
                prop_assert!(here.iter().all(|p| rank(p) >= rank(pod)), "an earlier stage has pods: {pod:?}");
                prop_assert!(!(rank(pod) == 1 && wait == "Completion"));
                if let Some(owner) = pod.stateful_set().filter(|_| candidate.budgets.is_empty()) {
                    *leaving.entry(owner.uid.clone()).or_default() += 1;
                    prop_assert!(!pods.iter().any(|p| p.stateful_set() == Some(owner) && p.deletion.is_some()));
                }
            }
        }
        prop_assert!(leaving.values().all(|n| *n == 1), "{leaving:?}");
        // Everything that started holds its node.
        for pod in pods.iter().filter(|p| !p.never_started) {
            prop_assert!(seen.holding(1).chain(seen.holding(2)).any(|p| p == pod));
        }
        // And the order of the input says nothing.
        for node in [1, 2] {
            let reversed = seen.bound[&node].iter().rev().cloned().collect();
            bind(&mut seen, node, reversed);
        }
        let again = plan_at(&seen, 1, now());
        prop_assert_eq!(&again.orders, &plan.orders);
        prop_assert_eq!(blocked(&again), blocked(&plan));
    }
}
