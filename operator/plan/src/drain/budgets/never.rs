//! Budgets that no waiting helps: what they ask for leaves no pod over, whatever becomes healthy.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::observed::Budget;
use crate::wording::counted;

/// Why the budget never allows a disruption as it stands, and what helps. `None` when it may.
pub(super) fn never(budget: &Budget) -> Option<String> {
    let key = &budget.key;
    let edit = format!("kubectl -n {} edit pdb {}", key.namespace, key.name);
    let by_hand = "or delete its pods yourself when the application can bear it";
    if let Some(max) = budget.max_unavailable.as_ref().filter(|max| nothing(max)) {
        return Some(format!(
            "PodDisruptionBudget {key} never allows a disruption: its maxUnavailable is {}; raise it ({edit}), {by_hand}",
            text(max)
        ));
    }
    if let Some(min) = budget.min_available.as_ref().filter(|min| all(min)) {
        return Some(format!(
            "PodDisruptionBudget {key} never allows a disruption: its minAvailable is {}; lower it ({edit}), {by_hand}",
            text(min)
        ));
    }
    if !budget.current || budget.sync_failed.is_some() {
        return None;
    }
    // Without a number it is measured by what the controllers of its pods want.
    let counts_controllers = !matches!(budget.min_available, Some(IntOrString::Int(_)));
    if counts_controllers && budget.expected <= 0 {
        return Some(format!(
            "PodDisruptionBudget {key} never allows a disruption: no controller that it can count wants any of its pods, so that \
             kube-controller-manager counts none of them; give it minAvailable as a number ({edit}), {by_hand}"
        ));
    }
    let min = budget.min_available.as_ref()?;
    (budget.expected > 0 && budget.desired >= budget.expected).then(|| {
        format!(
            "PodDisruptionBudget {key} never allows a disruption: its minAvailable {} leaves none of its {} to spare; lower it \
             ({edit}), run more pods, {by_hand}",
            text(min),
            counted(budget.expected, "pod")
        )
    })
}

fn text(bound: &IntOrString) -> String {
    match bound {
        IntOrString::Int(count) => count.to_string(),
        IntOrString::String(share) => share.clone(),
    }
}

fn nothing(bound: &IntOrString) -> bool {
    match bound {
        IntOrString::Int(count) => *count == 0,
        IntOrString::String(share) => percent(share) == Some(0),
    }
}

fn all(bound: &IntOrString) -> bool {
    match bound {
        IntOrString::Int(_) => false,
        IntOrString::String(share) => percent(share).is_some_and(|share| share >= 100),
    }
}

fn percent(share: &str) -> Option<u32> {
    share.strip_suffix('%')?.parse().ok()
}
