//! Which nodes of a pool are of use now: the provider is healthy, and the scheduler sends pods there.

use jiff::Timestamp;

use crate::drain::health::health;
use crate::observed::{NodeView, Observed, Ordinal};
use crate::room::{Refused, Taint, closed};
use crate::taints::{Origin, origin};

/// Why a node is of no use, in words; `None` for one that is.
pub(crate) fn unavailable(
    seen: &Observed,
    ordinal: Ordinal,
    node: &NodeView,
    now: Timestamp,
) -> Option<String> {
    let provider = seen.provider_pods.get(&ordinal).map(AsRef::as_ref);
    if let Err(why) = health(Some(node), provider, now) {
        return Some(why.to_string());
    }
    shut(seen, node).map(|why| why.to_string())
}

/// Why the scheduler sends the pool's pods to another node than this one.
pub(crate) fn shut(seen: &Observed, node: &NodeView) -> Option<Refused> {
    closed(node).or_else(|| {
        let mut taints = node.taints.iter().filter_map(Taint::of);
        taints.find(|taint| keeps_away(seen, taint)).map(Refused::Tainted)
    })
}

/// The taint of virtual nodes keeps away who did not ask for one. Those by which Kubernetes says that something is wrong with
/// a Node keep away everybody, unless all pods that run on the pool's nodes and can run nowhere else tolerate them. One that
/// somebody gave the Node keeps nobody away for whom it is meant: it counts when there are such pods and none tolerates it.
fn keeps_away(seen: &Observed, taint: &Taint) -> bool {
    let origin = origin(seen, &taint.key);
    if origin == Origin::Provider {
        return false;
    }
    let mut pods = seen
        .bound
        .keys()
        .flat_map(|o| seen.pods_on(*o))
        .filter(|p| p.meant_for_virtual_nodes())
        .peekable();
    if origin == Origin::State {
        return pods.peek().is_none() || pods.any(|p| !p.needs.tolerates(taint));
    }
    pods.peek().is_some() && !pods.any(|p| p.needs.tolerates(taint))
}

#[cfg(test)]
mod tests {

    use serde_json::json;

    use super::*;
    use crate::plan;
    use crate::testing::{bind, now, observed, pod, pool, tolerant, with_node};

    fn taint(key: &str) -> k8s_openapi::api::core::v1::Taint {
        k8s_openapi::api::core::v1::Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        }
    }

    fn available(change: impl FnOnce(&mut NodeView)) -> (i32, Vec<String>) {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        with_node(&mut seen, 0, change);
        let facts = plan(&seen, now()).facts;
        (facts.available, facts.unavailable)
    }

    #[test]
    fn a_node_is_available_when_pods_may_come() {
        assert_eq!(available(|_| {}), (2, vec![]));
        assert_eq!(
            available(|n| n.taints = vec![taint("virtual-kubelet.io/provider")]),
            (2, vec![])
        );
        for (change, why) in [
            (
                (|n| n.deleting = true) as fn(&mut NodeView),
                "it is being deleted",
            ),
            (|n| n.unschedulable = true, "it is cordoned"),
            (|n| n.ready = false, "its Node is not Ready"),
            (|n| n.unreadable = true, "its Node can't be read"),
            (
                |n| n.taints = vec![taint("node.kubernetes.io/network-unavailable")],
                "its taint node.kubernetes.io/network-unavailable:NoSchedule is not tolerated",
            ),
        ] {
            assert_eq!(available(change), (1, vec![format!("virtual-node-eci-0: {why}")]));
        }
        // A cloud that is still preparing the Node keeps everybody away too.
        let preparing = "node.cloudprovider.kubernetes.io/uninitialized";
        let (count, why) = available(|n| n.taints = vec![taint(preparing)]);
        assert!(count == 1 && why[0].contains(preparing), "{why:?}");
    }

    #[test]
    fn a_taint_that_the_pool_s_pods_tolerate_is_its_own() {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        with_node(&mut seen, 0, |n| n.taints = vec![taint("team")]);
        let tolerant = tolerant("a", "team");
        bind(&mut seen, 1, vec![tolerant.clone()]);
        assert_eq!(plan(&seen, now()).facts.available, 2);
        bind(&mut seen, 1, vec![tolerant.clone(), pod("b")]);
        assert_eq!(plan(&seen, now()).facts.available, 2, "it is for some of them");
        bind(&mut seen, 1, vec![pod("b")]);
        assert_eq!(plan(&seen, now()).facts.available, 1);
        bind(&mut seen, 1, Vec::new());
        assert_eq!(plan(&seen, now()).facts.available, 2, "nobody is kept away");
    }
}
