//! An ordinary node and its kubelet: where the provider pods run.
//!
//! It runs every pod bound to it. A pod whose container has the variable `ECI_REGION` is a provider: while it runs,
//! so does the virtual kubelet of the node that has the pod's name.

mod provider_process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Client, ResourceExt};

use crate::cloud::{Cloud, Heartbeat};
use crate::kubelet::{
    Feed, NodeKeeper, NodeProfile, Pace, PodReport, TrackedPod, delete_now, report_pod, run_pods,
};
use crate::virtual_kubelet::VirtualKubelet;

/// An image with this tag can't be pulled.
pub const BROKEN_TAG: &str = "broken";

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const START_DELAY: Duration = Duration::from_millis(100);
/// A real kubelet waits for the grace period of a container that ignores SIGTERM; the containers here need a moment.
const LONGEST_TERMINATION: Duration = Duration::from_secs(1);
/// The open-source provider exits 63 ms after SIGTERM.
const PROVIDER_TERMINATION: Duration = Duration::from_millis(63);

pub(crate) use provider_process::ProviderProcess;

/// What a provider pod contains.
#[derive(Clone, Debug)]
pub(crate) enum ProviderKind {
    /// The virtual kubelet of this crate.
    Simulated,
    /// The real one.
    Process(ProviderProcess),
}

/// The kubelet of one ordinary node.
#[derive(Clone)]
pub(crate) struct NodeAgent {
    shared: Arc<Shared>,
}

struct Shared {
    node: String,
    address: String,
    client: Client,
    cloud: Cloud,
    pods: Feed<Pod>,
    nodes: Feed<Node>,
    providers: ProviderKind,
}

impl NodeAgent {
    pub(crate) fn new(
        node: &str,
        client: Client,
        cloud: Cloud,
        providers: ProviderKind,
        pods: Feed<Pod>,
        nodes: Feed<Node>,
    ) -> Self {
        let address = cloud.next_address();
        let shared = Shared {
            node: node.to_owned(),
            address,
            client,
            cloud,
            pods,
            nodes,
            providers,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Registers the node and runs its pods, for ever.
    pub(crate) async fn run(&self) {
        let Shared {
            node,
            address,
            client,
            pods,
            nodes,
            ..
        } = &*self.shared;
        let keeper = NodeKeeper::new(client.clone(), profile(node, address));
        keeper.register(Heartbeat::Lease).await;
        let keep = keeper.keep(nodes, || Pace {
            heartbeat: Heartbeat::Lease,
            interval: HEARTBEAT_INTERVAL,
            reregister_delay: Some(Duration::ZERO),
            own_labels_interval: None,
        });
        let run = run_pods(pods, node, |pod| {
            let agent = self.clone();
            async move { agent.run_pod(pod).await }
        });
        futures::future::join(keep, run).await;
    }

    async fn run_pod(&self, pod: TrackedPod) {
        let mut deletion = pod.clone();
        // When somebody wants the pod gone, everything in it is dropped here and now.
        tokio::select! {
            biased;
            () = deletion.deletion_requested() => {}
            () = self.run_containers(&pod) => {}
        }
        if pod.is_gone() {
            return;
        }
        let latest = pod.latest();
        let longest = match provider_region(&latest) {
            Some(_) => PROVIDER_TERMINATION,
            None => LONGEST_TERMINATION,
        };
        tokio::time::sleep(grace(&latest).min(longest)).await;
        delete_now(&self.shared.client, &latest).await;
    }

    /// For ever.
    async fn run_containers(&self, pod: &TrackedPod) {
        tokio::time::sleep(START_DELAY).await;
        let latest = pod.latest();
        if has_broken_image(&latest) {
            self.report(pod, &PodReport::ImagePullBackOff).await;
        } else if let Some(region) = provider_region(&latest) {
            self.run_provider(pod, &region).await;
        } else {
            let address = self.shared.cloud.next_address();
            self.report(
                pod,
                &PodReport::Running {
                    address: &address,
                    restarts: 0,
                },
            )
            .await;
        }
        std::future::pending().await
    }

    /// Runs the provider, and starts it again in the same pod whenever it has crashed, as long as its image can be pulled.
    async fn run_provider(&self, pod: &TrackedPod, region: &str) {
        let Shared { cloud, .. } = &*self.shared;
        let node = pod.latest().name_any();
        let crash = cloud.crash_of(&node);
        let address = cloud.next_address();
        let address = address.as_str();
        let mut restarts = 0;
        loop {
            let crashed = async {
                self.report(pod, &PodReport::Running { address, restarts }).await;
                crash.notified().await;
            };
            tokio::select! {
                () = self.run_virtual_kubelet(&node, region, address) => {}
                () = crashed => {}
            }
            restarts += 1;
            self.report(pod, &PodReport::Crashed { address, restarts }).await;
            tokio::time::sleep(cloud.knobs_of(&node).restart_delay).await;
            if has_broken_image(&pod.latest()) {
                self.report(pod, &PodReport::ImagePullBackOff).await;
                return;
            }
        }
    }

    /// Until it ends by itself, which the simulated one never does.
    async fn run_virtual_kubelet(&self, provider: &str, region: &str, address: &str) {
        let Shared {
            client,
            cloud,
            pods,
            nodes,
            providers,
            ..
        } = &*self.shared;
        let named = cloud.knobs_of(provider).node_name;
        let node = named.as_deref().unwrap_or(provider);
        let _running = cloud.provider_runs(node);
        match providers {
            ProviderKind::Simulated => {
                VirtualKubelet::new(client.clone(), cloud.clone(), node, region, address)
                    .run(pods, nodes)
                    .await;
            }
            ProviderKind::Process(process) => process.run(node).await,
        }
    }

    async fn report(&self, pod: &TrackedPod, report: &PodReport<'_>) {
        report_pod(
            &self.shared.client,
            &pod.latest(),
            report,
            &self.shared.address,
            &BTreeMap::new(),
        )
        .await;
    }
}

fn profile(node: &str, address: &str) -> NodeProfile {
    NodeProfile {
        name: node.to_owned(),
        labels: [
            ("kubernetes.io/hostname", node),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        taints: Vec::new(),
        address: address.to_owned(),
        kubelet_version: "v1.37.2".into(),
        capacity: [
            ("cpu", "256"),
            ("memory", "1Ti"),
            ("pods", "2000"),
            ("ephemeral-storage", "10Ti"),
        ]
        .map(|(resource, quantity)| (resource.to_owned(), Quantity(quantity.into())))
        .into(),
    }
}

/// The region, when the pod is a provider. A value from elsewhere (`valueFrom`) is not looked up.
fn provider_region(pod: &Pod) -> Option<String> {
    let variables = containers(pod).flat_map(|container| container.env.iter().flatten());
    let region = variables
        .into_iter()
        .find(|variable| variable.name == "ECI_REGION")?;
    Some(region.value.clone().unwrap_or_else(|| "unknown".into()))
}

fn has_broken_image(pod: &Pod) -> bool {
    let tag = |container: &Container| {
        container
            .image
            .as_ref()?
            .rsplit_once(':')
            .map(|(_, tag)| tag.to_owned())
    };
    containers(pod).any(|container| tag(container).as_deref() == Some(BROKEN_TAG))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    Duration::from_secs(seconds.try_into().unwrap_or_default())
}
