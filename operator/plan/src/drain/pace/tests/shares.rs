//! Who gets how much of what is shared: several lanes that wake up as those of the operator do, the first one always
//! first.

use super::*;

const STEP: i64 = 5;

/// One node's task.
struct Lane {
    pool: String,
    order: DrainOrder,
    wake: i64,
    sent: Vec<i64>,
}

fn lane(pool: usize, node: usize, pods: usize, per_second: Option<u32>) -> Lane {
    let pods = (0..pods).map(|n| candidate(&format!("{pool}-{node}-{n}"), &[]));
    let mut order = order(pods.collect(), vec![]);
    order.node = format!("vn-{pool}-{node}");
    order.limits = DrainLimits {
        per_second: per_second.map(f64::from),
        // Little enough to be gone when the measuring begins.
        burst: 2,
        max_terminating: 100_000,
        max_per_budget: 16,
    };
    Lane {
        pool: format!("pool-{pool}"),
        order,
        wake: 0,
        sent: Vec::new(),
    }
}

/// Runs the lanes from `from` to `to`, in milliseconds; each eviction is accepted after `latency`.
fn run(throttle: &mut Throttle, lanes: &mut [Lane], (from, to): (i64, i64), latency: i64) {
    let mut flying: Vec<(i64, String)> = Vec::new();
    for lane in lanes.iter_mut() {
        throttle.begin(&lane.pool, &lane.order, at(from));
        lane.wake = from;
    }
    for now in (from..to).step_by(usize::try_from(STEP).unwrap()) {
        let before = flying.len();
        flying.retain(|(due, uid)| {
            if *due <= now {
                throttle.answered(uid, &Answer::Accepted, at(now));
            }
            *due > now
        });
        let freed = flying.len() < before;
        for lane in lanes.iter_mut().filter(|l| freed || l.wake <= now) {
            loop {
                match throttle.next(&lane.pool, &lane.order, at(now)) {
                    Next::Evict(index) => {
                        throttle.sent(&lane.pool, &lane.order, index, at(now));
                        lane.sent.push(now);
                        // A pod that is being deleted is not offered any more.
                        let pod = lane.order.pods.swap_remove(index);
                        flying.push((now + latency, pod.uid));
                    }
                    Next::Wait { until, .. } => {
                        lane.wake =
                            until.map_or(i64::MAX, |u| u.as_millisecond() - at(0).as_millisecond() + 1);
                        break;
                    }
                    Next::Idle => {
                        lane.wake = i64::MAX;
                        break;
                    }
                }
            }
        }
    }
    for (_, uid) in flying {
        throttle.answered(&uid, &Answer::Accepted, at(to));
    }
}

fn sent(lane: &Lane, from: i64, to: i64) -> f64 {
    lane.sent.iter().filter(|t| (from..to).contains(*t)).count() as f64
}

/// Max-min fair shares of `cap`: everybody gets the same, and what one does not want is split among the others.
fn fair(cap: f64, wants: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by(|a, b| wants[*a].total_cmp(&wants[*b]));
    let mut left = cap;
    let mut shares = vec![0.0; wants.len()];
    for (position, index) in order.iter().enumerate() {
        let equal = left / (wants.len() - position) as f64;
        shares[*index] = wants[*index].min(equal);
        left -= shares[*index];
    }
    shares
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn pools_share_the_cap_whatever_their_size(
        pools in prop::collection::vec((prop::option::of(1u32..30), 800usize..1_600), 2..5),
        cap in 4u32..40,
        latency in 20i64..200,
    ) {
        let mut throttle = Throttle::new(Some(f64::from(cap)), at(0));
        let mut lanes: Vec<Lane> = pools
            .iter()
            .enumerate()
            .map(|(n, (per_second, pods))| lane(n, 0, *pods, *per_second))
            .collect();
        run(&mut throttle, &mut lanes, (0, 20_000), latency);
        let wants: Vec<f64> = pools.iter().map(|(rate, _)| rate.map_or(1e9, f64::from)).collect();
        let shares = fair(f64::from(cap), &wants);
        for (lane, share) in lanes.iter().zip(shares) {
            let got = sent(lane, 4_000, 20_000) / 16.0;
            prop_assert!((got - share).abs() <= 0.1 * share + 0.2, "{}: {got}/s, fair is {share}/s", lane.pool);
        }
    }

    #[test]
    fn the_nodes_of_a_pool_share_its_rate(
        nodes in prop::collection::vec(500usize..900, 2..4),
        per_second in 4u32..40,
        latency in 20i64..200,
    ) {
        let mut throttle = Throttle::new(None, at(0));
        let mut lanes: Vec<Lane> = nodes.iter().enumerate().map(|(n, pods)| lane(0, n, *pods, Some(per_second))).collect();
        run(&mut throttle, &mut lanes, (0, 20_000), latency);
        let share = f64::from(per_second) / nodes.len() as f64;
        for lane in &lanes {
            let got = sent(lane, 4_000, 20_000) / 16.0;
            prop_assert!((got - share).abs() <= 0.1 * share + 0.2, "{}: {got}/s, fair is {share}/s", lane.order.node);
        }
    }
}

#[test]
fn unlimited_pools_share_the_places_in_flight() {
    let mut throttle = Throttle::new(None, at(0));
    let mut first = [lane(0, 0, 3_000, None)];
    run(&mut throttle, &mut first, (0, 1_000), 100);
    let [first] = first;
    // All places are taken by the first one when the second one comes.
    let mut lanes = [first, lane(1, 0, 3_000, None)];
    run(&mut throttle, &mut lanes, (1_000, 6_000), 100);
    let [first, second] = lanes.each_ref().map(|l| sent(l, 2_000, 6_000));
    assert!((first / second - 1.0).abs() < 0.1, "{first} and {second}");
}

#[test]
fn a_pool_of_two_nodes_gets_no_more_than_one_of_one_node() {
    let mut throttle = Throttle::new(Some(20.0), at(0));
    let mut lanes = [
        lane(0, 0, 700, None),
        lane(0, 1, 700, None),
        lane(1, 0, 700, None),
    ];
    run(&mut throttle, &mut lanes, (0, 25_000), 100);
    let [a, b, other] = lanes.each_ref().map(|l| sent(l, 5_000, 25_000) / 20.0);
    assert!(
        (a - 5.0).abs() < 0.7 && (b - 5.0).abs() < 0.7 && (other - 10.0).abs() < 1.0,
        "{a} {b} {other}"
    );
}

#[test]
fn what_a_pool_that_is_done_leaves_goes_to_the_others() {
    let mut throttle = Throttle::new(Some(20.0), at(0));
    let mut lanes = [lane(0, 0, 1_000, None), lane(1, 0, 100, None)];
    run(&mut throttle, &mut lanes, (0, 30_000), 100);
    assert_eq!(lanes[1].sent.len(), 100);
    let done = *lanes[1].sent.last().unwrap();
    assert!(
        done < 12_000,
        "a small drain waits for the end of a large one: {done} ms"
    );
    let rest = sent(&lanes[0], 15_000, 30_000) / 15.0;
    assert!((rest - 20.0).abs() < 1.0, "{rest}/s");
}

#[test]
fn one_that_stops_asking_holds_up_nobody() {
    let mut throttle = Throttle::new(Some(20.0), at(0));
    let mut lanes = [lane(0, 0, 1_000, None), lane(1, 0, 1_000, None)];
    run(&mut throttle, &mut lanes, (0, 5_000), 100);
    let [first, _silent] = lanes;
    let mut alone = [first];
    run(&mut throttle, &mut alone, (5_000, 15_000), 100);
    let got = sent(&alone[0], 7_000, 15_000) / 8.0;
    assert!((got - 20.0).abs() < 1.0, "{got}/s");
}

#[test]
fn the_nodes_of_a_pool_share_its_window() {
    let mut throttle = Throttle::new(None, at(0));
    let mut lanes = [lane(0, 0, 500, None), lane(0, 1, 500, None)];
    for lane in &mut lanes {
        lane.order.limits.max_terminating = 20;
    }
    run(&mut throttle, &mut lanes, (0, 1_000), 100);
    // Twenty are gone each second; the orders say so.
    for second in 1..20 {
        let before: usize = lanes.iter().map(|l| l.sent.len()).sum();
        run(
            &mut throttle,
            &mut lanes,
            (second * 1_000, second * 1_000 + 1_000),
            100,
        );
        let after: usize = lanes.iter().map(|l| l.sent.len()).sum();
        assert_eq!(after - before, 20);
    }
    let [first, second] = lanes.each_ref().map(|l| sent(l, 1_000, 20_000));
    assert!((first / second - 1.0).abs() < 0.15, "{first} and {second}");
}
