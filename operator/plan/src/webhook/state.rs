//! Whether the webhook does what a pool asks of it, and how to say so.

use jiff::Timestamp;
use vnp_crds::{WEBHOOK_CONFIGURATION, WebhookMode};

use crate::finding::{Finding, WebhookFault};
use crate::observed::{ObjectKey, Observed};

use super::vendor;

/// How the operator's own webhook is, for all pools that ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WebhookState {
    /// This operator serves none (`--no-webhook`).
    #[default]
    Off,
    /// Not looked at yet.
    Unknown,
    /// No pool has anything for it to do.
    NotAsked,
    /// A name that it needs is taken by somebody else.
    Foreign(Foreign),
    /// Certificates or configuration are not written yet, and why.
    Pending(Option<String>),
    /// Everything is in place.
    InPlace(Probed),
}

/// What is not ours and has the name of something that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The MutatingWebhookConfiguration.
    Configuration,
    /// The MutatingWebhookConfiguration of another installation of this operator, by its namespace.
    Installation(String),
    /// The Secret for the certificates.
    Secret(ObjectKey),
}

/// What came of the last dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probed {
    /// There was none yet.
    #[default]
    NotYet,
    /// The pod came back mutated.
    Mutated,
    /// It came back as it was sent.
    Unmutated,
    /// The API server did not take it.
    Refused(String),
}

/// What there is to say about the webhook of this pool.
pub fn webhook_findings(seen: &Observed, now: Timestamp) -> Vec<Finding> {
    if seen.deleting() {
        return Vec::new();
    }
    let said = match seen.pool.spec.webhook() {
        WebhookMode::Operator => operator(seen),
        WebhookMode::Vendor => vendor::fault(seen, now),
        WebhookMode::None => None,
    };
    said.map(|(fault, message)| Finding::Webhook { fault, message })
        .into_iter()
        .collect()
}

fn operator(seen: &Observed) -> Option<(WebhookFault, String)> {
    let placement = seen.pool.spec.placement.as_ref();
    let explicit = placement.is_some_and(|p| p.webhook.is_some() || !p.rules.is_empty());
    let (fault, message) = match &seen.webhook {
        WebhookState::InPlace(Probed::Mutated) | WebhookState::NotAsked => return None,
        WebhookState::Off if !explicit => return None,
        WebhookState::Off => (
            WebhookFault::Off,
            "this operator was started with --no-webhook and places no pods: start it without, or set \
             spec.placement.webhook to Vendor or None"
                .to_owned(),
        ),
        WebhookState::Unknown => (
            WebhookFault::Unknown,
            "certificates and configuration of the webhook are not looked at yet".to_owned(),
        ),
        WebhookState::Foreign(Foreign::Configuration) => (
            WebhookFault::Foreign,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} exists and is not the operator's, so no pod is placed: delete or rename it"
            ),
        ),
        WebhookState::Foreign(Foreign::Installation(namespace)) => (
            WebhookFault::Foreign,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} calls the installation of this operator in namespace \
                 {namespace}: one of the two has to go. When the other is gone already, delete that object, which is then made \
                 for this one"
            ),
        ),
        WebhookState::Foreign(Foreign::Secret(key)) => (
            WebhookFault::Foreign,
            format!(
                "Secret {}/{} exists and is not the operator's, so the webhook gets no certificate: delete or rename it",
                key.namespace, key.name
            ),
        ),
        WebhookState::Pending(None) => (
            WebhookFault::Pending,
            format!("MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} and its certificates are being written"),
        ),
        WebhookState::Pending(Some(why)) => (
            WebhookFault::Pending,
            format!("MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} and its certificates are not in place: {why}"),
        ),
        WebhookState::InPlace(Probed::NotYet) => {
            (WebhookFault::Unknown, "no pod was tried yet".to_owned())
        }
        WebhookState::InPlace(Probed::Unmutated) => (
            WebhookFault::Unanswered,
            "the API server gets no answer from the webhook: a pod created as a dry run came back as it was sent. Look at \
             the Service of the operator, at what stands between API server and port 9443, and at \
             virtualnodepool_webhook_requests_total"
                .to_owned(),
        ),
        WebhookState::InPlace(Probed::Refused(why)) => (
            WebhookFault::Unanswered,
            format!("whether the webhook answers is not known, a pod could not be created as a dry run: {why}"),
        ),
    };
    Some((fault, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{now, observed, pool};
    use vendor::VendorSeen;

    fn told(webhook: &str, state: WebhookState) -> Option<(WebhookFault, String)> {
        let mut seen = observed(pool(json!({ "placement": { "webhook": webhook } })), 1);
        seen.webhook = state;
        seen.vendor_webhook = VendorSeen::Absent;
        webhook_findings(&seen, now())
            .into_iter()
            .find_map(|finding| match finding {
                Finding::Webhook { fault, message } => Some((fault, message)),
                _ => None,
            })
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let secret = ObjectKey {
            namespace: "ns".into(),
            name: "tls".into(),
        };
        for (foreign, name) in [
            (
                Foreign::Configuration,
                "MutatingWebhookConfiguration virtualnodepool-affinity",
            ),
            (
                Foreign::Installation("elsewhere".into()),
                "MutatingWebhookConfiguration virtualnodepool-affinity calls the installation of this operator in namespace elsewhere",
            ),
            (Foreign::Secret(secret), "Secret ns/tls"),
        ] {
            let (fault, message) = told("Operator", WebhookState::Foreign(foreign)).unwrap();
            assert_eq!(fault, WebhookFault::Foreign);
            assert!(message.starts_with(name), "{message}");
        }
    }

    #[test]
    fn who_asks_for_none_is_told_of_none() {
        for state in [
            WebhookState::Off,
            WebhookState::Pending(None),
            WebhookState::Foreign(Foreign::Configuration),
            WebhookState::InPlace(Probed::Unmutated),
        ] {
            assert_eq!(told("None", state.clone()), None);
            assert_eq!(told("Vendor", state).unwrap().0, WebhookFault::Unanswered);
        }
    }
}
