//! The pod webhook: server and certificates. What becomes of a pod is decided in `vnp_plan::placement`.

pub mod attend;
pub mod desk;
pub mod issue;
pub mod keeper;
pub mod keyring;
pub mod onlooker;
pub mod prober;
pub mod review;
pub mod server;
pub mod setup;
pub mod survey;

#[cfg(test)]
mod tests;
