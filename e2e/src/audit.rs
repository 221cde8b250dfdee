//! The API server's audit log: who wrote what, when, and what the answer was.
//!
//! It is the witness that the operator can't influence. The policy beside [`crate::control_plane`] keeps every write
//! (bodies of those that matter) and the operator's reads, not the heartbeats of the simulated cloud.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// User name of the operator's ServiceAccount.
pub const OPERATOR: &str = "system:serviceaccount:virtualnodepool-system:virtualnodepool-operator";

/// Reads the log anew on every question; the API server has written an entry before it answers a request.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

/// One finished request.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// When the API server received the request.
    pub received: Timestamp,
    /// When it had answered.
    pub answered: Timestamp,
    /// User name, [`OPERATOR`] for the operator.
    pub user: String,
    /// User agent of the client.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`, `list`, `watch`, `get`.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, `eviction` for instance.
    pub subresource: Option<String>,
    /// Namespace, absent for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Object name, absent for collections and for `generateName`.
    pub name: Option<String>,
    /// HTTP status of the answer.
    pub code: u16,
    /// Path and query.
    pub uri: String,
    /// Body of the request, where the policy keeps it.
    pub request: Option<Value>,
    /// Body of the answer, where the policy keeps it.
    pub response: Option<Value>,
    /// What admission noted: `patch.webhook.admission.k8s.io/...` for instance, where the policy keeps bodies.
    pub annotations: BTreeMap<String, String>,
}

/// A call of the Eviction API.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// When it was received.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Who called.
    pub user: String,
    /// 201 accepted, 404 gone, 409 another pod or a lost race, 429 refused by a budget or by flow control.
    pub code: u16,
    /// The UID the caller insisted on.
    pub uid_precondition: Option<String>,
}

/// A write that changed the replica count of a workload.
#[derive(Clone, Debug)]
pub struct ReplicasChange {
    /// When it was received.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
    /// Who wrote.
    pub user: String,
    /// The count before, where the log has seen one.
    pub from: Option<i64>,
    /// The count after.
    pub to: i64,
}

impl AuditLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// All requests, in the order of their answers.
    ///
    /// # Errors
    /// When the log can't be read or a line is no audit event.
    pub fn events(&self) -> Result<Vec<AuditEvent>> {
        let content = fs::read(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        let content = String::from_utf8_lossy(&content);
        content
            .split_inclusive('\n')
            // The last line may be just being written.
            .filter(|line| line.ends_with('\n'))
            .filter_map(|line| match serde_json::from_str::<Raw>(line) {
                // A watch is logged when it starts and once more when it ends.
                Ok(raw) if raw.verb == "watch" && raw.stage != "ResponseStarted" => None,
                Ok(raw) => Some(Ok(raw.into())),
                Err(error) => Some(Err(error).with_context(|| format!("parse audit line {line}"))),
            })
            .collect()
    }

    /// What `user` wrote since `since`, refused attempts included and dry runs not. Lease renewals count; filter them where
    /// they may.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub fn writes_by(&self, user: &str, since: Timestamp) -> Result<Vec<AuditEvent>> {
        let mut events = self.events()?;
        events.retain(|event| {
            event.user == user && event.received >= since && event.is_write() && !event.is_dry_run()
        });
        Ok(events)
    }

    /// All calls of the Eviction API, in the order of their answers.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub fn evictions(&self) -> Result<Vec<Eviction>> {
        Ok(evictions(&self.events()?))
    }

    /// Every accepted change of the replica count of a StatefulSet, by the object itself or by its scale.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub fn replicas_changes(&self, namespace: &str, name: &str) -> Result<Vec<ReplicasChange>> {
        Ok(replicas_changes(&self.events()?, namespace, name))
    }

    /// The last `count` requests that name one of `names` (a name or a `namespace/name`), for failure reports.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub fn last_about(&self, names: &[&str], count: usize) -> Result<Vec<AuditEvent>> {
        let mut events = self.events()?;
        events.retain(|event| {
            let object = event.object();
            names.iter().any(|name| {
                object == *name
                    || event.name_or_created().is_some_and(|own| own == *name)
                    || event.namespace.as_deref() == Some(name)
            })
        });
        Ok(events.split_off(events.len().saturating_sub(count)))
    }
}

/// The calls of the Eviction API among these events.
#[must_use]
pub fn evictions(events: &[AuditEvent]) -> Vec<Eviction> {
    let calls = events
        .iter()
        .filter(|event| event.verb == "create" && event.is("pods", Some("eviction")));
    let eviction = |event: &AuditEvent| Eviction {
        uid_precondition: event
            .request
            .as_ref()
            .and_then(|body| body.pointer("/deleteOptions/preconditions/uid"))
            .and_then(Value::as_str)
            .map(str::to_owned),
        pod: event.object(),
        received: event.received,
        answered: event.answered,
        user: event.user.clone(),
        code: event.code,
    };
    calls.map(eviction).collect()
}

/// The accepted changes of the replica count of a StatefulSet among these events.
#[must_use]
pub fn replicas_changes(events: &[AuditEvent], namespace: &str, name: &str) -> Vec<ReplicasChange> {
    let mut last = None;
    let mut changes = Vec::new();
    for event in events {
        let on_workload = (event.is("statefulsets", None) || event.is("statefulsets", Some("scale")))
            && event.namespace.as_deref() == Some(namespace)
            && event.name_or_created() == Some(name);
        if !on_workload
            || !event.is_write()
            || event.verb == "delete"
            || !event.is_success()
            || event.is_dry_run()
        {
            continue;
        }
        let replicas = event
            .response
            .as_ref()
            .and_then(|body| body.pointer("/spec/replicas"));
        let Some(to) = replicas.and_then(Value::as_i64) else {
            continue;
        };
        if last != Some(to) {
            changes.push(ReplicasChange {
                received: event.received,
                answered: event.answered,
                user: event.user.clone(),
                from: last.replace(to),
                to,
            });
        }
    }
    changes
}

impl AuditEvent {
    /// Whether it was a write, accepted or not.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    /// Whether the answer was a 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether it was about this resource and subresource.
    #[must_use]
    pub fn is(&self, resource: &str, subresource: Option<&str>) -> bool {
        self.resource == resource && self.subresource.as_deref() == subresource
    }

    /// Whether nothing was stored because the caller said so.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.uri.contains("dryRun=All")
    }

    /// `namespace/name`, or the name of a cluster-scoped object.
    #[must_use]
    pub fn object(&self) -> String {
        let name = self.name_or_created().unwrap_or("*");
        self.namespace
            .as_ref()
            .map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
    }

    /// The object's name; for a create without one in the path, the name the server answered with.
    fn name_or_created(&self) -> Option<&str> {
        self.name
            .as_deref()
            .or_else(|| self.response.as_ref()?.pointer("/metadata/name")?.as_str())
    }
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            user,
            verb,
            resource,
            code,
            ..
        } = self;
        let subresource = self
            .subresource
            .as_ref()
            .map(|name| format!("/{name}"))
            .unwrap_or_default();
        write!(
            f,
            "{answered:.3} {code} {user} {verb} {resource}{subresource} {}",
            self.object()
        )?;
        match &self.request {
            Some(body) if self.is_write() => {
                let body = body.to_string();
                let end = body.char_indices().nth(240).map_or(body.len(), |(at, _)| at);
                write!(f, " {}", &body[..end])
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    stage: String,
    verb: String,
    user: RawUser,
    #[serde(default)]
    user_agent: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    object_ref: RawObject,
    #[serde(default)]
    response_status: RawStatus,
    request_object: Option<Value>,
    response_object: Option<Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct RawUser {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawObject {
    api_group: String,
    resource: String,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    code: u16,
}

impl From<Raw> for AuditEvent {
    fn from(raw: Raw) -> Self {
        Self {
            received: raw.request_received_timestamp,
            answered: raw.stage_timestamp,
            user: raw.user.username,
            user_agent: raw.user_agent,
            verb: raw.verb,
            group: raw.object_ref.api_group,
            resource: raw.object_ref.resource,
            subresource: raw.object_ref.subresource,
            namespace: raw.object_ref.namespace,
            name: raw.object_ref.name,
            code: raw.response_status.code,
            uri: raw.request_uri,
            request: raw.request_object,
            response: raw.response_object,
            annotations: raw.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(events: &[Value]) -> (tempfile::TempDir, AuditLog) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        fs::write(&path, lines).unwrap();
        (folder, AuditLog::new(path))
    }

    fn event(verb: &str, object: Value, code: u16, request: Value, response: Value) -> Value {
        json!({
            "stage": "ResponseComplete", "verb": verb, "user": {"username": OPERATOR}, "requestURI": "/x",
            "objectRef": object, "responseStatus": {"code": code},
            "requestObject": request, "responseObject": response,
            "requestReceivedTimestamp": "2026-11-22T10:00:00.000001Z", "stageTimestamp": "2026-11-22T10:00:00.000002Z",
        })
    }

    fn workload() -> Value {
        json!({"apiGroup": "apps", "resource": "statefulsets", "namespace": "kube-system", "name": "virtual-node-eci"})
    }

    #[test]
    fn only_accepted_changes_of_the_count_are_changes() {
        let replicas = |count: i64| json!({"spec": {"replicas": count}});
        let mut scale = workload();
        scale["subresource"] = json!("scale");
        let (_folder, log) = log(&[
            event("patch", workload(), 200, json!({}), replicas(3)),
            event("patch", workload(), 200, json!({}), replicas(3)),
            event("patch", workload(), 422, json!({}), json!({"kind": "Status"})),
            event("patch", scale, 200, json!({}), replicas(2)),
        ]);
        let changes = log.replicas_changes("kube-system", "virtual-node-eci").unwrap();
        let counts: Vec<_> = changes.iter().map(|change| (change.from, change.to)).collect();
        assert_eq!(counts, [(None, 3), (Some(3), 2)]);
    }

    #[test]
    fn an_eviction_shows_its_uid_precondition() {
        let pod =
            json!({"resource": "pods", "subresource": "eviction", "namespace": "shop", "name": "web-1"});
        let body = json!({"deleteOptions": {"preconditions": {"uid": "u-1"}}});
        let (_folder, log) = log(&[event("create", pod, 429, body, json!({}))]);
        let evictions = log.evictions().unwrap();
        assert_eq!(evictions.len(), 1);
        assert_eq!(evictions[0].pod, "shop/web-1");
        assert_eq!(evictions[0].code, 429);
        assert_eq!(evictions[0].uid_precondition.as_deref(), Some("u-1"));
    }

    #[test]
    fn a_line_in_the_making_is_left_for_the_next_look() {
        let (_folder, log) = log(&[event("create", workload(), 201, json!({}), json!({}))]);
        let mut content = fs::read(&log.path).unwrap();
        content.extend_from_slice(b"{\"stage\": \"Resp");
        fs::write(&log.path, content).unwrap();
        assert_eq!(log.events().unwrap().len(), 1);
    }
}
