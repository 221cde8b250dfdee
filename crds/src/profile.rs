//! `spec.profile`: the provider's cluster-wide ConfigMap `kube-system/eci-profile`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Switch;

/// What this pool says in `kube-system/eci-profile`. The ConfigMap is one for the whole cluster: pools that sync it must say
/// the same, and keys that no pool names are left as they are.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// Whether the pool writes its network and settings to the ConfigMap. Default: Enabled. Disabled leaves it alone, for a
    /// provider that does not read it.
    pub sync: Switch,

    /// Further keys of the ConfigMap to pin, as the strings the vendor documents, for example `enableLinuxArm64Node:
    /// "false"`. Keys that other fields of the pool own are refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,

    /// Feature gates to pin, name to `"true"` or `"false"`. Gates that are not named here keep their value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, String>,
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
