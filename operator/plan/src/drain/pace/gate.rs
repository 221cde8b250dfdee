//! What may go through under one PodDisruptionBudget, or under one set of budgets that select the same pods.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::jitter::between;
use crate::drain::answer::Answer;
use crate::observed::Budget;

/// Evictions that are tried side by side under a budget nobody asked yet; each one accepted adds one.
const START: u32 = 2;
/// Refusals under one budget in any minute.
const REFUSALS: usize = 4;
const MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// When our own count says that the budget is used up and the watch reports no change for so long, the count was wrong
/// (the server does not charge pods that are not ready).
const RECOUNT: SignedDuration = SignedDuration::from_secs(2);
/// Wait after [`Answer::BudgetMapFull`]: the disruption controller confirms in the meantime.
const MAP_FULL: SignedDuration = SignedDuration::from_secs(10);

/// Whether an eviction may be sent under a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The budget is believed to allow it.
    Open,
    /// It is believed not to, and it is time to ask again with one pod.
    Probe,
    /// Not now: at that time, or when an answer or a change of the budget comes.
    Shut(Option<Timestamp>),
}

/// The state of one gate.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// For jitter.
    name: String,
    /// More than one budget: the server evicts such pods under none, so that only probes go through.
    several: bool,
    /// What the watch says: allowed disruptions (0 while the controller has not looked at the budget) and since when.
    seen: Option<(u32, Timestamp)>,
    in_flight: u32,
    /// Most in flight, by experience.
    window: u32,
    /// Evictions sent since `seen` was true that the budget was charged for, or may be.
    spent: u32,
    spent_at: Timestamp,
    /// Times of the newest refusals.
    refused: VecDeque<Timestamp>,
    /// Sending time of the eviction that was refused, until one is accepted.
    blocked: Option<Timestamp>,
    /// A change of the budget does not lift it.
    firm: bool,
    probe_at: Timestamp,
    /// Refusals since the last eviction that was accepted.
    tries: u32,
    used_at: Timestamp,
}

impl Gate {
    pub(super) fn new(name: String, several: bool, now: Timestamp) -> Self {
        Self {
            name,
            several,
            seen: None,
            in_flight: 0,
            window: START,
            spent: 0,
            spent_at: now,
            refused: VecDeque::new(),
            blocked: None,
            firm: false,
            probe_at: now,
            tries: 0,
            used_at: now,
        }
    }

    /// Takes over what a watch saw.
    pub(super) fn observe(&mut self, budget: &Budget, now: Timestamp) {
        self.used_at = now;
        let allowed = if budget.current {
            u32::try_from(budget.allowed).unwrap_or(0)
        } else {
            0
        };
        if self.seen == Some((allowed, budget.changed_at)) {
            return;
        }
        if self.seen.is_some_and(|(_, at)| at > budget.changed_at) {
            return;
        }
        self.seen = Some((allowed, budget.changed_at));
        self.spent = self.in_flight;
        self.spent_at = now;
    }

    /// Neither used nor seen since `then`.
    pub(super) fn idle_since(&self, then: Timestamp) -> bool {
        self.in_flight == 0 && self.used_at < then
    }

    pub(super) fn verdict(&self, now: Timestamp) -> Verdict {
        let recent = self
            .refused
            .iter()
            .filter(|at| now.duration_since(**at) < MINUTE)
            .count();
        if recent >= REFUSALS {
            let oldest = self.refused.iter().rev().nth(REFUSALS - 1);
            return Verdict::Shut(oldest.and_then(|at| at.checked_add(MINUTE).ok()));
        }
        let budgeted = if recent > 0 {
            u32::try_from(REFUSALS - recent).unwrap_or(1)
        } else {
            u32::MAX
        };
        if self.in_flight >= self.window.min(budgeted) {
            return Verdict::Shut(None);
        }
        if self.believed_open(now) {
            Verdict::Open
        } else if self.in_flight > 0 {
            Verdict::Shut(None)
        } else if now >= self.probe_at {
            Verdict::Probe
        } else {
            Verdict::Shut(Some(self.next_look(now)))
        }
    }

    fn believed_open(&self, now: Timestamp) -> bool {
        if self.several {
            return false;
        }
        let Some((allowed, changed_at)) = self.seen else {
            return self.blocked.is_none();
        };
        if self.blocked.is_some_and(|since| self.firm || changed_at <= since) {
            return false;
        }
        let spent = if now.duration_since(self.spent_at) >= RECOUNT {
            self.in_flight
        } else {
            // What is in flight may be charged in any case, whatever the answers so far took off the count.
            self.spent.max(self.in_flight)
        };
        allowed > spent
    }

    /// The recount may open the gate before the next probe.
    fn next_look(&self, now: Timestamp) -> Timestamp {
        let recount = self.spent_at.checked_add(RECOUNT).unwrap_or(Timestamp::MAX);
        let counts = self.blocked.is_none() && self.seen.is_some_and(|(allowed, _)| allowed > 0);
        if counts && now < recount {
            recount.min(self.probe_at)
        } else {
            self.probe_at
        }
    }

    pub(super) fn sent(&mut self, now: Timestamp) {
        self.in_flight += 1;
        self.spent += 1;
        self.spent_at = now;
        self.used_at = now;
    }

    /// Takes over an answer to an eviction that was sent at `sent_at`; `cap` is the most that may be in flight.
    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        sent_at: Timestamp,
        probe: bool,
        cap: u32,
        now: Timestamp,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.used_at = now;
        match answer {
            Answer::Accepted => self.accepted(sent_at, probe, cap, now),
            Answer::Budget | Answer::BudgetUnsynced { .. } => {
                // 15 s, then every 30 s, each up to 15 % earlier.
                let (from, to) = if self.tries == 0 {
                    (12.75, 15.0)
                } else {
                    (25.5, 30.0)
                };
                let next = between(from, to, &self.name, self.tries, now);
                self.refused(sent_at, false, next, now);
            }
            Answer::BudgetStale { retry_after } => {
                self.refused(sent_at, false, after(now, *retry_after), now);
            }
            Answer::BudgetMapFull => self.refused(sent_at, true, after(now, MAP_FULL), now),
            Answer::SeveralBudgets if self.several => {
                let next = between(30.0, 60.0, &self.name, self.tries, now);
                self.refused(sent_at, true, next, now);
            }
            Answer::BudgetRaceLost => {
                self.uncount();
                self.shrink_window(cap);
            }
            // The budget may have been charged.
            Answer::Unknown { .. } => self.shrink_window(cap),
            _ => self.uncount(),
        }
    }

    fn accepted(&mut self, sent_at: Timestamp, probe: bool, cap: u32, now: Timestamp) {
        if self.blocked.is_none_or(|since| sent_at > since) {
            self.blocked = None;
            self.firm = false;
            self.tries = 0;
            // A probe that went through: the watch is behind, or the server does not charge this pod. Ask on, one by one.
            self.probe_at = if probe {
                now
            } else {
                between(12.75, 15.0, &self.name, 0, now)
            };
        }
        self.window = self.window.saturating_add(1).min(cap.max(1));
        // What the watch has shown since then most likely counts it already. Taking it for uncounted would stall; the
        // other way round costs one refusal.
        if self.seen.is_some_and(|(_, changed_at)| changed_at > sent_at) {
            self.uncount();
        }
        self.spent_at = now;
    }

    fn refused(&mut self, sent_at: Timestamp, firm: bool, next: Timestamp, now: Timestamp) {
        self.uncount();
        self.window = 1;
        self.refused.push_back(now);
        while self.refused.len() > REFUSALS {
            self.refused.pop_front();
        }
        // Refusals of evictions that were under way side by side are one try.
        if self.blocked.is_none_or(|since| sent_at > since) {
            self.tries = self.tries.saturating_add(1);
        }
        self.blocked = Some(self.blocked.map_or(sent_at, |since| since.max(sent_at)));
        self.firm = firm;
        self.probe_at = next;
    }

    fn uncount(&mut self) {
        self.spent = self.spent.saturating_sub(1);
    }

    fn shrink_window(&mut self, cap: u32) {
        self.window = (self.window.min(cap) / 2).max(1);
    }
}

fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
