//! Which PodDisruptionBudgets cover a pod, whether the server asks them, and why they allow nothing.

mod never;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::observed::{BoundPod, Budget, ObjectKey, PodPhase};

/// What a spent budget is said to need; the same words whether a watch or an eviction told.
pub(crate) fn no_disruptions(budget: &ObjectKey) -> String {
    format!(
        "PodDisruptionBudget {budget} allows no disruption now; see kubectl -n {} get pdb {}",
        budget.namespace, budget.name
    )
}

/// What is said of a budget that kube-controller-manager can't work out. With minAvailable as a number it needs no scale.
pub(crate) fn unsynced(budget: &ObjectKey, why: &str) -> String {
    format!(
        "PodDisruptionBudget {budget} allows nothing because kube-controller-manager can't work it out: {why}; give it \
         minAvailable as a number, or narrow its selector to pods whose controller has a scale"
    )
}

/// The budgets' selectors, read once for all pods of a node.
pub(super) struct BudgetSelectors<'a> {
    by_namespace: BTreeMap<&'a str, Vec<(&'a Budget, Selector)>>,
    /// The first budget that can't be read, by namespace.
    unreadable: BTreeMap<&'a str, &'a ObjectKey>,
}

impl<'a> BudgetSelectors<'a> {
    pub(super) fn of(budgets: &'a [Budget]) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<(&Budget, Selector)>> = BTreeMap::new();
        let mut unreadable: BTreeMap<&str, &ObjectKey> = BTreeMap::new();
        for budget in budgets {
            if budget.unreadable {
                unreadable.entry(&budget.key.namespace).or_insert(&budget.key);
                continue;
            }
            let Some(selector) = budget.selector.clone().and_then(readable) else {
                continue;
            };
            by_namespace
                .entry(budget.key.namespace.as_str())
                .or_default()
                .push((budget, selector));
        }
        Self {
            by_namespace,
            unreadable,
        }
    }

    /// A budget that can't be read and may cover the pod: any of its namespace.
    pub(super) fn unreadable(&self, pod: &BoundPod) -> Option<&'a ObjectKey> {
        self.unreadable.get(pod.key.namespace.as_str()).copied()
    }

    pub(super) fn covering(&self, pod: &BoundPod) -> Covering<'a> {
        let budgets = self
            .by_namespace
            .get(pod.key.namespace.as_str())
            .map_or(&[][..], Vec::as_slice);
        let covering = budgets.iter().filter(|(_, s)| s.matches(&pod.labels));
        Covering(covering.map(|(budget, _)| *budget).collect())
    }
}

/// Whether the server lets the pod go past the budgets that cover it. Source: Kubernetes 1.37
/// `pkg/registry/core/pod/storage/eviction.go`: what is pending, finished or being deleted is not asked about; what is not
/// ready is let go by its only budget when that allows it always, or when enough others are healthy. A pod of phase Unknown is
/// guarded like a running one.
pub fn passes(pod: &BoundPod, budgets: &[&Budget]) -> bool {
    if pod.finished() || pod.phase == PodPhase::Pending || pod.deletion.is_some() {
        return true;
    }
    match budgets {
        [only] if !pod.ready => {
            only.always_allows_unhealthy || (only.healthy >= only.desired && only.desired > 0)
        }
        _ => false,
    }
}

/// The budgets that cover one pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Covering<'a>(Vec<&'a Budget>);

impl Covering<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.0.iter().map(|b| b.key.clone()).collect()
    }

    pub(super) fn exempt(&self, pod: &BoundPod) -> bool {
        passes(pod, &self.0)
    }

    /// The only budget, when it allows nothing: known by watch, without asking.
    pub(super) fn spent(&self) -> Option<&ObjectKey> {
        match self.0.as_slice() {
            [only] if only.allowed <= 0 && (only.current || only.sync_failed.is_some()) => Some(&only.key),
            _ => None,
        }
    }

    /// Why the budget of that name allows nothing, as it was seen last.
    pub(super) fn why(&self, budget: &str) -> Option<String> {
        let budget = self.0.iter().find(|b| b.key.to_string() == budget)?;
        Some(match &budget.sync_failed {
            Some(why) => unsynced(&budget.key, why),
            None => never::never(budget)?,
        })
    }
}

/// A selector that this version can't read covers nothing here; the API server still respects the budget.
fn readable(selector: LabelSelector) -> Option<Selector> {
    Selector::try_from(selector).ok()
}

#[cfg(test)]
mod tests;
