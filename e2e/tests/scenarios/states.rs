//! The states that a stranger meets, one after the other on one pool: `make states` writes what `kubectl describe` says of
//! them to `docs/states`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, manifests};

use crate::described::described;
use crate::fixture::{misbehave, pool, ready};

const SOON: Duration = Duration::from_secs(60);

/// Three pods of a StatefulSet on the second node: their names are the same in every run.
async fn occupy(s: &Scenario<'_>) -> Result<()> {
    let mut web = manifests::deployment(s.namespace(), "web", 3);
    web["kind"] = json!("StatefulSet");
    web["spec"]["serviceName"] = json!("web");
    web["spec"]["podManagementPolicy"] = json!("Parallel");
    web["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    s.kubectl(&format!("cordon {}", s.node(0))).await?;
    s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
        .await?;
    s.apply(&web).await?;
    s.pods_running("app=web", 3, SOON).await?;
    s.kubectl(&format!("uncordon {}", s.node(0))).await?;
    Ok(())
}

/// The pool, whose providers run where a label says so.
fn labelled(s: &Scenario<'_>, replicas: u32) -> Value {
    let mut pool = pool(s, replicas);
    pool["spec"]["provider"]["nodeSelector"] = json!({"disk": "ssd"});
    pool
}

/// The pool with one node and these fields of `spec.drain`.
fn shrinking(s: &Scenario<'_>, drain: &Value) -> Value {
    let mut pool = labelled(s, 1);
    for (field, value) in drain.as_object().into_iter().flatten() {
        pool["spec"]["drain"][field] = value.clone();
    }
    pool
}

async fn finalizer(s: &Scenario<'_>, operation: &str) -> Result<()> {
    let patch =
        format!(r#"[{{"op":"{operation}","path":"/metadata/finalizers","value":["example.com/hold"]}}]"#);
    s.kubectl(&format!(
        "patch pod web-2 --namespace {} --type json --patch {patch}",
        s.namespace()
    ))
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_says_what_goes_on_why_what_to_do_and_how_long_it_takes() -> Result<()> {
    Scenario::run("burst", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        let shows = async |state: &str, status: &str| described(s, s.name(), state, status).await;

        s.apply(&labelled(s, 2)).await?;
        shows("provisioning", "Provisioning").await?;
        s.kubectl("label nodes --selector !type disk=ssd").await?;
        shows("ready", "Ready").await?;

        let broken = format!(
            r#"[{{"op":"replace","path":"/spec/containers/0/image","value":"{}"}}]"#,
            manifests::broken_provider_image()
        );
        let provider = format!("pod {} --namespace kube-system", s.node(1));
        s.kubectl(&format!("patch {provider} --type json --patch {broken}"))
            .await?;
        s.cloud().crash_provider(&s.node(1));
        shows("nodes-not-ready", "NodesNotReady").await?;
        s.kubectl(&format!("delete {provider}")).await?;
        ready(s, SOON).await?;

        // Two pools for which nothing is made.
        let mut rival = manifests::pool("rival", &s.provider(), 1);
        rival["spec"]["profile"] = json!({"sync": "Disabled"});
        s.apply(&rival).await?;
        described(s, "rival", "conflict", "Conflict").await?;
        s.apply(&manifests::provider("virtual-node-by-hand", 0)).await?;
        let mut refused = manifests::pool("refused-pool", "virtual-node-by-hand", 1);
        refused["spec"]["profile"] = json!({"sync": "Disabled"});
        s.apply(&refused).await?;
        described(s, "refused-pool", "invalid-spec", "InvalidSpec").await?;
        s.kubectl("delete virtualnodepool rival refused-pool --timeout=30s")
            .await?;

        occupy(s).await?;
        s.apply(&shrinking(s, &json!({}))).await?;
        shows("drain-blocked-by-budget", "DrainBlocked").await?;
        s.apply(&shrinking(s, &json!({"progressDeadlineSeconds": 1})))
            .await?;
        shows("stalled", "DrainBlocked").await?;
        let mut paused = shrinking(s, &json!({}));
        paused["spec"]["paused"] = json!(true);
        paused["spec"]["network"]["securityGroupId"] = json!("sg-other");
        s.apply(&paused).await?;
        shows("paused", "Paused").await?;
        s.apply(&shrinking(s, &json!({"onTimeout": "Abort", "timeoutSeconds": 1})))
            .await?;
        shows("drain-timed-out", "DrainTimedOut").await?;
        s.apply(&shrinking(
            s,
            &json!({"onTimeout": "ForceDelete", "timeoutSeconds": 60}),
        ))
        .await?;
        shows("force-announced", "DrainBlocked").await?;

        finalizer(s, "add").await?;
        s.apply(&shrinking(s, &json!({}))).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 3))
            .await?;
        shows("draining", "Draining").await?;
        shows("drain-blocked-by-finalizer", "DrainBlocked").await?;
        s.kubectl(&format!("delete virtualnodepool {} --wait=false", s.name()))
            .await?;
        shows("deleting", "Deleting").await?;
        finalizer(s, "remove").await
    })
    .await
}
