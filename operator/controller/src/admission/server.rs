//! HTTPS for the API server, with whatever certificate is current.
//!
//! HTTP/1.1 only: each API server keeps a few connections open, and HTTP/2 would put all its calls on one connection to
//! one replica, besides CVE-2023-44487.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 1024;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may be silent. Longer than the 90 s after which the API server gives it up (client-go,
/// `SetTransportDefaults`): who closes first must be the one who would send next, or a call gets lost.
const IDLE: Duration = Duration::from_secs(120);
/// From the stop to the end of listening: Service routing takes a moment to learn of it.
const LINGER: Duration = Duration::from_secs(3);
/// How long a stop waits for calls that are under way.
const LAST_CALLS: Duration = Duration::from_secs(3);
/// Before the next try when the system has no socket left.
const NO_SOCKET: Duration = Duration::from_millis(200);

/// The certificate that is served. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Served(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Served {
    /// From the next connection on.
    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS as it is served.
///
/// # Errors
/// When the library does not offer what it should.
pub fn tls(served: Served) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(served));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would go on with the certificate of the first.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves until `stop` says true, and then until the last call is answered.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let lingered = async move {
        // A sender that is gone means the same.
        stop.wait_for(|stop| *stop).await.ok();
        sleep(LINGER).await;
    };
    tokio::pin!(lingered);
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, stream) = tokio::select! {
            () = &mut lingered => break,
            (slot, accepted) = accepted => match (slot, accepted) {
                (Ok(slot), Ok((stream, _))) => (slot, stream),
                (Ok(_), Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no connection to the webhook");
                    sleep(NO_SOCKET).await;
                    continue;
                }
                (Err(_), _) => break,
            },
        };
        let (acceptor, routes, watcher) = (acceptor.clone(), routes.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection(stream, acceptor, routes, watcher).await;
            drop(slot);
        });
    }
    drop(listener);
    if timeout(LAST_CALLS, graceful.shutdown()).await.is_err() {
        tracing::warn!("calls of the webhook were still under way at the end");
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, routes: Router, watcher: Watcher) {
    stream.set_nodelay(true).ok();
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // Whoever does not trust the certificate hangs up here; probes of a port do too.
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
        Err(_) => return tracing::debug!("no TLS in time"),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection to the webhook broke off");
    }
}
