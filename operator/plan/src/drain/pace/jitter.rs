//! Spread of retry times that is the same for the same pod or budget and the same attempt, so that tests and restarts
//! see the same times, and different ones do not act in step.

use jiff::{SignedDuration, Timestamp};

/// FNV-1a, 64 bits.
fn hash(seed: &str, round: u32) -> u64 {
    seed.bytes()
        .chain(round.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// A moment between `from` and `to` seconds after `now`.
pub(super) fn between(from: f64, to: f64, seed: &str, round: u32, now: Timestamp) -> Timestamp {
    let share = f64::from((hash(seed, round) >> 32) as u32) / f64::from(u32::MAX);
    let seconds = from + (to - from) * share;
    let wait = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX);
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_within_bounds_and_repeats_itself() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let seconds = |seed: &str| {
            between(30.0, 60.0, seed, 1, now)
                .duration_since(now)
                .as_secs_f64()
        };
        let all: Vec<f64> = (0..200).map(|n| seconds(&format!("uid-{n}"))).collect();
        assert!(all.iter().all(|s| (30.0..=60.0).contains(s)));
        assert!(all.iter().any(|s| *s < 37.0) && all.iter().any(|s| *s > 53.0));
        assert_eq!(seconds("uid-1"), seconds("uid-1"));
    }
}
