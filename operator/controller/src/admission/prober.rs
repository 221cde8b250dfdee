//! Tries the webhook the way it is used: a pod is created as a dry run through the API server. Nothing is stored.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::WARNING;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::client::Body;
use kube::core::Request;
use kube::core::Status;
use kube::{Api, Client, Resource};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vnp_plan::webhook::Probed;
use vnp_plan::webhook::probe::{Plain, plain_pod, probe_pod};
use vnp_plan::webhook::refusal::{Refusal, Refuser};

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
    /// Namespace of the operator, whose own image the pod names.
    pub own_namespace: String,
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
        let image = self.own_image().await;
        let mut failures: u32 = 0;
        loop {
            let probed = self.probe(image.as_deref()).await;
            let answers = probed.answers();
            self.metrics.probed(match probed {
                Probed::Mutated => "mutated",
                Probed::RefusedMutated { .. } => "refused",
                _ => "failed",
            });
            failures = if answers { 0 } else { failures.saturating_add(1) };
            if answers || failures >= SAID_AFTER {
                if !answers {
                    tracing::warn!(?probed, failures, "no dry run showed that the webhook answers");
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

    /// The image that this process runs from; `None` outside a cluster.
    async fn own_image(&self) -> Option<String> {
        let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty())?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.own_namespace);
        let pod = timeout(WITHIN, pods.get_opt(&name)).await.ok()?;
        let pod = pod
            .inspect_err(|error| {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "the own pod is not known"
                )
            })
            .ok()??;
        pod.spec?.containers.into_iter().next()?.image
    }

    async fn probe(&self, image: Option<&str>) -> Probed {
        let probed = match self.create(&probe_pod(image)).await {
            Ok(Created { pod: Ok(pod), .. }) => Probed::taken(&pod),
            Ok(Created {
                pod: Err(refusal),
                warnings,
            }) => Probed::refused(refusal, warnings.iter().map(String::as_str)),
            Err(why) => Probed::Unanswered(why),
        };
        if !matches!(probed, Probed::RefusedMutated { .. }) {
            return probed;
        }
        let plain = match self.create(&plain_pod(image)).await {
            Ok(Created { pod: Ok(_), .. }) => Plain::Taken,
            Ok(Created { pod: Err(_), .. }) => Plain::Refused,
            Err(_) => Plain::Unknown,
        };
        probed.compared(plain)
    }

    /// Creates a pod as a dry run.
    async fn create(&self, pod: &Value) -> Result<Created, String> {
        match timeout(WITHIN, self.send(pod)).await {
            Ok(Ok(created)) => Ok(created),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "no answer to a dry run"
                );
                Err("the API server did not answer".to_owned())
            }
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }

    /// By hand: the client's own calls give no headers, and admission warnings come as these, with a refusal too.
    async fn send(&self, pod: &Value) -> Result<Created, Box<dyn std::error::Error + Send + Sync>> {
        let dry_run = PostParams {
            dry_run: true,
            field_manager: Some(vnp_crds::FIELD_MANAGER.to_owned()),
        };
        let path = Pod::url_path(&(), Some(&self.namespace));
        let request = Request::new(path).create(&dry_run, serde_json::to_vec(pod)?)?;
        let response = self.client.send(request.map(Body::from)).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let warnings = head.headers.get_all(WARNING).iter();
        let warnings = warnings
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned);
        let pod = if head.status.is_success() {
            Ok(serde_json::from_slice(&body)?)
        } else {
            let message = serde_json::from_slice(&body).map(|status: Status| status.message);
            let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
            Err(self.explained(Refusal::read(head.status.as_u16(), &message), head.status))
        };
        Ok(Created {
            pod,
            warnings: warnings.collect(),
        })
    }

    /// With what helps where a right or the namespace is missing.
    fn explained(&self, refusal: Refusal, code: StatusCode) -> Refusal {
        if refusal.by != Refuser::Rights {
            return refusal;
        }
        let namespace = &self.namespace;
        let message = match code {
            StatusCode::NOT_FOUND => format!(
                "there is no namespace {namespace}: apply config/rbac, or name another one with --webhook-probe-namespace"
            ),
            _ => format!(
                "not allowed to create pods in namespace {namespace}: apply the Role for it in config/rbac, or name another \
                 namespace with --webhook-probe-namespace"
            ),
        };
        Refusal { message, ..refusal }
    }
}

/// What came of a dry run.
struct Created {
    /// The pod as it would be, or why it would not.
    pod: Result<Value, Refusal>,
    /// `Warning` headers.
    warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use serde_json::json;

    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::queue::Queue;

    const ADDED: &str = r#"299 - "virtualnodes.dev: burst/alibabacloud.com/eci=true added toleration virtual-kubelet.io/provider""#;
    const POLICY: &str =
        "pods is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";

    /// What comes of a try where the API server refuses pods with `triggered`, or without, with that message.
    async fn probed(
        triggered: Option<&'static str>,
        plain: Option<&'static str>,
        warning: Option<&'static str>,
    ) -> Probed {
        let service = tower::service_fn(move |request: http::Request<Body>| async move {
            let sent: Value =
                serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            let of_ours = sent["metadata"]["labels"].get("alibabacloud.com/eci").is_some();
            let answer = if of_ours { triggered } else { plain };
            let (code, body) = match answer {
                Some(message) => (
                    422,
                    json!({ "kind": "Status", "status": "Failure", "code": 422, "message": message }),
                ),
                None => (201, sent),
            };
            let mut response = Response::builder().status(code);
            for warning in warning.into_iter().filter(|_| of_ours) {
                response = response
                    .header(WARNING, "299 - \"other\"")
                    .header(WARNING, warning);
            }
            Ok::<_, Infallible>(
                response
                    .body(Body::from(serde_json::to_vec(&body).unwrap()))
                    .unwrap(),
            )
        });
        let queue = || Queue::new(Duration::ZERO);
        let prober = Prober {
            cluster: Cluster::new(&[], queue(), queue(), Clock::of_host()),
            client: Client::new(service, "default"),
            namespace: "probe".to_owned(),
            own_namespace: "own".to_owned(),
            every: Duration::from_secs(1),
            metrics: Metrics::default(),
        };
        prober.probe(None).await
    }

    #[tokio::test]
    async fn a_warning_of_ours_on_a_refusal_proves_that_the_webhook_was_asked() {
        let policy = || Refusal::read(422, POLICY);
        let changed = |plain| Probed::RefusedMutated {
            refusal: policy(),
            plain,
        };
        assert_eq!(
            probed(Some(POLICY), None, Some(ADDED)).await,
            changed(Plain::Taken)
        );
        assert_eq!(
            probed(Some(POLICY), Some(POLICY), Some(ADDED)).await,
            changed(Plain::Refused)
        );
        assert_eq!(
            probed(Some(POLICY), None, None).await,
            Probed::RefusedUnmutated(policy())
        );
        assert_eq!(probed(None, None, None).await, Probed::Unmutated);
        let webhook = "admission webhook \"v.example.com\" denied the request: no, you cannot";
        let refused = Refusal::read(422, webhook);
        assert_eq!(probed(Some(webhook), None, None).await, Probed::Refused(refused));
    }
}
