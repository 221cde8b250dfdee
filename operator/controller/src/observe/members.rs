//! Which pods of each StatefulSet serve. Pods of a StatefulSet without a budget leave a virtual node one at a time, and a
//! replacement may run anywhere, so the pods of all StatefulSets are kept, each as a name, a UID and a state: which
//! StatefulSets matter shows only when all pods are listed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use vnp_plan::observed::{Member, MemberState, Members};

use super::wire::SlimPod;

/// The pods of all StatefulSets.
#[derive(Debug, Default)]
pub struct MemberShelf {
    sets: BTreeMap<String, Set>,
    /// UID of the StatefulSet by UID of the pod.
    owners: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Set {
    members: Arc<Members>,
    /// Nodes of pools by the names of the pods that are bound to them.
    homes: BTreeMap<String, String>,
}

impl Set {
    fn nodes(&self) -> BTreeSet<String> {
        self.homes.values().cloned().collect()
    }
}

impl MemberShelf {
    /// The pods of the StatefulSet with that UID.
    pub fn of(&self, uid: &str) -> Option<&Arc<Members>> {
        self.sets.get(uid).map(|set| &set.members)
    }

    /// Adds or replaces a pod; `home` is its node when that belongs to a pool. Returns the nodes of pools to which pods of
    /// its StatefulSet are bound, when something changed for them.
    pub fn put(&mut self, pod: &SlimPod, home: Option<&str>) -> BTreeSet<String> {
        let owner = pod.bound.stateful_set().map(|o| o.uid.clone());
        let uid = &pod.bound.uid;
        let mut told = BTreeSet::new();
        if self
            .owners
            .get(uid)
            .is_some_and(|known| Some(known) != owner.as_ref())
        {
            // Orphaned or adopted: it is none of the StatefulSet's any more.
            told.extend(self.forget(uid, None));
        }
        let Some(owner) = owner else { return told };
        self.owners.insert(uid.clone(), owner.clone());
        let set = self.sets.entry(owner).or_default();
        let name = &pod.bound.key.name;
        match home {
            Some(node) => set.homes.insert(name.clone(), node.to_owned()),
            None => set.homes.remove(name),
        };
        let member = pod.member();
        match set.members.get(name) {
            Some(known) if *known == member => return told,
            Some(known) if known.uid != member.uid => drop(self.owners.remove(&known.uid)),
            _ => {}
        }
        Arc::make_mut(&mut set.members).insert(name.clone(), member);
        told.extend(set.nodes());
        told
    }

    /// Removes a pod. As long as pods of its StatefulSet are on virtual nodes, it is remembered as gone.
    pub fn take(&mut self, pod: &SlimPod) -> BTreeSet<String> {
        self.forget(&pod.bound.uid, Some(pod.gone()))
    }

    /// Removes all pods but those with these UIDs. When the others went, and how, nobody saw; a replacement that is still
    /// wanted shows in the list that did not show them.
    pub fn retain(&mut self, uids: &HashSet<String>) -> BTreeSet<String> {
        let lost: Vec<String> = self
            .owners
            .keys()
            .filter(|u| !uids.contains(*u))
            .cloned()
            .collect();
        lost.iter().flat_map(|uid| self.forget(uid, None)).collect()
    }

    fn forget(&mut self, uid: &str, gone: Option<Member>) -> BTreeSet<String> {
        let Some(owner) = self.owners.remove(uid) else {
            return BTreeSet::new();
        };
        let Some(set) = self.sets.get_mut(&owner) else {
            return BTreeSet::new();
        };
        let name = set
            .members
            .iter()
            .find(|(_, m)| m.uid == uid)
            .map(|(n, _)| n.clone());
        if let Some(name) = name {
            set.homes.remove(&name);
            let members = Arc::make_mut(&mut set.members);
            match gone {
                Some(gone) => drop(members.insert(name, gone)),
                None => drop(members.remove(&name)),
            }
        }
        let told = set.nodes();
        if set.homes.is_empty() {
            Arc::make_mut(&mut set.members).retain(|_, m| !matches!(m.state, MemberState::Gone { .. }));
        }
        if set.members.is_empty() {
            self.sets.remove(&owner);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, ready: bool) -> SlimPod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": uid, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "set", "controller": true}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                                       "lastTransitionTime": "2026-11-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    fn ended(name: &str, uid: &str, disrupted: bool) -> SlimPod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": uid, "deletionTimestamp": "2026-11-01T00:01:00Z"},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": if disrupted { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn states(shelf: &MemberShelf) -> Vec<(String, MemberState)> {
        let members = shelf.of("set").cloned().unwrap_or_default();
        members.iter().map(|(n, m)| (n.clone(), m.state)).collect()
    }

    #[test]
    fn changes_are_told_to_the_nodes_where_the_statefulset_has_pods() {
        let mut shelf = MemberShelf::default();
        assert!(
            shelf.put(&pod("db-0", "0", true), None).is_empty(),
            "no pod on a virtual node"
        );
        let node = BTreeSet::from(["v-1".to_owned()]);
        assert_eq!(shelf.put(&pod("db-1", "1", true), Some("v-1")), node);
        assert!(
            shelf.put(&pod("db-0", "0", true), None).is_empty(),
            "nothing changed"
        );
        assert_eq!(shelf.put(&pod("db-0", "0", false), None), node);
        assert_eq!(
            states(&shelf),
            [
                ("db-0".to_owned(), MemberState::NotReady),
                ("db-1".to_owned(), MemberState::Ready)
            ]
        );
    }

    #[test]
    fn a_pod_that_went_is_remembered_until_its_replacement_comes() {
        let mut shelf = MemberShelf::default();
        shelf.put(&pod("db-0", "0", true), Some("v-0"));
        shelf.put(&pod("db-1", "1", true), Some("v-1"));
        shelf.take(&ended("db-1", "1", true));
        let gone = MemberState::Gone { disrupted: true };
        assert_eq!(states(&shelf)[1], ("db-1".to_owned(), gone));
        shelf.put(&pod("db-1", "2", false), None);
        assert_eq!(states(&shelf)[1].1, MemberState::NotReady);
        // The one before is not taken for the one now.
        assert!(shelf.take(&ended("db-1", "1", true)).is_empty());
        assert_eq!(states(&shelf)[1].1, MemberState::NotReady);
        shelf.take(&ended("db-1", "2", false));
        assert_eq!(states(&shelf)[1].1, MemberState::Gone { disrupted: false });
    }

    #[test]
    fn nothing_is_kept_of_a_statefulset_that_is_gone() {
        let mut shelf = MemberShelf::default();
        shelf.put(&pod("db-0", "0", true), Some("v-0"));
        shelf.put(&pod("db-1", "1", true), None);
        shelf.take(&ended("db-1", "1", false));
        shelf.take(&ended("db-0", "0", false));
        assert!(shelf.sets.is_empty() && shelf.owners.is_empty(), "{shelf:?}");

        shelf.put(&pod("db-0", "0", true), Some("v-0"));
        shelf.retain(&HashSet::new());
        assert!(shelf.sets.is_empty() && shelf.owners.is_empty(), "{shelf:?}");
    }

    #[test]
    fn an_orphan_is_no_member() {
        let mut shelf = MemberShelf::default();
        shelf.put(&pod("db-0", "0", true), Some("v-0"));
        shelf.put(&pod("db-1", "1", true), None);
        assert!(!shelf.put(&ended("db-1", "1", false), None).is_empty());
        assert_eq!(states(&shelf), [("db-0".to_owned(), MemberState::Ready)]);
    }
}
