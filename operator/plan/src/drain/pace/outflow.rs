//! How fast the pods of a pool disappear, against how fast they are due. The API server accepts evictions at any rate;
//! the provider deletes instances at its own. Where it falls behind for a minute, asking for more only lengthens its
//! queue, so the rate follows it, and grows again step by step when it keeps up.
//!
//! A pod is due at its deletionTimestamp: one that uses its grace period up is not slow. What tells is growth: a
//! provider that is late by a constant time, or a few pods that hang for good, cost nothing.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::drain::order::DrainOrder;

/// Length of one look.
const LOOK: SignedDuration = SignedDuration::from_secs(20);
/// Looks in a row that must show the same before the rate follows: a minute.
const LOOKS: usize = 3;
/// Without orders for so long, what was seen before says nothing any more.
const FORGET: SignedDuration = SignedDuration::from_secs(60);
/// Pods more that are overdue after one look than before it, at least, and as a share of those that came due.
const GROWTH: (u64, f64) = (3, 0.1);
/// The rate goes below that of the disappearances, so that the queue is worked off.
const BELOW: f64 = 0.8;
/// What the rate gains with each look that finds the provider in step.
const GAIN: f64 = 1.25;
/// The same while more disappears than is evicted.
const QUICK_GAIN: f64 = 2.0;
/// Evictions per second below which it never goes: without any, nobody would see that it works again.
const LEAST: f64 = 0.25;
/// Evictions per second that count as no limit: more than fit into what may be in flight.
const ANY: f64 = 400.0;

/// The outflow of one pool.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    nodes: HashMap<String, Seen>,
    begun: Option<Timestamp>,
    /// The look that is under way.
    present: Look,
    past: VecDeque<Look>,
    limit: Option<f64>,
    /// When the limit became what it is.
    since: Option<Timestamp>,
}

/// What the newest order of a node said.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Being deleted, and not due yet.
    pending: u32,
    overdue: u32,
    departed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Look {
    seconds: f64,
    departed: u64,
    /// Growth of the number of overdue pods.
    growth: i64,
}

impl Look {
    /// Fewer disappeared than were due.
    fn behind(&self) -> bool {
        let growth = u64::try_from(self.growth).unwrap_or(0);
        let due = growth.saturating_add(self.departed);
        growth >= GROWTH.0 && growth as f64 > GROWTH.1 * due as f64
    }

    fn rate(&self) -> f64 {
        self.departed as f64 / self.seconds.max(1.0)
    }
}

impl Outflow {
    /// Takes over what an order says. `full`: evictions per second without this limit, `None` for pace Unlimited. True
    /// when the limit was set or lowered.
    pub(super) fn see(&mut self, order: &DrainOrder, full: Option<f64>, now: Timestamp) -> bool {
        let lowered = self.look(full, now);
        let seen = Seen {
            pending: order.terminating.saturating_sub(order.overdue),
            overdue: order.overdue,
            departed: order.departed,
        };
        // The first order of a node says where it stands, not what changed.
        if let Some(before) = self.nodes.insert(order.node.clone(), seen) {
            self.present.growth += i64::from(seen.overdue) - i64::from(before.overdue);
            self.present.departed += seen.departed.saturating_sub(before.departed);
        }
        lowered
    }

    /// The node has no order any more.
    pub(super) fn leave(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// Evictions per second at most.
    pub(super) fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// Ends the look under way when its time is over, and draws the conclusion.
    fn look(&mut self, full: Option<f64>, now: Timestamp) -> bool {
        let before = self.limit;
        let lowered = self.conclude(full, now);
        if self.limit != before {
            self.since = Some(now);
        }
        lowered
    }

    fn conclude(&mut self, full: Option<f64>, now: Timestamp) -> bool {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.duration_since(begun);
        if passed < LOOK {
            return false;
        }
        self.begun = Some(now);
        let mut look = std::mem::take(&mut self.present);
        if passed >= FORGET {
            // Nobody looked: nothing is known of the time between, but that it passed.
            self.past.clear();
            self.grow(GAIN.powf(passed.as_secs_f64() / LOOK.as_secs_f64()), full);
            return false;
        }
        look.seconds = passed.as_secs_f64();
        self.past.push_back(look);
        if self.past.len() > LOOKS {
            self.past.pop_front();
        }
        let all = self.past.len() == LOOKS && self.past.iter().all(Look::behind);
        if look.behind() && (all || self.limit.is_some()) {
            return self.follow(full);
        }
        if let Some(limit) = self.limit
            && self.works_off_a_queue(&look)
        {
            // What disappears now is all that the provider can do.
            self.limit = Some(limit.max((BELOW * look.rate()).min(limit * QUICK_GAIN)));
            return false;
        }
        if self.shows(now) {
            // What has disappeared in time is no risk; more than that is tried step by step.
            let limit = self.limit.unwrap_or(ANY);
            self.grow((look.rate() / limit).clamp(GAIN, QUICK_GAIN), full);
        }
        false
    }

    /// More is overdue than disappears in one look, and it becomes less or does not move at all. Pods that hang for good
    /// are no queue: their number stays while others disappear.
    fn works_off_a_queue(&self, look: &Look) -> bool {
        let overdue: u64 = self.nodes.values().map(|n| u64::from(n.overdue)).sum();
        overdue > look.departed && (look.growth < 0 || look.departed == 0)
    }

    /// What was evicted since the limit is what it is has come due: only from then on does a look show what it does.
    fn shows(&self, now: Timestamp) -> bool {
        let (Some(limit), Some(since)) = (self.limit, self.since) else {
            return true;
        };
        let pending: u32 = self
            .nodes
            .values()
            .fold(0, |sum, n| sum.saturating_add(n.pending));
        f64::from(pending) <= limit * now.duration_since(since).as_secs_f64()
    }

    fn follow(&mut self, full: Option<f64>) -> bool {
        let seconds: f64 = self.past.iter().map(|l| l.seconds).sum();
        let departed: u64 = self.past.iter().map(|l| l.departed).sum();
        let rate = (BELOW * departed as f64 / seconds.max(1.0)).max(LEAST);
        let before = self.limit.or(full).unwrap_or(ANY);
        self.limit = Some(rate.min(before));
        rate < before
    }

    fn grow(&mut self, gain: f64, full: Option<f64>) {
        self.limit = self
            .limit
            .map(|limit| limit * gain)
            .filter(|limit| *limit < full.unwrap_or(ANY));
    }
}
