//! Label selectors as Kubernetes reads them, and what can be said of two of them without any pod at hand.

mod reach;
mod syntax;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, ParseExpressionError, Selector};

pub(crate) use reach::Reach;
pub(crate) use syntax::{is_label_value, is_qualified_name};

/// A selector that the API server takes nowhere: in a webhook configuration it would refuse the whole of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableSelector {
    /// The schema takes any word for an operator.
    #[error(
        "can't be read ({0}): the operators are In and NotIn with values, Exists and DoesNotExist without"
    )]
    Operator(ParseExpressionError),
    /// In and NotIn compare with something.
    #[error("has operator {operator} without values for the key {key}: add values")]
    NoValues { key: String, operator: String },
    /// Exists and DoesNotExist compare with nothing.
    #[error("has values with operator {operator} for the key {key}: remove them")]
    Values { key: String, operator: String },
    /// No label has that key.
    #[error(
        "has the key {0:?}, which no label can have: an optional DNS prefix and a name of at most 63 letters, digits, -, _ and ."
    )]
    Key(String),
    /// No label has that value.
    #[error(
        "has the value {value:?} for the key {key}, which no label can have: at most 63 letters, digits, -, _ and ."
    )]
    Value { key: String, value: String },
}

/// Reads a selector as strictly as the API server does. Source: apimachinery
/// `pkg/apis/meta/v1/validation`, `ValidateLabelSelector`.
///
/// # Errors
/// [`UnreadableSelector`] for the first part that is none.
pub(crate) fn read(selector: &LabelSelector) -> Result<Selector, UnreadableSelector> {
    for requirement in selector.match_expressions.iter().flatten() {
        let (key, operator) = (requirement.key.clone(), requirement.operator.clone());
        let none = requirement.values.as_ref().is_none_or(Vec::is_empty);
        match operator.as_str() {
            "In" | "NotIn" if none => return Err(UnreadableSelector::NoValues { key, operator }),
            "Exists" | "DoesNotExist" if !none => {
                return Err(UnreadableSelector::Values { key, operator });
            }
            _ => {}
        }
    }
    let read = Selector::try_from(selector.clone()).map_err(UnreadableSelector::Operator)?;
    for expression in read.clone() {
        let (key, values) = match &expression {
            Expression::In(key, values) | Expression::NotIn(key, values) => (key, values.iter().collect()),
            Expression::Equal(key, value) | Expression::NotEqual(key, value) => (key, vec![value]),
            Expression::Exists(key) | Expression::DoesNotExist(key) => (key, Vec::new()),
        };
        if !is_qualified_name(key) {
            return Err(UnreadableSelector::Key(key.clone()));
        }
        if let Some(value) = values.into_iter().find(|value| !is_label_value(value)) {
            return Err(UnreadableSelector::Value {
                key: key.clone(),
                value: value.clone(),
            });
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn trouble(selector: Value) -> Option<String> {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        read(&selector).err().map(|e| e.to_string())
    }

    #[test]
    fn what_the_api_server_takes_is_read() {
        for selector in [
            json!({}),
            json!({ "matchLabels": { "app": "web", "example.com/tier": "", "a": "A.b_c-1" } }),
            json!({ "matchExpressions": [
                { "key": "app", "operator": "In", "values": ["a", "b"] },
                { "key": "x/y", "operator": "Exists" },
                { "key": "z", "operator": "DoesNotExist", "values": [] },
            ] }),
        ] {
            assert_eq!(trouble(selector.clone()), None, "{selector}");
        }
    }

    #[test]
    fn what_the_api_server_refuses_is_named() {
        let expression = |key: &str, operator: &str, values: Value| {
            json!({ "matchExpressions": [
            { "key": key, "operator": operator, "values": values }
        ] })
        };
        for (selector, word) in [
            (expression("a", "Gt", json!(["1"])), "the operators are"),
            (
                expression("a", "In", json!([])),
                "In without values for the key a",
            ),
            (expression("a", "NotIn", json!(null)), "NotIn without values"),
            (
                expression("a", "Exists", json!(["x"])),
                "values with operator Exists",
            ),
            (json!({ "matchLabels": { "a b": "x" } }), r#"the key "a b""#),
            (
                json!({ "matchLabels": { "a": "x y" } }),
                r#"the value "x y" for the key a"#,
            ),
        ] {
            let told = trouble(selector.clone());
            assert!(
                told.as_ref().is_some_and(|t| t.contains(word)),
                "{selector}: {told:?}"
            );
        }
    }
}
