//! What every kubelet does, real or virtual: it keeps a Node alive and runs the pods bound to it.

mod feed;
mod node;
mod objects;
mod pod_status;
mod pods;

pub(crate) use feed::{Change, Feed};
pub(crate) use node::{NodeKeeper, NodeProfile, Pace};
pub(crate) use objects::{delete_now, insist};
pub(crate) use pod_status::{PodReport, report_pod};
pub(crate) use pods::{TrackedPod, run_pods};
