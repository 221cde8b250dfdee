//! The pod webhook of an operator with pools, and what must hold of its answer to any body. The fuzz target shares it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use vnp_operator::admission::desk::{BODY_LIMIT, Desk};
use vnp_operator::observe::cluster::Cluster;
use vnp_operator::observe::mirror::{Shelf, Told};
use vnp_operator::runtime::clock::Clock;
use vnp_operator::runtime::metrics::Metrics;
use vnp_operator::runtime::queue::Queue;
use vnp_plan::placement::PATH;

/// Serves without TLS: that part of the way is rustls.
pub(crate) struct Endpoint {
    runtime: Runtime,
    routes: Router,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Answer {
    api_version: String,
    kind: String,
    response: Allowed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Allowed {
    uid: String,
    allowed: bool,
    patch_type: Option<String>,
    patch: Option<ByteString>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// The pod is allowed as it is.
    Unchanged,
    /// The pod is allowed, with a patch.
    Mutated,
    /// 400: it is no AdmissionReview v1.
    BadRequest,
    /// 413: it is longer than the API server sends.
    TooLong,
}

impl Endpoint {
    pub(crate) fn new() -> Self {
        let queue = || Queue::new(Duration::ZERO);
        let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
        for (name, labels) in [
            ("shop", json!({"team": "a"})),
            ("lab", json!({"alibabacloud.com/eci": "true"})),
            ("off", json!({"virtualnodes.dev/webhook": "disabled"})),
        ] {
            let namespace = json!({"metadata": {"name": name, "labels": labels}});
            drop(cluster.namespaces.write(|t| t.put(read(namespace))));
        }
        for pool in pools() {
            drop(cluster.pools.write(|t| t.put(read(pool))));
        }
        cluster.pool_told(Told::Complete);
        // The API server of this operator knows no namespace that the cache does not have.
        let nothing = tower::service_fn(|_: Request<kube::client::Body>| async {
            let mut response = Response::new(Body::from(r#"{"kind":"Status","code":404}"#));
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        });
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = {
            let _inside = runtime.enter();
            kube::Client::new(nothing, "default")
        };
        Self {
            runtime,
            routes: Desk::new(cluster, client, Metrics::default()).routes(),
        }
    }

    /// Asks, and asks again with what came of it.
    ///
    /// # Panics
    /// When the answer is neither an AdmissionReview that the API server takes, nor a clean refusal; when the patch does
    /// not apply; when the patched pod would be patched again.
    pub(crate) fn check(&self, body: &[u8]) -> Became {
        let Some(answer) = self.ask(body) else {
            return if body.len() > BODY_LIMIT {
                Became::TooLong
            } else {
                Became::BadRequest
            };
        };
        let mut review: Value = serde_json::from_slice(body).expect("what is answered is JSON");
        let Some(patch) = answer.agrees_with(&review) else {
            return Became::Unchanged;
        };
        let pod = &mut review["request"]["object"];
        json_patch::patch(pod, &patch).expect("the patch applies to the pod that was sent");
        let patched = serde_json::to_vec(&review).expect("JSON");
        let again = self
            .ask(&patched)
            .expect("the patched pod is answered")
            .agrees_with(&review);
        assert_eq!(again, None, "the patched pod {review} is patched again");
        Became::Mutated
    }

    fn ask(&self, body: &[u8]) -> Option<Answer> {
        let (code, json, answer) = self.runtime.block_on(self.post(body));
        match code {
            StatusCode::OK => {
                assert!(json, "the answer says that it is JSON");
                Some(serde_json::from_slice(&answer).expect("an AdmissionReview"))
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                assert_eq!(code == StatusCode::PAYLOAD_TOO_LARGE, body.len() > BODY_LIMIT);
                let why = str::from_utf8(&answer).expect("text");
                assert!(!why.trim().is_empty(), "a refusal says why");
                None
            }
            other => panic!("{other}: {answer:?}"),
        }
    }

    async fn post(&self, body: &[u8]) -> (StatusCode, bool, Bytes) {
        let request = Request::post(PATH).header(header::CONTENT_LENGTH, body.len());
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let response = self.routes.clone().oneshot(request).await.expect("infallible");
        let code = response.status();
        let json = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t == "application/json");
        let answer = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (code, json, answer)
    }
}

impl Answer {
    /// The patch, if there is one. Source of what must hold: `VerifyAdmissionResponse` of the API server.
    fn agrees_with(self, review: &Value) -> Option<Patch> {
        assert_eq!(self.api_version, "admission.k8s.io/v1");
        assert_eq!(self.kind, "AdmissionReview");
        assert_eq!(review["request"]["uid"], self.response.uid);
        assert!(self.response.allowed, "a pod is never refused");
        assert!(self.response.warnings.iter().all(|w| !w.is_empty()));
        assert_eq!(
            self.response.patch_type.as_deref(),
            self.response.patch.as_ref().map(|_| "JSONPatch")
        );
        let patch: Patch = serde_json::from_slice(&self.response.patch?.0).expect("a JSON patch");
        assert!(!patch.0.is_empty(), "an empty patch is left out");
        Some(patch)
    }
}

/// A pool of each kind: triggers, rules of both modes with additions and compute defaults, policies with a scheduler.
fn pools() -> [Value; 2] {
    let pool = |name: &str, year: i32, spec: Value| {
        let mut pool = json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("{year}-01-01T00:00:00Z")},
            "spec": {
                "region": "cn-hangzhou",
                "network": {"zones": [{"zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-1"]}], "securityGroupId": "sg-1"},
                "provider": {"type": "StatefulSet", "name": format!("virtual-node-{name}")},
            },
        });
        json_patch::merge(&mut pool["spec"], &spec);
        pool
    };
    [
        pool(
            "burst",
            2025,
            json!({
                "placement": {"rules": [
                    {"name": "batch", "mode": "Require", "podSelector": {"matchExpressions": [
                        {"key": "app", "operator": "In", "values": ["report", "train"]},
                        {"key": "stay", "operator": "DoesNotExist"}]},
                     "labels": {"team": "batch"}, "annotations": {"k8s.aliyun.com/eci-use-specs": "2-4Gi"}},
                    {"name": "web", "mode": "Prefer", "namespaceSelector": {"matchLabels": {"team": "a"}},
                     "podSelector": {"matchLabels": {"app": "web"}}},
                ]},
                "computeDefaults": {"class": "gpu", "qos": "best-effort", "gpuModelSeries": "T4"},
            }),
        ),
        pool(
            "acs",
            2026,
            json!({
                "placement": {"rules": [{"name": "all", "mode": "Require", "podSelector": {"matchLabels": {"on": "acs"}}}]},
                "computeDefaults": {"class": "gpu-hpn", "gpuModelSeries": "A10"},
                "scheduling": {"schedulerName": "ack-co-scheduler", "resourcePolicies": [
                    {"name": "elastic", "namespaces": ["shop"], "selector": {"app": "job"}}]},
            }),
        ),
    ]
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of that kind")
}
