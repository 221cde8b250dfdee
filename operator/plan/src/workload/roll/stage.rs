//! Where a roll stands, told from the workload and its pods alone.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::Kept;
use crate::drain::health::health;
use crate::observed::{Observed, Ordinal, ProviderPod, UpdateStrategy, Workload};

/// Where a roll stands, whatever template it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The StatefulSet controller has not looked at the template yet.
    Unseen,
    /// This one is not healthy with a template that was given up, neither the wanted one nor the one before the roll.
    Stranded(Ordinal),
    /// This one is being restarted, or is not healthy after it.
    Waiting(Ordinal),
    /// Between two steps; the next ordinal, from which the partition is to count.
    Next(Ordinal),
    /// Between two steps, but another provider that was healthy before is down: the first is `down`, then `next`.
    Resting {
        /// The provider that is down.
        down: Ordinal,
        /// As in [`Stage::Next`].
        next: Ordinal,
    },
    /// OnDelete: these wait for a person to delete their pods.
    Outdated(Vec<Ordinal>),
    /// All run the template and are healthy.
    Done,
}

/// The stage of the roll to the template that the workload has.
pub(super) fn stage(observed: &Observed, workload: &Workload, kept: &Kept, now: Timestamp) -> Stage {
    if workload.replicas() == 0 {
        return Stage::Done;
    }
    let Some(revision) = workload.update_revision() else {
        return Stage::Unseen;
    };
    let look = Look {
        observed,
        revision,
        now,
    };
    let rolling = workload.update_strategy() == UpdateStrategy::RollingUpdate;
    // With OnDelete pods may run any older template for good; only what we took back is ours to restart.
    if (rolling || workload.annotation(vnp_crds::REVERTED_ANNOTATION).is_some())
        && let Some(stranded) = look.stranded(workload)
    {
        return Stage::Stranded(stranded);
    }
    let ordinals = || workload.ordinals().rev();
    if ordinals().all(|o| look.there(o)) {
        return Stage::Done;
    }
    match workload.update_strategy() {
        UpdateStrategy::RollingUpdate => {
            let first = first_of_partition(workload);
            let rolled = first..workload.ordinals().end;
            if let Some(waiting) = rolled.rev().find(|o| !look.there(*o)) {
                return Stage::Waiting(waiting);
            }
            let Some(next) = first
                .checked_sub(1)
                .filter(|next| workload.ordinals().contains(next))
            else {
                return Stage::Done;
            };
            let down = |o: &Ordinal| *o < next && kept.healthy.contains(o) && !fresh(observed, *o, now);
            match ordinals().find(down) {
                Some(down) => Stage::Resting { down, next },
                None => Stage::Next(next),
            }
        }
        UpdateStrategy::OnDelete => {
            let restarting = |o: &Ordinal| {
                observed
                    .provider_pods
                    .get(o)
                    .is_none_or(|p| p.deleting || p.revision == revision)
                    && !look.there(*o)
            };
            match ordinals().find(restarting) {
                Some(waiting) => Stage::Waiting(waiting),
                None => Stage::Outdated(ordinals().filter(|o| !look.there(*o)).collect()),
            }
        }
    }
}

/// The first ordinal from which the StatefulSet controller updates pods. It counts the partition from `ordinals.start`
/// (kubernetes 1.37, stateful_set_control.go, `updateMin`; stateful_set_utils.go, `newVersionedStatefulSetPod`).
fn first_of_partition(workload: &Workload) -> Ordinal {
    let partition = workload.partition().unwrap_or(0).clamp(0, workload.replicas());
    workload.start_ordinal().saturating_add(partition)
}

struct Look<'a> {
    observed: &'a Observed,
    revision: &'a str,
    now: Timestamp,
}

impl Look<'_> {
    fn pod(&self, ordinal: Ordinal) -> Option<&ProviderPod> {
        self.observed.provider_pods.get(&ordinal).map(AsRef::as_ref)
    }

    /// Runs the template and is healthy.
    fn there(&self, ordinal: Ordinal) -> bool {
        self.pod(ordinal).is_some_and(|p| p.revision == self.revision)
            && fresh(self.observed, ordinal, self.now)
    }

    /// Neither at the workload's template nor at the one before the roll, and not healthy.
    fn stranded(&self, workload: &Workload) -> Option<Ordinal> {
        let current = workload
            .raw
            .pointer("/status/currentRevision")
            .and_then(Value::as_str);
        workload.ordinals().rev().find(|o| {
            self.pod(*o).is_some_and(|p| {
                !p.deleting && p.revision != self.revision && Some(p.revision.as_str()) != current
            }) && !fresh(self.observed, *o, self.now)
        })
    }
}

/// Healthy, by a heartbeat that comes from this pod and not from the one before it.
fn fresh(observed: &Observed, ordinal: Ordinal, now: Timestamp) -> bool {
    let (node, pod) = (observed.nodes.get(&ordinal), observed.provider_pods.get(&ordinal));
    let beats = node.and_then(|n| n.heartbeat.as_ref()).map_or(0, |b| b.beats);
    let seen = observed.memory.get(&ordinal).and_then(|m| m.provider.as_ref());
    let own = pod
        .zip(seen)
        .is_some_and(|(pod, seen)| pod.uid == seen.uid && beats > seen.beats_before);
    own && sound(observed, ordinal, now)
}

fn sound(observed: &Observed, ordinal: Ordinal, now: Timestamp) -> bool {
    let (node, pod) = (observed.nodes.get(&ordinal), observed.provider_pods.get(&ordinal));
    health(node.map(AsRef::as_ref), pod.map(AsRef::as_ref), now).is_ok()
}

/// Ordinals that are healthy now.
pub(super) fn healthy(observed: &Observed, workload: &Workload, now: Timestamp) -> BTreeSet<Ordinal> {
    workload.ordinals().filter(|o| sound(observed, *o, now)).collect()
}
