//! Reads: the cluster as one value. Watches fill mirrors, which wake the loops and feed ordinary decisions; what destroys
//! is decided on live reads.

pub mod cluster;
pub mod controllers;
pub mod heartbeat;
pub mod kinds;
pub mod live;
pub mod members;
pub mod memory;
pub mod mirror;
pub mod namespaces;
pub mod overflow;
pub mod pods;
pub mod read;
pub mod scheduler;
pub mod scope;
pub mod sight;
pub mod version;
pub mod wanted;
pub mod watches;
pub mod webhook;
pub mod wire;

/// The profiles of the provider, in kube-system.
pub const PROFILES: [&str; 2] = [
    vnp_crds::PROFILE_CONFIG_MAP,
    vnp_plan::profile::ACS_PROFILE_CONFIG_MAP,
];
