//! Lists and their pages.

use serde_json::{Value, json};

use crate::call::{About, Call};
use crate::event;
use crate::refusal::Refusal;
use crate::select::Selection;
use crate::store::{Objects, Store};

/// One page.
pub(crate) fn list(store: &Store, call: &Call, version: u64, objects: &Objects) -> Result<Value, Refusal> {
    let selection = Selection::parse(call.param("labelSelector"), call.param("fieldSelector"))?;
    let limit = call
        .param("limit")
        .and_then(|l| l.parse::<usize>().ok())
        .filter(|l| *l > 0);
    let about = &call.about;
    let page = call.param("continue").map(Token::parse).transpose()?;
    let old;
    let (version, objects) = match &page {
        None => (version, objects),
        Some(token) if token.version < store.compacted() => {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                           new list without the continue parameter, or use the continue token in this response to \
                           retrieve the remainder of the results. Continuing with the provided token results in an \
                           inconsistent list - objects that were created, modified, or deleted between the time the first \
                           chunk was returned and now may show up in the list.";
            return Err(Refusal::expired(message));
        }
        Some(token) => {
            old = store.snapshot(token.version);
            (token.version, &old)
        }
    };
    let after = page.map(|token| token.after);
    let mut rest = objects.iter().filter(|(key, object)| {
        let place = format!("{}/{}", key.namespace, key.name);
        covers(about, &key.namespace)
            && key.resource == about.kind.resource
            && after.as_ref().is_none_or(|after| place > *after)
            && selection.matches(object)
    });
    let mut items = Vec::new();
    let mut last = String::new();
    for (key, object) in rest.by_ref().take(limit.unwrap_or(usize::MAX)) {
        last = format!("{}/{}", key.namespace, key.name);
        let mut object = event::outgoing(&about.group, Value::clone(object));
        if !about.kind.custom()
            && let Some(map) = object.as_object_mut()
        {
            map.shift_remove("apiVersion");
            map.shift_remove("kind");
        }
        items.push(object);
    }
    let remaining = rest.count();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if about.kind.custom() {
        metadata["continue"] = json!("");
    }
    if remaining > 0 {
        metadata["continue"] = json!(format!("{version}:{last}"));
        if call.param("labelSelector").is_none() && call.param("fieldSelector").is_none() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let api_version = if about.group == "events.k8s.io" {
        "events.k8s.io/v1".to_owned()
    } else {
        about.kind.api_version()
    };
    Ok(json!({
        "kind": format!("{}List", about.kind.kind), "apiVersion": api_version, "metadata": metadata, "items": items,
    }))
}

/// A namespace is within what was asked for.
pub(crate) fn covers(about: &About, namespace: &str) -> bool {
    about.namespace.is_empty() || about.namespace == namespace
}

struct Token {
    version: u64,
    after: String,
}

impl Token {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let token = text.split_once(':').and_then(|(version, after)| {
            Some(Self {
                version: version.parse().ok()?,
                after: after.to_owned(),
            })
        });
        token.ok_or_else(|| {
            Refusal::bad_request("continue key is not valid: it was not given out by this server")
        })
    }
}
