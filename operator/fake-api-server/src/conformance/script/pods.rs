//! Pods: their deletion and their eviction under budgets.

use serde_json::{Value, json};

use super::{BUDGETS, PODS, STRANGER, uid};
use crate::conformance::Recorder;

fn pod(name: &str, node: &str) -> Value {
    let mut body = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/i:1"}], "tolerations": [{"operator": "Exists"}]},
    });
    if !node.is_empty() {
        body["spec"]["nodeName"] = json!(node);
    }
    body
}

pub(super) async fn pods(s: &mut Recorder) {
    s.post(PODS, pod("loose", "")).await;
    s.delete(&format!("{PODS}/loose"), json!({})).await;
    s.post(
        PODS,
        json!({"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let bound = s.post(PODS, pod("bound", "v-0")).await;
    let at = format!("{PODS}/bound");
    s.merge(&format!("{at}/status"), json!({"status": {"phase": "Running"}}))
        .await;
    let owners = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": STRANGER, "controller": true},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": "22222222-2222-4222-8222-222222222222"},
    ]}});
    s.merge(&at, owners).await;
    let orphan = |uid: &str| json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": STRANGER}]}});
    s.strategic(&at, orphan("33333333-3333-4333-8333-333333333333"))
        .await;
    s.strategic(&at, orphan(uid(&bound))).await;
    s.delete(
        &at,
        json!({"propagationPolicy": "Background", "preconditions": {"uid": uid(&bound)}}),
    )
    .await;
    s.delete(&at, json!({})).await;
    s.delete(&at, json!({"gracePeriodSeconds": 5})).await;
    s.delete(&at, json!({"gracePeriodSeconds": 60})).await;
    s.merge(&at, json!({"metadata": {"finalizers": ["example.com/held"]}}))
        .await;
    s.delete(
        &at,
        json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid(&bound)}}),
    )
    .await;
    s.get(&at).await;
    s.merge(&at, json!({"metadata": {"finalizers": null}})).await;
    s.get(&at).await;
    let held = pod("held", "v-0");
    s.post(PODS, held).await;
    s.merge(
        &format!("{PODS}/held"),
        json!({"metadata": {"finalizers": ["example.com/held"]}}),
    )
    .await;
    s.delete(&format!("{PODS}/held"), json!({})).await;
    s.merge(&format!("{PODS}/held"), json!({"metadata": {"finalizers": null}}))
        .await;
    s.get(&format!("{PODS}/held")).await;
    s.delete(&format!("{PODS}/held"), json!({"gracePeriodSeconds": 0}))
        .await;
    s.post(PODS, pod("done", "v-0")).await;
    s.merge(
        &format!("{PODS}/done/status"),
        json!({"status": {"phase": "Succeeded"}}),
    )
    .await;
    s.delete(&format!("{PODS}/done"), json!({})).await;
}

pub(super) async fn evict(s: &mut Recorder, name: &str, uid: &str) {
    let mut body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "script"}});
    if !uid.is_empty() {
        body["deleteOptions"] = json!({"preconditions": {"uid": uid}});
    }
    s.post(&format!("{PODS}/{name}/eviction"), body).await;
    s.get(&format!("{PODS}/{name}")).await;
}

pub(super) async fn running(s: &mut Recorder, name: &str, ready: &str) -> Value {
    s.post(PODS, pod(name, "v-0")).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    s.merge(&format!("{PODS}/{name}/status"), status).await
}

pub(super) async fn evictions(s: &mut Recorder) {
    evict(s, "nobody", "").await;
    let web = running(s, "web", "True").await;
    let spec = |app: &str| json!({"minAvailable": 1, "selector": {"matchLabels": {"app": app}}});
    s.post(
        BUDGETS,
        json!({"metadata": {"name": "keep"}, "spec": spec("web")}),
    )
    .await;
    evict(s, "web", uid(&web)).await;
    let keep = format!("{BUDGETS}/keep");
    let told = format!("{keep}/status");
    let counts = |allowed: i64| {
        json!({"status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1 + allowed, "desiredHealthy": 1, "expectedPods": 1,
        }})
    };
    s.merge(&told, counts(0)).await;
    evict(s, "web", uid(&web)).await;
    s.merge(&told, counts(-1)).await;
    s.merge(&told, counts(2)).await;
    evict(s, "web", STRANGER).await;
    s.get(&keep).await;
    s.merge(&told, counts(1)).await;
    s.post(
        BUDGETS,
        json!({"metadata": {"name": "other"}, "spec": spec("web")}),
    )
    .await;
    evict(s, "web", uid(&web)).await;
    s.delete(&format!("{BUDGETS}/other"), json!({})).await;
    evict(s, "web", uid(&web)).await;
    s.get(&keep).await;
    evict(s, "web", uid(&web)).await;
    s.delete(&format!("{PODS}/web"), json!({"gracePeriodSeconds": 0}))
        .await;
    s.put(&keep, json!({"metadata": {"name": "keep"}, "spec": spec("web")}))
        .await;

    s.merge(
        &keep,
        json!({"spec": {"selector": {"matchLabels": {"app": "sick"}}}}),
    )
    .await;
    let sick = running(s, "sick", "False").await;
    evict(s, "sick", uid(&sick)).await;
    s.merge(
        &told,
        json!({"status": {"observedGeneration": 2, "currentHealthy": 0, "disruptionsAllowed": 0}}),
    )
    .await;
    evict(s, "sick", uid(&sick)).await;
    s.merge(
        &keep,
        json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}),
    )
    .await;
    evict(s, "sick", uid(&sick)).await;

    for phase in ["Pending", "Failed"] {
        s.merge(
            &keep,
            json!({"spec": {"selector": {"matchLabels": {"app": "idle"}}}}),
        )
        .await;
        let idle = s.post(PODS, pod("idle", "v-0")).await;
        s.merge(
            &format!("{PODS}/idle/status"),
            json!({"status": {"phase": phase}}),
        )
        .await;
        evict(s, "idle", STRANGER).await;
        evict(s, "idle", uid(&idle)).await;
        s.delete(&format!("{PODS}/idle"), json!({"gracePeriodSeconds": 0}))
            .await;
    }
    running(s, "free", "True").await;
    let elsewhere = json!({"metadata": {"name": "another", "namespace": "script"}});
    s.post(&format!("{PODS}/free/eviction"), elsewhere).await;
    evict(s, "free", "").await;
}
