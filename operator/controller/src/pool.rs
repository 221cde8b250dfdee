//! The pool loop: observe, plan, apply, report, one pool at a time each, several pools side by side.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;
use vnp_plan::observed::{Observed, OperatorFacts};
use vnp_plan::plan::{Plan, Track, TrackKind};
use vnp_plan::scheduling::note_stored_policy;
use vnp_plan::step::Step;
use vnp_plan::workload::{note_stored, remember};

use crate::apply::{Applier, Outcome, PoolRef, Retry, Stored};
use crate::drain::DrainTasks;
use crate::observe::cluster::Cluster;
use crate::observe::live::{self, LiveError};
use crate::observe::sight::Sight;
use crate::report::{ReportError, Reporter};
use crate::runtime::clock::Reading;
use crate::runtime::jitter::spread;
use crate::runtime::metrics::Metrics;
use crate::runtime::queue::Queue;
use crate::runtime::setbacks::{Setbacks, pause};

/// Pools in work at once.
const SIDE_BY_SIDE: usize = 8;
/// A pass without cause, in case something was missed. Nothing depends on it.
const REPAIR: Duration = Duration::from_secs(300);
/// How soon a pass follows a write that met something else than was planned for, at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Shortest time to a pass that was asked for: `wake_at` may lie in the past.
const SHORTEST: Duration = Duration::from_millis(100);

/// ResourcePolicies written in one pass.
const POLICIES_AT_ONCE: usize = 50;

/// What the loop works with.
pub struct PoolLoop {
    /// What is seen and remembered.
    pub cluster: Arc<Cluster>,
    /// The client that retries nothing, for live reads.
    pub fast: Client,
    /// Carries out steps.
    pub applier: Applier,
    /// Carries out drain orders.
    pub tasks: DrainTasks,
    /// Says what is so.
    pub reporter: Reporter,
    /// Counts.
    pub metrics: Metrics,
    /// How this operator was started, and its term.
    pub operator: OperatorFacts,
    /// What is remembered of passes, by pool name.
    pub passes: Mutex<HashMap<String, PassMemory>>,
}

/// What is remembered of the passes over one pool.
#[derive(Debug, Default)]
pub struct PassMemory {
    uid: String,
    setbacks: Setbacks,
    failures: u32,
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("what a decision needs could not be read live")]
    Live(#[source] LiveError),
    #[error("not everything could be reported")]
    Report(#[from] ReportError),
}

/// When to look again.
struct Again(Option<Instant>);

impl Again {
    fn at(&mut self, at: Instant) {
        self.0 = Some(self.0.map_or(at, |known| known.min(at)));
    }

    fn at_time(&mut self, at: Option<Timestamp>, now: Timestamp) {
        if let Some(at) = at {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
            self.at(Instant::now() + wait.max(SHORTEST));
        }
    }
}

/// A pass panicked, which is an error of this program.
#[derive(Debug, thiserror::Error)]
#[error("a pass broke off; this is an error of the operator")]
pub struct Broken(#[from] tokio::task::JoinError);

/// Takes keys from the queue and works on them, up to `limit` side by side, until `stop` says true. Then waits for what
/// is under way.
///
/// # Errors
/// [`Broken`] when a pass panicked.
pub async fn work<F>(
    queue: &Queue,
    limit: usize,
    mut stop: watch::Receiver<bool>,
    pass: impl Fn(String) -> F,
) -> Result<(), Broken>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut passes = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = passes.join_next() => ended?,
            key = queue.next(), if passes.len() < limit => {
                let (queue, pass) = (queue.clone(), pass(key.clone()));
                passes.spawn(async move {
                    pass.await;
                    queue.done(&key);
                });
            }
        }
    }
    while let Some(ended) = passes.join_next().await {
        ended?;
    }
    Ok(())
}

impl PoolLoop {
    /// Works until `stop` says true.
    ///
    /// # Errors
    /// [`Broken`] when a pass panicked.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) -> Result<(), Broken> {
        let queue = self.cluster.pool_queue.clone();
        work(&queue, SIDE_BY_SIDE, stop, |name| {
            let this = self.clone();
            let span = tracing::info_span!("reconcile", pool = name);
            async move { this.reconcile(&name).await }.instrument(span)
        })
        .await
    }

    /// Takes back what was ordered for a pool as soon as it is edited, whatever its pass is waiting for just then (P3). The
    /// next pass orders again what is still wanted.
    pub async fn withdraw_on_edit(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<(), Broken> {
        let mut edits = self.cluster.edits.subscribe();
        loop {
            let edit = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                edit = edits.recv() => edit,
            };
            match edit {
                Ok(uid) => self.tasks.update(&uid, Vec::new()),
                // More edits at once than are kept: the passes that follow them do it.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// One pass, and when to make the next.
    async fn reconcile(&self, name: &str) {
        let began = Instant::now();
        let clock = self.cluster.clock.read();
        let (result, again) = match self.cluster.observe(name, &self.operator, clock) {
            Sight::Gone => {
                self.forget(name);
                return;
            }
            Sight::Unreadable(pool) => {
                // What it asked for before may not be wanted any more.
                self.tasks
                    .update(pool.metadata.uid.as_deref().unwrap_or_default(), Vec::new());
                ("waiting", Again(None))
            }
            Sight::Waiting(what) => {
                tracing::debug!(what, "waiting for a cache");
                ("waiting", Again(Some(began + LOOK_AGAIN)))
            }
            Sight::Seen(seen) => match self.pass(name, seen, clock).await {
                Ok(again) => {
                    self.with(name, |memory| memory.failures = 0);
                    ("ok", again)
                }
                Err(error) => {
                    let failures = self.with(name, |memory| {
                        memory.failures = memory.failures.saturating_add(1);
                        memory.failures
                    });
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        "the pass is made again"
                    );
                    ("error", Again(Some(Instant::now() + pause(failures))))
                }
            },
        };
        self.metrics
            .reconciled("pool", result, began.elapsed().as_secs_f64());
        let repair = Instant::now() + spread(REPAIR, 0.2);
        self.cluster
            .pool_queue
            .wake_at(name, again.0.map_or(repair, |at| at.min(repair)));
    }

    async fn pass(&self, name: &str, mut seen: Box<Observed>, clock: Reading) -> Result<Again, PassError> {
        let now = clock.now;
        self.adopt_uid(name, seen.pool_uid());
        let mut plan = vnp_plan::plan(&seen, now);
        let mut unread = None;
        if !plan.reads.is_empty() {
            let reads = plan
                .reads
                .iter()
                .map(|o| live::read(&self.cluster, &self.fast, &seen, *o));
            let answers = join_all(reads).await;
            for (ordinal, answer) in plan.reads.clone().into_iter().zip(answers) {
                match answer {
                    Ok(facts) => drop(seen.live.insert(ordinal, facts)),
                    Err(error) => unread = Some(error),
                }
            }
            if self.cluster.clock.read().corrections != clock.corrections {
                // Times before and after the reads can't be compared.
                return Ok(Again(Some(Instant::now() + SHORTEST)));
            }
            // The same `now`: what the reads prove, they prove for times before they were made.
            plan = vnp_plan::plan(&seen, now);
        }
        tracing::debug!(
            reads = seen.live.len(),
            orders = plan.orders.len(),
            settles = ?plan.settles.keys(),
            steps = plan.tracks.iter().map(|t| t.steps.len()).sum::<usize>(),
            wake_at = plan.wake_at.map(tracing::field::display),
            "planned"
        );
        self.remember(&seen, &plan, clock);
        self.tasks
            .update(seen.pool_uid(), std::mem::take(&mut plan.orders));

        let mut again = Again(None);
        let held = self.with(name, |memory| {
            memory.setbacks.hold_back(&mut plan.tracks, Instant::now())
        });
        if let Some(until) = held.until {
            again.at(until);
        }
        if spare(&mut plan.tracks) {
            again.at(Instant::now() + SHORTEST);
        }
        let mut outcomes = self.applier.run(&PoolRef::of(&seen.pool), &plan.tracks).await;
        self.judge(name, &outcomes, &mut again);
        self.note_stored(&seen, &outcomes, now);
        outcomes.extend(held.outcomes);
        let reported = self.reporter.report(&seen, &plan, &outcomes, now).await;
        self.with(name, |memory| {
            outcomes
                .into_iter()
                .filter(|o| o.result.is_err())
                .for_each(|o| memory.setbacks.keep(o))
        });
        let report_again = reported?;
        if let Some(error) = unread {
            return Err(PassError::Live(error));
        }
        again.at_time(plan.wake_at, now);
        again.at_time(report_again, now);
        Ok(again)
    }

    /// What each step got, and what follows for the next pass.
    fn judge(&self, name: &str, outcomes: &[Outcome], again: &mut Again) {
        let now = Instant::now();
        for Outcome {
            track, step, result, ..
        } in outcomes
        {
            let Some(track) = *track else { continue };
            let error = match result {
                Ok(()) => {
                    tracing::info!(track = ?track, step = word(step), "done");
                    self.with(name, |memory| memory.setbacks.done(track, step));
                    continue;
                }
                Err(error) => error,
            };
            match error.retry() {
                Retry::Stop => return,
                Retry::LookAgain => {
                    tracing::debug!(track = ?track, step = word(step), %error, "moved on");
                    again.at(now + LOOK_AGAIN);
                    continue;
                }
                Retry::Later | Retry::Person => {}
            }
            tracing::warn!(track = ?track, step = word(step), error = error as &dyn std::error::Error, "failed");
            again.at(self.with(name, |memory| memory.setbacks.failed(track, step, now)));
        }
    }

    /// What the server made of the writes that it took.
    fn note_stored(&self, seen: &Observed, outcomes: &[Outcome], now: Timestamp) {
        let stored = outcomes
            .iter()
            .filter_map(|o| Some((&o.step, o.stored.as_ref()?)));
        let mut recalls = self
            .cluster
            .recalls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let recall = recalls.entry(seen.pool_uid().to_owned()).or_default();
        for (step, stored) in stored {
            match (step, stored) {
                (step, Stored::Workload(workload)) => note_stored(recall, seen, step, workload, now),
                (Step::ApplyPolicy(apply), Stored::Policy(policy)) => {
                    note_stored_policy(recall, seen, apply, policy, now);
                }
                _ => {}
            }
        }
    }

    fn remember(&self, seen: &Observed, plan: &Plan, clock: Reading) {
        let draining: BTreeSet<_> = plan.facts.draining.iter().map(|n| n.ordinal).collect();
        self.cluster.memories.take_plan(
            seen.pool_uid(),
            &plan.settles,
            &plan.progress,
            &draining,
            clock.corrections,
        );
        let recall = remember(seen, clock.now);
        let mut recalls = self
            .cluster
            .recalls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recalls.insert(seen.pool_uid().to_owned(), recall);
    }

    fn with<R>(&self, name: &str, f: impl FnOnce(&mut PassMemory) -> R) -> R {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        f(passes.entry(name.to_owned()).or_default())
    }

    /// A pool that was made anew under its name has nothing of the one before.
    fn adopt_uid(&self, name: &str, uid: &str) {
        let before = self.with(name, |memory| {
            let before = std::mem::replace(&mut memory.uid, uid.to_owned());
            (before != uid).then(|| {
                *memory = PassMemory {
                    uid: uid.to_owned(),
                    ..PassMemory::default()
                };
                before
            })
        });
        if let Some(before) = before.filter(|uid| !uid.is_empty()) {
            self.leave(&before, name);
        }
    }

    fn forget(&self, name: &str) {
        let memory = self
            .passes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(memory) = memory {
            self.leave(&memory.uid, name);
        }
    }

    fn leave(&self, uid: &str, name: &str) {
        self.tasks.update(uid, Vec::new());
        self.reporter.forget(uid, name);
    }
}

/// Leaves policies for the next pass when there are many: a pass should not last, and writes should not wait in line past
/// the time that each of them has. Tells whether any was left.
fn spare(tracks: &mut Vec<Track>) -> bool {
    let before = tracks.len();
    let mut left = POLICIES_AT_ONCE;
    tracks.retain(|track| {
        if track.kind != TrackKind::Policies {
            return true;
        }
        let now = left > 0;
        left = left.saturating_sub(1);
        now
    });
    tracks.len() < before
}

/// What a step is called in the log.
fn word(step: &Step) -> &'static str {
    match step {
        Step::AddPoolFinalizer => "add the pool's finalizer",
        Step::RemovePoolFinalizer => "remove the pool's finalizer",
        Step::CreateWorkload { .. } => "create the workload",
        Step::ApplyWorkload { .. } => "apply the workload",
        Step::PatchWorkload(_) => "patch the workload",
        Step::Shrink(_) => "shrink",
        Step::DeleteWorkload { .. } => "delete the workload",
        Step::SaveCopy { .. } => "save a copy",
        Step::DropCopy { .. } => "drop a copy",
        Step::OrphanProviderPod { .. } => "orphan a provider pod",
        Step::DeleteProviderPod { .. } => "delete a provider pod",
        Step::Cordon { .. } => "cordon",
        Step::Uncordon { .. } => "uncordon",
        Step::LabelNode { .. } => "label a node",
        Step::DeleteNode { .. } => "delete a node",
        Step::CreateProfile(_) => "create the profile",
        Step::PatchProfile(_) => "patch the profile",
        Step::DeleteProfile { .. } => "delete the profile",
        Step::ApplyPolicy(_) => "apply a ResourcePolicy",
        Step::DeletePolicy { .. } => "delete a ResourcePolicy",
        Step::WriteCertificates(_) => "write the webhook's certificates",
        Step::ApplyWebhook { .. } => "apply the webhook's configuration",
        Step::DeleteWebhook { .. } => "delete the webhook's configuration",
        Step::Tolerate(_) => "let a pod overflow",
        Step::RecordAudit(_) => "record the audit trail",
    }
}

#[cfg(test)]
mod tests {
    use vnp_plan::observed::ObjectKey;

    use super::*;

    #[test]
    fn many_policies_take_several_passes_and_hold_back_nothing_else() {
        let track = |kind, name: usize| Track {
            kind,
            steps: vec![Step::DeletePolicy {
                policy: ObjectKey {
                    namespace: name.to_string(),
                    name: "burst.web".into(),
                },
                uid: "u".into(),
            }],
        };
        let mut tracks: Vec<Track> = (0..POLICIES_AT_ONCE + 1)
            .map(|name| track(TrackKind::Policies, name))
            .collect();
        tracks.push(track(TrackKind::Drain, 0));
        assert!(spare(&mut tracks));
        assert_eq!(tracks.len(), POLICIES_AT_ONCE + 1);
        assert_eq!(tracks.last().map(|t| t.kind), Some(TrackKind::Drain));
        assert!(!spare(&mut tracks));
    }
}
