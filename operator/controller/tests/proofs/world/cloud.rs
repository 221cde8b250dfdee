//! The cloud account: instances, and a quota for deleting them.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Instances deleted per second beyond the burst.
pub(crate) const DELETES_PER_SECOND: f64 = 5.0;
/// Deletions that go through at once.
pub(crate) const DELETE_BURST: f64 = 4.0;
/// Every so many requests for a deletion is lost: the provider believes that it was made. Measured on real providers.
const LOST: u64 = 4;

/// One container instance. It bills as long as it is here.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// The virtual node that made it.
    pub(crate) node: String,
    /// UID of its pod.
    pub(crate) pod: String,
    deleting: bool,
}

/// The account.
#[derive(Debug)]
pub(crate) struct Cloud {
    instances: BTreeMap<String, Instance>,
    made: u64,
    asked: u64,
    tokens: f64,
    at: Option<Timestamp>,
}

impl Default for Cloud {
    fn default() -> Self {
        Self {
            instances: BTreeMap::new(),
            made: 0,
            asked: 0,
            tokens: DELETE_BURST,
            at: None,
        }
    }
}

impl Cloud {
    /// All instances by id.
    pub(crate) fn instances(&self) -> &BTreeMap<String, Instance> {
        &self.instances
    }

    /// Makes an instance and names it.
    pub(super) fn make(&mut self, node: &str, pod: &str) -> String {
        self.made += 1;
        let id = format!("eci-{:04}", self.made);
        let instance = Instance {
            node: node.to_owned(),
            pod: pod.to_owned(),
            deleting: false,
        };
        self.instances.insert(id.clone(), instance);
        id
    }

    /// A provider asks for the deletion of a pod's instance. Now and then the request is lost.
    pub(super) fn delete(&mut self, pod: &str) {
        self.asked += 1;
        if self.asked.is_multiple_of(LOST) {
            return;
        }
        for instance in self.instances.values_mut().filter(|i| i.pod == pod) {
            instance.deleting = true;
        }
    }

    /// A provider that starts deletes what carries its node's name and has no pod there.
    pub(super) fn reap(&mut self, node: &str, pods: &[String]) {
        for instance in self.instances.values_mut().filter(|i| i.node == node) {
            if !pods.contains(&instance.pod) {
                instance.deleting = true;
            }
        }
    }

    /// Deletes what the quota allows by `now`.
    pub(super) fn work(&mut self, now: Timestamp) {
        let passed = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + passed * DELETES_PER_SECOND).min(DELETE_BURST);
        self.at = Some(now);
        let due: Vec<String> = self
            .instances
            .iter()
            .filter(|(_, i)| i.deleting)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if self.tokens < 1.0 {
                break;
            }
            self.tokens -= 1.0;
            self.instances.remove(&id);
        }
    }
}
