//! `make bench-webhook`: what the pod webhook costs. Pods of 20 KiB, 5 pools of 32 rules, of which the last one matches.
//!
//! First the webhook alone, called over TLS as the API server calls it. Then pods are created, in turns in a namespace
//! whose pods the API server asks about and in one whose pods it does not, and the rest is the same. Last, pods are created
//! with nothing installed: what the API server spends on comparing pods with the webhook's entries is not in that.
#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

mod fleet;
mod histogram;
mod load;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::eventually;
use vnp_e2e::{Environment, EnvironmentOptions};

use fleet::{ASKED, NOT_ASKED, POD_BYTES, POOLS, RULES};
use histogram::Histogram;
use load::{Load, open_loop};

/// The webhook's own time may be this long at the 99th percentile.
const TARGET: Duration = Duration::from_millis(5);
/// Pods that differ, about which the webhook is asked alone.
const QUESTIONS: u32 = 300;

#[derive(Parser)]
struct Args {
    /// Calls of the webhook alone, in a second.
    #[arg(long, default_value_t = 300)]
    calls_per_second: u32,
    /// Pods created in a second. What two CPUs can do for all of it together: at a higher rate queues are measured.
    #[arg(long, default_value_t = 30)]
    creates_per_second: u32,
    /// Length of the first part and of the last one, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Turns of each kind in the second part.
    #[arg(long, default_value_t = 6)]
    turns: u32,
    /// Length of a turn, in seconds.
    #[arg(long, default_value_t = 5)]
    turn_seconds: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let environment = Environment::start(EnvironmentOptions::default()).await?;
    let options = OperatorOptions {
        env: vec![
            ("RUST_LOG".into(), "info".into()),
            ("NO_COLOR".into(), "1".into()),
        ],
        ..OperatorOptions::default()
    };
    let mut operator = Operator::start(&environment, &options).await?;
    let client = environment.client().await?;
    fleet::set_up(&client).await?;
    println!(
        "pods of {POD_BYTES} bytes, {POOLS} pools of {RULES} rules, {} CPUs for everything",
        std::thread::available_parallelism()?
    );

    println!("\n| what | in a second | calls | failed | p50 ms | p90 ms | p99 ms | longest ms |");
    println!("|---|---|---|---|---|---|---|---|");
    let alone = webhook_alone(&client, &operator, &args).await?;
    let created = creates(&client, &operator, &args).await?;
    operator.terminate().await?;
    fleet::take_down(&client).await?;
    let turn = Duration::from_secs(args.seconds.into());
    let nothing = create_for(&client, NOT_ASKED, args.creates_per_second, turn).await?;
    println!("{}", nothing.row("pods created with nothing installed"));
    println!("\nThe webhook's own time, from its metric, from the head of a request to its answer:\n");
    for (what, histogram) in [("called alone", &alone), ("while pods are created", &created)] {
        println!("- {what}: {histogram}");
    }
    for (what, histogram) in [("called alone", &alone), ("while pods are created", &created)] {
        let share = histogram
            .within(TARGET)
            .context("the metric has no bucket for the target")?;
        ensure!(
            share >= 0.99,
            "{what}: only {:.2} % took at most {TARGET:?}",
            share * 100.0
        );
    }
    Ok(())
}

/// Calls the webhook as the API server does, about pods that differ.
async fn webhook_alone(client: &Client, operator: &Operator, args: &Args) -> Result<Histogram> {
    let webhook = fleet::webhook(client).await?;
    let questions: Vec<Vec<u8>> = (0..QUESTIONS)
        .map(|n| serde_json::to_vec(&fleet::question(n)))
        .collect::<Result<_, _>>()?;
    let call = |n: usize| {
        let body = questions.get(n % questions.len()).cloned().unwrap_or_default();
        let webhook = webhook.clone();
        async move {
            let request =
                http::Request::post("/mutate").header(http::header::CONTENT_TYPE, "application/json");
            let answer = webhook.request_text(request.body(body)?).await?;
            ensure!(answer.contains("JSONPatch"), "the pod is not changed: {answer}");
            Ok(())
        }
    };
    open_loop(args.calls_per_second, Duration::from_secs(2), call).await?;
    let before = Histogram::read(&operator.metrics().await?)?;
    let load = open_loop(
        args.calls_per_second,
        Duration::from_secs(args.seconds.into()),
        call,
    )
    .await?;
    println!("{}", load.row("webhook called alone, over TLS"));
    Ok(Histogram::read(&operator.metrics().await?)?.since(&before))
}

/// Creates pods with and without the webhook in turns.
async fn creates(client: &Client, operator: &Operator, args: &Args) -> Result<Histogram> {
    let turn = Duration::from_secs(args.turn_seconds.into());
    let (mut without, mut with) = (Load::default(), Load::default());
    for namespace in [NOT_ASKED, ASKED] {
        create_for(client, namespace, args.creates_per_second, turn).await?;
    }
    let before = Histogram::read(&operator.metrics().await?)?;
    for _ in 0..args.turns {
        without.add(create_for(client, NOT_ASKED, args.creates_per_second, turn).await?);
        with.add(create_for(client, ASKED, args.creates_per_second, turn).await?);
    }
    println!("{}", without.row("pods created without the webhook"));
    println!("{}", with.row("pods created with the webhook"));
    println!("{}", with.difference(&without));
    Ok(Histogram::read(&operator.metrics().await?)?.since(&before))
}

/// One turn; its pods are gone afterwards.
async fn create_for(client: &Client, namespace: &'static str, rate: u32, turn: Duration) -> Result<Load> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(fleet::pod())?;
    let create = |_| {
        let (api, pod) = (api.clone(), pod.clone());
        async move {
            let created = api.create(&PostParams::default(), &pod).await?;
            let labels = created.metadata.labels.unwrap_or_default();
            let mutated = labels.contains_key(fleet::ADDED);
            ensure!(
                mutated == (namespace == ASKED),
                "a pod in {namespace}: changed is {mutated}"
            );
            Ok(())
        }
    };
    let load = open_loop(rate, turn, create).await?;
    let now = DeleteParams::default().grace_period(0);
    api.delete_collection(&now, &ListParams::default()).await?;
    eventually("the pods are gone", Duration::from_secs(120), async || {
        let left = api
            .list_metadata(&ListParams::default().limit(1))
            .await?
            .items
            .len();
        ensure!(left == 0, "pods are left");
        Ok(())
    })
    .await?;
    Ok(load)
}
