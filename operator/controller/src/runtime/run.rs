//! `vnp-operator run`: the process around an [`Operator`]: threads, log, signals, endpoints, exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::args::{ArgsError, RunArgs};
use super::clients::{Clients, ClientsError};
use super::clock::Clock;
use super::health::{self, Readiness, ServeError};
use super::metrics::Metrics;
use super::operator::{Operator, OperatorError, WATCHES};
use super::telemetry::{self, TelemetryError};
use crate::admission::setup::Setup;
use crate::pool::Broken;

/// Threads: the work is waiting for the API server.
const WORKERS: usize = 2;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The arguments contradict each other.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// There is no log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The system refuses what every process needs.
    #[error("the operating system refuses {0}")]
    System(&'static str, #[source] std::io::Error),
    /// There is no way to the API server.
    #[error(transparent)]
    Clients(#[from] ClientsError),
    /// An endpoint does not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The operator can't go on.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl RunError {
    /// 2: the command line or RUST_LOG is wrong. 3: the lease was lost. 1: everything else.
    fn code(&self) -> u8 {
        match self {
            Self::Args(_) | Self::Telemetry(_) => 2,
            Self::Operator(OperatorError::LeaseLost(_)) => 3,
            _ => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT (code 0), or until it can't go on (see [`RunError`]).
pub fn main(args: RunArgs) -> ExitCode {
    let Err(error) = start(args) else {
        return ExitCode::SUCCESS;
    };
    // The log may be what could not be started.
    if !tracing::dispatcher::has_been_set() {
        let told = writeln!(std::io::stderr(), "vnp-operator: {}", chain(&error));
        drop(told);
    }
    tracing::error!(error = &error as &dyn std::error::Error, "the operator ends");
    ExitCode::from(error.code())
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn start(args: RunArgs) -> Result<(), RunError> {
    args.check()?;
    telemetry::init(args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|e| RunError::System("threads", e))?;
    runtime.block_on(run(args))
}

/// SIGTERM or SIGINT.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    fn new() -> Result<Self, RunError> {
        let of = |kind| signal(kind).map_err(|e| RunError::System("signal handlers", e));
        Ok(Self {
            term: of(SignalKind::terminate())?,
            int: of(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

async fn run(args: RunArgs) -> Result<(), RunError> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = args.namespace,
        provider_namespaces = args.provider_namespaces.join(","),
        "vnp-operator starts"
    );
    let mut stop = Stop::new()?;
    let clock = Clock::of_host();
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    readiness.set(WATCHES, false);
    let clients = Clients::infer(args.lease.timing(), &clock).await?;
    let health = health::bind("--health-addr", args.health_addr)?;
    let exposed = health::bind("--metrics-addr", args.metrics_addr)?;
    let webhook = match args.webhook.no_webhook {
        true => None,
        false => Some(Setup {
            address: args.webhook.address(&args.namespace)?,
            listener: health::bind("--webhook-addr", args.webhook.webhook_addr)?,
            probe_namespace: args.webhook.webhook_probe_namespace,
            probe_every: Duration::from_secs(args.webhook.webhook_probe_seconds.into()),
        }),
    };
    let operator = Operator {
        namespace: args.namespace,
        provider_namespaces: args.provider_namespaces,
        evictions_per_second: args.evictions_per_second,
        lease: args.lease.timing(),
        clients,
        clock,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        webhook,
    };
    // Tasks of their own: a busy pass must not hold back a probe.
    let mut endpoints = JoinSet::new();
    endpoints.spawn(health::serve_health(health, readiness).map(|e| ended(e, "the health endpoints")));
    endpoints.spawn(health::serve_metrics(exposed, metrics).map(|e| ended(e, "the metrics endpoint")));
    tokio::select! {
        error = first(&mut endpoints) => Err(error),
        end = operator.run(stop.asked()) => Ok(end?),
    }
}

fn ended(result: Result<(), ServeError>, what: &'static str) -> RunError {
    result
        .err()
        .map_or(OperatorError::Ended(what).into(), RunError::from)
}

/// The first of the tasks that should never end.
async fn first(endpoints: &mut JoinSet<RunError>) -> RunError {
    match endpoints.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => OperatorError::from(Broken::from(error)).into(),
        None => OperatorError::Ended("everything in the background").into(),
    }
}
