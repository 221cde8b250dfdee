//! What a roll has to say.

use vnp_crds::Reason;

use super::{DEADLINE, Roll};
use crate::finding::{Finding, ProviderState};
use crate::observed::Ordinal;
use crate::plan::Part;

impl Roll<'_> {
    pub(super) fn say_next(&self, next: Ordinal, part: &mut Part) {
        self.say_updating(
            part,
            format!("the template change reaches {} next", self.name(next)),
        );
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
            self.say_updating(
                part,
                format!("{} run an older template of the StatefulSet", names.join(", ")),
            );
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

    pub(super) fn say_reverted(&self, part: &mut Part) {
        part.findings.push(Finding::Stalled {
            reason: Reason::RolloutReverted,
            message: format!(
                "the template that the pool asks for was taken back: a provider was not healthy {} seconds after it started \
                 with it; correct spec.provider.image or what else was changed last",
                DEADLINE.as_secs()
            ),
        });
    }
}
