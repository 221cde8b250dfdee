//! The real virtual-kubelet as provider, one process per provider pod.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::control_plane::{Component, ControlPlane, Launcher, free_ports, virtual_kubelet_binary};

const NAMESPACE: &str = "kube-system";
const SERVICE_ACCOUNT: &str = "virtual-node-eci";

/// virtual-kubelet with its mock provider, which keeps pods in memory and has no instances.
#[derive(Clone, Debug)]
pub(crate) struct ProviderProcess {
    binary: PathBuf,
    kubeconfig: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    folder: PathBuf,
    launcher: Launcher,
}

impl ProviderProcess {
    /// Builds the binary unless it is there. It gets the ServiceAccount and the rights of `config/provider`.
    pub(crate) async fn prepare(control_plane: &ControlPlane) -> Result<Self> {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/provider");
        control_plane
            .kubectl(["apply", "--server-side", "--kustomize", config])
            .await?;
        let (certificate, key) = control_plane.serving_certificate();
        Ok(Self {
            binary: tokio::task::spawn_blocking(virtual_kubelet_binary).await??,
            kubeconfig: control_plane
                .service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
                .await?,
            certificate,
            key,
            folder: control_plane.folder().to_owned(),
            launcher: control_plane.launcher(),
        })
    }

    /// Runs the provider of `node` until it ends by itself; its output goes to `<node>.log` in the folder of the run.
    ///
    /// Dropping this kills it. SIGTERM would show the same: it drains nothing (`node/nodeutil/controller.go`).
    pub(crate) async fn run(&self, node: &str) {
        let ended = match self.start(node) {
            Ok(mut process) => process.ended(Duration::MAX).await,
            Err(error) => Err(error),
        };
        tracing::warn!("the provider of {node} has ended: {ended:?}");
    }

    fn start(&self, node: &str) -> Result<Component> {
        let config = self.folder.join(format!("{node}.json"));
        let capacity = serde_json::json!({node: {"cpu": "1000", "memory": "4Ti", "pods": "1000"}});
        fs::write(&config, capacity.to_string()).with_context(|| format!("write {}", config.display()))?;
        let [port] = free_ports()?;
        let mut command = Command::new(&self.binary);
        command
            .args(["--provider", "mock", "--log-level", "debug", "--nodename", node])
            .arg("--provider-config")
            .arg(config)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env("KUBELET_PORT", port.to_string())
            .env("VKUBELET_POD_IP", "127.0.0.1")
            .env("APISERVER_CERT_LOCATION", &self.certificate)
            .env("APISERVER_KEY_LOCATION", &self.key);
        self.launcher.spawn(node, command)
    }
}
