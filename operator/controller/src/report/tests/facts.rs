//! What has to be so where a text says something.

use std::sync::Arc;

use jiff::Timestamp;
use vnp_crds::{DrainPhase, OnTimeout, ProviderType, WebhookMode};
use vnp_plan::observed::{Observed, Ordinal};
use vnp_plan::plan::{NodeInDrain, TrackKind};
use vnp_plan::step::{PatchPurpose, Step};
use vnp_plan::webhook::{Probed, WebhookState};

use super::life::{ORDINALS, Passed};
use super::truth::Text;
use crate::report::conditions::{MUTATED, VENDOR_WORKS};
use crate::report::status::Report;

/// Knows what a pass saw, and what it has reported.
pub(super) struct Judge<'a> {
    pub(super) passed: &'a Passed,
    pub(super) report: &'a Report,
}

impl Judge<'_> {
    /// What of a text is not so.
    pub(super) fn fault(&self, told: &Text) -> Option<String> {
        let text = told.text.as_str();
        let seen = &self.passed.seen;
        let says = |words: &str| text.contains(words);
        let wrong = |fault: &str| Some(fault.to_owned());
        for ordinal in -1..9 {
            let name = seen.node_name(ordinal);
            let empty = seen.holding(ordinal).next().is_none();
            if !empty && says(&format!("{name} holds no pod")) {
                return wrong("it holds pods");
            }
            if !empty
                && text
                    .split("), ")
                    .any(|part| part.contains(&format!("{name} (")) && part.contains("no pod left"))
            {
                return wrong("pods are left");
            }
        }
        if let Some(wanted) = number_after(text, "set spec.replicas: ").filter(|_| says(" to keep the node"))
        {
            let start = seen.held_workload().map_or(0, |w| w.start_ordinal());
            if self.kept().any(|n| start + wanted <= n.ordinal) {
                return wrong("that count does not keep it");
            }
        }
        let raises = ["scaled back up", "brought back", "scaled up from"];
        if raises.iter().any(|words| says(words)) && !self.raised() {
            return wrong("no count was raised");
        }
        if says("cordon is off") && self.given_up().any(|n| ours(seen, n.ordinal)) {
            return wrong("the cordon is on");
        }
        if seen.deleting() && (says("raise spec.replicas") || says("set spec.replicas")) {
            return wrong("no count keeps nodes of a pool that goes");
        }
        for clause in text
            .split("; ")
            .filter(|c| c.contains("deleted past their budgets"))
        {
            let past = clause.contains(" were deleted") || clause.contains("have been deleted");
            if !past && !self.forced(clause) {
                return wrong("no pod is left to be deleted");
            }
        }
        if says("then the node is kept") && self.kept().next().is_none() {
            return wrong("no node can be kept");
        }
        let verified = ["Synced", "Verified"].map(str::to_owned);
        let specified = says("as specified") || told.true_by.as_ref().is_some_and(|r| verified.contains(r));
        if specified {
            let refused = |kind| self.passed.refused.iter().any(|r| r.track == kind);
            let not = [
                (
                    seen.pool.spec.provider.type_ != ProviderType::StatefulSet,
                    "not served",
                ),
                (seen.deleting(), "being deleted"),
                (
                    self.passed.plan.facts.workload_refused && says("as specified"),
                    "refused",
                ),
                (
                    refused(TrackKind::Workload) && says("as specified"),
                    "refused by the server",
                ),
            ];
            if let Some((_, why)) = not.iter().find(|(is, _)| *is) {
                return wrong(why);
            }
        }
        if told.place == "WebhookReady=True Verified" && !self.verified(text) {
            return wrong("another webhook was seen to do that, or none");
        }
        if says("nothing waits to be written") {
            let waiting = self.unpaused();
            if !waiting.is_empty() {
                return Some(format!("these wait: {waiting:?}"));
            }
        }
        if told.place == "Ready=True Ready"
            && (self.writes_what_is_specified() || self.report.status.drain.is_some())
        {
            return wrong("it is not as specified");
        }
        ORDINALS
            .into_iter()
            .find_map(|o| self.of_node(o, text))
            .or_else(|| self.counts(told))
            .or_else(|| self.times(text))
            .or_else(|| english(text))
    }

    /// What is said of one node.
    fn of_node(&self, ordinal: Ordinal, text: &str) -> Option<String> {
        let seen = &self.passed.seen;
        let name = seen.node_name(ordinal);
        if !text.contains(&name) {
            return None;
        }
        let (node, pod) = (seen.nodes.get(&ordinal), seen.provider_pods.get(&ordinal));
        let pods = seen.holding(ordinal).count();
        let drain = self
            .passed
            .plan
            .facts
            .draining
            .iter()
            .find(|n| n.ordinal == ordinal);
        let unseen = seen.workload.unknown().is_some() || seen.held_workload().is_none();
        let place = format!("{name} (");
        let told_place = text
            .split_once(&place)
            .map(|(_, rest)| rest.split(')').next().unwrap_or_default());
        let told_left =
            told_place.and_then(|p| Some(p.split_once(" of ")?.0.rsplit(' ').next()?.parse::<usize>().ok()));
        // What held a drain before it was given up.
        let text = text.split("; it was held by ").next().unwrap_or_default();
        let cases = [
            (format!("{name}: its Node is missing"), node.is_none()),
            (
                format!("{name}: its Node is not Ready"),
                node.is_some_and(|n| !n.ready),
            ),
            (format!("{name}: its provider pod is missing"), pod.is_none()),
            (
                format!("{name}: its provider pod is not Ready"),
                pod.is_some_and(|p| !p.ready),
            ),
            (format!("{name} is gone"), node.is_none()),
            (
                format!("our cordon on {name} is still to be taken off"),
                ours(seen, ordinal),
            ),
            (format!("left on {name} at "), pods > 0),
            (format!("{name} stays"), node.is_some()),
            (
                format!("bound to {name}, and the pool knows no"),
                pods > 0 && node.is_none(),
            ),
            (format!("bound to {name}"), seen.pods_on(ordinal).next().is_some()),
            (format!("drain of {name} waits"), drain.is_some()),
        ];
        if let Some((said, _)) = cases.iter().find(|(said, so)| text.contains(said) && !so) {
            return Some(format!("not so: {said}"));
        }
        if let (Some(Some(left)), Some(drain)) = (told_left, drain)
            && text.starts_with("draining")
            && !unseen
            && (left != pods || !told_place.is_some_and(|p| p.starts_with(drain.phase.as_str())))
        {
            return Some(format!("{pods} pods are left on {name} in {}", drain.phase));
        }
        let start = seen.held_workload().map_or(0, |w| w.start_ordinal());
        let back = number_after(text, "raise spec.replicas to ").filter(|_| text.contains("to have it back"));
        if back.is_some_and(|count| start + count != ordinal + 1) {
            return Some(format!("that count does not bring {name} back"));
        }
        None
    }

    fn counts(&self, told: &Text) -> Option<String> {
        let (text, seen) = (told.text.as_str(), &self.passed.seen);
        // One that is not taken over yet counts as well.
        let replicas = seen.workload.there().map(|w| w.replicas());
        let target = self.passed.plan.facts.target;
        let cases = [("the StatefulSet has ", replicas), ("the pool wants ", target)];
        let off = cases
            .iter()
            .find(|(words, is)| number_after(text, words).is_some_and(|n| Some(n) != *is));
        if let Some((words, is)) = off {
            return Some(format!("{words}{is:?}"));
        }
        if told.place == "Ready=True Ready" {
            let said: Option<i32> = text.split(' ').next().and_then(|n| n.parse().ok());
            let same = said == target
                && replicas == target
                && seen.pool.spec.replicas.is_none_or(|r| said == Some(r));
            return (!same).then(|| format!("{target:?} are wanted, {replicas:?} providers there"));
        }
        None
    }

    /// What is to come lies ahead.
    fn times(&self, text: &str) -> Option<String> {
        let to_come = [
            "Stalled at ",
            "done by ",
            "timeoutSeconds ends at ",
            "returns at ",
        ];
        to_come.into_iter().find_map(|words| {
            let (_, rest) = text.split_once(words)?;
            let time: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "-:.".contains(*c))
                .collect();
            let time: Timestamp = time.trim_end_matches(['.', ':']).parse().ok()?;
            (time < self.passed.now).then(|| format!("{time} is over"))
        })
    }

    /// It was seen in this pass, or it is not looked at yet and was seen before of the webhook that the pool asks for.
    fn verified(&self, text: &str) -> bool {
        let seen = &self.passed.seen;
        let open = [WebhookState::Unknown, WebhookState::InPlace(Probed::NotYet)];
        match seen.pool.spec.webhook() {
            WebhookMode::Operator if text.starts_with(MUTATED) => {
                open.contains(&seen.webhook) || seen.webhook == WebhookState::InPlace(Probed::Mutated)
            }
            WebhookMode::Vendor => text.starts_with(VENDOR_WORKS),
            WebhookMode::Operator | WebhookMode::None => false,
        }
    }

    /// A write of this pass changes what the spec asks for.
    fn writes_what_is_specified(&self) -> bool {
        let aside = [PatchPurpose::TakeOver, PatchPurpose::Roll, PatchPurpose::Unfence];
        let steps = self
            .passed
            .plan
            .tracks
            .iter()
            .filter(|t| t.kind == TrackKind::Workload);
        let mut steps = steps.flat_map(|t| &t.steps);
        steps.any(|s| match s {
            Step::PatchWorkload(p) => !aside.contains(&p.purpose),
            Step::Shrink(_) | Step::ApplyWorkload { .. } | Step::CreateWorkload { .. } => true,
            _ => false,
        })
    }

    fn going(&self) -> impl Iterator<Item = &NodeInDrain> {
        let nodes = self.passed.plan.facts.draining.iter();
        nodes.filter(|n| n.phase != DrainPhase::Aborted)
    }

    /// Nodes whose drain can still be taken back.
    fn kept(&self) -> impl Iterator<Item = &NodeInDrain> {
        self.going()
            .filter(|n| !matches!(n.phase, DrainPhase::Shrinking | DrainPhase::Removing))
    }

    fn given_up(&self) -> impl Iterator<Item = &NodeInDrain> {
        let nodes = self.passed.plan.facts.draining.iter();
        nodes.filter(|n| n.phase == DrainPhase::Aborted)
    }

    fn raised(&self) -> bool {
        let up = |s: &Step| matches!(s, Step::PatchWorkload(p) if p.purpose == PatchPurpose::ScaleUp);
        self.passed.done.iter().any(up)
    }

    /// Pods are left on each node that is named, and on one that drains where none is.
    fn forced(&self, clause: &str) -> bool {
        let drains = self.passed.seen.pool.spec.drain();
        let mut left = self.going().filter(|n| n.pods_remaining > 0);
        let named = self.going().filter(|n| clause.contains(&n.name));
        let named: Vec<&NodeInDrain> = named.collect();
        drains.on_timeout == OnTimeout::ForceDelete
            && left.next().is_some()
            && named.iter().all(|n| n.pods_remaining > 0)
    }

    /// What the same pass would write were the pool not paused. The trail of removed nodes is no change of anything.
    fn unpaused(&self) -> Vec<Step> {
        let mut seen = self.passed.seen.clone();
        let pool = Arc::make_mut(&mut seen.pool);
        pool.spec.paused = false;
        pool.metadata.annotations = None;
        let plan = vnp_plan::plan(&seen, self.passed.now);
        let tracks = plan.tracks.into_iter().filter(|t| t.kind != TrackKind::Audit);
        tracks.flat_map(|t| t.steps).collect()
    }
}

fn ours(seen: &Observed, ordinal: Ordinal) -> bool {
    seen.nodes.get(&ordinal).is_some_and(|n| n.cordon_owner.ours())
}

/// One is no plural, and nothing is empty.
fn english(text: &str) -> Option<String> {
    const PLURALS: [&str; 6] = ["pods", "nodes", "replicas", "providers", "changes", "are"];
    let words: Vec<&str> = text.split([' ', '(', ':', ',']).collect();
    let plural = words.windows(4).find_map(|w| match w {
        [of, "1", many, ..] | [of, "1", "virtual", many] if *of != "of" && PLURALS.contains(many) => {
            Some(*many)
        }
        _ => None,
    });
    let broken = ["  ", "; ;", ";;", "()", " ;", " ,"];
    plural
        .or_else(|| broken.into_iter().find(|b| text.contains(b)))
        .map(|found| format!("English: {found:?}"))
}

fn number_after(text: &str, words: &str) -> Option<i32> {
    let rest = text.split_once(words)?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
