//! The main job on a real control plane, against a cloud that misbehaves: what the operator promises, seen from outside.
//!
//! The cloud of every scenario deletes two instances per second beyond a burst and forgets one deletion in ten. Its
//! providers let Pod objects go before their instances, or do as virtual-kubelet 1.12 does: `fixture::misbehave` and
//! `fixture::misbehave_on_1_12`. Pods are placed by the real scheduler. The ledger and the audit log are the
//! witnesses.

mod accepted;
mod adopt;
mod antagonists;
mod audit_trail;
mod deadline;
mod delete;
mod described;
mod drain;
mod faults;
mod fixture;
mod identity;
mod overflow;
mod paused_leader;
mod placement;
mod placement_limits;
mod policies;
mod pool;
mod promises;
mod quiet;
mod refusals;
#[path = "../fixture/refusing.rs"]
mod refusing;
mod reported;
mod returns;
mod roll;
mod stages;
mod stateful_sets;
mod states;
mod targets;
mod thousands;
mod trouble;
mod vendor_webhook;
mod webhook;
