//! Objects as the API server sends them, whether this version can read them or not. Tenants write them, so one that does
//! not fit its type must not end the list or the watch that it stands in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object, or what is known of one that can't be read.
#[derive(Clone, Debug)]
pub enum Read<K> {
    /// As it should be.
    Object(K),
    /// It does not fit its type.
    Unreadable(Box<Unreadable>),
}

/// What is known of an object that does not fit its type.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Name, namespace, uid, resourceVersion.
    pub metadata: ObjectMeta,
    /// All of it.
    pub raw: Value,
    /// What is the matter with it.
    pub error: String,
}

impl Unreadable {
    /// `<namespace>/<name>` or `<name>`.
    pub fn key(&self) -> String {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        match self.metadata.namespace.as_deref() {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        }
    }

    /// Its labels, as far as they are text.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.raw.pointer("/metadata/labels").and_then(Value::as_object);
        let texts = labels.into_iter().flatten();
        texts
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}

impl<K> Read<K> {
    /// The object, or what stands for it when it can't be read.
    pub fn or_worst(self, worst: impl FnOnce(&Unreadable) -> K) -> K {
        match self {
            Self::Object(object) => object,
            Self::Unreadable(object) => worst(&object),
        }
    }
}

impl<K> From<K> for Read<K> {
    fn from(object: K) -> Self {
        Self::Object(object)
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrowed: the text is there already, and an ordinary object is parsed once.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        match serde_json::from_str(text) {
            Ok(object) => Ok(Self::Object(object)),
            Err(_) => salvage(text).map_err(D::Error::custom),
        }
    }
}

/// Reads what did not fit without the times in its managedFields, which decide nothing that can't be decided without
/// them; else keeps what there is.
fn salvage<K: DeserializeOwned>(text: &str) -> Result<Read<K>, serde_json::Error> {
    let mut raw: Value = serde_json::from_str(text)?;
    drop_bad_times(&mut raw);
    // The error names the field, and no place in the text, which would be another after each write of anything else.
    let error = match serde_path_to_error::deserialize(&raw) {
        Ok(object) => return Ok(Read::Object(object)),
        Err(error) => error.to_string(),
    };
    let text = |key: &str| {
        let value = raw.get("metadata")?.get(key)?.as_str()?;
        Some(value.to_owned())
    };
    let metadata = ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    };
    if metadata.name.is_none() || metadata.uid.is_none() {
        return Err(serde_json::Error::custom(format!(
            "neither an object nor one that is known by name: {error}"
        )));
    }
    Ok(Read::Unreadable(Box::new(Unreadable { metadata, raw, error })))
}

/// Takes times out of the managedFields that the type of times can't hold.
fn drop_bad_times(raw: &mut Value) {
    let entries = raw
        .pointer_mut("/metadata/managedFields")
        .and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
        if entry
            .get("time")
            .is_some_and(|time| Time::deserialize(time).is_err())
        {
            entry.remove("time");
        }
    }
}

impl<K: Resource> Resource for Read<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Object(object) => object.meta(),
            Self::Unreadable(object) => &object.metadata,
        }
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Object(object) => object.meta_mut(),
            Self::Unreadable(object) => &mut object.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    fn budgets(items: Value) -> Vec<Read<PodDisruptionBudget>> {
        let list = json!({"kind": "PodDisruptionBudgetList", "apiVersion": "policy/v1",
                          "metadata": {"resourceVersion": "5"}, "items": items});
        let list: ObjectList<Read<PodDisruptionBudget>> = serde_json::from_str(&list.to_string()).unwrap();
        list.items
    }

    fn budget(name: &str, overlay: Value) -> Value {
        let mut budget = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"a": "b"}},
                                "status": {"disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1}});
        json_patch::merge(&mut budget, &overlay);
        budget
    }

    #[test]
    fn a_time_beyond_the_range_in_managed_fields_costs_nothing_but_itself() {
        let late = json!({"metadata": {"managedFields": [
            {"manager": "a", "time": "9999-12-31T23:59:59Z"}, {"manager": "b", "time": "2026-11-01T00:00:00Z"}]}});
        let read = budgets(json!([budget("late", late), budget("plain", json!({}))]));
        let [Read::Object(late), Read::Object(plain)] = &read[..] else {
            panic!("{read:?}")
        };
        let times: Vec<bool> = late
            .metadata
            .managed_fields
            .iter()
            .flatten()
            .map(|f| f.time.is_some())
            .collect();
        assert_eq!(times, [false, true]);
        assert_eq!(late.status.as_ref().unwrap().disruptions_allowed, Some(1));
        assert_eq!(plain.metadata.name.as_deref(), Some("plain"));
    }

    #[test]
    fn what_does_not_fit_is_kept_by_name_and_stops_nothing_beside_it() {
        let bad = json!({"status": {"disruptionsAllowed": "many"}});
        let read = budgets(json!([budget("bad", bad), budget("plain", json!({}))]));
        let [Read::Unreadable(bad), Read::Object(_)] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(bad.key(), "shop/bad");
        assert_eq!(bad.metadata.uid.as_deref(), Some("bad"));
        assert_eq!(bad.labels(), BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(
            bad.error,
            r#"status.disruptionsAllowed: invalid type: string "many", expected i32"#
        );
    }

    #[test]
    fn what_has_no_name_is_no_object() {
        assert!(serde_json::from_str::<Read<PodDisruptionBudget>>("[]").is_err());
        assert!(serde_json::from_str::<Read<PodDisruptionBudget>>(r#"{"status": 1}"#).is_err());
    }
}
