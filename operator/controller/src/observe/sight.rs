//! Puts together what one pass over a pool looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use vnp_crds::{Reason, VirtualNodePool};
use vnp_plan::drain::audit::{AUDIT_PREFIX, Trail};
use vnp_plan::observed::{
    Blind, FailingWatch, Flaw, NodeView, ObjectKey, Observed, OperatorFacts, Ordinal, SavedCopy, WorkloadSeen,
};

use super::cluster::{Cluster, Scoped};
use super::kinds::{RESTORE_PREFIX, TEMPLATE_PREFIX, Warning};
use super::mirror::FAILS_FOR_GOOD;
use super::scope;
use crate::runtime::clock::Reading;

/// What there is to see of a pool.
pub enum Sight {
    /// There is no such pool (any more).
    Gone,
    /// What stands there now can't be read; this is the pool as it could be read last.
    Unreadable(Arc<VirtualNodePool>),
    /// Not everything about it is in the caches yet. Completion wakes it.
    Waiting(&'static str),
    /// All of it.
    Seen(Box<Observed>),
}

/// A pool of which no pass says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Why a person is asked for: the reason of Stalled.
    pub reason: Reason,
    /// What there is to say.
    pub note: String,
}

impl Unseen {
    /// What an event about it regards.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(vnp_crds::API_VERSION.to_owned()),
            kind: Some(vnp_crds::KIND.to_owned()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

fn for_good(kind: &'static str, failing: Option<(Duration, String)>) -> Option<FailingWatch> {
    let (_, error) = failing.filter(|(since, _)| *since >= FAILS_FOR_GOOD)?;
    Some(FailingWatch { kind, error })
}

/// Whether it is the watch of these objects that leaves a part of the picture out.
fn stands_for(kind: &str, missing: &str) -> bool {
    match missing {
        "heartbeats" => kind == "Lease",
        "budgets" => kind == "PodDisruptionBudget",
        "saved copies" => kind == "Secret",
        "profiles" => kind == "ConfigMap",
        "warnings" => kind == "Event",
        parts => parts
            .strip_suffix('s')
            .is_some_and(|part| part.eq_ignore_ascii_case(kind)),
    }
}

impl Cluster {
    /// Everything that one pass over the pool looks at, from the caches.
    pub fn observe(&self, pool_name: &str, operator: &OperatorFacts, clock: Reading) -> Sight {
        let Some(pool) = self.pools.read(|t| t.get(pool_name)) else {
            return Sight::Gone;
        };
        if self.pools.flaws().iter().any(|flaw| flaw.key == pool_name) {
            return Sight::Unreadable(pool);
        }
        if let Some(missing) = self.missing(&pool) {
            return Sight::Waiting(missing);
        }
        let uid = pool.metadata.uid.clone().unwrap_or_default();
        let others = self
            .all_pools()
            .into_iter()
            .filter(|p| p.metadata.name.as_deref() != Some(pool_name))
            .collect();
        let mut seen = Observed {
            others,
            operator: operator.clone(),
            workload: WorkloadSeen::Absent,
            provider_pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            bound: BTreeMap::new(),
            stateful_sets: BTreeMap::new(),
            controllers: Arc::default(),
            wanted: BTreeMap::new(),
            namespaces: self.all_namespaces(),
            budgets: self.all_budgets(),
            restore_copy: self.copy(RESTORE_PREFIX, &uid),
            template_copy: self.copy(TEMPLATE_PREFIX, &uid),
            audit: self.audit(operator, pool_name),
            profile: self.profile.read(|t| t.iter().next().map(|(_, map)| map.clone())),
            acs_profile: self
                .acs_profile
                .read(|t| t.iter().next().map(|(_, map)| map.clone())),
            profile_rejection: None,
            scheduling: self.scheduling(),
            kubernetes: self.kubernetes.known(),
            webhook: self.webhook.state(),
            vendor_webhook: self.webhook.vendor(),
            later: self.webhook.later(),
            left_alone: self
                .webhook
                .left_alone(pool.metadata.name.as_deref().unwrap_or_default(), clock.now),
            overflow: self.overflow.right(),
            flaws: self.flaws(),
            failing: self.failing(&pool),
            memory: BTreeMap::new(),
            recall: self
                .recalls
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&uid)
                .cloned()
                .unwrap_or_default(),
            live: BTreeMap::new(),
            pool,
        };
        let set_back = self
            .profile_set_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        seen.recall.profile_set_back = set_back;
        seen.recall.profile_rewritten = self
            .profile_rewritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let warnings: Vec<Arc<Warning>> = self.warnings.read(|t| t.iter().map(|(_, w)| w.clone()).collect());
        let profiles = [seen.profile.as_deref(), seen.acs_profile.as_deref()];
        seen.profile_rejection = rejection(&warnings, profiles.into_iter().flatten());
        if let Some(provider) = scope::provider(&seen.pool) {
            self.see_provider(&provider, &mut seen);
        }
        self.memories.corrected(clock);
        self.heartbeats.corrected(clock);
        self.remember(&uid, &seen, clock.now);
        seen.memory = self.memories.snapshot(&uid);
        Sight::Seen(Box::new(seen))
    }

    fn missing(&self, pool: &VirtualNodePool) -> Option<&'static str> {
        let workloads = pool
            .spec
            .provider
            .namespace
            .as_ref()
            .and_then(|n| self.workloads.get(n));
        let parts = [
            (self.covers(Scoped::Pods, pool), "pods"),
            (self.covers(Scoped::Nodes, pool), "nodes"),
            (self.covers(Scoped::Leases, pool), "heartbeats"),
            (
                workloads.is_none_or(|m| m.complete() || m.refused().is_some()),
                "StatefulSets",
            ),
            (self.budgets.complete(), "budgets"),
            (self.namespaces.complete(), "namespaces"),
            (self.copies.complete(), "saved copies"),
            (self.profile.complete() && self.acs_profile.complete(), "profiles"),
            (self.warnings.complete(), "warnings"),
        ];
        parts.into_iter().find(|(there, _)| !there).map(|(_, what)| what)
    }

    /// Everything that can't be read, sorted.
    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = self.pools.flaws();
        flaws.extend(self.nodes.flaws());
        flaws.extend(self.leases.flaws());
        flaws.extend(self.pods.flaws());
        flaws.extend(self.budgets.flaws());
        flaws.extend(self.namespaces.flaws());
        flaws.extend(self.copies.flaws());
        flaws.extend(self.audits.flaws());
        flaws.extend(self.profile.flaws());
        flaws.extend(self.acs_profile.flaws());
        flaws.extend(self.warnings.flaws());
        flaws.sort();
        flaws
    }

    /// The watches of this pool's caches that have failed for long. What the caches show may be out of date.
    fn failing(&self, pool: &VirtualNodePool) -> Vec<FailingWatch> {
        let namespace = pool.spec.provider.namespace.as_ref();
        let workloads = namespace.and_then(|n| self.workloads.get(n));
        let all = self.shared_watches().into_iter();
        let all = all.chain(workloads.map(|m| ("StatefulSet", m.failing())));
        all.filter_map(|(kind, failing)| for_good(kind, failing))
            .collect()
    }

    /// Names of all watches that have failed for long.
    pub fn failing_watches(&self) -> BTreeSet<String> {
        let shared = self.shared_watches().into_iter();
        let shared = shared.map(|(kind, failing)| (kind.to_owned(), failing));
        let of_namespaces = self.workloads.iter();
        let of_namespaces = of_namespaces.map(|(n, m)| (format!("StatefulSet of {n}"), m.failing()));
        let long = |(name, failing): (String, Option<(Duration, String)>)| {
            failing
                .filter(|(since, _)| *since >= FAILS_FOR_GOOD)
                .map(|_| name)
        };
        shared.chain(of_namespaces).filter_map(long).collect()
    }

    fn shared_watches(&self) -> [(&'static str, Option<(Duration, String)>); 9] {
        [
            (self.pools.kind(), self.pools.failing()),
            (self.nodes.kind(), self.nodes.failing()),
            (self.leases.kind(), self.leases.failing()),
            (self.pods.kind(), self.pods.failing()),
            (self.budgets.kind(), self.budgets.failing()),
            (self.namespaces.kind(), self.namespaces.failing()),
            (self.copies.kind(), self.copies.failing()),
            (self.profile.kind(), self.profile.failing()),
            (self.acs_profile.kind(), self.acs_profile.failing()),
        ]
    }

    /// Pools of which no pass says anything, with what there is to say.
    pub fn unseen(&self) -> Vec<Unseen> {
        let flaws = self.pools.flaws_by_uid();
        let unreadable = flaws.iter().map(|(uid, flaw)| Unseen {
            name: flaw.key.clone(),
            uid: uid.clone(),
            reason: Reason::InvalidSpec,
            note: format!(
                "this version of the operator can't read this pool ({}), so it does nothing for it: its drain stands still, its \
                 cordons and providers stay; correct the value, or run the version that knows it",
                flaw.error
            ),
        });
        let pools = self.all_pools();
        let readable = pools
            .iter()
            .filter(|p| flaws.values().all(|f| Some(&f.key) != p.metadata.name.as_ref()));
        let blind = readable.filter_map(|pool| {
            let missing = self.missing(pool)?;
            let mut failing = self.failing(pool).into_iter();
            let FailingWatch { kind, error } = failing.find(|f| stands_for(f.kind, missing))?;
            Some(Unseen {
                name: pool.metadata.name.clone()?,
                uid: pool.metadata.uid.clone()?,
                reason: Reason::WatchFailing,
                note: format!(
                    "nothing is done for this pool, because its {missing} are not known: the watch of {kind} objects fails \
                     ({error}); grant what config/rbac grants, and look at the API server"
                ),
            })
        });
        unreadable.chain(blind).collect()
    }

    fn copy(&self, prefix: &str, pool_uid: &str) -> Option<SavedCopy> {
        let name = format!("{prefix}{pool_uid}");
        self.copies.read(|t| {
            t.iter()
                .find(|(_, copy)| copy.name == name)
                .map(|(_, copy)| copy.as_ref().clone())
        })
    }

    /// The audit trail. It is not among what a pass waits for: a drain must not hang on a ConfigMap that can't be read.
    fn audit(&self, operator: &OperatorFacts, pool_name: &str) -> Option<Arc<Trail>> {
        let key = format!("{}/{AUDIT_PREFIX}{pool_name}", operator.namespace);
        self.audits
            .complete()
            .then(|| self.audits.read(|t| t.get(&key)).unwrap_or_default())
    }

    /// The workload of that name, as far as its namespace is watched and may be looked at.
    fn workload(&self, key: &ObjectKey) -> WorkloadSeen {
        let Some(mirror) = self.workloads.get(&key.namespace) else {
            return WorkloadSeen::Unknown(Blind::NotWatched);
        };
        if let Some(words) = mirror.refused() {
            return WorkloadSeen::Unknown(Blind::Refused(words));
        }
        match mirror.read(|t| t.get(&key.to_string())) {
            Some(workload) => WorkloadSeen::There(workload),
            None => WorkloadSeen::Absent,
        }
    }

    fn see_provider(&self, provider: &ObjectKey, seen: &mut Observed) {
        seen.workload = self.workload(provider);
        let ordinal = |name: &str| {
            scope::split(name)
                .filter(|(p, _)| *p == provider.name)
                .map(|(_, ordinal)| ordinal)
        };
        self.pods.read(|shelf| {
            let providers = shelf
                .providers()
                .filter(|p| p.key.namespace == provider.namespace);
            seen.provider_pods = providers
                .filter_map(|p| Some((ordinal(&p.key.name)?, p.clone())))
                .collect();
            seen.bound = shelf
                .nodes()
                .filter_map(|(node, pods)| Some((ordinal(node)?, pods.clone())))
                .collect();
            let owners = seen.bound.values().flat_map(|pods| pods.iter());
            seen.stateful_sets = owners
                .filter_map(|pod| {
                    let uid = &pod.stateful_set()?.uid;
                    Some((uid.clone(), shelf.members(uid)?.clone()))
                })
                .collect();
            let pods = || seen.bound.values().flat_map(|pods| pods.iter());
            seen.controllers = self.controllers.of(pods().filter_map(|p| p.controller.as_ref()));
            seen.wanted = pods()
                .filter_map(|pod| {
                    let owner = pod.stateful_set()?;
                    let members = seen.stateful_sets.get(&owner.uid)?;
                    let wanted = self.wanted.of(owner, &pod.key.namespace, members)?;
                    Some((owner.uid.clone(), wanted))
                })
                .collect();
        });
        let prefix = format!("{}-", provider.name);
        seen.nodes = self.nodes.read(|t| {
            let nodes = t
                .starting_with(&prefix)
                .filter_map(|(name, row)| Some((ordinal(name)?, row)));
            nodes
                .map(|(ordinal, row)| (ordinal, Arc::new(self.node(&row.view, &row.resource_version))))
                .collect()
        });
    }

    /// The Node with its newest sign of life.
    pub(super) fn node(&self, view: &NodeView, resource_version: &str) -> NodeView {
        NodeView {
            resource_version: resource_version.to_owned(),
            heartbeat: self.heartbeats.of(&view.name),
            ..view.clone()
        }
    }

    /// Enters what is seen now into the memory. Watch events do it too; this catches what was there before the pool was.
    fn remember(&self, uid: &str, seen: &Observed, now: Timestamp) {
        for (ordinal, node) in &seen.nodes {
            self.memories.see_node(uid, *ordinal, Some(node), now);
        }
        for (ordinal, pod) in &seen.provider_pods {
            self.memories
                .see_provider(uid, *ordinal, &pod.uid, self.heartbeats.beats(&pod.key.name));
        }
        let draining = seen.pool.status.as_ref().and_then(|s| s.drain.as_ref());
        let known: Vec<Ordinal> = draining
            .map(|d| d.nodes.iter().map(|n| n.ordinal).collect())
            .unwrap_or_default();
        for ordinal in known.into_iter().filter(|o| !seen.nodes.contains_key(o)) {
            self.memories.see_node(uid, ordinal, None, now);
        }
    }
}

/// What the provider said last against the profile, unless the profile changed since: then it has not answered yet.
fn rejection<'a>(warnings: &[Arc<Warning>], profiles: impl Iterator<Item = &'a ConfigMap>) -> Option<String> {
    let standing = profiles.filter_map(|map| {
        let about = map.metadata.name.as_deref()?;
        let newest = warnings
            .iter()
            .filter(|w| w.about == about)
            .max_by_key(|w| w.at)?;
        (changed(map) <= Some(newest.at)).then_some(newest)
    });
    standing.max_by_key(|w| w.at).map(|w| w.note.clone())
}

/// When the content changed last, by the API server's bookkeeping; to the second, as its stamps are.
fn changed(map: &ConfigMap) -> Option<Timestamp> {
    let written = map
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|f| f.time.as_ref());
    written
        .map(|t| t.0)
        .max()
        .or_else(|| map.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(changed: &str) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "eci-profile", "managedFields": [
            {"manager": "a", "time": "2026-11-01T00:00:00Z"}, {"manager": "b", "time": changed}]}}))
        .unwrap()
    }

    fn warning(about: &str, at: &str) -> Arc<Warning> {
        Arc::new(Warning {
            about: about.into(),
            at: at.parse().unwrap(),
            note: format!("{about} {at}"),
        })
    }

    #[tokio::test]
    async fn a_workload_is_absent_only_where_its_namespace_was_looked_at() {
        use kube::runtime::watcher::{Error, Event};

        let queue = || crate::runtime::queue::Queue::new(std::time::Duration::ZERO);
        let clock = crate::runtime::clock::Clock::of_host();
        let cluster = Cluster::new(&["kube-system".to_owned()], queue(), queue(), clock);
        let of = |namespace: &str| {
            cluster.workload(&ObjectKey {
                namespace: namespace.to_owned(),
                name: "v".to_owned(),
            })
        };
        assert_eq!(of("dropped"), WorkloadSeen::Unknown(Blind::NotWatched));
        let follow = async |events: Vec<kube::runtime::watcher::Result<Event<_>>>| {
            let mirror = &cluster.workloads["kube-system"];
            let events = futures::stream::iter(events);
            mirror
                .follow(events, &crate::runtime::metrics::Metrics::default(), |_| {})
                .await;
        };
        let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
        follow(vec![Err(Error::InitialListFailed(kube::Error::Api(
            status.boxed(),
        )))])
        .await;
        assert_eq!(
            of("kube-system"),
            WorkloadSeen::Unknown(Blind::Refused("no".to_owned()))
        );
        follow(vec![Ok(Event::Init), Ok(Event::InitDone)]).await;
        assert_eq!(of("kube-system"), WorkloadSeen::Absent);
    }

    #[test]
    fn a_rejection_stands_until_the_profile_changes() {
        let warnings = [
            warning("eci-profile", "2026-11-01T00:04:00Z"),
            warning("eci-profile", "2026-11-01T00:05:00Z"),
            warning("acs-profile", "2026-11-01T00:09:00Z"),
        ];
        let told = |changed: &str| rejection(&warnings, [profile(changed)].iter());
        assert_eq!(
            told("2026-11-01T00:05:00Z").as_deref(),
            Some("eci-profile 2026-11-01T00:05:00Z")
        );
        assert_eq!(told("2026-11-01T00:05:01Z"), None);
        assert_eq!(rejection(&[], [profile("2026-11-01T00:05:00Z")].iter()), None);
    }
}
