//! What carries the loops: arguments, clients, the leader lease, health, metrics, logs, and the wiring of all of it.

pub mod args;
pub mod clients;
pub mod clock;
pub mod health;
pub mod jitter;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod queue;
pub mod run;
pub mod setbacks;
pub mod telemetry;
