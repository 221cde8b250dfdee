//! The watches that keep the mirrors up to date: one for each kind, whatever the number of pools.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all, pending};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use vnp_crds::{PROFILE_CONFIG_MAP, VirtualNodePool, WEBHOOK_CONFIGURATION};
use vnp_plan::profile::ACS_PROFILE_CONFIG_MAP;
use vnp_plan::scheduling::CRD_NAME;

use super::cluster::{Cluster, Scoped};
use super::controllers;
use super::mirror::{Mirror, Shelf, Told, watch};
use super::read::Read;
use super::scope::Scope;
use super::version;
use super::wanted;
use super::wire::{RawCrd, RawPolicy, RawWorkload, SlimNamespace, SlimNode, SlimPod};
use crate::admission::keyring::TLS_SECRET;
use crate::runtime::health::Readiness;
use crate::runtime::jitter::spread;
use crate::runtime::metrics::Metrics;

const NODE_LEASES: &str = "kube-node-lease";
const POOLS: &str = "pools";
const AUDIT_TRAILS: &str = "audit trails";
/// Every mirror is compared with a full list so often: an event that got lost on its way would be missed for ever.
const LIST_AGAIN: Duration = Duration::from_secs(30 * 60);

/// When ResourcePolicies are listed again after their schema came or changed. For a moment the API server still shows and
/// takes objects in the old form, each server of several for itself; what it pruned on the way into a watch is not sent
/// again (seen).
const AFTER_A_SCHEMA: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// What every watch needs.
#[derive(Clone)]
pub struct Watches {
    /// The ordinary client.
    pub client: Client,
    /// Namespace of the operator.
    pub namespace: String,
    /// Is told when a mirror is complete.
    pub readiness: Readiness,
    /// Counts failures.
    pub metrics: Metrics,
    /// Whether a webhook is served.
    pub webhook: bool,
}

impl Watches {
    /// Runs all watches; never ends by itself. What has to be complete is entered into the readiness before this returns.
    pub fn run(self, cluster: Arc<Cluster>) -> impl Future<Output = ()> + Send {
        let system = vnp_crds::KUBE_SYSTEM;
        let client = || self.client.clone();
        let named = |name: &str| format!("metadata.name={name}");
        let mut all: Vec<BoxFuture<'static, ()>> = Vec::new();

        let pools: Api<Read<VirtualNodePool>> = Api::all(client());
        all.push(self.plain(
            POOLS,
            &cluster,
            |c| &c.pools,
            Watched::all(pools),
            |c, t| c.pool_told(t),
        ));
        let budgets: Api<Read<PodDisruptionBudget>> = Api::all(client());
        all.push(self.plain(
            "budgets",
            &cluster,
            |c| &c.budgets,
            Watched::all(budgets),
            |c, t| c.budget_told(t),
        ));
        let namespaces: Api<Read<SlimNamespace>> = Api::all(client());
        all.push(self.plain(
            "namespaces",
            &cluster,
            |c| &c.namespaces,
            Watched::all(namespaces),
            |c, t| c.namespace_told(t),
        ));
        let secrets: Api<Read<Secret>> = Api::namespaced(client(), &self.namespace);
        all.push(self.plain(
            "saved copies",
            &cluster,
            |c| &c.copies,
            Watched::all(secrets),
            |c, t| c.rare_told(t),
        ));
        let audits: Api<Read<ConfigMap>> = Api::namespaced(client(), &self.namespace);
        all.push(self.plain(
            AUDIT_TRAILS,
            &cluster,
            |c| &c.audits,
            Watched::all(audits),
            |c, t| c.rare_told(t),
        ));
        let maps: Api<Read<ConfigMap>> = Api::namespaced(client(), system);
        let fields = named(PROFILE_CONFIG_MAP);
        let profile = Watched::by(maps.clone(), &fields);
        all.push(self.plain(
            PROFILE_CONFIG_MAP,
            &cluster,
            |c| &c.profile,
            profile,
            |c, t| c.profile_told(t),
        ));
        let fields = named(ACS_PROFILE_CONFIG_MAP);
        let profile = Watched::by(maps, &fields);
        all.push(self.plain(
            ACS_PROFILE_CONFIG_MAP,
            &cluster,
            |c| &c.acs_profile,
            profile,
            |c, t| c.profile_told(t),
        ));
        let events: Api<Read<Event>> = Api::namespaced(client(), system);
        let events = Watched::by(events, "involvedObject.kind=ConfigMap,type=Warning");
        all.push(self.plain(
            "warnings",
            &cluster,
            |c| &c.warnings,
            events,
            |c, t| c.rare_told(t),
        ));

        let crds: Api<Read<RawCrd>> = Api::all(client());
        let crds = Watched::by(crds, &named(CRD_NAME));
        all.push(self.plain(
            CRD_NAME,
            &cluster,
            |c| &c.scheduler.crds,
            crds,
            |c, t| c.crd_told(t),
        ));
        all.push(self.policies(&cluster));
        all.push(version::follow(client(), cluster.clone()).boxed());
        all.push(controllers::follow(client(), cluster.clone()).boxed());
        all.push(wanted::follow(client(), cluster.clone()).boxed());
        if self.webhook {
            let secrets: Api<Read<Secret>> = Api::namespaced(client(), &self.namespace);
            let secrets = Watched::by(secrets, &named(TLS_SECRET));
            all.push(self.plain(
                TLS_SECRET,
                &cluster,
                |c| &c.webhook.secrets,
                secrets,
                |c, t| c.certificate_told(t),
            ));
            let configurations: Api<Read<MutatingWebhookConfiguration>> = Api::all(client());
            let configurations = Watched::by(configurations, &named(WEBHOOK_CONFIGURATION));
            all.push(self.plain(
                WEBHOOK_CONFIGURATION,
                &cluster,
                |c| &c.webhook.configurations,
                configurations,
                |c, t| c.configuration_told(t),
            ));
        }

        for (namespace, mirror) in &cluster.workloads {
            let api: Api<Read<RawWorkload>> = Api::namespaced(client(), namespace);
            let (mirror, told) = (mirror.clone(), cluster.clone());
            let what = format!("StatefulSets of {namespace}");
            all.push(self.follow(what, false, mirror, Watched::all(api), move |t| {
                told.workload_told(t)
            }));
        }

        let nodes: Api<Read<SlimNode>> = Api::all(client());
        let (mirror, told) = (cluster.nodes.clone(), cluster.clone());
        let tell = move |t| told.node_told(t);
        all.push(self.scoped(
            Scoped::Nodes,
            &cluster,
            mirror,
            nodes,
            |s, scope| s.kind.scope = scope,
            tell,
        ));
        let leases: Api<Read<Lease>> = Api::namespaced(client(), NODE_LEASES);
        let (mirror, told) = (cluster.leases.clone(), cluster.clone());
        let tell = move |t| told.lease_told(t);
        all.push(self.scoped(
            Scoped::Leases,
            &cluster,
            mirror,
            leases,
            |s, scope| s.kind.scope = scope,
            tell,
        ));
        let pods: Api<Read<SlimPod>> = Api::all(client());
        let (mirror, told) = (cluster.pods.clone(), cluster.clone());
        let tell = move |t| told.pod_told(t);
        all.push(self.scoped(
            Scoped::Pods,
            &cluster,
            mirror,
            pods,
            |s, scope| s.scope = scope,
            tell,
        ));

        join_all(all).map(drop)
    }

    fn plain<S: Shelf>(
        &self,
        what: &str,
        cluster: &Arc<Cluster>,
        mirror: fn(&Cluster) -> &Arc<Mirror<S>>,
        watched: Watched<S::Object>,
        tell: fn(&Cluster, Told<S::Change>),
    ) -> BoxFuture<'static, ()> {
        let told = cluster.clone();
        // Without any other one, no pool is served.
        let needed = what != AUDIT_TRAILS;
        self.follow(
            what.to_owned(),
            needed,
            mirror(cluster).clone(),
            watched,
            move |t| tell(&told, t),
        )
    }

    fn follow<S: Shelf>(
        &self,
        what: String,
        needed: bool,
        mirror: Arc<Mirror<S>>,
        watched: Watched<S::Object>,
        mut tell: impl FnMut(Told<S::Change>) + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let (metrics, readiness) = (self.metrics.clone(), self.readiness.clone());
        let what = format!("the cache of {what}");
        readiness.set(&what, false);
        let follow = async move {
            let mut tell = |told| {
                // What is refused does not come by waiting, and concerns only the pools that need it.
                let known = match &told {
                    Told::Complete => true,
                    Told::Refused => !needed,
                    Told::Changed { .. } => false,
                };
                tell(told);
                if known {
                    readiness.set(&what, true);
                }
            };
            watched.follow(&mirror, &metrics, &mut tell).await;
        };
        follow.boxed()
    }

    /// ResourcePolicies, while they are served. No part of the readiness: most clusters have none.
    fn policies(&self, cluster: &Arc<Cluster>) -> BoxFuture<'static, ()> {
        let (metrics, cluster) = (self.metrics.clone(), cluster.clone());
        let api: Api<Read<RawPolicy>> = Api::all(self.client.clone());
        let mut served = cluster.scheduler.served();
        let follow = async move {
            loop {
                let there = served.borrow_and_update().is_some();
                let follow = async {
                    if !there {
                        cluster.scheduler.forget();
                        return pending().await;
                    }
                    let mut tell = |told| cluster.policy_told(told);
                    let watched = Watched::all(api.clone());
                    for until in AFTER_A_SCHEMA {
                        let follow = watched.follow(&cluster.scheduler.policies, &metrics, &mut tell);
                        // Its end is the time for the next list.
                        timeout(until, follow).await.ok();
                    }
                    watched
                        .follow(&cluster.scheduler.policies, &metrics, &mut tell)
                        .await;
                };
                tokio::select! {
                    () = follow => {}
                    _ = served.changed() => {}
                }
            }
        };
        follow.boxed()
    }

    /// Keeps only what concerns the pools, and lists anew when other names concern them: what was dropped while it did
    /// not concern anybody can't be had otherwise.
    fn scoped<S: Shelf>(
        &self,
        which: Scoped,
        cluster: &Arc<Cluster>,
        mirror: Arc<Mirror<S>>,
        api: Api<Read<S::Object>>,
        set: fn(&mut S, Scope),
        mut tell: impl FnMut(Told<S::Change>) + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let (metrics, readiness, cluster) = (self.metrics.clone(), self.readiness.clone(), cluster.clone());
        let what = format!("the cache of {which:?}");
        readiness.set(&what, false);
        let mut scopes = cluster.scope();
        let follow = async move {
            loop {
                let scope = next_scope(&mut scopes).await;
                mirror.write(|shelf| set(shelf, scope.clone()));
                let follow = async {
                    if scope.is_empty() {
                        // Without a pool there is nothing to watch.
                        readiness.set(&what, true);
                        return pending().await;
                    }
                    let mut tell = |told| {
                        let complete = matches!(told, Told::Complete);
                        tell(told);
                        if complete {
                            readiness.set(&what, true);
                            cluster.cover(which, scope.clone());
                        }
                    };
                    Watched::all(api.clone())
                        .follow(&mirror, &metrics, &mut tell)
                        .await;
                };
                tokio::select! {
                    () = follow => {}
                    _ = scopes.changed() => {}
                }
            }
        };
        follow.boxed()
    }
}

/// The scope in force, as soon as the pools are known.
async fn next_scope(scopes: &mut watch::Receiver<Option<Scope>>) -> Scope {
    let known = scopes
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|scope| scope.clone());
    match known {
        Some(scope) => scope,
        None => pending().await,
    }
}

/// What is watched.
struct Watched<K> {
    api: Api<Read<K>>,
    fields: Option<String>,
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn all(api: Api<Read<K>>) -> Self {
        Self { api, fields: None }
    }

    fn by(api: Api<Read<K>>, fields: &str) -> Self {
        Self {
            api,
            fields: Some(fields.to_owned()),
        }
    }

    /// Keeps a mirror up to date, from a full list every now and then.
    async fn follow<S: Shelf<Object = K>>(
        &self,
        mirror: &Mirror<S>,
        metrics: &Metrics,
        tell: &mut (impl FnMut(Told<S::Change>) + Send),
    ) {
        loop {
            let events = watch(self.api.clone(), self.fields.as_deref());
            let until = spread(LIST_AGAIN, 0.2);
            if timeout(until, mirror.follow(events, metrics, &mut *tell))
                .await
                .is_ok()
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::observe::webhook::Webhook;

    /// An API server that shows nothing.
    fn refusing() -> Client {
        let service = tower::service_fn(|_: Request<Body>| async {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                                "reason": "Forbidden", "message": "no"});
            let body = Body::from(status.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(403).body(body).unwrap())
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_that_is_refused_keeps_a_replica_unready_only_where_every_pool_needs_it() {
        for (needed, missing) in [(false, &[][..]), (true, &["the cache of x"])] {
            let watches = Watches {
                client: refusing(),
                namespace: "n".to_owned(),
                readiness: Readiness::default(),
                metrics: Metrics::default(),
                webhook: false,
            };
            let api: Api<Read<MutatingWebhookConfiguration>> = Api::all(refusing());
            let mirror = Webhook::default().configurations;
            let follow = watches.follow("x".to_owned(), needed, mirror, Watched::all(api), |_| {});
            assert_eq!(
                watches.readiness.missing(),
                ["the cache of x"],
                "nobody has asked yet"
            );
            let ended = timeout(Duration::from_secs(60), follow).await;
            assert!(ended.is_err(), "it is asked for again and again");
            assert_eq!(watches.readiness.missing(), missing, "needed: {needed}");
        }
    }
}
