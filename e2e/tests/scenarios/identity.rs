//! A provider that registers its Node under another name than its pod's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{blocked_by, condition, get, get_workload, misbehave, resize, start_pool};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_node_has_another_name_is_not_taken_away() -> Result<()> {
    Scenario::run("elsewhere", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 1).await?;
        let elsewhere = format!("{}-under-another-name", s.name());
        s.cloud()
            .configure_node(&s.node(1), |knobs| knobs.node_name = Some(elsewhere.clone()));
        resize(s, 2).await?;
        eventually("the provider is Ready and its Node there", SOON, async || {
            get(s, &format!("node {elsewhere}")).await?;
            let pod = get(s, &format!("pod {} --namespace kube-system", s.node(1))).await?;
            let ready = condition(&pod, "Ready").is_some_and(|c| c["status"] == "True");
            ensure!(ready, "not yet");
            Ok(())
        })
        .await?;
        let pods = manifests::on_node(manifests::deployment(s.namespace(), "web", 3), &elsewhere);
        s.apply(&pods).await?;
        s.pods_running("app=web", 3, SOON).await?;

        resize(s, 1).await?;
        let pool = blocked_by(s, "NodeMissing", &s.node(1), SOON).await?;
        let blockers = pool["status"]["drain"]["blockers"].as_array();
        let told = blockers.and_then(|b| b.iter().find(|b| b["reason"] == "NodeMissing"));
        let told = told.context("no blocker")?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains(&format!(
                "{elsewhere} (3 pods; provider {} has its address",
                s.node(1)
            )),
            "{told}"
        );
        ensure!(told["pods"] == 3, "{told}");
        // Before, the count was lowered within two seconds.
        always("its provider stays", Duration::from_secs(4), async || {
            let count = get_workload(s).await?["spec"]["replicas"].clone();
            ensure!(count == 2, "replicas is {count}");
            Ok(())
        })
        .await?;

        // What the message advises: empty it by hand, then give the ordinal up, which serves this drain only.
        s.kubectl(&format!("delete deployment web --namespace {}", s.namespace()))
            .await?;
        s.pods_running("app=web", 0, SOON).await?;
        let glass = format!("virtualnodes.dev/abandon-node={}/none", s.node(1));
        s.kubectl(&format!("annotate virtualnodepool {} {glass}", s.name()))
            .await?;
        let lowered = async || {
            let count = get_workload(s).await?["spec"]["replicas"].clone();
            ensure!(count == 1, "replicas is {count}");
            Ok(())
        };
        eventually("it is given up", SOON, lowered).await?;
        eventually("its provider is gone", SOON, async || {
            let pods = s
                .kubectl(&format!(
                    "get pod {} --namespace kube-system --ignore-not-found --output name",
                    s.node(1)
                ))
                .await?;
            ensure!(pods.trim().is_empty(), "{pods}");
            Ok(())
        })
        .await?;

        resize(s, 2).await?;
        eventually("the provider is Ready again", SOON, async || {
            let pod = get(s, &format!("pod {} --namespace kube-system", s.node(1))).await?;
            let ready = condition(&pod, "Ready").is_some_and(|c| c["status"] == "True");
            ensure!(ready, "not yet");
            Ok(())
        })
        .await?;
        resize(s, 1).await?;
        blocked_by(s, "NodeMissing", &s.node(1), SOON).await?;
        always(
            "the annotation does nothing",
            Duration::from_secs(3),
            async || {
                let count = get_workload(s).await?["spec"]["replicas"].clone();
                ensure!(count == 2, "replicas is {count}");
                Ok(())
            },
        )
        .await?;
        // Set anew it is meant for this drain, and the pool can go.
        s.kubectl(&format!(
            "annotate virtualnodepool {} virtualnodes.dev/abandon-node-",
            s.name()
        ))
        .await?;
        eventually("the status has forgotten it", SOON, async || {
            let kept = crate::fixture::get_pool(s).await?["status"]["provider"]["breakGlass"].clone();
            ensure!(kept.is_null(), "{kept}");
            Ok(())
        })
        .await?;
        s.kubectl(&format!("annotate virtualnodepool {} {glass}", s.name()))
            .await?;
        eventually("it is given up again", SOON, lowered).await?;
        s.kubectl(&format!("delete node {elsewhere} --wait=false"))
            .await?;
        s.no_leak_within(SOON).await
    })
    .await
}
