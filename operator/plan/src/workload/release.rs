//! A pool that goes lets go of its workload.

use std::collections::BTreeMap;

use vnp_crds::{DeletionPolicy, EventReason, Management, Reason};

use super::restore::drop_copy;
use super::{DrainState, adopt, patch, roll};
use crate::finding::{EventNote, Finding};
use crate::observed::{Observed, Workload};
use crate::plan::Part;
use crate::step::{PatchPurpose, Step};

/// The last write to the workload of a pool that is deleted; `None` while its nodes still drain.
pub(super) fn plan(observed: &Observed, workload: &Workload, draining: &DrainState) -> Option<Part> {
    if !observed.deleting() {
        return None;
    }
    match (
        observed.pool.spec.deletion_policy(),
        observed.pool.spec.provider.management(),
    ) {
        // Cordons are undone while the workload is still known for ours.
        (DeletionPolicy::Retain, _) if cordoned(observed, workload) => Some(Part::default()),
        (DeletionPolicy::Retain, Management::Create) => Some(leave(observed, workload)),
        (DeletionPolicy::Retain, Management::Adopt) => Some(give_back(observed, workload)),
        (DeletionPolicy::Drain, _) if !draining.drained => None,
        (DeletionPolicy::Drain, Management::Create) => {
            let steps = vec![Step::DeleteWorkload {
                uid: workload.uid().to_owned(),
            }];
            Some(Part {
                steps,
                ..Part::default()
            })
        }
        (DeletionPolicy::Drain, Management::Adopt) => Some(give_back(observed, workload)),
    }
}

/// Why a pool that goes waits for its workload although that is not known for its own: somebody took the label off. Without
/// the pool nobody would drain its nodes, and nobody would take our finalizer off.
pub(crate) fn unlabelled(observed: &Observed) -> Option<Finding> {
    let workload = observed.workload.there()?;
    let provider = observed.pool.status.as_ref()?.provider.as_ref()?;
    let ran_here = provider
        .started
        .as_ref()
        .is_none_or(|started| !started.is_empty());
    (observed.deleting() && ran_here && workload.has_finalizer() && workload.pool_label().is_none()).then(|| {
        Finding::Stalled {
            reason: Reason::WorkloadExists,
            message: format!(
                "StatefulSet {} has this operator's finalizer {} and no label {label} any more: put the label {label}: {} \
                 back, and spec.deletionPolicy is carried out; or take that finalizer off it, and the pool goes without it",
                workload.name(),
                vnp_crds::WORKLOAD_FINALIZER,
                observed.pool_name(),
                label = vnp_crds::POOL_LABEL,
            ),
        }
    })
}

fn cordoned(observed: &Observed, workload: &Workload) -> bool {
    workload.ordinals().any(|o| {
        observed
            .nodes
            .get(&o)
            .is_some_and(|n| n.cordon_owner.ours() && !n.reserved())
    })
}

fn give_back(observed: &Observed, workload: &Workload) -> Part {
    let mut part = Part::default();
    let (mut operations, changes, error) = adopt::give_back(&observed.pool, workload);
    operations.extend(own_partition(observed, workload));
    if let Some(error) = error {
        part.findings.push(Finding::Event(EventNote {
            reason: EventReason::ConfigWarning,
            subject: workload.name().to_owned(),
            note: format!(
                "StatefulSet {} is let go with the values that the pool gave it: {error}",
                workload.name()
            ),
        }));
    }
    part.steps
        .push(patch::step(workload, operations, PatchPurpose::Release, changes));
    part.steps.extend(observed.template_copy.as_ref().map(drop_copy));
    part
}

/// Made by us and left running: template and labels stay, so that a pool of the same name can take it up again.
fn leave(observed: &Observed, workload: &Workload) -> Part {
    let mut part = Part::default();
    if workload.has_finalizer() {
        let fence = BTreeMap::from([(vnp_crds::SHRINKING_ANNOTATION, None)]);
        let mut operations = patch::metadata_map(&workload.raw, "annotations", &fence);
        operations.extend(own_partition(observed, workload));
        operations.extend(patch::remove_finalizer(workload));
        let changes = vec![format!("finalizer {} removed", vnp_crds::WORKLOAD_FINALIZER)];
        part.steps
            .push(patch::step(workload, operations, PatchPurpose::Release, changes));
    }
    part.steps.extend(observed.template_copy.as_ref().map(drop_copy));
    part
}

/// A roll that is under way goes on by the workload's own rules.
fn own_partition(observed: &Observed, workload: &Workload) -> Vec<json_patch::PatchOperation> {
    let Some(copy) = &observed.template_copy else {
        return Vec::new();
    };
    match workload.update_strategy() {
        crate::observed::UpdateStrategy::RollingUpdate => {
            patch::partition(workload, roll::kept(copy).partition)
        }
        crate::observed::UpdateStrategy::OnDelete => Vec::new(),
    }
}
