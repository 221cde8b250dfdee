//! What a roll has to say.

use jiff::Timestamp;
use vnp_crds::Reason;

use super::{DEADLINE, Roll};
use crate::accept::provider_container;
use crate::drain::health::sick;
use crate::finding::{Finding, ProviderState};
use crate::observed::Ordinal;
use crate::plan::Part;

impl Roll<'_> {
    pub(super) fn say_next(&self, next: Ordinal, part: &mut Part) {
        let when = if self.may_step(next) {
            "next"
        } else {
            "when the drain has ended"
        };
        self.say_updating(
            part,
            format!("the template change reaches {} {when}", self.name(next)),
        );
    }

    /// The template that is rolled is not wanted any more, and the wanted one is not written yet.
    pub(super) fn say_superseded(&self, part: &mut Part) {
        let what = if self.accepted {
            "the end of the drain"
        } else {
            "a spec that can be followed, see condition Accepted"
        };
        self.say_updating(part, format!("a newer template change waits for {what}"));
    }

    /// Somebody's own partition or OnDelete keeps providers at an older template.
    pub(super) fn say_outdated(&self, part: &mut Part) {
        let Some(revision) = self.workload.update_revision() else {
            return;
        };
        let older = |o: &Ordinal| {
            self.observed
                .provider_pods
                .get(o)
                .is_some_and(|p| p.revision != revision)
        };
        let names: Vec<String> = self
            .workload
            .ordinals()
            .rev()
            .filter(older)
            .map(|o| self.name(o))
            .collect();
        if !names.is_empty() {
            let run = if names.len() == 1 { "runs" } else { "run" };
            let text = format!("{} {run} an older template of the StatefulSet", names.join(", "));
            self.say_updating(part, text);
        }
    }

    pub(super) fn name(&self, ordinal: Ordinal) -> String {
        self.observed.node_name(ordinal)
    }

    pub(super) fn say_updating(&self, part: &mut Part, message: String) {
        part.findings.push(Finding::Provider {
            state: ProviderState::Updating,
            message,
        });
    }

    /// What keeps the provider from being healthy with the template that it was restarted for.
    pub(super) fn why(&self, ordinal: Ordinal) -> String {
        if let Some(why) = sick(self.observed, ordinal, self.now) {
            return why;
        }
        let revision = self.workload.update_revision();
        let pod = self.observed.provider_pods.get(&ordinal);
        match pod.zip(revision).filter(|(pod, wanted)| pod.revision != *wanted) {
            Some(_) => "its former provider still runs, the StatefulSet controller has not replaced it yet",
            None => "its new provider has not sent a heartbeat yet",
        }
        .to_owned()
    }

    /// `returns`: there is a former template under which it was healthy.
    pub(super) fn say_taking_up(&self, ordinal: Ordinal, why: &str, returns: bool, part: &mut Part) {
        let node = self.name(ordinal);
        let mut message = format!("{node} takes up the template change: {why}");
        let at = self.deadline(ordinal).filter(|at| returns && *at > self.now);
        if let Some(at) = at.and_then(|at| Timestamp::from_second(at.as_second()).ok()) {
            message.push_str(&format!(
                "; unless it is healthy before, or the pool is changed again, its former template returns at {at}"
            ));
        }
        self.say_updating(part, message);
    }

    pub(super) fn say_reverted(&self, part: &mut Part) {
        let wanted = self.observed.pool.spec.provider.image.as_deref();
        let container = self.observed.pool.spec.provider.container();
        let there = provider_container(self.workload, container)
            .ok()
            .and_then(|index| self.workload.containers().get(index)?["image"].as_str());
        let what = match (wanted, there) {
            (Some(wanted), Some(there)) if wanted != there => {
                format!("image {wanted} was taken back to {there}")
            }
            _ => "the template that the pool asks for was taken back to the former one".to_owned(),
        };
        let seconds = DEADLINE.as_secs();
        let because = match self.mark().map(|mark| mark.because) {
            None | Some("") => "a provider".to_owned(),
            Some(because) => because.to_owned(),
        };
        part.findings.push(Finding::Stalled {
            reason: Reason::RolloutReverted,
            message: format!(
                "{what}: {because}, still not healthy after {seconds} seconds; correct spec.provider.image or what else was \
                 changed last, and the new template is tried at once"
            ),
        });
    }
}
