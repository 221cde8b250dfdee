//! Whatever is written: a list and the watch that follows it add up to what is there.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_fake_api_server::{Actor, FakeApiServer, Objects};

#[derive(Clone, Copy, Debug)]
enum Op {
    Make(u8, bool),
    Label(u8, bool),
    Change(u8, u8),
    Hold(u8, bool),
    Delete(u8),
    Erase(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let name = 0..3_u8;
    let op = prop_oneof![
        3 => (name.clone(), any::<bool>()).prop_map(|(n, l)| Op::Make(n, l)),
        3 => (name.clone(), any::<bool>()).prop_map(|(n, l)| Op::Label(n, l)),
        2 => (name.clone(), 0..3_u8).prop_map(|(n, v)| Op::Change(n, v)),
        1 => (name.clone(), any::<bool>()).prop_map(|(n, h)| Op::Hold(n, h)),
        2 => name.clone().prop_map(Op::Delete),
        1 => name.prop_map(Op::Erase),
    ];
    prop::collection::vec(op, 0..25)
}

fn carry_out(actor: &Actor, op: Op) {
    let name = |n: u8| format!("m{n}");
    let label = |on: bool| if on { "in" } else { "out" };
    // Refusals, as of what is not there, are part of it.
    let patch = |n: u8, patch: Value| drop(actor.patch("configmaps", "default", &name(n), patch));
    match op {
        Op::Make(n, on) => drop(actor.create(
            "configmaps",
            "default",
            json!({"metadata": {"name": name(n), "labels": {"l": label(on)}}}),
        )),
        Op::Label(n, on) => patch(n, json!({"metadata": {"labels": {"l": label(on)}}})),
        Op::Change(n, value) => patch(n, json!({"data": {"k": value.to_string()}})),
        Op::Hold(n, on) => {
            let held = if on {
                json!(["example.com/held"])
            } else {
                Value::Null
            };
            patch(n, json!({"metadata": {"finalizers": held}}));
        }
        Op::Delete(n) => drop(actor.delete("configmaps", "default", &name(n), json!({}))),
        Op::Erase(n) => drop(actor.erase("configmaps", "default", &name(n))),
    }
}

fn selected(objects: &Objects) -> BTreeMap<String, Value> {
    objects
        .iter()
        .filter(|(key, object)| key.resource == "configmaps" && object["metadata"]["labels"]["l"] == "in")
        .map(|(key, object)| (key.name.clone(), Value::clone(object)))
        .collect()
}

async fn watch(server: &FakeApiServer, from: u64) -> Vec<Value> {
    let uri = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1&resourceVersion={from}&labelSelector=l%3Din"
    );
    let request = http::Request::get(uri).body(Body::empty()).unwrap();
    let response = server.client("watcher").send(request).await.unwrap();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
}

async fn check(ops: &[Op]) {
    let server = FakeApiServer::new();
    let actor = server.actor("world");
    let begin = server.version();
    for op in ops {
        carry_out(&actor, *op);
    }
    let head = selected(&server.objects());
    for from in begin..=server.version() {
        let mut seen = selected(&server.snapshot(from));
        let mut last = from;
        for event in watch(&server, from).await {
            let object = &event["object"];
            let version: u64 = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!(version > last, "{event}");
            last = version;
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let before = match event["type"].as_str() {
                Some("DELETED") => seen.remove(&name),
                _ => seen.insert(name, object.clone()),
            };
            assert_eq!(before.is_none(), event["type"] == "ADDED", "{event}");
        }
        assert_eq!(seen, head, "from {from}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_list_and_its_watch_add_up(ops in ops()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(&ops));
    }
}
