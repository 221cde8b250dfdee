//! The overflow loop: pods that the scheduler found no ordinary node for get the toleration of virtual nodes. A loop of its
//! own, because these pods wait for seconds at most, while a pass over a pool may wait for much.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use vnp_crds::{PlacementMode, VirtualNodePool};
use vnp_plan::observed::{OperatorFacts, Right};
use vnp_plan::overflow::{overflows, plan_overflow};

use crate::apply::{Applier, ApplyError, Outcome, Retry};
use crate::observe::cluster::Cluster;
use crate::observe::sight::Sight;
use crate::pool::{Broken, work};
use crate::runtime::metrics::Metrics;

/// Pools in work at once.
const SIDE_BY_SIDE: usize = 4;
/// How soon a pass follows one that had to wait or met something else than was planned for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon a pass follows one in which the pool let nobody go.
const LOOK_LATER: Duration = Duration::from_secs(5);
/// How often a missing right is asked for: somebody may be about to grant it.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What the loop works with.
pub struct OverflowLoop {
    /// What is seen and remembered.
    pub cluster: Arc<Cluster>,
    /// The client that retries nothing, to ask for the right.
    pub fast: Client,
    /// Carries out steps.
    pub applier: Applier,
    /// Counts.
    pub metrics: Metrics,
    /// How this operator was started, and its term.
    pub operator: OperatorFacts,
}

impl OverflowLoop {
    /// Works until `stop` says true.
    ///
    /// # Errors
    /// [`Broken`] when a pass panicked.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) -> Result<(), Broken> {
        let queue = self.cluster.overflow.queue.clone();
        work(&queue, SIDE_BY_SIDE, stop, |name| {
            let this = self.clone();
            let span = tracing::info_span!("overflow", pool = name);
            async move { this.reconcile(&name).await }.instrument(span)
        })
        .await
    }

    async fn reconcile(&self, name: &str) {
        let began = Instant::now();
        let clock = self.cluster.clock.read();
        let (result, again) = match self.cluster.observe(name, &self.operator, clock) {
            Sight::Gone | Sight::Unreadable(_) => return,
            Sight::Waiting(_) => ("waiting", Some(LOOK_AGAIN)),
            Sight::Seen(seen) => {
                if prefers(&seen.pool) && self.cluster.overflow.right() != Right::Granted {
                    self.ask().await;
                }
                let waiting = self.cluster.pods.read(|shelf| shelf.waiting(name));
                let steps = plan_overflow(&seen, &waiting);
                // Held by the pool: nobody tells when its workload is accepted.
                let held = steps.is_empty() && waiting.iter().any(overflows);
                let outcomes = self.applier.run_overflow(steps).await;
                let again = self.judge(&outcomes);
                let missing = prefers(&seen.pool) && self.cluster.overflow.right() == Right::Missing;
                let result = if again == Some(ASK_AGAIN) { "error" } else { "ok" };
                let again = again.or(held.then_some(LOOK_LATER));
                (result, again.or(missing.then_some(ASK_AGAIN)))
            }
        };
        self.metrics
            .reconciled("overflow", result, began.elapsed().as_secs_f64());
        if let Some(again) = again {
            self.cluster.overflow.queue.wake_at(name, Instant::now() + again);
        }
    }

    /// What came of the patches, and when to look again without being woken.
    fn judge(&self, outcomes: &[Outcome]) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        let mut soon = |wait: Duration| again = Some(again.map_or(wait, |known| known.min(wait)));
        for outcome in outcomes {
            match &outcome.result {
                Ok(()) => self.cluster.overflow_right(Right::Granted),
                Err(error) => {
                    if matches!(error, ApplyError::Forbidden { .. }) {
                        self.cluster.overflow_right(Right::Missing);
                    }
                    match error.retry() {
                        Retry::Stop => return None,
                        Retry::LookAgain | Retry::Later => soon(LOOK_AGAIN),
                        Retry::Person => soon(ASK_AGAIN),
                    }
                }
            }
        }
        again
    }

    /// Asks the API server whether this operator may patch pods. No answer is no news.
    async fn ask(&self) {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("patch".to_owned()),
                    resource: Some("pods".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.fast.clone());
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) => {
                let allowed = answer.status.is_some_and(|s| s.allowed);
                let right = if allowed { Right::Granted } else { Right::Missing };
                self.cluster.overflow_right(right);
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "whether pods may be patched is not known"
            ),
        }
    }
}

fn prefers(pool: &VirtualNodePool) -> bool {
    let rules = pool.spec.placement.iter().flat_map(|p| &p.rules);
    rules.into_iter().any(|r| r.mode == PlacementMode::Prefer)
}
