//! Pods that a rule selects and that no virtual node can run, and whatever in the cluster keeps the others from getting
//! there: on a real API server with real policies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually};

use crate::fixture::{condition, get_pool, pool};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const PROBE_NAMESPACE: &str = "virtualnodepool-probe";
const SOON: Duration = Duration::from_secs(40);

/// The pods of one namespace that have a label `app`.
fn wanted(s: &Scenario<'_>) -> Value {
    let mut wanted = pool(s, 1);
    wanted["spec"]["placement"] = json!({ "rules": [{
        "name": "all", "mode": "Require",
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": s.namespace() } },
        "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Exists" }] },
    }] });
    wanted
}

/// An object of admission control that goes with the scenario.
fn admission(kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": ADMISSION, "kind": kind,
        "metadata": { "name": name, "labels": { "scenario": "placement-limits" } },
    });
    json_patch::merge(&mut object, &rest);
    object
}

fn new_pods(namespace: &str) -> Value {
    json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
        "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
    })
}

/// A policy on the pods of the namespace of the probe; whoever it selects is refused unless `expression` is true.
async fn policy(s: &Scenario<'_>, name: &str, expression: &str) -> Result<()> {
    let spec = json!({ "spec": {
        "failurePolicy": "Fail", "matchConstraints": new_pods(PROBE_NAMESPACE), "validations": [{ "expression": expression }],
    } });
    s.apply(&admission("ValidatingAdmissionPolicy", name, spec))
        .await?;
    let spec = json!({ "spec": { "policyName": name, "validationActions": ["Deny"] } });
    s.apply(&admission("ValidatingAdmissionPolicyBinding", name, spec))
        .await
}

async fn no_policy(s: &Scenario<'_>, name: &str) -> Result<()> {
    let kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy";
    s.kubectl(&format!("delete {kinds} {name}")).await?;
    Ok(())
}

/// Something of a user that labels pods, and adds a toleration to each as often as it is asked.
async fn later_mutators(s: &Scenario<'_>) -> Result<()> {
    let rule =
        json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
    let webhooks = json!({ "webhooks": [{
        "name": "labels.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "clientConfig": { "url": "https://127.0.0.1:1/" }, "rules": [rule],
        "objectSelector": { "matchLabels": { "nobody": "here" } },
    }] });
    s.apply(&admission("MutatingWebhookConfiguration", "zzz-labels", webhooks))
        .await?;
    let patches = "[JSONPatch{op: 'add', path: '/spec/tolerations/-', value: Object.spec.tolerations{key: 'theirs', operator: 'Exists'}}, \
                   JSONPatch{op: 'add', path: '/metadata/labels/theirs', value: 'x'}]";
    let spec = json!({ "spec": {
        "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "matchConstraints": new_pods(s.namespace()),
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": patches } }],
    } });
    s.apply(&admission("MutatingAdmissionPolicy", "theirs", spec))
        .await?;
    let spec = json!({ "spec": { "policyName": "theirs" } });
    s.apply(&admission("MutatingAdmissionPolicyBinding", "theirs", spec))
        .await
}

/// The pod as the API server stores it.
async fn create(s: &Scenario<'_>, name: &str, spec: Value) -> Result<Value> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "main", "image": "example.invalid/none" }],
                  "tolerations": [{ "key": "own", "operator": "Exists" }] },
    });
    json_patch::merge(&mut pod["spec"], &spec);
    let pods: Api<Pod> = Api::namespaced(s.client(), s.namespace());
    let pod: Pod = serde_json::from_value(pod)?;
    let created = pods.create(&PostParams::default(), &pod).await;
    Ok(serde_json::to_value(
        created.with_context(|| format!("create {name}"))?,
    )?)
}

fn tolerations(pod: &Value, key: &str) -> usize {
    let tolerations = pod["spec"]["tolerations"].as_array();
    tolerations
        .into_iter()
        .flatten()
        .filter(|t| t["key"] == key)
        .count()
}

/// Waits until WebhookReady says so, with these words.
async fn says(s: &Scenario<'_>, status: &str, reason: &str, words: &[&str]) -> Result<()> {
    eventually(
        &format!("WebhookReady is {status} {reason}: {words:?}"),
        SOON,
        async || {
            let pool = get_pool(s).await?;
            let said = condition(&pool, "WebhookReady").context("no WebhookReady")?;
            ensure!(said["status"] == status && said["reason"] == reason, "{said}");
            let message = said["message"].as_str().unwrap_or_default();
            ensure!(words.iter().all(|word| message.contains(word)), "{message}");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_not_run_there_is_left_alone_and_who_keeps_the_others_away_is_named() -> Result<()> {
    Scenario::run("placement-limits", async |s| {
        later_mutators(s).await?;
        let mut options = OperatorOptions::default();
        options.args.extend(["--webhook-probe-seconds", "1"].map(str::to_owned));
        let operator = s.spawn_operator(&options).await?;
        s.apply(&wanted(s)).await?;
        says(s, "True", "Verified", &["came back mutated"]).await?;

        // Policies that are applied before and after the webhook make nothing of it double.
        let goes = create(s, "goes", json!({})).await?;
        ensure!(goes["spec"]["nodeSelector"] == json!({ "type": "virtual-kubelet" }), "{goes}");
        ensure!(tolerations(&goes, "virtual-kubelet.io/provider") == 1, "{goes}");
        ensure!(tolerations(&goes, "theirs") == 2, "it was to be applied twice: {goes}");
        eventually("what comes after the webhook is named", SOON, async || {
            let events = s
                .kubectl("get events.events.k8s.io --namespace default --field-selector reason=ConfigWarning --output json")
                .await?;
            ensure!(events.contains("MutatingAdmissionPolicy theirs, MutatingWebhookConfiguration zzz-labels"), "{events}");
            Ok(())
        })
        .await?;

        s.nodes_ready(1, Duration::from_secs(30)).await?;
        for (name, spec) in [
            ("pinned", json!({ "nodeSelector": { "kubernetes.io/hostname": "host-0" } })),
            ("host-network", json!({ "hostNetwork": true })),
        ] {
            let pod = create(s, name, spec).await?;
            let untouched = tolerations(&pod, "virtual-kubelet.io/provider") == 0 && pod["spec"]["nodeSelector"]["type"].is_null();
            ensure!(untouched, "{pod}");
        }
        says(s, "True", "Verified", &["leaves no virtual node", "pinned", "spec.hostNetwork is true"]).await?;
        let metrics = operator.metrics().await?;
        for reason in ["NodeChoice", "HostNetwork"] {
            // The API server may ask about one pod twice.
            let series = format!("virtualnodepool_webhook_left_alone_total{{pool=\"{}\",reason=\"{reason}\"}} ", s.name());
            let asked = metrics.lines().find_map(|l| l.strip_prefix(&series)?.parse::<u32>().ok());
            ensure!(matches!(asked, Some(1 | 2)), "{asked:?} for {series}in {metrics}");
        }

        // A taint that nobody tolerates.
        let node = s.node(0);
        s.kubectl(&format!("taint node {node} alibabacloud.com/eci=:NoSchedule")).await?;
        says(s, "False", "NodesMismatch", &["taint alibabacloud.com/eci=:NoSchedule", &node]).await?;
        s.kubectl(&format!("taint node {node} alibabacloud.com/eci:NoSchedule-")).await?;
        says(s, "True", "Verified", &[]).await?;

        // A policy on the probe, and one on what is added.
        policy(s, "owners", "'owner' in object.metadata.labels").await?;
        says(s, "True", "Verified", &["ValidatingAdmissionPolicy owners refused", "exempt"]).await?;
        ensure!(
            operator.metrics().await?.lines().any(|l| l == "virtualnodepool_webhook_answers 1"),
            "the webhook answers"
        );
        no_policy(s, "owners").await?;
        says(s, "True", "Verified", &["came back mutated"]).await?;
        let none = "object.spec.?tolerations.orValue([]).all(t, !has(t.key) || t.key != 'virtual-kubelet.io/provider')";
        policy(s, "tolerations", none).await?;
        says(s, "False", "PodsRefused", &["ValidatingAdmissionPolicy tolerations refuses the pods"]).await?;
        no_policy(s, "tolerations").await?;
        says(s, "True", "Verified", &["came back mutated"]).await
    })
    .await
}
