//! Answers the API server: HTTP on one side, the placement of all pools on the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use vnp_plan::placement::PATH;

use super::review::{self, Answered, Outcome, Question};
use crate::observe::cluster::Cluster;
use crate::observe::wire::SlimNamespace;
use crate::runtime::metrics::Metrics;

/// Longest body, as the API server's own limit on requests (`MaxRequestBodyBytes` of the generic API server).
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Bodies in work at once, together: a burst of large ones must not exceed the memory of the container.
const BODIES: usize = 16 * BODY_LIMIT;
/// Longest time for a body to arrive. The API server waits for 2 s only.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the labels of a namespace that the cache does not have.
const LABELS_WITHIN: Duration = Duration::from_millis(500);
/// Label that the API server puts on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What is needed to answer.
pub struct Desk {
    cluster: Arc<Cluster>,
    client: Client,
    metrics: Metrics,
    bodies: Semaphore,
}

/// Why a request gets no answer but an HTTP error.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the body is longer than {BODY_LIMIT} bytes")]
    TooLong,
    #[error("the body did not arrive within {} seconds", BODY_WITHIN.as_secs())]
    TooLate,
    #[error("the body can't be read")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    NotAReview(#[from] review::NotAReview),
    #[error("the answer can't be written")]
    Unwritable(#[source] serde_json::Error),
}

impl Refused {
    fn code(&self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooLate => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) | Self::NotAReview(_) => StatusCode::BAD_REQUEST,
            Self::Unwritable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Desk {
    /// `client` is asked for namespaces that are not in the cache yet.
    pub fn new(cluster: Arc<Cluster>, client: Client, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            client,
            metrics,
            bodies: Semaphore::new(BODIES),
        })
    }

    /// The routes that are served.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new().route(PATH, post(mutate)).with_state(self)
    }

    async fn handle(&self, headers: &HeaderMap, body: Body) -> Result<(Vec<u8>, &'static str), Refused> {
        let body = timeout(BODY_WITHIN, self.body(headers, body))
            .await
            .map_err(|_| Refused::TooLate)??;
        let question = review::read(&body)?;
        drop(body);
        let answered = self.answer(&question).await.map_err(Refused::Unwritable)?;
        if let Outcome::Unreadable(why) = &answered.outcome {
            tracing::warn!(namespace = question.namespace, error = %why, "a pod is left as it is");
        }
        Ok((answered.body, answered.outcome.word()))
    }

    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refused> {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|l| l.to_str().ok()?.parse().ok());
        let length = length.unwrap_or(BODY_LIMIT);
        if length > BODY_LIMIT {
            return Err(Refused::TooLong);
        }
        let room = self
            .bodies
            .acquire_many(u32::try_from(length).unwrap_or(u32::MAX));
        let _room = room.await.map_err(|e| Refused::Broken(Box::new(e)))?;
        match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => Err(Refused::TooLong),
            Err(error) => Err(Refused::Broken(error)),
        }
    }

    async fn answer(&self, question: &Question) -> Result<Answered, serde_json::Error> {
        let namespace = question.namespace.as_str();
        let (placing, nodes) = (self.cluster.webhook.placing(), self.cluster.webhook.nodes());
        let answered = match self.cluster.namespaces.read(|t| t.get(namespace)) {
            Some(row) => question.answer(&placing, &row.labels, &nodes),
            None => question.answer(&placing, &self.labels(namespace).await, &nodes),
        }?;
        if let Some(left) = answered.left_alone.clone() {
            self.metrics.left_alone(&left.pool, left.why.word());
            self.cluster.pod_left_alone(left, question.named());
        }
        Ok(answered)
    }

    /// The labels of a namespace that was made just now, as one `kubectl apply` of a namespace with its pods does it.
    async fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let api: Api<SlimNamespace> = Api::all(self.client.clone());
        match timeout(LABELS_WITHIN, api.get(namespace)).await {
            Ok(Ok(found)) => found.labels,
            answer => {
                let error = answer.ok().and_then(Result::err).map(|e| e.to_string());
                tracing::warn!(
                    namespace,
                    error,
                    "the labels of a namespace are not known; its name is"
                );
                BTreeMap::from([(NAMESPACE_NAME.to_owned(), namespace.to_owned())])
            }
        }
    }
}

async fn mutate(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Body) -> Response {
    let began = Instant::now();
    let (result, response) = match desk.handle(&headers, body).await {
        Ok((answer, result)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (result, (json, answer).into_response())
        }
        Err(refused) => {
            tracing::warn!(
                error = &refused as &dyn std::error::Error,
                "an admission request is refused"
            );
            (
                "refused",
                (refused.code(), format!("{refused}\n")).into_response(),
            )
        }
    };
    desk.metrics.admitted(result, began.elapsed().as_secs_f64());
    response
}
