//! Shapes of strings that several fields share.

use serde_json::{Value, json};

/// RFC 1123 label, as in names of namespaces and containers.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// [`DNS_LABEL`], or nothing, which means not set.
pub(crate) const DNS_LABEL_OR_EMPTY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$";

/// RFC 1123 subdomain, as in most object names.
pub(crate) const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";

/// [`DNS_SUBDOMAIN`], or nothing, which means not set.
pub(crate) const DNS_SUBDOMAIN_OR_EMPTY: &str = "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$";

/// Value of a label, not empty.
pub(crate) const LABEL_VALUE: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// Key of a label, with or without a prefix.
pub(crate) const LABEL_KEY: &str =
    "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// Schema of amounts of a resource in a map, never below zero.
pub(crate) fn quantity() -> Value {
    json!({ "type": "string", "maxLength": 32, "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|[KMGTPE]i?)?$" })
}

/// Schema of label values in a map, which may be empty.
pub(crate) fn label_value() -> Value {
    json!({ "type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" })
}

/// Schema of free text of at most so many characters in a map.
pub(crate) fn text(max_length: u32) -> Value {
    json!({ "type": "string", "maxLength": max_length })
}
