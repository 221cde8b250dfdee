//! Leaves the shared environment as it was found.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::{Scenario, eventually};

const GONE_WITHIN: Duration = Duration::from_secs(60);

impl Scenario<'_> {
    /// Removes pools, provider, nodes and namespace. The operator is gone by now, so its finalizers go by hand; pods go
    /// with grace 0, because the providers that would end them are going too.
    pub(super) async fn clean_up(&self) -> Result<()> {
        self.cloud().reset_knobs();
        for (kind, namespace) in [("virtualnodepools", None), ("statefulsets", Some("kube-system"))] {
            self.remove_all(kind, namespace).await?;
        }
        let namespace = self.namespace();
        self.kubectl(&format!(
            "delete namespace {namespace} --wait=false --ignore-not-found"
        ))
        .await?;
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete_collection(&at_once, &ListParams::default()).await?;
        eventually("the providers have stopped", GONE_WITHIN, async || {
            let running = self.cloud().running_providers();
            ensure!(running.is_empty(), "{running:?} still run");
            Ok(())
        })
        .await?;
        self.kubectl("delete nodes --selector type=virtual-kubelet --wait=false")
            .await?;
        self.kubectl("delete mutatingwebhookconfiguration virtualnodepool-affinity --ignore-not-found")
            .await?;
        self.kubectl(
            "delete secret virtualnodepool-webhook-tls --namespace virtualnodepool-system --ignore-not-found",
        )
        .await?;
        let admission = "validatingadmissionpolicybindings,validatingadmissionpolicies,mutatingadmissionpolicybindings,\
                         mutatingadmissionpolicies,mutatingwebhookconfigurations,validatingwebhookconfigurations";
        self.kubectl(&format!("delete {admission} --selector scenario"))
            .await?;
        self.kubectl("delete configmap eci-profile --namespace kube-system --ignore-not-found")
            .await?;
        self.kubectl(&format!(
            "delete configmap vnp-audit-{} --namespace virtualnodepool-system --ignore-not-found",
            self.name()
        ))
        .await?;
        Ok(())
    }

    /// All objects of a kind, finalizers or not. A kind that is not installed has none.
    async fn remove_all(&self, kind: &str, namespace: Option<&str>) -> Result<()> {
        let scope = namespace
            .map(|namespace| format!("--namespace {namespace}"))
            .unwrap_or_default();
        let Ok(names) = self.kubectl(&format!("get {kind} {scope} --output name")).await else {
            return Ok(());
        };
        for name in names.lines() {
            self.kubectl(&format!("delete {name} {scope} --wait=false --ignore-not-found"))
                .await?;
            let patched = self
                .kubectl(&format!(
                    r#"patch {name} {scope} --type merge --patch {{"metadata":{{"finalizers":null}}}}"#
                ))
                .await;
            ensure!(
                patched
                    .as_ref()
                    .map_or_else(|error| error.to_string().contains("NotFound"), |_| true),
                "{name} keeps its finalizers: {patched:?}"
            );
        }
        Ok(())
    }
}
