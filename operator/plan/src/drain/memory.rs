//! What a process remembers of one ordinal's drain. All of it may be lost: then the drain takes longer (P7).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::audit::Witness;
use super::returns::Returned;
use super::settle::Settle;

/// Memory of one ordinal.
#[derive(Clone, Debug, Default)]
pub struct DrainMemory {
    /// UID of the Node that all this is about; another UID makes `cordoned_since` and `settle` void, and leaves the rest: the
    /// instances are the same.
    pub node_uid: String,
    /// Since when our cordon was seen in effect, without a break and written by the same leader: it may have been taken
    /// away and put back unseen.
    pub cordoned_since: Option<Timestamp>,
    /// [`crate::observed::NodeView::cordon_term`] of that cordon.
    pub cordon_term: Option<String>,
    /// The provider pod as seen since it appeared.
    pub provider: Option<ProviderSeen>,
    /// Pods that came after the cordon had settled.
    pub returned: Returned,
    /// How far the drain was at the last pass.
    pub progress: Option<Progress>,
    /// The cloud's modelled queue of instance deletions.
    pub departures: Departures,
    /// The first of the two lists that prove emptiness.
    pub settle: Option<Settle>,
    /// What the last evictions were answered, by pod UID, where that answer was not "accepted" or "gone".
    pub refusals: BTreeMap<String, Refusal>,
    /// How pods left the node during its drain.
    pub witness: Witness,
    /// What holds the task back just now.
    pub limited_by: Option<vnp_crds::LimitedBy>,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pods left that do not come back when they leave.
    pub lasting: i32,
    /// When that became less.
    pub at: Timestamp,
}

/// A provider pod since it was first seen. Times would compare two clocks, so these are counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSeen {
    /// UID of the pod.
    pub uid: String,
    /// Heartbeats of its Node that had been seen when the pod was first seen: a later one comes from this pod and not
    /// from the one before it.
    pub beats_before: u64,
    /// Pods that disappeared from its node since.
    pub departures: u32,
}

impl DrainMemory {
    /// Notes which provider pod there is. `beats`: heartbeats of the Node seen so far.
    pub fn see_provider(&mut self, uid: &str, beats: u64) {
        if self.provider.as_ref().is_none_or(|p| p.uid != uid) {
            self.provider = Some(ProviderSeen {
                uid: uid.to_owned(),
                beats_before: beats,
                departures: 0,
            });
        }
    }

    /// Notes that a pod disappeared from the node. `per_second`: `spec.drain.instanceDeletesPerSecond`.
    pub fn see_departure(&mut self, beats: u64, per_second: f64, now: Timestamp) {
        self.departures.record(1, beats, per_second, now);
        if let Some(provider) = &mut self.provider {
            provider.departures = provider.departures.saturating_add(1);
        }
    }
}

/// An eviction or forced deletion that was not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What it is called in `status.drain.blockers`.
    pub reason: vnp_crds::BlockerReason,
    /// The object that blocks: the budget, the namespace, the pod.
    pub object: String,
    /// The server's words, trimmed of numbers that change.
    pub message: String,
    /// It was the answer to a forced deletion; what an eviction was refused for does not hold one.
    pub forced: bool,
    /// When this refusal was first answered for this pod.
    pub since: Timestamp,
}

/// How many instances the cloud still has to delete for pods that are gone, modelled as a token bucket that was full
/// at first: "pod gone" is not "instance gone". Source of the default rate: ECI limits, DeleteContainerGroup burst 100,
/// 20 per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Departures {
    /// Deletions waiting beyond what the bucket covers; negative while tokens are left.
    debt: f64,
    as_of: Timestamp,
    /// Pods that disappeared from this node.
    pub count: u64,
    /// When a pod disappeared last, and how many heartbeats had been seen by then.
    pub last: Option<(Timestamp, u64)>,
}

/// Tokens of the full bucket.
pub const DELETE_BURST: f64 = 100.0;

impl Default for Departures {
    fn default() -> Self {
        Self {
            debt: -DELETE_BURST,
            as_of: Timestamp::UNIX_EPOCH,
            count: 0,
            last: None,
        }
    }
}

impl Departures {
    /// The state after a start of the operator, which can't know what disappeared before: `pods` instances at once, now.
    pub fn after_restart(pods: u32, now: Timestamp) -> Self {
        Self {
            debt: f64::from(pods) - DELETE_BURST,
            as_of: now,
            count: 0,
            last: None,
        }
    }

    fn settled(&self, per_second: f64, now: Timestamp) -> f64 {
        let passed = now.duration_since(self.as_of).as_secs_f64().max(0.0);
        (self.debt - passed * per_second).max(-DELETE_BURST)
    }

    /// Notes that `pods` disappeared from this node.
    pub fn record(&mut self, pods: u32, beats: u64, per_second: f64, now: Timestamp) {
        self.queue(pods, per_second, now);
        self.count = self.count.saturating_add(u64::from(pods));
        self.last = Some((now, beats));
    }

    /// Notes that `pods` disappeared from another node: one account deletes the instances of all of them.
    pub fn queue(&mut self, pods: u32, per_second: f64, now: Timestamp) {
        self.debt = self.settled(per_second, now) + f64::from(pods);
        self.as_of = self.as_of.max(now);
    }

    /// The clock that these times come from was set on by `by` and shows `now`: the cloud has had no time in between.
    pub fn clock_set(&mut self, by: SignedDuration, now: Timestamp) {
        let shifted = self.as_of.saturating_add(by.max(SignedDuration::ZERO));
        self.as_of = shifted.map_or(now, |at| at.min(now)).max(self.as_of);
    }

    /// How long the cloud still needs, from `now` on.
    pub fn backlog(&self, per_second: f64, now: Timestamp) -> SignedDuration {
        self.backlog_with(0, per_second, now)
    }

    /// The bucket is full: time that passes makes no room for what disappears later.
    pub fn idle(&self, per_second: f64, now: Timestamp) -> bool {
        self.settled(per_second, now) <= -DELETE_BURST
    }

    /// How long the cloud would need if so many pods more disappeared now.
    pub fn backlog_with(&self, pods: u32, per_second: f64, now: Timestamp) -> SignedDuration {
        let debt = (self.settled(per_second, now) + f64::from(pods)).max(0.0);
        SignedDuration::try_from_secs_f64(debt / per_second.max(f64::MIN_POSITIVE))
            .unwrap_or(SignedDuration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_hundred_are_free_and_the_rest_queue_at_the_rate() {
        let mut d = Departures::default();
        d.record(100, 0, 20.0, at(0));
        assert_eq!(d.backlog(20.0, at(0)), SignedDuration::ZERO);
        d.record(40, 0, 20.0, at(0));
        assert_eq!(d.backlog(20.0, at(0)), SignedDuration::from_secs(2));
        assert_eq!(d.backlog(20.0, at(1)), SignedDuration::from_secs(1));
        assert_eq!(d.backlog(20.0, at(9)), SignedDuration::ZERO);
    }

    #[test]
    fn after_a_restart_all_pods_count_as_just_gone() {
        let d = Departures::after_restart(300, at(0));
        assert_eq!(d.backlog(2.0, at(0)), SignedDuration::from_secs(100));
    }

    #[test]
    fn a_clock_that_is_set_on_gives_the_cloud_no_time() {
        let mut d = Departures::after_restart(300, at(0));
        d.clock_set(SignedDuration::from_hours(1), at(3600));
        assert_eq!(d.backlog(2.0, at(3600)), SignedDuration::from_secs(100));
        // What was noted after the clock was set is not moved into the future.
        d.clock_set(SignedDuration::from_hours(1), at(3610));
        assert_eq!(d.backlog(2.0, at(3611)), SignedDuration::from_secs(99));
        let before = d.clone();
        d.clock_set(SignedDuration::from_hours(-1), at(11));
        assert_eq!(d, before);
    }

    #[test]
    fn a_clock_that_steps_back_never_shortens_the_backlog() {
        let mut d = Departures::after_restart(300, at(100));
        d.record(1, 0, 2.0, at(0));
        assert!(d.backlog(2.0, at(100)) >= SignedDuration::from_secs(100));
    }
}
