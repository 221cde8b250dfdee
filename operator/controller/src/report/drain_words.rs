//! What Ready says of a drain, in one shape whether it moves or not: what is drained and how many pods are left, what
//! holds it, what helps, and until when.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{BlockerReason, DrainPhase, OnTimeout};
use vnp_plan::plan::{NodeInDrain, TrackKind};

use super::blockage::{Blockage, Held};
use super::seconds::whole;
use super::situation::{Pass, Situation};
use super::wording::{list, nodes, sentences};

/// The drain as it stands; `None` when there is none to speak of.
pub(super) fn draining(pass: &Pass<'_>, situation: &Situation) -> Option<String> {
    let held = match &situation.blockage {
        Blockage::Held(held) => Some(held),
        Blockage::None => None,
    };
    let going: Vec<&NodeInDrain> = going(pass).collect();
    let what = what(pass, situation, &going)?;
    let first = forced(pass, situation, &going);
    let because = because(situation, held);
    let refused = refused(pass);
    // Before a time at which it is deleted by force, nothing is told of one at which it would be stuck. A write that is
    // refused holds it up already.
    let until = match (&first, &refused) {
        (Some(_), _) | (None, Some(_)) => None,
        (None, None) => held.and_then(|h| still(h, &going)).or_else(|| done(situation)),
    };
    let parts = [
        first,
        Some(what),
        because,
        refused,
        keep(pass, &going),
        until,
        deadline(pass, &going),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

fn going<'a>(pass: &Pass<'a>) -> impl Iterator<Item = &'a NodeInDrain> {
    let nodes = pass.plan.facts.draining.iter();
    nodes.filter(|n| n.phase != DrainPhase::Aborted)
}

fn what(pass: &Pass<'_>, situation: &Situation, going: &[&NodeInDrain]) -> Option<String> {
    let facts = &pass.plan.facts;
    if !going.is_empty() {
        return Some(format!("draining {}", list(going.iter().map(|n| place(pass, n)))));
    }
    let target = facts.target.filter(|target| facts.nodes > *target);
    match (target, situation.blockers.is_empty()) {
        (Some(target), true) => Some(format!(
            "{}, {target} wanted: the rest is to be drained",
            nodes(facts.nodes)
        )),
        (Some(target), false) => Some(format!(
            "{}, {target} wanted: the drain has not begun",
            nodes(facts.nodes)
        )),
        (None, true) => None,
        (None, false) => Some("the drain has not begun".to_owned()),
    }
}

fn place(pass: &Pass<'_>, node: &NodeInDrain) -> String {
    let pods = match node.pods_remaining {
        // What spec.drain.daemonSetPods leaves out stays.
        0 if pass.observed.pods_on(node.ordinal).next().is_some() => "no pod left that holds it".to_owned(),
        0 => "no pod left".to_owned(),
        left => format!(
            "{left} of {} pods left, {} being deleted",
            node.pods_total, node.pods_terminating
        ),
    };
    format!("{} ({}, {pods})", node.name, node.phase)
}

/// A forced deletion that was announced comes before everything else.
fn forced(pass: &Pass<'_>, situation: &Situation, going: &[&NodeInDrain]) -> Option<String> {
    let mut times: BTreeMap<Timestamp, Vec<&NodeInDrain>> = BTreeMap::new();
    for node in going.iter().filter(|n| n.pods_remaining > 0) {
        let at = node.force_at.map(whole);
        at.into_iter()
            .for_each(|at| times.entry(at).or_default().push(node));
    }
    let said = times.into_iter().flat_map(|(at, nodes)| {
        // Without a provider that works and a cordon that stands nothing is deleted, by force or otherwise.
        let by = |n: &NodeInDrain| stopped_by(situation, n).filter(|_| at <= pass.now);
        let (stopped, free): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|n| by(n).is_some());
        let names = |nodes: &[&NodeInDrain]| list(nodes.iter().map(|n| n.name.as_str()));
        let reasons = list(stopped.iter().filter_map(|n| by(n)).map(|r| r.as_str()));
        let free = (!free.is_empty()).then(|| {
            format!(
                "from {at} on the pods left on {} are deleted past their budgets",
                names(&free)
            )
        });
        let stopped = (!stopped.is_empty()).then(|| {
            format!(
                "the pods left on {} may be deleted past their budgets since {at}, and that waits for what {reasons} names",
                names(&stopped)
            )
        });
        [free, stopped].into_iter().flatten()
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| {
        format!(
            "{}; set spec.drain.onTimeout: Wait to prevent that",
            said.join("; ")
        )
    })
}

fn stopped_by(situation: &Situation, node: &NodeInDrain) -> Option<BlockerReason> {
    let stops = [
        BlockerReason::ProviderUnavailable,
        BlockerReason::NodeMissing,
        BlockerReason::CordonContested,
    ];
    let mut blockers = situation.blockers.iter().map(|known| &known.blocker);
    blockers
        .find(|b| stops.contains(&b.reason) && b.object == node.name)
        .map(|b| b.reason)
}

/// The writes of the drain that the API server refuses until somebody changes something.
fn refused(pass: &Pass<'_>) -> Option<String> {
    let writes = pass.attempts.refused.iter();
    let mut writes = writes.filter(|r| r.track == TrackKind::Drain).peekable();
    writes.peek()?;
    Some(sentences(writes.map(|r| r.message.as_str())))
}

fn because(situation: &Situation, held: Option<&Held>) -> Option<String> {
    if let Some(held) = held {
        return Some(format!("{}{}", counted(held.by.pods), held.message()));
    }
    let first = &situation.blockers.first()?.blocker;
    let more = match situation.blockers.len() {
        1 => String::new(),
        all => format!("; {} more in status.drain.blockers", all - 1),
    };
    Some(format!("{}{first}{more}", counted(first.pods)))
}

fn counted(pods: i32) -> String {
    match pods {
        0 => String::new(),
        1 => "1 pod is held by ".to_owned(),
        pods => format!("{pods} pods are held by "),
    }
}

/// How to keep the nodes, while that is possible: the count has to reach the highest of them.
fn keep(pass: &Pass<'_>, going: &[&NodeInDrain]) -> Option<String> {
    let kept = || going.iter().filter(|n| !taken_away(n));
    let start = pass.observed.held_workload()?.start_ordinal();
    let highest = kept().map(|n| n.ordinal).max()?;
    (!pass.observed.deleting()).then(|| {
        let wanted = highest.saturating_sub(start).saturating_add(1);
        let nodes = if kept().count() == 1 {
            "the node"
        } else {
            "the nodes"
        };
        format!("set spec.replicas: {wanted} to keep {nodes}")
    })
}

/// The count is lowered: no deadline acts on it any more, and nothing keeps it.
fn taken_away(node: &NodeInDrain) -> bool {
    matches!(node.phase, DrainPhase::Shrinking | DrainPhase::Removing)
}

/// Until when it may go on by itself, or since when it has not. Pods of a node that is not drained yet come and go unseen.
fn still(held: &Held, going: &[&NodeInDrain]) -> Option<String> {
    match held.stalls_at {
        Some(at) if held.by.pods == 0 => Some(format!("Stalled at {at} if that lasts")),
        Some(at) => Some(format!("Stalled at {at} unless a pod leaves before")),
        None if going.is_empty() => None,
        None => Some(format!("no pod has left since {}", held.still_since)),
    }
}

fn done(situation: &Situation) -> Option<String> {
    let done = situation.done_at?;
    Some(format!("done by {done} if nothing holds it up"))
}

/// When the first of the drains is over its time, and what happens then.
fn deadline(pass: &Pass<'_>, going: &[&NodeInDrain]) -> Option<String> {
    let at = next_deadline(pass, going.iter().copied())?;
    let then = match pass.observed.pool.spec.drain().on_timeout {
        OnTimeout::Wait => "then it is Stalled and goes on",
        OnTimeout::Abort if pass.observed.deleting() => {
            "then it is Stalled and goes on, because the pool is deleted"
        }
        OnTimeout::Abort => "then the node is kept",
        OnTimeout::ForceDelete => "then the pods left are deleted past their budgets",
    };
    Some(format!("spec.drain.timeoutSeconds ends at {at}: {then}"))
}

/// The next end of `spec.drain.timeoutSeconds` of a node that drains.
pub(super) fn next_deadline<'a>(
    pass: &Pass<'_>,
    nodes: impl IntoIterator<Item = &'a NodeInDrain>,
) -> Option<Timestamp> {
    let timeout = SignedDuration::try_from(pass.observed.pool.spec.drain().timeout?).ok()?;
    // Of a node without pods there is nothing to delete.
    let forces = pass.observed.pool.spec.drain().on_timeout == OnTimeout::ForceDelete;
    let ends = nodes
        .into_iter()
        // Announced already: that says it.
        .filter(|n| n.phase != DrainPhase::Aborted && n.force_at.is_none() && !taken_away(n))
        .filter(|n| !forces || n.pods_remaining > 0)
        .filter_map(|n| whole(n.started_at).checked_add(timeout).ok());
    ends.filter(|end| *end > pass.now).min()
}
