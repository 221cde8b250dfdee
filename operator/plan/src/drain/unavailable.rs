//! A StatefulSet with `podManagementPolicy: OrderedReady` makes and removes no pod while one below is not available, that
//! is Ready for `spec.minReadySeconds`. Source: kubernetes `pkg/controller/statefulset`, `updateStatefulSet`.

use jiff::Timestamp;
use vnp_crds::BlockerReason;

use super::{DrainPlan, Scene, seconds};
use crate::observed::Ordinal;

/// The provider that the StatefulSet controller waits for.
pub(super) struct Unavailable {
    /// Its pod.
    pod: String,
    /// When it is available, where only time is missing.
    until: Option<Timestamp>,
}

impl Unavailable {
    /// The lowest one below the ordinal, where the order of the StatefulSet matters.
    pub(super) fn below(scene: &Scene<'_>, ordinal: Ordinal) -> Option<Self> {
        let workload = scene.workload;
        if !workload.ordered_ready() {
            return None;
        }
        let min_ready = seconds(workload.min_ready_seconds().into());
        let mut lower = workload.ordinals().take_while(|o| *o < ordinal);
        lower.find_map(|o| {
            let pod = scene.seen.provider_pods.get(&o).filter(|p| p.ready);
            let until = pod.and_then(|p| p.ready_since).map(|since| since + min_ready);
            let available = pod.is_some() && until.is_none_or(|until| until <= scene.now);
            (!available).then(|| Self {
                pod: scene.seen.node_name(o),
                until,
            })
        })
    }

    /// Says that `so` it is, because of this one.
    pub(super) fn block(self, scene: &Scene<'_>, so: String, plan: &mut DrainPlan) {
        let Self { pod, until } = self;
        let message = match until {
            Some(until) => {
                plan.wake(until);
                format!(
                    "the StatefulSet is OrderedReady and {pod} has not been Ready for its spec.minReadySeconds ({}) yet, so {so}; \
                     it goes on by itself",
                    scene.workload.min_ready_seconds()
                )
            }
            None => format!("the StatefulSet is OrderedReady and {pod} is not Ready, so {so}; repair {pod}"),
        };
        plan.block(scene.blocker(
            BlockerReason::StatefulSetStuck,
            scene.workload.name().to_owned(),
            0,
            message,
        ));
    }
}
