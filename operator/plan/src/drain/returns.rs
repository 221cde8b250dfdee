//! Pods that come back: their controller puts another one on the cordoned node as fast as one leaves, because its pods
//! name the node or tolerate the cordon. To evict them makes instances without end, so after a few returns they are left
//! alone, and from time to time one of them is tried.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{BlockerReason, DrainStatus, RetiredOrdinal};

use super::memory::DrainMemory;
use crate::observed::{BoundPod, ControllerKey};

/// Kind whose controller ignores cordons by design.
const DAEMON_SET: &str = "DaemonSet";
/// So many returns of a DaemonSet's pods, and of others, are not the scheduler's delay any more.
const DAEMON_RETURNS: u32 = 2;
const RETURNS: u32 = 3;
/// How long after its last return a controller's pods are left alone; then one is tried.
const LEFT_ALONE: SignedDuration = SignedDuration::from_secs(300);
/// When nothing came back for so long, tries included, what made the pods come back is gone.
const LAPSES: SignedDuration = SignedDuration::from_secs(600);
/// Controllers that are remembered for one node; the one that returned longest ago makes room.
const REMEMBERED: usize = 1000;
/// What the clocks of API servers may differ by, on top of stamps in whole seconds.
const CLOCKS: SignedDuration = SignedDuration::from_secs(10);

/// What is remembered of pods that came to one node while its cordon was in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    by: BTreeMap<ControllerKey, Returns>,
    /// UIDs of such pods that are there.
    late: BTreeSet<String>,
}

/// Returns of one controller's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Returns {
    count: u32,
    last: Timestamp,
    /// An earlier process saw them: which of the pods came late is not known.
    reported: bool,
}

impl Returned {
    /// What the status of an earlier process says, as if it were seen at `now`.
    pub fn reported(drain: &DrainStatus, now: Timestamp) -> Self {
        let told = drain.blockers.iter().filter(|b| {
            matches!(
                b.reason,
                BlockerReason::NewPodsKeepArriving | BlockerReason::DaemonSetTargetsVirtualNode
            )
        });
        let returns = Returns {
            count: RETURNS,
            last: now,
            reported: true,
        };
        Self {
            by: told
                .filter_map(|b| Some((ControllerKey::parse(&b.object)?, returns)))
                .collect(),
            late: BTreeSet::new(),
        }
    }

    /// Notes that a pod came although the cordon had settled.
    pub fn see(&mut self, pod: &BoundPod, now: Timestamp) {
        if pod.mirror {
            return;
        }
        self.late.insert(pod.uid.clone());
        let returns = self.by.entry(pod.made_by()).or_insert(Returns {
            count: 0,
            last: now,
            reported: false,
        });
        returns.count = returns.count.saturating_add(1);
        returns.last = now;
        if self.by.len() > REMEMBERED
            && let Some(oldest) = self.by.iter().min_by_key(|(_, r)| r.last).map(|(k, _)| k.clone())
        {
            self.by.remove(&oldest);
        }
    }

    /// Notes that a pod is gone.
    pub fn see_gone(&mut self, pod: &BoundPod) {
        self.late.remove(&pod.uid);
    }

    /// The drain is over.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Controllers whose pods came so far.
    pub fn controllers(&self) -> impl Iterator<Item = (&ControllerKey, u32)> {
        self.by.iter().map(|(key, returns)| (key, returns.count))
    }

    /// That it leaves is no progress: another one comes, or it was not there when the drain began.
    pub(super) fn comes_back(&self, pod: &BoundPod) -> bool {
        self.late.contains(&pod.uid) || self.of(pod).is_some()
    }

    /// The pod itself may be one that came late.
    fn may_be_late(&self, pod: &BoundPod) -> bool {
        self.late.contains(&pod.uid) || self.of(pod).is_some_and(|(_, returns)| returns.reported)
    }

    /// The controller of a pod, when it is one whose pods come back. Of pods without a controller only those count that
    /// came themselves.
    fn of(&self, pod: &BoundPod) -> Option<(ControllerKey, Returns)> {
        if self.by.is_empty() || pod.mirror {
            return None;
        }
        let key = pod.made_by();
        let returns = *self.by.get(&key)?;
        let limit = if key.kind == DAEMON_SET {
            DAEMON_RETURNS
        } else {
            RETURNS
        };
        let counts = returns.count >= limit && (pod.controller.is_some() || self.late.contains(&pod.uid));
        counts.then_some((key, returns))
    }
}

/// Whose turn it is to be tried of one controller's pods.
struct Turn<'a> {
    last: Timestamp,
    /// One of them is on its way out.
    leaving: bool,
    first: Option<&'a BoundPod>,
}

/// The pods of one node that come back, and which of them are tried now.
#[derive(Debug, Default)]
pub(super) struct Returning<'a> {
    returned: Option<&'a Returned>,
    /// UIDs.
    tried: BTreeSet<&'a str>,
    /// Controllers whose pods do not come back any more.
    lapsed: BTreeSet<ControllerKey>,
    /// When the next one is tried.
    pub(super) wake: Option<Timestamp>,
}

/// What is said of a pod that comes back.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) reason: BlockerReason,
    pub(super) object: String,
    pub(super) message: String,
    /// Its cause may be gone: it is evicted, and shows whether another one comes.
    pub(super) tried: bool,
}

impl<'a> Returning<'a> {
    /// Judges the pods of a node. `askable`: nothing else holds the pod, so that it can be the one that is tried.
    pub(super) fn of(
        memory: Option<&'a DrainMemory>,
        pods: impl Iterator<Item = &'a BoundPod>,
        now: Timestamp,
        askable: impl Fn(&BoundPod) -> bool,
    ) -> Self {
        let Some(returned) = memory.map(|m| &m.returned).filter(|r| !r.by.is_empty()) else {
            return Self::default();
        };
        let mut turns: BTreeMap<ControllerKey, Turn<'a>> = BTreeMap::new();
        for pod in pods.filter(|p| !p.finished()) {
            let Some((key, returns)) = returned.of(pod) else {
                continue;
            };
            let turn = turns.entry(key).or_insert(Turn {
                last: returns.last,
                leaving: false,
                first: None,
            });
            if let Some(deletion) = pod.deletion {
                // One that hangs tells nothing, however long it is waited for.
                turn.leaving |= now < deletion.checked_add(LEFT_ALONE).unwrap_or(Timestamp::MAX);
            } else if askable(pod) && turn.first.is_none_or(|first| pod.key < first.key) {
                turn.first = Some(pod);
            }
        }
        let mut judged = Self {
            returned: Some(returned),
            ..Self::default()
        };
        for (key, turn) in turns {
            // One at a time: while one is on its way, the next would be no test.
            let after = |pause| turn.last.checked_add(pause).unwrap_or(Timestamp::MAX);
            let tries = now >= after(LEFT_ALONE) && !turn.leaving;
            if tries && now >= after(LAPSES) {
                judged.lapsed.insert(key);
                continue;
            }
            judged
                .tried
                .extend(turn.first.filter(|_| tries).map(|p| p.uid.as_str()));
            let next = [after(LEFT_ALONE), after(LAPSES)]
                .into_iter()
                .find(|at| now < *at);
            judged.wake = judged.wake.into_iter().chain(next).min();
        }
        judged
    }

    /// Whether the pod may have come late itself: a deletion by force sends away once what was there before.
    pub(super) fn may_be_late(&self, pod: &BoundPod) -> bool {
        self.returned.is_some_and(|r| r.may_be_late(pod))
    }

    /// What is said of the pod; `None` when it does not come back.
    pub(super) fn judge(&self, pod: &BoundPod) -> Option<Back> {
        if pod.finished() {
            return None;
        }
        let (key, _) = self.returned?.of(pod)?;
        if self.lapsed.contains(&key) {
            return None;
        }
        let (reason, message) = match key.kind.as_str() {
            DAEMON_SET => (
                BlockerReason::DaemonSetTargetsVirtualNode,
                "DaemonSets ignore cordons, so its pods come back and are left alone, but for one that is tried from time to time; keep it off virtual nodes with a \
                 required node affinity type NotIn [virtual-kubelet]",
            ),
            _ if pod.controller.is_none() => (
                BlockerReason::NewPodsKeepArriving,
                "pods without a controller keep coming in this namespace although the node is cordoned, and are left alone, \
                 but for one that is tried from time to time; find who makes them with spec.nodeName or a toleration of the cordon, and delete them",
            ),
            _ => (
                BlockerReason::NewPodsKeepArriving,
                "its pods come back although the node is cordoned, and are left alone, but for one that is tried from time to time; take spec.nodeName, or the toleration \
                 of node.kubernetes.io/unschedulable, out of its pod template, or scale it down",
            ),
        };
        Some(Back {
            reason,
            object: key.to_string(),
            message: message.to_owned(),
            tried: self.tried.contains(pod.uid.as_str()),
        })
    }
}

/// The pod was made when neither a provider nor a Node was left of its ordinal: only its manifest put it there, nobody ever
/// asked for an instance, and to bring the node back for it would only begin the drain anew.
pub(crate) fn came_after(ordinal: &RetiredOrdinal, pod: &BoundPod) -> bool {
    let gone = ordinal.gone_time.as_ref().map(|t| t.0);
    let after = |gone: Timestamp| pod.created.is_some_and(|at| at.duration_since(gone) > CLOCKS);
    // The garbage collector of pods ends those of absent Nodes as Failed before it deletes them.
    let no_instance = pod.never_started || pod.finished();
    gone.is_some_and(after) && no_instance && pod.instance_id.is_none()
}

#[cfg(test)]
mod tests;
