//! The server through the client library, under paused time.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use vnp_fake_api_server::{FakeApiServer, Fault, Refusal};

fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), "default")
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": "v-0", "containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap()
}

async fn running(server: &FakeApiServer, pods: &Api<Pod>, name: &str) -> Pod {
    pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server
        .actor("kubelet")
        .patch_status("pods", "default", name, status)
        .unwrap();
    pods.get(name).await.unwrap()
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_what_happens_and_goes_on_after_its_timeout_and_after_compaction() {
    let server = FakeApiServer::new();
    let client = server.client("a");
    let pods = pods(&client);
    pods.create(&PostParams::default(), &pod("one")).await.unwrap();
    let config = watcher::Config::default().timeout(55).page_size(1);
    let mut events = Box::pin(watcher(pods.clone(), config));
    let mut next = async || events.next().await.unwrap().unwrap();
    assert!(matches!(next().await, watcher::Event::Init));
    assert!(matches!(next().await, watcher::Event::InitApply(p) if p.name_any() == "one"));
    assert!(matches!(next().await, watcher::Event::InitDone));
    let begin = Instant::now();
    for minute in 0..5 {
        tokio::time::advance(Duration::from_secs(60)).await;
        if minute == 3 {
            server.compact();
        }
        let name = format!("pod-{minute}");
        pods.create(&PostParams::default(), &pod(&name)).await.unwrap();
        loop {
            match next().await {
                watcher::Event::Apply(p) | watcher::Event::InitApply(p) if p.name_any() == name => break,
                _ => {}
            }
        }
    }
    assert!(
        begin.elapsed() < Duration::from_secs(400),
        "{:?}",
        begin.elapsed()
    );
    server.actor("kubelet").erase("pods", "default", "one");
    while !matches!(next().await, watcher::Event::Delete(p) if p.name_any() == "one") {}
}

#[tokio::test(start_paused = true)]
async fn versions_uids_and_preconditions_are_kept() {
    let server = FakeApiServer::new();
    let nodes: Api<Node> = Api::all(server.client("a"));
    let post = PostParams::default();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "v-0"}})).unwrap();
    let first = nodes.create(&post, &node).await.unwrap();
    assert_eq!(code(nodes.create(&post, &node).await), 409);
    let mut stale = first.clone();
    stale.labels_mut().insert("a".into(), "b".into());
    nodes.replace("v-0", &post, &stale).await.unwrap();
    assert_eq!(code(nodes.replace("v-0", &post, &stale).await), 409);
    let with = |uid: Option<String>| DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    assert_eq!(code(nodes.delete("v-0", &with(Some("other".into()))).await), 409);
    nodes.delete("v-0", &with(first.uid())).await.unwrap();
    assert_eq!(code(nodes.get("v-0").await), 404);
    let second = nodes.create(&post, &node).await.unwrap();
    assert_ne!(first.uid(), second.uid());
    let test = json!([{"op": "test", "path": "/metadata/uid", "value": first.uid()},
                      {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(test).unwrap());
    assert_eq!(
        code(nodes.patch("v-0", &PatchParams::default(), &patch).await),
        422
    );
}

#[tokio::test(start_paused = true)]
async fn a_cordon_is_owned_and_given_back_by_its_manager_alone() {
    let server = FakeApiServer::new();
    let nodes: Api<Node> = Api::all(server.client("a"));
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "v-0", "labels": {"keep": "it"}}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let apply = |spec: Value| {
        let nodes = nodes.clone();
        async move {
            let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "v-0"}, "spec": spec});
            nodes
                .patch(
                    "v-0",
                    &PatchParams::apply("cordoner").force(),
                    &Patch::Apply(body),
                )
                .await
                .unwrap()
        }
    };
    let unschedulable = |n: &Node| n.spec.as_ref().and_then(|s| s.unschedulable);
    let cordoned = apply(json!({"unschedulable": true})).await;
    assert_eq!(unschedulable(&cordoned), Some(true));
    let again = apply(json!({"unschedulable": true})).await;
    assert_eq!(
        again.resource_version(),
        cordoned.resource_version(),
        "nothing to write"
    );
    assert_eq!(unschedulable(&apply(json!({})).await), None);
    // A person cordons: giving up what we do not own leaves it.
    let person = json!({"spec": {"unschedulable": true}});
    nodes
        .patch("v-0", &PatchParams::default(), &Patch::Merge(&person))
        .await
        .unwrap();
    apply(json!({"unschedulable": true})).await;
    let left = apply(json!({})).await;
    assert_eq!(unschedulable(&left), Some(true));
    assert_eq!(left.labels()["keep"], "it");
    let gone =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "v-9", "uid": "u"}, "spec": {}});
    let params = PatchParams::apply("cordoner").force();
    assert_eq!(code(nodes.patch("v-9", &params, &Patch::Apply(gone)).await), 409);
}

#[tokio::test(start_paused = true)]
async fn an_apply_that_is_not_forced_meets_who_owns_the_field() {
    let server = FakeApiServer::new();
    let maps: Api<ConfigMap> = Api::namespaced(server.client("a"), "kube-system");
    let body = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}});
    let apply = |manager: &'static str, value: &'static str| {
        let maps = maps.clone();
        let body = body(value);
        async move {
            maps.patch("m", &PatchParams::apply(manager), &Patch::Apply(body))
                .await
        }
    };
    apply("one", "a").await.unwrap();
    apply("two", "a").await.unwrap();
    let refused = apply("two", "b").await.unwrap_err();
    assert!(
        refused.to_string().contains("conflict with \"one\": .data.k"),
        "{refused}"
    );
    assert_eq!(maps.get("m").await.unwrap().managed_fields().len(), 2);
}

async fn evict(client: &Client, name: &str, uid: Option<String>) -> kube::Result<Value> {
    let body: Eviction = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"}, "deleteOptions": {"preconditions": {"uid": uid}},
    }))
    .unwrap();
    let request = kube::core::Request::new("/api/v1/namespaces/default/pods")
        .create_subresource(
            "eviction",
            name,
            &PostParams::default(),
            serde_json::to_vec(&body).unwrap(),
        )
        .unwrap();
    client.request(request).await
}

#[tokio::test(start_paused = true)]
async fn evictions_keep_budgets_uids_and_grace() {
    let server = FakeApiServer::new();
    let client = server.client("a");
    let pods = pods(&client);
    let web = running(&server, &pods, "web").await;
    let budget: PodDisruptionBudget = serde_json::from_value(
        json!({"metadata": {"name": "keep"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    )
    .unwrap();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), "default");
    budgets.create(&PostParams::default(), &budget).await.unwrap();
    let refused = evict(&client, "web", web.uid()).await.unwrap_err();
    assert!(refused.to_string().contains("disruption budget"), "{refused}");
    let world = server.actor("disruption-controller");
    let status = |allowed: i64| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed}});
    world
        .patch_status("poddisruptionbudgets.policy", "default", "keep", status(0))
        .unwrap();
    assert_eq!(code(evict(&client, "web", web.uid()).await), 429);
    world
        .patch_status("poddisruptionbudgets.policy", "default", "keep", status(1))
        .unwrap();
    assert_eq!(code(evict(&client, "web", Some("other".into())).await), 409);
    world
        .patch_status("poddisruptionbudgets.policy", "default", "keep", status(1))
        .unwrap();
    evict(&client, "web", web.uid()).await.unwrap();
    let left = budgets.get("keep").await.unwrap().status.unwrap();
    assert_eq!(left.disruptions_allowed, Some(0));
    assert!(left.disrupted_pods.unwrap().contains_key("web"));
    let going = pods.get("web").await.unwrap();
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    server
        .actor("kubelet")
        .remove_pod("default", "web", &web.uid().unwrap())
        .unwrap();
    assert_eq!(code(pods.get("web").await), 404);
    let writes = server.journal();
    let evicted: Vec<u16> = writes
        .iter()
        .filter(|e| e.subresource == "eviction")
        .map(|e| e.code)
        .collect();
    assert_eq!(evicted, [429, 429, 409, 201]);
}

#[tokio::test(start_paused = true)]
async fn faults_happen_as_told() {
    let server = FakeApiServer::new();
    let client = server.client("a");
    let pods = pods(&client);
    let create = |name: &'static str| {
        let pods = pods.clone();
        async move {
            timeout(
                Duration::from_secs(9),
                pods.create(&PostParams::default(), &pod(name)),
            )
            .await
        }
    };
    let there = |name: &str| server.get("pods", "default", name).is_some();
    let set = |fault: Fault| {
        server.set_gate(Arc::new(move |_| {
            let fault = fault.clone();
            Box::pin(async move { fault })
        }));
    };
    set(Fault::ParkBefore);
    assert!(create("a").await.is_err() && !there("a"));
    set(Fault::ParkAfter);
    assert!(create("b").await.is_err() && there("b"));
    set(Fault::ResetBefore);
    assert!(create("c").await.unwrap().is_err() && !there("c"));
    set(Fault::ResetAfter);
    assert!(create("d").await.unwrap().is_err() && there("d"));
    set(Fault::Truncate);
    assert!(create("e").await.unwrap().is_err() && there("e"));
    set(Fault::Refuse(Refusal::new(503, "ServiceUnavailable", "not now")));
    assert_eq!(code(create("f").await.unwrap()), 503);
    server.open_gate();
    server.cut("a");
    assert!(create("g").await.is_err() && !there("g"));
    assert!(
        server.client("b").apiserver_version().await.is_err(),
        "another client is answered"
    );
}

#[tokio::test(start_paused = true)]
async fn watches_of_one_client_lag_freeze_and_lose_events() {
    let server = FakeApiServer::new();
    let client = server.client("a");
    let world = server.actor("w");
    let make = |name: &str| {
        let body = serde_json::to_value(pod(name)).unwrap();
        world.create("pods", "default", body).unwrap();
    };
    server.drop_event("a", 1);
    let mut events = Box::pin(watcher(pods(&client), watcher::Config::default()));
    assert!(matches!(events.next().await, Some(Ok(watcher::Event::Init))));
    assert!(matches!(events.next().await, Some(Ok(watcher::Event::InitDone))));
    let mut next = async || match timeout(Duration::from_secs(5), events.next()).await {
        Ok(Some(Ok(watcher::Event::Apply(p)))) => Some(p.name_any()),
        _ => None,
    };
    for name in ["p0", "p1", "p2"] {
        make(name);
    }
    assert_eq!(next().await.as_deref(), Some("p0"));
    assert_eq!(next().await.as_deref(), Some("p2"), "number 1 is swallowed");
    server.lag("a", 1);
    make("p3");
    assert_eq!(next().await, None);
    make("p4");
    assert_eq!(next().await.as_deref(), Some("p3"));
    server.lag("a", 0);
    assert_eq!(next().await.as_deref(), Some("p4"));
    server.freeze("a");
    make("p5");
    assert_eq!(next().await, None);
    let cached = ListParams::default().match_any();
    assert_eq!(
        pods(&client).list(&cached).await.unwrap().items.len(),
        5,
        "reads of the cache are as old"
    );
    assert_eq!(
        pods(&client)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        6
    );
    server.thaw("a");
    assert_eq!(next().await.as_deref(), Some("p5"));
}

#[tokio::test(start_paused = true)]
async fn the_same_calls_get_the_same_answers_to_the_last_byte() {
    let pool = json!({
        "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool", "metadata": {"name": "burst"},
        "spec": {"replicas": 1, "region": "cn-hangzhou"},
    });
    let run = async || {
        let server = FakeApiServer::new();
        let answers = vnp_fake_api_server::conformance::script(server.client("script"), &pool).await;
        (format!("{answers:?}"), format!("{:?}", server.objects()))
    };
    assert_eq!(run().await, run().await);
}
