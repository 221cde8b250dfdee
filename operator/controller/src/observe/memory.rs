//! What this process remembers of drains, shared by the mirrors, the pool loop and the drain tasks. Losing it makes a
//! drain slower, never bolder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::VirtualNodePool;
use vnp_plan::drain::memory::{Departures, DrainMemory, Progress};
use vnp_plan::drain::returns::Returned;
use vnp_plan::drain::settle::Settle;
use vnp_plan::observed::{BoundPod, NodeView, Ordinal};

use crate::runtime::clock::Reading;

/// Memory of all pools.
#[derive(Debug, Default)]
pub struct DrainMemories(Mutex<Memories>);

#[derive(Debug, Default)]
struct Memories {
    /// By pool UID.
    pools: HashMap<String, PoolMemory>,
    /// The clock's corrections that have been taken over, and their sum.
    corrections: u64,
    correction: SignedDuration,
}

#[derive(Debug, Default)]
struct PoolMemory {
    /// Where an ordinal starts: what may have disappeared before this process looked.
    start: Departures,
    ordinals: BTreeMap<Ordinal, DrainMemory>,
}

impl PoolMemory {
    fn of(&mut self, ordinal: Ordinal) -> &mut DrainMemory {
        self.ordinals.entry(ordinal).or_insert_with(|| DrainMemory {
            departures: self.start.clone(),
            ..DrainMemory::default()
        })
    }
}

impl DrainMemories {
    fn lock(&self) -> MutexGuard<'_, Memories> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the memory of one ordinal, which begins when it is first asked for.
    pub fn with<R>(&self, pool_uid: &str, ordinal: Ordinal, f: impl FnOnce(&mut DrainMemory) -> R) -> R {
        let pools = &mut self.lock().pools;
        match pools.get_mut(pool_uid) {
            Some(pool) => f(pool.of(ordinal)),
            None => f(pools.entry(pool_uid.to_owned()).or_default().of(ordinal)),
        }
    }

    /// The memory of all ordinals of a pool.
    pub fn snapshot(&self, pool_uid: &str) -> BTreeMap<Ordinal, DrainMemory> {
        self.lock()
            .pools
            .get(pool_uid)
            .map(|pool| pool.ordinals.clone())
            .unwrap_or_default()
    }

    /// Meets a pool. What its status counts may all have disappeared while nobody looked, so the cloud may still have all
    /// of it to delete, from `now` on (design 4.7). A pool that was met before is left as it is.
    pub fn meet(&self, pool: &VirtualNodePool, now: Timestamp) {
        let Some(uid) = &pool.metadata.uid else { return };
        self.lock().pools.entry(uid.clone()).or_insert_with(|| {
            let status = pool.status.as_ref();
            let pods = status.and_then(|s| s.pods).unwrap_or(0);
            let total = status.and_then(|s| s.drain.as_ref()).map_or(0, |d| d.pods_total);
            let start = Departures::after_restart(u32::try_from(pods.max(total)).unwrap_or(0), now);
            let mut memory = PoolMemory {
                start,
                ordinals: BTreeMap::new(),
            };
            if let Some(drain) = status.and_then(|s| s.drain.as_ref()) {
                // What came back before this process began is not asked to leave again at once.
                for node in &drain.nodes {
                    memory.of(node.ordinal).returned = Returned::reported(drain, now);
                }
            }
            memory
        });
    }

    /// The clock was corrected, so what was timed by it may look longer than it was: cordons and nodes settle anew.
    pub fn corrected(&self, clock: Reading) {
        let mut memories = self.lock();
        if memories.corrections == clock.corrections {
            return;
        }
        let by = clock.correction - memories.correction;
        memories.corrections = clock.corrections;
        memories.correction = clock.correction;
        for pool in memories.pools.values_mut() {
            pool.start.clock_set(by, clock.now);
            for memory in pool.ordinals.values_mut() {
                memory.cordoned_since = None;
                memory.settle = None;
                memory.departures.clock_set(by, clock.now);
            }
        }
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool_uid: &str) {
        self.lock().pools.remove(pool_uid);
    }

    /// Whether a cordon of ours is in effect on a node of the pool.
    pub fn cordoned(&self, pool_uid: &str) -> bool {
        self.lock()
            .pools
            .get(pool_uid)
            .is_some_and(|p| p.ordinals.values().any(|m| m.cordoned_since.is_some()))
    }

    /// Notes the state of a Node, `None` when it is gone.
    pub fn see_node(&self, pool_uid: &str, ordinal: Ordinal, node: Option<&NodeView>, now: Timestamp) {
        self.with(pool_uid, ordinal, |m| {
            if let Some(node) = node.filter(|n| n.uid != m.node_uid) {
                m.node_uid.clone_from(&node.uid);
                m.cordoned_since = None;
                m.settle = None;
            }
            if node.is_some_and(|n| !n.holds_our_cordon()) {
                m.returned.forget();
            }
            let Some(node) = node.filter(|n| n.holds_our_cordon()) else {
                m.cordoned_since = None;
                return;
            };
            if m.cordon_term != node.cordon_term {
                m.cordon_term.clone_from(&node.cordon_term);
                m.cordoned_since = None;
            }
            m.cordoned_since.get_or_insert(now);
        });
    }

    /// Notes which provider pod there is, with the heartbeats of its Node so far.
    pub fn see_provider(&self, pool_uid: &str, ordinal: Ordinal, uid: &str, beats: u64) {
        self.with(pool_uid, ordinal, |m| m.see_provider(uid, beats));
    }

    /// Notes that a pod disappeared. All ordinals of all pools wait for its instance: there is one cloud account.
    pub fn see_departure(
        &self,
        pool_uid: &str,
        ordinal: Ordinal,
        beats: u64,
        per_second: f64,
        now: Timestamp,
    ) {
        self.with(pool_uid, ordinal, |m| m.see_departure(beats, per_second, now));
        for (uid, pool) in &mut self.lock().pools {
            pool.start.queue(1, per_second, now);
            for (other, memory) in &mut pool.ordinals {
                if uid != pool_uid || *other != ordinal {
                    memory.departures.queue(1, per_second, now);
                }
            }
        }
    }

    /// Notes that a pod is gone, and how it ended when its node drains: by the status, so that a process that does not lead knows it too.
    pub fn see_end(&self, pool: &VirtualNodePool, ordinal: Ordinal, pod: &BoundPod, now: Timestamp) {
        let uid = pool.metadata.uid.as_deref().unwrap_or_default();
        let drains = drains(pool, ordinal);
        self.with(uid, ordinal, |m| {
            m.returned.see_gone(pod);
            if drains {
                m.witness.see_gone(pod, now);
            }
        });
    }

    /// Forgets how pods ended on nodes that drain no more.
    pub fn forget_ends(&self, pool: &VirtualNodePool) {
        let uid = pool.metadata.uid.as_deref().unwrap_or_default();
        let mut memories = self.lock();
        let known = memories
            .pools
            .get_mut(uid)
            .into_iter()
            .flat_map(|p| &mut p.ordinals);
        for (_, memory) in known.filter(|(ordinal, _)| !drains(pool, **ordinal)) {
            memory.witness.forget();
        }
    }

    /// Notes that a pod appeared. It counts when the cordon had been in effect for `settle`: before, the scheduler may not
    /// have seen it. One that was made before the cordon replaces none of those that were evicted, however late it is seen.
    pub fn see_arrival(
        &self,
        pool_uid: &str,
        ordinal: Ordinal,
        pod: &BoundPod,
        settle: Duration,
        now: Timestamp,
    ) {
        self.with(pool_uid, ordinal, |m| {
            let Some(since) = m.cordoned_since else { return };
            let settle = SignedDuration::try_from(settle).unwrap_or(SignedDuration::MAX);
            let older = pod.created.is_some_and(|at| at < since);
            if now.duration_since(since) > settle && !older {
                m.returned.see(pod, now);
            }
        });
    }

    /// Takes over what a plan says: the settles that are valid, which ordinals drain, and how far they are. What belongs to a
    /// drain is forgotten for ordinals that don't; what the cloud has to delete is not. A plan made before the clock was
    /// corrected (see [`Self::corrected`]) begins no settle.
    pub fn take_plan(
        &self,
        pool_uid: &str,
        settles: &BTreeMap<Ordinal, Settle>,
        progress: &BTreeMap<Ordinal, Progress>,
        draining: &BTreeSet<Ordinal>,
        corrections: u64,
    ) {
        let mut memories = self.lock();
        let none = BTreeMap::new();
        let settles = if memories.corrections == corrections {
            settles
        } else {
            &none
        };
        let pool = memories.pools.entry(pool_uid.to_owned()).or_default();
        for ordinal in settles.keys() {
            pool.of(*ordinal);
        }
        for (ordinal, memory) in &mut pool.ordinals {
            memory.settle = settles.get(ordinal).cloned();
            memory.progress = progress.get(ordinal).copied();
            if !draining.contains(ordinal) {
                memory.returned.forget();
                memory.refusals.clear();
                memory.limited_by = None;
            }
        }
    }
}

fn drains(pool: &VirtualNodePool, ordinal: Ordinal) -> bool {
    let drain = pool.status.as_ref().and_then(|s| s.drain.as_ref());
    drain.is_some_and(|d| d.nodes.iter().any(|n| n.ordinal == ordinal))
}

#[cfg(test)]
mod tests {
    use vnp_plan::observed::{CordonOwner, ObjectKey, PodOwner};

    use super::*;

    const POOL: &str = "pool-uid";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn node(uid: &str, cordon_owner: CordonOwner) -> NodeView {
        NodeView {
            name: "v-2".into(),
            uid: uid.into(),
            labels: BTreeMap::new(),
            ready: true,
            unschedulable: cordon_owner != CordonOwner::Nobody,
            cordon_owner,
            ..NodeView::default()
        }
    }

    fn pod(kind: &str) -> BoundPod {
        let owner = PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: kind.into(),
            name: "agent".into(),
            uid: "o".into(),
        };
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "p".into(),
        };
        BoundPod {
            key,
            controller: Some(owner),
            ..BoundPod::default()
        }
    }

    fn pool(status: serde_json::Value) -> VirtualNodePool {
        let pool = serde_json::json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": "burst", "uid": POOL},
            "spec": {"region": "cn-hangzhou", "provider": {"type": "StatefulSet"},
                     "network": {"zones": [], "securityGroupId": "sg-1"}},
            "status": status,
        });
        serde_json::from_value(pool).unwrap()
    }

    #[test]
    fn a_cordon_counts_from_its_first_sight_and_anew_after_a_break() {
        let memories = DrainMemories::default();
        let since = || memories.snapshot(POOL)[&2].cordoned_since;
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(0));
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Both)), at(5));
        assert_eq!(since(), Some(at(0)));
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Others)), at(6));
        assert_eq!(since(), None);
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(7));
        assert_eq!(since(), Some(at(7)));
        memories.see_node(POOL, 2, Some(&node("b", CordonOwner::Us)), at(8));
        assert_eq!(since(), Some(at(8)), "another Node, another cordon");
        let next = NodeView {
            cordon_term: Some("2".into()),
            ..node("b", CordonOwner::Us)
        };
        memories.see_node(POOL, 2, Some(&next), at(9));
        memories.see_node(POOL, 2, Some(&next), at(10));
        assert_eq!(since(), Some(at(9)), "another leader, another cordon");
    }

    fn returns(memories: &DrainMemories) -> Vec<(String, u32)> {
        let memory = &memories.snapshot(POOL)[&2];
        memory
            .returned
            .controllers()
            .map(|(key, count)| (key.to_string(), count))
            .collect()
    }

    #[test]
    fn after_a_start_pods_that_came_back_before_are_left_alone() {
        let memories = DrainMemories::default();
        let status = serde_json::json!({"drain": {"summary": "1/1", "podsTotal": 1, "podsRemaining": 1,
            "podsTerminating": 0, "podsBlocked": 0, "limitedBy": "Rate",
            "nodes": [{"name": "v-2", "ordinal": 2, "phase": "Evicting", "startedAt": at(0).to_string(), "recordons": 0,
                       "podsTotal": 1, "podsRemaining": 1}],
            "blockers": [
                {"reason": "NewPodsKeepArriving", "object": "Deployment/shop/web", "pods": 1, "since": at(0).to_string(), "message": ""},
                {"reason": "BlockedByBudget", "object": "shop/web", "pods": 1, "since": at(0).to_string(), "message": ""}]}});
        memories.meet(&pool(status), at(0));
        assert_eq!(returns(&memories), [("Deployment/shop/web".to_owned(), 3)]);
    }

    #[test]
    fn only_pods_that_come_after_the_cordon_settled_are_arrivals() {
        let memories = DrainMemories::default();
        let settle = Duration::from_secs(5);
        memories.see_arrival(POOL, 2, &pod("ReplicaSet"), settle, at(0));
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(0));
        memories.see_arrival(POOL, 2, &pod("ReplicaSet"), settle, at(5));
        assert_eq!(memories.snapshot(POOL)[&2].returned.controllers().count(), 0);
        memories.see_arrival(POOL, 2, &pod("ReplicaSet"), settle, at(6));
        memories.see_arrival(POOL, 2, &pod("DaemonSet"), settle, at(6));
        assert_eq!(
            returns(&memories),
            [
                ("DaemonSet/shop/agent".to_owned(), 1),
                ("ReplicaSet/shop/agent".to_owned(), 1)
            ]
        );
        // A Node that was gone for a while, or is another one now, is the same place for its pods.
        memories.see_node(POOL, 2, None, at(7));
        memories.see_node(POOL, 2, Some(&node("b", CordonOwner::Us)), at(8));
        assert_eq!(returns(&memories).len(), 2);
        memories.see_node(POOL, 2, Some(&node("b", CordonOwner::Nobody)), at(9));
        assert_eq!(returns(&memories), [], "uncordoned, it takes pods again");
    }

    #[test]
    fn after_a_start_the_backlog_is_what_the_status_counts() {
        let memories = DrainMemories::default();
        let status = serde_json::json!({"pods": 120, "drain": {"summary": "1/300", "podsTotal": 300, "podsRemaining": 1,
            "podsTerminating": 0, "podsBlocked": 0, "limitedBy": "Rate"}});
        memories.meet(&pool(status), at(0));
        let backlog = memories.with(POOL, 7, |m| m.departures.backlog(2.0, at(0)));
        assert_eq!(backlog, SignedDuration::from_secs(100));
        memories.meet(&pool(serde_json::json!({"pods": 100_000})), at(50));
        let backlog = memories.with(POOL, 8, |m| m.departures.backlog(2.0, at(50)));
        assert_eq!(backlog, SignedDuration::from_secs(50), "it is met once");
    }

    #[test]
    fn a_drain_that_is_over_leaves_only_the_cloud_s_queue() {
        let memories = DrainMemories::default();
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(0));
        memories.see_arrival(POOL, 2, &pod("ReplicaSet"), Duration::ZERO, at(6));
        memories.see_departure(POOL, 2, 3, 2.0, at(7));
        let (none, far) = (
            BTreeMap::new(),
            BTreeMap::from([(
                2,
                Progress {
                    lasting: 4,
                    at: at(8),
                },
            )]),
        );
        memories.take_plan(POOL, &none, &far, &BTreeSet::from([2]), 0);
        assert_eq!(returns(&memories).len(), 1);
        assert_eq!(memories.snapshot(POOL)[&2].progress, far.get(&2).copied());
        memories.take_plan(POOL, &none, &BTreeMap::new(), &BTreeSet::new(), 0);
        let memory = &memories.snapshot(POOL)[&2];
        assert_eq!(
            (memory.progress, memory.departures.last),
            (None, Some((at(7), 3)))
        );
        assert_eq!(returns(&memories), []);
    }

    #[test]
    fn a_clock_that_is_corrected_makes_cordons_and_nodes_settle_anew() {
        let memories = DrainMemories::default();
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(0));
        let clock = Reading {
            now: at(3600),
            corrections: 1,
            correction: SignedDuration::from_hours(1),
        };
        memories.corrected(clock);
        assert_eq!(memories.snapshot(POOL)[&2].cordoned_since, None);
        memories.see_node(POOL, 2, Some(&node("a", CordonOwner::Us)), at(3601));
        memories.corrected(clock);
        assert_eq!(memories.snapshot(POOL)[&2].cordoned_since, Some(at(3601)), "once");

        // A plan from before the correction began its settle on the other time.
        let answer = vnp_plan::proof::ListAnswer {
            resource_version: Some("1".into()),
            ..Default::default()
        };
        #[expect(clippy::disallowed_methods, reason = "test support")]
        let list = vnp_plan::proof::QuorumList::complete(at(1), answer).unwrap();
        let settle = Settle::begin("2/a/0".into(), None, list, 0, vnp_crds::DaemonSetPods::Evict).unwrap();
        let settles = BTreeMap::from([(2, settle)]);
        for (corrections, kept) in [(0, false), (1, true)] {
            let draining = BTreeSet::from([2]);
            memories.take_plan(POOL, &settles, &BTreeMap::new(), &draining, corrections);
            assert_eq!(
                memories.snapshot(POOL)[&2].settle.is_some(),
                kept,
                "{corrections}"
            );
        }
    }

    #[test]
    fn how_pods_end_is_remembered_while_their_node_drains() {
        let memories = DrainMemories::default();
        let drain = serde_json::json!({"drain": {"summary": "0/1", "podsTotal": 1, "podsRemaining": 1, "podsTerminating": 0,
            "podsBlocked": 0, "limitedBy": "Rate", "nodes": [{"name": "v-2", "ordinal": 2, "phase": "Evicting",
            "startedAt": "2026-11-01T00:00:00Z", "recordons": 0, "podsTotal": 1, "podsRemaining": 1}]}});
        let (draining, over) = (pool(drain), pool(serde_json::json!({})));
        let known = |ordinal| {
            memories
                .snapshot(POOL)
                .get(&ordinal)
                .map_or(0, |m| m.witness.left().len())
        };
        memories.see_end(&over, 2, &pod("ReplicaSet"), at(0));
        memories.see_end(&draining, 1, &pod("ReplicaSet"), at(0));
        memories.see_end(&draining, 2, &pod("ReplicaSet"), at(0));
        assert_eq!((known(1), known(2)), (0, 1));
        memories.forget_ends(&draining);
        assert_eq!(known(2), 1);
        memories.forget_ends(&over);
        assert_eq!(known(2), 0);
    }

    #[test]
    fn the_instances_of_one_node_keep_the_cloud_busy_for_all() {
        let memories = DrainMemories::default();
        let now = Timestamp::UNIX_EPOCH;
        memories.with("other-pool", 0, |_| ());
        memories.with(POOL, 1, |_| ());
        for _ in 0..140 {
            memories.see_departure(POOL, 2, 7, 20.0, now);
        }
        let expected = SignedDuration::from_secs(2);
        for (pool, ordinal) in [(POOL, 2), (POOL, 1), (POOL, 5), ("other-pool", 0)] {
            let departures = memories.with(pool, ordinal, |m| m.departures.clone());
            assert_eq!(departures.backlog(20.0, now), expected, "{pool} {ordinal}");
            assert_eq!(departures.last.is_some(), (pool, ordinal) == (POOL, 2));
        }
    }
}
