//! Whether an eviction may go now: what there is for the node's pool, what there is for all pools, whose turn it is.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::LimitedBy;

use super::bucket::Rate;
use super::{MAX_IN_FLIGHT, Next, Pool, Throttle};
use crate::drain::order::{DrainLimits, DrainOrder};

/// Fewest in flight that a rate is given.
const FEW: f64 = 4.0;
/// Seconds that one eviction may take before the rate is no longer reached.
const EVICTION_SECONDS: f64 = 0.5;
/// When one whose turn it is not looks again, should the other not take its turn.
const YIELD: SignedDuration = SignedDuration::from_millis(25);

/// What is missing for an eviction.
struct Lack {
    /// It is shared with the other pools, and not only with the other nodes of the pool.
    shared: bool,
    until: Option<Timestamp>,
    by: LimitedBy,
}

impl Throttle {
    /// What may be sent now of an order that [`Throttle::begin`] was told of. A node that has to wait is remembered as
    /// waiting, so that it gets its share.
    pub fn next(&mut self, pool: &str, order: &DrainOrder, now: Timestamp) -> Next {
        self.turns.done(pool, &order.node);
        let Some(state) = self.pools.get_mut(pool) else {
            return Next::Idle;
        };
        state.turns.done(&order.node, &order.node);
        if !state.nodes.contains_key(&order.node) {
            return Next::Idle;
        }
        let full = state.window() >= order.limits.max_terminating;
        let picked = self.pick(pool, order, full, now);
        let Some(state) = self.pools.get(pool) else {
            return Next::Idle;
        };
        let lack = match (picked.index, picked.held) {
            (Some(index), _) => match self.lack(pool, state, order, now) {
                None => return Next::Evict(index),
                Some(lack) => lack,
            },
            (None, Some(by)) => {
                if by == LimitedBy::TerminatingWindow
                    && let Some(state) = self.pools.get_mut(pool)
                {
                    state.turns.wait(&order.node, &order.node, None, by, now);
                }
                return Next::Wait {
                    until: picked.until,
                    limited_by: by,
                };
            }
            (None, None) => return Next::Idle,
        };
        self.wait(pool, &order.node, &lack, now);
        Next::Wait {
            until: lack.until,
            limited_by: lack.by,
        }
    }

    fn wait(&mut self, pool: &str, node: &str, lack: &Lack, now: Timestamp) {
        if lack.shared {
            self.turns.wait(pool, node, lack.until, lack.by, now);
        }
        if let Some(state) = self.pools.get_mut(pool) {
            state.turns.wait(node, node, lack.until, lack.by, now);
        }
    }

    fn lack(&self, pool: &str, state: &Pool, order: &DrainOrder, now: Timestamp) -> Option<Lack> {
        let limits = &order.limits;
        let share = self.flow.share(now);
        let rate = state.rate(limits, share);
        let of_pool = |until, by| Lack {
            shared: false,
            until,
            by,
        };
        let of_all = |until, by| Lack {
            shared: true,
            until,
            by,
        };
        let by_rate = if rate.is_some() {
            LimitedBy::Rate
        } else {
            LimitedBy::Nothing
        };
        if let Some(until) = self.flow.paused_until(now) {
            return Some(of_all(Some(until), LimitedBy::Rate));
        }
        if f64::from(state.in_flight) >= state.side_by_side(limits) {
            return Some(of_pool(None, by_rate));
        }
        if let Some(until) = rate.and_then(|rate| state.bucket.empty_until(rate, now)) {
            return Some(of_pool(Some(until), LimitedBy::Rate));
        }
        let look_again = || now.checked_add(YIELD).ok();
        if let Some(by) = state.turns.yields(&order.node, now) {
            return Some(of_pool(look_again(), by));
        }
        if f64::from(self.in_flight) >= (f64::from(MAX_IN_FLIGHT) * share).max(1.0) {
            return Some(of_all(None, by_rate));
        }
        if let Some(until) = self.cap.and_then(|cap| self.cap_bucket.empty_until(cap, now)) {
            return Some(of_all(Some(until), LimitedBy::Rate));
        }
        let by = self.turns.yields(pool, now)?;
        Some(of_all(look_again(), by))
    }
}

impl Pool {
    /// Pods that are being deleted, or may be.
    pub(super) fn window(&self) -> u32 {
        self.nodes
            .values()
            .fold(self.leaving, |sum, n| sum.saturating_add(*n))
    }

    /// What its bucket lets through now; `None` for pace Unlimited while its pods disappear in time. `share`: how much of
    /// the rate the API server bears.
    pub(super) fn rate(&self, limits: &DrainLimits, share: f64) -> Option<Rate> {
        let burst = f64::from(limits.burst.max(1));
        let Some(slow) = self.outflow.limit() else {
            return limits.per_second.map(|per_second| Rate {
                per_second: per_second * share,
                burst,
            });
        };
        Some(Rate {
            per_second: limits.per_second.map_or(slow, |full| full.min(slow)) * share,
            burst: slow.clamp(1.0, burst),
        })
    }

    /// How many may be in flight, so that the rate is reached and not more.
    fn side_by_side(&self, limits: &DrainLimits) -> f64 {
        let all = f64::from(MAX_IN_FLIGHT);
        self.rate(limits, 1.0).map_or(all, |rate| {
            (rate.per_second * EVICTION_SECONDS).ceil().clamp(FEW, all)
        })
    }
}
