//! An API server for tests: records each request and answers by a function.

use std::future::Future;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;

/// One request as the server got it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) uri: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// All requests so far.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }
}

/// An answer: status code, headers, body.
pub(crate) type Answered = (u16, Vec<(&'static str, &'static str)>, String);

pub(crate) fn ok(body: Value) -> Answered {
    (200, vec![], body.to_string())
}

pub(crate) fn failure(code: u16, message: &str, details: Value) -> Answered {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message,
        "details": details,
    });
    (code, vec![], body.to_string())
}

/// A client whose requests `answer` answers.
pub(crate) fn server<F, A>(answer: F) -> (Client, Calls)
where
    F: Fn(Call) -> A + Clone + Send + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    let calls = Calls::default();
    let recorded = calls.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        let recorded = recorded.clone();
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let call = Call {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                content_type: head.headers["content-type"].to_str().unwrap().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap(),
                at: Instant::now(),
            };
            recorded.0.lock().unwrap().push(call.clone());
            let (code, headers, text) = answer(call).await;
            let mut response = Response::builder().status(code);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(text.into_bytes()))
        }
    });
    (Client::new(service, "default"), calls)
}
