//! Time as this server tells it: a fixed beginning and the runtime's clock, which tests pause and advance.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Second 0 of every server unless told otherwise: 2026-11-01T00:00:00Z.
const BEGIN: i64 = 1_793_491_200;

/// The clock of one server.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Timestamp,
    anchor: Instant,
}

impl Clock {
    /// Starts now, and calls that 2026-11-01T00:00:00Z.
    pub(crate) fn start() -> Self {
        Self {
            start: Timestamp::from_second(BEGIN).unwrap_or(Timestamp::UNIX_EPOCH),
            anchor: Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.saturating_add(passed).unwrap_or(self.start)
    }

    /// Since the server was started.
    pub fn elapsed(&self) -> Duration {
        self.anchor.elapsed()
    }

    /// Now as objects carry it: whole seconds, RFC 3339.
    pub fn stamp(&self) -> String {
        Self::format(self.now())
    }

    /// A time as objects carry it.
    pub fn format(time: Timestamp) -> String {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Now as the `Date` header has it.
    pub(crate) fn date(&self) -> String {
        self.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}
