//! The plan of one pass over one pool.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vnp_crds::{BreakGlass, DeletionPolicy, DrainPhase, LimitedBy, RetiredOrdinal};

use crate::drain::memory::Progress;
use crate::drain::order::DrainOrder;
use crate::drain::settle::Settle;
use crate::finding::Finding;
use crate::observed::Ordinal;
use crate::step::Step;

/// What to do now, what to look at first, and what to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Independent lists of steps. A failed step ends its own track for this pass.
    pub tracks: Vec<Track>,
    /// Live reads without which no further decision can be made. When there are any, they are done and the pass is
    /// planned again with their answers.
    pub reads: Vec<Ordinal>,
    /// What may be evicted now, one order for each node that drains. A node without an order is not drained.
    pub orders: Vec<DrainOrder>,
    /// The settle of each draining ordinal that is valid from now on; an ordinal that is not here has none.
    pub settles: BTreeMap<Ordinal, Settle>,
    /// How far the drains are, by ordinal.
    pub progress: BTreeMap<Ordinal, Progress>,
    /// What there is to say.
    pub findings: Vec<Finding>,
    /// What the status shows.
    pub facts: Facts,
    /// When to look again without being woken.
    pub wake_at: Option<Timestamp>,
}

/// The kinds of tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// The pool's finalizer.
    Pool,
    /// The StatefulSet: creation, adoption, template, count, restore.
    Workload,
    /// Cordons, labels, restarts, shrinks, Nodes.
    Drain,
    /// ResourcePolicies, one track for each write.
    Policies,
    /// What removed nodes held last: neither holds a drain nor is held by one.
    Audit,
}

/// Steps in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Which.
    pub kind: TrackKind,
    /// One after the other; the first that fails ends the track.
    pub steps: Vec<Step>,
}

/// Observed facts for the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The accepted target.
    pub target: Option<i32>,
    /// The spec is refused in a way for which nothing of it is held against the workload, let alone written to it.
    pub workload_refused: bool,
    /// The policy in force.
    pub deletion_policy: Option<DeletionPolicy>,
    /// Node objects of the pool.
    pub nodes: i32,
    /// Ready, open to the pool's pods, provider healthy.
    pub available: i32,
    /// The other wanted nodes, each with what is the matter with it.
    pub unavailable: Vec<String>,
    /// Pods bound to the pool's nodes.
    pub pods: i32,
    /// Of these, pods with compute defaults that new ones no longer get; `None` when nobody records what they got.
    pub outdated: Option<i32>,
    /// Ordinals whose Node was ever seen.
    pub registered: Vec<Ordinal>,
    /// Ordinals whose provider was ever Ready.
    pub started: Vec<Ordinal>,
    /// Ordinals taken away, newest last.
    pub retired: Vec<RetiredOrdinal>,
    /// The drain that a break-glass for a node that is not there was set for.
    pub break_glass: Option<BreakGlass>,
    /// What would be written if the pool were not paused.
    pub pending_changes: Vec<String>,
    /// How many changes that are, those that have no line of their own included.
    pub pending_total: usize,
    /// Nodes that drain: those under way first, then those whose drain was given up, then those that only have to be removed.
    pub draining: Vec<NodeInDrain>,
    /// What limits the drain.
    pub limited_by: Option<LimitedBy>,
    /// When the nodes that drain are done, if nothing holds them up; `None` while something does.
    pub done_at: Option<Timestamp>,
}

/// One node of `status.drain.nodes`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInDrain {
    /// Node name.
    pub name: String,
    /// Node UID, empty when there is no Node.
    pub uid: String,
    /// Ordinal.
    pub ordinal: Ordinal,
    /// Where it stands.
    pub phase: DrainPhase,
    /// Start of this drain, kept over restarts.
    pub started_at: Timestamp,
    /// When a pod left last, or the start.
    pub last_progress: Timestamp,
    /// Since when it is empty.
    pub empty_since: Option<Timestamp>,
    /// How often it was cordoned again.
    pub recordons: i32,
    /// When forced deletion was announced; no pod is deleted by force before that stands in the status.
    pub force_announced: Option<Timestamp>,
    /// From when on pods are deleted by force, once that is announced.
    pub force_at: Option<Timestamp>,
    /// UID of the provider pod that was restarted last to reap.
    pub reaped_provider_uid: Option<String>,
    /// Pods at the start, or more if more came.
    pub pods_total: i32,
    /// Pods left.
    pub pods_remaining: i32,
    /// Of these: being deleted.
    pub pods_terminating: i32,
    /// Of these: held by a blocker.
    pub pods_blocked: i32,
}

/// What one module of the plan contributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// Findings.
    pub findings: Vec<Finding>,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
}

impl Part {
    /// Looks again at `at`, or earlier when that was asked for already.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}
