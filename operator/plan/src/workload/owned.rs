//! What a field manager owns of an object, from `metadata.managedFields` (`fieldsV1`). The API server's bookkeeping knows
//! what we applied, whatever it made of the values (quantities, defaults), and who took a field from us.

use serde_json::{Map, Value, json};
use vnp_crds::FIELD_MANAGER;

use crate::observed::Workload;

/// The fields of our server-side apply; `None` before the first one.
pub(super) fn applied(workload: &Workload) -> Option<&Value> {
    let entries = workload.raw.pointer("/metadata/managedFields")?.as_array()?;
    entries
        .iter()
        .find(|e| {
            e.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER)
                && e.get("operation").and_then(Value::as_str) == Some("Apply")
                && e.get("subresource")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .is_empty()
        })
        .and_then(|e| e.get("fieldsV1"))
}

/// The first field of `body` that is not among `fields`, as a path of `fieldsV1` keys.
pub(crate) fn first_lost(fields: &Value, body: &Value) -> Option<Vec<String>> {
    // A leaf, or something that is owned as a whole.
    if leaf(fields) {
        return None;
    }
    let below = |key: String, value: &Value| match fields.get(&key) {
        Some(child) => first_lost(child, value).map(|mut path| {
            path.insert(0, key);
            path
        }),
        None => Some(vec![key]),
    };
    match body {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !empty(v))
            .find_map(|(k, v)| below(format!("f:{k}"), v)),
        Value::Array(items) => items.iter().find_map(|item| below(item_key(fields, item), item)),
        _ => None,
    }
}

/// The part of `live` that is among `fields`.
pub(super) fn extract(fields: &Value, live: &Value) -> Value {
    let Some(keys) = fields.as_object().filter(|keys| !keys.is_empty()) else {
        return live.clone();
    };
    match live {
        Value::Object(map) => map
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), extract(keys.get(&format!("f:{k}"))?, v))))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .iter()
            .filter_map(|item| Some(extract(keys.get(&item_key(fields, item))?, item)))
            .collect::<Vec<_>>()
            .into(),
        other => other.clone(),
    }
}

/// Whether `wanted` says something that `live` does not; what the server added to `live` does not count.
pub(super) fn differs(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .filter(|(_, v)| !empty(v))
            .any(|(k, v)| live.get(k).is_none_or(|there| differs(v, there))),
        _ => wanted != live,
    }
}

/// Who owns the field at a path of `fieldsV1` keys, other than us: the one who wrote last.
pub(super) fn other_owner<'a>(workload: &'a Workload, path: &[String]) -> Option<&'a str> {
    let entries = workload.raw.pointer("/metadata/managedFields")?.as_array()?;
    let owns = |e: &Value| {
        let within = |at, key| if leaf(at) { Some(at) } else { at.get(key) };
        e.get("fieldsV1")
            .and_then(|fields| path.iter().try_fold(fields, within))
            .is_some()
    };
    let time = |e: &Value| {
        e.get("time")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    entries
        .iter()
        .filter(|e| e.get("manager").and_then(Value::as_str) != Some(FIELD_MANAGER) && owns(e))
        .max_by_key(|e| time(e))
        .and_then(|e| e.get("manager")?.as_str())
}

/// A path for people: `spec.template.spec.containers[virtual-node].env[ECI_VSWITCH]`.
pub(super) fn readable(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        match key.split_once(':') {
            Some(("f", name)) if text.is_empty() => text.push_str(name),
            Some(("f", name)) => text.extend([".", name]),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let names: Vec<&str> = keys.values().filter_map(Value::as_str).collect();
                text.extend(["[", &names.join(","), "]"]);
            }
            _ => text.extend(["[", key, "]"]),
        }
    }
    text
}

fn leaf(fields: &Value) -> bool {
    fields.as_object().is_none_or(Map::is_empty)
}

/// The server drops these, so that nobody owns them.
fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// The key under which `fields` knows an item of a list: by its key fields (`k:`) or by its value (`v:`).
fn item_key(fields: &Value, item: &Value) -> String {
    let known = fields
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .find(|key| match key.split_once(':') {
            Some(("k", keys)) => serde_json::from_str::<Map<String, Value>>(keys)
                .is_ok_and(|keys| keys.iter().all(|(k, v)| item.get(k) == Some(v))),
            Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok_and(|v| v == *item),
            _ => false,
        });
    known.cloned().unwrap_or_else(|| match item.get("name") {
        Some(name) => format!("k:{}", json!({ "name": name })),
        None => format!("v:{item}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Value {
        json!({ "f:spec": { "f:template": { "f:spec": {
            "f:nodeSelector": {},
            "f:containers": { "k:{\"name\":\"vk\"}": {
                ".": {}, "f:name": {}, "f:image": {},
                "f:env": { ".": {}, "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } },
            } },
        } } } })
    }

    fn body(image: &str, env: Value) -> Value {
        json!({ "spec": { "template": { "spec": {
            "nodeSelector": { "a": "b" },
            "containers": [{ "name": "vk", "image": image, "env": env, "args": [] }],
        } } } })
    }

    #[test]
    fn all_is_ours_until_a_field_is_lost() {
        let a = json!({ "name": "A", "value": "1" });
        assert_eq!(first_lost(&fields(), &body("x", json!([a]))), None);
        let lost = first_lost(&fields(), &body("x", json!([a, { "name": "B", "value": "2" }]))).unwrap();
        assert_eq!(readable(&lost), "spec.template.spec.containers[vk].env[B]");
        let mut taken = fields();
        taken["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"vk\"}"]
            .as_object_mut()
            .unwrap()
            .remove("f:image");
        let lost = first_lost(&taken, &body("x", json!([a]))).unwrap();
        assert_eq!(readable(&lost), "spec.template.spec.containers[vk].image");
    }

    #[test]
    fn only_what_we_own_is_extracted() {
        let live = json!({ "spec": { "replicas": 3, "template": { "spec": {
            "nodeSelector": { "a": "b" }, "dnsPolicy": "ClusterFirst",
            "containers": [
                { "name": "side", "image": "s" },
                { "name": "vk", "image": "x", "imagePullPolicy": "Always",
                  "env": [{ "name": "Z", "value": "0" }, { "name": "A", "value": "1" }] },
            ],
        } } } });
        assert_eq!(
            extract(&fields(), &live),
            json!({ "spec": { "template": { "spec": {
                "nodeSelector": { "a": "b" },
                "containers": [{ "name": "vk", "image": "x", "env": [{ "name": "A", "value": "1" }] }],
            } } } })
        );
    }

    #[test]
    fn the_one_who_took_a_field_is_named() {
        let entry = |manager: &str, time: &str, fields: Value| json!({ "manager": manager, "operation": "Update", "time": time, "fieldsV1": fields });
        let workload = Workload::new(json!({ "metadata": { "managedFields": [
            entry("argocd", "2026-01-02T00:00:00Z", fields()),
            entry("kubectl", "2026-01-01T00:00:00Z", fields()),
            entry(FIELD_MANAGER, "2026-01-03T00:00:00Z", fields()),
        ] } }));
        let path = first_lost(&json!({ "f:x": {} }), &json!({ "spec": 1 })).unwrap();
        assert_eq!(other_owner(&workload, &path), Some("argocd"));
        assert_eq!(other_owner(&workload, &["f:status".to_owned()]), None);
    }
}
