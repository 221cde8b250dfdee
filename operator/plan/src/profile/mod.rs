//! The provider's cluster-wide ConfigMap `kube-system/eci-profile`, and `acs-profile` where there is one. It is computed
//! from all pools that sync it and from what is there. Keys, gates and selectors that no pool names survive byte for byte
//! (P4); what a pool took over comes back when it lets go.

mod contest;
mod findings;
mod gates;
mod originals;
mod parties;
mod place;
mod reconcile;
mod said;
mod selectors;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use vnp_crds::VirtualNodePool;

use crate::accept::Acceptance;
use crate::observed::Observed;
use crate::rewritten::Rewrites;
use crate::step::Step;

pub(crate) use contest::last_write;
pub use contest::{SetBack, SetBackHistory};
pub use findings::{pending_profile_changes, profile_findings, released};
pub use place::ACS_PROFILE_CONFIG_MAP;
pub use reconcile::note_stored;
pub(crate) use said::misspelt;
pub use said::{Contradiction, contradiction};
#[cfg(test)]
pub(crate) use selectors::wanted as wanted_selectors;

use parties::Parties;
use place::Place;

/// What the cluster loop looks at. It has to be complete: what no pool in here names is given back, unless there are some
/// that can't be read.
#[derive(Clone, Debug, Default)]
pub struct ClusterObserved {
    /// All pools of the cluster that can be read, in any order.
    pub pools: Vec<PoolInCluster>,
    /// There are pools that can't be read: what they ask for is not known.
    pub unreadable: bool,
    /// `kube-system/eci-profile`, `None` when absent.
    pub profile: Option<Arc<ConfigMap>>,
    /// `kube-system/acs-profile`, `None` when absent.
    pub acs_profile: Option<Arc<ConfigMap>>,
    /// What earlier passes returned in [`ProfilePlan::set_back`]. A throttle; it may be lost.
    pub set_back: SetBackHistory,
    /// Keys that were written and stored with other values. A throttle as well.
    pub rewrites: Rewrites,
}

/// One pool as the cluster loop sees it.
#[derive(Clone, Debug)]
pub struct PoolInCluster {
    /// The pool.
    pub pool: Arc<VirtualNodePool>,
    /// [`Acceptance::profile`].
    pub accepted: bool,
    /// Every provider runs with the env that the pool wants.
    pub rolled: bool,
    /// Of a pool that is deleted with policy Drain: nothing of it is left to drain. True when it holds no workload.
    pub drained: bool,
    /// Nobody knows whether it holds a workload.
    pub unknown: bool,
}

impl PoolInCluster {
    /// The facts about the pool of this pass.
    pub fn new(observed: &Observed, acceptance: &Acceptance, rolled: bool, drained: bool) -> Self {
        Self {
            pool: observed.pool.clone(),
            accepted: acceptance.profile,
            rolled,
            drained,
            unknown: observed.workload.unknown().is_some(),
        }
    }
}

/// What to do about the profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfilePlan {
    /// At most one write for each ConfigMap; they are independent of each other.
    pub steps: Vec<Step>,
    /// Values of ours that somebody replaced, to be added to [`ClusterObserved::set_back`] once each.
    pub set_back: Vec<SetBack>,
    /// Of [`ClusterObserved::rewrites`], those that can be forgotten are not among these.
    pub open: Vec<String>,
}

/// Plans the writes to the profile, the same ones whatever order the pools come in.
pub fn plan_profile(observed: &ClusterObserved) -> ProfilePlan {
    let parties = Parties::among(&observed.pools, observed.unreadable);
    let mut plan = ProfilePlan::default();
    for (place, there) in [
        (Place::eci(), &observed.profile),
        (Place::acs(), &observed.acs_profile),
    ] {
        let work = reconcile::reconcile(
            &place,
            there.as_deref(),
            &parties,
            &observed.set_back,
            &observed.rewrites,
        );
        plan.steps.extend(work.step);
        plan.set_back.extend(work.set_back);
        plan.open.extend(work.open);
    }
    plan
}
