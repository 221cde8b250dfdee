//! What Ready says of a drain, in one shape whether it moves or not: what is drained and how many pods are left, what
//! holds it, what helps, and until when.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{DrainPhase, OnTimeout};
use vnp_plan::plan::NodeInDrain;

use super::blockage::{Blockage, Held};
use super::seconds::whole;
use super::situation::{Pass, Situation};
use super::wording::list;

/// The drain as it stands; `None` when there is none to speak of.
pub(super) fn draining(pass: &Pass<'_>, situation: &Situation) -> Option<String> {
    let held = match &situation.blockage {
        Blockage::Held(held) => Some(held),
        Blockage::None => None,
    };
    let going: Vec<&NodeInDrain> = going(pass).collect();
    let what = what(pass, situation, &going)?;
    let first = forced(&going);
    let because = because(situation, held);
    // Before a time at which it is deleted by force, nothing is told of one at which it would be stuck.
    let until = match first {
        Some(_) => None,
        None => held.and_then(|h| still(h, &going)).or_else(|| done(situation)),
    };
    let parts = [
        first,
        Some(what),
        because,
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
        return Some(format!("draining {}", list(going.iter().map(|n| place(n)))));
    }
    let target = facts.target.filter(|target| facts.nodes > *target);
    match (target, situation.blockers.is_empty()) {
        (Some(target), true) => Some(format!(
            "{} virtual nodes, {target} wanted: the rest is to be drained",
            facts.nodes
        )),
        (Some(target), false) => Some(format!(
            "{} virtual nodes, {target} wanted: the drain has not begun",
            facts.nodes
        )),
        (None, true) => None,
        (None, false) => Some("the drain has not begun".to_owned()),
    }
}

fn place(node: &NodeInDrain) -> String {
    let pods = match node.pods_remaining {
        0 => "no pod left".to_owned(),
        left => format!(
            "{left} of {} pods left, {} being deleted",
            node.pods_total, node.pods_terminating
        ),
    };
    format!("{} ({}, {pods})", node.name, node.phase)
}

/// A forced deletion that was announced comes before everything else.
fn forced(going: &[&NodeInDrain]) -> Option<String> {
    let first = going.iter().filter_map(|n| n.force_at).min()?;
    let nodes = list(
        going
            .iter()
            .filter(|n| n.force_at.is_some())
            .map(|n| n.name.as_str()),
    );
    let at = whole(first);
    Some(format!(
        "from {at} on the pods left on {nodes} are deleted past their budgets; set spec.drain.onTimeout: Wait to prevent that"
    ))
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

/// How to keep the nodes, while that is possible.
fn keep(pass: &Pass<'_>, going: &[&NodeInDrain]) -> Option<String> {
    let kept = |n: &&&NodeInDrain| !matches!(n.phase, DrainPhase::Shrinking | DrainPhase::Removing);
    let target = pass.plan.facts.target?;
    let count = i32::try_from(going.iter().filter(kept).count())
        .ok()
        .filter(|count| *count > 0)?;
    (!pass.observed.deleting()).then(|| {
        let wanted = target.saturating_add(count);
        let nodes = if count == 1 { "the node" } else { "the nodes" };
        format!("set spec.replicas: {wanted} to keep {nodes}")
    })
}

/// Until when it may go on by itself, or since when it has not. Pods of a node that is not drained yet come and go unseen.
fn still(held: &Held, going: &[&NodeInDrain]) -> Option<String> {
    match held.stalls_at {
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
    let ends = nodes
        .into_iter()
        // Announced already: that says it.
        .filter(|n| n.phase != DrainPhase::Aborted && n.force_at.is_none())
        .filter_map(|n| whole(n.started_at).checked_add(timeout).ok());
    ends.filter(|end| *end > pass.now).min()
}
