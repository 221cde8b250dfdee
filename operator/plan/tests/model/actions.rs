//! Who may do what next.

use serde_json::Value;
use vnp_plan::observed::Workload;

use super::Drain;
use super::observed::{fence, workload};
use super::operator::{List, Operator, Reading, Stage, Write, Writing};
use super::pass::{Decision, Question, Settles};
use super::world::{Broken, NODES, Node, World};

/// One step of somebody. Operators are named by their place in [`World::operators`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Ticks of every clock.
    Tick,
    /// The user edits `spec.replicas` of the pool.
    Edit(u8),
    /// The user scales the workload.
    ScaleByHand,
    /// The scheduler binds a pod. It may not have seen a cordon that is younger than its delay.
    Bind(usize),
    /// An evicted pod is gone, and its ReplicaSet makes another one.
    Gone(usize),
    /// The StatefulSet's controller makes the missing provider.
    StartProvider(usize),
    /// The StatefulSet's controller removes the provider that is too many.
    StopProvider(usize),
    /// A provider registers its Node.
    Register(usize),
    /// An operator takes the lease.
    TakeOver(usize),
    /// An operator's process dies, with all that it remembers.
    Crash(usize),
    /// An operator's watches catch up.
    Look(usize),
    /// An operator begins a pass.
    Pass(usize),
    /// It lists the pods of a node.
    List(usize, usize),
    /// It reads the rest and plans again.
    Replan(usize),
    /// It makes the next write of its workload track.
    WriteWorkload(usize),
    /// It makes the next write of its drain track.
    WriteDrain(usize),
    /// It writes the status.
    Report(usize),
    /// It evicts a pod from a node.
    Evict(usize, usize),
}

impl Drain {
    /// Does it, or says that it changes nothing or is not possible now.
    pub(crate) fn act(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Tick => tick(world, self.lag),
            Action::Edit(target) => {
                world.edits = world.edits.checked_sub(1)?;
                (target != world.now.target).then(|| world.edit(target))
            }
            Action::ScaleByHand => {
                (std::mem::take(&mut world.hand) && world.now.replicas > 1).then_some(())?;
                world.exempt = true;
                world.now.replicas -= 1;
                world.workload_written();
                Some(())
            }
            Action::Bind(o) => bind(world, o, self.lag),
            Action::Gone(o) => {
                world.now.terminating[o] = world.now.terminating[o].checked_sub(1)?;
                world.pending += 1;
                Some(())
            }
            Action::StartProvider(o) => {
                (o < usize::from(world.now.replicas) && world.now.providers[o].is_none()).then_some(())?;
                world.born[o] += 1;
                world.now.providers[o] = Some(world.born[o]);
                Some(())
            }
            Action::StopProvider(o) => {
                (o >= usize::from(world.now.replicas)).then_some(())?;
                world.now.providers[o].take()?;
                if world.now.pods(o) > 0 && !world.exempt {
                    world.breaks(Broken::UnderPod);
                }
                Some(())
            }
            Action::Register(o) => {
                let uid = world.now.providers[o]?;
                world.now.nodes[o].is_none().then(|| {
                    world.now.nodes[o] = Some(Node { uid, cordon: None });
                })
            }
            Action::TakeOver(i) => {
                // A write of its own that is still under way belongs to a process, and this is another one.
                (world.operators[i].term.is_none() && world.lease < self.terms).then_some(())?;
                world.operators.iter_mut().for_each(Operator::depose);
                world.lease += 1;
                world.operators[i] = Operator::leader(world.lease);
                Some(())
            }
            Action::Crash(i) => {
                world.operators[i].term?;
                world.operators[i] = Operator::default();
                Some(())
            }
            Action::Look(i) => {
                let now = world.now;
                let operator = &mut world.operators[i];
                let free = matches!(operator.stage, Stage::Idle) && operator.term == Some(world.lease);
                free.then(|| operator.look(now, self.reap))
            }
            Action::Pass(i) => self.pass(world, i),
            Action::List(i, o) => {
                let pods = world.now.pods(o);
                let Stage::Reading(reading) = &mut world.operators[i].stage else {
                    return None;
                };
                (reading.wanted[o] && reading.lists[o].is_none()).then(|| {
                    reading.lists[o] = Some(List {
                        at: reading.since,
                        pods,
                    });
                })
            }
            Action::Replan(i) => self.replan(world, i),
            Action::WriteWorkload(i) => next_write(world, i, |w| &mut w.workload),
            Action::WriteDrain(i) => next_write(world, i, |w| &mut w.drain),
            Action::Report(i) => {
                let writing = writing(world, i)?;
                (writing.workload.is_empty() && writing.drain.is_empty()).then_some(())?;
                world.now.status = writing.status.take()?;
                world.operators[i].rest();
                Some(())
            }
            Action::Evict(i, o) => {
                let operator = &world.operators[i];
                (operator.orders[o] && operator.term == Some(world.lease)).then_some(())?;
                world.now.bound[o] = world.now.bound[o].checked_sub(1)?;
                world.now.terminating[o] += 1;
                Some(())
            }
        }
    }

    fn pass(&self, world: &mut World, i: usize) -> Option<()> {
        let Operator {
            term, memory, stage, ..
        } = &world.operators[i];
        let Stage::Seen(cache) = *stage else {
            return None;
        };
        let (term, memory) = ((*term)?, *memory);
        let decision = self.decide(Question {
            term,
            cache,
            memory,
            read: None,
            reap: self.reap,
        });
        if decision.reads.contains(&true) {
            world.operators[i].stage = Stage::Reading(Reading {
                cache,
                memory,
                since: 0,
                wanted: decision.reads,
                lists: [None; NODES],
            });
        } else {
            follow(world, i, decision);
        }
        Some(())
    }

    fn replan(&self, world: &mut World, i: usize) -> Option<()> {
        let Operator { term, stage, .. } = &world.operators[i];
        let Stage::Reading(reading) = *stage else {
            return None;
        };
        (0..NODES)
            .all(|o| !reading.wanted[o] || reading.lists[o].is_some())
            .then_some(())?;
        let decision = self.decide(Question {
            term: (*term)?,
            cache: reading.cache,
            memory: reading.memory,
            read: Some((reading, world.now)),
            reap: self.reap,
        });
        follow(world, i, decision);
        Some(())
    }
}

fn tick(world: &mut World, lag: u8) -> Option<()> {
    let mut older = false;
    for operator in &mut world.operators {
        older |= operator.tick(world.lease);
    }
    for (age, node) in world.cordon_age.iter_mut().zip(world.now.nodes) {
        if node.is_some_and(|n| n.cordon.is_some()) {
            older |= *age < lag;
            *age = lag.min(*age + 1);
        }
    }
    older.then_some(())
}

fn bind(world: &mut World, ordinal: usize, lag: u8) -> Option<()> {
    let node = world.now.nodes[ordinal]?;
    (node.cordon.is_none() || world.cordon_age[ordinal] < lag).then_some(())?;
    world.pending = world.pending.checked_sub(1)?;
    world.now.bound[ordinal] += 1;
    Some(())
}

/// Takes over what the plan says, and begins to write it.
fn follow(world: &mut World, i: usize, decision: Decision) {
    let operator = &mut world.operators[i];
    for (memory, settles) in operator.memory.iter_mut().zip(decision.settles) {
        match settles {
            Settles::Not => memory.settle = None,
            Settles::On => {}
            Settles::Anew(settle) => memory.settle = Some(settle),
        }
    }
    operator.orders = decision.orders;
    let status = (decision.status != world.now.status).then_some(decision.status);
    operator.stage = Stage::Writing(Writing {
        workload: decision.workload,
        drain: decision.drain,
        status,
        lowest: world.now.target,
    });
    operator.rest();
}

fn writing(world: &mut World, i: usize) -> Option<&mut Writing> {
    match &mut world.operators[i].stage {
        Stage::Writing(writing) => Some(writing),
        _ => None,
    }
}

/// Makes the next write of a track; one that fails ends the track.
fn next_write(world: &mut World, i: usize, track: fn(&mut Writing) -> &mut Vec<Write>) -> Option<()> {
    let writing = writing(world, i)?;
    let lowest = writing.lowest;
    let next = (!track(writing).is_empty()).then(|| track(writing).remove(0))?;
    let done = write(world, i, next, lowest);
    if let Stage::Writing(writing) = &mut world.operators[i].stage
        && !done
    {
        track(writing).clear();
    }
    world.operators[i].rest();
    Some(())
}

/// What the API server makes of a write; false when a precondition does not hold.
fn write(world: &mut World, i: usize, write: Write, lowest: u8) -> bool {
    match write {
        Write::Workload { patch, shrinks } => patch_workload(world, i, &patch, shrinks, lowest),
        Write::Cordon { ordinal, uid, term } => {
            let Some(node) = world.now.nodes[ordinal].as_mut().filter(|n| n.uid == uid) else {
                return false;
            };
            if node.cordon.replace(term).is_none() {
                world.cordon_age[ordinal] = 0;
            }
            true
        }
        Write::Uncordon { ordinal, seen } => {
            let Some(node) = world.now.nodes[ordinal].as_mut().filter(|n| **n == seen) else {
                return false;
            };
            node.cordon = None;
            world.cordon_age[ordinal] = 0;
            world.deeds.cancelled = true;
            true
        }
        Write::RestartProvider { ordinal, uid } => {
            if world.now.providers[ordinal] != Some(uid) {
                return false;
            }
            world.now.providers[ordinal] = None;
            // Late, it may meet pods that came since; the StatefulSet starts the provider again for them.
            let leads = world.operators[i].term == Some(world.lease);
            let kept = ordinal < usize::from(world.now.replicas);
            if world.now.pods(ordinal) > 0 && (leads || !kept) {
                world.breaks(Broken::UnderPod);
            }
            true
        }
        Write::DeleteNode { ordinal, uid } => {
            let there = world.now.nodes[ordinal].is_some_and(|n| n.uid == uid);
            if there {
                world.now.nodes[ordinal] = None;
                world.cordon_age[ordinal] = 0;
            }
            there
        }
    }
}

fn patch_workload(world: &mut World, i: usize, patch: &str, shrinks: bool, lowest: u8) -> bool {
    let patch: json_patch::Patch = serde_json::from_str(patch).expect("a patch");
    let mut raw: Value = workload(&world.now).raw;
    if json_patch::patch(&mut raw, &patch).is_err() {
        return false;
    }
    let after = Workload::new(raw);
    if shrinks {
        let ordinal = usize::from(world.now.replicas) - 1;
        let holder = world
            .now
            .fence
            .is_some_and(|f| f.ordinal == ordinal && Some(f.term) == world.operators[i].term);
        // Removed without ceremony: its Node may register after the last look, and a pod come with it.
        let came_up = world.now.status.registered[ordinal];
        world.exempt |= !came_up;
        if came_up && world.now.pods(ordinal) > 0 {
            world.breaks(Broken::UnderPod);
        }
        if after.replicas() < i32::from(lowest) {
            world.breaks(Broken::BelowTarget);
        }
        if !holder {
            world.breaks(Broken::NotItsFence);
        }
        world.deeds.shrunk = world.operators[i].term;
    }
    world.now.replicas = u8::try_from(after.replicas()).expect("a small count");
    world.now.fence = fence(&after);
    world.workload_written();
    true
}
