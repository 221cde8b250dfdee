//! Everything that is mirrored and remembered, in one place, and what each change of it wakes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::watch;
use vnp_crds::{ProviderType, VirtualNodePool};
use vnp_plan::observed::{Budget, Ordinal, Recall};
use vnp_plan::profile::SetBackHistory;

use super::heartbeat::{Heartbeats, Sign};
use super::kinds::{Budgets, Copies, Leases, NodeRow, Nodes, Pools, Profiles, Warnings, Workloads};
use super::memory::DrainMemories;
use super::mirror::{Mirror, RowChange, Table, Told};
use super::pods::{PodChange, PodShelf};
use super::scope::{self, Scope};
use crate::runtime::queue::Queue;

/// The only key of the cluster loop.
pub const CLUSTER_KEY: &str = "cluster";

/// A mirror of one view per object.
pub type Mirrored<K> = Arc<Mirror<Table<K>>>;

/// The cluster as mirrored.
#[derive(Debug)]
pub struct Cluster {
    /// Pools.
    pub pools: Mirrored<Pools>,
    /// Nodes of the pools.
    pub nodes: Mirrored<Nodes>,
    /// Their heartbeats.
    pub leases: Mirrored<Leases>,
    /// Pods on these Nodes, and provider pods.
    pub pods: Arc<Mirror<PodShelf>>,
    /// PodDisruptionBudgets.
    pub budgets: Mirrored<Budgets>,
    /// StatefulSets by provider namespace.
    pub workloads: BTreeMap<String, Mirrored<Workloads>>,
    /// Copies in our own namespace.
    pub copies: Mirrored<Copies>,
    /// `eci-profile`.
    pub profile: Mirrored<Profiles>,
    /// `acs-profile`.
    pub acs_profile: Mirrored<Profiles>,
    /// Warnings about these.
    pub warnings: Mirrored<Warnings>,
    /// Signs of life.
    pub heartbeats: Heartbeats,
    /// Memory of drains.
    pub memories: Arc<DrainMemories>,
    /// Memory of our writes to workloads, by pool UID.
    pub recalls: Mutex<HashMap<String, Recall>>,
    /// Profile values of ours that somebody replaced.
    pub profile_set_back: Mutex<SetBackHistory>,
    /// Wakes the pool loop, by pool name.
    pub pool_queue: Queue,
    /// Wakes the cluster loop.
    pub cluster_queue: Queue,
    scope: watch::Sender<Option<Scope>>,
    /// What the mirrors of Nodes, Leases and Pods were complete for last.
    covered: RwLock<[Scope; 3]>,
    budget_list: Mutex<Option<Arc<Vec<Budget>>>>,
}

/// The mirrors that keep only what concerns the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoped {
    /// Nodes.
    Nodes,
    /// Leases in kube-node-lease.
    Leases,
    /// Pods.
    Pods,
}

impl Cluster {
    /// Empty mirrors.
    pub fn new(provider_namespaces: &[String], pool_queue: Queue, cluster_queue: Queue) -> Arc<Self> {
        let workloads = provider_namespaces
            .iter()
            .map(|n| (n.clone(), Mirror::new("StatefulSet", Table::new(Workloads))))
            .collect();
        Arc::new(Self {
            pools: Mirror::new("VirtualNodePool", Table::new(Pools)),
            nodes: Mirror::new("Node", Table::new(Nodes::default())),
            leases: Mirror::new("Lease", Table::new(Leases::default())),
            pods: Mirror::new("Pod", PodShelf::default()),
            budgets: Mirror::new("PodDisruptionBudget", Table::new(Budgets)),
            workloads,
            copies: Mirror::new("Secret", Table::new(Copies)),
            profile: Mirror::new("ConfigMap", Table::new(Profiles)),
            acs_profile: Mirror::new("ConfigMap", Table::new(Profiles)),
            warnings: Mirror::new("Event", Table::new(Warnings)),
            heartbeats: Heartbeats::default(),
            memories: Arc::default(),
            recalls: Mutex::default(),
            profile_set_back: Mutex::default(),
            pool_queue,
            cluster_queue,
            scope: watch::Sender::new(None),
            covered: RwLock::default(),
            budget_list: Mutex::default(),
        })
    }

    /// All pools, sorted by name.
    pub fn all_pools(&self) -> Vec<Arc<VirtualNodePool>> {
        self.pools
            .read(|t| t.iter().map(|(_, pool)| pool.clone()).collect())
    }

    /// All budgets.
    pub fn all_budgets(&self) -> Arc<Vec<Budget>> {
        let mut list = self.budget_list.lock().unwrap_or_else(PoisonError::into_inner);
        list.get_or_insert_with(|| {
            Arc::new(
                self.budgets
                    .read(|t| t.iter().map(|(_, budget)| budget.as_ref().clone()).collect()),
            )
        })
        .clone()
    }

    /// The scope that mirrors should have; `None` until the pools are known.
    pub fn scope(&self) -> watch::Receiver<Option<Scope>> {
        self.scope.subscribe()
    }

    /// A scoped mirror is complete for this scope.
    pub fn cover(&self, mirror: Scoped, scope: Scope) {
        self.covered.write().unwrap_or_else(PoisonError::into_inner)[mirror as usize] = scope;
        self.wake_all();
    }

    /// Whether a scoped mirror shows everything about this pool's provider.
    pub fn covers(&self, mirror: Scoped, pool: &VirtualNodePool) -> bool {
        let covered = self.covered.read().unwrap_or_else(PoisonError::into_inner);
        scope::provider(pool).is_none_or(|workload| covered[mirror as usize].covers(&workload))
    }

    /// Wakes every pool and the cluster loop.
    pub fn wake_all(&self) {
        for pool in self.all_pools() {
            self.wake(&pool);
        }
        self.cluster_queue.wake(CLUSTER_KEY);
    }

    /// Wakes the pool with that UID.
    pub fn wake_uid(&self, uid: &str) {
        if let Some(pool) = self
            .all_pools()
            .iter()
            .find(|p| p.metadata.uid.as_deref() == Some(uid))
        {
            self.wake(pool);
        }
    }

    fn wake(&self, pool: &VirtualNodePool) {
        self.pool_queue
            .wake(pool.metadata.name.as_deref().unwrap_or_default());
    }

    /// The pools whose nodes are named so, each with the ordinal meant. Two pools may claim one name; both are told.
    fn pools_of(&self, name: &str) -> Vec<(Arc<VirtualNodePool>, Ordinal)> {
        let Some((provider, ordinal)) = scope::split(name) else {
            return Vec::new();
        };
        let named = |pool: &VirtualNodePool| {
            pool.spec.provider.type_ == ProviderType::StatefulSet
                && pool.spec.provider.name.as_deref() == Some(provider)
        };
        self.pools.read(|t| {
            t.iter()
                .filter(|(_, p)| named(p))
                .map(|(_, p)| (p.clone(), ordinal))
                .collect()
        })
    }

    /// A pool changed.
    pub fn pool_told(&self, told: Told<RowChange<VirtualNodePool>>) {
        let Told::Changed {
            change: RowChange { key, old, new },
            ..
        } = told
        else {
            self.rescope();
            self.wake_all();
            return;
        };
        let uid = |pool: &Option<Arc<VirtualNodePool>>| pool.as_ref().and_then(|p| p.metadata.uid.clone());
        if let Some(before) = uid(&old).filter(|u| Some(u) != uid(&new).as_ref()) {
            self.memories.forget(&before);
            self.recalls
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&before);
        }
        if let Some(pool) = &new {
            self.memories.meet(pool, Timestamp::now());
        }
        self.pool_queue.wake(&key);
        let asked = |pool: &VirtualNodePool| (pool.spec.clone(), pool.metadata.clone().stripped());
        let same = matches!((&old, &new), (Some(old), Some(new)) if asked(old) == asked(new));
        if !same && self.pools.complete() {
            self.rescope();
            // Pools contradict each other, so what one asks for concerns all.
            self.wake_all();
        }
    }

    fn rescope(&self) {
        let scope = Scope::of(self.all_pools().iter().map(AsRef::as_ref));
        self.scope.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&scope);
            *known = Some(scope);
            changed
        });
    }

    /// A Node changed.
    pub fn node_told(&self, told: Told<RowChange<NodeRow>>) {
        let Told::Changed {
            change: RowChange { key, old, new },
            ..
        } = told
        else {
            return;
        };
        let now = Timestamp::now();
        let stamp = new.as_ref().and_then(|n| n.status_beat);
        let back = stamp.is_some_and(|stamp| self.heartbeats.note(&key, Sign::Status, stamp, now));
        let beat_only = matches!((&old, &new), (Some(old), Some(new)) if old.view == new.view);
        for (pool, ordinal) in self.pools_of(&key) {
            let uid = pool.metadata.uid.as_deref().unwrap_or_default();
            self.memories
                .see_node(uid, ordinal, new.as_ref().map(|n| &n.view), now);
            if !beat_only || back || self.memories.cordoned(uid) {
                self.wake(&pool);
            }
        }
        if !beat_only {
            self.cluster_queue.wake(CLUSTER_KEY);
        }
    }

    /// A Lease of a Node changed.
    pub fn lease_told(&self, told: Told<RowChange<Option<Timestamp>>>) {
        let Told::Changed {
            change: RowChange { key, new, .. },
            ..
        } = told
        else {
            return;
        };
        let Some(stamp) = new.and_then(|stamp| *stamp) else {
            return;
        };
        let node = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        let back = self.heartbeats.note(node, Sign::Lease, stamp, Timestamp::now());
        for (pool, _) in self.pools_of(node) {
            // Heartbeats come every 10 s from every node; they matter when one had been missed and while one is awaited.
            if back
                || self
                    .memories
                    .cordoned(pool.metadata.uid.as_deref().unwrap_or_default())
            {
                self.wake(&pool);
            }
        }
    }

    /// A pod changed.
    pub fn pod_told(&self, told: Told<PodChange>) {
        let Told::Changed { change, initial } = told else {
            return;
        };
        let now = Timestamp::now();
        let name = match &change {
            PodChange::Came { node, .. } | PodChange::Changed { node } | PodChange::Left { node } => node,
            PodChange::Provider(pod) => &pod.key.name,
            PodChange::ProviderLeft(key) => &key.name,
        };
        let beats = self.heartbeats.beats(name);
        for (pool, ordinal) in self.pools_of(name) {
            let uid = pool.metadata.uid.as_deref().unwrap_or_default();
            match &change {
                PodChange::Came { pod, .. } if !initial => {
                    self.memories
                        .see_arrival(uid, ordinal, pod, pool.spec.drain().cordon_settle, now);
                }
                PodChange::Came { .. } | PodChange::Changed { .. } | PodChange::ProviderLeft(_) => {}
                PodChange::Left { .. } => {
                    let rate = f64::from(pool.spec.drain().instance_deletes_per_second);
                    self.memories.see_departure(uid, ordinal, beats, rate, now);
                }
                PodChange::Provider(pod) => self.memories.see_provider(uid, ordinal, &pod.uid, beats),
            }
            self.wake(&pool);
        }
        if matches!(change, PodChange::Provider(_) | PodChange::ProviderLeft(_)) {
            self.cluster_queue.wake(CLUSTER_KEY);
        }
    }

    /// A budget changed.
    pub fn budget_told(&self, told: Told<RowChange<Budget>>) {
        let Told::Changed { .. } = told else { return };
        *self.budget_list.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for pool in self.all_pools() {
            if self
                .memories
                .cordoned(pool.metadata.uid.as_deref().unwrap_or_default())
            {
                self.wake(&pool);
            }
        }
    }

    /// A workload changed.
    pub fn workload_told(&self, told: Told<RowChange<vnp_plan::observed::Workload>>) {
        let Told::Changed {
            change: RowChange { key, .. },
            ..
        } = told
        else {
            return self.wake_all();
        };
        for pool in self.all_pools() {
            if scope::provider(&pool).is_some_and(|w| w.to_string() == key) {
                self.wake(&pool);
            }
        }
        self.cluster_queue.wake(CLUSTER_KEY);
    }

    /// A profile changed.
    pub fn profile_told(&self, _: Told<RowChange<ConfigMap>>) {
        self.wake_all();
    }

    /// Something rare changed that may concern every pool: a saved copy, a warning.
    pub fn rare_told<V>(&self, _: Told<RowChange<V>>) {
        self.wake_all();
    }
}

/// Metadata that people write.
trait Stripped {
    fn stripped(self) -> Self;
}

impl Stripped for kube::core::ObjectMeta {
    fn stripped(mut self) -> Self {
        self.resource_version = None;
        self
    }
}
