use std::collections::BTreeMap;

use super::pod::PodOwner;

/// A kind of controllers, as ownerReferences name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerKind {
    /// For instance `apps/v1`.
    pub api_version: String,
    /// For instance `ReplicaSet`.
    pub kind: String,
}

impl From<&PodOwner> for ControllerKind {
    fn from(owner: &PodOwner) -> Self {
        Self {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
        }
    }
}

/// Whether objects of a kind are scaled, by the API server's discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// It has a scale subresource: somebody keeps a number of pods.
    Scaled,
    /// It has none, or is served no longer.
    Fixed,
    /// The API server did not tell.
    Unknown {
        /// Why.
        error: String,
    },
}

/// What discovery said, by kind. A kind that is not here was not asked for yet.
pub type ControllerKinds = BTreeMap<ControllerKind, Scaling>;

/// Kinds that make their pods again when these go, by group. Source: Kubernetes; OpenKruise, kinds of `apps/v1alpha1` and
/// `v1beta1`; Argo Rollouts.
const MAKERS: [(&str, &[&str]); 5] = [
    ("", &["ReplicationController"]),
    ("apps", &["ReplicaSet", "StatefulSet", "DaemonSet", "Deployment"]),
    ("batch", &["Job", "CronJob"]),
    (
        "apps.kruise.io",
        &["CloneSet", "StatefulSet", "DaemonSet", "BroadcastJob"],
    ),
    ("argoproj.io", &["Rollout"]),
];

/// Whether controllers of a kind make their pods again; `None` when only the API server can tell. In the core group and
/// those of Kubernetes' workloads nothing else makes pods: a Pod that owns others (Spark) does not.
pub fn remade_by_nature(owner: &PodOwner) -> Option<bool> {
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let maker = MAKERS
        .iter()
        .any(|(of, kinds)| *of == group && kinds.contains(&owner.kind.as_str()));
    (maker || matches!(group, "" | "apps" | "batch")).then_some(maker)
}
