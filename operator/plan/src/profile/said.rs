//! What one pool says in the profile, and where two pools contradict each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use vnp_crds::{OWN_PROFILE_KEYS, VirtualNodePool, profile_key};

use crate::accept::{seniority, served};

/// Keys that follow from the network and the resource group. The provider's env says the same, so they are written when
/// its roll is done and not before.
const NETWORK_KEYS: [&str; 6] = [
    profile_key::VPC,
    profile_key::VSWITCH,
    profile_key::SECURITY_GROUP,
    profile_key::CLUSTER_IP,
    profile_key::PRIVATE_ZONE,
    profile_key::RESOURCE_GROUP,
];

/// Whether the key is one that the env says as well.
pub(super) fn network_key(key: &str) -> bool {
    NETWORK_KEYS.contains(&key)
}

/// A key's value and the field of the pool that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: String,
    pub(super) field: String,
}

/// All that one pool says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) keys: BTreeMap<String, Item>,
    pub(super) gates: BTreeMap<String, Item>,
}

/// Whether the pool has a say in the profile at all.
pub(super) fn syncs(pool: &VirtualNodePool) -> bool {
    served(pool) && pool.spec.profile().sync.is_enabled()
}

/// What the pool says; nothing when it does not sync.
pub(super) fn said(pool: &VirtualNodePool) -> Said {
    if !syncs(pool) {
        return Said::default();
    }
    let spec = &pool.spec;
    let network = &spec.network;
    let switches = network.vswitch_ids().collect::<Vec<_>>().join(",");
    let vpc = network.vpc_id.as_ref().filter(|id| !id.is_empty());
    let own = [
        vpc.map(|id| (profile_key::VPC, id.clone(), "spec.network.vpcId")),
        Some((profile_key::VSWITCH, switches, "spec.network.zones[].vSwitchIds")),
        Some((
            profile_key::SECURITY_GROUP,
            network.security_group_id.clone(),
            "spec.network.securityGroupId",
        )),
        Some((
            profile_key::CLUSTER_IP,
            network.kube_proxy.is_enabled().to_string(),
            "spec.network.kubeProxy",
        )),
        Some((
            profile_key::PRIVATE_ZONE,
            network.private_zone.is_enabled().to_string(),
            "spec.network.privateZone",
        )),
        spec.resource_group_id
            .as_ref()
            .map(|id| (profile_key::RESOURCE_GROUP, id.clone(), "spec.resourceGroupId")),
    ];
    let profile = spec.profile();
    let settings = profile.settings.into_iter().map(|(key, value)| {
        let field = format!("spec.profile.settings.{key}");
        (key, Item { value, field })
    });
    let gates = profile.feature_gates.into_iter().map(|(gate, value)| {
        let field = format!("spec.profile.featureGates.{gate}");
        (gate, Item { value, field })
    });
    // The network goes in last: what other fields own can't be overruled by a setting.
    let own = own.into_iter().flatten();
    let own = own.map(|(key, value, field)| {
        (
            key.to_owned(),
            Item {
                value,
                field: field.to_owned(),
            },
        )
    });
    let settings = settings.filter(|(key, _)| !OWN_PROFILE_KEYS.contains(&key.as_str()));
    Said {
        keys: settings.chain(own).collect(),
        gates: gates.collect(),
    }
}

/// Whether two values of a key mean the same to the provider.
pub(super) fn same(key: &str, a: &str, b: &str) -> bool {
    if key == profile_key::VSWITCH {
        let ids = |list: &str| {
            list.split(',')
                .map(|id| id.trim().to_owned())
                .filter(|id| !id.is_empty())
                .collect()
        };
        let (a, b): (Vec<String>, Vec<String>) = (ids(a), ids(b));
        return a == b;
    }
    same_scalar(a, b)
}

/// Whether two single values mean the same: blanks around them and the case of `true` and `false` do not count.
pub(super) fn same_scalar(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim(), b.trim());
    let boolean = |v: &str| v.eq_ignore_ascii_case("true") || v.eq_ignore_ascii_case("false");
    a == b || (boolean(a) && a.eq_ignore_ascii_case(b))
}

/// Two pools that sync and say different things about the one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The field that differs, as a path into the pool.
    pub field: String,
    /// What this pool says, `None` when it says nothing.
    pub ours: Option<String>,
    /// What the older pool says.
    pub theirs: Option<String>,
    /// Name of the older pool.
    pub older: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |v: &Option<String>| v.clone().unwrap_or_else(|| "not set".to_owned());
        write!(
            f,
            "{} is {} here and {} in the older pool {}, and eci-profile is one for the whole cluster; make them equal, or set \
             spec.profile.sync: Disabled on a pool whose provider does not read the profile. Until then this pool writes \
             nothing to the profile",
            self.field,
            shown(&self.ours),
            shown(&self.theirs),
            self.older
        )
    }
}

/// The first difference between this pool and the oldest pool before it that contradicts it. Network blocks have to be
/// equal; a setting or gate that only one of them names contradicts nothing.
pub fn contradiction(pool: &VirtualNodePool, others: &[Arc<VirtualNodePool>]) -> Option<Contradiction> {
    let ours = said(pool);
    if ours == Said::default() {
        return None;
    }
    let mut older: Vec<&Arc<VirtualNodePool>> = others
        .iter()
        .filter(|o| syncs(o) && seniority(o) < seniority(pool))
        .collect();
    older.sort_by(|a, b| seniority(a).cmp(&seniority(b)));
    older.into_iter().find_map(|other| {
        let theirs = said(other);
        let name = other.metadata.name.clone().unwrap_or_default();
        first_difference(&ours.keys, &theirs.keys, same, |key| key == profile_key::VPC)
            .or_else(|| first_difference(&ours.gates, &theirs.gates, |_, a, b| same_scalar(a, b), |_| false))
            .map(|(field, ours, theirs)| Contradiction {
                field,
                ours,
                theirs,
                older: name,
            })
    })
}

type Difference = (String, Option<String>, Option<String>);

fn first_difference(
    ours: &BTreeMap<String, Item>,
    theirs: &BTreeMap<String, Item>,
    same: impl Fn(&str, &str, &str) -> bool,
    absence_counts: impl Fn(&str) -> bool,
) -> Option<Difference> {
    let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().find_map(|key| {
        let (a, b) = (ours.get(key), theirs.get(key));
        let differ = match (a, b) {
            (Some(a), Some(b)) => !same(key, &a.value, &b.value),
            _ => absence_counts(key),
        };
        let field = a.or(b).map(|item| item.field.clone())?;
        differ.then(|| (field, a.map(|i| i.value.clone()), b.map(|i| i.value.clone())))
    })
}

/// The key that was meant, when `key` is a misspelling of one that a field of the pool owns: other case, or the letters
/// `l` and `I` mixed up. Both are found in published samples (`vswitchIds`, `vSwitchlds`).
pub(crate) fn misspelt(key: &str) -> Option<&'static str> {
    let shape = |k: &str| k.to_lowercase().replace(['l', '1'], "i");
    OWN_PROFILE_KEYS
        .into_iter()
        .find(|own| *own != key && shape(own) == shape(key))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::pool;

    fn named(name: &str, created: &str, spec: Value) -> VirtualNodePool {
        pool(json!({
            "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": created }, "spec": spec,
        }))
    }

    #[test]
    fn a_pool_says_its_network_its_settings_and_nothing_else() {
        let p = pool(json!({ "spec": {
            "resourceGroupId": "rg-1",
            "network": {
                "vpcId": "vpc-1", "kubeProxy": "Disabled", "privateZone": "Enabled",
                "zones": [{ "zone": "b", "vSwitchIds": ["vsw-2", "vsw-1"] }, { "zone": "a", "vSwitchIds": ["vsw-3"] }],
            },
            "profile": { "settings": { "enableLinuxArm64Node": "false", "vpcId": "no" }, "featureGates": { "A": "true" } },
        } }));
        let said = said(&p);
        let keys: Vec<(&str, &str)> = said
            .keys
            .iter()
            .map(|(k, i)| (k.as_str(), i.value.as_str()))
            .collect();
        assert_eq!(
            keys,
            [
                ("enableClusterIp", "false"),
                ("enableLinuxArm64Node", "false"),
                ("enablePrivateZone", "true"),
                ("resourceGroupId", "rg-1"),
                ("securityGroupId", "sg-1"),
                ("vSwitchIds", "vsw-2,vsw-1,vsw-3"),
                ("vpcId", "vpc-1"),
            ]
        );
        assert_eq!(said.gates["A"].value, "true");
        assert_eq!(
            super::said(&pool(json!({ "spec": { "profile": { "sync": "Disabled" } } }))),
            Said::default()
        );
        let addon = pool(json!({ "spec": { "provider": { "type": "Addon" } } }));
        assert_eq!(super::said(&addon), Said::default());
    }

    #[test]
    fn meaning_counts_and_spelling_does_not() {
        for (key, a, b, equal) in [
            ("vSwitchIds", "a, b", "a,b", true),
            ("vSwitchIds", "a,b,", "a,b", true),
            ("vSwitchIds", "b,a", "a,b", false),
            ("enableClusterIp", "True", "true", true),
            ("enableClusterIp", " true", "true", true),
            ("enableClusterIp", "false", "true", false),
            ("securityGroupId", "SG-1", "sg-1", false),
        ] {
            assert_eq!(same(key, a, b), equal, "{key} {a} {b}");
        }
    }

    #[test]
    fn the_younger_pool_hears_which_field_differs() {
        let old = "2025-01-01T00:00:00Z";
        let new = "2027-01-01T00:00:00Z";
        for (older, younger, field, ours, theirs) in [
            (
                json!({ "network": { "securityGroupId": "sg-2" } }),
                json!({}),
                "spec.network.securityGroupId",
                Some("sg-1"),
                Some("sg-2"),
            ),
            (
                json!({}),
                json!({ "network": { "vpcId": "vpc-1" } }),
                "spec.network.vpcId",
                Some("vpc-1"),
                None,
            ),
            (
                json!({ "network": { "vpcId": "vpc-1" } }),
                json!({}),
                "spec.network.vpcId",
                None,
                Some("vpc-1"),
            ),
            (
                json!({ "network": { "kubeProxy": "Disabled" } }),
                json!({}),
                "spec.network.kubeProxy",
                Some("true"),
                Some("false"),
            ),
            (
                json!({ "profile": { "settings": { "k": "1" } } }),
                json!({ "profile": { "settings": { "k": "2" } } }),
                "spec.profile.settings.k",
                Some("2"),
                Some("1"),
            ),
            (
                json!({ "profile": { "featureGates": { "G": "true" } } }),
                json!({ "profile": { "featureGates": { "G": "false" } } }),
                "spec.profile.featureGates.G",
                Some("false"),
                Some("true"),
            ),
        ] {
            let (a, b) = (named("a", old, older), named("b", new, younger));
            let found = contradiction(&b, &[Arc::new(a.clone())]).expect(field);
            assert_eq!(
                (
                    found.field.as_str(),
                    found.ours.as_deref(),
                    found.theirs.as_deref(),
                    found.older.as_str()
                ),
                (field, ours, theirs, "a")
            );
            let text = found.to_string();
            assert!(
                text.contains(field) && text.contains("spec.profile.sync: Disabled"),
                "{text}"
            );
            assert_eq!(contradiction(&a, &[Arc::new(b)]), None, "the older one wins");
        }
    }

    #[test]
    fn what_contradicts_nothing() {
        let old = "2025-01-01T00:00:00Z";
        for overlay in [
            json!({}),
            json!({ "profile": { "settings": { "k": "1" }, "featureGates": { "G": "true" } } }),
            json!({ "profile": { "sync": "Disabled" }, "network": { "securityGroupId": "sg-2" } }),
            json!({ "resourceGroupId": "rg-1" }),
            json!({ "replicas": 7, "network": { "zones": [{ "zone": "other", "vSwitchIds": ["vsw-1"] }] } }),
        ] {
            let other = Arc::new(named("a", old, overlay.clone()));
            assert_eq!(contradiction(&pool(json!({})), &[other]), None, "{overlay}");
        }
    }

    #[test]
    fn misspellings_are_recognised() {
        assert_eq!(misspelt("vswitchIds"), Some("vSwitchIds"));
        assert_eq!(misspelt("vSwitchlds"), Some("vSwitchIds"));
        assert_eq!(misspelt("securitygroupid"), Some("securityGroupId"));
        for fine in OWN_PROFILE_KEYS
            .into_iter()
            .chain(["enableLogController", "slsMachineGroup", "x"])
        {
            assert_eq!(misspelt(fine), None, "{fine}");
        }
    }
}
