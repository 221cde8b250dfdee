//! `make demo`: the main job end to end, on a real control plane and a simulated cloud, with captions.
//!
//! `KEEP=1` leaves everything running until Ctrl-C and prints how to look around.
#![expect(clippy::print_stdout, reason = "the captions are what it is for")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vnp_e2e::cloud::DeletionOrder;
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::{eventually, manifests};
use vnp_e2e::{Environment, EnvironmentOptions};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples/minimal.yaml");
const LEAVES: &str = "virtual-node-eci-1";

#[tokio::main]
async fn main() -> Result<()> {
    let began = Instant::now();
    caption("Starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and a simulated cloud");
    let environment = Environment::start(EnvironmentOptions::default()).await?;
    environment.cloud().configure(|knobs| {
        knobs.deletion_order = DeletionOrder::ObjectFirst;
        knobs.forget = 0.1;
        knobs.heartbeat_interval = Duration::from_secs(2);
    });
    caption("Starting the operator, with the rights of config/rbac and nothing else");
    let mut operator = Operator::start(&environment, &OperatorOptions::default()).await?;
    operator.ready().await?;

    let story = tokio::select! {
        told = tell(&environment) => told,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    if let Err(error) = story {
        println!("\n{}", operator.log_tail(40));
        return Err(error);
    }
    caption(&format!("Done in {:.0?}", began.elapsed()));
    if std::env::var_os("KEEP").is_some_and(|v| v == "1") {
        let kubeconfig = environment.control_plane().kubeconfig().display().to_string();
        println!("\nexport KUBECONFIG={kubeconfig}\n\nCtrl-C ends it.");
        tokio::signal::ctrl_c().await?;
    }
    operator.terminate().await?;
    Ok(())
}

async fn tell(env: &Environment) -> Result<()> {
    caption("A pool in Git: kubectl apply --server-side -f config/samples/minimal.yaml");
    env.kubectl(["apply", "--server-side", "-f", SAMPLE]).await?;
    env.kubectl([
        "wait",
        "virtualnodepool/burst",
        "--for=condition=Ready",
        "--timeout=60s",
    ])
    .await?;
    show(env, &["get", "virtualnodepools"]).await?;
    show(env, &["get", "nodes"]).await?;

    caption("100 pods and a budget: PodDisruptionBudget shop/web lets nobody go for now");
    for manifest in [
        manifests::namespace("shop"),
        manifests::deployment("shop", "web", 100),
        manifests::budget("shop", "web", "web", 0),
    ] {
        apply(env, &manifest).await?;
    }
    eventually("100 pods run", Duration::from_secs(60), async || {
        let ready = env
            .kubectl([
                "get",
                "deployment",
                "web",
                "-n",
                "shop",
                "-o",
                "jsonpath={.status.readyReplicas}",
            ])
            .await?;
        ensure!(ready == "100", "{ready} do");
        Ok(())
    })
    .await?;
    println!("instances in the cloud: {}", env.cloud().ledger().living().len());

    caption(
        "One node less in Git: replicas 2 -> 1. The count of the StatefulSet stays until the node is empty",
    );
    env.kubectl([
        "patch",
        "virtualnodepool",
        "burst",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":1}}"#,
    ])
    .await?;
    eventually("the budget is named", Duration::from_secs(60), async || {
        let pool = pool(env).await?;
        ensure!(
            pool["status"]["drain"]["blockers"][0]["reason"] == "BlockedByBudget",
            "{}",
            pool["status"]["drain"]
        );
        Ok(())
    })
    .await?;
    show(env, &["get", "virtualnodepools"]).await?;
    println!(
        "{}",
        pool(env).await?["status"]["drain"]["blockers"][0]["message"]
            .as_str()
            .unwrap_or_default()
    );

    caption("The budget lets 20 % go at a time");
    apply(env, &manifests::budget("shop", "web", "web", "20%")).await?;
    let mut last = String::new();
    eventually("the node is gone", Duration::from_secs(180), async || {
        let table = env.kubectl(["get", "virtualnodepools"]).await?;
        let row = table.lines().nth(1).unwrap_or_default().to_owned();
        let phase = pool(env).await?["status"]["drain"]["nodes"][0]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let told = format!("{row:<100}{phase}");
        if without_age(&row) != without_age(&last) {
            println!("{told}");
            last = row;
        }
        let left = env
            .kubectl(["get", "node", LEAVES, "--ignore-not-found", "-o", "name"])
            .await?;
        ensure!(left.is_empty(), "{LEAVES} is there");
        Ok(())
    })
    .await?;
    env.kubectl([
        "wait",
        "virtualnodepool/burst",
        "--for=condition=Ready",
        "--timeout=30s",
    ])
    .await?;
    show(env, &["get", "virtualnodepools"]).await?;
    show(env, &["get", "nodes"]).await?;

    let ledger = env.cloud().ledger();
    let left = ledger.living_on(LEAVES).len();
    caption(&format!("Instances of {LEAVES} that still cost money: {left}"));
    println!("{ledger}");
    ensure!(left == 0, "the drain leaked {left} instances");
    show(
        env,
        &[
            "get",
            "events.events.k8s.io",
            "-n",
            "default",
            "-o",
            EVENT_COLUMNS,
        ],
    )
    .await
}

const EVENT_COLUMNS: &str = "custom-columns=TYPE:.type,REASON:.reason,NOTE:.note";

/// A row of the table without its last column, which changes by itself.
fn without_age(row: &str) -> String {
    let mut columns: Vec<&str> = row.split_whitespace().collect();
    columns.pop();
    columns.join(" ")
}

fn caption(text: &str) {
    println!("\n=== {text}");
}

async fn show(env: &Environment, args: &[&str]) -> Result<()> {
    println!("$ kubectl {}", args.join(" "));
    let mut command = tokio::process::Command::from(env.control_plane().kubectl_command());
    let output = command.args(args).output().await?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn pool(env: &Environment) -> Result<Value> {
    let text = env
        .kubectl(["get", "virtualnodepool", "burst", "-o", "json"])
        .await?;
    serde_json::from_str(&text).context("read the pool")
}

async fn apply(env: &Environment, manifest: &Value) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&mut file, manifest)?;
    let path = file.path().display().to_string();
    env.kubectl(["apply", "--server-side", "--filename", &path])
        .await?;
    Ok(())
}
