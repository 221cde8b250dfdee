//! Everything that is mirrored and remembered, in one place, and what each change of it wakes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::{broadcast, watch};
use vnp_crds::{ProviderType, VirtualNodePool};
use vnp_plan::observed::{Budget, Ordinal, Recall};
use vnp_plan::placement::places;
use vnp_plan::profile::SetBackHistory;
use vnp_plan::rewritten::Rewrites;

use super::controllers::Controllers;
use super::heartbeat::{Heartbeats, Sign};
use super::kinds::{Audits, Budgets, Copies, Leases, NodeRow, Nodes, Pools, Profiles, Warnings, Workloads};
use super::memory::DrainMemories;
use super::mirror::{Mirror, RowChange, Table, Told};
use super::namespaces::{NamespaceList, Namespaces};
use super::overflow::Overflow;
use super::pods::{PodChange, PodShelf};
use super::scheduler::Scheduler;
use super::scope::{self, Scope};
use super::version::KubernetesVersion;
use super::wanted::WantedCounts;
use super::webhook::Webhook;
use crate::runtime::clock::Clock;
use crate::runtime::queue::Queue;

/// The only key of the cluster loop.
pub const CLUSTER_KEY: &str = "cluster";

/// Edits that may wait to be heard.
const EDITS: usize = 256;

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
    /// Labels of namespaces.
    pub namespaces: Mirrored<Namespaces>,
    /// StatefulSets by provider namespace.
    pub workloads: BTreeMap<String, Mirrored<Workloads>>,
    /// Copies in our own namespace.
    pub copies: Mirrored<Copies>,
    /// Audit trails in our own namespace.
    pub audits: Mirrored<Audits>,
    /// `eci-profile`.
    pub profile: Mirrored<Profiles>,
    /// `acs-profile`.
    pub acs_profile: Mirrored<Profiles>,
    /// Warnings about these.
    pub warnings: Mirrored<Warnings>,
    /// The vendor's scheduler.
    pub scheduler: Scheduler,
    /// Pods that may go to virtual nodes.
    pub overflow: Overflow,
    /// Which Kubernetes this is.
    pub kubernetes: KubernetesVersion,
    /// Kinds of the controllers of pods.
    pub controllers: Controllers,
    /// How many pods StatefulSets want.
    pub wanted: WantedCounts,
    /// The webhook.
    pub webhook: Webhook,
    /// What time it is.
    pub clock: Clock,
    /// Signs of life.
    pub heartbeats: Heartbeats,
    /// Memory of drains.
    pub memories: Arc<DrainMemories>,
    /// Memory of our writes to workloads, by pool UID.
    pub recalls: Mutex<HashMap<String, Recall>>,
    /// Profile values of ours that somebody replaced.
    pub profile_set_back: Mutex<SetBackHistory>,
    /// Profile keys that were written and stored with other values.
    pub profile_rewritten: Mutex<Rewrites>,
    /// Wakes the pool loop, by pool name.
    pub pool_queue: Queue,
    /// Wakes the cluster loop.
    pub cluster_queue: Queue,
    /// UIDs of pools whose spec, pause or deletion changed: what was ordered for them may not be wanted any more, and the
    /// pass that is under way does not know.
    pub edits: broadcast::Sender<String>,
    scope: watch::Sender<Option<Scope>>,
    /// What the mirrors of Nodes, Leases and Pods were complete for last.
    covered: RwLock<[Scope; 3]>,
    budget_list: Mutex<Option<Arc<Vec<Budget>>>>,
    pub(super) namespace_list: Mutex<Option<NamespaceList>>,
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
    pub fn new(
        provider_namespaces: &[String],
        pool_queue: Queue,
        cluster_queue: Queue,
        clock: Clock,
    ) -> Arc<Self> {
        let workloads = provider_namespaces
            .iter()
            .map(|n| (n.clone(), Mirror::new("StatefulSet", Table::new(Workloads))))
            .collect();
        Arc::new(Self {
            pools: Mirror::new("VirtualNodePool", Table::new(Pools)),
            nodes: Mirror::new("Node", Table::new(Nodes::default())),
            leases: Mirror::new("Lease", Table::new(Leases::default())),
            pods: Mirror::new("Pod", PodShelf::default()),
            budgets: Mirror::new("PodDisruptionBudget", Table::new(Budgets(clock.clone()))),
            namespaces: Mirror::new("Namespace", Table::new(Namespaces)),
            workloads,
            copies: Mirror::new("Secret", Table::new(Copies)),
            audits: Mirror::new("ConfigMap", Table::new(Audits)),
            profile: Mirror::new("ConfigMap", Table::new(Profiles)),
            acs_profile: Mirror::new("ConfigMap", Table::new(Profiles)),
            warnings: Mirror::new("Event", Table::new(Warnings)),
            scheduler: Scheduler::default(),
            overflow: Overflow::default(),
            kubernetes: KubernetesVersion::default(),
            controllers: Controllers::default(),
            wanted: WantedCounts::default(),
            webhook: Webhook::default(),
            clock,
            heartbeats: Heartbeats::default(),
            memories: Arc::default(),
            recalls: Mutex::default(),
            profile_set_back: Mutex::default(),
            profile_rewritten: Mutex::default(),
            pool_queue,
            cluster_queue,
            edits: broadcast::Sender::new(EDITS),
            scope: watch::Sender::new(None),
            covered: RwLock::default(),
            budget_list: Mutex::default(),
            namespace_list: Mutex::default(),
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

    /// Wakes the pool with that name, if there is one.
    pub fn wake_named(&self, name: &str) {
        if self.pools.read(|t| t.get(name)).is_some() {
            self.pool_queue.wake(name);
        }
    }

    pub(super) fn wake(&self, pool: &VirtualNodePool) {
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
        let RowChange { key, old, new } = match told {
            Told::Changed { change, .. } => change,
            Told::Complete => {
                self.rescope();
                self.place();
                self.wake_all();
                return;
            }
            // Which pools there are is not known.
            Told::Refused => return,
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
            self.memories.meet(pool, self.clock.now());
            self.memories.forget_ends(pool);
        }
        self.pool_queue.wake(&key);
        let asked = |pool: &VirtualNodePool| (pool.spec.clone(), pool.metadata.clone().stripped());
        let same = matches!((&old, &new), (Some(old), Some(new)) if asked(old) == asked(new));
        if let Some(edited) = uid(&old).filter(|_| !same) {
            // Nobody listens while this process does not lead, and nothing is ordered then.
            self.edits.send(edited).ok();
        }
        if !same {
            self.overflow.queue.wake(&key);
        }
        if !self.pools.complete() {
            return;
        }
        if !same {
            self.rescope();
            self.place();
            // Pools contradict each other, so what one asks for concerns all.
            self.wake_all();
        } else if old.as_deref().map(places) != new.as_deref().map(places) {
            self.place();
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
            initial,
        } = told
        else {
            self.see_virtual_nodes();
            return;
        };
        let clock = self.clock.read();
        let stamp = new.as_ref().and_then(|n| n.status_beat);
        let back = stamp.is_some_and(|stamp| self.heartbeats.note(&key, Sign::Status, stamp, clock));
        let beat_only = matches!((&old, &new), (Some(old), Some(new)) if old.view == new.view);
        for (pool, ordinal) in self.pools_of(&key) {
            let uid = pool.metadata.uid.as_deref().unwrap_or_default();
            self.memories
                .see_node(uid, ordinal, new.as_ref().map(|n| &n.view), clock.now);
            if !beat_only || back || self.memories.cordoned(uid) {
                self.wake(&pool);
            }
        }
        if !beat_only {
            self.cluster_queue.wake(CLUSTER_KEY);
            if !initial {
                self.see_virtual_nodes();
            }
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
        let back = self.heartbeats.note(node, Sign::Lease, stamp, self.clock.read());
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
        let now = self.clock.now();
        let name = match &change {
            PodChange::Member { nodes } => {
                if !initial {
                    self.member_told(nodes);
                }
                return;
            }
            PodChange::Waiting { pool } => return self.overflow.queue.wake(pool),
            PodChange::Came { node, .. } | PodChange::Changed { node } | PodChange::Left { node, .. } => node,
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
                PodChange::Came { .. }
                | PodChange::Changed { .. }
                | PodChange::Member { .. }
                | PodChange::Waiting { .. }
                | PodChange::ProviderLeft(_) => {}
                PodChange::Left { pod, .. } => {
                    let rate = f64::from(pool.spec.drain().instance_deletes_per_second);
                    self.memories.see_departure(uid, ordinal, beats, rate, now);
                    self.memories.see_end(&pool, ordinal, pod, now);
                }
                PodChange::Provider(pod) => self.memories.see_provider(uid, ordinal, &pod.uid, beats),
            }
            // The end of the first list wakes; before it nothing can be done.
            if !initial {
                self.wake(&pool);
            }
        }
        if matches!(change, PodChange::Provider(_) | PodChange::ProviderLeft(_)) {
            self.cluster_queue.wake(CLUSTER_KEY);
        }
    }

    /// How a pod elsewhere does matters to the pods of its StatefulSet on a node that drains.
    fn member_told(&self, nodes: &BTreeSet<String>) {
        for (pool, _) in nodes.iter().flat_map(|n| self.pools_of(n)) {
            if self
                .memories
                .cordoned(pool.metadata.uid.as_deref().unwrap_or_default())
            {
                self.wake(&pool);
            }
        }
    }

    /// A budget changed.
    pub fn budget_told(&self, told: Told<RowChange<Budget>>) {
        let Told::Changed { .. } = told else { return };
        *self.budget_list.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.wake_draining();
    }

    pub(super) fn wake_draining(&self) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};
    use tokio::time::timeout;
    use vnp_plan::observed::{BoundPod, CordonOwner, NodeView, ObjectKey, PodPhase, ProviderPod};
    use vnp_plan::placement::{LeftAlone, Need, Unfit, VirtualNodes};

    use super::*;
    use crate::observe::mirror::Shelf;
    use crate::runtime::metrics::Metrics;

    fn pool(name: &str, provider: &str, spec: Value) -> VirtualNodePool {
        let mut pool = json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"},
            "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                     "provider": {"type": "StatefulSet", "namespace": "kube-system", "name": provider}},
        });
        json_patch::merge(&mut pool["spec"], &spec);
        serde_json::from_value(pool).unwrap()
    }

    fn changed<C>(change: C) -> Told<C> {
        Told::Changed {
            change,
            initial: false,
        }
    }

    /// A cluster with pool `a` on provider `v` and pool `b` on provider `w`; nothing is due.
    async fn cluster() -> Arc<Cluster> {
        let queue = || Queue::new(Duration::ZERO);
        let cluster = Cluster::new(&["kube-system".to_owned()], queue(), queue(), Clock::of_host());
        put(&cluster, pool("a", "v", json!({})));
        put(&cluster, pool("b", "w", json!({})));
        cluster.pool_told(Told::Complete);
        assert_eq!(woken(&cluster).await, ["a", "b", "cluster"]);
        cluster
    }

    fn put(cluster: &Cluster, pool: VirtualNodePool) {
        for change in cluster.pools.write(|t| t.put(pool)) {
            cluster.pool_told(changed(change));
        }
    }

    /// Who is due now.
    async fn woken(cluster: &Cluster) -> Vec<String> {
        let mut names = Vec::new();
        for queue in [&cluster.pool_queue, &cluster.cluster_queue] {
            while let Ok(name) = timeout(Duration::from_millis(5), queue.next()).await {
                queue.done(&name);
                names.push(name);
            }
        }
        names.sort();
        names
    }

    fn node(owner: CordonOwner, beat: i64) -> Arc<NodeRow> {
        let unschedulable = owner != CordonOwner::Nobody;
        Arc::new(NodeRow {
            view: NodeView {
                name: "v-1".into(),
                uid: "n".into(),
                labels: BTreeMap::new(),
                ready: true,
                unschedulable,
                cordon_owner: owner,
                ..NodeView::default()
            },
            resource_version: beat.to_string(),
            status_beat: Timestamp::from_second(1_800_000_000 + beat).ok(),
        })
    }

    fn node_change(old: Option<Arc<NodeRow>>, new: Option<Arc<NodeRow>>) -> Told<RowChange<NodeRow>> {
        changed(RowChange {
            key: "v-1".into(),
            old,
            new,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_scope_is_known_when_the_pools_are_and_follows_them() {
        let cluster = Cluster::new(
            &[],
            Queue::new(Duration::ZERO),
            Queue::new(Duration::ZERO),
            Clock::of_host(),
        );
        assert_eq!(*cluster.scope().borrow(), None);
        put(&cluster, pool("a", "v", json!({})));
        assert_eq!(*cluster.scope().borrow(), None, "the list is not complete");
        cluster.pool_told(Told::Complete);
        assert!(cluster.scope().borrow().as_ref().unwrap().node("v-7"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_concerns_its_pool_and_a_spec_concerns_all() {
        let cluster = cluster().await;
        cluster
            .pools
            .write(|t| drop(t.put(pool("a", "v", json!({"replicas": 1})))));
        let old = cluster.pools.read(|t| t.get("a"));
        let mut with_status = pool("a", "v", json!({"replicas": 1}));
        with_status.status = Some(Default::default());
        with_status.metadata.resource_version = Some("2".into());
        let change = |old, new: VirtualNodePool| {
            changed(RowChange {
                key: "a".into(),
                old,
                new: Some(Arc::new(new)),
            })
        };
        cluster.pool_told(change(old.clone(), with_status));
        assert_eq!(woken(&cluster).await, ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_pods_become_follows_a_status_only_when_it_refuses_the_workload() {
        let cluster = cluster().await;
        let told = |conditions: Value| {
            let mut pool = pool("a", "v", json!({}));
            pool.status = serde_json::from_value(json!({"nodes": 0, "conditions": conditions})).unwrap();
            put(&cluster, pool);
            cluster.webhook.placing()
        };
        let listed = ["a", "b"].map(|name| Event::InitApply(pool(name, name, json!({})).into()));
        let listed = [Event::Init].into_iter().chain(listed).chain([Event::InitDone]);
        cluster
            .pools
            .follow(stream::iter(listed.map(Ok)), &Metrics::default(), |_| {})
            .await;
        told(json!([]));
        let before = cluster.webhook.placing();
        let accepted = told(json!([]));
        assert!(Arc::ptr_eq(&before, &accepted));
        let refused = told(
            json!([{"type": "Accepted", "status": "False", "reason": "Conflict", "message": "",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
        );
        assert!(!Arc::ptr_eq(&accepted, &refused));
        assert!(!Arc::ptr_eq(&refused, &told(json!([]))));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_come_and_go_wake_the_pool_and_are_remembered() {
        let cluster = cluster().await;
        cluster.node_told(node_change(None, Some(node(CordonOwner::Us, 0))));
        woken(&cluster).await;
        let pod = BoundPod {
            phase: PodPhase::Running,
            ..BoundPod::default()
        };
        cluster.pod_told(changed(PodChange::Came {
            node: "v-1".into(),
            pod: pod.clone(),
        }));
        assert_eq!(woken(&cluster).await, ["a"]);
        cluster.pod_told(changed(PodChange::Left {
            node: "v-1".into(),
            pod: pod.clone(),
        }));
        assert_eq!(woken(&cluster).await, ["a"], "a disappearance wakes too");
        let memory = &cluster.memories.snapshot("uid-a")[&1];
        assert!(memory.departures.last.is_some());
        assert!(memory.cordoned_since.is_some());
        assert!(memory.witness.left().is_empty(), "nothing drains");
    }

    #[tokio::test(start_paused = true)]
    async fn how_pods_leave_a_draining_node_is_kept_until_the_drain_is_over() {
        let cluster = cluster().await;
        let node = json!({"name": "v-1", "ordinal": 1, "phase": "Evicting", "startedAt": "2026-11-01T00:00:00Z",
                          "recordons": 0, "podsTotal": 1, "podsRemaining": 1});
        let mut draining = pool("a", "v", json!({}));
        draining.status = serde_json::from_value(
            json!({"drain": {"summary": "0/1", "podsTotal": 1, "podsRemaining": 1,
            "podsTerminating": 0, "podsBlocked": 0, "limitedBy": "Rate", "nodes": [node]}}),
        )
        .unwrap();
        put(&cluster, draining);
        let pod = BoundPod {
            uid: "1".into(),
            instance_id: Some("eci-1".into()),
            ..BoundPod::default()
        };
        let node = "v-1".to_owned();
        cluster.pod_told(changed(PodChange::Left { node, pod }));
        let left = || cluster.memories.snapshot("uid-a")[&1].witness.left().clone();
        assert_eq!(left()["1"].instance.as_deref(), Some("eci-1"));
        put(&cluster, pool("a", "v", json!({})));
        assert!(left().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_pod_concerns_its_pool_and_the_profile() {
        let cluster = cluster().await;
        let key = ObjectKey {
            namespace: "kube-system".into(),
            name: "w-0".into(),
        };
        let pod = ProviderPod {
            key: key.clone(),
            uid: "p".into(),
            ..ProviderPod::default()
        };
        cluster.pod_told(changed(PodChange::Provider(Arc::new(pod))));
        assert_eq!(woken(&cluster).await, ["b", "cluster"]);
        assert_eq!(
            cluster.memories.snapshot("uid-b")[&0]
                .provider
                .as_ref()
                .unwrap()
                .uid,
            "p"
        );
        cluster.pod_told(changed(PodChange::ProviderLeft(key)));
        assert_eq!(woken(&cluster).await, ["b", "cluster"]);
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_wake_only_where_they_are_waited_for() {
        let cluster = cluster().await;
        let beat = |from, to| {
            node_change(
                Some(node(CordonOwner::Nobody, from)),
                Some(node(CordonOwner::Nobody, to)),
            )
        };
        cluster.node_told(node_change(None, Some(node(CordonOwner::Nobody, 0))));
        woken(&cluster).await;
        cluster.node_told(beat(0, 10));
        woken(&cluster).await;
        cluster.node_told(beat(10, 20));
        assert_eq!(
            woken(&cluster).await,
            Vec::<String>::new(),
            "a node that is not drained"
        );
        assert_eq!(cluster.heartbeats.beats("v-1"), 2);
        cluster.node_told(node_change(
            Some(node(CordonOwner::Nobody, 20)),
            Some(node(CordonOwner::Us, 20)),
        ));
        woken(&cluster).await;
        cluster.node_told(node_change(
            Some(node(CordonOwner::Us, 20)),
            Some(node(CordonOwner::Us, 30)),
        ));
        assert_eq!(woken(&cluster).await, ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn members_and_namespaces_wake_only_pools_that_drain() {
        let cluster = cluster().await;
        let member = || {
            changed(PodChange::Member {
                nodes: BTreeSet::from(["v-1".to_owned()]),
            })
        };
        let namespace = || {
            changed(RowChange {
                key: "shop".to_owned(),
                old: None,
                new: Some(Arc::default()),
            })
        };
        cluster.pod_told(member());
        cluster.namespace_told(namespace());
        assert_eq!(woken(&cluster).await, Vec::<String>::new());
        cluster.node_told(node_change(None, Some(node(CordonOwner::Us, 0))));
        woken(&cluster).await;
        cluster.pod_told(member());
        assert_eq!(woken(&cluster).await, ["a"]);
        cluster.namespace_told(namespace());
        assert_eq!(woken(&cluster).await, ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_made_anew_starts_without_memory() {
        let cluster = cluster().await;
        cluster
            .memories
            .see_departure("uid-a", 1, 0, 2.0, Timestamp::now());
        let mut again = pool("a", "v", json!({}));
        again.metadata.uid = Some("uid-again".into());
        put(&cluster, again);
        assert!(cluster.memories.snapshot("uid-a").is_empty());
    }

    #[test]
    fn nothing_is_seen_of_a_pool_before_its_caches_are_complete() {
        let cluster = Cluster::new(
            &["kube-system".to_owned()],
            Queue::new(Duration::ZERO),
            Queue::new(Duration::ZERO),
            Clock::of_host(),
        );
        let a = pool("a", "v", json!({}));
        assert!(!cluster.covers(Scoped::Pods, &a));
        cluster.cover(Scoped::Pods, Scope::of([&pool("b", "w", json!({}))]));
        assert!(!cluster.covers(Scoped::Pods, &a), "complete for another pool");
        cluster.cover(Scoped::Pods, Scope::of([&a]));
        assert!(cluster.covers(Scoped::Pods, &a) && !cluster.covers(Scoped::Nodes, &a));
    }

    fn node_row(name: &str, labels: Value) -> crate::observe::wire::SlimNode {
        let node =
            json!({ "metadata": { "name": name, "uid": name, "resourceVersion": "1", "labels": labels } });
        serde_json::from_value(node).unwrap()
    }

    /// The webhook judges by what the watch of Nodes shows, virtual ones of no pool among them.
    #[tokio::test]
    async fn pods_are_held_against_all_virtual_nodes() {
        let cluster = cluster().await;
        let virtual_node = json!({ "type": "virtual-kubelet" });
        let objects = [
            node_row("reserved", virtual_node.clone()),
            node_row("host", json!({})),
        ];
        let events = [Event::Init]
            .into_iter()
            .chain(objects.map(|object| Event::InitApply(object.into())))
            .chain([Event::InitDone]);
        let told = cluster.clone();
        cluster
            .nodes
            .follow(stream::iter(events.map(Ok)), &Metrics::default(), move |t| {
                told.node_told(t)
            })
            .await;
        let expected = NodeView {
            name: "reserved".to_owned(),
            labels: serde_json::from_value(virtual_node).unwrap(),
            ..NodeView::default()
        };
        assert_eq!(*cluster.webhook.nodes(), VirtualNodes::of([&expected]));
    }

    #[tokio::test]
    async fn a_pod_left_alone_is_told_once_for_rule_and_reason() {
        let cluster = cluster().await;
        let left = |by: &str, why| LeftAlone {
            pool: "a".to_owned(),
            by: by.to_owned(),
            why,
            placed: false,
        };
        cluster.pod_left_alone(left("a/all", Unfit::NodeChoice), "shop/one".to_owned());
        assert_eq!(woken(&cluster).await, ["a"]);
        cluster.pod_left_alone(left("a/all", Unfit::NodeChoice), "shop/two".to_owned());
        assert_eq!(woken(&cluster).await, [""; 0], "nothing new");
        cluster.pod_left_alone(left("a/all", Unfit::Need(Need::HostPid)), "shop/two".to_owned());
        assert_eq!(woken(&cluster).await, ["a"]);
        let now = cluster.clock.now();
        let pods: Vec<String> = cluster
            .webhook
            .left_alone("a", now)
            .into_iter()
            .map(|left| left.pod)
            .collect();
        assert_eq!(pods, ["shop/two", "shop/one"]);
        assert_eq!(cluster.webhook.left_alone("b", now), []);
        let later = now + jiff::SignedDuration::from_mins(61);
        assert_eq!(cluster.webhook.left_alone("a", later), []);
    }
}
