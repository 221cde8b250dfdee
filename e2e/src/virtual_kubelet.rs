//! The provider of one virtual node, as the ECI provider was measured to behave.
//!
//! It lives while its provider pod runs, see [`crate::node_agent`]. What it knows dies with it: deletions that wait in
//! its queue are lost, and only its next start finds the instances that have no pod.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cloud::{Cloud, DeletionOrder, InstanceId, PodRef};
use crate::kubelet::{
    Feed, NodeKeeper, NodeProfile, Pace, PodReport, TrackedPod, delete_now, insist, report_pod, run_pods,
};

/// Where the provider writes the id of a pod's instance.
pub const INSTANCE_ID_ANNOTATION: &str = "k8s.aliyun.com/eci-instance-id";
/// Key of the taint on every virtual node; the value is `alibabacloud`.
pub const PROVIDER_TAINT: &str = "virtual-kubelet.io/provider";

const KUBELET_VERSION: &str = "v1.11.2-aliyun-1.0.207";
/// Pods that are worked on at the same time, as in the pod queues of virtual-kubelet.
const POD_WORKERS: usize = 10;

/// The provider of one virtual node. It runs while [`Self::run`] is polled and stops at once when that is dropped.
#[derive(Clone)]
pub(crate) struct VirtualKubelet {
    shared: Arc<Shared>,
}

struct Shared {
    node: String,
    address: String,
    client: Client,
    cloud: Cloud,
    workers: Semaphore,
    keeper: NodeKeeper,
}

impl VirtualKubelet {
    /// `address` is that of its pod.
    pub(crate) fn new(client: Client, cloud: Cloud, node: &str, region: &str, address: &str) -> Self {
        let keeper = NodeKeeper::new(client.clone(), profile(node, region, address));
        let workers = Semaphore::new(POD_WORKERS);
        let shared = Shared {
            node: node.to_owned(),
            address: address.to_owned(),
            client,
            cloud,
            workers,
            keeper,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Registers the node, then does everything else side by side, for ever.
    pub(crate) async fn run(&self, pods: &Feed<Pod>, nodes: &Feed<Node>) {
        let Shared {
            node, cloud, keeper, ..
        } = &*self.shared;
        let knobs = cloud.knobs_of(node);
        keeper.register(knobs.heartbeat).await;
        let keep = keeper.keep(nodes, || {
            let knobs = cloud.knobs_of(node);
            Pace {
                heartbeat: knobs.heartbeat,
                interval: knobs.heartbeat_interval,
                reregister_delay: knobs.reregister_delay,
                own_labels_interval: knobs.own_labels_interval,
            }
        });
        if knobs.deaf {
            tracing::info!("the provider of {node} started deaf");
            return keep.await;
        }
        let run = run_pods(pods, node, |pod| {
            let kubelet = self.clone();
            async move { kubelet.run_pod(pod).await }
        });
        future::join3(keep, run, self.reap()).await;
    }

    /// Deletes the instances tagged with this node that have no pod, each tried once. Only a start does it.
    async fn reap(&self) {
        let Shared {
            node, client, cloud, ..
        } = &*self.shared;
        let bound = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods: Api<Pod> = Api::all(client.clone());
        let Some(list) = insist("list the pods of", node, || pods.list(&bound)).await else {
            return;
        };
        let uids: HashSet<String> = list.items.iter().filter_map(ResourceExt::uid).collect();
        let takes = cloud.knobs_of(node).deletion_takes;
        let mut deletions = JoinSet::new();
        for instance in cloud.ledger().orphans(&uids) {
            if instance.node == *node {
                tracing::debug!("reaping {instance}");
                let cloud = cloud.clone();
                deletions.spawn(async move { cloud.delete_instance(instance.id, takes).await });
            }
        }
        deletions.join_all().await;
    }

    async fn run_pod(&self, mut pod: TrackedPod) {
        if !has_finished(&pod.latest()) {
            let mut deletion = pod.clone();
            tokio::select! {
                biased;
                () = deletion.deletion_requested() => {}
                () = self.start_pod(&pod) => {}
            }
        }
        pod.deletion_requested().await;
        self.end_pod(&pod).await;
    }

    /// Creates the instance, unless an earlier start of this provider did, and lets the pod run.
    async fn start_pod(&self, pod: &TrackedPod) {
        let Shared {
            node,
            client,
            cloud,
            address,
            workers,
            ..
        } = &*self.shared;
        let latest = pod.latest();
        let existing = cloud.ledger().living_for(&latest.uid().unwrap_or_default());
        let instance = match existing.first() {
            Some(instance) => instance.id,
            None => {
                tokio::time::sleep(cloud.knobs_of(node).start_delay).await;
                cloud.ledger().record_creation(node, pod_ref(&latest))
            }
        };
        let annotations = BTreeMap::from([(INSTANCE_ID_ANNOTATION.to_owned(), instance.to_string())]);
        let report = async |report: PodReport<'_>| {
            // The semaphore is never closed.
            let _worker = workers.acquire().await.ok();
            report_pod(client, &pod.latest(), &report, address, &annotations).await;
        };
        let pod_address = cloud.next_address();
        if phase(&latest) == "Pending" {
            report(PodReport::Running {
                address: &pod_address,
                restarts: 0,
            })
            .await;
        }
        if let Some(runtime) = cloud
            .knobs_of(node)
            .job_runtime
            .filter(|_| ends_by_itself(&latest))
        {
            tokio::time::sleep(runtime).await;
            report(PodReport::Succeeded {
                address: &pod_address,
            })
            .await;
        }
    }

    async fn end_pod(&self, pod: &TrackedPod) {
        let Shared {
            node,
            client,
            cloud,
            workers,
            ..
        } = &*self.shared;
        let knobs = cloud.knobs_of(node);
        let latest = pod.latest();
        if !pod.is_gone() && Cloud::is_slow(&latest.name_any(), knobs.slow_terminators.fraction) {
            tokio::time::sleep(knobs.slow_terminators.delay).await;
        }
        let delete_object = async || {
            let _worker = workers.acquire().await.ok();
            delete_now(client, &latest).await;
        };
        let delete_instances = async || {
            let lost = |id: &InstanceId| Cloud::forgets(*id, knobs.forget_seed, knobs.forget);
            let living = cloud.ledger().living_for(&latest.uid().unwrap_or_default());
            let instances = living
                .into_iter()
                .map(|instance| instance.id)
                .filter(|id| !lost(id));
            future::join_all(instances.map(|id| cloud.delete_instance(id, knobs.deletion_takes))).await;
        };
        let order = match knobs.deletion_order {
            DeletionOrder::InstanceThenGrace if has_finished(&latest) => DeletionOrder::ObjectFirst,
            order => order,
        };
        match order {
            DeletionOrder::ObjectFirst => {
                delete_object().await;
                tokio::time::sleep(knobs.deletion_lag).await;
                delete_instances().await;
            }
            DeletionOrder::InstanceFirst => {
                delete_instances().await;
                if !knobs.deletion_lag.is_zero() {
                    self.report_ended(&latest).await;
                    tokio::time::sleep(knobs.deletion_lag).await;
                }
                delete_object().await;
            }
            DeletionOrder::InstanceThenGrace => {
                delete_instances().await;
                self.report_ended(&latest).await;
                let grace = latest.metadata.deletion_grace_period_seconds.unwrap_or_default();
                tokio::time::sleep(Duration::from_secs(grace.try_into().unwrap_or_default())).await;
                delete_object().await;
            }
        }
    }

    /// What is left of a pod whose instance is gone says so.
    async fn report_ended(&self, pod: &Pod) {
        let Shared {
            client,
            address,
            workers,
            ..
        } = &*self.shared;
        let _worker = workers.acquire().await.ok();
        let pod_address = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_deref())
            .unwrap_or_default();
        report_pod(
            client,
            pod,
            &PodReport::Succeeded { address: pod_address },
            address,
            &BTreeMap::new(),
        )
        .await;
    }
}

/// Labels, taint, capacity and version as the vendor's nodes show them.
fn profile(node: &str, region: &str, address: &str) -> NodeProfile {
    let labels = [
        ("type", "virtual-kubelet"),
        ("kubernetes.io/role", "agent"),
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("topology.kubernetes.io/region", region),
        ("service.alibabacloud.com/exclude-node", "true"),
    ];
    NodeProfile {
        name: node.to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        taints: vec![Taint {
            key: PROVIDER_TAINT.into(),
            value: Some("alibabacloud".into()),
            effect: "NoSchedule".into(),
            ..Taint::default()
        }],
        address: address.to_owned(),
        kubelet_version: KUBELET_VERSION.into(),
        capacity: [
            ("cpu", "1000"),
            ("memory", "4Ti"),
            ("pods", "3000"),
            ("ephemeral-storage", "60000Gi"),
            ("nvidia.com/gpu", "1000"),
        ]
        .map(|(resource, quantity)| (resource.to_owned(), Quantity(quantity.into())))
        .into(),
    }
}

fn pod_ref(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

fn has_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn ends_by_itself(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    policy.is_some_and(|policy| policy != "Always")
}
