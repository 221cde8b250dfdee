//! One node's way from cordon to empty. The first thing that is not done yet ends the pass for that node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vnp_crds::{BlockerReason, DrainPhase, OnTimeout, Reap, Reason};

use super::deadline::{Deadline, Stand};
use super::health::{ProviderMark, Unhealthy, health, in_words};
use super::identity::{self, foreign};
use super::memory::Progress;
use super::unavailable::Unavailable;
use super::{DrainPlan, Scene, candidates, emptying, force, installations, removal, seconds, signed};
use crate::finding::{EventNote, Finding};
use crate::observed::{NodeView, Ordinal};
use crate::plan::NodeInDrain;
use crate::step::Step;
use crate::taint_eviction::running_clock;

/// How often a cordon that is gone is set again before somebody is asked.
const RECORDONS: i32 = 3;
/// A status is written within seconds.
const NOTED_WITHIN_SECONDS: i64 = 60;
/// How long a restarted provider may take before that is called a blocker.
const RESTART_GRACE_SECONDS: i64 = 120;

/// Takes the ordinal one step further, or says what holds it. True when there is nothing to say.
pub(super) fn advance(scene: &Scene<'_>, ordinal: Ordinal, plan: &mut DrainPlan) -> bool {
    let mut entry = entry(scene, ordinal);
    let stand = stand(scene, entry.started_at, entry.force_announced);
    late(stand, &mut entry, plan);
    let found = plan.findings.len();
    walk(scene, ordinal, stand, &mut entry, plan);
    let silent = plan.findings.len() == found;
    if stand == Stand::Overdue {
        let blocked = |f: &Finding| matches!(f, Finding::Blocker(_));
        let held = plan.findings.iter().skip(found).any(blocked);
        overdue(scene, &entry, held, plan);
    }
    entry.force_at = deadline(scene, entry.started_at, entry.force_announced).force_at();
    plan.nodes.push(entry);
    silent
}

/// Holds the nodes against `spec.drain.progressDeadlineSeconds`. `silent`: those of which nothing is known to hold them.
pub(super) fn progress(scene: &Scene<'_>, silent: &[Ordinal], plan: &mut DrainPlan) {
    let waits =
        |f: &Finding| matches!(f, Finding::Blocker(b) if b.reason == BlockerReason::WaitingForCompletion);
    // The time in which pods were left to finish does not count; the rest of the drain begins with their end.
    let waited = scene.waited_for_completion() && !plan.findings.iter().any(waits);
    let mut stalled = Vec::new();
    let mut wake = Vec::new();
    for entry in &mut plan.nodes {
        if waited {
            entry.last_progress = scene.now;
        }
        // Without progress until then it is stalled, and nothing else may happen that would tell.
        let deadline = entry.last_progress + signed(scene.settings.progress_deadline);
        if deadline > scene.now {
            wake.push(deadline);
        } else if entry.phase == DrainPhase::Evicting
            && silent.contains(&entry.ordinal)
            // In its grace period a pod is held by nobody.
            && entry.pods_terminating < entry.pods_remaining
        {
            stalled.push((entry.name.clone(), entry.pods_remaining));
        }
    }
    wake.into_iter().for_each(|at| plan.wake(at));
    for (node, pods) in stalled {
        let message = "no pod has left it for spec.drain.progressDeadlineSeconds, and nothing is known that holds them; \
                       virtualnodepool_evictions_total counts the answers to the evictions, and RUST_LOG=vnp_operator=debug \
                       logs each";
        let pods = usize::try_from(pods).unwrap_or(0);
        plan.block(scene.blocker(BlockerReason::Throttled, node, pods, message.to_owned()));
    }
}

/// Where a drain stands against its deadline.
pub(super) fn stand(scene: &Scene<'_>, started_at: Timestamp, announced_at: Option<Timestamp>) -> Stand {
    deadline(scene, started_at, announced_at).stand(scene.now)
}

fn deadline(scene: &Scene<'_>, started_at: Timestamp, announced_at: Option<Timestamp>) -> Deadline {
    Deadline {
        started_at,
        timeout: scene.settings.timeout.map(signed),
        on_timeout: scene.settings.on_timeout,
        announced_at,
        deleting: scene.seen.deleting(),
    }
}

/// Drops an announcement that no longer holds.
fn late(stand: Stand, entry: &mut NodeInDrain, plan: &mut DrainPlan) {
    match stand {
        Stand::Announce { .. } | Stand::Announced { .. } | Stand::Forced => return,
        Stand::Running { wake } => wake.into_iter().for_each(|at| plan.wake(at)),
        Stand::GivenUp | Stand::Overdue => {}
    }
    entry.force_announced = None;
}

/// Says that the drain takes too long and goes on. `held`: there is a blocker of this node.
fn overdue(scene: &Scene<'_>, entry: &NodeInDrain, held: bool, plan: &mut DrainPlan) {
    let why = match scene.settings.on_timeout {
        OnTimeout::Abort => "Abort, which acts as Wait while the pool is deleted",
        OnTimeout::Wait | OnTimeout::ForceDelete => "Wait",
    };
    let seconds = scene.settings.timeout.map(|t| t.as_secs()).unwrap_or_default();
    let repair = if held {
        "repair what status.drain.blockers names, "
    } else {
        ""
    };
    let rest = match entry.pods_remaining {
        0 => format!("no pod is left on it; {repair}"),
        _ => format!("{repair}set onTimeout: ForceDelete to delete the pods past their budgets, or "),
    };
    let message = format!(
        "the drain of {} takes longer than spec.drain.timeoutSeconds: {seconds} and goes on (onTimeout: {why}); {rest}{}",
        entry.name,
        scene.keep_hint()
    );
    plan.findings.push(Finding::Stalled {
        reason: Reason::DrainTimedOut,
        message,
    });
}

pub(super) fn entry(scene: &Scene<'_>, ordinal: Ordinal) -> NodeInDrain {
    let before = scene.reported(ordinal);
    let node = scene.seen.nodes.get(&ordinal);
    let remaining = scene.seen.holding(ordinal).count();
    let terminating = scene
        .seen
        .holding(ordinal)
        .filter(|p| p.deletion.is_some())
        .count();
    let left = int(remaining);
    let told = before.and_then(|b| b.last_progress_time.as_ref()).map(|t| t.0);
    let known = scene
        .seen
        .memory
        .get(&ordinal)
        .and_then(|m| m.progress)
        .filter(|_| before.is_some());
    let fewer = match known {
        Some(known) => staying(scene, ordinal) < known.lasting,
        None => before.is_some_and(|b| left < b.pods_remaining),
    };
    // A report that failed does not undo what was seen.
    let last = told.into_iter().chain(known.map(|k| k.at)).max();
    NodeInDrain {
        name: scene.seen.node_name(ordinal),
        uid: node
            .map(|n| n.uid.clone())
            .or_else(|| before.and_then(|b| b.uid.clone()))
            .unwrap_or_default(),
        ordinal,
        phase: before.map_or(DrainPhase::Cordoning, |b| b.phase),
        started_at: before.map_or(scene.now, |b| b.started_at.0),
        last_progress: last.filter(|_| !fewer).unwrap_or(scene.now),
        empty_since: before
            .and_then(|b| b.empty_since.as_ref())
            .map(|t| t.0)
            .filter(|_| remaining == 0),
        recordons: before.map_or(0, |b| b.recordons),
        force_announced: before.and_then(|b| b.force_announced_time.as_ref()).map(|t| t.0),
        force_at: None,
        // A pod that came after the restart has to be reaped after as well.
        reaped_provider_uid: before
            .and_then(|b| b.reaped_provider_uid.clone())
            .filter(|_| remaining == 0),
        pods_total: before.map_or(0, |b| b.pods_total).max(left),
        pods_remaining: left,
        pods_terminating: int(terminating),
        pods_blocked: 0,
    }
}

/// Pods left that do not come back when they leave.
fn staying(scene: &Scene<'_>, ordinal: Ordinal) -> i32 {
    let returned = scene.seen.memory.get(&ordinal).map(|m| &m.returned);
    let pods = scene.seen.holding(ordinal);
    int(pods.filter(|p| returned.is_none_or(|r| !r.comes_back(p))).count())
}

/// How far each node's drain is.
pub(super) fn lasting(scene: &Scene<'_>, nodes: &[NodeInDrain]) -> BTreeMap<Ordinal, Progress> {
    let progress = |node: &NodeInDrain| Progress {
        lasting: staying(scene, node.ordinal),
        at: node.last_progress,
    };
    nodes.iter().map(|n| (n.ordinal, progress(n))).collect()
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The drain of this very Node has begun: it was found to be the provider's then.
fn drains(scene: &Scene<'_>, ordinal: Ordinal, node: &NodeView) -> bool {
    let reported = scene.reported(ordinal).and_then(|r| r.uid.as_deref());
    node.cordon_owner.ours() && reported == Some(node.uid.as_str())
}

fn walk(scene: &Scene<'_>, ordinal: Ordinal, stand: Stand, entry: &mut NodeInDrain, plan: &mut DrainPlan) {
    if emptying::abandon(scene, ordinal, entry, plan) || emptying::never_came_up(scene, ordinal, entry, plan)
    {
        return;
    }
    let node = scene.seen.nodes.get(&ordinal).map(AsRef::as_ref);
    if node.is_some_and(|n| n.unreadable) {
        // Whether the cordon stands can't be told, and another apply would tell no more.
        return unhealthy(scene, ordinal, entry, Unhealthy::NodeUnreadable, plan);
    }
    let provider = scene.seen.provider_pods.get(&ordinal).map(AsRef::as_ref);
    // Of a Node that is being drained the provider may be away, or back with another address.
    if node.is_some_and(|n| !drains(scene, ordinal, n) && foreign(n, provider)) {
        return unhealthy(scene, ordinal, entry, Unhealthy::NodeForeign, plan);
    }
    if let Some(node) = node
        && !cordoned(scene, node, entry, plan)
    {
        return;
    }
    let mark = match health(
        node,
        scene.seen.provider_pods.get(&ordinal).map(AsRef::as_ref),
        scene.now,
    ) {
        Ok(mark) => mark,
        Err(why) => return unhealthy(scene, ordinal, entry, why, plan),
    };
    let Some(node) = node else { return };
    if scene.held || !settled(scene, ordinal, entry, plan) {
        return;
    }
    if entry.pods_remaining > 0 {
        entry.phase = DrainPhase::Evicting;
        match stand {
            Stand::Forced => return force::order(scene, ordinal, node, &mark, entry, plan),
            Stand::Announce { at, force_at } if !scene.seen.pool.is_paused() => {
                entry.force_announced = Some(at);
                force::announce(scene, entry, force_at, plan);
            }
            Stand::Announced { force_at } => force::announce(scene, entry, force_at, plan),
            _ => {}
        }
        candidates::order(scene, ordinal, node, &mark, entry, plan);
        return;
    }
    entry.empty_since = entry.empty_since.or(Some(scene.now));
    if reaped(scene, ordinal, &mark, entry, plan) {
        emptying::advance(scene, ordinal, &mark, entry, plan);
    }
}

/// True when our cordon is in effect and this leader's; else cordons, or says that somebody keeps taking it away.
fn cordoned(scene: &Scene<'_>, node: &NodeView, entry: &mut NodeInDrain, plan: &mut DrainPlan) -> bool {
    let term = &scene.seen.operator.term;
    if node.cordoned_in_term(term) {
        return true;
    }
    if installations::keeps_cordon(scene, entry.ordinal, node, plan) {
        return false;
    }
    let reported = scene.reported(entry.ordinal);
    let was_cordoned = reported.is_some_and(|r| r.phase != DrainPhase::Cordoning);
    if was_cordoned && !node.unschedulable {
        entry.recordons += 1;
    }
    if entry.recordons > RECORDONS && !node.unschedulable {
        entry.recordons = RECORDONS + 1;
        let message = format!(
            "somebody uncordoned {0} again after it was cordoned {RECORDONS} more times; cordon it (kubectl cordon {0}) \
             to let the drain go on, or {1}",
            node.name,
            scene.keep_hint()
        );
        let mut blocker = scene.blocker(
            BlockerReason::CordonContested,
            node.name.clone(),
            scene.seen.holding(entry.ordinal).count(),
            message.clone(),
        );
        blocker.terminal = true;
        plan.block(blocker);
        plan.findings.push(Finding::Event(EventNote {
            reason: vnp_crds::EventReason::CordonContested,
            subject: node.name.clone(),
            note: message,
        }));
        return false;
    }
    // One of a leader before stays in effect while it is made this leader's.
    if !node.holds_our_cordon() {
        entry.phase = DrainPhase::Cordoning;
    }
    // An unhealthy provider holds a drain that has not begun; a cordon that was lost is put back in any case.
    let begun = reported.is_some() || node.cordon_owner.ours();
    let healthy = health(
        Some(node),
        scene.seen.provider_pods.get(&entry.ordinal).map(AsRef::as_ref),
        scene.now,
    );
    match healthy {
        Err(why) if !begun => unhealthy(scene, entry.ordinal, entry, why, plan),
        _ => plan.steps.push(Step::Cordon {
            node: node.name.clone(),
            uid: node.uid.clone(),
            term: term.clone(),
        }),
    }
    false
}

/// Nobody could delete instances now: hold, and say who is sick.
fn unhealthy(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    entry: &mut NodeInDrain,
    why: Unhealthy,
    plan: &mut DrainPlan,
) {
    plan.wake(scene.now + seconds(5));
    let restarting = entry.phase == DrainPhase::Reaping;
    let held_back = restarting && why == Unhealthy::PodMissing;
    if held_back && let Some(lower) = Unavailable::below(scene, ordinal) {
        lower.block(
            scene,
            format!("the provider of {} is not started again", entry.name),
            plan,
        );
        return;
    }
    if let Some(pod) = scene
        .seen
        .provider_pods
        .get(&ordinal)
        .filter(|_| why == Unhealthy::PodTerminating)
        && removal::provider_held(scene, pod, plan)
    {
        plan.held_by_provider = Some(ordinal);
        return;
    }
    let patient = entry
        .empty_since
        .is_some_and(|since| scene.now < since + seconds(RESTART_GRACE_SECONDS));
    if restarting && patient {
        return;
    }
    plan.held_by_provider = Some(ordinal);
    let pods = scene.seen.holding(ordinal).count();
    let reason = match why {
        Unhealthy::NodeMissing if pods > 0 => BlockerReason::NodeMissing,
        Unhealthy::NodeForeign => BlockerReason::NodeMissing,
        _ => BlockerReason::ProviderUnavailable,
    };
    let namespace = scene.workload.namespace();
    let remedy = match why {
        // Source: virtual-kubelet 1.12, whose process never registers a Node a second time.
        Unhealthy::NodeMissing => format!(
            "some providers register it only when they start: restart this one with kubectl -n {namespace} delete pod {}",
            entry.name
        ),
        Unhealthy::NodeForeign
            if scene
                .seen
                .nodes
                .get(&ordinal)
                .is_some_and(|n| drains(scene, ordinal, n)) =>
        {
            format!(
                "it was the provider's when the drain began, and one that runs anew may have an address that the Node does not \
                 show yet; if that stays, {}",
                identity::remedy_for_own(&entry.name)
            )
        }
        Unhealthy::NodeForeign => identity::remedy_for_foreign(&entry.name),
        Unhealthy::NodeUnreadable => format!("see kubectl get node {} -o yaml", entry.name),
        _ => format!("see kubectl -n {namespace} describe pod {}", entry.name),
    };
    let so = match why {
        Unhealthy::PodUnreadable | Unhealthy::NodeUnreadable | Unhealthy::NodeForeign => {
            "whether its instances could be deleted is not known"
        }
        _ => "nobody could delete its instances",
    };
    let node = scene.seen.nodes.get(&ordinal);
    let begun = scene.reported(ordinal).is_some() || node.is_some_and(|n| n.cordon_owner.ours());
    let goes_on = if begun { "goes on" } else { "begins" };
    let why = in_words(why, scene.seen.provider_pods.get(&ordinal).map(AsRef::as_ref));
    let message = format!(
        "{why}, so {so}; the drain {goes_on} when it is healthy; {remedy}{}",
        clock(scene, ordinal)
    );
    plan.block(scene.blocker(reason, entry.name.clone(), pods, message));
}

/// What is said of pods that go although nothing is evicted.
fn clock(scene: &Scene<'_>, ordinal: Ordinal) -> String {
    let node = scene.seen.nodes.get(&ordinal);
    node.map_or_else(String::new, |node| {
        running_clock(node, scene.seen.pods_on(ordinal))
    })
}

/// True when the cordon has been in effect for long enough: until then the scheduler may not have seen it.
fn settled(scene: &Scene<'_>, ordinal: Ordinal, entry: &mut NodeInDrain, plan: &mut DrainPlan) -> bool {
    let settle = signed(scene.settings.cordon_settle);
    let since = scene.seen.memory.get(&ordinal).and_then(|m| m.cordoned_since);
    let until = since.map_or(scene.now + settle, |s| s + settle);
    if since.is_some() && scene.now >= until {
        return true;
    }
    if matches!(entry.phase, DrainPhase::Cordoning | DrainPhase::Aborted) {
        entry.phase = DrainPhase::Settling;
    }
    plan.wake(until);
    false
}

/// True when the provider has started once more since the last pod went; a start removes instances that it forgot.
/// Source: measured, a restart removed every orphan that a correct drain had left.
fn reaped(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    mark: &ProviderMark,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) -> bool {
    if scene.settings.reap == Reap::None {
        return true;
    }
    let memory = scene.seen.memory.get(&ordinal);
    let pod = scene.seen.provider_pods.get(&ordinal);
    let provider = memory
        .and_then(|m| m.provider.as_ref())
        .filter(|p| p.uid == mark.pod_uid);
    let restarted = entry
        .reaped_provider_uid
        .as_deref()
        .is_some_and(|uid| uid != mark.pod_uid);
    if restarted && provider.is_none_or(|p| p.departures == 0) {
        // Its Node may still be Ready from the provider before: only a heartbeat of this one counts.
        let beats = scene
            .seen
            .nodes
            .get(&ordinal)
            .and_then(|n| n.heartbeat.as_ref())
            .map_or(0, |b| b.beats);
        let fresh = provider.is_some_and(|p| beats > p.beats_before);
        if !fresh {
            entry.phase = DrainPhase::Reaping;
            plan.wake(scene.now + seconds(5));
        } else if scene
            .reported(ordinal)
            .is_some_and(|r| r.phase == DrainPhase::Reaping)
        {
            plan.findings.push(Finding::Event(EventNote {
                reason: vnp_crds::EventReason::ProviderRestarted,
                subject: format!("{}/{}", entry.name, mark.pod_uid),
                note: format!(
                    "{} is empty; its provider was restarted, and removes instances that it may have forgotten",
                    entry.name
                ),
            }));
        }
        return fresh;
    }
    if scene.workload.deleting() {
        plan.wake(scene.now + seconds(5));
        return false;
    }
    if let Some(lower) = Unavailable::below(scene, ordinal) {
        let so = format!(
            "the provider of {} would not come back from the restart that removes forgotten instances",
            entry.name
        );
        lower.block(scene, so, plan);
        return false;
    }
    let Some(live) = scene.seen.live.get(&ordinal) else {
        plan.reads.push(ordinal);
        return false;
    };
    let same = live
        .provider_pod
        .as_ref()
        .is_some_and(|p| p.uid == mark.pod_uid && !p.deleting);
    if same
        && live.holding().next().is_none()
        && let Some(pod) = pod
    {
        // The status has to say so first: what was not noted would be done again to the provider that comes next.
        entry.phase = DrainPhase::Reaping;
        entry.reaped_provider_uid = Some(mark.pod_uid.clone());
        let reported = scene.reported(ordinal);
        let noted = reported.and_then(|r| r.reaped_provider_uid.as_deref());
        if noted != Some(mark.pod_uid.as_str()) {
            plan.wake(scene.now + seconds(1));
            let tried = reported.is_some_and(|r| r.phase == DrainPhase::Reaping && noted.is_none());
            if tried
                && entry
                    .empty_since
                    .is_some_and(|since| scene.now >= since + seconds(NOTED_WITHIN_SECONDS))
            {
                not_kept(scene, entry, plan);
            }
            return false;
        }
        plan.steps.push(Step::DeleteProviderPod {
            pod: pod.key.clone(),
            uid: mark.pod_uid.clone(),
            why: crate::step::RestartReason::Reap,
        });
    } else {
        plan.wake(scene.now + seconds(1));
    }
    false
}

/// A field that the CRD does not have is dropped by the API server from each status, and the write is a success.
fn not_kept(scene: &Scene<'_>, entry: &NodeInDrain, plan: &mut DrainPlan) {
    let message = "the API server does not keep status.drain.nodes[].reapedProviderUid, without which the provider would be \
                   restarted again and again; apply the CRD of this version of the operator (config/crd), or set spec.drain.reap: \
                   None"
        .to_owned();
    plan.block(scene.blocker(BlockerReason::ProviderUnavailable, entry.name.clone(), 0, message));
}
