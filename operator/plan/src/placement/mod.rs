//! `spec.placement`: which pods go to virtual nodes, and as what. Served as a mutating webhook.

use std::collections::BTreeMap;
use std::sync::Arc;

use json_patch::Patch;
use serde_json::Value;
use vnp_crds::VirtualNodePool;

/// URL path of the webhook.
pub const PATH: &str = "/mutate";

/// One pod to be created, as the API server asks about it.
#[derive(Clone, Copy, Debug)]
pub struct Review<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Its namespace; the pod itself may not say.
    pub namespace: &'a str,
    /// The labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutation {
    /// RFC 6902; empty when the pod stays as it is.
    pub patch: Patch,
    /// `<pool>/<rule>`, when a rule, a policy or a trigger selects the pod.
    pub placed_by: Option<String>,
    /// For the user who creates the pod, each shorter than 256 bytes.
    pub warnings: Vec<String>,
    /// The pod is none that can be read, and is left as it is.
    pub unreadable: Option<Unreadable>,
}

/// A pod that is not shaped like one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod can't be read ({0}) and is left as it is")]
pub struct Unreadable(pub(crate) String);

/// Where the webhook is served.
#[derive(Clone, Debug)]
pub struct Serving<'a> {
    /// Namespace of the operator, whose pods are never asked about.
    pub namespace: &'a str,
    /// Name of the Service there.
    pub service: &'a str,
    /// Port of the Service.
    pub port: u16,
    /// Certificates that the API server trusts, PEM.
    pub ca_bundle: &'a [u8],
}

/// The placement of all pools, read once and shared.
#[derive(Clone, Debug, Default)]
pub struct Placing {}

impl Placing {
    /// Reads the placement of all pools, in any order. Rules that can't be read place nothing.
    pub fn compile(_pools: &[Arc<VirtualNodePool>]) -> Self {
        Self::default()
    }

    /// What becomes of the pod. Applied to its own result it changes nothing.
    pub fn mutate(&self, _review: &Review<'_>) -> Mutation {
        Mutation::default()
    }

    /// The MutatingWebhookConfiguration, the same for the same pools; `None` when no pool asks for the webhook.
    pub fn configuration(&self, _serving: &Serving<'_>) -> Option<Value> {
        None
    }
}
