//! Keys of the provider's environment and of `eci-profile` that fields of the pool own.

/// Environment variables that the operator writes into the provider's container.
pub mod env_key {
    /// `spec.region`
    pub const REGION: &str = "ECI_REGION";
    /// `spec.network.vpcId`
    pub const VPC: &str = "ECI_VPC";
    /// `spec.network.zones[].vSwitchIds`, joined with commas, no space
    pub const VSWITCH: &str = "ECI_VSWITCH";
    /// `spec.network.securityGroupId`
    pub const SECURITY_GROUP: &str = "ECI_SECURITY_GROUP";
    /// `spec.network.kubeProxy`, `"true"` or `"false"`
    pub const KUBE_PROXY: &str = "ECI_KUBE_PROXY";
    /// `spec.resourceGroupId`
    pub const RESOURCE_GROUP: &str = "ALIYUN_RESOURCEGROUP_ID";
    /// `spec.provider.clusterId`
    pub const CLUSTER_ID: &str = "ALIYUN_CLUSTERID";
    /// key `access-key-id` of `spec.provider.credentialsSecretName`
    pub const ACCESS_KEY: &str = "ECI_ACCESS_KEY";
    /// key `access-key-secret` of `spec.provider.credentialsSecretName`
    pub const SECRET_KEY: &str = "ECI_SECRET_KEY";
}

/// Keys of the ConfigMap `eci-profile`.
pub mod profile_key {
    /// `spec.network.vpcId`
    pub const VPC: &str = "vpcId";
    /// `spec.network.zones[].vSwitchIds`, joined with commas, no space
    pub const VSWITCH: &str = "vSwitchIds";
    /// `spec.network.securityGroupId`
    pub const SECURITY_GROUP: &str = "securityGroupId";
    /// `spec.network.kubeProxy`, `"true"` or `"false"`
    pub const CLUSTER_IP: &str = "enableClusterIp";
    /// `spec.network.privateZone`, `"true"` or `"false"`
    pub const PRIVATE_ZONE: &str = "enablePrivateZone";
    /// `spec.resourceGroupId`
    pub const RESOURCE_GROUP: &str = "resourceGroupId";
    /// `spec.profile.featureGates`, as `Name=bool` joined with commas
    pub const FEATURE_GATES: &str = "featureGates";
    /// `spec.placement.rules`, as a JSON array in a string
    pub const SELECTORS: &str = "selectors";
}

/// Variables refused in `spec.provider.env`: other fields write them.
pub const OWN_ENV: [&str; 9] = [
    env_key::REGION,
    env_key::VPC,
    env_key::VSWITCH,
    env_key::SECURITY_GROUP,
    env_key::KUBE_PROXY,
    env_key::RESOURCE_GROUP,
    env_key::CLUSTER_ID,
    env_key::ACCESS_KEY,
    env_key::SECRET_KEY,
];

/// Keys refused in `spec.profile.settings`: other fields write them.
pub const OWN_PROFILE_KEYS: [&str; 8] = [
    profile_key::VPC,
    profile_key::VSWITCH,
    profile_key::SECURITY_GROUP,
    profile_key::CLUSTER_IP,
    profile_key::PRIVATE_ZONE,
    profile_key::RESOURCE_GROUP,
    profile_key::FEATURE_GATES,
    profile_key::SELECTORS,
];
