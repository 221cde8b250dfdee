//! What every create and update goes through, whichever verb asked for it.

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::defaults;
use crate::kinds::{self, Kind};
use crate::managers::{self, Author, Managers, content};
use crate::refusal::Refusal;
use crate::shape;
use crate::store::{Key, Store};
use crate::tidy::{remove, set, tidied};

/// One write to one object.
pub(crate) struct Write<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) author: Author,
    pub(crate) dry_run: bool,
    pub(crate) strict: bool,
    /// The object was sent as a whole.
    pub(crate) whole: bool,
}

impl Write<'_> {
    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.kind, self.namespace, name)
    }

    pub(crate) fn status(&self) -> bool {
        self.author.subresource == "status"
    }

    pub(crate) fn found(&self, name: &str) -> Result<Value, Refusal> {
        let found = self.store.get(&self.key(name));
        found
            .map(|o| Value::clone(o))
            .ok_or_else(|| Refusal::not_found(self.kind, name))
    }

    /// Makes an object. `owned` are the managers of an apply; an ordinary create owns what it says.
    pub(crate) fn create(&mut self, mut body: Value, owned: Option<Managers>) -> Result<Value, Refusal> {
        let kind = self.kind;
        self.identify(&mut body)?;
        if self.strict && owned.is_none() {
            strictly(kind, &body)?;
        }
        let name = self.name(&mut body)?;
        self.namespace_takes(&name)?;
        if self.store.get(&self.key(&name)).is_some() {
            return Err(Refusal::exists(kind, &name));
        }
        if body["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|v| !v.is_empty())
        {
            return Err(Refusal::new(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let stamp = self.store.clock.stamp();
        let uid = self.store.uid();
        let meta = &mut body["metadata"];
        meta["uid"] = json!(uid);
        meta["creationTimestamp"] = json!(stamp);
        for gone in [
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            remove(meta, gone);
        }
        if kind.generation {
            meta["generation"] = json!(1);
        }
        if kind.namespaced {
            meta["namespace"] = json!(self.namespace);
        }
        if kind.status {
            remove(&mut body, "status");
        }
        let mut object = tidied(kind, body);
        defaults::created(kind, &mut object);
        defaults::fill(kind, &mut object);
        let mut nothing = json!({"metadata": {}});
        if kind.resource == "statefulsets.apps" {
            // Go has it before anybody says it, so saying it does not make it anybody's.
            nothing["spec"] = json!({"serviceName": ""});
        }
        let managers = owned.unwrap_or_else(|| {
            managers::after_update(shape::of(kind), &nothing, &object, &self.author, &stamp)
        });
        // Nobody owns what admission puts in.
        defaults::admitted(kind, &mut object);
        managers.into_object(&kind.api_version(), &mut object);
        if self.dry_run {
            return Ok(object);
        }
        Ok(Value::clone(&self.store.put(self.key(&name), object)))
    }

    fn identify(&self, body: &mut Value) -> Result<(), Refusal> {
        let kind = self.kind;
        if !body.is_object() {
            return Err(Refusal::bad_request("the body is no object"));
        }
        if body["metadata"].is_null() {
            body["metadata"] = json!({});
        }
        body["apiVersion"] = json!(kind.api_version());
        body["kind"] = json!(kind.kind);
        let told = body["metadata"]["namespace"].as_str().unwrap_or_default();
        if kind.namespaced && !told.is_empty() && told != self.namespace {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Refusal::bad_request(message));
        }
        Ok(())
    }

    fn name(&mut self, body: &mut Value) -> Result<String, Refusal> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (name, prefix) = (
            text(&body["metadata"]["name"]),
            text(&body["metadata"]["generateName"]),
        );
        match (name.is_empty(), prefix.is_empty()) {
            (false, _) => Ok(name),
            (true, false) => {
                let name = format!("{prefix}{:05}", self.store.serial());
                body["metadata"]["name"] = json!(name);
                Ok(name)
            }
            (true, true) => {
                let message = "Required value: name or generateName is required".to_owned();
                Err(Refusal::invalid(
                    self.kind,
                    "",
                    &[("FieldValueRequired", "metadata.name", message)],
                ))
            }
        }
    }

    /// Namespace lifecycle admission.
    pub(crate) fn namespace_takes(&self, name: &str) -> Result<(), Refusal> {
        if !self.kind.namespaced {
            return Ok(());
        }
        let Some(namespaces) = kinds::named("namespaces") else {
            return Ok(());
        };
        let Some(found) = self.store.get(&Key::new(namespaces, "", self.namespace)) else {
            return Err(Refusal::not_found(namespaces, self.namespace));
        };
        if found["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let (namespace, kind) = (self.namespace, self.kind);
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let mut refusal = Refusal::forbidden(kind.group, kind.plural, name, &why)
            .with_cause("NamespaceTerminating", &cause);
        refusal.details["causes"][0]["field"] = json!("metadata.namespace");
        Err(refusal)
    }

    /// Replaces an object. `owned` as for [`Self::create`].
    pub(crate) fn update(
        &mut self,
        name: &str,
        old: &Value,
        mut new: Value,
        owned: Option<Managers>,
    ) -> Result<Value, Refusal> {
        let kind = self.kind;
        self.identify(&mut new)?;
        self.same_name(name, &new)?;
        self.preconditions(name, old, &new)?;
        // A writer may say itself who owns what; what it changes besides is its own as ever.
        let said = new["metadata"]["managedFields"].clone();
        self.keep(old, &mut new);
        let mut new = tidied(kind, new);
        defaults::fill(kind, &mut new);
        defaults::immutable(kind, old, &new)?;
        if kind.generation && generation_matters(kind, old, &new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        let stamp = self.store.clock.stamp();
        let before = Managers::of(old);
        let managers = owned.unwrap_or_else(|| {
            let mut old = old.clone();
            if said.as_array().is_some_and(|s| !s.is_empty()) {
                old["metadata"]["managedFields"] = said;
            }
            managers::after_update(shape::of(kind), &old, &new, &self.author, &stamp)
        });
        let unchanged = content(old) == content(&new);
        if unchanged && managers.same_fields(&before) {
            return Ok(old.clone());
        }
        managers.into_object(&kind.api_version(), &mut new);
        if self.dry_run {
            return Ok(new);
        }
        let deleting = !new["metadata"]["deletionTimestamp"].is_null();
        let held = new["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        let grace = new["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        let stored = Value::clone(&self.store.put(self.key(name), new));
        if deleting && !held && grace == 0 && kind.resource != "namespaces" {
            self.store.take(&self.key(name));
        }
        Ok(stored)
    }

    /// The name in the body is that of the URL.
    pub(crate) fn same_name(&self, name: &str, body: &Value) -> Result<(), Refusal> {
        match body["metadata"]["name"]
            .as_str()
            .filter(|given| !given.is_empty() && *given != name)
        {
            Some(given) => Err(Refusal::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            ))),
            None => Ok(()),
        }
    }

    fn preconditions(&self, name: &str, old: &Value, new: &Value) -> Result<(), Refusal> {
        let kind = self.kind;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (expected, found) = (text(&new["metadata"]["uid"]), text(&old["metadata"]["uid"]));
        let lenient = self.status() && kind.custom();
        if !expected.is_empty() && expected != found && !lenient {
            if self.whole {
                return Err(Refusal::other_in_storage(
                    kind,
                    self.namespace,
                    name,
                    &expected,
                    &found,
                ));
            }
            let message = format!("Invalid value: \"{expected}\": field is immutable");
            return Err(Refusal::invalid(
                kind,
                name,
                &[("FieldValueInvalid", "metadata.uid", message)],
            ));
        }
        let version = text(&new["metadata"]["resourceVersion"]);
        if version.is_empty() || version == "0" {
            if !kind.unconditional {
                return Err(Refusal::versionless(kind, name));
            }
        } else if version != text(&old["metadata"]["resourceVersion"]) {
            return Err(Refusal::modified(kind, name));
        }
        Ok(())
    }

    /// Puts back what this endpoint may not change.
    fn keep(&self, old: &Value, new: &mut Value) {
        let kind = self.kind;
        if self.status() {
            let status = new["status"].take();
            let meta = new["metadata"].take();
            *new = old.clone();
            if status.is_null() {
                remove(new, "status");
            } else {
                new["status"] = status;
            }
            if !kind.custom() {
                for may in ["labels", "annotations", "finalizers"] {
                    set(&mut new["metadata"], may, meta[may].clone());
                }
            }
        } else if kind.status {
            set(new, "status", old["status"].clone());
        }
        for fixed in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
            "managedFields",
            "generateName",
            "selfLink",
        ] {
            let value = old["metadata"][fixed].clone();
            set(&mut new["metadata"], fixed, value);
        }
    }
}

/// Refuses fields that the kind does not have.
pub(crate) fn strictly(kind: &Kind, body: &Value) -> Result<(), Refusal> {
    let mut found = Vec::new();
    shape::unknown(shape::of(kind), body, "", &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = found.iter().map(|f| format!("unknown field \"{f}\"")).collect();
    let (version, name) = (kind.version, kind.kind);
    Err(Refusal::bad_request(format!(
        "{name} in version \"{version}\" cannot be handled as a {name}: strict decoding error: {}",
        words.join(", ")
    )))
}

fn generation_matters(kind: &Kind, old: &Value, new: &Value) -> bool {
    if !kind.custom() {
        return old["spec"] != new["spec"];
    }
    let rest = |v: &Value| {
        let mut v = v.clone();
        remove(&mut v, "metadata");
        remove(&mut v, "status");
        v
    };
    rest(old) != rest(new)
}

/// Marks an object as being deleted. A grace period that is changed counts from the first deletion.
pub(crate) fn mark_deleted(clock: &Clock, object: &mut Value, grace: i64) {
    let meta = &object["metadata"];
    let before = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let due = meta["deletionTimestamp"]
        .as_str()
        .and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let begun = due.map_or_else(
        || clock.now(),
        |due| due - jiff::SignedDuration::from_secs(before),
    );
    let at = begun + jiff::SignedDuration::from_secs(grace);
    let first = object["metadata"]["deletionTimestamp"].is_null();
    object["metadata"]["deletionTimestamp"] = json!(Clock::format(at));
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    if first && let Some(generation) = object["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = json!(generation + 1);
    }
}
