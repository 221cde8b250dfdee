//! Calls at a steady rate, whether or not earlier ones are answered, and how long each took.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What came of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// How long answered calls took.
    answered: Vec<Duration>,
    failed: usize,
    /// From the first call to the last answer.
    took: Duration,
}

/// Calls `rate` times a second. A call's time counts from the moment at which it was due, so that a caller that can't keep
/// up shows. Each is told which one it is, from 0.
pub(crate) async fn open_loop<F>(rate: u32, during: Duration, call: impl Fn(usize) -> F) -> Result<Load>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut calls = JoinSet::new();
    let count = (f64::from(rate) * during.as_secs_f64()) as u32;
    for n in 0..count {
        let due = began + Duration::from_secs_f64(f64::from(n) / f64::from(rate));
        sleep_until(due).await;
        let call = call(n as usize);
        calls.spawn(async move { (call.await, due.elapsed()) });
    }
    let mut load = Load::default();
    let mut failure = None;
    while let Some(done) = calls.join_next().await {
        match done? {
            (Ok(()), took) => load.answered.push(took),
            (Err(error), _) => {
                load.failed += 1;
                failure = Some(error);
            }
        }
    }
    load.took = began.elapsed();
    if let Some(error) = failure.filter(|_| load.failed * 100 > load.answered.len()) {
        return Err(error.context(format!("{} of {count} calls failed", load.failed)));
    }
    ensure!(!load.answered.is_empty(), "no call in {during:?}");
    Ok(load)
}

impl Load {
    /// More of the same kind.
    pub(crate) fn add(&mut self, more: Self) {
        self.answered.extend(more.answered);
        self.failed += more.failed;
        self.took += more.took;
    }

    /// The time within which this share of the calls was answered.
    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.answered.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// A row of the table.
    pub(crate) fn row(&self, what: &str) -> String {
        let [p50, p90, p99, longest] = [0.5, 0.9, 0.99, 1.0].map(|q| millis(self.quantile(q)));
        let rate = self.answered.len() as f64 / self.took.as_secs_f64();
        format!(
            "| {what} | {rate:.0} | {} | {} | {p50:.1} | {p90:.1} | {p99:.1} | {longest:.1} |",
            self.answered.len(),
            self.failed
        )
    }

    /// What these took longer than `other`.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let added = |q| millis(self.quantile(q)) - millis(other.quantile(q));
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(added);
        format!("| added by the webhook | | | | {p50:+.1} | {p90:+.1} | {p99:+.1} | |")
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_go_out_at_their_rate_whether_answered_or_not() {
        let call = |_| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(())
        };
        let load = open_loop(100, Duration::from_secs(1), call).await.unwrap();
        assert_eq!(load.answered.len(), 100);
        assert!(load.took < Duration::from_millis(1600), "{:?}", load.took);
        assert!(load.quantile(0.99) < Duration::from_millis(510));
    }

    #[test]
    fn quantiles_are_of_the_calls() {
        let load = Load {
            answered: (1..=200).rev().map(Duration::from_millis).collect(),
            ..Load::default()
        };
        let of = |q| load.quantile(q).as_millis();
        assert_eq!((of(0.5), of(0.99), of(1.0)), (100, 198, 200));
    }
}
