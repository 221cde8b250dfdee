//! "No leak", by the ledger.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt};

use super::{Scenario, eventually};
use crate::cloud::Instance;

/// Instances that cost money and that nobody will ever delete, or nobody needs.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// Living instances on nodes whose provider does not run.
    pub without_provider: Vec<Instance>,
    /// Living instances whose Pod object is gone.
    pub orphans: Vec<Instance>,
    /// Living instances of pods that have more than one.
    pub duplicates: Vec<Instance>,
}

impl Leaks {
    /// Whether nothing leaks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.without_provider.is_empty() && self.orphans.is_empty() && self.duplicates.is_empty()
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let kinds = [
            ("on nodes without provider", &self.without_provider),
            ("without pod", &self.orphans),
            ("more than one for a pod", &self.duplicates),
        ];
        let mut separator = "";
        for (kind, instances) in kinds {
            if let Some(first) = instances
                .get(..instances.len().min(SHOWN))
                .filter(|first| !first.is_empty())
            {
                let examples: Vec<String> = first.iter().map(Instance::to_string).collect();
                write!(
                    f,
                    "{separator}{} living instances {kind}: {}",
                    instances.len(),
                    examples.join(", ")
                )?;
                separator = "; ";
            }
        }
        if self.is_empty() {
            write!(f, "no leak")
        } else {
            Ok(())
        }
    }
}

impl Scenario<'_> {
    /// What leaks now, of the instances created since the scenario began.
    ///
    /// # Errors
    /// When the pods can't be listed.
    pub async fn leaks(&self) -> Result<Leaks> {
        // The ledger first: an instance that is created after the pods were listed must not look like an orphan.
        let ledger = self.ledger();
        let earlier: HashSet<_> = ledger
            .instances()
            .into_iter()
            .take(self.since.ledger)
            .map(|instance| instance.id)
            .collect();
        let living: HashSet<_> = ledger.living().into_iter().map(|instance| instance.id).collect();
        let pods: Api<PartialObjectMeta<Pod>> = Api::all(self.client());
        let pods = pods.list(&ListParams::default()).await?;
        let uids: HashSet<String> = pods.items.iter().filter_map(ResourceExt::uid).collect();
        let counts = |instance: &Instance| living.contains(&instance.id) && !earlier.contains(&instance.id);
        let of = |instances: Vec<Instance>| instances.into_iter().filter(counts).collect();
        let providers = self.cloud().running_providers();
        let mut without_provider: Vec<Instance> = of(ledger.living());
        without_provider.retain(|instance| !providers.contains(&instance.node));
        Ok(Leaks {
            without_provider,
            orphans: of(ledger.orphans(&uids)),
            duplicates: of(ledger.duplicates()),
        })
    }

    /// Waits until nothing leaks: deletions that are under way may end first.
    ///
    /// # Errors
    /// What still leaks after `within`.
    pub async fn no_leak_within(&self, within: Duration) -> Result<()> {
        eventually("nothing leaks", within, async || {
            let leaks = self.leaks().await?;
            ensure!(leaks.is_empty(), "{leaks}");
            Ok(())
        })
        .await
    }
}
