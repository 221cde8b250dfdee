//! Writes of the webhook: its certificates and its configuration.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use vnp_crds::{MANAGED_BY, MANAGED_BY_LABEL, WEBHOOK_CONFIGURATION};
use vnp_plan::step::CertificateWrite;

use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, forced, plain};

fn configurations() -> Place {
    Place::cluster::<MutatingWebhookConfiguration>(
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    )
}

pub(super) async fn certificates(writer: &Writer, write: &CertificateWrite) -> Result<(), ApplyError> {
    let key = &write.secret;
    let place = Place::namespaced::<Secret>("secrets", &key.namespace);
    let data = &write.data.0;
    match &write.resource_version {
        None => {
            let body = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": key.name, "namespace": key.namespace, "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
                "data": data,
            });
            writer.create(&place, &key.name, &body).await
        }
        Some(resource_version) => {
            let body = json!({"metadata": {"resourceVersion": resource_version}, "data": data});
            writer
                .patch(&place, &key.name, &plain(), &Patch::Merge(&body))
                .await
        }
    }
}

pub(super) async fn apply(writer: &Writer, create: bool, body: &Value) -> Result<(), ApplyError> {
    let params = PatchParams {
        force: !create,
        ..forced(vnp_crds::FIELD_MANAGER)
    };
    writer
        .patch(
            &configurations(),
            WEBHOOK_CONFIGURATION,
            &params,
            &Patch::Apply(body),
        )
        .await
}

pub(super) async fn delete(writer: &Writer, uid: &str, resource_version: &str) -> Result<(), ApplyError> {
    writer
        .delete(
            &configurations(),
            WEBHOOK_CONFIGURATION,
            &delete_params(uid, Some(resource_version)),
        )
        .await
}
