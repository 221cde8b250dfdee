//! Keeps certificates and configuration as all pools together ask for them. Only the leader does.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::Value;
use vnp_plan::observed::ObjectKey;
use vnp_plan::step::{CertificateWrite, SecretData, Step};
use vnp_plan::webhook::certificates::{Published, Rotation};
use vnp_plan::webhook::configuration::{Standing, bundles, ours, written};
use vnp_plan::webhook::{Address, Probed, WebhookSeen, WebhookState, plan_webhook};

use super::issue::{IssueError, carry_out};
use super::keyring::{TLS_SECRET, fingerprints};
use crate::apply::{Applier, ApplyError, Retry};
use crate::observe::cluster::Cluster;
use crate::runtime::metrics::Metrics;

/// What the keeper works with.
pub struct Keeper {
    /// What is seen.
    pub cluster: Arc<Cluster>,
    /// Carries out steps.
    pub applier: Applier,
    /// Where the webhook is served.
    pub address: Address,
    /// Told when nobody asks any more.
    pub metrics: Metrics,
}

/// How a pass ended.
#[derive(Debug)]
pub enum Kept {
    /// Nothing is to be done before that time.
    Until(Timestamp),
    /// Something is not in the caches yet. Completion wakes.
    Waiting,
    /// Something was written; its sight wakes.
    Written,
    /// Something moved, or this process writes no more.
    Moved(Retry),
    /// A write failed.
    Failed,
}

/// What helps against additions that an apply leaves alone.
const AMENDED: &str = "somebody added entries or matchConditions to ours in the MutatingWebhookConfiguration \
     virtualnodepool-affinity: remove them, or delete the object, which is then made anew";

/// Why something is not as it should be.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Keeper {
    /// One pass.
    pub async fn pass(&self, now: Timestamp) -> Kept {
        let webhook = &self.cluster.webhook;
        let complete = webhook.secrets.complete() && webhook.configurations.complete();
        if !(complete && self.cluster.pools.complete()) {
            return Kept::Waiting;
        }
        let (keyring, placing) = (webhook.keyring(), webhook.placing());
        let configuration = webhook.configuration();
        let plan = plan_webhook(
            &WebhookSeen {
                placing: &placing,
                address: &self.address,
                certificates: &keyring.facts,
                bundle: &keyring.bundle(),
                published: configuration.as_deref().and_then(published),
                configuration: configuration.clone(),
            },
            now,
        );
        let mut until = Timestamp::MAX;
        let rotation = match plan.rotation {
            None => None,
            Some(Rotation::Keep { until: due }) => {
                until = due;
                None
            }
            Some(due) => Some(self.certificates(due, now)),
        };
        let steps: Vec<Result<Step, IssueError>> = rotation.into_iter().chain(plan.step.map(Ok)).collect();
        let in_place = plan.standing == Standing::InPlace;
        let serving = keyring.facts.serving(now, &self.address.names()).is_some();
        if steps.is_empty() || (in_place && serving) {
            self.cluster.webhook_kept(match plan.standing {
                Standing::Foreign => WebhookState::Foreign,
                Standing::NotAsked => {
                    self.metrics.webhook_answers(None);
                    WebhookState::NotAsked
                }
                Standing::Amended => WebhookState::Pending(Some(AMENDED.to_owned())),
                Standing::InPlace if serving => WebhookState::InPlace(Probed::NotYet),
                _ => WebhookState::Pending(None),
            });
        }
        let cue = (in_place && serving).then(|| self.version(configuration.as_deref()));
        if cue.is_none() && plan.standing != Standing::NotAsked {
            // Nothing is tried until it is in place again.
            self.metrics.webhook_answers(Some(false));
        }
        webhook.in_place(cue);
        let mut kept = Kept::Until(until);
        for step in steps {
            match self.run(step).await {
                Ok(()) => kept = Kept::Written,
                Err(KeepError::Apply(error)) if matches!(error.retry(), Retry::Stop | Retry::LookAgain) => {
                    return Kept::Moved(error.retry());
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the webhook is not as it should be"
                    );
                    if !(in_place && serving) {
                        self.cluster
                            .webhook_kept(WebhookState::Pending(Some(error.to_string())));
                    }
                    return Kept::Failed;
                }
            }
        }
        kept
    }

    async fn run(&self, step: Result<Step, IssueError>) -> Result<(), KeepError> {
        let step = step?;
        let done = match &step {
            Step::WriteCertificates(_) => "the webhook's certificates are written",
            Step::DeleteWebhook { .. } => "the webhook's configuration is removed: no pool asks for it",
            _ => "the webhook's configuration is written",
        };
        self.applier.run_cluster(&step).await?;
        tracing::info!("{done}");
        Ok(())
    }

    fn certificates(&self, rotation: Rotation, now: Timestamp) -> Result<Step, IssueError> {
        let secret = self.cluster.webhook.secret();
        let data = carry_out(rotation, secret.as_deref(), &self.address.names(), now)?;
        tracing::info!(?rotation, "certificates of the webhook are due");
        Ok(Step::WriteCertificates(CertificateWrite {
            secret: ObjectKey {
                namespace: self.address.namespace.clone(),
                name: TLS_SECRET.to_owned(),
            },
            resource_version: secret.map(|s| s.resource_version.clone()),
            data: SecretData(data),
        }))
    }

    /// What is in place, as one word that changes with it.
    fn version(&self, configuration: Option<&Value>) -> String {
        let configuration = configuration.and_then(|c| c["metadata"]["resourceVersion"].as_str());
        let secret = self.cluster.webhook.secret();
        let secret = secret.as_ref().map_or("", |s| s.resource_version.as_str());
        format!("{}/{secret}", configuration.unwrap_or_default())
    }
}

/// What a configuration of ours trusts.
pub(super) fn published(configuration: &Value) -> Option<Published> {
    if !ours(configuration) {
        return None;
    }
    let decoded = |bundle: &str| -> BTreeSet<String> {
        let bytes: Result<ByteString, _> = serde_json::from_value(Value::from(bundle));
        bytes.map(|b| fingerprints(&b.0)).unwrap_or_default()
    };
    let authorities = bundles(configuration)
        .map(decoded)
        .reduce(|all, next| all.intersection(&next).cloned().collect())?;
    Some(Published {
        authorities,
        since: written(configuration)?.parse().ok()?,
    })
}
