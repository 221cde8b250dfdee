//! Label and field selectors.

use serde_json::Value;

use crate::refusal::Refusal;

/// What a list or watch is limited to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: Vec<Term>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selection {
    /// From the query of a request.
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, Refusal> {
        let labels = split(labels.unwrap_or_default()).into_iter().map(term).collect();
        let mut parsed = Vec::new();
        for part in fields.unwrap_or_default().split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = match part.split_once("!=") {
                Some((key, value)) => (key, value, false),
                None => {
                    let (key, value) = part
                        .split_once("==")
                        .or_else(|| part.split_once('='))
                        .ok_or_else(|| Refusal::bad_request(format!("invalid field selector: {part}")))?;
                    (key, value, true)
                }
            };
            parsed.push((key.to_owned(), value.to_owned(), equal));
        }
        Ok(Self {
            labels,
            fields: parsed,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|t| t.matches(labels))
            && self.fields.iter().all(|(key, value, equal)| {
                let found = key
                    .split('.')
                    .fold(object, |v, part| &v[part])
                    .as_str()
                    .unwrap_or_default();
                (found == value) == *equal
            })
    }
}

impl Term {
    fn matches(&self, labels: &Value) -> bool {
        let found = labels[&self.key].as_str();
        match &self.test {
            Test::In(values) => found.is_some_and(|f| values.iter().any(|v| v == f)),
            Test::NotIn(values) => found.is_none_or(|f| values.iter().all(|v| v != f)),
            Test::Exists => found.is_some(),
            Test::Missing => found.is_none(),
        }
    }
}

/// Splits at the commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect()
}

fn term(text: &str) -> Term {
    let list = |values: &str| {
        let inner = values.trim().trim_start_matches('(').trim_end_matches(')');
        inner.split(',').map(|v| v.trim().to_owned()).collect()
    };
    let (key, test) = if let Some((key, values)) = text.split_once(" notin ") {
        (key, Test::NotIn(list(values)))
    } else if let Some((key, values)) = text.split_once(" in ") {
        (key, Test::In(list(values)))
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once('=') {
        (
            key,
            Test::In(vec![value.trim_start_matches('=').trim().to_owned()]),
        )
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Test::Missing)
    } else {
        (text, Test::Exists)
    };
    Term {
        key: key.trim().to_owned(),
        test,
    }
}

/// Whether a `LabelSelector` selects these labels. One that is missing selects nothing, an empty one everything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let Value::Object(selector) = selector else {
        return false;
    };
    let label = |key: &str| labels[key].as_str();
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    pairs
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key) == value.as_str())
        && expressions.into_iter().flatten().all(|e| {
            let found = label(e["key"].as_str().unwrap_or_default());
            let listed = e["values"]
                .as_array()
                .is_some_and(|v| v.iter().any(|v| v.as_str() == found));
            match e["operator"].as_str() {
                Some("In") => found.is_some() && listed,
                Some("NotIn") => found.is_none() || !listed,
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}
