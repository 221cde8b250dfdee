//! The tasks' clock: starts at the wall clock's time and then runs with the monotonic one, so that a clock that is set
//! neither stalls a drain nor lets a burst through.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Timestamp,
    since: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            wall: Timestamp::now(),
            since: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// The moment to sleep until.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        let wait = std::time::Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        Instant::now() + wait
    }
}
