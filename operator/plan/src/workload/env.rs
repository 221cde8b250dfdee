//! Environment of a container in a workload as the server sent it. A name may occur several times; the last entry counts,
//! as in Kubernetes.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::patch::{add, pointer, remove, replace, test};

fn entries(container: &Value) -> &[Value] {
    container
        .get("env")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The entry that counts, and its place.
pub(super) fn entry<'a>(container: &'a Value, name: &str) -> Option<(usize, &'a Value)> {
    let named = |e: &Value| e.get("name").and_then(Value::as_str) == Some(name);
    entries(container).iter().enumerate().rfind(|(_, e)| named(e))
}

/// The value that counts. An entry without `value` is an empty one: the server drops empty strings.
pub(super) fn value<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    entry(container, name).map(|(_, e)| e.get("value").and_then(Value::as_str).unwrap_or_default())
}

/// Whether the entry that counts takes its value from another object or from the pod.
pub(super) fn is_reference(container: &Value, name: &str) -> bool {
    entry(container, name).is_some_and(|(_, e)| e.get("valueFrom").is_some())
}

/// Sets or removes the entries that count, each after a test of its name. New ones go to the end: `$(NAME)` sees only what
/// stands before it, so the order of what is there may not change. `index`: of the container.
pub(super) fn operations(
    container: &Value,
    index: usize,
    wanted: &BTreeMap<String, Option<String>>,
) -> Vec<PatchOperation> {
    let index = index.to_string();
    let path = |rest: &[&str]| {
        let mut tokens = vec!["spec", "template", "spec", "containers", index.as_str(), "env"];
        tokens.extend(rest);
        pointer(&tokens)
    };
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    let mut appended = Vec::new();
    for (name, new) in wanted {
        match (entry(container, name), new) {
            (Some((place, old)), Some(new)) => {
                let place = place.to_string();
                let target = path(&[&place, "value"]);
                let operation = match (old.get("value").is_some(), new.is_empty()) {
                    (true, true) => remove(target),
                    (true, false) => replace(target, json!(new)),
                    (false, true) => continue,
                    (false, false) => add(target, json!(new)),
                };
                changed.extend([test(path(&[&place, "name"]), json!(name)), operation]);
            }
            (Some((place, _)), None) => removed.push((place, name)),
            (None, Some(new)) if new.is_empty() => appended.push(json!({ "name": name })),
            (None, Some(new)) => appended.push(json!({ "name": name, "value": new })),
            (None, None) => {}
        }
    }
    let all = entries(container).len();
    if all > 0 && removed.len() == all && appended.is_empty() {
        changed.push(remove(path(&[])));
        return changed;
    }
    // From the end, so that the places of those still to go stay right.
    removed.sort_unstable_by(|a, b| b.cmp(a));
    for (place, name) in removed {
        let place = place.to_string();
        changed.extend([
            test(path(&[&place, "name"]), json!(name)),
            remove(path(&[&place])),
        ]);
    }
    if container.get("env").is_none_or(Value::is_null) {
        if !appended.is_empty() {
            changed.push(add(path(&[]), Value::Array(appended)));
        }
    } else {
        changed.extend(appended.into_iter().map(|e| add(path(&["-"]), e)));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    type Wanted<'a> = &'a [(&'a str, Option<&'a str>)];

    fn apply(env: &Value, wanted: Wanted<'_>) -> Value {
        let container = json!({ "name": "vk", "env": env });
        let mut doc =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "side" }, container] } } } });
        let wanted = wanted
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
            .collect();
        json_patch::patch(&mut doc, &operations(&container, 1, &wanted)).unwrap();
        doc["spec"]["template"]["spec"]["containers"][1]["env"].clone()
    }

    #[test]
    fn entries_keep_their_places() {
        let env = json!([
            { "name": "A", "value": "1" },
            { "name": "B", "value": "$(A)" },
            { "name": "A", "value": "2" },
            { "name": "C" },
            { "name": "D", "value": "4" },
        ]);
        let cases: [(Wanted<'_>, Value); 5] = [
            // The last of two counts.
            (
                &[("A", Some("3"))],
                json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)" }, { "name": "A", "value": "3" },
                       { "name": "C" }, { "name": "D", "value": "4" }]),
            ),
            (
                &[("C", Some("x")), ("D", Some(""))],
                json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)" }, { "name": "A", "value": "2" },
                       { "name": "C", "value": "x" }, { "name": "D" }]),
            ),
            (
                &[("A", None), ("D", None), ("E", Some("5"))],
                json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)" }, { "name": "C" },
                       { "name": "E", "value": "5" }]),
            ),
            (&[("Z", None)], env.clone()),
            (&[("C", Some(""))], env.clone()),
        ];
        for (wanted, expected) in cases {
            assert_eq!(apply(&env, wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_list_that_only_we_filled_goes_with_the_last_entry() {
        assert_eq!(
            apply(&Value::Null, &[("A", Some("1"))]),
            json!([{ "name": "A", "value": "1" }])
        );
        assert_eq!(
            apply(&json!([{ "name": "A", "value": "1" }]), &[("A", None)]),
            Value::Null
        );
    }

    #[test]
    fn what_counts_is_the_last_entry() {
        let container = json!({ "env": [
            { "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "A", "value": "1" }, { "name": "B" },
        ] });
        assert_eq!(value(&container, "A"), Some("1"));
        assert!(!is_reference(&container, "A"));
        assert_eq!(value(&container, "B"), Some(""));
        assert_eq!(value(&container, "C"), None);
    }
}
