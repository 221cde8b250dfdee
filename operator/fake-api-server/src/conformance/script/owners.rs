//! Nodes, applies, workloads and pools: who owns which fields.

use serde_json::{Value, json};

use super::{MAPS, NODES, POOLS, SETS, STRANGER, map, uid, version};
use crate::conformance::Recorder;

pub(super) async fn nodes(s: &mut Recorder) {
    let node = s
        .post(NODES, json!({"metadata": {"name": "v-0", "labels": {"a": "b"}}}))
        .await;
    let at = format!("{NODES}/v-0");
    let apply = |uid: &str, spec: Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "v-0", "uid": uid}});
        if !spec.is_null() {
            body["spec"] = spec;
        }
        body
    };
    const CORDON: &str = "force=true&fieldManager=cordon&fieldValidation=Strict";
    let cordon = json!({"unschedulable": true});
    s.apply(&at, CORDON, apply(uid(&node), cordon.clone())).await;
    s.apply(&at, CORDON, apply(uid(&node), cordon.clone())).await;
    s.apply(&at, CORDON, apply(STRANGER, cordon.clone())).await;
    s.apply(&at, CORDON, apply(uid(&node), Value::Null)).await;
    s.strategic(&at, json!({"spec": {"unschedulable": true}})).await;
    s.apply(&at, CORDON, apply(uid(&node), cordon.clone())).await;
    s.apply(&at, CORDON, apply(uid(&node), Value::Null)).await;
    s.strategic(&at, json!({"spec": {"unschedulable": null}})).await;
    let label = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "v-0", "uid": uid(&node), "labels": {"pool": "burst"}}});
    s.apply(&at, "force=true&fieldManager=labels", label).await;
    s.apply(
        &at,
        "force=true&fieldManager=labels",
        apply(uid(&node), Value::Null),
    )
    .await;
    let beat = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}});
    s.strategic(&format!("{at}/status"), beat).await;
    s.strategic(&format!("{at}/status"), json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}, "spec": {"unschedulable": true}})).await;
    s.merge(&at, json!({"status": {"conditions": null}})).await;
    s.delete(&at, json!({"preconditions": {"uid": STRANGER}})).await;
    s.delete(&at, json!({"preconditions": {"uid": uid(&node)}})).await;
    s.apply(&at, CORDON, apply(uid(&node), cordon)).await;
}

pub(super) async fn applies(s: &mut Recorder) {
    let at = format!("{MAPS}/profile");
    let body = |data: Value| map("profile", data);
    s.apply(
        &at,
        "fieldManager=one&fieldValidation=Strict",
        body(json!({"a": "1", "b": "1"})),
    )
    .await;
    s.apply(
        &at,
        "fieldManager=two&fieldValidation=Strict",
        body(json!({"a": "1"})),
    )
    .await;
    s.apply(&at, "fieldManager=two", body(json!({"a": "2"}))).await;
    s.apply(&at, "fieldManager=two", body(json!({"a": "2", "b": "2"})))
        .await;
    s.apply(&at, "fieldManager=two&force=true", body(json!({"a": "2"})))
        .await;
    s.apply(&at, "fieldManager=one", body(json!({"b": "1"}))).await;
    s.merge(&at, json!({"data": {"b": "3"}})).await;
    s.apply(&at, "fieldManager=one", body(json!({"b": "1"}))).await;
    s.apply(&at, "fieldManager=one&force=true", body(json!({}))).await;
    s.apply(&at, "fieldManager=two", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "profile", "resourceVersion": "1"}})).await;
    s.apply(&at, "force=true", body(json!({}))).await;
    s.apply(
        &at,
        "fieldManager=two&fieldValidation=Strict",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "profile"}, "datum": {}}),
    )
    .await;
    s.apply(&format!("{MAPS}/absent"), "fieldManager=two", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent", "resourceVersion": "1"}})).await;
}

fn stateful_set(extra: Value) -> Value {
    let mut body = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "virtual-node-eci"},
        "spec": {
            "replicas": 0, "serviceName": "", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "v"}},
            "template": {
                "metadata": {"labels": {"app": "v"}},
                "spec": {
                    "serviceAccountName": "virtual-node-eci",
                    "containers": [{
                        "name": "provider", "image": "registry.example/v:1",
                        "env": [{"name": "A", "value": "1"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                        "readinessProbe": {"httpGet": {"port": 10250, "path": "/healthz"}},
                        "ports": [{"containerPort": 10250}],
                    }],
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s"}}],
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    });
    json_patch::merge(&mut body, &extra);
    body
}

pub(super) async fn workloads(s: &mut Recorder) {
    let made = s.post(SETS, stateful_set(json!({}))).await;
    let at = format!("{SETS}/virtual-node-eci");
    const OURS: &str = "force=true&fieldManager=operator&fieldValidation=Strict";
    s.apply(
        &at,
        OURS,
        stateful_set(json!({"metadata": {"uid": uid(&made)}, "spec": {"minReadySeconds": 3}})),
    )
    .await;
    s.apply(
        &at,
        OURS,
        stateful_set(json!({"metadata": {"uid": uid(&made)}, "spec": {"minReadySeconds": 3}})),
    )
    .await;
    s.apply(&at, OURS, stateful_set(json!({"metadata": {"uid": uid(&made)}})))
        .await;
    s.apply(&at, OURS, stateful_set(json!({"spec": {"minReadySecond": 3}})))
        .await;
    let scale = |from: i64, to: i64| {
        json!([
            {"op": "test", "path": "/metadata/uid", "value": uid(&made)},
            {"op": "test", "path": "/spec/replicas", "value": from},
            {"op": "replace", "path": "/spec/replicas", "value": to},
        ])
    };
    s.json_patch(&at, scale(0, 2)).await;
    s.json_patch(&at, scale(0, 3)).await;
    s.json_patch(
        &at,
        json!([{"op": "replace", "path": "/spec/serviceName", "value": "other"}]),
    )
    .await;
    s.json_patch(&at, json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "registry.example/v:2"}])).await;
    s.strategic(&at, json!({"spec": {"template": {"spec": {"containers": [{"name": "provider", "env": [{"name": "B", "value": "2"}]}]}}}})).await;
    s.merge(
        &at,
        json!({"spec": {"replicas": null, "updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}),
    )
    .await;
    s.merge(
        &format!("{at}/status"),
        json!({"status": {"observedGeneration": 4, "replicas": 1}, "spec": {"replicas": 9}}),
    )
    .await;
    s.merge(
        &at,
        json!({"metadata": {"annotations": {"a": "b"}}, "status": {"replicas": 7}}),
    )
    .await;
    s.delete(&at, json!({"preconditions": {"uid": STRANGER}})).await;
    s.delete(
        &at,
        json!({"propagationPolicy": "Background", "preconditions": {"uid": uid(&made)}}),
    )
    .await;
    s.apply(&at, OURS, stateful_set(json!({"metadata": {"uid": uid(&made)}})))
        .await;
    s.apply(&at, OURS, stateful_set(json!({}))).await;
    s.delete(&at, json!({"propagationPolicy": "Orphan"})).await;
}

pub(super) async fn pools(s: &mut Recorder, pool: &Value) {
    let at = format!("{POOLS}/burst");
    let made = s.post(POOLS, pool.clone()).await;
    s.put(&at, pool.clone()).await;
    let finalizer = |version: &str| {
        json!([
            {"op": "test", "path": "/metadata/uid", "value": uid(&made)},
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/metadata/finalizers", "value": ["virtualnodes.dev/drain"]},
        ])
    };
    s.json_patch(&at, finalizer("1")).await;
    let held = s.json_patch(&at, finalizer(version(&made))).await;
    let status = |version: &str, status: Value| {
        json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": "burst", "resourceVersion": version}, "status": status,
        })
    };
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    const OURS: &str = "force=true&fieldManager=operator&fieldValidation=Strict";
    let told = format!("{at}/status");
    let first = json!({"observedGeneration": 1, "nodes": 2, "conditions": [condition("Ready", "False"), condition("Draining", "True")]});
    s.apply(&told, OURS, status("1", first.clone())).await;
    let after = s.apply(&told, OURS, status(version(&held), first)).await;
    let foreign = json!({"status": {"conditions": [condition("Theirs", "True")]}});
    s.call("PATCH", &format!("{told}?fieldManager=other&force=true"), "application/apply-patch+yaml", json!({
        "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool", "metadata": {"name": "burst"}, "status": foreign["status"],
    })).await;
    s.apply(&told, OURS, status(version(&after), json!({"nodes": 3})))
        .await;
    let now = s.get(&at).await;
    s.apply(
        &told,
        OURS,
        status(
            version(&now),
            json!({"observedGeneration": 1, "conditions": [condition("Ready", "True")]}),
        ),
    )
    .await;
    let now = s.get(&at).await;
    s.apply(
        &told,
        OURS,
        status(version(&now), json!({"observedGeneration": 1, "odd": 1})),
    )
    .await;
    s.merge(&at, json!({"spec": {"replicas": 3}, "status": {"nodes": 9}}))
        .await;
    s.merge(&at, json!({"spec": {"replicas": 3}})).await;
    s.merge(&at, json!({"spec": {"odd": 3}})).await;
    s.merge(
        &told,
        json!({"status": {"nodes": 5}, "metadata": {"labels": {"by": "status"}}, "spec": {"replicas": 1}}),
    )
    .await;
    s.merge(
        &told,
        json!({"metadata": {"uid": STRANGER}, "status": {"nodes": 6}}),
    )
    .await;
    s.strategic(&at, json!({"spec": {"replicas": 4}})).await;
    s.delete(&at, json!({})).await;
    let going = s.get(&at).await;
    s.json_patch(&at, json!([{"op": "test", "path": "/metadata/resourceVersion", "value": version(&going)}, {"op": "remove", "path": "/metadata/finalizers/0"}])).await;
    s.get(&at).await;
    s.apply(&told, OURS, status("1", json!({"nodes": 3}))).await;
    s.merge(&told, json!({"status": {"nodes": 3}})).await;
}
