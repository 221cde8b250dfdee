//! Writes to Nodes. Each apply carries the Node's UID: without it, an apply to a Node that is gone would create an empty
//! one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::api::Patch;
use serde::Serialize;
use vnp_plan::observed::Term;

use super::error::ApplyError;
use super::write::{Place, Writer, delete_params, forced};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeApply<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: NodeMeta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<NodeSpec>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeMeta<'a> {
    name: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct NodeSpec {
    unschedulable: bool,
}

impl<'a> NodeApply<'a> {
    /// Nothing but the Node's identity: applied, it gives up whatever the field manager owned.
    fn nothing(name: &'a str, uid: &'a str) -> Self {
        let metadata = NodeMeta {
            name,
            uid,
            resource_version: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        Self {
            api_version: "v1",
            kind: "Node",
            metadata,
            spec: None,
        }
    }
}

fn place() -> Place {
    Place::cluster::<Node>("nodes")
}

async fn apply(writer: &Writer, manager: &str, body: NodeApply<'_>) -> Result<(), ApplyError> {
    let name = body.metadata.name;
    writer
        .patch(&place(), name, &forced(manager), &Patch::Apply(&body))
        .await
}

pub(super) async fn cordon(writer: &Writer, name: &str, uid: &str, term: &Term) -> Result<(), ApplyError> {
    let mut body = NodeApply::nothing(name, uid);
    body.metadata
        .annotations
        .insert(vnp_crds::CORDON_TERM_ANNOTATION, term.to_string());
    body.spec = Some(NodeSpec { unschedulable: true });
    apply(writer, vnp_crds::CORDON_FIELD_MANAGER, body).await
}

pub(super) async fn uncordon(
    writer: &Writer,
    name: &str,
    uid: &str,
    resource_version: &str,
) -> Result<(), ApplyError> {
    let mut body = NodeApply::nothing(name, uid);
    body.metadata.resource_version = Some(resource_version);
    apply(writer, vnp_crds::CORDON_FIELD_MANAGER, body).await
}

pub(super) async fn label(
    writer: &Writer,
    name: &str,
    uid: &str,
    pool: Option<&str>,
) -> Result<(), ApplyError> {
    let mut body = NodeApply::nothing(name, uid);
    body.metadata
        .labels
        .extend(pool.map(|pool| (vnp_crds::POOL_LABEL, pool)));
    apply(writer, vnp_crds::FIELD_MANAGER, body).await
}

pub(super) async fn delete(writer: &Writer, name: &str, uid: &str) -> Result<(), ApplyError> {
    writer.delete(&place(), name, &delete_params(uid, None)).await
}
