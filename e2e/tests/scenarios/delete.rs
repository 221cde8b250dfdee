//! Deleting a pool, and deleting its workload under it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{
    catch_up, evictions, get, get_pool, get_workload, misbehave, misbehave_on_1_12, pool, quick_lease,
    resize, start_pool,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_pruned_drains_everything_first() -> Result<()> {
    Scenario::run("prune", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 60)).await?;
        s.pods_running("app=web", 60, Duration::from_secs(60)).await?;

        let pool = get_pool(s).await?;
        let uid = pool["metadata"]["uid"].as_str().unwrap_or_default();

        // As Argo CD prunes, and somebody helps by hand.
        s.kubectl("delete virtualnodepool prune --cascade=foreground --wait=false")
            .await?;
        s.kubectl(&format!(
            "delete statefulset {} --namespace kube-system --wait=false",
            s.provider()
        ))
        .await?;
        eventually(
            "the pool and all it made are gone",
            catch_up(120) + Duration::from_secs(120),
            async || {
                ensure!(
                    get_pool(s).await.is_err(),
                    "the pool is there: {}",
                    get_pool(s).await?["status"]
                );
                ensure!(get_workload(s).await.is_err(), "the workload is there");
                let nodes = s.nodes().await?.len();
                ensure!(nodes == 0, "{nodes} nodes are there");
                Ok(())
            },
        )
        .await?;
        let living = s
            .ledger()
            .living()
            .into_iter()
            .filter(|i| i.node.starts_with(&s.provider()))
            .count();
        ensure!(living == 0, "{living} instances live");
        let secrets = get(s, "secrets --namespace virtualnodepool-system").await?;
        // Those of other pools may be there.
        ensure!(
            !uid.is_empty() && !secrets["items"].to_string().contains(uid),
            "a copy is left: {}",
            secrets["items"]
        );
        let profile = get(s, "configmap eci-profile --namespace kube-system").await;
        ensure!(
            profile
                .as_ref()
                .map_or(true, |p| p["data"]["vSwitchIds"].is_null()),
            "the profile still names the pool's vSwitches: {profile:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_leaves_everything_running() -> Result<()> {
    Scenario::run("retain", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        let mut retained = pool(s, 2);
        retained["spec"]["deletionPolicy"] = json!("Retain");
        s.apply(&retained).await?;
        s.nodes_ready(2, Duration::from_secs(60)).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 40)).await?;
        s.pods_running("app=web", 40, Duration::from_secs(60)).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        retained["spec"]["replicas"] = json!(1);
        s.apply(&retained).await?;
        eventually("the node is cordoned", Duration::from_secs(20), async || {
            ensure!(cordoned(s).await? == 1, "not yet");
            Ok(())
        })
        .await?;

        s.kubectl("delete virtualnodepool retain --timeout=60s").await?;
        ensure!(cordoned(s).await? == 0, "our cordon is left");
        ensure!(
            get_workload(s).await?["spec"]["replicas"] == 2,
            "something was cut"
        );
        ensure!(s.nodes().await?.len() == 2, "a node is gone");
        s.pods_running("app=web", 40, Duration::from_secs(5)).await?;
        s.no_leak_within(Duration::from_secs(5)).await
    })
    .await
}

async fn cordoned(s: &Scenario<'_>) -> Result<usize> {
    let nodes = s.nodes().await?;
    Ok(nodes
        .iter()
        .filter(|n| n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)))
        .count())
}

async fn provider_uids(s: &Scenario<'_>) -> Result<Vec<String>> {
    let mut uids = Vec::new();
    for ordinal in 0..2 {
        let pod = get(s, &format!("pod {} --namespace kube-system", s.node(ordinal))).await?;
        uids.push(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
    }
    Ok(uids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workload_comes_back_around_its_pods() -> Result<()> {
    Scenario::run("restore", async |s| {
        misbehave_on_1_12(s);
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        start_pool(s, 2).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 40)).await?;
        s.pods_running("app=web", 40, Duration::from_secs(60)).await?;
        let providers = provider_uids(s).await?;
        let instances: Vec<_> = s.ledger().living().into_iter().map(|i| i.id).collect();

        for kill in [false, true] {
            let uid = get_workload(s).await?["metadata"]["uid"].clone();
            s.kubectl(&format!(
                "delete statefulset {} --namespace kube-system --wait=false",
                s.provider()
            ))
            .await?;
            if kill {
                operator.kill().await?;
                operator = s.spawn_operator(&quick_lease()).await?;
            }
            eventually(
                "the workload is another one and whole",
                Duration::from_secs(30),
                async || {
                    let workload = get_workload(s).await?;
                    ensure!(
                        workload["metadata"]["uid"] != uid,
                        "still the one that was deleted"
                    );
                    ensure!(
                        workload["metadata"]["deletionTimestamp"].is_null(),
                        "it is being deleted"
                    );
                    ensure!(workload["status"]["readyReplicas"] == 2, "{}", workload["status"]);
                    Ok(())
                },
            )
            .await?;
            ensure!(provider_uids(s).await? == providers, "a provider was restarted");
        }
        let living: Vec<_> = s.ledger().living().into_iter().map(|i| i.id).collect();
        ensure!(living == instances, "instances came or went");
        ensure!(evictions(s)?.is_empty(), "a pod was evicted");
        resize(s, 1).await?;
        crate::fixture::shrunk(s, 1, catch_up(40)).await?;
        operator.terminate().await?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}
