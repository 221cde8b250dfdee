//! The task of one draining node.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use vnp_crds::LimitedBy;
use vnp_plan::drain::answer::Answer;
use vnp_plan::drain::order::{DrainOrder, EvictionCandidate};
use vnp_plan::drain::pace::Next;

use super::evict::evict;
use super::{Shared, refusals};
use crate::observe::memory::DrainMemories;

/// Longest wait without a look: nothing depends on it, but a missed wake-up would cost no more than this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One draining node. What it knows is in the order and in the throttle.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) pool_uid: String,
}

impl Lane {
    /// Evicts by the newest order until the sender is gone, then waits for the last answers.
    pub(super) async fn run(self, mut orders: watch::Receiver<Arc<DrainOrder>>) {
        let shared = &*self.shared;
        let mut flights = FuturesUnordered::new();
        loop {
            let freed = shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            orders.mark_unchanged();
            let (order, next) = loop {
                let (order, next) = self.begin_next(&orders);
                let Next::Evict(index) = next else {
                    break (order, next);
                };
                flights.extend(order.pods.get(index).cloned().map(|pod| async move {
                    let answer = evict(&shared.client, &shared.claim, &pod).await;
                    (pod, answer)
                }));
            };
            let look_again = match next {
                Next::Wait {
                    until: Some(until), ..
                } => shared.clock.steady_instant(until),
                _ => Instant::now() + LOOK_AGAIN,
            };
            tokio::select! {
                // Flights first: what was just decided on is on its way before anything else happens.
                biased;
                Some((pod, answer)) = flights.next() => {
                    self.take(&order, &pod, &answer);
                    // All that came meanwhile, so that the order is looked over once for all of it.
                    while let Some(Some((pod, answer))) = flights.next().now_or_never() {
                        self.take(&order, &pod, &answer);
                    }
                }
                changed = orders.changed() => if changed.is_err() { break },
                () = freed => {}
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
        let order = Arc::clone(&orders.borrow());
        while let Some((pod, answer)) = flights.next().await {
            self.take(&order, &pod, &answer);
        }
    }

    /// Asks the throttle and, when a pod of the newest order may go, notes that it goes: all under one lock, so that two
    /// tasks never spend the same token, a withdrawn order sends nothing, and a pod that an order replaced by now still
    /// offered, and the throttle has forgotten, is not asked for again.
    fn begin_next(&self, orders: &watch::Receiver<Arc<DrainOrder>>) -> (Arc<DrainOrder>, Next) {
        let mut throttle = self.shared.throttle();
        let order = Arc::clone(&orders.borrow());
        if self.shared.claim.check().is_err() {
            return (order, Next::Idle);
        }
        let now = self.shared.clock.steady();
        let next = throttle.next(&self.pool_uid, &order, now);
        if let Next::Evict(index) = next {
            throttle.sent(&self.pool_uid, &order, index, now);
        }
        drop(throttle);
        if let Next::Wait { limited_by, .. } = next {
            self.limited_by(&order, limited_by);
        }
        (order, next)
    }

    fn limited_by(&self, order: &DrainOrder, by: LimitedBy) {
        let memories: &DrainMemories = &self.shared.memories;
        let changed = memories.with(&self.pool_uid, order.ordinal, |memory| {
            memory.limited_by.replace(by) != Some(by)
        });
        if changed {
            (self.shared.wake)(&self.pool_uid);
        }
    }

    fn take(&self, order: &DrainOrder, pod: &EvictionCandidate, answer: &Answer) {
        let shared = &self.shared;
        shared
            .throttle()
            .answered(&pod.uid, answer, shared.clock.steady());
        match pod.force {
            None => shared.metrics.evicted(answer.label()),
            Some(_) => shared.metrics.force_deleted(answer.label()),
        }
        tracing::debug!(
            pod = %pod.pod,
            node = order.node,
            forced = pod.force.is_some(),
            answer = answer.label(),
            "eviction"
        );
        let changed = shared.memories.with(&self.pool_uid, order.ordinal, |memory| {
            refusals::note(memory, pod, answer, shared.clock.now())
        });
        shared.freed.notify_waiters();
        if changed {
            (shared.wake)(&self.pool_uid);
        }
    }
}
