//! Sets of fields as `managedFields` and messages write them.

use serde_json::{Map, Value};

use crate::fields::{Fields, Path};

/// As `fieldsV1` has it.
pub(crate) fn to_v1(fields: &Fields) -> Value {
    let mut root = Value::Object(Map::new());
    for path in fields {
        let mut at = &mut root;
        for step in path {
            at = &mut at[step.as_str()];
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
        }
        at["."] = Value::Object(Map::new());
    }
    lone(&mut root);
    root
}

/// A member without inner members is written as `{}` and not as `{".": {}}`.
fn lone(value: &mut Value) {
    let Value::Object(map) = value else { return };
    if map.len() == 1 && map.contains_key(".") {
        map.clear();
    }
    for (name, inner) in map.iter_mut() {
        if name != "." {
            lone(inner);
        }
    }
    map.sort_keys();
}

/// From `fieldsV1`.
pub(crate) fn from_v1(value: &Value) -> Fields {
    let mut out = Fields::new();
    read(value, &mut Vec::new(), &mut out);
    out
}

fn read(value: &Value, path: &mut Path, out: &mut Fields) {
    let Value::Object(map) = value else { return };
    if map.is_empty() && !path.is_empty() {
        out.insert(path.clone());
    }
    for (step, inner) in map {
        if step == "." {
            out.insert(path.clone());
        } else {
            path.push(step.clone());
            read(inner, path, out);
            path.pop();
        }
    }
}

/// The path as messages have it: `.spec.containers[name="c"].image`.
pub(crate) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if let Some(name) = step.strip_prefix("f:") {
            text.push('.');
            text.push_str(name);
        } else if let Some(key) = step.strip_prefix("k:") {
            let key: Value = serde_json::from_str(key).unwrap_or_default();
            let words: Vec<String> = key
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            text.push_str(&format!("[{}]", words.join(",")));
        } else if let Some(item) = step.strip_prefix("v:") {
            text.push_str(&format!("[={item}]"));
        }
    }
    text
}
