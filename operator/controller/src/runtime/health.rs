//! `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;

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

/// Listens on `addr`.
///
/// # Errors
/// [`ServeError::Bind`].
pub async fn bind(flag: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = async {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    let (listener, local) = bound
        .await
        .map_err(|source| ServeError::Bind { addr, flag, source })?;
    tracing::info!(endpoint = flag, addr = %local, "listening");
    Ok(listener)
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
    use super::*;

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
