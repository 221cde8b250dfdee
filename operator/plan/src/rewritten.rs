//! Writes that were answered with success and stored with other values: a policy or a webhook in the API server changes
//! them on their way. To write the same again changes nothing, so it is done once in a while only, and said meanwhile.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::observed::Rewritten;

/// How long after a write that did not take the next one is made: the policy may have been changed, and nothing tells.
pub(crate) const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What was stored otherwise, by what was written.
pub type Rewrites = BTreeMap<String, Rewritten>;

/// This was written, something else was stored, and it is not time to try again.
pub(crate) fn held_off(rewrites: &Rewrites, what: &str, wanted: &str) -> bool {
    rewrites.get(what).is_some_and(|r| r.wanted == wanted && !r.due)
}

/// Notes a write that did not take.
pub(crate) fn note(
    rewrites: &mut Rewrites,
    what: String,
    wanted: String,
    difference: String,
    now: Timestamp,
) {
    let known = rewrites.get(&what).filter(|r| r.wanted == wanted);
    let entry = Rewritten {
        since: known.map_or(now, |r| r.since),
        wanted,
        difference,
        by: None,
        tried: now,
        due: false,
    };
    rewrites.insert(what, entry);
}

/// Lets what was written in vain be written again when it is time.
pub fn age(rewrites: &mut Rewrites, now: Timestamp) {
    for rewritten in rewrites.values_mut() {
        rewritten.due = now.duration_since(rewritten.tried) >= AGAIN_AFTER;
    }
}

/// What is said of it. `object`: what was written; `resources`: its kind, by which a policy selects.
pub(crate) fn said(rewritten: &Rewritten, object: &str, resources: &str) -> String {
    let Rewritten {
        difference,
        by,
        since,
        ..
    } = rewritten;
    let who = match by {
        Some(manager) => format!("field manager {manager} owns what stands there"),
        None => format!(
            "a mutating admission policy or webhook for {resources} does that (kubectl get \
             mutatingwebhookconfigurations,mutatingadmissionpolicies)"
        ),
    };
    format!(
        "since {since} the API server answers writes to the {object} with success and stores other values (stored -> wanted: \
         {difference}): {who}; exempt it there, or ask for the stored value in the pool; it is written again every \
         {} minutes only",
        AGAIN_AFTER.as_mins()
    )
}
