//! Which ordinals are drained now: the highest above the target, as StatefulSets take them away.

use vnp_crds::{BlockerReason, CapacityCheck};

use super::{DrainPlan, Holds, Scene};
use crate::observed::Ordinal;

/// Pods that one virtual node takes when its Node does not say less. Source: ack-virtual-node documentation, "deploy up
/// to 3,000 pods on a virtual node".
const PODS_PER_NODE: i64 = 3000;

/// The doomed ordinals whose drain goes on or may start, highest first. What holds the others is said in `plan`.
pub(super) fn choose(scene: &Scene<'_>, holds: &Holds, plan: &mut DrainPlan) -> Vec<Ordinal> {
    let width = usize::try_from(scene.settings.max_concurrent_nodes)
        .unwrap_or(1)
        .max(1);
    let doomed: Vec<Ordinal> = scene
        .workload
        .ordinals()
        .rev()
        .filter(|o| *o >= scene.boundary())
        .take(width)
        .filter(|o| !scene.aborts.keeps(*o))
        .collect();
    if doomed.is_empty() {
        return doomed;
    }
    let started = |o: &Ordinal| scene.reported(*o).is_some() || own_cordon(scene, *o);
    let (mut chosen, waiting): (Vec<Ordinal>, Vec<Ordinal>) = doomed.into_iter().partition(started);
    if holds.roll_in_step || holds.refused.is_some() {
        return chosen;
    }
    for ordinal in waiting {
        match room(scene, &chosen, ordinal) {
            Ok(()) => chosen.push(ordinal),
            Err(message) => {
                let node = scene.seen.node_name(ordinal);
                let pods = scene.seen.pods_on(ordinal).count();
                plan.block(scene.blocker(BlockerReason::InsufficientCapacity, node, pods, message));
                break;
            }
        }
    }
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    chosen
}

fn own_cordon(scene: &Scene<'_>, ordinal: Ordinal) -> bool {
    scene
        .seen
        .nodes
        .get(&ordinal)
        .is_some_and(|n| n.cordon_owner.ours())
}

/// Whether the nodes that stay can take the pods that can go nowhere else. Not asked when nothing stays by wish.
fn room(scene: &Scene<'_>, chosen: &[Ordinal], ordinal: Ordinal) -> Result<(), String> {
    if scene.settings.capacity_check == CapacityCheck::Ignore || scene.target == 0 || scene.seen.deleting() {
        return Ok(());
    }
    let movers: i64 = chosen
        .iter()
        .chain([&ordinal])
        .map(|o| {
            count(
                scene
                    .seen
                    .pods_on(*o)
                    .filter(|p| p.requires_virtual && !p.finished() && !p.daemon_set()),
            )
        })
        .sum();
    let free: i64 = scene
        .workload
        .ordinals()
        .filter(|o| *o < scene.boundary())
        .filter_map(|o| scene.seen.nodes.get(&o).map(|n| (o, n)))
        .filter(|(_, n)| n.ready && !n.unschedulable)
        .map(|(o, n)| {
            let size = n.pod_capacity.unwrap_or(PODS_PER_NODE).min(PODS_PER_NODE);
            (size - count(scene.seen.pods_on(o))).max(0)
        })
        .sum();
    if movers <= free {
        return Ok(());
    }
    Err(format!(
        "pods that run on virtual nodes only would not fit on the nodes that stay ({} pods per node at most); raise \
         spec.replicas, remove pods, or set spec.drain.capacityCheck: Ignore",
        PODS_PER_NODE
    ))
}

fn count<T>(items: impl Iterator<Item = T>) -> i64 {
    i64::try_from(items.count()).unwrap_or(i64::MAX)
}
