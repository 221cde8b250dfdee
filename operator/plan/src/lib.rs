//! Decides what the operator does. Everything here is a pure function of what was observed and of `now`: no client, no
//! clock, no runtime, no I/O.

pub mod accept;
mod availability;
pub mod compute;
pub mod drain;
pub mod finding;
#[cfg(test)]
mod large;
pub mod observed;
pub mod overflow;
mod pass;
mod pause;
pub mod placement;
pub mod plan;
pub mod profile;
pub mod proof;
pub mod refuser;
pub mod rewritten;
pub mod room;
pub mod scheduling;
mod selection;
pub mod step;
mod taint_eviction;
mod taints;
pub mod target;
#[cfg(test)]
mod testing;
mod unreadable;
pub mod webhook;
pub mod wording;
pub mod workload;

pub use pass::{drained, plan};
