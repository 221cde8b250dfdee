//! The account book of the cloud: which instances were ever there, and which still cost money.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Id of an instance, as `k8s.aliyun.com/eci-instance-id` shows it: `eci-` and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(usize);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eci-{:08}", self.0)
    }
}

/// The pod an instance was created for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: a pod of the same name created again is another pod.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A moment: its place in the order of all ledger entries, and the wall time to compare it with the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Strictly increasing over the whole ledger.
    pub sequence: u64,
    /// Wall time.
    pub time: Timestamp,
}

/// A container instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The node it is tagged with.
    pub node: String,
    /// The pod it is tagged with.
    pub pod: PodRef,
    /// Since when it costs money.
    pub created: Mark,
    /// Since when it doesn't.
    pub deleted: Option<Mark>,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} on {} for {} ({})",
            self.id, self.node, self.pod, self.pod.uid
        )
    }
}

/// One line of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerEvent {
    /// When.
    pub mark: Mark,
    /// What happened to it.
    pub kind: LedgerEventKind,
    /// To which instance.
    pub id: InstanceId,
    /// On which node.
    pub node: String,
    /// For which pod.
    pub pod: PodRef,
}

/// What happened to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerEventKind {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
}

/// All instances of the account, dead and alive. Only the cloud writes it.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    // An InstanceId is an index here.
    instances: Vec<Instance>,
    sequence: u64,
}

impl Book {
    fn mark(&mut self) -> Mark {
        self.sequence += 1;
        Mark {
            sequence: self.sequence,
            time: Timestamp::now(),
        }
    }
}

impl Ledger {
    pub(crate) fn record_creation(&self, node: &str, pod: PodRef) -> InstanceId {
        let mut book = self.lock();
        let id = InstanceId(book.instances.len());
        let created = book.mark();
        book.instances.push(Instance {
            id,
            node: node.to_owned(),
            pod,
            created,
            deleted: None,
        });
        id
    }

    pub(crate) fn record_deletion(&self, id: InstanceId) {
        let mut book = self.lock();
        let mark = book.mark();
        let Some(instance) = book.instances.get_mut(id.0) else {
            return;
        };
        // Deleting twice is no news.
        instance.deleted.get_or_insert(mark);
    }

    /// Everything there ever was, in order of creation.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.lock().instances.clone()
    }

    /// What costs money now.
    #[must_use]
    pub fn living(&self) -> Vec<Instance> {
        self.select(|instance| instance.deleted.is_none())
    }

    /// What costs money now and is tagged with this node.
    #[must_use]
    pub fn living_on(&self, node: &str) -> Vec<Instance> {
        self.select(|instance| instance.deleted.is_none() && instance.node == node)
    }

    /// The living instances of one pod.
    #[must_use]
    pub fn living_for(&self, pod_uid: &str) -> Vec<Instance> {
        self.select(|instance| instance.deleted.is_none() && instance.pod.uid == pod_uid)
    }

    /// Living instances whose Pod object is gone. `pod_uids` are the UIDs of all pods there are.
    #[must_use]
    pub fn orphans(&self, pod_uids: &HashSet<String>) -> Vec<Instance> {
        self.select(|instance| instance.deleted.is_none() && !pod_uids.contains(&instance.pod.uid))
    }

    /// Living instances of pods that have more than one.
    #[must_use]
    pub fn duplicates(&self) -> Vec<Instance> {
        let living = self.living();
        let mut count: HashMap<String, usize> = HashMap::new();
        for instance in &living {
            *count.entry(instance.pod.uid.clone()).or_default() += 1;
        }
        living
            .into_iter()
            .filter(|instance| count[&instance.pod.uid] > 1)
            .collect()
    }

    /// When the last living instance of the node went; `None` while one lives, or when there never was one.
    #[must_use]
    pub fn emptied(&self, node: &str) -> Option<Mark> {
        let deleted: Option<Vec<Mark>> = self
            .select(|instance| instance.node == node)
            .iter()
            .map(|instance| instance.deleted)
            .collect();
        deleted?.into_iter().max_by_key(|mark| mark.sequence)
    }

    /// How many instances of the node lived at a moment of the audit log.
    #[must_use]
    pub fn living_on_at(&self, node: &str, time: Timestamp) -> usize {
        let lived = |instance: &Instance| {
            instance.node == node
                && instance.created.time <= time
                && instance.deleted.is_none_or(|deleted| deleted.time > time)
        };
        self.select(lived).len()
    }

    /// All entries in the order they were made.
    #[must_use]
    pub fn history(&self) -> Vec<LedgerEvent> {
        let mut events: Vec<LedgerEvent> = self
            .instances()
            .into_iter()
            .flat_map(
                |Instance {
                     id,
                     node,
                     pod,
                     created,
                     deleted,
                 }| {
                    let event = |kind, mark| LedgerEvent {
                        mark,
                        kind,
                        id,
                        node: node.clone(),
                        pod: pod.clone(),
                    };
                    let deleted = deleted.map(|mark| event(LedgerEventKind::Deleted, mark));
                    std::iter::once(event(LedgerEventKind::Created, created))
                        .chain(deleted)
                        .collect::<Vec<_>>()
                },
            )
            .collect();
        events.sort_by_key(|event| event.mark.sequence);
        events
    }

    fn select(&self, wanted: impl Fn(&Instance) -> bool) -> Vec<Instance> {
        self.lock()
            .instances
            .iter()
            .filter(|instance| wanted(instance))
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line per node: living and ever created.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for instance in self.instances() {
            let (living, all) = nodes.entry(instance.node).or_default();
            *living += usize::from(instance.deleted.is_none());
            *all += 1;
        }
        if nodes.is_empty() {
            return write!(f, "no instance was ever created");
        }
        for (at, (node, (living, all))) in nodes.iter().enumerate() {
            let line_end = if at + 1 < nodes.len() { "\n" } else { "" };
            write!(f, "{node}: {living} living of {all} ever created{line_end}")?;
        }
        Ok(())
    }
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
    fn an_orphan_lives_and_has_no_pod() {
        let ledger = Ledger::default();
        let kept = ledger.record_creation("node-0", pod("kept"));
        let orphan = ledger.record_creation("node-0", pod("orphan"));
        let deleted = ledger.record_creation("node-0", pod("deleted"));
        ledger.record_deletion(deleted);
        let pods = HashSet::from(["uid-kept".to_owned()]);
        let orphans: Vec<_> = ledger
            .orphans(&pods)
            .into_iter()
            .map(|instance| instance.id)
            .collect();
        assert_eq!(orphans, [orphan]);
        assert_eq!(ledger.living_for("uid-kept")[0].id, kept);
    }

    #[test]
    fn two_living_instances_of_a_pod_are_duplicates_one_is_not() {
        let ledger = Ledger::default();
        let first = ledger.record_creation("node-0", pod("web"));
        ledger.record_creation("node-1", pod("web"));
        assert_eq!(ledger.duplicates().len(), 2);
        ledger.record_deletion(first);
        assert!(ledger.duplicates().is_empty());
    }

    #[test]
    fn a_node_is_emptied_by_its_last_deletion() {
        let ledger = Ledger::default();
        assert_eq!(ledger.emptied("node-0"), None);
        let first = ledger.record_creation("node-0", pod("a"));
        let second = ledger.record_creation("node-0", pod("b"));
        ledger.record_deletion(second);
        assert_eq!(ledger.emptied("node-0"), None);
        ledger.record_deletion(first);
        ledger.record_deletion(second);
        let emptied = ledger.emptied("node-0").unwrap();
        let history = ledger.history();
        assert_eq!(history.last().unwrap().mark, emptied);
        assert_eq!(history.last().unwrap().id, first);
        assert_eq!(ledger.living_on_at("node-0", emptied.time), 0);
        assert_eq!(ledger.to_string(), "node-0: 0 living of 2 ever created");
    }
}
