//! One task per pod bound to the node.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Change, Feed};

/// A pod as the task that runs it sees it: always its newest version.
#[derive(Clone, Debug)]
pub(crate) struct TrackedPod {
    /// The last version that was seen; the sender is dropped when the object is gone.
    versions: watch::Receiver<Arc<Pod>>,
}

impl TrackedPod {
    pub(crate) fn latest(&self) -> Arc<Pod> {
        Arc::clone(&self.versions.borrow())
    }

    /// Returns when somebody has asked for the pod's deletion, or the object is gone.
    pub(crate) async fn deletion_requested(&mut self) {
        // An error means that the object is gone.
        self.versions
            .wait_for(|pod| pod.metadata.deletion_timestamp.is_some())
            .await
            .ok();
    }

    /// Whether the object is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.versions.has_changed().is_err()
    }
}

/// Runs `work` for every pod bound to `node`, until it is dropped; then all of them end at once.
pub(crate) async fn run_pods<F>(feed: &Feed<Pod>, node: &str, work: impl Fn(TrackedPod) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut changes = feed.subscribe(node);
    let mut versions: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(Change::Applied(pod)) => {
                    let Some(uid) = pod.uid() else { continue };
                    if let Some(sender) = versions.get(&uid) {
                        sender.send_replace(pod);
                    } else {
                        let (sender, receiver) = watch::channel(pod);
                        versions.insert(uid, sender);
                        tasks.spawn(work(TrackedPod { versions: receiver }));
                    }
                }
                Some(Change::Deleted(pod)) => {
                    versions.remove(&pod.uid().unwrap_or_default());
                }
                None => return,
            },
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!("a pod of {node} is not run any more: {error}");
                }
            }
        }
    }
}
