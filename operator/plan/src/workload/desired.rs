//! What a pool wants of its provider's container.

use serde::Serialize;
use sha2::{Digest, Sha256};
use vnp_crds::{Management, Switch, VirtualNodePool, env_key};

use super::create;

/// The fields that a pool owns in the provider's container, adopted or created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Desired {
    /// The image; `None` leaves the one that is there.
    pub(super) image: Option<String>,
    /// Variables in the order in which they are appended.
    pub(super) env: Vec<(&'static str, String)>,
}

impl Desired {
    pub(super) fn of(pool: &VirtualNodePool) -> Self {
        let spec = &pool.spec;
        let given = |field: &Option<String>| field.clone().filter(|v| !v.is_empty());
        let kube_proxy = match spec.network.kube_proxy {
            Switch::Enabled => "true",
            Switch::Disabled => "false",
        };
        let switches: Vec<&str> = spec.network.vswitch_ids().collect();
        let all = [
            (env_key::REGION, Some(spec.region.clone())),
            (env_key::VPC, given(&spec.network.vpc_id)),
            (env_key::VSWITCH, Some(switches.join(","))),
            (
                env_key::SECURITY_GROUP,
                Some(spec.network.security_group_id.clone()),
            ),
            (env_key::KUBE_PROXY, Some(kube_proxy.to_owned())),
            (env_key::RESOURCE_GROUP, given(&spec.resource_group_id)),
        ];
        Self {
            image: spec.provider.image().map(str::to_owned),
            env: all
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.env.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }
}

/// Whether the provider reads both values alike, so that writing would restart it for nothing.
///
/// The vendor's samples write vSwitches with and without a space after the comma, and `ECI_KUBE_PROXY` is `true` when it
/// is not set. Other spellings of true (`True`, `1`) are not documented and count as different.
pub(super) fn same_meaning(key: &str, there: Option<&str>, wanted: &str) -> bool {
    match (key, there) {
        (_, Some(there)) if there == wanted => true,
        (env_key::VSWITCH, Some(there)) => there
            .split(',')
            .map(str::trim)
            .eq(wanted.split(',').map(str::trim)),
        (env_key::KUBE_PROXY, None) => wanted == "true",
        _ => false,
    }
}

/// Names the template that the pool wants; annotation `reverted` holds the one that did not get healthy.
pub(super) fn hash(pool: &VirtualNodePool) -> String {
    match pool.spec.provider.management() {
        Management::Create => digest(&create::template(pool)),
        Management::Adopt => digest(&Desired::of(pool)),
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of the value's JSON.
pub(crate) fn digest(value: &impl Serialize) -> String {
    let text = serde_json::json!(value).to_string();
    Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pool;

    #[test]
    fn every_field_of_the_table_has_its_variable() {
        let p = pool(json!({
            "resourceGroupId": "rg-1",
            "network": {
                "vpcId": "vpc-1", "kubeProxy": "Disabled",
                "zones": [{ "zone": "j", "vSwitchIds": ["vsw-1", "vsw-2"] }, { "zone": "k", "vSwitchIds": ["vsw-3"] }],
            },
        }));
        assert_eq!(
            Desired::of(&p).env,
            [
                ("ECI_REGION", "cn-hangzhou".to_owned()),
                ("ECI_VPC", "vpc-1".to_owned()),
                ("ECI_VSWITCH", "vsw-1,vsw-2,vsw-3".to_owned()),
                ("ECI_SECURITY_GROUP", "sg-a".to_owned()),
                ("ECI_KUBE_PROXY", "false".to_owned()),
                ("ALIYUN_RESOURCEGROUP_ID", "rg-1".to_owned()),
            ]
        );
    }

    #[test]
    fn spellings_that_mean_the_same() {
        let cases = [
            ("ECI_VSWITCH", Some("a, b"), "a,b", true),
            ("ECI_VSWITCH", Some(" a ,b "), "a,b", true),
            ("ECI_VSWITCH", Some("b,a"), "a,b", false),
            ("ECI_VSWITCH", Some("a,b,"), "a,b", false),
            ("ECI_VSWITCH", None, "a", false),
            ("ECI_KUBE_PROXY", None, "true", true),
            ("ECI_KUBE_PROXY", None, "false", false),
            ("ECI_KUBE_PROXY", Some("True"), "true", false),
            ("ECI_REGION", Some("cn-hangzhou "), "cn-hangzhou", false),
            ("ECI_REGION", Some("cn-hangzhou"), "cn-hangzhou", true),
        ];
        for (key, there, wanted, same) in cases {
            assert_eq!(same_meaning(key, there, wanted), same, "{key} {there:?} {wanted}");
        }
    }

    #[test]
    fn the_hash_follows_the_template_and_nothing_else() {
        let base = hash(&pool(json!({})));
        assert_eq!(base.len(), 16);
        assert_eq!(base, hash(&pool(json!({ "replicas": 7, "paused": true }))));
        assert_ne!(base, hash(&pool(json!({ "provider": { "image": "other" } }))));
        assert_ne!(
            base,
            hash(&pool(json!({ "network": { "securityGroupId": "sg-b" } })))
        );
    }
}
