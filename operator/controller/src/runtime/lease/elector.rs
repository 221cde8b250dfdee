//! Carries out the rules against the API server.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::election::{Attempt, Election};
use super::{Claim, LEASE_NAME, LeaseLost, Timing};
use crate::runtime::jitter::{random, spread};

/// Takes, holds and hands over the lease.
pub struct Elector {
    api: Api<Lease>,
    election: Election,
    claim: Claim,
}

/// An attempt that failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refused or could not be reached.
    #[error("the Lease {LEASE_NAME} can't be read or written")]
    Api(#[from] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer in time about the Lease {LEASE_NAME}")]
    Timeout,
}

/// How others are told apart from earlier runs on the same host: each process is a term of its own.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty());
    format!("{}_{:016x}", host.as_deref().unwrap_or("vnp-operator"), random())
}

impl Elector {
    /// For the Lease in `namespace`; `fast` is the client that does not retry.
    pub fn new(fast: Client, namespace: &str, timing: Timing) -> Self {
        let election = Election::new(identity(), namespace.to_owned(), timing);
        Self {
            api: Api::namespaced(fast, namespace),
            election,
            claim: Claim::vacant(),
        }
    }

    /// The claim; void until [`Self::acquire`] has returned.
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// What this process is called in the Lease.
    pub fn identity(&self) -> &str {
        self.election.identity()
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        let period = self.election.timing().retry_period;
        let mut told = None;
        loop {
            match self.bounded_try().await {
                Ok(true) => {
                    tracing::info!(
                        identity = self.election.identity(),
                        transitions = self.claim.transitions(),
                        "this process leads"
                    );
                    return;
                }
                Ok(false) => {
                    let holder = self.election.holder().map(ToOwned::to_owned);
                    if holder != told {
                        tracing::info!(
                            holder = holder.as_deref().unwrap_or("nobody"),
                            "waiting for the leader lease"
                        );
                        told = holder;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "leader lease not taken")
                }
            }
            // Spread, so that candidates which started together do not meet again and again.
            sleep(spread(period, 0.2)).await;
        }
    }

    /// Renews the lease until it is lost. It is safe to drop in the middle.
    pub async fn hold(&mut self) -> LeaseLost {
        let period = self.election.timing().retry_period;
        loop {
            sleep(period).await;
            match self.bounded_try().await {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    holder = self.election.holder(),
                    "the leader lease has another holder"
                ),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "leader lease not renewed"
                ),
            }
            match self.election.acts_until() {
                Some(until) if Instant::now() < until => {}
                _ => {
                    self.claim.revoke();
                    return LeaseLost;
                }
            }
        }
    }

    /// Ends the claim and hands the lease over, so that the next leader need not wait for it to run out.
    ///
    /// # Errors
    /// [`LeaseError`]: then it runs out by itself.
    pub async fn release(mut self) -> Result<(), LeaseError> {
        self.claim.revoke();
        // Read first: a renewal that was cut off may have gone through.
        let lease = self.api.get_opt(LEASE_NAME).await?;
        self.election.read(lease, Instant::now());
        if let Some(lease) = self.election.release(Timestamp::now()) {
            self.api
                .replace(LEASE_NAME, &PostParams::default(), &lease)
                .await?;
            tracing::info!("leader lease handed over");
        }
        Ok(())
    }

    async fn bounded_try(&mut self) -> Result<bool, LeaseError> {
        let limit = self.election.timing().renew_deadline / 2;
        timeout(limit, self.try_once())
            .await
            .map_err(|_| LeaseError::Timeout)?
    }

    /// One attempt: replace what is known to be ours, or read and then write if it can be had.
    async fn try_once(&mut self) -> Result<bool, LeaseError> {
        if self.election.acts_until().is_none() {
            self.read().await?;
        }
        if self.write().await? {
            return Ok(true);
        }
        // What we knew was stale. A read and a second try cost less than waiting for the next period.
        self.read().await?;
        self.write().await
    }

    async fn read(&mut self) -> Result<(), LeaseError> {
        let lease = self.api.get_opt(LEASE_NAME).await?;
        self.election.read(lease, Instant::now());
        Ok(())
    }

    /// Whether the lease was written and is ours.
    async fn write(&mut self) -> Result<bool, LeaseError> {
        let sent = Instant::now();
        let params = PostParams::default();
        let answer = match self.election.attempt(sent, Timestamp::now()) {
            Attempt::Wait => return Ok(false),
            Attempt::Create(lease) => self.api.create(&params, &lease).await,
            Attempt::Replace(lease) => self.api.replace(LEASE_NAME, &params, &lease).await,
        };
        match answer {
            Ok(lease) => {
                self.election.written(lease, sent);
                if let Some(until) = self.election.acts_until() {
                    self.claim.extend(until, self.election.transitions());
                }
                Ok(true)
            }
            // 409 on create: somebody was faster; on replace: it changed. 404: it was deleted.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
