//! Counts in messages.

use std::fmt::Display;

/// `1 pod`, `2 pods`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    if count == N::from(1) {
        format!("{count} {one}")
    } else {
        format!("{count} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [counted(0, "pod"), counted(1, "pod"), counted(2, "pod")],
            ["0 pods", "1 pod", "2 pods"]
        );
    }
}
