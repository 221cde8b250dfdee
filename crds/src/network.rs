//! `spec.network`: where the instances get their addresses.

use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rule, shape, wire_enum::wire_enum};

wire_enum! {
    /// A switch that may get further values one day, which a boolean could not.
    pub enum Switch {
        /// On.
        Enabled,
        /// Off.
        Disabled,
    }
}

impl Switch {
    /// Whether the switch is on.
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::Enabled)
    }

    pub(crate) const fn enabled() -> Self {
        Self::Enabled
    }

    pub(crate) const fn disabled() -> Self {
        Self::Disabled
    }
}

/// Network of the instances.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// VPC of all vSwitches, as `vpc-...`. Default: absent, the provider derives it from the vSwitches. Needed by
    /// PrivateZone. Written to ECI_VPC and the profile key vpcId.
    #[schemars(regex(pattern = "^vpc-[a-z0-9]+$"), length(max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,

    /// Zones and their vSwitches, 1 to 10, each zone once. The order is kept: it is the order in which the provider's
    /// VSwitchOrdered strategy tries them. All vSwitches of the pool, at most 10, are written to ECI_VSWITCH and the profile
    /// key vSwitchIds.
    #[schemars(
        length(min = 1, max = 10),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = zone_rules())
    )]
    pub zones: Vec<Zone>,

    /// Security group of the instances, as `sg-...`. Written to ECI_SECURITY_GROUP and the profile key securityGroupId.
    #[schemars(regex(pattern = "^sg-[a-z0-9]+$"), length(max = 128))]
    pub security_group_id: String,

    /// Whether each instance runs a kube-proxy and so reaches ClusterIP Services. Default: Enabled. Disabled suits jobs: it
    /// saves the API server one client per instance. Written to ECI_KUBE_PROXY and the profile key enableClusterIp.
    #[serde(default = "Switch::enabled")]
    pub kube_proxy: Switch,

    /// Whether Service names are resolved by the cloud's PrivateZone. Default: Disabled. Needs vpcId and provider.clusterId.
    /// Written to the profile key enablePrivateZone.
    #[serde(default = "Switch::disabled")]
    pub private_zone: Switch,
}

/// One zone of the pool.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// Zone id, for example `cn-hangzhou-j`.
    #[schemars(regex(pattern = shape::DNS_LABEL), length(max = 63))]
    pub zone: String,

    /// vSwitches of the zone, as `vsw-...`, 1 to 10, tried in this order. No id may appear twice in the pool.
    #[schemars(
        length(min = 1, max = 10),
        inner(regex(pattern = "^vsw-[a-z0-9]+$"), length(max = 128)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = v_switch_rules())
    )]
    pub v_switch_ids: Vec<String>,
}

/// Most vSwitches that a provider takes.
const MAX_V_SWITCHES: usize = 10;

fn zone_rules() -> Vec<Rule> {
    // A vSwitch that another zone lists as well. Twice in one zone is found by the rule on that list.
    let shared = "self.exists(other, other.zone != z.zone && v in other.vSwitchIds)";
    vec![
        rule::invalid(
            "self.all(z, self.exists_one(other, other.zone == z.zone))",
            "zone %s is declared twice: put all its vSwitchIds into one entry",
            &["self.filter(z, !self.exists_one(other, other.zone == z.zone))[0].zone"],
        ),
        rule::invalid(
            &format!("self.all(z, !z.vSwitchIds.exists(v, {shared}))"),
            "vSwitch %s is declared in two zones, and a vSwitch lies in one: remove it from the other",
            &[&format!(
                "self.map(z, z.vSwitchIds.filter(v, {shared})).filter(found, found.size() > 0)[0][0]"
            )],
        ),
        rule::invalid(
            &format!("self.map(z, z.vSwitchIds.size()).sum() <= {MAX_V_SWITCHES}"),
            &format!(
                "vSwitchIds has %s ids over all zones, a provider takes at most {MAX_V_SWITCHES}: remove some, or make a \
                 second pool"
            ),
            &["self.map(z, z.vSwitchIds.size()).sum()"],
        ),
    ]
}

fn v_switch_rules() -> Vec<Rule> {
    vec![rule::invalid(
        "self.all(v, self.exists_one(other, other == v))",
        "vSwitch %s is declared twice: remove one",
        &["self.filter(v, !self.exists_one(other, other == v))[0]"],
    )]
}

impl Network {
    /// The vSwitch ids of all zones in declared order.
    pub fn vswitch_ids(&self) -> impl Iterator<Item = &str> {
        self.zones
            .iter()
            .flat_map(|zone| zone.v_switch_ids.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network() -> Network {
        serde_json::from_value(json!({
            "zones": [
                { "zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-b", "vsw-a"] },
                { "zone": "cn-hangzhou-i", "vSwitchIds": ["vsw-c"] },
            ],
            "securityGroupId": "sg-1",
        }))
        .unwrap()
    }

    #[test]
    fn switches_have_their_defaults() {
        assert_eq!(
            (network().kube_proxy, network().private_zone),
            (Switch::Enabled, Switch::Disabled)
        );
        assert!(network().kube_proxy.is_enabled());
    }

    #[test]
    fn vswitches_keep_the_declared_order() {
        assert_eq!(
            network().vswitch_ids().collect::<Vec<_>>(),
            ["vsw-b", "vsw-a", "vsw-c"]
        );
    }
}
