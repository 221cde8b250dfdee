//! What nearly every scenario does.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::{Scenario, eventually};
use crate::antagonists::{Antagonist, AtWork, Whom};

impl Scenario<'_> {
    /// `kubectl apply --server-side` of a manifest.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        self.apply_text(manifest.to_string()).await
    }

    /// `kubectl apply --server-side` of YAML or JSON text.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn apply_text(&self, manifest: String) -> Result<()> {
        let mut command = self.environment().control_plane().kubectl_command();
        command
            .args(["apply", "--server-side", "--filename", "-"])
            .stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let applied = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(manifest.as_bytes())?;
            }
            anyhow::Ok(child.wait_with_output()?)
        });
        let output = applied.await?.context("run kubectl apply")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl apply --server-side: {}",
            stderr.trim()
        );
        Ok(())
    }

    /// kubectl as cluster admin; the arguments are split at spaces.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn kubectl(&self, args: &str) -> Result<String> {
        self.environment()
            .control_plane()
            .kubectl(args.split_whitespace())
            .await
    }

    /// Switches an antagonist on beside the scenario's own pool.
    ///
    /// # Errors
    /// As [`Antagonist::join`].
    pub async fn join(&self, antagonist: Antagonist) -> Result<AtWork> {
        antagonist.join(self.environment(), self.whom()).await
    }

    /// Whom antagonists meet here.
    #[must_use]
    pub fn whom(&self) -> Whom {
        Whom {
            pool: self.name().to_owned(),
            provider: self.provider(),
            namespace: self.namespace().to_owned(),
        }
    }

    /// The scenario's virtual nodes that there are now, by name.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes: Api<Node> = Api::all(self.client());
        let list = nodes
            .list(&ListParams::default().labels("type=virtual-kubelet"))
            .await?;
        let prefix = format!("{}-", self.provider());
        Ok(list
            .items
            .into_iter()
            .filter(|node| node.name_any().starts_with(&prefix))
            .collect())
    }

    /// Waits until the scenario has exactly `count` virtual nodes, all Ready.
    ///
    /// # Errors
    /// What there is instead.
    pub async fn nodes_ready(&self, count: usize, within: Duration) -> Result<Vec<Node>> {
        eventually(&format!("{count} virtual nodes are Ready"), within, async || {
            let nodes = self.nodes().await?;
            let names: Vec<String> = nodes
                .iter()
                .map(|node| format!("{} (Ready: {})", node.name_any(), is_ready(node)))
                .collect();
            ensure!(
                nodes.len() == count && nodes.iter().all(is_ready),
                "there are {names:?}"
            );
            Ok(nodes)
        })
        .await
    }

    /// The scenario's pods with these labels.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn pods(&self, labels: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace());
        Ok(pods.list(&ListParams::default().labels(labels)).await?.items)
    }

    /// All pods bound to the scenario's n-th node, whatever their namespace and phase.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn pods_on(&self, ordinal: usize) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::all(self.client());
        let bound = ListParams::default().fields(&format!("spec.nodeName={}", self.node(ordinal)));
        Ok(pods.list(&bound).await?.items)
    }

    /// Waits until `count` pods with these labels run and are not being deleted.
    ///
    /// # Errors
    /// How many there are instead.
    pub async fn pods_running(&self, labels: &str, count: usize, within: Duration) -> Result<Vec<Pod>> {
        self.pods_in_phase(labels, "Running", count, within).await
    }

    /// Waits until `count` pods with these labels are in this phase and are not being deleted.
    ///
    /// # Errors
    /// How many there are instead.
    pub async fn pods_in_phase(
        &self,
        labels: &str,
        phase: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Pod>> {
        eventually(
            &format!("{count} pods {labels} are {phase}"),
            within,
            async || {
                let mut pods = self.pods(labels).await?;
                let all = pods.len();
                pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && phase_of(pod) == phase);
                ensure!(pods.len() == count, "{} of {all} are", pods.len());
                Ok(pods)
            },
        )
        .await
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

fn phase_of(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}
