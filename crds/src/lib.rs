//! The `VirtualNodePool` API, `virtualnodes.dev/v1alpha1`: types, schema rules, defaults and names. No client code.
//!
//! The Rust types mirror the wire format field by field. Where the API fills in a default, the `spec` offers an accessor
//! with the value in force ([`VirtualNodePoolSpec::drain`], [`VirtualNodePoolSpec::deletion_policy`], ...), so that an
//! absent section and one that spells out its defaults mean the same to every reader.
//!
//! [`definition`] is the finished CustomResourceDefinition; `cargo run -p vnp-crds --bin crdgen` prints it as YAML.

mod wire_enum;

mod compute;
mod conditions;
mod definition;
mod drain;
mod events;
mod keys;
mod lenient;
mod names;
mod network;
mod placement;
mod pool;
mod profile;
mod provider;
mod provider_rules;
mod rule;
mod scheduling;
mod shape;
mod status;

pub use compute::{ComputeDefaults, ComputeQos};
pub use conditions::{ConditionType, Reason};
pub use definition::{DefinitionError, definition, definition_yaml};
pub use drain::{
    BarePods, CapacityCheck, DaemonSetPods, DisruptionAnnotations, Drain, DrainSettings, DrainStage,
    OnTimeout, Pace, Reap, StageWait,
};
pub use events::EventReason;
pub use keys::{OWN_ENV, OWN_PROFILE_KEYS, compute_label, env_key, profile_key, trigger_label, virtual_node};
pub use names::*;
pub use network::{Network, Switch, Zone};
pub use placement::{Placement, PlacementMode, PlacementRule, WebhookMode};
pub use pool::{DeletionPolicy, VirtualNodePool, VirtualNodePoolSpec};
pub use profile::Profile;
pub use provider::{Management, Provider, ProviderType, WorkloadRef};
pub use scheduling::{
    NextUnitsPolicy, PolicyStrategy, PolicyUnit, PreemptPolicy, ResourcePolicy, Scheduling, WhenTryNextUnits,
};
pub use status::{
    Blocker, BlockerReason, BreakGlass, DrainPhase, DrainStatus, DrainingNode, LimitedBy, ProviderStatus,
    RetiredOrdinal, VirtualNodePoolStatus,
};
