//! Secrets in the operator's namespace that keep an object over a dangerous moment. A Secret and not a ConfigMap,
//! because a workload's environment may hold credentials.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::PoolRef;
use super::error::ApplyError;
use super::write::{Place, Writer, delete_params};

/// The Secret's only key.
pub const COPY_KEY: &str = "copy.json";
/// Annotation with the UID of the pool, for people who find a Secret left over.
const POOL_UID_ANNOTATION: &str = "virtualnodes.dev/pool-uid";

fn place(namespace: &str) -> Place {
    Place::namespaced::<Secret>("secrets", namespace)
}

/// Writes the copy once. A Secret of that name that exists is never replaced and never taken for this one: it counts as
/// moved, and the next pass plans with what it holds.
pub(super) async fn save(
    writer: &Writer,
    namespace: &str,
    pool: &PoolRef,
    name: &str,
    content: &Value,
) -> Result<(), ApplyError> {
    let text = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let mut labels = text(vnp_crds::MANAGED_BY_LABEL, vnp_crds::MANAGED_BY);
    labels.extend(text(vnp_crds::POOL_LABEL, &pool.name));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(text(POOL_UID_ANNOTATION, &pool.uid)),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(BTreeMap::from([(
            COPY_KEY.to_owned(),
            ByteString(content.to_string().into_bytes()),
        )])),
        ..Secret::default()
    };
    writer.create(&place(namespace), name, &secret).await
}

pub(super) async fn discard(
    writer: &Writer,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), ApplyError> {
    writer
        .delete(&place(namespace), name, &delete_params(uid, None))
        .await
}
