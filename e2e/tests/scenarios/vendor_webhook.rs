//! The vendor's webhook on a real API server: what condition WebhookReady says of it as it is put together piece by piece.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually};
use vnp_operator::admission::issue::carry_out;
use vnp_plan::webhook::certificates::Rotation;

use crate::fixture::{condition, get, get_pool, pool};

const RIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../config/components/vendor-webhook/rbac.yaml"
);
/// It is looked at every fifteen seconds.
const WITHIN: Duration = Duration::from_secs(30);

async fn webhook_is(s: &Scenario<'_>, status: &str, reason: &str, word: &str) -> Result<()> {
    webhook_becomes(s, status, reason, word, WITHIN).await
}

async fn webhook_becomes(
    s: &Scenario<'_>,
    status: &str,
    reason: &str,
    word: &str,
    within: Duration,
) -> Result<()> {
    eventually(&format!("WebhookReady is {status}: {word}"), within, async || {
        let pool = get_pool(s).await?;
        let webhook = condition(&pool, "WebhookReady").context("no WebhookReady")?;
        let message = webhook["message"].as_str().unwrap_or_default();
        ensure!(
            webhook["status"] == status && webhook["reason"] == reason && message.contains(word),
            "{webhook}"
        );
        Ok(())
    })
    .await
}

/// The vendor's configuration with one entry for the pods of a team, in the namespaces of the rule.
fn configuration(bundle: &Value, team: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "vk-webhook"},
        "webhooks": [{
            "name": "vk.eci.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Ignore", "timeoutSeconds": 1,
            "clientConfig": {
                "caBundle": bundle,
                "service": {"namespace": "kube-system", "name": "vk-webhook", "path": "/inject", "port": 443},
            },
            "namespaceSelector": {"matchLabels": {"tier": "front"}},
            "objectSelector": {"matchLabels": {"team": team}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }],
    })
}

/// When a selector of the profile was written last.
fn written(profile: &Value) -> Result<Timestamp> {
    let managers = profile["metadata"]["managedFields"].as_array();
    let of_selectors = |m: &&Value| !m["fieldsV1"]["f:data"]["f:selectors"].is_null();
    let times = managers.into_iter().flatten().filter(of_selectors);
    let times = times.filter_map(|m| m["time"].as_str()).map(str::parse);
    let times: Vec<Timestamp> = times.collect::<Result<_, _>>()?;
    times.into_iter().max().context("nobody wrote the selectors")
}

fn endpoints(ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "vk-webhook-1", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "vk-webhook"},
        },
        "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": ready}}],
        "ports": [{"port": 8443, "protocol": "TCP"}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_it_is_said() -> Result<()> {
    Scenario::run("vendor-webhook", async |s| {
        let said = put_together(s).await;
        for what in [
            "mutatingwebhookconfiguration vk-webhook",
            "endpointslice vk-webhook-1 --namespace kube-system",
        ] {
            s.kubectl(&format!("delete {what} --ignore-not-found")).await?;
        }
        s.environment()
            .kubectl(["delete", "--ignore-not-found", "--filename", RIGHTS])
            .await?;
        said
    })
    .await
}

async fn put_together(s: &Scenario<'_>) -> Result<()> {
    const DOWN: (&str, &str) = ("False", "WebhookUnavailable");
    s.start_operator(&OperatorOptions::default()).await?;
    let mut wanted = pool(s, 1);
    wanted["spec"]["placement"] = json!({"webhook": "Vendor"});
    s.apply(&wanted).await?;
    webhook_is(s, DOWN.0, DOWN.1, "config/components/vendor-webhook").await?;

    s.environment()
        .kubectl(["apply", "--server-side", "--filename", RIGHTS])
        .await?;
    webhook_is(
        s,
        DOWN.0,
        DOWN.1,
        "there is no MutatingWebhookConfiguration vk-webhook",
    )
    .await?;

    s.apply(&configuration(&Value::Null, "batch")).await?;
    webhook_is(s, DOWN.0, DOWN.1, "no caBundle in vk.eci.example").await?;

    let names = BTreeSet::from(["vk-webhook.kube-system.svc".to_owned()]);
    let bundle = json!(carry_out(Rotation::Anew, None, &names, Timestamp::now())?["ca.crt"]);
    s.apply(&configuration(&bundle, "batch")).await?;
    webhook_is(s, DOWN.0, DOWN.1, "Service kube-system/vk-webhook").await?;
    s.apply(&endpoints(false)).await?;
    webhook_is(s, DOWN.0, DOWN.1, "Service kube-system/vk-webhook").await?;
    s.apply(&endpoints(true)).await?;
    webhook_is(s, "True", "Verified", "the vendor's webhook").await?;
    wanted["spec"]["placement"]["rules"] = json!([
        {"name": "own", "mode": "Require", "podSelector": {"matchLabels": {"team": "web"}},
         "namespaceSelector": {"matchLabels": {"tier": "front"}}},
    ]);
    s.apply(&wanted).await?;
    let written = eventually("the rule is a selector of the profile", WITHIN, async || {
        let profile = get(s, "configmap eci-profile --namespace kube-system").await?;
        let selectors = profile["data"]["selectors"].as_str().unwrap_or("[]");
        let selectors: Value = serde_json::from_str(selectors)?;
        let ours = format!("{}.own", s.name());
        let ours = selectors
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["name"] == ours.as_str());
        let ours = ours.with_context(|| selectors.to_string())?;
        ensure!(
            ours["objectSelector"]["matchLabels"] == json!({"team": "web"})
                && ours["namespaceSelector"]["matchLabels"] == json!({"tier": "front"}),
            "{ours}"
        );
        written(&profile)
    })
    .await?;
    let word = "does not show the selectors";
    webhook_becomes(
        s,
        "False",
        "ConfigNotSynced",
        word,
        Duration::from_secs(60) + WITHIN,
    )
    .await?;
    let late = get_pool(s).await?;
    let late = condition(&late, "WebhookReady").context("no WebhookReady")?;
    let since: Timestamp = late["lastTransitionTime"].as_str().unwrap_or_default().parse()?;
    let waited = since.duration_since(written);
    ensure!(waited.as_secs() >= 60, "it had a minute, and got {waited}");
    s.apply(&configuration(&bundle, "web")).await?;
    webhook_is(s, "True", "Verified", "the vendor's webhook").await?;

    ensure!(
        get(s, "mutatingwebhookconfiguration virtualnodepool-affinity")
            .await
            .is_err(),
        "there is one of our own"
    );
    Ok(())
}
