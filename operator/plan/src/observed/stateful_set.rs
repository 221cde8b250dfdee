use std::collections::BTreeMap;

use jiff::Timestamp;

/// The pods of one StatefulSet by name, wherever in the cluster they run.
pub type Members = BTreeMap<String, Member>;

/// A pod of a StatefulSet, cut down to what decides whether another one may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `metadata.uid`.
    pub uid: String,
    /// How it is.
    pub state: MemberState,
    /// Since when, by the API server's stamps; `None` when none of them tells.
    pub since: Option<Timestamp>,
}

/// How a pod of a StatefulSet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Condition Ready is True, and it is not being deleted.
    Ready,
    /// It is there and does not serve.
    NotReady,
    /// It is being deleted.
    Terminating,
    /// It was there, and no pod has its name now.
    Gone {
        /// It went by an eviction or another disruption, so its StatefulSet still wants it. Otherwise it may have been
        /// scaled away.
        disrupted: bool,
    },
}

/// How many pods a StatefulSet wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many, from its first ordinal on; none when it is gone.
    Pods(i32),
    /// The API server did not tell.
    Unknown {
        /// Why.
        error: String,
    },
}

/// A pod of the StatefulSet went by an eviction and did not come back yet.
pub fn missing(members: &Members) -> bool {
    members
        .values()
        .any(|m| m.state == MemberState::Gone { disrupted: true })
}
