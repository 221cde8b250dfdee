//! What may be evicted (or, past the drain's deadline, deleted) now on one node, as handed to that node's task. The task keeps no other truth: an order replaces
//! the one before, and no order means that nothing may be evicted.

use std::num::NonZeroU32;

use crate::observed::{Budget, ObjectKey, Ordinal};

/// Permission to evict pods of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainOrder {
    /// Node name.
    pub node: String,
    /// Node UID.
    pub node_uid: String,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// UID of the provider pod that was healthy when the order was given.
    pub provider_uid: String,
    /// Pods that may be evicted, in order of eviction. Pods that are being deleted are not among them, but for those whose
    /// grace a forced deletion shortens.
    pub pods: Vec<EvictionCandidate>,
    /// Pods of this node that are being deleted already.
    pub terminating: u32,
    /// Those of them whose deletionTimestamp is over.
    pub overdue: u32,
    /// Pods that disappeared from this node since this process began to count.
    pub departed: u64,
    /// Limits of the pool.
    pub limits: DrainLimits,
    /// The budgets that cover candidates, as last seen.
    pub budgets: Vec<Budget>,
}

/// One pod that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionCandidate {
    /// Namespace and name.
    pub pod: ObjectKey,
    /// UID: the precondition of the eviction.
    pub uid: String,
    /// The budgets that cover it; none for a pod that has ended.
    pub budgets: Vec<ObjectKey>,
    /// As it was seen last, the server lets it go past them: it is pending, or not ready where its budget allows that.
    pub exempt: bool,
    /// UID of its StatefulSet, whose pods leave one at a time because no budget covers them.
    pub turn_of: Option<String>,
    /// The drain's deadline has passed: it is deleted past budgets, with this grace in seconds, and not evicted.
    pub force: Option<NonZeroU32>,
}

impl EvictionCandidate {
    /// The budgets that the server asks.
    pub fn asked(&self) -> &[ObjectKey] {
        if self.exempt { &[] } else { &self.budgets }
    }
}

/// Limits of a drain, from `spec.drain`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrainLimits {
    /// Evictions per second, `None` for pace Unlimited.
    pub per_second: Option<f64>,
    /// Evictions that may happen at once after a pause.
    pub burst: u32,
    /// Most pods between eviction and disappearance.
    pub max_terminating: u32,
    /// Most evictions in flight under one budget.
    pub max_per_budget: u32,
}
