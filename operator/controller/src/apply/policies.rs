//! Writes to ResourcePolicies of the vendor's scheduler.

use kube::api::{Patch, PatchParams};
use serde_json::Value;
use vnp_plan::observed::ObjectKey;
use vnp_plan::scheduling::CRD_NAME;
use vnp_plan::step::PolicyApply;

use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, forced};
use crate::observe::wire::RawPolicy;

fn place(policy: &ObjectKey) -> Place {
    // The name of a CRD is that of its resource with the group.
    Place::namespaced::<RawPolicy>(CRD_NAME, &policy.namespace)
}

pub(super) async fn apply(writer: &Writer, apply: &PolicyApply) -> Result<Value, ApplyError> {
    let key = &apply.policy;
    let params = PatchParams {
        force: !apply.create,
        ..forced(vnp_crds::FIELD_MANAGER)
    };
    writer
        .patch_stored(&place(key), &key.name, &params, &Patch::Apply(&apply.body))
        .await
}

pub(super) async fn delete(writer: &Writer, key: &ObjectKey, uid: &str) -> Result<(), ApplyError> {
    writer
        .delete(&place(key), &key.name, &delete_params(uid, None))
        .await
}
