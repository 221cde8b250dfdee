//! Events are one storage under two groups, with other names for the same fields.

use serde_json::Value;

use crate::refusal::Refusal;
use crate::tidy::{remove, set};

/// Names in events.k8s.io and in the core group.
const NAMES: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// As it is stored.
pub(crate) fn incoming(group: &str, mut event: Value) -> Value {
    if group == "events.k8s.io" {
        for (new, old) in NAMES {
            rename(&mut event, new, old);
        }
        rename(&mut event, "reportingController", "reportingComponent");
    }
    event
}

/// A refusal as this group words it.
pub(crate) fn refused(group: &str, mut refusal: Refusal) -> Refusal {
    if group == "events.k8s.io" && refusal.reason == "AlreadyExists" {
        refusal.message = refusal.message.replacen("events", "events.events.k8s.io", 1);
        refusal.details["group"] = group.into();
    }
    refusal
}

/// As this group shows it.
pub(crate) fn outgoing(group: &str, mut event: Value) -> Value {
    if group == "events.k8s.io" && event["kind"] == "Event" {
        event["apiVersion"] = "events.k8s.io/v1".into();
        for (new, old) in NAMES {
            rename(&mut event, old, new);
        }
        rename(&mut event, "reportingComponent", "reportingController");
    }
    event
}

fn rename(event: &mut Value, from: &str, to: &str) {
    let value = event[from].take();
    remove(event, from);
    set(event, to, value);
}
