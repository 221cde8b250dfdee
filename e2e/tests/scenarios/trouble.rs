//! A drain meets a provider that is down, a Node that somebody deleted, and people who keep taking its cordon away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_e2e::audit::AuditEvent;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};
use vnp_e2e::simulation::SIMULATION_USER;

use crate::fixture::{
    blocked_by, counts, emptied_before_shrink, evictions, fill, get, get_pool, get_workload, in_phase,
    misbehave, misbehave_on_1_12, pool, quick_lease, ready, resize, shrunk, start_pool,
};

const SOON: Duration = Duration::from_secs(60);

/// When a provider pod of that name was first reported Ready after that.
fn came_back(s: &Scenario<'_>, name: &str, since: Timestamp) -> Result<Timestamp> {
    let ready = |e: &AuditEvent| {
        let conditions = e.request.as_ref()?.pointer("/status/conditions")?.as_array()?;
        conditions
            .iter()
            .find(|c| c["type"] == "Ready" && c["status"] == "True")?;
        Some(e.received)
    };
    let events = s.audit_log().events()?;
    events
        .iter()
        .filter(|e| e.user == SIMULATION_USER && e.is("pods", Some("status")))
        .filter(|e| e.namespace.as_deref() == Some("kube-system") && e.name.as_deref() == Some(name))
        .filter_map(ready)
        .filter(|ready| *ready > since)
        .min()
        .with_context(|| format!("{name} was never Ready since {since}"))
}

/// Lets the provider of the n-th node crash; it is down for that long.
fn crash(s: &Scenario<'_>, ordinal: usize, down: Duration) {
    s.cloud()
        .configure_node(&s.node(ordinal), |knobs| knobs.restart_delay = down);
    s.cloud().crash_provider(&s.node(ordinal));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_holds_the_drain_and_starts_its_settle_anew() -> Result<()> {
    const SETTLE: i64 = 8;
    Scenario::run("down", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 30).await?;
        let mut slow = pool(s, 1);
        // Slow enough for a busy machine to see the beginning, and the provider down, before the end.
        slow["spec"]["drain"]["evictionsPerSecond"] = json!(1);
        slow["spec"]["drain"]["burst"] = json!(1);
        slow["spec"]["drain"]["emptySettleSeconds"] = json!(SETTLE);
        s.apply(&slow).await?;
        eventually("some pods are evicted", SOON, async || {
            let gone = evictions(s)?.iter().filter(|e| e.code == 201).count();
            ensure!(gone >= 5, "{gone}");
            Ok(())
        })
        .await?;

        crash(s, 1, Duration::from_secs(15));
        blocked_by(s, "ProviderUnavailable", &s.node(1), SOON).await?;
        let said = Timestamp::now();
        eventually("evictions go on", SOON, async || {
            let next = evictions(s)?.into_iter().find(|e| e.received > said);
            let next = next.context("none yet")?;
            let back = came_back(s, &s.node(1), said)?;
            ensure!(
                next.received > back,
                "{next:?} came while nobody could delete its instance"
            );
            Ok(())
        })
        .await?;

        in_phase(s, &["Emptying"], SOON).await?;
        let crashed = Timestamp::now();
        crash(s, 1, Duration::from_secs(4));
        blocked_by(s, "ProviderUnavailable", &s.node(1), SOON).await?;
        let back = eventually("it is back", SOON, async || {
            let pod = get(s, &format!("pod {} --namespace kube-system", s.node(1))).await?;
            let ready = crate::fixture::condition(&pod, "Ready").cloned();
            ensure!(ready.is_some_and(|r| r["status"] == "True"), "not yet");
            came_back(s, &s.node(1), crashed)
        })
        .await?;
        shrunk(s, 1, SOON).await?;
        let lowered = counts(s)?.pop().context("no shrink")?;
        let settled = lowered.received.duration_since(back);
        println!("shrunk {settled:#} after its provider was back, with a settle of {SETTLE} s");
        ensure!(settled.as_secs() >= SETTLE, "shrunk {settled} after it was back");
        emptied_before_shrink(s, 2)?;
        s.pods_running("app=web", 30, SOON).await?;
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_deleted_by_hand_is_missing_and_not_empty() -> Result<()> {
    Scenario::run("missing", async |s| {
        misbehave(s);
        // The node lifecycle controller leaves the pods of a missing node alone for 40 s.
        s.cloud().configure_node(&s.node(1), |knobs| {
            knobs.reregister_delay = Some(Duration::from_secs(20));
        });
        missing_until(s, async || Ok(())).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_a_restart_registers_again_is_missing_until_then() -> Result<()> {
    Scenario::run("stays-away", async |s| {
        misbehave_on_1_12(s);
        missing_until(s, async || {
            // Its Lease comes and goes meanwhile.
            let since = Timestamp::now();
            always(
                "it stays away, and nothing is evicted",
                Duration::from_secs(8),
                async || {
                    ensure!(s.nodes().await?.len() == 1, "it came back by itself");
                    let evicted = evictions(s)?
                        .into_iter()
                        .find(|e| e.received > since && e.code == 201);
                    ensure!(evicted.is_none(), "{evicted:?}");
                    Ok(())
                },
            )
            .await?;
            let blockers = get_pool(s).await?["status"]["drain"]["blockers"].to_string();
            let advice = format!("kubectl -n kube-system delete pod {}", s.node(1));
            ensure!(blockers.contains(&advice), "{blockers}");
            s.kubectl(&format!("delete pod {} --namespace kube-system", s.node(1)))
                .await?;
            Ok(())
        })
        .await
    })
    .await
}

/// Deletes the Node of a blocked drain, frees what blocked it, and brings the Node `back`.
async fn missing_until(s: &Scenario<'_>, back: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    s.start_operator(&OperatorOptions::default()).await?;
    start_pool(s, 2).await?;
    fill(s, 1, 2, "web", 5).await?;
    s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
        .await?;
    resize(s, 1).await?;
    let begun = blocked_by(s, "BlockedByBudget", &format!("{}/web", s.namespace()), SOON).await?;
    let begun = begun["status"]["drain"]["nodes"][0].clone();

    let gone = Timestamp::now();
    s.kubectl(&format!("delete node {} --wait=false", s.node(1)))
        .await?;
    let held = blocked_by(s, "NodeMissing", &s.node(1), Duration::from_secs(10)).await?;
    let blockers = held["status"]["drain"]["blockers"].clone();
    ensure!(
        blockers
            .as_array()
            .is_some_and(|b| b.iter().any(|b| b["reason"] == "NodeMissing" && b["pods"] == 5)),
        "{blockers}"
    );
    ensure!(
        get_workload(s).await?["spec"]["replicas"] == 2,
        "it was counted as empty"
    );
    s.apply(&manifests::budget(s.namespace(), "web", "web", 5))
        .await?;
    back().await?;
    eventually("it registers again and its drain goes on", SOON, async || {
        let before = evictions(s)?
            .into_iter()
            .find(|e| e.received > gone && e.code == 201)
            .context("no eviction yet")?;
        // Not the Node itself: it may have been drained and removed before anybody looks.
        let registered = s.audit_log().events()?.into_iter().find(|e| {
            let made = e.verb == "create" && e.is("nodes", None) && e.is_success();
            let uid = e.response.as_ref().map(|node| &node["metadata"]["uid"]);
            made && e.name.as_deref() == Some(&s.node(1)) && uid.is_some_and(|uid| *uid != begun["uid"])
        });
        let registered = registered.context("it did not register again")?.received;
        ensure!(
            before.received >= registered,
            "{before:?} before {registered}, when it registered again"
        );
        Ok(())
    })
    .await?;
    let entry = get_pool(s).await?["status"]["drain"]["nodes"][0].clone();
    ensure!(
        entry.is_null() || entry["startedAt"] == begun["startedAt"],
        "{entry} began as {begun}"
    );
    shrunk(s, 1, SOON).await?;
    emptied_before_shrink(s, 2)?;
    s.pods_running("app=web", 5, SOON).await?;
    s.no_leak_within(SOON).await
}

async fn unschedulable(s: &Scenario<'_>, ordinal: usize) -> Result<Value> {
    Ok(get(s, &format!("node {}", s.node(ordinal))).await?["spec"]["unschedulable"].clone())
}

async fn cordoned(s: &Scenario<'_>, ordinal: usize) -> Result<()> {
    eventually("it is cordoned", SOON, async || {
        ensure!(unschedulable(s, ordinal).await? == true, "not yet");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_that_people_take_away_is_put_back_three_times_and_theirs_is_kept() -> Result<()> {
    Scenario::run("contested", async |s| {
        misbehave_on_1_12(s);
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 6).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        resize(s, 1).await?;
        // The first cordon, and three that are put back.
        for _ in 0..4 {
            cordoned(s, 1).await?;
            // A cordon counts as taken away when it was in effect before.
            eventually("the drain is past its cordon", SOON, async || {
                let drain = get_pool(s).await?["status"]["drain"].clone();
                ensure!(drain["nodes"][0]["phase"] != "Cordoning", "{drain}");
                Ok(())
            })
            .await?;
            s.kubectl(&format!("uncordon {}", s.node(1))).await?;
        }
        blocked_by(s, "CordonContested", &s.node(1), SOON).await?;
        let events = s
            .kubectl("get events.events.k8s.io --namespace default --field-selector reason=CordonContested --output json")
            .await?;
        ensure!(events.contains(&s.node(1)), "{events}");
        s.apply(&manifests::budget(s.namespace(), "web", "web", 1))
            .await?;
        let contested = Timestamp::now();
        always("it keeps its hands off", Duration::from_secs(5), async || {
            let evicted = evictions(s)?.into_iter().find(|e| e.received > contested);
            ensure!(evicted.is_none(), "{evicted:?}");
            ensure!(unschedulable(s, 1).await?.is_null(), "it is cordoned again");
            Ok(())
        })
        .await?;

        // Somebody agrees: the drain goes on, slowly enough to be taken back. Then the target is raised, and their cordon stays.
        let mut slow = pool(s, 1);
        slow["spec"]["drain"]["emptySettleSeconds"] = json!(120);
        s.apply(&slow).await?;
        s.kubectl(&format!("cordon {}", s.node(1))).await?;
        eventually("pods are evicted", SOON, async || {
            let evicted = evictions(s)?
                .into_iter()
                .find(|e| e.received > contested && e.code == 201);
            evicted.context("none yet")
        })
        .await?;
        resize(s, 2).await?;
        let managers = async || -> Result<String> {
            let node = get(s, &format!("node {}", s.node(1))).await?;
            ensure!(node["spec"]["unschedulable"] == true, "their cordon is gone");
            Ok(node["metadata"]["managedFields"].to_string())
        };
        eventually("its own cordon is gone", SOON, async || {
            ensure!(!managers().await?.contains("virtualnodepool-cordon"), "not yet");
            Ok(())
        })
        .await?;
        s.kubectl(&format!("uncordon {}", s.node(1))).await?;
        ready(s, SOON).await?;

        // A run that was killed leaves its cordon behind; the next one finds that nobody wants it.
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        resize(s, 1).await?;
        cordoned(s, 1).await?;
        s.kubectl(&format!("cordon {}", s.node(0))).await?;
        operator.kill().await?;
        resize(s, 2).await?;
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        eventually("the leftover is gone", SOON, async || {
            ensure!(unschedulable(s, 1).await?.is_null(), "still cordoned");
            Ok(())
        })
        .await?;
        ensure!(unschedulable(s, 0).await? == true, "a person's cordon is gone");
        ensure!(counts(s)?.iter().all(|c| c.to != 1), "{:?}", counts(s)?);
        operator.terminate().await?;
        Ok(())
    })
    .await
}
