//! What the API server accepted has not happened yet, and what it answered with success may be stored otherwise.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use vnp_e2e::antagonists::{FINALIZERS, MIRROR, POLICY_THAT_REWRITES, REGISTRY};
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::manifests::PROVIDER_IMAGE;
use vnp_e2e::scenario::{Scenario, always, eventually};

use crate::fixture::{
    blocked_by, condition, get_pool, get_workload, misbehave, misbehave_on_1_12, pool, ready, resize, shrunk,
    start_pool,
};

const SOON: Duration = Duration::from_secs(60);

async fn removed(s: &Scenario<'_>) -> Result<bool> {
    let events = s
        .kubectl(
            "get events.events.k8s.io --namespace default --field-selector reason=NodeRemoved --output json",
        )
        .await?;
    Ok(events.contains(&s.node(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_finalizer_holds_is_named_with_its_holder_and_not_removed() -> Result<()> {
    Scenario::run("held", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        let nodekeeper = s.join(FINALIZERS).await?;
        resize(s, 1).await?;
        let held = blocked_by(s, "FinalizerHolds", &s.node(1), Duration::from_secs(120)).await?;
        let status = &held["status"];
        let blocker = &status["drain"]["blockers"][0];
        ensure!(
            blocker["message"]
                .as_str()
                .is_some_and(|m| m.contains("slow.example.com/cleanup (set by finalizers)")),
            "{blocker}"
        );
        ensure!(status["drain"]["limitedBy"] == "Blocker", "{status}");
        ensure!(status["availableNodes"] == 1, "{status}");
        ensure!(!removed(s).await?, "told before it is gone");
        nodekeeper.leave().await?;
        shrunk(s, 1, SOON).await?;
        eventually("it is told when it is gone", SOON, async || {
            ensure!(removed(s).await?, "no event NodeRemoved");
            Ok(())
        })
        .await
    })
    .await
}

/// The operator's writes to the StatefulSet.
fn writes(s: &Scenario<'_>) -> Result<usize> {
    let writes = s.audit_log().writes_by(OPERATOR, s.began())?;
    Ok(writes.iter().filter(|e| e.is("statefulsets", None)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_a_policy_rewrites_is_written_once_and_said() -> Result<()> {
    Scenario::run("rewritten", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        let stored = PROVIDER_IMAGE.replace(REGISTRY, MIRROR);
        let mut mirrored = pool(s, 1);
        mirrored["spec"]["provider"]["image"] = json!(stored);
        s.apply(&mirrored).await?;
        ready(s, SOON).await?;
        let policy = s.join(POLICY_THAT_REWRITES).await?;
        s.apply(&pool(s, 1)).await?;
        eventually("the pool says what does not take", SOON, async || {
            let pool = get_pool(s).await?;
            let stalled = condition(&pool, "Stalled").context("no condition Stalled")?;
            ensure!(stalled["reason"] == "FieldContested", "{stalled}");
            let told = format!("image {stored} -> {PROVIDER_IMAGE}");
            ensure!(
                stalled["message"].as_str().is_some_and(|m| m.contains(&told)),
                "{stalled}"
            );
            ensure!(
                get_workload(s).await?["spec"]["updateStrategy"]["rollingUpdate"]["partition"] != 1,
                "half a roll"
            );
            Ok(())
        })
        .await?;
        let before = writes(s)?;
        always("it is not written again", Duration::from_secs(45), async || {
            ensure!(writes(s)? == before, "{} writes, {before} before", writes(s)?);
            Ok(())
        })
        .await?;
        // What the policy stores is what the pool asks for again.
        s.apply(&mirrored).await?;
        policy.leave().await?;
        ready(s, SOON).await
    })
    .await
}
