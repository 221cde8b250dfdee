//! Which pods of a node may be evicted now, and what holds the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use vnp_crds::{BarePods, BlockerReason, Pace};

use super::health::ProviderMark;
use super::memory::DrainMemory;
use super::order::{DrainLimits, DrainOrder, EvictionCandidate};
use super::{DrainPlan, Scene, seconds};
use crate::observed::{BoundPod, Budget, NodeView, ObjectKey, Ordinal};
use crate::plan::NodeInDrain;

/// A pod that is still there so long after its deletionTimestamp hangs on something.
const STUCK_AFTER_SECONDS: i64 = 30;
/// A DaemonSet whose pods came back so often is not evicted any more: its controller ignores cordons.
const DAEMON_RETURNS: u32 = 2;
/// So many arrivals after the cordon had settled are not the scheduler's delay any more.
const ARRIVALS: u32 = 3;

/// Gives the node's order and its blockers.
pub(super) fn order(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    node: &NodeView,
    provider: &ProviderMark,
    entry: &mut NodeInDrain,
    plan: &mut DrainPlan,
) {
    let memory = scene.seen.memory.get(&ordinal);
    let selectors = BudgetSelectors::of(&scene.seen.budgets);
    let mut held = Held::default();
    let mut candidates: Vec<(u8, EvictionCandidate)> = Vec::new();
    let mut terminating = 0;
    let mut overdue = 0;
    for pod in scene.seen.pods_on(ordinal) {
        if let Some(deletion) = pod.deletion {
            terminating += 1;
            overdue += u32::from(deletion < scene.now);
            stuck(scene.now, pod, deletion, &mut held, plan);
        } else if let Some((reason, object, message)) = refused(scene, pod, memory) {
            held.add(reason, object, message, scene.now);
        } else {
            let budgets = if pod.finished() {
                Vec::new()
            } else {
                selectors.covering(pod)
            };
            if let Some(refusal) = memory.and_then(|m| m.refusals.get(&pod.uid)) {
                held.add(
                    refusal.reason,
                    refusal.object.clone(),
                    refusal.message.clone(),
                    refusal.since,
                );
            } else if let Some(spent) = selectors.spent(&budgets) {
                held.add(
                    BlockerReason::BlockedByBudget,
                    spent.to_string(),
                    no_disruptions(spent),
                    scene.now,
                );
            }
            let rank = if pod.finished() {
                0
            } else {
                1 + u8::from(pod.daemon_set())
            };
            candidates.push((
                rank,
                EvictionCandidate {
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                    budgets,
                },
            ));
        }
    }
    if let Some(arrivals) = memory.map(|m| m.arrivals).filter(|a| *a >= ARRIVALS) {
        let message = "pods are still bound to it although it is cordoned: something sets spec.nodeName or tolerates \
                       the cordon; each of them is evicted too";
        let mut blocker = scene.blocker(
            BlockerReason::NewPodsKeepArriving,
            node.name.clone(),
            0,
            message.to_owned(),
        );
        blocker.pods = i32::try_from(arrivals).unwrap_or(i32::MAX);
        plan.block(blocker);
    }
    entry.pods_blocked = i32::try_from(held.pods()).unwrap_or(i32::MAX);
    held.report(scene, plan);
    candidates.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.pod.cmp(&b.1.pod)));
    let pods: Vec<EvictionCandidate> = candidates.into_iter().map(|(_, c)| c).collect();
    let covering: BTreeSet<&ObjectKey> = pods.iter().flat_map(|p| &p.budgets).collect();
    let budgets = scene
        .seen
        .budgets
        .iter()
        .filter(|b| covering.contains(&b.key))
        .cloned()
        .collect();
    plan.orders.push(DrainOrder {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        provider_uid: provider.pod_uid.clone(),
        ordinal,
        pods,
        terminating,
        overdue,
        departed: memory.map_or(0, |m| m.departures.count),
        limits: limits(scene),
        budgets,
    });
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

fn stuck(now: Timestamp, pod: &BoundPod, deletion: Timestamp, held: &mut Held, plan: &mut DrainPlan) {
    let limit = deletion + seconds(STUCK_AFTER_SECONDS);
    if now < limit {
        plan.wake(limit);
        return;
    }
    let message = if pod.finalizers {
        "it is being deleted, but its finalizers hold it; the controllers that set them must take them off"
    } else {
        "it is being deleted, but its provider has not confirmed that the instance is gone"
    };
    held.add(
        BlockerReason::StuckTerminating,
        pod.key.to_string(),
        message.to_owned(),
        deletion,
    );
}

/// Pods that are not even asked for.
fn refused(
    scene: &Scene<'_>,
    pod: &BoundPod,
    memory: Option<&DrainMemory>,
) -> Option<(BlockerReason, String, String)> {
    if pod.finished() {
        return None;
    }
    if pod.bare() {
        return match scene.settings.bare_pods {
            BarePods::Evict => None,
            BarePods::Block => Some((
                BlockerReason::BarePods,
                pod.key.to_string(),
                "no controller would make it again; delete it, or set spec.drain.barePods to Evict or \
                 WaitForCompletion"
                    .to_owned(),
            )),
            BarePods::WaitForCompletion => Some((
                BlockerReason::WaitingForCompletion,
                pod.key.to_string(),
                "it has no controller and is left to finish (spec.drain.barePods: WaitForCompletion)"
                    .to_owned(),
            )),
        };
    }
    let owner = pod.controller.as_ref().filter(|_| pod.daemon_set())?;
    let owner = ObjectKey {
        namespace: pod.key.namespace.clone(),
        name: owner.name.clone(),
    };
    let returns = memory?.daemon_returns.get(&owner).copied().unwrap_or(0);
    (returns >= DAEMON_RETURNS).then(|| {
        (
            BlockerReason::DaemonSetTargetsVirtualNode,
            owner.to_string(),
            "DaemonSets ignore cordons, so its pods come back; keep it off virtual nodes with a required node affinity \
             type NotIn [virtual-kubelet]"
                .to_owned(),
        )
    })
}

/// What a spent budget is said to need; the same words whether a watch or an eviction told.
pub(crate) fn no_disruptions(budget: &ObjectKey) -> String {
    format!(
        "PodDisruptionBudget {budget} allows no disruption now; see kubectl -n {} get pdb {}",
        budget.namespace, budget.name
    )
}

/// Blocked pods by what blocks them.
#[derive(Default)]
struct Held(BTreeMap<(BlockerReason, String), (usize, String, Timestamp)>);

impl Held {
    fn add(&mut self, reason: BlockerReason, object: String, message: String, since: Timestamp) {
        let slot = self.0.entry((reason, object)).or_insert((0, message, since));
        slot.0 += 1;
        slot.2 = slot.2.min(since);
    }

    fn pods(&self) -> usize {
        self.0.values().map(|(pods, ..)| pods).sum()
    }

    fn report(self, scene: &Scene<'_>, plan: &mut DrainPlan) {
        for ((reason, object), (pods, message, since)) in self.0 {
            let mut blocker = scene.blocker(reason, object, pods, message);
            blocker.since = blocker.since.map(|known| known.min(since));
            plan.block(blocker);
        }
    }
}

/// The budgets' selectors, read once for all pods of a node.
struct BudgetSelectors {
    by_namespace: BTreeMap<String, Vec<(ObjectKey, Selector)>>,
    /// Budgets that allow nothing: known by watch, without asking.
    spent: BTreeSet<ObjectKey>,
}

impl BudgetSelectors {
    fn of(budgets: &[Budget]) -> Self {
        let mut by_namespace: BTreeMap<String, Vec<(ObjectKey, Selector)>> = BTreeMap::new();
        let mut spent = BTreeSet::new();
        for budget in budgets {
            let Some(selector) = budget.selector.clone().and_then(readable) else {
                continue;
            };
            by_namespace
                .entry(budget.key.namespace.clone())
                .or_default()
                .push((budget.key.clone(), selector));
            if budget.current && budget.allowed <= 0 {
                spent.insert(budget.key.clone());
            }
        }
        Self { by_namespace, spent }
    }

    /// The only budget of a pod, when it allows nothing.
    fn spent<'a>(&self, budgets: &'a [ObjectKey]) -> Option<&'a ObjectKey> {
        let [only] = budgets else { return None };
        self.spent.contains(only).then_some(only)
    }

    fn covering(&self, pod: &BoundPod) -> Vec<ObjectKey> {
        let budgets = self
            .by_namespace
            .get(&pod.key.namespace)
            .map_or(&[][..], Vec::as_slice);
        budgets
            .iter()
            .filter(|(_, s)| s.matches(&pod.labels))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// A selector that this version can't read covers nothing here; the API server still respects the budget.
fn readable(selector: LabelSelector) -> Option<Selector> {
    Selector::try_from(selector).ok()
}
