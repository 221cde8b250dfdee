//! The reason of Ready: the one word that `kubectl get` shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vnp_crds::{ConditionType, DeletionPolicy, DrainPhase, Reason};
use vnp_plan::finding::{ProviderState, SchedulingState, WebhookFault};
use vnp_plan::plan::TrackKind;

use super::blockage::Blockage;
use super::drain_words::draining;
use super::situation::{Pass, Situation};
use super::wording::{list, nodes, sentences};

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
    let drain = draining(pass, situation);
    let drains = drain.is_some();
    if let Some(message) = drain {
        match &situation.blockage {
            Blockage::Held(held) => say(held.reason(), message),
            Blockage::None => say(Reason::Draining, message),
        }
    }
    let facts = &pass.plan.facts;
    for (state, message) in &situation.provider {
        let message = unwritten(pass, *state, &coming_up(pass, situation, *state, message));
        say(provider_word(pass, *state), message);
    }
    let untaken = pass
        .observed
        .workload
        .there()
        .filter(|_| pass.observed.held_workload().is_none());
    if let Some(workload) = untaken.filter(|_| facts.target.is_some()) {
        // Its Nodes are not counted before.
        let text = format!(
            "StatefulSet {}/{} is not taken over yet",
            workload.namespace(),
            workload.name()
        );
        say(provider_word(pass, ProviderState::ScalingUp), text);
    } else if facts.target.is_some_and(|target| facts.nodes < target) {
        let counts = format!(
            "{} of {} virtual nodes are registered; look at the provider pods in namespace {} if it lasts",
            facts.nodes,
            facts.target.unwrap_or_default(),
            pass.observed
                .pool
                .spec
                .provider
                .namespace
                .as_deref()
                .unwrap_or_default()
        );
        say(provider_word(pass, ProviderState::ScalingUp), counts);
    }
    // A Node may be there whose provider is not counted yet, or any more.
    if let Some(counts) = short_of_replicas(pass) {
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
    let faults = situation
        .webhook
        .iter()
        .filter(|(fault, _)| **fault > WebhookFault::Note);
    for (_, message) in faults.rev() {
        say(Reason::ConfigNotSynced, message.clone());
    }
    for refused in &pass.attempts.refused {
        let reason = match refused.track {
            TrackKind::Pool => Reason::Provisioning,
            // It stands before what was to be written.
            TrackKind::Workload if situation.provider.keys().any(|state| is_written(*state)) => continue,
            TrackKind::Workload => Reason::Updating,
            // It says it itself.
            TrackKind::Drain if drains => continue,
            TrackKind::Drain => Reason::Draining,
            TrackKind::Policies => Reason::ConfigNotSynced,
            // Told as an event: the pool is what it should be, with a record or without.
            TrackKind::Audit => continue,
        };
        say(reason, refused.message.clone());
    }
    applying
}

/// What the API server says to a write of the workload.
pub(super) fn refused_workload(pass: &Pass<'_>) -> String {
    let refused = pass.attempts.refused.iter();
    let refused = refused.filter(|r| r.track == TrackKind::Workload);
    sentences(refused.map(|r| r.message.as_str()))
}

/// What is not as it should be before a write, which is refused just now: that is more than what is to be written.
pub(super) fn unwritten(pass: &Pass<'_>, state: ProviderState, message: &str) -> String {
    match refused_workload(pass) {
        refused if !refused.is_empty() && is_written(state) => format!("{refused}; {message}"),
        _ => message.to_owned(),
    }
}

/// A write of the workload is the next thing that it takes, or was.
fn is_written(state: ProviderState) -> bool {
    state != ProviderState::Unhealthy
}

/// The word of Ready for an exact reason of Stalled.
fn word(stalled: Reason) -> Reason {
    match stalled {
        Reason::FieldContested => Reason::Updating,
        Reason::ProfileUnreadable | Reason::WatchFailing => Reason::ConfigNotSynced,
        Reason::Conflict => Reason::Conflict,
        other if Reason::NOT_ACCEPTED.contains(&other) => Reason::InvalidSpec,
        other => other,
    }
}

/// What is the matter with providers, with where to look and until when that counts as coming up. A roll says it itself.
fn coming_up(pass: &Pass<'_>, situation: &Situation, state: ProviderState, message: &str) -> String {
    let Some(stand) = situation
        .standstill
        .as_ref()
        .filter(|_| state != ProviderState::Updating)
    else {
        return message.to_owned();
    };
    let mut text = format!("{message}{}", look(pass, [&state]));
    let deadline = stand
        .since
        .checked_add(pass.progress_deadline())
        .unwrap_or(Timestamp::MAX);
    if pass.now < deadline {
        text.push_str(&format!("; Stalled at {deadline} if nothing moves"));
    }
    text
}

/// Where to look for what keeps providers from coming up. Of a workload that is not there nobody has to look at pods.
pub(super) fn look<'s>(pass: &Pass<'_>, states: impl IntoIterator<Item = &'s ProviderState>) -> String {
    let pods = |state: &ProviderState| matches!(state, ProviderState::ScalingUp | ProviderState::Unhealthy);
    let namespace = pass.observed.pool.spec.provider.namespace.as_deref();
    match states.into_iter().any(pods) {
        true => format!(
            "; look at the provider pods in namespace {}",
            namespace.unwrap_or_default()
        ),
        false => String::new(),
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

/// Fewer replicas than are wanted, in words.
pub(super) fn short_of_replicas(pass: &Pass<'_>) -> Option<String> {
    let (workload, target) = (pass.observed.held_workload()?, pass.plan.facts.target?);
    let count = workload.replicas();
    let name = format!("{}/{}", workload.namespace(), workload.name());
    (count < target).then(|| format!("{name} has {count} of {target} replicas"))
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

/// What a deleted pool waits for.
pub(super) fn deleting(pass: &Pass<'_>, applying: &Applying, paused: bool) -> String {
    if paused {
        return format!(
            "the pool is deleted but paused, so nothing is drained and its finalizer stays; {} to go on",
            unpause(pass)
        );
    }
    let policy = pass.observed.pool.spec.deletion_policy();
    let what = match policy {
        DeletionPolicy::Drain => {
            "all nodes are drained, then what was made for the pool is removed; set spec.deletionPolicy: Retain to let the \
             nodes go as they are"
        }
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

fn unpause(pass: &Pass<'_>) -> String {
    match pass.observed.pool.spec.paused {
        true => "set spec.paused: false".to_owned(),
        false => format!("remove annotation {}", vnp_crds::PAUSED_ANNOTATION),
    }
}

/// What a paused pool says: by what it is paused, and what waits.
pub(super) fn paused(pass: &Pass<'_>, applying: &Applying) -> String {
    let facts = &pass.plan.facts;
    let going = facts.draining.iter().filter(|n| n.phase != DrainPhase::Aborted);
    let drains = list(going.map(|n| n.name.as_str()));
    let by = match drains.is_empty() {
        true => paused_by(pass),
        false => format!("{}; the drain of {drains} waits", paused_by(pass)),
    };
    let changes = match facts.pending_total.max(facts.pending_changes.len()) {
        0 => None,
        1 => Some("1 change".to_owned()),
        more => Some(format!("{more} changes")),
    };
    if let Some(changes) = changes {
        let unpause = unpause(pass);
        return format!("{by}; {unpause} to write {changes}, which status.pendingChanges lists");
    }
    match applying.first_key_value() {
        Some((reason, message)) => format!("{by}; {reason}: {message}"),
        None => format!("{by}; nothing waits to be written"),
    }
}

/// What a pool says that is as it should be.
pub(super) fn realised(pass: &Pass<'_>) -> String {
    format!("{}, as specified", nodes(pass.plan.facts.nodes))
}
