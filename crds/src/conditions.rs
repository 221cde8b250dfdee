//! Condition types and reasons: the words that alerts, GitOps tools and people match on.

use crate::wire_enum::wire_enum;

wire_enum! {
    /// Types of `status.conditions`, in the order they are written.
    ///
    /// A condition about something not asked for is True with [`Reason::NotRequired`].
    pub enum ConditionType {
        /// This generation is fully realised and nothing drains.
        Ready,
        /// `availableNodes >= max(1, targetReplicas - 1)`, or the target is 0. Stays True during a drain: alert on this one.
        Available,
        /// The spec makes sense beyond what the schema checks and conflicts with no older pool.
        Accepted,
        /// The workload matches the spec and all its providers are healthy.
        ProviderReady,
        /// `eci-profile` says what this pool says and the provider took it.
        ProfileSynced,
        /// The chosen webhook exists, is trusted and answers.
        WebhookReady,
        /// Every ResourcePolicy is in place.
        SchedulingReady,
        /// Abnormal-true, absent when idle: work is under way.
        Reconciling,
        /// Abnormal-true, absent when idle: a person must act.
        Stalled,
        /// Abnormal-true, absent when not paused.
        Paused,
    }
}

wire_enum! {
    /// Reasons of conditions. One list, because the same word shows up on several types.
    pub enum Reason {
        /// The pool is being deleted.
        Deleting,
        /// Nothing but status and events is written.
        Paused,
        /// An older pool claims the same workload, or says otherwise about the shared profile.
        Conflict,
        /// The spec contradicts itself or the cluster; Accepted has the exact reason.
        InvalidSpec,
        /// A provider is not healthy.
        ProviderUnavailable,
        /// A drain makes no progress; `status.drain.blockers` names what holds it.
        DrainBlocked,
        /// A drain passed `drain.timeoutSeconds`.
        DrainTimedOut,
        /// A template change was rolled back.
        RolloutReverted,
        /// A wanted node is not Ready.
        NodesNotReady,
        /// A template change rolls through the providers.
        Updating,
        /// A node is being drained.
        Draining,
        /// The workload was raised; not every node is there yet.
        ScalingUp,
        /// The pool's first nodes are being made.
        Provisioning,
        /// `eci-profile` or another configuration object is not in place yet.
        ConfigNotSynced,
        /// All is as asked.
        Ready,
        /// `management: Create`, but an object of that name without our label exists.
        WorkloadExists,
        /// `management: Adopt`, but there is no such workload.
        WorkloadNotFound,
        /// The workload to adopt runs no virtual node provider.
        NotAProvider,
        /// Several containers could be the provider and none is named.
        ContainerAmbiguous,
        /// A variable that the pool owns is set through `valueFrom`.
        EnvFromReference,
        /// `provider.namespace` is not one of the operator's `--provider-namespaces`.
        NamespaceNotAllowed,
        /// The zones declared do not match the nodes seen.
        ZoneMismatch,
        /// A field is set that this version does not act on.
        NotSupportedYet,
        /// Another field manager keeps setting a field back.
        FieldContested,
        /// `eci-profile` holds something that can't be parsed, and is left alone.
        ProfileUnreadable,
        /// The provider refused the profile.
        ProfileRejected,
        /// A watch fails again and again; what it feeds may be out of date.
        WatchFailing,
        /// The CustomResourceDefinition of a projected object is not installed.
        CrdMissing = "CRDMissing",
        /// Nothing was asked for, or it is switched off.
        NotRequired,
        /// The webhook answers the API server as it should.
        Verified,
        /// The webhook is not served, or the API server gets no answer from it.
        WebhookUnavailable,
        /// The webhook answers, and the cluster refuses the pods that it changes.
        PodsRefused,
        /// The webhook answers, and what it adds to pods does not fit the virtual nodes that are there.
        NodesMismatch,
        /// Condition Accepted is True.
        Accepted,
        /// Enough nodes are available.
        NodesAvailable,
        /// Fewer nodes are available than promised.
        NodesUnavailable,
        /// Every provider is healthy and as specified.
        ProviderHealthy,
        /// The configuration object says what the pool says.
        Synced,
        /// Work is under way that no other reason describes better.
        Progressing,
        /// What the condition is about was not observed.
        Unknown,
    }
}

impl Reason {
    /// Reasons of Ready, the first that applies wins.
    pub const READY: [Self; 15] = [
        Self::Deleting,
        Self::Paused,
        Self::Conflict,
        Self::InvalidSpec,
        Self::ProviderUnavailable,
        Self::DrainBlocked,
        Self::DrainTimedOut,
        Self::RolloutReverted,
        Self::NodesNotReady,
        Self::Updating,
        Self::Draining,
        Self::ScalingUp,
        Self::Provisioning,
        Self::ConfigNotSynced,
        Self::Ready,
    ];

    /// Reasons with which Accepted is False.
    pub const NOT_ACCEPTED: [Self; 10] = [
        Self::WorkloadExists,
        Self::WorkloadNotFound,
        Self::NotAProvider,
        Self::ContainerAmbiguous,
        Self::EnvFromReference,
        Self::NamespaceNotAllowed,
        Self::Conflict,
        Self::InvalidSpec,
        Self::ZoneMismatch,
        Self::NotSupportedYet,
    ];

    /// Reasons of Stalled besides [`Reason::NOT_ACCEPTED`].
    pub const STALLED: [Self; 7] = [
        Self::DrainBlocked,
        Self::DrainTimedOut,
        Self::RolloutReverted,
        Self::FieldContested,
        Self::ProfileUnreadable,
        Self::ProviderUnavailable,
        Self::WatchFailing,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_reasons_sort_by_precedence() {
        assert!(Reason::READY.is_sorted());
    }

    #[test]
    fn the_one_word_that_is_not_its_variant() {
        assert_eq!(Reason::CrdMissing.to_string(), "CRDMissing");
    }

    #[test]
    fn reasons_and_types_fit_the_shape_of_a_condition() {
        let words = Reason::ALL
            .iter()
            .map(|r| r.as_str())
            .chain(ConditionType::ALL.iter().map(|t| t.as_str()));
        for word in words {
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
        }
    }
}
