//! Writes: one small executor for each kind of step. Nothing is decided here. Every write has the preconditions that
//! its step names, is made only while the lease is held, and is never repeated behind the plan's back: a write that
//! failed is planned again from what is then seen.

mod audit;
mod copies;
mod error;
mod nodes;
mod pods;
mod policies;
mod pool_object;
mod profile;
mod webhook;
mod workload;
mod write;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use vnp_crds::VirtualNodePool;
use vnp_plan::observed::{PolicySeen, Workload};
use vnp_plan::plan::{Track, TrackKind};
use vnp_plan::step::Step;

pub use self::copies::COPY_KEY;
pub use self::error::{ApplyError, Retry, Target};
use self::write::Writer;
use crate::runtime::lease::Claim;
use crate::runtime::metrics::Metrics;

/// The pool that steps are about, as it was when they were planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRef {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// resourceVersion.
    pub resource_version: String,
    /// Finalizers in order.
    pub finalizers: Vec<String>,
    /// Namespace of the provider's workload, empty for a type without one.
    pub provider_namespace: String,
    /// Name of the provider's workload, likewise.
    pub provider_name: String,
}

impl PoolRef {
    /// The pool as read.
    pub fn of(pool: &VirtualNodePool) -> Self {
        let meta = &pool.metadata;
        let provider = &pool.spec.provider;
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            provider_namespace: provider.namespace.clone().unwrap_or_default(),
            provider_name: provider.name.clone().unwrap_or_default(),
        }
    }
}

/// What one attempted step got.
#[derive(Debug)]
pub struct Outcome {
    /// Its track; `None` for a step of the cluster loop.
    pub track: Option<TrackKind>,
    /// The step.
    pub step: Step,
    /// What came of it.
    pub result: Result<(), ApplyError>,
    /// What the server stored, of the objects that are looked at for it.
    pub stored: Option<Stored>,
}

/// An object as the server stored it, which may be otherwise than it was written.
#[derive(Debug)]
pub enum Stored {
    /// The provider's workload.
    Workload(Workload),
    /// A ResourcePolicy.
    Policy(Box<PolicySeen>),
    /// A profile.
    Profile(Box<ConfigMap>),
}

impl Outcome {
    fn of(track: Option<TrackKind>, step: Step, answer: Result<Option<Stored>, ApplyError>) -> Self {
        let (result, stored) = match answer {
            Ok(stored) => (Ok(()), stored),
            Err(error) => (Err(error), None),
        };
        Self {
            track,
            step,
            result,
            stored,
        }
    }
}

/// Pods that are let overflow at once: the API server has other callers.
const OVERFLOWS_AT_ONCE: usize = 16;

/// Executes steps.
#[derive(Clone)]
pub struct Applier {
    writer: Writer,
    namespace: String,
}

impl Applier {
    /// `client` must be the one that retries nothing: a hidden retry could write after the lease is lost. `namespace` is
    /// the operator's own.
    pub fn new(client: Client, claim: Claim, metrics: Metrics, namespace: String) -> Self {
        Self {
            writer: Writer {
                client,
                claim,
                metrics,
            },
            namespace,
        }
    }

    /// Executes the tracks side by side, the steps of a track one after the other up to the first that fails.
    pub async fn run(&self, pool: &PoolRef, tracks: &[Track]) -> Vec<Outcome> {
        join_all(tracks.iter().map(|track| self.run_track(pool, track)))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Executes the steps of the cluster loop, which depend on no pool and not on each other.
    pub async fn run_profile(&self, steps: &[Step]) -> Vec<Outcome> {
        // A step about a pool would find no name here, and an empty name is refused before anything is sent.
        let nobody = &PoolRef::default();
        join_all(steps.iter().map(|step| async move {
            let answer = self.step(nobody, step).await;
            Outcome::of(None, step.clone(), answer)
        }))
        .await
    }

    /// Lets pods overflow, many at once: they have waited for the scheduler already.
    pub async fn run_overflow(&self, steps: Vec<Step>) -> Vec<Outcome> {
        let nobody = &PoolRef::default();
        stream::iter(steps)
            .map(|step| async move {
                let answer = self.step(nobody, &step).await;
                Outcome::of(None, step, answer)
            })
            .buffer_unordered(OVERFLOWS_AT_ONCE)
            .collect()
            .await
    }

    /// Executes one step that depends on no pool.
    ///
    /// # Errors
    /// [`ApplyError`] when it was not carried out.
    pub async fn run_cluster(&self, step: &Step) -> Result<(), ApplyError> {
        self.step(&PoolRef::default(), step).await.map(drop)
    }

    async fn run_track(&self, pool: &PoolRef, track: &Track) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for step in &track.steps {
            let answer = self.step(pool, step).await;
            let failed = answer.is_err();
            outcomes.push(Outcome::of(Some(track.kind), step.clone(), answer));
            if failed {
                break;
            }
        }
        outcomes
    }

    async fn step(&self, pool: &PoolRef, step: &Step) -> Result<Option<Stored>, ApplyError> {
        let writer = &self.writer;
        let shown = |stored| Some(Stored::Workload(Workload::new(stored)));
        let profile = |stored| Some(Stored::Profile(Box::new(stored)));
        let written = match step {
            Step::ApplyWorkload { body, .. } => return workload::apply(writer, pool, body).await.map(shown),
            Step::PatchWorkload(patch) => {
                return workload::patch(writer, pool, &patch.patch).await.map(shown);
            }
            Step::Shrink(shrink) => return workload::patch(writer, pool, shrink.patch()).await.map(shown),
            Step::AddPoolFinalizer => pool_object::add_finalizer(writer, pool).await,
            Step::RemovePoolFinalizer => pool_object::remove_finalizer(writer, pool).await,
            Step::CreateWorkload { body } => workload::create(writer, pool, body).await,
            Step::DeleteWorkload { uid } => workload::delete(writer, pool, uid).await,
            Step::SaveCopy { name, content } => {
                copies::save(writer, &self.namespace, pool, name, content).await
            }
            Step::DropCopy { name, uid } => copies::discard(writer, &self.namespace, name, uid).await,
            Step::OrphanProviderPod { pod, uid, owner_uid } => {
                pods::orphan(writer, pod, uid, owner_uid).await
            }
            Step::DeleteProviderPod { pod, uid, .. } => pods::delete(writer, pod, uid).await,
            Step::Cordon { node, uid, term } => nodes::cordon(writer, node, uid, term).await,
            Step::Uncordon {
                node,
                uid,
                resource_version,
            } => nodes::uncordon(writer, node, uid, resource_version).await,
            Step::LabelNode { node, uid, pool } => nodes::label(writer, node, uid, pool.as_deref()).await,
            Step::DeleteNode { node, uid } => nodes::delete(writer, node, uid).await,
            Step::CreateProfile(patch) => return profile::create(writer, patch).await.map(profile),
            Step::PatchProfile(patch) => return profile::patch(writer, patch).await.map(profile),
            Step::ApplyPolicy(apply) => {
                let stored = policies::apply(writer, apply).await?;
                return Ok(Some(Stored::Policy(Box::new(PolicySeen::read(&stored)))));
            }
            Step::WriteCertificates(write) => webhook::certificates(writer, write).await,
            Step::ApplyWebhook { create, body } => webhook::apply(writer, *create, body).await,
            Step::DeleteWebhook {
                uid,
                resource_version,
            } => webhook::delete(writer, uid, resource_version).await,
            Step::DeletePolicy { policy, uid } => policies::delete(writer, policy, uid).await,
            Step::Tolerate(tolerate) => pods::tolerate(writer, &tolerate.pod, &tolerate.patch).await,
            Step::RecordAudit(patch) => audit::record(writer, pool, patch).await,
            Step::DeleteProfile {
                config_map,
                uid,
                resource_version,
            } => profile::delete(writer, config_map, uid, resource_version).await,
        };
        written.map(|()| None)
    }
}
