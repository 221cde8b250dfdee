//! Cases derived from the schema: each bound of each field of the spec is broken once.

use serde_json::{Value, json};

use super::{Case, Step};

/// One case per bound of `schema`, tried on a pool that sets every field, and those integers that still fit.
pub(crate) fn cases(schema: &Value, everything: &Value) -> Vec<Case> {
    let mut found = Walk {
        everything,
        cases: Vec::new(),
    };
    found.object(&schema["properties"]["spec"], "/spec", "spec");
    found.cases
}

struct Walk<'a> {
    everything: &'a Value,
    cases: Vec<Case>,
}

impl Walk<'_> {
    fn object(&mut self, schema: &Value, pointer: &str, path: &str) {
        for field in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            let mut pool = self.everything.clone();
            pool.pointer_mut(pointer)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(field)
                .unwrap();
            self.refused(
                format!("{path} without {field}"),
                pool,
                &[&format!("{path}.{field}"), "Required value"],
            );
        }
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            // Fields of embedded Kubernetes types that the pool leaves out are bounded by Kubernetes, not by us.
            let (pointer, path) = (format!("{pointer}/{field}"), format!("{path}.{field}"));
            if self.everything.pointer(&pointer).is_some() {
                self.field(property, &pointer, &path);
            }
        }
    }

    fn field(&mut self, schema: &Value, pointer: &str, path: &str) {
        match schema["type"].as_str() {
            Some("string") => self.string(schema, pointer, path),
            Some("integer") => self.integer(schema, pointer, path),
            Some("array") => self.array(schema, pointer, path),
            Some("object") if schema.get("additionalProperties").is_some() => self.map(schema, pointer, path),
            Some("object") => self.object(schema, pointer, path),
            _ => {}
        }
    }

    fn string(&mut self, schema: &Value, pointer: &str, path: &str) {
        if let Some(words) = schema["enum"].as_array() {
            let expected = words.iter().filter_map(Value::as_str);
            let expected: Vec<&str> = [path, "Unsupported value", "Else"]
                .into_iter()
                .chain(expected)
                .collect();
            self.refused(
                format!("{path} is no word of its list"),
                self.with(pointer, json!("Else")),
                &expected,
            );
            return;
        }
        if let Some(max) = schema["maxLength"].as_u64() {
            let value = "a".repeat(usize::try_from(max).unwrap() + 1);
            self.refused(
                format!("{path} is longer than {max}"),
                self.with(pointer, json!(value)),
                &[path, &max.to_string()],
            );
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            self.refused(
                format!("{path} has another shape"),
                self.with(pointer, json!("_-")),
                &[path, "_-", pattern],
            );
        }
    }

    fn integer(&mut self, schema: &Value, pointer: &str, path: &str) {
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            let Some(limit) = schema[bound].as_f64() else {
                continue;
            };
            let limit = limit as i64;
            let value = limit + beyond;
            self.accepted(
                format!("{path} is at its {bound}"),
                self.with(pointer, json!(limit)),
            );
            self.refused(
                format!("{path} is beyond its {bound}"),
                self.with(pointer, json!(value)),
                &[path, &value.to_string(), &limit.to_string()],
            );
        }
    }

    fn array(&mut self, schema: &Value, pointer: &str, path: &str) {
        if schema["minItems"].as_u64().is_some_and(|min| min > 0) {
            self.refused(
                format!("{path} is empty"),
                self.with(pointer, json!([])),
                &[path, "at least 1"],
            );
        }
        let items = self.everything.pointer(pointer).unwrap().as_array().unwrap();
        if let Some(max) = schema["maxItems"].as_u64() {
            let many: Vec<Value> = (0..=max).map(|index| numbered(&items[0], index)).collect();
            self.refused(
                format!("{path} has more than {max}"),
                self.with(pointer, json!(many)),
                &[path, &max.to_string()],
            );
        }
        // The first item stands for all, unless another one has more fields.
        let fields = |item: &Value| item.as_object().map_or(0, serde_json::Map::len);
        let most = (0..items.len())
            .rev()
            .max_by_key(|&index| fields(&items[index]))
            .unwrap();
        self.field(
            &schema["items"],
            &format!("{pointer}/{most}"),
            &format!("{path}[{most}]"),
        );
    }

    fn map(&mut self, schema: &Value, pointer: &str, path: &str) {
        let (key, value) = self
            .everything
            .pointer(pointer)
            .unwrap()
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap();
        if let Some(max) = schema["maxProperties"].as_u64() {
            let many: serde_json::Map<String, Value> = (0..=max)
                .map(|index| (format!("k{index}"), value.clone()))
                .collect();
            self.refused(
                format!("{path} has more than {max}"),
                self.with(pointer, json!(many)),
                &[path, &max.to_string()],
            );
        }
        // The server writes a key that holds dots or slashes in brackets.
        let entry = match key.contains(['.', '/']) {
            true => path.to_owned(),
            false => format!("{path}.{key}"),
        };
        self.field(
            &schema["additionalProperties"],
            &format!("{pointer}/{}", key.replace('/', "~1")),
            &entry,
        );
    }

    fn with(&self, pointer: &str, value: Value) -> Value {
        let mut pool = self.everything.clone();
        *pool.pointer_mut(pointer).unwrap() = value;
        pool
    }

    fn accepted(&mut self, name: String, pool: Value) {
        self.cases.push(Case {
            name,
            steps: vec![Step {
                pool,
                refused: Vec::new(),
            }],
        });
    }

    fn refused(&mut self, name: String, pool: Value, expected: &[&str]) {
        let refused = expected.iter().map(|&text| text.to_owned()).collect();
        self.cases.push(Case {
            name,
            steps: vec![Step { pool, refused }],
        });
    }
}

/// A copy that clashes with no other number's copy.
fn numbered(item: &Value, index: u64) -> Value {
    let mut copy = item.clone();
    match &mut copy {
        Value::String(text) => text.push_str(&index.to_string()),
        Value::Object(fields) => {
            for key in ["name", "zone", "resource"] {
                if let Some(Value::String(text)) = fields.get_mut(key) {
                    text.push_str(&index.to_string());
                }
            }
        }
        _ => {}
    }
    copy
}
