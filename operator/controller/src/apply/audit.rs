//! Writes to the ConfigMap with the audit trail of a pool. It has no owner: bills come after the pool is gone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use serde::Serialize;
use vnp_plan::step::AuditPatch;

use super::PoolRef;
use super::error::ApplyError;
use super::write::{Place, Writer, plain};

#[derive(Serialize)]
struct Change<'a> {
    metadata: Meta<'a>,
    data: &'a BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    resource_version: &'a str,
    labels: BTreeMap<String, String>,
}

fn labels(pool: &PoolRef) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            vnp_crds::MANAGED_BY_LABEL.to_owned(),
            vnp_crds::MANAGED_BY.to_owned(),
        ),
        (vnp_crds::POOL_LABEL.to_owned(), pool.name.clone()),
    ])
}

/// Creates the ConfigMap, or changes the keys named and no other. One that came or changed since it was read counts as
/// moved: what it holds decides what has room.
pub(super) async fn record(writer: &Writer, pool: &PoolRef, audit: &AuditPatch) -> Result<(), ApplyError> {
    let key = &audit.config_map;
    let place = Place::namespaced::<ConfigMap>("configmaps", &key.namespace);
    let Some(resource_version) = &audit.resource_version else {
        let values = audit
            .data
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.clone()?)));
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                labels: Some(labels(pool)),
                ..ObjectMeta::default()
            },
            data: Some(values.collect()),
            ..ConfigMap::default()
        };
        return writer.create(&place, &key.name, &map).await;
    };
    let change = Change {
        metadata: Meta {
            resource_version,
            labels: labels(pool),
        },
        data: &audit.data,
    };
    writer
        .patch(&place, &key.name, &plain(), &Patch::Merge(&change))
        .await
}
