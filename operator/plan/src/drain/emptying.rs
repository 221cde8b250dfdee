//! From "no pod is left" to the write that takes the provider away: fence, first list, settle, second list, proof.
//! Break-glass and ordinals that never came up end in the same write, with proofs of their own.

use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::{Value, json};
use vnp_crds::{DaemonSetPods, DrainPhase, EventReason};

use super::health::ProviderMark;
use super::identity::{self, Trace};
use super::memory::Departures;
use super::settle::Settle;
use super::{DrainPlan, Scene, break_glass, cordon, seconds, signed};
use crate::finding::{EventNote, Finding};
use crate::observed::Ordinal;
use crate::plan::NodeInDrain;
use crate::proof::{Abandoned, Doubt, Empty, Expectation, LiveFacts, NeverCameUp};
use crate::step::{PatchPurpose, Step, WorkloadPatch};
use crate::target::target_of;
use crate::workload::rewritten;

/// Works on the proof that a node without pods is empty.
pub(super) fn advance(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    mark: &ProviderMark,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) {
    entry.phase = DrainPhase::Emptying;
    let Some(fence) = fenced(scene, ordinal, plan) else {
        return;
    };
    if held_off(scene) {
        return;
    }
    let settle = scene.seen.memory.get(&ordinal).and_then(|m| m.settle.clone());
    let Some(settle) = settle.filter(|s| s.holds(&fence, Some(mark))) else {
        return begin(scene, ordinal, fence, Some(mark.clone()), plan);
    };
    let (backlog, beats) = departures(scene, ordinal, entry);
    let not_before = settle.ends_at(signed(scene.settings.empty_settle), backlog, scene.now);
    if scene.now < not_before {
        plan.wake(not_before);
        plan.settles.insert(ordinal, settle);
        return;
    }
    let Some(live) = scene.seen.live.get(&ordinal) else {
        plan.reads.push(ordinal);
        plan.settles.insert(ordinal, settle);
        return;
    };
    let proof = live_target(scene, live).and_then(|target| {
        let expect = Expectation {
            ordinal,
            settle: &settle,
            not_before,
            beats_at_last_departure: beats,
            target,
            term: &scene.seen.operator.term,
            now: scene.now,
        };
        Empty::prove(live, &expect)
    });
    match proof {
        Ok(empty) => {
            entry.phase = DrainPhase::Shrinking;
            plan.steps.push(Step::Shrink(empty.into()));
        }
        Err(Doubt::NoHeartbeatSince) => {
            plan.settles.insert(ordinal, settle);
            plan.wake(scene.now + seconds(1));
        }
        // The settle is void: it starts anew with the next pass.
        Err(_) => plan.wake(scene.now + seconds(1)),
    }
}

/// The count was just lowered, and the API server stored another one. A proof now would be for nothing; when it is time to try
/// again the pass is woken for that.
fn held_off(scene: &Scene<'_>) -> bool {
    let workload = scene.seen.workload.there();
    workload.is_some_and(|w| rewritten::shrink_held_off(&scene.seen.recall, w.replicas()))
}

/// The backlog of the cloud and the heartbeats seen by the last departure. Without memory, everything that ever was on
/// the node counts as gone at the moment this process began to lead.
fn departures(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    entry: &NodeInDrain,
) -> (jiff::SignedDuration, Option<u64>) {
    let rate = f64::from(scene.settings.instance_deletes_per_second);
    match scene.seen.memory.get(&ordinal) {
        Some(m) => (
            m.departures.backlog(rate, scene.now),
            m.departures.last.map(|(_, beats)| beats),
        ),
        None => {
            let pods = scene
                .seen
                .pool
                .status
                .as_ref()
                .and_then(|s| s.pods)
                .unwrap_or(0)
                .max(entry.pods_total);
            let model = Departures::after_restart(
                u32::try_from(pods).unwrap_or(0),
                scene.seen.operator.leading_since,
            );
            (model.backlog(rate, scene.now), None)
        }
    }
}

/// The fence of this drain, when the workload carries it; else asks for it. Only the highest ordinal gets one: a lower
/// one waits, and its lists start when it is the highest.
fn fenced(scene: &Scene<'_>, ordinal: Ordinal, plan: &mut DrainPlan) -> Option<String> {
    if ordinal.checked_add(1) != Some(scene.workload.ordinals().end) || scene.workload.deleting() {
        return None;
    }
    let fence = scene.fence(ordinal, &cordon::fence_uid(scene, ordinal));
    match scene.workload.annotation(vnp_crds::SHRINKING_ANNOTATION) {
        Some(value) if value == fence => Some(fence),
        // A fence of another drain or leader is taken back first, by `cordon::release`.
        Some(_) => None,
        None => {
            plan.steps.push(set_fence(scene, &fence));
            None
        }
    }
}

fn set_fence(scene: &Scene<'_>, fence: &str) -> Step {
    let workload = scene.workload;
    let version = PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: json!(workload.resource_version()),
    });
    let annotations = PointerBuf::from_tokens(["metadata", "annotations"]);
    let add = if workload
        .raw
        .pointer("/metadata/annotations")
        .is_some_and(Value::is_object)
    {
        AddOperation {
            path: annotations.with_trailing_token(vnp_crds::SHRINKING_ANNOTATION),
            value: json!(fence),
        }
    } else {
        AddOperation {
            path: annotations,
            value: json!({ vnp_crds::SHRINKING_ANNOTATION: fence }),
        }
    };
    let patch = Patch(vec![
        cordon::test_uid(workload),
        version,
        PatchOperation::Add(add),
    ]);
    Step::PatchWorkload(WorkloadPatch {
        patch,
        purpose: PatchPurpose::Fence,
        changes: Vec::new(),
    })
}

fn begin(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    fence: String,
    provider: Option<ProviderMark>,
    plan: &mut DrainPlan,
) {
    let Some(live) = scene.seen.live.get(&ordinal) else {
        plan.reads.push(ordinal);
        return;
    };
    let beats = live
        .node
        .as_ref()
        .and_then(|n| n.heartbeat.as_ref())
        .map_or(0, |b| b.beats);
    // What never came up goes without ceremony, so nothing at all may be bound to it.
    let setting = if provider.is_some() {
        live.daemon_set_pods()
    } else {
        DaemonSetPods::Evict
    };
    match Settle::begin(fence, provider, live.list.clone(), beats, setting) {
        Ok(settle) => {
            plan.settles.insert(ordinal, settle);
            plan.wake(scene.now + seconds(1));
        }
        // The cache lags behind: the pod will show.
        Err(_) => plan.wake(scene.now + seconds(1)),
    }
}

/// The target by the pool as read live, or why the live pool does not let anything go.
fn live_target(scene: &Scene<'_>, live: &LiveFacts) -> Result<i32, Doubt> {
    if live.pool.metadata.uid.as_deref() != Some(scene.seen.pool_uid()) || live.pool.is_paused() {
        return Err(Doubt::Changed("the pool"));
    }
    target_of(&live.pool, live.workload.as_deref()).ok_or(Doubt::Wanted)
}

/// The pool's annotation when it gives up this node, and the node may go now.
pub(super) fn declared(scene: &Scene<'_>, ordinal: Ordinal) -> Option<String> {
    let uid = cordon::fence_uid(scene, ordinal);
    let highest = ordinal.checked_add(1) == Some(scene.workload.ordinals().end);
    let given_up = highest && !scene.held && break_glass::given_up(scene.seen, ordinal, &uid);
    given_up.then(|| format!("{}/{uid}", scene.seen.node_name(ordinal)))
}

/// Break-glass: a person gave this node up by name and UID. True when it applies.
pub(super) fn abandon(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) -> bool {
    let Some(expected) = declared(scene, ordinal) else {
        return false;
    };
    entry.phase = DrainPhase::Shrinking;
    // Told before the write, so not while a pause holds that.
    if !scene.seen.pool.is_paused() {
        plan.findings.push(Finding::Event(EventNote {
            reason: EventReason::NodeAbandoned,
            subject: expected.clone(),
            note: abandoned_note(scene, ordinal, &entry.name),
        }));
    }
    let Some(fence) = fenced(scene, ordinal, plan) else {
        return true;
    };
    if held_off(scene) {
        return true;
    }
    let Some(live) = scene.seen.live.get(&ordinal) else {
        plan.reads.push(ordinal);
        return true;
    };
    let proof = live_target(scene, live)
        .and_then(|target| Abandoned::declared(live, ordinal, &expected, &fence, target));
    match proof {
        Ok(abandoned) => plan.steps.push(Step::Shrink(abandoned.into())),
        Err(_) => plan.wake(scene.now + seconds(1)),
    }
    true
}

/// What the node held last, so that a person can look for its instances; events hold about 1 KiB.
fn abandoned_note(scene: &Scene<'_>, ordinal: Ordinal, node: &str) -> String {
    const NAMED: usize = 8;
    let pods: Vec<String> = scene.seen.pods_on(ordinal).map(|p| p.key.to_string()).collect();
    let named = pods.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = pods.len().saturating_sub(NAMED);
    match (pods.is_empty(), more) {
        (true, _) => format!("{node} is given up as asked; no pod was bound to it"),
        (false, 0) => format!("{node} is given up as asked; look for the instances of {named}"),
        (false, more) => {
            format!("{node} is given up as asked; look for the instances of {named} and {more} more")
        }
    }
}

/// An ordinal whose provider never was Ready and whose Node never registered, under whatever name, goes without ceremony.
/// True when it applies, or when it is not known and the ordinal is held.
pub(super) fn never_came_up(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) -> bool {
    let provider = scene.seen.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    let registered = provider.is_none_or(|p| p.registered.contains(&ordinal));
    if registered
        || scene.held
        || scene.seen.nodes.contains_key(&ordinal)
        || scene.seen.pods_on(ordinal).next().is_some()
    {
        return false;
    }
    let trace = identity::trace(scene, ordinal);
    if let Trace::Somewhere = trace {
        identity::hold(scene, ordinal, plan);
        return true;
    }
    entry.phase = DrainPhase::Emptying;
    let Some(fence) = fenced(scene, ordinal, plan) else {
        return true;
    };
    if held_off(scene) {
        return true;
    }
    let settle = scene.seen.memory.get(&ordinal).and_then(|m| m.settle.clone());
    let settle = settle.filter(|s| s.holds(&fence, None));
    let live = match (scene.seen.live.get(&ordinal), trace) {
        (Some(live), Trace::None) => live,
        _ => {
            plan.reads.push(ordinal);
            plan.settles.extend(settle.map(|s| (ordinal, s)));
            return true;
        }
    };
    let Some(settle) = settle else {
        begin(scene, ordinal, fence, None, plan);
        return true;
    };
    let proof = live_target(scene, live)
        .and_then(|target| NeverCameUp::prove(live, ordinal, &settle, target, scene.now));
    match proof {
        Ok(never) => {
            entry.phase = DrainPhase::Shrinking;
            plan.steps.push(Step::Shrink(never.into()));
        }
        Err(_) => plan.wake(scene.now + seconds(1)),
    }
    true
}
