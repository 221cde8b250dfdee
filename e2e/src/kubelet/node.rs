//! The Node object and its heartbeats.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::{Change, Feed, insist};
use crate::cloud::Heartbeat;

const LEASE_SECONDS: i32 = 40;
const KUBELET_PORT: i32 = 10250;
/// How soon a changed interval is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a kubelet registers its Node with.
#[derive(Clone, Debug)]
pub(crate) struct NodeProfile {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) address: String,
    pub(crate) kubelet_version: String,
    pub(crate) capacity: BTreeMap<String, Quantity>,
}

impl NodeProfile {
    fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!self.taints.is_empty()).then(|| self.taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(self.status()),
        }
    }

    fn status(&self) -> NodeStatus {
        let address = |type_: &str, address: &str| NodeAddress {
            type_: type_.into(),
            address: address.into(),
        };
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", &self.address),
                address("Hostname", &self.name),
            ]),
            capacity: Some(self.capacity.clone()),
            allocatable: Some(self.capacity.clone()),
            conditions: Some(conditions()),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: KUBELET_PORT }),
            }),
            node_info: Some(NodeSystemInfo {
                kubelet_version: self.kubelet_version.clone(),
                operating_system: "linux".into(),
                architecture: "amd64".into(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }
}

/// How a Node is kept alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// By what.
    pub(crate) heartbeat: Heartbeat,
    /// Time between two heartbeats.
    pub(crate) interval: Duration,
    /// From its vanishing to the next registration; `None` leaves that to the next start.
    pub(crate) reregister_delay: Option<Duration>,
    /// How often its own labels are written again.
    pub(crate) own_labels_interval: Option<Duration>,
}

/// Registers the Node, keeps it alive, and registers it again when it vanishes.
pub(crate) struct NodeKeeper {
    client: Client,
    profile: NodeProfile,
    nodes: Api<Node>,
    leases: Api<Lease>,
    /// UID of the Node that was seen last.
    last_uid: Mutex<String>,
}

impl NodeKeeper {
    pub(crate) fn new(client: Client, profile: NodeProfile) -> Self {
        let nodes = Api::all(client.clone());
        let leases = Api::namespaced(client.clone(), "kube-node-lease");
        Self {
            client,
            profile,
            nodes,
            leases,
            last_uid: Mutex::default(),
        }
    }

    /// Creates the Node, or writes only the status of one that is there: labels, taints and cordon of an old one stay.
    /// Then the Lease, or a first status.
    pub(crate) async fn register(&self, heartbeat: Heartbeat) {
        let node = self.profile.node();
        let created = insist("register node", &self.profile.name, || {
            let node = &node;
            async move { self.nodes.create(&PostParams::default(), node).await }
        })
        .await;
        match created {
            Some(_) if heartbeat == Heartbeat::NodeStatus => {}
            Some(_) => self.beat(heartbeat).await,
            None => {
                self.write_status(&self.profile.status()).await;
                self.beat(heartbeat).await;
            }
        }
    }

    /// Heartbeats and registrations until it is dropped. `pace` is asked before each heartbeat.
    pub(crate) async fn keep(&self, feed: &Feed<Node>, pace: impl Fn() -> Pace) {
        let mut changes = feed.subscribe(&self.profile.name);
        let mut last_beat = Instant::now();
        let mut last_labels = Instant::now();
        loop {
            let Pace {
                heartbeat,
                interval,
                reregister_delay,
                own_labels_interval,
            } = pace();
            let due = last_beat + interval;
            tokio::select! {
                () = tokio::time::sleep_until(due.min(Instant::now() + LOOK_AGAIN)) => {
                    if Instant::now() >= due {
                        self.beat(heartbeat).await;
                        last_beat = Instant::now();
                    }
                    if own_labels_interval.is_some_and(|interval| last_labels.elapsed() >= interval) {
                        self.write_labels().await;
                        last_labels = Instant::now();
                    }
                }
                change = changes.recv() => match change {
                    Some(Change::Deleted(node)) => {
                        let (name, uid) = (node.name_any(), node.uid());
                        let Some(delay) = reregister_delay else {
                            tracing::debug!("node {name} ({uid:?}) vanished and stays away");
                            continue;
                        };
                        tokio::time::sleep(delay).await;
                        tracing::debug!("node {name} ({uid:?}) vanished; registering it again");
                        self.register(heartbeat).await;
                    }
                    Some(Change::Applied(node)) if heartbeat != Heartbeat::Silent && !is_ready(&node) => {
                        // The node controller gave it up meanwhile.
                        self.write_status(&self.profile.status()).await;
                    }
                    Some(Change::Applied(_)) => {}
                    None => return,
                },
            }
        }
    }

    async fn beat(&self, heartbeat: Heartbeat) {
        match heartbeat {
            Heartbeat::Lease => self.renew_lease().await,
            Heartbeat::NodeStatus => {
                let ready = NodeCondition {
                    last_transition_time: None,
                    ..condition("Ready", "True", "KubeletReady")
                };
                let status = NodeStatus {
                    conditions: Some(vec![ready]),
                    ..NodeStatus::default()
                };
                self.write_status(&status).await;
            }
            Heartbeat::Silent => {}
        }
    }

    async fn write_status(&self, status: &NodeStatus) {
        let patch = Patch::Strategic(json!({"status": status}));
        let name = &self.profile.name;
        insist("write the status of node", name, || {
            let patch = &patch;
            async move {
                self.nodes
                    .patch_status(name, &PatchParams::default(), patch)
                    .await
            }
        })
        .await;
    }

    async fn write_labels(&self) {
        let name = &self.profile.name;
        let patch = Patch::Merge(json!({"metadata": {"labels": self.profile.labels}}));
        insist("write the labels of node", name, || {
            let patch = &patch;
            async move { self.nodes.patch(name, &PatchParams::default(), patch).await }
        })
        .await;
    }

    async fn renew_lease(&self) {
        let name = &self.profile.name;
        let renew = Patch::Merge(json!({"spec": {"renewTime": MicroTime(Timestamp::now())}}));
        let renewed = insist("renew the lease of node", name, || {
            let renew = &renew;
            async move { self.leases.patch(name, &PatchParams::default(), renew).await }
        })
        .await;
        if renewed.is_none() {
            self.create_lease().await;
        }
    }

    async fn create_lease(&self) {
        let name = &self.profile.name;
        // Owned by the Node: the garbage collector removes the Lease of a node that is gone.
        let nodes: Api<Node> = Api::all(self.client.clone());
        let there = insist("read node", name, || nodes.get(name)).await;
        let uid = {
            let mut last = self.last_uid.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(uid) = there.and_then(|node| node.uid()) {
                *last = uid;
            }
            last.clone()
        };
        if uid.is_empty() {
            return;
        }
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        insist("create the lease of node", name, || {
            let lease = &lease;
            async move { self.leases.create(&PostParams::default(), lease).await }
        })
        .await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn conditions() -> Vec<NodeCondition> {
    vec![
        condition("Ready", "True", "KubeletReady"),
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        condition("NetworkUnavailable", "False", "RouteCreated"),
    ]
}

fn condition(type_: &str, status: &str, reason: &str) -> NodeCondition {
    let now = Some(Time(Timestamp::now()));
    NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        last_heartbeat_time: now.clone(),
        last_transition_time: now,
        ..NodeCondition::default()
    }
}
