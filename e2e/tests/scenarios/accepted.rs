//! What the API server accepted has not happened yet, and what it answered with success may be stored otherwise.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually};

use crate::fixture::{
    blocked_by, condition, get_pool, get_workload, misbehave, misbehave_on_1_12, pool, ready, resize, shrunk,
    start_pool,
};

const SOON: Duration = Duration::from_secs(60);

async fn removed(s: &Scenario<'_>) -> Result<bool> {
    let events = s
        .kubectl(
            "get events.events.k8s.io --namespace default --field-selector reason=NodeRemoved --output json",
        )
        .await?;
    Ok(events.contains(&s.node(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_finalizer_holds_is_named_with_its_holder_and_not_removed() -> Result<()> {
    Scenario::run("held", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        let hold = r#"[{"op":"add","path":"/metadata/finalizers","value":["example.com/hold"]}]"#;
        s.kubectl(&format!(
            "patch node {} --type json --field-manager nodekeeper --patch {hold}",
            s.node(1)
        ))
        .await?;
        resize(s, 1).await?;
        let held = blocked_by(s, "FinalizerHolds", &s.node(1), Duration::from_secs(120)).await?;
        let status = &held["status"];
        let blocker = &status["drain"]["blockers"][0];
        ensure!(
            blocker["message"]
                .as_str()
                .is_some_and(|m| m.contains("example.com/hold (set by nodekeeper)")),
            "{blocker}"
        );
        ensure!(status["drain"]["limitedBy"] == "Blocker", "{status}");
        ensure!(status["availableNodes"] == 1, "{status}");
        ensure!(!removed(s).await?, "told before it is gone");
        let free = r#"[{"op":"remove","path":"/metadata/finalizers"}]"#;
        s.kubectl(&format!("patch node {} --type json --patch {free}", s.node(1)))
            .await?;
        shrunk(s, 1, SOON).await?;
        eventually("it is told when it is gone", SOON, async || {
            ensure!(removed(s).await?, "no event NodeRemoved");
            Ok(())
        })
        .await
    })
    .await
}

/// The operator's writes to the StatefulSet.
fn writes(s: &Scenario<'_>) -> Result<usize> {
    let writes = s.audit_log().writes_by(OPERATOR, s.began())?;
    Ok(writes.iter().filter(|e| e.is("statefulsets", None)).count())
}

/// Sets the image of the provider to one of its own whenever the StatefulSet is updated.
async fn rewrite_image(s: &Scenario<'_>, image: &str) -> Result<()> {
    let name = "rewritten";
    s.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                                                    "resources": ["statefulsets"]}]},
            "matchConditions": [{"name": "provider", "expression": format!("object.metadata.name == '{}'", s.provider())}],
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!(
                "[JSONPatch{{op: 'replace', path: '/spec/template/spec/containers/0/image', value: '{image}'}}]")}}],
        },
    }))
    .await?;
    s.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name},
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_a_policy_rewrites_is_written_once_and_said() -> Result<()> {
    Scenario::run("rewritten", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 1).await?;
        let image = |pool: &Value| pool["spec"]["provider"]["image"].clone();
        let stored = image(&pool(s, 1)).as_str().context("no image")?.to_owned();
        rewrite_image(s, &stored).await?;
        let mut wanted = pool(s, 1);
        wanted["spec"]["provider"]["image"] = json!("registry.example/virtual-nodes-eci:wanted");
        // The policy takes a moment to be in force.
        tokio::time::sleep(Duration::from_secs(3)).await;
        s.apply(&wanted).await?;
        eventually("the pool says what does not take", SOON, async || {
            let pool = get_pool(s).await?;
            let stalled = condition(&pool, "Stalled").context("no condition Stalled")?;
            ensure!(stalled["reason"] == "FieldContested", "{stalled}");
            let told = format!("image {stored} -> registry.example/virtual-nodes-eci:wanted");
            ensure!(
                stalled["message"].as_str().is_some_and(|m| m.contains(&told)),
                "{stalled}"
            );
            ensure!(
                get_workload(s).await?["spec"]["updateStrategy"]["rollingUpdate"]["partition"] != 1,
                "half a roll"
            );
            Ok(())
        })
        .await?;
        let before = writes(s)?;
        always("it is not written again", Duration::from_secs(45), async || {
            ensure!(writes(s)? == before, "{} writes, {before} before", writes(s)?);
            Ok(())
        })
        .await?;
        // What the policy stores is what the pool asks for again.
        s.apply(&pool(s, 1)).await?;
        s.kubectl("delete mutatingadmissionpolicybinding rewritten")
            .await?;
        s.kubectl("delete mutatingadmissionpolicy rewritten").await?;
        ready(s, SOON).await
    })
    .await
}
