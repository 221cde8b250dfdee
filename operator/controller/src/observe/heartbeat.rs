//! Signs of life of the providers: the Lease or the Node status, whichever changed last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use vnp_plan::drain::health::HEARTBEAT_LIMIT;
use vnp_plan::observed::Heartbeat;

use crate::runtime::clock::Reading;

/// Heartbeats by Node name. They outlive the Node object: counts of a Node that registers again go on.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<Hearts>);

#[derive(Debug, Default)]
struct Hearts {
    by_node: HashMap<String, Heart>,
    /// The clock's corrections that have been taken over, and their sum.
    corrections: u64,
    correction: SignedDuration,
}

/// Where a heartbeat is written. Newer providers renew a Lease, older ones update the Node status only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `renewTime` of the Lease in kube-node-lease.
    Lease,
    /// `lastHeartbeatTime` of the Node's condition Ready.
    Status,
}

#[derive(Debug, Default)]
struct Heart {
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    beat: Option<Heartbeat>,
}

impl Heart {
    fn note(&mut self, sign: Sign, stamp: Timestamp, now: Timestamp) -> bool {
        let known = match sign {
            Sign::Lease => &mut self.lease,
            Sign::Status => &mut self.status,
        };
        let first = known.is_none();
        if *known == Some(stamp) {
            return false;
        }
        *known = Some(stamp);
        // What was there at first sight may be old: it counts from its own stamp and is no beat. A stamp that changed
        // counts from now: the provider's clock may be wrong.
        let seen_at = if first { stamp.min(now) } else { now };
        let before = self.beat.as_ref().map_or(Timestamp::MIN, |b| b.seen_at);
        let beats = self
            .beat
            .as_ref()
            .map_or(0, |b| b.beats)
            .saturating_add(u64::from(!first));
        self.beat = Some(Heartbeat {
            seen_at: before.max(seen_at),
            beats,
        });
        now.duration_since(before) > HEARTBEAT_LIMIT
    }
}

impl Hearts {
    /// A clock that was set back would make what was heard before look fresh for longer. One that was set on makes it look
    /// old until the next beat, which does no harm.
    fn correct(&mut self, clock: Reading) {
        if self.corrections == clock.corrections {
            return;
        }
        let by = clock.correction - self.correction;
        self.corrections = clock.corrections;
        self.correction = clock.correction;
        if !by.is_negative() {
            return;
        }
        for beat in self.by_node.values_mut().filter_map(|h| h.beat.as_mut()) {
            beat.seen_at = beat.seen_at.saturating_add(by).unwrap_or(Timestamp::MIN);
        }
    }
}

impl Heartbeats {
    /// Notes a stamp. True when the provider had been silent for too long before.
    pub fn note(&self, node: &str, sign: Sign, stamp: Timestamp, clock: Reading) -> bool {
        let mut hearts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.correct(clock);
        match hearts.by_node.get_mut(node) {
            Some(heart) => heart.note(sign, stamp, clock.now),
            None => hearts
                .by_node
                .entry(node.to_owned())
                .or_default()
                .note(sign, stamp, clock.now),
        }
    }

    /// Takes over what the clock was corrected by.
    pub fn corrected(&self, clock: Reading) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .correct(clock);
    }

    /// The newest sign of life of a Node.
    pub fn of(&self, node: &str) -> Option<Heartbeat> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_node
            .get(node)?
            .beat
            .clone()
    }

    /// How often it was seen to change.
    pub fn beats(&self, node: &str) -> u64 {
        self.of(node).map_or(0, |b| b.beats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    /// A clock that was never corrected.
    fn heard(seconds: i64) -> Reading {
        Reading {
            now: at(seconds),
            corrections: 0,
            correction: SignedDuration::ZERO,
        }
    }

    #[test]
    fn a_clock_that_is_set_keeps_nobody_alive() {
        let hearts = Heartbeats::default();
        let clock = |now, corrections, seconds| Reading {
            now: at(now),
            corrections,
            correction: SignedDuration::from_secs(seconds),
        };
        hearts.note("v-1", Sign::Lease, at(0), clock(0, 0, 0));
        hearts.corrected(clock(30, 1, 30));
        assert_eq!(hearts.of("v-1").unwrap().seen_at, at(0));
        // Back again; what is heard afterwards is not shifted with it.
        hearts.note("v-2", Sign::Lease, at(1), clock(1, 2, 0));
        hearts.corrected(clock(1, 2, 0));
        let seen_at = |node| hearts.of(node).unwrap().seen_at;
        assert_eq!((seen_at("v-1"), seen_at("v-2")), (at(-30), at(1)));
    }

    fn beat(seen: i64, beats: u64) -> Option<Heartbeat> {
        Some(Heartbeat {
            seen_at: at(seen),
            beats,
        })
    }

    #[test]
    fn the_first_sight_counts_from_its_stamp_and_is_no_beat() {
        let hearts = Heartbeats::default();
        hearts.note("v-0", Sign::Lease, at(-300), heard(0));
        assert_eq!(hearts.of("v-0"), beat(-300, 0));
        hearts.note("v-1", Sign::Lease, at(300), heard(0));
        assert_eq!(
            hearts.of("v-1"),
            beat(0, 0),
            "a clock ahead of ours gives no credit"
        );
    }

    #[test]
    fn a_change_counts_from_now_whatever_clock_the_provider_has() {
        let hearts = Heartbeats::default();
        hearts.note("v-0", Sign::Lease, at(-300), heard(0));
        hearts.note("v-0", Sign::Lease, at(-290), heard(10));
        assert_eq!(hearts.of("v-0"), beat(10, 1));
        hearts.note("v-0", Sign::Lease, at(-290), heard(15));
        assert_eq!(hearts.of("v-0"), beat(10, 1), "the same stamp is no sign of life");
    }

    #[test]
    fn the_newer_of_lease_and_status_counts() {
        let hearts = Heartbeats::default();
        hearts.note("v-0", Sign::Status, at(0), heard(1));
        hearts.note("v-0", Sign::Status, at(10), heard(11));
        // An old Lease that nobody renews takes nothing back.
        hearts.note("v-0", Sign::Lease, at(-5000), heard(12));
        assert_eq!(hearts.of("v-0"), beat(11, 1));
    }

    #[test]
    fn a_return_from_silence_is_told() {
        let hearts = Heartbeats::default();
        assert!(
            hearts.note("v-0", Sign::Lease, at(0), heard(0)),
            "unknown until now"
        );
        assert!(!hearts.note("v-0", Sign::Lease, at(10), heard(10)));
        assert!(hearts.note("v-0", Sign::Lease, at(60), heard(60)));
    }
}
