//! The tasks against an API server that answers as told, on a paused clock.

mod faults;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use vnp_crds::{BlockerReason, LimitedBy};
use vnp_plan::drain::order::{DrainLimits, EvictionCandidate};
use vnp_plan::observed::{Budget, ObjectKey};

use super::*;
use crate::apply::testing::{Answered, Call, Calls, failure, server};

const POOL: &str = "pool-uid";

struct Bench {
    tasks: DrainTasks,
    calls: Calls,
    claim: Claim,
    memories: Arc<DrainMemories>,
    metrics: Metrics,
    woken: Arc<AtomicUsize>,
}

fn accepted() -> Answered {
    (
        201,
        vec![],
        json!({"kind": "Status", "status": "Success", "code": 201}).to_string(),
    )
}

fn by_budget() -> Answered {
    failure(
        429,
        "Cannot evict pod as it would violate the pod's disruption budget.",
        json!({"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget web needs 9 healthy pods and has 9 currently"}]}),
    )
}

/// A server that takes 100 ms for each eviction.
fn bench(answer: impl Fn(&Call) -> Answered + Clone + Send + 'static) -> Bench {
    let (client, calls) = server(move |call| {
        let answer = answer.clone();
        async move {
            sleep(Duration::from_millis(100)).await;
            answer(&call)
        }
    });
    bench_of(client, calls)
}

fn bench_of(client: kube::Client, calls: Calls) -> Bench {
    let claim = Claim::lasting();
    let memories = Arc::new(DrainMemories::default());
    let metrics = Metrics::default();
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let wake: Wake = Arc::new(move |pool| {
        assert_eq!(pool, POOL);
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let tasks = DrainTasks::new(
        client,
        claim.clone(),
        metrics.clone(),
        0,
        Arc::clone(&memories),
        Clock::of_host(),
        wake,
    );
    Bench {
        tasks,
        calls,
        claim,
        memories,
        metrics,
        woken,
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn order(node: i32, pods: std::ops::Range<usize>, budgets: &[&str]) -> DrainOrder {
    DrainOrder {
        node: format!("vn-{node}"),
        node_uid: "n".into(),
        ordinal: node,
        provider_uid: "p".into(),
        pods: pods
            .map(|n| EvictionCandidate {
                pod: key(&format!("web-{n}")),
                uid: format!("uid-{n}"),
                budgets: budgets.iter().map(|b| key(b)).collect(),
                exempt: false,
                turn_of: None,
                force: None,
            })
            .collect(),
        terminating: 0,
        overdue: 0,
        departed: 0,
        limits: DrainLimits {
            per_second: Some(20.0),
            burst: 1,
            max_terminating: 1000,
            max_per_budget: 16,
        },
        budgets: Vec::new(),
    }
}

fn budget(allowed: i32) -> Vec<Budget> {
    vec![Budget {
        key: key("web"),
        selector: None,
        allowed,
        current: true,
        changed_at: jiff::Timestamp::now(),
        ..Budget::default()
    }]
}

#[tokio::test(start_paused = true)]
async fn an_eviction_names_the_pod_by_uid_and_sets_no_grace_period() {
    let bench = bench(|_| accepted());
    bench.tasks.update(POOL, vec![order(2, 0..1, &[])]);
    sleep(Duration::from_secs(1)).await;
    let [call] = bench.calls.all().try_into().unwrap();
    assert_eq!(
        (call.method.as_str(), call.content_type.as_str()),
        ("POST", "application/json")
    );
    assert_eq!(call.uri, "/api/v1/namespaces/shop/pods/web-0/eviction?");
    assert_eq!(
        call.body,
        json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": "web-0", "namespace": "shop"},
            "deleteOptions": {"preconditions": {"uid": "uid-0"}},
        })
    );
    let text = bench.metrics.render().unwrap();
    assert!(
        text.contains("virtualnodepool_evictions_total{answer=\"accepted\"} 1"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_names_the_pod_by_uid_and_leaves_it_a_grace() {
    let bench = bench(|_| accepted());
    let mut forced = order(2, 0..2, &[]);
    forced.pods[0].force = std::num::NonZeroU32::new(1);
    forced.pods[1].force = std::num::NonZeroU32::new(30);
    bench.tasks.update(POOL, vec![forced]);
    sleep(Duration::from_secs(1)).await;
    let calls = bench.calls.all();
    assert_eq!(calls.len(), 2, "{calls:?}");
    for (n, (call, grace)) in calls.iter().zip([1, 30]).enumerate() {
        assert_eq!(call.method, "DELETE");
        assert_eq!(call.uri, format!("/api/v1/namespaces/shop/pods/web-{n}?"));
        assert_eq!(
            call.body,
            json!({"gracePeriodSeconds": grace, "preconditions": {"uid": format!("uid-{n}")}})
        );
    }
    let text = bench.metrics.render().unwrap();
    assert!(
        text.contains("virtualnodepool_forced_deletions_total{answer=\"accepted\"} 2"),
        "{text}"
    );
}

/// The hold of an eviction that was refused must not keep a pod that is to be deleted now.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_eviction_was_refused_is_deleted_as_soon_as_force_is_ordered() {
    let bench = bench(|call| match call.method.as_str() {
        "DELETE" => accepted(),
        _ => failure(403, "pods \"web-0\" is forbidden: a policy says no", json!({})),
    });
    bench.tasks.update(POOL, vec![order(2, 0..1, &["web"])]);
    sleep(Duration::from_secs(2)).await;
    let mut forced = order(2, 0..1, &[]);
    forced.pods[0].force = std::num::NonZeroU32::new(30);
    bench.tasks.update(POOL, vec![forced]);
    sleep(Duration::from_secs(2)).await;
    let methods: Vec<String> = bench.calls.all().into_iter().map(|c| c.method).collect();
    assert_eq!(methods, ["POST", "DELETE"]);
    assert!(bench.memories.snapshot(POOL)[&2].refusals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_delete_pods_the_role_to_bind_is_named() {
    let bench = bench(|_| {
        failure(
            403,
            "pods \"web-0\" is forbidden: User \"operator\" cannot delete resource \"pods\" in API group \"\"",
            json!({}),
        )
    });
    let mut forced = order(2, 0..1, &[]);
    forced.pods[0].force = std::num::NonZeroU32::new(30);
    bench.tasks.update(POOL, vec![forced]);
    sleep(Duration::from_secs(2)).await;
    let refusal = bench.memories.snapshot(POOL)[&2].refusals["uid-0"].clone();
    assert_eq!(refusal.reason, BlockerReason::EvictionForbidden);
    assert!(
        refusal.forced && refusal.message.contains("virtualnodepool-operator-force-delete"),
        "{refusal:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_although_each_eviction_takes_100_ms() {
    let bench = bench(|_| accepted());
    bench.tasks.update(POOL, vec![order(2, 0..1000, &[])]);
    sleep(Duration::from_secs(20)).await;
    let sent = bench.calls.all().len();
    assert!((380..=420).contains(&sent), "20/s +-5 %, not {sent} in 20 s");
    let limited_by = bench.memories.snapshot(POOL)[&2].limited_by;
    assert_eq!(limited_by, Some(LimitedBy::Rate));
}

#[tokio::test(start_paused = true)]
async fn unlimited_goes_side_by_side_and_asks_for_each_pod_once() {
    let bench = bench(|_| accepted());
    let mut all = order(2, 0..400, &[]);
    all.limits.per_second = None;
    bench.tasks.update(POOL, vec![all]);
    sleep(Duration::from_millis(1_200)).await;
    let calls = bench.calls.all();
    let uris: BTreeMap<&str, usize> = calls.iter().fold(BTreeMap::new(), |mut by, call| {
        *by.entry(call.uri.as_str()).or_default() += 1;
        by
    });
    assert_eq!((calls.len(), uris.len()), (400, 400));
}

/// On real threads: an order is replaced while the task works on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_went_is_not_asked_for_again_by_the_order_before() {
    const PODS: usize = 2000;
    let (client, calls) = server(|_| async { accepted() });
    let tasks = DrainTasks::new(
        client,
        Claim::lasting(),
        Metrics::default(),
        0,
        Arc::new(DrainMemories::default()),
        Clock::of_host(),
        Arc::new(|_| {}),
    );
    let mut left = order(2, 0..PODS, &[]);
    left.limits.per_second = None;
    left.limits.max_terminating = PODS as u32;
    let within = Instant::now() + Duration::from_secs(60);
    while !left.pods.is_empty() && Instant::now() < within {
        tasks.update(POOL, vec![left.clone()]);
        // What was asked for is gone, as a watch would tell.
        let gone: HashSet<String> = calls.all().into_iter().map(|c| c.uri).collect();
        left.pods
            .retain(|p| !gone.contains(&format!("/api/v1/namespaces/shop/pods/{}/eviction?", p.pod.name)));
        sleep(Duration::from_millis(1)).await;
    }
    tasks.stop().await;
    assert_eq!(calls.all().len(), PODS, "each pod is asked for once");
}

#[tokio::test(start_paused = true)]
async fn no_order_no_eviction() {
    let bench = bench(|_| accepted());
    bench
        .tasks
        .update(POOL, vec![order(2, 0..1000, &[]), order(3, 1000..2000, &[])]);
    sleep(Duration::from_millis(500)).await;
    bench.tasks.update(POOL, vec![]);
    let cancelled = Instant::now();
    sleep(Duration::from_secs(10)).await;
    let calls = bench.calls.all();
    assert!(
        !calls.is_empty() && calls.iter().all(|c| c.at <= cancelled),
        "an eviction after the cancel"
    );
    // And back again, once.
    bench.tasks.update(POOL, vec![order(2, 0..1000, &[])]);
    sleep(Duration::from_secs(1)).await;
    assert!(bench.calls.all().len() > calls.len());
}

#[tokio::test(start_paused = true)]
async fn other_pools_keep_their_orders() {
    let bench = bench(|_| accepted());
    let wake: Wake = Arc::new(|_| {});
    let tasks = DrainTasks::new(
        bench.tasks.shared.client.clone(),
        bench.claim.clone(),
        bench.metrics.clone(),
        0,
        Arc::clone(&bench.memories),
        Clock::of_host(),
        wake,
    );
    tasks.update("a", vec![order(2, 0..1000, &[])]);
    tasks.update("b", vec![]);
    sleep(Duration::from_secs(1)).await;
    assert!(!bench.calls.all().is_empty());
}

fn asked_for(calls: &Calls, pods: std::ops::Range<usize>) -> usize {
    let uris: HashSet<String> = pods
        .map(|n| format!("/api/v1/namespaces/shop/pods/web-{n}/eviction?"))
        .collect();
    calls.all().iter().filter(|c| uris.contains(&c.uri)).count()
}

#[tokio::test(start_paused = true)]
async fn pools_share_the_operators_cap_whatever_their_size() {
    let mut bench = bench(|_| accepted());
    bench.tasks = DrainTasks::new(
        bench.tasks.shared.client.clone(),
        bench.claim.clone(),
        bench.metrics.clone(),
        20,
        Arc::clone(&bench.memories),
        Clock::of_host(),
        Arc::new(|_| {}),
    );
    let unlimited = |mut order: DrainOrder| {
        order.limits.per_second = None;
        order
    };
    // The first pool has begun, and drains two nodes.
    let two = vec![
        unlimited(order(2, 0..2000, &[])),
        unlimited(order(1, 2000..4000, &[])),
    ];
    bench.tasks.update("a", two);
    sleep(Duration::from_secs(5)).await;
    bench
        .tasks
        .update("b", vec![unlimited(order(0, 5000..5500, &[]))]);
    let before = asked_for(&bench.calls, 0..4000);
    sleep(Duration::from_secs(20)).await;
    let first = asked_for(&bench.calls, 0..4000) - before;
    let second = asked_for(&bench.calls, 5000..5500);
    assert!(
        (180..=220).contains(&first) && (180..=220).contains(&second),
        "20/s for both, not {first} and {second} in 20 s"
    );
    let nodes = (
        asked_for(&bench.calls, 0..2000),
        asked_for(&bench.calls, 2000..4000),
    );
    assert!(
        nodes.0.abs_diff(nodes.1) <= 30,
        "two nodes of one pool: {nodes:?}"
    );
    assert!(bench.calls.all().len() <= 20 + 25 * 20 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_window_that_one_node_gives_up_is_used_by_another() {
    let bench = bench(|_| accepted());
    let windowed = |mut order: DrainOrder, terminating| {
        order.limits.max_terminating = 10;
        order.terminating = terminating;
        order
    };
    let waits = windowed(order(1, 100..200, &[]), 0);
    bench
        .tasks
        .update(POOL, vec![windowed(order(2, 0..0, &[]), 10), waits.clone()]);
    sleep(Duration::from_secs(3)).await;
    assert!(bench.calls.all().is_empty());
    let limited_by = bench.memories.snapshot(POOL)[&1].limited_by;
    assert_eq!(limited_by, Some(LimitedBy::TerminatingWindow));
    bench
        .tasks
        .update(POOL, vec![windowed(order(2, 0..0, &[]), 4), waits]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.calls.all().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_order_is_followed_at_once() {
    let bench = bench(|_| accepted());
    bench.tasks.update(POOL, vec![order(2, 0..1000, &[])]);
    sleep(Duration::from_secs(1)).await;
    bench.tasks.update(POOL, vec![order(2, 5000..6000, &[])]);
    let replaced = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let after: Vec<Call> = bench
        .calls
        .all()
        .into_iter()
        .filter(|c| c.at > replaced)
        .collect();
    assert!(!after.is_empty());
    assert!(after.iter().all(|c| c.uri.contains("web-5")), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_evicted() {
    let bench = bench(|_| accepted());
    bench.claim.revoke();
    bench.tasks.update(POOL, vec![order(2, 0..10, &[])]);
    sleep(Duration::from_secs(60)).await;
    assert!(bench.calls.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_blocked_budget_is_told_once_and_asked_rarely() {
    let bench = bench(|_| by_budget());
    let mut blocked = order(2, 0..200, &["web"]);
    blocked.budgets = budget(0);
    bench.tasks.update(POOL, vec![blocked]);
    sleep(Duration::from_secs(600)).await;
    let calls = bench.calls.all();
    assert!(
        (19..=24).contains(&calls.len()),
        "one probe each 25 to 30 s, not {} in 10 min",
        calls.len()
    );
    for call in &calls {
        let minute = call.at..call.at + Duration::from_secs(60);
        assert!(calls.iter().filter(|c| minute.contains(&c.at)).count() <= 4);
    }
    let memory = &bench.memories.snapshot(POOL)[&2];
    assert_eq!(memory.limited_by, Some(LimitedBy::Budget));
    let refusal = memory.refusals.values().next().unwrap();
    assert_eq!(
        (refusal.reason, refusal.object.as_str()),
        (BlockerReason::BlockedByBudget, "shop/web")
    );
}

#[tokio::test(start_paused = true)]
async fn a_freed_budget_is_used_within_2_s_and_the_refusal_goes() {
    let free = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let freed = Arc::clone(&free);
    let bench = bench(move |_| {
        if freed.load(Ordering::Relaxed) {
            accepted()
        } else {
            by_budget()
        }
    });
    let mut blocked = order(2, 0..20, &["web"]);
    blocked.budgets = budget(0);
    bench.tasks.update(POOL, vec![blocked.clone()]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.calls.all().len(), 1);
    assert!(bench.woken.load(Ordering::Relaxed) >= 1);
    free.store(true, Ordering::Relaxed);
    let mut open = blocked;
    open.budgets = budget(5);
    open.budgets[0].changed_at = bench.tasks.shared.clock.steady();
    bench.tasks.update(POOL, vec![open]);
    sleep(Duration::from_secs(2)).await;
    assert!(bench.calls.all().len() >= 3, "{}", bench.calls.all().len());
    assert!(bench.memories.snapshot(POOL)[&2].refusals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn flow_control_is_heard_in_its_header() {
    let bench = bench(|_| {
        (
            429,
            vec![("retry-after", "7")],
            "Too many requests, please try again later.\n".into(),
        )
    });
    bench.tasks.update(POOL, vec![order(2, 0..100, &[])]);
    sleep(Duration::from_secs(7)).await;
    let first = bench.calls.all();
    let begun = first[0].at;
    assert!(
        first.iter().all(|c| c.at <= begun + Duration::from_millis(150)),
        "{first:?}"
    );
    sleep(Duration::from_secs(2)).await;
    assert!(bench.calls.all().len() > first.len());
    let memory = &bench.memories.snapshot(POOL)[&2];
    assert!(
        memory
            .refusals
            .values()
            .all(|r| r.reason == BlockerReason::Throttled)
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_hammered() {
    let bench = bench(|_| failure(503, "apiserver is shutting down", json!({})));
    let mut all = order(2, 0..3000, &[]);
    all.limits.per_second = None;
    bench.tasks.update(POOL, vec![all]);
    sleep(Duration::from_secs(120)).await;
    let sent = bench.calls.all().len();
    assert!(sent <= 40 * 20, "{sent} requests in 2 min");
    assert!(bench.memories.snapshot(POOL)[&2].refusals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_what_is_under_way() {
    let bench = bench(|_| accepted());
    bench.tasks.update(POOL, vec![order(2, 0..10, &[])]);
    sleep(Duration::from_millis(20)).await;
    bench.tasks.stop().await;
    let text = bench.metrics.render().unwrap();
    assert!(text.contains("evictions_total{answer=\"accepted\"} 1"), "{text}");
}
