//! Answers that say nothing, and no answer at all: the eviction may have happened or not. Asking again is safe, because it
//! names the same UID.

use std::sync::atomic::AtomicBool;

use super::*;

/// The pod was asked for twice with the same words, the second time after a pause, and nobody was told of a blocker.
fn asked_again(bench: &Bench, pause: std::ops::RangeInclusive<f64>) {
    let calls = bench.calls.all();
    let [first, second] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(first.body, second.body);
    assert_eq!(first.body["deleteOptions"]["preconditions"]["uid"], "uid-0");
    let passed = (second.at - first.at).as_secs_f64();
    assert!(pause.contains(&passed), "{passed} s");
    assert!(bench.memories.snapshot(POOL)[&2].refusals.is_empty());
    let text = bench.metrics.render().unwrap();
    for answer in ["unknown", "accepted"] {
        let line = format!("virtualnodepool_evictions_total{{answer=\"{answer}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_server_is_no_refusal() {
    for code in [500, 502, 503, 504] {
        let broken = Arc::new(AtomicBool::new(true));
        let bench = bench(move |_| {
            if broken.swap(false, Ordering::Relaxed) {
                failure(code, "etcdserver: request timed out", json!({}))
            } else {
                accepted()
            }
        });
        bench.tasks.update(POOL, vec![order(2, 0..1, &["web"])]);
        sleep(Duration::from_secs(20)).await;
        asked_again(&bench, 1.0..=2.5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_off_is_no_refusal() {
    let broken = Arc::new(AtomicBool::new(true));
    let bench = bench(move |_| {
        if broken.swap(false, Ordering::Relaxed) {
            (
                503,
                vec![],
                r#"{"kind": "Status", "apiVersion": "v1", "sta"#.to_owned(),
            )
        } else {
            accepted()
        }
    });
    bench.tasks.update(POOL, vec![order(2, 0..1, &[])]);
    sleep(Duration::from_secs(20)).await;
    asked_again(&bench, 1.0..=2.5);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up() {
    let broken = Arc::new(AtomicBool::new(true));
    let (client, calls) = server(move |_| {
        let hangs = broken.swap(false, Ordering::Relaxed);
        async move {
            if hangs {
                sleep(Duration::from_secs(3600)).await;
            }
            accepted()
        }
    });
    let bench = bench_of(client, calls);
    bench.tasks.update(POOL, vec![order(2, 0..1, &[])]);
    sleep(Duration::from_secs(30)).await;
    asked_again(&bench, 16.0..=17.5);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_no_refusal() {
    let broken = Arc::new(AtomicBool::new(true));
    let (working, calls) = server(|_| async { accepted() });
    let reset = tower::service_fn(move |request| {
        let broken = broken.swap(false, Ordering::Relaxed);
        let working = working.clone();
        async move {
            let answer = working.send(request).await;
            if broken {
                return Err(kube::Error::Service(
                    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into(),
                ));
            }
            answer
        }
    });
    // What was lost is the answer: the server has evicted the pod already.
    let bench = bench_of(kube::Client::new(reset, "default"), calls);
    bench.tasks.update(POOL, vec![order(2, 0..1, &[])]);
    sleep(Duration::from_secs(20)).await;
    asked_again(&bench, 1.0..=2.5);
}
