//! The pod webhook but for the mutation itself: its certificates, its configuration, whether it answers, and what there is
//! to say about it.

pub mod certificates;
pub mod configuration;
mod fit;
pub mod later;
pub mod probe;
pub mod refusal;
mod state;
pub mod vendor;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::observed::ObjectKey;
use crate::placement::{Placing, Serving};
use crate::step::Step;
use certificates::{CertificateFacts, Published, Rotation, rotation};
use configuration::{Standing, other_installation, plan_configuration, standing};

pub use probe::Probed;
pub use state::{Foreign, WebhookState, webhook_findings};

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
    /// The Secret that has the name of ours and is not: nothing is read from it.
    pub foreign_secret: Option<ObjectKey>,
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
    /// What of somebody else is in the way.
    pub foreign: Option<Foreign>,
    /// What is due with the certificates; `None` when no pool asks for the webhook, or the Secret is not ours.
    pub rotation: Option<Rotation>,
    /// The write of the configuration.
    pub step: Option<Step>,
}

/// Plans one pass.
pub fn plan_webhook(seen: &WebhookSeen<'_>, now: Timestamp) -> WebhookPlan {
    let wanted = seen.address.configuration(seen.placing, seen.bundle);
    let other = seen
        .configuration
        .as_deref()
        .and_then(|there| other_installation(there, &seen.address.namespace));
    let standing = match (other, &wanted) {
        (Some(_), Some(_)) => Standing::Foreign,
        (Some(_), None) => Standing::NotAsked,
        (None, _) => standing(seen.configuration.as_deref(), wanted.as_ref()),
    };
    let foreign = match standing {
        Standing::Foreign => Some(match other {
            Some(namespace) => Foreign::Installation(namespace.to_owned()),
            None => Foreign::Configuration,
        }),
        _ if wanted.is_some() => seen.foreign_secret.clone().map(Foreign::Secret),
        _ => None,
    };
    let names = seen.address.names();
    let due = || rotation(now, seen.certificates, &names, seen.published.as_ref());
    let rotation = (wanted.is_some() && seen.foreign_secret.is_none()).then(due);
    // Without a certificate there is nothing to be trusted, and an API server that asks in vain loses time.
    let waits = wanted.is_some() && seen.certificates.serving(now, &names).is_none();
    let step = if waits {
        None
    } else {
        plan_configuration(standing, seen.configuration.as_deref(), wanted)
    };
    WebhookPlan {
        standing,
        foreign,
        rotation,
        step,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vnp_crds::{MANAGED_BY, MANAGED_BY_LABEL};

    use super::*;
    use crate::testing::{now, pool};

    fn planned(
        webhook: &str,
        configuration: Option<Value>,
        foreign_secret: Option<ObjectKey>,
    ) -> WebhookPlan {
        let pool = pool(json!({ "placement": { "webhook": webhook } }));
        let address = Address {
            namespace: "ns".into(),
            service: "webhook".into(),
            port: 443,
            url: None,
        };
        let seen = WebhookSeen {
            placing: &Placing::compile(&[Arc::new(pool)]),
            address: &address,
            certificates: &CertificateFacts::default(),
            bundle: "",
            foreign_secret,
            configuration: configuration.map(Arc::new),
            published: None,
        };
        plan_webhook(&seen, now())
    }

    #[test]
    fn the_configuration_of_another_installation_is_left_alone() {
        let calling = |namespace: &str| {
            json!({ "metadata": { "uid": "u", "labels": { (MANAGED_BY_LABEL): MANAGED_BY } }, "webhooks": [
                { "name": "pods.virtualnodes.dev", "clientConfig": { "service": { "namespace": namespace, "name": "w" } } }] })
        };
        for asked in ["Operator", "None"] {
            let plan = planned(asked, Some(calling("elsewhere")), None);
            assert_eq!(plan.step, None, "{asked}");
            let told = (asked == "Operator").then(|| Foreign::Installation("elsewhere".to_owned()));
            assert_eq!(plan.foreign, told, "{asked}");
        }
        let plan = planned("None", Some(calling("ns")), None);
        assert!(matches!(plan.step, Some(Step::DeleteWebhook { .. })), "{plan:?}");
    }

    #[test]
    fn a_secret_of_somebody_else_is_in_the_way_of_who_asks() {
        let key = ObjectKey {
            namespace: "ns".into(),
            name: "tls".into(),
        };
        let ours = json!({ "metadata": { "uid": "u", "labels": { (MANAGED_BY_LABEL): MANAGED_BY } } });
        assert_eq!(planned("Operator", None, None).rotation, Some(Rotation::Anew));
        for there in [None, Some(ours.clone())] {
            let plan = planned("Operator", there, Some(key.clone()));
            assert_eq!(plan.foreign, Some(Foreign::Secret(key.clone())));
            assert_eq!((plan.rotation, plan.step), (None, None));
        }
        // What was installed goes all the same.
        let plan = planned("None", Some(ours), Some(key));
        assert!(matches!(plan.step, Some(Step::DeleteWebhook { .. })), "{plan:?}");
        assert_eq!((plan.foreign, plan.rotation), (None, None));
    }
}
