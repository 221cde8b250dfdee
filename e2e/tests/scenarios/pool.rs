//! A pool in Git becomes nodes.

use std::time::Duration;

use anyhow::{Result, ensure};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{get, get_pool, get_workload, misbehave, misbehave_on_1_12, pool};

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_becomes_virtual_nodes() -> Result<()> {
    Scenario::run("main-job", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        s.apply(&pool(s, 2)).await?;
        s.kubectl("wait virtualnodepool/main-job --for=condition=Ready --timeout=60s")
            .await?;
        s.nodes_ready(2, Duration::from_secs(1)).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 200)).await?;
        s.pods_running("app=web", 200, Duration::from_secs(60)).await?;

        let table = s.kubectl("get virtualnodepools main-job").await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        ensure!(
            rows[0]
                == [
                    "NAME",
                    "DESIRED",
                    "NODES",
                    "AVAILABLE",
                    "READY",
                    "STATUS",
                    "PODS-LEFT",
                    "AGE"
                ],
            "{table}"
        );
        ensure!(
            rows[1][..6] == ["main-job", "2", "2", "2", "True", "Ready"],
            "{table}"
        );
        let scale = get(
            s,
            "--raw /apis/virtualnodes.dev/v1alpha1/virtualnodepools/main-job/scale",
        )
        .await;
        ensure!(
            scale.is_err() || scale?["status"]["replicas"] == 2,
            "the scale subresource tells the target"
        );

        let pool = get_pool(s).await?;
        ensure!(
            pool["status"]["provider"]["registered"] == serde_json::json!([0, 1]),
            "{}",
            pool["status"]
        );
        for node in s.nodes().await? {
            let labels = node.metadata.labels.unwrap_or_default();
            ensure!(
                labels
                    .get("virtualnodes.dev/pool")
                    .is_some_and(|p| p == "main-job"),
                "{labels:?}"
            );
        }
        let env = get_workload(s).await?["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        let profile = get(s, "configmap eci-profile --namespace kube-system").await?;
        ensure!(
            env.contains(r#""name":"ECI_VSWITCH","value":"vsw-bp1fn8u46ph""#),
            "{env}"
        );
        ensure!(
            profile["data"]["vSwitchIds"] == "vsw-bp1fn8u46ph",
            "{}",
            profile["data"]
        );
        ensure!(
            profile["data"]["enableClusterIp"] == "true",
            "{}",
            profile["data"]
        );
        s.no_leak_within(Duration::from_secs(5)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_served_is_refused_by_name() -> Result<()> {
    Scenario::run("refused", async |s| {
        s.start_operator(&OperatorOptions::default()).await?;
        let mut wanted = pool(s, 1);
        wanted["spec"]["provider"] = serde_json::json!({
            "type": "Deployment", "management": "Adopt", "namespace": "kube-system", "name": s.provider(),
        });
        let spec = wanted["spec"].as_object_mut();
        spec.and_then(|spec| spec.remove("replicas"));
        s.apply(&wanted).await?;
        s.kubectl("wait virtualnodepool/refused --for=condition=Accepted=False --timeout=30s")
            .await?;
        let accepted = get_pool(s).await?;
        let accepted = crate::fixture::condition(&accepted, "Accepted")
            .cloned()
            .unwrap_or_default();
        ensure!(accepted["reason"] == "NotSupportedYet", "{accepted}");
        ensure!(
            accepted["message"]
                .as_str()
                .is_some_and(|m| m.contains("spec.provider.type is Deployment")),
            "{accepted}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pool_says_what_it_would_write_and_writes_nothing() -> Result<()> {
    Scenario::run("paused", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        crate::fixture::start_pool(s, 2).await?;
        let before = get_workload(s).await?;
        let mut paused = pool(s, 1);
        paused["spec"]["paused"] = serde_json::json!(true);
        paused["spec"]["network"]["securityGroupId"] = serde_json::json!("sg-other");
        s.apply(&paused).await?;
        eventually(
            "the pending changes are listed",
            Duration::from_secs(10),
            async || {
                let status = get_pool(s).await?["status"].clone();
                let lines = status["pendingChanges"].to_string();
                ensure!(lines.contains("sg-other"), "{status}");
                ensure!(lines.contains(&format!("drain {}", s.node(1))), "{status}");
                Ok(())
            },
        )
        .await?;
        let listed = jiff::Timestamp::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let writes: Vec<String> = s
            .audit_log()
            .writes_by(vnp_e2e::audit::OPERATOR, listed)?
            .into_iter()
            .filter(|e| e.resource != "leases")
            .map(|e| e.to_string())
            .collect();
        ensure!(writes.is_empty(), "paused it wrote {writes:#?}");
        ensure!(
            get_workload(s).await?["spec"] == before["spec"],
            "the workload was changed"
        );

        paused["spec"]["paused"] = serde_json::json!(false);
        s.apply(&paused).await?;
        crate::fixture::shrunk(s, 1, Duration::from_secs(120)).await?;
        let env = get_workload(s).await?["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        ensure!(env.contains("sg-other"), "{env}");
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}
