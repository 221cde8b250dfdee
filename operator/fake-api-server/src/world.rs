//! Reads and writes of the world around the operator: controllers, kubelets, people. By the rules of the server, but
//! without HTTP, without faults and at once.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::{About, Call};
use crate::kinds;
use crate::refusal::Refusal;
use crate::serve::serve;
use crate::server::{Inner, unknown};
use crate::store::Key;

/// A part of the world. Its name is the field manager of its writes and their client in the journal.
#[derive(Clone)]
pub struct Actor {
    inner: Arc<Inner>,
    name: String,
}

/// What a write gives: the object after it, or a `Status` after a deletion.
pub type Written = Result<Value, Refusal>;

impl Actor {
    pub(crate) fn new(inner: Arc<Inner>, name: &str) -> Self {
        Self {
            inner,
            name: name.to_owned(),
        }
    }

    /// An object; `resource` as in [`Key::resource`].
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = kinds::named(resource)?;
        self.inner
            .lock()
            .store
            .get(&Key::new(kind, namespace, name))
            .cloned()
    }

    /// All objects of a resource, of one namespace unless that is empty, sorted by namespace and name.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let state = self.inner.lock();
        let all = state.store.objects().iter();
        all.filter(|(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
        .map(|(_, object)| object.clone())
        .collect()
    }

    /// Makes an object.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn create(&self, resource: &str, namespace: &str, body: Value) -> Written {
        self.write("create", resource, namespace, "", "", body, "")
    }

    /// Merges a patch into an object; null removes a field.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: Value) -> Written {
        self.write(
            "patch",
            resource,
            namespace,
            name,
            "",
            patch,
            "application/merge-patch+json",
        )
    }

    /// Merges a patch into the status: `{"status": {...}}`.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn patch_status(&self, resource: &str, namespace: &str, name: &str, patch: Value) -> Written {
        self.write(
            "patch",
            resource,
            namespace,
            name,
            "status",
            patch,
            "application/merge-patch+json",
        )
    }

    /// Applies a configuration server-side, forced.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn apply(&self, resource: &str, namespace: &str, name: &str, config: Value) -> Written {
        self.write(
            "patch",
            resource,
            namespace,
            name,
            "",
            config,
            "application/apply-patch+yaml",
        )
    }

    /// Deletes an object with `DeleteOptions`.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str, options: Value) -> Written {
        self.write("delete", resource, namespace, name, "", options, "")
    }

    /// What a kubelet does last: the pod's object goes at once, unless a finalizer holds it.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn remove_pod(&self, namespace: &str, name: &str, uid: &str) -> Written {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        self.delete("pods", namespace, name, options)
    }

    /// Evicts a pod.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn evict(&self, namespace: &str, name: &str) -> Written {
        let body = json!({"metadata": {"name": name, "namespace": namespace}});
        self.write("create", "pods", namespace, name, "eviction", body, "")
    }

    /// Changes an object past all rules, as if etcd were edited: a pod's node, a status with its spec. `None` when there
    /// is no such object. It is not written down in the journal, but watches see it.
    pub fn edit(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        let key = Key::new(kinds::named(resource)?, namespace, name);
        let stored = {
            let store = &mut self.inner.lock().store;
            let mut object = Value::clone(store.get(&key)?);
            change(&mut object);
            store.put(key, object)
        };
        self.inner.wake();
        Some(stored)
    }

    /// Removes an object past all rules, finalizers included.
    pub fn erase(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = Key::new(kinds::named(resource)?, namespace, name);
        let gone = self.inner.lock().store.take(&key);
        self.inner.wake();
        gone
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a request, each named by its caller"
    )]
    fn write(
        &self,
        verb: &'static str,
        resource: &str,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
        content_type: &str,
    ) -> Written {
        let kind = kinds::named(resource).ok_or_else(|| unknown(resource))?;
        let about = About {
            kind,
            group: kind.group.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        };
        let query = [("fieldManager", self.name.as_str()), ("force", "true")];
        let call = Call {
            client: self.name.clone(),
            number: 0,
            verb,
            path: String::new(),
            query: query.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            content_type: content_type.to_owned(),
            body,
            about,
        };
        let result = {
            let state = &mut *self.inner.lock();
            serve(&mut state.store, &mut state.journal, &call, None)
        };
        self.inner.wake();
        result.map(|(_, object)| object)
    }
}
