//! `spec.drain.timeoutSeconds`: where a drain stands against its deadline. Everything is counted from stamps of the
//! status and from the spec as it is now, so that a restart forgets nothing and an edit acts at once.

use jiff::{SignedDuration, Timestamp};
use vnp_crds::OnTimeout;

/// How long before the first forced deletion it is announced, unless the whole timeout is shorter.
const NOTICE: SignedDuration = SignedDuration::from_secs(60);

/// What a deadline is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// `startedAt` of the drain.
    pub(super) started_at: Timestamp,
    /// `spec.drain.timeoutSeconds`.
    pub(super) timeout: Option<SignedDuration>,
    /// `spec.drain.onTimeout`.
    pub(super) on_timeout: OnTimeout,
    /// `forceAnnouncedTime`, as the API server has stored it.
    pub(super) announced_at: Option<Timestamp>,
    /// The pool is being deleted: there is no node to keep, and Abort acts as Wait.
    pub(super) deleting: bool,
}

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// In time. An announcement that was made is void.
    Running {
        /// When that changes by itself.
        wake: Option<Timestamp>,
    },
    /// ForceDelete is near and nobody was told.
    Announce {
        /// To be stored as `forceAnnouncedTime`.
        at: Timestamp,
        /// No pod is deleted by force before.
        force_at: Timestamp,
    },
    /// It was told.
    Announced {
        /// No pod is deleted by force before.
        force_at: Timestamp,
    },
    /// Pods are deleted by force.
    Forced,
    /// The node is kept.
    GivenUp,
    /// Late, and it goes on.
    Overdue,
}

impl Deadline {
    /// Where the drain stands at `now`.
    pub(super) fn stand(&self, now: Timestamp) -> Stand {
        let Some(timeout) = self.timeout else {
            return Stand::Running { wake: None };
        };
        let deadline = after(self.started_at, timeout);
        match self.on_timeout {
            OnTimeout::ForceDelete => self.force(deadline, timeout.min(NOTICE), now),
            _ if now < deadline => Stand::Running { wake: Some(deadline) },
            OnTimeout::Abort if !self.deleting => Stand::GivenUp,
            OnTimeout::Abort | OnTimeout::Wait => Stand::Overdue,
        }
    }

    /// From when on pods are deleted by force, once that is announced.
    pub(super) fn force_at(&self) -> Option<Timestamp> {
        let timeout = self
            .timeout
            .filter(|_| self.on_timeout == OnTimeout::ForceDelete)?;
        let announced = after(self.announced_at?, timeout.min(NOTICE));
        Some(after(self.started_at, timeout).max(announced))
    }

    fn force(&self, deadline: Timestamp, notice: SignedDuration, now: Timestamp) -> Stand {
        let announce_at = deadline.checked_sub(notice).unwrap_or(Timestamp::MIN);
        if now < announce_at {
            return Stand::Running {
                wake: Some(announce_at),
            };
        }
        let Some(at) = self.announced_at else {
            // The status keeps whole seconds: rounded down, the notice would be shorter than promised.
            let at = whole_up(now);
            let force_at = deadline.max(after(at, notice));
            return Stand::Announce { at, force_at };
        };
        let force_at = deadline.max(after(at, notice));
        if now < force_at {
            Stand::Announced { force_at }
        } else {
            Stand::Forced
        }
    }
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

fn whole_up(time: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    if whole < time {
        after(whole, SignedDuration::from_secs(1))
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn deadline(timeout: i64, on_timeout: OnTimeout) -> Deadline {
        Deadline {
            started_at: at(0),
            timeout: Some(SignedDuration::from_secs(timeout)),
            on_timeout,
            announced_at: None,
            deleting: false,
        }
    }

    #[test]
    fn without_a_timeout_nothing_ends_it() {
        let none = Deadline {
            timeout: None,
            ..deadline(1, OnTimeout::ForceDelete)
        };
        assert_eq!(none.stand(at(1_000_000)), Stand::Running { wake: None });
    }

    #[test]
    fn wait_goes_on_and_abort_gives_up_but_for_a_pool_that_goes() {
        let wake = Some(at(100));
        for on_timeout in [OnTimeout::Wait, OnTimeout::Abort] {
            assert_eq!(deadline(100, on_timeout).stand(at(99)), Stand::Running { wake });
        }
        assert_eq!(deadline(100, OnTimeout::Wait).stand(at(100)), Stand::Overdue);
        assert_eq!(deadline(100, OnTimeout::Abort).stand(at(100)), Stand::GivenUp);
        let deleted = Deadline {
            deleting: true,
            ..deadline(100, OnTimeout::Abort)
        };
        assert_eq!(deleted.stand(at(100)), Stand::Overdue);
    }

    #[test]
    fn force_is_announced_a_minute_ahead() {
        let force = deadline(600, OnTimeout::ForceDelete);
        let wake = Some(at(540));
        assert_eq!(force.stand(at(539)), Stand::Running { wake });
        let force_at = at(600);
        assert_eq!(
            force.stand(at(540)),
            Stand::Announce {
                at: at(540),
                force_at
            }
        );
        let told = Deadline {
            announced_at: Some(at(540)),
            ..force
        };
        assert_eq!(told.stand(at(599)), Stand::Announced { force_at });
        assert_eq!(told.stand(at(600)), Stand::Forced);
        // Raised: the announcement is void. Lowered again, it is made anew.
        let raised = Deadline {
            timeout: Some(SignedDuration::from_secs(900)),
            ..told
        };
        assert_eq!(raised.stand(at(600)), Stand::Running { wake: Some(at(840)) });
    }

    #[test]
    fn a_short_timeout_is_announced_at_once_and_a_late_one_waits_its_minute() {
        let short = deadline(20, OnTimeout::ForceDelete);
        assert_eq!(
            short.stand(at(0)),
            Stand::Announce {
                at: at(0),
                force_at: at(20)
            }
        );
        let late = deadline(600, OnTimeout::ForceDelete);
        let half = at(9_000) + SignedDuration::from_millis(400);
        assert_eq!(
            late.stand(half),
            Stand::Announce {
                at: at(9_001),
                force_at: at(9_061)
            }
        );
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Clock(i64),
        Timeout(Option<i64>),
        OnTimeout(OnTimeout),
        /// The write of the status is lost, as by a crash.
        Crash(i64),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => (0_i64..400_000).prop_map(Edit::Clock),
            2 => proptest::option::weighted(0.9, 1_i64..300).prop_map(Edit::Timeout),
            2 => prop_oneof![Just(OnTimeout::Wait), Just(OnTimeout::ForceDelete), Just(OnTimeout::Abort)]
                .prop_map(Edit::OnTimeout),
            1 => (0_i64..400_000).prop_map(Edit::Crash),
        ]
    }

    proptest! {
        /// Whatever is edited, lost or slept through: no force without an announcement that was stored for long enough, none
        /// before the deadline, and none by an announcement that an edit took back.
        #[test]
        fn force_never_comes_early(edits in proptest::collection::vec(edit(), 1..60)) {
            let started = at(0);
            let mut now = started;
            let mut drain = deadline(100, OnTimeout::ForceDelete);
            // When the announcement in force was really made.
            let mut told: Option<Timestamp> = None;
            for edit in edits {
                let mut crash = false;
                match edit {
                    Edit::Clock(ms) => now += SignedDuration::from_millis(ms),
                    Edit::Crash(ms) => { now += SignedDuration::from_millis(ms); crash = true; }
                    Edit::Timeout(t) => drain.timeout = t.map(SignedDuration::from_secs),
                    Edit::OnTimeout(o) => drain.on_timeout = o,
                }
                match drain.stand(now) {
                    Stand::Announce { at, force_at } if !crash => {
                        prop_assert!(force_at > now);
                        drain.announced_at = Some(at);
                        told = Some(now);
                    }
                    Stand::Forced => {
                        let timeout = drain.timeout.unwrap();
                        prop_assert_eq!(drain.on_timeout, OnTimeout::ForceDelete);
                        prop_assert!(now >= started + timeout);
                        prop_assert!(now.duration_since(told.unwrap()) >= timeout.min(NOTICE));
                    }
                    Stand::GivenUp | Stand::Overdue | Stand::Running { .. } => {
                        if let Stand::Running { wake: Some(wake) } = drain.stand(now) {
                            prop_assert!(wake > now);
                        }
                        if !crash {
                            drain.announced_at = None;
                            told = None;
                        }
                    }
                    Stand::Announce { .. } | Stand::Announced { .. } => {}
                }
            }
        }
    }
}
