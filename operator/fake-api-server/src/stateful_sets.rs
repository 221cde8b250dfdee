//! The StatefulSet controller (kubernetes 1.37 `pkg/controller/statefulset`), for worlds around this server: both
//! podManagementPolicies, ordinals, RollingUpdate with partition and maxUnavailable, OnDelete. Volumes, minReadySeconds and
//! Recreate are not there. [`conformance::stateful_sets`](crate::conformance::stateful_sets) compares it with the real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::world::Actor;

const SETS: &str = "statefulsets.apps";
/// Label of a pod that names the template it was made from.
const REVISION: &str = "controller-revision-hash";

/// The controller. It remembers templates, as ControllerRevisions do.
#[derive(Debug, Default)]
pub struct StatefulSets {
    templates: BTreeMap<String, Value>,
}

/// One StatefulSet in one look.
struct Sync<'a> {
    actor: &'a Actor,
    set: &'a Value,
    templates: &'a BTreeMap<String, Value>,
    current: String,
    update: String,
    ordered: bool,
    partition: usize,
}

impl StatefulSets {
    /// One look at all StatefulSets.
    pub fn control(&mut self, actor: &Actor) {
        for set in actor.list(SETS, "") {
            self.sync(actor, &set);
        }
    }

    fn sync(&mut self, actor: &Actor, set: &Value) {
        let update = revision(set);
        self.templates
            .insert(update.clone(), set["spec"]["template"].clone());
        let told = text(set, "/status/currentRevision");
        let known = self.templates.contains_key(told);
        let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
        let sync = Sync {
            actor,
            set,
            templates: &self.templates,
            current: if known { told.to_owned() } else { update.clone() },
            update,
            ordered: text(set, "/spec/podManagementPolicy") != "Parallel",
            partition: count(&rolling["partition"]),
        };
        if set["metadata"]["deletionTimestamp"].is_null() {
            sync.adopt();
            sync.act();
        }
        sync.report();
    }
}

impl Sync<'_> {
    fn namespace(&self) -> &str {
        text(self.set, "/metadata/namespace")
    }

    fn start(&self) -> usize {
        count(&self.set["spec"]["ordinals"]["start"])
    }

    fn replicas(&self) -> usize {
        count(&self.set["spec"]["replicas"])
    }

    fn ordinal(&self, pod: &Value) -> Option<usize> {
        let rest = text(pod, "/metadata/name").strip_prefix(text(self.set, "/metadata/name"))?;
        rest.strip_prefix('-')?.parse().ok()
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        let mut pods = self.actor.list("pods", self.namespace());
        let uid = &self.set["metadata"]["uid"];
        pods.retain(|p| p["metadata"]["ownerReferences"][0]["uid"] == *uid && self.ordinal(p).is_some());
        pods
    }

    /// Takes pods that fit its selector and its names, and belong to nobody.
    fn adopt(&self) {
        let labels = self.set["spec"]["selector"]["matchLabels"].as_object();
        for pod in self.actor.list("pods", self.namespace()) {
            let meta = &pod["metadata"];
            let orphan = meta["ownerReferences"].as_array().is_none_or(Vec::is_empty);
            let fits = labels.is_some_and(|all| all.iter().all(|(k, v)| meta["labels"][k] == *v));
            if orphan && fits && meta["deletionTimestamp"].is_null() && self.ordinal(&pod).is_some() {
                let name = text(&pod, "/metadata/name");
                self.actor.edit("pods", self.namespace(), name, |pod| {
                    pod["metadata"]["ownerReferences"] = self.owner_reference();
                });
            }
        }
    }

    /// `updateStatefulSet`: makes what lacks, deletes what is too many, then what is out of date.
    fn act(&self) {
        let pods = self.pods();
        let range = self.start()..self.start() + self.replicas();
        let of = |n: usize| pods.iter().find(|p| self.ordinal(p) == Some(n));
        let living: Vec<Option<&Arc<Value>>> = range.clone().map(of).collect();
        for (ordinal, pod) in range.clone().zip(&living) {
            match pod {
                None => {
                    self.make(ordinal);
                    if self.ordered {
                        return;
                    }
                }
                Some(pod) if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") => {
                    self.delete(pod);
                    if self.ordered {
                        return;
                    }
                }
                Some(pod) if self.ordered && !available(pod) => return,
                Some(_) => {}
            }
        }
        let mut condemned: Vec<&Arc<Value>> = pods
            .iter()
            .filter(|p| self.ordinal(p).is_some_and(|n| !range.contains(&n)))
            .collect();
        condemned.sort_by_key(|p| std::cmp::Reverse(self.ordinal(p)));
        let unwell = condemned.iter().rev().find(|p| !available(p)).copied();
        for pod in condemned {
            // One after the other, and the one that is not well itself before all.
            let waits = going(pod) || (!ready(pod) && !unwell.is_some_and(|other| Arc::ptr_eq(other, pod)));
            if self.ordered {
                if !waits {
                    self.delete(pod);
                }
                return;
            }
            self.delete(pod);
        }
        if text(self.set, "/spec/updateStrategy/type") != "OnDelete" {
            self.roll(&living);
        }
    }

    /// `updateStatefulSetAfterInvariantEstablished`, with feature MaxUnavailableStatefulSet, on by default since 1.37.
    fn roll(&self, living: &[Option<&Arc<Value>>]) {
        let limit = self.max_unavailable();
        let away = living.iter().filter(|p| !p.is_some_and(|p| available(p))).count();
        let mut room = limit.saturating_sub(away);
        let outdated = || {
            let old = living.iter().skip(self.partition).rev().flatten();
            old.filter(|p| self.revision_of(p) != self.update && !going(p))
        };
        if !self.ordered {
            // What is away already costs nothing.
            outdated().filter(|p| !ready(p)).for_each(|p| self.delete(p));
        }
        for pod in outdated().filter(|p| self.ordered || available(p)) {
            if room == 0 {
                return;
            }
            room -= 1;
            self.delete(pod);
        }
    }

    /// As a number, or as a share of the replicas that is rounded down; at least 1.
    fn max_unavailable(&self) -> usize {
        let limit = &self.set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
        let share = limit
            .as_str()
            .and_then(|t| t.trim_end_matches('%').parse::<usize>().ok());
        let limit = match share {
            Some(share) => self.replicas() * share / 100,
            None => count(limit),
        };
        limit.max(1)
    }

    /// Makes a pod: below the partition from the template that was current before.
    fn make(&self, ordinal: usize) {
        let rolls = !self.set["spec"]["updateStrategy"]["rollingUpdate"].is_null();
        let old = rolls && ordinal < self.start() + self.partition;
        let revision = if old { &self.current } else { &self.update };
        let template = &self.templates[revision];
        let name = format!("{}-{ordinal}", text(self.set, "/metadata/name"));
        let mut meta = template["metadata"].clone();
        meta["name"] = json!(name);
        meta["namespace"] = self.set["metadata"]["namespace"].clone();
        meta["ownerReferences"] = self.owner_reference();
        meta["labels"][REVISION] = json!(revision);
        meta["labels"]["statefulset.kubernetes.io/pod-name"] = json!(name);
        meta["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]});
        // The next look tries again.
        self.actor.create("pods", self.namespace(), body).ok();
    }

    fn delete(&self, pod: &Value) {
        if !going(pod) {
            let (namespace, name) = (self.namespace(), text(pod, "/metadata/name"));
            self.actor.delete("pods", namespace, name, json!({})).ok();
        }
    }

    fn revision_of<'p>(&self, pod: &'p Value) -> &'p str {
        pod["metadata"]["labels"][REVISION].as_str().unwrap_or_default()
    }

    fn owner_reference(&self) -> Value {
        json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": self.set["metadata"]["name"], "uid": self.set["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }])
    }

    fn report(&self) {
        let pods = self.pods();
        let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| f(p)).count();
        let (replicas, ready) = (pods.len(), count(&ready));
        let updated = count(&|p| !going(p) && self.revision_of(p) == self.update);
        let mut current = count(&|p| !going(p) && self.revision_of(p) == self.current);
        let mut revision = &self.current;
        if [updated, ready, replicas] == [self.replicas(); 3] {
            (current, revision) = (updated, &self.update);
        }
        let mut status = json!({
            "observedGeneration": self.set["metadata"]["generation"], "replicas": replicas, "availableReplicas": ready,
            "updateRevision": self.update, "currentRevision": revision, "collisionCount": 0,
        });
        // Zeros are left out.
        for (field, count) in [
            ("readyReplicas", ready),
            ("currentReplicas", current),
            ("updatedReplicas", updated),
        ] {
            if count > 0 {
                status[field] = json!(count);
            }
        }
        if self.set["status"] != status {
            let name = text(self.set, "/metadata/name");
            let write = |set: &mut Value| set["status"] = status;
            self.actor.edit(SETS, self.namespace(), name, write);
        }
    }
}

/// A name for the template, as the controller gives to each ControllerRevision.
fn revision(set: &Value) -> String {
    let mut template = set["spec"]["template"].clone();
    template.sort_all_objects();
    let text_of = template.to_string();
    let sum = text_of
        .bytes()
        .fold(5381_u32, |sum, b| sum.wrapping_mul(33) ^ u32::from(b));
    format!("{}-{sum:08x}", text(set, "/metadata/name"))
}

fn going(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Running, with condition Ready.
fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    text(pod, "/status/phase") == "Running"
        && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn available(pod: &Value) -> bool {
    ready(pod) && !going(pod)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn count(value: &Value) -> usize {
    value
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or_default()
}
