//! GitOps engines.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::place::Place;
use super::{Antagonist, every};

const OPERATOR_NAMESPACE: &str = "virtualnodepool-system";

/// Applies a StatefulSet with another security group, and the pool with a label, again and again.
pub const ENGINE_THAT_REAPPLIES: Antagonist = every(
    "engine-that-reapplies",
    Duration::from_secs(4),
    |place| {
        Box::pin(async move {
            let params = PatchParams::apply(place.name).force();
            let provider = &place.whom.provider;
            let set = place.sets().get(provider).await?;
            let template = set.spec.template.spec;
            let container = template.and_then(|pod| Some(pod.containers.first()?.name.clone()));
            let container = container.context("a StatefulSet without containers")?;
            let set = json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": provider},
                "spec": {"template": {"spec": {"containers": [
                    {"name": container, "env": [{"name": "ECI_SECURITY_GROUP", "value": "sg-git"}]}]}}},
            });
            place.sets().patch(provider, &params, &Patch::Apply(set)).await?;
            let pool = json!({
                "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
                "metadata": {"name": place.whom.pool, "labels": {"git": "yes"}}, "spec": {"region": "cn-hangzhou"},
            });
            pools(place)
                .patch(&place.whom.pool, &params, &Patch::Apply(pool))
                .await?;
            Ok(true)
        })
    },
);

/// Deletes what belongs to the pool and stands in no repository. Each time the operator makes the workload again.
pub const ENGINE_THAT_PRUNES: Antagonist = every("engine-that-prunes", Duration::from_secs(45), |place| {
    Box::pin(prune(place))
})
.leads_to("had been deleted by somebody");

async fn prune(place: &Place) -> Result<bool> {
    let client = || place.client.clone();
    let (pool, now) = (&place.whom.pool, DeleteParams::default());
    let maps: Api<ConfigMap> = Api::namespaced(client(), OPERATOR_NAMESPACE);
    for map in maps.list(&ListParams::default()).await? {
        if map.name_any().ends_with(pool.as_str()) {
            maps.delete(&map.name_any(), &now).await?;
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client(), OPERATOR_NAMESPACE);
    let copies = ListParams::default().labels(&format!("virtualnodes.dev/pool={pool}"));
    secrets.delete_collection(&now, &copies).await?;
    place.sets().delete(&place.whom.provider, &now).await?;
    Ok(true)
}

fn pools(place: &Place) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("virtualnodes.dev", "v1alpha1", "VirtualNodePool");
    Api::all_with(place.client.clone(), &ApiResource::from_gvk(&kind))
}
