//! What the pass has done, as far as it is to be told.

use vnp_plan::plan::TrackKind;
use vnp_plan::step::Step;

use crate::apply::{Outcome, Retry};

/// The writes of one pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts<'a> {
    /// Steps that the API server has taken.
    pub(super) done: Vec<&'a Step>,
    /// Steps that it refuses until a person changes something. A lost race, a time-out and the loss of the lease are not
    /// among them: nobody has to know of what the next pass repairs.
    pub(super) refused: Vec<RefusedWrite>,
}

/// A write that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedWrite {
    /// Track that ended there.
    pub(super) track: TrackKind,
    /// What the server said and what helps.
    pub(super) message: String,
}

impl<'a> Attempts<'a> {
    /// Sorts out what came of the steps of a pass over one pool.
    pub(super) fn of(outcomes: &'a [Outcome]) -> Self {
        let mut attempts = Self::default();
        for outcome in outcomes {
            match (&outcome.result, outcome.track) {
                (Ok(()), _) => attempts.done.push(&outcome.step),
                (Err(error), Some(track)) if error.retry() == Retry::Person => {
                    attempts.refused.push(RefusedWrite {
                        track,
                        message: error.to_string(),
                    });
                }
                (Err(_), _) => {}
            }
        }
        attempts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::{ApplyError, Target};
    use crate::runtime::lease::LeaseLost;

    fn outcome(result: Result<(), ApplyError>) -> Outcome {
        Outcome {
            track: Some(TrackKind::Workload),
            step: Step::AddPoolFinalizer,
            result,
            stored: None,
        }
    }

    fn target() -> Target {
        Target {
            verb: "patch",
            resource: "statefulsets.apps",
            namespace: None,
            name: "vn".into(),
        }
    }

    #[test]
    fn only_what_a_person_must_change_is_told() {
        let source = || serde_json::from_value(json!({"code": 403, "message": "no"})).unwrap();
        let outcomes = [
            outcome(Ok(())),
            outcome(Err(ApplyError::Moved {
                target: target(),
                source: source(),
            })),
            outcome(Err(ApplyError::LeaseLost {
                target: target(),
                source: LeaseLost,
            })),
            outcome(Err(ApplyError::Forbidden {
                target: target(),
                source: source(),
            })),
        ];
        let attempts = Attempts::of(&outcomes);
        assert_eq!(attempts.done, [&Step::AddPoolFinalizer]);
        assert_eq!(attempts.refused.len(), 1);
        assert!(
            attempts.refused[0]
                .message
                .starts_with("not allowed to patch statefulsets.apps vn")
        );
    }
}
