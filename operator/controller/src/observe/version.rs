//! Which Kubernetes this is. A control plane is upgraded now and then, so it is asked again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::sleep;

use super::cluster::Cluster;
use crate::runtime::jitter::spread;

const ASK_AGAIN: Duration = Duration::from_secs(30 * 60);
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// The version as the API server told it last.
#[derive(Debug, Default)]
pub struct KubernetesVersion(Mutex<Option<String>>);

impl KubernetesVersion {
    /// As `v1.37.2`; empty when the API server did not tell it, `None` while it was not asked.
    pub fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There was no answer. What was told before still holds.
    fn untold(&self) -> bool {
        self.known().is_none() && self.learn(String::new())
    }

    fn learn(&self, version: String) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.as_ref() != Some(&version);
        *known = Some(version);
        new
    }
}

/// Asks for ever. Nothing waits for the answer: only warnings depend on it.
pub async fn follow(client: Client, cluster: Arc<Cluster>) {
    loop {
        let wait = match client.apiserver_version().await {
            Ok(version) => {
                if cluster.kubernetes.learn(version.git_version) {
                    cluster.wake_all();
                }
                ASK_AGAIN
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the version of Kubernetes is not known"
                );
                if cluster.kubernetes.untold() {
                    cluster.wake_all();
                }
                AFTER_FAILURE
            }
        };
        sleep(spread(wait, 0.2)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_apart_from_not_asked_and_forgets_nothing() {
        let version = KubernetesVersion::default();
        assert_eq!(version.known(), None);
        assert!(version.untold() && !version.untold());
        assert_eq!(version.known().as_deref(), Some(""));
        assert!(version.learn("v1.37.2".to_owned()) && !version.untold());
        assert_eq!(version.known().as_deref(), Some("v1.37.2"));
    }
}
