//! `spec.profile`: the provider's cluster-wide ConfigMap `kube-system/eci-profile`.

use std::collections::BTreeMap;

use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{OWN_PROFILE_KEYS, Switch, rule};

/// What this pool says in `kube-system/eci-profile`. The ConfigMap is one for the whole cluster: pools that sync it must say
/// the same, and keys that no pool names are left as they are.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// Whether the pool writes its network and settings to the ConfigMap. Default: Enabled. Disabled leaves it alone, for a
    /// provider that does not read it.
    pub sync: Switch,

    /// Further keys of the ConfigMap to pin, as the strings the vendor documents, for example `enableLinuxArm64Node:
    /// "false"`. Default: none. Keys that other fields of the pool own are refused.
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = json!({ "type": "string", "maxLength": 4096 }),
        "x-kubernetes-validations" = setting_rules()
    ))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,

    /// Feature gates to pin, name to `"true"` or `"false"`. Default: none. Gates that are
    /// not named here keep their value.
    #[schemars(extend(
        "maxProperties" = 32,
        "additionalProperties" = json!({ "type": "string", "enum": ["true", "false"], "maxLength": 5 }),
        "x-kubernetes-validations" = gate_rules()
    ))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, String>,
}

fn setting_rules() -> Vec<Rule> {
    // Spelling variants of our keys were seen in the vendor's own pages; none of them does anything but mislead.
    let own: Vec<String> = OWN_PROFILE_KEYS
        .iter()
        .map(|key| key.to_ascii_lowercase())
        .collect();
    let own = rule::words(own.iter().map(String::as_str).chain(["vswitchlds"]));
    let owned = format!("key.lowerAscii() in {own}");
    let shapeless = "!key.matches('^[-._a-zA-Z0-9]+$')";
    vec![
        rule::invalid(
            &format!("!self.exists(key, {owned})"),
            "setting %s: %s belongs to another field: use spec.network, spec.resourceGroupId, profile.featureGates or \
             spec.placement.rules",
            &[
                &format!("self.filter(key, {owned})[0]"),
                &format!("self.map(key, {owned}, self[key])[0]"),
            ],
        ),
        rule::invalid(
            &format!("!self.exists(key, {shapeless})"),
            "setting %s can be no key of a ConfigMap: use letters, digits, dash, dot and underscore",
            &[&format!("self.filter(key, {shapeless})[0]")],
        ),
    ]
}

fn gate_rules() -> Vec<Rule> {
    let shapeless = "!gate.matches('^[A-Za-z][A-Za-z0-9]*$')";
    vec![rule::invalid(
        &format!("!self.exists(gate, {shapeless})"),
        "feature gate %s is no name of a gate: use letters and digits",
        &[&format!("self.filter(gate, {shapeless})[0]")],
    )]
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            sync: Switch::Enabled,
            settings: BTreeMap::new(),
            feature_gates: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(serde_json::from_str::<Profile>("{}").unwrap(), Profile::default());
        assert!(Profile::default().sync.is_enabled());
    }
}
