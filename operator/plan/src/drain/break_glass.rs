//! Annotation `virtualnodes.dev/abandon-node: <node>/<uid>`, by which a person gives a node up. The UID ties it to one
//! Node. `none`, for a node that is not there, ties it to nothing, so the status keeps which drain it was set for: it does
//! nothing to a later drain of that name before it is taken off and set again.

use vnp_crds::{ABANDON_ANNOTATION, BreakGlass, DrainingNode};

use crate::observed::{Observed, Ordinal};

/// Stands for the UID of a node that is not there and was not seen in this drain.
pub(crate) const NO_NODE: &str = "none";

/// The annotation as it stands there.
pub(crate) fn value(seen: &Observed) -> Option<&str> {
    let annotations = seen.pool.metadata.annotations.as_ref()?;
    annotations.get(ABANDON_ANNOTATION).map(String::as_str)
}

/// A person gives up the ordinal's node of this UID, in the drain that goes on.
pub(crate) fn given_up(seen: &Observed, ordinal: Ordinal, uid: &str) -> bool {
    let expected = format!("{}/{uid}", seen.node_name(ordinal));
    value(seen) == Some(expected.as_str()) && (uid != NO_NODE || serves(seen, ordinal, &expected))
}

/// The status says that the value was set for this drain of the ordinal.
fn serves(seen: &Observed, ordinal: Ordinal, value: &str) -> bool {
    let entry = stored(seen, ordinal);
    recorded(seen).is_some_and(|r| r.value == value && entry.is_some_and(|e| e.started_at == r.started_at))
}

/// The value was set for an earlier drain than the one that goes on.
pub(crate) fn spent(seen: &Observed, ordinal: Ordinal, value: &str) -> bool {
    let entry = stored(seen, ordinal);
    recorded(seen).is_some_and(|r| r.value == value && entry.is_some_and(|e| e.started_at != r.started_at))
}

/// What the status has to keep: which drain the value was first seen in. Nothing once the annotation is gone or says
/// something else.
pub(crate) fn to_record(seen: &Observed) -> Option<BreakGlass> {
    let value = value(seen)?;
    if let Some(known) = recorded(seen).filter(|r| r.value == value) {
        return Some(known.clone());
    }
    let drain = seen.pool.status.as_ref()?.drain.as_ref()?;
    let entry = drain
        .nodes
        .iter()
        .find(|e| format!("{}/{NO_NODE}", e.name) == value)?;
    Some(BreakGlass {
        value: value.to_owned(),
        started_at: entry.started_at.clone(),
    })
}

fn recorded(seen: &Observed) -> Option<&BreakGlass> {
    seen.pool.status.as_ref()?.provider.as_ref()?.break_glass.as_ref()
}

fn stored(seen: &Observed, ordinal: Ordinal) -> Option<&DrainingNode> {
    seen.pool.status.as_ref()?.draining(ordinal)
}
