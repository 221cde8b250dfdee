//! The API server that the in-process proofs run on, against the real one: the same calls, the same answers.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use vnp_e2e::control_plane::{ControlPlane, ControlPlaneOptions};
use vnp_e2e::scenario::eventually;
use vnp_fake_api_server::FakeApiServer;
use vnp_fake_api_server::conformance::{Answer, Stories, script, stateful_sets};
use vnp_fake_api_server::stateful_sets::StatefulSets;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
const SOON: Duration = Duration::from_secs(30);

/// An API server with the CRD, and a client that retries nothing.
async fn real() -> Result<(ControlPlane, Client)> {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        // It wants an account that a controller would make.
        apiserver_args: vec!["--disable-admission-plugins=ServiceAccount".to_owned()],
        apiserver_only: true,
        ..ControlPlaneOptions::default()
    })
    .await?;
    let crd = format!("{CONFIG}/crd");
    control_plane
        .kubectl(["apply", "--server-side", "--kustomize", &crd])
        .await?;
    // A definition that is still without conditions makes kubectl fail instead of wait.
    let definition = "crd/virtualnodepools.virtualnodes.dev";
    let wait = ["wait", "--for=condition=Established", "--timeout=5s", definition];
    eventually("the CRD is served", SOON, async || {
        control_plane.kubectl(wait).await.map(drop)
    })
    .await?;
    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok((control_plane, Client::try_from(config)?))
}

/// Where two values differ.
fn differences(path: &str, real: &Value, fake: &Value, out: &mut Vec<String>) {
    match (real, fake) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let place = format!("{path}.{name}");
                differences(&place, &real[name], &fake[name], out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, out);
            }
        }
        _ if real != fake => out.push(format!("    {path}\n      real {real}\n      fake {fake}")),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_api_server_answers_as_the_real_one_does() -> Result<()> {
    let sample = std::fs::read_to_string(format!("{CONFIG}/samples/minimal.yaml"))?;
    let pool: Value = serde_saphyr::from_str(&sample)?;
    let (mut control_plane, client) = real().await?;
    let real: Vec<Answer> = script(client.clone(), &pool).await;
    let fake = script(FakeApiServer::new().client("script"), &pool).await;
    ensure!(
        real.len() == fake.len() && real.len() > 150,
        "{} calls",
        real.len()
    );
    let mut report = Vec::new();
    for (number, (real, fake)) in real.iter().zip(&fake).enumerate() {
        let mut found = Vec::new();
        if (real.code, &real.retry_after) != (fake.code, &fake.retry_after) {
            let told = |a: &Answer| format!("{} {:?}", a.code, a.retry_after);
            found.push(format!("    code: real {}, fake {}", told(real), told(fake)));
        }
        differences("", &real.body, &fake.body, &mut found);
        if !found.is_empty() {
            report.push(format!("{number} {}\n{}", real.call, found.join("\n")));
        }
    }
    let count = report.len();
    ensure!(
        report.is_empty(),
        "{count} of {} answers differ:\n{}",
        real.len(),
        report.join("\n")
    );
    // The script is over, and controllers disturb it no more.
    control_plane
        .start_controllers(&ControlPlaneOptions::default())
        .await?;
    the_stateful_set_controller_does_as_the_real_one_does(&client).await
}

/// The controller that the proofs' worlds use, against kube-controller-manager.
async fn the_stateful_set_controller_does_as_the_real_one_does(real: &Client) -> Result<()> {
    let server = FakeApiServer::new();
    let controller = Mutex::new(StatefulSets::default());
    let work = || {
        let (actor, mut seen) = (server.actor("statefulset-controller"), 0);
        while server.version() != seen {
            seen = server.version();
            controller.lock().unwrap().control(&actor);
        }
    };
    let fake = stateful_sets(&server.client("script"), work, &Stories::new()).await;
    let real = stateful_sets(real, || {}, &fake).await;
    let mut report = Vec::new();
    for (story, real) in &real {
        let first = real.iter().zip(&fake[story]).find(|(real, fake)| real != fake);
        if let Some((real, fake)) = first {
            report.push(format!(
                "{story}: {}\n  real {:#?}\n  fake {:#?}",
                real.step, real, fake
            ));
        }
    }
    ensure!(real.values().flatten().count() > 60, "too few steps");
    ensure!(
        report.is_empty(),
        "StatefulSets go other ways:\n{}",
        report.join("\n")
    );
    Ok(())
}
