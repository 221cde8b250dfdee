//! Objects of the small cluster.

use serde_json::{Value, json};
use vnp_plan::observed::{BoundPod, ObjectKey, PodOwner, PodPhase, Workload};

use super::turns::Kind;
use crate::report::testing::at;

pub(super) const NAME: &str = "virtual-node-eci";
pub(super) const PROVIDERS: &str = "kube-system";

pub(super) fn managed(by: &str) -> Value {
    json!([{ "manager": by, "operation": "Update", "time": "2026-01-01T00:00:00Z",
             "fieldsV1": { "f:spec": { "f:replicas": {} } } }])
}

pub(super) fn pod(number: u32, kind: Kind, seconds: i64) -> BoundPod {
    let owner = |kind: &str| PodOwner {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        name: "shop".to_owned(),
        uid: "owner".to_owned(),
    };
    let ordinary = BoundPod {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: format!("pod-{number}"),
        },
        uid: format!("pod-{number}"),
        phase: PodPhase::Running,
        ready: true,
        created: Some(at(seconds)),
        controller: Some(owner("ReplicaSet")),
        ..BoundPod::default()
    };
    match kind {
        Kind::Ordinary => ordinary,
        Kind::Bare => BoundPod {
            controller: None,
            ..ordinary
        },
        Kind::NeverStarted => BoundPod {
            controller: Some(owner("DaemonSet")),
            phase: PodPhase::Pending,
            never_started: true,
            ready: false,
            ..ordinary
        },
        Kind::Held => BoundPod {
            finalizers: Some("example.com/held".into()),
            ..ordinary
        },
        Kind::Finished => BoundPod {
            phase: PodPhase::Succeeded,
            ..ordinary
        },
    }
}

/// Three providers as the pool asks for them, taken over.
pub(super) fn workload() -> Workload {
    Workload::new(json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {
            "name": NAME, "namespace": PROVIDERS, "uid": "uid-sts", "resourceVersion": "100", "generation": 1,
            "labels": { vnp_crds::POOL_LABEL: "burst", vnp_crds::MANAGED_BY_LABEL: vnp_crds::MANAGED_BY },
            "finalizers": [vnp_crds::WORKLOAD_FINALIZER], "annotations": {},
        },
        "spec": {
            "replicas": 3, "serviceName": NAME, "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": NAME } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": { "containers": [{
                    "name": "virtual-node", "image": "registry.example/vk:1",
                    "env": [
                        { "name": "ECI_REGION", "value": "cn-hangzhou" }, { "name": "ECI_VSWITCH", "value": "vsw-1" },
                        { "name": "ECI_SECURITY_GROUP", "value": "sg-1" }, { "name": "ECI_KUBE_PROXY", "value": "true" },
                    ],
                }] },
            },
        },
        "status": {
            "observedGeneration": 1, "updateRevision": "rev-1", "currentRevision": "rev-1", "readyReplicas": 3,
        },
    }))
}
