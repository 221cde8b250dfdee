//! `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Connections that wait to be taken, as tokio's own listeners have it.
const BACKLOG: i32 = 1024;

/// What has to be there before the process is ready, by name. Being the leader is not among it: a standby is ready too.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, bool>>>);

impl Readiness {
    /// Says whether `what` is there.
    pub fn set(&self, what: &str, there: bool) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(what) {
            Some(known) => *known = there,
            None => drop(map.insert(what.to_owned(), there)),
        }
    }

    /// `what` no longer counts.
    pub fn forget(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What is missing, sorted.
    pub fn missing(&self) -> Vec<String> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .filter(|(_, there)| !**there)
            .map(|(what, _)| what.clone())
            .collect()
    }
}

/// Why an endpoint does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be had.
    #[error("can't listen on {addr}; choose another address with {flag}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// It stopped serving.
    #[error("the HTTP server of {0} ended")]
    Serve(&'static str, #[source] std::io::Error),
}

/// Listens on `addr`. `[::]` stands for IPv4 and IPv6, and for IPv4 alone on a host without IPv6. Call it inside the
/// runtime.
///
/// # Errors
/// [`ServeError::Bind`].
pub fn bind(flag: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    bind_by(flag, addr, listen)
}

fn bind_by(
    flag: &'static str,
    addr: SocketAddr,
    listen: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> Result<TcpListener, ServeError> {
    let every_ipv6 = addr.ip() == Ipv6Addr::UNSPECIFIED;
    let bound = listen(addr).or_else(|error| {
        // Only a family that is missing has another to stand in for it.
        if !every_ipv6 || matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) {
            return Err(error);
        }
        tracing::info!(endpoint = flag, %error, "no IPv6 here; listening on IPv4");
        listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
    });
    let local = |listener: TcpListener| Ok((listener.local_addr()?, listener));
    let (local, listener) =
        bound
            .and_then(local)
            .map_err(|source| ServeError::Bind { addr, flag, source })?;
    tracing::info!(endpoint = flag, addr = %local, "listening");
    Ok(listener)
}

/// A socket that takes IPv4 on `[::]` too, whatever the host's default is.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves `/livez` and `/readyz`.
///
/// # Errors
/// [`ServeError::Serve`].
pub async fn serve_health(listener: TcpListener, readiness: Readiness) -> Result<(), ServeError> {
    axum::serve(listener, health_routes(readiness))
        .await
        .map_err(|e| ServeError::Serve("/livez and /readyz", e))
}

/// Serves `/metrics`.
///
/// # Errors
/// [`ServeError::Serve`].
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics) -> Result<(), ServeError> {
    let routes = Router::new().route("/metrics", get(render)).with_state(metrics);
    axum::serve(listener, routes)
        .await
        .map_err(|e| ServeError::Serve("/metrics", e))
}

fn health_routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines: String = missing
        .iter()
        .map(|what| format!("waiting for {what}\n"))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    metrics
        .render()
        .map(|text| ([(header::CONTENT_TYPE, OPEN_METRICS)], text))
        .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    const EVERY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    #[tokio::test]
    async fn every_family_that_there_is_is_listened_to() {
        let listener = bind("--health-addr", EVERY).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
        let taken = SocketAddr::new(EVERY.ip(), port);
        let error = bind("--health-addr", taken).unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[tokio::test]
    async fn ipv4_stands_in_where_there_is_no_ipv6() {
        let no_ipv6 = |addr: SocketAddr| match addr.is_ipv6() {
            // EAFNOSUPPORT, which has no kind of its own.
            true => Err(io::Error::from_raw_os_error(97)),
            false => listen(addr),
        };
        let listener = bind_by("--health-addr", EVERY, no_ipv6).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
        // Who asks for one address gets that one or nothing.
        let one = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        assert!(bind_by("--health-addr", one, no_ipv6).is_err());
    }

    #[tokio::test]
    async fn ready_names_what_is_missing() {
        let readiness = Readiness::default();
        readiness.set("cache of pods", false);
        readiness.set("cache of nodes", true);
        let (code, text) = ready(State(readiness.clone())).await;
        assert_eq!(
            (code, text.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for cache of pods\n")
        );
        readiness.set("cache of pods", true);
        assert_eq!(ready(State(readiness)).await.0, StatusCode::OK);
    }
}
