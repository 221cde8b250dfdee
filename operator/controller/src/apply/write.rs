//! One write: the lease is checked, the call has an end, the result is counted.

use std::time::Duration;

use kube::Client;
use kube::api::{
    DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, ValidationDirective,
};
use kube::core::request::Request;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::error::{ApplyError, Retry, Target};
use crate::runtime::lease::Claim;
use crate::runtime::metrics::Metrics;

/// Longest write, body included. The client's own limit on the head of the answer is shorter.
const LONGEST: Duration = Duration::from_secs(10);

/// Makes writes.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) claim: Claim,
    pub(super) metrics: Metrics,
}

/// Where a kind of object lives.
#[derive(Clone, Debug)]
pub(super) struct Place {
    resource: &'static str,
    namespace: Option<String>,
    url: String,
}

impl Place {
    pub(super) fn namespaced<K>(resource: &'static str, namespace: &str) -> Self
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Self {
            resource,
            namespace: Some(namespace.to_owned()),
            url: K::url_path(&(), Some(namespace)),
        }
    }

    pub(super) fn cluster<K>(resource: &'static str) -> Self
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Self {
            resource,
            namespace: None,
            url: K::url_path(&(), None),
        }
    }

    fn target(&self, verb: &'static str, name: &str) -> Target {
        Target {
            verb,
            resource: self.resource,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        }
    }
}

/// Parameters of a forced server-side apply in which a misspelt field is an error.
pub(super) fn forced(manager: &str) -> PatchParams {
    PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(manager).force()
    }
}

/// Parameters of every other patch.
pub(super) fn plain() -> PatchParams {
    PatchParams {
        field_manager: Some(vnp_crds::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Deletion of exactly the object with this UID, with its own grace period.
pub(super) fn delete_params(uid: &str, resource_version: Option<&str>) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: resource_version.map(str::to_owned),
        }),
        ..DeleteParams::default()
    }
}

impl Writer {
    /// Makes an object; one that exists is an error and stays as it is.
    pub(super) async fn create(
        &self,
        place: &Place,
        name: &str,
        body: &impl Serialize,
    ) -> Result<(), ApplyError> {
        let target = place.target("create", name);
        let params = PostParams {
            field_manager: Some(vnp_crds::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let body = match serde_json::to_vec(body) {
            Ok(body) => body,
            Err(error) => {
                return Err(ApplyError::Unwritable {
                    target,
                    source: Box::new(error),
                });
            }
        };
        let request = Request::new(place.url.clone()).create(&params, body);
        self.send(target, request).await
    }

    /// Patches an object.
    pub(super) async fn patch(
        &self,
        place: &Place,
        name: &str,
        params: &PatchParams,
        patch: &Patch<impl Serialize>,
    ) -> Result<(), ApplyError> {
        let request = Request::new(place.url.clone()).patch(name, params, patch);
        self.send(place.target("patch", name), request).await
    }

    /// Patches an object and gives it back as the server stored it, which may be otherwise than it was asked for.
    pub(super) async fn patch_stored(
        &self,
        place: &Place,
        name: &str,
        params: &PatchParams,
        patch: &Patch<impl Serialize>,
    ) -> Result<Value, ApplyError> {
        let request = Request::new(place.url.clone()).patch(name, params, patch);
        self.answered(place.target("patch", name), request).await
    }

    /// Applies a JSON patch, which carries its own preconditions.
    pub(super) async fn json_patch(
        &self,
        place: &Place,
        name: &str,
        patch: &json_patch::Patch,
    ) -> Result<(), ApplyError> {
        self.patch(place, name, &plain(), &Patch::Json::<()>(patch.clone()))
            .await
    }

    /// Deletes an object. One that is gone already is as good as deleted.
    pub(super) async fn delete(
        &self,
        place: &Place,
        name: &str,
        params: &DeleteParams,
    ) -> Result<(), ApplyError> {
        let request = Request::new(place.url.clone()).delete(name, params);
        match self.send(place.target("delete", name), request).await {
            Err(ApplyError::Moved { source, .. }) if source.code == 404 => Ok(()),
            other => other,
        }
    }

    async fn send(
        &self,
        target: Target,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<(), ApplyError> {
        // The answer's body is not needed: what is true is what the watches show.
        self.answered(target, request).await.map(|IgnoredAny| ())
    }

    async fn answered<T: DeserializeOwned>(
        &self,
        target: Target,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApplyError> {
        let resource = target.resource;
        let what = target.to_string();
        let result = self.call(target, request).await;
        self.metrics
            .wrote(resource, result.as_ref().map_or_else(ApplyError::label, |_| "ok"));
        match &result {
            Ok(_) => tracing::debug!(write = what, "written"),
            Err(error) if error.retry() == Retry::LookAgain => {
                tracing::info!(write = what, "moved; looking again")
            }
            Err(error) => tracing::warn!(
                write = what,
                error = error as &dyn std::error::Error,
                "not written"
            ),
        }
        result
    }

    async fn call<T: DeserializeOwned>(
        &self,
        target: Target,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApplyError> {
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                return Err(ApplyError::Unwritable {
                    target,
                    source: Box::new(error),
                });
            }
        };
        if let Err(source) = self.claim.check() {
            return Err(ApplyError::LeaseLost { target, source });
        }
        match tokio::time::timeout(LONGEST, self.client.request::<T>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ApplyError::of(target, error)),
            Err(_) => Err(ApplyError::TooLate {
                target,
                limit: LONGEST,
            }),
        }
    }
}
