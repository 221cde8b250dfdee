//! Pauses after refused writes, by kind of write: a step that keeps failing is not tried with every event, while
//! everything else about the pool goes on at once (a cancel must not wait for a refused label).

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tokio::time::Instant;
use vnp_plan::observed::ObjectKey;
use vnp_plan::plan::{Track, TrackKind};
use vnp_plan::step::{PatchPurpose, Step};

use super::jitter::spread;
use crate::apply::Outcome;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

type Key = (
    TrackKind,
    Discriminant<Step>,
    Option<PatchPurpose>,
    Option<ObjectKey>,
    Option<String>,
);

/// What a failure is remembered by. Patches of the workload are told apart by what they are for: a refused image must not
/// hold back a rescue. Policies and Nodes are told apart by their object: what is refused for one, others take.
fn key(track: TrackKind, step: &Step) -> Key {
    let purpose = if let Step::PatchWorkload(patch) = step {
        Some(patch.purpose)
    } else {
        None
    };
    let policy = match step {
        Step::ApplyPolicy(apply) => Some(apply.policy.clone()),
        Step::DeletePolicy { policy, .. } => Some(policy.clone()),
        _ => None,
    };
    let node = step.node().map(ToOwned::to_owned);
    (track, discriminant(step), purpose, policy, node)
}

/// Steps that undo a danger are tried with every pass.
fn urgent(step: &Step) -> bool {
    matches!(step, Step::PatchWorkload(p) if matches!(p.purpose, PatchPurpose::ScaleUp | PatchPurpose::Unfence))
}

/// Failed writes of one pool.
#[derive(Debug, Default)]
pub struct Setbacks(HashMap<Key, Setback>);

#[derive(Debug)]
struct Setback {
    times: u32,
    until: Instant,
    outcome: Option<Outcome>,
}

/// What a pass leaves out because it failed before.
#[derive(Debug, Default)]
pub struct HeldBack {
    /// When the first of it may be tried again.
    pub until: Option<Instant>,
    /// What came of it when it was tried last: still to be told while it is not tried.
    pub outcomes: Vec<Outcome>,
}

/// The pause after the `times`-th failure in a row, from 1 on.
pub fn pause(times: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << times.saturating_sub(1).min(5));
    spread(doubled.min(LONGEST), 0.3)
}

impl Setbacks {
    /// A step failed, and at once it would fail again. Returns when it is tried again.
    pub fn failed(&mut self, track: TrackKind, step: &Step, now: Instant) -> Instant {
        let key = key(track, step);
        let entry = self.0.entry(key).or_insert(Setback {
            times: 0,
            until: now,
            outcome: None,
        });
        entry.times = entry.times.saturating_add(1);
        entry.until = now + pause(entry.times);
        entry.until
    }

    /// Keeps what came of a failed step, for the passes that do not try it.
    pub fn keep(&mut self, outcome: Outcome) {
        let key = outcome.track.map(|track| key(track, &outcome.step));
        if let Some(setback) = key.and_then(|key| self.0.get_mut(&key)) {
            setback.outcome = Some(outcome);
        }
    }

    /// A step was taken.
    pub fn done(&mut self, track: TrackKind, step: &Step) {
        self.0.remove(&key(track, step));
    }

    /// Cuts each track before the first step that has to wait: what follows it relies on it.
    pub fn hold_back(&mut self, tracks: &mut Vec<Track>, now: Instant) -> HeldBack {
        let mut held = HeldBack::default();
        for track in tracks.iter_mut() {
            let waits = |step: &Step| {
                !urgent(step) && self.0.get(&key(track.kind, step)).is_some_and(|s| s.until > now)
            };
            let Some(at) = track.steps.iter().position(waits) else {
                continue;
            };
            let cut = track.steps.split_off(at);
            let key = cut.first().map(|step| key(track.kind, step));
            if let Some(setback) = key.and_then(|key| self.0.get_mut(&key)) {
                held.until = Some(held.until.map_or(setback.until, |until| until.min(setback.until)));
                held.outcomes.extend(setback.outcome.take());
            }
        }
        tracks.retain(|track| !track.steps.is_empty());
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{ApplyError, Target};
    use crate::runtime::lease::LeaseLost;

    fn cordon(node: &str) -> Step {
        Step::Cordon {
            node: node.into(),
            uid: "u".into(),
            term: vnp_plan::observed::Term::default(),
        }
    }

    fn label() -> Step {
        Step::LabelNode {
            node: "v-0".into(),
            uid: "u".into(),
            pool: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_refuses_a_policy_holds_back_no_other() {
        let delete = |namespace: &str| Step::DeletePolicy {
            policy: ObjectKey {
                namespace: namespace.into(),
                name: "burst.web".into(),
            },
            uid: "u".into(),
        };
        let track = |step| Track {
            kind: TrackKind::Policies,
            steps: vec![step],
        };
        let mut setbacks = Setbacks::default();
        setbacks.failed(TrackKind::Policies, &delete("shop"), Instant::now());
        let mut tracks = vec![track(delete("shop")), track(delete("bank"))];
        setbacks.hold_back(&mut tracks, Instant::now());
        assert_eq!(tracks, [track(delete("bank"))]);
    }

    fn drain(steps: Vec<Step>) -> Vec<Track> {
        vec![Track {
            kind: TrackKind::Drain,
            steps,
        }]
    }

    fn refused() -> Outcome {
        let target = Target {
            verb: "patch",
            resource: "nodes",
            namespace: None,
            name: "v-0".into(),
        };
        let result = Err(ApplyError::LeaseLost {
            target,
            source: LeaseLost,
        });
        Outcome {
            track: Some(TrackKind::Drain),
            step: label(),
            result,
            stored: None,
        }
    }

    #[test]
    fn a_failed_kind_of_step_waits_and_what_stands_before_it_does_not() {
        let now = Instant::now();
        let mut setbacks = Setbacks::default();
        let until = setbacks.failed(TrackKind::Drain, &label(), now);
        setbacks.keep(refused());
        let mut tracks = drain(vec![cordon("v-1"), label(), cordon("v-2")]);
        let held = setbacks.hold_back(&mut tracks, now);
        assert_eq!(held.until, Some(until));
        assert_eq!(held.outcomes.len(), 1, "it is still told");
        assert_eq!(tracks, drain(vec![cordon("v-1")]));
        let mut tracks = drain(vec![label()]);
        assert_eq!(setbacks.hold_back(&mut tracks, until).until, None);
        assert_eq!(tracks.len(), 1);
    }

    #[test]
    fn another_track_is_not_concerned_and_success_clears() {
        let now = Instant::now();
        let mut setbacks = Setbacks::default();
        setbacks.failed(TrackKind::Workload, &label(), now);
        let mut tracks = drain(vec![label()]);
        assert_eq!(setbacks.hold_back(&mut tracks, now).until, None);
        setbacks.failed(TrackKind::Drain, &label(), now);
        setbacks.done(TrackKind::Drain, &label());
        assert_eq!(setbacks.hold_back(&mut tracks, now).until, None);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!(pause(1) >= FIRST && pause(1) <= FIRST.mul_f64(1.3));
        assert!(pause(4) >= FIRST * 8);
        assert!(pause(40) >= LONGEST && pause(40) <= LONGEST.mul_f64(1.3));
    }

    #[test]
    fn a_rescue_waits_behind_no_refused_template_and_not_for_itself() {
        let patch = |purpose| {
            Step::PatchWorkload(vnp_plan::step::WorkloadPatch {
                patch: json_patch::Patch(Vec::new()),
                purpose,
                changes: Vec::new(),
            })
        };
        let mut setbacks = Setbacks::default();
        let now = Instant::now();
        for purpose in [
            PatchPurpose::Configure,
            PatchPurpose::ScaleUp,
            PatchPurpose::Unfence,
        ] {
            setbacks.failed(TrackKind::Workload, &patch(purpose), now);
        }
        for (purpose, tried) in [
            (PatchPurpose::Configure, false),
            (PatchPurpose::Fence, true),
            (PatchPurpose::ScaleUp, true),
            (PatchPurpose::Unfence, true),
        ] {
            let mut tracks = vec![Track {
                kind: TrackKind::Workload,
                steps: vec![patch(purpose)],
            }];
            setbacks.hold_back(&mut tracks, now);
            assert_eq!(!tracks.is_empty(), tried, "{purpose:?}");
        }
    }
}
