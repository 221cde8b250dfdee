//! Which pods a rule means: by their labels and those of their namespace.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Expression, Selector, SelectorExt};

/// The pods that two selectors mean together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reach {
    /// On the labels of the namespace, its name among them.
    pub(crate) namespaces: Selector,
    /// On the labels of the pod.
    pub(crate) pods: Selector,
}

impl Reach {
    /// Whether a pod is meant.
    pub(crate) fn has(&self, namespace: &BTreeMap<String, String>, pod: &BTreeMap<String, String>) -> bool {
        self.pods.matches(pod) && self.namespaces.matches(namespace)
    }

    /// No labels whatsoever are meant.
    pub(crate) fn is_void(&self) -> bool {
        is_void(&self.namespaces) || is_void(&self.pods)
    }

    /// Every pod that `other` means is meant here as well. May say no where yes is true, never the other way round.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        follows(&self.namespaces, &other.namespaces) && self.covers_pods_of(other)
    }

    /// Every pod that `other` means by the pod's labels is meant here by them. May say no where yes is true, never the
    /// other way round.
    pub(crate) fn covers_pods_of(&self, other: &Self) -> bool {
        follows(&self.pods, &other.pods)
    }

    /// No pod is meant by both. May say no where yes is true.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        let never_both = |one: &Selector, other: &Selector| {
            let mut both = one.clone();
            is_void(both.extend(other.clone()))
        };
        never_both(&self.namespaces, &other.namespaces) || never_both(&self.pods, &other.pods)
    }

    /// The pods here in namespaces that `other` does not have, in parts of which no two share a pod, and those in the
    /// namespaces of `other`.
    pub(crate) fn split_by_namespaces_of(&self, other: &Self) -> (Vec<Self>, Self) {
        let mut outside = Vec::new();
        let mut inside = self.clone();
        for expression in other.namespaces.clone() {
            let mut part = inside.clone();
            part.namespaces.extend(opposite(&expression));
            if !part.is_void() {
                outside.push(part);
                inside.namespaces.extend(expression);
            }
        }
        (outside, inside)
    }
}

/// What a selector says about one key.
#[derive(Default)]
struct Key {
    /// Only these values, where it says so.
    only: Option<BTreeSet<String>>,
    /// None of these.
    never: BTreeSet<String>,
    present: bool,
    absent: bool,
}

impl Key {
    /// The values that are left, where they are numbered.
    fn left(&self) -> Option<BTreeSet<&String>> {
        Some(self.only.as_ref()?.difference(&self.never).collect())
    }

    fn is_void(&self) -> bool {
        let some = self.present || self.only.is_some();
        (self.absent && some) || self.left().is_some_and(|left| left.is_empty())
    }
}

fn key_of(expression: &Expression) -> &str {
    match expression {
        Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}

fn by_key(selector: &Selector) -> BTreeMap<String, Key> {
    let mut keys: BTreeMap<String, Key> = BTreeMap::new();
    for expression in selector.clone() {
        let key = keys.entry(key_of(&expression).to_owned()).or_default();
        let mut only = |values: BTreeSet<String>| {
            key.only = Some(match key.only.take() {
                Some(known) => known.intersection(&values).cloned().collect(),
                None => values,
            });
        };
        match expression {
            Expression::In(_, values) => only(values),
            Expression::Equal(_, value) => only([value].into()),
            Expression::NotIn(_, values) => key.never.extend(values),
            Expression::NotEqual(_, value) => {
                key.never.insert(value);
            }
            Expression::Exists(_) => key.present = true,
            Expression::DoesNotExist(_) => key.absent = true,
        }
    }
    keys
}

/// Satisfied by all labels that don't satisfy `expression`.
fn opposite(expression: &Expression) -> Expression {
    match expression.clone() {
        Expression::In(key, values) => Expression::NotIn(key, values),
        Expression::NotIn(key, values) => Expression::In(key, values),
        Expression::Equal(key, value) => Expression::NotEqual(key, value),
        Expression::NotEqual(key, value) => Expression::Equal(key, value),
        Expression::Exists(key) => Expression::DoesNotExist(key),
        Expression::DoesNotExist(key) => Expression::Exists(key),
    }
}

fn is_void(selector: &Selector) -> bool {
    by_key(selector).values().any(Key::is_void)
}

/// Whether labels that satisfy `premise` always satisfy `claim`.
fn follows(claim: &Selector, premise: &Selector) -> bool {
    let known = by_key(premise);
    let nothing = Key::default();
    claim.clone().into_iter().all(|expression| {
        let key = known.get(key_of(&expression)).unwrap_or(&nothing);
        let among = |values: &BTreeSet<String>| {
            key.left()
                .is_some_and(|left| left.into_iter().all(|value| values.contains(value)))
        };
        let outside = |values: &BTreeSet<String>| {
            key.absent
                || values.is_subset(&key.never)
                || key
                    .left()
                    .is_some_and(|left| !left.into_iter().any(|value| values.contains(value)))
        };
        match &expression {
            Expression::In(_, values) => among(values),
            Expression::Equal(_, value) => among(&[value.clone()].into()),
            Expression::NotIn(_, values) => outside(values),
            Expression::NotEqual(_, value) => outside(&[value.clone()].into()),
            Expression::Exists(_) => key.present || key.only.is_some(),
            Expression::DoesNotExist(_) => key.absent,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = BTreeSet<String>> {
        prop::collection::btree_set("[abc]", 1..3)
    }

    fn expression() -> impl Strategy<Value = Expression> {
        let key = "[xy]";
        prop_oneof![
            (key, values()).prop_map(|(k, v)| Expression::In(k, v)),
            (key, values()).prop_map(|(k, v)| Expression::NotIn(k, v)),
            (key, "[abc]").prop_map(|(k, v)| Expression::Equal(k, v)),
            (key, "[abc]").prop_map(|(k, v)| Expression::NotEqual(k, v)),
            key.prop_map(Expression::Exists),
            key.prop_map(Expression::DoesNotExist),
        ]
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop::collection::vec(expression(), 0..4).prop_map(Selector::from_iter)
    }

    /// All labels that can be told apart by the selectors above.
    fn every_label_set() -> Vec<BTreeMap<String, String>> {
        let choices = [None, Some("a"), Some("b"), Some("c"), Some("other")];
        let pairs = choices.iter().flat_map(|x| choices.iter().map(move |y| (x, y)));
        pairs
            .map(|(x, y)| {
                let of = |key: &str, value: &Option<&str>| value.map(|v| (key.to_owned(), v.to_owned()));
                of("x", x).into_iter().chain(of("y", y)).collect()
            })
            .collect()
    }

    fn reach() -> impl Strategy<Value = Reach> {
        (selector(), selector()).prop_map(|(namespaces, pods)| Reach { namespaces, pods })
    }

    /// Pods of all kinds in namespaces of all kinds.
    fn every_pod() -> impl Iterator<Item = (BTreeMap<String, String>, BTreeMap<String, String>)> {
        let namespaces = every_label_set().into_iter();
        namespaces.flat_map(|n| every_label_set().into_iter().map(move |p| (n.clone(), p)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_split_loses_no_pod_and_doubles_none(reach in reach(), other in reach()) {
            let (outside, inside) = reach.split_by_namespaces_of(&other);
            for (namespace, pod) in every_pod() {
                let (meant, others) = (reach.has(&namespace, &pod), other.has(&namespace, &pod));
                let parts = outside.iter().filter(|part| part.has(&namespace, &pod)).count();
                let within = inside.has(&namespace, &pod);
                prop_assert_eq!(parts + usize::from(within), usize::from(meant), "{:?} {:?}", namespace, pod);
                if within {
                    prop_assert!(other.namespaces.matches(&namespace), "{:?}", namespace);
                }
                prop_assert!(!(meant && others && reach.is_apart_from(&other)), "{:?} {:?}", namespace, pod);
            }
        }

        #[test]
        fn void_means_that_nothing_matches(selector in selector()) {
            let matches = every_label_set().iter().any(|labels| selector.matches(labels));
            prop_assert_eq!(is_void(&selector), !matches);
        }

        #[test]
        fn what_is_covered_is_never_missed(claim in selector(), premise in selector()) {
            let missed = every_label_set().into_iter().find(|l| premise.matches(l) && !claim.matches(l));
            if follows(&claim, &premise) {
                prop_assert_eq!(missed, None);
            }
        }

        #[test]
        fn a_selector_covers_itself(selector in selector(), more in selector()) {
            prop_assert!(follows(&selector, &selector));
            let mut narrower = selector.clone();
            narrower.extend(more);
            prop_assert!(follows(&selector, &narrower));
        }
    }
}
