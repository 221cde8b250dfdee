//! Why a write did not happen, and what follows from it.

use std::fmt;
use std::time::Duration;

use kube::core::Status;
use vnp_plan::refuser::Refuser;

use crate::runtime::lease::LeaseLost;

/// What was to be written: verb and resource as in RBAC rules, and the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `create`, `patch` or `delete`.
    pub verb: &'static str,
    /// Resource with its group, for instance `statefulsets.apps`.
    pub resource: &'static str,
    /// Namespace, `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            namespace,
            name,
        } = self;
        match namespace {
            Some(namespace) => write!(f, "{verb} {resource} {namespace}/{name}"),
            None => write!(f, "{verb} {resource} {name}"),
        }
    }
}

/// What to do after a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Observe and plan again at once: the object is not what the plan was made for.
    LookAgain,
    /// Try again after a pause: the API server could not.
    Later,
    /// The same write is refused until a person changes something; try again slowly and say so.
    Person,
    /// Nothing: this process writes no more.
    Stop,
}

/// Why a step failed. Messages are stable: the same failure gives the same words.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The lease was not held when the write was due.
    #[error("{target}: not written")]
    LeaseLost {
        /// The write.
        target: Target,
        /// Cause.
        #[source]
        source: LeaseLost,
    },
    /// The object changed, went or came since it was read: a precondition did its work.
    #[error("{target}: it is not what it was when this was planned; it is looked at again")]
    Moved {
        /// The write.
        target: Target,
        /// The server's answer.
        #[source]
        source: Box<Status>,
    },
    /// The API server does not know who asks.
    #[error(
        "{target}: the API server does not accept the operator's token: {}; see its ServiceAccount",
        source.message
    )]
    Unauthenticated {
        /// The write.
        target: Target,
        /// The server's answer.
        #[source]
        source: Box<Status>,
    },
    /// Permissions are missing.
    #[error(
        "not allowed to {target}: bind the operator's ServiceAccount to a Role with verb {} on {} as config/rbac does",
        target.verb,
        target.resource
    )]
    Forbidden {
        /// The write.
        target: Target,
        /// The server's answer.
        #[source]
        source: Box<Status>,
    },
    /// The server, a policy or a webhook refuses the content.
    #[error("{target}: {} refuses it: {}", refuser(source), source.message)]
    Refused {
        /// The write.
        target: Target,
        /// The server's answer.
        #[source]
        source: Box<Status>,
    },
    /// The server could not: overloaded, in trouble, out of reach. The write may have happened.
    #[error("{target}: the API server could not do it now; it is tried again")]
    Unavailable {
        /// The write.
        target: Target,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time. The write may have happened.
    #[error("{target}: no answer within {} seconds; it is tried again", limit.as_secs())]
    TooLate {
        /// The write.
        target: Target,
        /// How long was waited.
        limit: Duration,
    },
    /// The plan asks for something that is no request.
    #[error("{target}: it can't be written as a request")]
    Unwritable {
        /// The write.
        target: Target,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ApplyError {
    pub(super) fn of(target: Target, error: kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            other => {
                return Self::Unavailable {
                    target,
                    source: Box::new(other),
                };
            }
        };
        match status.code {
            // Whoever refuses at admission chooses the code: 404 is not "gone" then, and 409 no lost race.
            _ if Refuser::of(&status.message).is_some() => Self::Refused {
                target,
                source: status,
            },
            401 => Self::Unauthenticated {
                target,
                source: status,
            },
            403 if status.message.contains(" cannot ") => Self::Forbidden {
                target,
                source: status,
            },
            // Only a POST can meet a missing namespace; everything else misses its object.
            404 if target.verb == "create" => Self::Refused {
                target,
                source: status,
            },
            404 | 409 => Self::Moved {
                target,
                source: status,
            },
            422 if test_failed(&status) || other_uid(&status) => Self::Moved {
                target,
                source: status,
            },
            // An apply with a field that the schema does not have is our fault, although the server takes it for its own.
            500 if status.message.contains("field not declared in schema") => Self::Refused {
                target,
                source: status,
            },
            429 | 500.. => Self::Unavailable {
                target,
                source: Box::new(kube::Error::Api(status)),
            },
            _ => Self::Refused {
                target,
                source: status,
            },
        }
    }

    /// What follows.
    pub fn retry(&self) -> Retry {
        match self {
            Self::LeaseLost { .. } => Retry::Stop,
            Self::Moved { .. } => Retry::LookAgain,
            Self::Unavailable { .. } | Self::TooLate { .. } => Retry::Later,
            Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::Refused { .. }
            | Self::Unwritable { .. } => Retry::Person,
        }
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::LeaseLost { .. } => "lease_lost",
            Self::Moved { .. } => "moved",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::Forbidden { .. } => "forbidden",
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::TooLate { .. } => "too_late",
            Self::Unwritable { .. } => "unwritable",
        }
    }
}

/// Who refused a write.
fn refuser(status: &Status) -> String {
    Refuser::of(&status.message).map_or_else(|| "the API server".to_owned(), |by| by.to_string())
}

/// A JSON patch whose `test` did not hold, and nothing else: the server then names no object and no cause, as it does
/// when validation fails. Source: apiserver `pkg/endpoints/handlers/patch.go`, `NewGenericServerResponse`.
fn test_failed(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_none_or(|d| d.kind.is_empty() && d.causes.is_empty())
}

/// A patch or apply that carries another UID than the object has: validation calls the field immutable.
fn other_uid(status: &Status) -> bool {
    let causes = status.details.as_ref().map_or(&[][..], |d| &d.causes);
    causes.iter().any(|c| c.field == "metadata.uid")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(verb: &'static str) -> Target {
        Target {
            verb,
            resource: "statefulsets.apps",
            namespace: Some("kube-system".into()),
            name: "virtual-node-eci".into(),
        }
    }

    fn error(verb: &'static str, code: u16, message: &str, details: Value) -> ApplyError {
        let status: Status = serde_json::from_value(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message,
            "details": details,
        }))
        .unwrap();
        ApplyError::of(target(verb), kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_failed_test_is_looked_at_again_and_a_bad_value_is_not() {
        let moved = error(
            "patch",
            422,
            "the server rejected our request due to an error in our request",
            json!({}),
        );
        assert_eq!(moved.retry(), Retry::LookAgain);
        let invalid = error(
            "patch",
            422,
            "StatefulSet.apps \"virtual-node-eci\" is invalid: spec: Forbidden: updates to statefulset spec",
            json!({"kind": "StatefulSet", "group": "apps", "causes": [{"reason": "FieldValueForbidden", "field": "spec"}]}),
        );
        assert_eq!(invalid.retry(), Retry::Person);
        assert!(
            invalid.to_string().contains("updates to statefulset spec"),
            "{invalid}"
        );
    }

    #[test]
    fn another_uid_is_no_bad_value() {
        let other = error(
            "patch",
            422,
            "Node \"vn-2\" is invalid: metadata.uid: Invalid value: \"a\": field is immutable",
            json!({"kind": "Node", "causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}),
        );
        assert_eq!(other.retry(), Retry::LookAgain);
    }

    #[test]
    fn a_field_that_does_not_exist_is_for_a_person() {
        let misspelt = error(
            "patch",
            500,
            "failed to create typed patch object (kube-system/virtual-node-eci; apps/v1, Kind=StatefulSet): .spec.minReadySecond: field not declared in schema",
            json!({}),
        );
        assert_eq!(misspelt.retry(), Retry::Person);
    }

    #[test]
    fn preconditions_and_absence_are_looked_at_again() {
        let stale = error(
            "patch",
            409,
            "the object has been modified",
            json!({"kind": "statefulsets"}),
        );
        assert_eq!(stale.retry(), Retry::LookAgain);
        assert_eq!(
            error("patch", 404, "not found", json!({"kind": "statefulsets"})).retry(),
            Retry::LookAgain
        );
    }

    #[test]
    fn a_missing_namespace_is_for_a_person() {
        let missing = error(
            "create",
            404,
            "namespaces \"kube-sistem\" not found",
            json!({"kind": "namespaces"}),
        );
        assert_eq!(missing.retry(), Retry::Person);
    }

    #[test]
    fn missing_permission_names_verb_and_resource() {
        let denied = error(
            "patch",
            403,
            "statefulsets.apps \"virtual-node-eci\" is forbidden: User \"x\" cannot patch resource \"statefulsets\" in API group \"apps\" in the namespace \"kube-system\"",
            json!({}),
        );
        assert_eq!(denied.retry(), Retry::Person);
        assert_eq!(
            denied.to_string(),
            "not allowed to patch statefulsets.apps kube-system/virtual-node-eci: bind the operator's ServiceAccount to a \
             Role with verb patch on statefulsets.apps as config/rbac does"
        );
    }

    #[test]
    fn who_is_not_known_lacks_no_role() {
        let unknown = error("patch", 401, "Unauthorized", json!({}));
        assert_eq!(unknown.retry(), Retry::Person);
        assert_eq!(unknown.label(), "unauthenticated");
        assert_eq!(
            unknown.to_string(),
            "patch statefulsets.apps kube-system/virtual-node-eci: the API server does not accept the operator's token: \
             Unauthorized; see its ServiceAccount"
        );
    }

    #[test]
    fn a_policy_speaks_for_itself() {
        let policy = error(
            "delete",
            403,
            "admission webhook \"guard\" denied the request: frozen",
            json!({}),
        );
        assert!(matches!(policy, ApplyError::Refused { .. }));
        assert!(policy.to_string().contains("frozen"), "{policy}");
    }

    #[test]
    fn whoever_refuses_at_admission_is_named_whatever_code_it_chooses() {
        for verb in ["create", "patch", "delete"] {
            for code in [400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504] {
                for (text, named) in [
                    (
                        "admission webhook \"guard\" denied the request: it cannot be",
                        "admission webhook guard refuses it",
                    ),
                    (
                        "Internal error occurred: failed calling webhook \"guard\": timeout",
                        "admission webhook guard refuses it",
                    ),
                    (
                        "nodes \"vn-2\" is forbidden: ValidatingAdmissionPolicy 'frozen' with binding 'b' denied request: no",
                        "ValidatingAdmissionPolicy frozen refuses it",
                    ),
                ] {
                    let refused = error(verb, code, text, json!({}));
                    assert!(
                        matches!(refused, ApplyError::Refused { .. }),
                        "{code} {text}: {refused:?}"
                    );
                    assert!(refused.to_string().contains(named), "{refused}");
                }
            }
        }
    }

    #[test]
    fn trouble_of_the_server_passes() {
        for code in [429, 500, 503, 504] {
            assert_eq!(
                error("patch", code, "etcdserver: request timed out", json!({})).retry(),
                Retry::Later
            );
        }
    }
}
