//! Which pod of an order goes next.

use jiff::Timestamp;
use vnp_crds::LimitedBy;

use super::gate::Verdict;
use super::{RETRY_TURN, SETTLED_FOR, State, Throttle, gate_of};
use crate::drain::order::{DrainLimits, DrainOrder, EvictionCandidate};

impl Throttle {
    /// The pod that goes next. With a `full` window only one that counts in it already, which can free its place.
    pub(super) fn pick(&self, pool: &str, order: &DrainOrder, full: bool, now: Timestamp) -> Pick {
        let retry_first = self.turn % RETRY_TURN == RETRY_TURN - 1;
        let mut fresh = None;
        let mut again: Option<(Timestamp, usize)> = None;
        let mut pick = Pick {
            index: None,
            until: None,
            held: None,
        };
        for (index, pod) in order.pods.iter().enumerate() {
            let asked = self.pods.get(&pod.uid);
            match asked.map(|a| (&a.state, a.at)) {
                Some((State::InFlight { .. }, _)) => continue,
                Some((State::Settled, at)) if now.duration_since(at) < SETTLED_FOR => continue,
                Some((State::Held(until), _)) if now < *until => {
                    pick.hold(Some(*until), LimitedBy::Nothing);
                    continue;
                }
                _ => {}
            }
            if let Some(until) = self
                .namespaces
                .get(&pod.pod.namespace)
                .filter(|until| now < **until)
            {
                pick.hold(Some(*until), LimitedBy::Nothing);
                continue;
            }
            if let Some(until) = self.sets.held_until(pool, pod, now) {
                pick.hold(Some(until), LimitedBy::Nothing);
                continue;
            }
            let verdict = self.verdict(pod, &order.limits, now);
            if full && !matches!(verdict, Verdict::Shut(_)) && !asked.is_some_and(|a| a.counts) {
                pick.hold(None, LimitedBy::TerminatingWindow);
                continue;
            }
            match (verdict, asked) {
                (Verdict::Shut(until), _) => pick.hold(until, LimitedBy::Budget),
                (Verdict::Open, None) => {
                    fresh = fresh.or(Some(index));
                    if !retry_first {
                        break;
                    }
                }
                // The one that was asked for longest ago: a probe goes round, since the server lets some pods of a
                // spent budget go and others not.
                (Verdict::Open | Verdict::Probe, _) => {
                    let at = asked.map_or(Timestamp::MIN, |a| a.at);
                    if again.is_none_or(|(known, _)| at < known) {
                        again = Some((at, index));
                    }
                }
            }
        }
        let again = again.map(|(_, index)| index);
        pick.index = if retry_first {
            again.or(fresh)
        } else {
            fresh.or(again)
        };
        pick
    }

    fn verdict(&self, pod: &EvictionCandidate, limits: &DrainLimits, now: Timestamp) -> Verdict {
        if pod.asked().is_empty() {
            return Verdict::Open;
        }
        let cap = limits.max_per_budget.max(1);
        if pod
            .asked()
            .iter()
            .any(|b| self.under.get(b).is_some_and(|count| *count >= cap))
        {
            return Verdict::Shut(None);
        }
        self.gates
            .get(pod.asked())
            .map_or_else(|| gate_of(pod, now).verdict(now), |gate| gate.verdict(now))
    }
}

/// What one look over an order found.
pub(super) struct Pick {
    pub(super) index: Option<usize>,
    pub(super) until: Option<Timestamp>,
    pub(super) held: Option<LimitedBy>,
}

impl Pick {
    /// A pod waits. Of several reasons the one to name is the one that can end soonest.
    fn hold(&mut self, until: Option<Timestamp>, by: LimitedBy) {
        self.until = match (self.until, until) {
            (Some(known), Some(until)) => Some(known.min(until)),
            (known, until) => known.or(until),
        };
        let rank = |by| match by {
            LimitedBy::TerminatingWindow => 2,
            LimitedBy::Budget => 1,
            _ => 0,
        };
        if self.held.is_none_or(|known| rank(known) < rank(by)) {
            self.held = Some(by);
        }
    }
}
