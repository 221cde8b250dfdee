//! The ConfigMap with the records of a pool, and what fits into it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::record::{Ended, NodeRecord, PodRecord};

/// Nodes that are kept.
pub(super) const NODES: usize = 5;
/// Bytes of all keys and values together, others' included. Source: the API server takes a ConfigMap of 1 MiB at most;
/// the rest is room for what others may add.
pub(super) const BYTES: usize = 900 * 1024;

/// The ConfigMap as read, or that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Its resourceVersion, `None` when it is absent.
    pub resource_version: Option<String>,
    pub(super) records: BTreeMap<String, NodeRecord>,
    /// Keys that are none of ours, with their sizes: they stay (P4).
    pub(super) foreign: BTreeMap<String, usize>,
}

impl Trail {
    /// Reads the ConfigMap. A value that is not the record of its key is not ours.
    pub fn read(map: &ConfigMap) -> Self {
        let mut trail = Self {
            resource_version: map.metadata.resource_version.clone(),
            ..Self::default()
        };
        for (key, text) in map.data.iter().flatten() {
            match serde_json::from_str::<NodeRecord>(text) {
                Ok(record) if record.key() == *key => drop(trail.records.insert(key.clone(), record)),
                _ => drop(trail.foreign.insert(key.clone(), key.len() + text.len())),
            }
        }
        for (key, bytes) in map.binary_data.iter().flatten() {
            trail.foreign.insert(key.clone(), key.len() + bytes.0.len());
        }
        trail
    }

    /// Pods of this drain of this node that went by a deletion that was no eviction, from that time on; `None` without a
    /// record of how its pods ended, or with one that leaves some out.
    pub fn deleted_since(
        &self,
        node: &str,
        uid: &str,
        started: jiff::Timestamp,
        since: jiff::Timestamp,
    ) -> Option<usize> {
        let record = self.of(node, uid, started)?;
        let known = record.emptied_at.is_some() && record.pods_left_out == 0;
        let unseen = |p: &PodRecord| matches!(p.ended, None | Some(Ended::Unknown));
        if !known || record.pods.iter().any(unseen) {
            return None;
        }
        let forced =
            |p: &&PodRecord| p.ended == Some(Ended::Deleted) && p.at.as_ref().is_some_and(|t| t.0 >= since);
        Some(record.pods.iter().filter(forced).count())
    }

    /// The record of this drain of this node, also when the Node has registered again since.
    pub(super) fn of(&self, node: &str, uid: &str, started: jiff::Timestamp) -> Option<&NodeRecord> {
        let same = |r: &&NodeRecord| r.node == node && r.started_at.0 == started;
        let mut drains = self.records.values().filter(same);
        let first = drains.next()?;
        Some(drains.find(|r| r.uid == uid).unwrap_or(first))
    }

    /// The changes that bring in the records of the nodes that drain now, `None` for a key to remove; `over` names
    /// earlier keys of the same drains. The newest [`NODES`] nodes stay, and of these what fits into [`BYTES`]: a
    /// record of the past as a whole or not at all, one of now with as many pods as fit.
    pub(super) fn changes(&self, now: Vec<NodeRecord>, over: &[String]) -> BTreeMap<String, Option<String>> {
        if over.is_empty() && now.iter().all(|r| self.records.get(&r.key()) == Some(r)) {
            return BTreeMap::new();
        }
        let mut now: Vec<(String, NodeRecord)> = now.into_iter().map(|r| (r.key(), r)).collect();
        now.sort_by(|(_, a), (_, b)| {
            b.started_at
                .0
                .cmp(&a.started_at.0)
                .then_with(|| a.node.cmp(&b.node))
        });
        let mut past: Vec<(&String, &NodeRecord)> = self
            .records
            .iter()
            .filter(|(key, _)| !over.contains(key) && !now.iter().any(|(k, _)| k == *key))
            .collect();
        // A drain that was cancelled removed nothing: it goes before any record of a node that did go.
        let cancelled = |r: &NodeRecord| r.emptied_at.is_none() && r.abandoned_at.is_none();
        past.sort_by(|(_, a), (_, b)| {
            let newest = b.time().cmp(&a.time()).then_with(|| a.node.cmp(&b.node));
            cancelled(a).cmp(&cancelled(b)).then(newest)
        });
        let mut gone: Vec<String> = over.to_vec();
        gone.extend(
            now.split_off(now.len().min(NODES))
                .into_iter()
                .map(|(key, _)| key),
        );
        let past_kept = past.len().min(NODES - now.len());
        gone.extend(past.split_off(past_kept).into_iter().map(|(key, _)| key.clone()));

        let foreign = self
            .foreign
            .iter()
            .filter(|(key, _)| !now.iter().any(|(k, _)| k == *key));
        let taken: usize = foreign.map(|(_, bytes)| bytes).sum();
        let mut room = BYTES.saturating_sub(taken);
        // Every node that drains is at least named, with how many pods it had.
        let mut shells: Vec<(String, NodeRecord)> = Vec::with_capacity(now.len());
        let mut pods = Vec::with_capacity(now.len());
        for (key, mut record) in now {
            pods.push(std::mem::take(&mut record.pods));
            // Measured with the longest count that it may get.
            record.pods_left_out = record.pods_total;
            room = room.saturating_sub(key.len() + size(&record));
            shells.push((key, record));
        }
        let mut changes = BTreeMap::new();
        for ((key, mut record), pods) in shells.into_iter().zip(pods) {
            for pod in pods {
                // A pod that has no room leaves it to the next: so a second look at the result finds the same.
                let bytes = size(&pod) + 1;
                if bytes <= room {
                    room -= bytes;
                    record.pods.push(pod);
                }
            }
            record.pods_left_out = record.pods_total.saturating_sub(record.pods.len());
            if self.records.get(&key) != Some(&record) {
                changes.insert(key, serde_json::to_string(&record).ok());
            }
        }
        // The oldest go first: what is older than one that has no room goes too.
        let mut fits = true;
        for (key, record) in past {
            let bytes = key.len() + size(record);
            fits = fits && bytes <= room;
            if fits {
                room -= bytes;
            } else {
                gone.push(key.clone());
            }
        }
        let there = gone.into_iter().filter(|key| self.records.contains_key(key));
        changes.extend(there.map(|key| (key, None)));
        changes
    }
}

fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |text| text.len())
}
