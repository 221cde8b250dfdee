//! Where an antagonist acts, and what most of them need there.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::control_plane::Identity;
use crate::environment::Environment;

/// Whom an antagonist meets.
#[derive(Clone, Debug)]
pub struct Whom {
    /// Name of the pool.
    pub pool: String,
    /// Name of its StatefulSet in kube-system.
    pub provider: String,
    /// Namespace of its pods.
    pub namespace: String,
}

/// Where an antagonist acts: as a user of its own with all rights.
#[derive(Clone)]
pub struct Place {
    pub(super) name: &'static str,
    pub(super) whom: Whom,
    pub(super) client: Client,
    pub(super) kubeconfig: PathBuf,
    kubectl: PathBuf,
}

const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);

impl Place {
    /// The place of the antagonist with this name.
    ///
    /// # Errors
    /// When there is no kubeconfig for it.
    pub async fn new(environment: &Environment, name: &'static str, whom: Whom) -> Result<Self> {
        let control_plane = environment.control_plane();
        let identity = Identity::privileged(name);
        Ok(Self {
            name,
            whom,
            client: control_plane.client_as(&identity).await?,
            kubeconfig: control_plane.kubeconfig_as(&identity)?,
            kubectl: control_plane.binaries().path("kubectl"),
        })
    }

    pub(super) fn sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), "kube-system")
    }

    pub(super) fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.whom.namespace)
    }

    /// Patches in its own name.
    pub(super) fn patching(&self) -> PatchParams {
        PatchParams {
            field_manager: Some(self.name.to_owned()),
            ..PatchParams::default()
        }
    }

    /// The n-th node of the pool.
    pub(super) fn node(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.whom.provider)
    }

    /// All nodes of the pool.
    pub(super) async fn virtual_nodes(&self) -> Result<Vec<Node>> {
        let prefix = format!("{}-", self.whom.provider);
        let mut nodes = self.nodes().list(&ListParams::default()).await?.items;
        nodes.retain(|node| node.name_any().starts_with(&prefix));
        Ok(nodes)
    }

    /// Name of an object that is not in a namespace.
    pub(super) fn own(&self) -> String {
        format!("{}.{}", self.name, self.whom.pool)
    }

    /// `kubectl`, as a person uses it.
    pub(super) fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it with these arguments, split at spaces.
    pub(super) async fn run(&self, args: &str) -> Result<String> {
        let mut command = self.kubectl();
        command.args(args.split_whitespace());
        finished(&mut command).await
    }

    /// Runs it with these arguments and a manifest.
    pub(super) async fn feed(&self, args: &str, manifest: &Value) -> Result<String> {
        let mut command = self.kubectl();
        command.args(args.split_whitespace());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(manifest.to_string().as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {args}: {}", said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `kubectl apply --server-side` of an object.
    pub(super) async fn apply(&self, object: &Value) -> Result<()> {
        let args = format!("apply --server-side --field-manager {} --filename -", self.name);
        self.feed(&args, object).await.map(drop)
    }

    /// Tries until it works: what was just made takes a moment to be in force.
    pub(super) async fn takes<F>(&self, what: &str, probe: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let deadline = Instant::now() + IN_FORCE_WITHIN;
        while let Err(error) = probe().await {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("waited {IN_FORCE_WITHIN:?} for {what}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Runs a command to its end, and returns what it wrote.
pub(super) async fn finished(command: &mut Command) -> Result<String> {
    let line = format!("{:?}", command.as_std());
    let output = command.output().await.with_context(|| format!("start {line}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
