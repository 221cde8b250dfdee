//! What must hold after every single write, whoever made it: read off the history of the stored objects and the list of
//! the operator's calls once a run is over, so that no moment is missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use vnp_fake_api_server::{Entry, Key};

use crate::bench::{OPERATORS, PROVIDER};
use crate::cluster::{Cluster, number, text, uid};

/// Name of an annotation, a label and a finalizer that somebody else set on objects that the operator writes to.
pub(crate) const FOREIGN: &str = "example.com/keep";

/// From a raise of the target to the end of what it stops.
const PROMPT: Duration = Duration::from_secs(1);

/// Name of a key and of a selector of the profile that somebody else set.
pub(crate) const THEIRS: &str = "theirs";

/// Panics with the write that broke a promise.
pub(crate) fn check(cluster: &Cluster) {
    let history = cluster.server.inspect(|store| store.history().to_vec());
    let mut journal = cluster.server.journal();
    stopped_in_time(&journal);
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
        while let Some(entry) = writes.next_if(|e| e.version <= change.version) {
            no_leak(entry, &pods);
        }
    }
    journal.iter().for_each(no_bypass);
    for entry in journal.iter().filter(|e| e.changed()) {
        never_uncordoned(entry);
        never_clobbered(entry);
    }
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

/// P3: the last eviction on a node comes within a second after the pool wanted the node again.
fn stopped_in_time(journal: &[Entry]) {
    let mut wanted: BTreeMap<i64, Duration> = BTreeMap::new();
    for entry in journal.iter().filter(|e| e.changed()) {
        if entry.key.resource == "virtualnodepools.virtualnodes.dev" && entry.subresource.is_empty() {
            let pool = entry.after.as_deref().unwrap_or(&Value::Null);
            let going = !pool["metadata"]["deletionTimestamp"].is_null();
            let replicas = if going { 0 } else { number(pool, "/spec/replicas") };
            wanted.retain(|ordinal, _| *ordinal < replicas);
            for ordinal in 0..replicas {
                wanted.entry(ordinal).or_insert(entry.at);
            }
        }
        let bound = entry.before.as_deref().map(|pod| text(pod, "/spec/nodeName"));
        let ordinal = bound.and_then(|node| node.strip_prefix(PROVIDER)?.strip_prefix('-')?.parse().ok());
        let since = ordinal.and_then(|ordinal: i64| wanted.get(&ordinal));
        assert!(
            entry.subresource != "eviction"
                || !entry.client.starts_with(OPERATORS)
                || since.is_none_or(|since| entry.at <= *since + PROMPT),
            "P3: at {:?} {} evicted {} from a node that was wanted since {since:?}",
            entry.at,
            entry.client,
            entry.key.name
        );
    }
}

/// P3: whether pods may come to a node is left to whoever said so, the operator's own cordons aside.
fn never_uncordoned(entry: &Entry) {
    let (Some(before), Some(after)) = (&entry.before, &entry.after) else {
        return;
    };
    assert!(
        entry.key.resource != "nodes"
            || !cordoned_by_others(before)
            || before["spec"]["unschedulable"] == after["spec"]["unschedulable"],
        "P3: at {:?} {} changed somebody else's cordon of {}",
        entry.at,
        entry.client,
        entry.key.name
    );
}

/// Whether anybody but the operator has a say in whether pods come to that Node.
pub(crate) fn cordoned_by_others(node: &Value) -> bool {
    let owners = node["metadata"]["managedFields"].as_array();
    owners.is_some_and(|owners| {
        owners
            .iter()
            .filter(|o| !o["fieldsV1"]["f:spec"]["f:unschedulable"].is_null())
            .any(|o| text(o, "/manager") != vnp_crds::CORDON_FIELD_MANAGER)
    })
}

/// P4: what others set stays.
fn never_clobbered(entry: &Entry) {
    let (Some(before), Some(after)) = (&entry.before, &entry.after) else {
        return;
    };
    for (what, kept) in foreign(before) {
        assert!(
            uid(before) != uid(after) || foreign(after).get(what) == Some(&kept),
            "P4: at {:?} {} changed somebody else's {what} of {}: {kept}",
            entry.at,
            entry.client,
            entry.key.name
        );
    }
}

/// What others set on an object, by what it is.
fn foreign(object: &Value) -> BTreeMap<&'static str, Value> {
    let named = |list: &Value, is: &dyn Fn(&Value) -> bool| {
        let items = list.as_array().into_iter().flatten();
        items.filter(|item| is(item)).cloned().collect::<Value>()
    };
    let metadata = &object["metadata"];
    let selectors: Value = serde_json::from_str(text(object, "/data/selectors")).unwrap_or_default();
    BTreeMap::from([
        ("annotation", metadata["annotations"][FOREIGN].clone()),
        ("label", metadata["labels"][FOREIGN].clone()),
        ("finalizer", named(&metadata["finalizers"], &|f| *f == FOREIGN)),
        ("profile key", object["data"][THEIRS].clone()),
        ("profile selector", named(&selectors, &|s| s["name"] == THEIRS)),
    ])
}

/// P2: evictions and deletions of pods name the pod by UID and never ask for grace period 0; and pods of users are evicted,
/// never deleted, since no proof lets a forced deletion become due.
fn no_bypass(entry: &Entry) {
    let options = match (entry.key.resource, entry.verb, entry.subresource.as_str()) {
        ("pods", "create", "eviction") => &entry.body["deleteOptions"],
        ("pods", "delete", _) => &entry.body,
        _ => return,
    };
    assert!(
        entry.verb != "delete" || entry.key.namespace != "shop",
        "P2: pod {} deleted past its budgets",
        entry.key.name
    );
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
