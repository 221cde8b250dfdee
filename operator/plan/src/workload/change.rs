//! A change of the provider's template that is due, and the one write that makes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vnp_crds::Management;

use super::adopt::{self, AdoptError, Values};
use super::contest::{self, contested};
use super::{create, patch, rewritten};
use crate::observed::{Observed, Workload};
use crate::step::{PatchPurpose, Step};
use crate::wording::counted;

/// What differs from a wanted template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Single values of an adopted template.
    Values(Values),
    /// The whole of what we apply to a created one.
    Template(Value),
}

/// The template that did not get healthy, as the workload's annotations name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reverted<'a> {
    /// Hash of the template.
    pub(super) hash: &'a str,
    /// Which provider did not get healthy with it, and why; empty when an older version took it back.
    pub(super) because: &'a str,
}

impl<'a> Reverted<'a> {
    /// The mark on the workload.
    pub(super) fn of(workload: &'a Workload) -> Option<Self> {
        Some(Self {
            hash: workload.annotation(vnp_crds::REVERTED_ANNOTATION)?,
            because: workload
                .annotation(vnp_crds::REVERTED_BECAUSE_ANNOTATION)
                .unwrap_or_default(),
        })
    }

    /// The mark as annotations.
    pub(super) fn annotations(&self) -> impl Iterator<Item = (&'static str, String)> {
        let hash = (vnp_crds::REVERTED_ANNOTATION, self.hash.to_owned());
        let because = (vnp_crds::REVERTED_BECAUSE_ANNOTATION, self.because.to_owned());
        std::iter::once(hash).chain(Some(because).filter(|(_, text)| !text.is_empty()))
    }
}

/// What differs from the template that the pool wants, fields that somebody contests left out.
pub(super) fn forward(observed: &Observed, workload: &Workload) -> Result<Option<Change>, AdoptError> {
    let held_off = |field: &str| {
        contested(&observed.recall, field).is_some() || rewritten::held_off(&observed.recall, field)
    };
    match observed.pool.spec.provider.management() {
        Management::Create => {
            let template = json!(create::template(&observed.pool));
            Ok(if held_off(contest::TEMPLATE) {
                None
            } else {
                apply_due(observed, workload, template, None)
            })
        }
        Management::Adopt => Ok(adopt::due(&observed.pool, workload, &held_off)?.map(Change::Values)),
    }
}

/// What differs from the template that the pool wants, whoever contests it. Nothing when that can't be told.
pub(super) fn wanted(observed: &Observed, workload: &Workload) -> Option<Change> {
    match observed.pool.spec.provider.management() {
        Management::Create => Some(Change::Template(json!(create::template(&observed.pool)))),
        Management::Adopt => adopt::due(&observed.pool, workload, &|_| false)
            .ok()
            .flatten()
            .map(Change::Values),
    }
}

/// What differs from the template before the roll. `reverted` names the template that did not get healthy.
pub(super) fn back(
    observed: &Observed,
    workload: &Workload,
    template: &Value,
    reverted: Reverted<'_>,
) -> Result<Option<Change>, AdoptError> {
    match observed.pool.spec.provider.management() {
        Management::Create => Ok(apply_due(observed, workload, template.clone(), Some(reverted))),
        Management::Adopt => Ok(adopt::due_back(&observed.pool, workload, template)?.map(Change::Values)),
    }
}

fn apply_due(
    observed: &Observed,
    workload: &Workload,
    template: Value,
    reverted: Option<Reverted<'_>>,
) -> Option<Change> {
    let body = create::apply_body(&observed.pool, workload, &template, 0, reverted);
    create::first_difference(workload, &body).map(|_| Change::Template(template))
}

impl Change {
    /// Whether providers have to be restarted for it. An apply is taken for one that changes the template: what the server
    /// makes of it shows only afterwards, in the revision.
    pub(super) fn restarts(&self) -> bool {
        match self {
            Self::Values(values) => values.any(),
            Self::Template(_) => true,
        }
    }

    /// The write. `partition`: `None` leaves it; an apply always carries one.
    pub(super) fn step(
        &self,
        observed: &Observed,
        workload: &Workload,
        partition: Option<i32>,
        reverted: Option<Reverted<'_>>,
        purpose: PatchPurpose,
    ) -> Step {
        let changes = self.lines(workload);
        match self {
            Self::Template(template) => {
                let partition = partition.or(workload.partition()).unwrap_or(0);
                let body = create::apply_body(&observed.pool, workload, template, partition, reverted);
                Step::ApplyWorkload {
                    body,
                    purpose,
                    changes,
                }
            }
            Self::Values(values) => {
                let mut annotations = BTreeMap::from([
                    (vnp_crds::ADOPTED_VALUES_ANNOTATION, Some(values.annotation())),
                    (vnp_crds::REVERTED_ANNOTATION, None),
                    (vnp_crds::REVERTED_BECAUSE_ANNOTATION, None),
                ]);
                let marks = reverted.iter().flat_map(Reverted::annotations);
                annotations.extend(marks.map(|(key, value)| (key, Some(value))));
                let mut operations = values.operations(workload);
                operations.extend(patch::metadata_map(&workload.raw, "annotations", &annotations));
                if partition.is_some() {
                    operations.extend(patch::partition(workload, partition));
                }
                patch::step(workload, operations, purpose, changes)
            }
        }
    }

    /// What stands there and what is to stand there, one line for each field.
    pub(super) fn differences(&self, workload: &Workload) -> Vec<String> {
        match self {
            Self::Template(template) => create::changes(workload, template),
            Self::Values(values) => values.changes.clone(),
        }
    }

    /// For people, one line for each field.
    pub(super) fn lines(&self, workload: &Workload) -> Vec<String> {
        let lines = self.differences(workload).into_iter();
        match workload.replicas() {
            0 => lines.collect(),
            n => lines
                .map(|line| format!("{line}: restarts {}", counted(n, "provider")))
                .collect(),
        }
    }
}
