//! Sets of fields and what is done with them: which fields an object has, which differ between two, merging one into
//! another. The rules are those of `sigs.k8s.io/structured-merge-diff`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::shape::{Form, Shape, key_of};

/// Steps from the root, each as managedFields writes it: `f:spec`, `k:{"name":"c"}`, `v:"a"`.
pub(crate) type Path = Vec<String>;
/// Fields.
pub(crate) type Fields = BTreeSet<Path>;

/// Structs that Go embeds by value: they are there before anybody writes them, so nobody owns them as such.
const BY_VALUE: [&str; 6] = [
    "metadata",
    "spec",
    "status",
    "template",
    "updateStrategy",
    "containers",
];

fn step(path: &[String], step: String) -> Path {
    let mut path = path.to_vec();
    path.push(step);
    path
}

fn keyed(keys: &[String], item: &Value) -> String {
    format!("k:{}", key_of(keys, item))
}

/// The fields that a configuration names.
pub(crate) fn leaves(shape: Shape<'_>, value: &Value, path: &[String], out: &mut Fields) {
    match (shape.form(), value) {
        (Form::Struct | Form::Map, Value::Object(map)) => {
            if map.is_empty() && !path.is_empty() {
                out.insert(path.to_vec());
            }
            for (name, inner) in map {
                let place = step(path, format!("f:{name}"));
                let Some(of) = shape.field(name) else { continue };
                if !shape.declares(name) {
                    out.insert(place.clone());
                }
                leaves(of, inner, &place, out);
            }
        }
        (Form::Keyed(keys), Value::Array(list)) => {
            if list.is_empty() {
                out.insert(path.to_vec());
            }
            for item in list {
                let place = step(path, keyed(&keys, item));
                out.insert(place.clone());
                leaves(shape.item(), item, &place, out);
            }
        }
        (Form::Set, Value::Array(list)) => {
            out.extend(list.iter().map(|item| step(path, format!("v:{item}"))));
        }
        _ => {
            out.insert(path.to_vec());
        }
    }
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// There now, and with another value or none before.
    pub(crate) written: Fields,
    /// There no more.
    pub(crate) removed: Fields,
}

/// Compares.
pub(crate) fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Difference {
    let mut out = Difference::default();
    differ(
        shape,
        Some(old),
        Some(new),
        &mut Vec::new(),
        shape.builtin(),
        &mut out,
    );
    out
}

fn differ(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    by_value: bool,
    out: &mut Difference,
) {
    let container = |v: &Value| v.is_object() || v.is_array();
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {}
        (None, Some(new)) => {
            let name = path.last().and_then(|s| s.strip_prefix("f:")).unwrap_or_default();
            if container(new) && !path.is_empty() && !(by_value && BY_VALUE.contains(&name)) {
                out.written.insert(path.clone());
            }
            each(shape, None, Some(new), path, by_value, out);
        }
        (Some(old), None) => {
            out.removed.insert(path.clone());
            each(shape, Some(old), None, path, by_value, out);
        }
        (Some(_), Some(_)) => each(shape, old, new, path, by_value, out),
    }
}

fn each(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    by_value: bool,
    out: &mut Difference,
) {
    let mut visit = |step: String, shape, old, new| {
        path.push(step);
        differ(shape, old, new, path, by_value, out);
        path.pop();
    };
    match shape.form() {
        Form::Struct | Form::Map if either(old, new, Value::is_object) => {
            let names: BTreeSet<&String> = [old, new]
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .flat_map(Map::keys)
                .collect();
            for name in names {
                if let Some(inner) = shape.field(name) {
                    visit(
                        format!("f:{name}"),
                        inner,
                        old.and_then(|v| v.get(name)),
                        new.and_then(|v| v.get(name)),
                    );
                }
            }
        }
        Form::Keyed(keys) if either(old, new, Value::is_array) => {
            let mut seen = BTreeSet::new();
            for item in [old, new]
                .into_iter()
                .flatten()
                .filter_map(Value::as_array)
                .flatten()
            {
                let key = key_of(&keys, item);
                if seen.insert(key.to_string()) {
                    let (before, after) = (find(old, &keys, &key), find(new, &keys, &key));
                    visit(format!("k:{key}"), shape.item(), before, after);
                }
            }
        }
        Form::Set if either(old, new, Value::is_array) => {
            let has = |list: Option<&Value>, item: &Value| {
                list.and_then(Value::as_array)
                    .is_some_and(|list| list.contains(item))
            };
            for item in [old, new]
                .into_iter()
                .flatten()
                .filter_map(Value::as_array)
                .flatten()
            {
                let place = step(path, format!("v:{item}"));
                match (has(old, item), has(new, item)) {
                    (false, true) => drop(out.written.insert(place)),
                    (true, false) => drop(out.removed.insert(place)),
                    _ => {}
                }
            }
        }
        _ => {
            if new.is_some() {
                out.written.insert(path.clone());
            } else {
                out.removed.insert(path.clone());
            }
        }
    }
}

fn find<'v>(list: Option<&'v Value>, keys: &[String], key: &Value) -> Option<&'v Value> {
    list?.as_array()?.iter().find(|item| key_of(keys, item) == *key)
}

fn either(old: Option<&Value>, new: Option<&Value>, is: fn(&Value) -> bool) -> bool {
    [old, new].into_iter().flatten().all(is)
}

/// Puts a configuration over an object.
pub(crate) fn merge(shape: Shape<'_>, live: &Value, config: &Value) -> Value {
    match (shape.form(), live, config) {
        (Form::Struct | Form::Map, Value::Object(live), Value::Object(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match (live.get(name), shape.field(name)) {
                    (Some(before), Some(inner)) => merge(inner, before, value),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Form::Keyed(keys), Value::Array(live), Value::Array(config)) => {
            let mut merged = live.clone();
            for item in config {
                let key = key_of(&keys, item);
                match merged.iter_mut().find(|other| key_of(&keys, other) == key) {
                    Some(other) => *other = merge(shape.item(), other, item),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        (Form::Set, Value::Array(live), Value::Array(config)) => {
            let mut merged = live.clone();
            merged.extend(config.iter().filter(|item| !live.contains(item)).cloned());
            Value::Array(merged)
        }
        _ => config.clone(),
    }
}

/// With every declared field on the way to a member as a member.
fn ensured(shape: Shape<'_>, fields: &Fields) -> Fields {
    let mut out = fields.clone();
    for path in fields {
        let mut at = Some(shape);
        for (depth, step) in path.iter().enumerate() {
            let Some(here) = at else { break };
            at = match step.strip_prefix("f:") {
                Some(name) => {
                    if here.declares(name) {
                        out.insert(path[..=depth].to_vec());
                    }
                    here.field(name)
                }
                None => Some(here.item()),
            };
        }
    }
    out
}

fn members(shape: Shape<'_>, value: &Value) -> Fields {
    let mut out = Fields::new();
    leaves(shape, value, &[], &mut out);
    ensured(shape, &out)
}

fn without<'a>(shape: Shape<'_>, value: &Value, gone: impl Iterator<Item = &'a Path>) -> Value {
    let mut value = value.clone();
    for path in gone {
        remove(shape, &mut value, path);
    }
    value
}

/// Removes what an applier named `last` time and now no more, and puts back what somebody `owned` still holds in it.
/// What nobody holds goes with the struct around it. As `prune` of `merge/update.go` does.
pub(crate) fn prune(
    shape: Shape<'_>,
    merged: &Value,
    last: &Fields,
    wanted: &Fields,
    owned: &Fields,
) -> Value {
    let (last, owned) = (ensured(shape, last), ensured(shape, owned));
    let all = members(shape, merged);
    let wanted = ensured(shape, wanted);
    let pruned = without(shape, merged, last.difference(&wanted));
    let left = members(shape, &pruned);
    let gone: Fields = all
        .difference(&left)
        .filter(|path| !owned.contains(*path))
        .cloned()
        .collect();
    let pruned = without(shape, merged, gone.iter());
    let left = members(shape, &pruned);
    let gone: Fields = all
        .difference(&left)
        .filter(|path| last.contains(*path))
        .cloned()
        .collect();
    without(shape, merged, gone.iter())
}

/// Removes one field.
fn remove(shape: Shape<'_>, value: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if let Some(name) = first.strip_prefix("f:") {
        let Value::Object(map) = value else { return };
        if rest.is_empty() {
            map.shift_remove(name);
        } else if let (Some(inner), Some(shape)) = (map.get_mut(name), shape.field(name)) {
            remove(shape, inner, rest);
        }
        return;
    }
    let Value::Array(list) = value else { return };
    let Some(text) = first.strip_prefix("k:").or_else(|| first.strip_prefix("v:")) else {
        return;
    };
    let wanted: Value = serde_json::from_str(text).unwrap_or_default();
    let at = match shape.form() {
        Form::Keyed(keys) => list.iter().position(|item| key_of(&keys, item) == wanted),
        _ => list.iter().position(|item| *item == wanted),
    };
    let Some(at) = at else { return };
    if rest.is_empty() {
        list.remove(at);
    } else {
        remove(shape.item(), &mut list[at], rest);
    }
}
