//! Which providers the pools name. Mirrors of cluster-wide kinds keep only what concerns these.

use std::collections::BTreeSet;
use std::sync::Arc;

use vnp_crds::VirtualNodePool;
use vnp_plan::observed::{ObjectKey, Ordinal};

/// Workloads that pools name, whether these exist or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Arc<BTreeSet<ObjectKey>>);

impl Scope {
    /// The providers of these pools.
    pub fn of<'a>(pools: impl IntoIterator<Item = &'a VirtualNodePool>) -> Self {
        Self(Arc::new(pools.into_iter().filter_map(provider).collect()))
    }

    /// No pool names a provider.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a pool names this workload.
    pub fn covers(&self, workload: &ObjectKey) -> bool {
        self.0.contains(workload)
    }

    /// Whether this is the name of a virtual node of a pool, present or not.
    pub fn node(&self, name: &str) -> bool {
        split(name).is_some_and(|(provider, _)| self.0.iter().any(|w| w.name == provider))
    }

    /// Whether this is the name of a provider pod of a pool.
    pub fn provider_pod(&self, namespace: &str, name: &str) -> bool {
        split(name).is_some_and(|(provider, _)| {
            self.0
                .iter()
                .any(|w| w.name == provider && w.namespace == namespace)
        })
    }
}

/// The workload that a pool names.
pub fn provider(pool: &VirtualNodePool) -> Option<ObjectKey> {
    let workload = pool.spec.provider.workload()?;
    Some(ObjectKey {
        namespace: workload.namespace.to_owned(),
        name: workload.name.to_owned(),
    })
}

/// `virtual-node-eci-3` as (`virtual-node-eci`, 3). `None` for what no StatefulSet would name so, as `x-03`.
pub fn split(name: &str) -> Option<(&str, Ordinal)> {
    let (provider, digits) = name.rsplit_once('-')?;
    let plain = digits == "0" || !digits.starts_with('0');
    if provider.is_empty() || !plain || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((provider, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_in_its_ordinal() {
        assert_eq!(split("virtual-node-eci-3"), Some(("virtual-node-eci", 3)));
        assert_eq!(split("v-0"), Some(("v", 0)));
        for name in [
            "v-03",
            "v-",
            "v",
            "-3",
            "v-3a",
            "v--",
            "cn-hangzhou.192.168.0.1",
            "v-99999999999",
        ] {
            assert_eq!(split(name), None, "{name}");
        }
    }

    #[test]
    fn nodes_go_by_name_and_provider_pods_by_namespace_too() {
        let key = ObjectKey {
            namespace: "kube-system".into(),
            name: "v".into(),
        };
        let scope = Scope(Arc::new(BTreeSet::from([key])));
        assert!(scope.node("v-99") && !scope.node("v") && !scope.node("w-1"));
        assert!(scope.provider_pod("kube-system", "v-1") && !scope.provider_pod("shop", "v-1"));
    }
}
