//! Others who write Nodes.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::place::Place;
use super::{Antagonist, ONCE, every};

/// A node whose heartbeat is older is taken for dead.
const SILENT_SECONDS: i64 = 4;
/// The finalizer of [`FINALIZERS`].
const CLEANUP: &str = "slow.example.com/cleanup";
const FOREIGN_NODE: &str = "eci-of-somebody";

/// Deletes Nodes that show no sign of life, long before Kubernetes calls them NotReady.
pub const NODE_REPAIR: Antagonist = every("node-repair", Duration::from_secs(1), |place| {
    Box::pin(async move {
        let leases: Api<Lease> = Api::namespaced(place.client.clone(), "kube-node-lease");
        let mut acted = false;
        for node in place.virtual_nodes().await? {
            let name = node.name_any();
            let lease = leases.get_opt(&name).await?.and_then(|lease| lease.spec);
            let Some(beat) = lease.and_then(|lease| lease.renew_time) else {
                continue;
            };
            let silent = Timestamp::now().duration_since(beat.0).as_secs();
            if silent > SILENT_SECONDS && node.metadata.deletion_timestamp.is_none() {
                place.nodes().delete(&name, &DeleteParams::default()).await?;
                acted = true;
            }
        }
        Ok(acted)
    })
})
.leads_to("");

/// Puts a taint that no pod tolerates on every node.
pub const TAINTS: Antagonist = every("taints", Duration::from_secs(1), |place| {
    Box::pin(async move {
        let mut acted = false;
        for node in place.virtual_nodes().await? {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            if !taints.into_iter().any(|taint| taint.key == "theirs") {
                let theirs = json!({"spec": {"taints": [{"key": "theirs", "effect": "NoSchedule"}]}});
                patch(place, &node.name_any(), &Patch::Strategic(theirs)).await?;
                acted = true;
            }
        }
        Ok(acted)
    })
})
.leads_to("taint theirs");

/// Holds every node with a finalizer until it leaves.
pub const FINALIZERS: Antagonist = every("finalizers", Duration::from_secs(1), |place| {
    Box::pin(finalizers(place, |there| {
        (!there.iter().any(|f| f == CLEANUP))
            .then(|| there.iter().cloned().chain([CLEANUP.to_owned()]).collect())
    }))
})
.leads_to(CLEANUP)
.leaves(|place| {
    Box::pin(finalizers(place, |there| {
        let rest = || there.iter().filter(|f| *f != CLEANUP).cloned().collect();
        there.iter().any(|f| f == CLEANUP).then(rest)
    }))
});

async fn finalizers(place: &Place, wanted: fn(&[String]) -> Option<Vec<String>>) -> Result<bool> {
    let mut acted = false;
    for node in place.virtual_nodes().await? {
        let leaving = node.metadata.deletion_timestamp.is_some();
        let there = node.finalizers();
        let Some(finalizers) = wanted(there) else {
            continue;
        };
        // The API server takes no new one of an object that is being deleted.
        if leaving && finalizers.len() > there.len() {
            continue;
        }
        let version = node.resource_version();
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
        self::patch(place, &node.name_any(), &Patch::Merge(patch)).await?;
        acted = true;
    }
    Ok(acted)
}

/// A virtual node of somebody else, which nobody keeps alive.
pub const ANOTHER_NAME: Antagonist = every("another-name", ONCE, |place| {
    Box::pin(async move {
        let node = json!({"metadata": {"name": FOREIGN_NODE, "labels": {"type": "virtual-kubelet"}}});
        place
            .nodes()
            .create(&PostParams::default(), &serde_json::from_value(node)?)
            .await?;
        Ok(true)
    })
})
.leads_to("")
.leaves(|place| {
    Box::pin(async move {
        place
            .nodes()
            .delete(FOREIGN_NODE, &DeleteParams::default())
            .await?;
        Ok(true)
    })
});

/// Makes every node say that it takes four pods.
pub const SMALL_NODES: Antagonist = every("small-nodes", Duration::from_secs(1), |place| {
    Box::pin(async move {
        let mut acted = false;
        for node in place.virtual_nodes().await? {
            let allocatable = node
                .status
                .as_ref()
                .and_then(|status| status.allocatable.as_ref());
            if allocatable
                .and_then(|a| a.get("pods"))
                .is_none_or(|pods| pods.0 != "4")
            {
                let small = Patch::Merge(json!({"status": {"allocatable": {"pods": "4"}}}));
                place
                    .nodes()
                    .patch_status(&node.name_any(), &place.patching(), &small)
                    .await?;
                acted = true;
            }
        }
        Ok(acted)
    })
})
.leads_to("");

async fn patch(place: &Place, node: &str, patch: &Patch<Value>) -> Result<()> {
    place.nodes().patch(node, &place.patching(), patch).await?;
    Ok(())
}
