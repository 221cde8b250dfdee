//! The cluster loop: what derives from all pools together: the profile and the webhook.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use vnp_plan::accept::accept;
use vnp_plan::observed::OperatorFacts;
use vnp_plan::profile::{ClusterObserved, PoolInCluster, SetBack, SetBackHistory, note_stored, plan_profile};
use vnp_plan::rewritten::{Rewrites, age};
use vnp_plan::step::Step;
use vnp_plan::workload::rolled;

use crate::admission::keeper::{Keeper, Kept};
use crate::apply::{Applier, Retry, Stored};
use crate::observe::cluster::{CLUSTER_KEY, Cluster};
use crate::observe::sight::Sight;
use crate::pool::{Broken, work};
use crate::runtime::clock::Reading;
use crate::runtime::jitter::spread;
use crate::runtime::metrics::Metrics;
use crate::runtime::setbacks::pause;

/// A pass without cause, in case something was missed.
const REPAIR: Duration = Duration::from_secs(300);
/// How soon a pass follows one that had to wait or met something else than was planned for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a replaced value is remembered: longer than the window in which it counts.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(30);

/// What the loop works with.
pub struct ClusterLoop {
    /// What is seen and remembered.
    pub cluster: Arc<Cluster>,
    /// Carries out steps.
    pub applier: Applier,
    /// Keeps the webhook's certificates and configuration; `None` when this operator serves none.
    pub webhook: Option<Keeper>,
    /// Counts.
    pub metrics: Metrics,
    /// How this operator was started, and its term.
    pub operator: OperatorFacts,
    /// Passes in a row in which a write failed.
    pub failures: Mutex<u32>,
}

/// How a pass ended, in the order of what is told of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Waiting,
    LookAgain,
    Failed,
}

impl ClusterLoop {
    /// Works until `stop` says true.
    ///
    /// # Errors
    /// [`Broken`] when a pass panicked.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) -> Result<(), Broken> {
        let queue = self.cluster.cluster_queue.clone();
        work(&queue, 1, stop, |_| {
            let this = self.clone();
            async move { this.reconcile().await }.instrument(tracing::info_span!("reconcile", cluster = true))
        })
        .await
    }

    async fn reconcile(&self) {
        let began = Instant::now();
        let clock = self.cluster.clock.read();
        // Each for itself: what keeps one from its end must not hold back the other.
        let (profile, (webhook, due)) = futures::join!(self.pass(clock), self.keep_webhook(clock.now));
        let end = profile.max(webhook);
        let queue = &self.cluster.cluster_queue;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = if matches!(end, End::Failed) {
            failures.saturating_add(1)
        } else {
            0
        };
        let (result, wait) = match end {
            End::Done => ("ok", spread(REPAIR, 0.2).min(due)),
            End::Waiting => ("waiting", LOOK_AGAIN),
            End::LookAgain => ("ok", LOOK_AGAIN),
            End::Failed => ("error", pause(*failures)),
        };
        let again = Instant::now() + wait;
        if matches!(end, End::Failed) {
            queue.hold(CLUSTER_KEY, again);
        }
        queue.wake_at(CLUSTER_KEY, again);
        self.metrics
            .reconciled("cluster", result, began.elapsed().as_secs_f64());
    }

    /// How that ended, and when time alone makes something due.
    async fn keep_webhook(&self, now: Timestamp) -> (End, Duration) {
        let Some(keeper) = &self.webhook else {
            return (End::Done, Duration::MAX);
        };
        let end = match keeper.pass(now).await {
            Kept::Until(due) => {
                let due = Duration::try_from(due.duration_since(now));
                return (End::Done, due.unwrap_or(LOOK_AGAIN).max(LOOK_AGAIN));
            }
            Kept::Written => End::Done,
            Kept::Waiting | Kept::Moved(Retry::Stop) => End::Waiting,
            Kept::Moved(_) => End::LookAgain,
            Kept::Failed => End::Failed,
        };
        (end, Duration::MAX)
    }

    async fn pass(&self, clock: Reading) -> End {
        let Some(seen) = self.observe(clock) else {
            return End::Waiting;
        };
        let plan = plan_profile(&seen);
        note(
            &mut self
                .cluster
                .profile_set_back
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            plan.set_back,
            clock.now,
        );
        self.keep_rewrites(|rewrites| rewrites.retain(|path, _| plan.open.contains(path)));
        let mut end = End::Done;
        for outcome in self.applier.run_profile(&plan.steps).await {
            match outcome.result {
                Ok(()) => {
                    tracing::info!("profile written");
                    if let (
                        Step::CreateProfile(patch) | Step::PatchProfile(patch),
                        Some(Stored::Profile(stored)),
                    ) = (&outcome.step, &outcome.stored)
                    {
                        self.keep_rewrites(|rewrites| note_stored(rewrites, patch, stored, clock.now));
                    }
                }
                Err(error) => match error.retry() {
                    Retry::Stop => return End::Waiting,
                    Retry::LookAgain if matches!(end, End::Done) => end = End::LookAgain,
                    Retry::LookAgain => {}
                    Retry::Later | Retry::Person => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the profile is not written"
                        );
                        end = End::Failed;
                    }
                },
            }
        }
        end
    }

    /// Changes what is remembered of keys that were stored otherwise. Where that is news, every pool has to say it: nothing
    /// else may happen that would wake them.
    fn keep_rewrites(&self, change: impl FnOnce(&mut Rewrites)) {
        let mut rewrites = self
            .cluster
            .profile_rewritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = rewrites.clone();
        change(&mut rewrites);
        let news = *rewrites != before;
        drop(rewrites);
        if news {
            for pool in self.cluster.all_pools() {
                self.cluster
                    .pool_queue
                    .wake(pool.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    /// All pools with what the profile depends on; `None` until all of them can be seen, because a pool left out would
    /// look like one that lets go. Of those that can't be read it is only known that they are there.
    fn observe(&self, clock: Reading) -> Option<ClusterObserved> {
        let cluster = &self.cluster;
        let unreadable = !cluster.pools.flaws().is_empty();
        if !(cluster.pools.complete() && cluster.profile.complete() && cluster.acs_profile.complete()) {
            return None;
        }
        let pools = cluster.all_pools();
        let names = pools
            .iter()
            .map(|pool| pool.metadata.name.as_deref().unwrap_or_default());
        let sights = names.map(|name| cluster.observe(name, &self.operator, clock));
        let (pools, became_unreadable) = parties(sights)?;
        let mut rewrites = cluster
            .profile_rewritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        age(&mut rewrites, clock.now);
        Some(ClusterObserved {
            pools,
            unreadable: unreadable || became_unreadable,
            rewrites,
            profile: cluster
                .profile
                .read(|t| t.iter().next().map(|(_, map)| map.clone())),
            acs_profile: cluster
                .acs_profile
                .read(|t| t.iter().next().map(|(_, map)| map.clone())),
            set_back: cluster
                .profile_set_back
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        })
    }
}

/// The pools that are seen, and whether there are some that can't be read. The pools change while this goes through them, so
/// that one which could be read when they were listed may be among these. `None` while one is not seen in whole.
fn parties(sights: impl Iterator<Item = Sight>) -> Option<(Vec<PoolInCluster>, bool)> {
    let (mut pools, mut unreadable) = (Vec::new(), false);
    for sight in sights {
        match sight {
            Sight::Gone => {}
            Sight::Unreadable(_) => unreadable = true,
            Sight::Waiting(_) => return None,
            Sight::Seen(seen) => {
                let rolled = rolled(&seen);
                let drained = vnp_plan::drained(&seen);
                pools.push(PoolInCluster::new(&seen, &accept(&seen), rolled, drained));
            }
        }
    }
    Some((pools, unreadable))
}

/// Adds what was replaced, once each, and drops what is too old to count. What is replaced right now keeps its history:
/// forgetting it would start the fight again.
fn note(history: &mut SetBackHistory, seen: Vec<SetBack>, now: Timestamp) {
    let open: BTreeSet<String> = seen.iter().map(|s| s.path.clone()).collect();
    for SetBack { path, at, manager } in seen {
        let times = history.entry(path).or_default();
        if !times.iter().any(|(known, _)| *known == at) {
            times.push((at, manager));
        }
    }
    history.retain(|path, times| {
        times.retain(|(at, _)| open.contains(path) || now.duration_since(*at) <= REMEMBERED);
        !times.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::testing::{observed, pool};

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minutes).unwrap()
    }

    fn replaced(minutes: i64) -> Vec<SetBack> {
        vec![SetBack {
            path: "vpcId".into(),
            at: at(minutes),
            manager: "kubectl-edit".into(),
        }]
    }

    /// A profile key that only the unreadable one asked for must not look like one that is let go.
    #[test]
    fn a_pool_that_becomes_unreadable_between_list_and_look_is_still_there() {
        let seen = |name: &str| {
            let pool = pool(json!({ "metadata": { "name": name } }));
            Box::new(observed(pool))
        };
        let parties = |sights: Vec<Sight>| parties(sights.into_iter());
        let (a, b) = (seen("a"), seen("b"));
        let unreadable = || Sight::Unreadable(b.pool.clone());
        let (pools, open) = parties(vec![Sight::Seen(a.clone()), unreadable()]).unwrap();
        assert_eq!((pools.len(), open), (1, true));
        let (pools, open) = parties(vec![Sight::Seen(a.clone()), Sight::Gone]).unwrap();
        assert_eq!((pools.len(), open), (1, false));
        let (pools, open) = parties(vec![Sight::Seen(a.clone()), Sight::Seen(b.clone())]).unwrap();
        assert_eq!((pools.len(), open), (2, false));
        assert!(parties(vec![unreadable(), Sight::Waiting("its workload")]).is_none());
    }

    #[test]
    fn one_replacement_counts_once_and_not_for_ever() {
        let mut history = SetBackHistory::new();
        note(&mut history, replaced(0), at(0));
        note(&mut history, replaced(0), at(1));
        note(&mut history, replaced(2), at(2));
        assert_eq!(history["vpcId"].len(), 2);
        note(&mut history, replaced(2), at(600));
        assert_eq!(history["vpcId"].len(), 2);
        note(&mut history, Vec::new(), at(31));
        assert_eq!(history["vpcId"].len(), 1);
        note(&mut history, Vec::new(), at(60));
        assert!(history.is_empty());
    }
}
