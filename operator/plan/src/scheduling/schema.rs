//! What the installed ResourcePolicy CRD takes. The vendor does not publish it and its editions differ, so fields and the
//! spelling of words are read from the schema that the API server shows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{GROUP, VERSION, minima};

/// The schema of `spec` of a ResourcePolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySchema {
    spec: Value,
}

/// A spec as far as the schema takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fitted {
    /// What can be written.
    pub(super) spec: Value,
    /// Fields that were left out, by path, with why.
    pub(super) left_out: BTreeMap<String, String>,
    /// Fields that have to be there and are not.
    pub(super) missing: Vec<String>,
}

/// A value in a schema.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    schema: &'a Value,
}

/// The schema of a CustomResourceDefinition, or why there is none.
pub(super) fn read(crd: &Value) -> Result<PolicySchema, String> {
    let established = crd["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    if !established {
        return Err("its CustomResourceDefinition is installed and not established yet".to_owned());
    }
    let versions = crd["spec"]["versions"].as_array();
    let version = versions
        .into_iter()
        .flatten()
        .find(|v| v["name"] == VERSION && v["served"] == true)
        .ok_or_else(|| {
            format!(
                "its CustomResourceDefinition does not serve {GROUP}/{VERSION}; install a scheduler that does"
            )
        })?;
    Ok(PolicySchema {
        spec: version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone(),
    })
}

impl PolicySchema {
    /// Whether `spec` has the field.
    pub(super) fn knows(&self, field: &str) -> bool {
        preserves(&self.spec) || self.spec["properties"].get(field).is_some()
    }

    /// The version that the scheduler has at least. A schema that takes every field says nothing.
    pub(crate) fn scheduler(&self) -> Option<&'static str> {
        let unit = &self.spec["properties"]["units"]["items"]["properties"];
        minima::at_least(|field| {
            let of_spec = self.spec["properties"].get(field);
            of_spec.or_else(|| unit.get(field)).is_some()
        })
    }

    /// Whether the field at that path is a number.
    pub(super) fn counts(&self, path: [&str; 2]) -> bool {
        self.spec["properties"][path[0]]["properties"][path[1]]["type"] == "integer"
    }

    /// As much of a spec as the schema takes.
    pub(super) fn fit(&self, spec: Value) -> Fitted {
        let mut fitted = Fitted::default();
        let place = Place {
            path: "",
            schema: &self.spec,
        };
        fitted.spec = fitted.value(spec, place).unwrap_or_default();
        fitted
    }
}

impl Fitted {
    fn value(&mut self, value: Value, place: Place<'_>) -> Option<Value> {
        if !of_type(&value, place.schema) {
            let expected = place.schema["type"].as_str().unwrap_or_default();
            return self.leave_out(
                place.path,
                format!("the installed CRD wants a value of type {expected}"),
            );
        }
        match value {
            Value::Object(fields) => Some(self.object(fields, place).into()),
            Value::Array(items) => {
                let items = items.into_iter().enumerate().filter_map(|(index, item)| {
                    let path = format!("{}[{index}]", place.path);
                    let schema = &place.schema["items"];
                    self.value(item, Place { path: &path, schema })
                });
                Some(items.collect::<Vec<_>>().into())
            }
            Value::String(word) => self.word(word, place),
            other => Some(other),
        }
    }

    fn object(&mut self, fields: Map<String, Value>, place: Place<'_>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in fields {
            let path = match place.path {
                "" => name.clone(),
                above => format!("{above}.{name}"),
            };
            let below = place.schema["properties"]
                .get(&name)
                .or_else(|| place.schema.get("additionalProperties").filter(|a| a.is_object()));
            let open = preserves(place.schema) || place.schema["additionalProperties"] == true;
            match below {
                Some(schema) => kept.extend(
                    self.value(value, Place { path: &path, schema })
                        .map(|value| (name, value)),
                ),
                None if open => drop(kept.insert(name, value)),
                None => drop(self.leave_out(&path, "the installed CRD does not have it".to_owned())),
            }
        }
        let required = place.schema["required"].as_array();
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let filled = place.schema["properties"][name].get("default").is_some();
            if !kept.contains_key(name) && !filled {
                self.missing.push(match place.path {
                    "" => name.to_owned(),
                    above => format!("{above}.{name}"),
                });
            }
        }
        kept
    }

    /// A word in the CRD's own spelling: editions differ in the case of letters.
    fn word(&mut self, word: String, place: Place<'_>) -> Option<Value> {
        let Some(words) = place.schema["enum"].as_array() else {
            return Some(word.into());
        };
        let mut known = words.iter().filter_map(Value::as_str);
        if let Some(spelt) = known.find(|known| known.eq_ignore_ascii_case(&word)) {
            return Some(spelt.into());
        }
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        self.leave_out(
            place.path,
            format!("it is {word}, and the installed CRD takes {}", words.join(", ")),
        )
    }

    fn leave_out(&mut self, path: &str, why: String) -> Option<Value> {
        self.left_out.insert(path.to_owned(), why);
        None
    }
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn of_type(value: &Value, schema: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_string() || value.is_i64();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        // A schema without a type is one that preserves what it does not know.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(spec: Value) -> PolicySchema {
        PolicySchema { spec }
    }

    #[test]
    fn what_the_schema_does_not_have_is_left_out_and_named() {
        let schema = schema(json!({ "type": "object", "properties": {
            "selector": { "type": "object", "additionalProperties": { "type": "string" } },
            "units": { "type": "array", "items": { "type": "object", "properties": { "resource": { "type": "string" } } } },
        } }));
        let fitted = schema.fit(json!({
            "selector": { "app": "web" }, "preemptPolicy": "AfterAllUnits",
            "units": [{ "resource": "ecs" }, { "resource": "eci", "maxResources": { "cpu": "1" } }],
        }));
        assert_eq!(
            fitted.spec,
            json!({ "selector": { "app": "web" }, "units": [{ "resource": "ecs" }, { "resource": "eci" }] })
        );
        let left: Vec<&str> = fitted.left_out.keys().map(String::as_str).collect();
        assert_eq!(left, ["preemptPolicy", "units[1].maxResources"]);
        assert!(fitted.missing.is_empty());
    }

    #[test]
    fn words_take_the_spelling_of_the_schema_and_unknown_words_are_left_out() {
        let policy = json!({ "type": "string", "enum": ["LackResourceAndNoterminating", "ExceedMax"] });
        let schema = schema(json!({ "type": "object", "properties": { "policy": policy } }));
        let fit = |word: &str| schema.fit(json!({ "policy": word }));
        assert_eq!(
            fit("LackResourceAndNoTerminating").spec,
            json!({ "policy": "LackResourceAndNoterminating" })
        );
        let unknown = fit("TimeoutOrExceedMax");
        assert_eq!(unknown.spec, json!({}));
        assert!(unknown.left_out["policy"].contains("ExceedMax"), "{unknown:?}");
    }

    #[test]
    fn required_fields_are_missed_unless_they_have_a_default() {
        let schema = schema(
            json!({ "type": "object", "required": ["a", "b", "c"], "properties": {
            "a": { "type": "string" }, "b": { "type": "string", "default": "x" }, "c": { "type": "integer" },
        } }),
        );
        assert_eq!(schema.fit(json!({ "c": "word" })).missing, ["a", "c"]);
    }

    #[test]
    fn a_schema_without_fields_takes_everything_or_nothing() {
        let open = schema(json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
        let spec = json!({ "units": [{ "resource": "eci" }], "whatever": 1 });
        assert_eq!(open.fit(spec.clone()).spec, spec);
        assert_eq!(schema(json!({ "type": "object" })).fit(spec).spec, json!({}));
    }

    #[test]
    fn amounts_may_be_numbers_or_words() {
        let schema = schema(json!({ "type": "object", "properties": {
            "max": { "x-kubernetes-int-or-string": true }, "flag": { "type": "boolean" },
        } }));
        let fitted = schema.fit(json!({ "max": "1Gi", "flag": "yes" }));
        assert_eq!(fitted.spec, json!({ "max": "1Gi" }));
        assert!(fitted.left_out["flag"].contains("boolean"));
    }

    #[test]
    fn only_an_established_and_served_version_counts() {
        let crd = |version: &str, served: bool, established: &str| {
            json!({
                "spec": { "versions": [{ "name": version, "served": served, "schema": { "openAPIV3Schema": {
                    "properties": { "spec": { "type": "object" } } } } }] },
                "status": { "conditions": [{ "type": "Established", "status": established }] },
            })
        };
        assert!(read(&crd(VERSION, true, "True")).is_ok());
        assert!(
            read(&crd(VERSION, false, "True"))
                .unwrap_err()
                .contains("does not serve")
        );
        assert!(read(&crd("v1", true, "True")).unwrap_err().contains(VERSION));
        assert!(
            read(&crd(VERSION, true, "False"))
                .unwrap_err()
                .contains("not established")
        );
    }
}
