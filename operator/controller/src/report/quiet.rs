//! Whether a status is worth a write (P6). Numbers that move all the time wait for each other; everything else is
//! written at once, with the newest numbers.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::VirtualNodePoolStatus;

/// Progress of a drain is written so often. Promise P5.
const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// The numbers of pods outside a drain are written so often at most...
const PODS_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// ...and only when one moved by so many percent of what is shown.
const PODS_PERCENT: i64 = 5;

/// What to do with a status that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says nothing new.
    Keep,
    /// Only numbers moved: it is due then.
    Later(Timestamp),
    /// It is to be written.
    Write,
}

/// Compares what is shown with what should be. `last_write` is this process's last write of that status: after a
/// restart the first number is not waited for.
pub(super) fn verdict(
    shown: Option<&VirtualNodePoolStatus>,
    next: &VirtualNodePoolStatus,
    last_write: Option<Timestamp>,
    now: Timestamp,
) -> Verdict {
    let Some(shown) = shown else { return Verdict::Write };
    if shown == next {
        return Verdict::Keep;
    }
    if with_numbers_of(next, shown) != *shown {
        return Verdict::Write;
    }
    let every = if next.drain.is_some() {
        PROGRESS_EVERY
    } else if moved(shown.pods, next.pods) || moved(shown.pods_outdated, next.pods_outdated) {
        PODS_EVERY
    } else {
        return Verdict::Keep;
    };
    let due = last_write.map_or(now, |at| at.checked_add(every).unwrap_or(Timestamp::MAX));
    // A clock that was set back must not silence the pool.
    if now >= due || last_write.is_some_and(|at| at > now) {
        Verdict::Write
    } else {
        Verdict::Later(due)
    }
}

/// `next` with the moving numbers that are shown already.
fn with_numbers_of(next: &VirtualNodePoolStatus, shown: &VirtualNodePoolStatus) -> VirtualNodePoolStatus {
    let mut next = next.clone();
    next.pods = shown.pods;
    next.pods_outdated = shown.pods_outdated;
    if next.drain.is_some() && shown.drain.is_some() {
        // The pods left are told in Ready as well.
        for condition in &mut next.conditions {
            let known = shown.conditions.iter().find(|k| k.type_ == condition.type_);
            if let Some(known) =
                known.filter(|k| numbers_aside(&k.message) == numbers_aside(&condition.message))
            {
                condition.message.clone_from(&known.message);
            }
        }
    }
    if let (Some(next), Some(shown)) = (&mut next.drain, &shown.drain) {
        next.summary.clone_from(&shown.summary);
        next.pods_total = shown.pods_total;
        next.pods_remaining = shown.pods_remaining;
        next.pods_terminating = shown.pods_terminating;
        next.pods_blocked = shown.pods_blocked;
        next.limited_by = shown.limited_by;
        next.blockers.clone_from(&shown.blockers);
        for node in &mut next.nodes {
            if let Some(known) = shown.nodes.iter().find(|k| k.ordinal == node.ordinal) {
                node.last_progress_time.clone_from(&known.last_progress_time);
                node.pods_total = known.pods_total;
                node.pods_remaining = known.pods_remaining;
            }
        }
    }
    next
}

/// A text with each number replaced by one sign.
fn numbers_aside(text: &str) -> String {
    let mut aside = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            aside.push(c);
        } else if !aside.ends_with('0') {
            aside.push('0');
        }
    }
    aside
}

fn moved(shown: Option<i32>, next: Option<i32>) -> bool {
    let (Some(shown), Some(next)) = (shown, next) else {
        return shown != next;
    };
    let (shown, next) = (i64::from(shown), i64::from(next));
    shown != next && (next - shown).abs() * 100 >= shown.abs() * PODS_PERCENT
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn idle(pods: i32) -> VirtualNodePoolStatus {
        VirtualNodePoolStatus {
            pods: Some(pods),
            nodes: Some(3),
            ..VirtualNodePoolStatus::default()
        }
    }

    fn draining(remaining: i32, phase: &str) -> VirtualNodePoolStatus {
        let drain = json!({
            "summary": format!("{remaining}/300"), "podsTotal": 300, "podsRemaining": remaining, "podsTerminating": 0,
            "podsBlocked": 0, "limitedBy": "Rate",
            "nodes": [{"name": "vn-2", "ordinal": 2, "phase": phase, "startedAt": at(0).to_string(), "recordons": 0,
                       "podsTotal": 300, "podsRemaining": remaining}],
            "blockers": [{"reason": "BlockedByBudget", "object": "shop/checkout", "pods": remaining,
                          "since": at(0).to_string(), "message": "none is allowed"}],
        });
        VirtualNodePoolStatus {
            drain: serde_json::from_value(drain).unwrap(),
            ..idle(remaining)
        }
    }

    #[test]
    fn the_same_is_kept_and_the_first_is_written() {
        assert_eq!(verdict(Some(&idle(5)), &idle(5), None, at(0)), Verdict::Keep);
        assert_eq!(verdict(None, &idle(5), Some(at(0)), at(0)), Verdict::Write);
    }

    #[test]
    fn the_number_of_pods_waits_for_five_percent_and_a_minute() {
        assert_eq!(
            verdict(Some(&idle(100)), &idle(104), Some(at(0)), at(999)),
            Verdict::Keep
        );
        assert_eq!(
            verdict(Some(&idle(100)), &idle(105), Some(at(0)), at(20)),
            Verdict::Later(at(60))
        );
        assert_eq!(
            verdict(Some(&idle(100)), &idle(95), Some(at(0)), at(60)),
            Verdict::Write
        );
        assert_eq!(
            verdict(Some(&idle(0)), &idle(1), Some(at(0)), at(60)),
            Verdict::Write
        );
        assert_eq!(verdict(Some(&idle(100)), &idle(0), None, at(0)), Verdict::Write);
    }

    #[test]
    fn pods_that_are_made_anew_are_counted_down_quietly() {
        let outdated = |pods: i32| VirtualNodePoolStatus {
            pods_outdated: Some(pods),
            ..idle(100)
        };
        let verdict =
            |shown, next, now| verdict(Some(&outdated(shown)), &outdated(next), Some(at(0)), at(now));
        assert_eq!(verdict(100, 97, 999), Verdict::Keep);
        assert_eq!(verdict(100, 90, 20), Verdict::Later(at(60)));
        assert_eq!(verdict(1, 0, 60), Verdict::Write);
        assert_eq!(verdict(0, 1, 60), Verdict::Write);
    }

    #[test]
    fn progress_waits_five_seconds() {
        let (shown, next) = (draining(300, "Evicting"), draining(299, "Evicting"));
        assert_eq!(
            verdict(Some(&shown), &next, Some(at(0)), at(1)),
            Verdict::Later(at(5))
        );
        assert_eq!(verdict(Some(&shown), &next, Some(at(0)), at(5)), Verdict::Write);
    }

    #[test]
    fn the_pods_left_in_ready_wait_with_the_others_and_other_words_do_not() {
        let saying = |remaining: i32, text: String| {
            let ready = json!([{ "type": "Ready", "status": "False", "reason": "Draining", "message": text,
                                 "lastTransitionTime": at(0).to_string() }]);
            VirtualNodePoolStatus {
                conditions: serde_json::from_value(ready).unwrap(),
                ..draining(remaining, "Evicting")
            }
        };
        let shown = saying(300, "draining vn-2 (Evicting, 300 of 300 pods left)".to_owned());
        let next = saying(99, "draining vn-2 (Evicting, 99 of 300 pods left)".to_owned());
        assert_eq!(
            verdict(Some(&shown), &next, Some(at(0)), at(1)),
            Verdict::Later(at(5))
        );
        assert_eq!(verdict(Some(&shown), &next, Some(at(0)), at(5)), Verdict::Write);
        let held = saying(
            99,
            "draining vn-2 (Evicting, 99 of 300 pods left); 2 pods are held".to_owned(),
        );
        assert_eq!(verdict(Some(&shown), &held, Some(at(0)), at(1)), Verdict::Write);
    }

    #[test]
    fn anything_else_is_written_at_once() {
        let shown = draining(300, "Evicting");
        assert_eq!(
            verdict(Some(&shown), &draining(0, "Reaping"), Some(at(0)), at(0)),
            Verdict::Write
        );
        assert_eq!(
            verdict(Some(&shown), &idle(300), Some(at(0)), at(0)),
            Verdict::Write
        );
        let node_gone = VirtualNodePoolStatus {
            nodes: Some(2),
            ..idle(100)
        };
        assert_eq!(
            verdict(Some(&idle(100)), &node_gone, Some(at(0)), at(0)),
            Verdict::Write
        );
    }

    #[test]
    fn a_clock_set_back_does_not_silence() {
        assert_eq!(
            verdict(Some(&idle(100)), &idle(50), Some(at(9000)), at(0)),
            Verdict::Write
        );
    }
}
