//! What goes over the wire, against an API server that answers as told.

use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response, StatusCode};
use jiff::SignedDuration;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use vnp_crds::{BlockerReason, EventReason};
use vnp_plan::finding::{EventNote, Finding};
use vnp_plan::plan::{Plan, TrackKind};
use vnp_plan::step::Step;

use crate::apply::Outcome;
use crate::report::testing::{at, blocked, draining, observed, pool, saying, settled};
use crate::report::{ReportError, Reporter};
use crate::runtime::lease::Claim;
use crate::runtime::metrics::Metrics;

/// One request: method, path with query, body.
type Call = (Method, String, Value);

/// Answers status writes with `status` and events with `event`, failures with `message`; 200 echoes the object with resourceVersion 105.
fn server(status: StatusCode, event: StatusCode, message: &'static str) -> (Client, Arc<Mutex<Vec<Call>>>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let log = Arc::clone(&calls);
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            // A GET has none.
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = if head.uri.path().contains("/events") {
                event
            } else {
                status
            };
            let answer = if code.is_success() {
                let mut object = serde_json::to_value(pool(json!({}))).unwrap();
                if body.is_object() {
                    json_patch::merge(&mut object, &body);
                }
                object["metadata"]["resourceVersion"] = json!("105");
                object
            } else {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
                       "reason": code.canonical_reason().unwrap().replace(' ', ""), "message": message})
            };
            log.lock()
                .unwrap()
                .push((head.method, head.uri.to_string(), body));
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    (Client::new(service, "default"), calls)
}

struct Bench {
    reporter: Reporter,
    metrics: Metrics,
    claim: Claim,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Bench {
    fn new(status: StatusCode, event: StatusCode) -> Self {
        Self::saying(status, event, "no")
    }

    fn saying(status: StatusCode, event: StatusCode, message: &'static str) -> Self {
        let (client, calls) = server(status, event, message);
        let claim = Claim::lasting();
        let metrics = Metrics::default();
        let reporter = Reporter::new(client, claim.clone(), metrics.clone(), "operator-0".to_owned());
        Self {
            reporter,
            metrics,
            claim,
            calls,
        }
    }

    /// Reports a pass over a pool with that status and resourceVersion; returns what was sent.
    async fn pass(&self, status: &Value, version: &str, plan: &Plan, seconds: i64) -> Vec<Call> {
        self.attempt(status, version, plan, seconds).await.unwrap();
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    async fn attempt(
        &self,
        status: &Value,
        version: &str,
        plan: &Plan,
        seconds: i64,
    ) -> Result<Option<jiff::Timestamp>, ReportError> {
        let pool = pool(json!({"metadata": {"resourceVersion": version}, "status": status}));
        self.reporter
            .report(&observed(pool), plan, &[], at(seconds))
            .await
    }
}

fn fine() -> Bench {
    Bench::new(StatusCode::OK, StatusCode::CREATED)
}

fn events(calls: &[Call]) -> Vec<&str> {
    calls
        .iter()
        .filter(|c| c.1.contains("/events"))
        .map(|c| c.2["reason"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_lost_race_is_counted_once_whether_its_event_is_taken_or_not() {
    for taken in [StatusCode::CREATED, StatusCode::INTERNAL_SERVER_ERROR] {
        let bench = Bench::new(StatusCode::OK, taken);
        let race = |pods| {
            saying([Finding::Event(EventNote {
                reason: EventReason::RaceLost,
                subject: "virtual-node-eci-2".to_owned(),
                note: format!("{pods} pods are bound to it"),
            })])
        };
        for (pods, second) in [(1, 0), (2, 1), (3, 2)] {
            bench.pass(&Value::Null, "105", &race(pods), second).await;
        }
        let text = bench.metrics.render().unwrap();
        assert!(
            text.contains("virtualnodepool_races_lost_total 1"),
            "{taken}: {text}"
        );
    }
}

#[tokio::test]
async fn a_status_is_applied_once_and_only_to_the_object_that_was_seen() {
    let bench = fine();
    let calls = bench.pass(&Value::Null, "100", &settled(), 0).await;
    let [(method, url, body)] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(method, Method::PATCH);
    assert!(
        url.starts_with("/apis/virtualnodes.dev/v1alpha1/virtualnodepools/burst/status?"),
        "{url}"
    );
    for part in [
        "force=true",
        "fieldManager=virtualnodepool-operator",
        "fieldValidation=Strict",
    ] {
        assert!(url.contains(part), "{url}");
    }
    assert_eq!(
        body["metadata"],
        json!({"name": "burst", "resourceVersion": "100"})
    );
    // It comes back over the watch: nothing more to say.
    assert_eq!(bench.pass(&body["status"], "105", &settled(), 1).await, []);
}

#[tokio::test]
async fn a_cache_that_lags_behind_the_last_write_is_waited_for() {
    let bench = fine();
    bench.pass(&Value::Null, "100", &settled(), 0).await;
    let wake = bench
        .attempt(&Value::Null, "100", &draining(0, []), 1)
        .await
        .unwrap();
    assert_eq!(wake, Some(at(1) + SignedDuration::from_secs(1)));
    assert!(bench.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let bench = fine();
    bench.claim.revoke();
    let answer = bench
        .attempt(
            &Value::Null,
            "100",
            &draining(0, [blocked(BlockerReason::BarePods)]),
            60,
        )
        .await;
    assert!(matches!(answer, Err(ReportError::LeaseLost(_))), "{answer:?}");
    assert!(bench.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn answers_are_told_apart() {
    let moved = Bench::new(StatusCode::CONFLICT, StatusCode::CREATED);
    assert!(
        moved
            .attempt(&Value::Null, "100", &settled(), 0)
            .await
            .unwrap()
            .is_some()
    );
    let gone = Bench::new(StatusCode::NOT_FOUND, StatusCode::CREATED);
    assert_eq!(
        gone.attempt(&Value::Null, "100", &settled(), 0).await.unwrap(),
        None
    );
    let forbidden = Bench::new(StatusCode::FORBIDDEN, StatusCode::CREATED);
    let answer = forbidden.attempt(&Value::Null, "100", &settled(), 0).await;
    assert!(matches!(answer, Err(ReportError::Refused(_))), "{answer:?}");
    for code in [StatusCode::CONFLICT, StatusCode::NOT_FOUND] {
        let text = "admission webhook \"guard\" denied the request: no";
        let webhook = Bench::saying(code, StatusCode::CREATED, text);
        let answer = webhook.attempt(&Value::Null, "100", &settled(), 0).await;
        assert!(
            matches!(answer, Err(ReportError::Refused(_))),
            "a webhook chose {code}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn an_event_that_fails_fails_nothing_and_is_tried_again() {
    let bench = Bench::new(StatusCode::OK, StatusCode::FORBIDDEN);
    let plan = draining(0, [blocked(BlockerReason::BlockedByBudget)]);
    let calls = bench.pass(&Value::Null, "100", &plan, 60).await;
    assert_eq!(events(&calls), ["DrainBlocked", "DrainStarted"]);
    let status = calls.iter().find(|c| c.1.contains("/status")).unwrap().2["status"].clone();
    assert_eq!(
        events(&bench.pass(&status, "105", &plan, 61).await),
        ["DrainBlocked", "DrainStarted"],
        "what goes on and what happened once"
    );
}

#[tokio::test]
async fn neither_time_nor_a_restart_repeats_an_event() {
    let bench = fine();
    let plan = draining(0, [blocked(BlockerReason::BlockedByBudget)]);
    let calls = bench.pass(&Value::Null, "100", &plan, 60).await;
    assert_eq!(events(&calls), ["DrainBlocked", "DrainStarted"]);
    let status = calls.iter().find(|c| c.1.contains("/status")).unwrap().2["status"].clone();
    for seconds in [61, 120, 500] {
        assert_eq!(
            bench.pass(&status, "105", &plan, seconds).await,
            [],
            "at {seconds}"
        );
    }
    assert_eq!(fine().pass(&status, "105", &plan, 130).await, []);
}

#[tokio::test]
async fn a_pool_that_was_let_go_is_not_written_to() {
    let bench = fine();
    let let_go = Outcome {
        track: Some(TrackKind::Pool),
        step: Step::RemovePoolFinalizer,
        result: Ok(()),
        stored: None,
    };
    let observed = observed(pool(json!({})));
    let wake = bench
        .reporter
        .report(&observed, &settled(), &[let_go], at(0))
        .await
        .unwrap();
    assert_eq!(wake, None);
    assert!(bench.calls.lock().unwrap().is_empty());
}

/// Another installation reports on the same pool.
#[tokio::test]
async fn a_status_that_somebody_else_rewrites_is_written_seldom() {
    let bench = fine();
    let theirs = json!({"nodes": 7});
    let mut writes = Vec::new();
    let mut told = Vec::new();
    for second in 0..400 {
        let calls = bench.pass(&theirs, "105", &settled(), second).await;
        told.extend(events(&calls).into_iter().map(str::to_owned));
        if calls.iter().any(|c| c.0 == Method::PATCH) {
            writes.push(second);
        }
    }
    assert_eq!(writes, [0, 1, 2, 122, 242, 362]);
    assert_eq!(told, ["ConfigWarning"]);
}

#[tokio::test]
async fn a_pool_that_no_pass_reports_on_is_told_of_once() {
    let bench = fine();
    let unseen = |uid: &str| crate::observe::sight::Unseen {
        name: "burst".to_owned(),
        uid: uid.to_owned(),
        reason: vnp_crds::Reason::WatchFailing,
        note: "it can't be read".to_owned(),
    };
    for second in 0..100 {
        bench.reporter.unseen(vec![unseen("uid-burst")], at(second)).await;
    }
    let calls = std::mem::take(&mut *bench.calls.lock().unwrap());
    assert_eq!(events(&calls), ["ConfigWarning"]);
    assert_eq!(calls[0].2["regarding"]["uid"], "uid-burst");
    assert_eq!(calls[1].0, Method::GET);
    let written = &calls[2].2["status"]["conditions"];
    assert_eq!(
        (&written[0]["type"], &written[0]["message"]),
        (&json!("Ready"), &json!("it can't be read"))
    );
    assert_eq!(calls.len(), 3);
    // One that can be read by now is left to its passes.
    let mended = crate::observe::sight::Unseen {
        reason: vnp_crds::Reason::InvalidSpec,
        ..unseen("uid-burst")
    };
    bench.reporter.unseen(vec![mended], at(200)).await;
    let calls = std::mem::take(&mut *bench.calls.lock().unwrap());
    assert!(calls.iter().any(|c| c.0 == Method::GET), "{calls:?}");
    assert!(calls.iter().all(|c| c.0 != Method::PATCH), "{calls:?}");
    // A status that is refused is not tried at each look.
    let closed = Bench::new(StatusCode::INTERNAL_SERVER_ERROR, StatusCode::OK);
    for second in 0..100 {
        closed
            .reporter
            .unseen(vec![unseen("uid-burst")], at(second))
            .await;
    }
    let calls = std::mem::take(&mut *closed.calls.lock().unwrap());
    assert_eq!(calls.iter().filter(|c| c.0 == Method::GET).count(), 2);
    // What was not taken is told again.
    let refusing = Bench::new(StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR);
    for second in 0..3 {
        refusing
            .reporter
            .unseen(vec![unseen("uid-burst")], at(second))
            .await;
    }
    let calls = std::mem::take(&mut *refusing.calls.lock().unwrap());
    assert_eq!(calls.iter().filter(|c| c.0 == Method::POST).count(), 3);
}
