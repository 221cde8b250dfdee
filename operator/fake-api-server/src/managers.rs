//! Who owns which fields: `metadata.managedFields`.

use serde_json::{Value, json};

use crate::fields::{self, Difference, Fields};
use crate::fields_v1::{from_v1, to_v1};
use crate::shape::Shape;

/// Nobody owns what identifies an object.
const STRIPPED: [&[&str]; 8] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:resourceVersion"],
];

/// Who writes and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) manager: String,
    /// `Apply` or `Update`.
    pub(crate) operation: &'static str,
    /// `status` or empty.
    pub(crate) subresource: &'static str,
}

impl Author {
    /// Whether this part belongs to another endpoint, so that nobody owns it through this one.
    pub(crate) fn foreign(&self, shape: Shape<'_>, part: &str) -> bool {
        match (self.subresource, part) {
            ("status", "f:spec") => true,
            ("status", "f:metadata") => !shape.builtin(),
            ("", "f:status") => true,
            _ => false,
        }
    }
}

/// The fields of one author.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub(crate) manager: String,
    pub(crate) operation: String,
    pub(crate) subresource: String,
    time: String,
    pub(crate) fields: Fields,
}

impl Owned {
    fn by(&self, author: &Author) -> bool {
        self.manager == author.manager
            && self.operation == author.operation
            && self.subresource == author.subresource
    }
}

/// All authors of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managers(pub(crate) Vec<Owned>);

impl Managers {
    pub(crate) fn of(object: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let entries = object["metadata"]["managedFields"].as_array();
        Self(
            entries
                .into_iter()
                .flatten()
                .map(|e| Owned {
                    manager: text(&e["manager"]),
                    operation: text(&e["operation"]),
                    subresource: text(&e["subresource"]),
                    time: text(&e["time"]),
                    fields: from_v1(&e["fieldsV1"]),
                })
                .collect(),
        )
    }

    /// Writes them into the object.
    pub(crate) fn into_object(mut self, api_version: &str, object: &mut Value) {
        self.0.retain(|o| !o.fields.is_empty());
        self.0.sort_by(|a, b| {
            let key = |o: &Owned| {
                (
                    o.operation == "Update",
                    o.time.clone(),
                    o.manager.clone(),
                    o.subresource.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let entries: Vec<Value> = self
            .0
            .iter()
            .map(|o| {
                let mut entry = json!({
                    "manager": o.manager, "operation": o.operation, "apiVersion": api_version, "fieldsType": "FieldsV1", "fieldsV1": to_v1(&o.fields),
                });
                if !o.time.is_empty() {
                    entry["time"] = o.time.clone().into();
                }
                if !o.subresource.is_empty() {
                    entry["subresource"] = o.subresource.clone().into();
                }
                entry
            })
            .collect();
        if let Some(meta) = object["metadata"].as_object_mut() {
            if entries.is_empty() {
                meta.shift_remove("managedFields");
            } else {
                meta.insert("managedFields".to_owned(), entries.into());
            }
        }
    }

    pub(crate) fn owned(&self, author: &Author) -> Option<&Fields> {
        self.0.iter().find(|o| o.by(author)).map(|o| &o.fields)
    }

    /// When the author wrote last, empty when it is not known.
    pub(crate) fn time(&self, author: &Author) -> String {
        let own = self.0.iter().find(|o| o.by(author));
        own.map(|o| o.time.clone()).unwrap_or_default()
    }

    /// All fields that are not this author's.
    pub(crate) fn others<'a>(&'a self, author: &'a Author) -> impl Iterator<Item = &'a Owned> {
        self.0.iter().filter(move |o| !o.by(author))
    }

    /// Takes fields from everybody but this author.
    pub(crate) fn take_from_others(&mut self, author: &Author, fields: &Fields) {
        for other in self.0.iter_mut().filter(|o| !o.by(author)) {
            other.fields.retain(|f| !fields.contains(f));
        }
    }

    /// What is gone belongs to nobody.
    pub(crate) fn drop_removed(&mut self, removed: &Fields) {
        for owned in &mut self.0 {
            owned.fields.retain(|f| !removed.contains(f));
        }
    }

    /// Sets the fields of an author.
    pub(crate) fn set(&mut self, author: &Author, fields: Fields, time: &str) {
        self.0.retain(|o| !o.by(author));
        self.0.push(Owned {
            manager: author.manager.clone(),
            operation: author.operation.to_owned(),
            subresource: author.subresource.to_owned(),
            time: time.to_owned(),
            fields,
        });
    }

    /// The same but for the times.
    pub(crate) fn same_fields(&self, other: &Self) -> bool {
        let key = |o: &Owned| (o.manager.clone(), o.operation.clone(), o.subresource.clone());
        let sorted = |m: &Self| {
            let mut all: Vec<_> =
                m.0.iter()
                    .filter(|o| !o.fields.is_empty())
                    .map(|o| (key(o), o.fields.clone()))
                    .collect();
            all.sort();
            all
        };
        sorted(self) == sorted(other)
    }
}

/// Without what nobody owns.
pub(crate) fn strip(mut fields: Fields) -> Fields {
    fields.retain(|path| {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        !STRIPPED.contains(&steps.as_slice())
            && !steps.starts_with(&["f:metadata", "f:managedFields"])
            && steps != ["f:metadata"]
    });
    fields
}

/// An object without its managedFields and version: what decides whether a write changes anything.
pub(crate) fn content(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.shift_remove("managedFields");
        meta.shift_remove("resourceVersion");
    }
    object
}

/// Ownership after an update: what was written is the author's, and nobody else's.
pub(crate) fn after_update(
    shape: Shape<'_>,
    old: &Value,
    new: &Value,
    author: &Author,
    time: &str,
) -> Managers {
    let mut managers = Managers::of(old);
    let Difference { written, removed } = fields::compare(shape, &content(old), &content(new));
    let mut written = strip(written);
    written.retain(|path| !author.foreign(shape, &path[0]));
    managers.take_from_others(author, &written);
    managers.drop_removed(&removed);
    if !written.is_empty() {
        let mut fields = managers.owned(author).cloned().unwrap_or_default();
        fields.extend(written);
        managers.set(author, fields, time);
    }
    managers
}
