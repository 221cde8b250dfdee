//! `vnp-operator run`: puts everything together, and takes it apart in the right order.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vnp_plan::observed::OperatorFacts;

use super::args::{ArgsError, RunArgs};
use super::clients::{Clients, ClientsError};
use super::health::{self, Readiness, ServeError};
use super::lease::{Elector, LeaseLost};
use super::metrics::Metrics;
use super::queue::Queue;
use super::telemetry::{self, TelemetryError};
use crate::apply::Applier;
use crate::cluster::ClusterLoop;
use crate::drain::DrainTasks;
use crate::observe::cluster::Cluster;
use crate::observe::watches::Watches;
use crate::pool::{Broken, PoolLoop};
use crate::report::Reporter;

/// Events that belong together come within this time.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long a stop waits for what is under way. Every write is safe to lose before or after.
const STOP_WITHIN: Duration = Duration::from_secs(8);
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
    /// Another process may lead by now.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// A loop broke off.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A task that has no end came to one.
    #[error("{0} ended; this is an error of the operator")]
    Ended(&'static str),
}

impl RunError {
    /// 2: the command line or RUST_LOG is wrong. 3: the lease was lost. 1: everything else.
    fn code(&self) -> u8 {
        match self {
            Self::Args(_) | Self::Telemetry(_) => 2,
            Self::LeaseLost(_) => 3,
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
    let clients = Clients::infer(args.lease.timing()).await?;
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let cluster = Cluster::new(
        &args.provider_namespaces,
        Queue::new(DEBOUNCE),
        Queue::new(DEBOUNCE),
    );
    let watches = Watches {
        client: clients.ordinary.clone(),
        namespace: args.namespace.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
    };
    let watches = watches.run(cluster.clone());
    let health = health::bind("--health-addr", args.health_addr).await?;
    let exposed = health::bind("--metrics-addr", args.metrics_addr).await?;
    let mut elector = Elector::new(clients.lease.clone(), &args.namespace, args.lease.timing());
    // Tasks of their own: a busy pass must not hold back a watch or a probe.
    let mut background = JoinSet::new();
    background.spawn(async move { watches.map(|()| RunError::Ended("the watches")).await });
    background.spawn(health::serve_health(health, readiness).map(|e| ended(e, "the health endpoints")));
    background
        .spawn(health::serve_metrics(exposed, metrics.clone()).map(|e| ended(e, "the metrics endpoint")));

    tokio::select! {
        error = first(&mut background) => return Err(error),
        () = stop.asked() => {
            tracing::info!("stopped before it led");
            return Ok(());
        }
        () = elector.acquire() => metrics.leads(true),
    }
    let mut loops = Loops::start(&args, &clients, cluster, metrics, &elector);
    tokio::select! {
        error = first(&mut background) => return Err(error),
        lost = elector.hold() => return Err(lost.into()),
        ended = loops.ended() => return Err(ended),
        () = stop.asked() => tracing::info!("stopping"),
    }
    tokio::select! {
        () = loops.stop() => {}
        // Until everything has stopped, the lease must last.
        lost = elector.hold() => return Err(lost.into()),
    }
    match timeout(STOP_WITHIN, elector.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the leader lease runs out by itself"
        ),
        Err(_) => tracing::warn!("the leader lease runs out by itself: no answer to its release"),
    }
    Ok(())
}

fn ended(result: Result<(), ServeError>, what: &'static str) -> RunError {
    result.err().map_or(RunError::Ended(what), RunError::from)
}

/// The first of the tasks that should never end.
async fn first(background: &mut JoinSet<RunError>) -> RunError {
    match background.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => Broken::from(error).into(),
        None => RunError::Ended("everything in the background"),
    }
}

/// What only the leader runs.
struct Loops {
    stop: watch::Sender<bool>,
    running: JoinSet<Result<(), Broken>>,
    pools: Arc<PoolLoop>,
}

impl Loops {
    fn start(
        args: &RunArgs,
        clients: &Clients,
        cluster: Arc<Cluster>,
        metrics: Metrics,
        elector: &Elector,
    ) -> Self {
        let (claim, fast) = (elector.claim(), &clients.fast);
        let operator = OperatorFacts {
            provider_namespaces: args.provider_namespaces.clone(),
            namespace: args.namespace.clone(),
            lease_transitions: claim.transitions(),
            leading_since: Timestamp::now(),
        };
        let applier = Applier::new(
            fast.clone(),
            claim.clone(),
            metrics.clone(),
            args.namespace.clone(),
        );
        let wake = {
            let cluster = cluster.clone();
            Arc::new(move |uid: &str| cluster.wake_uid(uid))
        };
        let cap = args.evictions_per_second;
        let tasks = DrainTasks::new(
            fast.clone(),
            claim.clone(),
            metrics.clone(),
            cap,
            cluster.memories.clone(),
            wake,
        );
        let instance = elector.identity().to_owned();
        let pools = Arc::new(PoolLoop {
            fast: fast.clone(),
            applier: applier.clone(),
            tasks,
            reporter: Reporter::new(fast.clone(), claim, metrics.clone(), instance),
            metrics: metrics.clone(),
            operator: operator.clone(),
            passes: Mutex::new(HashMap::new()),
            cluster: cluster.clone(),
        });
        let all = Arc::new(ClusterLoop {
            cluster: cluster.clone(),
            applier,
            metrics,
            operator,
            failures: Mutex::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(pools.clone().run(stopped.clone()));
        running.spawn(pools.clone().withdraw_on_edit(stopped.clone()));
        running.spawn(all.run(stopped));
        cluster.wake_all();
        Self { stop, running, pools }
    }

    /// A loop ended although nobody asked it to.
    async fn ended(&mut self) -> RunError {
        match self.running.join_next().await {
            Some(Ok(Err(error))) => error.into(),
            Some(Err(error)) => Broken::from(error).into(),
            Some(Ok(Ok(()))) | None => RunError::Ended("a loop"),
        }
    }

    /// Begins nothing more, and waits for what is under way: passes first, because they could give out drain orders.
    async fn stop(&mut self) {
        self.stop.send_replace(true);
        let all = async {
            while self.running.join_next().await.is_some() {}
            self.pools.tasks.stop().await;
        };
        if timeout(STOP_WITHIN, all).await.is_err() {
            tracing::warn!("what is under way is abandoned; the next leader goes on from what it sees");
        }
    }
}
