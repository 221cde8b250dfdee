//! The clients. kube's own retries wait inside a call for minutes on answers that are meant for us: a 429 from the
//! Eviction API is a budget, and a lease can't wait at all. So one client retries and one never does.

use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{Config, InferConfigError};
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;

use super::clock::{Clock, SetByAnswers};
use super::lease::Timing;

/// Longest time from a request to the head of its answer, retries included. A watch has its head at once.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where nothing is retried, at most.
const FAST_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a watch lasts before it is opened anew; also how long a silently dead connection can go unnoticed.
pub const WATCH_SECONDS: u32 = 55;
/// Longest silence while an answer is read. Above [`WATCH_SECONDS`], so it never cuts a healthy watch, and it bounds the
/// body of every other answer.
const READ_TIMEOUT: Duration = Duration::from_secs(65);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in flight; a watch counts until its head has come.
const IN_FLIGHT: usize = 64;

/// All clients.
#[derive(Clone)]
pub struct Clients {
    /// Retries 429, 503 and 504 within [`CALL_TIMEOUT`]: for watches and ordinary writes.
    pub ordinary: Client,
    /// Retries nothing: for evictions and everything whose answer is told apart.
    pub fast: Client,
    /// The same for the lease alone, which must not queue behind evictions.
    pub lease: Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// Neither kubeconfig nor service account.
    #[error("no way to the API server: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[from] InferConfigError),
    /// The configuration can't be used.
    #[error("the API server's configuration can't be used")]
    Build(#[from] kube::Error),
}

impl Clients {
    /// Clients from KUBECONFIG, `~/.kube/config` or the pod's service account, in this order.
    ///
    /// # Errors
    /// [`ClientsError`] when there is none of these or it is unusable.
    pub async fn infer(timing: Timing, clock: &Clock) -> Result<Self, ClientsError> {
        Self::new(Config::infer().await?, timing, clock)
    }

    /// Clients for a given configuration.
    ///
    /// # Errors
    /// [`ClientsError::Build`] when the configuration is unusable.
    pub fn new(mut config: Config, timing: Timing, clock: &Clock) -> Result<Self, ClientsError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.write_timeout = Some(WRITE_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        let ordinary = build(config.clone(), CALL_TIMEOUT, clock)?;
        config.default_retry = false;
        // A write begun under the lease has ended before another leader begins.
        let limit = timing
            .duration
            .saturating_sub(timing.renew_deadline)
            .min(FAST_CALL_TIMEOUT);
        let fast = build(config.clone(), limit, clock)?;
        let lease = build(config, limit, clock)?;
        Ok(Self {
            ordinary,
            fast,
            lease,
        })
    }
}

fn build(config: Config, timeout: Duration, clock: &Clock) -> Result<Client, ClientsError> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&ConcurrencyLimitLayer::new(IN_FLIGHT))
        .with_layer(&TimeoutLayer::new(timeout))
        .with_layer(&SetByAnswers(clock.clone()))
        .build())
}
