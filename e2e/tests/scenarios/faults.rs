//! The operator dies at the worst moments, or stops cleanly.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vnp_e2e::call_gate::{Call, CallGate, Fate};
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::Scenario;

use crate::fixture::{
    catch_up, emptied_before_shrink, fill, get_pool, in_phase, misbehave, misbehave_on_1_12, quick_lease,
    resize, shrunk, start_pool,
};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_in_one_shrink_change_nothing_but_its_length() -> Result<()> {
    Scenario::run("killed", async |s| {
        misbehave_on_1_12(s);
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 60).await?;
        resize(s, 1).await?;
        let drain = in_phase(s, &["Cordoning", "Settling", "Evicting"], Duration::from_secs(30)).await?;
        let started = drain["status"]["drain"]["nodes"][0]["startedAt"].clone();

        // Moments drawn from a fixed sequence: the same in every run, spread over every phase.
        let mut seed = 0x9e37_79b9_u32;
        for _ in 0..20 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            tokio::time::sleep(Duration::from_millis(u64::from(seed >> 16) % 3000)).await;
            operator.kill().await?;
            let entry = get_pool(s).await?["status"]["drain"]["nodes"][0]["startedAt"].clone();
            ensure!(
                entry.is_null() || entry == started,
                "startedAt moved from {started} to {entry}"
            );
            operator = s.spawn_operator(&quick_lease()).await?;
        }
        shrunk(s, 1, catch_up(60) + Duration::from_secs(60)).await?;
        operator.terminate().await?;
        emptied_before_shrink(s, 2)?;
        s.pods_running("app=web", 60, Duration::from_secs(30)).await?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

/// A kind of write: what is written, without whose.
fn kind(call: &Call) -> Option<String> {
    if !call.is_write() || call.path.contains("/leases/") || call.path.contains("/events") {
        return None;
    }
    let patch = call.body.as_str();
    let detail = [
        ("virtualnodes.dev~1shrinking", "fence"),
        ("\"/spec/replicas\"", "replicas"),
        ("unschedulable", "cordon"),
        ("finalizers", "finalizer"),
    ];
    let detail = detail
        .iter()
        .find(|(word, _)| patch.contains(word))
        .map_or("", |(_, name)| name);
    let resource = call
        .path
        .split('/')
        .filter(|part| {
            [
                "nodes",
                "pods",
                "statefulsets",
                "virtualnodepools",
                "status",
                "eviction",
                "configmaps",
                "secrets",
            ]
            .contains(part)
        })
        .collect::<Vec<_>>()
        .join("/");
    Some(format!("{} {resource} {detail}", call.method))
}

async fn through(s: &Scenario<'_>, gate: &CallGate) -> Result<Operator> {
    let path = gate.write_kubeconfig(s.environment().control_plane().folder().join("gate.kubeconfig"))?;
    let mut options = quick_lease();
    options
        .env
        .push(("KUBECONFIG".to_owned(), path.display().to_string()));
    s.spawn_operator(&options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_and_after_each_kind_of_write_changes_nothing() -> Result<()> {
    Scenario::run("each-write", async |s| {
        misbehave(s);
        let kubeconfig = s.environment().install_operator().await?;
        let gate = CallGate::open(kubeconfig).await?;
        let mut operator = through(s, &gate).await?;
        start_pool(s, 1).await?;
        // Kinds of write at which the operator died, by the moment.
        let mut before: BTreeSet<String> = BTreeSet::new();
        let mut after: BTreeSet<String> = BTreeSet::new();
        let mut rounds = 0;
        let mut wanted = 2;
        // Grow and shrink again and again; the first time that a kind of write shows up, kill right before it, the second
        // time right after it.
        loop {
            if wanted == 1 {
                rounds += 1;
                fill(s, 1, 2, &format!("web-{rounds}"), 6).await?;
            }
            resize(s, wanted).await?;
            let mut new = 0;
            let round = Instant::now();
            while round.elapsed() < Duration::from_secs(90) {
                let done = before.clone();
                let mut unsent = gate.trap(Fate::LostBefore, move |call| {
                    kind(call).is_some_and(|kind| !done.contains(&kind))
                });
                let (lost, done) = (before.clone(), after.clone());
                let mut unanswered = gate.trap(Fate::LostAfter, move |call| {
                    kind(call).is_some_and(|kind| lost.contains(&kind) && !done.contains(&kind))
                });
                let (mut trap, call, moment) = tokio::select! {
                    call = unsent.wait() => (unsent, call?, &mut before),
                    call = unanswered.wait() => (unanswered, call?, &mut after),
                    done = shrunk(s, wanted, Duration::from_secs(60)) => { done?; break; }
                };
                operator.kill().await?;
                trap.let_go();
                moment.insert(kind(&call).context("only writes are caught")?);
                new += 1;
                operator = through(s, &gate).await?;
            }
            shrunk(s, wanted, Duration::from_secs(120)).await?;
            if wanted == 1 {
                emptied_before_shrink(s, 2)?;
                if new == 0 {
                    break;
                }
            }
            wanted = 3 - wanted;
        }
        operator.terminate().await?;
        println!("killed before {before:#?}\nand after {after:#?}");
        for kind in [
            "PATCH nodes cordon",
            "PATCH statefulsets fence",
            "PATCH statefulsets replicas",
            "POST pods/eviction ",
            "DELETE nodes ",
            "DELETE pods ",
            "PATCH virtualnodepools/status ",
        ] {
            for (seen, moment) in [(&before, "before"), (&after, "after")] {
                ensure!(seen.contains(kind), "never killed {moment} {kind}: {seen:?}");
            }
        }
        s.no_leak_within(Duration::from_secs(60)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_hands_over_at_once() -> Result<()> {
    Scenario::run("handover", async |s| {
        let mut first = s.spawn_operator(&OperatorOptions::default()).await?;
        start_pool(s, 1).await?;
        let mut second = s.spawn_operator(&OperatorOptions::default()).await?;
        let code = first.terminate().await?;
        ensure!(code.success(), "it ended with {code}");
        let stopped = Instant::now();
        resize(s, 2).await?;
        s.nodes_ready(2, Duration::from_secs(20)).await?;
        println!(
            "a second operator had made the next node {:.1?} after the first one's clean stop",
            stopped.elapsed()
        );
        second.terminate().await?;
        Ok(())
    })
    .await
}
