//! Reads: the cluster as one value. Watches fill mirrors, which wake the loops and feed ordinary decisions; what destroys
//! is decided on live reads.

pub mod heartbeat;
pub mod memory;
pub mod mirror;
pub mod pods;
pub mod scope;
pub mod wire;
