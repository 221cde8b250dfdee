//! Drains that were given up at their deadline (`spec.drain.onTimeout: Abort`). The status entry remembers what for:
//! phase Aborted with `lastProgressTime` at the deadline that passed, next to `status.targetReplicas`.

use jiff::Timestamp;
use vnp_crds::{DrainPhase, DrainingNode, OnTimeout};

use super::deadline::Stand;
use super::{Scene, emptying, node, signed};
use crate::observed::Ordinal;
use crate::plan::NodeInDrain;

/// The doomed ordinals that a deadline was or is due for.
#[derive(Clone, Debug, Default)]
pub(super) struct Aborts {
    /// Their nodes are kept.
    pub(super) given_up: Vec<Ordinal>,
    /// They were given up under another target, timeout or onTimeout: the drain begins anew, and so does its time.
    pub(super) anew: Vec<Ordinal>,
}

impl Aborts {
    /// The ordinal is kept, or can't go before one that is: a StatefulSet takes its highest away first.
    pub(super) fn keeps(&self, ordinal: Ordinal) -> bool {
        self.given_up.iter().any(|kept| ordinal <= *kept)
    }
}

pub(super) fn judge(scene: &Scene<'_>) -> Aborts {
    let mut aborts = Aborts::default();
    for ordinal in scene.workload.ordinals().filter(|o| *o >= scene.boundary()) {
        let Some(entry) = scene.stored(ordinal) else {
            continue;
        };
        // A person who gives up the node itself wants it gone, not kept.
        let abandoned = emptying::declared(scene, ordinal).is_some();
        if entry.phase == DrainPhase::Aborted {
            if !abandoned && unchanged(scene, entry) {
                aborts.given_up.push(ordinal);
            } else if abandoned && entry.uid.is_none() {
                // The break-glass was set for this drain, and would not be for one that begins anew.
            } else {
                aborts.anew.push(ordinal);
            }
        } else if !abandoned
            && !scene.seen.pool.is_paused()
            && node::stand(scene, entry.started_at.0, None) == Stand::GivenUp
        {
            aborts.given_up.push(ordinal);
        }
    }
    aborts
}

/// Target, timeoutSeconds and onTimeout are those under which the drain was given up.
fn unchanged(scene: &Scene<'_>, entry: &DrainingNode) -> bool {
    let target = scene.seen.pool.status.as_ref().and_then(|s| s.target_replicas);
    let passed = entry.last_progress_time.as_ref().map(|t| t.0);
    scene.settings.on_timeout == OnTimeout::Abort
        && !scene.seen.deleting()
        && target == Some(scene.target)
        && passed.is_some()
        && passed == deadline(scene, entry.started_at.0)
}

fn deadline(scene: &Scene<'_>, started_at: Timestamp) -> Option<Timestamp> {
    let timeout = scene.settings.timeout?;
    Some(started_at.checked_add(signed(timeout)).unwrap_or(Timestamp::MAX))
}

/// The status entry of a node that is kept.
pub(super) fn entry(scene: &Scene<'_>, ordinal: Ordinal) -> NodeInDrain {
    let entry = node::entry(scene, ordinal);
    NodeInDrain {
        phase: DrainPhase::Aborted,
        last_progress: deadline(scene, entry.started_at).unwrap_or(entry.last_progress),
        empty_since: None,
        force_announced: None,
        force_at: None,
        reaped_provider_uid: None,
        ..entry
    }
}
