//! Which pods of a node may be evicted now, and what holds the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use vnp_crds::{BlockerReason, Pace};

use super::budgets::{BudgetSelectors, Covering, no_disruptions};
use super::health::ProviderMark;
use super::makers::{Spared, spared};
use super::memory::{DrainMemory, Refusal};
use super::order::{DrainLimits, DrainOrder, EvictionCandidate};
use super::ordered::{Turn, held as waits_for, turn};
use super::returns::{Back, Returning};
use super::stages::{Place, Stages};
use super::{DrainPlan, Scene, seconds};
use crate::observed::{BoundPod, NodeView, ObjectKey, Ordinal, PodOwner};
use crate::plan::NodeInDrain;

/// A pod that is still there so long after its deletionTimestamp hangs on something.
const STUCK_AFTER_SECONDS: i64 = 30;

/// Gives the node's order and its blockers.
pub(super) fn order(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    node: &NodeView,
    provider: &ProviderMark,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) {
    // A selector that can't be read is refused by `accept`, and then no node drains.
    let Ok(stages) = Stages::read(&scene.settings.stages, &scene.seen.namespaces) else {
        return;
    };
    let stage = stages.turn(scene.seen.holding(ordinal));
    let memory = scene.seen.memory.get(&ordinal);
    let selectors = BudgetSelectors::of(&scene.seen.budgets);
    let askable = |pod: &BoundPod| {
        matches!(stage.place(pod), Place::Leaves)
            && unreadable(scene, pod, &selectors).is_none()
            && spared(scene, pod).is_none()
    };
    let returning = Returning::of(memory, scene.seen.holding(ordinal), scene.now, askable);
    let mut held = Held::default();
    let mut offer = Offer {
        namespaces: memory.map(refusing_namespaces).unwrap_or_default(),
        pods: Vec::new(),
    };
    let mut ordered: BTreeMap<&PodOwner, Vec<&BoundPod>> = BTreeMap::new();
    let mut terminating = 0;
    let mut overdue = 0;
    let mut later = false;
    for pod in scene.seen.holding(ordinal) {
        if let Some(deletion) = pod.deletion {
            terminating += 1;
            overdue += u32::from(deletion < scene.now);
            stuck(scene.now, pod, deletion, &mut held, plan);
            continue;
        }
        match stage.place(pod) {
            Place::Leaves => {}
            Place::Waits => {
                later = true;
                continue;
            }
            Place::Finishes(stage) => {
                held.add(
                    BlockerReason::WaitingForCompletion,
                    format!("stage/{}", stage.name),
                    left_to_finish(&stage.name),
                    scene.now,
                );
                continue;
            }
        }
        if let Some((reason, object, message)) = unreadable(scene, pod, &selectors) {
            held.add(reason, object, message, scene.now);
            continue;
        }
        let back = returning.judge(pod);
        match spared(scene, pod) {
            Some(Spared::By(reason, object, message)) => {
                held.add(reason, object, message, scene.now);
                back.into_iter().for_each(|b| held.beside(b, scene.now));
                continue;
            }
            // The answer wakes.
            Some(Spared::ForNow) => continue,
            None => {}
        }
        match back {
            Some(back) if back.tried => held.beside(back, scene.now),
            Some(back) => {
                held.add(back.reason, back.object, back.message, scene.now);
                continue;
            }
            None => {}
        }
        let budgets = if pod.finished() {
            Covering::default()
        } else {
            selectors.covering(pod)
        };
        match pod.stateful_set() {
            Some(owner) if budgets.is_empty() && !pod.finished() => {
                ordered.entry(owner).or_default().push(pod)
            }
            _ => offer.add(scene, pod, &budgets, memory, &mut held),
        }
    }
    for (owner, pods) in ordered {
        if let Some(pod) = next_of(scene, owner, &pods, &mut held, plan) {
            offer.add(scene, pod, &Covering::default(), memory, &mut held);
        }
    }
    returning.wake.into_iter().for_each(|at| plan.wake(at));
    entry.pods_blocked = i32::try_from(held.pods()).unwrap_or(i32::MAX);
    held.report(scene, plan);
    let pods = offer.sorted();
    if later && pods.is_empty() {
        plan.waits_for_stage = true;
    }
    let covering: BTreeSet<&ObjectKey> = pods.iter().flat_map(|p| &p.budgets).collect();
    let budgets = scene
        .seen
        .budgets
        .iter()
        .filter(|b| covering.contains(&b.key))
        .cloned()
        .collect();
    plan.orders.push(DrainOrder {
        pods,
        terminating,
        overdue,
        budgets,
        ..empty_order(scene, ordinal, node, provider)
    });
}

/// An order for the node that names no pod yet.
pub(super) fn empty_order(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    node: &NodeView,
    provider: &ProviderMark,
) -> DrainOrder {
    DrainOrder {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        provider_uid: provider.pod_uid.clone(),
        ordinal,
        pods: Vec::new(),
        terminating: 0,
        overdue: 0,
        departed: scene.seen.memory.get(&ordinal).map_or(0, |m| m.departures.count),
        limits: limits(scene),
        budgets: Vec::new(),
    }
}

/// The pods that may be evicted, with their rank.
struct Offer<'a> {
    /// Namespaces that refuse as a whole.
    namespaces: BTreeMap<&'a str, &'a Refusal>,
    pods: Vec<(u8, EvictionCandidate)>,
}

impl Offer<'_> {
    /// Offers a pod, and says what is known to hold it: the task asks again when that may have changed.
    fn add(
        &mut self,
        scene: &Scene<'_>,
        pod: &BoundPod,
        budgets: &Covering<'_>,
        memory: Option<&DrainMemory>,
        held: &mut Held,
    ) {
        let of_pod = memory.and_then(|m| m.refusals.get(&pod.uid));
        let of_namespace = || self.namespaces.get(pod.key.namespace.as_str()).copied();
        let exempt = budgets.exempt(pod);
        if let Some(refusal) = of_pod.or_else(of_namespace) {
            let of_budget = Some(refusal.reason).filter(|r| *r == BlockerReason::BlockedByBudget);
            let why = of_budget.and_then(|_| budgets.why(&refusal.object));
            let message = why.unwrap_or_else(|| refusal.message.clone());
            held.add(refusal.reason, refusal.object.clone(), message, refusal.since);
        } else if let Some(spent) = budgets.spent().filter(|_| !exempt) {
            let object = spent.to_string();
            let message = budgets.why(&object).unwrap_or_else(|| no_disruptions(spent));
            held.add(BlockerReason::BlockedByBudget, object, message, scene.now);
        }
        let rank = if pod.finished() {
            0
        } else {
            1 + u8::from(pod.daemon_set())
        };
        let ordered = budgets.is_empty() && !pod.finished();
        let turn_of = pod.stateful_set().filter(|_| ordered);
        self.pods.push((
            rank,
            EvictionCandidate {
                pod: pod.key.clone(),
                uid: pod.uid.clone(),
                budgets: budgets.keys(),
                exempt: exempt && !budgets.is_empty(),
                turn_of: turn_of.map(|owner| owner.uid.clone()),
                force: None,
            },
        ));
    }

    fn sorted(mut self) -> Vec<EvictionCandidate> {
        self.pods
            .sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.pod.cmp(&b.1.pod)));
        self.pods.into_iter().map(|(_, c)| c).collect()
    }
}

/// The pod of a StatefulSet without a budget that may leave now. Of several nodes that drain, the first one has the turn.
fn next_of<'a>(
    scene: &Scene<'_>,
    owner: &PodOwner,
    pods: &[&'a BoundPod],
    held: &mut Held,
    plan: &mut DrainPlan,
) -> Option<&'a BoundPod> {
    let unknown = Arc::default();
    let members = scene.seen.stateful_sets.get(&owner.uid).unwrap_or(&unknown);
    let wanted = scene.seen.wanted.get(&owner.uid);
    let turn = turn(members, wanted, pods, scene.now);
    plan.waits_for_turn |= pods.len() > 1 || !matches!(turn, Turn::Leaves(_));
    match turn {
        Turn::Leaves(pod) => plan.turns.insert(owner.uid.clone()).then_some(pod),
        Turn::Waits { until } => {
            if let Some(until) = until {
                plan.wake(until);
            }
            None
        }
        Turn::Held { by, state, since } => {
            let namespace = pods.first().map(|p| p.key.namespace.clone()).unwrap_or_default();
            let set = ObjectKey {
                namespace,
                name: owner.name.clone(),
            }
            .to_string();
            let message = waits_for(&set, &by, state, wanted);
            for _ in pods {
                held.add(
                    BlockerReason::StatefulSetStuck,
                    set.clone(),
                    message.clone(),
                    since,
                );
            }
            None
        }
    }
}

fn left_to_finish(stage: &str) -> String {
    format!(
        "its pods are left to finish (spec.drain.stages[name={stage}].waitFor: Completion), and those of later stages come after them; \
         to go on at once, delete the pods or set waitFor: Eviction"
    )
}

fn limits(scene: &Scene<'_>) -> DrainLimits {
    let settings = &scene.settings;
    DrainLimits {
        per_second: (settings.pace == Pace::Limited).then_some(f64::from(settings.evictions_per_second)),
        burst: settings.burst,
        max_terminating: settings.max_terminating,
        max_per_budget: settings.max_concurrent_per_budget,
    }
}

pub(super) fn stuck(
    now: Timestamp,
    pod: &BoundPod,
    deletion: Timestamp,
    held: &mut Held,
    plan: &mut DrainPlan,
) {
    let limit = deletion + seconds(STUCK_AFTER_SECONDS);
    if now < limit {
        plan.wake(limit);
        return;
    }
    let message = match &pod.finalizers {
        Some(names) => {
            format!(
                "it is being deleted, but finalizer {names} holds it; the controller that set it must take it off, or a \
                 person when that controller is gone for good"
            )
        }
        None => "it is being deleted, but its provider has not confirmed that the instance is gone; see the provider's log"
            .to_owned(),
    };
    held.add(
        BlockerReason::StuckTerminating,
        pod.key.to_string(),
        message,
        deletion,
    );
}

/// A pod that can't be read, or that a budget which can't be read may cover.
fn unreadable(
    scene: &Scene<'_>,
    pod: &BoundPod,
    selectors: &BudgetSelectors<'_>,
) -> Option<(BlockerReason, String, String)> {
    let error = |kind: &str, key: &str| {
        let flaw = scene.seen.flaw(kind, key);
        flaw.map_or_else(String::new, |f| format!(" ({})", f.error))
    };
    if pod.unreadable {
        let key = pod.key.to_string();
        let message = format!(
            "this version of the operator can't read the pod{}, so it is taken for one that nobody makes again and is not \
             evicted; correct the value, or delete the pod",
            error("Pod", &key)
        );
        return Some((BlockerReason::Unreadable, key, message));
    }
    let budget = selectors.unreadable(pod).filter(|_| !pod.finished())?;
    let key = budget.to_string();
    let message = format!(
        "this version of the operator can't read PodDisruptionBudget {key}{}, so it may cover every pod of its namespace and \
         allow no disruption; correct the value, or delete the budget",
        error("PodDisruptionBudget", &key)
    );
    Some((BlockerReason::Unreadable, key, message))
}

/// Namespaces of which one pod was refused in a way that holds for all of them: the others are not asked for, and are
/// blocked all the same.
fn refusing_namespaces(memory: &DrainMemory) -> BTreeMap<&str, &Refusal> {
    let whole = |r: &&Refusal| {
        matches!(
            r.reason,
            BlockerReason::NamespaceTerminating | BlockerReason::EvictionForbidden
        ) && !r.object.contains('/')
    };
    let refusals = memory.refusals.values().filter(whole);
    refusals.map(|r| (r.object.as_str(), r)).collect()
}

/// Blocked pods by what blocks them.
#[derive(Default)]
pub(super) struct Held {
    by: BTreeMap<(BlockerReason, String), (usize, String, Timestamp)>,
    pods: usize,
}

impl Held {
    pub(super) fn add(&mut self, reason: BlockerReason, object: String, message: String, since: Timestamp) {
        self.pods += 1;
        self.name(reason, object, message, since);
    }

    /// Names one more thing about a pod that something else holds, or that is offered.
    pub(super) fn beside(&mut self, back: Back, since: Timestamp) {
        self.name(back.reason, back.object, back.message, since);
    }

    fn name(&mut self, reason: BlockerReason, object: String, message: String, since: Timestamp) {
        let slot = self.by.entry((reason, object)).or_insert((0, message, since));
        slot.0 += 1;
        slot.2 = slot.2.min(since);
    }

    pub(super) fn pods(&self) -> usize {
        self.pods
    }

    pub(super) fn report(self, scene: &Scene<'_>, plan: &mut DrainPlan) {
        for ((reason, object), (pods, message, since)) in self.by {
            let mut blocker = scene.blocker(reason, object, pods, message);
            blocker.since = blocker.since.map(|known| known.min(since));
            plan.block(blocker);
        }
    }
}

#[cfg(test)]
mod tests;
