//! Somebody refuses evictions at admission, with codes that the server itself gives other answers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, PostParams};
use serde_json::json;
use vnp_e2e::audit::Eviction;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{
    blocked_by, condition, emptied_before_shrink, evictions, get_pool, misbehave, pool, shrunk, start_pool,
    tell,
};
use crate::refusing::Refusing;

const SOON: Duration = Duration::from_secs(60);
/// Pods that nobody holds.
const FREE: u32 = 60;
/// Pods for each code.
const HELD: u32 = 4;
const PER_SECOND: u32 = 10;

/// Refuses the eviction of pods whose names begin with `code-`.
async fn guard(s: &Scenario<'_>, webhook: &Refusing) -> Result<()> {
    s.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": s.name(), "labels": {"scenario": s.name()}},
        "webhooks": [{
            "name": format!("guard.{}.example.com", s.name()), "clientConfig": webhook.client_config,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/eviction"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": s.namespace()}},
            "matchConditions": [{"name": "held", "expression": "request.name.startsWith('code-')"}],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    }))
    .await?;
    let held = s.pods("app=code-404").await?;
    let held = held
        .first()
        .and_then(|p| p.metadata.name.clone())
        .context("no pod")?;
    let dry_run = EvictParams {
        post_options: PostParams {
            dry_run: true,
            ..PostParams::default()
        },
        ..EvictParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(s.client(), s.namespace());
    eventually("evictions are refused", SOON, async || {
        match pods.evict(&held, &dry_run).await {
            Err(kube::Error::Api(status)) if status.message.contains("denied") => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn evictions_that_a_webhook_refuses_with_any_code_hold_their_pods_and_slow_no_others() -> Result<()> {
    Scenario::run("refusing", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        s.kubectl(&format!("cordon {}", s.node(0))).await?;
        let groups = [
            ("free", FREE),
            ("code-404", HELD),
            ("code-409", HELD),
            ("code-500", HELD),
        ];
        for (app, count) in groups {
            s.apply(&manifests::deployment(s.namespace(), app, count)).await?;
        }
        for (app, count) in groups {
            s.pods_running(&format!("app={app}"), count as usize, SOON)
                .await?;
        }
        s.kubectl(&format!("uncordon {}", s.node(0))).await?;
        let webhook = Refusing::start().await?;
        guard(s, &webhook).await?;

        let mut slow = pool(s, 1);
        slow["spec"]["drain"]["evictionsPerSecond"] = json!(PER_SECOND);
        slow["spec"]["drain"]["burst"] = json!(1);
        s.apply(&slow).await?;
        let tried = eventually("all others are evicted", SOON, async || {
            let tried = evictions(s)?;
            let gone = tried.iter().filter(|e| e.code == 201).count();
            ensure!(gone == FREE as usize, "{gone} of {FREE}");
            Ok(tried)
        })
        .await?;
        keeps_its_pace(&tried)?;

        let object = format!("webhook/guard.{}.example.com", s.name());
        blocked_by(s, "EvictionForbidden", &object, SOON).await?;
        let blocked = async || {
            let pool = get_pool(s).await?;
            let ready = condition(&pool, "Ready").context("no condition Ready")?;
            ensure!(ready["reason"] == "DrainBlocked", "{ready}");
            let blockers = pool["status"]["drain"]["blockers"].as_array();
            let [only] = blockers.map(Vec::as_slice).unwrap_or_default() else {
                bail!("{blockers:?}");
            };
            ensure!(only["object"] == object && only["pods"] == 3 * HELD, "{only}");
            Ok(())
        };
        eventually("STATUS is DrainBlocked", SOON, blocked).await?;
        // Refused pods are asked for anew every 10 s.
        always("it stays so", Duration::from_secs(12), blocked).await?;

        s.kubectl(&format!("delete validatingwebhookconfiguration {}", s.name()))
            .await?;
        shrunk(s, 1, 2 * SOON).await?;
        emptied_before_shrink(s, 2)?;
        s.no_leak_within(SOON).await
    })
    .await
}

/// From the first eviction to the last one that was accepted, refused ones included.
fn keeps_its_pace(tried: &[Eviction]) -> Result<()> {
    let accepted = |e: &&Eviction| e.code == 201;
    let first = tried.first().context("no eviction")?.received;
    let last = tried.iter().rfind(accepted).context("none accepted")?.received;
    let within = tried.iter().filter(|e| e.received <= last).count();
    let took = last.duration_since(first);
    let refused = within - tried.iter().filter(accepted).count();
    ensure!(refused >= 3 * HELD as usize, "{refused} refused");
    let rate = (within - 1) as f64 / took.as_secs_f64();
    tell(&format!(
        "{within} evictions, {refused} of them refused, in {took:#}: {rate:.1}/s"
    ));
    ensure!(
        rate >= 0.85 * f64::from(PER_SECOND),
        "{rate:.1}/s: refusals brake all"
    );
    Ok(())
}
