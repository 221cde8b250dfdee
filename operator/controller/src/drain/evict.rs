//! One call of the Eviction API, or of a forced deletion. It is made by hand and not through `Api`: `Api::evict` spells `deleteOptions` in a way
//! that the server ignores, so that the UID precondition is lost, and `kube::Error` has no `Retry-After`, which is all
//! that flow control says.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::Client;
use kube::api::{DeleteParams, PostParams};
use kube::client::Body;
use kube::core::{Request, Resource, Status};
use vnp_plan::drain::answer::{Answer, Reply};
use vnp_plan::drain::order::EvictionCandidate;

use crate::runtime::lease::{Claim, LeaseLost};

/// Longest call, body included. The client's own limit on the head of the answer is shorter.
const LONGEST: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    #[error("the eviction can't be written as a request")]
    Request(#[source] kube::core::request::Error),
    #[error("the eviction can't be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the API server did not answer")]
    Call(#[from] kube::Error),
    #[error("the API server did not answer within {} seconds", LONGEST.as_secs())]
    TooLate,
}

/// Asks for the eviction of exactly this pod, with its own grace period; past the drain's deadline for its deletion, with
/// the grace that the order names.
pub(super) async fn evict(client: &Client, claim: &Claim, pod: &EvictionCandidate) -> Answer {
    let answer = match tokio::time::timeout(LONGEST, call(client, claim, pod)).await {
        Ok(answer) => answer,
        Err(_) => Err(NoAnswer::TooLate),
    };
    answer.unwrap_or_else(|error| {
        tracing::debug!(pod = %pod.pod, error = &error as &dyn std::error::Error, "no answer");
        Answer::Unknown {
            text: error.to_string(),
        }
    })
}

async fn call(client: &Client, claim: &Claim, pod: &EvictionCandidate) -> Result<Answer, NoAnswer> {
    let request = request(pod)?;
    claim.check()?;
    let response = client.send(request.map(Body::from)).await?;
    let (head, body) = response.into_parts();
    let body = body.collect_bytes().await?;
    let code = head.status.as_u16();
    let retry_after = head
        .headers
        .get("retry-after")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    let status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(&body).trim().to_owned(),
        ..Status::default()
    });
    Ok(Answer::of(
        Reply {
            code,
            status: &status,
            retry_after,
        },
        &pod.pod,
    ))
}

fn request(pod: &EvictionCandidate) -> Result<http::Request<Vec<u8>>, NoAnswer> {
    let pods = Request::new(Pod::url_path(&(), Some(&pod.pod.namespace)));
    let uid = Some(pod.uid.clone());
    if let Some(grace) = pod.force {
        let params = DeleteParams {
            grace_period_seconds: Some(grace.get()),
            preconditions: Some(kube::api::Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        return pods.delete(&pod.pod.name, &params).map_err(NoAnswer::Request);
    }
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(pod.pod.name.clone()),
            namespace: Some(pod.pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions {
                uid,
                ..Preconditions::default()
            }),
            ..DeleteOptions::default()
        }),
    };
    pods.create_subresource(
        "eviction",
        &pod.pod.name,
        &PostParams::default(),
        serde_json::to_vec(&eviction)?,
    )
    .map_err(NoAnswer::Request)
}
