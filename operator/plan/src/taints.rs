//! What a taint on a virtual node is: the provider's own, one by which Kubernetes says something of the Node, or somebody's.

use serde_json::Value;
use vnp_crds::virtual_node;

use crate::observed::Observed;

/// Keys of the taint that providers put on their Node. Source: ack-virtual-node documentation; the second is that of its
/// first releases.
const PROVIDERS: [&str; 2] = [virtual_node::TAINT, "alibabacloud.com/eci"];
/// The provider's variable for another one. Source: virtual-kubelet, `cmd/virtual-kubelet/internal/commands/root`.
pub(crate) const KEY_VARIABLE: &str = "VKUBELET_TAINT_KEY";
/// Taints that come and go with the state of a Node, and those of a cloud that is still preparing it. Source: Kubernetes
/// documentation, "Well-Known Labels, Annotations and Taints".
const STATES: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];

/// Who put a taint there, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The provider, or what it is told to put there.
    Provider,
    /// Kubernetes: it says how the Node is.
    State,
    /// Somebody.
    Somebody,
}

/// Whether a key is that of a virtual node, whoever's.
pub(crate) fn of_virtual_nodes(key: &str) -> bool {
    PROVIDERS.contains(&key)
}

/// Where a taint of this pool's Nodes comes from.
pub(crate) fn origin(seen: &Observed, key: &str) -> Origin {
    if of_virtual_nodes(key) || configured(seen) == Some(key) {
        Origin::Provider
    } else if STATES.iter().any(|prefix| key.starts_with(prefix)) {
        Origin::State
    } else {
        Origin::Somebody
    }
}

/// The key that the provider is told to use.
pub(crate) fn configured(seen: &Observed) -> Option<&str> {
    let containers = seen.workload.there()?.containers();
    let mut env = containers
        .iter()
        .filter_map(|c| c.get("env")?.as_array())
        .flatten();
    env.find(|e| e.get("name").and_then(Value::as_str) == Some(KEY_VARIABLE))?
        .get("value")?
        .as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observed::Workload;
    use crate::testing::{observed, pool, workload};

    #[test]
    fn a_taint_is_known_by_its_key() {
        let mut seen = observed(pool(json!({})), 2);
        let of = |seen: &Observed, key: &str| origin(seen, key);
        for (key, expected) in [
            ("virtual-kubelet.io/provider", Origin::Provider),
            ("alibabacloud.com/eci", Origin::Provider),
            ("node.kubernetes.io/not-ready", Origin::State),
            ("node.cloudprovider.kubernetes.io/uninitialized", Origin::State),
            ("team", Origin::Somebody),
        ] {
            assert_eq!(of(&seen, key), expected, "{key}");
        }
        let mut raw = workload(2).raw;
        raw["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "VKUBELET_TAINT_KEY", "value": "team" }));
        seen.workload = Workload::new(raw).into();
        assert_eq!(of(&seen, "team"), Origin::Provider);
    }
}
