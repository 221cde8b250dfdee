//! AdmissionReview v1 on the wire: what is asked, and the answer, which always allows.

use std::collections::BTreeMap;

use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::Serialize;
use serde_json::{Map, Value};
use vnp_plan::placement::{self, LeftAlone, Placing, VirtualNodes};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// One question of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// To be repeated in the answer.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// What is to be created. Null when the request names nothing.
    pub pod: Value,
}

/// What was sent is no AdmissionReview v1 with a request.
#[derive(Debug, thiserror::Error)]
pub enum NotAReview {
    /// It is not JSON, or a list or a scalar.
    #[error("the body is no JSON object")]
    Json(#[from] serde_json::Error),
    /// It is something else.
    #[error("the body is {kind:?} of {api_version:?}; AdmissionReview of {API_VERSION} is served here")]
    Other {
        /// Its kind.
        kind: String,
        /// Its apiVersion.
        api_version: String,
    },
    /// It asks nothing, or can't be answered.
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
    /// Its namespace is no text.
    #[error("request.namespace of the AdmissionReview is no text")]
    Namespace,
}

/// Reads a request body. All of it is read as JSON: serde's derived readers take lists for objects, and don't look at what
/// they leave out.
///
/// # Errors
/// [`NotAReview`] says what it is instead.
pub fn read(body: &[u8]) -> Result<Question, NotAReview> {
    let mut review: Map<String, Value> = serde_json::from_slice(body)?;
    let said = |field| review.get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, api_version) = (said("kind"), said("apiVersion"));
    if kind != KIND || api_version != API_VERSION {
        return Err(NotAReview::Other {
            kind: kind.to_owned(),
            api_version: api_version.to_owned(),
        });
    }
    let Some(Value::Object(mut request)) = review.remove("request") else {
        return Err(NotAReview::NoRequest);
    };
    let uid = match request.remove("uid") {
        Some(Value::String(uid)) if !uid.is_empty() => uid,
        _ => return Err(NotAReview::NoRequest),
    };
    let namespace = match request.remove("namespace") {
        Some(Value::String(namespace)) => namespace,
        None | Some(Value::Null) => String::new(),
        Some(_) => return Err(NotAReview::Namespace),
    };
    Ok(Question {
        uid,
        namespace,
        pod: request.remove("object").unwrap_or_default(),
    })
}

/// What a question comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The response body.
    pub body: Vec<u8>,
    /// What became of the pod.
    pub outcome: Outcome,
    /// A rule or a label selects it, and no virtual node can run it.
    pub left_alone: Option<LeftAlone>,
}

/// What became of a pod. It is allowed in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is changed.
    Mutated,
    /// Nothing is to be changed.
    Unchanged,
    /// It can't be read, and why.
    Unreadable(String),
}

impl Outcome {
    /// Its name in the metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Mutated => "mutated",
            Self::Unchanged => "unchanged",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl Question {
    /// The answer of all pools to it, by the labels of its namespace and the virtual nodes that are there.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn answer(
        &self,
        placing: &Placing,
        namespace_labels: &BTreeMap<String, String>,
        nodes: &VirtualNodes,
    ) -> Result<Answered, serde_json::Error> {
        let mutation = placing.mutate(&placement::Review {
            pod: &self.pod,
            namespace: &self.namespace,
            namespace_labels,
            nodes,
        });
        let outcome = match &mutation.unreadable {
            Some(why) => Outcome::Unreadable(why.to_string()),
            None if mutation.patch.0.is_empty() => Outcome::Unchanged,
            None => Outcome::Mutated,
        };
        Ok(Answered {
            body: allow(&self.uid, &mutation.patch, &mutation.warnings)?,
            outcome,
            left_alone: mutation.left_alone,
        })
    }

    /// Namespace and name of the pod; what its name begins with, where the API server makes one.
    pub fn named(&self) -> String {
        let metadata = |field| {
            self.pod["metadata"][field]
                .as_str()
                .filter(|name| !name.is_empty())
        };
        let name = metadata("name")
            .or_else(|| metadata("generateName"))
            .unwrap_or("a pod without a name");
        format!("{}/{name}", self.namespace)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

/// The answer that allows the pod, changed by `patch`.
///
/// # Errors
/// When it can't be written as JSON.
fn allow(uid: &str, patch: &Patch, warnings: &[String]) -> Result<Vec<u8>, serde_json::Error> {
    let patch = match patch.0.as_slice() {
        [] => None,
        _ => Some(ByteString(serde_json::to_vec(patch)?)),
    };
    serde_json::to_vec(&Answer {
        api_version: API_VERSION,
        kind: KIND,
        response: Response {
            uid,
            allowed: true,
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
            warnings,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(overlay: Value) -> Vec<u8> {
        let mut review = json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "request": {"uid": "u", "namespace": "shop", "object": {"kind": "Pod"}, "dryRun": false},
        });
        json_patch::merge(&mut review, &overlay);
        serde_json::to_vec(&review).unwrap()
    }

    #[test]
    fn a_question_is_read() {
        let question = read(&body(json!({}))).unwrap();
        assert_eq!(
            (question.uid.as_str(), question.namespace.as_str()),
            ("u", "shop")
        );
        assert_eq!(question.pod, json!({"kind": "Pod"}));
        let nothing = read(&body(json!({"request": {"object": null, "namespace": null}}))).unwrap();
        assert_eq!(nothing.pod, Value::Null);
    }

    #[test]
    fn what_is_no_question_is_named() {
        for overlay in [
            json!({"apiVersion": "admission.k8s.io/v1beta1"}),
            json!({"kind": "Pod"}),
            json!({"request": null}),
            json!({"request": {"uid": ""}}),
            json!({"request": {"uid": 7}}),
            json!({"request": {"namespace": 7}}),
        ] {
            assert!(read(&body(overlay.clone())).is_err(), "{overlay}");
        }
        let list = br#"["admission.k8s.io/v1","AdmissionReview",["u","shop",{}]]"#;
        for bytes in [&b""[..], b"null", b"{}", b"[]", b"\xff", b"{\"a\":", list] {
            assert!(read(bytes).is_err());
        }
        let deep = format!(r#"{{"request":{}"#, "[".repeat(100_000));
        assert!(read(deep.as_bytes()).is_err());
        let mut unread = body(json!({"other": "?"}));
        for byte in &mut unread {
            *byte = if *byte == b'?' { 0xff } else { *byte };
        }
        assert!(read(&unread).is_err(), "what nobody looks at must be JSON too");
    }

    #[test]
    fn an_answer_carries_its_patch_in_base64() {
        let patch: Patch = serde_json::from_value(json!([{"op": "add", "path": "/a", "value": 1}])).unwrap();
        let answer: Value = serde_json::from_slice(&allow("u", &patch, &["w".into()]).unwrap()).unwrap();
        assert_eq!(
            answer,
            json!({"apiVersion": API_VERSION, "kind": KIND, "response": {
                "uid": "u", "allowed": true, "patchType": "JSONPatch",
                "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d", "warnings": ["w"]}})
        );
        let plain: Value = serde_json::from_slice(&allow("u", &Patch::default(), &[]).unwrap()).unwrap();
        assert_eq!(plain["response"], json!({"uid": "u", "allowed": true}));
    }
}
