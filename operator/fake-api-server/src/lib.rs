//! An API server in process, for tests that set the operator against faults.
//!
//! It keeps the resources that the operator uses, by the rules of the real server: versions, UIDs, generations, status
//! subresources, preconditions, finalizers, grace periods, the patches and applies that are in use, evictions under
//! budgets, watches. Authentication, permissions, CEL rules and admission other than namespace lifecycle are not there.
//!
//! ```
//! # use vnp_fake_api_server::{FakeApiServer, Fault};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use serde_json::json;
//!
//! let server = FakeApiServer::new();
//! // What the operator gets. A client's name stands for one process: faults, lag and counters go by it.
//! let client = server.client("operator-0");
//! // The same as a tower service, to build clients with layers from.
//! let service = server.service("operator-0");
//!
//! // What plays the world: at once, without faults, by the same rules. `edit` and `erase` go past the rules.
//! let controller = server.actor("statefulset-controller");
//! let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "v-0", "containers": [{"name": "c", "image": "i"}]}});
//! controller.create("pods", "default", pod).unwrap();
//! for pod in controller.list("pods", "") {
//!     let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
//!     // A deletion stays until the kubelet's stand-in takes the object away.
//!     if !pod["metadata"]["deletionTimestamp"].is_null() {
//!         controller.remove_pod(text("namespace"), text("name"), text("uid")).unwrap();
//!     }
//! }
//! // A loop of the world waits for `server.changed().changed().await` or for time.
//!
//! // One hook sees every request before it is carried out and says what goes wrong with it.
//! server.set_gate(std::sync::Arc::new(|call| {
//!     let fault = if call.writes() && call.client == "operator-0" { Fault::ParkAfter } else { Fault::Pass };
//!     Box::pin(async move { fault })
//! }));
//! // Every write, refused ones too, with the object before and after it.
//! assert!(server.journal().iter().all(|write| write.code < 300));
//! # }
//! ```
//!
//! [`conformance::script`] is run against this server and a real one, whose answers must be the same.
//!
//! Other disturbances: [`FakeApiServer::cut`], [`lag`](FakeApiServer::lag), [`freeze`](FakeApiServer::freeze),
//! [`drop_event`](FakeApiServer::drop_event), [`break_watches`](FakeApiServer::break_watches),
//! [`compact`](FakeApiServer::compact). There are no threads, sockets or random numbers; time is the runtime's, so a test
//! with paused time sees the same history each time. What the server does not do is left to the world: garbage
//! collection by ownerReferences (finalizers `orphan` and `foregroundDeletion` included), emptying a terminating
//! namespace, and every controller.
#![expect(clippy::expect_used, reason = "test support, where a panic is the report")]

mod apply;
mod call;
mod client;
mod clock;
pub mod conformance;
mod defaults;
mod delete;
mod event;
mod evict;
mod faults;
mod fields;
mod fields_v1;
mod journal;
mod kinds;
mod list;
mod managers;
mod operations;
mod patch;
mod refusal;
mod select;
mod serve;
mod server;
mod shape;
pub mod stateful_sets;
mod store;
mod tidy;
mod watch;
mod world;
mod write;

pub use call::{About, Call};
pub use client::ClientService;
pub use clock::Clock;
pub use faults::{Fault, Gate};
pub use journal::Entry;
pub use kinds::{KINDS, Kind, named};
pub use refusal::Refusal;
pub use select::selects;
pub use server::FakeApiServer;
pub use store::{Change, Key, Objects, Store};
pub use world::{Actor, Written};
