//! `spec.placement` on a real API server that really calls the webhook: which patch each pod gets, where the scheduler
//! then puts it, and that nobody asks about a pod that no rule means.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{condition, get, get_pool, pool, ready};

const SOON: Duration = Duration::from_secs(30);
const ECI_NAMESPACE: (&str, &str) = ("alibabacloud.com/eci", "true");

/// The forms of asking for virtual nodes that the vendor documents, in the YAML of its pages: shared with the tests of the
/// mutation alone.
macro_rules! page {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../operator/plan/src/placement/tests/pages/",
            $name
        ))
    };
}

/// What a page says becomes of its pods.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Eci,
    /// Of this class, QoS and GPU series.
    Acs(&'static str, &'static str, Option<&'static str>),
    /// Nothing on the pod says, a policy would: without the vendor's scheduler it waits for an ordinary node with GPUs.
    Waits,
    /// It names the vendor's scheduler, which nobody serves here.
    Scheduler(&'static str),
}

struct Form {
    name: &'static str,
    page: &'static str,
    namespace: Option<(&'static str, &'static str)>,
    label: Option<(&'static str, &'static str)>,
    end: End,
}

fn forms() -> Vec<Form> {
    let form = |name, page, end| Form {
        name,
        page,
        namespace: None,
        label: None,
        end,
    };
    let cpu = End::Acs("general-purpose", "default", None);
    let gpu = End::Acs("gpu", "default", Some("example-model"));
    let run = page!("run.yaml");
    vec![
        form("node-selector", page!("node-selector.yaml"), End::Eci),
        form("eci-label", page!("eci-label.yaml"), End::Eci),
        form("eci-label-gpu", page!("eci-label-gpu.yaml"), End::Eci),
        Form {
            namespace: Some(ECI_NAMESPACE),
            ..form("eci-namespace", page!("eci-namespace.yaml"), End::Eci)
        },
        Form {
            namespace: Some(("virtual-node-affinity-injection", "enabled")),
            ..form("legacy-namespace", run, End::Eci)
        },
        Form {
            label: Some(("eci", "true")),
            ..form("legacy-label", run, End::Eci)
        },
        form("acs-node-selector", page!("acs-node-selector.yaml"), cpu),
        form("acs-label", page!("acs-label.yaml"), cpu),
        form("acs-node-selector-gpu", page!("acs-node-selector-gpu.yaml"), gpu),
        form("acs-label-gpu", page!("acs-label-gpu.yaml"), gpu),
        form(
            "acs-policy-gpu",
            page!("acs-resource-policy-gpu.yaml"),
            End::Waits,
        ),
        form(
            "co-scheduler",
            page!("co-scheduler.yaml"),
            End::Scheduler("ack-co-scheduler"),
        ),
    ]
}

/// How often the operator was asked about a pod.
async fn requests(operator: &Operator) -> Result<u64> {
    let metrics = operator.metrics().await?;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("virtualnodepool_webhook_requests_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    Ok(counts.sum())
}

/// No dry run of the operator's own disturbs the counts: the first one has come and the next is far away.
async fn start(s: &Scenario<'_>, wanted: &Value, nodes: usize) -> Result<Operator> {
    let mut options = OperatorOptions::default();
    options
        .args
        .extend(["--webhook-probe-seconds", "3600"].map(str::to_owned));
    let operator = s.spawn_operator(&options).await?;
    s.apply(wanted).await?;
    ready(s, Duration::from_secs(60)).await?;
    s.nodes_ready(nodes, Duration::from_secs(10)).await?;
    eventually("the webhook is verified", SOON, async || {
        let pool = get_pool(s).await?;
        let said = condition(&pool, "WebhookReady").context("no WebhookReady")?;
        ensure!(said["reason"] == "Verified", "{said}");
        Ok(())
    })
    .await?;
    Ok(operator)
}

/// A namespace of the scenario with this label.
async fn namespace(s: &Scenario<'_>, name: &str, label: Option<(&str, &str)>) -> Result<String> {
    let name = format!("{}-{name}", s.namespace());
    let mut manifest = manifests::namespace(&name);
    if let Some((key, value)) = label {
        manifest["metadata"]["labels"] = json!({ key: value });
    }
    s.apply(&manifest).await?;
    Ok(name)
}

fn pod(name: &str, label: (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {label.0: label.1}},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/none"}]},
    })
}

/// Two pods that say nothing of nodes.
fn deployment(namespace: &str, app: &str) -> Value {
    let mut template = pod("x", ("app", app));
    template["metadata"] = json!({"labels": {"app": app}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    })
}

async fn create(s: &Scenario<'_>, namespace: &str, pod: Value) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(s.client(), namespace);
    let name = pod["metadata"]["name"].to_string();
    let pod: Pod = serde_json::from_value(pod)?;
    let created = pods.create(&PostParams::default(), &pod).await;
    created.with_context(|| format!("create pod {name}"))
}

/// The node of a pod, once it runs.
async fn node_of(s: &Scenario<'_>, namespace: &str, name: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(s.client(), namespace);
    eventually(&format!("pod {namespace}/{name} runs"), SOON, async || {
        let pod = pods.get(name).await?;
        let phase = pod.status.and_then(|status| status.phase);
        ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
        pod.spec.and_then(|spec| spec.node_name).context("it has no node")
    })
    .await
}

/// The patches of webhooks on the creation of a pod, as the API server recorded them.
fn patches(s: &Scenario<'_>, namespace: &str, name: &str) -> Result<Vec<Value>> {
    patches_where(s, namespace, |metadata| metadata["name"] == name)
}

/// Those on the creation of the pods of a Deployment, whose names only the answer has.
fn patches_of_deployment(s: &Scenario<'_>, namespace: &str, app: &str) -> Result<Vec<Value>> {
    let prefix = format!("{app}-");
    patches_where(s, namespace, |metadata| {
        let generated = metadata["generateName"].as_str();
        generated.is_some_and(|name| name.starts_with(&prefix))
    })
}

/// Those on the creation of the pods whose metadata, as it was sent, is so.
fn patches_where(s: &Scenario<'_>, namespace: &str, means: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    let mut patches = Vec::new();
    for event in s.audit_log().events()? {
        let created = event.verb == "create" && event.is("pods", None) && event.received >= s.began();
        let metadata = event.request.as_ref().map(|r| &r["metadata"]);
        if !created || event.namespace.as_deref() != Some(namespace) || !metadata.is_some_and(&means) {
            continue;
        }
        for (key, text) in &event.annotations {
            if key.starts_with("patch.webhook.admission.k8s.io/") {
                let record: Value = serde_json::from_str(text)?;
                ensure!(record["configuration"] == "virtualnodepool-affinity", "{record}");
                patches.push(record["patch"].clone());
            }
        }
    }
    Ok(patches)
}

/// What of a pod has to stay when a default changes: its UID and its labels.
async fn stays(s: &Scenario<'_>, name: &str) -> Result<Value> {
    let pods: Api<Pod> = Api::namespaced(s.client(), s.namespace());
    let ObjectMeta { uid, labels, .. } = pods.get(name).await?.metadata;
    Ok(json!({"name": name, "uid": uid, "labels": labels}))
}

/// What kubectl prints on stderr when it creates a pod as a dry run.
async fn warnings(s: &Scenario<'_>, args: &[&str]) -> Result<Vec<String>> {
    let mut kubectl = Command::from(s.environment().control_plane().kubectl_command());
    kubectl
        .args([
            "run",
            "explained",
            "--image=example.invalid/none",
            "--dry-run=server",
        ])
        .args(["--namespace", s.namespace()])
        .args(args);
    let output = kubectl.output().await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{said}");
    Ok(said.lines().map(str::to_owned).collect())
}

fn toleration() -> Value {
    json!({"op": "add", "path": "/spec/tolerations/-",
           "value": {"key": "virtual-kubelet.io/provider", "operator": "Exists"}})
}

fn node_selector(labels: Value) -> Value {
    json!({"op": "add", "path": "/spec/nodeSelector", "value": labels})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_gets_its_patch_and_ends_on_its_node() -> Result<()> {
    Scenario::run("placement", async |s| {
        let mut wanted = pool(s, 1);
        wanted["spec"]["placement"] = json!({"rules": [{
            "name": "batch", "mode": "Require", "podSelector": {"matchLabels": {"app": "report"}},
            "labels": {"team": "batch"}, "annotations": {"k8s.aliyun.com/eci-use-specs": "2-4Gi"},
        }, {
            "name": "nightly", "mode": "Require", "podSelector": {"matchLabels": {"at": "night", "on": "demand"}},
        }]});
        wanted["spec"]["computeDefaults"] = json!({"class": "performance", "qos": "best-effort"});
        let operator = start(s, &wanted, 1).await?;
        let accepted = get_pool(s).await?;
        let accepted = condition(&accepted, "Accepted").context("no Accepted")?;
        ensure!(accepted["status"] == "True", "{accepted}");
        let own = s.namespace();
        let before = requests(&operator).await?;

        create(s, own, pod("unmatched", ("app", "web"))).await?;
        ensure!(patches(s, own, "unmatched")?.is_empty(), "it was patched");
        ensure!(node_of(s, own, "unmatched").await?.starts_with("host-"));
        ensure!(
            requests(&operator).await? == before,
            "somebody asked about a pod that no rule means"
        );

        create(s, own, pod("labelled", ("alibabacloud.com/eci", "true"))).await?;
        let golden = json!([
            toleration(),
            node_selector(json!({"type": "virtual-kubelet"})),
            {"op": "add", "path": "/metadata/annotations",
             "value": {"virtualnodes.dev/placed-by": "placement/alibabacloud.com/eci=true"}},
        ]);
        let patched = patches(s, own, "labelled")?;
        ensure!(patched == [golden], "{}", json!(patched));
        ensure!(node_of(s, own, "labelled").await? == s.node(0));
        ensure!(requests(&operator).await? == before + 1, "one call for one pod");

        create(s, own, pod("matched", ("app", "report"))).await?;
        let golden = json!([
            toleration(),
            {"op": "add", "path": "/metadata/labels/alibabacloud.com~1acs", "value": "true"},
            {"op": "add", "path": "/metadata/labels/alibabacloud.com~1compute-class", "value": "performance"},
            {"op": "add", "path": "/metadata/labels/alibabacloud.com~1compute-qos", "value": "best-effort"},
            {"op": "add", "path": "/metadata/labels/team", "value": "batch"},
            node_selector(json!({"type": "virtual-kubelet"})),
            {"op": "add", "path": "/metadata/annotations", "value": {
                "k8s.aliyun.com/eci-use-specs": "2-4Gi",
                "virtualnodes.dev/compute-defaults": "class=performance,qos=best-effort",
                "virtualnodes.dev/placed-by": "placement/batch"}},
        ]);
        let patched = patches(s, own, "matched")?;
        ensure!(patched == [golden], "{}", json!(patched));
        ensure!(node_of(s, own, "matched").await? == s.node(0));
        // Not again for the label that the rule added.
        ensure!(requests(&operator).await? == before + 2, "one call for one pod");

        let mut both = pod("both", ("app", "report"));
        both["metadata"]["labels"]["at"] = json!("night");
        both["metadata"]["labels"]["on"] = json!("demand");
        create(s, own, both).await?;
        ensure!(patches(s, own, "both")?.len() == 1, "one rule places it");
        ensure!(requests(&operator).await? == before + 3, "one call for two rules");

        // Only who asks is told what was added.
        let said = warnings(s, &["--labels=app=report"]).await?;
        ensure!(said.is_empty(), "{said:?}");
        let said = warnings(
            s,
            &[
                "--labels=app=report",
                "--annotations=virtualnodes.dev/explain=true",
            ],
        )
        .await?;
        for what in [
            "label alibabacloud.com/compute-class=performance",
            "annotation k8s.aliyun.com/eci-use-specs=2-4Gi",
            "nodeSelector type=virtual-kubelet",
            "toleration virtual-kubelet.io/provider",
        ] {
            let line = format!("Warning: virtualnodes.dev: placement/batch added {what}");
            ensure!(said.contains(&line), "{line} is not in {said:#?}");
        }

        let labelled = namespace(s, "eci", Some(ECI_NAMESPACE)).await?;
        let before = requests(&operator).await?;
        s.apply(&deployment(&labelled, "web")).await?;
        let pods: Api<Pod> = Api::namespaced(s.client(), &labelled);
        eventually("the Deployment runs on the virtual node", SOON, async || {
            let list = pods.list(&kube::api::ListParams::default()).await?.items;
            ensure!(list.len() == 2, "{} pods", list.len());
            for pod in list {
                let class = "alibabacloud.com/compute-class";
                ensure!(
                    pod.metadata.labels.is_none_or(|l| !l.contains_key(class)),
                    "the namespace says ECI"
                );
                let node = pod.spec.and_then(|spec| spec.node_name);
                ensure!(node == Some(s.node(0)), "it is on {node:?}");
            }
            Ok(())
        })
        .await?;
        let golden = json!([
            toleration(),
            node_selector(json!({"type": "virtual-kubelet"})),
            {"op": "add", "path": "/metadata/annotations",
             "value": {"virtualnodes.dev/placed-by": "placement/namespace alibabacloud.com/eci=true"}},
        ]);
        let patched = patches_of_deployment(s, &labelled, "web")?;
        ensure!(patched == [golden.clone(), golden], "{}", json!(patched));
        ensure!(requests(&operator).await? == before + 2, "one call for each pod");

        // Another default changes no pod that is there.
        let old = ["unmatched", "labelled", "matched", "both"];
        let mut before = Vec::new();
        for name in old {
            node_of(s, own, name).await?;
            before.push(stays(s, name).await?);
        }
        wanted["spec"]["computeDefaults"] = json!({"class": "general-purpose"});
        s.apply(&wanted).await?;
        let counted = async |what: &str, pods: usize, outdated: usize| {
            eventually(what, Duration::from_secs(90), async || {
                let status = get_pool(s).await?["status"].take();
                let counts = (&status["pods"], &status["podsOutdated"]);
                ensure!(counts == (&json!(pods), &json!(outdated)), "{status}");
                Ok(())
            })
            .await
        };
        counted("both pods of the rule are outdated", 5, 2).await?;
        for (name, before) in old.into_iter().zip(before) {
            let now = stays(s, name).await?;
            ensure!(now == before, "{name} was {before}, and is {now}");
        }

        // A new pod gets the new default, and counts among the pods but not among those that are outdated.
        let later = create(s, own, pod("later", ("app", "report"))).await?;
        let labels = json!(later.metadata.labels);
        let expected = json!({"app": "report", "team": "batch", "alibabacloud.com/acs": "true",
                              "alibabacloud.com/compute-class": "general-purpose"});
        ensure!(labels == expected, "{labels}");
        ensure!(node_of(s, own, "later").await? == s.node(0));
        // Numbers alone are written once a minute; what else there is to say takes the newest with it.
        s.kubectl(&format!("delete pod matched --namespace {own}")).await?;
        let rules = wanted["spec"]["placement"]["rules"].as_array_mut();
        rules.context("no rules")?.truncate(1);
        s.apply(&wanted).await?;
        counted("of two outdated pods one is left, and the new one is none", 5, 1).await?;
        s.kubectl(&format!("delete namespace {labelled} --wait=false"))
            .await?;
        Ok(())
    })
    .await
}

/// The stored pod says what its page means, and is where that brings it.
async fn form_ended(s: &Scenario<'_>, namespace: &str, end: End, stored: &Pod) -> Result<()> {
    let labels = stored.metadata.labels.clone().unwrap_or_default();
    let says = ["compute-class", "compute-qos", "gpu-model-series"]
        .map(|key| labels.get(&format!("alibabacloud.com/{key}")).map(String::as_str));
    let wanted = match end {
        End::Acs(class, qos, series) => [Some(class), Some(qos), series],
        End::Eci | End::Waits | End::Scheduler(_) => [None; 3],
    };
    ensure!(says == wanted, "class, QoS and series {says:?}");
    let annotations = stored.metadata.annotations.clone().unwrap_or_default();
    let placed = annotations.get("virtualnodes.dev/placed-by");
    match end {
        End::Eci | End::Acs(..) => {
            let node = node_of(s, namespace, "form").await?;
            ensure!(node == s.node(0), "it is on {node}");
        }
        End::Waits => {
            ensure!(placed.is_none(), "placed by {placed:?}");
            unschedulable(s, namespace, "form").await?;
        }
        End::Scheduler(name) => {
            ensure!(placed.is_none(), "placed by {placed:?}");
            let scheduler = stored
                .spec
                .as_ref()
                .and_then(|spec| spec.scheduler_name.as_deref());
            ensure!(scheduler == Some(name), "it is of {scheduler:?}");
        }
    }
    Ok(())
}

/// The scheduler finds no node for a pod, because it asks for GPUs.
async fn unschedulable(s: &Scenario<'_>, namespace: &str, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(s.client(), namespace);
    eventually(&format!("pod {namespace}/{name} waits"), SOON, async || {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled");
        let said = scheduled.context("the scheduler has not looked at it")?;
        let message = said.message.as_deref().unwrap_or_default();
        ensure!(
            said.reason.as_deref() == Some("Unschedulable")
                && message.contains("Insufficient nvidia.com/gpu")
                && message.contains("untolerated taint"),
            "{}",
            json!(said)
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_forms_end_where_their_pages_say() -> Result<()> {
    Scenario::run("forms", async |s| {
        let _operator = start(s, &pool(s, 1), 1).await?;
        for form in forms() {
            let namespace = namespace(s, form.name, form.namespace).await?;
            let manifest: Value = serde_saphyr::from_str(form.page)?;
            let mut pod = match manifest.pointer("/spec/template") {
                Some(template) => json!({"metadata": template["metadata"], "spec": template["spec"]}),
                None => manifest,
            };
            pod["metadata"]["name"] = json!("form");
            if let Some((key, value)) = form.label {
                pod["metadata"]["labels"][key] = json!(value);
            }
            let stored = create(s, &namespace, pod.clone())
                .await
                .with_context(|| format!("{}: {pod}", form.name))?;
            form_ended(s, &namespace, form.end, &stored)
                .await
                .with_context(|| format!("{}: {}", form.name, json!(stored)))?;
            s.kubectl(&format!("delete namespace {namespace} --wait=false"))
                .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_rule_go_to_the_nodes_of_its_pool() -> Result<()> {
    Scenario::run("two-pools", async |s| {
        let ruled = |name: &str, provider: String, app: &str| {
            let mut pool = manifests::pool(name, &provider, 1);
            pool["spec"]["placement"] = json!({"rules": [{
                "name": "own", "mode": "Require", "podSelector": {"matchLabels": {"app": app}},
            }]});
            pool
        };
        let first = ruled(s.name(), s.provider(), "first");
        let _operator = start(s, &first, 1).await?;
        let (name, provider) = (format!("{}-b", s.name()), format!("{}-b", s.provider()));
        s.apply(&ruled(&name, provider.clone(), "second")).await?;
        let node = format!("{provider}-0");
        let label = async || -> Result<Value> {
            let node = get(s, &format!("node {node}")).await?;
            Ok(node["metadata"]["labels"]["virtualnodes.dev/pool"].clone())
        };
        let labelled = async || {
            eventually("the second pool's node has its label", SOON, async || {
                let label = label().await?;
                ensure!(label == name.as_str(), "{label}");
                Ok(())
            })
            .await
        };
        labelled().await?;
        // A Node that registers again comes without the label.
        s.kubectl(&format!("delete node {node}")).await?;
        labelled().await?;

        let own = s.namespace();
        for (app, expected) in [("first", s.node(0)), ("second", node.clone())] {
            create_until_placed(s, own, app).await?;
            let on = node_of(s, own, app).await?;
            ensure!(on == expected, "{app} runs on {on}");
        }
        Ok(())
    })
    .await
}

/// The configuration follows a new pool within a moment: asked by dry runs.
async fn create_until_placed(s: &Scenario<'_>, namespace: &str, app: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(s.client(), namespace);
    let pod: Pod = serde_json::from_value(pod(app, ("app", app)))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually(&format!("pods of {app} are placed"), SOON, async || {
        let stored = pods.create(&dry_run, &pod).await?;
        let selector = stored
            .spec
            .and_then(|spec| spec.node_selector)
            .unwrap_or_default();
        ensure!(selector.contains_key("virtualnodes.dev/pool"), "{selector:?}");
        Ok(())
    })
    .await?;
    pods.create(&PostParams::default(), &pod).await?;
    Ok(())
}
