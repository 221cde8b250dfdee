//! The cluster, as small as the promises allow: one pool, two ordinals, a handful of pods that are all alike.

use super::operator::{Operator, Stage};

/// Ordinals of the world.
pub(crate) const NODES: usize = 2;
/// Ages are counted in ticks up to here; everything that is waited for takes at most so many.
pub(crate) const OLD: u8 = 2;

/// For each ordinal.
pub(crate) type Each<T> = [T; NODES];

/// What watches show. An operator holds one that may be old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct View {
    /// `spec.replicas` of the pool.
    pub(crate) target: u8,
    pub(crate) status: Status,
    /// `spec.replicas` of the workload.
    pub(crate) replicas: u8,
    /// Its annotation `shrinking`.
    pub(crate) fence: Option<Fence>,
    /// Its resourceVersion is still the newest. Two old ones need not be told apart: no write gets through with either.
    pub(crate) newest: bool,
    pub(crate) nodes: Each<Option<Node>>,
    /// UIDs of the provider pods; they are Ready as soon as they are there.
    pub(crate) providers: Each<Option<u8>>,
    /// Running pods by ordinal.
    pub(crate) bound: Each<u8>,
    /// Pods between eviction and disappearance.
    pub(crate) terminating: Each<u8>,
}

impl View {
    pub(crate) fn pods(&self, ordinal: usize) -> u8 {
        self.bound[ordinal] + self.terminating[ordinal]
    }
}

/// What of the pool's status decisions read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Status {
    pub(crate) drains: Each<Option<Entry>>,
    pub(crate) retired: Each<bool>,
    pub(crate) registered: Each<bool>,
}

/// One entry of `status.drain.nodes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) phase: Phase,
    pub(crate) node: Option<u8>,
    pub(crate) recordons: u8,
    pub(crate) reaped: Option<u8>,
}

/// The phases that a later pass tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Cordoning,
    Reaping,
    Other,
}

/// Value of annotation `shrinking`. `node` is `None` where it says `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fence {
    pub(crate) ordinal: usize,
    pub(crate) node: Option<u8>,
    pub(crate) term: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node {
    pub(crate) uid: u8,
    /// The cordon by our field manager: the term of the leader that wrote it last.
    pub(crate) cordon: Option<u8>,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: View,
    /// Ticks since the cordon took effect.
    pub(crate) cordon_age: Each<u8>,
    /// Provider pods made so far.
    pub(crate) born: Each<u8>,
    /// Pods that the scheduler has not placed.
    pub(crate) pending: u8,
    /// The operator of this term leads.
    pub(crate) lease: u8,
    /// In order, so that worlds that differ in who is who only are one.
    pub(crate) operators: [Operator; 2],
    /// Edits of the pool that the user still makes.
    pub(crate) edits: u8,
    /// The user may still lower the workload by hand.
    pub(crate) hand: bool,
    /// The user has, or an ordinal went that never came up: a provider then stops under pods without a broken promise.
    pub(crate) exempt: bool,
    pub(crate) deeds: Deeds,
}

/// What happened on the way, as far as a property asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Deeds {
    /// Term that shrank last.
    pub(crate) shrunk: Option<u8>,
    /// A cordon was taken back.
    pub(crate) cancelled: bool,
    /// The promise that was broken.
    pub(crate) broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// A provider was taken away under a bound pod.
    UnderPod,
    /// The count was lowered below all that the pool asked for since it was read last.
    BelowTarget,
    /// The count was lowered by an operator that did not hold the fence.
    NotItsFence,
}

impl World {
    /// A drain is wanted; the highest ordinal holds a pod, two more wait for the scheduler.
    pub(crate) fn start(target: u8, edits: u8, hand: bool, pending: u8) -> Self {
        let now = View {
            target,
            status: Status {
                drains: [None; NODES],
                retired: [false; NODES],
                registered: [true; NODES],
            },
            replicas: 2,
            fence: None,
            newest: true,
            nodes: [Some(Node { uid: 1, cordon: None }); NODES],
            providers: [Some(1); NODES],
            bound: [0, 1],
            terminating: [0; NODES],
        };
        Self {
            now,
            cordon_age: [0; NODES],
            born: [1; NODES],
            pending,
            lease: 1,
            operators: [Operator::default(), Operator::leader(1)],
            edits,
            hand,
            exempt: false,
            deeds: Deeds::default(),
        }
    }

    /// The workload was written: whatever was read or planned before is about an old version.
    pub(crate) fn workload_written(&mut self) {
        for operator in &mut self.operators {
            operator.outdate();
        }
    }

    /// The pool asks for another count.
    pub(crate) fn edit(&mut self, target: u8) {
        self.now.target = target;
        for operator in &mut self.operators {
            if let Stage::Writing(writing) = &mut operator.stage {
                writing.lowest = writing.lowest.min(target);
            }
        }
    }

    pub(crate) fn breaks(&mut self, promise: Broken) {
        self.deeds.broken.get_or_insert(promise);
    }
}
