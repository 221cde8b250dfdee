//! The namespaces that get a policy.

use std::collections::BTreeSet;

use kube::core::{ParseExpressionError, Selector, SelectorExt};
use vnp_crds::ResourcePolicy;

use crate::observed::Observed;

/// Where a policy belongs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces<'a> {
    /// There, and to stay.
    pub(super) present: BTreeSet<&'a str>,
    /// Named, and not there.
    pub(super) absent: BTreeSet<&'a str>,
}

/// The namespaces of a policy. One that is being deleted takes no new objects and loses those it has.
///
/// # Errors
/// [`ParseExpressionError`] when the selector is none: the schema takes any word for an operator.
pub(super) fn of<'a>(
    policy: &'a ResourcePolicy,
    seen: &'a Observed,
) -> Result<Namespaces<'a>, ParseExpressionError> {
    let mut found = Namespaces::default();
    match &policy.namespace_selector {
        Some(selector) => {
            let selector = Selector::try_from(selector.clone())?;
            let selected = seen
                .namespaces
                .iter()
                .filter(|(_, labels)| selector.matches(labels));
            found.present = selected.map(|(name, _)| name.as_str()).collect();
        }
        None => {
            let named = policy.namespaces.iter().map(String::as_str);
            (found.present, found.absent) = named.partition(|name| seen.namespaces.contains_key(*name));
        }
    }
    found
        .present
        .retain(|name| !seen.scheduling.leaving.contains(*name));
    Ok(found)
}
