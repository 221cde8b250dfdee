//! Lists in messages: sorted and short, so that the same situation always reads the same (P6).

use std::collections::BTreeSet;

use vnp_plan::wording::counted;

/// Items spelled out before the rest is only counted.
const NAMED: usize = 3;

/// `a, b, c and 12 more`: sorted, without repeats, `virtual-node-eci-9` before `virtual-node-eci-10`.
pub(super) fn list<I>(items: I) -> String
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let sorted: BTreeSet<(usize, String)> = items
        .into_iter()
        .map(Into::into)
        .filter(|text: &String| !text.is_empty())
        .map(|text| (text.len(), text))
        .collect();
    join(sorted.into_iter().map(|(_, text)| text), ", ", "and")
}

/// Whole messages, sorted: `first; second; third plus 4 more`.
pub(super) fn sentences<I>(items: I) -> String
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let sorted: BTreeSet<String> = items.into_iter().map(Into::into).collect();
    in_order(sorted)
}

/// Whole messages in the order given, which must be a stable one.
pub(super) fn in_order<I>(items: I) -> String
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    join(
        items
            .into_iter()
            .map(Into::into)
            .filter(|text: &String| !text.is_empty()),
        "; ",
        "plus",
    )
}

fn join(items: impl Iterator<Item = String>, separator: &str, and: &str) -> String {
    let all: Vec<String> = items.collect();
    let more = all.len().saturating_sub(NAMED);
    let mut text = all.get(..NAMED).unwrap_or(&all).join(separator);
    if more > 0 {
        text.push_str(&format!(" {and} {more} more"));
    }
    text
}

/// `1 virtual node`, `2 virtual nodes`.
pub(super) fn nodes(count: i32) -> String {
    counted(count, "virtual node")
}

/// At most `limit` bytes of a text, cut between characters.
pub(super) fn cut(mut text: String, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_short_and_without_repeats() {
        assert_eq!(list(["b", "a", "b"]), "a, b");
        assert_eq!(
            list((0..15).rev().map(|n| format!("vn-{n}"))),
            "vn-0, vn-1, vn-2 and 12 more"
        );
        assert_eq!(list(["vn-10", "vn-9"]), "vn-9, vn-10");
        assert_eq!(list(Vec::<String>::new()), "");
    }

    #[test]
    fn sentences_are_kept_apart() {
        assert_eq!(sentences(["two", "one", "", "one"]), "one; two");
        assert_eq!(sentences(["d", "c", "b", "a"]), "a; b; c plus 1 more");
        assert_eq!(in_order(["two", "", "one"]), "two; one");
    }

    #[test]
    fn one_node_is_no_nodes() {
        assert_eq!(
            [nodes(0), nodes(1), nodes(2)],
            ["0 virtual nodes", "1 virtual node", "2 virtual nodes"]
        );
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("äöü".to_owned(), 3), "ä");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
        assert_eq!(cut("abc".to_owned(), 9), "abc");
    }
}
