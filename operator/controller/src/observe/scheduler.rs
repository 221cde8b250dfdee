//! The vendor's scheduler: the CRD of its ResourcePolicies, and these while there is such a CRD. A watch of a kind that
//! does not exist would only fail, again and again; the CRD is a kind that always exists.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use vnp_crds::POOL_LABEL;
use vnp_plan::observed::{Policies, PolicyCrd, PolicySeen, SchedulingSeen};
use vnp_plan::scheduling::{CRD_NAME, PolicySchema};

use super::cluster::{Cluster, Mirrored};
use super::mirror::{Kind, Mirror, RowChange, Shelf, Table, Told};
use super::wire::{RawCrd, RawPolicy};

/// The CRD.
#[derive(Debug)]
pub struct Crds;

impl Kind for Crds {
    type Object = RawCrd;
    type View = PolicyCrd;

    fn wants(&self, crd: &RawCrd) -> bool {
        crd.metadata.name.as_deref() == Some(CRD_NAME)
    }

    fn view(&self, crd: RawCrd, _: Option<&PolicyCrd>) -> PolicyCrd {
        PolicyCrd::read(Some(&crd.raw))
    }
}

/// ResourcePolicies, ours and others: a name may be taken.
#[derive(Debug)]
pub struct ResourcePolicies;

impl Kind for ResourcePolicies {
    type Object = RawPolicy;
    type View = PolicySeen;

    fn wants(&self, _: &RawPolicy) -> bool {
        true
    }

    fn view(&self, policy: RawPolicy, _: Option<&PolicySeen>) -> PolicySeen {
        PolicySeen::read(&policy.raw)
    }
}

/// The schema by which ResourcePolicies are served, `None` while they are not.
pub type Served = Option<Arc<PolicySchema>>;

/// What is mirrored of the scheduler.
#[derive(Debug)]
pub struct Scheduler {
    /// The CRD, at most one.
    pub crds: Mirrored<Crds>,
    /// ResourcePolicies; empty while there is no CRD.
    pub policies: Mirrored<ResourcePolicies>,
    served: watch::Sender<Served>,
    list: Mutex<Option<Arc<Policies>>>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            crds: Mirror::new("CustomResourceDefinition", Table::new(Crds)),
            policies: Mirror::new("ResourcePolicy", Table::new(ResourcePolicies)),
            served: watch::Sender::new(None),
            list: Mutex::default(),
        }
    }
}

impl Scheduler {
    /// Whether ResourcePolicies can be watched, and in which form they come.
    pub fn served(&self) -> watch::Receiver<Served> {
        self.served.subscribe()
    }

    /// There are no ResourcePolicies to be seen any more.
    pub fn forget(&self) {
        self.policies.reset();
        self.policies.write(|t| drop(t.retain(&HashSet::new())));
        self.changed();
    }

    fn crd(&self) -> PolicyCrd {
        if !self.crds.complete() {
            return PolicyCrd::Unknown;
        }
        let there = self.crds.read(|t| t.get(CRD_NAME));
        there.map_or_else(|| PolicyCrd::read(None), |crd| crd.as_ref().clone())
    }

    fn changed(&self) {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn all(&self) -> Option<Arc<Policies>> {
        if !(self.served.borrow().is_some() && self.policies.complete()) {
            return None;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let all = list.get_or_insert_with(|| {
            let row = |(_, policy): (&str, &Arc<PolicySeen>)| (policy.key.clone(), policy.clone());
            Arc::new(self.policies.read(|t| t.iter().map(row).collect()))
        });
        Some(all.clone())
    }
}

impl Cluster {
    /// The scheduler as a pass sees it.
    pub(super) fn scheduling(&self) -> SchedulingSeen {
        SchedulingSeen {
            crd: self.scheduler.crd(),
            policies: self.scheduler.all(),
            leaving: self.leaving_namespaces(),
        }
    }

    /// The CRD came, changed or went.
    pub fn crd_told(&self, _: Told<RowChange<PolicyCrd>>) {
        let served = match self.scheduler.crd() {
            PolicyCrd::Installed(schema) => Some(schema),
            PolicyCrd::Missing(_) | PolicyCrd::Unknown => None,
        };
        self.scheduler.served.send_if_modified(|known| {
            let changed = *known != served;
            *known = served;
            changed
        });
        self.wake_all();
    }

    /// A ResourcePolicy changed: that of a pool by its label, or one whose name a pool wants.
    pub fn policy_told(&self, told: Told<RowChange<PolicySeen>>) {
        self.scheduler.changed();
        let Told::Changed {
            change: RowChange { old, new, .. },
            ..
        } = told
        else {
            return self.wake_all();
        };
        for policy in [old, new].into_iter().flatten() {
            let by_label = policy.labels.get(POOL_LABEL).map(String::as_str);
            let by_name = policy.key.name.rsplit_once('.').map(|(pool, _)| pool);
            for pool in by_label.into_iter().chain(by_name) {
                self.wake_named(pool);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::queue::Queue;

    fn crd(fields: Value) -> RawCrd {
        RawCrd::from(json!({
            "metadata": {"name": CRD_NAME, "uid": "crd"},
            "spec": {"versions": [{"name": "v1alpha1", "served": true, "schema": {"openAPIV3Schema": {
                "properties": {"spec": {"type": "object", "properties": fields}}}}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }))
    }

    fn cluster() -> Arc<Cluster> {
        let queue = || Queue::new(Duration::ZERO);
        let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
        let pool = json!({
            "metadata": {"name": "burst", "uid": "p"},
            "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                     "provider": {"type": "Addon"}},
        });
        let put = |t: &mut Table<super::super::kinds::Pools>| t.put(serde_json::from_value(pool).unwrap());
        drop(cluster.pools.write(put));
        cluster
    }

    fn tell(cluster: &Cluster, crd: RawCrd) {
        for change in cluster.scheduler.crds.write(|t| t.put(crd)) {
            cluster.crd_told(Told::Changed {
                change,
                initial: false,
            });
        }
    }

    async fn complete(cluster: &Cluster) {
        let events = futures::stream::iter([Ok(kube::runtime::watcher::Event::InitDone)]);
        cluster
            .scheduler
            .crds
            .follow(events, &Default::default(), |told| cluster.crd_told(told))
            .await;
    }

    async fn woken(cluster: &Cluster) -> bool {
        let next = timeout(Duration::from_millis(5), cluster.pool_queue.next()).await;
        next.inspect(|name| cluster.pool_queue.done(name)).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn policies_are_watched_only_while_their_crd_serves_them() {
        let cluster = cluster();
        let mut served = cluster.scheduler.served();
        assert_eq!(
            cluster.scheduling().crd,
            PolicyCrd::Unknown,
            "before the first list"
        );
        complete(&cluster).await;
        assert!(matches!(cluster.scheduling().crd, PolicyCrd::Missing(_)));
        assert!(served.borrow_and_update().is_none() && woken(&cluster).await);

        tell(&cluster, crd(json!({})));
        assert!(served.borrow_and_update().is_some() && woken(&cluster).await);
        let before = cluster.scheduling();
        assert!(before.policies.is_none(), "not listed yet");
        tell(&cluster, crd(json!({"units": {"type": "array"}})));
        assert!(served.has_changed().unwrap(), "an upgrade asks for a new list");
        assert!(woken(&cluster).await && cluster.scheduling().crd != before.crd);

        let gone = cluster.scheduler.crds.write(|t| t.retain(&HashSet::new()));
        for change in gone {
            cluster.crd_told(Told::Changed {
                change,
                initial: false,
            });
        }
        assert!(served.borrow_and_update().is_none() && woken(&cluster).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_wakes_the_pool_of_its_label_and_that_of_its_name() {
        let cluster = cluster();
        for (name, labels, wakes) in [
            ("burst.web", json!({}), true),
            ("other", json!({POOL_LABEL: "burst"}), true),
            ("other.web", json!({}), false),
        ] {
            let policy = RawPolicy::from(json!({"metadata": {
                "namespace": "shop", "name": name, "uid": name, "labels": labels}}));
            for change in cluster.scheduler.policies.write(|t| t.put(policy)) {
                cluster.policy_told(Told::Changed {
                    change,
                    initial: false,
                });
            }
            assert_eq!(woken(&cluster).await, wakes, "{name}");
        }
    }
}
