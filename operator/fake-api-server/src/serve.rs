//! From a request to its answer: which room does it.

use serde_json::{Value, json};

use crate::apply::{self, apply};
use crate::call::Call;
use crate::delete::delete;
use crate::event;
use crate::evict::evict;
use crate::journal::Entry;
use crate::list;
use crate::managers::Author;
use crate::patch::{PatchKind, patch};
use crate::refusal::Refusal;
use crate::store::{Key, Objects, Store};
use crate::write::Write;

/// Carries out a request, watches aside, and writes it down. `seen` is what reads of the cache get.
pub(crate) fn serve(
    store: &mut Store,
    journal: &mut Vec<Entry>,
    call: &Call,
    seen: Option<(u64, Objects)>,
) -> Result<(u16, Value), Refusal> {
    if !call.writes() {
        return read(store, call, seen);
    }
    let about = &call.about;
    let named = |body: &Value| body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut name = if about.name.is_empty() {
        named(&call.body)
    } else {
        about.name.clone()
    };
    let before = store.get(&Key::new(about.kind, &about.namespace, &name)).cloned();
    let result = write(store, call);
    if name.is_empty()
        && let Ok((_, object)) = &result
    {
        name = named(object);
    }
    let key = Key::new(about.kind, &about.namespace, &name);
    let (code, message) = match &result {
        Ok((code, _)) => (*code, String::new()),
        Err(refusal) => (refusal.code, refusal.message.clone()),
    };
    journal.push(Entry {
        number: journal.len(),
        at: store.clock.elapsed(),
        client: call.client.clone(),
        verb: call.verb,
        subresource: about.subresource.clone(),
        body: call.body.clone(),
        code,
        message,
        before,
        after: store.get(&key).cloned(),
        version: store.version(),
        key,
    });
    result
}

fn read(store: &Store, call: &Call, seen: Option<(u64, Objects)>) -> Result<(u16, Value), Refusal> {
    let about = &call.about;
    let (version, objects) = match &seen {
        Some((version, objects)) => (*version, objects),
        None => (store.version(), store.objects()),
    };
    if call.verb == "list" {
        return Ok((200, list::list(store, call, version, objects)?));
    }
    let found = objects.get(&Key::new(about.kind, &about.namespace, &about.name));
    let found = found.ok_or_else(|| Refusal::not_found(about.kind, &about.name))?;
    Ok((200, event::outgoing(&about.group, Value::clone(found))))
}

fn write(store: &mut Store, call: &Call) -> Result<(u16, Value), Refusal> {
    let about = &call.about;
    let manager = call.param("fieldManager").unwrap_or_default();
    let subresource = if about.subresource == "status" {
        "status"
    } else {
        ""
    };
    let how = PatchKind::of(&call.content_type);
    let applied = call.verb == "patch" && how == Some(PatchKind::Apply);
    let author = if applied {
        apply::author(manager, subresource)
    } else {
        let manager = if manager.is_empty() { &call.client } else { manager };
        Author {
            manager: manager.to_owned(),
            operation: "Update",
            subresource,
        }
    };
    let mut write = Write {
        store,
        kind: about.kind,
        namespace: &about.namespace,
        author,
        dry_run: call.query.contains_key("dryRun"),
        strict: call.param("fieldValidation") == Some("Strict"),
        whole: call.verb == "update",
    };
    let name = about.name.as_str();
    let (code, object) = match call.verb {
        "create" if about.subresource == "eviction" => evict(&mut write, name, &call.body)?,
        "create" => {
            let body = event::incoming(&about.group, call.body.clone());
            (
                201,
                write
                    .create(body, None)
                    .map_err(|refusal| event::refused(&about.group, refusal))?,
            )
        }
        "update" => {
            write.same_name(name, &call.body)?;
            let old = write
                .found(name)
                .map_err(|absent| match call.body["metadata"]["uid"].as_str() {
                    Some(uid) if !uid.is_empty() => {
                        Refusal::other_in_storage(about.kind, &about.namespace, name, uid, "")
                    }
                    _ => absent,
                })?;
            if write.strict {
                crate::write::strictly(about.kind, &call.body)?;
            }
            (200, write.update(name, &old, call.body.clone(), None)?)
        }
        "patch" if applied => apply(&mut write, name, call.body.clone(), call.flag("force"))?,
        "patch" => {
            let how = how.ok_or_else(|| {
                Refusal::new(
                    415,
                    "UnsupportedMediaType",
                    "the body of the request was in an unknown format",
                )
            })?;
            (200, patch(&mut write, name, how, &call.body)?)
        }
        _ => {
            let options = if call.body.is_object() {
                call.body.clone()
            } else {
                json!({})
            };
            write.dry_run |= options["dryRun"].as_array().is_some_and(|d| !d.is_empty());
            delete(&mut write, name, &options)?
        }
    };
    Ok((code, event::outgoing(&about.group, object)))
}
