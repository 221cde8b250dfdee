//! A model check of the drain: every order in which two operators, a user, the scheduler and the StatefulSet's controller
//! can take their steps in a small cluster (two ordinals, up to three pods). What the operators do is decided by the real
//! plan, and their patches of the workload are applied as the API server would apply them, so that it is the plan's own
//! fences, tests and proofs that hold or don't.
//!
//! What is assumed of the cluster, because the plan does:
//! * the scheduler places no pod on a node that has been cordoned for `cordonSettleSeconds`. It may be slower by as much as
//!   `emptySettleSeconds`: the second list then sees what the first did not. (Where providers are restarted, a pod that late
//!   can meet the restart.)
//! * an operator that lost the lease makes, in each track, at most the write that had passed the lease check. A patch of the
//!   workload or an uncordon may then arrive at any time, as if the process had been stopped just before it was sent; any
//!   other write arrives within the 5 s after which it is given up.
//! * of an ordinal that never came up nothing is promised: its Node may register after the last look.
//!
//! What turns red when one thing in the plan is broken, each tried:
//!
//! | broken | property |
//! |---|---|
//! | cordon settle skipped | no provider is taken away under a bound pod |
//! | first list taken for the proof, without settle and heartbeat | the same |
//! | second list not looked at | the same |
//! | the fence of another term not taken back | the same |
//! | uncordoned before the count gives the node its provider back | the same |
//! | the fence taken back without a test of the count | the same |
//! | shrink that tests neither fence nor resourceVersion | the same; only the holder of the fence shrinks |
//! | terms by the lease's transitions alone | only the holder of the fence shrinks |
//! | the target of the live pool ignored | the count is not lowered below the target |
//! | the cordon of a leader before taken for one's own | the same |
//! | own cordons never taken back | a cordon of ours on a wanted node is about to go |
//!
//! These stay green: the shrink without its test of the fence, or without that of the resourceVersion, as each stands in
//! for the other; the second look at the cordon, and the list before a restart, which guard against people, who do not
//! uncordon or set `spec.nodeName` here.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test support"
)]

mod actions;
mod observed;
mod operator;
mod pass;
mod world;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};

use self::actions::Action;
use self::operator::Operator;
use self::pass::{Decision, Question};
use self::world::{Broken, NODES, OLD, World};

/// Providers that an ordinal has in its life, at most.
const BIRTHS: u8 = 3;

/// A world with its bounds.
struct Drain {
    /// The lowest count that the user asks for, and what the pool asks for at first.
    floor: u8,
    /// How often the user edits the pool.
    edits: u8,
    /// The user also lowers the workload, once.
    hand: bool,
    /// Pods that wait for the scheduler at first; one more is bound.
    pending: u8,
    /// Ticks after which the scheduler places no pod on a cordoned node any more.
    lag: u8,
    /// Providers are restarted when their node is empty.
    reap: bool,
    /// Leaders that there are. The Lease is deleted whenever one takes over from another.
    terms: u8,
    /// A plan is a pure function: what was asked once is not asked again.
    known: Mutex<BTreeMap<Question, Decision>>,
}

impl Drain {
    fn decide(&self, question: Question) -> Decision {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decision) = known().get(&question) {
            return decision.clone();
        }
        let decision = question.decide();
        known().insert(question, decision.clone());
        decision
    }

    /// Plans that were made.
    fn plans(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Model for Drain {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::start(self.floor, self.edits, self.hand, self.pending)]
    }

    fn actions(&self, _: &World, actions: &mut Vec<Action>) {
        actions.extend([Action::Tick, Action::ScaleByHand]);
        actions.extend((self.floor..=2).map(Action::Edit));
        for o in 0..NODES {
            if o >= usize::from(self.floor) {
                actions.push(Action::Bind(o));
            }
            actions.extend([
                Action::Gone(o),
                Action::StartProvider(o),
                Action::StopProvider(o),
                Action::Register(o),
            ]);
        }
        for i in 0..2 {
            actions.extend([
                Action::TakeOver(i),
                Action::Crash(i),
                Action::Look(i),
                Action::Pass(i),
                Action::Replan(i),
                Action::WriteWorkload(i),
                Action::WriteDrain(i),
                Action::Report(i),
            ]);
            actions.extend((0..NODES).flat_map(|o| [Action::List(i, o), Action::Evict(i, o)]));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        if world.deeds.broken.is_some() {
            return None;
        }
        let mut next = world.clone();
        self.act(&mut next, action)?;
        next.operators.sort();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no provider is taken away under a bound pod", |_, w: &World| {
                w.deeds.broken != Some(Broken::UnderPod)
            }),
            Property::always("the count is not lowered below the target", |_, w: &World| {
                w.deeds.broken != Some(Broken::BelowTarget)
            }),
            Property::always("only the holder of the fence shrinks", |_, w: &World| {
                w.deeds.broken != Some(Broken::NotItsFence)
            }),
            Property::always("a cordon of ours on a wanted node is about to go", cordons_go),
            Property::sometimes("shrunk", |_, w: &World| w.deeds.shrunk.is_some()),
        ];
        if self.edits > 0 {
            properties.push(Property::sometimes("cancelled after cordon", |_, w: &World| {
                w.deeds.cancelled
            }));
        }
        if self.terms > 1 {
            properties.push(Property::sometimes("second leader finishes", |_, w: &World| {
                w.deeds.shrunk == Some(2) && w.now.nodes[NODES - 1].is_none()
            }));
        }
        properties
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.born.iter().all(|b| *b <= BIRTHS)
    }
}

/// A leader that sees the world as it is takes the cordon back, or the fence first, or raises the count before.
fn cordons_go(drain: &Drain, world: &World) -> bool {
    let wanted = |o: usize| o < usize::from(world.now.target);
    let cordoned = (0..NODES).any(|o| wanted(o) && world.now.nodes[o].is_some_and(|n| n.cordon.is_some()));
    if !cordoned {
        return true;
    }
    let mut fresh = Operator::leader(world.lease);
    fresh.look(world.now, drain.reap);
    let question = Question {
        term: world.lease,
        cache: world.now,
        memory: fresh.memory,
        read: None,
        reap: drain.reap,
    };
    let decision = drain.decide(question);
    !decision.drain.is_empty() || !decision.workload.is_empty()
}

fn check(drain: Drain) {
    let checker = drain
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    eprintln!(
        "{} states ({} generated), depth {}, {} plans",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.model().plans(),
    );
    let (mut broken, mut missed) = (Vec::new(), Vec::new());
    for property in checker.model().properties() {
        let found = checker.discovery(property.name).map(Path::into_actions);
        match (property.expectation, found) {
            (Expectation::Sometimes, None) => missed.push(property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(actions)) => broken.push(format!("not always: {}\n  {actions:?}", property.name)),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // Only now: a check that finds something broken ends before it has seen everything.
    assert!(missed.is_empty(), "never: {missed:?}");
}

/// Two operators, three pods, a user who changes his mind.
fn small() -> Drain {
    Drain {
        edits: 1,
        hand: false,
        pending: 2,
        lag: OLD + 1,
        reap: false,
        terms: 2,
        floor: 1,
        known: Mutex::default(),
    }
}

#[test]
fn two_leaders() {
    check(small());
}

#[test]
fn a_user_who_changes_his_mind_again() {
    check(Drain {
        edits: 2,
        pending: 1,
        terms: 1,
        ..small()
    });
}

#[test]
fn a_workload_that_is_lowered_by_hand() {
    check(Drain {
        hand: true,
        lag: OLD,
        edits: 0,
        pending: 0,
        ..small()
    });
}

#[test]
fn a_provider_that_is_restarted_to_reap() {
    check(Drain {
        reap: true,
        lag: OLD,
        pending: 0,
        ..small()
    });
}

#[test]
fn a_pool_that_goes_down_to_nothing() {
    check(Drain {
        floor: 0,
        edits: 0,
        pending: 0,
        ..small()
    });
}

#[test]
fn two_leaders_and_a_user_who_changes_his_mind_again() {
    check(Drain {
        edits: 2,
        pending: 1,
        lag: OLD,
        ..small()
    });
}
