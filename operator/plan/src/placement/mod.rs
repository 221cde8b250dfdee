//! `spec.placement`: which pods go to virtual nodes, and as what. Served as a mutating webhook.

mod additions;
mod configuration;
mod entries;
mod gpu;
mod mutate;
mod node_choice;
mod outdated;
mod pod;
mod routes;
mod unfit;
mod virtual_nodes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use json_patch::Patch;
use serde_json::Value;
use vnp_crds::{KUBE_NODE_LEASE, KUBE_SYSTEM, VirtualNodePool};

pub use configuration::{PATH, Serving};
pub(crate) use outdated::outdated;
pub use pod::Unreadable;
pub use routes::places;
pub(crate) use routes::{NAME_LABEL, policy_reach, rule_reach, trouble};

pub use unfit::{Need, Unfit};
pub use virtual_nodes::VirtualNodes;

use routes::Routes;

/// One pod to be created, as the API server asks about it.
#[derive(Clone, Copy, Debug)]
pub struct Review<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Its namespace; the pod itself may not say.
    pub namespace: &'a str,
    /// The labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The virtual nodes that are there.
    pub nodes: &'a VirtualNodes,
}

/// A pod that a rule or a label selects and that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// The pool of the rule.
    pub pool: String,
    /// `<pool>/<rule>`, or `<pool>/<trigger>`.
    pub by: String,
    /// Why.
    pub why: Unfit,
    /// It carries what was added to it before, when it did fit.
    pub placed: bool,
}

/// What becomes of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutation {
    /// RFC 6902; empty when the pod stays as it is.
    pub patch: Patch,
    /// `<pool>/<rule>`, when a rule, a policy or a trigger selects the pod.
    pub placed_by: Option<String>,
    /// For the user who creates the pod.
    pub warnings: Vec<String>,
    /// A rule or a label selects the pod, and no virtual node can run it.
    pub left_alone: Option<LeftAlone>,
    /// The pod is none that can be read, and is left as it is.
    pub unreadable: Option<Unreadable>,
}

/// The placement of all pools, read once and shared.
#[derive(Clone, Debug, Default)]
pub struct Placing {
    routes: Routes,
    /// Namespaces whose pods are never asked about, that of the operator apart: whatever makes virtual nodes must not run
    /// on one.
    excluded: BTreeSet<String>,
}

impl Placing {
    /// Reads the placement of all pools, in any order. Pools that go place nothing; a rule that can't be read places
    /// nothing, and condition Accepted of its pool says so.
    pub fn compile(pools: &[Arc<VirtualNodePool>]) -> Self {
        let providers = pools.iter().filter_map(|pool| pool.spec.provider.workload());
        let excluded = providers
            .map(|provider| provider.namespace)
            .chain([KUBE_SYSTEM, KUBE_NODE_LEASE]);
        Self {
            routes: Routes::of(pools),
            excluded: excluded.map(str::to_owned).collect(),
        }
    }
}
