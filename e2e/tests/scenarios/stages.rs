//! Which pods leave a node before which others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{
    catch_up, emptied_before_shrink, evictions, evictions_are_precise, get_pool, misbehave,
    misbehave_on_1_12, pool, ready, shrunk,
};

/// Applies the pool with so many nodes and `drain` merged into its own.
async fn resize(s: &Scenario<'_>, replicas: u32, drain: &Value) -> Result<()> {
    let mut pool = pool(s, replicas);
    json_patch::merge(&mut pool["spec"]["drain"], drain);
    s.apply(&pool).await
}

/// Starts a pool of two nodes with `drain` merged into its own, and leaves only the second one schedulable.
async fn start(s: &Scenario<'_>, drain: &Value) -> Result<()> {
    s.start_operator(&OperatorOptions::default()).await?;
    resize(s, 2, drain).await?;
    ready(s, Duration::from_secs(60)).await?;
    s.kubectl(&format!("cordon {}", s.node(0))).await?;
    Ok(())
}

/// The same Deployment as another kind.
fn as_kind(mut workload: Value, kind: &str) -> Value {
    workload["kind"] = json!(kind);
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = workload["metadata"]["name"].clone();
        workload["spec"]["podManagementPolicy"] = json!("Parallel");
    } else {
        workload["spec"]
            .as_object_mut()
            .map(|spec| spec.remove("replicas"));
    }
    workload
}

/// When evictions of pods whose name begins with `app` were accepted.
fn accepted(s: &Scenario<'_>, app: &str) -> Result<Vec<Timestamp>> {
    let prefix = format!("{}/{app}-", s.namespace());
    let mut times: Vec<Timestamp> = evictions(s)?
        .into_iter()
        .filter(|e| e.code == 201 && e.pod.starts_with(&prefix))
        .map(|e| e.received)
        .collect();
    times.sort_unstable();
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_leave_in_their_order_and_jobs_are_left_to_finish() -> Result<()> {
    Scenario::run("staged", async |s| {
        misbehave(s);
        let stages = json!({ "stages": [
            { "name": "jobs", "waitFor": "Completion", "podSelector": { "matchLabels": { "app": "batch" } } },
            { "name": "web", "waitFor": "Eviction", "podSelector": { "matchLabels": { "app": "web" } },
              "namespaceSelector": { "matchLabels": { "stage": "early" } } },
        ] });
        s.kubectl(&format!("label namespace {} stage=early", s.namespace()))
            .await?;
        start(s, &stages).await?;
        s.cloud()
            .configure(|knobs| knobs.job_runtime = Some(Duration::from_secs(20)));
        for app in ["web", "rest"] {
            s.apply(&manifests::deployment(s.namespace(), app, 5)).await?;
            s.pods_running(&format!("app={app}"), 5, Duration::from_secs(30))
                .await?;
        }
        s.apply(&manifests::job(s.namespace(), "batch", 3)).await?;
        s.pods_running("app=batch", 3, Duration::from_secs(15)).await?;
        s.kubectl(&format!("uncordon {}", s.node(0))).await?;
        resize(s, 1, &stages).await?;

        eventually("the stage is named", Duration::from_secs(15), async || {
            let drain = get_pool(s).await?["status"]["drain"].clone();
            let blockers = drain["blockers"].as_array().cloned().unwrap_or_default();
            ensure!(
                blockers.len() == 1
                    && blockers[0]["reason"] == "WaitingForCompletion"
                    && blockers[0]["object"] == "stage/jobs"
                    && blockers[0]["pods"] == 3
                    && drain["limitedBy"] == "Stage",
                "{drain}"
            );
            Ok(())
        })
        .await?;
        always("nothing is evicted", Duration::from_secs(3), async || {
            ensure!(evictions(s)?.is_empty(), "{:?}", evictions(s)?);
            Ok(())
        })
        .await?;

        shrunk(s, 1, catch_up(13)).await?;
        let of = |app: &str| accepted(s, app);
        let (batch, web, rest) = (of("batch")?, of("web")?, of("rest")?);
        ensure!(
            (batch.len(), web.len(), rest.len()) == (3, 5, 5),
            "{batch:?} {web:?} {rest:?}"
        );
        ensure!(
            batch.last() < web.first(),
            "jobs until {:?}, web from {:?}",
            batch.last(),
            web.first()
        );
        ensure!(
            web.last() < rest.first(),
            "web until {:?}, the rest from {:?}",
            web.last(),
            rest.first()
        );
        emptied_before_shrink(s, 2)?;
        evictions_are_precise(s)?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_statefulset_without_a_budget_leave_one_after_the_other() -> Result<()> {
    const START: Duration = Duration::from_secs(2);
    Scenario::run("quorum", async |s| {
        misbehave(s);
        start(s, &json!({})).await?;
        let db = as_kind(manifests::deployment(s.namespace(), "db", 3), "StatefulSet");
        s.apply(&db).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 5)).await?;
        s.pods_running("app=db", 3, Duration::from_secs(30)).await?;
        s.pods_running("app=web", 5, Duration::from_secs(30)).await?;
        s.kubectl(&format!("uncordon {}", s.node(0))).await?;
        s.cloud()
            .configure_node(&s.node(0), |knobs| knobs.start_delay = START);
        resize(s, 1, &json!({})).await?;
        shrunk(s, 1, catch_up(8) + Duration::from_secs(30)).await?;

        let (db, web) = (accepted(s, "db")?, accepted(s, "web")?);
        ensure!(db.len() == 3, "{db:?}");
        let start = SignedDuration::try_from(START)?;
        for pair in db.windows(2) {
            let gap = pair[1].duration_since(pair[0]);
            ensure!(
                gap >= start,
                "{gap:#} between two pods, of which the first takes {start:#} to come back"
            );
        }
        let last = web.last().context("no pod of the Deployment was evicted")?;
        ensure!(
            *last < db[1],
            "the Deployment waited for the StatefulSet: {web:?} {db:?}"
        );
        emptied_before_shrink(s, 2)?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemonset_pod_that_never_started_holds_no_node_where_that_is_asked_for() -> Result<()> {
    Scenario::run("never-started", async |s| {
        misbehave_on_1_12(s);
        let drain = json!({ "daemonSetPods": "IgnoreNeverStarted" });
        start(s, &drain).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 5)).await?;
        s.pods_running("app=web", 5, Duration::from_secs(30)).await?;
        s.kubectl(&format!("uncordon {}", s.node(0))).await?;
        // Its provider takes up no pod from now on.
        s.cloud()
            .configure_node(&s.node(1), |knobs| knobs.start_delay = Duration::from_secs(3600));
        s.apply(&as_kind(
            manifests::deployment(s.namespace(), "logs", 1),
            "DaemonSet",
        ))
        .await?;
        s.pods_running("app=logs", 1, Duration::from_secs(30)).await?;
        let waits = async || {
            let pods = s.pods("app=logs").await?;
            let on = pods
                .iter()
                .filter(|p| p.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&s.node(1)))
                .count();
            ensure!(on == 1, "{on} pods of the DaemonSet are on the node");
            Ok(())
        };
        eventually(
            "the DaemonSet's pod waits on the node",
            Duration::from_secs(15),
            waits,
        )
        .await?;

        resize(s, 1, &drain).await?;
        eventually("its count is lowered under that pod", catch_up(5), async || {
            let pool = get_pool(s).await?;
            ensure!(pool["status"]["provider"]["replicas"] == 1, "{}", pool["status"]);
            Ok(())
        })
        .await?;
        shrunk(s, 1, Duration::from_secs(60)).await?;
        ensure!(
            accepted(s, "logs")?.is_empty(),
            "it was evicted, and its DaemonSet would bring it back for ever"
        );
        ensure!(accepted(s, "web")?.len() == 5, "{:?}", accepted(s, "web")?);
        emptied_before_shrink(s, 2)?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}
