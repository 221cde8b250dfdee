//! Tries the webhook the way it is used: a pod is created as a dry run through the API server. Nothing is stored.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vnp_plan::webhook::Probed;
use vnp_plan::webhook::probe::{came_back_mutated, probe_pod};

use crate::observe::cluster::Cluster;
use crate::runtime::jitter::spread;
use crate::runtime::metrics::Metrics;

/// From a change to the first try: every API server has heard of it by then, as a rule.
const AFTER_CHANGE: Duration = Duration::from_millis(500);
/// Pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause while it fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Longest wait for the API server, which itself waits for the webhook for two seconds.
const WITHIN: Duration = Duration::from_secs(10);
/// Failures in a row before it is said: the first may have been too early.
const SAID_AFTER: u32 = 2;

/// What the prober works with.
pub struct Prober {
    /// Where the result goes.
    pub cluster: Arc<Cluster>,
    /// A client that waits longer than the API server waits for the webhook. The limit on writes of a leader is none for a
    /// dry run, which writes nothing.
    pub client: Client,
    /// Namespace of the pod that is never created.
    pub namespace: String,
    /// Time between two tries while it answers.
    pub every: Duration,
    /// Counts.
    pub metrics: Metrics,
}

impl Prober {
    /// Tries after every change, and again now and then, until `stop` says true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut in_place = self.cluster.webhook.watch_in_place();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                there = in_place.wait_for(Option::is_some) => if there.is_err() { return },
            }
            in_place.mark_unchanged();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = in_place.changed() => if changed.is_err() { return },
                () = self.repeat() => {}
            }
        }
    }

    async fn repeat(&self) {
        sleep(AFTER_CHANGE).await;
        let mut failures: u32 = 0;
        loop {
            let probed = self.probe().await;
            let answers = probed == Probed::Mutated;
            self.metrics.probed(if answers { "mutated" } else { "failed" });
            failures = if answers { 0 } else { failures.saturating_add(1) };
            if answers || failures >= SAID_AFTER {
                if !answers {
                    tracing::warn!(?probed, failures, "the webhook does not answer");
                }
                self.metrics.webhook_answers(Some(answers));
                self.cluster.webhook_probed(probed);
            }
            let doubled = 1 << failures.saturating_sub(1).min(16);
            let pause = match answers {
                true => self.every,
                false => (FIRST_PAUSE * doubled).min(LONGEST_PAUSE),
            };
            sleep(spread(pause, 0.2)).await;
        }
    }

    async fn probe(&self) -> Probed {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let dry_run = PostParams {
            dry_run: true,
            field_manager: Some(vnp_crds::FIELD_MANAGER.to_owned()),
        };
        let pod: Pod = match serde_json::from_value(probe_pod()) {
            Ok(pod) => pod,
            Err(error) => return Probed::Refused(error.to_string()),
        };
        let Ok(answer) = timeout(WITHIN, pods.create(&dry_run, &pod)).await else {
            return Probed::Refused("the API server did not answer in time".to_owned());
        };
        match answer {
            Ok(pod) => match serde_json::to_value(pod) {
                Ok(pod) if came_back_mutated(&pod) => Probed::Mutated,
                _ => Probed::Unmutated,
            },
            Err(kube::Error::Api(status)) => Probed::Refused(self.why(&status)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no answer to a dry run");
                Probed::Refused("the API server did not answer".to_owned())
            }
        }
    }

    fn why(&self, status: &kube::core::Status) -> String {
        let namespace = &self.namespace;
        match status.code {
            403 if status.message.contains(" cannot ") => format!(
                "not allowed to create pods in namespace {namespace}: apply the Role for it in config/rbac, or name \
                 another namespace with --webhook-probe-namespace"
            ),
            404 => format!(
                "there is no namespace {namespace}: apply config/rbac, or name another one with --webhook-probe-namespace"
            ),
            _ => status.message.clone(),
        }
    }
}
