//! How hard the API server may be asked: less when it says that it is overloaded, slowly more again. One server, hence
//! one of these for all pools.

use jiff::{SignedDuration, Timestamp};

/// Seconds after the pause in which the rate doubles: where the server has few seats, it is found out one by one.
const DOUBLES_IN: f64 = 10.0;
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
    /// Since when the rate grows again, and from which share.
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
        (share * (passed / DOUBLES_IN).exp2()).min(1.0)
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
        self.outages = 0;
        let under_way = self.under_way(sent_at);
        if !under_way {
            self.cut = Some((now, (self.share(now) / 2.0).max(LEAST)));
            self.braked_at = Some(now);
        }
        self.pause(retry_after.unwrap_or(PAUSE), now);
        self.paused_until.filter(|_| !under_way)
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

    /// The server asks for up to 32 s. What it bears is not learned in a pause, so nothing grows in it.
    fn pause(&mut self, pause: SignedDuration, now: Timestamp) {
        let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if self.paused_until.is_none_or(|known| known < until) {
            self.paused_until = Some(until);
            self.cut = self.cut.map(|_| (until, self.share(now)));
        }
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
        // The last answer of the storm prolongs the pause to 1,119.
        let share = |flow: &Flow, millis| (flow.share(at(millis)) * 1000.0).round() / 1000.0;
        assert_eq!(share(&flow, 1_119), 0.5);
        assert_eq!(share(&flow, 6_119), 0.707);
        assert_eq!(share(&flow, 60_000), 1.0);
        assert!(flow.overloaded(at(1_200), None, at(6_119)).is_some());
        assert_eq!(share(&flow, 7_119), 0.354);
    }

    #[test]
    fn nothing_grows_in_a_pause_so_that_its_end_is_no_storm() {
        let mut flow = Flow::default();
        flow.overloaded(at(0), Some(SignedDuration::from_secs(32)), at(0));
        assert!((flow.share(at(32_000)) - 0.5).abs() < 1e-9);
        flow.overloaded(at(32_001), Some(SignedDuration::from_secs(5)), at(32_001));
        flow.overloaded(at(32_001), Some(SignedDuration::from_secs(20)), at(32_002));
        assert!(
            flow.share(at(52_002)) < 0.26,
            "a longer pause among the answers to one storm"
        );
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
