//! Looks for what changes pods after the operator's webhook could have been asked about them. Only the leader does, and it
//! asks instead of watching: nothing hurries, and configurations of others may be large.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersion;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;
use vnp_plan::placement::places;
use vnp_plan::webhook::later::{LaterMutators, MutatingPolicy, later_mutators};

use crate::observe::cluster::Cluster;
use crate::runtime::jitter::spread;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(60);
const GROUP: &str = "admissionregistration.k8s.io";
/// Versions that serve MutatingAdmissionPolicy, the newest first: v1 since Kubernetes 1.36, v1beta1 before that where it is
/// switched on.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What looks.
pub struct Survey {
    /// Where what is seen goes.
    pub cluster: Arc<Cluster>,
    /// The client that retries.
    pub client: Client,
}

impl Survey {
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
            let asked = self.cluster.all_pools().iter().any(|pool| {
                let rules = pool.spec.placement.as_ref().map_or(0, |p| p.rules.len());
                places(pool) && rules > 0
            });
            if !asked {
                self.cluster.later_seen(LaterMutators::Unknown);
            } else if let Some(seen) = self.look().await {
                self.cluster.later_seen(seen);
            }
            tokio::select! {
                changed = changes.changed(), if !asked => if changed.is_err() { return },
                () = sleep(spread(EVERY, 0.2)), if asked => {}
            }
        }
    }

    /// `None` when there was no answer: what is known still holds.
    async fn look(&self) -> Option<LaterMutators> {
        match self.see().await {
            Ok(seen) => Some(seen),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                Some(LaterMutators::Forbidden(status.message.clone()))
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what changes pods after the webhook can't be looked at"
                );
                None
            }
        }
    }

    async fn see(&self) -> Result<LaterMutators, kube::Error> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let configurations = configurations.list(&ListParams::default()).await?;
        let policies = self.policies().await?;
        let read = policies.iter().map(|policy| {
            let spec = policy
                .data
                .get("spec")
                .and_then(|spec| MutatingPolicy::deserialize(spec).ok());
            (policy.metadata.name.as_deref().unwrap_or_default(), spec)
        });
        let read: Vec<(&str, Option<MutatingPolicy>)> = read.collect();
        let policies = read.iter().map(|(name, policy)| (*name, policy.as_ref()));
        Ok(LaterMutators::Known(later_mutators(
            &configurations.items,
            policies,
        )))
    }

    /// Empty where the API server serves none.
    async fn policies(&self) -> Result<Vec<DynamicObject>, kube::Error> {
        for version in VERSIONS {
            let kind = GroupVersion::gv(GROUP, version).with_kind("MutatingAdmissionPolicy");
            let resource = ApiResource::from_gvk_with_plural(&kind, "mutatingadmissionpolicies");
            let policies: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            match policies.list(&ListParams::default()).await {
                Ok(list) => return Ok(list.items),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::queue::Queue;

    /// What is seen where the API server answers so, by the ends of paths; 404 to everything else.
    async fn seen(answers: &'static [(&'static str, u16)]) -> Option<LaterMutators> {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let path = request.uri().path();
            let code = answers
                .iter()
                .find(|(end, _)| path.ends_with(end))
                .map_or(404, |(_, code)| *code);
            let rule = json!({ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] });
            let body: Value = if code != 200 {
                json!({ "kind": "Status", "status": "Failure", "code": code, "message": "why" })
            } else if path.ends_with("configurations") {
                json!({ "kind": "MutatingWebhookConfigurationList", "apiVersion": "admissionregistration.k8s.io/v1",
                        "metadata": {}, "items": [{ "metadata": { "name": "zzz" }, "webhooks": [{
                            "name": "a.b.c", "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {},
                            "rules": [rule] }] }] })
            } else {
                json!({ "kind": "MutatingAdmissionPolicyList", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {},
                        "items": [{ "metadata": { "name": "odd" }, "spec": { "mutations": 7 } },
                                  { "metadata": { "name": "no" }, "spec": { "reinvocationPolicy": "Never" } }] })
            };
            let body = Body::from(serde_json::to_vec(&body).unwrap_or_default());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        let queue = || Queue::new(Duration::ZERO);
        let survey = Survey {
            cluster: Cluster::new(&[], queue(), queue(), Clock::of_host()),
            client: Client::new(service, "default"),
        };
        survey.look().await
    }

    #[tokio::test]
    async fn what_the_api_server_does_not_serve_is_not_there_and_what_it_refuses_is_not_known() {
        let known = |names: &[&str]| {
            Some(LaterMutators::Known(
                names.iter().map(|n| (*n).to_owned()).collect(),
            ))
        };
        let (webhook, policy) = ("MutatingWebhookConfiguration zzz", "MutatingAdmissionPolicy odd");
        assert_eq!(seen(&[("configurations", 200)]).await, known(&[webhook]));
        assert_eq!(
            seen(&[("configurations", 200), ("v1/mutatingadmissionpolicies", 200)]).await,
            known(&[policy, webhook])
        );
        assert_eq!(
            seen(&[
                ("configurations", 200),
                ("v1beta1/mutatingadmissionpolicies", 200)
            ])
            .await,
            known(&[policy, webhook])
        );
        let forbidden = Some(LaterMutators::Forbidden("why".to_owned()));
        assert_eq!(seen(&[("configurations", 403)]).await, forbidden);
        assert_eq!(
            seen(&[("configurations", 200), ("v1/mutatingadmissionpolicies", 403)]).await,
            forbidden
        );
        assert_eq!(
            seen(&[("configurations", 500)]).await,
            None,
            "what is known still holds"
        );
    }
}
