//! A provider that deletes at its own rate, and the rate of evictions that follows it.

use std::collections::VecDeque;

use super::*;

const TICK: i64 = 250;
const MINUTE: i64 = 60_000;

/// A pool of one node with pods without end, and the provider behind it.
struct Drain {
    throttle: Throttle,
    limits: DrainLimits,
    /// Deletions that the provider can do per second, by time in milliseconds.
    capacity: Box<dyn Fn(i64) -> f64>,
    /// Between eviction and deletionTimestamp, and how much of it the pods use.
    grace: i64,
    used: i64,
    /// One pod in so many hangs for good; 0 for none.
    stuck: usize,
    /// Names not offered yet.
    next: usize,
    /// Evicted pods: when.
    leaving: VecDeque<i64>,
    hanging: Vec<i64>,
    departed: u64,
    credit: f64,
    now: i64,
    sent: Vec<i64>,
    limited_by: Option<LimitedBy>,
}

impl Drain {
    fn new(per_second: Option<f64>, grace: i64, capacity: impl Fn(i64) -> f64 + 'static) -> Self {
        Self {
            throttle: Throttle::new(None, at(0)),
            limits: DrainLimits {
                per_second,
                burst: 100,
                max_terminating: u32::MAX,
                max_per_budget: 16,
            },
            capacity: Box::new(capacity),
            grace,
            used: 0,
            stuck: 0,
            next: 0,
            leaving: VecDeque::new(),
            hanging: Vec::new(),
            departed: 0,
            credit: 0.0,
            now: 0,
            sent: Vec::new(),
            limited_by: None,
        }
    }

    fn run(&mut self, until: i64) {
        let mut flying: Vec<String> = Vec::new();
        while self.now < until {
            for uid in std::mem::take(&mut flying) {
                self.throttle.answered(&uid, &Answer::Accepted, at(self.now));
            }
            self.depart();
            let mut order = order(
                (self.next..self.next + 48)
                    .map(|n| candidate(&n.to_string(), &[]))
                    .collect(),
                vec![],
            );
            order.limits = self.limits;
            let due = |t: &i64| *t + self.grace < self.now;
            let overdue = self.leaving.partition_point(due) + self.hanging.partition_point(due);
            order.overdue = u32::try_from(overdue).unwrap();
            order.terminating = u32::try_from(self.leaving.len() + self.hanging.len()).unwrap();
            order.departed = self.departed;
            self.throttle.begin(POOL, &order, at(self.now));
            loop {
                match self.throttle.next(POOL, &order, at(self.now)) {
                    Next::Evict(index) => {
                        self.throttle.sent(POOL, &order, index, at(self.now));
                        self.sent.push(self.now);
                        flying.push(order.pods[index].uid.clone());
                    }
                    Next::Wait { limited_by, .. } => break self.limited_by = Some(limited_by),
                    Next::Idle => break,
                }
            }
            for _ in &flying {
                self.next += 1;
                if self.stuck > 0 && self.next.is_multiple_of(self.stuck) {
                    self.hanging.push(self.now);
                } else {
                    self.leaving.push_back(self.now);
                }
            }
            self.now += TICK;
        }
    }

    fn depart(&mut self) {
        self.credit += (self.capacity)(self.now) * TICK as f64 / 1000.0;
        while self.credit >= 1.0 && self.leaving.front().is_some_and(|t| *t + self.used <= self.now) {
            self.leaving.pop_front();
            self.departed += 1;
            self.credit -= 1.0;
        }
        // An idle provider saves nothing.
        self.credit = self
            .credit
            .min(1.0_f64.max((self.capacity)(self.now) * TICK as f64 / 1000.0));
    }

    /// Evictions per second between two moments.
    fn rate(&self, from: i64, to: i64) -> f64 {
        let count = self.sent.iter().filter(|t| (from..to).contains(*t)).count();
        count as f64 * 1000.0 / (to - from) as f64
    }
}

#[test]
fn the_rate_follows_a_slow_provider_and_grows_again_step_by_step() {
    let capacity = |now| if now < 6 * MINUTE { 5.0 } else { 100.0 };
    let mut drain = Drain::new(Some(20.0), 30_000, capacity);
    drain.run(6 * MINUTE);
    let before = drain.rate(10_000, MINUTE);
    assert!((before - 20.0).abs() < 0.5, "{before}: a minute is waited for");
    for minute in 3..6 {
        let rate = drain.rate(minute * MINUTE, (minute + 1) * MINUTE);
        assert!(
            (3.5..=6.0).contains(&rate),
            "{rate}/s in minute {minute}, the provider does 5/s"
        );
    }
    assert_eq!(drain.limited_by, Some(LimitedBy::Rate));
    drain.run(10 * MINUTE);
    let first = drain.rate(6 * MINUTE, 6 * MINUTE + 20_000);
    assert!(first <= 12.0, "{first}/s at once");
    let last = drain.rate(9 * MINUTE, 10 * MINUTE);
    assert!((last - 20.0).abs() < 0.5, "{last}/s");
}

#[test]
fn without_a_rate_of_its_own_a_pool_follows_too() {
    let mut drain = Drain::new(None, 0, |_| 50.0);
    drain.run(5 * MINUTE);
    let rate = drain.rate(3 * MINUTE, 5 * MINUTE);
    assert!((35.0..=60.0).contains(&rate), "{rate}/s");
    assert_eq!(drain.limited_by, Some(LimitedBy::Rate));
}

#[test]
fn a_grace_period_that_is_used_up_is_not_slow() {
    for (grace, used) in [(0, 0), (30_000, 30_000), (30_000, 45_000), (600_000, 600_000)] {
        let mut drain = Drain::new(Some(20.0), grace, |_| 1_000.0);
        drain.used = used;
        drain.run(8 * MINUTE);
        for minute in 1..8 {
            let rate = drain.rate(minute * MINUTE, (minute + 1) * MINUTE);
            assert!(
                (rate - 20.0).abs() < 0.5,
                "{rate}/s in minute {minute} with grace {grace}, used {used}"
            );
        }
    }
}

#[test]
fn what_comes_due_late_is_waited_for_before_the_rate_grows() {
    // More leaves than the provider does until the first pods are overdue and a minute has passed, not after it.
    let most = |full: f64, grace: i64| full * (120.0 + grace as f64 / 1_000.0) * 0.3;
    for (grace, used) in [
        (0, 0),
        (7_000, 2_500),
        (35_000, 9_000),
        (60_000, 0),
        (60_000, 60_000),
    ] {
        let mut drain = Drain::new(Some(30.0), grace, |_| 13.0);
        drain.used = used;
        drain.run(30 * MINUTE);
        let queue = drain.leaving.len();
        assert!(
            (queue as f64) < most(30.0, grace),
            "{queue} pods wait with grace {grace}, {used} used"
        );
    }
}

#[test]
fn a_few_pods_that_hang_for_good_cost_nothing() {
    let mut drain = Drain::new(Some(20.0), 1_000, |_| 1_000.0);
    drain.stuck = 20;
    drain.run(8 * MINUTE);
    let rate = drain.rate(MINUTE, 8 * MINUTE);
    assert!((rate - 20.0).abs() < 0.5, "{rate}/s");
}

#[test]
fn a_provider_that_does_nothing_is_asked_little_but_not_nothing() {
    let capacity = |now| if now < 10 * MINUTE { 0.0 } else { 100.0 };
    let mut drain = Drain::new(Some(20.0), 5_000, capacity);
    drain.run(10 * MINUTE);
    for minute in 3..10 {
        let rate = drain.rate(minute * MINUTE, (minute + 1) * MINUTE);
        assert!((0.2..=0.5).contains(&rate), "{rate}/s in minute {minute}");
    }
    drain.run(17 * MINUTE);
    let rate = drain.rate(16 * MINUTE, 17 * MINUTE);
    assert!((rate - 20.0).abs() < 0.5, "{rate}/s");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_rate_is_between_nothing_and_its_limit_and_ends_near_the_providers(
        full in 2u32..30,
        capacity in 0u32..40,
        grace in 0i64..60_000,
        share in 0u32..=100,
        stuck in prop::sample::select(vec![0usize, 15, 40]),
    ) {
        let (full, capacity) = (f64::from(full), f64::from(capacity));
        let mut drain = Drain::new(Some(full), grace, move |_| capacity);
        drain.used = grace * i64::from(share) / 100;
        drain.stuck = stuck;
        drain.run(20 * MINUTE);
        for (i, from) in drain.sent.iter().enumerate().step_by(7) {
            for (j, to) in drain.sent.iter().enumerate().skip(i).step_by(13) {
                let most = 100.0 + (to - from) as f64 / 1000.0 * full + 0.01;
                prop_assert!((j - i + 1) as f64 <= most, "{} evictions in {} ms", j - i + 1, to - from);
            }
        }
        for minute in 0..20 {
            prop_assert!(drain.rate(minute * MINUTE, (minute + 1) * MINUTE) > 0.1, "stalls in minute {}", minute);
        }
        let rate = drain.rate(5 * MINUTE, 20 * MINUTE);
        // Pods that hang are evicted as well, and take nothing of what the provider can do.
        let capacity = if stuck > 0 { capacity * stuck as f64 / (stuck - 1) as f64 } else { capacity };
        let most = (capacity * 1.15 + 0.6).min(full + 0.1);
        prop_assert!(rate <= most, "{rate}/s, the provider does {capacity}/s");
        let least = if capacity > full * 1.2 { full * 0.95 } else { capacity.min(full) * 0.6 };
        prop_assert!(rate >= least, "{rate}/s, the provider does {capacity}/s of {full}/s");
    }
}
