//! Says of this replica whether it can be asked: to the readiness probe, and to the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use vnp_plan::webhook::Address;
use vnp_plan::webhook::configuration::ours;

use super::keeper::published;
use crate::observe::cluster::Cluster;
use crate::runtime::health::Readiness;
use crate::runtime::metrics::Metrics;

/// What is missing while the certificate is not there or not trusted.
const CERTIFICATE: &str = "a certificate of the webhook that its configuration trusts";
/// A certificate ends without anybody telling.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Follows certificates and configuration for ever. Not ready before this is called once.
pub fn attend(
    cluster: Arc<Cluster>,
    address: Address,
    readiness: Readiness,
    metrics: Metrics,
) -> impl Future<Output = ()> + Send {
    readiness.set(CERTIFICATE, false);
    let mut changes = cluster.webhook.changes();
    async move {
        loop {
            readiness.set(CERTIFICATE, trusted(&cluster, &address));
            metrics.certificate_ends(cluster.webhook.expiry());
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// An API server that asks this replica is answered. True as well when none asks, because no pool wants it or somebody else
/// has the name of the configuration or of the Secret: no replica can do anything about that.
fn trusted(cluster: &Cluster, address: &Address) -> bool {
    let webhook = &cluster.webhook;
    let complete = [
        cluster.pools.complete(),
        webhook.secrets.complete(),
        webhook.configurations.complete(),
    ];
    if complete.contains(&false) {
        return false;
    }
    let asked = address.configuration(&webhook.placing(), "").is_some();
    let configuration = webhook.configuration();
    let foreign = configuration.as_deref().is_some_and(|there| !ours(there));
    let foreign_secret = webhook.secret().is_some_and(|secret| !secret.ours);
    if !asked || foreign || foreign_secret {
        return true;
    }
    let keyring = webhook.keyring();
    let issuer = keyring
        .facts
        .serving(cluster.clock.now(), &address.names())
        .and_then(|leaf| leaf.issuer.clone());
    let published = configuration.as_deref().and_then(published);
    issuer
        .zip(published)
        .is_some_and(|(issuer, published)| published.authorities.contains(&issuer))
}
