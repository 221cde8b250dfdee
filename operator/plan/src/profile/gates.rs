//! The comma-separated list of feature gates. What is not asked for keeps its bytes and its place.

use std::fmt;

/// A list `Name=value,Name=value` that can be changed gate by gate. Of several entries of one gate the last one counts,
/// as in Kubernetes' own parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GateList {
    segments: Vec<String>,
}

impl GateList {
    pub(super) fn parse(text: &str) -> Self {
        let segments = if text.is_empty() {
            Vec::new()
        } else {
            text.split(',').map(str::to_owned).collect()
        };
        Self { segments }
    }

    fn position(&self, gate: &str) -> Option<usize> {
        self.segments
            .iter()
            .rposition(|s| s.split_once('=').is_some_and(|(name, _)| name.trim() == gate))
    }

    /// The gate's value with the blanks around it.
    pub(super) fn get(&self, gate: &str) -> Option<&str> {
        self.position(gate)
            .and_then(|i| self.segments.get(i)?.split_once('='))
            .map(|(_, value)| value)
    }

    /// Sets the gate, at the end of the list when it is new.
    pub(super) fn set(&mut self, gate: &str, value: &str) {
        let segment = self.position(gate).and_then(|i| self.segments.get_mut(i));
        if let Some(segment) = segment {
            let name = segment.split_once('=').map_or(gate, |(name, _)| name);
            *segment = format!("{name}={value}");
            return;
        }
        // A list that ends with a comma goes on ending with one.
        let trailing = self.segments.last().is_some_and(|s| s.trim().is_empty());
        self.segments.insert(
            self.segments.len() - usize::from(trailing),
            format!("{gate}={value}"),
        );
    }

    /// Takes the gate out.
    pub(super) fn remove(&mut self, gate: &str) {
        if let Some(i) = self.position(gate) {
            self.segments.remove(i);
        }
    }
}

impl fmt::Display for GateList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, gate: &str, value: &str) -> String {
        let mut list = GateList::parse(text);
        list.set(gate, value);
        list.to_string()
    }

    #[test]
    fn only_the_gate_changes() {
        for (before, after) in [
            ("", "G=true"),
            ("A=false", "A=false,G=true"),
            ("G=false", "G=true"),
            ("A=x, G =False ,B=1", "A=x, G =true,B=1"),
            ("G=a,G=b", "G=a,G=true"),
            ("A=1,", "A=1,G=true,"),
            ("junk,,A=1", "junk,,A=1,G=true"),
            ("G", "G,G=true"),
        ] {
            assert_eq!(set(before, "G", "true"), after, "{before:?}");
        }
    }

    #[test]
    fn the_last_entry_counts() {
        assert_eq!(GateList::parse("G=a, G= b ").get("G"), Some(" b "));
        assert_eq!(GateList::parse("A=1").get("G"), None);
    }

    proptest! {
        #[test]
        fn setting_and_taking_back_leaves_every_byte(text in "[ABG=, x]{0,24}", value in "true|false") {
            let mut list = GateList::parse(&text);
            prop_assert_eq!(&list.to_string(), &text);
            let before = list.get("G").map(str::to_owned);
            list.set("G", &value);
            prop_assert_eq!(list.get("G"), Some(value.as_str()));
            match before {
                Some(old) => list.set("G", &old),
                None => list.remove("G"),
            }
            prop_assert_eq!(list.to_string(), text);
        }

        #[test]
        fn setting_twice_is_setting_once(text in "[ABG=, x]{0,24}") {
            let once = set(&text, "G", "true");
            prop_assert_eq!(set(&once, "G", "true"), once);
        }
    }
}
