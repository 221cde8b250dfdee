//! The leader lease, by the rules of client-go's leader election: somebody else's lease counts from the moment *we* saw it
//! change, on our monotonic clock, so that clocks need not agree; every write replaces what was read
//! (resourceVersion); the leader stops before others may start. Beyond these rules, a leader whose Lease was deleted or taken
//! leads no more, whatever becomes of the Lease: others may have led since, and their terms may be counted like its own.
//!
//! Own code because no crate for kube 5 keeps these rules: the one that builds renews without a resourceVersion and does
//! not stop on API errors.

mod election;
mod elector;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use elector::{Elector, LeaseError};

/// Name of the Lease in the operator's namespace.
pub const LEASE_NAME: &str = "virtualnodepool-operator";

/// Timing of the lease; `retry_period` < `renew_deadline` < `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a silent leader.
    pub duration: Duration,
    /// How long a leader acts on without a renewal.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// client-go's.
    fn default() -> Self {
        let (duration, renew_deadline, retry_period) = (
            Duration::from_secs(15),
            Duration::from_secs(10),
            Duration::from_secs(2),
        );
        Self {
            duration,
            renew_deadline,
            retry_period,
        }
    }
}

/// The lease is not held (any more). Nothing may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leader lease is not held; another replica acts, or the API server did not answer in time")]
pub struct LeaseLost;

/// The right to write, as long as it lasts. It is checked right before each write.
#[derive(Clone, Debug)]
pub struct Claim(Arc<Mutex<Option<Instant>>>);

impl Claim {
    fn vacant() -> Self {
        Self(Arc::default())
    }

    /// A claim that lasts, for tests.
    #[cfg(test)]
    pub(crate) fn lasting() -> Self {
        let until = Some(Instant::now() + Duration::from_secs(86_400));
        Self(Arc::new(Mutex::new(until)))
    }

    /// Whether the lease is held right now, by the monotonic clock.
    ///
    /// # Errors
    /// [`LeaseLost`] when it is not; the write must not be made.
    pub fn check(&self) -> Result<(), LeaseLost> {
        match *self.until() {
            Some(until) if Instant::now() < until => Ok(()),
            _ => Err(LeaseLost),
        }
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, until: Instant) {
        *self.until() = Some(until);
    }

    /// Ends the claim: no write begins after this.
    pub(crate) fn revoke(&self) {
        *self.until() = None;
    }
}
