//! What has to be known of the time before a roll.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observed::{Observed, Ordinal, SavedCopy};

/// Content of Secret `vnp-template-<pool-uid>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::workload) struct Kept {
    /// The template before the roll; of a workload that we created the part that we applied.
    pub(super) template: Value,
    /// The workload's own partition.
    pub(in crate::workload) partition: Option<i32>,
    /// Names the template to which the roll went at first, see `desired::hash`.
    pub(super) hash: String,
    /// Ordinals that were healthy under `template`: only they can go back to it.
    pub(super) healthy: BTreeSet<Ordinal>,
}

/// The copy's content. One that can't be read reverts nothing, and its roll ends at partition 0.
pub(in crate::workload) fn kept(copy: &SavedCopy) -> Kept {
    serde_json::from_value(copy.content.clone()).unwrap_or_else(|_| Kept {
        partition: Some(0),
        ..Kept::default()
    })
}

/// Name of the Secret that keeps the template before a roll.
pub(super) fn copy_name(observed: &Observed) -> String {
    format!("vnp-template-{}", observed.pool_uid())
}
