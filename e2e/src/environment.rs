//! A control plane with the simulated cloud attached to it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::Client;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::cloud::Cloud;
use crate::control_plane::{ControlPlane, ControlPlaneOptions, Identity};
use crate::node_agent::{ProviderKind, ProviderProcess};
use crate::simulation::{SIMULATION_USER, Simulation};

const OPERATOR_NAMESPACE: &str = "virtualnodepool-system";
const OPERATOR_ACCOUNT: &str = "virtualnodepool-operator";

/// What an environment is started with.
#[derive(Clone, Debug)]
pub struct EnvironmentOptions {
    /// The control plane.
    pub control_plane: ControlPlaneOptions,
    /// Ordinary nodes; provider pods need one.
    pub hosts: usize,
    /// What the provider pods contain.
    pub providers: Providers,
}

/// What provider pods contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Providers {
    /// The simulated provider, with ledger and knobs.
    Simulated,
    /// The real virtual-kubelet with its mock provider. It has no instances: the ledger stays empty, and of the knobs
    /// only `restart_delay` acts.
    VirtualKubelet,
}

impl Default for EnvironmentOptions {
    fn default() -> Self {
        Self {
            control_plane: ControlPlaneOptions::default(),
            hosts: 1,
            providers: Providers::Simulated,
        }
    }
}

/// A control plane with ordinary nodes and a cloud account. Dropping it ends everything.
#[derive(Debug)]
pub struct Environment {
    // The order matters: the simulation ends before the API server that it talks to.
    _simulation: Simulation,
    // The simulation outlives the runtime of the test that happened to start it.
    runtime: Option<Runtime>,
    control_plane: ControlPlane,
    cloud: Cloud,
    operator_kubeconfig: OnceCell<PathBuf>,
}

impl Environment {
    /// Starts an environment of its own for the caller.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start(options: EnvironmentOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("simulated-cloud")
            .enable_all()
            .build()?;
        let cloud = Cloud::default();
        let simulated = cloud.clone();
        let start = async move {
            let control_plane = ControlPlane::start(options.control_plane).await?;
            let client = control_plane
                .client_as(&Identity::privileged(SIMULATION_USER))
                .await?;
            let providers = match options.providers {
                Providers::Simulated => ProviderKind::Simulated,
                Providers::VirtualKubelet => {
                    ProviderKind::Process(ProviderProcess::prepare(&control_plane).await?)
                }
            };
            let simulation = Simulation::start(&client, &simulated, options.hosts, &providers);
            anyhow::Ok((control_plane, simulation))
        };
        let started = runtime.spawn(start).await;
        let runtime = Some(runtime);
        match started.map_err(anyhow::Error::from).flatten() {
            Ok((control_plane, simulation)) => Ok(Self {
                _simulation: simulation,
                runtime,
                control_plane,
                cloud,
                operator_kubeconfig: OnceCell::new(),
            }),
            Err(error) => {
                if let Some(runtime) = runtime {
                    runtime.shutdown_background();
                }
                Err(error)
            }
        }
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The cloud: ledger and knobs.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// A client as cluster admin, for the calling runtime.
    ///
    /// # Errors
    /// As [`ControlPlane::client`].
    pub async fn client(&self) -> Result<Client> {
        self.control_plane.client().await
    }

    /// Applies the CRD, the operator's rights and the provider's ServiceAccount from `config/`, once, and returns the
    /// kubeconfig of the operator's ServiceAccount.
    ///
    /// # Errors
    /// When the API server refuses any of it.
    pub async fn install_operator(&self) -> Result<&Path> {
        let install = || async {
            for folder in ["crd", "rbac", "provider"] {
                let path = format!("{}/../config/{folder}", env!("CARGO_MANIFEST_DIR"));
                self.kubectl(["apply", "--server-side", "--kustomize", &path])
                    .await?;
            }
            let crd = [
                "wait",
                "--for=condition=Established",
                "crd/virtualnodepools.virtualnodes.dev",
            ];
            self.kubectl(crd).await?;
            self.control_plane
                .service_account_kubeconfig(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT)
                .await
        };
        Ok(self.operator_kubeconfig.get_or_try_init(install).await?)
    }

    /// Runs kubectl as cluster admin and returns its standard output.
    ///
    /// # Errors
    /// As [`ControlPlane::kubectl`].
    pub async fn kubectl<const N: usize>(&self, args: [&str; N]) -> Result<String> {
        self.control_plane.kubectl(args).await
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for its end is not allowed where tests run.
            runtime.shutdown_background();
        }
    }
}
