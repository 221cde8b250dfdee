//! Writes to the provider's StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::Patch;
use serde_json::Value;

use super::PoolRef;
use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, forced, plain};

fn place(pool: &PoolRef) -> Place {
    Place::namespaced::<StatefulSet>("statefulsets.apps", &pool.provider_namespace)
}

pub(super) async fn create(writer: &Writer, pool: &PoolRef, body: &Value) -> Result<(), ApplyError> {
    writer.create(&place(pool), &pool.provider_name, body).await
}

pub(super) async fn apply(writer: &Writer, pool: &PoolRef, body: &Value) -> Result<Value, ApplyError> {
    writer
        .patch_stored(
            &place(pool),
            &pool.provider_name,
            &forced(vnp_crds::FIELD_MANAGER),
            &Patch::Apply(body),
        )
        .await
}

pub(super) async fn patch(
    writer: &Writer,
    pool: &PoolRef,
    patch: &json_patch::Patch,
) -> Result<Value, ApplyError> {
    writer
        .patch_stored(
            &place(pool),
            &pool.provider_name,
            &plain(),
            &Patch::Json::<()>(patch.clone()),
        )
        .await
}

pub(super) async fn delete(writer: &Writer, pool: &PoolRef, uid: &str) -> Result<(), ApplyError> {
    writer
        .delete(&place(pool), &pool.provider_name, &delete_params(uid, None))
        .await
}
