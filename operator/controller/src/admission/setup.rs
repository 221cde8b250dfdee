//! Puts the webhook together: what every replica runs, and what the leader adds.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::rustls;
use vnp_plan::webhook::{Address, WebhookState};

use super::attend::attend;
use super::desk::Desk;
use super::keeper::Keeper;
use super::prober::Prober;
use super::server;
use crate::apply::Applier;
use crate::observe::cluster::Cluster;
use crate::runtime::health::Readiness;
use crate::runtime::metrics::Metrics;

/// How the webhook is served.
pub struct Setup {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Where the API server finds it.
    pub address: Address,
    /// Namespace of the pod that is created as a dry run.
    pub probe_namespace: String,
    /// Time between two such dry runs.
    pub probe_every: Duration,
}

/// TLS can't be served.
#[derive(Debug, thiserror::Error)]
#[error("the webhook can't serve TLS")]
pub struct TlsError(#[from] rustls::Error);

/// The webhook in service.
pub struct Answering {
    address: Address,
    probe_namespace: String,
    probe_every: Duration,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Setup {
    /// Serves from now on; what watches over it joins `watching`.
    ///
    /// # Errors
    /// [`TlsError`] when the TLS library refuses its own defaults.
    pub fn start(
        self,
        cluster: &Arc<Cluster>,
        client: Client,
        metrics: &Metrics,
        readiness: &Readiness,
        watching: &mut JoinSet<()>,
    ) -> Result<Answering, TlsError> {
        let Self {
            listener,
            address,
            probe_namespace,
            probe_every,
        } = self;
        cluster.webhook_kept(WebhookState::Unknown);
        let tls = server::tls(cluster.webhook.served.clone())?;
        let routes = Desk::new(cluster.clone(), client, metrics.clone()).routes();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server::serve(listener, tls, routes, stopped));
        watching.spawn(attend(
            cluster.clone(),
            address.clone(),
            readiness.clone(),
            metrics.clone(),
        ));
        Ok(Answering {
            address,
            probe_namespace,
            probe_every,
            stop,
            serving,
        })
    }
}

impl Answering {
    /// What keeps certificates and configuration, for the leader.
    pub fn keeper(&self, cluster: &Arc<Cluster>, applier: &Applier, metrics: &Metrics) -> Keeper {
        Keeper {
            cluster: cluster.clone(),
            applier: applier.clone(),
            address: self.address.clone(),
            metrics: metrics.clone(),
        }
    }

    /// What tries whether it answers, for the leader.
    pub fn prober(&self, cluster: &Arc<Cluster>, client: &Client, metrics: &Metrics) -> Prober {
        Prober {
            cluster: cluster.clone(),
            client: client.clone(),
            namespace: self.probe_namespace.clone(),
            own_namespace: self.address.namespace.clone(),
            every: self.probe_every,
            metrics: metrics.clone(),
        }
    }

    /// Takes no more connections, after a while, and waits for the last answer.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.serving.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the webhook broke off");
        }
    }
}
