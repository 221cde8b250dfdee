//! Pods that come back, that nobody makes again, or that ask to be left alone: named, held, and let go when their cause is.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::antagonists::{CUSTOM_CONTROLLER, PINNED, PINNED_PODS, Place, pod_of_kind};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{
    catch_up, counts, evictions, get_pool, get_workload, misbehave, pool, shrunk, start_pool,
};

const SOON: Duration = Duration::from_secs(60);

/// Reason and object of the blockers, with their pods.
async fn blockers(s: &Scenario<'_>) -> Result<BTreeMap<String, i64>> {
    let pool = get_pool(s).await?;
    let list = pool["status"]["drain"]["blockers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |b: &Value, field: &str| b[field].as_str().unwrap_or_default().to_owned();
    Ok(list
        .iter()
        .map(|b| {
            (
                format!("{} {}", text(b, "reason"), text(b, "object")),
                b["pods"].as_i64().unwrap_or(0),
            )
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_back_or_would_be_lost_are_left_alone_until_their_cause_is_gone() -> Result<()> {
    Scenario::run("returns", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        let (namespace, node) = (s.namespace(), s.node(1));
        let pinned = s.join(PINNED).await?;
        let mut quiet = manifests::on_node(manifests::deployment(namespace, "quiet", 1), &node);
        quiet["spec"]["template"]["metadata"]["annotations"] = json!({"karpenter.sh/do-not-disrupt": "true"});
        s.apply(&quiet).await?;
        // Evicted, it takes its time, and is scaled away meanwhile.
        let mut set = manifests::on_node(manifests::deployment(namespace, "db", 2), &node);
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("db");
        set["spec"]["podManagementPolicy"] = json!("Parallel");
        s.apply(&set).await?;
        let _runner = s.join(CUSTOM_CONTROLLER).await?;
        let person = Place::new(s.environment(), "admin", s.whom()).await?;
        pod_of_kind(&person, "Fleet", true, &node).await?;
        for app in ["runner", "fleet"] {
            s.pods_running(&format!("app={app}"), 1, SOON).await?;
        }
        s.pods_running("app=pinned", PINNED_PODS as usize, SOON).await?;
        s.pods_running("app=db", 2, SOON).await?;
        s.pods_running("app=quiet", 1, SOON).await?;
        s.kubectl(&format!(
            "patch pod db-1 --namespace {namespace} --type merge --patch {}",
            r#"{"metadata":{"finalizers":["example.com/slow"]}}"#
        ))
        .await?;

        s.apply(&pool(s, 1)).await?;
        eventually("db-1 is evicted", SOON, async || {
            let evicted = evictions(s)?
                .iter()
                .any(|e| e.pod.ends_with("/db-1") && e.code == 201);
            ensure!(evicted, "not yet");
            Ok(())
        })
        .await?;
        s.kubectl(&format!(
            "scale statefulset db --namespace {namespace} --replicas 1"
        ))
        .await?;
        s.kubectl(&format!(
            "patch pod db-1 --namespace {namespace} --type merge --patch {}",
            r#"{"metadata":{"finalizers":null}}"#
        ))
        .await?;
        // It is not waited for: the other one leaves, and waits for a node that takes it.
        eventually("db-0 is evicted", SOON, async || {
            let evicted = evictions(s)?
                .iter()
                .any(|e| e.pod.ends_with("/db-0") && e.code == 201);
            ensure!(evicted, "{:?}", blockers(s).await?);
            Ok(())
        })
        .await?;

        let expected = BTreeMap::from([
            (
                format!("NewPodsKeepArriving Deployment/{namespace}/pinned"),
                i64::from(PINNED_PODS),
            ),
            (format!("BarePods Runner/{namespace}/runner"), 1),
            (format!("DoNotDisrupt Deployment/{namespace}/quiet"), 1),
        ]);
        eventually("what holds it is named", SOON, async || {
            let told = blockers(s).await?;
            ensure!(told == expected, "blockers are {told:?}");
            Ok(())
        })
        .await?;
        let of = |what: &str| -> Result<usize> {
            let pods = format!("/{what}");
            Ok(evictions(s)?
                .iter()
                .filter(|e| e.pod.contains(&pods) && e.code == 201)
                .count())
        };
        let before = of("pinned")?;
        ensure!(
            before <= 2 * PINNED_PODS as usize + 3,
            "{before} evictions of the pods that come back"
        );
        ensure!(
            of("fleet")? == 1 && of("runner")? == 0 && of("quiet")? == 0,
            "{:?}",
            evictions(s)?
        );
        always(
            "they are left alone, and STATUS stands",
            Duration::from_secs(8),
            async || {
                ensure!(of("pinned")? == before, "more were evicted");
                let told = blockers(s).await?;
                ensure!(told == expected, "blockers are {told:?}");
                Ok(())
            },
        )
        .await?;

        // The causes go, and it goes on by itself.
        pinned.leave().await?;
        let mut lenient = pool(s, 1);
        lenient["spec"]["drain"]["disruptionAnnotations"] = json!("Ignore");
        lenient["spec"]["drain"]["barePods"] = json!("Evict");
        s.apply(&lenient).await?;
        shrunk(s, 1, catch_up(40) + Duration::from_secs(120)).await?;

        // The Deployment still names the node. That does not bring it back.
        let gone = eventually("nothing is left of the node", SOON, async || {
            let pool = get_pool(s).await?;
            let entry = pool["status"]["provider"]["retired"][0].clone();
            entry["goneTime"]
                .as_str()
                .map(str::to_owned)
                .with_context(|| entry.to_string())
        })
        .await?;
        let settled: jiff::Timestamp = gone.parse()?;
        let wait = jiff::SignedDuration::from_secs(12) - jiff::Timestamp::now().duration_since(settled);
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let writes = counts(s)?.len();
        s.kubectl(&format!(
            "scale deployment pinned --namespace {namespace} --replicas 2"
        ))
        .await?;
        eventually("whoever names it is told", SOON, async || {
            let events = s
                .kubectl(&format!(
                    "events --namespace default --for virtualnodepool/{}",
                    s.name()
                ))
                .await?;
            let told = events
                .lines()
                .any(|l| l.contains("UnknownOrdinal") && l.contains("pinned"));
            ensure!(told, "{events}");
            Ok(())
        })
        .await?;
        always("it stays away", Duration::from_secs(5), async || {
            ensure!(
                get_workload(s).await?["spec"]["replicas"] == 1 && counts(s)?.len() == writes,
                "it came back"
            );
            Ok(())
        })
        .await?;
        s.kubectl(&format!("delete deployment pinned --namespace {namespace}"))
            .await?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}
