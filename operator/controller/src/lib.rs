//! The VirtualNodePool operator: observes the cluster, lets `vnp-plan` decide, applies, reports.

pub mod admission;
pub mod apply;
pub mod cluster;
pub mod drain;
pub mod observe;
pub mod overflow;
pub mod pool;
pub mod report;
pub mod runtime;
mod unseen;
