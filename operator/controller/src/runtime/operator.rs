//! One operator from its first watch to the hand-over of its lease, whoever starts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vnp_plan::observed::OperatorFacts;

use super::clients::Clients;
use super::clock::Clock;
use super::health::Readiness;
use super::lease::{Elector, LeaseLost, Timing};
use super::metrics::Metrics;
use super::queue::Queue;
use crate::admission::onlooker::Onlooker;
use crate::admission::setup::{Answering, Setup, TlsError};
use crate::admission::survey::Survey;
use crate::apply::Applier;
use crate::cluster::ClusterLoop;
use crate::drain::DrainTasks;
use crate::observe::cluster::Cluster;
use crate::observe::watches::Watches;
use crate::overflow::OverflowLoop;
use crate::pool::{Broken, PoolLoop};
use crate::report::Reporter;

/// Events that belong together come within this time.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long a stop waits for what is under way. Every write is safe to lose before or after.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// What is missing until every watch has said what is.
pub(super) const WATCHES: &str = "the watches";

/// Why an operator ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Another process may lead by now.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// The webhook can't be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A loop broke off.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A task that has no end came to one.
    #[error("{0} ended; this is an error of the operator")]
    Ended(&'static str),
}

/// What an operator needs.
pub struct Operator {
    /// Namespace of its Lease, Secrets and ConfigMaps.
    pub namespace: String,
    /// Namespaces in which workloads may be managed.
    pub provider_namespaces: Vec<String>,
    /// Most evictions per second of all pools together, 0: no such cap.
    pub evictions_per_second: u32,
    /// Timing of the leader lease.
    pub lease: Timing,
    /// The ways to the API server.
    pub clients: Clients,
    /// What time it is.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// What has to be there before it is ready.
    pub readiness: Readiness,
    /// The pod webhook, `None` to serve none.
    pub webhook: Option<Setup>,
}

impl Operator {
    /// Watches, waits for the lease, leads until `stop` is there, stops what is under way and hands the lease over.
    ///
    /// # Errors
    /// [`OperatorError`] when it can't go on; nothing is written after that.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), OperatorError> {
        tokio::pin!(stop);
        let queue = || Queue::new(DEBOUNCE);
        let cluster = Cluster::new(&self.provider_namespaces, queue(), queue(), self.clock.clone());
        let watches = Watches {
            client: self.clients.ordinary.clone(),
            namespace: self.namespace.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            webhook: self.webhook.is_some(),
        };
        // A task of its own: a busy pass must not hold back a watch.
        let mut watching = JoinSet::new();
        watching.spawn(watches.run(cluster.clone()));
        let answering = match self.webhook.take() {
            None => None,
            Some(setup) => Some(setup.start(
                &cluster,
                self.clients.ordinary.clone(),
                &self.metrics,
                &self.readiness,
                &mut watching,
            )?),
        };
        self.readiness.forget(WATCHES);
        let mut elector = Elector::new(
            self.clients.lease.clone(),
            &self.namespace,
            self.lease,
            self.clock.clone(),
        );
        tokio::select! {
            error = end_of(&mut watching) => return Err(error),
            () = &mut stop => {
                tracing::info!("stopped before it led");
                if let Some(answering) = answering {
                    answering.finish().await;
                }
                return Ok(());
            }
            () = elector.acquire() => self.metrics.leads(true),
        }
        let mut loops = Loops::start(&self, cluster, &elector, answering.as_ref());
        tokio::select! {
            error = end_of(&mut watching) => return Err(error),
            lost = elector.hold() => return Err(lost.into()),
            ended = loops.ended() => return Err(ended),
            () = &mut stop => tracing::info!("stopping"),
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
        if let Some(answering) = answering {
            answering.finish().await;
        }
        Ok(())
    }
}

async fn end_of(watching: &mut JoinSet<()>) -> OperatorError {
    match watching.join_next().await {
        Some(Err(error)) => Broken::from(error).into(),
        Some(Ok(())) | None => OperatorError::Ended("the watches"),
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
        operator: &Operator,
        cluster: Arc<Cluster>,
        elector: &Elector,
        webhook: Option<&Answering>,
    ) -> Self {
        let (claim, fast) = (elector.claim(), &operator.clients.fast);
        let (clock, metrics) = (&operator.clock, &operator.metrics);
        let facts = OperatorFacts {
            provider_namespaces: operator.provider_namespaces.clone(),
            namespace: operator.namespace.clone(),
            term: elector.term(),
            leading_since: clock.now(),
            evictions_per_second: operator.evictions_per_second,
        };
        let applier = Applier::new(
            fast.clone(),
            claim.clone(),
            metrics.clone(),
            operator.namespace.clone(),
        );
        let wake = {
            let cluster = cluster.clone();
            Arc::new(move |uid: &str| cluster.wake_uid(uid))
        };
        let tasks = DrainTasks::new(
            fast.clone(),
            claim.clone(),
            metrics.clone(),
            operator.evictions_per_second,
            cluster.memories.clone(),
            clock.clone(),
            wake,
        );
        let instance = elector.identity().to_owned();
        let pools = Arc::new(PoolLoop {
            fast: fast.clone(),
            applier: applier.clone(),
            tasks,
            reporter: Reporter::new(fast.clone(), claim, metrics.clone(), instance),
            metrics: metrics.clone(),
            operator: facts.clone(),
            passes: Mutex::new(HashMap::new()),
            cluster: cluster.clone(),
        });
        let all = Arc::new(ClusterLoop {
            cluster: cluster.clone(),
            applier: applier.clone(),
            webhook: webhook.map(|w| w.keeper(&cluster, &applier, metrics)),
            metrics: metrics.clone(),
            operator: facts.clone(),
            failures: Mutex::new(0),
        });
        let overflow = Arc::new(OverflowLoop {
            cluster: cluster.clone(),
            fast: fast.clone(),
            applier,
            metrics: metrics.clone(),
            operator: facts,
        });
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(pools.clone().run(stopped.clone()));
        running.spawn(pools.clone().withdraw_on_edit(stopped.clone()));
        running.spawn(pools.clone().tell_the_unseen(stopped.clone()));
        running.spawn(all.run(stopped.clone()));
        if let Some(webhook) = webhook {
            let prober = webhook.prober(&cluster, &operator.clients.ordinary, metrics);
            running.spawn(prober.run(stopped.clone()).map(Ok));
            let survey = Survey {
                cluster: cluster.clone(),
                client: operator.clients.ordinary.clone(),
            };
            running.spawn(survey.run(stopped.clone()).map(Ok));
        }
        let onlooker = Onlooker {
            cluster: cluster.clone(),
            client: operator.clients.ordinary.clone(),
        };
        running.spawn(onlooker.run(stopped.clone()).map(Ok));
        running.spawn(overflow.run(stopped));
        cluster.wake_all();
        Self { stop, running, pools }
    }

    /// A loop ended although nobody asked it to.
    async fn ended(&mut self) -> OperatorError {
        match self.running.join_next().await {
            Some(Ok(Err(error))) => error.into(),
            Some(Err(error)) => Broken::from(error).into(),
            Some(Ok(Ok(()))) | None => OperatorError::Ended("a loop"),
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
