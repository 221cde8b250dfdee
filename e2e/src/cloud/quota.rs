//! The account's rate limit: a token bucket, first come, first served.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A burst, and what is refilled per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Calls that may be made at once.
    pub burst: u32,
    /// Calls per second after that.
    pub per_second: f64,
}

/// ECI's documented limit of `DeleteContainerGroup`.
impl Default for Quota {
    fn default() -> Self {
        Self {
            burst: 100,
            per_second: 20.0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct TokenBucket {
    state: Mutex<Option<State>>,
    /// Held while waiting for a token, which makes the waiting fair.
    queue: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    quota: Quota,
    tokens: f64,
    refilled: Instant,
}

impl TokenBucket {
    /// A new quota starts with a full burst.
    pub(super) fn set(&self, quota: Quota) {
        let state = State {
            quota,
            tokens: f64::from(quota.burst),
            refilled: Instant::now(),
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    pub(super) async fn take(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let _turn = self.queue.lock().await;
        while let Some(wait) = self.try_take() {
            // Not the whole wait at once: the quota may be changed meanwhile.
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        }
    }

    /// `None` when a token was taken, else how long until there is one.
    fn try_take(&self) -> Option<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let state = state.get_or_insert_with(|| {
            let quota = Quota::default();
            State {
                quota,
                tokens: f64::from(quota.burst),
                refilled: now,
            }
        });
        let refill = now.duration_since(state.refilled).as_secs_f64() * state.quota.per_second;
        state.tokens = (state.tokens + refill).min(f64::from(state.quota.burst.max(1)));
        state.refilled = now;
        if state.tokens >= 1.0 {
            state.tokens -= 1.0;
            return None;
        }
        let missing = (1.0 - state.tokens) / state.quota.per_second;
        Some(Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_burst_is_free_and_the_rest_waits_for_the_refill() {
        let bucket = TokenBucket::default();
        bucket.set(Quota {
            burst: 5,
            per_second: 2.0,
        });
        let started = Instant::now();
        for _ in 0..5 {
            bucket.take().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..4 {
            bucket.take().await;
        }
        let elapsed = started.elapsed().as_secs_f64();
        assert!((1.9..2.5).contains(&elapsed), "{elapsed} s for 4 tokens at 2/s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_new_quota() {
        let bucket = TokenBucket::default();
        bucket.set(Quota {
            burst: 0,
            per_second: 0.0,
        });
        assert!(
            tokio::time::timeout(Duration::from_secs(60), bucket.take())
                .await
                .is_err()
        );
        bucket.set(Quota::default());
        assert!(
            tokio::time::timeout(Duration::from_secs(1), bucket.take())
                .await
                .is_ok()
        );
    }
}
