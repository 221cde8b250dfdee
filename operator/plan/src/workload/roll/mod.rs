//! Template changes reach one provider at a time, highest ordinal first, and go back when a provider does not get healthy.
//!
//! A Secret keeps the template before the roll, the workload's own partition, and which ordinals were healthy under that
//! template. With it there, every state of a roll can be told from the workload and its pods alone (P7):
//!
//! * the template is not the wanted one: it is written, together with a partition above all ordinals;
//! * it is, and the ordinals from the partition on run it and are healthy: the partition is lowered by one;
//! * all ordinals run it and are healthy: the workload gets its own partition back, and the Secret goes.
//!
//! The wanted template is the pool's, or the kept one when annotation `reverted` names the pool's as a failure. So a
//! revert is a roll like any other, but for the provider that failed: it is restarted at once.

mod kept;
mod stage;
#[cfg(test)]
mod tests;
mod wording;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vnp_crds::{EventReason, Management, Reason};

pub(super) use self::kept::kept;
use self::kept::{Kept, copy_name};
use self::stage::{Stage, healthy, stage};
use super::adopt::AdoptError;
use super::change::{self, Change, Reverted};
use super::restore::drop_copy;
use super::{DrainState, create, desired, patch};
use crate::finding::{EventNote, Finding};
use crate::observed::{Observed, Ordinal, SavedCopy, UpdateStrategy, Workload};
use crate::plan::Part;
use crate::step::{PatchPurpose, RestartReason, Step};

/// How long a provider has to get healthy under a new template.
const DEADLINE: SignedDuration = SignedDuration::from_secs(180);

/// One look at a roll.
struct Roll<'a> {
    observed: &'a Observed,
    workload: &'a Workload,
    accepted: bool,
    draining: &'a DrainState,
    /// Names the template that the pool wants.
    hash: String,
    now: Timestamp,
}

/// Whether a provider is being restarted for its template just now, so that no drain may start.
pub(super) fn in_step(observed: &Observed, now: Timestamp) -> bool {
    let Some(workload) = observed.held_workload().filter(|w| !w.deleting()) else {
        return false;
    };
    let Some(copy) = &observed.template_copy else {
        return false;
    };
    let reverted = workload.annotation(vnp_crds::REVERTED_ANNOTATION).is_some();
    match stage(observed, workload, &kept(copy), now) {
        Stage::Unseen | Stage::Stranded(_) => true,
        // A provider that was taken back has had its step, and one that can't be would hold drains for ever.
        Stage::Waiting(ordinal) => !reverted && !overdue(observed, ordinal, now),
        Stage::Next(_) | Stage::Resting { .. } | Stage::Outdated(_) | Stage::Done => false,
    }
}

/// The ordinal that is being restarted for its template, or is not healthy after it.
pub(super) fn restarting(observed: &Observed, now: Timestamp) -> Option<Ordinal> {
    let workload = observed.held_workload().filter(|w| !w.deleting())?;
    let kept = kept(observed.template_copy.as_ref()?);
    match stage(observed, workload, &kept, now) {
        Stage::Waiting(ordinal) => Some(ordinal),
        _ => None,
    }
}

/// The ordinal for which the roll waits; how long, is remembered.
pub(super) fn waiting_for(observed: &Observed, now: Timestamp) -> Option<Ordinal> {
    let workload = observed.held_workload().filter(|w| !w.deleting())?;
    let kept = kept(observed.template_copy.as_ref()?);
    match stage(observed, workload, &kept, now) {
        Stage::Waiting(ordinal) | Stage::Resting { down: ordinal, .. } => Some(ordinal),
        _ => None,
    }
}

fn overdue(observed: &Observed, ordinal: Ordinal, now: Timestamp) -> bool {
    observed
        .recall
        .roll_step_since
        .is_some_and(|(o, at)| o == ordinal && now.duration_since(at) >= DEADLINE)
}

/// The next write of the template, the partition or their copy.
pub(super) fn plan(
    observed: &Observed,
    workload: &Workload,
    accepted: bool,
    draining: &DrainState,
    now: Timestamp,
) -> Part {
    let roll = Roll {
        observed,
        workload,
        accepted,
        draining,
        hash: desired::hash(&observed.pool),
        now,
    };
    let mut part = Part::default();
    let done = match &observed.template_copy {
        None => roll.begin(&mut part),
        Some(copy) => roll.go_on(copy, &mut part),
    };
    // Without acceptance it is said already what is the matter.
    if let Err(error) = done
        && accepted
    {
        part.findings.push(Finding::Stalled {
            reason: Reason::FieldContested,
            message: error.to_string(),
        });
    }
    part
}

impl Roll<'_> {
    fn mark(&self) -> Option<Reverted<'_>> {
        Reverted::of(self.workload)
    }

    /// The template that the pool wants has failed.
    fn failed(&self) -> bool {
        self.mark().is_some_and(|mark| mark.hash == self.hash)
    }

    fn rolling(&self) -> bool {
        self.workload.update_strategy() == UpdateStrategy::RollingUpdate
            || self.observed.pool.spec.provider.management() == Management::Create
    }

    fn begin(&self, part: &mut Part) -> Result<(), AdoptError> {
        if self.failed() {
            self.say_reverted(part);
            return Ok(());
        }
        let Some(change) = change::forward(self.observed, self.workload)? else {
            if self.accepted {
                self.own_partition(part);
            }
            self.say_outdated(part);
            return Ok(());
        };
        if !self.accepted || self.leaving() {
            return Ok(());
        }
        let created = matches!(change, Change::Template(_));
        if self.workload.replicas() == 0 || !change.restarts() {
            let partition = (created && self.workload.replicas() == 0).then_some(0);
            part.steps
                .push(self.write(&change, partition, None, PatchPurpose::Configure));
            self.say_updating(
                part,
                "the template of the StatefulSet is not the pool's yet".to_owned(),
            );
            return Ok(());
        }
        let paused = self.observed.pool.is_paused();
        if !self.may_write() && !paused {
            self.say_updating(
                part,
                "a template change waits for the end of the drain".to_owned(),
            );
            return Ok(());
        }
        let kept = Kept {
            template: match change {
                Change::Template(_) => create::applied_template(self.workload),
                Change::Values(_) => self.workload.template().clone(),
            },
            partition: if created {
                Some(0)
            } else {
                self.workload.partition()
            },
            hash: self.hash.clone(),
            healthy: healthy(self.observed, self.workload, self.now),
        };
        part.steps.push(Step::SaveCopy {
            name: copy_name(self.observed),
            content: json!(kept),
        });
        part.steps
            .push(self.write(&change, self.first_partition(), None, PatchPurpose::Configure));
        let says = match paused {
            true => "a template change waits for the end of the pause",
            false => "a template change begins with the highest ordinal",
        };
        self.say_updating(part, says.to_owned());
        Ok(())
    }

    fn go_on(&self, copy: &SavedCopy, part: &mut Part) -> Result<(), AdoptError> {
        let kept = kept(copy);
        let stage = stage(self.observed, self.workload, &kept, self.now);
        if self.failed() {
            self.say_reverted(part);
        }
        if let Stage::Stranded(ordinal) = stage {
            self.restart(ordinal, part);
            return Ok(());
        }
        let mark = self.mark().filter(|mark| mark.hash == self.hash);
        let change = if let Some(mark) = mark {
            change::back(self.observed, self.workload, &kept.template, mark)?
        } else {
            change::forward(self.observed, self.workload)?
        };
        if let Some(change) = &change {
            if self.failed() {
                part.steps
                    .push(self.write(change, self.top(), self.mark(), PatchPurpose::Revert));
                return Ok(());
            }
            if self.accepted && self.may_write() {
                part.steps
                    .push(self.write(change, self.first_partition(), None, PatchPurpose::Configure));
                self.say_updating(
                    part,
                    "a newer template change begins with the highest ordinal".to_owned(),
                );
                return Ok(());
            }
        }
        match stage {
            Stage::Stranded(_) => {}
            Stage::Unseen => {
                self.say_updating(
                    part,
                    "the StatefulSet controller has not taken up the template yet".to_owned(),
                );
            }
            Stage::Waiting(ordinal) => self.wait_for(ordinal, &kept, change.is_some(), part)?,
            // What would be rolled on is not wanted any more.
            Stage::Next(_) | Stage::Resting { .. } if change.is_some() => self.say_superseded(part),
            Stage::Next(next) => self.step_to(next, part),
            Stage::Resting { down, next } if overdue(self.observed, down, self.now) => {
                self.step_to(next, part)
            }
            Stage::Resting { down, .. } => {
                self.say_updating(
                    part,
                    format!("the template change waits until {} is healthy", self.name(down)),
                );
                self.wake_for(down, part);
            }
            Stage::Outdated(ordinals) => {
                let names: Vec<String> = ordinals.iter().map(|o| self.name(*o)).collect();
                self.say_updating(
                    part,
                    format!(
                        "updateStrategy is OnDelete: the template change reaches {} when their provider pods are deleted, \
                         one at a time",
                        names.join(", ")
                    ),
                );
            }
            Stage::Done if change.is_some() => {}
            Stage::Done => {
                if self.rolling() && self.workload.partition() != kept.partition {
                    part.steps.push(self.partition(kept.partition));
                } else {
                    part.steps.push(drop_copy(copy));
                }
            }
        }
        Ok(())
    }

    /// Waits until the provider is healthy, at most [`DEADLINE`]; then its template goes back, if it was healthy under it.
    fn wait_for(
        &self,
        ordinal: Ordinal,
        kept: &Kept,
        superseded: bool,
        part: &mut Part,
    ) -> Result<(), AdoptError> {
        let node = self.name(ordinal);
        let why = self.why(ordinal);
        if self.mark().is_some() {
            self.say_updating(part, format!("{node} goes back to its former template: {why}"));
            return Ok(());
        }
        self.say_taking_up(ordinal, &why, kept.healthy.contains(&ordinal), part);
        if !overdue(self.observed, ordinal, self.now) {
            self.wake_for(ordinal, part);
            return Ok(());
        }
        let seconds = DEADLINE.as_secs();
        let failed = if superseded {
            kept.hash.clone()
        } else {
            self.hash.clone()
        };
        let because = format!("{node}: {why}");
        let mark = Reverted {
            hash: &failed,
            because: &because,
        };
        let back = if kept.healthy.contains(&ordinal) {
            change::back(self.observed, self.workload, &kept.template, mark)?
        } else {
            None
        };
        let Some(back) = back else {
            part.findings.push(Finding::Stalled {
                reason: Reason::ProviderUnavailable,
                message: format!(
                    "{node} is not healthy {seconds} seconds after its provider was to start with the present template \
                     ({why}), and there is no former one under which it was: look at its provider pod's logs and correct \
                     the pool"
                ),
            });
            return Ok(());
        };
        part.steps
            .push(self.write(&back, self.top(), Some(mark), PatchPurpose::Revert));
        part.findings.push(Finding::Event(EventNote {
            reason: EventReason::RolloutReverted,
            subject: format!("{node} {failed}"),
            note: format!(
                "{node} was not healthy {seconds} seconds after a template change ({why}); the former template is put \
                 back ({})",
                back.lines(self.workload).join("; ")
            ),
        }));
        Ok(())
    }

    /// When the provider's time with the new template is over, as far as this process has seen it begin.
    fn deadline(&self, ordinal: Ordinal) -> Option<Timestamp> {
        let since = self.observed.recall.roll_step_since;
        let (_, since) = since.filter(|(o, _)| *o == ordinal)?;
        Some(since.checked_add(DEADLINE).unwrap_or(Timestamp::MAX))
    }

    fn wake_for(&self, ordinal: Ordinal, part: &mut Part) {
        if let Some(at) = self.deadline(ordinal) {
            part.wake(at);
        }
    }

    fn step_to(&self, next: Ordinal, part: &mut Part) {
        self.say_next(next, part);
        if self.may_step(next) {
            part.steps
                .push(self.partition(Some(next.saturating_sub(self.workload.start_ordinal()))));
        }
    }

    /// Outside of a roll the partition of a workload that we created is ours and 0.
    fn own_partition(&self, part: &mut Part) {
        let created = self.observed.pool.spec.provider.management() == Management::Create;
        if created && self.workload.partition().unwrap_or(0) != 0 {
            part.steps.push(self.partition(Some(0)));
        }
    }

    fn restart(&self, ordinal: Ordinal, part: &mut Part) {
        if let Some(pod) = self.observed.provider_pods.get(&ordinal) {
            part.steps.push(Step::DeleteProviderPod {
                pod: pod.key.clone(),
                uid: pod.uid.clone(),
                why: RestartReason::Revert,
            });
            self.say_updating(
                part,
                format!("{} goes back to its former template", self.name(ordinal)),
            );
        }
    }

    /// A pool that goes changes nothing any more, unless it is the cure.
    fn leaving(&self) -> bool {
        self.observed.deleting() && self.cure().is_none()
    }

    /// A template change is written between drains, or as the possible cure of the provider that holds one.
    fn may_write(&self) -> bool {
        !self.leaving() && (!self.draining.busy || self.cure().is_some())
    }

    fn may_step(&self, next: Ordinal) -> bool {
        !self.draining.busy || self.cure() == Some(next)
    }

    /// The ordinal whose drain waits for its own provider. A partition can reach it alone only when it is the highest.
    fn cure(&self) -> Option<Ordinal> {
        self.draining
            .held_by_provider
            .filter(|o| o.checked_add(1) == Some(self.workload.ordinals().end))
    }

    /// Above all ordinals.
    fn top(&self) -> Option<i32> {
        self.rolling().then(|| self.workload.replicas())
    }

    fn first_partition(&self) -> Option<i32> {
        let cured = i32::from(self.draining.busy && self.cure().is_some());
        self.top().map(|top| top.saturating_sub(cured))
    }

    fn write(
        &self,
        change: &Change,
        partition: Option<i32>,
        reverted: Option<Reverted<'_>>,
        purpose: PatchPurpose,
    ) -> Step {
        change.step(self.observed, self.workload, partition, reverted, purpose)
    }

    fn partition(&self, wanted: Option<i32>) -> Step {
        let text = |p: Option<i32>| p.map(|p| p.to_string());
        let line = super::change_line(
            "partition",
            text(self.workload.partition()).as_deref(),
            text(wanted).as_deref(),
        );
        patch::step(
            self.workload,
            patch::partition(self.workload, wanted),
            PatchPurpose::Roll,
            vec![line],
        )
    }
}
