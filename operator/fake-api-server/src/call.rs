//! A request, taken apart.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use crate::kinds::{self, Kind};
use crate::refusal::Refusal;

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks: the name that the client was made with.
    pub client: String,
    /// The how many-th request of this client, from 0, reads and watches included.
    pub number: u64,
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// Path without query.
    pub path: String,
    /// Query, decoded.
    pub query: BTreeMap<String, String>,
    /// `Content-Type` of the body.
    pub content_type: String,
    /// Body, null for none.
    pub body: Value,
    /// What it is about.
    pub about: About,
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The resource.
    pub kind: &'static Kind,
    /// Group as in the URL; `events` are served under two.
    pub group: String,
    /// Namespace, empty for none.
    pub namespace: String,
    /// Name, empty for the collection.
    pub name: String,
    /// `status`, `eviction` or empty.
    pub subresource: String,
}

impl Call {
    pub(crate) fn parse(method: &Method, path: &str, query: &str) -> Result<Self, Refusal> {
        let query = parse_query(query);
        let about = About::parse(path).ok_or_else(|| {
            Refusal::new(
                404,
                "NotFound",
                "the server could not find the requested resource",
            )
        })?;
        let watching = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
        let verb = match (method.as_str(), about.name.is_empty()) {
            ("GET", true) if watching => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", false) => "update",
            ("PATCH", false) => "patch",
            ("DELETE", false) => "delete",
            _ => {
                let message = "the server does not allow this method on the requested resource";
                return Err(Refusal::new(405, "MethodNotAllowed", message));
            }
        };
        Ok(Self {
            client: String::new(),
            number: 0,
            verb,
            path: path.to_owned(),
            query,
            content_type: String::new(),
            body: Value::Null,
            about,
        })
    }

    /// Changes something, if it succeeds.
    pub fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }

    /// A parameter of the query; an empty one counts as absent.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "1"))
    }
}

impl About {
    fn parse(path: &str) -> Option<Self> {
        let mut parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let (group, version) = match parts.first()?.as_str() {
            "api" if parts.len() >= 3 => {
                parts.remove(0);
                (String::new(), parts.remove(0))
            }
            "apis" if parts.len() >= 4 => {
                parts.remove(0);
                (parts.remove(0), parts.remove(0))
            }
            _ => return None,
        };
        let mut namespace = String::new();
        let own_subresource = |s: &str| matches!(s, "status" | "finalize");
        if parts[0] == "namespaces" && parts.len() >= 3 && !own_subresource(&parts[2]) {
            parts.remove(0);
            namespace = parts.remove(0);
        }
        let mut parts = parts.into_iter();
        let kind = kinds::served(&group, &version, &parts.next()?)?;
        let name = parts.next().unwrap_or_default();
        let subresource = parts.next().unwrap_or_default();
        let known = match subresource.as_str() {
            "" => true,
            "status" => kind.status,
            "eviction" => kind.pod(),
            _ => false,
        };
        (known && parts.next().is_none()).then_some(Self {
            kind,
            group,
            namespace,
            name,
            subresource,
        })
    }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_object() {
        let about =
            |path: &str| About::parse(path).map(|a| (a.kind.resource, a.namespace, a.name, a.subresource));
        let own =
            |a: &'static str, b: &str, c: &str, d: &str| Some((a, b.to_owned(), c.to_owned(), d.to_owned()));
        assert_eq!(about("/api/v1/pods"), own("pods", "", "", ""));
        assert_eq!(
            about("/api/v1/namespaces/shop/pods/web/eviction"),
            own("pods", "shop", "web", "eviction")
        );
        assert_eq!(
            about("/api/v1/namespaces/shop"),
            own("namespaces", "", "shop", "")
        );
        assert_eq!(
            about("/api/v1/namespaces/shop/status"),
            own("namespaces", "", "shop", "status")
        );
        assert_eq!(
            about("/apis/apps/v1/namespaces/a/statefulsets/b"),
            own("statefulsets.apps", "a", "b", "")
        );
        assert_eq!(about("/apis/apps/v1/namespaces/a/deployments/b"), None);
        assert_eq!(parse_query("a=b%3Dc&d=")["a"], "b=c");
    }
}
