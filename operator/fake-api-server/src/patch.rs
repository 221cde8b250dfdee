//! JSON patch, merge patch and strategic merge patch.

use serde_json::{Map, Value};

use crate::operations;
use crate::refusal::Refusal;
use crate::shape::{Form, Shape, key_of};
use crate::write::Write;

/// What a patch is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Patches an object.
pub(crate) fn patch(
    write: &mut Write<'_>,
    name: &str,
    how: PatchKind,
    body: &Value,
) -> Result<Value, Refusal> {
    let old = write.found(name)?;
    let shape = crate::shape::of(write.kind);
    let new = match how {
        PatchKind::Json => json_patch(&old, body)?,
        PatchKind::Strategic if write.kind.custom() => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            return Err(Refusal::new(415, "UnsupportedMediaType", message));
        }
        PatchKind::Strategic => strategic(shape, &old, body),
        PatchKind::Merge | PatchKind::Apply => {
            let mut new = old.clone();
            json_patch::merge(&mut new, body);
            new
        }
    };
    if write.strict {
        crate::write::strictly(write.kind, &new)?;
    }
    write.update(name, &old, new, None)
}

fn json_patch(old: &Value, body: &Value) -> Result<Value, Refusal> {
    let refused = || {
        Refusal::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    };
    let operations = body
        .as_array()
        .ok_or_else(|| Refusal::bad_request("error decoding patch: it is no list of operations"))?;
    operations::apply(old, operations).map_err(|_| refused())
}

/// A strategic merge patch: maps merge, lists with keys merge by them, `$patch` deletes or replaces.
fn strategic(shape: Shape<'_>, old: &Value, patch: &Value) -> Value {
    match patch {
        Value::Object(patch) => strategic_map(shape, old, patch),
        Value::Array(list) => strategic_list(shape, old, list),
        other => other.clone(),
    }
}

fn strategic_map(shape: Shape<'_>, old: &Value, patch: &Map<String, Value>) -> Value {
    let mut new = match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => Map::new(),
        _ => old.as_object().cloned().unwrap_or_default(),
    };
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        if value.is_null() {
            new.shift_remove(name);
            continue;
        }
        let before = new.get(name).cloned().unwrap_or_default();
        let after = match shape.field(name) {
            Some(inner) => strategic(inner, &before, value),
            None => value.clone(),
        };
        new.insert(name.clone(), after);
    }
    Value::Object(new)
}

fn strategic_list(shape: Shape<'_>, old: &Value, patch: &[Value]) -> Value {
    let mut new = old.as_array().cloned().unwrap_or_default();
    let mut added = 0;
    match shape.form() {
        Form::Keyed(mut keys) => {
            // Strategic merges know one key only.
            keys.truncate(1);
            for item in patch {
                let key = key_of(&keys, item);
                let at = new.iter().position(|other| key_of(&keys, other) == key);
                match (item["$patch"].as_str(), at) {
                    (Some("delete"), Some(at)) => drop(new.remove(at)),
                    (Some("delete"), None) => {}
                    (_, Some(at)) => new[at] = strategic(shape.item(), &new[at], item),
                    // New items come first, in their order.
                    (_, None) => {
                        new.insert(added, item.clone());
                        added += 1;
                    }
                }
            }
        }
        Form::Set => new.extend(
            patch
                .iter()
                .filter(|item| !old.as_array().is_some_and(|l| l.contains(item)))
                .cloned(),
        ),
        _ => new = patch.to_vec(),
    }
    Value::Array(new)
}
