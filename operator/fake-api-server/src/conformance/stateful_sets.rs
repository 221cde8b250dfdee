//! Stories of StatefulSets, told with a StatefulSet controller behind the API server: after each step, which pods there are,
//! from which template, and what the status counts. The kubelet's part is in the stories, so that every state lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};

use super::{JSON, MERGE_PATCH, send};

/// A controller of another process gets so long for a step.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long it is watched afterwards, in case it does more.
const STAY: Duration = Duration::from_millis(400);

/// What a step led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was done.
    pub step: String,
    /// Each pod: name, image, phase.
    pub pods: Vec<String>,
    /// The counts of the status, and whether the update is complete.
    pub status: String,
}

/// What each story led to.
pub type Stories = BTreeMap<&'static str, Vec<Seen>>;

/// Tells all stories. `work` lets a controller of this process work until it has nothing left to do; one of another process
/// gets time to reach what is `expected`.
///
/// # Panics
/// When the server can't be reached.
pub async fn stateful_sets(client: &kube::Client, work: impl Fn() + Sync, expected: &Stories) -> Stories {
    let work: &(dyn Fn() + Sync) = &work;
    let none = Vec::new();
    let tell = |(name, tell): (&'static str, Tell)| {
        let expected = expected.get(name).unwrap_or(&none);
        async move {
            let mut story = Story {
                client,
                name,
                work,
                expected,
                seen: Vec::new(),
            };
            tell(&mut story).await;
            (name, story.seen)
        }
    };
    let stories: [(&'static str, Tell); 6] = [
        ("partition", |s| partition(s).boxed()),
        ("ordered", |s| ordered(s).boxed()),
        ("on-delete", |s| on_delete(s).boxed()),
        ("two-at-once", |s| two_at_once(s).boxed()),
        ("half-at-once", |s| half_at_once(s).boxed()),
        ("unready", |s| unready(s).boxed()),
    ];
    join_all(stories.map(tell)).await.into_iter().collect()
}

type Tell = for<'a, 'b> fn(&'a mut Story<'b>) -> BoxFuture<'a, ()>;

/// The partition counts from `ordinals.start`, and a pod below it is made again from the old template.
async fn partition(s: &mut Story<'_>) {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    s.create(json!({"replicas": 3, "ordinals": {"start": 4}, "podManagementPolicy": "Parallel", "updateStrategy": rolling}))
        .await;
    s.ready(&[4, 5, 6]).await;
    s.template("v2").await;
    s.gone(&[6]).await;
    s.ready(&[6]).await;
    s.delete(&[4]).await;
    s.gone(&[4]).await;
    s.gone(&[5]).await;
    s.ready(&[4, 5]).await;
    s.patch(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}))
        .await;
    s.gone(&[4]).await;
    s.ready(&[4]).await;
    s.patch(json!({"replicas": 1})).await;
    s.gone(&[5, 6]).await;
    s.patch(json!({"updateStrategy": {"rollingUpdate": {"partition": 9}}}))
        .await;
    s.template("v3").await;
    s.patch(json!({"replicas": 2})).await;
    s.ready(&[5]).await;
    s.patch(json!({"ordinals": {"start": 5}})).await;
}

async fn ordered(s: &mut Story<'_>) {
    s.create(json!({"replicas": 3})).await;
    s.ready(&[0]).await;
    s.ready(&[1]).await;
    s.ready(&[2]).await;
    s.template("v2").await;
    s.gone(&[2]).await;
    // What is not ready is in the way of a better template.
    s.template("v3").await;
    s.ready(&[2]).await;
    s.gone(&[2]).await;
    s.ready(&[2]).await;
    s.gone(&[1]).await;
    s.patch(json!({"replicas": 1})).await;
    s.ready(&[1]).await;
    s.gone(&[2]).await;
    s.gone(&[1]).await;
}

async fn on_delete(s: &mut Story<'_>) {
    s.create(
        json!({"replicas": 2, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"}}),
    )
    .await;
    s.ready(&[0, 1]).await;
    s.template("v2").await;
    s.delete(&[0]).await;
    s.gone(&[0]).await;
    s.ready(&[0]).await;
    s.fail(1).await;
    s.gone(&[1]).await;
}

async fn two_at_once(s: &mut Story<'_>) {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "partition": 1}});
    s.create(json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": rolling}))
        .await;
    s.ready(&[0, 1, 2, 3, 4]).await;
    s.template("v2").await;
    s.gone(&[3]).await;
    s.ready(&[3]).await;
    s.gone(&[4]).await;
    s.ready(&[4]).await;
    s.gone(&[1, 2]).await;
}

async fn half_at_once(s: &mut Story<'_>) {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}});
    s.create(json!({"replicas": 2, "updateStrategy": rolling})).await;
    s.ready(&[0]).await;
    s.ready(&[1]).await;
    s.patch(json!({"replicas": 4})).await;
    s.ready(&[2]).await;
    s.ready(&[3]).await;
    s.template("v2").await;
    s.gone(&[2, 3]).await;
    s.ready(&[2]).await;
}

/// With Parallel, what is away already is rolled first and costs nothing of what may be away.
async fn unready(s: &mut Story<'_>) {
    s.create(json!({"replicas": 3, "podManagementPolicy": "Parallel"}))
        .await;
    s.ready(&[1, 2]).await;
    s.template("v2").await;
    s.gone(&[0]).await;
    s.template("v3").await;
    s.gone(&[0]).await;
    s.ready(&[0]).await;
    s.delete_set().await;
    s.gone(&[2]).await;
}

struct Story<'b> {
    client: &'b kube::Client,
    name: &'static str,
    work: &'b (dyn Fn() + Sync),
    expected: &'b [Seen],
    seen: Vec<Seen>,
}

impl Story<'_> {
    async fn create(&mut self, extra: Value) {
        let name = self.name;
        self.call("POST", "/api/v1/namespaces", json!({"metadata": {"name": name}}))
            .await;
        // Else its pods would be collected.
        let node = json!({"metadata": {"name": name}, "spec": {"unschedulable": true}});
        self.call("POST", "/api/v1/nodes", node).await;
        let mut set = json!({
            "metadata": {"name": name, "finalizers": ["example.com/held"]},
            "spec": {
                "serviceName": "", "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "nodeName": name, "tolerations": [{"operator": "Exists"}],
                        "containers": [{"name": "c", "image": "v1"}],
                    },
                },
            },
        });
        json_patch::merge(&mut set["spec"], &extra);
        let sets = format!("/apis/apps/v1/namespaces/{name}/statefulsets");
        self.call("POST", &sets, set).await;
        self.look(format!("create {extra}")).await;
    }

    async fn patch(&mut self, spec: Value) {
        let path = self.set();
        self.call("PATCH", &path, json!({ "spec": spec })).await;
        self.look(format!("patch {spec}")).await;
    }

    async fn template(&mut self, image: &str) {
        let containers = json!([{"name": "c", "image": image}]);
        self.patch(json!({"template": {"spec": {"containers": containers}}}))
            .await;
    }

    async fn delete_set(&mut self) {
        let path = self.set();
        self.call("DELETE", &path, json!({})).await;
        self.look("delete the StatefulSet".to_owned()).await;
    }

    async fn status(&mut self, ordinals: &[usize], phase: &str, ready: &str) {
        for ordinal in ordinals {
            let path = format!("{}/status", self.pod(*ordinal));
            let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
            self.call("PATCH", &path, json!({ "status": status })).await;
        }
    }

    async fn ready(&mut self, ordinals: &[usize]) {
        self.status(ordinals, "Running", "True").await;
        self.look(format!("{ordinals:?} get ready")).await;
    }

    async fn fail(&mut self, ordinal: usize) {
        self.status(&[ordinal], "Failed", "False").await;
        self.look(format!("{ordinal} fails")).await;
    }

    /// Somebody deletes pods, which stay for their grace period.
    async fn delete(&mut self, ordinals: &[usize]) {
        for ordinal in ordinals {
            let path = self.pod(*ordinal);
            self.call("DELETE", &path, json!({})).await;
        }
        self.look(format!("delete {ordinals:?}")).await;
    }

    /// The kubelet is done with pods that are being deleted.
    async fn gone(&mut self, ordinals: &[usize]) {
        for ordinal in ordinals {
            let path = self.pod(*ordinal);
            self.call("DELETE", &path, json!({"gracePeriodSeconds": 0})).await;
        }
        self.look(format!("{ordinals:?} are gone")).await;
    }

    async fn look(&mut self, step: String) {
        (self.work)();
        let mut seen = self.picture(&step).await;
        if let Some(expected) = self.expected.get(self.seen.len()) {
            let end = Instant::now() + PATIENCE;
            while seen != *expected && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(30)).await;
                seen = self.picture(&step).await;
            }
            tokio::time::sleep(STAY).await;
            seen = self.picture(&step).await;
        }
        self.seen.push(seen);
    }

    async fn picture(&self, step: &str) -> Seen {
        let pods = format!("/api/v1/namespaces/{}/pods", self.name);
        let pods = self.call("GET", &pods, Value::Null).await;
        let set = self.call("GET", &self.set(), Value::Null).await;
        let status = &set["status"];
        let counts = [
            "replicas",
            "readyReplicas",
            "availableReplicas",
            "currentReplicas",
            "updatedReplicas",
        ]
        .map(|field| format!("{field} {}", status[field].as_u64().unwrap_or(0)));
        let complete = status["currentRevision"] == status["updateRevision"];
        let observed = status["observedGeneration"] == set["metadata"]["generation"];
        Seen {
            step: step.to_owned(),
            pods: pods["items"].as_array().into_iter().flatten().map(pod).collect(),
            status: format!("{}, complete {complete}, observed {observed}", counts.join(", ")),
        }
    }

    fn set(&self) -> String {
        format!("/apis/apps/v1/namespaces/{0}/statefulsets/{0}", self.name)
    }

    fn pod(&self, ordinal: usize) -> String {
        format!("/api/v1/namespaces/{0}/pods/{0}-{ordinal}", self.name)
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" { MERGE_PATCH } else { JSON };
        let (head, bytes) = send(self.client, method, path, kind, &body).await;
        let told = String::from_utf8_lossy(&bytes);
        assert!(
            head.status.is_success(),
            "{} of {method} {path}: {told}",
            head.status
        );
        serde_json::from_slice(&bytes).expect("an answer is JSON")
    }
}

/// A pod in one line. Its labels tell the same name and ordinal on both servers.
fn pod(pod: &Value) -> String {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    let going = if text("/metadata/deletionTimestamp") == "-" {
        ""
    } else {
        " going"
    };
    format!(
        "{} {} index {} {}{going}",
        text("/metadata/name"),
        text("/spec/containers/0/image"),
        text("/metadata/labels/apps.kubernetes.io~1pod-index"),
        text("/status/phase")
    )
}
