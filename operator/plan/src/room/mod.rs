//! Room on nodes, counted as the scheduler counts it: which node takes which pod, and why not.
//!
//! Source: kube-scheduler's filters NodeUnschedulable, TaintToleration, NodeAffinity and NodeResourcesFit. Spread
//! constraints, affinity between pods, ports and volumes are not counted.

mod amounts;
mod needs;

use std::fmt;

pub use amounts::{Amounts, CPU, PODS, amount, sum};
pub use needs::{Effect, Expression, Needs, Taint, Term, Toleration};

use crate::observed::{BoundPod, NodeView};

/// Pods that one virtual node takes when its Node does not say less. Source: ack-virtual-node documentation, "deploy up
/// to 3,000 pods on a virtual node".
const PODS_PER_NODE: i64 = 3000;

/// Why a node takes a pod not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The Node can't be read, or holds a pod that can't: what is left on it is not known.
    Unknown,
    /// The Node is being deleted.
    Deleting,
    /// It is not Ready.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// A taint that the pod does not tolerate.
    Tainted(Taint),
    /// The pod's nodeSelector or required node affinity leaves it out.
    NotMeant,
    /// Too little of a resource is left.
    Lacks {
        /// The resource.
        resource: String,
        /// What the Node offers.
        allocatable: i64,
        /// What the pod asks for.
        asked: i64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it, or a pod on it, can't be read"),
            Self::Deleting => f.write_str("it is being deleted"),
            Self::NotReady => f.write_str("it is not Ready"),
            Self::Cordoned => f.write_str("it is cordoned"),
            Self::Tainted(taint) => write!(f, "its taint {taint} is not tolerated"),
            Self::NotMeant => f.write_str("the pod's nodeSelector or node affinity leaves it out"),
            Self::Lacks {
                resource,
                allocatable,
                ..
            } if resource == PODS => write!(f, "it takes no more pods ({allocatable} in all)"),
            Self::Lacks {
                resource,
                allocatable,
                asked,
            } => {
                // What is left moves with every pod: it would make a message of its own each time.
                let unit = if resource == CPU { "m" } else { "" };
                write!(
                    f,
                    "too little {resource} is left: a pod asks for {asked}{unit}, the node has {allocatable}{unit} in all"
                )
            }
        }
    }
}

/// What is left on one node.
#[derive(Clone, Debug)]
pub struct Room<'a> {
    node: &'a NodeView,
    /// Why it takes nothing at all.
    closed: Option<Refused>,
    taints: Vec<Taint>,
    left: Amounts,
}

impl<'a> Room<'a> {
    /// The room on a node with these pods on it. Pods that have ended take none, as for the scheduler.
    pub fn on<'p>(node: &'a NodeView, pods: impl IntoIterator<Item = &'p BoundPod>) -> Self {
        let mut closed = closed(node);
        let mut left = node.allocatable.clone();
        let places = left.entry(PODS.to_owned()).or_default();
        *places = (*places).min(PODS_PER_NODE);
        for pod in pods.into_iter().filter(|p| !p.finished()) {
            if pod.unreadable {
                closed.get_or_insert(Refused::Unknown);
            }
            take(&mut left, &pod.needs);
        }
        let taints = node.taints.iter().filter_map(Taint::of).collect();
        Self {
            node,
            closed,
            taints,
            left,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Whether the scheduler would bind such a pod to it now.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn fits(&self, needs: &Needs) -> Result<(), Refused> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        if let Some(taint) = self.taints.iter().find(|t| !needs.tolerates(t)) {
            return Err(Refused::Tainted(taint.clone()));
        }
        if !needs.means(&self.node.name, &self.node.labels) {
            return Err(Refused::NotMeant);
        }
        let one = (PODS, 1);
        let asked = needs.requests.iter().map(|(r, a)| (r.as_str(), *a));
        for (resource, asked) in [one].into_iter().chain(asked).filter(|(_, asked)| *asked > 0) {
            let left = self.left.get(resource).copied().unwrap_or(0);
            if asked > left {
                return Err(Refused::Lacks {
                    resource: resource.to_owned(),
                    allocatable: self.node.allocatable.get(resource).copied().unwrap_or(0),
                    asked,
                });
            }
        }
        Ok(())
    }
}

fn take(left: &mut Amounts, needs: &Needs) {
    let one = (PODS, 1);
    let asked = needs.requests.iter().map(|(r, a)| (r.as_str(), *a));
    for (resource, asked) in [one].into_iter().chain(asked) {
        if let Some(left) = left.get_mut(resource) {
            *left = left.saturating_sub(asked);
        }
    }
}

/// Why a Node takes no pod, whatever it asks for.
pub fn closed(node: &NodeView) -> Option<Refused> {
    if node.unreadable {
        Some(Refused::Unknown)
    } else if node.deleting {
        Some(Refused::Deleting)
    } else if !node.ready {
        Some(Refused::NotReady)
    } else if node.unschedulable {
        Some(Refused::Cordoned)
    } else {
        None
    }
}

/// Puts each pod on the first node that takes it, the most demanding first. Returns the index of the node of each pod;
/// `None` for one that no node takes.
pub fn first_fit(pods: &[&Needs], rooms: &mut [Room<'_>]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_key(|at| {
        let cpu = pods[*at].requests.get(CPU).copied().unwrap_or(0);
        let rest: i64 = pods[*at]
            .requests
            .values()
            .fold(0, |sum, a| sum.saturating_add(*a));
        std::cmp::Reverse((cpu, rest))
    });
    let mut places = vec![None; pods.len()];
    for at in order {
        let taken = rooms.iter_mut().position(|room| room.fits(pods[at]).is_ok());
        if let Some(room) = taken.and_then(|node| rooms.get_mut(node)) {
            take(&mut room.left, pods[at]);
        }
        places[at] = taken;
    }
    places
}

#[cfg(test)]
mod tests;
