//! The throttle against a simulated API server: budgets that refill, watches that lag, answers that get lost.

mod shares;
mod slow;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::drain::order::DrainLimits;
use crate::observed::Budget;

const POOL: &str = "pool";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn candidate(name: &str, budgets: &[&str]) -> EvictionCandidate {
    EvictionCandidate {
        pod: key(name),
        uid: format!("uid-{name}"),
        budgets: budgets.iter().map(|b| key(b)).collect(),
        exempt: false,
        turn_of: None,
        force: None,
    }
}

fn budget(name: &str, allowed: i32, changed_at: Timestamp) -> Budget {
    Budget {
        key: key(name),
        selector: None,
        allowed,
        current: true,
        changed_at,
        ..Budget::default()
    }
}

fn limits() -> DrainLimits {
    DrainLimits {
        per_second: Some(20.0),
        burst: 100,
        max_terminating: 1000,
        max_per_budget: 16,
    }
}

fn order(pods: Vec<EvictionCandidate>, budgets: Vec<Budget>) -> DrainOrder {
    DrainOrder {
        node: "vn-0".into(),
        node_uid: "node-uid".into(),
        ordinal: 0,
        provider_uid: "provider-uid".into(),
        pods,
        terminating: 0,
        overdue: 0,
        departed: 0,
        limits: limits(),
        budgets,
    }
}

fn many(count: usize, budgets: &[&str]) -> Vec<EvictionCandidate> {
    (0..count)
        .map(|n| candidate(&format!("web-{n}"), budgets))
        .collect()
}

/// Sends whatever may be sent now; the names.
fn send(throttle: &mut Throttle, order: &DrainOrder, now: Timestamp) -> Vec<String> {
    let mut sent = Vec::new();
    while let Next::Evict(index) = throttle.next(POOL, order, now) {
        throttle.sent(POOL, order, index, now);
        sent.push(order.pods[index].uid.clone());
    }
    sent
}

fn waits_until(
    throttle: &mut Throttle,
    order: &DrainOrder,
    now: Timestamp,
) -> Option<(Timestamp, LimitedBy)> {
    match throttle.next(POOL, order, now) {
        Next::Wait { until, limited_by } => until.map(|until| (until, limited_by)),
        _ => None,
    }
}

/// Each pool has seen that all members serve, and gives the turn to a pod of its own node.
#[test]
fn two_pools_share_the_turn_of_a_statefulset() {
    let member = |name: &str| EvictionCandidate {
        turn_of: Some("set-uid".into()),
        ..candidate(name, &[])
    };
    let mut throttle = Throttle::new(None, at(0));
    let one = order(vec![member("db-0")], vec![]);
    let other = order(vec![member("db-1"), candidate("web", &[])], vec![]);
    throttle.begin("one", &one, at(0));
    throttle.begin("other", &other, at(0));
    throttle.sent("one", &one, 0, at(0));
    assert_eq!(
        throttle.next("other", &other, at(1)),
        Next::Evict(1),
        "only db waits"
    );
    throttle.sent("other", &other, 1, at(1));
    throttle.answered("uid-db-0", &Answer::Accepted, at(2));
    throttle.answered("uid-web", &Answer::Accepted, at(2));
    let waits = |until| Next::Wait {
        until: Some(at(until)),
        limited_by: LimitedBy::Nothing,
    };
    assert_eq!(throttle.next("other", &other, at(3)), waits(30_000));
    assert_eq!(throttle.next("other", &other, at(30_000)), Next::Evict(0));

    // The pool that had the turn goes by what it sees, and so does the other one when nothing came of it.
    let next = order(vec![member("db-2")], vec![]);
    throttle.begin("one", &next, at(4));
    assert_eq!(throttle.next("one", &next, at(4)), Next::Evict(0));
    throttle.sent("one", &next, 0, at(4));
    throttle.answered("uid-db-2", &Answer::Gone, at(5));
    assert_eq!(throttle.next("other", &other, at(6)), Next::Evict(0));
}

#[test]
fn a_new_pool_has_its_burst_and_then_its_rate() {
    let mut order = order(many(300, &[]), vec![]);
    order.limits.burst = 3;
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    assert_eq!(send(&mut throttle, &order, at(0)).len(), 3);
    assert!(matches!(
        throttle.next(POOL, &order, at(0)),
        Next::Wait {
            limited_by: LimitedBy::Rate,
            ..
        }
    ));
    assert!(send(&mut throttle, &order, at(49)).is_empty());
    assert_eq!(send(&mut throttle, &order, at(51)).len(), 1);
}

#[test]
fn after_a_restart_pods_that_are_being_deleted_were_the_burst() {
    let mut order = order(many(300, &[]), vec![]);
    order.terminating = 98;
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    assert_eq!(send(&mut throttle, &order, at(0)).len(), 2);
}

#[test]
fn the_cap_of_all_pools_binds_unlimited_ones_and_is_shared() {
    let mut first = order(many(50, &[]), vec![]);
    first.limits.per_second = None;
    let mut second = first.clone();
    second.node = "vn-1".into();
    second.pods.iter_mut().for_each(|p| p.uid.push_str("-b"));
    let mut throttle = Throttle::new(Some(5.0), at(0));
    throttle.begin("a", &first, at(0));
    throttle.begin("b", &second, at(0));
    let mut sent = 0;
    for (pool, order) in [("a", &first), ("b", &second)] {
        while let Next::Evict(index) = throttle.next(pool, order, at(0)) {
            throttle.sent(pool, order, index, at(0));
            sent += 1;
        }
    }
    assert_eq!(sent, 5);
}

#[test]
fn unlimited_is_bounded_by_what_is_in_flight() {
    let mut order = order(many(200, &[]), vec![]);
    order.limits.per_second = None;
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    assert_eq!(sent.len(), MAX_IN_FLIGHT as usize);
    assert!(matches!(
        throttle.next(POOL, &order, at(0)),
        Next::Wait {
            limited_by: LimitedBy::Nothing,
            ..
        }
    ));
    throttle.answered(&sent[0], &Answer::Accepted, at(100));
    assert_eq!(send(&mut throttle, &order, at(100)).len(), 1);
}

#[test]
fn a_withdrawn_order_sends_nothing() {
    let order = order(many(10, &[]), vec![]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    throttle.withdraw(POOL, &order.node);
    assert_eq!(throttle.next(POOL, &order, at(0)), Next::Idle);
}

#[test]
fn the_window_counts_the_nodes_of_a_pool_together() {
    let mut order = order(many(50, &[]), vec![]);
    order.limits.max_terminating = 10;
    order.terminating = 3;
    let mut other = order.clone();
    other.node = "vn-1".into();
    other.pods.clear();
    other.terminating = 4;
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &other, at(0));
    throttle.begin(POOL, &order, at(0));
    assert_eq!(send(&mut throttle, &order, at(0)).len(), 3);
    assert!(matches!(
        throttle.next(POOL, &order, at(0)),
        Next::Wait {
            until: None,
            limited_by: LimitedBy::TerminatingWindow
        }
    ));
}

#[test]
fn a_blocked_budget_is_probed_with_one_pod_after_15_s_and_then_every_30_s() {
    let order = order(many(50, &["web"]), vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let mut now = at(0);
    let mut waits = Vec::new();
    let mut probed = BTreeSet::new();
    for _ in 0..6 {
        let sent = send(&mut throttle, &order, now);
        assert_eq!(sent.len(), 1, "one probe for the budget, not one for each pod");
        probed.insert(sent[0].clone());
        throttle.answered(&sent[0], &Answer::Budget, now);
        let (until, by) = waits_until(&mut throttle, &order, now).unwrap();
        assert_eq!(by, LimitedBy::Budget);
        waits.push(until.duration_since(now).as_secs_f64());
        now = until;
    }
    assert!((12.75..=15.0).contains(&waits[0]), "{waits:?}");
    assert!(waits[1..].iter().all(|w| (25.5..=30.0).contains(w)), "{waits:?}");
    assert_eq!(probed.len(), 6, "probes go round");
}

#[test]
fn a_pod_that_its_budget_lets_go_does_not_wait_behind_those_that_it_holds() {
    let mut pods = many(50, &["web"]);
    pods.push(EvictionCandidate {
        exempt: true,
        ..candidate("zz-unready", &["web"])
    });
    let order = order(pods, vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    assert_eq!(sent.len(), 2, "it and one probe: {sent:?}");
    assert!(sent.contains(&"uid-zz-unready".to_owned()), "{sent:?}");
    for uid in &sent {
        let answer = if uid.contains("unready") {
            Answer::Accepted
        } else {
            Answer::Budget
        };
        throttle.answered(uid, &answer, at(100));
    }
    assert!(
        send(&mut throttle, &order, at(1000)).is_empty(),
        "that it went says nothing of the budget"
    );
}

/// Each edit of the pool takes its orders back for a moment.
#[test]
fn an_edit_does_not_start_the_round_anew() {
    let order = order(many(6, &["web"]), vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let mut now = at(0);
    let mut probed = Vec::new();
    for _ in 0..6 {
        let sent = send(&mut throttle, &order, now);
        probed.extend(sent.iter().cloned());
        for uid in &sent {
            throttle.answered(uid, &Answer::Budget, now);
        }
        throttle.withdraw(POOL, &order.node);
        throttle.begin(POOL, &order, now);
        now = waits_until(&mut throttle, &order, now).unwrap().0;
    }
    let round: BTreeSet<&String> = probed.iter().collect();
    assert_eq!((probed.len(), round.len()), (6, 6), "{probed:?}");
}

#[test]
fn after_an_edit_what_was_refused_for_itself_is_asked_at_once_and_fills_no_window() {
    let mut order = order(many(2, &[]), vec![]);
    order.limits.max_terminating = 2;
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    for uid in send(&mut throttle, &order, at(0)) {
        let refused = Answer::Forbidden {
            rbac: false,
            by: None,
            text: String::new(),
        };
        throttle.answered(&uid, &refused, at(100));
    }
    assert!(send(&mut throttle, &order, at(5000)).is_empty());
    throttle.withdraw(POOL, &order.node);
    throttle.begin(POOL, &order, at(5000));
    assert_eq!(send(&mut throttle, &order, at(5000)).len(), 2);
}

#[test]
fn a_budget_that_is_freed_is_asked_at_once() {
    let mut order = order(many(50, &["web"]), vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    throttle.answered(&sent[0], &Answer::Budget, at(100));
    assert!(send(&mut throttle, &order, at(1000)).is_empty());
    order.budgets = vec![budget("web", 3, at(2000))];
    throttle.begin(POOL, &order, at(2001));
    assert_eq!(
        send(&mut throttle, &order, at(2001)).len(),
        1,
        "first one, to see whether it is true"
    );
}

#[test]
fn no_more_in_flight_than_the_budget_allows() {
    let order = order(many(50, &["web"]), vec![budget("web", 1, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    assert_eq!(sent.len(), 1);
    throttle.answered(&sent[0], &Answer::Accepted, at(100));
    assert!(
        send(&mut throttle, &order, at(100)).is_empty(),
        "the watch has not shown yet that it is used up"
    );
}

#[test]
fn a_count_that_no_watch_confirms_is_given_up_after_2_s() {
    let order = order(many(50, &["web"]), vec![budget("web", 1, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    throttle.answered(&sent[0], &Answer::Accepted, at(100));
    let (until, _) = waits_until(&mut throttle, &order, at(100)).unwrap();
    assert_eq!(until, at(2100));
    assert_eq!(send(&mut throttle, &order, until).len(), 1);
}

#[test]
fn blocked_pods_do_not_hold_up_others_nor_the_other_way_round() {
    let mut pods = many(40, &["web"]);
    pods.extend((0..400).map(|n| candidate(&format!("batch-{n}"), &[])));
    let order = order(pods, vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    assert!(
        sent.iter().any(|uid| uid.contains("web")) && sent.iter().any(|uid| uid.contains("batch")),
        "{sent:?}"
    );
    assert_eq!(sent.iter().filter(|uid| uid.contains("web")).count(), 1);
}

#[test]
fn several_budgets_are_probed_as_one() {
    let order = order(
        many(20, &["web", "all"]),
        vec![budget("web", 5, at(-1000)), budget("all", 5, at(-1000))],
    );
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    assert_eq!(sent.len(), 1);
    throttle.answered(&sent[0], &Answer::SeveralBudgets, at(100));
    let (until, _) = waits_until(&mut throttle, &order, at(100)).unwrap();
    let wait = until.duration_since(at(100)).as_secs_f64();
    assert!((30.0..=60.0).contains(&wait), "{wait}");
}

#[test]
fn a_lost_race_is_tried_again_soon_with_fewer_side_by_side() {
    let order = order(many(50, &["web"]), vec![budget("web", 50, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let mut sent = send(&mut throttle, &order, at(0));
    for step in 1..4 {
        for uid in std::mem::take(&mut sent) {
            throttle.answered(&uid, &Answer::Accepted, at(step * 100));
        }
        sent = send(&mut throttle, &order, at(step * 100));
    }
    let many = sent.len();
    assert!(many >= 4, "{many}");
    for uid in &sent {
        throttle.answered(uid, &Answer::BudgetRaceLost, at(10_000));
    }
    let again = send(&mut throttle, &order, at(12_000));
    assert_eq!(again.len(), 1);
}

#[test]
fn flow_control_stops_everything_for_as_long_as_asked() {
    let order = order(many(200, &[]), vec![]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    let retry_after = Some(SignedDuration::from_secs(4));
    for uid in &sent {
        throttle.answered(uid, &Answer::FlowControl { retry_after }, at(50));
    }
    assert_eq!(
        waits_until(&mut throttle, &order, at(51)),
        Some((at(4050), LimitedBy::Rate))
    );
    let after = send(&mut throttle, &order, at(4050));
    assert_eq!(after.len(), 1, "the burst is gone");
    let mut count = 0;
    for step in 1..=100 {
        let now = at(4050 + step * 10);
        for uid in send(&mut throttle, &order, now) {
            count += 1;
            throttle.answered(&uid, &Answer::Accepted, now);
        }
    }
    assert!(
        (10..=12).contains(&count),
        "half of 20/s and a little more each second, not {count}"
    );
}

#[test]
fn a_namespace_without_permission_is_not_asked_pod_by_pod() {
    let order = order(many(50, &[]), vec![]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let Next::Evict(index) = throttle.next(POOL, &order, at(0)) else {
        panic!("nothing to send")
    };
    throttle.sent(POOL, &order, index, at(0));
    throttle.answered(
        &order.pods[index].uid,
        &Answer::Forbidden {
            rbac: true,
            by: None,
            text: String::new(),
        },
        at(10),
    );
    let (until, _) = waits_until(&mut throttle, &order, at(10)).unwrap();
    assert!(until >= at(30_000), "{until}");
}

#[test]
fn an_order_that_comes_back_finds_what_was_learned() {
    let order = order(many(50, &["web"]), vec![budget("web", 0, at(-1000))]);
    let mut throttle = Throttle::new(None, at(0));
    throttle.begin(POOL, &order, at(0));
    let sent = send(&mut throttle, &order, at(0));
    throttle.answered(&sent[0], &Answer::Budget, at(100));
    throttle.withdraw(POOL, &order.node);
    throttle.begin(POOL, &order, at(200));
    assert!(send(&mut throttle, &order, at(200)).is_empty());
}

/// A server with budgets, and the watch that shows it late.
struct Server {
    /// Allowed disruptions, and the times at which one comes back.
    budgets: BTreeMap<ObjectKey, (i32, Vec<i64>)>,
    /// Pods by UID: `None` present, `Some(t)` gone at `t`.
    pods: BTreeMap<String, Option<i64>>,
    refill: i64,
    removal: i64,
}

impl Server {
    fn tick(&mut self, now: i64) {
        for (allowed, back) in self.budgets.values_mut() {
            let due = back.iter().filter(|t| **t <= now).count();
            back.retain(|t| *t > now);
            *allowed += i32::try_from(due).unwrap();
        }
    }

    fn evict(&mut self, pod: &EvictionCandidate, now: i64) -> Answer {
        match self.pods[&pod.uid] {
            Some(gone) if gone <= now => return Answer::Gone,
            Some(_) => return Answer::Accepted,
            None => {}
        }
        if let Some(name) = pod.budgets.first() {
            let (allowed, back) = self.budgets.get_mut(name).unwrap();
            if *allowed <= 0 {
                return Answer::Budget;
            }
            *allowed -= 1;
            back.push(now + self.refill);
        }
        self.pods.insert(pod.uid.clone(), Some(now + self.removal));
        Answer::Accepted
    }

    /// The order as the plan would give it from what a watch shows now.
    fn order(
        &self,
        all: &[EvictionCandidate],
        limits: DrainLimits,
        seen: &mut BTreeMap<ObjectKey, (i32, i64)>,
        now: i64,
    ) -> DrainOrder {
        let pods = all
            .iter()
            .filter(|p| self.pods[&p.uid].is_none())
            .cloned()
            .collect();
        let terminating = self
            .pods
            .values()
            .filter(|g| g.is_some_and(|gone| gone > now))
            .count();
        let budgets = self
            .budgets
            .iter()
            .map(|(name, (allowed, _))| {
                let known = seen.entry(name.clone()).or_insert((*allowed, now));
                if known.0 != *allowed {
                    *known = (*allowed, now);
                }
                Budget {
                    key: name.clone(),
                    selector: None,
                    allowed: known.0,
                    current: true,
                    changed_at: at(known.1),
                    ..Budget::default()
                }
            })
            .collect();
        let mut order = order(pods, budgets);
        order.terminating = u32::try_from(terminating).unwrap();
        order.limits = limits;
        order
    }
}

#[derive(Clone, Debug)]
struct Case {
    pods: usize,
    budgets: Vec<i32>,
    limits: DrainLimits,
    latency: i64,
    refill: i64,
    removal: i64,
    lag: i64,
    /// Which answers go wrong, and how: the position in a round of 50 and one of four faults.
    faults: Vec<(usize, u8)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let limits = (prop::option::of(2u32..100), 1u32..30, 1u32..40, 1u32..17).prop_map(
        |(per_second, burst, max_terminating, max_per_budget)| DrainLimits {
            per_second: per_second.map(f64::from),
            burst,
            max_terminating,
            max_per_budget,
        },
    );
    (
        1usize..90,
        prop::collection::vec(0i32..6, 0..4),
        limits,
        5i64..300,
        100i64..20_000,
        10i64..4_000,
        10i64..1_000,
        prop::collection::vec((0usize..50, 0u8..4), 0..7),
    )
        .prop_map(
            |(pods, budgets, limits, latency, refill, removal, lag, faults)| Case {
                pods,
                budgets,
                limits,
                latency,
                refill,
                removal,
                lag,
                faults,
            },
        )
}

fn run(case: &Case) -> Result<(), TestCaseError> {
    let names: Vec<ObjectKey> = (0..case.budgets.len())
        .map(|n| key(&format!("budget-{n}")))
        .collect();
    let all: Vec<EvictionCandidate> = (0..case.pods)
        .map(|n| {
            let mut pod = candidate(&format!("pod-{n}"), &[]);
            // One class of pods more than there are budgets, without any.
            pod.budgets = names.get(n % (names.len() + 1)).cloned().into_iter().collect();
            pod
        })
        .collect();
    let mut server = Server {
        // A budget that allows nothing at first gets one disruption after 20 s, by a person.
        budgets: names
            .iter()
            .zip(&case.budgets)
            .map(|(name, allowed)| {
                (
                    name.clone(),
                    (*allowed, if *allowed == 0 { vec![20_000] } else { vec![] }),
                )
            })
            .collect(),
        pods: all.iter().map(|p| (p.uid.clone(), None)).collect(),
        refill: case.refill,
        removal: case.removal,
    };
    let mut refusals: BTreeMap<ObjectKey, Vec<i64>> = BTreeMap::new();
    let mut seen = BTreeMap::new();
    let mut throttle = Throttle::new(None, at(0));
    let mut order = server.order(&all, case.limits, &mut seen, 0);
    throttle.begin(POOL, &order, at(0));
    let mut flying: BTreeMap<String, (i64, EvictionCandidate)> = BTreeMap::new();
    let mut times: Vec<i64> = Vec::new();
    let mut answers = 0;
    let mut now = 0;
    let mut next_order = case.lag;
    while server.pods.values().any(|g| g.is_none_or(|gone| gone > now)) {
        prop_assert!(now < 3_600_000, "no end within an hour, {} answers", answers);
        server.tick(now);
        let due: Vec<String> = flying
            .iter()
            .filter(|(_, (t, _))| *t <= now)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            let (_, pod) = flying.remove(&uid).unwrap();
            answers += 1;
            let fault = case.faults.iter().find(|(position, _)| *position == answers % 50);
            let answer = match fault.map_or(9, |(_, fault)| *fault) {
                0 => Answer::FlowControl {
                    retry_after: Some(SignedDuration::from_secs(1)),
                },
                1 => Answer::Unknown {
                    text: "cut before it arrived".into(),
                },
                2 => {
                    server.evict(&pod, now);
                    Answer::Unknown {
                        text: "cut after it arrived".into(),
                    }
                }
                3 if !pod.budgets.is_empty() => Answer::BudgetRaceLost,
                _ => server.evict(&pod, now),
            };
            if answer == Answer::Budget {
                refusals.entry(pod.budgets[0].clone()).or_default().push(now);
            }
            throttle.answered(&uid, &answer, at(now));
        }
        if now >= next_order {
            order = server.order(&all, case.limits, &mut seen, now);
            throttle.begin(POOL, &order, at(now));
            next_order = now + case.lag;
        }
        let mut wake = next_order;
        loop {
            match throttle.next(POOL, &order, at(now)) {
                Next::Evict(index) => {
                    let pod = order.pods[index].clone();
                    let asked = pod.budgets.clone();
                    throttle.sent(POOL, &order, index, at(now));
                    times.push(now);
                    prop_assert!(
                        flying
                            .insert(pod.uid.clone(), (now + case.latency, pod))
                            .is_none(),
                        "twice in flight"
                    );
                    for name in &names {
                        let under = flying.values().filter(|(_, p)| p.budgets.contains(name)).count();
                        prop_assert!(under <= case.limits.max_per_budget as usize);
                        // A budget may shrink under what is in flight; then nothing more is sent under it.
                        prop_assert!(
                            !asked.contains(name) || under <= usize::try_from(seen[name].0).unwrap().max(1),
                            "more than it allows"
                        );
                    }
                    let leaving = server
                        .pods
                        .values()
                        .filter(|g| g.is_some_and(|gone| gone > now))
                        .count();
                    let unsure = flying.keys().filter(|uid| server.pods[*uid].is_none()).count();
                    prop_assert!(leaving + unsure <= case.limits.max_terminating as usize, "window");
                    prop_assert!(flying.len() <= MAX_IN_FLIGHT as usize);
                }
                Next::Wait { until, .. } => {
                    if let Some(until) = until {
                        prop_assert!(until > at(now), "waits for a moment that is over");
                        let millis = until.as_millisecond() - at(0).as_millisecond();
                        wake = wake.min(millis.max(now + 1));
                    }
                    break;
                }
                Next::Idle => break,
            }
        }
        let answer = flying.values().map(|(t, _)| *t).min().unwrap_or(i64::MAX);
        now = wake.min(answer).max(now + 1);
    }
    if let Some(per_second) = case.limits.per_second {
        for (i, from) in times.iter().enumerate() {
            for (j, to) in times.iter().enumerate().skip(i) {
                let most = f64::from(case.limits.burst) + (to - from) as f64 / 1000.0 * per_second + 0.01;
                prop_assert!(
                    (j - i + 1) as f64 <= most,
                    "{} evictions in {} ms",
                    j - i + 1,
                    to - from
                );
            }
        }
    }
    for (name, refusals) in &refusals {
        for from in refusals {
            let minute = refusals
                .iter()
                .filter(|t| (*from..from + 60_000).contains(t))
                .count();
            prop_assert!(
                minute <= 4,
                "{minute} refusals of {name} within a minute: {refusals:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_drain_ends_and_no_limit_is_passed(case in cases()) {
        run(&case)?;
    }
}
