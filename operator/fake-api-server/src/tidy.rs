//! Objects as the server stores them.

use serde_json::Value;

use crate::kinds::Kind;
use crate::shape;

/// As the server would store it: no unknown fields, no nulls, no empty maps and lists where Go leaves them out.
pub(crate) fn tidied(kind: &Kind, mut object: Value) -> Value {
    shape::prune(shape::of(kind), &mut object);
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.retain(|_, v| !empty(v));
    }
    if !kind.custom() {
        drop_empty(&mut object);
    }
    object
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => value.is_null(),
    }
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|name, v| match v {
                Value::Array(list) => !list.is_empty(),
                Value::Bool(on) if name == "unschedulable" => *on,
                Value::Object(map) if map.is_empty() => {
                    !["labels", "annotations", "nodeSelector", "matchLabels", "data"].contains(&name.as_str())
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// Removes a field.
pub(crate) fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(field);
    }
}

/// Sets a field; null removes it.
pub(crate) fn set(value: &mut Value, field: &str, to: Value) {
    if to.is_null() {
        remove(value, field);
    } else {
        value[field] = to;
    }
}
