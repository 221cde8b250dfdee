//! Which events were told already. A situation that goes on is told once, the conditions show that it goes on (P6); one
//! that comes back is told again, at most every ten minutes. Never one per pod: no subject is a pod.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use vnp_crds::EventReason;
use vnp_plan::finding::EventNote;

/// Shortest time between two events with the same reason and subject.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What one pool was told by this process.
#[derive(Debug, Default)]
pub(super) struct Told {
    known: BTreeMap<(EventReason, String), Known>,
    /// Events that the API server did not take, and since when: a change happens once, and its event would be lost.
    owed: BTreeMap<(EventReason, String), (EventNote, Timestamp)>,
    started: bool,
}

#[derive(Debug)]
struct Known {
    at: Timestamp,
    /// It was still so in the pass before.
    lasting: bool,
}

impl Told {
    /// Of the events that a pass is worth, those to tell, and those that were not taken in an earlier one. In the first
    /// pass after a start of this process, `shown` says what the status shows already: the process before has told that.
    pub(super) fn fresh(
        &mut self,
        notes: impl IntoIterator<Item = EventNote>,
        shown: impl Fn(&EventNote) -> bool,
        now: Timestamp,
    ) -> Vec<EventNote> {
        let first = !std::mem::replace(&mut self.started, true);
        let before = std::mem::take(&mut self.known);
        let mut fresh = Vec::new();
        for note in notes {
            let key = (note.reason, note.subject.clone());
            if self.known.contains_key(&key) {
                continue;
            }
            let at = match before.get(&key) {
                Some(known) if known.lasting || now.duration_since(known.at) < AGAIN_AFTER => known.at,
                None if first && shown(&note) => now,
                _ => {
                    fresh.push(note);
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
        for (key, (note, since)) in std::mem::take(&mut self.owed) {
            if now.duration_since(since) < AGAIN_AFTER && !self.known.contains_key(&key) {
                self.known.insert(
                    key,
                    Known {
                        at: since,
                        lasting: false,
                    },
                );
                fresh.push(note);
            }
        }
        fresh
    }

    /// Events of a change, each of which happens once: told unless the same was told a short while ago.
    pub(super) fn changes(
        &mut self,
        notes: impl IntoIterator<Item = EventNote>,
        now: Timestamp,
    ) -> Vec<EventNote> {
        let mut fresh = Vec::new();
        for note in notes {
            let key = (note.reason, note.subject.clone());
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
                fresh.push(note);
            }
        }
        fresh
    }

    /// An event that the API server did not take: the next pass tells it again, for ten minutes.
    pub(super) fn failed(&mut self, note: EventNote, now: Timestamp) {
        let key = (note.reason, note.subject.clone());
        let since = self.known.remove(&key).map_or(now, |known| known.at);
        self.owed.insert(key, (note, since));
    }
}

/// Name of the event object, the same for every process within one span of ten minutes: whoever comes second is answered
/// "exists already", so neither a restart nor a second leader repeats an event.
pub(super) fn event_name(pool: &str, pool_uid: &str, note: &EventNote, now: Timestamp) -> String {
    let mut hasher = DefaultHasher::new();
    (
        pool_uid,
        note.reason.as_str(),
        &note.subject,
        now.as_second().div_euclid(AGAIN_AFTER.as_secs()),
    )
        .hash(&mut hasher);
    format!("{pool}.{:016x}", hasher.finish())
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
            [note("b")]
        );
        assert_eq!(told.fresh([note("a"), note("c")], |_| true, at(1)), [note("c")]);
    }

    #[test]
    fn an_event_that_failed_is_tried_again() {
        let mut told = Told::default();
        assert_eq!(count(&mut told, &["a"], 0), 1);
        told.failed(note("a"), at(0));
        assert_eq!(count(&mut told, &["a"], 1), 1);
        assert_eq!(count(&mut told, &["a"], 2), 0);
    }

    #[test]
    fn a_change_whose_event_failed_is_told_by_later_passes_for_ten_minutes() {
        let mut told = Told::default();
        assert_eq!(told.changes([note("a")], at(0)).len(), 1);
        for second in [0, 300, 599] {
            told.failed(note("a"), at(second));
            assert_eq!(told.fresh([], |_| false, at(second)), [note("a")], "at {second}");
        }
        assert_eq!(count(&mut told, &[], 599), 0, "taken at last");
        told.failed(note("a"), at(599));
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

    #[test]
    fn names_repeat_within_ten_minutes_only() {
        let span = at(0).as_second().rem_euclid(600);
        let name = |subject, seconds| event_name("burst", "uid", &note(subject), at(seconds - span));
        assert_eq!(name("a", 0), name("a", 599));
        assert_ne!(name("a", 0), name("a", 600));
        assert_ne!(name("a", 0), name("b", 0));
        assert_ne!(name("a", 0), event_name("burst", "other", &note("a"), at(-span)));
    }
}
