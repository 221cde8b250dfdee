//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler as child processes on loopback.
//!
//! Nothing outlives the test process: see [`process::ProcessGroup`].

mod binaries;
mod components;
mod identity;
mod pki;
mod process;
mod run_folder;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

pub use binaries::{Binaries, virtual_kubelet_binary};
pub use identity::Identity;
pub use process::{Component, Launcher, ProcessGroup, log_tail};

use pki::Pki;
use run_folder::RunFolder;

use crate::audit::AuditLog;

const START_ATTEMPTS: usize = 3;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a control plane is started with.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// `--node-monitor-grace-period` of the controller-manager: how long after the last heartbeat a node turns
    /// `Unknown`. `None` keeps the default of Kubernetes, 50 s.
    pub node_monitor_grace_period: Option<Duration>,
    /// Further arguments of the kube-apiserver.
    pub apiserver_args: Vec<String>,
    /// Neither kube-controller-manager nor kube-scheduler: nothing changes unless the test changes it.
    pub apiserver_only: bool,
}

/// A running control plane. Dropping it ends its processes and keeps its logs.
#[derive(Debug)]
pub struct ControlPlane {
    // Before the components: the group ends them first, in one go, and then they are reaped.
    group: Arc<ProcessGroup>,
    components: Vec<Component>,
    binaries: Binaries,
    folder: RunFolder,
    pki: Pki,
    server: String,
    admin: PathBuf,
    identities: Mutex<()>,
}

impl ControlPlane {
    /// Builds the binaries unless they are there, starts everything and waits until it serves.
    ///
    /// # Errors
    /// When a binary can't be built, a process ends by itself or the API server is not ready within a minute;
    /// the message names the log to read.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        let binaries = tokio::task::spawn_blocking(Binaries::find).await??;
        let mut attempt = 1;
        loop {
            match Self::start_once(&binaries, &options).await {
                Ok(control_plane) => return Ok(control_plane),
                // A port that was free a moment ago may be taken by now; new ports, new try.
                Err(error)
                    if attempt < START_ATTEMPTS
                        && format!("{error:#}").contains("address already in use") =>
                {
                    tracing::warn!("control plane did not start, trying again: {error:#}");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_once(binaries: &Binaries, options: &ControlPlaneOptions) -> Result<Self> {
        let folder = RunFolder::create()?;
        let [etcd_client, etcd_peer, apiserver_port] = free_ports()?;
        let server = format!("https://127.0.0.1:{apiserver_port}");
        let pki = Pki::create(&folder.path().join("pki"))?;
        let admin = folder.path().join("admin.kubeconfig");
        pki.write_kubeconfig(&admin, &server, &Identity::admin())?;

        let group = Arc::new(ProcessGroup::start(&folder.scratch())?);
        let mut control_plane = Self {
            group,
            components: Vec::new(),
            binaries: binaries.clone(),
            folder,
            pki,
            server,
            admin,
            identities: Mutex::default(),
        };
        let etcd = control_plane.etcd(etcd_client, etcd_peer);
        control_plane.spawn("etcd", etcd)?;
        let apiserver = control_plane.apiserver(etcd_client, apiserver_port, options)?;
        control_plane.spawn("kube-apiserver", apiserver)?;
        control_plane.wait_for_apiserver().await?;
        if options.apiserver_only {
            return Ok(control_plane);
        }

        control_plane.start_controllers(options).await?;
        Ok(control_plane)
    }

    /// Starts kube-controller-manager and kube-scheduler, for a control plane that was started without.
    ///
    /// # Errors
    /// When one of them ends by itself or does not work within a minute.
    pub async fn start_controllers(&mut self, options: &ControlPlaneOptions) -> Result<()> {
        let controller_manager = self.controller_manager(options)?;
        self.spawn("kube-controller-manager", controller_manager)?;
        let scheduler = self.scheduler()?;
        self.spawn("kube-scheduler", scheduler)?;
        self.wait_for_controllers().await
    }

    /// A client of its own for the calling runtime, as cluster admin.
    ///
    /// # Errors
    /// When the kubeconfig can't be read.
    pub async fn client(&self) -> Result<Client> {
        identity::client(&self.admin).await
    }

    /// A client of its own for the calling runtime, as `identity`.
    ///
    /// # Errors
    /// When the certificate can't be made or written.
    pub async fn client_as(&self, identity: &Identity) -> Result<Client> {
        identity::client(&self.kubeconfig_as(identity)?).await
    }

    /// Where the API server listens.
    ///
    /// # Errors
    /// When its URL names no address, which it always does.
    pub fn server_address(&self) -> Result<std::net::SocketAddr> {
        let address = self.server.trim_start_matches("https://");
        address
            .parse()
            .with_context(|| format!("{} is no address", self.server))
    }

    /// Kubeconfig of the cluster admin.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// Kubeconfig with a client certificate for `identity`.
    ///
    /// # Errors
    /// When the certificate can't be made or written.
    pub fn kubeconfig_as(&self, identity: &Identity) -> Result<PathBuf> {
        let path = self
            .folder
            .path()
            .join(format!("{}.kubeconfig", identity.file_stem()));
        // Tests that run side by side ask for the same one; none may read what another is writing.
        let _turn = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            self.pki.write_kubeconfig(&path, &self.server, identity)?;
        }
        Ok(path)
    }

    /// Kubeconfig with a token of the ServiceAccount, valid for a day, as its pod would have.
    ///
    /// # Errors
    /// When there is no such ServiceAccount or the token is refused.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let client = self.client().await?;
        let token = identity::service_account_token(client, namespace, name).await?;
        let path = self.folder.path().join(format!("{namespace}-{name}.kubeconfig"));
        self.pki
            .write_token_kubeconfig(&path, &self.server, name, &token)?;
        Ok(path)
    }

    /// Runs kubectl as cluster admin and returns its standard output.
    ///
    /// # Errors
    /// When kubectl fails; the message carries its standard error.
    pub async fn kubectl<I, S>(&self, args: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = tokio::process::Command::from(self.kubectl_command());
        command.args(args);
        let line = format!("{:?}", command.as_std());
        let output = command.output().await.with_context(|| format!("start {line}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{line}: {}: {}",
            output.status,
            stderr.trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `kubectl` with KUBECONFIG set, for callers that want its input, its streams or to wait for it themselves.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.binaries.path("kubectl"));
        command.env("KUBECONFIG", &self.admin);
        command
    }

    /// Where the binaries of the control plane are.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Everything that was written to the API server in this run.
    #[must_use]
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.audit_log_path())
    }

    /// The folder of this run: logs, audit log, kubeconfigs. It stays; old runs are removed by later ones.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts further processes that end when this control plane ends; their output goes to its folder.
    #[must_use]
    pub fn launcher(&self) -> Launcher {
        Launcher::new(&self.group, self.folder.path())
    }

    /// Certificate and key of the API server, good for any other server on 127.0.0.1.
    #[must_use]
    pub fn serving_certificate(&self) -> (PathBuf, PathBuf) {
        (self.pki.path("apiserver.crt"), self.pki.path("apiserver.key"))
    }

    fn audit_log_path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn spawn(&mut self, name: &str, command: Command) -> Result<()> {
        let component = self.launcher().spawn(name, command)?;
        self.components.push(component);
        Ok(())
    }

    async fn wait_for_apiserver(&mut self) -> Result<()> {
        let client = self.client().await?;
        let ready = || async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            Ok(())
        };
        self.wait_until("kube-apiserver is ready", ready).await
    }

    async fn wait_for_controllers(&mut self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "kube-system");
        let served = || async {
            accounts.get("default").await?;
            Ok(())
        };
        self.wait_until("the controllers gave kube-system its ServiceAccount", served)
            .await
    }

    async fn wait_until<F>(&mut self, what: &str, probe: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            for component in &mut self.components {
                component.ensure_running()?;
            }
            let reason = match tokio::time::timeout(PROBE_TIMEOUT, probe()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            };
            if Instant::now() > deadline {
                let logs = self.folder.path().display();
                return Err(reason.context(format!(
                    "waited {READY_WITHIN:?} until {what}; the logs are in {logs}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Ports nobody listens on now. Held together, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
