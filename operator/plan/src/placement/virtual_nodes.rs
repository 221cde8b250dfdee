//! The virtual nodes that are there, and whether a pod's own choice of node leaves one of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint};
use vnp_crds::{POOL_LABEL, virtual_node};

use super::node_choice::is_empty;
use super::pod::{PodView, VirtualTaint};
use super::routes::Provider;
use crate::observed::NodeView;

type Labels = BTreeMap<String, String>;

/// Well-known label with the name of the machine. On a virtual node it is the name of the Node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The only field by which a term can select a Node. Source: `pkg/apis/core/validation`, `nodeFieldSelectorValidators`.
const NAME_FIELD: &str = "metadata.name";
/// Labels that every virtual node has, whatever its provider: no instance runs Windows. Source: the Node printed in ACK
/// documentation, "Use ACS compute power through ACK edge clusters".
const OF_ALL: [(&str, &str); 3] = [
    (virtual_node::LABEL, virtual_node::LABEL_VALUE),
    ("kubernetes.io/os", "linux"),
    ("beta.kubernetes.io/os", "linux"),
];

/// The virtual nodes of the cluster, whichever pool they belong to. Empty while nothing is known of them: then a pod's own
/// choice is held against what every virtual node has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualNodes(Vec<VirtualNode>);

#[derive(Clone, Debug, PartialEq)]
struct VirtualNode {
    name: String,
    labels: Labels,
    taints: Vec<Taint>,
}

impl VirtualNodes {
    /// These Nodes, but for those that are being deleted.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeView>) -> Self {
        let nodes = nodes.into_iter().filter(|node| !node.deleting);
        let nodes = nodes.map(|node| VirtualNode {
            name: node.name.clone(),
            labels: node.labels.clone(),
            taints: node.taints.clone(),
        });
        Self(nodes.collect())
    }

    /// The taints with the key of virtual nodes that a pod has to tolerate; the documented one while no Node shows any.
    pub(super) fn taints(&self) -> Vec<VirtualTaint<'_>> {
        let taints = self.0.iter().flat_map(|node| &node.taints);
        let taints = taints.filter(|taint| taint.key == virtual_node::TAINT);
        let mut taints: Vec<_> = taints
            .map(|taint| VirtualTaint {
                value: taint.value.as_deref().unwrap_or_default(),
                effect: &taint.effect,
            })
            .collect();
        taints.dedup();
        if taints.is_empty() {
            taints.push(VirtualTaint::DOCUMENTED);
        }
        taints
    }

    /// Whether the pod's own choice leaves a virtual node of these providers: one that is there, or another one of a pool,
    /// which may come at any time. `others` when virtual nodes of no pool will do as well.
    pub(super) fn has_one_for(&self, pod: &PodView, providers: &[&Provider], others: bool) -> bool {
        let of = |node: &VirtualNode| providers.iter().find(|provider| provider.made(node)).copied();
        let there = self.0.iter().filter_map(|node| {
            let pool = of(node);
            (pool.is_some() || others).then(|| Candidate::present(node, pool))
        });
        let to_come = providers.iter().map(|provider| {
            let siblings = self.0.iter().filter(|node| provider.made(node));
            Candidate::to_come(provider, siblings)
        });
        there.chain(to_come).any(|candidate| candidate.suits(pod))
    }
}

impl Provider {
    fn made(&self, node: &VirtualNode) -> bool {
        node.labels.get(POOL_LABEL) == Some(&self.pool) || self.names(&node.name)
    }

    /// Whether a node of this provider may have that name.
    fn names(&self, node: &str) -> bool {
        let ordinal = node
            .strip_prefix(&self.name)
            .and_then(|rest| rest.strip_prefix('-'));
        ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
    }
}

/// A node that a pod's choice is held against.
pub(super) struct Candidate<'a> {
    /// `None` for one that is still to come.
    name: Option<&'a str>,
    provider: Option<&'a Provider>,
    labels: Labels,
    /// Keys about which nothing is known.
    unsure: BTreeSet<&'a str>,
    /// There may be other labels than these.
    open: bool,
}

/// What is known of a label of a node.
enum Known<'a> {
    Absent,
    Is(&'a str),
    /// It is a name of a node of that provider.
    NameOf(&'a Provider),
    Nothing,
}

impl<'a> Candidate<'a> {
    fn present(node: &'a VirtualNode, provider: Option<&'a Provider>) -> Self {
        let mut labels = node.labels.clone();
        labels.insert(
            virtual_node::LABEL.to_owned(),
            virtual_node::LABEL_VALUE.to_owned(),
        );
        // The operator adds it to each node of a pool.
        labels.extend(provider.map(|p| (POOL_LABEL.to_owned(), p.pool.clone())));
        Self {
            name: Some(&node.name),
            provider,
            labels,
            unsure: BTreeSet::new(),
            open: false,
        }
    }

    /// Another node of the provider: it has what all that are there have. Of the first one only the documented labels are known.
    fn to_come(provider: &'a Provider, siblings: impl Iterator<Item = &'a VirtualNode>) -> Self {
        let siblings: Vec<&VirtualNode> = siblings.collect();
        let keys: BTreeSet<&str> = siblings
            .iter()
            .flat_map(|s| s.labels.keys())
            .map(String::as_str)
            .collect();
        let shared = |key: &str| {
            let mut values = siblings.iter().map(|s| s.labels.get(key));
            let first = values.next()??;
            values.all(|value| value == Some(first)).then(|| first.clone())
        };
        let mut labels: Labels = keys
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), shared(key)?)))
            .collect();
        let unsure = keys
            .into_iter()
            .filter(|key| !labels.contains_key(*key))
            .collect();
        let open = siblings.is_empty();
        let documented = OF_ALL
            .iter()
            .filter(|(key, _)| open || *key == virtual_node::LABEL);
        labels.extend(documented.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        labels.insert(POOL_LABEL.to_owned(), provider.pool.clone());
        Self {
            name: None,
            provider: Some(provider),
            labels,
            unsure,
            open,
        }
    }

    /// A node of which only what every virtual node has is known.
    pub(super) fn unknown() -> Self {
        let labels = OF_ALL
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self {
            name: None,
            provider: None,
            labels: labels.collect(),
            unsure: BTreeSet::new(),
            open: true,
        }
    }

    /// Whether the pod's own choice may allow this node. Terms are alternatives; one without anything in it matches no
    /// node. Source: component-helpers `nodeaffinity`.
    pub(super) fn suits(&self, pod: &PodView) -> bool {
        let mut selector = pod.spec.node_selector.iter().flatten();
        let terms = pod.required_terms();
        selector.all(|(key, value)| meets(&self.label(key), "In", &[value.as_str()]))
            && (terms.is_empty() || terms.iter().any(|term| self.meets_term(term)))
    }

    fn meets_term(&self, term: &NodeSelectorTerm) -> bool {
        let mut labels = term.match_expressions.iter().flatten();
        let mut fields = term.match_fields.iter().flatten();
        !is_empty(term)
            && labels.all(|r| meets(&self.label(&r.key), &r.operator, &values(r)))
            && fields.all(|r| r.key == NAME_FIELD && meets(&self.own_name(), &r.operator, &values(r)))
    }

    fn label(&self, key: &str) -> Known<'_> {
        if key == HOSTNAME && self.name.is_none() {
            return self.own_name();
        }
        match self.labels.get(key) {
            Some(value) => Known::Is(value),
            None if self.open || self.unsure.contains(key) => Known::Nothing,
            None => Known::Absent,
        }
    }

    fn own_name(&self) -> Known<'_> {
        match (self.name, self.provider) {
            (Some(name), _) => Known::Is(name),
            (None, Some(provider)) => Known::NameOf(provider),
            (None, None) => Known::Nothing,
        }
    }
}

fn values(requirement: &NodeSelectorRequirement) -> Vec<&str> {
    let values = requirement.values.iter().flatten();
    values.map(String::as_str).collect()
}

/// Whether a node of which this is known may meet the requirement. Source: apimachinery `labels.Requirement.Matches`.
fn meets(known: &Known<'_>, operator: &str, values: &[&str]) -> bool {
    let integer = |text: &str| text.parse::<i64>().ok();
    match (operator, known) {
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", Known::Nothing) => true,
        ("In", Known::Is(value)) => values.contains(value),
        ("In", Known::NameOf(provider)) => values.iter().any(|value| provider.names(value)),
        ("NotIn", Known::Is(value)) => !values.contains(value),
        ("NotIn" | "DoesNotExist", Known::Absent)
        | ("NotIn" | "Exists", Known::NameOf(_))
        | ("Exists", Known::Is(_)) => true,
        ("Gt" | "Lt", Known::Is(value)) => {
            let bound = values.first().and_then(|bound| integer(bound));
            let pair = integer(value).zip(bound);
            pair.is_some_and(|(value, bound)| {
                if operator == "Gt" {
                    value > bound
                } else {
                    value < bound
                }
            })
        }
        _ => false,
    }
}
