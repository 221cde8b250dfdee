//! Everything that was asked to be written, in order.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::store::Key;

/// One write that was carried out or refused.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Place in the journal, from 0.
    pub number: usize,
    /// Since the server was started.
    pub at: Duration,
    /// Who wrote: the client's name, or the name that a part of the world gave itself.
    pub client: String,
    /// `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// The object.
    pub key: Key,
    /// `status`, `eviction` or empty.
    pub subresource: String,
    /// What was sent.
    pub body: Value,
    /// HTTP code of the result, also when the answer was then lost.
    pub code: u16,
    /// Message of a refusal.
    pub message: String,
    /// The object before.
    pub before: Option<Arc<Value>>,
    /// The object after, `None` when it is gone or was never there.
    pub after: Option<Arc<Value>>,
    /// The server's resourceVersion after it.
    pub version: u64,
}

impl Entry {
    /// It changed something: the object, or in an eviction also a budget.
    pub fn changed(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
            (before, after) => before.is_some() || after.is_some(),
        }
    }
}
