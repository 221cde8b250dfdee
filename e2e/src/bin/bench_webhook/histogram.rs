//! The webhook's own time, out of its metric.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const BUCKET: &str = "virtualnodepool_webhook_duration_seconds_bucket{le=\"";

/// How many calls took at most how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// Out of the text of `/metrics`.
    pub(crate) fn read(metrics: &str) -> Result<Self> {
        let buckets = metrics.lines().filter_map(|line| line.strip_prefix(BUCKET));
        let read = |line: &str| {
            let (bound, count) = line.split_once("\"} ")?;
            let bound = bound.replace('+', "").parse().ok()?;
            Some((bound, count.parse().ok()?))
        };
        let buckets: Vec<_> = buckets
            .map(|line| read(line).with_context(|| format!("no bucket: {line}")))
            .collect::<Result<_>>()?;
        ensure!(!buckets.is_empty(), "no {BUCKET}");
        Ok(Self(buckets))
    }

    /// What came after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(
            pairs
                .map(|((bound, now), (_, then))| (*bound, now - then))
                .collect(),
        )
    }

    /// The share that took at most so long, where there is such a bucket.
    pub(crate) fn within(&self, time: Duration) -> Option<f64> {
        let (_, all) = self.0.last()?;
        let (_, count) = self.0.iter().find(|(bound, _)| *bound == time.as_secs_f64())?;
        Some(*count as f64 / *all as f64)
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.last().map_or(0, |(_, all)| *all);
        write!(f, "{all} calls")?;
        for (bound, count) in &self.0 {
            let share = *count as f64 / all.max(1) as f64 * 100.0;
            write!(f, ", {share:.2} % within {} ms", bound * 1000.0)?;
            if *count == all {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_came_since() {
        let text = |a: u64, b: u64| {
            format!(
                "x 1\n{BUCKET}0.005\"}} {a}\n{BUCKET}+Inf\"}} {b}\nvirtualnodepool_webhook_duration_seconds_count {b}\n"
            )
        };
        let [before, after] = [(5, 10), (104, 110)].map(|(a, b)| Histogram::read(&text(a, b)).unwrap());
        let since = after.since(&before);
        assert_eq!(since.within(Duration::from_millis(5)), Some(0.99));
        assert_eq!(since.within(Duration::from_millis(7)), None);
        assert_eq!(
            since.to_string(),
            "100 calls, 99.00 % within 5 ms, 100.00 % within inf ms"
        );
        assert!(Histogram::read("nothing").is_err());
    }
}
