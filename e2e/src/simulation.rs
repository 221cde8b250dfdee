//! Everything behind the API server that is not the API server's: nodes, kubelets, providers.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use tokio::task::JoinSet;

use crate::cloud::Cloud;
use crate::kubelet::Feed;
use crate::node_agent::{NodeAgent, ProviderKind};

/// User name under which the simulation writes; the audit log keeps none of its heartbeats.
pub const SIMULATION_USER: &str = "simulated-cloud";
/// Name of the first ordinary node; further ones count up.
pub const FIRST_HOST: &str = "host-0";

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Simulation {
    _tasks: JoinSet<()>,
}

impl Simulation {
    /// Starts `hosts` ordinary nodes, on the runtime that it is called from.
    pub(crate) fn start(client: &Client, cloud: &Cloud, hosts: usize, providers: &ProviderKind) -> Self {
        let pods = Feed::new(|pod: &Pod| pod.spec.as_ref()?.node_name.as_deref());
        let nodes = Feed::new(|node: &Node| node.metadata.name.as_deref());
        let mut tasks = JoinSet::new();
        let (feed, api) = (pods.clone(), Api::all(client.clone()));
        tasks.spawn(async move { feed.run(api).await });
        let (feed, api) = (nodes.clone(), Api::all(client.clone()));
        tasks.spawn(async move { feed.run(api).await });
        for host in 0..hosts {
            let name = format!("host-{host}");
            let (client, cloud) = (client.clone(), cloud.clone());
            let agent = NodeAgent::new(
                &name,
                client,
                cloud,
                providers.clone(),
                pods.clone(),
                nodes.clone(),
            );
            tasks.spawn(async move { agent.run().await });
        }
        Self { _tasks: tasks }
    }
}
