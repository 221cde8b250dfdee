//! Which ordinals are drained now: the highest above the target, as StatefulSets take them away.

use vnp_crds::{BlockerReason, CapacityCheck};

use super::{DrainPlan, Holds, Scene};
use crate::observed::{BoundPod, NodeView, Ordinal};
use crate::room::{Needs, Room, first_fit};

/// So many nodes that take a pod not are named.
const NODES_NAMED: usize = 5;
/// What helps against a lack of room.
const REMEDY: &str = "make room on these nodes, raise spec.replicas, or set spec.drain.capacityCheck: Ignore";

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
    let going = chosen.iter().chain([&ordinal]);
    let movers: Vec<&BoundPod> = going
        .flat_map(|o| scene.seen.pods_on(*o))
        .filter(|p| p.requires_virtual && !p.finished() && !p.daemon_set())
        // Neither is sent anywhere: no other node takes the one, and the other is not evicted.
        .filter(|p| !p.needs.names_nodes() && !p.unreadable)
        .collect();
    let staying = scene.workload.ordinals().filter(|o| *o < scene.boundary());
    let staying: Vec<(String, Option<&NodeView>)> = staying
        .map(|o| {
            (
                scene.seen.node_name(o),
                scene.seen.nodes.get(&o).map(AsRef::as_ref),
            )
        })
        .collect();
    let on = |node: &str| {
        let ordinal = scene.seen.nodes.iter().find(|(_, n)| n.name == node);
        let pods = ordinal.and_then(|(o, _)| scene.seen.bound.get(o));
        pods.into_iter().flat_map(|pods| pods.iter())
    };
    let mut rooms: Vec<Room<'_>> = staying
        .iter()
        .filter_map(|(name, node)| Some(Room::on((*node)?, on(name))))
        .collect();
    let needs: Vec<&Needs> = movers.iter().map(|p| p.needs.as_ref()).collect();
    let places = first_fit(&needs, &mut rooms);
    let mut left: Vec<&BoundPod> = places
        .iter()
        .zip(&movers)
        .filter(|(place, _)| place.is_none())
        .map(|(_, pod)| *pod)
        .collect();
    left.sort_by_key(|pod| &pod.key);
    let Some(first) = left.first() else {
        return Ok(());
    };
    let why = staying.iter().map(|(name, node)| match node {
        None => format!("{name}: there is no such Node"),
        Some(_) => {
            let room = rooms.iter().find(|r| r.name() == name);
            let against = room.and_then(|r| r.fits(&first.needs).err());
            match against {
                Some(against) => format!("{name}: {against}"),
                None => format!("{name}: what is left goes to other pods"),
            }
        }
    });
    let mut why: Vec<String> = why.collect();
    let more = why.len().saturating_sub(NODES_NAMED);
    why.truncate(NODES_NAMED);
    if more > 0 {
        why.push(format!("and {more} more"));
    }
    Err(format!(
        "not all pods that run only on virtual nodes fit on the nodes that stay: {} does not ({}); {REMEDY}",
        first.key,
        why.join("; "),
    ))
}
