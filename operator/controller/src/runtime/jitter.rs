//! Random spread of waiting times, so that many waiters do not act in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// 64 random bits from the process's hash seeds: good enough to spread, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// `base` lengthened by up to `share` of itself.
pub fn spread(base: Duration, share: f64) -> Duration {
    let unit = f64::from((random() >> 32) as u32) / f64::from(u32::MAX);
    base.mul_f64(1.0 + share * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_within_its_bounds_and_does_spread() {
        let base = Duration::from_secs(10);
        let values: Vec<Duration> = (0..64).map(|_| spread(base, 0.5)).collect();
        assert!(values.iter().all(|v| (base..=base.mul_f64(1.5)).contains(v)));
        assert!(values.iter().any(|v| v != &values[0]));
    }
}
