//! The rules alone: no API, the time is an argument.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::{LEASE_NAME, Timing};

/// One candidate's view of the lease.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    namespace: String,
    timing: Timing,
    seen: Option<Seen>,
    /// When the request of the last successful write of ours was sent.
    renewed: Option<Instant>,
    /// What we took. We lead while the Lease is this, and never again: the next term is another process's.
    led: Option<Reign>,
}

/// A Lease under one holder: when it was made anew or changed hands, it is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reign {
    uid: Option<String>,
    holder: Option<String>,
    transitions: i32,
}

#[derive(Debug)]
struct Seen {
    lease: Lease,
    at: Instant,
}

/// What to try next.
#[derive(Debug, PartialEq)]
pub(super) enum Attempt {
    /// There is no Lease.
    Create(Lease),
    /// Replace what was seen.
    Replace(Lease),
    /// It is somebody else's.
    Wait,
}

impl Election {
    pub(super) fn new(identity: String, namespace: String, timing: Timing) -> Self {
        Self {
            identity,
            namespace,
            timing,
            seen: None,
            renewed: None,
            led: None,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Lease as read, or that there is none. Its age counts from the moment it was seen to change.
    pub(super) fn read(&mut self, lease: Option<Lease>, now: Instant) {
        self.seen = lease.map(|lease| match self.seen.take() {
            Some(known) if known.lease.spec == lease.spec => Seen { lease, at: known.at },
            _ => Seen { lease, at: now },
        });
    }

    /// Our write was accepted; `sent` is the moment before the request.
    pub(super) fn written(&mut self, lease: Lease, sent: Instant) {
        self.seen = Some(Seen { lease, at: sent });
        self.renewed = Some(sent);
        if self.led.is_none() {
            self.led = self.reign();
        }
    }

    /// Until when we may act on the strength of our last write.
    pub(super) fn acts_until(&self) -> Option<Instant> {
        self.renewed
            .filter(|_| self.ours() && !self.over())
            .map(|sent| sent + self.timing.renew_deadline)
    }

    /// `leaseTransitions` as seen.
    pub(super) fn transitions(&self) -> i32 {
        self.spec().and_then(|s| s.lease_transitions).unwrap_or(0)
    }

    /// The holder as seen; `None` when it is free.
    pub(super) fn holder(&self) -> Option<&str> {
        self.spec()?.holder_identity.as_deref().filter(|h| !h.is_empty())
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.seen.as_ref()?.lease.spec.as_ref()
    }

    fn reign(&self) -> Option<Reign> {
        let seen = self.seen.as_ref()?;
        Some(Reign {
            uid: seen.lease.metadata.uid.clone(),
            holder: self.holder().map(ToOwned::to_owned),
            transitions: self.transitions(),
        })
    }

    /// We led, and the Lease is not the one we led by any more.
    fn over(&self) -> bool {
        self.led.is_some() && self.led != self.reign()
    }

    fn ours(&self) -> bool {
        self.holder() == Some(&self.identity)
    }

    /// Somebody else holds it and was seen alive within the lease's duration: theirs or ours, whichever is longer.
    fn taken(&self, now: Instant) -> bool {
        let Some(seen) = &self.seen else { return false };
        let theirs = self
            .spec()
            .and_then(|s| s.lease_duration_seconds)
            .and_then(|s| u64::try_from(s).ok());
        let duration = self
            .timing
            .duration
            .max(std::time::Duration::from_secs(theirs.unwrap_or(0)));
        self.holder().is_some() && !self.ours() && now < seen.at + duration
    }

    /// The write that takes or renews the lease, if it can be had.
    pub(super) fn attempt(&self, now: Instant, wall: Timestamp) -> Attempt {
        if self.over() || self.taken(now) {
            return Attempt::Wait;
        }
        let Some(seen) = &self.seen else {
            return Attempt::Create(Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE_NAME.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.record(None, wall)),
            });
        };
        let mut lease = seen.lease.clone();
        lease.spec = Some(self.record(lease.spec.as_ref(), wall));
        Attempt::Replace(lease)
    }

    /// The write that hands the lease over, when it is ours.
    pub(super) fn release(&self, wall: Timestamp) -> Option<Lease> {
        let seen = self.seen.as_ref().filter(|_| self.ours())?;
        let mut lease = seen.lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(wall));
        Some(lease)
    }

    fn record(&self, before: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let mut spec = before.cloned().unwrap_or_default();
        if !self.ours() {
            spec.acquire_time = Some(MicroTime(wall));
            // The first holder of a new Lease is term 0; every change of holder is a new term.
            spec.lease_transitions =
                Some(before.map_or(0, |b| b.lease_transitions.unwrap_or(0).saturating_add(1)));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.timing.duration.as_secs()).ok();
        spec.renew_time = Some(MicroTime(wall));
        spec
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    fn election(who: &str) -> Election {
        Election::new(who.to_owned(), "ops".to_owned(), TIMING)
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The Lease that `who` took first.
    fn held_by(who: &str, at: i64) -> Lease {
        match election(who).attempt(Instant::now(), wall(at)) {
            Attempt::Create(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_to_create_it_leads_until_the_renew_deadline() {
        let start = Instant::now();
        let mut a = election("a");
        let Attempt::Create(lease) = a.attempt(start, wall(0)) else {
            panic!("it is free")
        };
        assert_eq!(a.acts_until(), None);
        a.written(lease, start);
        assert_eq!(a.acts_until(), Some(start + seconds(10)));
        assert_eq!(a.transitions(), 0);
    }

    #[test]
    fn a_living_holder_is_waited_for_whatever_its_clock_says() {
        let start = Instant::now();
        let mut b = election("b");
        // The holder's clock is a day behind: its renewTime looks long past.
        b.read(Some(held_by("a", -86_400)), start);
        assert_eq!(b.attempt(start + seconds(14), wall(0)), Attempt::Wait);
        // It renews: the wait begins anew.
        b.read(Some(held_by("a", -86_390)), start + seconds(14));
        assert_eq!(b.attempt(start + seconds(28), wall(0)), Attempt::Wait);
        assert!(matches!(
            b.attempt(start + seconds(29), wall(0)),
            Attempt::Replace(_)
        ));
    }

    #[test]
    fn a_silent_holder_is_succeeded_in_a_new_term() {
        let start = Instant::now();
        let mut b = election("b");
        b.read(Some(held_by("a", 0)), start);
        b.read(Some(held_by("a", 0)), start + seconds(15));
        let Attempt::Replace(lease) = b.attempt(start + seconds(15), wall(20)) else {
            panic!("a was silent for 15 s")
        };
        let spec = lease.spec.clone().unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.acquire_time, Some(MicroTime(wall(20))));
        b.written(lease, start + seconds(15));
        assert_eq!(b.transitions(), 1);
    }

    #[test]
    fn a_longer_duration_of_the_holder_is_respected() {
        let start = Instant::now();
        let mut lease = held_by("a", 0);
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
        let mut b = election("b");
        b.read(Some(lease), start);
        assert_eq!(b.attempt(start + seconds(59), wall(0)), Attempt::Wait);
        assert!(matches!(
            b.attempt(start + seconds(60), wall(0)),
            Attempt::Replace(_)
        ));
    }

    #[test]
    fn a_renewal_keeps_the_term() {
        let start = Instant::now();
        let mut a = election("a");
        a.written(held_by("a", 0), start);
        let Attempt::Replace(lease) = a.attempt(start + seconds(2), wall(2)) else {
            panic!("it is ours")
        };
        let spec = lease.spec.unwrap();
        assert_eq!(
            (spec.lease_transitions, spec.acquire_time),
            (Some(0), Some(MicroTime(wall(0))))
        );
        assert_eq!(spec.renew_time, Some(MicroTime(wall(2))));
    }

    #[test]
    fn who_sees_another_holder_may_not_act() {
        let start = Instant::now();
        let mut a = election("a");
        a.written(held_by("a", 0), start);
        a.read(Some(held_by("b", 1)), start + seconds(1));
        assert_eq!(a.acts_until(), None);
        assert_eq!(a.attempt(start + seconds(1), wall(1)), Attempt::Wait);
        assert_eq!(a.release(wall(1)), None);
    }

    #[test]
    fn a_released_lease_is_free_at_once_and_the_next_term_differs() {
        let start = Instant::now();
        let mut a = election("a");
        a.written(held_by("a", 0), start);
        let released = a.release(wall(1)).unwrap();
        let mut b = election("b");
        b.read(Some(released), start + seconds(1));
        let Attempt::Replace(lease) = b.attempt(start + seconds(1), wall(1)) else {
            panic!("it is free")
        };
        assert_eq!(lease.spec.unwrap().lease_transitions, Some(1));
    }
}
