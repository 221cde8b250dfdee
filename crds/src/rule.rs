//! Builders of CEL rules.
//!
//! Each rule says which value it refuses and what to do instead. Values enter the message through `format`: the API server
//! prices a concatenation by the longest value it can think of, and refuses the definition for most that come from a list.

use kube::core::{Message, Reason, Rule};

/// The value is wrong; reported on the place where the rule stands. `text` has one `%s` for each of the CEL `values`.
pub(crate) fn invalid(rule: &str, text: &str, values: &[&str]) -> Rule {
    let message = match values {
        [] => Message::Message(text.into()),
        values => Message::Expression(format!(
            "'{}'.format([{}])",
            text.replace('\'', "\\'"),
            values.join(", ")
        )),
    };
    Rule::new(rule).message(message).reason(Reason::FieldValueInvalid)
}

/// The value of a field of the place where the rule stands is wrong.
pub(crate) fn invalid_at(rule: &str, field: &str, text: &str, values: &[&str]) -> Rule {
    invalid(rule, text, values).field_path(format!(".{field}"))
}

/// The field must be set.
pub(crate) fn required(rule: &str, field: &str, text: &str, values: &[&str]) -> Rule {
    invalid_at(rule, field, text, values).reason(Reason::FieldValueRequired)
}

/// The field must not be set.
pub(crate) fn forbidden(rule: &str, field: &str, text: &str, values: &[&str]) -> Rule {
    invalid_at(rule, field, text, values).reason(Reason::FieldValueForbidden)
}

/// A field keeps its value for good.
///
/// The rule stands on the parent, which is always there: on the field itself it would not run when the field is removed,
/// nor when it is added again with another value.
pub(crate) fn immutable(field: &str) -> Rule {
    let name = cel_name(field);
    let value = |of: &str| format!("(has({of}.{name}) ? {of}.{name} : '')");
    let (now, before) = (value("self"), value("oldSelf"));
    invalid_at(
        &format!("{now} == {before}"),
        field,
        &format!(r#"{field} can not be changed from "%s" to "%s": make a new pool, then delete this one"#),
        &[&before, &now],
    )
}

/// At least one selector is set: without any, a typing error would select every pod of the cluster.
pub(crate) fn selects() -> Rule {
    invalid(
        "has(self.podSelector) || has(self.namespaceSelector)",
        "%s has no selector: set podSelector, namespaceSelector or both; {} selects everything",
        &["self.name"],
    )
}

/// A CEL list of strings.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("'{word}'")).collect();
    format!("[{}]", quoted.join(", "))
}

/// How a field is spelt in CEL: the API server escapes the words that the language reserves.
pub(crate) fn cel_name(field: &str) -> &str {
    match field {
        "namespace" => "__namespace__",
        other => other,
    }
}
