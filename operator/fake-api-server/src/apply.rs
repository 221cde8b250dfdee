//! Server-side apply.

use serde_json::{Value, json};

use crate::fields::{self, Fields, leaves};
use crate::fields_v1::display;
use crate::managers::{Author, Managers, Owned, content, strip};
use crate::refusal::Refusal;
use crate::shape;
use crate::write::Write;

/// Applies a configuration; an object that is not there is made.
pub(crate) fn apply(
    write: &mut Write<'_>,
    name: &str,
    mut config: Value,
    force: bool,
) -> Result<(u16, Value), Refusal> {
    let kind = write.kind;
    if write.author.manager.is_empty() {
        return Err(nameless());
    }
    declared(write, name, &config)?;
    config["metadata"]["name"] = json!(name);
    let shape = shape::of(kind);
    let mut wanted = Fields::new();
    leaves(shape, &config, &[], &mut wanted);
    let mut wanted = strip(wanted);
    let author = write.author.clone();
    wanted.retain(|path| !author.foreign(shape, &path[0]));
    let Some(old) = write.store.get(&write.key(name)).map(|o| Value::clone(o)) else {
        return create(write, name, config, wanted);
    };

    let stamp = write.store.clock.stamp();
    let mut managers = Managers::of(&old);
    let live = content(&old);
    let mut merged = fields::merge(shape, &live, &content(&config));
    let last = managers.owned(&author).cloned().unwrap_or_default();
    let others: Vec<Owned> = managers.others(&author).cloned().collect();
    if !last.is_empty() {
        let owned = others
            .iter()
            .flat_map(|o| &o.fields)
            .chain(&wanted)
            .cloned()
            .collect();
        merged = fields::prune(shape, &merged, &last, &wanted, &owned);
    }
    let difference = fields::compare(shape, &live, &merged);
    let written = strip(difference.written.clone());
    let contested = contested(&kind.api_version(), &others, &written, &wanted);
    if !contested.is_empty() {
        if !force {
            return Err(conflicts(&contested));
        }
        managers.take_from_others(&author, &written);
    }
    managers.drop_removed(&difference.removed);
    // An apply that changes nothing but who owns what is not dated.
    let changed = !difference.written.is_empty() || !difference.removed.is_empty();
    let time = if changed { stamp } else { managers.time(&author) };
    managers.set(&author, wanted, &time);
    for precondition in ["resourceVersion", "uid"] {
        let value = &config["metadata"][precondition];
        let value = if value.is_null() {
            &old["metadata"][precondition]
        } else {
            value
        };
        merged["metadata"][precondition] = value.clone();
    }
    Ok((200, write.update(name, &old, merged, Some(managers))?))
}

/// An apply without field manager.
fn nameless() -> Refusal {
    let why = "Required value: is required for apply patch";
    let mut refusal = Refusal::new(
        422,
        "Invalid",
        format!("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: {why}"),
    )
    .with_cause("FieldValueRequired", why);
    refusal.details["causes"][0]["field"] = json!("fieldManager");
    refusal.details["group"] = json!("meta.k8s.io");
    refusal.details["kind"] = json!("PatchOptions");
    refusal
}

fn create(
    write: &mut Write<'_>,
    name: &str,
    mut config: Value,
    wanted: Fields,
) -> Result<(u16, Value), Refusal> {
    if write.author.subresource == "status" {
        return Err(Refusal::not_found(write.kind, name));
    }
    if let Some(uid) = config["metadata"]["uid"].as_str().filter(|u| !u.is_empty()) {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Refusal::conflict(write.kind, name, why));
    }
    if let Some(meta) = config["metadata"].as_object_mut() {
        meta.retain(|field, v| !v.is_null() && field != "resourceVersion");
    }
    let mut managers = Managers::default();
    let stamp = write.store.clock.stamp();
    managers.set(&write.author, wanted, &stamp);
    Ok((201, write.create(config, Some(managers))?))
}

/// Who else owns what was written: manager as messages have it, and fields.
fn contested(
    version: &str,
    others: &[Owned],
    written: &Fields,
    wanted: &Fields,
) -> Vec<(String, Vec<String>)> {
    let told = |other: &Owned| {
        let endpoint = match other.subresource.as_str() {
            "" => String::new(),
            subresource => format!(" with subresource \"{subresource}\""),
        };
        let how = if other.operation == "Update" {
            format!(" using {version}")
        } else {
            String::new()
        };
        format!("\"{}\"{endpoint}{how}", other.manager)
    };
    others
        .iter()
        .filter_map(|other| {
            let fields = other.fields.intersection(written).filter(|f| wanted.contains(*f));
            let fields: Vec<String> = fields.map(|f| display(f)).collect();
            (!fields.is_empty()).then(|| (told(other), fields))
        })
        .collect()
}

fn conflicts(contested: &[(String, Vec<String>)]) -> Refusal {
    let count: usize = contested.iter().map(|(_, fields)| fields.len()).sum();
    let mut refusal = Refusal::new(409, "Conflict", "");
    let mut at = 0;
    for (manager, fields) in contested {
        for field in fields {
            refusal = refusal.with_cause("FieldManagerConflict", &format!("conflict with {manager}"));
            refusal.details["causes"][at]["field"] = json!(field);
            at += 1;
        }
    }
    refusal.message = match contested {
        [(manager, fields)] if fields.len() == 1 => {
            format!(
                "Apply failed with 1 conflict: conflict with {manager}: {}",
                fields[0]
            )
        }
        many => {
            let groups: Vec<String> = many
                .iter()
                .map(|(manager, fields)| {
                    let lines: Vec<String> = fields.iter().map(|f| format!("- {f}")).collect();
                    format!("conflicts with {manager}:\n{}", lines.join("\n"))
                })
                .collect();
            format!("Apply failed with {count} conflicts: {}", groups.join("\n"))
        }
    };
    refusal
}

/// An apply with a field that the kind does not have is refused whatever the field validation.
fn declared(write: &Write<'_>, name: &str, config: &Value) -> Result<(), Refusal> {
    let kind = write.kind;
    let mut found = Vec::new();
    shape::unknown(shape::of(kind), config, "", &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let namespace = config["metadata"]["namespace"].as_str().unwrap_or_default();
    let words: Vec<String> = found
        .iter()
        .map(|f| format!(".{f}: field not declared in schema"))
        .collect();
    let message = format!(
        "failed to create typed patch object ({namespace}/{name}; {}/{}, Kind={}): {}",
        kind.group,
        kind.version,
        kind.kind,
        words.join("\n")
    );
    Err(Refusal::new(500, "", message))
}

/// The author of an apply through an endpoint.
pub(crate) fn author(manager: &str, subresource: &'static str) -> Author {
    Author {
        manager: manager.to_owned(),
        operation: "Apply",
        subresource,
    }
}
