//! Lists, watches, Events, Leases, and the end of a namespace.

use serde_json::json;

use super::pods::{evict, running};
use super::{LEASES, MAPS, PODS, POOLS, SECRETS, map, uid};
use crate::conformance::Recorder;

pub(super) async fn lists_and_watches(s: &mut Recorder) {
    s.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dv-0")).await;
    s.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dnone")).await;
    s.get("/api/v1/pods?labelSelector=app%20in%20%28free%2Csick%29%2C%21x")
        .await;
    s.get(&format!("{POOLS}?resourceVersion=0")).await;
    for name in ["l1", "l2", "l3"] {
        s.post(
            SECRETS,
            json!({"metadata": {"name": name, "labels": {"l": name}}, "data": {}}),
        )
        .await;
    }
    let page = s.get(&format!("{SECRETS}?limit=2")).await;
    let token = page["metadata"]["continue"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    s.get(&format!("{SECRETS}?limit=2&continue={token}")).await;
    let from = page["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    s.post(
        SECRETS,
        json!({"metadata": {"name": "l4", "labels": {"l": "l4"}}}),
    )
    .await;
    s.merge(
        &format!("{SECRETS}/l1"),
        json!({"metadata": {"labels": {"l": "l4"}}}),
    )
    .await;
    s.merge(
        &format!("{SECRETS}/l1"),
        json!({"metadata": {"labels": {"l": "l1"}}}),
    )
    .await;
    s.delete(&format!("{SECRETS}/l2"), json!({})).await;
    let watch = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true";
    s.get(&format!("{SECRETS}?{watch}&resourceVersion={from}")).await;
    s.get(&format!(
        "{SECRETS}?{watch}&resourceVersion={from}&labelSelector=l%3Dl4"
    ))
    .await;
    s.get(&format!(
        "{SECRETS}?{watch}&resourceVersion={from}&fieldSelector=metadata.name%3Dl2"
    ))
    .await;
}

pub(super) async fn events_and_leases(s: &mut Recorder) {
    let event = json!({
        "metadata": {"name": "burst.1"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning", "reason": "Why",
        "action": "Why", "note": "told", "reportingController": "operator", "reportingInstance": "operator-0",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "eci-profile", "namespace": "script"},
    });
    s.post("/apis/events.k8s.io/v1/namespaces/script/events", event.clone())
        .await;
    s.post("/apis/events.k8s.io/v1/namespaces/script/events", event)
        .await;
    s.get("/api/v1/namespaces/script/events?fieldSelector=involvedObject.kind%3DConfigMap%2Ctype%3DWarning")
        .await;
    s.get("/api/v1/namespaces/script/events?fieldSelector=involvedObject.kind%3DPod%2Ctype%3DWarning")
        .await;

    let spec = json!({"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 0, "renewTime": "2026-01-01T00:00:00.000000Z"});
    let lease = s
        .post(LEASES, json!({"metadata": {"name": "lead"}, "spec": spec}))
        .await;
    let mut next = lease.clone();
    next["spec"]["holderIdentity"] = json!("b");
    s.put(&format!("{LEASES}/lead"), next.clone()).await;
    s.put(&format!("{LEASES}/lead"), next).await;
    s.put(
        &format!("{LEASES}/lead"),
        json!({"metadata": {"name": "lead"}, "spec": spec}),
    )
    .await;
    s.put(&format!("{LEASES}/gone"), lease.clone()).await;
    let mut gone = lease;
    gone["metadata"]["name"] = json!("gone");
    s.put(&format!("{LEASES}/gone"), gone).await;
}

pub(super) async fn namespaces(s: &mut Recorder) {
    let web = running(s, "last", "True").await;
    s.delete("/api/v1/namespaces/script", json!({})).await;
    s.post(MAPS, map("late", json!({}))).await;
    evict(s, "last", uid(&web)).await;
    s.merge(
        &format!("{PODS}/last"),
        json!({"metadata": {"labels": {"still": "here"}}}),
    )
    .await;
    s.apply(
        &format!("{MAPS}/late"),
        "fieldManager=one",
        map("late", json!({})),
    )
    .await;
    s.delete("/api/v1/namespaces/script", json!({})).await;
}
