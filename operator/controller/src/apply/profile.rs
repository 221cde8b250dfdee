//! Writes to the profile ConfigMaps. Each changes the keys it names and no other.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use vnp_plan::observed::ObjectKey;
use vnp_plan::step::ProfilePatch;

use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, forced, plain};

fn place(key: &ObjectKey) -> Place {
    Place::namespaced::<ConfigMap>("configmaps", &key.namespace)
}

pub(super) async fn create(writer: &Writer, profile: &ProfilePatch) -> Result<ConfigMap, ApplyError> {
    let key = &profile.config_map;
    // Our Role may create this name and no other, and only a patch carries the name. Not forced: what somebody else has
    // created meanwhile is theirs.
    let params = PatchParams {
        force: false,
        ..forced(vnp_crds::FIELD_MANAGER)
    };
    let stored = writer
        .patch_stored(&place(key), &key.name, &params, &Patch::Apply(&profile.body))
        .await?;
    Ok(read(stored))
}

/// What can't be read counts as kept by nobody, and is said as that.
fn read(stored: Value) -> ConfigMap {
    serde_json::from_value(stored).unwrap_or_default()
}

pub(super) async fn patch(writer: &Writer, profile: &ProfilePatch) -> Result<ConfigMap, ApplyError> {
    let key = &profile.config_map;
    let stored = writer
        .patch_stored(&place(key), &key.name, &plain(), &Patch::Merge(&profile.body))
        .await?;
    Ok(read(stored))
}

pub(super) async fn delete(
    writer: &Writer,
    key: &ObjectKey,
    uid: &str,
    resource_version: &str,
) -> Result<(), ApplyError> {
    writer
        .delete(
            &place(key),
            &key.name,
            &delete_params(uid, Some(resource_version)),
        )
        .await
}
