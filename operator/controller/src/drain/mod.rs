//! Carries out drain orders: one task for each draining node. An order comes over a watch channel, so that the task
//! always works on the newest one; when a node has no order any more, its task begins no further eviction. All tasks
//! share one throttle, because there is one API server, one cloud account and one set of budgets.

mod evict;
mod lane;
mod refusals;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use vnp_plan::drain::order::DrainOrder;
use vnp_plan::drain::pace::Throttle;

use self::lane::Lane;
use crate::observe::memory::DrainMemories;
use crate::runtime::clock::Clock;
use crate::runtime::lease::Claim;
use crate::runtime::metrics::Metrics;

/// Wakes the loop of the pool with that UID.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// The tasks of all draining nodes.
pub struct DrainTasks {
    shared: Arc<Shared>,
    nodes: Mutex<HashMap<NodeKey, NodeTask>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NodeKey {
    pool_uid: String,
    node: String,
}

struct NodeTask {
    orders: watch::Sender<Arc<DrainOrder>>,
    task: JoinHandle<()>,
}

/// What the tasks share.
struct Shared {
    client: Client,
    claim: Claim,
    metrics: Metrics,
    memories: Arc<DrainMemories>,
    wake: Wake,
    clock: Clock,
    throttle: Mutex<Throttle>,
    /// An answer came or an order was replaced: a place, a budget or the brake may be free for another node.
    freed: Notify,
}

impl Shared {
    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DrainTasks {
    /// No task yet. `client` must be the one that retries nothing: its retries would sleep on a budget for minutes.
    /// `per_second` caps the evictions of all pools together, 0 caps nothing. `wake` is called when what blocks a pool's
    /// drain has changed.
    pub fn new(
        client: Client,
        claim: Claim,
        metrics: Metrics,
        per_second: u32,
        memories: Arc<DrainMemories>,
        clock: Clock,
        wake: Wake,
    ) -> Self {
        let cap = (per_second > 0).then_some(f64::from(per_second));
        let throttle = Mutex::new(Throttle::new(cap, clock.steady()));
        let freed = Notify::new();
        let shared = Arc::new(Shared {
            client,
            claim,
            metrics,
            memories,
            wake,
            clock,
            throttle,
            freed,
        });
        Self {
            shared,
            nodes: Mutex::new(HashMap::new()),
        }
    }

    /// Puts these orders in place of all earlier ones of the pool. When it returns, no eviction begins for a node that
    /// has none. Call it inside the runtime.
    pub fn update(&self, pool_uid: &str, orders: Vec<DrainOrder>) {
        let wanted: HashSet<String> = orders.iter().map(|o| o.node.clone()).collect();
        let mut nodes = self.lock();
        let gone = self.withdraw(&mut nodes, |key| {
            key.pool_uid == pool_uid && !wanted.contains(&key.node)
        });
        let mut changed = !gone.is_empty();
        for order in orders {
            let key = NodeKey {
                pool_uid: pool_uid.to_owned(),
                node: order.node.clone(),
            };
            if nodes
                .get(&key)
                .is_some_and(|known| **known.orders.borrow() == order)
            {
                continue;
            }
            refusals::keep_offered(&self.shared.memories, pool_uid, &order);
            changed = true;
            // Held until the task has the order: the throttle forgets pods that only the one before offers.
            let mut throttle = self.shared.throttle();
            throttle.begin(pool_uid, &order, self.shared.clock.steady());
            let order = Arc::new(order);
            match nodes.get(&key) {
                Some(known) => drop(known.orders.send_replace(order)),
                None => {
                    let (sender, receiver) = watch::channel(order);
                    let lane = Lane {
                        shared: Arc::clone(&self.shared),
                        pool_uid: pool_uid.to_owned(),
                    };
                    let task = tokio::spawn(lane.run(receiver));
                    nodes.insert(key, NodeTask { orders: sender, task });
                }
            }
        }
        if changed {
            // What one node gave up in the pool's window another one may have.
            self.shared.freed.notify_waiters();
        }
    }

    /// Withdraws all orders and waits for the answers to what is under way.
    pub async fn stop(&self) {
        let tasks = self.withdraw(&mut self.lock(), |_| true);
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a drain task did not end by itself");
            }
        }
    }

    fn withdraw(
        &self,
        nodes: &mut HashMap<NodeKey, NodeTask>,
        which: impl Fn(&NodeKey) -> bool,
    ) -> Vec<JoinHandle<()>> {
        let keys: Vec<NodeKey> = nodes.keys().filter(|key| which(key)).cloned().collect();
        let mut tasks = Vec::new();
        for key in keys {
            self.shared.throttle().withdraw(&key.pool_uid, &key.node);
            // The task ends when its sender is gone.
            tasks.extend(nodes.remove(&key).map(|known| known.task));
        }
        tasks
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeKey, NodeTask>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
