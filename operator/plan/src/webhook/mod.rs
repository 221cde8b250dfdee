//! The pod webhook but for the mutation itself: its certificates, its configuration, whether it answers, and what there is
//! to say about it.

pub mod certificates;
pub mod configuration;
pub mod probe;
mod state;
pub mod vendor;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::placement::{Placing, Serving};
use crate::step::Step;
use certificates::{CertificateFacts, Published, Rotation, rotation};
use configuration::{Standing, plan_configuration, standing};

pub use state::{Probed, WebhookState, webhook_findings};

/// Where the API server finds the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Namespace of the operator.
    pub namespace: String,
    /// Name of its Service there.
    pub service: String,
    /// Port of the Service.
    pub port: u16,
    /// Instead of the Service, for an operator outside the cluster.
    pub url: Option<Url>,
}

/// A URL of the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// All of it.
    pub text: String,
    /// Its host.
    pub host: String,
}

impl Address {
    /// The names for which the certificate has to be valid. Source: `k8s.io/apiserver/pkg/util/webhook`, which verifies
    /// `<service>.<namespace>.svc`.
    pub fn names(&self) -> BTreeSet<String> {
        let name = match &self.url {
            Some(url) => url.host.clone(),
            None => format!("{}.{}.svc", self.service, self.namespace),
        };
        BTreeSet::from([name])
    }

    /// The configuration that all pools together ask for; `None` when none does.
    pub fn configuration(&self, placing: &Placing, bundle: &str) -> Option<Value> {
        let serving = Serving {
            namespace: &self.namespace,
            service: &self.service,
            port: self.port,
            ca_bundle: bundle.as_bytes(),
        };
        let mut wanted = placing.configuration(&serving)?;
        if let Some(url) = &self.url {
            configuration::call_by_url(&mut wanted, &url.text);
        }
        Some(wanted)
    }
}

/// What one pass looks at.
#[derive(Clone, Debug)]
pub struct WebhookSeen<'a> {
    /// The placement of all pools.
    pub placing: &'a Placing,
    /// Where it is served.
    pub address: &'a Address,
    /// The certificates.
    pub certificates: &'a CertificateFacts,
    /// The authorities, PEM.
    pub bundle: &'a str,
    /// The MutatingWebhookConfiguration as it is.
    pub configuration: Option<Arc<Value>>,
    /// What it trusts, when it is ours.
    pub published: Option<Published>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookPlan {
    /// How the configuration stands.
    pub standing: Standing,
    /// What is due with the certificates; `None` when no pool asks for the webhook.
    pub rotation: Option<Rotation>,
    /// The write of the configuration.
    pub step: Option<Step>,
}

/// Plans one pass.
pub fn plan_webhook(seen: &WebhookSeen<'_>, now: Timestamp) -> WebhookPlan {
    let wanted = seen.address.configuration(seen.placing, seen.bundle);
    let standing = standing(seen.configuration.as_deref(), wanted.as_ref());
    let names = seen.address.names();
    let due = || rotation(now, seen.certificates, &names, seen.published.as_ref());
    let rotation = wanted.is_some().then(due);
    // Without a certificate there is nothing to be trusted, and an API server that asks in vain loses time.
    let waits = wanted.is_some() && seen.certificates.serving(now, &names).is_none();
    let step = if waits {
        None
    } else {
        plan_configuration(standing, seen.configuration.as_deref(), wanted)
    };
    WebhookPlan {
        standing,
        rotation,
        step,
    }
}
