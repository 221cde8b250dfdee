//! Cordons that are not needed (any more), and the pool's label on its Nodes.

use json_patch::{Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::json;

use super::break_glass::NO_NODE;
use super::{DrainPlan, Scene, installations};
use crate::observed::{Ordinal, Workload};
use crate::step::{PatchPurpose, Step, WorkloadPatch};

/// Takes back the fence when it is not this drain's, then own cordons of nodes that are wanted. In this order, so that
/// a leader that was paused can't shrink a node to which pods may come again.
pub(super) fn release(scene: &Scene<'_>, chosen: &[Ordinal], plan: &mut DrainPlan) {
    if let Some(value) = scene.workload.annotation(vnp_crds::SHRINKING_ANNOTATION) {
        let due = !scene.held
            && !scene.seen.pool.is_paused()
            && chosen.iter().any(|o| {
                let uid = fence_uid(scene, *o);
                value == scene.fence(*o, &uid)
            });
        if !due && !installations::keeps_fence(scene, value, chosen, plan) {
            plan.steps.push(unfence(scene.workload, value));
        }
    }
    for (ordinal, node) in &scene.seen.nodes {
        // Without its provider nobody may come: the count is raised first.
        let stays = *ordinal < scene.boundary() || scene.aborts.keeps(*ordinal);
        let wanted = stays && *ordinal < scene.workload.ordinals().end;
        if wanted && node.cordon_owner.ours() && !node.reserved() {
            plan.steps.push(Step::Uncordon {
                node: node.name.clone(),
                uid: node.uid.clone(),
                resource_version: node.resource_version.clone(),
            });
        }
    }
}

/// The UID that stands in the fence: the Node's, else the one reported last, else `none`.
pub(super) fn fence_uid(scene: &Scene<'_>, ordinal: Ordinal) -> String {
    let node = scene.seen.nodes.get(&ordinal).map(|n| n.uid.clone());
    let reported = || {
        scene
            .stored(ordinal)
            .and_then(|r| r.uid.clone())
            .filter(|u| !u.is_empty())
    };
    node.or_else(reported).unwrap_or_else(|| NO_NODE.to_owned())
}

pub(crate) fn unfence(workload: &Workload, value: &str) -> Step {
    let annotation = PointerBuf::from_tokens(["metadata", "annotations", vnp_crds::SHRINKING_ANNOTATION]);
    let patch = Patch(vec![
        test_uid(workload),
        PatchOperation::Test(TestOperation {
            path: annotation.clone(),
            value: json!(value),
        }),
        // A shrink that came through before has to be seen before anybody uncordons.
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["spec", "replicas"]),
            value: json!(workload.replicas()),
        }),
        PatchOperation::Remove(RemoveOperation { path: annotation }),
    ]);
    Step::PatchWorkload(WorkloadPatch {
        patch,
        purpose: PatchPurpose::Unfence,
        changes: Vec::new(),
    })
}

pub(crate) fn test_uid(workload: &Workload) -> PatchOperation {
    PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(["metadata", "uid"]),
        value: json!(workload.uid()),
    })
}
