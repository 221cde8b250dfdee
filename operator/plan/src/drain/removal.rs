//! Ordinals that the StatefulSet no longer keeps: their Nodes go last, and what is still bound to them is told.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vnp_crds::{BlockerReason, DrainPhase, EventReason, RetiredOrdinal};

use super::returns::came_after;
use super::unavailable::Unavailable;
use super::{DrainPlan, Scene, break_glass, cordon, identity, seconds, signed};
use crate::finding::{EventNote, Finding};
use crate::observed::{BoundPod, NodeView, Ordinal, ProviderPod, WorkloadSeen};
use crate::plan::NodeInDrain;
use crate::step::Step;

/// How many ordinals are kept in `status.provider.retired` of which nothing is left, and for how long.
const RETIRED: usize = 10;
const RETIRED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A controller takes its finalizer off within seconds.
const FINALIZERS_TAKE_SECONDS: i64 = 30;

/// Notes which ordinals went, removes their Nodes, tells of pods bound to ordinals that were never ours.
pub(super) fn advance(scene: &Scene<'_>, plan: &mut DrainPlan) {
    plan.retired = retired(scene);
    for (ordinal, node) in &scene.seen.nodes {
        if absent(scene, *ordinal) && node.pool_label() == Some(scene.seen.pool_name()) && !node.reserved() {
            remove(scene, *ordinal, node, plan);
        }
    }
    for (ordinal, pods) in &scene.seen.bound {
        // A mirror pod has its manifest on the machine: nothing that is deleted here takes it away.
        let Some(first) = pods
            .iter()
            .find(|p| !p.mirror)
            .filter(|_| absent(scene, *ordinal))
        else {
            continue;
        };
        let node = scene.seen.node_name(*ordinal);
        let first = first.key.to_string();
        let note = if left_out_only(scene, *ordinal) && !scene.seen.nodes.contains_key(ordinal) {
            format!(
                "DaemonSet pods that never started are bound to {node}, which is not there (first: {first}); \
                 spec.drain.daemonSetPods leaves them out, and the pod garbage collector removes them"
            )
        } else if !ours(scene, *ordinal, plan) {
            stray(scene, *ordinal, &first)
        } else if let Some(pod) = came_after_only(scene, *ordinal, plan) {
            let (made, remedy) = match &pod.controller {
                Some(_) => (
                    format!(
                        "pods were made for {node} after it was removed, by {}",
                        pod.made_by()
                    ),
                    "take spec.nodeName out of its manifest",
                ),
                None => (
                    format!(
                        "pods without a controller were made in namespace {} for {node} after it was removed",
                        pod.key.namespace
                    ),
                    "find who makes them, and take spec.nodeName out of their manifests",
                ),
            };
            let back = match scene.seen.deleting() {
                true => "",
                false => ", or raise spec.replicas to have the node back",
            };
            format!("{made} (first: {first}); {remedy}{back}")
        } else {
            continue;
        };
        plan.findings.push(Finding::Event(EventNote {
            reason: EventReason::UnknownOrdinal,
            subject: node,
            note,
        }));
    }
}

/// Pods of a node that is not the pool's by what is known. It may have been, where the node is still there.
fn stray(scene: &Scene<'_>, ordinal: Ordinal, first: &str) -> String {
    let node = scene.seen.node_name(ordinal);
    if !scene.seen.nodes.contains_key(&ordinal) {
        return format!(
            "pods are bound to {node}, and the pool knows no virtual node of that name (first: {first}); take spec.nodeName \
             out of their manifests and delete them"
        );
    }
    let index = ordinal.checked_sub(scene.workload.start_ordinal());
    let raise = match index.filter(|index| *index >= 0 && !scene.seen.deleting()) {
        Some(index) => format!(
            "raise spec.replicas to {} to have it back and drained, or ",
            index.saturating_add(1)
        ),
        None => String::new(),
    };
    format!(
        "pods are bound to {node} (first: {first}), and StatefulSet {}/{} counts no provider for it, without which nobody \
         deletes their instances; {raise}delete the instances by hand",
        scene.workload.namespace(),
        scene.workload.name()
    )
}

/// Pods are bound, and `spec.drain.daemonSetPods` leaves out all of them.
fn left_out_only(scene: &Scene<'_>, ordinal: Ordinal) -> bool {
    scene.seen.pods_on(ordinal).next().is_some() && scene.seen.holding(ordinal).next().is_none()
}

/// The first pod of an ordinal, when all that would hold it were made after its provider and its Node had gone.
fn came_after_only<'a>(scene: &'a Scene<'_>, ordinal: Ordinal, plan: &DrainPlan) -> Option<&'a BoundPod> {
    let retired = plan.retired.iter().find(|r| r.ordinal == ordinal)?;
    let mut pods = scene.seen.holding(ordinal);
    let first = pods.next()?;
    let all = came_after(retired, first) && pods.all(|p| came_after(retired, p));
    all.then_some(first)
}

/// Whether the StatefulSet keeps no provider for the ordinal.
fn absent(scene: &Scene<'_>, ordinal: Ordinal) -> bool {
    !scene.workload.ordinals().contains(&ordinal)
}

/// A Node with our label, or an entry in `retired`: this ordinal was ours.
fn ours(scene: &Scene<'_>, ordinal: Ordinal, plan: &DrainPlan) -> bool {
    let node = scene.seen.nodes.get(&ordinal);
    node.is_some_and(|n| n.pool_label() == Some(scene.seen.pool_name()))
        || plan.retired.iter().any(|r| r.ordinal == ordinal)
}

fn recorded<'a>(scene: &'a Scene<'_>) -> &'a [RetiredOrdinal] {
    let provider = scene.seen.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    provider.map_or(&[], |p| p.retired.as_slice())
}

/// The entries that stay, and those of ordinals that went since the last report.
fn retired(scene: &Scene<'_>) -> Vec<RetiredOrdinal> {
    let fresh = |r: &RetiredOrdinal| {
        scene.seen.nodes.contains_key(&r.ordinal) || scene.now.duration_since(r.time.0) < RETIRED_FOR
    };
    let mut list: Vec<RetiredOrdinal> = recorded(scene)
        .iter()
        .filter(|r| absent(scene, r.ordinal) && fresh(r))
        .cloned()
        .collect();
    let draining = scene.seen.pool.status.as_ref().and_then(|s| s.drain.as_ref());
    for entry in draining.map_or(&[][..], |d| d.nodes.as_slice()) {
        if absent(scene, entry.ordinal) && !list.iter().any(|r| r.ordinal == entry.ordinal) {
            let abandoned = break_glass::given_up(
                scene.seen,
                entry.ordinal,
                &cordon::fence_uid(scene, entry.ordinal),
            );
            list.push(RetiredOrdinal {
                ordinal: entry.ordinal,
                node_uid: entry.uid.clone(),
                time: Time(scene.now),
                abandoned,
                gone_time: None,
            });
        }
    }
    for entry in &mut list {
        let gone = !scene.seen.nodes.contains_key(&entry.ordinal)
            && !scene.seen.provider_pods.contains_key(&entry.ordinal);
        entry.gone_time = entry.gone_time.take().or(Some(Time(scene.now))).filter(|_| gone);
    }
    // Until its Node is gone an entry is needed, however many there are: it tells what may still be bound to it.
    let there = |r: &RetiredOrdinal| r.gone_time.is_none();
    let mut surplus = list.iter().filter(|r| !there(r)).count().saturating_sub(RETIRED);
    list.retain(|r| {
        let stays = there(r) || surplus == 0;
        surplus = surplus.saturating_sub(usize::from(!stays));
        stays
    });
    list
}

/// A provider pod that does not go holds everything after it. Why is known at once when the StatefulSet controller waits
/// for a lower one, else looked for when it takes too long.
fn stuck(scene: &Scene<'_>, ordinal: Ordinal, node: &NodeView, plan: &mut DrainPlan) {
    // Reap, settles and the cloud's backlog may have taken long since the last pod left, and are none of its time.
    let lowered = plan.retired.iter().find(|r| r.ordinal == ordinal);
    let since = lowered.map_or(scene.now, |r| r.time.0);
    let deadline = since + signed(scene.settings.progress_deadline);
    if let Some(lower) = Unavailable::below(scene, ordinal) {
        let so = format!(
            "the provider pod of {} is not taken away although the count is lowered",
            node.name
        );
        return lower.block(scene, so, plan);
    }
    if let Some(pod) = scene.seen.provider_pods.get(&ordinal)
        && provider_held(scene, pod, plan)
    {
        return;
    }
    if scene.now < deadline {
        return plan.wake(deadline);
    }
    // Of a workload that is gone only the pool says what it was called.
    let asked = &scene.seen.pool.spec.provider;
    let so = match scene.seen.workload {
        WorkloadSeen::Absent => "the workload is gone",
        _ => "the count is lowered",
    };
    let message = format!(
        "{so}, but the provider pod of {0} does not go; see kubectl -n {1} describe pod {0}",
        node.name,
        asked.namespace.as_deref().unwrap_or_default()
    );
    plan.block(scene.blocker(
        BlockerReason::StatefulSetStuck,
        asked.name.clone().unwrap_or_default(),
        0,
        message,
    ));
}

/// A provider pod that should be gone and is held by finalizers. True when that is said.
pub(super) fn provider_held(scene: &Scene<'_>, pod: &ProviderPod, plan: &mut DrainPlan) -> bool {
    let Some(deletion) = pod.deletion.filter(|_| !pod.finalizers.is_empty()) else {
        return false;
    };
    let limit = deletion + seconds(FINALIZERS_TAKE_SECONDS);
    if scene.now < limit {
        plan.wake(limit);
        return false;
    }
    let message = format!(
        "the provider pod should have been gone since {deletion}, and is held by {}; the controllers that set these finalizers must \
         take them off, see kubectl -n {} get pod {} -o yaml",
        pod.finalizers.join(", "),
        pod.key.namespace,
        pod.key.name
    );
    let mut blocker = scene.blocker(BlockerReason::FinalizerHolds, pod.key.to_string(), 0, message);
    blocker.since = Some(deletion);
    plan.block(blocker);
    true
}

/// A Node that is deleted and still there: the controllers that set its finalizers have not taken them off.
fn held_by_finalizers(scene: &Scene<'_>, node: &NodeView, plan: &mut DrainPlan) {
    let since = node.deleted_at.unwrap_or(scene.now);
    let limit = since + seconds(FINALIZERS_TAKE_SECONDS);
    if scene.now < limit {
        return plan.wake(limit);
    }
    let names: Vec<String> = node.finalizers.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        return;
    }
    let message = format!(
        "the Node was deleted at {since} and is held by {}; the controllers that set these finalizers must take them off, see \
         kubectl get node {} -o yaml",
        names.join(", "),
        node.name
    );
    let mut blocker = scene.blocker(BlockerReason::FinalizerHolds, node.name.clone(), 0, message);
    blocker.since = Some(since);
    plan.block(blocker);
}

/// Why the instances of pods stay that are bound to a node which the workload will not have a provider for again.
fn unprovided(scene: &Scene<'_>, ordinal: Ordinal, node: &NodeView) -> Option<String> {
    let back = if scene.seen.workload == WorkloadSeen::Absent {
        "bring the workload back".to_owned()
    } else if ordinal < scene.workload.start_ordinal() {
        format!(
            "set spec.ordinals.start of StatefulSet {}/{} to {ordinal} again",
            scene.workload.namespace(),
            scene.workload.name()
        )
    } else {
        return None;
    };
    let provider = scene.seen.provider_pods.get(&ordinal);
    Some(match provider.filter(|p| p.ready && !p.deleting) {
        Some(_) => format!(
            "the workload counts its provider no more, which still runs, and nothing is evicted; empty it while that lasts \
             (kubectl drain {}), or {back}",
            node.name
        ),
        None => format!(
            "the workload no longer runs its provider, so nobody can delete its instances; {back}, or delete the instances \
             by hand and annotate the pool {}={}/{}",
            vnp_crds::ABANDON_ANNOTATION,
            node.name,
            node.uid
        ),
    })
}

/// Deletes the Node when its provider is gone for good, so that nobody registers it again, and a list read for this
/// purpose shows no pod.
fn remove(scene: &Scene<'_>, ordinal: Ordinal, node: &NodeView, plan: &mut DrainPlan) {
    if ordinal >= scene.workload.start_ordinal() && ordinal < scene.boundary() {
        // Wanted again: its provider comes back and takes the Node over.
        return;
    }
    let reported = scene.reported(ordinal);
    let started_at = reported.map_or(scene.now, |r| r.started_at.0);
    let left = i32::try_from(scene.seen.holding(ordinal).count()).unwrap_or(i32::MAX);
    let provider = scene.seen.provider_pods.get(&ordinal);
    let phase = if provider.is_some() {
        DrainPhase::Shrinking
    } else {
        DrainPhase::Removing
    };
    plan.nodes.push(NodeInDrain {
        name: node.name.clone(),
        uid: node.uid.clone(),
        ordinal,
        phase,
        started_at,
        last_progress: reported
            .and_then(|r| r.last_progress_time.as_ref())
            .map_or(scene.now, |t| t.0),
        empty_since: reported.and_then(|r| r.empty_since.as_ref()).map(|t| t.0),
        recordons: reported.map_or(0, |r| r.recordons),
        force_announced: None,
        force_at: None,
        reaped_provider_uid: reported.and_then(|r| r.reaped_provider_uid.clone()),
        pods_total: reported.map_or(left, |r| r.pods_total.max(left)),
        pods_remaining: left,
        pods_terminating: 0,
        pods_blocked: 0,
    });
    // A bound pod means that a race was lost: the count goes back up and the drain starts again.
    let given_up = plan.retired.iter().any(|r| r.ordinal == ordinal && r.abandoned)
        || break_glass::given_up(scene.seen, ordinal, &node.uid);
    if left > 0
        && !given_up
        && let Some(message) = unprovided(scene, ordinal, node)
    {
        let pods = scene.seen.holding(ordinal).count();
        plan.block(scene.blocker(
            BlockerReason::ProviderUnavailable,
            node.name.clone(),
            pods,
            message,
        ));
    }
    if provider.is_some() {
        stuck(scene, ordinal, node, plan);
    }
    if node.deleting {
        held_by_finalizers(scene, node, plan);
    }
    // What was the provider's by its address alone is known by the note of its removal when the provider is gone.
    let noted = |r: &RetiredOrdinal| r.ordinal == ordinal && r.node_uid.as_deref() == Some(node.uid.as_str());
    let drained_here = node.cordon_owner.ours() && recorded(scene).iter().any(noted);
    if !given_up && !drained_here && identity::foreign(node, provider.map(AsRef::as_ref)) {
        let message = format!(
            "nothing says that this Node was a provider's (no label type=virtual-kubelet, no taint of virtual nodes), so it is \
             not deleted although it has the label of this pool; take the label off ({}), {}",
            vnp_crds::POOL_LABEL,
            identity::remedy_for_foreign(&node.name)
        );
        return plan.block(scene.blocker(BlockerReason::NodeMissing, node.name.clone(), 0, message));
    }
    if provider.is_some() || (left > 0 && !given_up) || node.deleting || scene.held {
        return;
    }
    // What the audit after this needs must be in the status before the Node is gone.
    let noted = recorded(scene).iter().any(|r| r.ordinal == ordinal);
    if reported.is_some() && !noted {
        plan.wake(scene.now + seconds(1));
        return;
    }
    let Some(live) = scene.seen.live.get(&ordinal) else {
        plan.reads.push(ordinal);
        return;
    };
    let empty = live.holding().next().is_none() || given_up;
    let same = live.node.as_ref().is_some_and(|n| n.uid == node.uid) && live.provider_pod.is_none();
    let gone = live
        .workload
        .as_ref()
        .is_none_or(|w| !w.ordinals().contains(&ordinal));
    let unwanted = crate::target::target_of(&live.pool, live.workload.as_deref())
        .is_some_and(|t| ordinal >= scene.workload.start_ordinal().saturating_add(t));
    if empty && same && gone && unwanted && !live.pool.is_paused() {
        plan.steps.push(Step::DeleteNode {
            node: node.name.clone(),
            uid: node.uid.clone(),
        });
    } else {
        plan.wake(scene.now + seconds(1));
    }
}
