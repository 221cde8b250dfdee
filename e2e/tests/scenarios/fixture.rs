//! What the scenarios have in common.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::audit::{Eviction, OPERATOR, ReplicasChange};
use vnp_e2e::cloud::{DeletionOrder, ProviderKnobs, Quota};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

/// Instances per second that the cloud of the scenarios deletes beyond its burst of 100.
pub(crate) const DELETES_PER_SECOND: u32 = 2;

/// How long the cloud may need to catch up with `pods` deletions, with the time of its providers' restarts on top.
pub(crate) fn catch_up(pods: u32) -> Duration {
    Duration::from_secs(u64::from(pods.saturating_sub(100) / DELETES_PER_SECOND) + 60)
}

/// A cloud that misbehaves the way real ones do, behind providers that register a vanished Node again by themselves, as
/// those on virtual-kubelet 0.10 do.
pub(crate) fn misbehave(s: &Scenario<'_>) {
    let knobs = ProviderKnobs {
        deletion_order: DeletionOrder::ObjectFirst,
        ..ProviderKnobs::default()
    };
    misbehave_with(s, &knobs);
}

/// The same cloud behind providers on virtual-kubelet 1.12. About half of the scenarios have them.
pub(crate) fn misbehave_on_1_12(s: &Scenario<'_>) {
    misbehave_with(s, &ProviderKnobs::virtual_kubelet_1_12());
}

fn misbehave_with(s: &Scenario<'_>, provider: &ProviderKnobs) {
    s.cloud().set_delete_quota(Quota {
        burst: 100,
        per_second: f64::from(DELETES_PER_SECOND),
    });
    s.cloud().configure(|knobs| {
        *knobs = ProviderKnobs {
            forget: 0.1,
            heartbeat_interval: Duration::from_secs(1),
            ..provider.clone()
        };
    });
}

/// A lease that is taken over quickly, so that a killed operator costs a test seconds.
pub(crate) fn quick_lease() -> OperatorOptions {
    let args = [
        "--lease-duration",
        "4",
        "--lease-renew-deadline",
        "3",
        "--lease-retry-period",
        "1",
    ];
    OperatorOptions {
        args: args.map(str::to_owned).to_vec(),
        ..OperatorOptions::default()
    }
}

/// The scenario's pool with settles in proportion to the cloud's quota.
pub(crate) fn pool(s: &Scenario<'_>, replicas: u32) -> Value {
    let mut pool = s.pool(replicas);
    pool["spec"]["drain"] = json!({
        "cordonSettleSeconds": 1, "emptySettleSeconds": 3, "instanceDeletesPerSecond": DELETES_PER_SECOND,
    });
    pool
}

/// Applies the pool with `replicas` and waits for its nodes.
pub(crate) async fn start_pool(s: &Scenario<'_>, replicas: u32) -> Result<()> {
    s.apply(&pool(s, replicas)).await?;
    ready(s, Duration::from_secs(60)).await?;
    s.nodes_ready(replicas as usize, Duration::from_secs(5)).await?;
    Ok(())
}

/// Waits until the pool is Ready in its present generation.
pub(crate) async fn ready(s: &Scenario<'_>, within: Duration) -> Result<()> {
    eventually("the pool is Ready", within, async || {
        let pool = get_pool(s).await?;
        let ready = condition(&pool, "Ready").context("no condition Ready")?;
        ensure!(
            pool["status"]["observedGeneration"] == pool["metadata"]["generation"],
            "not observed yet"
        );
        ensure!(
            ready["status"] == "True",
            "Ready is {} {}",
            ready["reason"],
            ready["message"]
        );
        Ok(())
    })
    .await
}

/// The pool as it is.
pub(crate) async fn get_pool(s: &Scenario<'_>) -> Result<Value> {
    get(s, &format!("virtualnodepool {}", s.name())).await
}

/// The provider's StatefulSet as it is.
pub(crate) async fn get_workload(s: &Scenario<'_>) -> Result<Value> {
    get(
        s,
        &format!("statefulset {} --namespace kube-system", s.provider()),
    )
    .await
}

/// Any object as it is.
pub(crate) async fn get(s: &Scenario<'_>, what: &str) -> Result<Value> {
    let text = s
        .kubectl(&format!("get {what} --output json --show-managed-fields"))
        .await?;
    Ok(serde_json::from_str(&text)?)
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// Sets `spec.replicas` of the pool, as a commit in Git would.
pub(crate) async fn resize(s: &Scenario<'_>, replicas: u32) -> Result<()> {
    s.apply(&pool(s, replicas)).await
}

/// Pods that have ended on every node that [`fill`] fills: instances all the same.
pub(crate) const FINISHED: u32 = 2;

/// `count` pods labelled `app=<app>`, all of them on the n-th node, placed there by the scheduler and free to go
/// elsewhere: for the moment of their creation the other nodes of the pool are cordoned. [`FINISHED`] more have ended.
pub(crate) async fn fill(
    s: &Scenario<'_>,
    ordinal: usize,
    nodes: usize,
    app: &str,
    count: u32,
) -> Result<()> {
    for other in (0..nodes).filter(|o| *o != ordinal) {
        s.kubectl(&format!("cordon {}", s.node(other))).await?;
    }
    let finished = format!("{app}-finished");
    let mut pods = manifests::deployment(s.namespace(), app, count);
    // Newer providers keep the Pod object for so long.
    pods["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(2);
    s.apply(&pods).await?;
    s.apply(&manifests::job(s.namespace(), &finished, FINISHED))
        .await?;
    s.pods_running(&format!("app={app}"), count as usize, Duration::from_secs(120))
        .await?;
    let ended = format!("app={finished}");
    s.pods_in_phase(&ended, "Succeeded", FINISHED as usize, Duration::from_secs(30))
        .await?;
    for other in (0..nodes).filter(|o| *o != ordinal) {
        s.kubectl(&format!("uncordon {}", s.node(other))).await?;
    }
    Ok(())
}

/// Waits until `status.drain` shows that phase for a node.
pub(crate) async fn in_phase(s: &Scenario<'_>, phases: &[&str], within: Duration) -> Result<Value> {
    eventually(
        &format!("a node is in one of the phases {phases:?}"),
        within,
        async || {
            let pool = get_pool(s).await?;
            let nodes = pool["status"]["drain"]["nodes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let hit = nodes.iter().any(|n| phases.iter().any(|p| n["phase"] == **p));
            ensure!(hit, "status.drain is {}", pool["status"]["drain"]);
            Ok(pool)
        },
    )
    .await
}

/// Waits until the n-th node and its provider are gone and the count is `replicas`.
pub(crate) async fn shrunk(s: &Scenario<'_>, replicas: u32, within: Duration) -> Result<()> {
    eventually(&format!("the pool has {replicas} nodes"), within, async || {
        let workload = get_workload(s).await?;
        ensure!(
            workload["spec"]["replicas"] == replicas,
            "replicas is {}",
            workload["spec"]["replicas"]
        );
        let nodes = s.nodes().await?.len();
        ensure!(nodes == replicas as usize, "{nodes} nodes are left");
        Ok(())
    })
    .await?;
    ready(s, Duration::from_secs(20)).await
}

/// Changes of the workload's count since the scenario began.
pub(crate) fn counts(s: &Scenario<'_>) -> Result<Vec<ReplicasChange>> {
    let mut changes = s.audit_log().replicas_changes("kube-system", &s.provider())?;
    changes.retain(|c| c.received >= s.began());
    Ok(changes)
}

/// Evictions by the operator since the scenario began.
pub(crate) fn evictions(s: &Scenario<'_>) -> Result<Vec<Eviction>> {
    let mut evictions = s.audit_log().evictions()?;
    evictions.retain(|e| e.received >= s.began() && e.user == OPERATOR);
    Ok(evictions)
}

/// The shrink from `from` came after the ledger of its node was empty.
pub(crate) fn emptied_before_shrink(s: &Scenario<'_>, from: i64) -> Result<()> {
    let shrink = counts(s)?
        .into_iter()
        .rfind(|c| c.user == OPERATOR && c.to == from - 1)
        .with_context(|| format!("no shrink from {from} in the audit log"))?;
    let node = s.node(usize::try_from(from - 1)?);
    let alive = s.ledger().living_on_at(&node, shrink.received);
    ensure!(
        alive == 0,
        "{alive} instances of {node} lived when the count was lowered at {}",
        shrink.received
    );
    Ok(())
}

/// Every eviction named the UID it meant, and nobody asked for grace period 0.
pub(crate) fn evictions_are_precise(s: &Scenario<'_>) -> Result<()> {
    let evictions = evictions(s)?;
    ensure!(!evictions.is_empty(), "there was no eviction");
    for eviction in evictions {
        ensure!(eviction.uid_precondition.is_some(), "{eviction:?} names no UID");
    }
    Ok(())
}

/// Waits until `status.drain` names that blocker, and returns the pool.
pub(crate) async fn blocked_by(
    s: &Scenario<'_>,
    reason: &str,
    object: &str,
    within: Duration,
) -> Result<Value> {
    eventually(&format!("{reason} {object} is told"), within, async || {
        let pool = get_pool(s).await?;
        let blockers = pool["status"]["drain"]["blockers"].as_array();
        let told = |b: &Value| b["reason"] == reason && b["object"] == object;
        ensure!(
            blockers.is_some_and(|b| b.iter().any(told)),
            "status.drain is {}",
            pool["status"]["drain"]
        );
        Ok(pool)
    })
    .await
}

/// A result for people, to where the test harness collects the output of a test.
#[expect(clippy::print_stdout, reason = "it is the test's own output")]
pub(crate) fn tell(result: &str) {
    println!("{result}");
}
