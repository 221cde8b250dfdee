//! Says what is so: status, conditions, events and gauges of a pool. Written only when it changed (P5, P6).
//!
//! What to say is decided by pure functions: `status::report` builds the status, `quiet::verdict` whether it is worth
//! a write, `transitions` and `told` which events it is worth. [`Reporter`] carries that out.

mod attempts;
mod blockage;
mod conditions;
mod drain_words;
mod quiet;
mod ready;
mod rivalry;
mod seconds;
mod situation;
mod status;
mod told;
mod transitions;
mod unseen;
mod wording;
mod write;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use vnp_crds::{DrainingNode, EventReason, VirtualNodePool};
use vnp_plan::finding::EventNote;
use vnp_plan::observed::Observed;
use vnp_plan::plan::Plan;
use vnp_plan::step::Step;

pub use write::ReportError;

use attempts::Attempts;
use quiet::{Verdict, verdict};
use rivalry::Rivalry;
use situation::{Pass, Standstill};
use status::Report;
use told::{News, Told};
use write::{Writer, Written};

use crate::apply::Outcome;
use crate::observe::sight::Unseen;
use crate::runtime::lease::Claim;
use crate::runtime::metrics::Metrics;

/// How soon a pool is looked at again whose cached object was older than the status to be written.
const BEHIND: SignedDuration = SignedDuration::from_secs(1);

/// How long after a write of the status of a pool that no pass reports on the next one is made, when it failed or there is
/// something else to say: the words of a watch that fails may change each time.
const UNSEEN_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Reports on all pools.
pub struct Reporter {
    writer: Writer,
    metrics: Metrics,
    pools: Mutex<BTreeMap<String, Memory>>,
    /// By UID, pools that no pass reports on.
    unseen: Mutex<BTreeMap<String, UnseenMemory>>,
}

/// What was said of a pool that no pass reports on.
#[derive(Default)]
struct UnseenMemory {
    told: Told,
    said: Option<Unseen>,
    /// When its status was written, or that was tried.
    tried: Option<Timestamp>,
}

/// What is remembered of one pool. Lost at a restart: then a number is written earlier or a stall is told later.
#[derive(Default)]
struct Memory {
    told: Told,
    standstill: Option<Standstill>,
    done_at: Option<Timestamp>,
    last_write: Option<Timestamp>,
    resource_version: Option<String>,
    rivalry: Rivalry,
}

impl Reporter {
    /// A reporter that writes with `client`, which should not retry by itself: what fails is reported by the next pass.
    /// `instance` is the name of this process in events, its pod's name.
    pub fn new(client: Client, claim: Claim, metrics: Metrics, instance: String) -> Self {
        Self {
            writer: Writer::new(client, claim, instance),
            metrics,
            pools: Mutex::default(),
            unseen: Mutex::default(),
        }
    }

    /// Reports a pass over a pool: what was seen, what was planned, what came of its steps. Returns when to look at the pool again without being woken: a deadline passes, or a
    /// number is due that moved too soon after the last write.
    ///
    /// # Errors
    /// [`ReportError`] when the status could not be written. An event that could not be told is logged only.
    pub async fn report(
        &self,
        observed: &Observed,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, ReportError> {
        let attempts = &Attempts::of(outcomes);
        if attempts
            .done
            .iter()
            .any(|step| matches!(step, Step::RemovePoolFinalizer))
        {
            self.forget(observed.pool_uid(), observed.pool_name());
            return Ok(None);
        }
        let uid = observed.pool_uid();
        let (behind, standstill, done_at, last_write) = self.with(uid, |memory| {
            (
                older(&observed.pool, memory),
                memory.standstill.clone(),
                memory.done_at,
                memory.last_write,
            )
        });
        if behind {
            // The status that the plan was made from is not the newest one. What it says will be said by the next pass.
            return Ok(Some(after(now, BEHIND)));
        }
        let pass = Pass {
            observed,
            plan,
            attempts,
            standstill: standstill.as_ref(),
            done_at,
            now,
        };
        let report = status::report(&pass);
        self.gauges(observed, &report);
        let notes = self.with(uid, |memory| {
            memory.standstill.clone_from(&report.standstill);
            memory.done_at = report.done_at;
            let mut worth = transitions::at_once(&pass, &report.held_by);
            memory.rivalry.look(pass.previous(), now);
            worth.extend(memory.rivalry.said());
            let lost = |n: &&EventNote| n.reason == EventReason::RaceLost && !memory.told.owes(n);
            let lost: Vec<EventNote> = worth.iter().filter(lost).cloned().collect();
            let notes = memory.told.fresh(worth, |note| shown(&pass, note), now);
            notes
                .iter()
                .filter(|n| lost.contains(&n.note))
                .for_each(|_| self.metrics.race_lost());
            notes
        });
        let verdict = verdict(pass.previous(), &report.status, last_write, now);
        let ((), wake_at) = futures::join!(self.tell(observed, notes), self.write(&pass, &report, verdict));
        Ok(wake_at?.into_iter().chain(report.wake_at).min())
    }

    /// Says of pools that no pass reports on why, in their status and by an event. Each thing once, as long as it lasts.
    pub async fn unseen(&self, unseen: Vec<Unseen>, now: Timestamp) {
        let mut news = Vec::new();
        let mut unsaid = Vec::new();
        {
            let mut all = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|uid, _| unseen.iter().any(|u| u.uid == *uid));
            for unseen in unseen {
                let memory = all.entry(unseen.uid.clone()).or_default();
                let note = EventNote {
                    reason: EventReason::ConfigWarning,
                    subject: unseen.reason.to_string(),
                    note: unseen.note.clone(),
                };
                let fresh = memory.told.fresh([note], |_| false, now);
                news.extend(fresh.into_iter().map(|n| (unseen.reference(), n)));
                let due = memory
                    .tried
                    .is_none_or(|tried| now.duration_since(tried).abs() >= UNSEEN_AGAIN);
                if due && memory.said.as_ref() != Some(&unseen) {
                    memory.tried = Some(now);
                    unsaid.push(unseen);
                }
            }
        }
        for (pool, news) in news {
            let told = self.writer.event_of(pool.clone(), &news).await;
            self.metrics.wrote("event", if told { "ok" } else { "failed" });
            if !told {
                self.of_unseen(pool.uid, |memory| memory.told.failed(news));
            }
        }
        for unseen in unsaid {
            let said = self.writer.unseen(&unseen, now).await;
            self.metrics.wrote("status", if said { "ok" } else { "failed" });
            if said {
                self.of_unseen(Some(unseen.uid.clone()), |memory| memory.said = Some(unseen));
            }
        }
    }

    fn of_unseen(&self, uid: Option<String>, change: impl FnOnce(&mut UnseenMemory)) {
        let mut all = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = uid.and_then(|uid| all.get_mut(&uid)) {
            change(memory);
        }
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, uid: &str, name: &str) {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
        self.metrics.forget(name);
    }

    async fn write(
        &self,
        pass: &Pass<'_>,
        report: &Report,
        verdict: Verdict,
    ) -> Result<Option<Timestamp>, ReportError> {
        match verdict {
            Verdict::Keep => return Ok(None),
            Verdict::Later(at) => return Ok(Some(at)),
            Verdict::Write => {}
        }
        let observed = pass.observed;
        let (rival, last) = self.with(observed.pool_uid(), |m| {
            let held = m.rivalry.found() && m.rivalry.repeats(&report.status);
            (held, m.last_write)
        });
        if let Some(due) = last.and_then(|at| rivalry::due(at, pass.now)).filter(|_| rival) {
            return Ok(Some(due));
        }
        let written = self.writer.status(&observed.pool, &report.status).await;
        self.metrics.wrote("status", result_word(&written));
        match written? {
            Written::Yes(resource_version) => {
                let notes = self.with(observed.pool_uid(), |memory| {
                    memory.last_write = Some(pass.now);
                    memory.rivalry.wrote(&report.status);
                    memory.resource_version = resource_version;
                    memory
                        .told
                        .changes(transitions::between(pass, &report.status), pass.now)
                });
                self.tell(observed, notes).await;
                Ok(None)
            }
            Written::Moved => Ok(Some(after(pass.now, BEHIND))),
            Written::Gone => {
                self.forget(observed.pool_uid(), observed.pool_name());
                Ok(None)
            }
        }
    }

    async fn tell(&self, observed: &Observed, all: Vec<News>) {
        let told = join_all(all.iter().map(|news| self.writer.event(&observed.pool, news))).await;
        for (news, told) in all.into_iter().zip(told) {
            self.metrics.wrote("event", if told { "ok" } else { "failed" });
            if !told {
                self.with(observed.pool_uid(), |memory| memory.told.failed(news));
            }
        }
    }

    fn gauges(&self, observed: &Observed, report: &Report) {
        let drain = report.status.drain.as_ref();
        let (left, blocked) = drain.map_or((0, 0), |d| (d.pods_remaining, d.pods_blocked));
        self.metrics
            .drain(observed.pool_name(), left.into(), blocked.into());
    }

    fn with<R>(&self, uid: &str, act: impl FnOnce(&mut Memory) -> R) -> R {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        act(pools.entry(uid.to_owned()).or_default())
    }
}

/// Whether the pool observed is older than what this process wrote last. Resource versions of one object compare as
/// numbers (KEP-5504); if they ever did not, the API server's own comparison still refuses the write.
fn older(pool: &VirtualNodePool, memory: &Memory) -> bool {
    let number = |text: Option<&String>| text.and_then(|t| t.parse::<u128>().ok());
    match (
        number(pool.metadata.resource_version.as_ref()),
        number(memory.resource_version.as_ref()),
    ) {
        (Some(seen), Some(written)) => seen < written,
        _ => false,
    }
}

/// Whether the status shows already what an event would tell.
fn shown(pass: &Pass<'_>, note: &EventNote) -> bool {
    let blockers = pass
        .previous()
        .and_then(|status| status.drain.as_ref())
        .map(|drain| drain.blockers.as_slice());
    let blocked = || {
        blockers
            .unwrap_or_default()
            .iter()
            .any(|b| note.subject == b.reason.as_str())
    };
    match note.reason {
        EventReason::ForceAnnounced => pass
            .previous()
            .and_then(|status| status.drain.as_ref())
            .is_some_and(|drain| drain.nodes.iter().any(|n| announced(n, note))),
        _ => blocked(),
    }
}

fn announced(node: &DrainingNode, note: &EventNote) -> bool {
    node.force_announced_time.is_some() && note.subject.starts_with(&format!("{} ", node.name))
}

fn result_word(written: &Result<Written, ReportError>) -> &'static str {
    match written {
        Ok(Written::Yes(_)) => "ok",
        Ok(Written::Moved) => "conflict",
        Ok(Written::Gone) => "gone",
        Err(_) => "failed",
    }
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
