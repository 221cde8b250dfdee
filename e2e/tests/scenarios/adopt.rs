//! Taking over a workload that people made, and giving it back as it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{condition, get, get_pool, get_workload, misbehave, pool, ready};

/// A provider as years of hand work leave it.
fn grown(s: &Scenario<'_>) -> Value {
    let mut workload = manifests::provider(&s.provider(), 2);
    let containers = &mut workload["spec"]["template"]["spec"]["containers"];
    containers[0]["env"] = json!([
        { "name": "FIRST", "value": "1" },
        { "name": "ECI_REGION", "value": "cn-hangzhou" },
        { "name": "ECI_VPC", "value": "vpc-bp1aevy8sofi8mh1q" },
        { "name": "ECI_VSWITCH", "value": "vsw-a, vsw-b" },
        { "name": "LOG_SWITCHES", "value": "$(ECI_VSWITCH)" },
        { "name": "ECI_SECURITY_GROUP", "value": "sg-bp1crrcq8a3" },
        { "name": "ECI_KUBE_PROXY", "value": "true" },
        { "name": "LAST", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
    ]);
    let sidecar = json!({
        "name": "sidecar", "image": "registry.example/log-shipper:2",
        "env": [{ "name": "ECI_VSWITCH_COPY", "value": "x" }],
    });
    if let Some(containers) = containers.as_array_mut() {
        containers.push(sidecar);
    }
    workload
}

fn adopting(s: &Scenario<'_>) -> Value {
    let mut adopting = pool(s, 2);
    adopting["spec"]["provider"] = json!({
        "type": "StatefulSet", "management": "Adopt", "namespace": "kube-system", "name": s.provider(),
    });
    adopting["spec"]["network"]["zones"][0]["vSwitchIds"] = json!(["vsw-a", "vsw-b"]);
    adopting
}

/// What a person cares about: spec, and metadata without what the server counts.
fn essence(object: &Value) -> Value {
    let mut spec = object["spec"].clone();
    // Where duplicates and order count, JSON text is compared, not meaning.
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("replicas");
    }
    let text = |v: &Value| json!(v.to_string());
    json!({
        "spec": text(&spec), "labels": object["metadata"]["labels"].clone(),
        "annotations": object["metadata"]["annotations"].clone(), "finalizers": object["metadata"]["finalizers"].clone(),
    })
}

async fn provider_uids(s: &Scenario<'_>) -> Result<Vec<Value>> {
    let pods = get(
        s,
        &format!("pods --namespace kube-system --selector app={}", s.provider()),
    )
    .await?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|p| p["metadata"]["uid"].clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn adopting_restarts_nothing_and_letting_go_gives_the_originals_back() -> Result<()> {
    Scenario::run("adopt", async |s| {
        misbehave(s);
        s.apply(&grown(s)).await?;
        // Written by a second hand: an entry that is there twice, which a server-side apply would collapse.
        let duplicate = r#"[{"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"FIRST","value":"2"}}]"#;
        s.kubectl(&format!("patch statefulset {} --namespace kube-system --type json --patch {duplicate}", s.provider()))
            .await?;
        s.nodes_ready(2, Duration::from_secs(60)).await?;
        eventually("the providers have settled", Duration::from_secs(60), async || {
            let status = get_workload(s).await?["status"].clone();
            ensure!(status["updatedReplicas"] == 2 && status["readyReplicas"] == 2, "{status}");
            ensure!(status["updateRevision"] == status["currentRevision"], "{status}");
            Ok(())
        })
        .await?;
        let before = get_workload(s).await?;
        let providers = provider_uids(s).await?;

        s.start_operator(&OperatorOptions::default()).await?;
        s.apply(&adopting(s)).await?;
        ready(s, Duration::from_secs(30)).await?;
        let taken = get_workload(s).await?;
        // As text: order counts, which equality of JSON values does not see.
        let (had, has) = (before["spec"].to_string(), taken["spec"].to_string());
        ensure!(has == had, "adopting changed the spec:\n{had}\n{has}");
        ensure!(taken["metadata"]["labels"]["virtualnodes.dev/pool"] == "adopt", "{}", taken["metadata"]);
        always("no provider restarts", Duration::from_secs(3), async || {
            ensure!(provider_uids(s).await? == providers, "another pod runs");
            Ok(())
        })
        .await?;

        let mut changed = adopting(s);
        changed["spec"]["network"]["securityGroupId"] = json!("sg-other");
        s.apply(&changed).await?;
        eventually("the security group is the pool's", Duration::from_secs(60), async || {
            let env = get_workload(s).await?["spec"]["template"]["spec"]["containers"][0]["env"].clone();
            ensure!(env.to_string().contains("sg-other"), "{env}");
            ensure!(env[3]["value"] == "vsw-a, vsw-b", "the user's spelling is gone: {env}");
            Ok(())
        })
        .await?;
        ready(s, Duration::from_secs(90)).await?;
        let kept = get_workload(s).await?;
        let originals = kept["metadata"]["annotations"]["virtualnodes.dev/adopted-values"]
            .as_str()
            .context("no annotation adopted-values")?
            .to_owned();
        ensure!(originals.contains("sg-bp1crrcq8a3"), "{originals}");

        s.kubectl("delete virtualnodepool adopt --wait=false").await?;
        eventually("the pool is gone and the originals are back", Duration::from_secs(60), async || {
            let after = get_workload(s).await?;
            ensure!(essence(&after) == essence(&before), "\nbefore {}\nafter {}", essence(&before), essence(&after));
            ensure!(get_pool(s).await.is_err(), "the pool is still there");
            Ok(())
        })
        .await?;
        ensure!(get_workload(s).await?["spec"]["replicas"] == 2, "Retain cut something");
        Ok(())
    })
    .await
}

async fn refused(s: &Scenario<'_>, reason: &str, message: &str) -> Result<()> {
    eventually(
        &format!("Accepted is False {reason}"),
        Duration::from_secs(20),
        async || {
            let pool = get_pool(s).await?;
            let accepted = condition(&pool, "Accepted").cloned().unwrap_or_default();
            ensure!(
                accepted["status"] == "False" && accepted["reason"] == reason,
                "{accepted}"
            );
            ensure!(
                accepted["message"].as_str().is_some_and(|m| m.contains(message)),
                "{accepted}"
            );
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_adopted_is_refused_and_left_alone() -> Result<()> {
    Scenario::run("adopt-refused", async |s| {
        s.start_operator(&OperatorOptions::default()).await?;

        s.apply(&adopting(s)).await?;
        refused(s, "WorkloadNotFound", &s.provider()).await?;

        let mut by_reference = grown(s);
        by_reference["spec"]["template"]["spec"]["containers"][0]["env"][5] = json!({
            "name": "ECI_SECURITY_GROUP", "valueFrom": { "configMapKeyRef": { "name": "eci", "key": "group", "optional": true } },
        });
        s.apply(&by_reference).await?;
        refused(s, "EnvFromReference", "ECI_SECURITY_GROUP").await?;

        let mut two = grown(s);
        two["spec"]["template"]["spec"]["containers"][1]["env"] = json!([{ "name": "ECI_REGION", "value": "cn-hangzhou" }]);
        s.apply(&two).await?;
        refused(s, "ContainerAmbiguous", "sidecar").await?;

        s.kubectl("delete virtualnodepool adopt-refused --timeout=20s").await?;
        let before = get_workload(s).await?;
        s.apply(&pool(s, 2)).await?;
        refused(s, "WorkloadExists", "management: Adopt").await?;
        let after = get_workload(s).await?;
        ensure!(essence(&after) == essence(&before), "a refused pool wrote to the workload");
        Ok(())
    })
    .await
}
