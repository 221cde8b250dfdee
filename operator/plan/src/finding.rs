//! What a plan has to say. `report` turns findings into conditions, status and events; nothing else does.

use std::fmt;

use jiff::Timestamp;
use vnp_crds::{BlockerReason, EventReason, Reason};

/// One thing a person may want to know. Messages are stable text: the same situation gives the same words (P6).
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// The spec can't be followed as it stands: Accepted=False.
    Refused {
        /// Exact reason.
        reason: Reason,
        /// Names field, value and remedy.
        message: String,
    },
    /// The workload is not (yet) what the spec says, or its providers are not healthy: ProviderReady=False.
    Provider {
        /// What is the matter.
        state: ProviderState,
        /// Names the ordinals or the field.
        message: String,
    },
    /// The profile does not say what the pool says: ProfileSynced=False.
    Profile {
        /// What is the matter.
        state: ProfileState,
        /// Names the key.
        message: String,
    },
    /// A ResourcePolicy is not what the pool says: SchedulingReady=False, but for [`SchedulingState::LeftOut`].
    Scheduling {
        /// What is the matter.
        state: SchedulingState,
        /// Names the policy or the object.
        message: String,
    },
    /// The webhook does not do what the pool asks of it: WebhookReady=False.
    Webhook {
        /// What is the matter.
        fault: WebhookFault,
        /// Says what helps.
        message: String,
    },
    /// A person must act: Stalled=True.
    Stalled {
        /// Exact reason.
        reason: Reason,
        /// Names object and remedy.
        message: String,
    },
    /// Something holds a drain.
    Blocker(Blocker),
    /// To be told once as an event.
    Event(EventNote),
}

/// Why ProviderReady is False.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderState {
    /// There is no workload (yet).
    Absent,
    /// Its template is being rolled out.
    Updating,
    /// Replicas are being added.
    ScalingUp,
    /// A provider or its Node is not healthy.
    Unhealthy,
}

/// Why ProfileSynced is False.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProfileState {
    /// Not written yet.
    Pending,
    /// An older pool says something else.
    Conflict,
    /// The ConfigMap can't be read as what it should be.
    Unreadable,
    /// The provider did not take it.
    Rejected,
}

/// Why WebhookReady is not True; the last one that applies is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WebhookFault {
    /// It works, and something about it should be known: WebhookReady stays True and says it.
    Note,
    /// Not looked at yet.
    Unknown,
    /// It was looked at, and whether it does what the pool asks for did not come out.
    Untold,
    /// Not written yet.
    Pending,
    /// This operator serves none.
    Off,
    /// An object of somebody else has the name.
    Foreign,
    /// It answers, and no virtual node takes the pods that it changes.
    Misfit,
    /// It answers, and the cluster refuses the pods that it changes.
    Refused,
    /// It is not asked, or does not answer.
    Unanswered,
}

/// Why SchedulingReady is False; the last one that applies is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchedulingState {
    /// In place but for a field that the installed CRD does not take: SchedulingReady stays True and names it.
    LeftOut,
    /// Not written or removed yet.
    Pending,
    /// Not looked at yet.
    Unknown,
    /// An object of somebody else has the name.
    Foreign,
    /// The installed CRD can't take what the policy needs.
    Unfit,
    /// The CRD is not installed.
    CrdMissing,
}

/// Something that holds a drain, as `status.drain.blockers` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// Named reason.
    pub reason: BlockerReason,
    /// The object that blocks: `shop/checkout`, a node name, a StatefulSet.
    pub object: String,
    /// How many pods it holds.
    pub pods: i32,
    /// Since when, when that is known.
    pub since: Option<Timestamp>,
    /// What it is and what helps.
    pub message: String,
    /// Nothing moves by itself: a person must act at once, not only after the progress deadline.
    pub terminal: bool,
}

/// An event on the pool. Told when (reason, subject) is new, then at most every 10 minutes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventNote {
    /// Reason.
    pub reason: EventReason,
    /// What it is about: part of the key by which repeats are recognised.
    pub subject: String,
    /// The text.
    pub note: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.reason, self.object, self.message)
    }
}
