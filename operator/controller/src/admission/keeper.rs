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
use super::keyring::{TLS_SECRET, TlsSecret, fingerprints};
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
        let secret = webhook.secret();
        let foreign_secret = secret.as_ref().filter(|secret| !secret.ours);
        let plan = plan_webhook(
            &WebhookSeen {
                placing: &placing,
                address: &self.address,
                certificates: &keyring.facts,
                bundle: &keyring.bundle(),
                foreign_secret: foreign_secret.map(|_| self.secret_key()),
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
            Some(due) => Some(self.certificates(due, secret.as_deref(), now)),
        };
        // The rules of a pool that can't be read must not go out of the configuration.
        let step = plan.step.filter(|_| self.cluster.pools.flaws().is_empty());
        let steps: Vec<Result<Step, IssueError>> = rotation.into_iter().chain(step.map(Ok)).collect();
        let in_place = plan.standing == Standing::InPlace;
        let serving = keyring.facts.serving(now, &self.address.names()).is_some();
        if steps.is_empty() || (in_place && serving) {
            self.cluster.webhook_kept(match (plan.foreign, plan.standing) {
                (Some(foreign), _) => WebhookState::Foreign(foreign),
                (None, Standing::NotAsked) => {
                    self.metrics.webhook_answers(None);
                    WebhookState::NotAsked
                }
                (None, Standing::Amended) => WebhookState::Pending(Some(AMENDED.to_owned())),
                (None, Standing::InPlace) if serving => WebhookState::InPlace(Probed::NotYet),
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

    fn certificates(
        &self,
        rotation: Rotation,
        secret: Option<&TlsSecret>,
        now: Timestamp,
    ) -> Result<Step, IssueError> {
        let data = carry_out(rotation, secret, &self.address.names(), now)?;
        tracing::info!(?rotation, "certificates of the webhook are due");
        Ok(Step::WriteCertificates(CertificateWrite {
            secret: self.secret_key(),
            resource_version: secret.map(|s| s.resource_version.clone()),
            data: SecretData(data),
        }))
    }

    fn secret_key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.address.namespace.clone(),
            name: TLS_SECRET.to_owned(),
        }
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::time::Duration;

    use futures::stream;
    use kube::runtime::watcher::Event;
    use serde::de::DeserializeOwned;
    use serde_json::json;
    use vnp_plan::webhook::Foreign;

    use super::*;
    use crate::apply::testing::{Call, Calls, ok, server};
    use crate::observe::mirror::{Mirror, Shelf, Told};
    use crate::runtime::clock::Clock;
    use crate::runtime::lease::Claim;
    use crate::runtime::queue::Queue;

    const CONFIGURATION: &str =
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/virtualnodepool-affinity?";

    /// A keeper of the webhook of one pool, in a cluster with these objects, that said before that it answers.
    async fn keeper(webhook: &str, configuration: Option<Value>, secret: Option<Value>) -> (Keeper, Calls) {
        let queue = || Queue::new(Duration::ZERO);
        let cluster = Cluster::new(&[], queue(), queue(), Clock::of_host());
        let pool = json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": "burst", "uid": "p", "resourceVersion": "1"},
            "spec": {"region": "r", "network": {"zones": [], "securityGroupId": "sg-1"},
                     "provider": {"type": "StatefulSet", "namespace": "kube-system", "name": "vn"},
                     "placement": {"webhook": webhook}},
        });
        filled(&cluster.pools, Some(pool), |told| cluster.pool_told(told)).await;
        let told = |t| cluster.configuration_told(t);
        filled(&cluster.webhook.configurations, configuration, told).await;
        filled(&cluster.webhook.secrets, secret, |t| cluster.certificate_told(t)).await;
        let (client, calls) = server(|_: Call| async { ok(json!({"kind": "Status", "status": "Success"})) });
        let metrics = Metrics::default();
        metrics.webhook_answers(Some(true));
        let keeper = Keeper {
            applier: Applier::new(client, Claim::lasting(), metrics.clone(), "ns".into()),
            cluster,
            address: Address {
                namespace: "ns".into(),
                service: "webhook".into(),
                port: 443,
                url: None,
            },
            metrics,
        };
        (keeper, calls)
    }

    /// Lets a watch show the object, or that there is none.
    async fn filled<S>(mirror: &Mirror<S>, object: Option<Value>, tell: impl FnMut(Told<S::Change>) + Send)
    where
        S: Shelf,
        S::Object: DeserializeOwned + Debug,
    {
        let object = object.map(|object| serde_json::from_str(&object.to_string()).unwrap());
        let events = [Event::Init]
            .into_iter()
            .chain(object.map(Event::InitApply))
            .chain([Event::InitDone])
            .map(Ok);
        mirror
            .follow(stream::iter(events), &Metrics::default(), tell)
            .await;
    }

    fn labelled(by: &str) -> Value {
        json!({"metadata": {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                            "labels": {"app.kubernetes.io/managed-by": by}}})
    }

    fn requests(calls: &Calls) -> Vec<String> {
        let line = |call: Call| format!("{} {}", call.method, call.uri);
        calls.all().into_iter().map(line).collect()
    }

    /// What is said of whether the webhook answers, when nobody tries it.
    fn untried(keeper: &Keeper) -> Option<String> {
        assert_eq!(*keeper.cluster.webhook.watch_in_place().borrow(), None);
        let text = keeper.metrics.render().unwrap();
        let said = |line: &str| Some(line.strip_prefix("virtualnodepool_webhook_answers ")?.to_owned());
        text.lines().find_map(said)
    }

    #[tokio::test]
    async fn nothing_is_installed_where_no_pool_asks_and_what_was_is_removed() {
        let ours = labelled("virtualnodepool-operator");
        let (leaving, calls) = keeper("None", Some(ours), None).await;
        assert!(matches!(leaving.pass(Timestamp::now()).await, Kept::Written));
        assert_eq!(requests(&calls), [format!("DELETE {CONFIGURATION}")]);
        for there in [None, Some(labelled("somebody"))] {
            let (keeper, calls) = keeper("None", there.clone(), there).await;
            assert!(matches!(keeper.pass(Timestamp::now()).await, Kept::Until(_)));
            assert_eq!(requests(&calls), [""; 0]);
            assert_eq!(keeper.cluster.webhook.state(), WebhookState::NotAsked);
            assert_eq!(untried(&keeper), None);
        }
    }

    #[tokio::test]
    async fn a_secret_of_somebody_else_is_left_alone_and_named() {
        let names = BTreeSet::from(["webhook.ns.svc".to_owned()]);
        let data = carry_out(Rotation::Anew, None, &names, Timestamp::now()).unwrap();
        let mut secret = labelled("cert-manager");
        secret["data"] = json!(data);
        let (keeper, calls) = keeper("Operator", None, Some(secret)).await;
        assert!(matches!(keeper.pass(Timestamp::now()).await, Kept::Until(_)));
        assert_eq!(requests(&calls), [""; 0]);
        let foreign = Foreign::Secret(keeper.secret_key());
        assert_eq!(keeper.cluster.webhook.state(), WebhookState::Foreign(foreign));
        assert_eq!(untried(&keeper).as_deref(), Some("0"));
    }
}
