//! JSON patch as the API server applies it, whose library (evanphx/json-patch v4.13.0) is more lenient than RFC 6902: a
//! member that is not there is null to `replace`, `copy` and `test`, a value that is not sent is null, and indices count
//! from the end when negative.

use serde_json::Value;

/// An operation does not apply. The server tells nobody why.
pub(crate) struct Refused;

/// Applies all operations to a document, or none.
pub(crate) fn apply(document: &Value, operations: &[Value]) -> Result<Value, Refused> {
    let mut document = document.clone();
    for operation in operations {
        one(&mut document, operation)?;
    }
    Ok(document)
}

fn one(document: &mut Value, operation: &Value) -> Result<(), Refused> {
    let text = |field: &str| operation[field].as_str().ok_or(Refused);
    let value = || operation["value"].clone();
    let path = text("path")?;
    match text("op")? {
        "replace" if path.is_empty() => {
            *document = Some(value()).filter(Value::is_object).ok_or(Refused)?;
            Ok(())
        }
        "test" if path.is_empty() => truth(*document == operation["value"]),
        "test" => truth(get(document, path)? == operation["value"]),
        "add" => add(document, path, value()),
        "remove" => remove(document, path),
        "replace" => {
            get(document, path)?;
            match place(document, path)? {
                (Value::Object(map), key) => drop(map.insert(key, value())),
                (Value::Array(list), key) => {
                    let at = index(&key, list.len())?;
                    list[at] = value();
                }
                _ => return Err(Refused),
            }
            Ok(())
        }
        "copy" => {
            let copied = get(document, text("from")?)?;
            add(document, path, copied)
        }
        "move" => {
            let from = text("from")?;
            let moved = get(document, from)?;
            remove(document, from)?;
            add(document, path, moved)
        }
        _ => Err(Refused),
    }
}

fn truth(holds: bool) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused) }
}

/// What a path leads to, null when a map has no such member.
fn get(document: &mut Value, path: &str) -> Result<Value, Refused> {
    match place(document, path)? {
        (Value::Object(map), key) => Ok(map.get(&key).cloned().unwrap_or_default()),
        (Value::Array(list), key) => Ok(list[index(&key, list.len())?].clone()),
        _ => Err(Refused),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Refused> {
    match place(document, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => list.insert(index(&key, list.len() + 1)?, value),
        _ => return Err(Refused),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<(), Refused> {
    match place(document, path)? {
        (Value::Object(map), key) => map.shift_remove(&key).map(drop).ok_or(Refused),
        (Value::Array(list), key) => {
            list.remove(index(&key, list.len())?);
            Ok(())
        }
        _ => Err(Refused),
    }
}

/// The map or list that a path ends in, and the last key.
fn place<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Refused> {
    // What stands before the first slash is not looked at.
    let mut keys = path
        .split('/')
        .skip(1)
        .map(|k| k.replace("~1", "/").replace("~0", "~"));
    let mut last = keys.next().ok_or(Refused)?;
    let mut at = document;
    for next in keys {
        at = match at {
            Value::Object(map) => map.get_mut(&last).ok_or(Refused)?,
            Value::Array(list) => {
                let index = index(&last, list.len())?;
                &mut list[index]
            }
            _ => return Err(Refused),
        };
        last = next;
    }
    Ok((at, last))
}

/// An index below `len`; a negative one counts from there.
fn index(key: &str, len: usize) -> Result<usize, Refused> {
    let index: i64 = key.parse().map_err(|_| Refused)?;
    let index = if index < 0 {
        index + i64::try_from(len).map_err(|_| Refused)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|i| *i < len).ok_or(Refused)
}
