//! Signs of life of the providers: the Lease or the Node status, whichever changed last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use vnp_plan::drain::health::HEARTBEAT_LIMIT;
use vnp_plan::observed::Heartbeat;

/// Heartbeats by Node name. They outlive the Node object: counts of a Node that registers again go on.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<String, Heart>>);

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

impl Heartbeats {
    /// Notes a stamp. True when the provider had been silent for too long before.
    pub fn note(&self, node: &str, sign: Sign, stamp: Timestamp, now: Timestamp) -> bool {
        let mut hearts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hearts.get_mut(node) {
            Some(heart) => heart.note(sign, stamp, now),
            None => hearts.entry(node.to_owned()).or_default().note(sign, stamp, now),
        }
    }

    /// The clock was set by `by`. Set back, it would make what was heard look fresh for longer; set on, it makes it look
    /// old until the next beat, which does no harm.
    pub fn clock_set(&self, by: SignedDuration) {
        if !by.is_negative() {
            return;
        }
        let mut hearts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for beat in hearts.values_mut().filter_map(|h| h.beat.as_mut()) {
            beat.seen_at = beat.seen_at.saturating_add(by).unwrap_or(Timestamp::MIN);
        }
    }

    /// The newest sign of life of a Node.
    pub fn of(&self, node: &str) -> Option<Heartbeat> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_clock_that_is_set_keeps_nobody_alive() {
        let hearts = Heartbeats::default();
        hearts.note("v-1", Sign::Lease, at(0), at(0));
        hearts.clock_set(SignedDuration::from_secs(30));
        assert_eq!(hearts.of("v-1").unwrap().seen_at, at(0));
        hearts.clock_set(SignedDuration::from_secs(-30));
        assert_eq!(hearts.of("v-1").unwrap().seen_at, at(-30));
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
        hearts.note("v-0", Sign::Lease, at(-300), at(0));
        assert_eq!(hearts.of("v-0"), beat(-300, 0));
        hearts.note("v-1", Sign::Lease, at(300), at(0));
        assert_eq!(
            hearts.of("v-1"),
            beat(0, 0),
            "a clock ahead of ours gives no credit"
        );
    }

    #[test]
    fn a_change_counts_from_now_whatever_clock_the_provider_has() {
        let hearts = Heartbeats::default();
        hearts.note("v-0", Sign::Lease, at(-300), at(0));
        hearts.note("v-0", Sign::Lease, at(-290), at(10));
        assert_eq!(hearts.of("v-0"), beat(10, 1));
        hearts.note("v-0", Sign::Lease, at(-290), at(15));
        assert_eq!(hearts.of("v-0"), beat(10, 1), "the same stamp is no sign of life");
    }

    #[test]
    fn the_newer_of_lease_and_status_counts() {
        let hearts = Heartbeats::default();
        hearts.note("v-0", Sign::Status, at(0), at(1));
        hearts.note("v-0", Sign::Status, at(10), at(11));
        // An old Lease that nobody renews takes nothing back.
        hearts.note("v-0", Sign::Lease, at(-5000), at(12));
        assert_eq!(hearts.of("v-0"), beat(11, 1));
    }

    #[test]
    fn a_return_from_silence_is_told() {
        let hearts = Heartbeats::default();
        assert!(hearts.note("v-0", Sign::Lease, at(0), at(0)), "unknown until now");
        assert!(!hearts.note("v-0", Sign::Lease, at(10), at(10)));
        assert!(hearts.note("v-0", Sign::Lease, at(60), at(60)));
    }
}
