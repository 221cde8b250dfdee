//! What else runs in a cluster and gets in the way: small programs, each of which any scenario can switch on.
//!
//! They bear the names of those in the proofs of the controller, which live in a world of their own. What the two lists
//! share is meant to be the same.

mod applications;
mod autoscalers;
mod engines;
mod installation;
mod nodes;
mod people;
mod place;
mod policies;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

pub use applications::{CUSTOM_CONTROLLER, PINNED, PINNED_PODS, UNREADY, pod_of_kind};
pub use autoscalers::{AUTOSCALER_DOWN, AUTOSCALER_UP};
pub use engines::{ENGINE_THAT_PRUNES, ENGINE_THAT_REAPPLIES};
pub use installation::SECOND_INSTALLATION;
pub use nodes::{ANOTHER_NAME, FINALIZERS, NODE_REPAIR, SMALL_NODES, TAINTS};
pub use people::{PERSON_WHO_DRAINS, PERSON_WHO_EDITS, PERSON_WHO_REPLACES, PERSON_WHO_RESTARTS};
pub use place::{Place, Whom};
pub use policies::{
    MIRROR, POLICY_THAT_REFUSES_EVICTIONS, POLICY_THAT_REFUSES_WORKLOADS, POLICY_THAT_REWRITES, REGISTRY,
};

use crate::environment::Environment;
use crate::operator::Operator;

/// All that can share a cluster with each other. [`SECOND_INSTALLATION`] meets every pool there is.
pub const ANTAGONISTS: [Antagonist; 19] = [
    ENGINE_THAT_REAPPLIES,
    ENGINE_THAT_PRUNES,
    AUTOSCALER_UP,
    AUTOSCALER_DOWN,
    POLICY_THAT_REFUSES_WORKLOADS,
    POLICY_THAT_REFUSES_EVICTIONS,
    POLICY_THAT_REWRITES,
    NODE_REPAIR,
    PERSON_WHO_REPLACES,
    PERSON_WHO_EDITS,
    PERSON_WHO_RESTARTS,
    PERSON_WHO_DRAINS,
    TAINTS,
    FINALIZERS,
    ANOTHER_NAME,
    CUSTOM_CONTROLLER,
    PINNED,
    UNREADY,
    SMALL_NODES,
];

/// What one of them does once; true when there was something to do.
type Act = for<'a> fn(&'a Place) -> BoxFuture<'a, Result<bool>>;

/// What can be switched on.
#[derive(Clone, Copy)]
pub struct Antagonist {
    /// Its name, that of its user in the audit log, and the field manager of what it writes.
    pub name: &'static str,
    /// Words that lead to it, of the status or an event of the pool; empty when nothing is in the pool's way.
    pub evidence: &'static str,
    deeds: Deeds,
}

#[derive(Clone, Copy)]
enum Deeds {
    Program {
        /// From one time that it acts to the next.
        every: Duration,
        act: Act,
        /// What it does when it goes.
        leave: Act,
    },
    Operator,
}

/// One of them at work. Dropping it ends it; what it left behind stays unless it [leaves](Self::leave).
pub struct AtWork {
    antagonist: Antagonist,
    place: Place,
    acted: Arc<AtomicUsize>,
    work: Work,
}

enum Work {
    Program(JoinHandle<()>),
    Operator(Operator),
}

/// Acts once, and goes on as long as it is there.
const ONCE: Duration = Duration::from_secs(3600);

const fn every(name: &'static str, period: Duration, act: Act) -> Antagonist {
    Antagonist {
        name,
        evidence: name,
        deeds: Deeds::Program {
            every: period,
            act,
            leave: |_| Box::pin(async { Ok(false) }),
        },
    }
}

impl Antagonist {
    const fn leads_to(self, evidence: &'static str) -> Self {
        Self { evidence, ..self }
    }

    const fn leaves(self, leave: Act) -> Self {
        match self.deeds {
            Deeds::Program { every, act, .. } => Self {
                deeds: Deeds::Program { every, act, leave },
                ..self
            },
            Deeds::Operator => self,
        }
    }

    /// Switches it on. It has acted once when this returns, and its policy is in force.
    ///
    /// # Errors
    /// When it can't act.
    pub async fn join(self, environment: &Environment, whom: Whom) -> Result<AtWork> {
        let place = Place::new(environment, self.name, whom).await?;
        let acted = Arc::new(AtomicUsize::new(0));
        let work = match self.deeds {
            Deeds::Operator => Work::Operator(installation::start(environment, &place).await?),
            Deeds::Program { every, act, .. } => {
                let first = act(&place).await.with_context(|| self.name)?;
                acted.fetch_add(usize::from(first), Ordering::Relaxed);
                let (place, acted, name) = (place.clone(), Arc::clone(&acted), self.name);
                Work::Program(tokio::spawn(async move {
                    loop {
                        tokio::time::sleep(every).await;
                        match act(&place).await {
                            Ok(something) => {
                                acted.fetch_add(usize::from(something), Ordering::Relaxed);
                            }
                            // What it is after may be gone.
                            Err(error) => tracing::debug!("{name}: {error:#}"),
                        }
                    }
                }))
            }
        };
        Ok(AtWork {
            antagonist: self,
            place,
            acted,
            work,
        })
    }
}

impl fmt::Debug for Antagonist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl AtWork {
    /// How often it found something to do.
    #[must_use]
    pub fn acted(&self) -> usize {
        self.acted.load(Ordering::Relaxed)
    }

    /// It goes, and takes along what would be in the way for ever.
    ///
    /// # Errors
    /// When that can't be done.
    pub async fn leave(mut self) -> Result<()> {
        match &mut self.work {
            Work::Operator(operator) => drop(operator.terminate().await?),
            Work::Program(task) => {
                task.abort();
                // A deed that is under way ends before what it left is looked for.
                task.await.ok();
            }
        }
        if let Deeds::Program { leave, .. } = self.antagonist.deeds {
            leave(&self.place).await.with_context(|| self.antagonist.name)?;
        }
        Ok(())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Work::Program(task) = &self.work {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proofs_have_the_same_ones() {
        let theirs = include_str!("../../../operator/controller/tests/proofs/world/antagonists.rs");
        let names = theirs.lines().filter_map(|line| {
            let (_, call) = line.split_once("every(\"")?;
            call.split_once('"').map(|(name, _)| name)
        });
        assert_eq!(ANTAGONISTS.map(|a| a.name).to_vec(), names.collect::<Vec<_>>());
    }
}
