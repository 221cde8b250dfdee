//! As much of an API server and a StatefulSet controller as the tests of this module need: steps act on an [`Observed`],
//! and a tick lets provider pods follow the template.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use vnp_crds::{FIELD_MANAGER, VirtualNodePool};

use super::{DrainState, plan_workload, remember, roll_in_step};
use crate::accept::accept;
use crate::observed::{Observed, Ordinal, SavedCopy, UpdateStrategy, Workload, WorkloadSeen};
use crate::plan::Part;
use crate::step::Step;
use crate::testing;

/// An image under which no provider gets healthy.
pub(super) const BROKEN: &str = "registry.example/virtual-nodes-eci:broken";

pub(super) struct Server {
    pub(super) seen: Observed,
    pub(super) draining: DrainState,
    pub(super) now: Timestamp,
    /// Provider pods that were started, by ordinal, in order.
    pub(super) started: Vec<Ordinal>,
    /// All steps that were carried out.
    pub(super) log: Vec<Step>,
    /// Most providers that were not healthy at one time, since last reset.
    pub(super) most_down: usize,
    serial: u32,
}

impl Server {
    /// A pool and its workload, `None` when it has to be made, with all its providers running.
    pub(super) fn new(pool: VirtualNodePool, workload: Option<Value>) -> Self {
        let mut seen = testing::observed(pool, 0);
        seen.workload = workload.map_or(WorkloadSeen::Absent, |raw| Workload::new(raw).into());
        let mut server = Self {
            seen,
            draining: DrainState::default(),
            now: testing::now(),
            started: Vec::new(),
            log: Vec::new(),
            most_down: 0,
            serial: 0,
        };
        server.controller();
        server.settle();
        server.started.clear();
        server.most_down = 0;
        server
    }

    pub(super) fn set_pool(&mut self, pool: VirtualNodePool) {
        let status = self.seen.pool.status.clone();
        self.seen.pool = Arc::new(VirtualNodePool { status, ..pool });
    }

    pub(super) fn workload(&self) -> &Workload {
        self.seen.workload.there().unwrap()
    }

    /// Somebody else writes the workload.
    pub(super) fn meddle(&mut self, change: impl FnOnce(&mut Value)) {
        let mut raw = self.workload().raw.clone();
        change(&mut raw);
        self.store(raw);
    }

    pub(super) fn plan(&self) -> Part {
        let target = crate::target::target(&self.seen);
        plan_workload(&self.seen, &accept(&self.seen), target, &self.draining, self.now)
    }

    /// One pass: plan, then the first `most` steps, as if the process died after them.
    pub(super) fn pass(&mut self, most: usize) -> Part {
        self.seen.recall = remember(&self.seen, self.now);
        let part = self.plan();
        let drainable = !roll_in_step(&self.seen, self.now);
        assert!(drainable || !self.draining.busy || self.seen.template_copy.is_some());
        for step in part.steps.iter().take(most) {
            if !self.execute(step) {
                break;
            }
        }
        part
    }

    /// Passes and ticks until nothing is planned any more; the passes it took.
    pub(super) fn run(&mut self) -> usize {
        for pass in 0..400 {
            let part = self.pass(usize::MAX);
            let still = !self.tick();
            if part.steps.is_empty() && still {
                match part.wake_at {
                    Some(at) if at > self.now => self.pause(at.duration_since(self.now)),
                    Some(_) => {}
                    None => return pass,
                }
            }
        }
        panic!("it does not come to rest: {:?}", self.plan().steps);
    }

    /// Passes and ticks until it is so.
    pub(super) fn until(&mut self, so: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            if so(self) {
                return;
            }
            self.pass(usize::MAX);
            self.tick();
        }
        panic!("it never comes to that: {:?}", self.plan().steps);
    }

    pub(super) fn pause(&mut self, time: SignedDuration) {
        self.now += time;
        self.beat();
    }

    /// The StatefulSet controller and the providers do one thing each; false when there is nothing to do.
    pub(super) fn tick(&mut self) -> bool {
        self.now += SignedDuration::from_secs(1);
        let moved = self.controller();
        self.beat();
        let down = self.down();
        self.most_down = self.most_down.max(down);
        let settled = self.settle();
        moved || settled
    }

    fn down(&self) -> usize {
        let Some(workload) = self.seen.workload.there() else {
            return 0;
        };
        workload
            .ordinals()
            .filter(|o| {
                self.seen
                    .provider_pods
                    .get(o)
                    .is_none_or(|p| !p.ready || p.deleting)
            })
            .count()
    }

    fn revision(template: &Value) -> String {
        format!("rev-{}", super::desired::digest(template))
    }

    fn image_of(template: &Value) -> Vec<&str> {
        let containers = template.pointer("/spec/containers").and_then(Value::as_array);
        containers
            .into_iter()
            .flatten()
            .filter_map(|c| c["image"].as_str())
            .collect()
    }

    /// Heartbeats of running providers.
    fn beat(&mut self) {
        for (ordinal, pod) in &self.seen.provider_pods {
            if let Some(node) = self.seen.nodes.get_mut(ordinal).filter(|_| pod.ready) {
                let node = Arc::make_mut(node);
                let beat = node.heartbeat.as_mut().unwrap();
                beat.seen_at = self.now;
                beat.beats += 1;
            }
        }
    }

    fn controller(&mut self) -> bool {
        let Some(workload) = self.seen.workload.there().cloned() else {
            return false;
        };
        if workload.deleting() {
            return false;
        }
        let update = Self::revision(workload.template());
        let current = workload
            .raw
            .pointer("/status/currentRevision")
            .and_then(Value::as_str)
            .unwrap_or(&update)
            .to_owned();
        let generation = workload.raw["metadata"]["generation"].clone();
        let mut status = json!({
            "observedGeneration": generation, "updateRevision": update, "currentRevision": current,
        });
        let all = |s: &Self, revision: &str| {
            workload.ordinals().all(|o| {
                s.seen
                    .provider_pods
                    .get(&o)
                    .is_some_and(|p| p.ready && p.revision == revision)
            })
        };
        if all(self, &update) {
            status["currentRevision"] = json!(update);
        }
        let mut moved = workload.raw["status"] != status;
        if moved {
            let mut raw = workload.raw.clone();
            raw["status"] = status;
            self.store(raw);
        }
        let rolling = workload.update_strategy() == UpdateStrategy::RollingUpdate;
        let first = workload.start_ordinal()
            + if rolling {
                workload.partition().unwrap_or(0)
            } else {
                i32::MAX / 2
            };
        for ordinal in workload.ordinals() {
            if !self.seen.provider_pods.contains_key(&ordinal) {
                let revision = if rolling && ordinal < first {
                    &current
                } else {
                    &update
                };
                self.start(ordinal, revision, &workload);
                moved = true;
            }
        }
        self.seen
            .provider_pods
            .retain(|o, _| workload.ordinals().contains(o));
        for ordinal in workload.ordinals().rev().filter(|o| *o >= first) {
            let pod = &self.seen.provider_pods[&ordinal];
            if pod.revision != update {
                self.seen.provider_pods.remove(&ordinal);
                return true;
            }
            if !pod.ready {
                break;
            }
        }
        moved
    }

    fn start(&mut self, ordinal: Ordinal, revision: &str, workload: &Workload) {
        self.serial += 1;
        self.started.push(ordinal);
        let mut pod = testing::provider_pod(ordinal);
        pod.uid = format!("provider-{ordinal}-{}", self.serial);
        pod.revision = revision.to_owned();
        pod.ready = false;
        pod.owner_uids = vec![workload.uid().to_owned()];
        // Only the newest template can be a broken one: the tests start with one that works.
        let broken = revision == Self::revision(workload.template())
            && Self::image_of(workload.template()).contains(&BROKEN);
        if broken {
            pod.images.insert("provider".to_owned(), BROKEN.to_owned());
        }
        let beats = self
            .seen
            .nodes
            .get(&ordinal)
            .and_then(|n| n.heartbeat.as_ref())
            .map_or(0, |b| b.beats);
        self.seen
            .memory
            .entry(ordinal)
            .or_default()
            .see_provider(&pod.uid, beats);
        self.seen.provider_pods.insert(ordinal, Arc::new(pod));
    }

    /// Providers that were just started get ready, and register their Nodes.
    fn settle(&mut self) -> bool {
        let mut moved = false;
        for (ordinal, pod) in &mut self.seen.provider_pods {
            if !pod.ready && pod.images.is_empty() {
                Arc::make_mut(pod).ready = true;
                self.seen.nodes.entry(*ordinal).or_insert_with(|| {
                    let mut node = testing::node(*ordinal);
                    node.heartbeat.as_mut().unwrap().beats = 0;
                    Arc::new(node)
                });
                moved = true;
            }
        }
        if moved {
            self.beat();
        }
        moved
    }

    fn store(&mut self, mut raw: Value) {
        self.serial += 1;
        let before = self.seen.workload.there().map_or(Value::Null, |w| w.raw.clone());
        raw["metadata"]["resourceVersion"] = json!(format!("{}", 1000 + self.serial));
        if before["spec"] != raw["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            raw["metadata"]["generation"] = json!(generation + 1);
        }
        let workload = Workload::new(raw);
        let gone = workload.deleting() && workload.finalizers().is_empty();
        self.seen.workload = if gone {
            WorkloadSeen::Absent
        } else {
            workload.into()
        };
    }

    /// One write; false when the server refuses it.
    pub(super) fn execute(&mut self, step: &Step) -> bool {
        self.log.push(step.clone());
        match step {
            Step::CreateWorkload { body } => {
                if self.seen.workload.there().is_some() {
                    return false;
                }
                let mut raw = body.clone();
                raw["metadata"]["uid"] = json!(format!("workload-{}", self.serial));
                if raw.pointer("/spec/updateStrategy").is_none() {
                    raw["spec"]["updateStrategy"] =
                        json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } });
                }
                self.store(raw);
            }
            Step::ApplyWorkload { body, .. } => {
                let workload = self.workload();
                assert_eq!(body["metadata"]["uid"], workload.uid());
                assert!(body.pointer("/spec/replicas").is_none());
                if body["metadata"]["resourceVersion"] != workload.resource_version() {
                    return false;
                }
                let raw = applied(&workload.raw, body);
                self.store(raw);
            }
            Step::PatchWorkload(patch) => {
                let mut raw = self.workload().raw.clone();
                if json_patch::patch(&mut raw, &patch.patch).is_err() {
                    return false;
                }
                self.store(raw);
            }
            Step::DeleteWorkload { uid } => {
                assert_eq!(uid, self.workload().uid());
                self.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
            }
            Step::SaveCopy { name, content } => {
                let copy = if name.starts_with("vnp-restore-") {
                    &mut self.seen.restore_copy
                } else {
                    &mut self.seen.template_copy
                };
                if copy.is_some() {
                    return false;
                }
                self.serial += 1;
                *copy = Some(SavedCopy {
                    name: name.clone(),
                    uid: format!("secret-{}", self.serial),
                    content: content.clone(),
                });
            }
            Step::DropCopy { name, uid } => {
                let copy = if name.starts_with("vnp-restore-") {
                    &mut self.seen.restore_copy
                } else {
                    &mut self.seen.template_copy
                };
                assert_eq!(copy.take().map(|c| c.uid).as_ref(), Some(uid));
            }
            Step::OrphanProviderPod { pod, uid, owner_uid } => {
                let found = self
                    .seen
                    .provider_pods
                    .values_mut()
                    .find(|p| p.key == *pod)
                    .unwrap();
                assert_eq!(found.uid, *uid);
                Arc::make_mut(found).owner_uids.retain(|o| o != owner_uid);
            }
            Step::DeleteProviderPod { pod, uid, .. } => {
                let ordinal = self
                    .seen
                    .provider_pods
                    .iter()
                    .find(|(_, p)| p.key == *pod && p.uid == *uid)
                    .map(|(o, _)| *o);
                self.seen.provider_pods.remove(&ordinal.unwrap());
            }
            other => panic!("not a step of the workload: {other:?}"),
        }
        true
    }
}

/// What `fieldsV1` says about a body: objects field by field, lists with names by name, all others as a whole.
fn fields(body: &Value) -> Value {
    match body {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (format!("f:{k}"), fields(v)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) if !items.is_empty() && items.iter().all(|i| i.get("name").is_some()) => items
            .iter()
            .map(|i| (format!("k:{}", json!({ "name": i["name"] })), fields(i)))
            .collect::<Map<_, _>>()
            .into(),
        _ => json!({}),
    }
}

/// Server-side apply, forced, as one manager.
fn applied(live: &Value, body: &Value) -> Value {
    let mut fresh = body.clone();
    let metadata = fresh["metadata"].as_object_mut().unwrap();
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        metadata.shift_remove(key);
    }
    let fresh = json!({ "metadata": fresh["metadata"], "spec": fresh["spec"] });
    let before = super::owned::applied(&Workload::new(live.clone()))
        .cloned()
        .unwrap_or_else(|| json!({ "f:none": {} }));
    let mut raw = live.clone();
    drop_missing(&mut raw, &before, &fields(&fresh));
    put(&mut raw, &fresh);
    raw["metadata"]["managedFields"] =
        json!([{ "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields(&fresh) }]);
    raw
}

fn drop_missing(live: &mut Value, before: &Value, after: &Value) {
    let keys: Vec<String> = before
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .cloned()
        .collect();
    for key in keys {
        let stays = after.get(&key);
        match (key.split_once(':'), &mut *live) {
            (Some(("f", name)), Value::Object(map)) => match (stays, map.get_mut(name)) {
                (Some(after), Some(child)) => drop_missing(child, &before[&key], after),
                (None, Some(_)) => {
                    map.shift_remove(name);
                }
                _ => {}
            },
            (Some(("k", name)), Value::Array(items)) => {
                let name: Value = serde_json::from_str(name).unwrap();
                match stays {
                    Some(after) => {
                        for item in items.iter_mut().filter(|i| i["name"] == name["name"]) {
                            drop_missing(item, &before[&key], after);
                        }
                    }
                    None => items.retain(|i| i["name"] != name["name"]),
                }
            }
            _ => {}
        }
    }
}

fn put(live: &mut Value, body: &Value) {
    match (live, body) {
        (Value::Object(live), Value::Object(body)) => {
            for (key, value) in body {
                put(live.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(live), Value::Array(body)) if body.iter().all(|i| i.get("name").is_some()) => {
            for item in body {
                match live.iter_mut().find(|i| i["name"] == item["name"]) {
                    Some(there) => put(there, item),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, body) => *live = body.clone(),
    }
}
