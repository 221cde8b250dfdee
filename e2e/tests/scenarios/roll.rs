//! Changes of the template reach the providers one at a time, or are taken back.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::audit::AuditEvent;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::described::described;
use crate::fixture::{
    condition, get, get_pool, get_workload, misbehave, misbehave_on_1_12, pool, ready, start_pool,
};

/// UIDs and instance ids of the pods: what must not change.
async fn untouched(s: &Scenario<'_>) -> Result<Vec<(Option<String>, Option<String>)>> {
    let mut pods: Vec<_> = s
        .pods("app=web")
        .await?
        .into_iter()
        .map(|p| {
            let id = p
                .metadata
                .annotations
                .and_then(|a| a.get("k8s.aliyun.com/eci-instance-id").cloned());
            (p.metadata.uid, id)
        })
        .collect();
    pods.sort();
    Ok(pods)
}

async fn providers_down(s: &Scenario<'_>) -> Result<Vec<String>> {
    let workload = get_workload(s).await?;
    let selector = workload["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",");
    let pods = get(s, &format!("pods --namespace kube-system --selector {selector}")).await?;
    let up: Vec<String> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|p| p["metadata"]["deletionTimestamp"].is_null())
        .filter(|p| {
            p["status"]["conditions"]
                .as_array()
                .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        })
        .map(|p| p["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    Ok((0..3).map(|o| s.node(o)).filter(|n| !up.contains(n)).collect())
}

/// Deletions and creations of provider pods since then, in their order, by the audit log.
fn replacements(s: &Scenario<'_>, since: jiff::Timestamp) -> Result<Vec<(String, String)>> {
    let name = |e: &AuditEvent| {
        let made = || {
            e.request.as_ref()?["metadata"]["name"]
                .as_str()
                .map(str::to_owned)
        };
        e.name.clone().or_else(made).unwrap_or_default()
    };
    let events = s.audit_log().events()?;
    Ok(events
        .iter()
        .filter(|e| e.received >= since && e.is_success() && e.is("pods", None))
        .filter(|e| {
            e.user.ends_with(":statefulset-controller") && ["create", "delete"].contains(&e.verb.as_str())
        })
        .map(|e| (e.verb.clone(), name(e)))
        .filter(|(_, name)| name.starts_with(&s.provider()))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn env_and_profile_follow_and_providers_restart_one_by_one() -> Result<()> {
    Scenario::run("roll", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 3).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 60)).await?;
        s.pods_running("app=web", 60, Duration::from_secs(60)).await?;
        let before = untouched(s).await?;

        let mut changed = pool(s, 3);
        changed["spec"]["network"]["zones"][0]["vSwitchIds"] = json!(["vsw-new1", "vsw-new2"]);
        changed["spec"]["network"]["kubeProxy"] = json!("Disabled");
        let since = jiff::Timestamp::now();
        s.apply(&changed).await?;
        eventually(
            "env and profile say the new values",
            Duration::from_secs(180),
            async || {
                let profile = get(s, "configmap eci-profile --namespace kube-system").await?;
                ensure!(
                    profile["data"]["vSwitchIds"] == "vsw-new1,vsw-new2",
                    "{}",
                    profile["data"]
                );
                ensure!(
                    profile["data"]["enableClusterIp"] == "false",
                    "{}",
                    profile["data"]
                );
                let env =
                    get_workload(s).await?["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
                ensure!(
                    env.contains(r#""ECI_VSWITCH","value":"vsw-new1,vsw-new2""#),
                    "{env}"
                );
                ensure!(env.contains(r#""ECI_KUBE_PROXY","value":"false""#), "{env}");
                let status = get_workload(s).await?["status"].clone();
                ensure!(status["updatedReplicas"] == 3, "{status}");
                Ok(())
            },
        )
        .await?;
        ready(s, Duration::from_secs(30)).await?;
        let one_by_one: Vec<(String, String)> = (0..3)
            .rev()
            .flat_map(|o| [("delete".to_owned(), s.node(o)), ("create".to_owned(), s.node(o))])
            .collect();
        let replaced = replacements(s, since)?;
        ensure!(replaced == one_by_one, "{replaced:?}");
        ensure!(untouched(s).await? == before, "a running pod was touched");
        s.no_leak_within(Duration::from_secs(10)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_come_up_is_taken_back() -> Result<()> {
    Scenario::run("revert", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 40)).await?;
        s.pods_running("app=web", 40, Duration::from_secs(60)).await?;
        let before = untouched(s).await?;

        let mut broken = pool(s, 2);
        broken["spec"]["provider"]["image"] = json!(manifests::broken_provider_image());
        s.apply(&broken).await?;
        described(s, s.name(), "updating", "Updating").await?;
        eventually("the image is taken back", Duration::from_secs(240), async || {
            let pool = get_pool(s).await?;
            let stalled = condition(&pool, "Stalled").cloned().unwrap_or(Value::Null);
            ensure!(stalled["reason"] == "RolloutReverted", "Stalled is {stalled}");
            let workload = get_workload(s).await?;
            let image = &workload["spec"]["template"]["spec"]["containers"][0]["image"];
            ensure!(image == manifests::PROVIDER_IMAGE, "{image}");
            Ok(())
        })
        .await?;
        s.nodes_ready(2, Duration::from_secs(60)).await?;
        described(s, s.name(), "rollout-reverted", "RolloutReverted").await?;
        ensure!(providers_down(s).await? == [s.node(2)], "a provider is down");
        ensure!(untouched(s).await? == before, "a running pod was touched");

        s.apply(&pool(s, 2)).await?;
        ready(s, Duration::from_secs(60)).await?;
        s.no_leak_within(Duration::from_secs(10)).await
    })
    .await
}
