//! Waiting for something, and watching that something stays.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

/// A probe that hangs is a probe that fails.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// Asks until the probe succeeds, and returns what it found.
///
/// # Errors
/// When `within` has passed: `what`, and why the last probe failed.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let reason = match tokio::time::timeout(PROBE_TIMEOUT, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the probe did not return"),
        };
        if Instant::now() >= deadline {
            return Err(reason).with_context(|| format!("waited {within:?} until {what}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Asks again and again for `during`; every probe must succeed.
///
/// # Errors
/// When one does not: `what`, after how long, and why.
pub async fn always(what: &str, during: Duration, mut probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < during {
        let asked = started.elapsed();
        probe()
            .await
            .with_context(|| format!("after {asked:?} of {during:?} it did not hold that {what}"))?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_is_found() {
        let mut asked = 0;
        let found = eventually("it comes", Duration::from_secs(5), async || {
            asked += 1;
            ensure!(asked > 3, "asked {asked} times");
            Ok(asked)
        });
        assert_eq!(found.await.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_told_with_the_last_reason() {
        let never = eventually("it comes", Duration::from_secs(5), async || -> Result<()> {
            anyhow::bail!("two of three pods are Pending")
        });
        let message = format!("{:#}", never.await.unwrap_err());
        assert_eq!(message, "waited 5s until it comes: two of three pods are Pending");
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_in_between_does_not_hold() {
        let mut asked = 0;
        let held = always("it holds", Duration::from_secs(5), async || {
            asked += 1;
            ensure!(asked != 7, "broken");
            Ok(())
        });
        assert!(held.await.is_err());
    }
}
