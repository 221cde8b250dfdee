//! The time between the two lists that prove a node empty.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::DaemonSetPods;

use super::health::ProviderMark;
use crate::proof::QuorumList;

/// A settle that began: the first list was empty, under this fence, with this provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    pub(crate) fence: String,
    pub(crate) provider: Option<ProviderMark>,
    pub(crate) first: QuorumList,
    /// Heartbeats seen when the first list was taken.
    pub(crate) beats: u64,
}

impl Settle {
    /// Begins a settle with a first list that shows no pod, or none that counts under this `spec.drain.daemonSetPods`, at a
    /// time when so many `beats` had been seen. `provider` is `None` for an ordinal that never came up.
    ///
    /// # Errors
    /// The list back, when a pod holds the node.
    pub fn begin(
        fence: String,
        provider: Option<ProviderMark>,
        first: QuorumList,
        beats: u64,
        daemon_set_pods: DaemonSetPods,
    ) -> Result<Self, QuorumList> {
        if first.holding_under(daemon_set_pods).next().is_some() {
            Err(first)
        } else {
            Ok(Self {
                fence,
                provider,
                first,
                beats,
            })
        }
    }

    /// Still the same fence and the same provider.
    pub fn holds(&self, fence: &str, provider: Option<&ProviderMark>) -> bool {
        self.fence == fence && self.provider.as_ref() == provider
    }

    /// When the second list may be taken at the earliest: `settle` after the first, and not before the modelled queue
    /// of instance deletions is done.
    pub fn ends_at(&self, settle: SignedDuration, backlog: SignedDuration, now: Timestamp) -> Timestamp {
        let by_settle = self
            .first
            .taken_at()
            .checked_add(settle + backlog)
            .unwrap_or(Timestamp::MAX);
        let by_backlog = now.checked_add(backlog).unwrap_or(Timestamp::MAX);
        by_settle.max(by_backlog)
    }
}
