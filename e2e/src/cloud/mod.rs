//! The container instances behind the virtual nodes: what they cost is what the operator's promises are about.
//!
//! Nobody but a provider talks to the cloud, and the operator can't see it at all. Tests can: the [`Ledger`] counts
//! instances from outside, and the knobs make providers and cloud misbehave the way real ones were measured to.

mod knobs;
mod ledger;
mod quota;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use knobs::{DeletionOrder, Heartbeat, ProviderKnobs, SlowTerminators};
pub use ledger::{Instance, InstanceId, Ledger, LedgerEvent, LedgerEventKind, Mark, PodRef};
pub use quota::Quota;

use quota::TokenBucket;

/// One cloud account. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ledger: Ledger,
    deletions: TokenBucket,
    knobs: Mutex<Knobs>,
    crashes: Mutex<HashMap<String, Arc<Notify>>>,
    providers: Mutex<HashSet<String>>,
    addresses: AtomicU32,
}

#[derive(Debug, Default)]
struct Knobs {
    every_node: ProviderKnobs,
    by_node: HashMap<String, ProviderKnobs>,
}

impl Cloud {
    /// What was created and deleted so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Turns knobs of all providers, those that were turned for one node included. Takes effect at the next decision.
    pub fn configure(&self, turn: impl Fn(&mut ProviderKnobs)) {
        let mut knobs = self.knobs_lock();
        turn(&mut knobs.every_node);
        knobs.by_node.values_mut().for_each(turn);
    }

    /// Turns knobs of the provider of one node, from what holds for all.
    pub fn configure_node(&self, node: &str, turn: impl FnOnce(&mut ProviderKnobs)) {
        let mut knobs = self.knobs_lock();
        let every_node = knobs.every_node.clone();
        turn(knobs.by_node.entry(node.to_owned()).or_insert(every_node));
    }

    /// All knobs back to their defaults, which make a well-behaved provider, and the default quota.
    pub fn reset_knobs(&self) {
        *self.knobs_lock() = Knobs::default();
        self.set_delete_quota(Quota::default());
    }

    /// How fast the account may delete instances.
    pub fn set_delete_quota(&self, quota: Quota) {
        self.shared.deletions.set(quota);
    }

    /// Lets the container of the node's provider crash once; its kubelet starts it again in the same pod.
    pub fn crash_provider(&self, node: &str) {
        self.crash_of(node).notify_one();
    }

    /// Nodes whose provider runs now, deaf ones included.
    #[must_use]
    pub fn running_providers(&self) -> HashSet<String> {
        self.shared
            .providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Counts the provider of `node` as running until the returned value is dropped.
    pub(crate) fn provider_runs(&self, node: &str) -> RunningProvider {
        self.shared
            .providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.to_owned());
        RunningProvider {
            cloud: self.clone(),
            node: node.to_owned(),
        }
    }

    pub(crate) fn crash_of(&self, node: &str) -> Arc<Notify> {
        let mut crashes = self.shared.crashes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(crashes.entry(node.to_owned()).or_default())
    }

    pub(crate) fn knobs_of(&self, node: &str) -> ProviderKnobs {
        let knobs = self.knobs_lock();
        knobs.by_node.get(node).unwrap_or(&knobs.every_node).clone()
    }

    /// Deletes an instance: waits for the quota, and returns when the cloud has done it. Once accepted, the cloud goes
    /// on whatever becomes of the caller.
    pub(crate) async fn delete_instance(&self, id: InstanceId, takes: Duration) {
        self.shared.deletions.take().await;
        let cloud = self.clone();
        let deletion = tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            cloud.ledger().record_deletion(id);
        });
        if let Err(error) = deletion.await {
            tracing::error!("the deletion of {id} did not end: {error}");
        }
    }

    /// Whether the deletion of this instance is among the `fraction` that gets lost. The same in every run in which
    /// the instance has the same place in the order of creation.
    pub(crate) fn forgets(id: InstanceId, seed: u64, fraction: f64) -> bool {
        position((seed, id)) < fraction
    }

    /// Whether the pod of this name is among the `fraction` that takes its time to end.
    pub(crate) fn is_slow(pod: &str, fraction: f64) -> bool {
        position(pod) < fraction
    }

    /// An address nobody else has in this run.
    pub(crate) fn next_address(&self) -> String {
        let next = self.shared.addresses.fetch_add(1, Ordering::Relaxed) + 1;
        let [_, a, b, c] = next.to_be_bytes();
        format!("10.{a}.{b}.{c}")
    }

    fn knobs_lock(&self) -> MutexGuard<'_, Knobs> {
        self.shared.knobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A provider that runs.
#[derive(Debug)]
pub(crate) struct RunningProvider {
    cloud: Cloud,
    node: String,
}

impl Drop for RunningProvider {
    fn drop(&mut self) {
        self.cloud
            .shared
            .providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.node);
    }
}

/// Spreads values evenly over 0..1, each always to the same place.
fn position(value: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let half = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    f64::from(half) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodRef {
        PodRef {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        }
    }

    #[test]
    fn a_node_keeps_its_own_knobs_and_follows_those_of_all() {
        let cloud = Cloud::default();
        cloud.configure_node("node-1", |knobs| knobs.deaf = true);
        cloud.configure(|knobs| knobs.forget = 0.5);
        assert!(cloud.knobs_of("node-1").deaf);
        assert!(!cloud.knobs_of("node-0").deaf);
        assert!((cloud.knobs_of("node-1").forget - 0.5).abs() < f64::EPSILON);
        cloud.reset_knobs();
        assert!(!cloud.knobs_of("node-1").deaf);
    }

    #[test]
    fn about_the_asked_fraction_is_forgotten() {
        let cloud = Cloud::default();
        let forgotten = (0..1000)
            .map(|n| cloud.ledger().record_creation("node-0", pod(&n.to_string())))
            .filter(|id| Cloud::forgets(*id, 7, 0.1))
            .count();
        assert!((60..140).contains(&forgotten), "{forgotten} of 1000");
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_deletion_outlives_the_provider_that_asked_for_it() {
        let cloud = Cloud::default();
        let id = cloud.ledger().record_creation("node-0", pod("web"));
        let asked = cloud.delete_instance(id, Duration::from_secs(20));
        assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
        assert_eq!(cloud.ledger().living().len(), 1);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(cloud.ledger().living().is_empty());
    }
}
