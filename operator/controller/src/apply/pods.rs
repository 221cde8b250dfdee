//! Writes to pods.

use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use serde::Serialize;
use vnp_plan::observed::ObjectKey;

use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, plain};

/// A strategic merge patch that removes one ownerReference: the list merges by `uid`, so no index is needed and other
/// owners stay. A `metadata.uid` that differs makes it a conflict. The garbage collector orphans the same way.
#[derive(Serialize)]
struct Orphan<'a> {
    metadata: OrphanMeta<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrphanMeta<'a> {
    uid: &'a str,
    owner_references: [RemovedOwner<'a>; 1],
}

#[derive(Serialize)]
struct RemovedOwner<'a> {
    #[serde(rename = "$patch")]
    patch: &'static str,
    uid: &'a str,
}

fn place(namespace: &str) -> Place {
    Place::namespaced::<Pod>("pods", namespace)
}

pub(super) async fn orphan(
    writer: &Writer,
    pod: &ObjectKey,
    uid: &str,
    owner_uid: &str,
) -> Result<(), ApplyError> {
    let owner_references = [RemovedOwner {
        patch: "delete",
        uid: owner_uid,
    }];
    let body = Orphan {
        metadata: OrphanMeta {
            uid,
            owner_references,
        },
    };
    writer
        .patch(
            &place(&pod.namespace),
            &pod.name,
            &plain(),
            &Patch::Strategic(&body),
        )
        .await
}

pub(super) async fn tolerate(
    writer: &Writer,
    pod: &ObjectKey,
    patch: &json_patch::Patch,
) -> Result<(), ApplyError> {
    writer.json_patch(&place(&pod.namespace), &pod.name, patch).await
}

pub(super) async fn delete(writer: &Writer, pod: &ObjectKey, uid: &str) -> Result<(), ApplyError> {
    writer
        .delete(&place(&pod.namespace), &pod.name, &delete_params(uid, None))
        .await
}
