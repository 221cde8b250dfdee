//! What must hold after every single write, whoever made it: read off the history of the stored objects and the list of
//! the operator's calls once a run is over, so that no moment is missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use vnp_fake_api_server::{Change, Entry, Key};

use crate::bench::OPERATORS;
use crate::cluster::{Cluster, number, text, uid};

/// What no write may touch: set by somebody else on objects that the operator writes to.
pub(crate) const FOREIGN: (&str, &str) = ("example.com/keep", "as it is");

/// Panics with the write that broke a promise.
pub(crate) fn check(cluster: &Cluster) {
    let history = cluster.server.inspect(|store| store.history().to_vec());
    let mut journal = cluster.server.journal();
    journal.retain(|e| e.client.starts_with(OPERATORS));
    let mut writes = journal.iter().filter(|e| e.changed()).peekable();
    let mut pods: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
    for change in history {
        if change.key.resource == "pods" {
            if change.deleted {
                pods.remove(&change.key);
            } else {
                pods.insert(change.key.clone(), change.after.clone());
            }
        }
        never_clobbered(&change);
        while let Some(entry) = writes.next_if(|e| e.version <= change.version) {
            no_leak(entry, &pods);
        }
    }
    journal.iter().for_each(no_bypass);
}

/// P1: the operator takes no provider away, and deletes no Node, under a pod that is bound to it.
fn no_leak(entry: &Entry, pods: &BTreeMap<Key, Arc<Value>>) {
    let Some(before) = &entry.before else { return };
    let ordinals = |set: &Value| {
        let start = number(set, "/spec/ordinals/start");
        start..start + number(set, "/spec/replicas")
    };
    let doomed: Vec<String> = match (entry.key.resource, &entry.after) {
        ("nodes", None) => vec![entry.key.name.clone()],
        // What is deleted in order to be made again keeps its pods; what is not is found by its leaked instances.
        ("statefulsets.apps", Some(after)) => ordinals(before)
            .filter(|n| !ordinals(after).contains(n))
            .map(|n| format!("{}-{n}", entry.key.name))
            .collect(),
        _ => return,
    };
    for node in doomed {
        let bound: Vec<&Key> = pods
            .iter()
            .filter(|(_, pod)| text(pod, "/spec/nodeName") == node)
            .map(|(key, _)| key)
            .collect();
        assert!(
            bound.is_empty(),
            "P1: at {:?} {} took {node} away under {bound:?}",
            entry.at,
            entry.client
        );
    }
}

/// P4: what others set stays.
fn never_clobbered(change: &Change) {
    let (key, value) = FOREIGN;
    let kept = |object: &Value| object["metadata"]["annotations"][key] == value;
    if let Some(before) = &change.before
        && !change.deleted
        && uid(before) == uid(&change.after)
        && kept(before)
    {
        assert!(
            kept(&change.after),
            "P4: version {}: somebody else's annotation of {} went",
            change.version,
            change.key.name
        );
    }
}

/// P2: evictions and deletions of pods name the pod by UID and never ask for grace period 0.
fn no_bypass(entry: &Entry) {
    let options = match (entry.key.resource, entry.verb, entry.subresource.as_str()) {
        ("pods", "create", "eviction") => &entry.body["deleteOptions"],
        ("pods", "delete", _) => &entry.body,
        _ => return,
    };
    assert!(
        options["preconditions"]["uid"].is_string(),
        "P2: {} of pod {} without UID: {}",
        entry.verb,
        entry.key.name,
        entry.body
    );
    assert!(
        options["gracePeriodSeconds"] != 0,
        "P2: pod {} with grace period 0",
        entry.key.name
    );
}
