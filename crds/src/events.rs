//! Reasons of the events that regard a pool.

use crate::wire_enum::wire_enum;

wire_enum! {
    /// Reason of an `events.k8s.io/v1` event. Reported once per change and at most every 10 minutes, never once per pod.
    pub enum EventReason {
        /// The workload was raised.
        ScalingUp,
        /// A node's drain began.
        DrainStarted,
        /// The target was raised before the shrink; the node stays.
        DrainCancelled,
        /// A node was proved empty.
        Drained,
        /// A node's provider and Node are gone.
        NodeRemoved,
        /// A provider was restarted to remove instances it had forgotten.
        ProviderRestarted,
        /// A workload deleted by hand was created again.
        WorkloadRestored,
        /// A drain makes no progress; the note starts with the blocker's reason.
        DrainBlocked,
        /// A drain passed its timeout.
        DrainTimedOut,
        /// Pods will be deleted in spite of their budgets.
        ForceAnnounced,
        /// How many pods of a node were deleted in spite of their budgets.
        ForceDeleted,
        /// Somebody else lowered the workload under running pods, or raised it above the target.
        ForeignScale,
        /// A pod landed on a node that was just removed.
        RaceLost,
        /// A node was given up by annotation.
        NodeAbandoned,
        /// A template change was rolled back.
        RolloutReverted,
        /// Somebody keeps uncordoning a node that is drained.
        CordonContested,
        /// A pod names a node that the pool does not have.
        UnknownOrdinal,
        /// The configuration works but is probably not what was meant.
        ConfigWarning,
        /// An older pool, or an object of somebody else, has what the pool asks for.
        Conflict,
        /// The spec is refused; the note starts with the reason of Accepted.
        InvalidSpec,
        /// `eci-profile` can't be parsed and is left alone.
        ProfileUnreadable,
    }
}

impl EventReason {
    /// Whether the event is of type `Warning`; the others are `Normal`.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::ScalingUp
            | Self::DrainStarted
            | Self::DrainCancelled
            | Self::Drained
            | Self::NodeRemoved
            | Self::ProviderRestarted
            | Self::WorkloadRestored => false,
            Self::DrainBlocked
            | Self::DrainTimedOut
            | Self::ForceAnnounced
            | Self::ForceDeleted
            | Self::ForeignScale
            | Self::RaceLost
            | Self::NodeAbandoned
            | Self::RolloutReverted
            | Self::CordonContested
            | Self::UnknownOrdinal
            | Self::ConfigWarning
            | Self::Conflict
            | Self::InvalidSpec
            | Self::ProfileUnreadable => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_reasons_are_normal() {
        assert_eq!(
            EventReason::ALL
                .iter()
                .filter(|reason| !reason.is_warning())
                .count(),
            7
        );
        assert_eq!(EventReason::ALL.len(), 21);
    }
}
