//! An operator process: what it has seen, remembers and is about to write.

use super::world::{Each, Fence, Node, OLD, Status, View};

/// Versions as they stand in patches.
pub(crate) const NEWEST: &str = "newest";
pub(crate) const OUTDATED: &str = "outdated";

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Operator {
    /// The term in which it leads, or led while a write of it is still under way.
    pub(crate) term: Option<u8>,
    pub(crate) memory: Each<Memory>,
    pub(crate) stage: Stage,
    /// Ordinals from which its tasks may evict.
    pub(crate) orders: Each<bool>,
}

/// What it remembers of one ordinal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Memory {
    /// UID of the Node that the rest is about.
    pub(crate) node: Option<u8>,
    /// Ticks since it first saw our cordon of this term in effect.
    pub(crate) cordoned: Option<u8>,
    /// The term of that cordon.
    pub(crate) cordon: Option<u8>,
    /// Only where providers are restarted: nothing else asks for it.
    pub(crate) provider: Option<Seen>,
    pub(crate) settle: Option<Settling>,
}

/// The provider pod since it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    pub(crate) uid: u8,
    /// A heartbeat came since.
    pub(crate) beaten: bool,
    /// Pods that its Node had last.
    pub(crate) pods: u8,
    /// A pod went since.
    pub(crate) departed: bool,
}

/// A settle that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Settling {
    pub(crate) fence: Fence,
    /// UIDs of provider pod and Node; `None` for an ordinal that never came up.
    pub(crate) provider: Option<(u8, u8)>,
    /// Ticks since the first list.
    pub(crate) age: u8,
}

/// How far its pass is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Between two passes.
    #[default]
    Idle,
    /// Its caches are like this; they get old until the pass begins.
    Seen(View),
    /// The plan asked for live reads.
    Reading(Reading),
    /// The plan is made and is being carried out.
    Writing(Writing),
}

/// A pass looks at what was seen and remembered when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reading {
    pub(crate) cache: View,
    pub(crate) memory: Each<Memory>,
    /// Ticks since the pass began: its `now` stays what it was.
    pub(crate) since: u8,
    pub(crate) wanted: Each<bool>,
    pub(crate) lists: Each<Option<List>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct List {
    /// Ticks between the beginning of the pass and this list.
    pub(crate) at: u8,
    pub(crate) pods: u8,
}

/// Tracks run side by side, each in order; the status is last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Writing {
    pub(crate) workload: Vec<Write>,
    pub(crate) drain: Vec<Write>,
    pub(crate) status: Option<Status>,
    /// The lowest target since the pool was read live.
    pub(crate) lowest: u8,
}

/// One write with its preconditions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Write {
    /// The JSON patch of the plan, as text.
    Workload {
        patch: String,
        shrinks: bool,
    },
    Cordon {
        ordinal: usize,
        uid: u8,
        term: u8,
    },
    /// Gets through only where the Node is as it was seen.
    Uncordon {
        ordinal: usize,
        seen: Node,
    },
    RestartProvider {
        ordinal: usize,
        uid: u8,
    },
    DeleteNode {
        ordinal: usize,
        uid: u8,
    },
}

impl Operator {
    /// A process that begins to lead and remembers nothing.
    pub(crate) fn leader(term: u8) -> Self {
        Self {
            term: Some(term),
            ..Self::default()
        }
    }

    /// The lease is another's now. Every write checks the lease first, so of each track at most the one that had passed the
    /// check comes through, however late.
    pub(crate) fn depose(&mut self) {
        let Stage::Writing(mut writing) = std::mem::take(&mut self.stage) else {
            *self = Self::default();
            return;
        };
        writing.workload.truncate(1);
        writing.drain.truncate(1);
        writing.status = None;
        *self = Self {
            term: self.term,
            stage: Stage::Writing(writing),
            ..Self::default()
        };
        self.rest();
    }

    /// Its watches catch up, and it notes what the mirrors note.
    pub(crate) fn look(&mut self, now: View, reap: bool) {
        self.stage = Stage::Seen(now);
        for (ordinal, memory) in self.memory.iter_mut().enumerate() {
            if let Some(node) = now.nodes[ordinal].filter(|n| memory.node != Some(n.uid)) {
                memory.node = Some(node.uid);
                memory.cordoned = None;
                memory.settle = None;
            }
            let cordon = now.nodes[ordinal].and_then(|n| n.cordon);
            let same = memory.cordoned.filter(|_| memory.cordon == cordon);
            memory.cordon = cordon;
            memory.cordoned = cordon.map(|_| same.unwrap_or(0));
            if !reap {
                continue;
            }
            let pods = now.pods(ordinal);
            if let Some(uid) = now.providers[ordinal]
                && memory.provider.is_none_or(|p| p.uid != uid)
            {
                memory.provider = Some(Seen {
                    uid,
                    beaten: false,
                    pods,
                    departed: false,
                });
            }
            if let Some(provider) = &mut memory.provider {
                provider.departed |= pods < provider.pods;
                provider.pods = pods;
            }
        }
    }

    /// The workload was written since.
    pub(crate) fn outdate(&mut self) {
        match &mut self.stage {
            Stage::Idle => {}
            Stage::Seen(cache) => cache.newest = false,
            Stage::Reading(reading) => reading.cache.newest = false,
            Stage::Writing(w) => w.workload.iter_mut().chain(&mut w.drain).for_each(Write::outdate),
        }
    }

    /// Time passes; true when that makes a difference.
    pub(crate) fn tick(&mut self, lease: u8) -> bool {
        let mut older = self.term.is_some_and(|term| term != lease) && self.give_up();
        let mut grow = |age: &mut u8| {
            older |= *age < OLD;
            *age = OLD.min(*age + 1);
        };
        for memory in &mut self.memory {
            memory.cordoned.iter_mut().for_each(&mut grow);
            memory.settle.iter_mut().for_each(|s| grow(&mut s.age));
        }
        if let Stage::Reading(reading) = &mut self.stage {
            grow(&mut reading.since);
        }
        for provider in self.memory.iter_mut().filter_map(|m| m.provider.as_mut()) {
            older |= !provider.beaten;
            provider.beaten = true;
        }
        older
    }

    /// A write is given up after 5 s. One that tests what a new leader changes may be later here, as if its process had been
    /// stopped just before it was sent.
    fn give_up(&mut self) -> bool {
        let Stage::Writing(writing) = &mut self.stage else {
            return false;
        };
        let before = writing.drain.len();
        writing
            .drain
            .retain(|w| matches!(w, Write::Workload { .. } | Write::Uncordon { .. }));
        let fewer = writing.drain.len() < before;
        self.rest();
        fewer
    }

    /// Leaves the pass when nothing is left to write, and for good when the lease is another's.
    pub(crate) fn rest(&mut self) {
        if let Stage::Writing(w) = &self.stage
            && w.workload.is_empty()
            && w.drain.is_empty()
            && w.status.is_none()
        {
            self.stage = Stage::Idle;
        }
    }
}

impl Write {
    fn outdate(&mut self) {
        if let Self::Workload { patch, .. } = self {
            *patch = patch.replace(NEWEST, OUTDATED);
        }
    }
}
