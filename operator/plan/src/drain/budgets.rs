//! Which PodDisruptionBudgets cover a pod, and which of them allow nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::observed::{BoundPod, Budget, ObjectKey};

/// What a spent budget is said to need; the same words whether a watch or an eviction told.
pub(crate) fn no_disruptions(budget: &ObjectKey) -> String {
    format!(
        "PodDisruptionBudget {budget} allows no disruption now; see kubectl -n {} get pdb {}",
        budget.namespace, budget.name
    )
}

/// The budgets' selectors, read once for all pods of a node.
pub(super) struct BudgetSelectors {
    by_namespace: BTreeMap<String, Vec<(ObjectKey, Selector)>>,
    /// Budgets that allow nothing: known by watch, without asking.
    spent: BTreeSet<ObjectKey>,
}

impl BudgetSelectors {
    pub(super) fn of(budgets: &[Budget]) -> Self {
        let mut by_namespace: BTreeMap<String, Vec<(ObjectKey, Selector)>> = BTreeMap::new();
        let mut spent = BTreeSet::new();
        for budget in budgets {
            let Some(selector) = budget.selector.clone().and_then(readable) else {
                continue;
            };
            by_namespace
                .entry(budget.key.namespace.clone())
                .or_default()
                .push((budget.key.clone(), selector));
            if budget.current && budget.allowed <= 0 {
                spent.insert(budget.key.clone());
            }
        }
        Self { by_namespace, spent }
    }

    /// The only budget of a pod, when it allows nothing.
    pub(super) fn spent<'a>(&self, budgets: &'a [ObjectKey]) -> Option<&'a ObjectKey> {
        let [only] = budgets else { return None };
        self.spent.contains(only).then_some(only)
    }

    pub(super) fn covering(&self, pod: &BoundPod) -> Vec<ObjectKey> {
        let budgets = self
            .by_namespace
            .get(&pod.key.namespace)
            .map_or(&[][..], Vec::as_slice);
        budgets
            .iter()
            .filter(|(_, s)| s.matches(&pod.labels))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// A selector that this version can't read covers nothing here; the API server still respects the budget.
fn readable(selector: LabelSelector) -> Option<Selector> {
    Selector::try_from(selector).ok()
}
