//! What is kept: objects, the version counter and the history that watches and old snapshots are served from.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::kinds::Kind;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// [`Kind::resource`].
    pub resource: &'static str,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced {
            namespace.to_owned()
        } else {
            String::new()
        };
        Self {
            resource: kind.resource,
            namespace,
            name: name.to_owned(),
        }
    }
}

/// Objects by key.
pub type Objects = BTreeMap<Key, Arc<Value>>;

/// One write as watches see it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resourceVersion of this write.
    pub version: u64,
    /// The object.
    pub key: Key,
    /// Before, `None` when it was made.
    pub before: Option<Arc<Value>>,
    /// After; of a deletion the last state, with the version of the deletion.
    pub after: Arc<Value>,
    /// It is gone since.
    pub deleted: bool,
}

/// The storage.
#[derive(Debug)]
pub struct Store {
    pub(crate) clock: Clock,
    version: u64,
    serial: u64,
    objects: Objects,
    history: Vec<Change>,
    compacted: u64,
}

impl Store {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            version: 1,
            serial: 0,
            objects: Objects::new(),
            history: Vec::new(),
            compacted: 0,
        }
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// An object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// All writes, oldest first; compaction does not shorten it.
    pub fn history(&self) -> &[Change] {
        &self.history
    }

    /// Everything as it was at a version.
    pub fn snapshot(&self, version: u64) -> Objects {
        if version >= self.version {
            return self.objects.clone();
        }
        let mut objects = Objects::new();
        for change in self.history.iter().take_while(|c| c.version <= version) {
            if change.deleted {
                objects.remove(&change.key);
            } else {
                objects.insert(change.key.clone(), change.after.clone());
            }
        }
        objects
    }

    /// Changes after a version, oldest first.
    pub(crate) fn after(&self, version: u64) -> &[Change] {
        let from = self.history.partition_point(|c| c.version <= version);
        &self.history[from..]
    }

    /// The oldest version that a watch may still begin after.
    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// A number that was never given before.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A UID, counted up.
    pub(crate) fn uid(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.serial())
    }

    /// Stores an object under a new version.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(object);
        let before = self.objects.insert(key.clone(), after.clone());
        self.history.push(Change {
            version: self.version,
            key,
            before,
            after: after.clone(),
            deleted: false,
        });
        after
    }

    /// Removes an object.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let mut last = Value::clone(&before);
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(last);
        self.history.push(Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            after: after.clone(),
            deleted: true,
        });
        Some(after)
    }
}
