//! Shrinking, cancelling, and pods where none should be.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::cloud::Heartbeat;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::audit_trail::record;
use crate::fixture::{
    catch_up, counts, emptied_before_shrink, evictions, evictions_are_precise, fill, get_pool, get_workload,
    in_phase, misbehave, misbehave_on_1_12, pool, resize, shrunk, start_pool,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_pool_drains_a_node_under_its_budget_before_it_goes() -> Result<()> {
    Scenario::run("shrink", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 3).await?;
        fill(s, 2, 3, "web", 300).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", "10%"))
            .await?;
        let all = s.pods_on(2).await?.len();
        ensure!(all == 302, "{all} pods are on the node");

        let started = Instant::now();
        resize(s, 2).await?;
        shrunk(s, 2, catch_up(302) + Duration::from_secs(180)).await?;
        println!(
            "302 pods under a budget of 10 % drained and their node removed in {:.0?}",
            started.elapsed()
        );

        emptied_before_shrink(s, 3)?;
        evictions_are_precise(s)?;
        s.pods_running("app=web", 300, Duration::from_secs(30)).await?;
        let refused = evictions(s)?.iter().filter(|e| e.code == 429).count();
        ensure!(
            refused <= 60,
            "the budget refused {refused} evictions: it is not watched"
        );
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn raising_the_target_stops_a_drain_and_undoes_only_its_own_cordon() -> Result<()> {
    Scenario::run("cancel", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 3).await?;
        fill(s, 2, 3, "web", 60).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 1))
            .await?;
        s.kubectl(&format!("cordon {}", s.node(1))).await?;
        let before = counts(s)?.len();

        resize(s, 2).await?;
        eventually("pods are evicted", Duration::from_secs(30), async || {
            ensure!(evictions(s)?.iter().any(|e| e.code == 201), "none yet");
            Ok(())
        })
        .await?;
        resize(s, 3).await?;
        let raised = Timestamp::now();
        eventually("our cordon is undone", Duration::from_secs(5), async || {
            let cordoned: Vec<bool> = cordons(s).await?;
            ensure!(cordoned == [false, true, false], "cordons: {cordoned:?}");
            Ok(())
        })
        .await?;
        always("nothing is evicted", Duration::from_secs(5), async || {
            let late = evictions(s)?
                .into_iter()
                .find(|e| e.received.duration_since(raised) > jiff::SignedDuration::from_secs(1));
            ensure!(
                late.is_none(),
                "{late:?} came more than a second after the target was raised at {raised}"
            );
            ensure!(
                cordons(s).await? == [false, true, false],
                "a person's cordon is gone, or ours is back"
            );
            Ok(())
        })
        .await?;

        resize(s, 2).await?;
        in_phase(s, &["Settling", "Evicting"], Duration::from_secs(20)).await?;
        let mut open = pool(s, 3);
        open["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        s.apply(&open).await?;
        eventually("the drain is given up", Duration::from_secs(10), async || {
            ensure!(cordons(s).await? == [false, true, false], "still cordoned");
            Ok(())
        })
        .await?;
        ensure!(
            counts(s)?.len() == before,
            "replicas was written: {:?}",
            counts(s)?
        );
        ensure!(
            get_workload(s).await?["spec"]["replicas"] == 3,
            "something was cut"
        );
        // A deletion that the provider forgot stays with a node that stays: only its next start would find it.
        let leaks = s.leaks().await?;
        ensure!(
            leaks.without_provider.is_empty() && leaks.duplicates.is_empty(),
            "{leaks}"
        );
        Ok(())
    })
    .await
}

/// `spec.unschedulable` of the nodes by ordinal.
async fn cordons(s: &Scenario<'_>) -> Result<Vec<bool>> {
    let mut nodes = s.nodes().await?;
    nodes.sort_by_key(|n| n.metadata.name.clone());
    Ok(nodes
        .iter()
        .map(|n| n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_drain_names_what_blocks_it_and_goes_on_when_it_is_free() -> Result<()> {
    Scenario::run("blocked", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 10).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        resize(s, 1).await?;
        eventually("the budget is named", Duration::from_secs(20), async || {
            let status = get_pool(s).await?["status"].clone();
            let blockers = status["drain"]["blockers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            ensure!(
                blockers
                    .iter()
                    .any(|b| b["reason"] == "BlockedByBudget" && b["object"] == "blocked/web"),
                "{status}"
            );
            Ok(())
        })
        .await?;
        eventually(
            "the table counts the pods that are left",
            Duration::from_secs(10),
            async || {
                let table = s.kubectl("get virtualnodepools blocked").await?;
                ensure!(table.contains("10/12"), "{table}");
                Ok(())
            },
        )
        .await?;
        let freed = Timestamp::now();
        s.apply(&manifests::budget(s.namespace(), "web", "web", 10))
            .await?;
        eventually("an eviction is accepted", Duration::from_secs(5), async || {
            let first = evictions(s)?
                .into_iter()
                .find(|e| e.code == 201 && e.received > freed);
            ensure!(first.is_some(), "none yet");
            Ok(())
        })
        .await?;
        shrunk(s, 1, catch_up(10)).await?;
        emptied_before_shrink(s, 2)?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_a_node_that_never_was_is_reported_and_scales_nothing() -> Result<()> {
    Scenario::run("stray", async |s| {
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 1).await?;
        let before = counts(s)?.len();
        let mut stray = manifests::bare_pod(s.namespace(), "stray");
        stray["spec"]["nodeName"] = json!(s.node(99));
        s.apply(&stray).await?;
        eventually("an event names the node", Duration::from_secs(20), async || {
            let events = s
                .kubectl("get events.events.k8s.io --namespace default --field-selector reason=UnknownOrdinal --output json")
                .await?;
            ensure!(events.contains(&s.node(99)), "{events}");
            Ok(())
        })
        .await?;
        ensure!(counts(s)?.len() == before, "the count was changed: {:?}", counts(s)?);
        ensure!(s.nodes().await?.len() == 1, "a node appeared");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_a_person_cut_is_put_back_and_one_that_a_person_raised_is_drained() -> Result<()> {
    Scenario::run("by-hand", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 20).await?;
        let instances = s.ledger().living_on(&s.node(1)).len();
        ensure!(instances == 22, "{instances} instances");

        s.kubectl(&format!(
            "scale statefulset {} --namespace kube-system --replicas 1",
            s.provider()
        ))
        .await?;
        eventually("the count is back", Duration::from_secs(10), async || {
            ensure!(get_workload(s).await?["spec"]["replicas"] == 2, "not yet");
            Ok(())
        })
        .await?;
        s.nodes_ready(2, Duration::from_secs(30)).await?;
        ensure!(evictions(s)?.is_empty(), "a pod was evicted");

        s.kubectl(&format!(
            "scale statefulset {} --namespace kube-system --replicas 3",
            s.provider()
        ))
        .await?;
        shrunk(s, 2, Duration::from_secs(90)).await?;
        let last = counts(s)?.pop();
        ensure!(
            last.as_ref().is_some_and(|c| c.user == OPERATOR && c.to == 2),
            "{last:?}"
        );
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

async fn available(s: &Scenario<'_>, count: u32) -> Result<()> {
    eventually(
        &format!("{count} nodes are available"),
        Duration::from_secs(90),
        async || {
            let available = get_pool(s).await?["status"]["availableNodes"].clone();
            ensure!(available == count, "{available} are");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_be_emptied_goes_when_a_person_gives_it_up() -> Result<()> {
    Scenario::run("give-up", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 5).await?;
        // Its provider lives and has gone silent: nobody can delete its instances.
        available(s, 2).await?;
        s.cloud().configure_node(&s.node(1), |knobs| knobs.heartbeat = Heartbeat::Silent);
        available(s, 1).await?;
        resize(s, 1).await?;
        eventually("the provider is named", Duration::from_secs(30), async || {
            let blockers = get_pool(s).await?["status"]["drain"]["blockers"].clone();
            ensure!(blockers[0]["reason"] == "ProviderUnavailable", "{blockers}");
            Ok(())
        })
        .await?;
        ensure!(evictions(s)?.is_empty(), "a pod was evicted although nobody could delete its instance");
        let nodes = s.nodes().await?;
        let uid = nodes
            .iter()
            .find(|n| n.metadata.name.as_deref() == Some(&s.node(1)))
            .and_then(|n| n.metadata.uid.clone())
            .unwrap_or_default();
        s.kubectl(&format!(
            "annotate virtualnodepool give-up virtualnodes.dev/abandon-node={}/{uid}",
            s.node(1)
        ))
        .await?;
        eventually("the count is lowered", Duration::from_secs(30), async || {
            ensure!(get_workload(s).await?["spec"]["replicas"] == 1, "not yet");
            Ok(())
        })
        .await?;
        let events = s
            .kubectl("get events.events.k8s.io --namespace default --field-selector reason=NodeAbandoned --output json")
            .await?;
        ensure!(events.contains(&s.node(1)) && events.contains("give-up/web-"), "{events}");
        let record = record(s, 1).await?;
        let pods = record["pods"].as_array().cloned().unwrap_or_default();
        let left = |p: &Value| p["ended"] == "Abandoned" && p["instance"].is_string();
        ensure!(!pods.is_empty() && pods.iter().all(left), "{record}");
        Ok(())
    })
    .await
}
