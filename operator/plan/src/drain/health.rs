//! Whether somebody is there to delete instances.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::identity::foreign;
use crate::observed::{NodeView, Observed, Ordinal, ProviderPod};

/// A heartbeat older than this is none: the node lifecycle controller's own grace period, as Kubernetes had it for
/// years, and well above the 10 s at which providers renew.
pub const HEARTBEAT_LIMIT: SignedDuration = SignedDuration::from_secs(40);

/// A healthy provider, by what must not change while emptiness is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMark {
    /// UID of the provider pod.
    pub pod_uid: String,
    /// Its restart count.
    pub restarts: i32,
    /// UID of its Node.
    pub node_uid: String,
}

/// Why a provider is not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// No provider pod.
    PodMissing,
    /// The provider pod does not fit its type.
    PodUnreadable,
    /// The provider pod is being deleted.
    PodTerminating,
    /// The provider pod is not Ready.
    PodNotReady,
    /// No Node.
    NodeMissing,
    /// A Node of that name is there, and nothing says that it is the provider's.
    NodeForeign,
    /// The Node does not fit its type.
    NodeUnreadable,
    /// The Node is not Ready.
    NodeNotReady,
    /// No heartbeat was seen yet.
    NoSign,
    /// No heartbeat within [`HEARTBEAT_LIMIT`].
    NoHeartbeat,
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodMissing => "its provider pod is missing",
            Self::PodUnreadable => "its provider pod can't be read",
            Self::PodTerminating => "its provider pod is being deleted",
            Self::PodNotReady => "its provider pod is not Ready",
            Self::NodeMissing => "its Node is missing",
            Self::NodeForeign => {
                "nothing says that the Node of its name is its own: it has no label type=virtual-kubelet, no taint of virtual \
                 nodes and not the provider's address"
            }
            Self::NodeUnreadable => "its Node can't be read",
            Self::NodeNotReady => "its Node is not Ready",
            Self::NoSign => "its provider has not been seen to send a heartbeat yet",
            Self::NoHeartbeat => "its provider has not sent a heartbeat for 40 seconds",
        })
    }
}

/// What keeps an ordinal's provider from being healthy, in words: of a provider pod that is not Ready, the pod's own cause.
pub fn sick(observed: &Observed, ordinal: Ordinal, now: Timestamp) -> Option<String> {
    let (node, pod) = (observed.nodes.get(&ordinal), observed.provider_pods.get(&ordinal));
    let why = health(node.map(AsRef::as_ref), pod.map(AsRef::as_ref), now).err()?;
    Some(in_words(why, pod.map(AsRef::as_ref)))
}

/// The reason, with the cause that the pod's own status names.
pub fn in_words(why: Unhealthy, pod: Option<&ProviderPod>) -> String {
    match pod.and_then(|p| p.trouble.as_deref()) {
        Some(trouble) if why == Unhealthy::PodNotReady => format!("{why}: {trouble}"),
        _ => why.to_string(),
    }
}

/// The health of a provider: its pod Ready, its Node Ready, a fresh heartbeat.
///
/// # Errors
/// The first thing that is wrong.
pub fn health(
    node: Option<&NodeView>,
    pod: Option<&ProviderPod>,
    now: Timestamp,
) -> Result<ProviderMark, Unhealthy> {
    let pod = pod.ok_or(Unhealthy::PodMissing)?;
    if pod.unreadable {
        return Err(Unhealthy::PodUnreadable);
    }
    if pod.deleting {
        return Err(Unhealthy::PodTerminating);
    }
    if !pod.ready {
        return Err(Unhealthy::PodNotReady);
    }
    let node = node.ok_or(Unhealthy::NodeMissing)?;
    if foreign(node, Some(pod)) {
        return Err(Unhealthy::NodeForeign);
    }
    if node.unreadable {
        return Err(Unhealthy::NodeUnreadable);
    }
    if !node.ready {
        return Err(Unhealthy::NodeNotReady);
    }
    match &node.heartbeat {
        Some(beat) if now.duration_since(beat.seen_at) <= HEARTBEAT_LIMIT => {}
        Some(_) => return Err(Unhealthy::NoHeartbeat),
        None => return Err(Unhealthy::NoSign),
    }
    Ok(ProviderMark {
        pod_uid: pod.uid.clone(),
        restarts: pod.restarts,
        node_uid: node.uid.clone(),
    })
}
