//! Operators in process: the whole of one but for its endpoints and signals.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;
use vnp_operator::runtime::clients::Clients;
use vnp_operator::runtime::clock::{Clock, SetByAnswers};
use vnp_operator::runtime::health::Readiness;
use vnp_operator::runtime::lease::Timing;
use vnp_operator::runtime::metrics::Metrics;
use vnp_operator::runtime::operator::{Operator, OperatorError};

use crate::cluster::Cluster;

/// Timing of the lease: that of the defaults, a third as long.
const LEASE: Timing = Timing {
    duration: Duration::from_secs(5),
    renew_deadline: Duration::from_secs(3),
    retry_period: Duration::from_secs(1),
};

/// An operator process.
pub(crate) struct Running {
    cluster: Cluster,
    name: String,
    /// What its readiness probe waits for.
    pub(crate) readiness: Readiness,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), OperatorError>>,
}

impl Running {
    /// Starts one. Its host's clock is wrong by an hour, one way or the other by turns.
    pub(crate) fn start(cluster: &Cluster, name: &str) -> Self {
        Self::start_for(cluster, name, &["kube-system"])
    }

    /// Starts one with these `--provider-namespaces`.
    pub(crate) fn start_for(cluster: &Cluster, name: &str, provider_namespaces: &[&str]) -> Self {
        let odd = name.bytes().last().is_some_and(|b| b % 2 == 1);
        let skew = SignedDuration::from_hours(if odd { 1 } else { -1 });
        let clock = Clock::starting_at(cluster.now() + skew);
        let client = |limit: Duration| {
            let service = ServiceBuilder::new()
                .layer(SetByAnswers(clock.clone()))
                .layer(TimeoutLayer::new(limit))
                .service(cluster.server.service(name));
            kube::Client::new(service, "default")
        };
        let short = LEASE.duration - LEASE.renew_deadline;
        let readiness = Readiness::default();
        let operator = Operator {
            namespace: vnp_crds::OPERATOR_NAMESPACE.to_owned(),
            provider_namespaces: provider_namespaces.iter().map(|n| (*n).to_owned()).collect(),
            evictions_per_second: 0,
            lease: LEASE,
            clients: Clients {
                ordinary: client(Duration::from_secs(30)),
                fast: client(short),
                lease: client(short),
            },
            clock: clock.clone(),
            metrics: Metrics::default(),
            readiness: readiness.clone(),
            webhook: None,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(operator.run(async {
            stopped.await.ok();
        }));
        Self {
            cluster: cluster.clone(),
            name: name.to_owned(),
            readiness,
            stop: Some(stop),
            task,
        }
    }

    /// It dies: nothing it asked for is asked any more, and it never hears an answer.
    pub(crate) fn kill(self) {
        self.cluster.server.cut(&self.name);
        self.task.abort();
    }

    /// It is told to stop, and does.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task
            .await
            .expect("the operator panicked")
            .expect("the operator stops cleanly");
    }

    /// It ended by itself: the lease was lost, or it is broken.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }
}
