//! The stored objects, as the world around the operator reads and writes them: at once and past what an API server asks of
//! its clients.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_fake_api_server::{Actor, FakeApiServer};

/// One cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Its API server.
    pub(crate) server: FakeApiServer,
    world: Actor,
}

impl Cluster {
    /// A cluster without nodes.
    pub(crate) fn new() -> Self {
        let server = FakeApiServer::new();
        let world = server.actor("world");
        Self { server, world }
    }

    /// The server's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.server.clock().now()
    }

    /// All objects of a resource.
    pub(crate) fn list(&self, resource: &str) -> Vec<Arc<Value>> {
        self.world.list(resource, "")
    }

    /// An object.
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.world.get(resource, namespace, name)
    }

    /// Makes an object, its status included.
    pub(crate) fn create(&self, resource: &str, body: Value) {
        let (namespace, status) = (
            text(&body, "/metadata/namespace").to_owned(),
            body["status"].clone(),
        );
        let made = self
            .world
            .create(resource, &namespace, body)
            .unwrap_or_else(|e| panic!("{resource}: {e}"));
        if !status.is_null() {
            self.change(resource, &namespace, name(&made), |object| {
                object["status"] = status
            });
        }
    }

    /// Changes an object. A change that changes nothing is none.
    pub(crate) fn change(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let Some(before) = self.get(resource, namespace, name) else {
            return;
        };
        let mut after = Value::clone(&before);
        change(&mut after);
        if after != *before {
            self.world
                .edit(resource, namespace, name, |object| *object = after);
        }
    }

    /// Changes the spec as `kubectl apply` does.
    pub(crate) fn patch(&self, resource: &str, namespace: &str, name: &str, patch: Value) {
        self.world
            .patch(resource, namespace, name, patch)
            .unwrap_or_else(|e| panic!("{resource} {name}: {e}"));
    }

    /// Deletes an object; it may stay until its finalizers are gone, a pod until its kubelet is done.
    pub(crate) fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let there = self.get(resource, namespace, name);
        if there.is_some_and(|o| o["metadata"]["deletionTimestamp"].is_null()) {
            self.world
                .delete(resource, namespace, name, json!({}))
                .unwrap_or_else(|e| panic!("{resource} {name}: {e}"));
        }
    }

    /// A pod is gone.
    pub(crate) fn remove_pod(&self, pod: &Value) {
        self.world
            .remove_pod(text(pod, "/metadata/namespace"), name(pod), uid(pod))
            .unwrap_or_else(|e| panic!("pod {}: {e}", name(pod)));
    }
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// A text in an object, empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number in an object, 0 when it is not there.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}
