//! What a pod says itself about its node.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use vnp_crds::virtual_node;

use super::pod::PodView;

/// The pod's own choice leaves no virtual node: then it has spoken, and to add ours would leave no node at all. Terms are
/// alternatives; one without anything in it matches no node. Source: component-helpers `nodeaffinity`.
pub(super) fn rules_out_virtual_nodes(pod: &PodView) -> bool {
    let selected = pod.spec.node_selector.as_ref();
    if selected
        .and_then(|s| s.get(virtual_node::LABEL))
        .is_some_and(|v| v != virtual_node::LABEL_VALUE)
    {
        return true;
    }
    let terms = pod.required_terms();
    !terms.is_empty()
        && terms
            .iter()
            .all(|term| is_empty(term) || fails_on_virtual_nodes(term))
}

/// Nothing is in the term, so it matches no node. An expression added to it would change that.
pub(super) fn is_empty(term: &NodeSelectorTerm) -> bool {
    let none = |list: &Option<Vec<NodeSelectorRequirement>>| list.as_ref().is_none_or(Vec::is_empty);
    none(&term.match_expressions) && none(&term.match_fields)
}

fn fails_on_virtual_nodes(term: &NodeSelectorTerm) -> bool {
    let mut expressions = term.match_expressions.iter().flatten();
    expressions.any(|expression| {
        let values = expression.values.as_deref().unwrap_or_default();
        let named = values.iter().any(|v| v == virtual_node::LABEL_VALUE);
        expression.key == virtual_node::LABEL
            && match expression.operator.as_str() {
                "In" => !named,
                "NotIn" => named,
                "Exists" => false,
                // DoesNotExist; Gt and Lt want a number.
                _ => true,
            }
    })
}

/// `key In [value]`.
pub(super) fn requirement(key: &str, value: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![value.to_owned()]),
    }
}

/// The pod says something about nodes with this label, in its selector or in a term.
pub(super) fn speaks_of(pod: &PodView, key: &str) -> bool {
    let selected = pod.spec.node_selector.iter().any(|s| s.contains_key(key));
    let mut expressions = pod
        .required_terms()
        .iter()
        .flat_map(|term| term.match_expressions.iter().flatten());
    selected || expressions.any(|expression| expression.key == key)
}
