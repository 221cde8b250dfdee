//! Conditions, in the order of [`ConditionType`]. Nothing else sets them.
//!
//! `lastTransitionTime` moves with the status of a condition only, so that "since" in `kubectl get -o wide` and alerts
//! with a duration mean what they say (API conventions, "Typical status properties"). Reconciling and Stalled are never
//! True together: Flux takes the first of them that it meets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use vnp_crds::{ConditionType, ProviderType, Reason, WebhookMode};
use vnp_plan::finding::{ProfileState, ProviderState, SchedulingState, WebhookFault};
use vnp_plan::plan::TrackKind;
use vnp_plan::webhook::{Probed, WebhookState};

use super::drain_words::draining;
use super::ready::{
    Applying, applying, deleting, paused, paused_by, provider_word, realised, refused_workload,
    short_of_replicas, unwritten,
};
use super::seconds::api_time;
use super::situation::{Pass, Situation};
use super::wording::{cut, list, nodes, sentences};

/// Longest message of a condition, as the API machinery's own type allows.
pub(super) const MESSAGE_LIMIT: usize = 32_768;

/// What WebhookReady says of a webhook that was seen to work. What another leader found is told apart by these.
pub(super) const MUTATED: &str = "a pod created as a dry run came back mutated";
pub(super) const CHANGED: &str = "the webhook was asked about a pod created as a dry run, and changed it";
pub(super) const VENDOR_WORKS: &str =
    "the vendor's webhook is there, trusted and ready, and shows the pool's selectors";

/// What a condition says, without the times.
struct Said {
    type_: ConditionType,
    status: &'static str,
    reason: Reason,
    message: String,
}

fn said(type_: ConditionType, status: &'static str, reason: Reason, message: impl Into<String>) -> Said {
    Said {
        type_,
        status,
        reason,
        message: message.into(),
    }
}

/// All conditions of the pool.
pub(super) fn conditions(pass: &Pass<'_>, situation: &Situation) -> Vec<Condition> {
    let applying = applying(pass, situation);
    let ready = ready(pass, &applying);
    let stalled = stalled(pass, situation);
    let is_paused = pass.observed.pool.is_paused();
    let working = ready.reason != Reason::Ready;

    let mut all = Vec::with_capacity(ConditionType::ALL.len());
    let (reconciling, stalled) = match stalled {
        _ if is_paused => (None, None),
        Some((reason, message)) => (None, Some(said(ConditionType::Stalled, "True", reason, message))),
        None if working => (
            Some(said(
                ConditionType::Reconciling,
                "True",
                ready.reason,
                ready.message.clone(),
            )),
            None,
        ),
        None => (None, None),
    };
    all.push(ready);
    all.push(available(pass));
    all.push(accepted(situation));
    all.push(provider_ready(pass, situation));
    all.push(profile_synced(pass, situation));
    all.push(webhook_ready(pass, situation));
    all.push(scheduling_ready(pass, situation));
    all.extend(reconciling);
    all.extend(stalled);
    if is_paused {
        all.push(said(
            ConditionType::Paused,
            "True",
            Reason::Paused,
            paused_by(pass),
        ));
    }
    all.into_iter().map(|said| dated(pass, said)).collect()
}

fn dated(pass: &Pass<'_>, said: Said) -> Condition {
    let previous = pass.previous().and_then(|status| status.condition(said.type_));
    let since = previous
        .filter(|c| c.status == said.status)
        // `kubectl` prints a time of the future as <invalid>: one that was written before a clock was set back is none.
        .map(|c| api_time(c.last_transition_time.0.min(pass.now)));
    Condition {
        type_: said.type_.to_string(),
        status: said.status.to_owned(),
        reason: said.reason.to_string(),
        message: cut(said.message, MESSAGE_LIMIT),
        observed_generation: pass.observed.pool.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| api_time(pass.now)),
    }
}

fn ready(pass: &Pass<'_>, applying: &Applying) -> Said {
    let is_paused = pass.observed.pool.is_paused();
    if pass.observed.deleting() {
        return said(
            ConditionType::Ready,
            "False",
            Reason::Deleting,
            deleting(pass, applying, is_paused),
        );
    }
    if is_paused {
        let done = applying.is_empty() && pass.plan.facts.pending_changes.is_empty();
        let status = if done { "True" } else { "False" };
        return said(
            ConditionType::Ready,
            status,
            Reason::Paused,
            paused(pass, applying),
        );
    }
    match applying.first_key_value() {
        Some((reason, message)) => said(ConditionType::Ready, "False", *reason, message.clone()),
        None => said(ConditionType::Ready, "True", Reason::Ready, realised(pass)),
    }
}

/// The first reason for which a person must act, and all there is to say about it.
fn stalled(pass: &Pass<'_>, situation: &Situation) -> Option<(Reason, String)> {
    if let Some(refusal) = situation.refusal() {
        return Some(refusal);
    }
    let mut reasons = situation.stalled.clone();
    if let Some(held) = situation.held()
        && held.stalled
    {
        let drain = draining(pass, situation).unwrap_or_else(|| held.message());
        reasons.entry(held.reason()).or_insert(drain);
    }
    reasons.into_iter().next()
}

fn available(pass: &Pass<'_>) -> Said {
    let facts = &pass.plan.facts;
    let Some(target) = facts.target else {
        return said(
            ConditionType::Available,
            "Unknown",
            Reason::Unknown,
            "how many nodes are wanted is not known yet",
        );
    };
    let needed = if target == 0 { 0 } else { (target - 1).max(1) };
    let is = if facts.available == 1 { "is" } else { "are" };
    let enough = match (target, needed) {
        (0, _) => "none is wanted".to_owned(),
        (1, _) => "1 is wanted".to_owned(),
        (_, 1) => format!("1 of the {target} that are wanted suffices"),
        _ => format!("{needed} of the {target} that are wanted suffice"),
    };
    let mut counts = format!("{} {is} available, {enough}", nodes(facts.available));
    if !facts.unavailable.is_empty() {
        counts.push_str(&format!(
            " ({})",
            list(facts.unavailable.iter().map(String::as_str))
        ));
    }
    if facts.available >= needed {
        said(ConditionType::Available, "True", Reason::NodesAvailable, counts)
    } else {
        said(
            ConditionType::Available,
            "False",
            Reason::NodesUnavailable,
            counts,
        )
    }
}

fn accepted(situation: &Situation) -> Said {
    match situation.refusal() {
        Some((reason, message)) => said(ConditionType::Accepted, "False", reason, message),
        None => said(
            ConditionType::Accepted,
            "True",
            Reason::Accepted,
            "the spec can be followed",
        ),
    }
}

fn provider_ready(pass: &Pass<'_>, situation: &Situation) -> Said {
    let type_ = ConditionType::ProviderReady;
    // A template that was taken back, or a field that is left to somebody else: not as specified, whatever is healthy.
    let unlike = [Reason::RolloutReverted, Reason::FieldContested];
    if let Some((reason, message)) = situation
        .stalled
        .iter()
        .find(|(reason, _)| unlike.contains(reason))
    {
        return said(type_, "False", *reason, message.clone());
    }
    let worst = situation
        .provider
        .iter()
        .map(|(state, message)| (provider_word(pass, *state), unwritten(pass, *state, message)))
        .min();
    if let Some((reason, message)) = worst {
        // What is refused is not on its way.
        return match situation.refusal() {
            Some((exact, _)) if reason == Reason::Provisioning => {
                let text =
                    format!("{message}, and none is made while the spec is refused: see condition Accepted");
                said(type_, "False", exact, text)
            }
            _ => said(type_, "False", reason, message),
        };
    }
    let refused = refused_workload(pass);
    if !refused.is_empty() {
        return said(type_, "False", Reason::Updating, refused);
    }
    let Some(workload) = pass.observed.held_workload() else {
        return said(
            type_,
            "Unknown",
            Reason::Unknown,
            match pass.observed.workload.unknown() {
                Some(_) => "its workload can't be looked at, see Accepted",
                None => "there is no workload that belongs to this pool",
            },
        );
    };
    if let Some(text) = short_of_replicas(pass) {
        return said(
            type_,
            "False",
            provider_word(pass, ProviderState::ScalingUp),
            text,
        );
    }
    let counts = format!(
        "{} of {} providers",
        workload.ready_replicas(),
        workload.replicas()
    );
    let name = format!("{}/{}", workload.namespace(), workload.name());
    if let Some((reason, _)) = situation.refusal().filter(|_| pass.plan.facts.workload_refused) {
        let text = format!(
            "{name} is not held against the spec while that is refused ({reason}); {counts} are Ready"
        );
        return said(type_, "Unknown", Reason::Unknown, text);
    }
    let text = match pass.observed.deleting() {
        // Nothing is written any more that a spec asks for.
        true => format!("{counts} of {name} are Ready"),
        false => {
            format!("{name} is as specified, the providers that are wanted are healthy, {counts} are Ready")
        }
    };
    said(type_, "True", Reason::ProviderHealthy, text)
}

fn profile_synced(pass: &Pass<'_>, situation: &Situation) -> Said {
    let type_ = ConditionType::ProfileSynced;
    if let Some((state, message)) = situation.profile.last_key_value() {
        let reason = match state {
            ProfileState::Pending => Reason::ConfigNotSynced,
            ProfileState::Conflict => Reason::Conflict,
            ProfileState::Unreadable => Reason::ProfileUnreadable,
            ProfileState::Rejected => Reason::ProfileRejected,
        };
        return said(type_, "False", reason, message.clone());
    }
    if let Some(said) = not_asked(pass, type_) {
        return said;
    }
    if !pass.observed.pool.spec.profile().sync.is_enabled() {
        return said(type_, "True", Reason::NotRequired, "profile.sync is Disabled");
    }
    // A refused pool may not have been compared with the ConfigMap at all.
    match situation.refusal() {
        Some(_) => said(
            type_,
            "Unknown",
            Reason::Unknown,
            "not looked at while the spec is refused",
        ),
        None => said(
            type_,
            "True",
            Reason::Synced,
            "eci-profile says what this pool says",
        ),
    }
}

/// What a pool that goes asked for is taken back, and of one that is not served nothing is looked at.
fn not_asked(pass: &Pass<'_>, type_: ConditionType) -> Option<Said> {
    let goes = || {
        let text =
            "not compared while the pool is being deleted: what it asked for goes before the pool does";
        said(type_, "True", Reason::NotRequired, text)
    };
    not_served(pass, type_).or_else(|| pass.observed.deleting().then(goes))
}

fn not_served(pass: &Pass<'_>, type_: ConditionType) -> Option<Said> {
    let form = pass.observed.pool.spec.provider.type_;
    (form != ProviderType::StatefulSet).then(|| {
        let text = format!("not looked at: this version does not act on spec.provider.type {form}");
        said(type_, "Unknown", Reason::Unknown, text)
    })
}

fn webhook_ready(pass: &Pass<'_>, situation: &Situation) -> Said {
    let type_ = ConditionType::WebhookReady;
    if let Some((fault, message)) = situation.webhook.last_key_value()
        && *fault > WebhookFault::Note
    {
        let (status, reason) = match fault {
            WebhookFault::Note | WebhookFault::Unknown | WebhookFault::Untold => ("Unknown", Reason::Unknown),
            WebhookFault::Misfit => ("False", Reason::NodesMismatch),
            WebhookFault::Refused => ("False", Reason::PodsRefused),
            WebhookFault::Pending => ("False", Reason::ConfigNotSynced),
            WebhookFault::Foreign => ("False", Reason::Conflict),
            WebhookFault::Off | WebhookFault::Unanswered => ("False", Reason::WebhookUnavailable),
        };
        return said(type_, status, reason, message.clone());
    }
    if let Some(said) = not_served(pass, type_) {
        return said;
    }
    if let Some(before) = &situation.webhook_before {
        return said(type_, "True", Reason::Verified, before.clone());
    }
    let unneeded = match pass.observed.pool.spec.webhook() {
        _ if pass.observed.deleting() => "the pool is being deleted and places no pods",
        WebhookMode::None => "spec.placement.webhook is None",
        WebhookMode::Vendor => {
            return said(type_, "True", Reason::Verified, VENDOR_WORKS);
        }
        WebhookMode::Operator if pass.observed.webhook == WebhookState::Off => {
            "this operator was started with --no-webhook, and the pool names no rule"
        }
        WebhookMode::Operator if pass.observed.webhook == WebhookState::NotAsked => {
            "no pool has anything for the webhook to do"
        }
        WebhookMode::Operator => {
            let mut message = match &pass.observed.webhook {
                WebhookState::InPlace(Probed::RefusedMutated { .. }) => CHANGED.to_owned(),
                _ => MUTATED.to_owned(),
            };
            if let Some(note) = situation.webhook.get(&WebhookFault::Note) {
                message.push_str(&format!("; {note}"));
            }
            return said(type_, "True", Reason::Verified, message);
        }
    };
    said(type_, "True", Reason::NotRequired, unneeded)
}

fn scheduling_ready(pass: &Pass<'_>, situation: &Situation) -> Said {
    let type_ = ConditionType::SchedulingReady;
    let refused = pass
        .attempts
        .refused
        .iter()
        .filter(|r| r.track == TrackKind::Policies);
    let refused = sentences(refused.map(|r| r.message.as_str()));
    let worst = situation.scheduling.last_key_value();
    // What the API server says to a write is more than that it is still to be made.
    if let Some((state, message)) = worst
        && *state > SchedulingState::LeftOut
        && (*state != SchedulingState::Pending || refused.is_empty())
    {
        let (status, reason) = match state {
            SchedulingState::LeftOut | SchedulingState::Pending => ("False", Reason::ConfigNotSynced),
            SchedulingState::Unknown => ("Unknown", Reason::Unknown),
            SchedulingState::Foreign => ("False", Reason::Conflict),
            SchedulingState::Unfit => ("False", Reason::InvalidSpec),
            SchedulingState::CrdMissing => ("False", Reason::CrdMissing),
        };
        return said(type_, status, reason, message.clone());
    }
    if !refused.is_empty() {
        return said(type_, "False", Reason::ConfigNotSynced, refused);
    }
    if let Some(said) = not_asked(pass, type_) {
        return said;
    }
    let scheduling = pass.observed.pool.spec.scheduling.as_ref();
    if scheduling.is_none_or(|s| s.resource_policies.is_empty()) {
        return said(
            type_,
            "True",
            Reason::NotRequired,
            "spec.scheduling.resourcePolicies is empty",
        );
    }
    let mut message = "every ResourcePolicy is in place".to_owned();
    if let Some(left_out) = situation.scheduling.get(&SchedulingState::LeftOut) {
        message.push_str(&format!("; {left_out}"));
    }
    said(type_, "True", Reason::Synced, message)
}
