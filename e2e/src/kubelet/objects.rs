//! Writes that are repeated until the API server has answered them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};

const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Repeats `call` until it succeeds. `None` when there is nothing left to write to: the object is gone, or another
/// one stands in its place, which a status patch with a UID learns from a 422 ("field is immutable").
pub(crate) async fn insist<T, F>(what: &str, name: &str, call: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = kube::Result<T>>,
{
    loop {
        match call().await {
            Ok(value) => return Some(value),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return None,
            Err(error) => {
                tracing::debug!("{what} {name}: {error}; trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Removes the Pod object at once, as a kubelet does when everything of the pod has ended.
pub(crate) async fn delete_now(client: &Client, pod: &Pod) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let name = pod.name_any();
    insist("delete pod", &name, || pods.delete(&name, &params)).await;
}
