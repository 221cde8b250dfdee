//! The ConfigMaps that hold the profile.

use k8s_openapi::api::core::v1::ConfigMap;
use vnp_crds::{KUBE_SYSTEM, PROFILE_CONFIG_MAP, profile_key};

use crate::observed::ObjectKey;

/// The profile's name in ACS clusters. Source: ACS documentation, "Configure an acs-profile".
pub const ACS_PROFILE_CONFIG_MAP: &str = "acs-profile";

/// Keys that the vendor documents for `acs-profile`; of others nobody knows what they would do there.
const ACS_KEYS: [&str; 4] = [
    profile_key::VSWITCH,
    profile_key::SECURITY_GROUP,
    profile_key::VPC,
    profile_key::PRIVATE_ZONE,
];

/// One ConfigMap that holds a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: ObjectKey,
    /// It is made when it is absent and a pool has something to say.
    pub(super) created_when_absent: bool,
    only: Option<&'static [&'static str]>,
}

impl Place {
    /// `kube-system/eci-profile`.
    pub(super) fn eci() -> Self {
        Self {
            key: key(PROFILE_CONFIG_MAP),
            created_when_absent: true,
            only: None,
        }
    }

    /// `kube-system/acs-profile`, which exists in ACS clusters and nowhere else.
    pub(super) fn acs() -> Self {
        Self {
            key: key(ACS_PROFILE_CONFIG_MAP),
            created_when_absent: false,
            only: Some(&ACS_KEYS),
        }
    }

    /// Whether the key means something here: it is documented, or it is there.
    pub(super) fn knows(&self, key: &str, there: &ConfigMap) -> bool {
        let present = there.data.as_ref().is_some_and(|d| d.contains_key(key));
        self.only.is_none_or(|only| only.contains(&key)) || present
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: KUBE_SYSTEM.to_owned(),
        name: name.to_owned(),
    }
}
