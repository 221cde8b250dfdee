//! A token bucket.

use jiff::{SignedDuration, Timestamp};

/// Half a billionth of a token is rounding, not a token that is missing.
const ROUNDING: f64 = 1e-9;

/// What a bucket lets through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Tokens per second.
    pub(super) per_second: f64,
    /// Most tokens kept.
    pub(super) burst: f64,
}

/// Tokens at a moment. The rate is an argument of every look at it, because orders change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    as_of: Timestamp,
}

impl Bucket {
    pub(super) fn new(tokens: f64, now: Timestamp) -> Self {
        Self { tokens, as_of: now }
    }

    fn level(&self, rate: Rate, now: Timestamp) -> f64 {
        let passed = now.duration_since(self.as_of).as_secs_f64().max(0.0);
        (self.tokens + passed * rate.per_second).min(rate.burst)
    }

    /// `None` when there is a token now, else the moment at which there will be one.
    pub(super) fn empty_until(&self, rate: Rate, now: Timestamp) -> Option<Timestamp> {
        let missing = 1.0 - self.level(rate, now);
        if missing <= ROUNDING {
            return None;
        }
        let wait = SignedDuration::try_from_secs_f64(missing / rate.per_second.max(f64::MIN_POSITIVE))
            .unwrap_or(SignedDuration::MAX);
        // A microsecond more, so that the token is there and not all but there.
        let wait = wait.saturating_add(SignedDuration::from_micros(1));
        Some(now.checked_add(wait).unwrap_or(Timestamp::MAX))
    }

    pub(super) fn take(&mut self, rate: Rate, now: Timestamp) {
        *self = Self {
            tokens: self.level(rate, now) - 1.0,
            as_of: now,
        };
    }

    /// Gives up what was saved for a burst, and saves nothing before `until`.
    pub(super) fn forgo_burst(&mut self, until: Timestamp) {
        *self = Self {
            tokens: self.tokens.min(1.0),
            as_of: self.as_of.max(until),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_rate(
            gaps in prop::collection::vec(0i64..400, 1..300),
            per_second in 1u32..50,
            burst in 1u32..40,
        ) {
            let rate = Rate { per_second: f64::from(per_second), burst: f64::from(burst) };
            let mut bucket = Bucket::new(rate.burst, at(0));
            let mut taken = Vec::new();
            let mut clock = 0;
            for gap in gaps {
                clock += gap;
                if bucket.empty_until(rate, at(clock)).is_none() {
                    bucket.take(rate, at(clock));
                    taken.push(clock);
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let seconds = (to - from) as f64 / 1000.0;
                    prop_assert!((j - i + 1) as f64 <= rate.burst + seconds * rate.per_second + 0.001);
                }
            }
        }

        #[test]
        fn a_token_is_there_when_it_was_promised(tokens in 0.0f64..1.0, per_second in 1u32..2000) {
            let rate = Rate { per_second: f64::from(per_second), burst: 5.0 };
            let bucket = Bucket::new(tokens, at(0));
            if let Some(until) = bucket.empty_until(rate, at(0)) {
                prop_assert!(until > at(0));
                prop_assert_eq!(bucket.empty_until(rate, until), None);
            }
        }
    }
}
