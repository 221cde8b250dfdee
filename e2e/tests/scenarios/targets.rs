//! Several nodes at once, targets that move while nodes drain, and survivors without room.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_e2e::audit::{AuditEvent, OPERATOR};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{
    blocked_by, condition, counts, emptied_before_shrink, evictions, fill, get_pool, misbehave,
    misbehave_on_1_12, pool, ready, resize, shrunk, start_pool,
};

const SOON: Duration = Duration::from_secs(60);

/// When the operator first cordoned the n-th node.
fn cordoned_at(s: &Scenario<'_>, ordinal: usize) -> Result<Option<Timestamp>> {
    let cordon = |e: &&AuditEvent| {
        let body = e.request.as_ref().map(Value::to_string).unwrap_or_default();
        e.is("nodes", None) && e.name.as_deref() == Some(&s.node(ordinal)) && body.contains("unschedulable")
    };
    let writes = s.audit_log().writes_by(OPERATOR, s.began())?;
    Ok(writes.iter().find(cordon).map(|e| e.received))
}

fn draining(pool: &Value) -> Vec<Value> {
    let nodes = pool["status"]["drain"]["nodes"].as_array();
    nodes.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_nodes_drain_at_once_and_the_first_keeps_its_start() -> Result<()> {
    Scenario::run("two-of-three", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 4).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 40)).await?;
        s.pods_running("app=web", 40, SOON).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        let wide = |replicas: u32| {
            let mut pool = pool(s, replicas);
            pool["spec"]["drain"]["maxConcurrentNodes"] = json!(2);
            pool
        };
        s.apply(&wide(3)).await?;
        let first = blocked_by(s, "BlockedByBudget", "two-of-three/web", SOON).await?;
        let first = draining(&first).first().cloned().context("nothing drains")?;
        ensure!(first["ordinal"] == 3, "{first}");

        s.apply(&wide(1)).await?;
        eventually("the next one drains as well", SOON, async || {
            let nodes = draining(&get_pool(s).await?);
            let ordinals: Vec<&Value> = nodes.iter().map(|n| &n["ordinal"]).collect();
            ensure!(ordinals == [3, 2], "{ordinals:?}");
            ensure!(
                nodes[0]["startedAt"] == first["startedAt"],
                "{} began as {first}",
                nodes[0]
            );
            Ok(())
        })
        .await?;
        always("the third waits", Duration::from_secs(3), async || {
            ensure!(cordoned_at(s, 1)?.is_none(), "it is cordoned");
            Ok(())
        })
        .await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", "50%"))
            .await?;
        shrunk(s, 1, 3 * SOON).await?;

        let lowered: Vec<i64> = counts(s)?.iter().map(|c| c.to).collect();
        ensure!(lowered.ends_with(&[4, 3, 2, 1]), "{lowered:?}");
        let third = cordoned_at(s, 1)?.context("the third was never cordoned")?;
        let shrunk = counts(s)?.into_iter().find(|c| c.to == 3).context("no shrink")?;
        ensure!(
            third > shrunk.received,
            "three drained at once: {third} {shrunk:?}"
        );
        for from in [4, 3, 2] {
            emptied_before_shrink(s, from)?;
        }
        s.pods_running("app=web", 40, SOON).await?;
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_moves_every_second_evicts_nothing_and_writes_little() -> Result<()> {
    const FLIPS: usize = 60;
    Scenario::run("moody", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 10).await?;
        let uids = async || -> Result<Vec<Option<String>>> {
            let pods = s.pods_running("app=web", 10, SOON).await?;
            Ok(pods.into_iter().map(|p| p.metadata.uid).collect())
        };
        let (before, count) = (uids().await?, counts(s)?.len());
        // The settle is longer than any wish lasts: it is what damps.
        let wish = |replicas: u32| {
            let mut pool = pool(s, replicas);
            pool["spec"]["drain"]["cordonSettleSeconds"] = json!(5);
            pool
        };
        let since = Timestamp::now();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        for flip in 0..FLIPS {
            tick.tick().await;
            s.apply(&wish(if flip % 2 == 0 { 1 } else { 2 })).await?;
        }
        ready(s, SOON).await?;
        let writes = s.audit_log().writes_by(OPERATOR, since)?;
        let count_of = |resource: &str| writes.iter().filter(|e| e.resource == resource).count();
        println!(
            "{FLIPS} changes of the target: {} writes to nodes, {} to the status, {} events, {} to the workload",
            count_of("nodes"),
            count_of("virtualnodepools"),
            count_of("events"),
            count_of("statefulsets")
        );
        ensure!(evictions(s)?.is_empty(), "{:?}", evictions(s)?);
        ensure!(counts(s)?.len() == count, "{:?}", counts(s)?);
        ensure!(count_of("nodes") <= FLIPS, "more than a cordon for each change");
        ensure!(count_of("virtualnodepools") <= 3 * FLIPS, "the status is not damped");
        ensure!(count_of("statefulsets") == 0, "the workload was written");
        ensure!(count_of("events") <= 4, "the events are not damped");
        let cordoned = s
            .nodes()
            .await?
            .iter()
            .any(|n| n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)));
        ensure!(!cordoned, "a cordon is left");
        ensure!(uids().await? == before, "a pod was touched");
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn survivors_without_room_hold_a_drain_before_its_cordon() -> Result<()> {
    Scenario::run("room", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 8).await?;
        // The Node that stays says itself how little it takes.
        let offer = async |pods: u32| {
            let patch = format!(r#"{{"status":{{"allocatable":{{"pods":"{pods}"}}}}}}"#);
            s.kubectl(&format!(
                "patch node {} --subresource=status --type merge --patch {patch}",
                s.node(0)
            ))
            .await
        };
        offer(5).await?;
        let lowered = |replicas: u32, check: &str| {
            let mut pool = pool(s, replicas);
            pool["spec"]["drain"]["capacityCheck"] = json!(check);
            pool
        };
        let cordoned = async || -> Result<Vec<String>> {
            let nodes = s.nodes().await?.into_iter();
            Ok(nodes
                .filter(|n| n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)))
                .filter_map(|n| n.metadata.name)
                .collect())
        };
        let begins = async |why: &str| {
            eventually(why, SOON, async || {
                let cordoned = cordoned().await?;
                ensure!(cordoned == [s.node(1)], "cordoned: {cordoned:?}");
                Ok(())
            })
            .await
        };
        let held = async || -> Result<()> {
            blocked_by(s, "InsufficientCapacity", &s.node(1), SOON).await?;
            always("nothing is touched", Duration::from_secs(3), async || {
                let cordoned = cordoned().await?;
                ensure!(cordoned.is_empty(), "cordoned: {cordoned:?}");
                Ok(())
            })
            .await
        };
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;

        s.apply(&lowered(1, "Enforce")).await?;
        held().await?;
        s.apply(&lowered(1, "Ignore")).await?;
        begins("the check is overridden").await?;
        resize(s, 2).await?;
        ready(s, SOON).await?;
        s.apply(&lowered(0, "Enforce")).await?;
        begins("no node is to stay, so none needs room").await?;
        resize(s, 2).await?;
        ready(s, SOON).await?;

        // Room in plenty, behind a taint that no pod tolerates.
        offer(1000).await?;
        s.kubectl(&format!(
            "taint node {} example.com/maintenance=:NoSchedule",
            s.node(0)
        ))
        .await?;
        eventually("the node is of no use", SOON, async || {
            let pool = get_pool(s).await?;
            let ready = condition(&pool, "Ready").context("no condition Ready")?;
            ensure!(pool["status"]["availableNodes"] == 1, "{}", pool["status"]);
            ensure!(ready["reason"] == "NodesNotReady", "{ready}");
            let told = "its taint example.com/maintenance:NoSchedule is not tolerated";
            ensure!(
                ready["message"].as_str().is_some_and(|m| m.contains(told)),
                "{ready}"
            );
            Ok(())
        })
        .await?;
        s.apply(&lowered(1, "Enforce")).await?;
        held().await?;
        let blockers = get_pool(s).await?["status"]["drain"]["blockers"].clone();
        let against = format!("{}: its taint example.com/maintenance:NoSchedule", s.node(0));
        ensure!(
            blockers[0]["message"]
                .as_str()
                .is_some_and(|m| m.contains(&against)),
            "{blockers}"
        );
        s.kubectl("delete virtualnodepool room --wait=false").await?;
        begins("the pool goes, so its drain is not held").await?;
        ensure!(evictions(s)?.iter().all(|e| e.code != 201), "{:?}", evictions(s)?);
        Ok(())
    })
    .await
}
