//! The key `selectors`: a JSON list in a string, with one entry for each placement rule. What is not ours in it keeps its
//! bytes and its place.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use vnp_crds::{PlacementMode, PlacementRule, VirtualNodePool};

use super::said::syncs;
use crate::compute::{ComputeEffect, Said};
use crate::placement::trouble;

/// One entry that a pool asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) value: Value,
}

/// The entries of one pool, in the order of its rules: the first one that selects a pod has the say.
///
/// A rule of mode Prefer has none: the provider takes a pod that an entry selects to virtual nodes, room elsewhere or not.
/// Source: ECI documentation, "Configure an eci-profile".
pub(crate) fn wanted(pool: &VirtualNodePool) -> Vec<Selector> {
    let placement = pool.spec.placement.iter().filter(|_| syncs(pool));
    let rules = placement.flat_map(|placement| &placement.rules);
    let compute = ComputeEffect::of(pool.spec.compute_defaults.as_ref());
    rules
        .filter(|rule| rule.mode == PlacementMode::Require && trouble(rule).is_none())
        .map(|rule| {
            let pool = pool.metadata.name.as_deref().unwrap_or_default();
            let name = format!("{pool}.{}", rule.name);
            let value = entry(&name, rule, &compute);
            Selector { name, value }
        })
        .collect()
}

fn entry(name: &str, rule: &PlacementRule, compute: &ComputeEffect) -> Value {
    let mut labels: Map<String, Value> = rule.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    // An entry can't tell which pods request a GPU.
    if !compute.gpu_only {
        let said = Said::by(compute, |key| rule.labels.get(key).map(String::as_str), false);
        let given = compute.complete(&said);
        for (key, value) in given.labels.into_iter().chain(given.trigger) {
            labels.entry(key).or_insert_with(|| json!(value));
        }
    }
    let mut effect = Map::new();
    if !rule.annotations.is_empty() {
        effect.insert("annotations".to_owned(), json!(rule.annotations));
    }
    if !labels.is_empty() {
        effect.insert("labels".to_owned(), labels.into());
    }
    let mut entry = Map::from_iter([("name".to_owned(), json!(name))]);
    let selectors = [
        ("namespaceSelector", &rule.namespace_selector),
        ("objectSelector", &rule.pod_selector),
    ];
    for (field, selector) in selectors {
        if let Some(selector) = selector {
            entry.insert(field.to_owned(), json!(selector));
        }
    }
    if !effect.is_empty() {
        entry.insert("effect".to_owned(), effect.into());
    }
    entry.into()
}

/// The pool that an entry of ours is named after. A rule's name has no dot.
pub(super) fn pool_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(pool, _)| pool)
}

/// The list as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelectorList {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    at: Range<usize>,
    name: String,
    value: Value,
}

/// Why the provider can't read the list either.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenList {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("an entry is not an object")]
    NotAnObject,
}

impl SelectorList {
    /// Reads the list; blank text is an empty one.
    ///
    /// # Errors
    /// [`BrokenList`] when it is not a JSON list of objects.
    pub(super) fn parse(text: &str) -> Result<Self, BrokenList> {
        if text.trim().is_empty() {
            return Ok(Self {
                text: "[]".to_owned(),
                entries: Vec::new(),
            });
        }
        let raw: Vec<&RawValue> = serde_json::from_str(text)?;
        let entries = raw.into_iter().map(|raw| {
            let raw = raw.get();
            let value = Value::deserialize(&mut serde_json::Deserializer::from_str(raw))?;
            if !value.is_object() {
                return Err(BrokenList::NotAnObject);
            }
            let start = (raw.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            let name = value.get("name").and_then(Value::as_str);
            Ok(Entry {
                at: start..start + raw.len(),
                name: name.unwrap_or_default().to_owned(),
                value,
            })
        });
        Ok(Self {
            text: text.to_owned(),
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        Some(&entry.value)
    }

    /// Whether the entries of these names are exactly those, in that order.
    pub(super) fn holds(&self, names: &BTreeSet<String>, wanted: &[Selector]) -> bool {
        let there = self.entries.iter().filter(|entry| names.contains(&entry.name));
        let there = there.map(|entry| (&entry.name, &entry.value));
        there.eq(wanted.iter().map(|s| (&s.name, &s.value)))
    }

    /// Takes the entries of these names out and puts others at the end.
    ///
    /// # Errors
    /// [`BrokenList`] never, as long as what is put in is an object.
    pub(super) fn replace(&self, names: &BTreeSet<String>, wanted: &[Selector]) -> Result<Self, BrokenList> {
        let mut list = self.clone();
        while let Some(position) = list.entries.iter().position(|entry| names.contains(&entry.name)) {
            list = Self::parse(&list.without(position))?;
        }
        for selector in wanted {
            list = Self::parse(&list.followed_by(&selector.value.to_string()))?;
        }
        Ok(list)
    }

    /// The text without an entry and the comma that parted it from its neighbour.
    fn without(&self, position: usize) -> String {
        let of = |index: Option<usize>| index.and_then(|i| self.entries.get(i)).map(|entry| &entry.at);
        let Some(at) = of(Some(position)) else {
            return self.text.clone();
        };
        let (before, after) = (of(position.checked_sub(1)), of(Some(position + 1)));
        let cut = match (before, after) {
            (Some(before), _) => before.end..at.end,
            (None, Some(after)) => at.start..after.start,
            (None, None) => at.clone(),
        };
        let mut text = self.text.clone();
        text.replace_range(cut, "");
        text
    }

    /// The text with one more entry behind the last.
    fn followed_by(&self, entry: &str) -> String {
        let mut text = self.text.clone();
        match self.entries.last() {
            Some(last) => text.insert_str(last.at.end, &format!(",{entry}")),
            None => {
                let open = text.find('[').map_or(0, |bracket| bracket + 1);
                text.insert_str(open, entry);
            }
        }
        text
    }
}

impl fmt::Display for SelectorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accept::testing::pool;

    fn selector(name: &str) -> Selector {
        Selector {
            name: name.to_owned(),
            value: json!({ "name": name, "objectSelector": { "matchLabels": { "a": "b" } } }),
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn an_entry_says_what_the_rule_and_the_defaults_give() {
        let rules = json!([
            { "name": "batch", "mode": "Require",
              "namespaceSelector": { "matchLabels": { "team": "batch" } },
              "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["report"] }] },
              "labels": { "x": "y", "alibabacloud.com/compute-qos": "default" },
              "annotations": { "k8s.aliyun.com/eci-use-specs": "2-4Gi" } },
            { "name": "maybe", "mode": "Prefer", "podSelector": {} },
            { "name": "broken", "mode": "Require", "podSelector": { "matchLabels": { "no key": "x" } } },
            { "name": "plain", "mode": "Require", "podSelector": { "matchLabels": { "a": "b" } } },
        ]);
        let of = |defaults: Value| {
            let spec = json!({ "placement": { "rules": rules }, "computeDefaults": defaults });
            wanted(&pool(json!({ "spec": spec })))
        };
        let classed = of(json!({ "class": "performance", "qos": "best-effort" }));
        assert_eq!(
            classed[0].value,
            json!({
                "name": "burst.batch",
                "namespaceSelector": { "matchLabels": { "team": "batch" } },
                "objectSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["report"] }] },
                "effect": {
                    "annotations": { "k8s.aliyun.com/eci-use-specs": "2-4Gi" },
                    "labels": { "x": "y", "alibabacloud.com/compute-qos": "default" },
                },
            })
        );
        assert_eq!(classed.len(), 2);
        assert_eq!(
            classed[1].value["effect"]["labels"],
            json!({
                "alibabacloud.com/compute-class": "performance", "alibabacloud.com/compute-qos": "best-effort",
                "alibabacloud.com/acs": "true",
            })
        );
        let plain = json!({ "name": "burst.plain", "objectSelector": { "matchLabels": { "a": "b" } } });
        for defaults in [json!(null), json!({ "class": "gpu", "gpuModelSeries": "T4" })] {
            assert_eq!(of(defaults)[1].value, plain, "a GPU class is not for every pod");
        }
    }

    #[test]
    fn what_is_not_a_list_of_objects_is_refused() {
        for text in ["{", "{}", "[1]", "[{}] x", "[ # comment\n{}]"] {
            assert!(SelectorList::parse(text).is_err(), "{text}");
        }
    }

    fn foreign() -> impl Strategy<Value = String> {
        let entry = prop::sample::select(vec![
            r#"{"name":"a"}"#,
            "{ \"name\" : \"b\",\n \"effect\": {} }",
            "{}",
            r#"{"name":"é ] ,"}"#,
        ]);
        let blank = prop::sample::select(vec!["", " ", "\n  "]);
        (
            prop::collection::vec((blank.clone(), entry, blank.clone()), 0..4),
            blank,
        )
            .prop_map(|(entries, inside)| {
                let entries: Vec<String> = entries
                    .into_iter()
                    .map(|(a, entry, b)| format!("{a}{entry}{b}"))
                    .collect();
                format!("{inside}[{}{inside}]", entries.join(","))
            })
    }

    proptest! {
        #[test]
        fn coming_and_going_leaves_every_byte(text in foreign()) {
            let list = SelectorList::parse(&text).unwrap();
            prop_assert_eq!(&list.to_string(), &text);
            let ours = names(&["p.x", "p.y"]);
            let wanted = [selector("p.y"), selector("p.x")];
            let with = list.replace(&ours, &wanted).unwrap();
            prop_assert!(with.holds(&ours, &wanted));
            for entry in &list.entries {
                let raw = &text[entry.at.clone()];
                prop_assert!(with.to_string().contains(raw));
            }
            let other = [selector("p.x")];
            let changed = with.replace(&ours, &other).unwrap();
            prop_assert!(changed.holds(&ours, &other) && !changed.holds(&ours, &wanted));
            prop_assert_eq!(changed.replace(&ours, &[]).unwrap().to_string(), text);
        }
    }
}
