//! A real control plane, a simulated cloud, and what scenario tests need to set one against the other.
//!
//! The operator under test sees only an API server. Everything behind it that matters to its promises, from the
//! kubelet of a provider pod to the instances that cost money, is played by this crate and counted in a
//! [ledger](cloud::Ledger) that the operator can't see.

pub mod antagonists;
pub mod audit;
pub mod call_gate;
pub mod cloud;
pub mod control_plane;
mod environment;
pub mod interposed;
mod kubelet;
pub mod node_agent;
pub mod operator;
pub mod scenario;
pub mod simulation;
pub mod virtual_kubelet;

pub use environment::{Environment, EnvironmentOptions, Providers};
