//! A pass of an operator: the real plan, asked about the world and answered in its words.

use std::collections::BTreeMap;

use vnp_crds::DrainPhase;
use vnp_plan::observed::Observed;
use vnp_plan::plan::{Plan, TrackKind};
use vnp_plan::step::Step;

use super::observed::{incarnation, leader, live, new_settle, now, observed, settle};
use super::operator::{Memory, Reading, Settling, Write};
use super::world::{Each, Entry, NODES, Node, Phase, Status, View};

/// Everything that a plan is made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) term: u8,
    pub(crate) cache: View,
    pub(crate) memory: Each<Memory>,
    /// What was read live, and the world at the end of the reading.
    pub(crate) read: Option<(Reading, View)>,
    pub(crate) reap: bool,
}

/// What comes of a plan.
#[derive(Clone)]
pub(crate) struct Decision {
    pub(crate) reads: Each<bool>,
    pub(crate) workload: Vec<Write>,
    pub(crate) drain: Vec<Write>,
    pub(crate) orders: Each<bool>,
    pub(crate) settles: Each<Settles>,
    pub(crate) status: Status,
}

/// What becomes of the settle of an ordinal.
#[derive(Clone, Copy)]
pub(crate) enum Settles {
    Not,
    /// The one that was remembered goes on.
    On,
    Anew(Settling),
}

impl Question {
    pub(crate) fn decide(&self) -> Decision {
        let reap = if self.reap { "RestartProvider" } else { "None" };
        let mut seen = observed(&self.cache, &self.memory, self.term, reap);
        if let Some((reading, world)) = &self.read {
            for (ordinal, list) in (0..).zip(reading.lists) {
                if let Some(list) = list {
                    let facts = live(as_index(ordinal), list, reading, world, reap);
                    seen.live.insert(ordinal, facts);
                }
            }
        }
        let plan = vnp_plan::plan(&seen, now());
        let mut writes: BTreeMap<TrackKind, Vec<Write>> = BTreeMap::new();
        for track in &plan.tracks {
            writes.insert(track.kind, track.steps.iter().filter_map(write).collect());
        }
        Decision {
            reads: each(|o| plan.reads.contains(&o)),
            workload: writes.remove(&TrackKind::Workload).unwrap_or_default(),
            drain: writes.remove(&TrackKind::Drain).unwrap_or_default(),
            orders: each(|o| plan.orders.iter().any(|order| order.ordinal == o)),
            settles: each(|o| self.settles(o, &plan, &seen)),
            status: status(&plan),
        }
    }

    fn settles(&self, ordinal: i32, plan: &Plan, seen: &Observed) -> Settles {
        let Some(valid) = plan.settles.get(&ordinal) else {
            return Settles::Not;
        };
        let index = as_index(ordinal);
        if self.memory[index].settle.is_some_and(|s| settle(s) == *valid) {
            return Settles::On;
        }
        let live = &seen.live[&ordinal];
        let at = self
            .read
            .and_then(|(reading, _)| Some(reading.since - reading.lists[index]?.at));
        let mark = self.cache.providers[index].zip(self.cache.nodes[index].map(|n| n.uid));
        let begun = [mark, None].map(|provider| Settling {
            fence: self.cache.fence.expect("a settle has a fence"),
            provider,
            age: at.expect("a settle begins with a list"),
        });
        let begun = begun.into_iter().find(|s| new_settle(*s, live) == *valid);
        Settles::Anew(begun.expect("a settle is the one before or begins with this pass"))
    }
}

fn each<T>(f: impl Fn(i32) -> T) -> Each<T> {
    let ordinals: Each<i32> = [0, 1];
    ordinals.map(f)
}

fn as_index(ordinal: i32) -> usize {
    usize::try_from(ordinal).expect("an ordinal")
}

/// The ordinal at the end of a name.
fn ordinal_of(name: &str) -> usize {
    usize::from(incarnation(name).expect("a name with an ordinal"))
}

/// Steps that the world has no part for are nobody's business here: template and label.
fn write(step: &Step) -> Option<Write> {
    let text = |patch| serde_json::to_string(patch).expect("a patch");
    let uid = |uid: &str| incarnation(uid).expect("a UID of ours");
    Some(match step {
        Step::PatchWorkload(patch) => Write::Workload {
            patch: text(&patch.patch),
            shrinks: false,
        },
        Step::Shrink(shrink) => Write::Workload {
            patch: text(shrink.patch()),
            shrinks: true,
        },
        Step::Cordon { node, uid: of, term } => Write::Cordon {
            ordinal: ordinal_of(node),
            uid: uid(of),
            term: leader(&term.to_string()).expect("a term"),
        },
        Step::Uncordon {
            node,
            uid: of,
            resource_version,
        } => Write::Uncordon {
            ordinal: ordinal_of(node),
            seen: Node {
                uid: uid(of),
                cordon: leader(resource_version),
            },
        },
        Step::DeleteProviderPod { pod, uid: of, .. } => Write::RestartProvider {
            ordinal: ordinal_of(&pod.name),
            uid: uid(of),
        },
        Step::DeleteNode { node, uid: of } => Write::DeleteNode {
            ordinal: ordinal_of(node),
            uid: uid(of),
        },
        Step::ApplyWorkload { .. } | Step::LabelNode { .. } => return None,
        other => panic!("the world has no such thing: {other:?}"),
    })
}

fn status(plan: &Plan) -> Status {
    let mut drains = [None; NODES];
    for node in &plan.facts.draining {
        drains[as_index(node.ordinal)] = Some(Entry {
            phase: match node.phase {
                DrainPhase::Cordoning => Phase::Cordoning,
                DrainPhase::Reaping => Phase::Reaping,
                _ => Phase::Other,
            },
            node: incarnation(&node.uid),
            recordons: u8::try_from(node.recordons).expect("at most four"),
            reaped: node.reaped_provider_uid.as_deref().and_then(incarnation),
        });
    }
    Status {
        drains,
        retired: each(|o| plan.facts.retired.iter().any(|r| r.ordinal == o)),
        registered: each(|o| plan.facts.registered.contains(&o)),
    }
}
