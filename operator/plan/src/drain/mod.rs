//! The drain: which nodes go, and what has to be true before each next step. Every pass decides afresh from what is
//! seen; `status.drain` keeps only what can't be seen (start, restarts, progress).

mod abort;
pub mod answer;
pub mod audit;
pub(crate) mod break_glass;
pub mod budgets;
mod candidates;
mod choose;
mod cordon;
mod deadline;
mod emptying;
pub mod estimate;
mod force;
pub mod health;
pub mod identity;
pub(crate) mod installations;
mod makers;
pub mod memory;
mod node;
pub mod order;
mod ordered;
pub mod pace;
mod removal;
pub mod returns;
pub mod settle;
pub(crate) mod stages;
mod unavailable;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{BlockerReason, DrainPhase, DrainSettings, LimitedBy, RetiredOrdinal};

use crate::drain::abort::Aborts;
use crate::drain::memory::Progress;
use crate::drain::order::DrainOrder;
use crate::drain::settle::Settle;
use crate::finding::{Blocker, Finding};
use crate::observed::{Observed, Ordinal, Workload};
use crate::plan::NodeInDrain;
use crate::step::Step;

/// What holds every drain of a pool before it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holds {
    /// A drain field is set that can't be followed: nothing of a drain is, not even the part that was understood.
    pub refused: Option<String>,
    /// A roll step is in flight; a drain starts between two steps.
    pub roll_in_step: bool,
}

/// What the drain contributes to a plan.
#[derive(Clone, Debug, Default)]
pub struct DrainPlan {
    /// Steps of the drain track, in order.
    pub steps: Vec<Step>,
    /// Steps of the audit track.
    pub audit: Vec<Step>,
    /// Live reads wanted.
    pub reads: Vec<Ordinal>,
    /// What may be evicted.
    pub orders: Vec<DrainOrder>,
    /// Settles that stay or begin.
    pub settles: BTreeMap<Ordinal, Settle>,
    /// What there is to say.
    pub findings: Vec<Finding>,
    /// How far they are, by ordinal.
    pub progress: BTreeMap<Ordinal, Progress>,
    /// Nodes that drain: those under way first, then those whose drain was given up, then those that only have to be removed.
    pub nodes: Vec<NodeInDrain>,
    /// Ordinals taken away.
    pub retired: Vec<RetiredOrdinal>,
    /// What limits the drain.
    pub limited_by: Option<LimitedBy>,
    /// The ordinal whose own provider holds its drain.
    pub held_by_provider: Option<Ordinal>,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
    /// When the nodes in drain are done, if nothing holds them up.
    pub done_at: Option<Timestamp>,
    /// UIDs of the StatefulSets of which a pod is offered already.
    turns: BTreeSet<String>,
    /// Pods of a StatefulSet without a budget wait for one another, nobody knows for how long.
    waits_for_turn: bool,
    /// A node has nothing to offer but pods of later stages.
    waits_for_stage: bool,
}

impl DrainPlan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn block(&mut self, blocker: Blocker) {
        self.findings.push(Finding::Blocker(blocker));
    }

    /// A node is being emptied or taken away. One whose drain was given up is neither.
    pub fn busy(&self) -> bool {
        self.nodes.iter().any(|n| n.phase != DrainPhase::Aborted)
    }
}

/// One pass's view of the drain: what is observed, and what follows from it at once.
pub(crate) struct Scene<'a> {
    pub(crate) seen: &'a Observed,
    pub(crate) workload: &'a Workload,
    pub(crate) settings: DrainSettings,
    pub(crate) target: i32,
    /// Nothing may be evicted or shrunk; own cordons stay.
    pub(crate) held: bool,
    aborts: Aborts,
    pub(crate) now: Timestamp,
}

impl Scene<'_> {
    /// The status entry of an ordinal's drain, as this operator or an earlier one reported it. A drain that begins anew
    /// has none.
    pub(crate) fn reported(&self, ordinal: Ordinal) -> Option<&vnp_crds::DrainingNode> {
        self.stored(ordinal)
            .filter(|_| !self.aborts.anew.contains(&ordinal))
    }

    /// The status entry of an ordinal.
    fn stored(&self, ordinal: Ordinal) -> Option<&vnp_crds::DrainingNode> {
        let drain = self.seen.pool.status.as_ref()?.drain.as_ref()?;
        drain.nodes.iter().find(|n| n.ordinal == ordinal)
    }

    /// First ordinal that is not wanted.
    pub(crate) fn boundary(&self) -> Ordinal {
        self.workload.start_ordinal().saturating_add(self.target)
    }

    /// What keeps the nodes of the pool.
    pub(crate) fn keep_hint(&self) -> &'static str {
        match self.seen.deleting() {
            true => "set spec.deletionPolicy: Retain to keep the nodes",
            false => "raise spec.replicas to keep the node",
        }
    }

    /// The value of annotation `shrinking` with which this leader may shrink this ordinal.
    pub(crate) fn fence(&self, ordinal: Ordinal, node_uid: &str) -> String {
        format!("{ordinal}/{node_uid}/{}", self.seen.operator.term)
    }

    /// The last report said that the drain waits for pods to finish.
    pub(crate) fn waited_for_completion(&self) -> bool {
        let drain = self.seen.pool.status.as_ref().and_then(|s| s.drain.as_ref());
        drain.is_some_and(|d| {
            d.blockers
                .iter()
                .any(|b| b.reason == BlockerReason::WaitingForCompletion)
        })
    }

    /// Since when the same thing blocks: kept from the status, so that it survives a restart.
    pub(crate) fn blocked_since(&self, reason: BlockerReason, object: &str) -> Timestamp {
        let drain = self.seen.pool.status.as_ref().and_then(|s| s.drain.as_ref());
        drain
            .and_then(|d| {
                d.blockers
                    .iter()
                    .find(|b| b.reason == reason && b.object == object)
            })
            .map_or(self.now, |b| b.since.0)
    }

    pub(crate) fn blocker(
        &self,
        reason: BlockerReason,
        object: String,
        pods: usize,
        message: String,
    ) -> Blocker {
        let since = Some(self.blocked_since(reason, &object));
        let pods = i32::try_from(pods).unwrap_or(i32::MAX);
        Blocker {
            reason,
            object,
            pods,
            since,
            message,
            terminal: false,
        }
    }
}

/// Plans the drain of a workload that the pool holds. `target` is the accepted count of nodes.
pub fn plan_drain(
    seen: &Observed,
    workload: &Workload,
    target: i32,
    holds: &Holds,
    now: Timestamp,
) -> DrainPlan {
    let mut scene = Scene {
        seen,
        workload,
        settings: seen.pool.spec.drain(),
        target,
        held: holds.refused.is_some(),
        aborts: Aborts::default(),
        now,
    };
    scene.aborts = abort::judge(&scene);
    let mut plan = DrainPlan::default();
    let chosen = choose::choose(&scene, holds, &mut plan);
    cordon::release(&scene, &chosen, &mut plan);
    let mut silent = Vec::new();
    for ordinal in &chosen {
        if node::advance(&scene, *ordinal, &mut plan) {
            silent.push(*ordinal);
        }
    }
    node::progress(&scene, &silent, &mut plan);
    plan.progress = node::lasting(&scene, &plan.nodes);
    // After the progress of the others: for these the stamp is the deadline that passed.
    let kept = scene.aborts.given_up.iter().rev();
    plan.nodes.extend(kept.map(|o| abort::entry(&scene, *o)));
    removal::advance(&scene, &mut plan);
    audit::advance(&scene, &mut plan);
    plan.limited_by = limited_by(&scene, &plan);
    plan.done_at = estimate::done_at(&scene, &plan);
    plan
}

/// What stands in the status, while the workload can't be seen or is not there for a moment: nothing is done, and nothing is
/// forgotten that must survive.
pub(crate) fn as_reported(seen: &Observed, now: Timestamp) -> DrainPlan {
    let nothing = Workload::new(serde_json::json!({}));
    let scene = Scene {
        seen,
        workload: &nothing,
        settings: seen.pool.spec.drain(),
        target: 0,
        held: true,
        aborts: Aborts::default(),
        now,
    };
    let status = seen.pool.status.as_ref();
    let draining = status
        .and_then(|s| s.drain.as_ref())
        .map_or(&[][..], |d| d.nodes.as_slice());
    let provider = status.and_then(|s| s.provider.as_ref());
    DrainPlan {
        nodes: draining.iter().map(|n| kept(&scene, n)).collect(),
        retired: provider.map(|p| p.retired.clone()).unwrap_or_default(),
        limited_by: (!draining.is_empty()).then_some(LimitedBy::Nothing),
        ..DrainPlan::default()
    }
}

/// An entry of the status as it is now. The stamp of one that was given up is the deadline that passed, which tells later
/// that nobody changed anything.
fn kept(scene: &Scene<'_>, reported: &vnp_crds::DrainingNode) -> NodeInDrain {
    let mut entry = node::entry(scene, reported.ordinal);
    if let Some(stamp) = &reported.last_progress_time
        && reported.phase == DrainPhase::Aborted
    {
        entry.last_progress = stamp.0;
    }
    entry
}

fn limited_by(scene: &Scene<'_>, plan: &DrainPlan) -> Option<LimitedBy> {
    if !plan.busy() {
        return None;
    }
    let told = plan
        .orders
        .iter()
        .filter(|o| !o.pods.is_empty())
        .filter_map(|o| plan.nodes.iter().find(|n| n.name == o.node))
        .filter_map(|n| scene.seen.memory.get(&n.ordinal)?.limited_by)
        .next();
    let removing = |n: &NodeInDrain| matches!(n.phase, DrainPhase::Removing | DrainPhase::Aborted);
    Some(told.unwrap_or(if plan.nodes.iter().all(removing) {
        LimitedBy::Nothing
    } else if plan.orders.is_empty() {
        LimitedBy::Settle
    } else if plan.waits_for_stage && plan.orders.iter().all(|o| o.pods.is_empty()) {
        LimitedBy::Stage
    } else {
        LimitedBy::Nothing
    }))
}

pub(crate) const fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
