//! The findings of a plan, sorted out by what the conditions ask about. Order of the findings does not matter.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{Blocker, ConditionType, DrainPhase, Reason, VirtualNodePoolStatus, WebhookMode};
use vnp_plan::drain::estimate::told;
use vnp_plan::finding::{Finding, ProfileState, ProviderState, SchedulingState, WebhookFault};
use vnp_plan::observed::Observed;
use vnp_plan::plan::Plan;

use super::attempts::Attempts;
use super::blockage::{Blockage, Held, Known, blockers, judge};
use super::conditions::{CHANGED, MUTATED, VENDOR_WORKS};
use super::drain_words::next_deadline;
use super::ready::look;
use super::seconds::whole;
use super::wording::{in_order, list, sentences};

/// What stands between the words about providers that do not come up and the time since when these are said.
const STILL: &str = "; nothing has moved since ";

/// Why the providers are not as they should be, and since when this is said with the same words. Kept by the reporter
/// between passes; lost at a restart, after which a stall is told later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standstill {
    /// What is said.
    pub(super) message: String,
    /// Since when.
    pub(super) since: Timestamp,
}

/// What a pass knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    /// What was seen.
    pub(super) observed: &'a Observed,
    /// What was made of it.
    pub(super) plan: &'a Plan,
    /// What was done about it.
    pub(super) attempts: &'a Attempts<'a>,
    /// What the pass before said about providers that do not come up.
    pub(super) standstill: Option<&'a Standstill>,
    /// When the pass before said that the drain is done.
    pub(super) done_at: Option<Timestamp>,
    /// Now.
    pub(super) now: Timestamp,
}

impl<'a> Pass<'a> {
    /// The status as it was written last.
    pub(super) fn previous(&self) -> Option<&'a VirtualNodePoolStatus> {
        self.observed.pool.status.as_ref()
    }

    /// When the drain is done, as it is told.
    pub(super) fn done_at(&self) -> Option<Timestamp> {
        let estimate = self.plan.facts.done_at?;
        Some(told(self.done_at, estimate))
    }

    /// `spec.drain.progressDeadlineSeconds`.
    pub(super) fn progress_deadline(&self) -> SignedDuration {
        SignedDuration::try_from(self.observed.pool.spec.drain().progress_deadline)
            .unwrap_or(SignedDuration::MAX)
    }
}

/// What there is to say, by subject.
#[derive(Debug)]
pub(super) struct Situation {
    /// Accepted=False: reasons in their rank, with their message.
    pub(super) refusals: Vec<(Reason, String)>,
    /// ProviderReady=False.
    pub(super) provider: BTreeMap<ProviderState, String>,
    /// ProfileSynced=False.
    pub(super) profile: BTreeMap<ProfileState, String>,
    /// What there is to say of the policies.
    pub(super) scheduling: BTreeMap<SchedulingState, String>,
    /// WebhookReady other than True.
    pub(super) webhook: BTreeMap<WebhookFault, String>,
    /// What was said of the webhook that works, while this leader has not looked at it yet.
    pub(super) webhook_before: Option<String>,
    /// A person must act.
    pub(super) stalled: BTreeMap<Reason, String>,
    /// When the drain is done, as it is told. To be remembered for the next pass.
    pub(super) done_at: Option<Timestamp>,
    /// What holds the drain.
    pub(super) blockage: Blockage,
    /// Blockers for the status.
    pub(super) blockers: Vec<Known>,
    /// When all drains were given up: what held them last.
    pub(super) last_blockers: Vec<Blocker>,
    /// To be remembered for the next pass.
    pub(super) standstill: Option<Standstill>,
    /// When time alone changes something of this.
    pub(super) wake_at: Option<Timestamp>,
}

impl Situation {
    pub(super) fn of(pass: &Pass<'_>) -> Self {
        let mut texts = Texts::default();
        for finding in &pass.plan.findings {
            texts.add(finding);
        }
        let mut wake_at: Option<Timestamp> = None;
        let mut wake = |at: Timestamp| wake_at = Some(wake_at.map_or(at, |known| known.min(at)));

        let last_progress = pass
            .plan
            .facts
            .draining
            .iter()
            .filter(|n| n.phase != DrainPhase::Aborted)
            .map(|n| whole(n.last_progress))
            .max();
        let blockers = blockers(pass.plan, pass.previous(), pass.now);
        let blockage = judge(
            &blockers,
            last_progress,
            pass.progress_deadline(),
            pass.now,
            &mut wake,
        );

        // What happens at a deadline is told before it comes, and not afterwards.
        let deadline = next_deadline(pass, &pass.plan.facts.draining);
        deadline.into_iter().for_each(&mut wake);
        let provider = joined(texts.provider);
        let mut stalled = joined(texts.stalled);
        let aborted = pass
            .plan
            .facts
            .draining
            .iter()
            .filter(|n| n.phase == DrainPhase::Aborted);
        let aborted =
            list(aborted.map(|n| format!("{} ({} of {} pods left)", n.name, n.pods_remaining, n.pods_total)));
        let last_blockers = last_blockers(pass, &blockers);
        if !aborted.is_empty() {
            let cordon = match still_cordoned(pass) {
                on if on.is_empty() => "our cordon is off".to_owned(),
                on => format!("our cordon on {on} is still to be taken off"),
            };
            let mut text = format!(
                "the drain of {aborted} took longer than spec.drain.timeoutSeconds and was given up (onTimeout: Abort), \
                 {cordon}; raise timeoutSeconds or set another onTimeout to try again, or raise spec.replicas to keep \
                 the node; until then nothing is tried again"
            );
            if !last_blockers.is_empty() {
                let held = last_blockers
                    .iter()
                    .map(|b| format!("{} {}: {}", b.reason, b.object, b.message));
                text.push_str(&format!("; it was held by {}", in_order(held)));
            }
            stalled.entry(Reason::DrainTimedOut).or_insert(text);
        }
        // One reason says both: that the deadline has passed, and what is in the way.
        if let Blockage::Held(held) = &blockage
            && held.reason() == Reason::DrainBlocked
            && let Some(late) = stalled.get_mut(&Reason::DrainTimedOut)
        {
            *late = format!("{late}. In the way: {}", held.message());
        }
        let standstill = standstill(pass, &provider);
        if let Some(stand) = &standstill {
            let deadline = stand
                .since
                .checked_add(pass.progress_deadline())
                .unwrap_or(Timestamp::MAX);
            if pass.now >= deadline {
                stalled.entry(Reason::ProviderUnavailable).or_insert_with(|| {
                    format!(
                        "{}{STILL}{}{}",
                        stand.message,
                        stand.since,
                        look(pass, provider.keys())
                    )
                });
            } else {
                wake(deadline);
            }
        }
        let mut webhook = joined(texts.webhook);
        let webhook_before =
            webhook_before(pass).filter(|_| webhook.remove(&WebhookFault::Unknown).is_some());
        let mut refusals: Vec<(Reason, String)> = texts.refusals.into_iter().collect();
        refusals.sort_by_key(|(reason, _)| rank(*reason));
        Self {
            refusals,
            provider,
            profile: joined(texts.profile),
            scheduling: joined(texts.scheduling),
            webhook,
            webhook_before,
            stalled,
            done_at: pass.done_at(),
            blockage,
            blockers,
            last_blockers,
            standstill,
            wake_at,
        }
    }

    /// What Stalled says of the blockage. Past a deadline, DrainTimedOut names what blocks; Ready says DrainBlocked first.
    pub(super) fn held(&self) -> Option<&Held> {
        let late = self.stalled.contains_key(&Reason::DrainTimedOut);
        match &self.blockage {
            Blockage::Held(held) if !(late && held.reason() == Reason::DrainBlocked) => Some(held),
            Blockage::Held(_) | Blockage::None => None,
        }
    }

    /// The exact reason why the spec is refused, with what is to be said about it.
    pub(super) fn refusal(&self) -> Option<(Reason, String)> {
        let (reason, _) = self.refusals.first()?;
        Some((
            *reason,
            in_order(self.refusals.iter().map(|(_, message)| message.as_str())),
        ))
    }
}

/// A conflict with another pool is told first: this pool may not even look at what the other reasons are about. What is
/// only not supported yet comes last, the rest works.
fn rank(reason: Reason) -> (u8, Reason) {
    let class = match reason {
        Reason::Conflict => 0,
        Reason::NotSupportedYet => 2,
        _ => 1,
    };
    (class, reason)
}

#[derive(Default)]
struct Texts {
    refusals: BTreeSet<(Reason, String)>,
    provider: BTreeMap<ProviderState, BTreeSet<String>>,
    profile: BTreeMap<ProfileState, BTreeSet<String>>,
    scheduling: BTreeMap<SchedulingState, BTreeSet<String>>,
    webhook: BTreeMap<WebhookFault, BTreeSet<String>>,
    stalled: BTreeMap<Reason, BTreeSet<String>>,
}

impl Texts {
    fn add(&mut self, finding: &Finding) {
        match finding {
            Finding::Refused { reason, message } => {
                self.refusals.insert((*reason, message.clone()));
            }
            Finding::Provider { state, message } => {
                self.provider.entry(*state).or_default().insert(message.clone());
            }
            Finding::Profile { state, message } => {
                self.profile.entry(*state).or_default().insert(message.clone());
                if *state == ProfileState::Unreadable {
                    self.stalled
                        .entry(Reason::ProfileUnreadable)
                        .or_default()
                        .insert(message.clone());
                }
            }
            Finding::Scheduling { state, message } => {
                self.scheduling.entry(*state).or_default().insert(message.clone());
            }
            Finding::Webhook { fault, message } => {
                self.webhook.entry(*fault).or_default().insert(message.clone());
            }
            Finding::Stalled { reason, message } => {
                self.stalled.entry(*reason).or_default().insert(message.clone());
            }
            Finding::Blocker(_) | Finding::Event(_) => {}
        }
    }
}

/// The blockers that the status shows, when nothing is drained any more but what was given up: nobody looks for new ones.
fn last_blockers(pass: &Pass<'_>, now: &[Known]) -> Vec<Blocker> {
    let mut nodes = pass.plan.facts.draining.iter();
    let given_up = nodes.len() > 0 && nodes.all(|n| n.phase == DrainPhase::Aborted);
    let shown = pass.previous().and_then(|status| status.drain.as_ref());
    match shown.filter(|_| given_up && now.is_empty()) {
        Some(drain) => drain.blockers.clone(),
        None => Vec::new(),
    }
}

/// Another leader knows nothing of the webhook before it has tried it: until then what the one before found still holds, of
/// the webhook that the pool asked for then.
fn webhook_before(pass: &Pass<'_>) -> Option<String> {
    let known = pass.previous()?.condition(ConditionType::WebhookReady)?;
    let texts = match pass.observed.pool.spec.webhook() {
        WebhookMode::Operator => &[MUTATED, CHANGED][..],
        WebhookMode::Vendor => &[VENDOR_WORKS],
        WebhookMode::None => &[],
    };
    let verified = known.status == "True" && known.reason == Reason::Verified.as_str();
    let same = texts.iter().any(|text| known.message.starts_with(text));
    (verified && same).then(|| known.message.clone())
}

/// Of the nodes whose drain was given up, those on which our cordon still is.
fn still_cordoned(pass: &Pass<'_>) -> String {
    let given_up = pass.plan.facts.draining.iter();
    let given_up = given_up.filter(|n| n.phase == DrainPhase::Aborted);
    let nodes = given_up.filter_map(|n| pass.observed.nodes.get(&n.ordinal));
    list(nodes.filter(|n| n.cordon_owner.ours()).map(|n| n.name.as_str()))
}

fn joined<K: Ord>(texts: BTreeMap<K, BTreeSet<String>>) -> BTreeMap<K, String> {
    texts
        .into_iter()
        .map(|(key, messages)| (key, sentences(messages)))
        .collect()
}

/// The same but for counts: the scheduler says on how many nodes a pod does not fit, and those come and go.
fn same(one: &str, other: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let counts = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        text.split_whitespace()
            .filter(|w| !counts(w))
            .map(str::to_owned)
            .collect()
    };
    one == other || words(one) == words(other)
}

/// Providers that neither come up nor change: as long as the plan says the same about them, nothing moves. A roll is not
/// meant, it has its own deadline.
fn standstill(pass: &Pass<'_>, provider: &BTreeMap<ProviderState, String>) -> Option<Standstill> {
    if pass.observed.pool.is_paused() {
        return None;
    }
    let still = |state: &&ProviderState| **state != ProviderState::Updating;
    let message = in_order(
        provider
            .keys()
            .filter(still)
            .filter_map(|state| provider.get(state)),
    );
    if message.is_empty() {
        return None;
    }
    if let Some(known) = pass.standstill.filter(|known| same(&known.message, &message)) {
        return Some(Standstill {
            message,
            since: known.since,
        });
    }
    let told = pass
        .previous()
        .and_then(|status| status.condition(ConditionType::Stalled))
        .filter(|c| c.reason == Reason::ProviderUnavailable.as_str())
        .and_then(|c| c.message.split_once(STILL));
    let since = told
        .filter(|(words, _)| same(words, &message))
        .and_then(|(_, rest)| rest.split(';').next()?.parse().ok());
    Some(Standstill {
        message,
        since: since.unwrap_or_else(|| whole(pass.now)),
    })
}
