//! Whether a drain is held: what holds it, and since when nothing moves.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{BlockerReason, Reason, VirtualNodePoolStatus};
use vnp_plan::finding::{Blocker, Finding};
use vnp_plan::plan::Plan;

use super::seconds::whole;

/// A budget that lets pods go one after the other refuses some evictions all the time. Only when nothing has left for so
/// long does the pool say DrainBlocked instead of Draining. Less than the 5 s of promise P5.
const QUIET: SignedDuration = SignedDuration::from_secs(3);

/// A blocker with the time since which it is known, over restarts of the operator too.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// As found.
    pub(super) blocker: Blocker,
    /// The earliest time known.
    pub(super) since: Timestamp,
}

/// What holds the drain.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Blockage {
    /// Nothing does, or pods still leave.
    None,
    /// Something does, and nothing moves.
    Held(Held),
}

/// Why nothing moves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// The blocker to name.
    pub(super) by: Blocker,
    /// The others, sorted.
    pub(super) others: Vec<Blocker>,
    /// A person must act.
    pub(super) stalled: bool,
    /// Since when nothing has moved.
    pub(super) still_since: Timestamp,
    /// When a person must act if nothing moves before; `None` once that is so.
    pub(super) stalls_at: Option<Timestamp>,
}

impl Held {
    /// The word for it on Ready, Reconciling and Stalled.
    pub(super) fn reason(&self) -> Reason {
        match self.by.reason {
            BlockerReason::ProviderUnavailable => Reason::ProviderUnavailable,
            _ => Reason::DrainBlocked,
        }
    }

    /// The blocker to name, and how many others there are.
    pub(super) fn message(&self) -> String {
        match self.others.len() {
            0 => self.by.to_string(),
            more => format!("{}; {more} more in status.drain.blockers", self.by),
        }
    }

    /// All of them, the one to name first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Blocker> {
        std::iter::once(&self.by).chain(&self.others)
    }
}

/// Blockers of the plan: one for each (reason, object), sorted by it, each with the earliest time that it is known for.
pub(super) fn blockers(plan: &Plan, previous: Option<&VirtualNodePoolStatus>, now: Timestamp) -> Vec<Known> {
    let mut found: Vec<Blocker> = plan
        .findings
        .iter()
        .filter_map(|f| {
            if let Finding::Blocker(b) = f {
                Some(b.clone())
            } else {
                None
            }
        })
        .collect();
    found.sort_by(|a, b| (a.reason, &a.object, &a.message).cmp(&(b.reason, &b.object, &b.message)));
    let mut merged: Vec<Blocker> = Vec::new();
    for blocker in found {
        match merged.last_mut() {
            Some(same) if same.reason == blocker.reason && same.object == blocker.object => {
                same.pods = same.pods.saturating_add(blocker.pods);
                same.terminal |= blocker.terminal;
                same.since = same.since.into_iter().chain(blocker.since).min();
            }
            _ => merged.push(blocker),
        }
    }
    merged
        .into_iter()
        .map(|blocker| Known {
            since: since(&blocker, previous, now),
            blocker,
        })
        .collect()
}

fn since(blocker: &Blocker, previous: Option<&VirtualNodePoolStatus>, now: Timestamp) -> Timestamp {
    let told = previous
        .and_then(|status| status.drain.as_ref())
        .and_then(|drain| {
            let same = |b: &&vnp_crds::Blocker| b.reason == blocker.reason && b.object == blocker.object;
            drain.blockers.iter().find(same).map(|b| b.since.0)
        });
    whole(
        told.into_iter()
            .chain(blocker.since)
            .min()
            .unwrap_or(now)
            .min(now),
    )
}

/// Judges the blockers. `wake` hears when time alone will change the answer.
pub(super) fn judge(
    blockers: &[Known],
    last_progress: Option<Timestamp>,
    deadline: SignedDuration,
    now: Timestamp,
    mut wake: impl FnMut(Timestamp),
) -> Blockage {
    let mut held: Vec<(bool, &Blocker, Timestamp, Timestamp)> = Vec::new();
    for known in blockers.iter().filter(|k| counts(k.blocker.reason)) {
        let still = last_progress.map_or(known.since, |p| p.max(known.since));
        let (quiet, stalled) = (after(still, QUIET), after(still, deadline));
        if known.blocker.terminal || now >= stalled {
            held.push((true, &known.blocker, still, stalled));
        } else if now >= quiet {
            held.push((false, &known.blocker, still, stalled));
            wake(stalled);
        } else {
            wake(quiet);
        }
    }
    // What stalls comes first; then a missing provider, without which nothing on a node can move.
    held.sort_by_key(|(stalled, b, ..)| {
        (
            !stalled,
            b.reason != BlockerReason::ProviderUnavailable,
            b.reason,
            &b.object,
        )
    });
    match held.split_first() {
        None => Blockage::None,
        Some(((stalled, by, still, at), others)) => Blockage::Held(Held {
            by: (*by).clone(),
            others: others.iter().map(|(_, blocker, ..)| (*blocker).clone()).collect(),
            stalled: *stalled,
            still_since: *still,
            stalls_at: Some(*at).filter(|_| !stalled),
        }),
    }
}

/// Waiting for pods to finish is what was asked for, not a blockage.
fn counts(reason: BlockerReason) -> bool {
    reason != BlockerReason::WaitingForCompletion
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: SignedDuration = SignedDuration::from_secs(600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn blocker(reason: BlockerReason, object: &str) -> Blocker {
        Blocker {
            reason,
            object: object.to_owned(),
            pods: 2,
            since: None,
            message: "0 disruptions are allowed".to_owned(),
            terminal: false,
        }
    }

    fn known(reason: BlockerReason, since: i64) -> Known {
        Known {
            blocker: blocker(reason, "shop/checkout"),
            since: at(since),
        }
    }

    fn judged(blockers: &[Known], progress: i64, now: i64) -> (Blockage, Option<Timestamp>) {
        let mut wake: Option<Timestamp> = None;
        let verdict = judge(blockers, Some(at(progress)), DEADLINE, at(now), |t| {
            wake = Some(wake.map_or(t, |w| w.min(t)))
        });
        (verdict, wake)
    }

    fn stalled(verdict: &Blockage) -> Option<bool> {
        match verdict {
            Blockage::None => None,
            Blockage::Held(held) => Some(held.stalled),
        }
    }

    #[test]
    fn a_blocker_beside_progress_is_no_blockage() {
        let (verdict, wake) = judged(&[known(BlockerReason::BlockedByBudget, 0)], 100, 102);
        assert_eq!((verdict, wake), (Blockage::None, Some(at(103))));
    }

    #[test]
    fn without_progress_it_blocks_and_after_the_deadline_it_stalls() {
        let blockers = [known(BlockerReason::BlockedByBudget, 0)];
        let (verdict, wake) = judged(&blockers, 100, 103);
        assert_eq!((stalled(&verdict), wake), (Some(false), Some(at(700))));
        let (verdict, wake) = judged(&blockers, 100, 700);
        assert_eq!((stalled(&verdict), wake), (Some(true), None));
    }

    #[test]
    fn the_deadline_starts_with_the_blocker_when_pods_were_waited_for_before() {
        let (verdict, _) = judged(&[known(BlockerReason::BlockedByBudget, 5000)], 0, 5100);
        assert_eq!(stalled(&verdict), Some(false));
    }

    #[test]
    fn waiting_for_completion_never_stalls() {
        let (verdict, wake) = judged(&[known(BlockerReason::WaitingForCompletion, 0)], 0, 100_000);
        assert_eq!((verdict, wake), (Blockage::None, None));
    }

    #[test]
    fn a_terminal_blocker_stalls_at_once() {
        let mut contested = known(BlockerReason::CordonContested, 100);
        contested.blocker.terminal = true;
        let (verdict, _) = judged(&[contested, known(BlockerReason::BlockedByBudget, 0)], 100, 100);
        let Blockage::Held(held) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(
            (held.by.reason, held.stalled),
            (BlockerReason::CordonContested, true)
        );
        assert_eq!(
            held.message(),
            "CordonContested shop/checkout: 0 disruptions are allowed"
        );
    }

    #[test]
    fn a_missing_provider_is_named_before_anything_else() {
        let blockers = [
            known(BlockerReason::BlockedByBudget, 0),
            known(BlockerReason::ProviderUnavailable, 0),
        ];
        let Blockage::Held(held) = judged(&blockers, 0, 60).0 else {
            panic!()
        };
        assert_eq!(held.reason(), Reason::ProviderUnavailable);
        let message = held.message();
        assert!(
            message.starts_with("ProviderUnavailable shop/checkout: "),
            "{message}"
        );
        assert!(message.ends_with("1 more in status.drain.blockers"), "{message}");
    }

    #[test]
    fn the_same_blocker_on_two_nodes_is_one_and_its_age_survives_a_restart() {
        let findings = [("b", 1), ("a", 2), ("b", 4)].map(|(object, pods)| {
            Finding::Blocker(Blocker {
                pods,
                since: Some(at(50)),
                ..blocker(BlockerReason::BlockedByBudget, object)
            })
        });
        let plan = Plan {
            findings: findings.to_vec(),
            ..Plan::default()
        };
        let first = blockers(&plan, None, at(60));
        let seen: Vec<_> = first
            .iter()
            .map(|k| (k.blocker.object.as_str(), k.blocker.pods, k.since))
            .collect();
        assert_eq!(seen, [("a", 2, at(50)), ("b", 5, at(50))]);

        let drain = serde_json::json!({
            "summary": "1/1", "podsTotal": 1, "podsRemaining": 1, "podsTerminating": 0, "podsBlocked": 1,
            "limitedBy": "Budget",
            "blockers": [{"reason": "BlockedByBudget", "object": "b", "pods": 5, "since": at(7).to_string(), "message": ""}],
        });
        let status = VirtualNodePoolStatus {
            drain: serde_json::from_value(drain).unwrap(),
            ..VirtualNodePoolStatus::default()
        };
        let second = blockers(&plan, Some(&status), at(60));
        assert_eq!([second[0].since, second[1].since], [at(50), at(7)]);
    }
}
