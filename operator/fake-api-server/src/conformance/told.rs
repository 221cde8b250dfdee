//! Answers without what differs from run to run.

use serde_json::{Map, Value, json};

use super::Recorder;

impl Recorder {
    /// The same value with placeholders for times, versions, UIDs and continue tokens.
    pub(super) fn steady(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(map) => self.steady_map(map),
            Value::Array(list) => list.iter().map(|v| self.steady(v)).collect(),
            Value::String(text) => json!(self.told(text)),
            other => other.clone(),
        }
    }

    fn steady_map(&mut self, map: &Map<String, Value>) -> Value {
        let mut out = Map::new();
        for (name, value) in map {
            let value = match (name.as_str(), value) {
                ("resourceVersion", Value::String(_)) => json!("<version>"),
                ("continue", Value::String(token)) if !token.is_empty() => json!("<token>"),
                ("managedFields", Value::Array(entries)) => {
                    let mut entries: Vec<Value> = entries.iter().map(|e| self.steady(e)).collect();
                    entries.sort_by_key(|e| {
                        let text = |field: &str| e[field].as_str().unwrap_or_default().to_owned();
                        (text("manager"), text("operation"), text("subresource"))
                    });
                    Value::Array(entries)
                }
                _ => self.steady(value),
            };
            out.insert(name.clone(), value);
        }
        // Of Events the owners of fields would differ by group, and nobody looks at them.
        if (map.contains_key("involvedObject") || map.contains_key("regarding"))
            && out.contains_key("metadata")
        {
            out["metadata"]
                .as_object_mut()
                .map(|meta| meta.shift_remove("managedFields"));
        }
        Value::Object(out)
    }

    /// The same text with placeholders.
    pub(super) fn told(&mut self, text: &str) -> String {
        if is_time(text) {
            return "<time>".to_owned();
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = (0..rest.len()).find(|at| rest.get(*at..at + 36).is_some_and(is_uid)) {
            out.push_str(&rest[..at]);
            let uid = &rest[at..at + 36];
            let number = self.uids.len();
            let name = self
                .uids
                .entry(uid.to_owned())
                .or_insert_with(|| format!("<uid {number}>"));
            out.push_str(name);
            rest = &rest[at + 36..];
        }
        out.push_str(rest);
        versions(&out)
    }
}

fn is_uid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    })
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

/// Versions within messages and URLs.
fn versions(text: &str) -> String {
    let mut out = text.to_owned();
    for before in [
        "resourceVersion=",
        "resource version: ",
        "record (",
        "precondition (",
        "continue=",
    ] {
        if let Some(at) = out.find(before).map(|at| at + before.len()) {
            let end = out[at..].find([')', '&', ' ']).map_or(out.len(), |len| at + len);
            let digits = out[at..end].bytes().all(|b| b.is_ascii_digit()) && end > at;
            if digits || before == "continue=" {
                out.replace_range(at..end, "<version>");
            }
        }
    }
    out
}
