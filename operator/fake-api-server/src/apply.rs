//! Server-side apply.

use serde_json::{Value, json};

use crate::fields::{self, Fields, display, leaves};
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
        let cause = (
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch".to_owned(),
        );
        let mut refusal = Refusal::invalid(kind, "", &[cause]);
        refusal.message = format!(
            "PatchOptions.meta.k8s.io \"\" is invalid: {}: {}",
            cause_field(&refusal),
            "Required value: is required for apply patch"
        );
        refusal.details["group"] = json!("meta.k8s.io");
        refusal.details["kind"] = json!("PatchOptions");
        return Err(refusal);
    }
    declared(write, name, &config)?;
    config["metadata"]["name"] = json!(name);
    let shape = shape::of(kind);
    let mut wanted = Fields::new();
    leaves(shape, &config, &[], &mut wanted);
    let mut wanted = strip(wanted);
    // Each endpoint owns its own part only.
    if write.status() {
        let foreign = if kind.custom() {
            ["f:metadata", "f:spec"]
        } else {
            ["f:spec", "f:spec"]
        };
        wanted.retain(|path| !foreign.contains(&path[0].as_str()));
    } else if kind.status {
        wanted.retain(|path| path[0] != "f:status");
    }
    let Some(old) = write.store.get(&write.key(name)).map(|o| Value::clone(o)) else {
        return create(write, name, config, wanted);
    };

    let stamp = write.store.clock.stamp();
    let author = write.author.clone();
    let mut managers = Managers::of(&old);
    let live = content(&old);
    let mut merged = fields::merge(shape, &live, &content(&config));
    let last = managers.owned(&author).cloned().unwrap_or_default();
    let others: Vec<Owned> = managers.others(&author).cloned().collect();
    let given_up: Vec<_> = last
        .difference(&wanted)
        .filter(|path| !kept(path, &wanted, &others))
        .cloned()
        .collect();
    for path in given_up.iter().rev() {
        fields::remove(shape, &mut merged, path);
    }
    let difference = fields::compare(shape, &live, &merged);
    let written = strip(difference.written.clone());
    let contested = contested(&others, &written, &wanted);
    if !contested.is_empty() {
        if !force {
            return Err(conflicts(&kind.api_version(), &contested));
        }
        managers.take_from_others(&author, &written);
    }
    managers.drop_removed(&difference.removed);
    if managers.owned(&author) != Some(&wanted) || !written.is_empty() || !difference.removed.is_empty() {
        managers.set(&author, wanted, &stamp);
    }
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

fn cause_field(refusal: &Refusal) -> String {
    refusal.details["causes"][0]["field"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
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
        meta.retain(|_, v| !v.is_null());
    }
    let mut managers = Managers::default();
    let stamp = write.store.clock.stamp();
    managers.set(&write.author, wanted, &stamp);
    Ok((201, write.create(config, Some(managers))?))
}

/// Whether somebody still owns this field or something in it.
fn kept(path: &[String], wanted: &Fields, others: &[Owned]) -> bool {
    let inside = |fields: &Fields| fields.iter().any(|other| other.starts_with(path));
    inside(wanted) || others.iter().any(|o| inside(&o.fields))
}

fn contested(others: &[Owned], written: &Fields, wanted: &Fields) -> Vec<(String, String, Vec<String>)> {
    others
        .iter()
        .filter_map(|other| {
            let fields = other.fields.intersection(written).filter(|f| wanted.contains(*f));
            let fields: Vec<String> = fields.map(|f| display(f)).collect();
            let how = format!(
                "{}{}",
                if other.subresource.is_empty() {
                    String::new()
                } else {
                    format!(" with subresource \"{}\"", other.subresource)
                },
                ""
            );
            (!fields.is_empty()).then(|| (other.manager.clone(), how, fields))
        })
        .collect()
}

fn conflicts(version: &str, contested: &[(String, String, Vec<String>)]) -> Refusal {
    let count: usize = contested.iter().map(|(_, _, fields)| fields.len()).sum();
    let all = contested.iter().flat_map(|(manager, how, fields)| {
        fields
            .iter()
            .map(move |field| (format!("conflict with \"{manager}\"{how} using {version}"), field))
    });
    let mut refusal = Refusal::new(409, "Conflict", "");
    let mut words = Vec::new();
    for (message, field) in all {
        words.push((message.clone(), field.clone()));
        refusal = refusal.with_cause("FieldManagerConflict", &message);
        let at = words.len() - 1;
        refusal.details["causes"][at]["field"] = json!(field);
    }
    refusal.message = match contested {
        [(manager, how, fields)] if fields.len() == 1 => {
            format!(
                "Apply failed with 1 conflict: conflict with \"{manager}\"{how} using {version}: {}",
                fields[0]
            )
        }
        many => {
            let groups: Vec<String> = many
                .iter()
                .map(|(manager, how, fields)| {
                    let lines: Vec<String> = fields.iter().map(|f| format!("- {f}")).collect();
                    format!(
                        "conflicts with \"{manager}\"{how} using {version}:\n{}",
                        lines.join("\n")
                    )
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
    if kind.custom() && !write.strict {
        return Ok(());
    }
    if kind.custom() {
        let words: Vec<String> = found.iter().map(|f| format!("unknown field \"{f}\"")).collect();
        return Err(Refusal::bad_request(format!(
            "failed to create manager for existing fields: strict decoding error: {}",
            words.join(", ")
        )));
    }
    let object = if write.namespace.is_empty() || !kind.namespaced {
        format!("/{name}")
    } else {
        format!("{}/{name}", write.namespace)
    };
    let version = kind.api_version();
    let words: Vec<String> = found
        .iter()
        .map(|f| format!(".{f}: field not declared in schema"))
        .collect();
    Err(Refusal::new(
        500,
        "",
        format!(
            "failed to create typed patch object ({object}; {version}, Kind={}): {}",
            kind.kind,
            words.join("\n")
        ),
    ))
}

/// The author of an apply through an endpoint.
pub(crate) fn author(manager: &str, subresource: &'static str) -> Author {
    Author {
        manager: manager.to_owned(),
        operation: "Apply",
        subresource,
    }
}
