//! When the next eviction may be sent, and which. There is one API server, one cloud account and one set of budgets, so
//! there is one [`Throttle`] for all draining nodes of all pools. It holds nothing that a decision rests on: what may be
//! evicted is in the [`DrainOrder`]; the throttle only says "later".

mod bucket;
mod flow;
mod gate;
mod hold;
mod jitter;
mod next;
mod outflow;
mod pick;
mod sets;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use vnp_crds::LimitedBy;

use self::bucket::{Bucket, Rate};
use self::flow::Flow;
use self::gate::{Gate, Verdict};
use self::hold::{held_until, namespace_hold};
use self::outflow::Outflow;
use self::sets::LastTurns;
use self::turn::Turns;
use super::answer::Answer;
use super::order::{DrainOrder, EvictionCandidate};
use crate::observed::ObjectKey;

/// Evictions in flight in all. One takes about 100 ms on a real server whatever it does, and thousands at a time make
/// it answer 429 to everybody (both measured).
pub const MAX_IN_FLIGHT: u32 = 40;
/// An accepted pod that is still offered after this long is asked for again: the watch may be slow, not that slow.
const SETTLED_FOR: SignedDuration = SignedDuration::from_secs(30);
/// State of nodes and budgets that nothing needs any more is kept for so long, so that an order that comes back soon
/// finds what was learned.
const KEPT_FOR: SignedDuration = SignedDuration::from_mins(10);
/// Every so many choices a pod or budget that was refused before goes first, so that neither the fresh pods nor the
/// refused ones wait for the end of the others.
const RETRY_TURN: u32 = 4;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Evict the pod at this index of the order.
    Evict(usize),
    /// Nothing now; look again at `until`, or when an answer, another order or a freed place comes.
    Wait {
        /// `None`: only an answer or another order changes it.
        until: Option<Timestamp>,
        /// What holds it back.
        limited_by: LimitedBy,
    },
    /// Everything in the order was sent.
    Idle,
}

/// Paces all evictions of the process.
#[derive(Debug)]
pub struct Throttle {
    /// All pools' cap.
    cap: Option<Rate>,
    cap_bucket: Bucket,
    flow: Flow,
    in_flight: u32,
    pools: HashMap<String, Pool>,
    /// Of the pools at what they share.
    turns: Turns,
    pods: HashMap<String, Asked>,
    gates: HashMap<Vec<ObjectKey>, Gate>,
    /// In flight under each budget, pods of several budgets included.
    under: HashMap<ObjectKey, u32>,
    namespaces: HashMap<String, Timestamp>,
    sets: LastTurns,
    turn: u32,
}

/// One pool: its bucket and its window.
#[derive(Debug)]
struct Pool {
    bucket: Bucket,
    outflow: Outflow,
    /// Of its nodes.
    turns: Turns,
    /// Pods being deleted already, by node under order.
    nodes: HashMap<String, u32>,
    in_flight: u32,
    /// Pods that count in the window besides those.
    leaving: u32,
    used_at: Timestamp,
}

/// What a pod's last eviction came to.
#[derive(Debug)]
struct Asked {
    pool: String,
    node: String,
    at: Timestamp,
    tries: u32,
    /// It counts in the window: it is being deleted, or may be.
    counts: bool,
    /// It was to be deleted by force.
    forced: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    InFlight {
        probe: bool,
        pod: EvictionCandidate,
        cap: u32,
    },
    /// Accepted, gone, or another pod has its name.
    Settled,
    /// Not before that.
    Held(Timestamp),
}

impl Throttle {
    /// A throttle with the cap of all pools together, in evictions per second.
    pub fn new(cap: Option<f64>, now: Timestamp) -> Self {
        let cap = cap.filter(|c| *c > 0.0).map(|c| Rate {
            per_second: c,
            burst: c.max(1.0),
        });
        Self {
            cap,
            cap_bucket: Bucket::new(cap.map_or(0.0, |c| c.burst), now),
            flow: Flow::default(),
            in_flight: 0,
            pools: HashMap::new(),
            turns: Turns::default(),
            pods: HashMap::new(),
            gates: HashMap::new(),
            under: HashMap::new(),
            namespaces: HashMap::new(),
            sets: LastTurns::default(),
            turn: 0,
        }
    }

    /// An order is in force from now on, in place of the node's order before. A new pool begins with a full burst but
    /// for the pods that are being deleted already: after a restart those were its burst.
    pub fn begin(&mut self, pool: &str, order: &DrainOrder, now: Timestamp) {
        self.forget_old(now);
        let burst = f64::from(order.limits.burst.saturating_sub(order.terminating).max(1));
        let state = self.pools.entry(pool.to_owned()).or_insert_with(|| Pool {
            bucket: Bucket::new(burst, now),
            outflow: Outflow::default(),
            turns: Turns::default(),
            nodes: HashMap::new(),
            in_flight: 0,
            leaving: 0,
            used_at: now,
        });
        state.used_at = now;
        state.nodes.insert(order.node.clone(), order.terminating);
        if state.outflow.see(order, order.limits.per_second, now) {
            state.bucket.forgo_burst(now);
        }
        for budget in &order.budgets {
            let gate = self.gates.entry(vec![budget.key.clone()]);
            gate.or_insert_with(|| Gate::new(budget.key.to_string(), false, now))
                .observe(budget, now);
        }
        // What came of an eviction says nothing about a forced deletion, nor the other way round.
        let offered: HashSet<(&str, bool)> = order
            .pods
            .iter()
            .map(|p| (p.uid.as_str(), p.force.is_some()))
            .collect();
        self.leave(|uid, asked| {
            let same_node = asked.node == order.node && asked.pool == pool;
            (same_node && !offered.contains(&(uid, asked.forced)))
                .then(|| offered.contains(&(uid, !asked.forced)))
        });
    }

    /// The node has no order any more: nothing is sent for it from now on, and what left it fills no window. The refused
    /// pods keep their place in the round: each edit of the pool takes its orders back for a moment.
    pub fn withdraw(&mut self, pool: &str, node: &str) {
        self.turns.done(pool, node);
        if let Some(state) = self.pools.get_mut(pool) {
            state.nodes.remove(node);
            state.outflow.leave(node);
            state.turns.keep(|other| other != node);
        }
        self.leave(|_, asked| (asked.pool == pool && asked.node == node).then_some(false));
    }

    /// For pods of which `which` says something: true forgets them, false leaves the refused ones their place in the round
    /// and nothing else.
    fn leave(&mut self, which: impl Fn(&str, &Asked) -> Option<bool>) {
        self.forget_pods(|uid, asked| {
            which(uid, asked).is_some_and(|wholly| wholly || !matches!(asked.state, State::Held(_)))
        });
        for (uid, asked) in &mut self.pods {
            if let State::Held(_) = asked.state
                && which(uid, asked).is_some()
            {
                if let Some(pool) = self.pools.get_mut(&asked.pool).filter(|_| asked.counts) {
                    pool.leaving = pool.leaving.saturating_sub(1);
                }
                asked.counts = false;
                asked.tries = 0;
                asked.state = State::Held(asked.at);
            }
        }
    }

    fn forget_pods(&mut self, which: impl Fn(&str, &Asked) -> bool) {
        let pools = &mut self.pools;
        self.pods.retain(|uid, asked| {
            if matches!(asked.state, State::InFlight { .. }) || !which(uid, asked) {
                return true;
            }
            if let Some(pool) = pools.get_mut(&asked.pool).filter(|_| asked.counts) {
                pool.leaving = pool.leaving.saturating_sub(1);
            }
            false
        });
    }

    fn forget_old(&mut self, now: Timestamp) {
        let then = now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN);
        self.gates.retain(|_, gate| !gate.idle_since(then));
        self.namespaces.retain(|_, until| now < *until);
        self.sets.forget_before(then);
        self.forget_pods(|_, asked| asked.at < then);
        self.pools.retain(|_, pool| {
            pool.used_at >= then || !pool.nodes.is_empty() || pool.leaving + pool.in_flight > 0
        });
        self.turns.keep(|pool| self.pools.contains_key(pool));
    }

    /// The eviction that [`Throttle::next`] named is on its way.
    pub fn sent(&mut self, pool: &str, order: &DrainOrder, index: usize, now: Timestamp) {
        let (Some(pod), Some(state)) = (order.pods.get(index), self.pools.get_mut(pool)) else {
            return;
        };
        if let Some(rate) = state.rate(&order.limits, self.flow.share(now)) {
            state.bucket.take(rate, now);
        }
        state.turns.took(&order.node);
        self.turns.took(pool);
        self.sets.sent(pool, pod, now);
        if let Some(cap) = self.cap {
            self.cap_bucket.take(cap, now);
        }
        self.turn = self.turn.wrapping_add(1);
        self.in_flight += 1;
        state.in_flight += 1;
        state.used_at = now;
        let known = self.pods.remove(&pod.uid);
        if !known.as_ref().is_some_and(|k| k.counts) {
            state.leaving += 1;
        }
        let mut probe = false;
        if !pod.asked().is_empty() {
            let gate = self
                .gates
                .entry(pod.asked().to_vec())
                .or_insert_with(|| gate_of(pod, now));
            probe = gate.verdict(now) == Verdict::Probe;
            gate.sent(now);
        }
        for budget in pod.asked() {
            *self.under.entry(budget.clone()).or_default() += 1;
        }
        let cap = order.limits.max_per_budget;
        self.pods.insert(
            pod.uid.clone(),
            Asked {
                pool: pool.to_owned(),
                node: order.node.clone(),
                at: now,
                tries: known.map_or(0, |k| k.tries),
                counts: true,
                forced: pod.force.is_some(),
                state: State::InFlight {
                    probe,
                    pod: pod.clone(),
                    cap,
                },
            },
        );
    }

    /// The answer to an eviction that was sent.
    pub fn answered(&mut self, uid: &str, answer: &Answer, now: Timestamp) {
        let Some(asked) = self.pods.get_mut(uid) else {
            return;
        };
        let State::InFlight { probe, pod, cap } = &asked.state else {
            return;
        };
        let sent_at = asked.at;
        self.in_flight = self.in_flight.saturating_sub(1);
        for budget in pod.asked() {
            if let Some(count) = self.under.get_mut(budget) {
                *count = count.saturating_sub(1);
            }
        }
        self.under.retain(|_, count| *count > 0);
        let gate = self.gates.get_mut(pod.asked());
        let gated = gate.is_some();
        if let Some(gate) = gate {
            gate.answered(answer, sent_at, *probe, *cap, now);
        }
        match answer {
            Answer::FlowControl { retry_after } => {
                if let Some(until) = self.flow.overloaded(sent_at, *retry_after, now) {
                    self.pools.values_mut().for_each(|p| p.bucket.forgo_burst(until));
                }
            }
            Answer::Unknown { .. } => self.flow.silent(sent_at, now),
            _ => self.flow.answered(),
        }
        if let Some(until) = namespace_hold(answer, &pod.pod.namespace, now) {
            self.namespaces.insert(pod.pod.namespace.clone(), until);
        }
        if !matches!(answer, Answer::Accepted | Answer::Unknown { .. }) {
            self.sets.stays(pod);
        }
        asked.state = match answer {
            Answer::Accepted | Answer::Gone | Answer::OtherUid => State::Settled,
            _ => State::Held(held_until(
                answer,
                uid,
                asked.tries,
                gated,
                pod.asked().len(),
                now,
            )),
        };
        let ordered = self
            .pools
            .get(&asked.pool)
            .is_some_and(|p| p.nodes.contains_key(&asked.node));
        asked.counts = ordered && matches!(answer, Answer::Accepted | Answer::Unknown { .. });
        asked.tries = asked.tries.saturating_add(1);
        asked.at = now;
        if let Some(pool) = self.pools.get_mut(&asked.pool) {
            pool.in_flight = pool.in_flight.saturating_sub(1);
            if !asked.counts {
                pool.leaving = pool.leaving.saturating_sub(1);
            }
        }
    }
}

fn gate_of(pod: &EvictionCandidate, now: Timestamp) -> Gate {
    let names: Vec<String> = pod.asked().iter().map(ToString::to_string).collect();
    Gate::new(names.join(","), pod.asked().len() > 1, now)
}
