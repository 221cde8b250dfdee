//! The mirror of Pods. One watch over the whole cluster, although one per virtual node would carry less: pods bound to
//! ordinals that nobody expects must be seen too (design 4.10), and these can't be listed by names in advance.
//!
//! Kept are pods bound to a node of a pool, provider pods, pods without a node that may overflow to a pool, and of the pods
//! of StatefulSets whether they serve; everything else is dropped while it is parsed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use vnp_plan::observed::{BoundPod, Members, ObjectKey, ProviderPod, WaitingPod};
use vnp_plan::overflow::overflows;
use vnp_plan::room::Needs;

use super::members::MemberShelf;
use super::mirror::Shelf;
use super::read::Unreadable;
use super::scope::Scope;
use super::wire::SlimPod;

/// Pods by node, and provider pods by key. The vectors are shared with the passes, so that 3,000 pods on a node are in
/// memory once.
#[derive(Debug, Default)]
pub struct PodShelf {
    /// What to keep.
    pub scope: Scope,
    bound: BTreeMap<String, Arc<Vec<BoundPod>>>,
    providers: BTreeMap<ObjectKey, Arc<ProviderPod>>,
    members: MemberShelf,
    waiting: BTreeMap<ObjectKey, WaitingPod>,
    /// What pods ask of their node, once for all that are alike.
    needs: HashSet<Arc<Needs>>,
}

/// What happened to a pod.
#[derive(Debug, PartialEq)]
pub enum PodChange {
    /// A pod was bound to a node.
    Came {
        /// The node.
        node: String,
        /// The pod.
        pod: BoundPod,
    },
    /// A pod on a node is not what it was.
    Changed {
        /// The node.
        node: String,
    },
    /// A pod disappeared.
    Left {
        /// The node.
        node: String,
        /// The pod as it was seen last.
        pod: BoundPod,
    },
    /// A provider pod is there, or is not what it was.
    Provider(Arc<ProviderPod>),
    /// A provider pod disappeared.
    ProviderLeft(ObjectKey),
    /// A pod that waits for a node may go to a virtual one of this pool.
    Waiting {
        /// The pool.
        pool: String,
    },
    /// A pod of a StatefulSet with pods on these nodes serves now, or does so no longer.
    Member {
        /// The nodes.
        nodes: BTreeSet<String>,
    },
}

impl PodShelf {
    /// The pods bound to a node, sorted.
    pub fn on(&self, node: &str) -> Option<&Arc<Vec<BoundPod>>> {
        self.bound.get(node)
    }

    /// The nodes that pods are bound to, and these pods.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Arc<Vec<BoundPod>>)> {
        self.bound.iter().map(|(node, pods)| (node.as_str(), pods))
    }

    /// The provider pods.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<ProviderPod>> {
        self.providers.values()
    }

    /// The pods without a node that may go to virtual nodes of the pool.
    pub fn waiting(&self, pool: &str) -> Vec<WaitingPod> {
        let ours = self.waiting.values().filter(|p| p.pool == pool);
        ours.cloned().collect()
    }

    /// The pods of the StatefulSet with that UID.
    pub fn members(&self, uid: &str) -> Option<&Arc<Members>> {
        self.members.of(uid)
    }

    fn put_bound(&mut self, node: String, mut pod: BoundPod, changes: &mut Vec<PodChange>) {
        match self.needs.get(&pod.needs) {
            Some(known) => pod.needs = known.clone(),
            None => drop(self.needs.insert(pod.needs.clone())),
        }
        let pods = self.bound.entry(node.clone()).or_default();
        let at = pods.binary_search_by(|p| p.key.cmp(&pod.key));
        if let Some(before) = at.ok().map(|at| &pods[at]).filter(|p| p.uid == pod.uid) {
            pod.before_deletion = pod.before_deletion.or(before.before_deletion);
            pod.evicted |= before.evicted;
        }
        match at {
            Ok(at) if pods[at] == pod => {}
            Ok(at) if pods[at].uid == pod.uid => {
                Arc::make_mut(pods)[at] = pod;
                changes.push(PodChange::Changed { node });
            }
            Ok(at) => {
                // Same name, another pod: the first one's end was not seen.
                let gone = std::mem::replace(&mut Arc::make_mut(pods)[at], pod.clone());
                changes.push(PodChange::Left {
                    node: node.clone(),
                    pod: gone,
                });
                changes.push(PodChange::Came { node, pod });
            }
            Err(at) => {
                Arc::make_mut(pods).insert(at, pod.clone());
                changes.push(PodChange::Came { node, pod });
            }
        }
    }
}

impl Shelf for PodShelf {
    type Object = SlimPod;
    type Change = PodChange;

    fn wants(&self, pod: &SlimPod) -> bool {
        pod.node.as_deref().is_some_and(|n| self.scope.node(n))
            || self
                .scope
                .provider_pod(&pod.bound.key.namespace, &pod.bound.key.name)
            || pod.bound.stateful_set().is_some()
            || pod.waiting.is_some()
    }

    fn put(&mut self, pod: SlimPod) -> Vec<PodChange> {
        let mut changes = Vec::new();
        match pod.waiting.clone() {
            Some(waiting) => {
                if overflows(&waiting) {
                    let pool = waiting.pool.clone();
                    changes.push(PodChange::Waiting { pool });
                }
                self.waiting.insert(waiting.key.clone(), waiting);
            }
            None => drop(self.waiting.remove(&pod.bound.key)),
        }
        let home = pod.node.as_deref().filter(|n| self.scope.node(n));
        changes.extend(member_change(self.members.put(&pod, home)));
        if let Some(node) = pod.node.clone().filter(|n| self.scope.node(n)) {
            self.put_bound(node, pod.bound.clone(), &mut changes);
        }
        if self
            .scope
            .provider_pod(&pod.bound.key.namespace, &pod.bound.key.name)
        {
            let provider = Arc::new(pod.provider());
            let before = self.providers.insert(provider.key.clone(), provider.clone());
            if before.as_ref() != Some(&provider) {
                changes.push(PodChange::Provider(provider));
            }
        }
        changes
    }

    fn take(&mut self, pod: &SlimPod) -> Vec<PodChange> {
        let mut changes = Vec::new();
        self.waiting.remove(&pod.bound.key);
        if let Some((node, pods)) = pod.node.as_ref().and_then(|n| Some((n, self.bound.get_mut(n)?)))
            && let Ok(at) = pods.binary_search_by(|p| p.key.cmp(&pod.bound.key))
        {
            let pod = Arc::make_mut(pods).remove(at);
            changes.push(PodChange::Left {
                node: node.clone(),
                pod,
            });
        }
        if let Some(provider) = self.providers.remove(&pod.bound.key) {
            changes.push(PodChange::ProviderLeft(provider.key.clone()));
        }
        changes.extend(member_change(self.members.take(pod)));
        self.drop_empty();
        changes
    }

    fn retain(&mut self, uids: &HashSet<String>) -> Vec<PodChange> {
        let mut changes = Vec::new();
        self.waiting.retain(|_, pod| uids.contains(&pod.uid));
        for (node, pods) in &mut self.bound {
            if pods.iter().all(|p| uids.contains(&p.uid)) {
                continue;
            }
            let gone = Arc::make_mut(pods).extract_if(.., |p| !uids.contains(&p.uid));
            changes.extend(gone.map(|pod| PodChange::Left {
                node: node.clone(),
                pod,
            }));
        }
        self.providers.retain(|key, pod| {
            let stays = uids.contains(&pod.uid);
            if !stays {
                changes.push(PodChange::ProviderLeft(key.clone()));
            }
            stays
        });
        changes.extend(member_change(self.members.retain(uids)));
        self.drop_empty();
        self.needs.retain(|needs| Arc::strong_count(needs) > 1);
        changes
    }

    fn put_unreadable(&mut self, object: &Unreadable) -> Option<Vec<PodChange>> {
        let pod = SlimPod::worst(object);
        self.wants(&pod).then(|| self.put(pod))
    }

    fn take_unreadable(&mut self, object: &Unreadable) -> Vec<PodChange> {
        self.take(&SlimPod::worst(object))
    }
}

fn member_change(nodes: BTreeSet<String>) -> Option<PodChange> {
    (!nodes.is_empty()).then_some(PodChange::Member { nodes })
}

impl PodShelf {
    fn drop_empty(&mut self) {
        self.bound.retain(|_, pods| !pods.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vnp_crds::VirtualNodePool;
    use vnp_plan::observed::PodPhase;

    use super::*;
    use crate::observe::read::Read;

    fn shelf() -> PodShelf {
        let pool: VirtualNodePool = serde_json::from_value(json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool", "metadata": {"name": "burst"},
            "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                     "provider": {"type": "StatefulSet", "namespace": "kube-system", "name": "v"}},
        }))
        .unwrap();
        PodShelf {
            scope: Scope::of([&pool]),
            ..PodShelf::default()
        }
    }

    fn pod(namespace: &str, name: &str, uid: &str, node: &str, phase: &str) -> SlimPod {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "1"},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn put(shelf: &mut PodShelf, pod: SlimPod) -> Vec<PodChange> {
        if shelf.wants(&pod) {
            shelf.put(pod)
        } else {
            Vec::new()
        }
    }

    /// The nodes and UIDs of the pods that left, when nothing else happened.
    fn left(changes: &[PodChange]) -> Option<Vec<(&str, &str)>> {
        changes
            .iter()
            .map(|change| match change {
                PodChange::Left { node, pod } => Some((node.as_str(), pod.uid.as_str())),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_pod_waits_for_its_pool_until_it_has_a_node_or_is_gone() {
        let waiting = |node: Value, reason: &str| -> SlimPod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": "a", "uid": "1", "resourceVersion": "1",
                             "labels": {"virtualnodes.dev/overflow": "burst"}},
                "spec": {"nodeName": node}, "status": {"conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": reason}]},
            }))
            .unwrap()
        };
        let told = [PodChange::Waiting { pool: "burst".into() }];
        let mut shelf = shelf();
        assert_eq!(put(&mut shelf, waiting(json!(null), "SchedulerError")), []);
        assert_eq!(put(&mut shelf, waiting(json!(null), "Unschedulable")), told);
        assert_eq!(
            (shelf.waiting("burst").len(), shelf.waiting("other").len()),
            (1, 0)
        );
        let bound = waiting(json!("host"), "");
        assert!(!shelf.wants(&bound), "an ordinary node took it");
        assert_eq!(shelf.take(&bound), []);
        assert!(shelf.waiting("burst").is_empty());
        put(&mut shelf, waiting(json!(null), "Unschedulable"));
        put(&mut shelf, waiting(json!("v-0"), ""));
        assert!(shelf.waiting("burst").is_empty(), "a virtual one did");
        put(&mut shelf, waiting(json!(null), "Unschedulable"));
        shelf.retain(&HashSet::new());
        assert!(shelf.waiting("burst").is_empty(), "gone while nobody watched");
    }

    #[test]
    fn a_pod_that_leaves_is_told_as_it_was_before_its_deletion() {
        let mut shelf = shelf();
        let version = |change: Value| -> SlimPod {
            let mut pod = json!({
                "metadata": {"namespace": "shop", "name": "a", "uid": "1",
                             "annotations": {"k8s.aliyun.com/eci-instance-id": "eci-1"}},
                "spec": {"nodeName": "v-0"}, "status": {"phase": "Running"},
            });
            json_patch::merge(&mut pod, &change);
            serde_json::from_value(pod).unwrap()
        };
        let evicted =
            json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
        let deletion = json!({"deletionTimestamp": "2026-11-01T00:00:30Z"});
        put(&mut shelf, version(json!({})));
        put(&mut shelf, version(json!({"status": {"conditions": evicted}})));
        put(
            &mut shelf,
            version(json!({"metadata": deletion, "status": {"conditions": evicted}})),
        );
        // The provider replaces the whole status, and says that the pod has failed while it takes it down.
        let last = version(json!({"metadata": deletion, "status": {"phase": "Failed"}}));
        put(&mut shelf, last.clone());
        let changes = shelf.take(&last);
        let [PodChange::Left { pod, .. }] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!(pod.before_deletion, Some(PodPhase::Running));
        assert!(pod.evicted);
        assert_eq!(pod.instance_id.as_deref(), Some("eci-1"));
        // A pod of the same name has nothing of that.
        let mut next = version(json!({"metadata": deletion}));
        next.bound.uid = "2".into();
        put(&mut shelf, next);
        let next = &shelf.on("v-0").unwrap()[0];
        assert_eq!((next.before_deletion, next.evicted), (None, false));
    }

    #[test]
    fn pods_of_the_pool_s_nodes_and_its_providers_are_kept() {
        let mut shelf = shelf();
        let came = put(&mut shelf, pod("shop", "b", "1", "v-0", "Pending"));
        assert!(matches!(&came[..], [PodChange::Came { node, .. }] if node == "v-0"));
        assert!(put(&mut shelf, pod("shop", "c", "2", "host-1", "Running")).is_empty());
        assert!(
            put(&mut shelf, pod("shop", "v-1", "3", "host-1", "Running")).is_empty(),
            "another namespace"
        );
        let provider = put(&mut shelf, pod("kube-system", "v-1", "4", "host-1", "Running"));
        assert!(matches!(&provider[..], [PodChange::Provider(_)]));
        put(&mut shelf, pod("shop", "a", "5", "v-0", "Running"));
        let names: Vec<_> = shelf
            .on("v-0")
            .unwrap()
            .iter()
            .map(|p| p.key.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_pods_ask_of_their_node_is_kept_once() {
        let mut shelf = shelf();
        for name in ["a", "b"] {
            put(&mut shelf, pod("shop", name, name, "v-0", "Running"));
        }
        let pods = shelf.on("v-0").unwrap();
        assert!(Arc::ptr_eq(&pods[0].needs, &pods[1].needs));
        // The pods that are told to have left still hold theirs; the list after that drops them.
        assert_eq!(shelf.retain(&HashSet::new()).len(), 2);
        assert!(shelf.retain(&HashSet::new()).is_empty());
        assert!(shelf.needs.is_empty());
    }

    #[test]
    fn a_pod_that_cannot_be_read_counts_on_its_node_and_as_its_provider() {
        let unreadable = |namespace: &str, name: &str, node: &str| -> Unreadable {
            let raw = json!({
                "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": {"app": "a", "n": 1},
                             "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "set",
                                                  "controller": true}, 7]},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": "long"}, "status": {"phase": "Succeeded"},
            });
            match serde_json::from_str::<Read<SlimPod>>(&raw.to_string()).unwrap() {
                Read::Unreadable(object) => *object,
                Read::Object(pod) => panic!("{pod:?}"),
            }
        };
        let mut shelf = shelf();
        let bad = unreadable("shop", "a", "v-0");
        let came = shelf.put_unreadable(&bad).unwrap();
        assert!(
            came.iter()
                .any(|c| matches!(c, PodChange::Came { node, .. } if node == "v-0")),
            "{came:?}"
        );
        let pod = &shelf.on("v-0").unwrap()[0];
        assert!(
            pod.unreadable && !pod.finished() && !pod.mirror && !pod.never_started && pod.requires_virtual
        );
        assert_eq!(pod.labels, BTreeMap::from([("app".to_owned(), "a".to_owned())]));
        assert_eq!(pod.stateful_set().unwrap().uid, "set");
        assert_eq!(shelf.members("set").unwrap().len(), 1);
        assert_eq!(shelf.put_unreadable(&bad), Some(Vec::new()), "nothing new");
        let left = shelf.take_unreadable(&bad);
        assert!(
            left.iter().any(|c| matches!(c, PodChange::Left { .. })),
            "{left:?}"
        );
        assert!(shelf.on("v-0").is_none());
        shelf
            .put_unreadable(&unreadable("kube-system", "v-1", "host"))
            .unwrap();
        let provider = shelf.providers().next().unwrap();
        assert!(provider.unreadable && !provider.ready);
    }

    #[test]
    fn a_pod_that_did_not_change_for_us_is_not_told() {
        let mut shelf = shelf();
        put(&mut shelf, pod("shop", "a", "1", "v-0", "Running"));
        assert!(put(&mut shelf, pod("shop", "a", "1", "v-0", "Running")).is_empty());
        assert_eq!(
            put(&mut shelf, pod("shop", "a", "1", "v-0", "Failed")),
            [PodChange::Changed { node: "v-0".into() }]
        );
    }

    #[test]
    fn a_pod_replaced_under_its_name_left_and_came() {
        let mut shelf = shelf();
        put(&mut shelf, pod("shop", "a-0", "1", "v-0", "Running"));
        let changes = put(&mut shelf, pod("shop", "a-0", "2", "v-0", "Running"));
        assert!(matches!(
            &changes[..],
            [PodChange::Left { .. }, PodChange::Came { .. }]
        ));
        // On another node, the end of the first one shows in the next list.
        put(&mut shelf, pod("shop", "a-0", "3", "v-1", "Running"));
        let changes = shelf.retain(&HashSet::from(["3".to_owned()]));
        assert_eq!(left(&changes), Some(vec![("v-0", "2")]));
        assert!(shelf.on("v-0").is_none());
    }

    #[test]
    fn what_disappears_is_told_once() {
        let mut shelf = shelf();
        put(&mut shelf, pod("shop", "a", "1", "v-0", "Running"));
        put(&mut shelf, pod("kube-system", "v-1", "2", "host-1", "Running"));
        let changes = shelf.take(&pod("shop", "a", "1", "v-0", "Running"));
        assert_eq!(left(&changes), Some(vec![("v-0", "1")]));
        assert!(shelf.take(&pod("shop", "a", "1", "v-0", "Running")).is_empty());
        let key = ObjectKey {
            namespace: "kube-system".into(),
            name: "v-1".into(),
        };
        assert_eq!(shelf.retain(&HashSet::new()), [PodChange::ProviderLeft(key)]);
    }

    #[test]
    fn a_snapshot_stays_what_it_was() {
        let mut shelf = shelf();
        put(&mut shelf, pod("shop", "a", "1", "v-0", "Running"));
        let snapshot = shelf.on("v-0").unwrap().clone();
        put(&mut shelf, pod("shop", "b", "2", "v-0", "Running"));
        assert_eq!((snapshot.len(), shelf.on("v-0").unwrap().len()), (1, 2));
    }
}
