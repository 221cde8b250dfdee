//! Whose Node is whose, where the name does not tell. A provider names its Node after its pod, unless its arguments or its
//! environment say otherwise; then the pods of an ordinal are bound to a Node that bears no ordinal. Taking that ordinal's
//! provider away for one that "never came up" would leave their instances to nobody.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::{ABANDON_ANNOTATION, BlockerReason, virtual_node};

use super::health::HEARTBEAT_LIMIT;
use super::{DrainPlan, Scene, seconds};
use crate::observed::{NodeTrace, NodeView, Observed, Ordinal, ProviderPod, UnclaimedNode};
use crate::taints::of_virtual_nodes;
use crate::wording::counted;

/// A provider pod that has waited for so long without a start can't be the one behind a heartbeat of now: whoever ran
/// before it was gone before it was made.
const IDLE: SignedDuration = SignedDuration::from_secs(2 * HEARTBEAT_LIMIT.as_secs());
/// How often other Nodes are looked at while they hold a shrink.
const LOOK_AGAIN_SECONDS: i64 = 30;
/// Nodes named in a message.
const NAMED: usize = 3;

/// Whether the Node is a virtual one, or one of this pool's providers says that it is its own, and no pool has it by name.
/// Such a Node may belong to any provider.
pub fn unclaimed(seen: &Observed, node: &NodeTrace) -> bool {
    let reserved = node
        .labels
        .get("alibabacloud.com/node-type")
        .is_some_and(|v| v == "reserved");
    !reserved && !claimed(seen, &node.name) && (looks_virtual(node) || owner(seen, node).is_some())
}

/// A pool has a node of that name. Of this pool those count that its workload has a provider for, and those with its label,
/// which are being removed.
fn claimed(seen: &Observed, name: &str) -> bool {
    let others = seen.others.iter().filter_map(|p| p.spec.provider.workload());
    if others.map(|w| w.name).any(|n| ordinal_of(name, n).is_some()) {
        return true;
    }
    let own = seen.pool.spec.provider.workload();
    let Some(ordinal) = own.and_then(|w| ordinal_of(name, w.name)) else {
        return false;
    };
    let kept = |w: &crate::observed::Workload| w.ordinals().contains(&ordinal);
    seen.held_workload().is_some_and(|w| kept(w))
        || seen
            .nodes
            .get(&ordinal)
            .is_some_and(|n| n.pool_label() == Some(seen.pool_name()))
}

fn ordinal_of(node: &str, workload: &str) -> Option<Ordinal> {
    let digits = node.strip_prefix(workload)?.strip_prefix('-')?;
    let ordinal: Ordinal = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

fn looks_virtual(node: &NodeTrace) -> bool {
    let mut taints = node.taints.iter().map(String::as_str);
    node.unreadable || marked(&node.labels, &mut taints)
}

/// The marks of a virtual node.
fn marked<'a>(labels: &BTreeMap<String, String>, taints: &mut impl Iterator<Item = &'a str>) -> bool {
    let label = labels.get(virtual_node::LABEL);
    label.is_some_and(|v| v == virtual_node::LABEL_VALUE) || taints.any(of_virtual_nodes)
}

/// Whether a Node that bears the provider's name is not known to be the provider's: any machine may have that name. It takes
/// the mark of a virtual node, or the provider's own address.
pub(crate) fn foreign(node: &NodeView, provider: Option<&ProviderPod>) -> bool {
    let mut taints = node.taints.iter().map(|t| t.key.as_str());
    let own =
        provider.is_some_and(|p| p.host.as_deref() != Some(node.name.as_str()) && shares(p, &node.addresses));
    !node.unreadable && !marked(&node.labels, &mut taints) && !own
}

fn shares(provider: &ProviderPod, addresses: &[String]) -> bool {
    addresses.iter().any(|a| provider.addresses.contains(a))
}

/// Whether none of the workload's other providers can be behind an unclaimed Node that is alive: each has a Node of its own
/// name or does not run, and the Node's addresses are none of theirs.
pub fn elsewhere(seen: &Observed, ordinal: Ordinal, node: &NodeTrace, now: Timestamp) -> bool {
    let busy = |o: &Ordinal, p: &ProviderPod| {
        let own = seen
            .nodes
            .get(o)
            .is_some_and(|n| !n.unreadable && !foreign(n, Some(p)));
        own || down(p, now)
    };
    let mut others = seen.provider_pods.iter().filter(|(o, _)| **o != ordinal);
    !node.unreadable
        && !node.addresses.is_empty()
        && owner(seen, node).is_none()
        && !seen
            .provider_pods
            .values()
            .any(|p| p.unreadable || shares(p, &node.addresses))
        && others.all(|(o, p)| busy(o, p))
}

/// No process of the provider runs, and none has for so long that a heartbeat of now is somebody else's.
fn down(provider: &ProviderPod, now: Timestamp) -> bool {
    let since = if provider.ran || provider.restarts > 0 {
        provider.stopped
    } else {
        provider.created
    };
    !provider.unreadable && !provider.ready && since.is_some_and(|since| now.duration_since(since) > IDLE)
}

/// The provider pod of this workload that the Node points to, and by what.
fn owner(seen: &Observed, node: &NodeTrace) -> Option<(String, String)> {
    seen.provider_pods.values().find_map(|pod| {
        // A provider on the host's network has the address of its host.
        if pod.host.as_deref() == Some(node.name.as_str()) {
            return None;
        }
        let name = &pod.key.name;
        let hostname = node.labels.get("kubernetes.io/hostname");
        let by = if node.lease_holder.as_ref() == Some(name) {
            "holds its Lease".to_owned()
        } else if hostname == Some(name) || node.addresses.contains(name) {
            "is its hostname".to_owned()
        } else {
            let address = node.addresses.iter().find(|a| pod.addresses.contains(a))?;
            format!("has its address {address}")
        };
        Some((name.clone(), by))
    })
}

/// Whether pods on this Node may be instances of this provider.
pub(crate) fn unaccounted(other: &UnclaimedNode, provider: Option<&ProviderPod>, now: Timestamp) -> bool {
    doubt(other, provider, now).is_some()
}

/// Why the pods on this Node may be instances of this provider. They are not when the Node is alive while the provider does
/// not run: then somebody else is behind it. One that ran before may have shared it with another provider of the workload.
fn doubt(other: &UnclaimedNode, provider: Option<&ProviderPod>, now: Timestamp) -> Option<&'static str> {
    if other.pods == 0 && !other.more {
        return None;
    }
    let beats = other
        .node
        .beat
        .is_some_and(|at| now.duration_since(at) <= HEARTBEAT_LIMIT);
    let Some(provider) = provider else {
        return Some("who ran it is not known");
    };
    if !other.node.ready || !beats {
        return Some("it is not alive, so who ran it is not known");
    }
    if !down(provider, now) {
        return Some("it is alive, and the provider may be behind it, which runs or ran just now");
    }
    let never_ran = !provider.ran && provider.restarts == 0;
    (!never_ran && !other.elsewhere).then_some(
        "it is alive, and another provider of the workload may be behind it, or its address is not known",
    )
}

/// What is known of an ordinal without a Node of its name.
pub(super) enum Trace {
    /// Nothing speaks for a Node under another name.
    None,
    /// It has to be looked for.
    Unread,
    /// There is or was a provider at work, or a virtual node that may be its own holds pods.
    Somewhere,
}

/// Looks whether the ordinal, whose Node was never seen, may have one under another name.
pub(super) fn trace(scene: &Scene<'_>, ordinal: Ordinal) -> Trace {
    let provider = scene.seen.provider_pods.get(&ordinal);
    // Where nobody noted it, any of them may have been Ready.
    let reported = scene.seen.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    let started = reported.is_some_and(|p| p.started.as_ref().is_none_or(|o| o.contains(&ordinal)));
    let live = scene.seen.live.get(&ordinal);
    if provider.is_some_and(|p| p.ready)
        || started
        || live.is_some_and(|l| l.provider_pod.as_ref().is_some_and(|p| p.ready))
    {
        return Trace::Somewhere;
    }
    let Some(live) = live else {
        return Trace::Unread;
    };
    let provider = live.provider_pod.as_deref();
    match &live.unclaimed {
        None => Trace::Unread,
        Some(others) if others.iter().any(|n| unaccounted(n, provider, scene.now)) => Trace::Somewhere,
        Some(_) => Trace::None,
    }
}

/// Holds the ordinal and says what was seen: its provider, and the virtual nodes that may be its own.
pub(super) fn hold(scene: &Scene<'_>, ordinal: Ordinal, plan: &mut DrainPlan) {
    plan.wake(scene.now + seconds(LOOK_AGAIN_SECONDS));
    let name = scene.seen.node_name(ordinal);
    let provider = scene.seen.provider_pods.get(&ordinal).map(AsRef::as_ref);
    let Some(others) = scene.seen.live.get(&ordinal).and_then(|l| l.unclaimed.clone()) else {
        plan.reads.push(ordinal);
        let message = format!(
            "{}, but there is no Node {name}; it is not taken away before it is known whether it has a Node under another name",
            of_provider(&name, provider)
        );
        return plan.block(scene.blocker(BlockerReason::NodeMissing, name, 0, message));
    };
    let mut holding: Vec<&UnclaimedNode> = others
        .iter()
        .filter(|n| unaccounted(n, provider, scene.now))
        .collect();
    // First those that say whose they are.
    holding.sort_by_key(|n| (owner(scene.seen, &n.node).is_none(), n.node.name.clone()));
    let pods = holding.iter().map(|n| n.pods).sum();
    let empty: Vec<&UnclaimedNode> = others.iter().filter(|n| n.pods == 0 && !n.more).collect();
    // With nothing to lose, another template may be the cure.
    if holding.is_empty() {
        plan.held_by_provider = Some(ordinal);
    }
    let message = format!(
        "{}, but there is no Node {name}, so nobody knows which instances it runs, and it is not taken away; {}; {}, or if \
         nothing of it runs, annotate the pool {ABANDON_ANNOTATION}={name}/none",
        of_provider(&name, provider),
        seen_instead(scene, provider, &holding, &empty),
        remedy(scene, &name, &holding),
    );
    plan.block(scene.blocker(BlockerReason::NodeMissing, name, pods, message));
}

fn of_provider(name: &str, provider: Option<&ProviderPod>) -> String {
    match provider {
        Some(pod) if pod.ready => format!("the provider {name} is Ready"),
        Some(pod) if pod.restarts > 0 => {
            format!(
                "the provider {name} is not Ready and has restarted {}",
                counted(pod.restarts, "time")
            )
        }
        Some(_) => format!("the provider {name} is not Ready"),
        None => format!("the provider pod {name} is missing"),
    }
}

fn seen_instead(
    scene: &Scene<'_>,
    provider: Option<&ProviderPod>,
    holding: &[&UnclaimedNode],
    empty: &[&UnclaimedNode],
) -> String {
    let shown = if holding.is_empty() { empty } else { holding };
    if shown.is_empty() {
        return "there is no virtual node that no pool claims".to_owned();
    }
    let one = |other: &&UnclaimedNode| {
        let count = match (other.pods, other.more) {
            (pods, true) => format!("{pods} pods or more"),
            (pods, false) => counted(pods, "pod"),
        };
        let by = match owner(scene.seen, &other.node) {
            Some((pod, by)) => format!("; provider {pod} {by}"),
            None => doubt(other, provider, scene.now).map_or_else(String::new, |why| format!("; {why}")),
        };
        format!("{} ({count}{by})", other.node.name)
    };
    let named: Vec<String> = shown.iter().take(NAMED).map(one).collect();
    let more = shown.len().saturating_sub(NAMED);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("virtual nodes that no pool claims: {}{rest}", named.join(", "))
}

pub(super) fn remedy_for_foreign(name: &str) -> String {
    format!(
        "give that machine another name, or, if the Node is the provider's after all, {}",
        remedy_for_own(name)
    )
}

pub(super) fn remedy_for_own(name: &str) -> String {
    format!(
        "say so with kubectl label node {name} {}={}",
        virtual_node::LABEL,
        virtual_node::LABEL_VALUE
    )
}

fn remedy(scene: &Scene<'_>, name: &str, holding: &[&UnclaimedNode]) -> String {
    let namespace = scene.workload.namespace();
    match holding.first() {
        Some(other) => format!(
            "if one of them is its own, empty it first (kubectl drain {}), then let the provider name its Node after its pod \
             (no --nodename, and DEFAULT_NODE_NAME from metadata.name)",
            other.node.name
        ),
        None => format!(
            "repair the provider so that it registers the Node {name}, see kubectl -n {namespace} logs {name}"
        ),
    }
}

#[cfg(test)]
mod tests;
