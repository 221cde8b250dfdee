//! The calls.

mod owners;
mod pods;
mod streams;

use serde_json::{Value, json};

use super::{Answer, Recorder};

const PODS: &str = "/api/v1/namespaces/script/pods";
const MAPS: &str = "/api/v1/namespaces/script/configmaps";
const SECRETS: &str = "/api/v1/namespaces/script/secrets";
const NODES: &str = "/api/v1/nodes";
const SETS: &str = "/apis/apps/v1/namespaces/script/statefulsets";
const BUDGETS: &str = "/apis/policy/v1/namespaces/script/poddisruptionbudgets";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/script/leases";
const POOLS: &str = "/apis/virtualnodes.dev/v1alpha1/virtualnodepools";

/// Runs everything; `pool` is a pool that the CRD's rules accept.
///
/// # Panics
/// When the server can't be reached.
pub async fn script(client: kube::Client, pool: &Value) -> Vec<Answer> {
    let mut s = Recorder::new(client);
    s.post("/api/v1/namespaces", json!({"metadata": {"name": "script"}}))
        .await;
    writes(&mut s).await;
    patches(&mut s).await;
    lenient_patches(&mut s).await;
    owners::nodes(&mut s).await;
    owners::applies(&mut s).await;
    owners::workloads(&mut s).await;
    owners::pools(&mut s, pool).await;
    pods::pods(&mut s).await;
    pods::evictions(&mut s).await;
    streams::lists_and_watches(&mut s).await;
    streams::events_and_leases(&mut s).await;
    streams::namespaces(&mut s).await;
    s.answers
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

const STRANGER: &str = "11111111-1111-4111-8111-111111111111";

async fn writes(s: &mut Recorder) {
    let made = s.post(MAPS, map("a", json!({"x": "1"}))).await;
    s.post(MAPS, map("a", json!({}))).await;
    s.post("/api/v1/namespaces/nowhere/configmaps", map("a", json!({})))
        .await;
    s.post(MAPS, json!({"metadata": {}})).await;
    s.post(MAPS, json!({"metadata": {"name": "b", "namespace": "elsewhere"}}))
        .await;
    s.post(MAPS, json!({"metadata": {"name": "b", "resourceVersion": "1"}}))
        .await;
    s.get(&format!("{MAPS}/a")).await;
    s.get(&format!("{MAPS}/missing")).await;
    s.get(&format!("{SETS}/missing")).await;
    let mut next = made.clone();
    next["data"]["y"] = json!("2");
    s.put(&format!("{MAPS}/a"), next.clone()).await;
    s.put(&format!("{MAPS}/a"), next.clone()).await;
    next["metadata"]["resourceVersion"] = Value::Null;
    next["metadata"]["uid"] = json!(STRANGER);
    s.put(&format!("{MAPS}/a"), next).await;
    s.put(&format!("{MAPS}/a"), map("a", json!({"z": "3"}))).await;
    s.put(&format!("{MAPS}/a"), map("other", json!({}))).await;
    s.put(
        &format!("{MAPS}/missing"),
        map("missing", json!({"made": "by PUT"})),
    )
    .await;
    s.post(&format!("{MAPS}?dryRun=All"), map("dry", json!({}))).await;
    s.get(&format!("{MAPS}/dry")).await;
    s.post(
        &format!("{MAPS}?fieldValidation=Strict"),
        json!({"metadata": {"name": "odd"}, "datum": {}}),
    )
    .await;
    s.post(MAPS, json!({"metadata": {"name": "odd"}, "datum": {}}))
        .await;

    let secret =
        json!({"metadata": {"name": "copy"}, "immutable": true, "type": "Opaque", "data": {"k": "YQ=="}});
    let copy = s.post(SECRETS, secret).await;
    s.merge(&format!("{SECRETS}/copy"), json!({"data": {"k": "Yg=="}}))
        .await;
    let strange = json!({"preconditions": {"uid": STRANGER}});
    s.delete(&format!("{SECRETS}/copy"), strange.clone()).await;
    s.delete(
        &format!("{SECRETS}/copy"),
        json!({"preconditions": {"uid": uid(&copy), "resourceVersion": "1"}}),
    )
    .await;
    s.delete(
        &format!("{SECRETS}/copy"),
        json!({"propagationPolicy": "Background", "preconditions": {"uid": uid(&copy)}}),
    )
    .await;
    s.delete(&format!("{SECRETS}/copy"), strange).await;
}

/// Operations that the letter of RFC 6902 refuses, and what of them is stored.
async fn lenient_patches(s: &mut Recorder) {
    let at = format!("{MAPS}/lenient");
    s.post(MAPS, map("lenient", json!({"x": "1", "n": "2"}))).await;
    for operation in [
        json!({"op": "replace", "path": "/data/fresh", "value": "1"}),
        json!({"op": "replace", "path": "/data/x"}),
        json!({"op": "replace", "path": "/nowhere/x", "value": "1"}),
        json!({"op": "copy", "from": "/data/nowhere", "path": "/data/copied"}),
        json!({"op": "copy", "from": "/data/n", "path": "/data/again"}),
        json!({"op": "copy", "from": "/nowhere/n", "path": "/data/never"}),
        json!({"op": "copy", "path": "/data/never"}),
        json!({"op": "test", "path": "/data/nowhere"}),
        json!({"op": "test", "path": "/data/nowhere", "value": null}),
        json!({"op": "test", "path": "/data/nowhere", "value": "1"}),
        json!({"op": "test", "path": "/nowhere/x"}),
        json!({"op": "test", "path": "/data/n"}),
        json!({"op": "test", "path": "/data/n", "value": null}),
        json!({"op": "replace", "path": "/metadata/annotations", "value": {"example.com/a": "3"}}),
        json!({"op": "test", "path": "/metadata/annotations/example.com~1a", "value": "3"}),
        json!({"op": "add", "path": "/data/null"}),
        json!({"op": "add", "path": "/nowhere/x", "value": "1"}),
        json!({"op": "add", "path": "/data/n/deeper", "value": "1"}),
        json!({"op": "move", "from": "/data/nowhere", "path": "/data/moved"}),
        json!({"op": "move", "from": "/data/n", "path": "/data/moved"}),
        json!({"op": "remove", "path": "/data/nowhere"}),
        json!({"op": "remove", "path": "/nowhere/x"}),
        json!({"op": "replace", "path": "/metadata/labels", "value": {"l": "1"}}),
        json!({"op": "copy", "from": "/metadata/labels/nowhere", "path": "/metadata/labels/m"}),
        json!({"op": "replace", "path": "/metadata/finalizers/0", "value": "example.com/none"}),
        json!({"op": "replace", "path": "/metadata/finalizers", "value": ["example.com/a", "example.com/b"]}),
        json!({"op": "add", "path": "/metadata/finalizers/-1", "value": "example.com/c"}),
        json!({"op": "add", "path": "/metadata/finalizers/9", "value": "example.com/d"}),
        json!({"op": "replace", "path": "/metadata/finalizers/3", "value": "example.com/e"}),
        json!({"op": "replace", "path": "/metadata/finalizers/-1", "value": "example.com/f"}),
        json!({"op": "remove", "path": "/metadata/finalizers/-1"}),
        json!({"op": "remove", "path": "/metadata/finalizers/2"}),
        json!({"op": "test", "path": "/metadata/finalizers/first", "value": "example.com/a"}),
        json!({"op": "odd", "path": "/data/n"}),
        json!({"op": "remove"}),
        json!({"path": "/data/n"}),
    ] {
        s.json_patch(&at, json!([operation])).await;
    }
    s.json_patch(&at, json!([])).await;
    s.json_patch(
        &at,
        json!([{"op": "add", "path": "/data/all", "value": "1"}, {"op": "test", "path": "/data/all", "value": "2"}]),
    )
    .await;
    s.get(&at).await;
}

async fn patches(s: &mut Recorder) {
    let a = format!("{MAPS}/a");
    s.merge(
        &a,
        json!({"data": {"z": null, "n": "1"}, "metadata": {"labels": {"l": "1"}, "annotations": {"t": "u"}}}),
    )
    .await;
    s.merge(&a, json!({"data": {"n": "1"}})).await;
    s.merge(
        &a,
        json!({"metadata": {"resourceVersion": "1"}, "data": {"n": "2"}}),
    )
    .await;
    s.merge(&a, json!({"metadata": {"uid": STRANGER}, "data": {"n": "2"}}))
        .await;
    s.merge(&format!("{MAPS}/missing-too"), json!({})).await;
    let found = s.get(&a).await;
    let test = |value: &str| json!([{"op": "test", "path": "/metadata/uid", "value": value}, {"op": "add", "path": "/data/j", "value": "1"}]);
    s.json_patch(&a, test(uid(&found))).await;
    s.json_patch(&a, test(STRANGER)).await;
    s.json_patch(
        &a,
        json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]),
    )
    .await;
    s.json_patch(&a, json!([{"op": "remove", "path": "/data/never"}]))
        .await;
    s.json_patch(&a, json!([{"op": "remove", "path": "/metadata/labels/l"}]))
        .await;
    s.json_patch(&a, json!([{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/one", "example.com/two"]}])).await;
    s.delete(&a, json!({})).await;
    s.delete(&a, json!({})).await;
    s.json_patch(&a, json!([{"op": "remove", "path": "/metadata/finalizers/1"}]))
        .await;
    s.merge(&a, json!({"metadata": {"finalizers": null}})).await;
    s.get(&a).await;
    for (name, policy) in [("orphaned", "Orphan"), ("held", "Foreground")] {
        s.post(MAPS, map(name, json!({}))).await;
        s.delete(&format!("{MAPS}/{name}"), json!({"propagationPolicy": policy}))
            .await;
        s.merge(
            &format!("{MAPS}/{name}"),
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    }
}
