//! Looks at the vendor's webhook while a pool relies on it. Only the leader does, and it asks instead of watching: nothing
//! hurries, and most clusters have no such pool.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;
use vnp_crds::WebhookMode;
use vnp_plan::observed::ObjectKey;
use vnp_plan::webhook::vendor::{CONFIGURATIONS, Installed, VendorSeen};

use crate::observe::cluster::Cluster;
use crate::runtime::jitter::spread;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(15);
/// The label by which EndpointSlices name their Service (KEP-752).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What looks.
pub struct Onlooker {
    /// Where what is seen goes.
    pub cluster: Arc<Cluster>,
    /// The client that retries.
    pub client: Client,
}

impl Onlooker {
    /// Looks again and again until `stop` says true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            // A sender that is gone means the same.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut changes = self.cluster.webhook.changes();
        loop {
            changes.mark_unchanged();
            let asked = self.asked();
            if !asked {
                self.cluster.vendor_seen(VendorSeen::Unknown);
            } else if let Some(seen) = self.look().await {
                self.cluster.vendor_seen(seen);
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(spread(EVERY, 0.2)), if asked => {}
            }
        }
    }

    fn asked(&self) -> bool {
        let pools = self.cluster.all_pools();
        pools.iter().any(|pool| {
            pool.spec.webhook() == WebhookMode::Vendor && pool.metadata.deletion_timestamp.is_none()
        })
    }

    /// `None` when there was no answer: what is known still holds.
    async fn look(&self) -> Option<VendorSeen> {
        match self.see().await {
            Ok(seen) => Some(seen),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                Some(VendorSeen::Forbidden(status.message.clone()))
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the vendor's webhook can't be looked at"
                );
                None
            }
        }
    }

    async fn see(&self) -> Result<VendorSeen, kube::Error> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        for name in CONFIGURATIONS {
            let Some(configuration) = configurations.get_opt(name).await? else {
                continue;
            };
            let mut installed = Installed {
                name: name.to_owned(),
                entries: configuration.webhooks.unwrap_or_default(),
                ..Installed::default()
            };
            for service in installed.services() {
                if self.answers(&service).await? {
                    installed.ready.insert(service);
                }
            }
            return Ok(VendorSeen::Installed(installed));
        }
        Ok(VendorSeen::Absent)
    }

    async fn answers(&self, service: &ObjectKey) -> Result<bool, kube::Error> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &service.namespace);
        let of = ListParams::default().labels(&format!("{SERVICE_NAME}={}", service.name));
        let slices = slices.list(&of).await?;
        let endpoints = slices
            .items
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        // One that says nothing counts as ready. Source: API reference of EndpointConditions.
        let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        let mut endpoints = endpoints.map(|e| e.conditions.as_ref().and_then(|c| c.ready));
        Ok(endpoints.any(ready))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::observe::mirror::Shelf;
    use crate::runtime::clock::Clock;
    use crate::runtime::queue::Queue;

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_unless_a_pool_relies_on_it() {
        for (webhook, looks) in [("None", false), ("Operator", false), ("Vendor", true)] {
            let requests = Arc::new(AtomicUsize::new(0));
            let counted = requests.clone();
            let service = tower::service_fn(move |_: Request<Body>| {
                counted.fetch_add(1, Ordering::Relaxed);
                let nothing = Body::from(br#"{"kind":"Status","code":404,"reason":"NotFound"}"#.to_vec());
                async { Ok::<_, Infallible>(Response::builder().status(404).body(nothing).unwrap()) }
            });
            let queue = || Queue::new(Duration::ZERO);
            let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
            let pool = json!({
                "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
                "metadata": {"name": "burst", "uid": "p", "resourceVersion": "1"},
                "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                         "provider": {"type": "StatefulSet", "namespace": "kube-system", "name": "vn"},
                         "placement": {"webhook": webhook}},
            });
            cluster
                .pools
                .write(|t| t.put(serde_json::from_value(pool).unwrap()));
            let onlooker = Onlooker {
                cluster: cluster.clone(),
                client: Client::new(service, "default"),
            };
            let (_stop, stopped) = watch::channel(false);
            assert!(timeout(EVERY * 4, onlooker.run(stopped)).await.is_err());
            assert_eq!(requests.load(Ordering::Relaxed) > 0, looks, "{webhook}");
            let seen = cluster.webhook.vendor();
            assert_eq!(seen == VendorSeen::Absent, looks, "{webhook}: {seen:?}");
        }
    }
}
