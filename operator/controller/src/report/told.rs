//! Which events were told already. A situation that goes on is told once, the conditions show that it goes on (P6); one
//! that comes back is told again, at most every ten minutes. Never one per pod: no subject is a pod.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use vnp_crds::EventReason;
use vnp_plan::finding::EventNote;

/// Shortest time between two events with the same reason and subject.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// An event to be told, with the time under which it is filed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// What.
    pub(super) note: EventNote,
    /// When it was first to be told: the same when the API server takes it only later.
    pub(super) at: Timestamp,
}

/// What one pool was told by this process.
#[derive(Debug, Default)]
pub(super) struct Told {
    known: BTreeMap<(EventReason, String), Known>,
    /// Events that the API server did not take: a change happens once, and its event would be lost.
    owed: BTreeMap<(EventReason, String), News>,
    started: bool,
}

#[derive(Debug)]
struct Known {
    at: Timestamp,
    /// It was still so in the pass before.
    lasting: bool,
}

fn key(note: &EventNote) -> (EventReason, String) {
    (note.reason, note.subject.clone())
}

impl Told {
    /// Of the events that a pass is worth, those to tell, and those that were not taken in an earlier one. In the first
    /// pass after a start of this process, `shown` says what the status shows already: the process before has told that.
    pub(super) fn fresh(
        &mut self,
        notes: impl IntoIterator<Item = EventNote>,
        shown: impl Fn(&EventNote) -> bool,
        now: Timestamp,
    ) -> Vec<News> {
        let first = !std::mem::replace(&mut self.started, true);
        let before = std::mem::take(&mut self.known);
        let mut fresh = Vec::new();
        for note in notes {
            let key = key(&note);
            if self.known.contains_key(&key) {
                continue;
            }
            let at = match before.get(&key) {
                Some(known) if known.lasting || now.duration_since(known.at) < AGAIN_AFTER => known.at,
                None if first && shown(&note) => now,
                _ => {
                    fresh.push(News { note, at: now });
                    now
                }
            };
            self.known.insert(key, Known { at, lasting: true });
        }
        for (key, known) in before {
            if now.duration_since(known.at) < AGAIN_AFTER {
                self.known.entry(key).or_insert(Known {
                    at: known.at,
                    lasting: false,
                });
            }
        }
        for (key, news) in std::mem::take(&mut self.owed) {
            if now.duration_since(news.at) < AGAIN_AFTER && !self.known.contains_key(&key) {
                self.known.insert(
                    key,
                    Known {
                        at: news.at,
                        lasting: false,
                    },
                );
                fresh.push(news);
            }
        }
        fresh
    }

    /// Events of a change, each of which happens once: told unless the same was told a short while ago.
    pub(super) fn changes(
        &mut self,
        notes: impl IntoIterator<Item = EventNote>,
        now: Timestamp,
    ) -> Vec<News> {
        let mut fresh = Vec::new();
        for note in notes {
            let key = key(&note);
            let known = self
                .known
                .get(&key)
                .is_some_and(|k| now.duration_since(k.at) < AGAIN_AFTER);
            if !known {
                self.known.insert(
                    key,
                    Known {
                        at: now,
                        lasting: false,
                    },
                );
                fresh.push(News { note, at: now });
            }
        }
        fresh
    }

    /// The event was told before, and the API server did not take it.
    pub(super) fn owes(&self, note: &EventNote) -> bool {
        self.owed.contains_key(&(note.reason, note.subject.clone()))
    }

    /// An event that the API server did not take: the next pass tells it again, for ten minutes.
    pub(super) fn failed(&mut self, news: News) {
        let key = key(&news.note);
        self.known.remove(&key);
        self.owed.insert(key, news);
    }
}

/// Name of the event object: the pool, the time to the millisecond, then what it is about. `kubectl describe` and `kubectl
/// get events` show events of this API in the order of their names.
///
/// What the spec or the cluster keep on causing is filed under the start of a span of ten minutes instead: whoever comes
/// second is answered "exists already", so neither a restart nor a second leader repeats it.
pub(super) fn event_name(pool: &str, pool_uid: &str, news: &News) -> String {
    let News { note, at } = news;
    let span = AGAIN_AFTER.as_secs();
    let at = match note.reason {
        EventReason::ConfigWarning | EventReason::UnknownOrdinal => {
            let start = at.as_second().div_euclid(span).saturating_mul(span);
            Timestamp::from_second(start).unwrap_or(*at)
        }
        _ => *at,
    };
    let mut hasher = DefaultHasher::new();
    (pool_uid, note.reason.as_str(), &note.subject, at.as_millisecond()).hash(&mut hasher);
    // Of two events of one pass the one whose reason is listed first: a drain starts before it is blocked.
    let rank = EventReason::ALL
        .iter()
        .position(|r| *r == note.reason)
        .unwrap_or_default();
    let time = at.strftime("%Y%m%d-%H%M%S-%3f");
    format!("{pool}.{time}.{rank:02x}{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn note(subject: &str) -> EventNote {
        EventNote {
            reason: EventReason::DrainBlocked,
            subject: subject.to_owned(),
            note: format!("about {subject}"),
        }
    }

    fn news(subject: &str, seconds: i64) -> News {
        News {
            note: note(subject),
            at: at(seconds),
        }
    }

    fn count(told: &mut Told, subjects: &[&str], now: i64) -> usize {
        told.fresh(subjects.iter().map(|s| note(s)), |_| false, at(now))
            .len()
    }

    #[test]
    fn what_goes_on_is_told_once() {
        let mut told = Told::default();
        assert_eq!(count(&mut told, &["a", "a"], 0), 1);
        for hour in 0..24 {
            assert_eq!(count(&mut told, &["a"], hour * 3600), 0);
        }
    }

    #[test]
    fn what_comes_back_is_told_again_after_ten_minutes() {
        let mut told = Told::default();
        assert_eq!(count(&mut told, &["a"], 0), 1);
        for second in (1..600).step_by(7) {
            let subjects: &[&str] = if second % 2 == 0 { &["a"] } else { &[] };
            assert_eq!(count(&mut told, subjects, second), 0, "at {second}");
        }
        assert_eq!(count(&mut told, &[], 600), 0);
        assert_eq!(count(&mut told, &["a"], 601), 1);
    }

    #[test]
    fn another_subject_is_another_event() {
        let mut told = Told::default();
        assert_eq!(count(&mut told, &["a", "b"], 0), 2);
        assert_eq!(count(&mut told, &["a", "b", "c"], 1), 1);
    }

    #[test]
    fn what_the_status_shows_at_a_start_is_not_repeated() {
        let mut told = Told::default();
        assert_eq!(
            told.fresh([note("a"), note("b")], |n| n.subject == "a", at(0)),
            [news("b", 0)]
        );
        assert_eq!(
            told.fresh([note("a"), note("c")], |_| true, at(1)),
            [news("c", 1)]
        );
    }

    #[test]
    fn an_event_that_failed_is_tried_again() {
        let mut told = Told::default();
        assert_eq!(count(&mut told, &["a"], 0), 1);
        told.failed(news("a", 0));
        assert_eq!(count(&mut told, &["a"], 1), 1);
        assert_eq!(count(&mut told, &["a"], 2), 0);
    }

    #[test]
    fn a_change_whose_event_failed_is_told_by_later_passes_for_ten_minutes() {
        let mut told = Told::default();
        assert_eq!(told.changes([note("a")], at(0)), [news("a", 0)]);
        for second in [0, 300, 599] {
            told.failed(news("a", 0));
            // Filed under the time of the change, so that one that was taken without an answer is not told twice.
            assert_eq!(
                told.fresh([], |_| false, at(second)),
                [news("a", 0)],
                "at {second}"
            );
        }
        assert_eq!(count(&mut told, &[], 599), 0, "taken at last");
        told.failed(news("a", 0));
        assert_eq!(count(&mut told, &[], 600), 0, "too late to be news");
    }

    #[test]
    fn a_change_that_is_seen_twice_is_told_once() {
        let mut told = Told::default();
        assert_eq!(told.changes([note("a")], at(0)).len(), 1);
        assert_eq!(told.changes([note("a")], at(1)).len(), 0);
        assert_eq!(count(&mut told, &[], 2), 0);
        assert_eq!(told.changes([note("a")], at(3)).len(), 0);
    }

    fn name(reason: EventReason, subject: &str, at: Timestamp) -> String {
        let note = EventNote {
            reason,
            ..note(subject)
        };
        event_name("burst", "uid", &News { note, at })
    }

    #[test]
    fn names_are_in_the_order_of_time() {
        let reasons = [
            EventReason::DrainBlocked,
            EventReason::DrainStarted,
            EventReason::ScalingUp,
        ];
        let moments = [0, 1, 999, 1000, 59_000, 3_600_000, 86_400_000, 40_000_000_000];
        let names: Vec<String> = moments
            .iter()
            .zip(reasons.iter().cycle())
            .map(|(ms, reason)| name(*reason, "x", at(0) + SignedDuration::from_millis(*ms)))
            .collect();
        assert!(names.is_sorted(), "{names:#?}");
        assert!(names[0].starts_with("burst.20270115-080000-000."), "{}", names[0]);
        let fits = |name: &String| {
            name.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
        };
        assert!(names.iter().all(fits) && names[0].len() <= 60, "{names:?}");
    }

    #[test]
    fn a_drain_starts_before_it_is_blocked_within_one_pass_too() {
        let start = name(EventReason::DrainStarted, "x", at(0));
        assert!(start < name(EventReason::DrainBlocked, "x", at(0)));
    }

    #[test]
    fn names_tell_subjects_and_pools_apart() {
        let named = |uid, subject: &str| event_name("burst", uid, &news(subject, 0));
        assert_eq!(named("uid", "a"), named("uid", "a"));
        assert_ne!(named("uid", "a"), named("uid", "b"));
        assert_ne!(named("uid", "a"), named("other", "a"));
    }

    #[test]
    fn what_the_spec_keeps_on_causing_has_one_name_for_ten_minutes() {
        let start = at(0).as_second().div_euclid(600) * 600 - at(0).as_second();
        for reason in [EventReason::ConfigWarning, EventReason::UnknownOrdinal] {
            assert_eq!(name(reason, "a", at(start)), name(reason, "a", at(start + 599)));
            assert_ne!(name(reason, "a", at(start)), name(reason, "a", at(start + 600)));
        }
    }
}
