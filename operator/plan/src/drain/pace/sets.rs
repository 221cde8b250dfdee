//! StatefulSets whose pods leave one at a time because no PodDisruptionBudget covers them. The plan of each pool gives the
//! turn to one pod, by what it has seen; two pools that drain the same StatefulSet have seen the same.

use std::collections::HashMap;

use jiff::Timestamp;

use super::SETTLED_FOR;
use crate::drain::order::EvictionCandidate;

/// Who had the turn last, by UID of the StatefulSet.
#[derive(Debug, Default)]
pub(super) struct LastTurns(HashMap<String, Turn>);

#[derive(Debug)]
struct Turn {
    pool: String,
    pod_uid: String,
    at: Timestamp,
}

impl LastTurns {
    /// Another pool sent a pod of this one's StatefulSet away, and this pool may not have seen it yet.
    pub(super) fn held_until(
        &self,
        pool: &str,
        pod: &EvictionCandidate,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let last = self.0.get(pod.turn_of.as_ref()?)?;
        let until = last.at.checked_add(SETTLED_FOR).unwrap_or(Timestamp::MAX);
        (last.pool != pool && now < until).then_some(until)
    }

    pub(super) fn sent(&mut self, pool: &str, pod: &EvictionCandidate, now: Timestamp) {
        if let Some(set) = &pod.turn_of {
            let turn = Turn {
                pool: pool.to_owned(),
                pod_uid: pod.uid.clone(),
                at: now,
            };
            self.0.insert(set.clone(), turn);
        }
    }

    /// The pod stays where it is.
    pub(super) fn stays(&mut self, pod: &EvictionCandidate) {
        if let Some(set) = &pod.turn_of {
            self.0
                .retain(|known, turn| known != set || turn.pod_uid != pod.uid);
        }
    }

    pub(super) fn forget_before(&mut self, then: Timestamp) {
        self.0.retain(|_, turn| turn.at >= then);
    }
}
