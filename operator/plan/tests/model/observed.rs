//! The world in the words of the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_crds::{DaemonSetPods, VirtualNodePool};
use vnp_plan::drain::health::ProviderMark;
use vnp_plan::drain::memory::{Departures, DrainMemory, ProviderSeen};
use vnp_plan::drain::settle::Settle;
use vnp_plan::observed::{
    BoundPod, CordonOwner, Heartbeat, NodeView, ObjectKey, Observed, OperatorFacts, PodOwner, PodPhase,
    ProviderPod, Recall, Term, Workload,
};
use vnp_plan::proof::{ListAnswer, LiveFacts, QuorumList};

use super::operator::{List, Memory, NEWEST, OUTDATED, Reading, Settling};
use super::world::{Entry, Fence, NODES, Phase, View};

/// The length of a tick. The cordon's settle takes two of them, as the scheduler may, the proof of emptiness one.
const TICK_SECONDS: i64 = 5;
/// Heartbeats seen when a pass begins; each tick brings one.
const BEATS: u64 = 100;
const NAME: &str = "virtual-node-eci";
/// What the provider is told; the pool says the same, so there is nothing to roll.
const ENV: [(&str, &str); 4] = [
    ("ECI_KUBE_PROXY", "true"),
    ("ECI_REGION", "cn-hangzhou"),
    ("ECI_SECURITY_GROUP", "sg-a"),
    ("ECI_VSWITCH", "vsw-a"),
];

/// So many ticks after the pass began.
fn tick(count: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time") + SignedDuration::from_secs(TICK_SECONDS * count)
}

/// The `now` of every pass.
pub(crate) fn now() -> Timestamp {
    tick(0)
}

/// The term of a leader as the plan knows it. The Lease is deleted at each change of the leader, so its count is always 0.
pub(crate) fn term_of(leader: u8) -> Term {
    Term {
        transitions: 0,
        installation: "virtualnodepool-system".to_owned(),
        leader: format!("leader-{leader}"),
    }
}

/// The leader whose term a text tells.
pub(crate) fn leader(term: &str) -> Option<u8> {
    incarnation(term)
}

/// What a pass looks at.
pub(crate) fn observed(view: &View, memory: &[Memory; NODES], term: u8, reap: &str) -> Observed {
    let each = |o: usize| i32::try_from(o).expect("a small ordinal");
    Observed {
        pool: Arc::new(pool(view, reap)),
        others: Vec::new(),
        operator: OperatorFacts {
            provider_namespaces: vec!["kube-system".to_owned()],
            namespace: "virtualnodepool-system".to_owned(),
            term: term_of(term),
            leading_since: tick(-100),
            evictions_per_second: 0,
        },
        workload: workload(view).into(),
        provider_pods: (0..NODES)
            .filter_map(|o| Some((each(o), Arc::new(provider(view, o)?))))
            .collect(),
        nodes: (0..NODES)
            .filter_map(|o| Some((each(o), Arc::new(node(view, o, 0)?))))
            .collect(),
        bound: (0..NODES).map(|o| (each(o), Arc::new(pods(view, o)))).collect(),
        stateful_sets: BTreeMap::new(),
        controllers: Default::default(),
        wanted: Default::default(),
        namespaces: Arc::default(),
        budgets: Arc::default(),
        restore_copy: None,
        template_copy: None,
        profile: None,
        audit: None,
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
        memory: (0..NODES).map(|o| (each(o), remembered(o, &memory[o]))).collect(),
        recall: Recall::default(),
        live: BTreeMap::new(),
    }
}

/// What was read live of an ordinal: the list when it was made, the rest at the end of the reading.
pub(crate) fn live(ordinal: usize, list: List, reading: &Reading, now: &View, reap: &str) -> LiveFacts {
    let held = (0..list.pods).map(|n| pod(ordinal, n, false)).collect();
    LiveFacts {
        list: complete(i64::from(list.at), held),
        pool: Arc::new(pool(now, reap)),
        workload: Some(Arc::new(workload(now))),
        node: node(now, ordinal, reading.since).map(Arc::new),
        provider_pod: provider(now, ordinal).map(Arc::new),
        unclaimed: Some(Arc::default()),
    }
}

fn complete(at: i64, pods: Vec<BoundPod>) -> QuorumList {
    let answer = ListAnswer {
        resource_version: Some("1".to_owned()),
        continue_token: None,
        pods,
    };
    QuorumList::complete(tick(at), answer).expect("a whole list")
}

fn pool(view: &View, reap: &str) -> VirtualNodePool {
    let drains: Vec<Value> = (0..NODES)
        .filter_map(|o| Some(entry(o, view.status.drains[o]?)))
        .collect();
    let on = |set: [bool; NODES]| (0..NODES).filter(move |o| set[*o]);
    // So long ago that no Node waits for the audit trail, which the world does not have.
    let retired: Vec<Value> = on(view.status.retired)
        .map(|o| json!({ "ordinal": o, "time": tick(-100), "abandoned": false }))
        .collect();
    let drain = json!({
        "summary": "", "podsTotal": 3, "podsRemaining": 0, "podsTerminating": 0, "podsBlocked": 0,
        "limitedBy": "Nothing", "nodes": drains,
    });
    let raw = json!({
        "apiVersion": vnp_crds::API_VERSION,
        "kind": vnp_crds::KIND,
        "metadata": {
            "name": "burst", "uid": "pool-uid", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [vnp_crds::FINALIZER],
        },
        "spec": {
            "region": "cn-hangzhou",
            "replicas": view.target,
            "network": {
                "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-a"] }], "securityGroupId": "sg-a",
            },
            "provider": {
                "type": "StatefulSet", "management": "Adopt", "namespace": "kube-system", "name": NAME,
            },
            "drain": {
                "cordonSettleSeconds": 2 * TICK_SECONDS, "emptySettleSeconds": TICK_SECONDS, "reap": reap,
                "maxConcurrentNodes": 2,
            },
        },
        "status": {
            "drain": drain,
            "provider": {
                "type": "StatefulSet", "replicas": 2, "retired": retired,
                "registered": on(view.status.registered).collect::<Vec<_>>(),
            },
        },
    });
    serde_json::from_value(raw).expect("a pool")
}

fn entry(ordinal: usize, entry: Entry) -> Value {
    let phase = match entry.phase {
        Phase::Cordoning => "Cordoning",
        Phase::Reaping => "Reaping",
        Phase::Other => "Evicting",
    };
    json!({
        "name": format!("{NAME}-{ordinal}"),
        "uid": entry.node.map(|uid| node_uid(ordinal, uid)),
        "ordinal": ordinal,
        "phase": phase,
        "startedAt": tick(-1),
        "lastProgressTime": tick(0),
        "recordons": entry.recordons,
        "reapedProviderUid": entry.reaped.map(|uid| provider_uid(ordinal, uid)),
        "podsTotal": 3,
        "podsRemaining": 0,
    })
}

/// The workload as the server holds it.
pub(crate) fn workload(view: &View) -> Workload {
    let mut raw = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": NAME, "namespace": "kube-system", "uid": "workload-uid", "generation": 1,
            "resourceVersion": if view.newest { NEWEST } else { OUTDATED },
            "labels": { vnp_crds::POOL_LABEL: "burst", vnp_crds::MANAGED_BY_LABEL: vnp_crds::MANAGED_BY },
            "finalizers": [vnp_crds::WORKLOAD_FINALIZER],
            "annotations": { vnp_crds::ADOPTED_VALUES_ANNOTATION: json!({ "env": ENV.into_iter().collect::<BTreeMap<_, _>>() }).to_string() },
        },
        "spec": {
            "replicas": view.replicas, "serviceName": NAME, "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": NAME } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": { "containers": [{
                    "name": "virtual-node", "image": "registry.example/virtual-nodes-eci:v1",
                    "env": ENV.map(|(name, value)| json!({ "name": name, "value": value })),
                }] },
            },
        },
        "status": { "observedGeneration": 1, "updateRevision": "rev-1", "currentRevision": "rev-1" },
    });
    if let Some(fence) = view.fence {
        raw["metadata"]["annotations"][vnp_crds::SHRINKING_ANNOTATION] = json!(fence_value(fence));
    }
    Workload::new(raw)
}

fn fence_value(fence: Fence) -> String {
    let node = fence
        .node
        .map_or_else(|| "none".to_owned(), |uid| node_uid(fence.ordinal, uid));
    format!("{}/{node}/{}", fence.ordinal, term_of(fence.term))
}

/// The fence that a workload carries.
pub(crate) fn fence(workload: &Workload) -> Option<Fence> {
    let value = workload.annotation(vnp_crds::SHRINKING_ANNOTATION)?;
    let (ordinal, rest) = value.split_once('/').expect("ordinal/node/term");
    let (node, term) = rest.split_once('/').expect("node/term");
    Some(Fence {
        ordinal: ordinal.parse().expect("an ordinal"),
        node: incarnation(node),
        term: leader(term).expect("a term"),
    })
}

fn node_uid(ordinal: usize, uid: u8) -> String {
    format!("node-{ordinal}-{uid}")
}

fn provider_uid(ordinal: usize, uid: u8) -> String {
    format!("provider-{ordinal}-{uid}")
}

/// The number at the end of a UID of ours.
pub(crate) fn incarnation(uid: &str) -> Option<u8> {
    uid.rsplit('-').next()?.parse().ok()
}

fn node(view: &View, ordinal: usize, beats: u8) -> Option<NodeView> {
    let node = view.nodes[ordinal]?;
    Some(NodeView {
        name: format!("{NAME}-{ordinal}"),
        uid: node_uid(ordinal, node.uid),
        labels: BTreeMap::from([
            (vnp_crds::POOL_LABEL.to_owned(), "burst".to_owned()),
            (
                vnp_crds::virtual_node::LABEL.to_owned(),
                vnp_crds::virtual_node::LABEL_VALUE.to_owned(),
            ),
        ]),
        ready: view.providers[ordinal].is_some(),
        // As far as it matters: no write but a cordon's changes what an uncordon tests.
        resource_version: node
            .cordon
            .map_or_else(|| "free".to_owned(), |term| term_of(term).to_string()),
        taints: Vec::new(),
        no_execute: Vec::new(),
        unschedulable: node.cordon.is_some(),
        cordon_term: node.cordon.map(|term| term_of(term).to_string()),
        cordon_owner: if node.cordon.is_some() {
            CordonOwner::Us
        } else {
            CordonOwner::Nobody
        },
        allocatable: BTreeMap::from([("pods".to_owned(), 1000)]),
        heartbeat: Some(Heartbeat {
            seen_at: tick(i64::from(beats)),
            beats: BEATS + u64::from(beats),
        }),
        ..NodeView::default()
    })
}

fn provider(view: &View, ordinal: usize) -> Option<ProviderPod> {
    Some(ProviderPod {
        key: ObjectKey {
            namespace: "kube-system".to_owned(),
            name: format!("{NAME}-{ordinal}"),
        },
        uid: provider_uid(ordinal, view.providers[ordinal]?),
        ready: true,
        revision: "rev-1".to_owned(),
        owner_uids: vec!["workload-uid".to_owned()],
        ..ProviderPod::default()
    })
}

fn pods(view: &View, ordinal: usize) -> Vec<BoundPod> {
    let running = (0..view.bound[ordinal]).map(|n| pod(ordinal, n, false));
    let leaving = (0..view.terminating[ordinal]).map(|n| pod(ordinal, view.bound[ordinal] + n, true));
    running.chain(leaving).collect()
}

fn pod(ordinal: usize, number: u8, leaving: bool) -> BoundPod {
    BoundPod {
        key: ObjectKey {
            namespace: "shop".to_owned(),
            name: format!("pod-{ordinal}-{number}"),
        },
        uid: format!("uid-{ordinal}-{number}"),
        phase: PodPhase::Running,
        ready: true,
        deletion: leaving.then(now),
        controller: Some(PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "shop".to_owned(),
            uid: "rs".to_owned(),
        }),
        ..BoundPod::default()
    }
}

fn remembered(ordinal: usize, memory: &Memory) -> DrainMemory {
    DrainMemory {
        node_uid: memory.node.map(|uid| node_uid(ordinal, uid)).unwrap_or_default(),
        cordoned_since: memory.cordoned.map(|age| tick(-i64::from(age))),
        provider: memory.provider.map(|p| ProviderSeen {
            uid: provider_uid(ordinal, p.uid),
            beats_before: if p.beaten { BEATS - 1 } else { BEATS },
            departures: u32::from(p.departed),
        }),
        departures: Departures::default(),
        settle: memory.settle.map(settle),
        ..DrainMemory::default()
    }
}

/// A settle that began so long ago.
pub(crate) fn settle(settling: Settling) -> Settle {
    let age = settling.age;
    begin(
        settling,
        complete(-i64::from(age), Vec::new()),
        BEATS - u64::from(age),
    )
}

/// A settle that begins with a list of this pass.
pub(crate) fn new_settle(settling: Settling, live: &LiveFacts) -> Settle {
    let beats = live
        .node
        .as_ref()
        .and_then(|n| n.heartbeat.as_ref())
        .map_or(0, |b| b.beats);
    begin(settling, live.list.clone(), beats)
}

fn begin(settling: Settling, first: QuorumList, beats: u64) -> Settle {
    let ordinal = settling.fence.ordinal;
    let mark = settling.provider.map(|(provider, node)| ProviderMark {
        pod_uid: provider_uid(ordinal, provider),
        restarts: 0,
        node_uid: node_uid(ordinal, node),
    });
    Settle::begin(
        fence_value(settling.fence),
        mark,
        first,
        beats,
        DaemonSetPods::Evict,
    )
    .expect("an empty list")
}
