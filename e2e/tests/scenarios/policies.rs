//! `spec.scheduling.resourcePolicies` against the CRDs of two schedulers, which come, change and go.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{condition, fill, get, get_pool, pool, ready};

const OLDER: &str = include_str!("schedulers/older.yaml");
const NEWER: &str = include_str!("schedulers/newer.yaml");
const CRD: &str = "customresourcedefinition resourcepolicies.scheduling.alibabacloud.com";
const SOON: Duration = Duration::from_secs(10);

/// Two policies: one of the scenario's namespace, one of all namespaces with label `team: <scenario>`.
fn with_policies(s: &Scenario<'_>) -> Value {
    let mut pool = pool(s, 1);
    pool["spec"]["scheduling"] = json!({ "resourcePolicies": [
        {
            "name": "web", "namespaces": [s.namespace()], "selector": {"app": "nginx"},
            "units": [{"resource": "ecs", "max": 2, "maxResources": {"cpu": "8"}}, {"resource": "eci"}],
            "preemptPolicy": "BeforeNextUnit",
            "whenTryNextUnits": {"policy": "LackResourceAndNoTerminating"},
        },
        {"name": "batch", "namespaceSelector": {"matchLabels": {"team": s.name()}}},
    ] });
    pool
}

/// Runs a body and removes the CRD, which would outlive the scenario.
async fn with_scheduler(name: &str, body: impl AsyncFnOnce(&Scenario<'_>) -> Result<()>) -> Result<()> {
    Scenario::run(name, async |s| {
        let result = body(s).await;
        s.kubectl(&format!("delete {CRD} --ignore-not-found")).await?;
        result
    })
    .await
}

async fn scheduling_ready(s: &Scenario<'_>, status: &str, reason: &str) -> Result<String> {
    eventually(
        &format!("SchedulingReady is {status} {reason}"),
        SOON,
        async || {
            let pool = get_pool(s).await?;
            let said = condition(&pool, "SchedulingReady").context("no condition SchedulingReady")?;
            ensure!(said["status"] == status && said["reason"] == reason, "{said}");
            Ok(said["message"].to_string())
        },
    )
    .await
}

/// A policy of the pool in a namespace.
async fn policy(s: &Scenario<'_>, namespace: &str, policy: &str) -> Result<Value> {
    get(
        s,
        &format!("resourcepolicy {}.{policy} --namespace {namespace}", s.name()),
    )
    .await
}

async fn spec_becomes(s: &Scenario<'_>, namespace: &str, name: &str, spec: Value) -> Result<()> {
    eventually(&format!("policy {name} says what it should"), SOON, async || {
        let there = policy(s, namespace, name).await?;
        ensure!(there["spec"] == spec, "it says {}", there["spec"]);
        Ok(())
    })
    .await
}

async fn is_gone(s: &Scenario<'_>, namespace: &str, name: &str) -> Result<()> {
    eventually(
        &format!("policy {name} is gone from {namespace}"),
        SOON,
        async || {
            let list = get(s, &format!("resourcepolicies --namespace {namespace}")).await?;
            let name = format!("{}.{name}", s.name());
            let items = list["items"].as_array().cloned().unwrap_or_default();
            ensure!(items.iter().all(|p| p["metadata"]["name"] != name), "{list}");
            Ok(())
        },
    )
    .await
}

/// Writes of the operator to ResourcePolicies since the scenario began, as verb and `namespace/name`.
fn writes(s: &Scenario<'_>) -> Result<Vec<String>> {
    let writes = s.audit_log().writes_by(OPERATOR, s.began())?;
    let policies = writes.iter().filter(|w| w.resource == "resourcepolicies");
    Ok(policies.map(|w| format!("{} {}", w.verb, w.object())).collect())
}

/// What the older CRD takes of policy `web`, without and with what the newer one adds.
fn web(newer: bool) -> Value {
    let mut spec = json!({
        "selector": {"app": "nginx"}, "strategy": "prefer",
        "units": [{"resource": "ecs", "max": 2}, {"resource": "eci"}],
    });
    if newer {
        spec["preemptPolicy"] = json!("BeforeNextUnit");
        spec["ignoreTerminatingPod"] = json!(true);
        spec["whenTryNextUnits"] = json!({"policy": "LackResourceAndNoterminating"});
        spec["units"] = json!([
            {"resource": "ecs", "max": 2, "maxResources": {"cpu": "8"}, "spotInstance": false},
            {"resource": "eci", "spotInstance": false},
        ]);
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_those_that_the_installed_scheduler_takes() -> Result<()> {
    with_scheduler("scheduler", async |s| {
        s.kubectl(&format!("delete {CRD} --ignore-not-found")).await?;
        let mut operator = s.spawn_operator(&OperatorOptions::default()).await?;
        s.apply(&with_policies(s)).await?;
        // No CRD: said, and nothing else waits for it.
        s.nodes_ready(1, Duration::from_secs(60)).await?;
        let message = scheduling_ready(s, "False", "CRDMissing").await?;
        ensure!(message.contains("ack-co-scheduler"), "{message}");
        let metrics = operator.metrics().await?;
        ensure!(
            !metrics.contains(r#"watch_errors_total{kind="ResourcePolicy"}"#),
            "a kind that does not exist is watched: {metrics}"
        );

        // It arrives, and does not know everything.
        s.apply_text(OLDER.to_owned()).await?;
        spec_becomes(s, s.namespace(), "web", web(false)).await?;
        let message = scheduling_ready(s, "True", "Synced").await?;
        for left_out in ["preemptPolicy", "whenTryNextUnits", "units[0].maxResources"] {
            ensure!(message.contains(left_out), "{left_out} is not named: {message}");
        }
        let there = policy(s, s.namespace(), "web").await?;
        let owner = &there["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "VirtualNodePool" && owner["name"] == s.name(), "{owner}");
        ready(s, SOON).await?;

        // It is upgraded; words take its spelling, its defaults are no reason to write again.
        s.apply_text(NEWER.to_owned()).await?;
        spec_becomes(s, s.namespace(), "web", web(true)).await?;
        let message = scheduling_ready(s, "True", "Synced").await?;
        ensure!(!message.contains("left out"), "{message}");

        // What somebody changes or removes comes back.
        let name = format!("{}.web --namespace {}", s.name(), s.namespace());
        s.kubectl(&format!(
            r#"patch resourcepolicy {name} --type merge --patch {{"spec":{{"units":[{{"resource":"idc"}}]}}}}"#
        ))
        .await?;
        spec_becomes(s, s.namespace(), "web", web(true)).await?;
        s.kubectl(&format!("delete resourcepolicy {name}")).await?;
        spec_becomes(s, s.namespace(), "web", web(true)).await?;

        // In place, it is written no more.
        ready(s, SOON).await?;
        let before = writes(s)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = writes(s)?;
        ensure!(before == after, "nothing changed, and it wrote {:?}", &after[before.len()..]);

        // It is uninstalled.
        s.kubectl(&format!("delete {CRD}")).await?;
        scheduling_ready(s, "False", "CRDMissing").await?;
        // A clean end hands the lease to the next scenario.
        operator.terminate().await?;
        Ok(())
    })
    .await
}

/// The ResourcePolicies of the vendor's pages, in the pages' own YAML: shared with the tests of the plan.
const PAGES: [&str; 2] = [
    include_str!("../../../operator/plan/src/scheduling/tests/pages/idc-then-eci.yaml"),
    include_str!("../../../operator/plan/src/scheduling/tests/pages/acs-gpu.yaml"),
];

/// Applies a page by hand. Returns the spec that the API server made of it, and the pool's policy with the page's words.
async fn page(s: &Scenario<'_>, text: &str) -> Result<(Value, Value)> {
    let mut page: Value = serde_saphyr::from_str(text)?;
    page["metadata"]["namespace"] = json!(s.namespace());
    s.apply(&page).await?;
    let name = page["metadata"]["name"].as_str().context("no name")?;
    let by_hand = get(s, &format!("resourcepolicy {name} --namespace {}", s.namespace())).await?;
    let mut policy = page["spec"].clone();
    policy["name"] = json!(name);
    policy["namespaces"] = json!([s.namespace()]);
    Ok((by_hand["spec"].clone(), policy))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_says_what_the_vendors_pages_say() -> Result<()> {
    with_scheduler("pages", async |s| {
        s.apply_text(NEWER.to_owned()).await?;
        s.kubectl(&format!("wait --for=condition=Established {CRD} --timeout=20s"))
            .await?;
        let (idc, by_idc) = page(s, PAGES[0]).await?;
        let (gpu, by_gpu) = page(s, PAGES[1]).await?;
        ensure!(
            idc["units"][0]["resource"] == "idc" && idc["units"][0]["max"] == 3,
            "{idc}"
        );
        let labels = &gpu["units"][0]["podLabels"];
        ensure!(
            labels["alibabacloud.com/gpu-model-series"] == "example-model",
            "{gpu}"
        );

        s.start_operator(&OperatorOptions::default()).await?;
        let mut wanted = pool(s, 1);
        wanted["spec"]["scheduling"] = json!({"resourcePolicies": [by_idc, by_gpu]});
        s.apply(&wanted).await?;
        ready(s, Duration::from_secs(60)).await?;
        let message = scheduling_ready(s, "True", "Synced").await?;
        ensure!(!message.contains("left out"), "{message}");
        spec_becomes(s, s.namespace(), "cost-balance-policy", idc).await?;
        spec_becomes(s, s.namespace(), "dep-rp-demo", gpu.clone()).await?;

        // What the page writes into its unit, the pool's compute defaults say as well.
        wanted["spec"]["scheduling"] = json!({"resourcePolicies": [{
            "name": "short", "namespaces": [s.namespace()], "selector": by_gpu["selector"],
            "units": [{"resource": "acs"}],
        }]});
        wanted["spec"]["computeDefaults"] =
            json!({"class": "gpu", "qos": "default", "gpuModelSeries": "example-model"});
        s.apply(&wanted).await?;
        spec_becomes(s, s.namespace(), "short", gpu.clone()).await?;
        is_gone(s, s.namespace(), "dep-rp-demo").await?;
        // Those made by hand have other names, and are nobody's but the user's.
        let name = format!("dep-rp-demo --namespace {}", s.namespace());
        let by_hand = get(s, &format!("resourcepolicy {name}")).await?;
        ensure!(by_hand["spec"] == gpu, "{by_hand}");
        ready(s, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_follow_namespaces_and_leave_what_is_not_theirs() -> Result<()> {
    with_scheduler("policies", async |s| {
        s.apply_text(NEWER.to_owned()).await?;
        s.start_operator(&OperatorOptions::default()).await?;
        s.apply(&with_policies(s)).await?;
        ready(s, Duration::from_secs(60)).await?;
        scheduling_ready(s, "True", "Synced").await?;

        // A namespace that comes with an object of the name that the pool's would have.
        let (team, other) = (format!("{}-team", s.name()), format!("{}-other", s.name()));
        let foreign = json!({
            "apiVersion": "scheduling.alibabacloud.com/v1alpha1", "kind": "ResourcePolicy",
            "metadata": {"name": format!("{}.batch", s.name()), "namespace": team},
            "spec": {"units": [{"resource": "elastic"}]},
        });
        s.apply(&manifests::namespace(&team)).await?;
        s.apply(&foreign).await?;
        let theirs = policy(s, &team, "batch").await?;
        s.kubectl(&format!("label namespace {team} team={}", s.name()))
            .await?;
        let message = scheduling_ready(s, "False", "Conflict").await?;
        ensure!(
            message.contains(&format!("{team}/{}.batch", s.name())),
            "{message}"
        );
        let still = policy(s, &team, "batch").await?;
        ensure!(
            still["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"],
            "it was touched: {still}"
        );
        s.kubectl(&format!(
            "delete resourcepolicy {}.batch --namespace {team}",
            s.name()
        ))
        .await?;
        scheduling_ready(s, "True", "Synced").await?;
        let ours = policy(s, &team, "batch").await?;
        ensure!(ours["spec"]["units"][0]["resource"] == "ecs", "{ours}");

        // One that comes with the label, loses it, gets it again and goes.
        s.kubectl(&format!("create namespace {other}")).await?;
        let gets_it = async || {
            s.kubectl(&format!("label namespace {other} team={}", s.name()))
                .await?;
            let there = async || policy(s, &other, "batch").await.map(drop);
            eventually("the namespace has its policy", SOON, there).await
        };
        for _ in 0..2 {
            gets_it().await?;
            s.kubectl(&format!("label namespace {other} team-")).await?;
            is_gone(s, &other, "batch").await?;
        }
        // What is under way when the deletion comes may be refused; what comes later may not be tried.
        gets_it().await?;
        s.kubectl(&format!("delete namespace {other} --timeout=30s"))
            .await?;
        let refused = s.audit_log().writes_by(OPERATOR, s.began())?;
        let refused: Vec<_> = refused
            .iter()
            .filter(|w| w.resource == "resourcepolicies" && w.code == 403)
            .collect();
        ensure!(
            refused.is_empty(),
            "a terminating namespace was written to: {refused:?}"
        );

        // A policy that is taken out of the pool.
        let mut fewer = with_policies(s);
        fewer["spec"]["scheduling"]["resourcePolicies"][1] =
            fewer["spec"]["scheduling"]["resourcePolicies"][0].take();
        fewer["spec"]["scheduling"]["resourcePolicies"]
            .as_array_mut()
            .context("no list")?
            .remove(0);
        s.apply(&fewer).await?;
        is_gone(s, &team, "batch").await?;
        policy(s, s.namespace(), "web").await?;
        s.kubectl(&format!("delete namespace {team} --wait=false"))
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_go_before_the_first_pod_is_evicted() -> Result<()> {
    with_scheduler("policies-first", async |s| {
        s.apply_text(NEWER.to_owned()).await?;
        s.start_operator(&OperatorOptions::default()).await?;
        s.apply(&with_policies(s)).await?;
        ready(s, Duration::from_secs(60)).await?;
        scheduling_ready(s, "True", "Synced").await?;
        fill(s, 0, 1, "web", 20).await?;
        // A finalizer of somebody else: the object stays, and the drain does not wait for that.
        let name = format!("{}.web --namespace {}", s.name(), s.namespace());
        s.kubectl(&format!(
            r#"patch resourcepolicy {name} --type merge --patch {{"metadata":{{"finalizers":["example.com/hold"]}}}}"#
        ))
        .await?;
        s.kubectl(&format!("delete virtualnodepool {} --wait=false", s.name()))
            .await?;
        eventually("the pool is gone", Duration::from_secs(120), async || {
            ensure!(get_pool(s).await.is_err(), "it is still there");
            Ok(())
        })
        .await?;
        let left = policy(s, s.namespace(), "web").await?;
        ensure!(!left["metadata"]["deletionTimestamp"].is_null(), "{left}");
        s.kubectl(&format!(
            r#"patch resourcepolicy {name} --type merge --patch {{"metadata":{{"finalizers":null}}}}"#
        ))
        .await?;
        let writes = s.audit_log().writes_by(OPERATOR, s.began())?;
        let first = |what: &str, verb: &str| {
            writes
                .iter()
                .find(|w| w.resource == what && w.verb == verb)
                .map(|w| w.received)
        };
        let Some((policy, eviction)) = first("resourcepolicies", "delete").zip(
            writes
                .iter()
                .find(|w| w.subresource.as_deref() == Some("eviction"))
                .map(|w| w.received),
        ) else {
            bail!("no policy was deleted, or no pod was evicted: {writes:?}");
        };
        ensure!(policy < eviction, "evicted at {eviction}, the policy deleted at {policy}");
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}
