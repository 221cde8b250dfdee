//! How hard the API server may be asked: less when it says that it is overloaded, slowly more again. One server, hence
//! one of these for all pools.

use jiff::{SignedDuration, Timestamp};

/// After an overload the rate grows by this share of the full rate per second.
const RECOVERY_PER_SECOND: f64 = 0.05;
/// It never falls below this share, so that recovery is seen.
const LEAST: f64 = 1.0 / 64.0;
/// Pause after an overload that came without `Retry-After`.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// First pause after an answer that did not come; doubled each time.
const OUTAGE: SignedDuration = SignedDuration::from_millis(250);
/// Longest such pause.
const LONGEST_OUTAGE: SignedDuration = SignedDuration::from_secs(10);

/// The state of the brake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    /// When the rate was cut last, and to which share.
    cut: Option<(Timestamp, f64)>,
    /// When the last pause began, for answers to requests that were under way already.
    braked_at: Option<Timestamp>,
    paused_until: Option<Timestamp>,
    outages: u32,
}

impl Flow {
    /// The share of the full rate that is allowed now.
    pub(super) fn share(&self, now: Timestamp) -> f64 {
        let Some((at, share)) = self.cut else { return 1.0 };
        let passed = now.duration_since(at).as_secs_f64().max(0.0);
        (share + passed * RECOVERY_PER_SECOND).min(1.0)
    }

    pub(super) fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.filter(|until| now < *until)
    }

    /// The server answered 429 for its own sake. When the rate was cut, the end of the pause. Answers to requests that
    /// were sent before the last cut do not cut again, or one storm would bring the rate to nothing.
    pub(super) fn overloaded(
        &mut self,
        sent_at: Timestamp,
        retry_after: Option<SignedDuration>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.pause(retry_after.unwrap_or(PAUSE), now);
        self.outages = 0;
        if self.under_way(sent_at) {
            return None;
        }
        self.cut = Some((now, (self.share(now) / 2.0).max(LEAST)));
        self.braked_at = Some(now);
        self.paused_until
    }

    /// No answer came, or none that says what happened.
    pub(super) fn silent(&mut self, sent_at: Timestamp, now: Timestamp) {
        if self.under_way(sent_at) {
            return;
        }
        let pause = OUTAGE
            .checked_mul(1 << self.outages.min(10))
            .unwrap_or(LONGEST_OUTAGE)
            .min(LONGEST_OUTAGE);
        self.pause(pause, now);
        self.outages = self.outages.saturating_add(1);
        self.braked_at = Some(now);
    }

    /// The server answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.outages = 0;
    }

    fn under_way(&self, sent_at: Timestamp) -> bool {
        self.braked_at.is_some_and(|at| sent_at < at)
    }

    fn pause(&mut self, pause: SignedDuration, now: Timestamp) {
        let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn one_storm_halves_once_and_recovers_step_by_step() {
        let mut flow = Flow::default();
        assert_eq!(flow.overloaded(at(0), None, at(100)), Some(at(1_100)));
        for answer in 101..120 {
            assert_eq!(flow.overloaded(at(50), None, at(answer)), None);
        }
        assert!((flow.share(at(100)) - 0.5).abs() < 1e-9);
        assert!((flow.share(at(5_100)) - 0.75).abs() < 1e-9);
        assert!((flow.share(at(60_000)) - 1.0).abs() < 1e-9);
        assert!(flow.overloaded(at(200), None, at(5_100)).is_some());
        assert!((flow.share(at(5_100)) - 0.375).abs() < 1e-9);
    }

    #[test]
    fn retry_after_is_honoured() {
        let mut flow = Flow::default();
        flow.overloaded(at(0), Some(SignedDuration::from_secs(8)), at(0));
        flow.overloaded(at(0), Some(SignedDuration::from_secs(1)), at(10));
        assert_eq!(flow.paused_until(at(7_999)), Some(at(8_000)));
        assert_eq!(flow.paused_until(at(8_000)), None);
    }

    #[test]
    fn an_outage_is_asked_about_less_and_less() {
        let mut flow = Flow::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            flow.silent(at(now), at(now));
            flow.silent(at(now - 1), at(now));
            let until = flow.paused_until(at(now)).unwrap();
            pauses.push(until.duration_since(at(now)).as_millis());
            now = until.as_millisecond() - at(0).as_millisecond();
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        flow.answered();
        flow.silent(at(now), at(now));
        assert_eq!(flow.paused_until(at(now)), Some(at(now + 250)));
    }
}
