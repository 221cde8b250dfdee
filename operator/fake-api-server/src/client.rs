//! One client's way to the server: HTTP messages in process, with whatever goes wrong on the way.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use http::{Request, Response};
use serde_json::Value;
use tower::Service;

use crate::call::Call;
use crate::faults::Fault;
use crate::refusal::Refusal;
use crate::serve::serve;
use crate::server::Inner;
use crate::watch::Watch;

/// The service of one client, for [`kube::Client::new`].
#[derive(Clone)]
pub struct ClientService {
    inner: Arc<Inner>,
    name: String,
}

impl ClientService {
    pub(crate) fn new(inner: Arc<Inner>, name: &str) -> Self {
        Self {
            inner,
            name: name.to_owned(),
        }
    }
}

impl Service<Request<kube::client::Body>> for ClientService {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (inner, name) = (self.inner.clone(), self.name.clone());
        Box::pin(async move { answer(inner, name, request).await })
    }
}

async fn answer(
    inner: Arc<Inner>,
    client: String,
    request: Request<kube::client::Body>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let bytes = body.collect_bytes().await.map_err(io::Error::other)?;
    let call = parse(&inner, &client, &head, &bytes);
    if inner.lock().disturbance(&client).cut {
        return pending().await;
    }
    let call = match call {
        Ok(call) => call,
        Err(refusal) => return Ok(refused(&inner, &refusal)),
    };
    let gate = inner.lock().gate.clone();
    let fault = gate(&call).await;
    // A gate may take long, and the cut may come meanwhile.
    if inner.lock().disturbance(&client).cut {
        return pending().await;
    }
    match fault {
        Fault::ParkBefore => return pending().await,
        Fault::ResetBefore => return Err(io::ErrorKind::ConnectionReset.into()),
        Fault::Refuse(refusal) => return Ok(refused(&inner, &refusal)),
        Fault::Pass | Fault::ParkAfter | Fault::ResetAfter | Fault::Truncate => {}
    }
    let response = carry_out(&inner, &call);
    match fault {
        Fault::ParkAfter => pending().await,
        Fault::ResetAfter => Err(io::ErrorKind::ConnectionReset.into()),
        Fault::Truncate => Ok(truncated(response).await),
        _ => Ok(response),
    }
}

fn parse(inner: &Inner, client: &str, head: &http::request::Parts, bytes: &Bytes) -> Result<Call, Refusal> {
    let number = {
        let mut state = inner.lock();
        let disturbance = state.disturbance(client);
        disturbance.calls += 1;
        disturbance.calls - 1
    };
    let mut call = Call::parse(
        &head.method,
        head.uri.path(),
        head.uri.query().unwrap_or_default(),
    )?;
    call.client = client.to_owned();
    call.number = number;
    let content_type = head.headers.get(http::header::CONTENT_TYPE);
    call.content_type = content_type
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if !bytes.is_empty() {
        call.body = serde_json::from_slice(bytes)
            .map_err(|e| Refusal::bad_request(format!("the object provided is unrecognized: {e}")))?;
    }
    Ok(call)
}

fn carry_out(inner: &Arc<Inner>, call: &Call) -> Response<Body> {
    if call.verb == "watch" {
        return match Watch::open(inner, call) {
            Ok(watch) => respond(inner, 200, None, Body::from_stream(watch.stream())),
            Err(refusal) => refused(inner, &refusal),
        };
    }
    let result = {
        let mut state = inner.lock();
        let visible = state.visible(&call.client);
        let cached = call.param("resourceVersion") == Some("0") && visible < state.store.version();
        let seen = cached.then(|| (visible, state.store.snapshot(visible)));
        let state = &mut *state;
        serve(&mut state.store, &mut state.journal, call, seen)
    };
    if call.writes() {
        inner.wake();
    }
    match result {
        Ok((code, body)) => respond(inner, code, None, json(&body)),
        Err(refusal) => refused(inner, &refusal),
    }
}

fn json(body: &Value) -> Body {
    Body::from(body.to_string())
}

fn refused(inner: &Inner, refusal: &Refusal) -> Response<Body> {
    respond(inner, refusal.code, refusal.retry_after, json(&refusal.body()))
}

fn respond(inner: &Inner, code: u16, retry_after: Option<u32>, body: Body) -> Response<Body> {
    let date = inner.lock().store.clock.date();
    let mut response = Response::builder()
        .status(code)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::DATE, date);
    if let Some(seconds) = retry_after {
        response = response.header(http::header::RETRY_AFTER, seconds);
    }
    response.body(body).expect("a response of valid parts")
}

/// The first half of the body, and then a reset.
async fn truncated(response: Response<Body>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes.slice(..bytes.len() / 2),
        Err(_) => Bytes::new(),
    };
    let parts = [
        Ok::<_, io::Error>(bytes),
        Err(io::ErrorKind::UnexpectedEof.into()),
    ];
    Response::from_parts(head, Body::from_stream(futures::stream::iter(parts)))
}
