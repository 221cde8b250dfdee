//! Whether somebody makes a pod again elsewhere when it is evicted. To have a controller is not enough: a CI runner, or an
//! executor that its driver owns, is gone for good.

use vnp_crds::{BarePods, BlockerReason, DisruptionAnnotations};

use super::Scene;
use crate::observed::{BoundPod, ControllerKind, Scaling, remade_by_nature};

/// What becomes of a pod that is evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Its controller makes it again.
    Remade,
    /// It is gone for good: why, and as which object it is named.
    Lost { object: String, why: String },
    /// Its kind of controller was not asked for yet, which takes a moment.
    Unasked,
}

fn fate(scene: &Scene<'_>, pod: &BoundPod) -> Fate {
    let Some(owner) = &pod.controller else {
        return Fate::Lost {
            object: pod.key.to_string(),
            why: "no controller would make it again".to_owned(),
        };
    };
    let scaling = match remade_by_nature(owner) {
        Some(true) => return Fate::Remade,
        Some(false) => Some(&Scaling::Fixed),
        None => scene.seen.controllers.get(&ControllerKind::from(owner)),
    };
    let object = pod.made_by().to_string();
    let named = format!("{} ({})", owner.kind, owner.api_version);
    match scaling {
        Some(Scaling::Scaled) => Fate::Remade,
        Some(Scaling::Fixed) => Fate::Lost {
            object,
            why: format!(
                "its controller, a {named}, is not known to make pods again: its kind has no scale subresource"
            ),
        },
        Some(Scaling::Unknown { error }) => Fate::Lost {
            object,
            why: format!(
                "whether its controller, a {named}, makes pods again is not known, because the API server does not tell \
                 whether that kind has a scale subresource ({error})"
            ),
        },
        None => Fate::Unasked,
    }
}

/// What keeps a pod from being evicted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spared {
    /// This blocker: reason, object, message.
    By(BlockerReason, String, String),
    /// What it would lose is found out at this moment.
    ForNow,
}

/// Pods that are not even asked for: those that nobody would make again, by `spec.drain.barePods`, and those that ask not
/// to be disturbed, by `spec.drain.disruptionAnnotations`.
pub(super) fn spared(scene: &Scene<'_>, pod: &BoundPod) -> Option<Spared> {
    if pod.finished() {
        return None;
    }
    let policy = scene.settings.bare_pods;
    if policy != BarePods::Evict {
        match fate(scene, pod) {
            Fate::Remade => {}
            Fate::Unasked => return Some(Spared::ForNow),
            Fate::Lost { object, why } if policy == BarePods::Block => {
                let message = format!(
                    "{why}; delete the pod, or set spec.drain.barePods to Evict or WaitForCompletion"
                );
                return Some(Spared::By(BlockerReason::BarePods, object, message));
            }
            Fate::Lost { object, why } => {
                let message =
                    format!("{why}, so it is left to finish (spec.drain.barePods: WaitForCompletion)");
                return Some(Spared::By(BlockerReason::WaitingForCompletion, object, message));
            }
        }
    }
    let mark = pod
        .undisturbed
        .filter(|_| scene.settings.disruption_annotations == DisruptionAnnotations::Respect)?;
    let (object, asks) = match &pod.controller {
        Some(_) => (
            pod.made_by().to_string(),
            format!("its pods ask not to be disturbed ({mark}); wait until they finish"),
        ),
        None => (
            pod.key.to_string(),
            format!("it asks not to be disturbed ({mark}); wait until it finishes"),
        ),
    };
    let message = format!("{asks}, take that off, or set spec.drain.disruptionAnnotations: Ignore");
    Some(Spared::By(BlockerReason::DoNotDisrupt, object, message))
}

#[cfg(test)]
mod tests;
