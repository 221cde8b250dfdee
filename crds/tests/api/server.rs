//! What the API server does with a write, in process: defaults, structural schema, keyed lists, CEL rules.

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use regex::Regex;
use serde_json::{Value, json};

/// A refusal.
pub(crate) struct Refusal {
    /// One line per finding, `path: message`.
    pub(crate) text: String,
    /// The CEL rules that failed.
    pub(crate) rules: Vec<String>,
}

/// The schema of a pool, its rules compiled once.
pub(crate) struct Server {
    pub(crate) schema: Value,
    compiled: CompiledSchema,
}

impl Server {
    pub(crate) fn new() -> Self {
        let crd = serde_json::to_value(vnp_crds::definition().unwrap()).unwrap();
        let schema = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap()
            .clone();
        let compiled = compile_schema(&schema);
        Self { schema, compiled }
    }

    /// Judges one write. As on the server, CEL only runs on what the structural schema accepts.
    pub(crate) fn judge(&self, pool: &Value, old: Option<&Value>) -> Result<(), Refusal> {
        let mut lines = Vec::new();
        structural(&self.schema, pool, "", &mut lines);
        if !lines.is_empty() {
            return Err(Refusal {
                text: lines.join("\n"),
                rules: Vec::new(),
            });
        }
        let Err(errors) = Validator::new().validate_compiled(&self.compiled, pool, old) else {
            return Ok(());
        };
        for error in errors.as_slice() {
            assert_eq!(
                error.kind,
                ErrorKind::ValidationFailure,
                "{}: {}",
                error.rule,
                error.message
            );
        }
        let lines: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
        Err(Refusal {
            text: lines.join("\n"),
            rules: errors.into_vec().into_iter().map(|error| error.rule).collect(),
        })
    }
}

fn structural(schema: &Value, value: &Value, path: &str, lines: &mut Vec<String>) {
    let mut refuse = |text: String| lines.push(format!("{path}: {text}"));
    let expected = schema["type"].as_str();
    let actual = kind(value);
    if let Some(expected) = expected
        && expected != actual
        && !(expected == "number" && actual == "integer")
    {
        refuse(format!(
            "Invalid value: {actual:?}: must be of type {expected}: {actual:?}"
        ));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        refuse(format!(
            "Unsupported value: {value}: supported values: {}",
            json!(words)
        ));
    }
    match value {
        Value::String(text) => {
            if schema["maxLength"]
                .as_u64()
                .is_some_and(|max| text.chars().count() as u64 > max)
            {
                refuse(format!("Too long: may not be more than {}", schema["maxLength"]));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && !Regex::new(pattern).unwrap().is_match(text)
            {
                refuse(format!("Invalid value: {value}: should match '{pattern}'"));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            if schema["minimum"].as_f64().is_some_and(|min| number < min) {
                refuse(format!(
                    "Invalid value: {value}: should be greater than or equal to {}",
                    schema["minimum"]
                ));
            }
            if schema["maximum"].as_f64().is_some_and(|max| number > max) {
                refuse(format!(
                    "Invalid value: {value}: should be less than or equal to {}",
                    schema["maximum"]
                ));
            }
        }
        Value::Array(items) => {
            if schema["minItems"]
                .as_u64()
                .is_some_and(|min| (items.len() as u64) < min)
            {
                refuse(format!(
                    "Invalid value: should have at least {} items",
                    schema["minItems"]
                ));
            }
            if schema["maxItems"]
                .as_u64()
                .is_some_and(|max| items.len() as u64 > max)
            {
                refuse(format!(
                    "Too many: {}: must have at most {} items",
                    items.len(),
                    schema["maxItems"]
                ));
            }
            keyed_list(schema, items, path, lines);
            for (index, item) in items.iter().enumerate() {
                structural(&schema["items"], item, &format!("{path}[{index}]"), lines);
            }
        }
        Value::Object(fields) => {
            if schema["maxProperties"]
                .as_u64()
                .is_some_and(|max| fields.len() as u64 > max)
            {
                refuse(format!(
                    "Too many: must have at most {} items",
                    schema["maxProperties"]
                ));
            }
            for field in schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                if fields.get(field).is_none_or(Value::is_null) {
                    lines.push(format!("{}: Required value", join(path, field)));
                }
            }
            for (field, value) in fields {
                let schema = schema["properties"]
                    .get(field)
                    .or_else(|| schema.get("additionalProperties"));
                if let Some(schema) = schema {
                    structural(schema, value, &join(path, field), lines);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn keyed_list(schema: &Value, items: &[Value], path: &str, lines: &mut Vec<String>) {
    let keys: Vec<Value> = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => items.to_vec(),
        Some("map") => {
            let names = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            items
                .iter()
                .map(|item| {
                    names
                        .iter()
                        .map(|name| item[name.as_str().unwrap()].clone())
                        .collect()
                })
                .collect()
        }
        _ => return,
    };
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            lines.push(format!("{path}[{index}]: Duplicate value: {key}"));
        }
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
