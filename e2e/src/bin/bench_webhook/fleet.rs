//! What the webhook is asked about, and by whom: pools with rules, namespaces, a pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use vnp_e2e::scenario::{eventually, manifests};

/// Pools, and rules in each.
pub(crate) const POOLS: usize = 5;
pub(crate) const RULES: usize = 32;
/// Length of the pod as JSON.
pub(crate) const POD_BYTES: usize = 20 * 1024;
/// Namespace whose pods the API server asks about.
pub(crate) const ASKED: &str = "asked";
/// Namespace whose pods it does not ask about.
pub(crate) const NOT_ASKED: &str = "not-asked";
const CONFIGURATION: &str = "virtualnodepool-affinity";
/// Label that every rule adds.
pub(crate) const ADDED: &str = "cost-centre";

/// Applies all of it, and waits until the webhook answers.
pub(crate) async fn set_up(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for (name, webhook) in [(ASKED, "enabled"), (NOT_ASKED, "disabled")] {
        let mut namespace = manifests::namespace(name);
        namespace["metadata"]["labels"] = json!({"virtualnodes.dev/webhook": webhook, "team": "bench"});
        let namespace = serde_json::from_value(namespace)?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        eventually(
            "the namespace has its ServiceAccount",
            Duration::from_secs(30),
            async || {
                accounts.get("default").await?;
                Ok(())
            },
        )
        .await?;
    }
    let kind = ApiResource {
        group: "virtualnodes.dev".into(),
        version: "v1alpha1".into(),
        api_version: "virtualnodes.dev/v1alpha1".into(),
        kind: "VirtualNodePool".into(),
        plural: "virtualnodepools".into(),
    };
    let pools: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    for n in 0..POOLS {
        let pool = serde_json::from_value(pool(n))?;
        pools.create(&PostParams::default(), &pool).await?;
    }
    eventually("the webhook answers", Duration::from_secs(60), async || {
        for pool in pools.list(&Default::default()).await? {
            let conditions = pool.data["status"]["conditions"].as_array().cloned();
            let ready = conditions.iter().flatten().find(|c| c["type"] == "WebhookReady");
            // True is also said before anything is asked of the webhook.
            let verified = ready.is_some_and(|c| c["reason"] == "Verified");
            ensure!(verified, "WebhookReady is {ready:?}");
        }
        Ok(())
    })
    .await
}

/// A pool without nodes: its rules place pods all the same.
fn pool(n: usize) -> Value {
    let rule = |r: usize| {
        json!({
            "name": format!("rule-{r}"), "mode": "Require",
            "namespaceSelector": {"matchLabels": {"team": "bench"}},
            "podSelector": {"matchExpressions": [
                {"key": "app", "operator": "In", "values": [app(n, r), format!("{}-canary", app(n, r))]},
                {"key": "stays", "operator": "DoesNotExist"},
            ]},
            "labels": {ADDED: "burst", "virtual": "true"},
            "annotations": {"k8s.aliyun.com/eci-use-specs": "2-4Gi", "k8s.aliyun.com/eci-extra-ephemeral-storage": "50Gi"},
        })
    };
    let mut pool = manifests::pool(&format!("pool-{n}"), &format!("virtual-node-{n}"), 0);
    pool["spec"]["placement"] =
        json!({"webhook": "Operator", "rules": (0..RULES).map(rule).collect::<Vec<_>>()});
    pool["spec"]["computeDefaults"] = json!({"class": "general-purpose", "qos": "best-effort"});
    pool
}

fn app(pool: usize, rule: usize) -> String {
    format!("app-{pool}-{rule}")
}

/// A pod that only the last rule of the last pool means, and that no scheduler takes.
pub(crate) fn pod() -> Value {
    let container = |n: usize| {
        let variable = |v: usize| json!({"name": format!("SETTING_{v}"), "value": format!("https://settings.example.com/{n}/{v}")});
        json!({
            "name": format!("container-{n}"), "image": format!("registry.example.com/team/service-{n}:1.2.3"),
            "env": (0..40).map(variable).collect::<Vec<_>>(),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
            "ports": [{"name": format!("http-{n}"), "containerPort": 8000 + n}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000 + n}},
        })
    };
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "bench-",
            "labels": {"app": app(POOLS - 1, RULES - 1), "tier": "backend", "release": "stable"},
            "annotations": {"padding": ""},
        },
        "spec": {
            "schedulerName": "none",
            "containers": (0..4).map(container).collect::<Vec<_>>(),
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]},
                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "Exists"}]},
            ]}}},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "bench", "effect": "NoSchedule"}],
        },
    });
    let missing = POD_BYTES.saturating_sub(pod.to_string().len());
    pod["metadata"]["annotations"]["padding"] = json!("x".repeat(missing));
    pod
}

/// What the API server asks about the n-th one of such pods, which differ as those of several releases do.
pub(crate) fn question(n: u32) -> Value {
    let mut pod = pod();
    pod["metadata"]["labels"]["release"] = json!(format!("r{n:05}"));
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        let image = container["image"].as_str().map(|image| format!("{image}-{n:05}"));
        container["image"] = json!(image);
    }
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("705ab4f5-6393-11e8-b7cc-{n:012x}"),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE", "namespace": ASKED, "userInfo": {"username": "bench"},
            "object": pod, "oldObject": null, "dryRun": false,
        },
    })
}

/// Takes the webhook away, so that the API server has nothing to compare pods with.
pub(crate) async fn take_down(client: &Client) -> Result<()> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    configurations.delete(CONFIGURATION, &Default::default()).await?;
    Ok(())
}

/// A client of the webhook, by what the API server knows of it.
pub(crate) async fn webhook(client: &Client) -> Result<Client> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let configuration = configurations.get(CONFIGURATION).await?;
    let entry = configuration
        .webhooks
        .into_iter()
        .flatten()
        .next()
        .context("no entry")?;
    let server = entry.client_config.url.context("no URL")?;
    let config: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "webhook", "cluster": {
            "server": server.trim_end_matches("/mutate"),
            "certificate-authority-data": entry.client_config.ca_bundle,
        }}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "webhook", "user": "nobody"}}],
        "current-context": "webhook",
    }))?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_as_long_as_it_is_said_to_be() {
        assert_eq!(pod().to_string().len(), POD_BYTES);
    }
}
