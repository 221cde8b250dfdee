//! Answers that are refusals, in the words of the API server. Source: `apimachinery/pkg/api/errors/errors.go`.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// A `Status` with status `Failure`.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP code.
    pub code: u16,
    /// `reason`, empty for none.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
    /// `details`, null for none.
    pub details: Box<Value>,
    /// Header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Box::default(),
            retry_after: None,
        }
    }

    fn about(code: u16, reason: &'static str, kind: &Kind, name: &str, message: String) -> Self {
        Self {
            details: details(kind.group, kind.plural, name),
            ..Self::new(code, reason, message)
        }
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::about(
            404,
            "NotFound",
            kind,
            name,
            format!("{} \"{name}\" not found", kind.resource),
        )
    }

    pub(crate) fn exists(kind: &Kind, name: &str) -> Self {
        Self::about(
            409,
            "AlreadyExists",
            kind,
            name,
            format!("{} \"{name}\" already exists", kind.resource),
        )
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: impl fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.resource
        );
        Self::about(409, "Conflict", kind, name, message)
    }

    /// A precondition in `DeleteOptions` that does not hold; these answers name the kind and not the resource.
    pub(crate) fn other_than(
        kind: &Kind,
        name: &str,
        words: &str,
        expected: &str,
        found: &str,
        what: &str,
    ) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the {words} in the precondition ({expected}) does not match \
             the {words} in record ({found}). The object might have been {what}",
            qualified(kind)
        );
        Self {
            details: details(kind.group, kind.kind, name),
            ..Self::new(409, "Conflict", message)
        }
    }

    /// An update that says no version, to a kind that wants one.
    pub(crate) fn versionless(kind: &Kind, name: &str) -> Self {
        let cause = (
            "FieldValueInvalid",
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update".to_owned(),
        );
        let mut refusal = Self::invalid(kind, name, &[cause]);
        refusal.message = refusal.message.replacen(&qualified(kind), kind.resource, 1);
        refusal.details["kind"] = kind.plural.into();
        refusal
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// An object that another UID was expected of, as the storage says it.
    pub(crate) fn other_in_storage(
        kind: &Kind,
        namespace: &str,
        name: &str,
        expected: &str,
        found: &str,
    ) -> Self {
        let namespace = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{namespace}{name}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {expected}, UID in object meta: {found}",
            kind.registry
        );
        Self::conflict(kind, name, why)
    }

    /// Validation failed at one field.
    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[(&'static str, &str, String)]) -> Self {
        let words: Vec<String> = causes
            .iter()
            .map(|(_, field, message)| format!("{field}: {message}"))
            .collect();
        let all = match words.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut details = details(kind.group, kind.kind, name);
        details["causes"] = causes
            .iter()
            .map(|(reason, field, message)| json!({"reason": reason, "message": message, "field": field}))
            .collect();
        Self {
            details,
            ..Self::new(
                422,
                "Invalid",
                format!("{} \"{name}\" is invalid: {all}", qualified(kind)),
            )
        }
    }

    pub(crate) fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = if group.is_empty() {
            resource.to_owned()
        } else {
            format!("{resource}.{group}")
        };
        Self {
            details: details(group, resource, name),
            ..Self::new(
                403,
                "Forbidden",
                format!("{qualified} \"{name}\" is forbidden: {why}"),
            )
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 429 without cause.
    pub fn too_many(message: &str, retry_after: u32) -> Self {
        let mut refusal = Self::new(429, "TooManyRequests", message);
        if retry_after > 0 {
            refusal.details["retryAfterSeconds"] = retry_after.into();
            refusal.retry_after = Some(retry_after);
        }
        refusal
    }

    pub(crate) fn with_cause(mut self, reason: &str, message: &str) -> Self {
        let cause = json!({"reason": reason, "message": message});
        match self.details.get_mut("causes").and_then(Value::as_array_mut) {
            Some(causes) => causes.push(cause),
            None => self.details["causes"] = json!([cause]),
        }
        self
    }

    /// A version that a watch or a further page can't go back to.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if self.details.as_object().is_some_and(|d| !d.is_empty()) || self.reason == "Invalid" {
            body["details"] = if self.details.is_null() {
                json!({})
            } else {
                Value::clone(&self.details)
            };
        }
        body["code"] = self.code.into();
        body
    }
}

/// `Pod` or `StatefulSet.apps`.
fn qualified(kind: &Kind) -> String {
    if kind.group.is_empty() {
        kind.kind.to_owned()
    } else {
        format!("{}.{}", kind.kind, kind.group)
    }
}

fn details(group: &str, kind: &str, name: &str) -> Box<Value> {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), value.into());
        }
    }
    Box::new(Value::Object(details))
}
