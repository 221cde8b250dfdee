//! A small cluster around one pool: what people, controllers and providers do to it, what a pass makes of that, and which
//! of the writes get through.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;
use vnp_plan::accept::accept;
use vnp_plan::drain::memory::DrainMemory;
use vnp_plan::observed::{
    Blind, CordonOwner, Finalizer, Heartbeat, NodeView, ObjectKey, Observed, OperatorFacts, Ordinal,
    ProviderPod, SavedCopy, Term, Workload, WorkloadSeen,
};
use vnp_plan::plan::{Plan, TrackKind};
use vnp_plan::profile::{ClusterObserved, PoolInCluster, plan_profile};
use vnp_plan::proof::{ListAnswer, LiveFacts, QuorumList};
use vnp_plan::step::{PatchPurpose, Step};

use super::objects::{NAME, PROVIDERS, managed, pod, workload};
use super::turns::{Fate, Seen, Turn};
use crate::report::attempts::{Attempts, RefusedWrite};
use crate::report::testing::{Story, at, pool};

/// Ordinals of which something may be there.
pub(super) const ORDINALS: std::ops::Range<Ordinal> = 0..5;

/// The cluster, and what the operator has said of it so far.
pub(super) struct Life {
    pub(super) story: Story,
    pub(super) seconds: i64,
    refuses: Option<TrackKind>,
    stuck: bool,
    /// The workload while it can't be seen.
    unseen: Option<Workload>,
    made: u32,
}

/// One pass: what it saw, what it planned, and what came of that.
pub(super) struct Passed {
    pub(super) seen: Observed,
    pub(super) plan: Plan,
    pub(super) refused: Vec<RefusedWrite>,
    pub(super) done: Vec<Step>,
    pub(super) now: Timestamp,
}

impl Passed {
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            done: self.done.iter().collect(),
            refused: self.refused.clone(),
        }
    }
}

impl Life {
    /// A pool of three healthy nodes.
    pub(super) fn new(management: &str, start: Ordinal) -> Self {
        let overlay = json!({
            "metadata": { "finalizers": [vnp_crds::FINALIZER], "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "provider": { "management": management },
                      "drain": { "cordonSettleSeconds": 5, "emptySettleSeconds": 5 } },
        });
        let mut story = Story::of(pool(overlay));
        story.observed.operator = OperatorFacts {
            provider_namespaces: vec![PROVIDERS.to_owned()],
            namespace: "virtualnodepool-system".to_owned(),
            leading_since: at(-600),
            ..OperatorFacts::default()
        };
        story.observed.audit = Some(Arc::default());
        story.observed.workload = workload().into();
        let mut life = Self {
            story,
            seconds: 0,
            refuses: None,
            stuck: false,
            unseen: None,
            made: 0,
        };
        with_workload(&mut life.story.observed, |raw| {
            raw["spec"]["ordinals"] = json!({ "start": start });
        });
        life.take(&Turn::Leader(0));
        life.take(&Turn::Wait(1));
        life
    }

    pub(super) fn take(&mut self, turn: &Turn) {
        let seen = &mut self.story.observed;
        match turn {
            Turn::Wait(seconds) => self.wait(*seconds),
            Turn::Edit(patch) => edit(seen, &serde_json::from_str(patch).unwrap()),
            Turn::Replicas(count) => edit(seen, &json!({ "spec": { "replicas": count } })),
            Turn::Delete => edit(
                seen,
                &json!({ "metadata": { "deletionTimestamp": "2027-01-15T08:00:00Z" } }),
            ),
            Turn::Scale(count) => {
                with_workload(seen, |raw| {
                    raw["spec"]["replicas"] = json!(count);
                    raw["metadata"]["managedFields"] = managed("kubectl-scale");
                });
            }
            Turn::Relabel(label) => {
                with_workload(seen, |raw| {
                    raw["metadata"]["labels"][vnp_crds::POOL_LABEL] = json!(label);
                });
            }
            Turn::Workload(as_seen) => self.see(*as_seen),
            Turn::Bind(ordinal, kind) => {
                self.made += 1;
                let pod = pod(self.made, *kind, self.seconds);
                let pods = seen.bound.entry(*ordinal).or_default();
                Arc::make_mut(pods).push(pod);
            }
            Turn::Gone(ordinal) => drop(seen.bound.remove(ordinal)),
            Turn::Node(ordinal, fate) => self.node(*ordinal, *fate),
            Turn::Provider(ordinal, fate) => self.provider(*ordinal, *fate),
            Turn::Uncordon(ordinal) => set_cordon(seen, *ordinal, None),
            Turn::Refuse(track) => self.refuses = *track,
            Turn::Stuck(stuck) => self.stuck = *stuck,
            Turn::Webhook(state) => seen.webhook = state.clone(),
            Turn::Vendor(state) => seen.vendor_webhook = state.clone(),
            Turn::Restart => {
                seen.memory.clear();
                self.story.restart();
            }
            Turn::Leader(leader) => {
                seen.operator.term = Term {
                    transitions: 0,
                    installation: "virtualnodepool-system".to_owned(),
                    leader: format!("leader-{leader}"),
                };
            }
        }
    }

    fn see(&mut self, how: Seen) {
        let seen = &mut self.story.observed;
        if let (Seen::Unknown | Seen::Absent, WorkloadSeen::There(workload)) = (how, &seen.workload) {
            self.unseen = Some((**workload).clone());
        }
        seen.workload = match how {
            Seen::Unknown => WorkloadSeen::Unknown(Blind::Refused("no right".to_owned())),
            Seen::Absent => WorkloadSeen::Absent,
            Seen::Again => match self.unseen.take() {
                Some(workload) => workload.into(),
                None => return,
            },
        };
    }

    /// Controllers and providers keep up, and evicted pods go.
    fn wait(&mut self, seconds: i64) {
        self.seconds += seconds;
        let wanted = match &self.story.observed.workload {
            WorkloadSeen::There(workload) => workload.ordinals(),
            WorkloadSeen::Absent => 0..0,
            WorkloadSeen::Unknown(_) => self.unseen.as_ref().map_or(0..0, Workload::ordinals),
        };
        let seen = &mut self.story.observed;
        seen.provider_pods
            .retain(|o, pod| wanted.contains(o) || !pod.finalizers.is_empty());
        for ordinal in wanted {
            if !self.story.observed.provider_pods.contains_key(&ordinal) {
                self.provider(ordinal, Fate::Anew);
                if !self.story.observed.nodes.contains_key(&ordinal) {
                    self.node(ordinal, Fate::Anew);
                }
            }
        }
        let now = at(self.seconds);
        let seen = &mut self.story.observed;
        for (ordinal, node) in &mut seen.nodes {
            let alive = seen.provider_pods.get(ordinal).is_some_and(|p| p.ready);
            let node = Arc::make_mut(node);
            node.ready = alive && node.taints.is_empty();
            if let Some(beat) = node.heartbeat.as_mut().filter(|_| alive) {
                *beat = Heartbeat {
                    seen_at: now,
                    beats: beat.beats + 1,
                };
            }
        }
        let stuck = self.stuck;
        for (ordinal, pods) in &mut seen.bound {
            let memory = seen.memory.entry(*ordinal).or_default();
            Arc::make_mut(pods).retain(|p| {
                let goes = p.deletion.is_some() && p.finalizers.is_none() && !stuck;
                if goes {
                    memory.see_departure(0, 20.0, now);
                }
                !goes
            });
        }
        seen.bound.retain(|_, pods| !pods.is_empty());
        self.write_profile();
    }

    /// What all pools together ask of the profile, and that is this one.
    fn write_profile(&mut self) {
        let seen = &self.story.observed;
        let (rolled, drained) = (vnp_plan::workload::rolled(seen), vnp_plan::drained(seen));
        let cluster = ClusterObserved {
            pools: vec![PoolInCluster::new(seen, &accept(seen), rolled, drained)],
            profile: seen.profile.clone(),
            ..ClusterObserved::default()
        };
        for step in plan_profile(&cluster).steps {
            self.write(&step);
        }
    }

    fn node(&mut self, ordinal: Ordinal, fate: Fate) {
        self.made += 1;
        let seen = &mut self.story.observed;
        let name = format!("{NAME}-{ordinal}");
        let anew = NodeView {
            uid: format!("node-{ordinal}-{}", self.made),
            labels: [("type".to_owned(), "virtual-kubelet".to_owned())].into(),
            ready: true,
            allocatable: [("pods".to_owned(), 1000)].into(),
            heartbeat: Some(Heartbeat {
                seen_at: at(self.seconds),
                beats: 1,
            }),
            resource_version: "1".to_owned(),
            name,
            ..NodeView::default()
        };
        match fate {
            Fate::Gone => drop(seen.nodes.remove(&ordinal)),
            Fate::Anew => drop(seen.nodes.insert(ordinal, Arc::new(anew))),
            Fate::Sick => with_node(seen, ordinal, |n| n.ready = false),
            Fate::Held => with_node(seen, ordinal, |n| {
                n.finalizers = vec![Finalizer {
                    name: "example.com/held".to_owned(),
                    manager: None,
                }];
            }),
        }
    }

    fn provider(&mut self, ordinal: Ordinal, fate: Fate) {
        self.made += 1;
        let seen = &mut self.story.observed;
        let revision = seen
            .workload
            .there()
            .and_then(|w| w.update_revision().map(str::to_owned))
            .unwrap_or_default();
        let anew = ProviderPod {
            key: ObjectKey {
                namespace: PROVIDERS.to_owned(),
                name: format!("{NAME}-{ordinal}"),
            },
            uid: format!("provider-{ordinal}-{}", self.made),
            ready: true,
            revision,
            created: Some(at(self.seconds)),
            owner_uids: vec!["uid-sts".to_owned()],
            ..ProviderPod::default()
        };
        let change = |seen: &mut Observed, change: &dyn Fn(&mut ProviderPod)| {
            seen.provider_pods
                .entry(ordinal)
                .and_modify(|pod| change(Arc::make_mut(pod)));
        };
        match fate {
            Fate::Gone => drop(seen.provider_pods.remove(&ordinal)),
            Fate::Anew => drop(seen.provider_pods.insert(ordinal, Arc::new(anew))),
            Fate::Sick => change(seen, &|p| p.ready = false),
            Fate::Held => change(seen, &|p| p.finalizers = vec!["example.com/held".to_owned()]),
        }
    }

    /// One pass. Its writes happen unless they are refused; its status is not written yet.
    pub(super) fn pass(&mut self) -> Passed {
        let now = at(self.seconds) + SignedDuration::from_millis(400);
        remember(&mut self.story.observed, now);
        let mut seen = self.story.observed.clone();
        let mut plan = vnp_plan::plan(&seen, now);
        if !plan.reads.is_empty() {
            for ordinal in plan.reads.clone() {
                let live = live(&seen, ordinal, now);
                seen.live.insert(ordinal, live);
            }
            plan = vnp_plan::plan(&seen, now);
        }
        self.follow(&plan);
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for track in &plan.tracks {
            if self.refuses == Some(track.kind) {
                refused.push(RefusedWrite {
                    track: track.kind,
                    message: "the API server refuses it: no".to_owned(),
                });
                continue;
            }
            let mut steps = track.steps.iter().take_while(|step| self.write(step));
            done.extend(steps.by_ref().cloned());
        }
        Passed {
            seen,
            plan,
            refused,
            done,
            now,
        }
    }

    /// What is remembered of the plan, and the evictions that it orders.
    fn follow(&mut self, plan: &Plan) {
        let now = at(self.seconds);
        let seen = &mut self.story.observed;
        for ordinal in ORDINALS {
            let memory = seen.memory.entry(ordinal).or_default();
            memory.settle = plan.settles.get(&ordinal).cloned();
            memory.progress = plan.progress.get(&ordinal).copied();
        }
        for order in &plan.orders {
            let Some(pods) = seen.bound.get_mut(&order.ordinal) else {
                continue;
            };
            for pod in Arc::make_mut(pods) {
                if order.pods.iter().any(|c| c.uid == pod.uid) {
                    pod.deletion.get_or_insert(now);
                }
            }
        }
    }

    /// What the API server makes of a step; false when it does not take it.
    fn write(&mut self, step: &Step) -> bool {
        let seen = &mut self.story.observed;
        match step {
            Step::AddPoolFinalizer => edit(
                seen,
                &json!({ "metadata": { "finalizers": [vnp_crds::FINALIZER] } }),
            ),
            Step::Cordon { node, term, .. } => set_cordon(seen, ordinal_of(node), Some(term)),
            Step::Uncordon { node, .. } => set_cordon(seen, ordinal_of(node), None),
            Step::LabelNode { node, pool, .. } => with_node(seen, ordinal_of(node), |n| match pool {
                Some(pool) => drop(n.labels.insert(vnp_crds::POOL_LABEL.to_owned(), pool.clone())),
                None => drop(n.labels.remove(vnp_crds::POOL_LABEL)),
            }),
            Step::DeleteNode { node, .. } => {
                let (ordinal, now) = (ordinal_of(node), at(self.seconds));
                let held = seen.nodes.get(&ordinal).is_some_and(|n| !n.finalizers.is_empty());
                if held {
                    with_node(seen, ordinal, |n| {
                        n.deleting = true;
                        n.deleted_at.get_or_insert(now);
                    });
                } else {
                    seen.nodes.remove(&ordinal);
                }
            }
            Step::PatchWorkload(patch) => {
                let scales = patch.purpose == PatchPurpose::ScaleUp;
                return patch_workload(seen, &patch.patch, scales);
            }
            Step::Shrink(shrink) => return patch_workload(seen, shrink.patch(), true),
            Step::ApplyWorkload { body, .. } => with_workload(seen, |raw| json_patch::merge(raw, body)),
            Step::CreateWorkload { body } => {
                let mut raw = workload().raw;
                json_patch::merge(&mut raw, body);
                seen.workload = Workload::new(raw).into();
            }
            Step::DeleteWorkload { .. } => seen.workload = WorkloadSeen::Absent,
            Step::SaveCopy { name, content } => {
                let copy = Some(SavedCopy {
                    name: name.clone(),
                    uid: "copy".to_owned(),
                    content: content.clone(),
                });
                match name.starts_with("vnp-restore-") {
                    true => seen.restore_copy = copy,
                    false => seen.template_copy = copy,
                }
            }
            Step::DropCopy { name, .. } => match name.starts_with("vnp-restore-") {
                true => seen.restore_copy = None,
                false => seen.template_copy = None,
            },
            Step::DeleteProviderPod { pod, .. } => drop(seen.provider_pods.remove(&ordinal_of(&pod.name))),
            Step::CreateProfile(patch) | Step::PatchProfile(patch) => {
                let profile = seen.profile.as_deref().cloned().unwrap_or_default();
                let mut raw = serde_json::to_value(profile).unwrap();
                json_patch::merge(&mut raw, &patch.body);
                seen.profile = Some(Arc::new(serde_json::from_value(raw).unwrap()));
            }
            _ => {}
        }
        true
    }
}

fn ordinal_of(name: &str) -> Ordinal {
    name.rsplit('-').next().unwrap().parse().unwrap()
}

fn edit(seen: &mut Observed, patch: &Value) {
    let mut raw = serde_json::to_value(&*seen.pool).unwrap();
    json_patch::merge(&mut raw, patch);
    let mut pool: VirtualNodePool = serde_json::from_value(raw).unwrap();
    if patch.get("spec").is_some() {
        pool.metadata.generation = pool.metadata.generation.map(|g| g + 1);
    }
    seen.pool = Arc::new(pool);
}

fn with_workload(seen: &mut Observed, change: impl FnOnce(&mut Value)) {
    if let WorkloadSeen::There(workload) = &seen.workload {
        let mut raw = workload.raw.clone();
        let before = raw["spec"]["template"].clone();
        change(&mut raw);
        let version: u32 = raw["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        raw["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        if raw["spec"]["template"] != before {
            raw["status"]["updateRevision"] = json!(format!("rev-{}", version + 1));
        }
        raw["status"]["readyReplicas"] = raw["spec"]["replicas"].clone();
        seen.workload = Workload::new(raw).into();
    }
}

fn patch_workload(seen: &mut Observed, patch: &json_patch::Patch, scales: bool) -> bool {
    let Some(workload) = seen.workload.there() else {
        return false;
    };
    let mut raw = workload.raw.clone();
    if json_patch::patch(&mut raw, patch).is_err() {
        return false;
    }
    with_workload(seen, |workload| {
        *workload = raw;
        if scales {
            workload["metadata"]["managedFields"] = managed(vnp_crds::FIELD_MANAGER);
        }
    });
    true
}

fn with_node(seen: &mut Observed, ordinal: Ordinal, change: impl FnOnce(&mut NodeView)) {
    if let Some(node) = seen.nodes.get_mut(&ordinal) {
        change(Arc::make_mut(node));
    }
}

fn set_cordon(seen: &mut Observed, ordinal: Ordinal, term: Option<&Term>) {
    with_node(seen, ordinal, |n| {
        n.unschedulable = term.is_some();
        n.cordon_term = term.map(ToString::to_string);
        n.cordon_owner = if term.is_some() {
            CordonOwner::Us
        } else {
            CordonOwner::Nobody
        };
    });
}

/// What the mirrors note of Nodes and providers.
fn remember(seen: &mut Observed, now: Timestamp) {
    for ordinal in ORDINALS {
        let memory: &mut DrainMemory = seen.memory.entry(ordinal).or_default();
        let node = seen.nodes.get(&ordinal);
        if let Some(node) = node.filter(|n| n.uid != memory.node_uid) {
            memory.node_uid.clone_from(&node.uid);
            memory.cordoned_since = None;
            memory.settle = None;
        }
        if let Some(pod) = seen.provider_pods.get(&ordinal) {
            let beats = node.and_then(|n| n.heartbeat.as_ref()).map_or(0, |b| b.beats);
            memory.see_provider(&pod.uid, beats.saturating_sub(1));
        }
        match node.filter(|n| n.holds_our_cordon()) {
            Some(node) if memory.cordon_term == node.cordon_term => {
                memory.cordoned_since.get_or_insert(now);
            }
            Some(node) => {
                memory.cordon_term.clone_from(&node.cordon_term);
                memory.cordoned_since = Some(now);
            }
            None => memory.cordoned_since = None,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "test support")]
fn live(seen: &Observed, ordinal: Ordinal, now: Timestamp) -> LiveFacts {
    let answer = ListAnswer {
        resource_version: Some("1".to_owned()),
        continue_token: None,
        pods: seen.bound.get(&ordinal).map(|p| p.to_vec()).unwrap_or_default(),
    };
    LiveFacts {
        list: QuorumList::complete(now, answer).unwrap(),
        pool: seen.pool.clone(),
        workload: seen.workload.there().cloned(),
        node: seen.nodes.get(&ordinal).cloned(),
        provider_pod: seen.provider_pods.get(&ordinal).cloned(),
        unclaimed: Some(Arc::default()),
    }
}
