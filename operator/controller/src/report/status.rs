//! The whole status of a pool, from what was observed. Pure: the same pass gives the same status.

use jiff::Timestamp;
use serde_json::Value;
use vnp_crds::{
    Blocker, BlockerReason, DrainPhase, DrainStatus, DrainingNode, LimitedBy, ProviderStatus, ProviderType,
    VirtualNodePoolStatus, env_key,
};
use vnp_plan::observed::{Observed, Workload};

use super::blockage::{Blockage, Known};
use super::conditions::conditions;
use super::seconds::api_time;
use super::situation::{Pass, Situation, Standstill};
use super::wording::in_order;

/// Entries of most lists that the schema bounds.
const LISTED: usize = 10;
/// Entries of `provider.retired`.
const RETIRED_LISTED: usize = 100;

/// What is to be reported.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    /// The status as it should be.
    pub(super) status: VirtualNodePoolStatus,
    /// What holds the drain, the one that the conditions name first.
    pub(super) held_by: Vec<vnp_plan::finding::Blocker>,
    /// For the next pass.
    pub(super) standstill: Option<Standstill>,
    /// For the next pass: when the drain is done, as it is told.
    pub(super) done_at: Option<Timestamp>,
    /// When time alone will change the status: a deadline passes.
    pub(super) wake_at: Option<Timestamp>,
}

/// Folds a pass into the status of its pool.
pub(super) fn report(pass: &Pass<'_>) -> Report {
    let situation = Situation::of(pass);
    let facts = &pass.plan.facts;
    let previous = pass.previous();
    let status = VirtualNodePoolStatus {
        observed_generation: pass.observed.pool.metadata.generation,
        deletion_policy: facts.deletion_policy,
        // The target accepted last is what counts when spec.replicas is absent; a pass that found none must not lose it.
        target_replicas: facts
            .target
            .or_else(|| previous.and_then(|status| status.target_replicas)),
        nodes: Some(facts.nodes),
        available_nodes: Some(facts.available),
        pods: Some(facts.pods),
        pods_outdated: facts.outdated,
        selector: selector(pass.observed, previous),
        provider: Some(provider(pass)),
        // The plan counts what it leaves out; more lines than the schema takes would cost the whole status.
        pending_changes: facts.pending_changes.iter().take(LISTED).cloned().collect(),
        drain: drain(pass, &situation),
        conditions: conditions(pass, &situation),
    };
    let held_by = match &situation.blockage {
        Blockage::None => Vec::new(),
        Blockage::Held(held) => held.all().cloned().collect(),
    };
    Report {
        status,
        held_by,
        standstill: situation.standstill,
        done_at: situation.done_at,
        wake_at: situation.wake_at,
    }
}

/// The workload's own selector; the one known before when the workload is gone for a moment.
fn selector(observed: &Observed, previous: Option<&VirtualNodePoolStatus>) -> Option<String> {
    match observed.held_workload() {
        Some(workload) => Some(workload.selector_text()).filter(|text| !text.is_empty()),
        None => previous.and_then(|status| status.selector.clone()),
    }
}

fn provider(pass: &Pass<'_>) -> ProviderStatus {
    let spec = &pass.observed.pool.spec.provider;
    let facts = &pass.plan.facts;
    let workload = pass
        .observed
        .held_workload()
        .filter(|_| spec.type_ == ProviderType::StatefulSet);
    // That it was held before must be known when it is seen again.
    let unknown = pass.observed.workload.unknown().is_some();
    let before = pass
        .previous()
        .and_then(|s| s.provider.as_ref())
        .filter(|_| unknown);
    let mut registered = facts.registered.clone();
    registered.sort_unstable();
    registered.dedup();
    let mut started = facts.started.clone();
    started.sort_unstable();
    started.dedup();
    let newest = facts.retired.len().saturating_sub(RETIRED_LISTED);
    ProviderStatus {
        type_: spec.type_,
        name: spec.name.clone(),
        replicas: workload.map(|w| w.replicas()).or_else(|| before?.replicas),
        ready_replicas: workload.map(|w| w.ready_replicas()),
        image: workload.and_then(|w| image(w, spec.container())),
        registered,
        // With a workload that can't be read, what is not known stays so.
        started: (workload.is_some() || before.is_none_or(|s| s.started.is_some())).then_some(started),
        retired: facts.retired.iter().skip(newest).cloned().collect(),
        break_glass: facts.break_glass.clone(),
    }
}

/// Image of the container that is the provider: the one named, else the one with the region, else the only one.
fn image(workload: &Workload, named: Option<&str>) -> Option<String> {
    let containers = workload.containers();
    let name = |c: &Value| c.get("name").and_then(Value::as_str).map(str::to_owned);
    let has_region = |c: &&Value| {
        let env = c.get("env").and_then(Value::as_array);
        env.is_some_and(|env| {
            env.iter()
                .any(|e| e.get("name").and_then(Value::as_str) == Some(env_key::REGION))
        })
    };
    let container = match named {
        Some(named) => containers.iter().find(|c| name(c).as_deref() == Some(named)),
        None => containers
            .iter()
            .find(has_region)
            .or_else(|| containers.first().filter(|_| containers.len() == 1)),
    };
    container
        .and_then(|c| c.get("image")?.as_str())
        .map(str::to_owned)
}

fn drain(pass: &Pass<'_>, situation: &Situation) -> Option<DrainStatus> {
    let facts = &pass.plan.facts;
    if facts.draining.is_empty() && situation.blockers.is_empty() {
        return None;
    }
    let sum = |count: fn(&vnp_plan::plan::NodeInDrain) -> i32| {
        facts.draining.iter().map(count).fold(0_i32, i32::saturating_add)
    };
    let (total, remaining) = (sum(|n| n.pods_total), sum(|n| n.pods_remaining));
    // No drain that goes on or was given up is cut off: the plan names these first, and there are at most 10 of them,
    // because spec.drain.maxConcurrentNodes is at most that and a node that is kept keeps those below it. Of Nodes that only
    // have to be removed, nothing in here is needed again.
    let mut nodes: Vec<DrainingNode> = facts.draining.iter().take(LISTED).map(node).collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.ordinal));
    // Neither gone already nor held: these may be evicted now.
    let leaving = remaining > sum(|n| n.pods_terminating).saturating_add(sum(|n| n.pods_blocked));
    Some(DrainStatus {
        // PODS-LEFT is about a drain that goes on.
        summary: if facts.draining.iter().any(|n| n.phase != DrainPhase::Aborted) || facts.draining.is_empty()
        {
            format!("{remaining}/{total}")
        } else {
            String::new()
        },
        pods_total: total,
        pods_remaining: remaining,
        pods_terminating: sum(|n| n.pods_terminating),
        pods_blocked: sum(|n| n.pods_blocked),
        limited_by: limited_by(facts.limited_by, leaving, situation),
        nodes,
        blockers: listed(&situation.blockers)
            .into_iter()
            .map(|known| Blocker {
                reason: known.blocker.reason,
                object: known.blocker.object.clone(),
                pods: known.blocker.pods,
                since: api_time(known.since),
                message: in_order([known.blocker.message.as_str()]),
            })
            .chain(situation.last_blockers.iter().cloned())
            .collect(),
    })
}

/// What sets the speed: not nothing, and no settle, where something holds the pods.
fn limited_by(planned: Option<LimitedBy>, leaving: bool, situation: &Situation) -> LimitedBy {
    let held = matches!(situation.blockage, Blockage::Held(_));
    match planned.unwrap_or(LimitedBy::Nothing) {
        // Beside pods that something holds, others leave as fast as they can.
        LimitedBy::Nothing if leaving && !held => LimitedBy::Nothing,
        LimitedBy::Nothing if !situation.blockers.is_empty() => by_blockers(situation),
        LimitedBy::Settle if held => by_blockers(situation),
        planned => planned,
    }
}

fn by_blockers(situation: &Situation) -> LimitedBy {
    let budget = |reason| {
        matches!(
            reason,
            BlockerReason::BlockedByBudget | BlockerReason::MultipleBudgets
        )
    };
    if situation.blockers.iter().all(|k| budget(k.blocker.reason)) {
        LimitedBy::Budget
    } else {
        LimitedBy::Blocker
    }
}

/// The blockers to list. Since when each is known is read from the list by the next pass, and so is whether pods are left to
/// finish: what holds a drain goes before pods that are, and one of these is always there.
fn listed(blockers: &[Known]) -> Vec<&Known> {
    let waits = |k: &&Known| k.blocker.reason == BlockerReason::WaitingForCompletion;
    let (waiting, holding): (Vec<_>, Vec<_>) = blockers.iter().partition(waits);
    let room = LISTED.saturating_sub(waiting.len().min(1));
    let mut listed: Vec<&Known> = holding.into_iter().take(room).collect();
    let rest = LISTED.saturating_sub(listed.len());
    listed.extend(waiting.into_iter().take(rest));
    listed.sort_by(|a, b| (a.blocker.reason, &a.blocker.object).cmp(&(b.blocker.reason, &b.blocker.object)));
    listed
}

fn node(facts: &vnp_plan::plan::NodeInDrain) -> DrainingNode {
    DrainingNode {
        name: facts.name.clone(),
        uid: Some(facts.uid.clone()).filter(|uid| !uid.is_empty()),
        ordinal: facts.ordinal,
        phase: facts.phase,
        started_at: api_time(facts.started_at),
        last_progress_time: Some(api_time(facts.last_progress)),
        empty_since: facts.empty_since.map(api_time),
        recordons: facts.recordons,
        force_announced_time: facts.force_announced.map(api_time),
        force_delete_time: facts.force_at.map(api_time),
        reaped_provider_uid: facts.reaped_provider_uid.clone(),
        pods_total: facts.pods_total,
        pods_remaining: facts.pods_remaining,
    }
}
