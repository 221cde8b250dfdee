//! What this process saw of pods leaving a node that drains. Lost at a restart: what went meanwhile is then recorded as
//! ended in an unknown way, from the record that was written before the first eviction.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{Ended, PodRecord, whole};
use crate::observed::{BoundPod, PodPhase};

/// Pods that left one node during its drain: about 300 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Shared with the passes, which copy the memory.
    left: Arc<BTreeMap<String, PodRecord>>,
}

impl Witness {
    /// Notes that a pod's object is gone; `pod` as it was seen last.
    pub fn see_gone(&mut self, pod: &BoundPod, now: Timestamp) {
        if pod.mirror {
            return;
        }
        let record = PodRecord {
            ended: Some(ended(pod)),
            at: Some(whole(now)),
            ..PodRecord::bound(pod)
        };
        Arc::make_mut(&mut self.left).insert(pod.uid.clone(), record);
    }

    /// The drain is over, or never was.
    pub fn forget(&mut self) {
        if !self.left.is_empty() {
            self.left = Arc::default();
        }
    }

    /// The pods by UID.
    pub fn left(&self) -> &BTreeMap<String, PodRecord> {
        &self.left
    }
}

/// A provider may report a phase of its own making while it takes a pod down, so only the phase before counts.
fn ended(pod: &BoundPod) -> Ended {
    match pod.before_deletion {
        Some(PodPhase::Succeeded | PodPhase::Failed) => Ended::Finished,
        _ if pod.evicted => Ended::Evicted,
        Some(_) => Ended::Deleted,
        None => Ended::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{now, pod};

    fn ended_of(change: impl FnOnce(&mut BoundPod)) -> Option<Ended> {
        let mut pod = pod("a");
        change(&mut pod);
        let mut witness = Witness::default();
        witness.see_gone(&pod, now());
        witness.left().get(&pod.uid).and_then(|p| p.ended)
    }

    #[test]
    fn how_a_pod_ended_is_told_by_what_it_was_before_its_deletion() {
        let cases: [(Option<PodPhase>, bool, Ended); 6] = [
            (Some(PodPhase::Running), true, Ended::Evicted),
            (Some(PodPhase::Running), false, Ended::Deleted),
            (Some(PodPhase::Succeeded), true, Ended::Finished),
            (Some(PodPhase::Failed), false, Ended::Finished),
            (None, true, Ended::Evicted),
            (None, false, Ended::Unknown),
        ];
        for (before, evicted, expected) in cases {
            let told = ended_of(|p| {
                p.before_deletion = before;
                p.evicted = evicted;
                // What the provider says while it takes the pod down is beside the point.
                p.phase = PodPhase::Failed;
            });
            assert_eq!(told, Some(expected), "{before:?} {evicted}");
        }
    }

    #[test]
    fn mirror_pods_have_no_instance() {
        assert_eq!(ended_of(|p| p.mirror = true), None);
    }
}
