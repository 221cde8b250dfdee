//! The reason of Ready: the one word that `kubectl get` shows.

use std::collections::BTreeMap;

use vnp_crds::{ConditionType, DeletionPolicy, DrainPhase, Reason};
use vnp_plan::finding::{ProviderState, SchedulingState};
use vnp_plan::plan::TrackKind;

use super::blockage::Blockage;
use super::situation::{Pass, Situation};
use super::wording::{list, sentences};

/// Everything that applies, by reason. [`Reason`] sorts by precedence, so the first one is the one to show; empty means
/// that this generation is realised.
pub(super) type Applying = BTreeMap<Reason, String>;

/// What keeps the pool from being Ready, pause and deletion aside.
pub(super) fn applying(pass: &Pass<'_>, situation: &Situation) -> Applying {
    let mut applying = Applying::new();
    let mut say = |reason: Reason, message: String| {
        applying.entry(reason).or_insert(message);
    };
    if let Some((reason, message)) = situation.refusal() {
        match reason {
            Reason::Conflict => say(Reason::Conflict, message),
            exact => say(Reason::InvalidSpec, format!("{exact}: {message}")),
        }
    }
    for (reason, message) in &situation.stalled {
        say(word(*reason), message.clone());
    }
    if let Blockage::Held(held) = &situation.blockage {
        say(held.reason(), held.message());
    }
    let facts = &pass.plan.facts;
    for (state, message) in &situation.provider {
        say(provider_word(pass, *state), message.clone());
    }
    if let Some(message) = draining(pass, situation) {
        say(Reason::Draining, message);
    }
    if facts.target.is_some_and(|target| facts.nodes < target) {
        let counts = format!(
            "{} of {} virtual nodes are registered",
            facts.nodes,
            facts.target.unwrap_or_default()
        );
        say(provider_word(pass, ProviderState::ScalingUp), counts);
    }
    if !situation.profile.is_empty() {
        say(
            Reason::ConfigNotSynced,
            sentences(situation.profile.values().map(String::as_str)),
        );
    }
    let undone = situation.scheduling.iter();
    for (_, message) in undone
        .rev()
        .filter(|(state, _)| **state > SchedulingState::LeftOut)
    {
        say(Reason::ConfigNotSynced, message.clone());
    }
    for message in situation.webhook.values().rev() {
        say(Reason::ConfigNotSynced, message.clone());
    }
    for refused in &pass.attempts.refused {
        let reason = match refused.track {
            TrackKind::Pool => Reason::Provisioning,
            TrackKind::Workload => Reason::Updating,
            TrackKind::Drain => Reason::Draining,
            TrackKind::Policies => Reason::ConfigNotSynced,
            // Told as an event: the pool is what it should be, with a record or without.
            TrackKind::Audit => continue,
        };
        say(reason, refused.message.clone());
    }
    applying
}

/// The word of Ready for an exact reason of Stalled.
fn word(stalled: Reason) -> Reason {
    match stalled {
        Reason::RolloutReverted | Reason::FieldContested => Reason::Updating,
        Reason::ProfileUnreadable => Reason::ConfigNotSynced,
        Reason::Conflict => Reason::Conflict,
        other if Reason::NOT_ACCEPTED.contains(&other) => Reason::InvalidSpec,
        other => other,
    }
}

/// The word for a provider that is not as it should be. A pool provisions until it was Ready once; afterwards the
/// same growth is called scaling up.
pub(super) fn provider_word(pass: &Pass<'_>, state: ProviderState) -> Reason {
    match state {
        ProviderState::Unhealthy => Reason::NodesNotReady,
        ProviderState::Updating => Reason::Updating,
        ProviderState::ScalingUp if !provisioning(pass) => Reason::ScalingUp,
        ProviderState::ScalingUp | ProviderState::Absent => Reason::Provisioning,
    }
}

/// Ready was False from the first status on. All conditions are set by the first status, so Ready has never moved as long
/// as no other condition is older.
fn provisioning(pass: &Pass<'_>) -> bool {
    let Some(status) = pass.previous() else {
        return true;
    };
    let Some(ready) = status.condition(ConditionType::Ready) else {
        return true;
    };
    let since = &ready.last_transition_time;
    ready.status == "False" && status.conditions.iter().all(|c| c.last_transition_time >= *since)
}

fn draining(pass: &Pass<'_>, situation: &Situation) -> Option<String> {
    let facts = &pass.plan.facts;
    let going = facts.draining.iter().filter(|n| n.phase != DrainPhase::Aborted);
    let going = list(going.map(|n| match n.force_announced {
        None => format!("{} ({})", n.name, n.phase),
        Some(_) => format!("{} ({}, forced deletion announced)", n.name, n.phase),
    }));
    let held = list(
        situation
            .blockers
            .iter()
            .map(|k| format!("{} {}", k.blocker.reason, k.blocker.object)),
    );
    if !going.is_empty() {
        let mut message = format!("draining {going}");
        if !held.is_empty() {
            message.push_str(&format!("; in the way: {held}"));
        } else if let Some(done) = situation.done_at {
            message.push_str(&format!("; done by {done} if nothing holds it up"));
        }
        Some(message)
    } else if !held.is_empty() {
        Some(format!("the drain has not begun; in the way: {held}"))
    } else {
        let target = facts.target.filter(|target| facts.nodes > *target)?;
        Some(format!(
            "{} virtual nodes, {target} wanted: the rest is to be drained",
            facts.nodes
        ))
    }
}

/// What a deleted pool waits for.
pub(super) fn deleting(pass: &Pass<'_>, applying: &Applying, paused: bool) -> String {
    if paused {
        return "the pool is deleted but paused, so nothing is done and its finalizer stays; unpause it"
            .to_owned();
    }
    let policy = pass.observed.pool.spec.deletion_policy();
    let what = match policy {
        DeletionPolicy::Drain => "all nodes are drained, then what was made for the pool is removed",
        DeletionPolicy::Retain => "nodes and pods stay, what was taken over is given back",
    };
    match applying.first_key_value() {
        Some((reason, message)) => format!("deletionPolicy {policy}: {what}; {reason}: {message}"),
        None => format!("deletionPolicy {policy}: {what}"),
    }
}

/// By what the pool is paused.
pub(super) fn paused_by(pass: &Pass<'_>) -> String {
    match pass.observed.pool.spec.paused {
        true => "paused by spec.paused".to_owned(),
        false => format!("paused by annotation {}", vnp_crds::PAUSED_ANNOTATION),
    }
}

/// What a paused pool says: by what it is paused, and what waits.
pub(super) fn paused(pass: &Pass<'_>, applying: &Applying) -> String {
    let by = paused_by(pass);
    if !pass.plan.facts.pending_changes.is_empty() {
        return format!("{by}; status.pendingChanges lists what would be written");
    }
    match applying.first_key_value() {
        Some((reason, message)) => format!("{by}; {reason}: {message}"),
        None => format!("{by}; nothing waits to be written"),
    }
}

/// What a pool says that is as it should be.
pub(super) fn realised(pass: &Pass<'_>) -> String {
    match pass.plan.facts.nodes {
        1 => "1 virtual node, as specified".to_owned(),
        nodes => format!("{nodes} virtual nodes, as specified"),
    }
}
