//! What may be a label. Source: apimachinery `pkg/util/validation`, `IsQualifiedName` and `IsValidLabelValue`.

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;

/// Whether a label or annotation can have this key.
pub(crate) fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
    }
}

/// Whether a label can have this value; it may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_NAME
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

fn is_subdomain(text: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.chars().all(|c| lower(c) || c == '-') && part.starts_with(lower) && part.ends_with(lower)
    };
    text.len() <= MAX_PREFIX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = "a".repeat(64);
        for good in ["app", "A", "a.b_c-d", "example.com/x", "a-b.c/9", &long[..63]] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in [
            "", "-a", "a-", "a b", "/a", "a/", "A.com/x", "a/b/c", ".com/x", "é", &long,
        ] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
    }

    #[test]
    fn values() {
        for good in ["", "x", "T4", "a.b"] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["L20(GN8IS)", "a/b", "-", &"a".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }
}
