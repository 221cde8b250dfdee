//! Namespaces: their labels, by which stages and policies select, and whether they are going.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use vnp_crds::VirtualNodePool;

use super::cluster::Cluster;
use super::mirror::{Kind, RowChange, Told};
use super::wire::SlimNamespace;

/// Namespaces.
#[derive(Debug)]
pub struct Namespaces;

/// What is kept of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted.
    pub leaving: bool,
}

impl Kind for Namespaces {
    type Object = SlimNamespace;
    type View = NamespaceRow;

    fn wants(&self, _: &SlimNamespace) -> bool {
        true
    }

    fn view(&self, namespace: SlimNamespace, _: Option<&Self::View>) -> Self::View {
        NamespaceRow {
            labels: namespace.labels,
            leaving: namespace.leaving,
        }
    }
}

/// Labels of namespaces by name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// All namespaces, as passes share them.
#[derive(Clone, Debug)]
pub(super) struct NamespaceList {
    labels: Arc<NamespaceLabels>,
    leaving: Arc<BTreeSet<String>>,
}

impl Cluster {
    /// The labels of all namespaces.
    pub fn all_namespaces(&self) -> Arc<NamespaceLabels> {
        self.namespace_list().labels
    }

    /// The namespaces that are being deleted.
    pub fn leaving_namespaces(&self) -> Arc<BTreeSet<String>> {
        self.namespace_list().leaving
    }

    fn namespace_list(&self) -> NamespaceList {
        let mut list = self.namespace_list.lock().unwrap_or_else(PoisonError::into_inner);
        list.get_or_insert_with(|| {
            self.namespaces.read(|t| {
                let labels = t.iter().map(|(name, row)| (name.to_owned(), row.labels.clone()));
                let leaving = t.iter().filter(|(_, row)| row.leaving);
                NamespaceList {
                    labels: Arc::new(labels.collect()),
                    leaving: Arc::new(leaving.map(|(name, _)| name.to_owned()).collect()),
                }
            })
        })
        .clone()
    }

    /// A namespace changed: its labels decide in which stage its pods leave, and which policies it gets.
    pub fn namespace_told(&self, told: Told<RowChange<NamespaceRow>>) {
        let Told::Changed { .. } = told else { return };
        *self.namespace_list.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.wake_draining();
        let projects = |pool: &VirtualNodePool| {
            let scheduling = pool.spec.scheduling.as_ref();
            scheduling.is_some_and(|s| !s.resource_policies.is_empty())
        };
        for pool in self.all_pools().iter().filter(|p| projects(p)) {
            self.wake(pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::observe::mirror::Shelf;
    use crate::runtime::clock::Clock;
    use crate::runtime::queue::Queue;

    fn put(cluster: &Cluster, namespace: Value) {
        let namespace = serde_json::from_value(namespace).unwrap();
        for change in cluster.namespaces.write(|t| t.put(namespace)) {
            cluster.namespace_told(Told::Changed {
                change,
                initial: false,
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_wakes_the_pools_that_have_policies_for_it() {
        let queue = || Queue::new(Duration::ZERO);
        let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
        for (name, policies) in [
            ("plain", json!([])),
            ("burst", json!([{"name": "web", "namespaces": ["shop"]}])),
        ] {
            let pool = json!({
                "metadata": {"name": name, "uid": name},
                "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                         "provider": {"type": "Addon"}, "scheduling": {"resourcePolicies": policies}},
            });
            let pool = serde_json::from_value(pool).unwrap();
            drop(cluster.pools.write(|t| t.put(pool)));
        }
        let meta = |overlay: Value| {
            let mut namespace = json!({"metadata": {"name": "shop", "uid": "n", "labels": {"team": "a"}}});
            json_patch::merge(&mut namespace["metadata"], &overlay);
            namespace
        };
        put(&cluster, meta(json!({})));
        assert_eq!(cluster.pool_queue.next().await, "burst");
        cluster.pool_queue.done("burst");
        assert_eq!(cluster.all_namespaces()["shop"]["team"], "a");
        assert!(cluster.leaving_namespaces().is_empty());
        put(
            &cluster,
            meta(json!({"deletionTimestamp": "2026-11-01T00:00:00Z"})),
        );
        assert_eq!(cluster.pool_queue.next().await, "burst");
        assert!(cluster.leaving_namespaces().contains("shop"));
        cluster.pool_queue.done("burst");
        let more = timeout(Duration::from_millis(5), cluster.pool_queue.next()).await;
        assert!(more.is_err(), "nobody else is concerned");
    }
}
