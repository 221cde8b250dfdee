//! Builders for tests: a pool of StatefulSet nodes in its ordinary state, to be bent by each test.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use crate::drain::memory::{Departures, DrainMemory, ProviderSeen};
use crate::observed::{
    BoundPod, CordonOwner, Heartbeat, NodeView, ObjectKey, Observed, OperatorFacts, Ordinal, PodOwner,
    PodPhase, ProviderPod, Recall, Term, Workload,
};
use crate::room::{Needs, Toleration};

/// Term of the operator that [`observed`] looks from.
pub(crate) fn term() -> Term {
    Term {
        transitions: 3,
        installation: "virtualnodepool-system".to_owned(),
        leader: "leader_1".to_owned(),
    }
}

/// The fence of [`term`] for an ordinal and the UID of its Node.
pub(crate) fn fence_of(ordinal: Ordinal, node_uid: &str) -> String {
    format!("{ordinal}/{node_uid}/{}", term())
}

/// The instant that tests call now.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// So many seconds after [`now`].
pub(crate) fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// Pool `burst` in its first generation, `management: Create`, with `spec` merged over a minimal one.
pub(crate) fn pool(spec: Value) -> VirtualNodePool {
    let mut raw = json!({
        "apiVersion": vnp_crds::API_VERSION,
        "kind": vnp_crds::KIND,
        "metadata": {
            "name": "burst", "uid": "pool-uid", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [vnp_crds::FINALIZER],
        },
        "spec": {
            "region": "cn-hangzhou",
            "network": {
                "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-a"] }],
                "securityGroupId": "sg-a",
            },
            "provider": {
                "type": "StatefulSet", "management": "Create", "namespace": "kube-system",
                "name": "virtual-node-eci", "image": "registry.example/virtual-nodes-eci:v1",
            },
        },
    });
    json_patch::merge(&mut raw["spec"], &spec);
    serde_json::from_value(raw).unwrap()
}

/// The StatefulSet of [`pool`] with so many replicas, taken over already.
pub(crate) fn workload(replicas: i32) -> Workload {
    Workload::new(json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "virtual-node-eci", "namespace": "kube-system", "uid": "workload-uid",
            "resourceVersion": "100", "generation": 1,
            "labels": { vnp_crds::POOL_LABEL: "burst", vnp_crds::MANAGED_BY_LABEL: vnp_crds::MANAGED_BY },
            "finalizers": [vnp_crds::WORKLOAD_FINALIZER],
        },
        "spec": {
            "replicas": replicas,
            "serviceName": "virtual-node-eci",
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": "virtual-node-eci" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": {
                "metadata": { "labels": { "app": "virtual-node-eci" } },
                "spec": { "containers": [{
                    "name": "virtual-node", "image": "registry.example/virtual-nodes-eci:v1",
                    "env": [
                        { "name": "ECI_REGION", "value": "cn-hangzhou" },
                        { "name": "ECI_VSWITCH", "value": "vsw-a" },
                        { "name": "ECI_SECURITY_GROUP", "value": "sg-a" },
                        { "name": "ECI_KUBE_PROXY", "value": "true" },
                    ],
                }] },
            },
        },
        "status": {
            "observedGeneration": 1, "updateRevision": "rev-1", "currentRevision": "rev-1", "readyReplicas": replicas,
        },
    }))
}

/// Makes our cordon of this term stand on the Node.
pub(crate) fn set_our_cordon(node: &mut NodeView) {
    node.unschedulable = true;
    node.cordon_owner = CordonOwner::Us;
    node.cordon_term = Some(term().to_string());
}

/// A healthy Node of [`pool`].
pub(crate) fn node(ordinal: Ordinal) -> NodeView {
    NodeView {
        name: format!("virtual-node-eci-{ordinal}"),
        uid: format!("node-{ordinal}"),
        resource_version: "7".to_owned(),
        labels: BTreeMap::from(
            [(vnp_crds::POOL_LABEL, "burst"), ("type", "virtual-kubelet")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        ),
        ready: true,
        taints: Vec::new(),
        unschedulable: false,
        allocatable: BTreeMap::from([("pods".to_owned(), 1000)]),
        heartbeat: Some(Heartbeat {
            seen_at: now(),
            beats: 10,
        }),
        ..NodeView::default()
    }
}

/// A healthy provider pod of [`workload`].
pub(crate) fn provider_pod(ordinal: Ordinal) -> ProviderPod {
    ProviderPod {
        key: ObjectKey {
            namespace: "kube-system".to_owned(),
            name: format!("virtual-node-eci-{ordinal}"),
        },
        uid: format!("provider-{ordinal}"),
        ready: true,
        revision: "rev-1".to_owned(),
        created: Some(after(-3600)),
        owner_uids: vec!["workload-uid".to_owned()],
        ..ProviderPod::default()
    }
}

/// A running pod of a ReplicaSet that requires virtual nodes.
pub(crate) fn pod(name: &str) -> BoundPod {
    BoundPod {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        uid: format!("uid-{name}"),
        phase: PodPhase::Running,
        ready: true,
        created: Some(after(-600)),
        labels: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
        controller: Some(PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "shop".to_owned(),
            uid: "rs".to_owned(),
        }),
        requires_virtual: true,
        instance_id: Some(format!("eci-{name}")),
        before_deletion: Some(PodPhase::Running),
        ..BoundPod::default()
    }
}

/// A pod that tolerates any taint of that key.
pub(crate) fn tolerant(name: &str, key: &str) -> BoundPod {
    let toleration = Toleration {
        key: key.to_owned(),
        operator: "Exists".to_owned(),
        ..Toleration::default()
    };
    let needs = Needs {
        tolerations: vec![toleration],
        ..Needs::default()
    };
    BoundPod {
        needs: Arc::new(needs),
        ..pod(name)
    }
}

/// A pool with `replicas` healthy nodes, nothing bound, nothing to do.
pub(crate) fn observed(pool: VirtualNodePool, replicas: i32) -> Observed {
    let memory = |o: Ordinal| DrainMemory {
        node_uid: format!("node-{o}"),
        provider: Some(ProviderSeen {
            uid: format!("provider-{o}"),
            beats_before: 0,
            departures: 0,
        }),
        departures: Departures::default(),
        ..DrainMemory::default()
    };
    Observed {
        pool: Arc::new(pool),
        others: Vec::new(),
        operator: OperatorFacts {
            provider_namespaces: vec!["kube-system".to_owned()],
            namespace: "virtualnodepool-system".to_owned(),
            term: term(),
            leading_since: after(-600),
            evictions_per_second: 0,
        },
        workload: workload(replicas).into(),
        provider_pods: (0..replicas).map(|o| (o, Arc::new(provider_pod(o)))).collect(),
        nodes: (0..replicas).map(|o| (o, Arc::new(node(o)))).collect(),
        bound: BTreeMap::new(),
        stateful_sets: BTreeMap::new(),
        controllers: Default::default(),
        wanted: Default::default(),
        namespaces: Arc::default(),
        budgets: Arc::new(Vec::new()),
        restore_copy: None,
        template_copy: None,
        audit: Some(Arc::default()),
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
        memory: (0..replicas).map(|o| (o, memory(o))).collect(),
        recall: Recall::default(),
        live: BTreeMap::new(),
    }
}

/// Binds pods to an ordinal.
pub(crate) fn bind(seen: &mut Observed, ordinal: Ordinal, pods: Vec<BoundPod>) {
    seen.bound.insert(ordinal, Arc::new(pods));
}

/// Changes the Node of an ordinal.
pub(crate) fn with_node(seen: &mut Observed, ordinal: Ordinal, change: impl FnOnce(&mut NodeView)) {
    let mut node = seen
        .nodes
        .get(&ordinal)
        .map_or_else(|| node(ordinal), |n| (**n).clone());
    change(&mut node);
    seen.nodes.insert(ordinal, Arc::new(node));
}
