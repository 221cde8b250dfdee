//! Applications that a drain can't treat like others.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch};
use serde_json::{Value, json};

use super::place::Place;
use super::{Antagonist, ONCE, every};
use crate::scenario::manifests;

/// Pods of [`PINNED`].
pub const PINNED_PODS: u32 = 6;

/// A pod on the second node of a controller that nobody knows: `Runner/<namespace>/runner`.
pub const CUSTOM_CONTROLLER: Antagonist = every("custom-controller", ONCE, |place| {
    Box::pin(async move {
        pod_of_kind(place, "Runner", false, &place.node(1)).await?;
        Ok(true)
    })
})
.leads_to("/runner")
.leaves(|place| {
    Box::pin(async move {
        let gone = place.pods().delete("runner", &DeleteParams::default()).await;
        Ok(gone.is_ok())
    })
});

/// A Deployment that names the second node: its pods are made again there whenever they go, also when the node is gone.
pub const PINNED: Antagonist = every("pinned", ONCE, |place| {
    Box::pin(async move {
        let mut pinned = manifests::deployment(&place.whom.namespace, "pinned", PINNED_PODS);
        pinned["spec"]["template"]["spec"]["nodeName"] = json!(place.node(1));
        place.apply(&pinned).await?;
        Ok(true)
    })
})
.leaves(|place| {
    Box::pin(async move {
        let none = format!(
            "scale deployment pinned --namespace {} --replicas 0",
            place.whom.namespace
        );
        place.run(&none).await?;
        Ok(true)
    })
});

/// One pod of the pool's application is never Ready.
pub const UNREADY: Antagonist = every("unready", Duration::from_secs(1), |place| {
    Box::pin(async move {
        let theirs = ListParams::default().labels(&format!("app={}", place.whom.pool));
        let pods = place.pods().list(&theirs).await?.items;
        let Some(pod) = pods.iter().map(ResourceExt::name_any).min() else {
            return Ok(false);
        };
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        place
            .pods()
            .patch_status(&pod, &place.patching(), &Patch::Strategic(unready))
            .await?;
        Ok(true)
    })
})
.leads_to("");

/// A pod on the node, and the object that controls it: of a kind that is made for it, with a scale or without.
///
/// # Errors
/// When the API server refuses any of it.
pub async fn pod_of_kind(place: &Place, kind: &str, scaled: bool, node: &str) -> Result<()> {
    const GROUP: &str = "returns.example";
    let name = kind.to_lowercase();
    let namespace = &place.whom.namespace;
    let plural = format!("{name}s");
    let mut subresources = json!({"status": {}});
    if scaled {
        subresources["scale"] =
            json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    }
    place
        .apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {
                "group": GROUP, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": subresources,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        }))
        .await?;
    let api_version = format!("{GROUP}/v1");
    let object =
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    place.takes("the kind", || place.apply(&object)).await?;
    let object = place
        .run(&format!(
            "get {name} {name} --namespace {namespace} --output json"
        ))
        .await?;
    let object: Value = serde_json::from_str(&object)?;
    let uid = object["metadata"]["uid"].as_str().context("no uid")?;
    let mut pod = manifests::on_node(manifests::bare_pod(namespace, &name), node);
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    place.apply(&pod).await
}
