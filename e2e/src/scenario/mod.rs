//! A scenario: one test on the environment of its binary, with names of its own, explained when it fails.
//!
//! ```no_run
//! use std::time::Duration;
//! use vnp_e2e::operator::OperatorOptions;
//! use vnp_e2e::scenario::{Scenario, eventually, manifests};
//!
//! #[tokio::test(flavor = "multi_thread")]
//! async fn a_pool_becomes_nodes() -> anyhow::Result<()> {
//!     Scenario::run("becomes-nodes", async |s| {
//!         s.start_operator(&OperatorOptions::default()).await?;
//!         s.apply(&s.pool(2)).await?;
//!         s.nodes_ready(2, Duration::from_secs(30)).await?;
//!         s.apply(&manifests::deployment(s.namespace(), "web", 100)).await?;
//!         s.pods_running("app=web", 100, Duration::from_secs(60)).await?;
//!         s.no_leak_within(Duration::from_secs(10)).await
//!     })
//!     .await
//! }
//! ```

mod cleanup;
mod explain;
mod leaks;
pub mod manifests;
mod steps;
mod turns;
mod wait;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use futures::FutureExt;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

pub use leaks::Leaks;
use turns::Turn;
pub use wait::{always, eventually};

use crate::audit::AuditLog;
use crate::cloud::{Cloud, Ledger};
use crate::environment::{Environment, EnvironmentOptions};
use crate::operator::{Operator, OperatorOptions};

/// What a test works with. Its names are derived from the scenario's, which is a DNS label.
pub struct Scenario<'e> {
    name: String,
    environment: &'e Environment,
    client: Client,
    since: Since,
    operators: Mutex<Operators>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    time: Timestamp,
    ledger: usize,
}

#[derive(Debug, Default)]
struct Operators {
    started: Vec<Operator>,
    logs: Vec<PathBuf>,
}

impl<'e> Scenario<'e> {
    /// Runs `body` on an environment that the tests of this binary share, one after the other. Afterwards everything it
    /// made is removed, finalizers included, and the knobs of the cloud are back at their defaults.
    ///
    /// # Errors
    /// What `body` returns, after everything that explains it was printed.
    pub async fn run(name: &str, body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>) -> Result<()> {
        Self::run_in(&Turn::beside_others().await?, name, body).await
    }

    /// As [`Self::run`], while no other scenario runs: for tests with times in them that a busy machine breaks.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_undisturbed(
        name: &str,
        body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>,
    ) -> Result<()> {
        Self::run_in(&Turn::alone().await?, name, body).await
    }

    async fn run_in(
        turn: &Turn,
        name: &str,
        body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>,
    ) -> Result<()> {
        let scenario = Scenario::begin(name, turn.environment().await?).await?;
        let outcome = scenario.play(body).await;
        scenario.clean_up().await?;
        settle(outcome)
    }

    /// As [`Self::run_undisturbed`], on an environment of its own, which ends with it: for tests that need options of
    /// their own, or leave behind what can't be cleaned up.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_alone(
        name: &str,
        options: EnvironmentOptions,
        body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>,
    ) -> Result<()> {
        let _turn = Turn::alone().await?;
        let environment = Environment::start(options).await?;
        let scenario = Scenario::begin(name, &environment).await?;
        settle(scenario.play(body).await)
    }

    async fn begin(name: &str, environment: &'e Environment) -> Result<Self> {
        let client = environment.client().await?;
        let ledger = environment.cloud().ledger().instances().len();
        let since = Since {
            time: Timestamp::now(),
            ledger,
        };
        let operators = Mutex::default();
        let scenario = Self {
            name: name.to_owned(),
            environment,
            client,
            since,
            operators,
        };
        scenario.apply(&manifests::namespace(name)).await?;
        Ok(scenario)
    }

    /// Runs the body; whatever way it fails, explains it and ends the operators.
    async fn play(
        &self,
        body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>,
    ) -> std::thread::Result<Result<()>> {
        let outcome = AssertUnwindSafe(body(self)).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(()))) {
            explain::print(&self.explain().await);
        }
        // A clean stop hands the lease over, so that the next scenario's operator need not wait for it to run out.
        let started = std::mem::take(&mut self.operators().started);
        for mut operator in started {
            if let Err(error) = operator.terminate().await {
                tracing::warn!(%error, "killed instead");
            }
        }
        outcome
    }

    /// Name of the scenario, of its namespace, and of its pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace for its pods; it exists.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// Name of its provider workload in kube-system, from which the names of its nodes derive.
    #[must_use]
    pub fn provider(&self) -> String {
        format!("virtual-node-{}", self.name)
    }

    /// Name of its n-th virtual node, counted from 0.
    #[must_use]
    pub fn node(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.provider())
    }

    /// A pool named after the scenario that creates its provider, with settles of a second. Change it as needed before
    /// it is applied.
    #[must_use]
    pub fn pool(&self, replicas: u32) -> Value {
        manifests::pool(&self.name, &self.provider(), replicas)
    }

    /// When it began: what the audit log shows from then on is its doing.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.since.time
    }

    /// A client as cluster admin.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The environment.
    #[must_use]
    pub fn environment(&self) -> &'e Environment {
        self.environment
    }

    /// The simulated cloud.
    #[must_use]
    pub fn cloud(&self) -> &'e Cloud {
        self.environment.cloud()
    }

    /// Its ledger. It holds the instances of earlier scenarios too; node names tell them apart.
    #[must_use]
    pub fn ledger(&self) -> &'e Ledger {
        self.cloud().ledger()
    }

    /// The audit log, that of earlier scenarios included: see [`Self::began`].
    #[must_use]
    pub fn audit_log(&self) -> AuditLog {
        self.environment.control_plane().audit_log()
    }

    /// Starts an operator that lives until the scenario ends, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Operator::start`] and [`Operator::ready`].
    pub async fn start_operator(&self, options: &OperatorOptions) -> Result<()> {
        let operator = self.spawn_operator(options).await?;
        self.operators().started.push(operator);
        Ok(())
    }

    /// Starts an operator that the caller kills, pauses or drops, and waits until it is ready. Its log is part of the
    /// explanation of a failure.
    ///
    /// # Errors
    /// As [`Operator::start`] and [`Operator::ready`].
    pub async fn spawn_operator(&self, options: &OperatorOptions) -> Result<Operator> {
        let mut operator = Operator::start(self.environment, options).await?;
        self.operators().logs.push(operator.log().to_owned());
        operator.ready().await?;
        Ok(operator)
    }

    fn operators(&self) -> std::sync::MutexGuard<'_, Operators> {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settle(outcome: std::thread::Result<Result<()>>) -> Result<()> {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
