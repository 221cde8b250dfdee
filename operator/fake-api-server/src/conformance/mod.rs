//! One script of calls, run against this server and against a real one: equal answers show that this one is true where
//! the operator and the proofs rely on it.
//!
//! The real control plane must run without controllers, or these change objects between two calls.

mod script;
mod stateful_sets;
mod told;

use std::collections::BTreeMap;

use kube::client::Body;
use serde_json::{Value, json};

pub use script::script;
pub use stateful_sets::{Seen, Stories, stateful_sets};

/// One call and what came back, without what differs from run to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The call: method, path and what it is about.
    pub call: String,
    /// HTTP code.
    pub code: u16,
    /// Header `Retry-After`.
    pub retry_after: Option<String>,
    /// The body; times, versions and UIDs are replaced by placeholders.
    pub body: Value,
}

/// Makes calls and remembers the answers.
pub(crate) struct Recorder {
    client: kube::Client,
    answers: Vec<Answer>,
    uids: BTreeMap<String, String>,
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// One call, with its answer in full.
async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    content_type: &str,
    body: &Value,
) -> (http::response::Parts, Vec<u8>) {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(Body::from(bytes))
        .expect("a request of valid parts");
    let response = client.send(request).await.expect("the server answers");
    let (head, body) = response.into_parts();
    let bytes = body.collect_bytes().await.expect("the answer comes in full");
    (head, bytes.to_vec())
}

impl Recorder {
    fn new(client: kube::Client) -> Self {
        Self {
            client,
            answers: Vec::new(),
            uids: BTreeMap::new(),
        }
    }

    /// One call; gives the body as it came.
    async fn call(&mut self, method: &str, path: &str, content_type: &str, body: Value) -> Value {
        let (head, bytes) = send(&self.client, method, path, content_type, &body).await;
        let body: Value = if path.contains("watch=true") {
            let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let events = lines.map(|l| serde_json::from_slice::<Value>(l).expect("an event is JSON"));
            events.filter(|e| e["type"] != "BOOKMARK").collect()
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))
        };
        let retry_after = head.headers.get(http::header::RETRY_AFTER);
        let answer = Answer {
            call: format!("{method} {}", self.told(path)),
            code: head.status.as_u16(),
            retry_after: retry_after.and_then(|v| v.to_str().ok()).map(str::to_owned),
            body: self.steady(&body),
        };
        self.answers.push(answer);
        body
    }

    async fn get(&mut self, path: &str) -> Value {
        self.call("GET", path, JSON, Value::Null).await
    }

    async fn post(&mut self, path: &str, body: Value) -> Value {
        self.call("POST", &managed(path), JSON, body).await
    }

    async fn put(&mut self, path: &str, body: Value) -> Value {
        self.call("PUT", &managed(path), JSON, body).await
    }

    async fn merge(&mut self, path: &str, body: Value) -> Value {
        self.call("PATCH", &managed(path), MERGE_PATCH, body).await
    }

    async fn json_patch(&mut self, path: &str, body: Value) -> Value {
        self.call("PATCH", &managed(path), "application/json-patch+json", body)
            .await
    }

    async fn strategic(&mut self, path: &str, body: Value) -> Value {
        self.call(
            "PATCH",
            &managed(path),
            "application/strategic-merge-patch+json",
            body,
        )
        .await
    }

    /// A server-side apply; `how` is the query, for instance `fieldManager=a&force=true`.
    async fn apply(&mut self, path: &str, how: &str, body: Value) -> Value {
        self.call(
            "PATCH",
            &format!("{path}?{how}"),
            "application/apply-patch+yaml",
            body,
        )
        .await
    }

    async fn delete(&mut self, path: &str, options: Value) -> Value {
        self.call("DELETE", path, JSON, options).await
    }
}

fn managed(path: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}fieldManager=script")
}
