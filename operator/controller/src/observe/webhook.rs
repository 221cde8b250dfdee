//! What is seen of the webhook: its certificates, its configuration, and what the pools ask of it. Every replica follows
//! it, leader or not: each of them serves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use tokio::sync::watch;
use vnp_plan::observed::LeftAlonePod;
use vnp_plan::placement::{LeftAlone, Placing, VirtualNodes};
use vnp_plan::webhook::later::LaterMutators;
use vnp_plan::webhook::vendor::VendorSeen;
use vnp_plan::webhook::{Probed, WebhookState};

use super::cluster::{CLUSTER_KEY, Cluster, Mirrored};
use super::mirror::{Kind, Mirror, RowChange, Table, Told};
use crate::admission::keyring::{Keyring, TlsSecret};
use crate::admission::server::Served;

/// The Secret with the certificates, watched by its name.
#[derive(Debug)]
pub struct TlsSecrets;

impl Kind for TlsSecrets {
    type Object = Secret;
    type View = TlsSecret;

    fn wants(&self, _: &Secret) -> bool {
        true
    }

    fn view(&self, secret: Secret, _: Option<&TlsSecret>) -> TlsSecret {
        secret.into()
    }
}

/// A MutatingWebhookConfiguration, watched by its name. Its managedFields stay: they tell when we wrote it last.
#[derive(Debug)]
pub struct Configurations;

impl Kind for Configurations {
    type Object = MutatingWebhookConfiguration;
    type View = Value;

    fn wants(&self, _: &MutatingWebhookConfiguration) -> bool {
        true
    }

    fn view(&self, configuration: MutatingWebhookConfiguration, _: Option<&Value>) -> Value {
        serde_json::to_value(configuration).unwrap_or_default()
    }
}

/// What is mirrored of the webhook.
#[derive(Debug)]
pub struct Webhook {
    /// The Secret, at most one.
    pub secrets: Mirrored<TlsSecrets>,
    /// The configuration, at most one.
    pub configurations: Mirrored<Configurations>,
    /// The certificate that is served.
    pub served: Served,
    keyring: Mutex<Arc<Keyring>>,
    placing: RwLock<Arc<Placing>>,
    changed: watch::Sender<()>,
    state: Mutex<(WebhookState, Probed)>,
    in_place: watch::Sender<Option<String>>,
    vendor: Mutex<VendorSeen>,
    later: Mutex<LaterMutators>,
    nodes: RwLock<Arc<VirtualNodes>>,
    left_alone: Mutex<BTreeMap<(String, &'static str, bool), LeftAloneSince>>,
}

/// Who was left alone last by one rule for one reason.
#[derive(Debug)]
struct LeftAloneSince {
    pool: String,
    pod: LeftAlonePod,
    at: Timestamp,
}

/// How long a pod that was left alone is news.
const NEWS: SignedDuration = SignedDuration::from_hours(1);

impl Default for Webhook {
    fn default() -> Self {
        Self {
            secrets: Mirror::new("Secret", Table::new(TlsSecrets)),
            configurations: Mirror::new("MutatingWebhookConfiguration", Table::new(Configurations)),
            served: Served::default(),
            keyring: Mutex::default(),
            placing: RwLock::default(),
            changed: watch::Sender::new(()),
            state: Mutex::default(),
            in_place: watch::Sender::new(None),
            vendor: Mutex::default(),
            later: Mutex::default(),
            nodes: RwLock::default(),
            left_alone: Mutex::default(),
        }
    }
}

impl Webhook {
    /// The Secret as it is.
    pub fn secret(&self) -> Option<Arc<TlsSecret>> {
        self.secrets
            .read(|t| t.iter().next().map(|(_, secret)| secret.clone()))
    }

    /// What can be read of it.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The configuration as it is.
    pub fn configuration(&self) -> Option<Arc<Value>> {
        self.configurations
            .read(|t| t.iter().next().map(|(_, configuration)| configuration.clone()))
    }

    /// The placement of all pools, as of the last change of one.
    pub fn placing(&self) -> Arc<Placing> {
        self.placing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells of every change of certificates, configuration and placement.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether it does what it should, as the leader found it.
    pub fn state(&self) -> WebhookState {
        let known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            (WebhookState::InPlace(_), probed) => WebhookState::InPlace(probed.clone()),
            (kept, _) => kept.clone(),
        }
    }

    /// The vendor's webhook, as the leader saw it last.
    pub fn vendor(&self) -> VendorSeen {
        self.vendor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What changes pods after this webhook, as the leader saw it last.
    pub fn later(&self) -> LaterMutators {
        self.later.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The virtual nodes that are there.
    pub fn nodes(&self) -> Arc<VirtualNodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pods of the last hour that this replica left alone for a rule of the pool, one for each rule and reason.
    pub fn left_alone(&self, pool: &str, now: Timestamp) -> Vec<LeftAlonePod> {
        let mut known = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, left| now.duration_since(left.at) <= NEWS);
        let of_pool = known.values().filter(|left| left.pool == pool);
        of_pool.map(|left| left.pod.clone()).collect()
    }

    /// Certificates and configuration are in place, or not; the word changes with them.
    pub fn in_place(&self, version: Option<String>) {
        self.in_place.send_if_modified(|known| {
            let changed = *known != version;
            *known = version;
            changed
        });
    }

    /// Tells of that.
    pub fn watch_in_place(&self) -> watch::Receiver<Option<String>> {
        self.in_place.subscribe()
    }

    /// Until when the certificate that is served is valid.
    pub fn expiry(&self) -> Option<Timestamp> {
        self.keyring().facts.leaf.as_ref().map(|leaf| leaf.not_after)
    }
}

impl Cluster {
    /// What pods become follows from all pools.
    pub(super) fn place(&self) {
        let placing = Arc::new(Placing::compile(&self.all_pools()));
        *self
            .webhook
            .placing
            .write()
            .unwrap_or_else(PoisonError::into_inner) = placing;
        self.webhook.changed.send_replace(());
    }

    /// Nodes came, changed or went.
    pub(super) fn see_virtual_nodes(&self) {
        if !self.nodes.complete() {
            return;
        }
        let nodes = self
            .nodes
            .read(|t| VirtualNodes::of(t.iter().map(|(_, row)| &row.view)));
        *self.webhook.nodes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(nodes);
    }

    /// A pod was left alone. The first one for a rule and a reason is told by its pool, and named as long as they recur.
    pub fn pod_left_alone(&self, left: LeftAlone, pod: String) {
        let now = self.clock.now();
        let key = (left.by.clone(), left.why.word(), left.placed);
        let news = {
            let mut known = self
                .webhook
                .left_alone
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match known
                .get_mut(&key)
                .filter(|known| now.duration_since(known.at) <= NEWS)
            {
                Some(known) => {
                    known.at = now;
                    false
                }
                None => {
                    let LeftAlone {
                        pool,
                        by,
                        why,
                        placed,
                    } = left.clone();
                    let pod = LeftAlonePod { by, why, placed, pod };
                    known.insert(key, LeftAloneSince { pool, pod, at: now });
                    true
                }
            }
        };
        if news {
            self.wake_named(&left.pool);
        }
    }

    /// What changes pods after this webhook.
    pub fn later_seen(&self, seen: LaterMutators) {
        let changed = {
            let mut known = self.webhook.later.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = *known != seen;
            *known = seen;
            changed
        };
        if changed {
            self.wake_all();
        }
    }

    /// The Secret came, changed or went. What is served stays while there is nothing better; what others made is not.
    pub fn certificate_told(&self, _: Told<RowChange<TlsSecret>>) {
        let keyring = Arc::new(
            self.webhook
                .secret()
                .filter(|s| s.ours)
                .map(|s| Keyring::read(&s))
                .unwrap_or_default(),
        );
        if let Some(certified) = &keyring.served {
            self.webhook.served.set(certified.clone());
        }
        *self
            .webhook
            .keyring
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = keyring;
        self.webhook_told();
    }

    /// The configuration came, changed or went.
    pub fn configuration_told(&self, _: Told<RowChange<Value>>) {
        self.webhook_told();
    }

    fn webhook_told(&self) {
        self.cluster_queue.wake(CLUSTER_KEY);
        self.webhook.changed.send_replace(());
    }

    /// How certificates and configuration are.
    pub fn webhook_kept(&self, kept: WebhookState) {
        self.webhook_is(|(known, _)| *known = kept);
    }

    /// What came of a dry run.
    pub fn webhook_probed(&self, probed: Probed) {
        self.webhook_is(|(_, known)| *known = probed);
    }

    /// How the vendor's webhook is.
    pub fn vendor_seen(&self, seen: VendorSeen) {
        let changed = {
            let mut known = self.webhook.vendor.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = *known != seen;
            *known = seen;
            changed
        };
        if changed {
            self.wake_all();
        }
    }

    fn webhook_is(&self, change: impl FnOnce(&mut (WebhookState, Probed))) {
        let changed = {
            let mut known = self.webhook.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.clone();
            change(&mut known);
            *known != before
        };
        if changed {
            for pool in self.all_pools() {
                self.wake(&pool);
            }
        }
    }
}
