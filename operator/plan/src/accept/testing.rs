//! Builders for the tests of `accept`, `profile` and `target`: a plain pool, a plain workload, what one pass sees of them.

use std::sync::Arc;

use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use crate::observed::{Observed, OperatorFacts, Workload, WorkloadSeen};

/// A Create pool `burst` with UID `uid-burst`, overlaid with `overlay` as a merge patch.
pub(crate) fn pool(overlay: Value) -> VirtualNodePool {
    let mut value = json!({
        "apiVersion": vnp_crds::API_VERSION,
        "kind": vnp_crds::KIND,
        "metadata": { "name": "burst", "uid": "uid-burst", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "region": "cn-hangzhou",
            "network": {
                "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-1"] }],
                "securityGroupId": "sg-1",
            },
            "provider": {
                "type": "StatefulSet", "management": "Create", "namespace": "kube-system",
                "name": "virtual-node-eci", "image": "registry.example/vk:1",
            },
        },
    });
    json_patch::merge(&mut value, &overlay);
    serde_json::from_value(value).expect("a pool")
}

/// The same pool with `management: Adopt`.
pub(crate) fn adopting(overlay: Value) -> VirtualNodePool {
    let mut value = json!({ "spec": { "provider": { "management": "Adopt", "image": null } } });
    json_patch::merge(&mut value, &overlay);
    pool(value)
}

/// StatefulSet `kube-system/virtual-node-eci` with 3 replicas and one provider container, without any label of ours.
pub(crate) fn workload(overlay: Value) -> Workload {
    let mut value = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "virtual-node-eci", "namespace": "kube-system", "uid": "uid-sts", "resourceVersion": "7",
            "generation": 1,
        },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "virtual-node-eci" } },
            "template": {
                "metadata": { "labels": { "app": "virtual-node-eci" } },
                "spec": { "containers": [{
                    "name": "provider", "image": "registry.example/vk:1",
                    "env": [{ "name": "ECI_REGION", "value": "cn-hangzhou" }],
                }] },
            },
        },
    });
    json_patch::merge(&mut value, &overlay);
    Workload::new(value)
}

/// Merge patch that makes a workload one that pool `burst` holds.
pub(crate) fn held() -> Value {
    json!({ "metadata": {
        "labels": { (vnp_crds::POOL_LABEL): "burst" }, "finalizers": [vnp_crds::WORKLOAD_FINALIZER],
    } })
}

/// A cluster with nothing in it but this pool.
pub(crate) fn observed(pool: VirtualNodePool) -> Observed {
    Observed {
        pool: Arc::new(pool),
        others: Vec::new(),
        operator: OperatorFacts {
            provider_namespaces: vec![vnp_crds::KUBE_SYSTEM.to_owned()],
            namespace: vnp_crds::OPERATOR_NAMESPACE.to_owned(),
            ..OperatorFacts::default()
        },
        workload: WorkloadSeen::Absent,
        provider_pods: Default::default(),
        nodes: Default::default(),
        bound: Default::default(),
        stateful_sets: Default::default(),
        controllers: Default::default(),
        wanted: Default::default(),
        namespaces: Default::default(),
        budgets: Default::default(),
        restore_copy: None,
        template_copy: None,
        audit: None,
        profile: None,
        acs_profile: None,
        profile_rejection: None,
        scheduling: Default::default(),
        kubernetes: None,
        webhook: Default::default(),
        vendor_webhook: Default::default(),
        later: Default::default(),
        left_alone: Default::default(),
        overflow: Default::default(),
        flaws: Vec::new(),
        failing: Vec::new(),
        memory: Default::default(),
        recall: Default::default(),
        live: Default::default(),
    }
}

/// The same cluster with that workload in it.
pub(crate) fn with_workload(mut observed: Observed, workload: Workload) -> Observed {
    observed.workload = workload.into();
    observed
}
