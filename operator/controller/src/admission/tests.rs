use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use futures::StreamExt;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tower::ServiceExt;
use vnp_plan::placement::PATH;
use vnp_plan::webhook::certificates::Rotation;

use super::desk::Desk;
use super::issue::carry_out;
use super::keyring::{Keyring, TlsSecret};
use super::server::{self, Served};
use crate::observe::cluster::Cluster;
use crate::runtime::clock::Clock;
use crate::runtime::metrics::Metrics;
use crate::runtime::queue::Queue;

/// The routes of an operator without pools, whose API server knows no namespace.
fn routes() -> (Router, Metrics) {
    let queue = || Queue::new(Duration::ZERO);
    let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
    let nothing = tower::service_fn(|_: Request<kube::client::Body>| async {
        let mut response = Response::new(Body::from(r#"{"kind":"Status","code":404}"#));
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    let metrics = Metrics::default();
    let client = kube::Client::new(nothing, "default");
    (Desk::new(cluster, client, metrics.clone()).routes(), metrics)
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn review(object: Value) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "namespace": "shop", "object": object},
    }))
    .unwrap()
}

async fn post(routes: &Router, body: Body) -> (StatusCode, Bytes) {
    let request = Request::post(PATH).body(body).unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let code = response.status();
    (code, to_bytes(response.into_body(), usize::MAX).await.unwrap())
}

/// The answer is one that the API server takes: it allows, and repeats the uid.
fn allows(answer: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    answer["apiVersion"] == "admission.k8s.io/v1"
        && answer["kind"] == "AdmissionReview"
        && answer["response"]["allowed"] == true
        && answer["response"]["uid"].is_string()
}

#[tokio::test]
async fn pods_are_allowed_and_what_is_no_review_is_a_bad_request() {
    let (routes, metrics) = routes();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": []}});
    let (code, answer) = post(&routes, review(pod).into()).await;
    assert_eq!(code, StatusCode::OK);
    assert!(allows(&answer));
    for body in ["", "null", "{}", "{\"kind\":\"AdmissionReview\"}"] {
        assert_eq!(
            post(&routes, body.into()).await.0,
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
    let text = metrics.render().unwrap();
    assert!(
        text.contains("virtualnodepool_webhook_requests_total{result=\"refused\"} 4"),
        "{text}"
    );
    let get = Request::builder().method(Method::GET).uri(PATH);
    let response = routes.oneshot(get.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_pod_that_can_not_be_read_is_allowed_as_it_is_counted_and_logged() {
    let (routes, metrics) = routes();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer({
        let log = log.clone();
        move || log.clone()
    });
    let _recording = tracing::subscriber::set_default(subscriber.finish());
    for pod in [
        json!({"kind": "Pod", "spec": []}),
        json!({"metadata": 7}),
        json!([]),
    ] {
        let (code, answer) = post(&routes, review(pod.clone()).into()).await;
        assert_eq!(code, StatusCode::OK, "{pod}");
        assert!(allows(&answer));
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["patch"], Value::Null, "{pod}");
    }
    let text = metrics.render().unwrap();
    assert!(
        text.contains("virtualnodepool_webhook_requests_total{result=\"unreadable\"} 3"),
        "{text}"
    );
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let said = log.lines().filter(|line| {
        let named = line.contains("WARN") && line.contains("shop");
        named && line.contains("a pod is left as it is") && line.contains("can't be read")
    });
    assert_eq!(said.count(), 3, "{log}");
}

#[tokio::test]
async fn a_body_over_3_mib_is_cut_off_whether_its_length_is_told_or_not() {
    const LIMIT: usize = 3 * 1024 * 1024;
    let (routes, _) = routes();
    let chunk = Bytes::from(vec![b' '; 256 * 1024]);
    let chunks = LIMIT / chunk.len() + 1;
    let untold = futures::stream::iter(vec![chunk; chunks]).map(Ok::<_, Infallible>);
    assert_eq!(
        post(&routes, Body::from_stream(untold)).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let told = Request::post(PATH)
        .header(header::CONTENT_LENGTH, LIMIT + 1)
        .body(Body::empty())
        .unwrap();
    let response = routes.clone().oneshot(told).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let mut longest = review(json!({"kind": "Pod"}));
    longest.resize(LIMIT, b' ');
    assert_eq!(post(&routes, longest.into()).await.0, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Bytes of any kind, and reviews with bytes replaced, cut out and doubled.
    #[test]
    fn any_body_gets_an_answer_or_a_bad_request(
        noise in prop::collection::vec(any::<u8>(), 0..256),
        cut in any::<prop::sample::Index>(),
        edit in 0u8..4,
        object in any_json(),
    ) {
        let mut body = review(object);
        let at = cut.index(body.len());
        match edit {
            0 => body = noise,
            1 => body.truncate(at),
            2 => drop(body.splice(at..at, noise)),
            _ => {}
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (code, answer) = runtime.block_on(async {
            let (routes, _) = routes();
            post(&routes, body.into()).await
        });
        match code {
            StatusCode::OK => prop_assert!(allows(&answer)),
            StatusCode::BAD_REQUEST => {}
            other => prop_assert!(false, "{other}"),
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/.]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("containers"),
        Just("labels"),
        Just("annotations"),
        Just("tolerations"),
        Just("nodeSelector"),
        Just("affinity"),
        Just("resources"),
        Just("limits"),
        Just("kind"),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

const NAME: &str = "webhook.ns.svc";

fn rotated(rotation: Rotation, before: Option<&TlsSecret>) -> TlsSecret {
    let names = BTreeSet::from([NAME.to_owned()]);
    let data = carry_out(rotation, before, &names, Timestamp::now()).unwrap();
    let secret = k8s_openapi::api::core::v1::Secret {
        data: Some(data),
        ..Default::default()
    };
    secret.into()
}

async fn connect(port: u16, trusted: &Keyring) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for authority in &trusted.authorities {
        roots.add(authority.clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One call on a connection that stays open.
async fn call(stream: &mut TlsStream<TcpStream>) -> std::io::Result<bool> {
    let body = review(json!({"kind": "Pod"}));
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await?;
    Ok(answer[..read].starts_with(b"HTTP/1.1 200 OK"))
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_old_connections_go_on() {
    let first = rotated(Rotation::Anew, None);
    let two = rotated(Rotation::Authority, Some(&first));
    let second = rotated(Rotation::Leaf, Some(&two));
    let (first, second) = (Keyring::read(&first), Keyring::read(&second));
    let served = Served::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let tls = server::tls(served.clone()).unwrap();
    let serving = tokio::spawn(server::serve(listener, tls, routes().0, stopped));

    assert!(
        connect(port, &first).await.is_err(),
        "there is no certificate yet"
    );
    served.set(first.served.clone().unwrap());
    let mut old = connect(port, &first).await.unwrap();
    assert!(call(&mut old).await.unwrap());
    served.set(second.served.clone().unwrap());
    assert!(call(&mut old).await.unwrap());
    // Who trusts the old authority alone is refused now, which is why both are published before.
    assert!(connect(port, &first).await.is_err());
    assert!(call(&mut connect(port, &second).await.unwrap()).await.unwrap());

    stop.send_replace(true);
    // Routing may still send calls here for a moment.
    assert!(call(&mut connect(port, &second).await.unwrap()).await.unwrap());
    tokio::time::timeout(Duration::from_secs(8), serving)
        .await
        .unwrap()
        .unwrap();
    assert!(connect(port, &second).await.is_err());
}
