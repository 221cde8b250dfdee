//! Keys that the vendor gave a meaning: the provider's environment, `eci-profile`, virtual nodes, pods.

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

/// How virtual nodes are told from others. Source: ACK documentation, "Use ACS compute power through ACK edge clusters",
/// the Node printed there.
pub mod virtual_node {
    /// Label on every virtual node, and key of the node selector that asks for one.
    pub const LABEL: &str = "type";
    /// Value of [`LABEL`].
    pub const LABEL_VALUE: &str = "virtual-kubelet";
    /// Key of the taint on every virtual node.
    pub const TAINT: &str = "virtual-kubelet.io/provider";
    /// Value of [`TAINT`].
    pub const TAINT_VALUE: &str = "alibabacloud";
    /// Effect of [`TAINT`].
    pub const TAINT_EFFECT: &str = "NoSchedule";
}

/// Labels on pods that choose the instance. Source: ACK documentation, "Use ACS compute power through ACK edge clusters",
/// and ACS documentation, "ACS pod overview".
pub mod compute_label {
    /// The pod becomes an ACS instance, value `"true"`.
    pub const ACS: &str = "alibabacloud.com/acs";
    /// `spec.computeDefaults.class`
    pub const CLASS: &str = "alibabacloud.com/compute-class";
    /// `spec.computeDefaults.qos`
    pub const QOS: &str = "alibabacloud.com/compute-qos";
    /// `spec.computeDefaults.gpuModelSeries`: a pod label with class gpu, a node label with class gpu-hpn
    pub const GPU_SERIES: &str = "alibabacloud.com/gpu-model-series";
}

/// Labels that bring pods to virtual nodes without any rule. Source: ACK documentation, "Schedule pods to elastic container
/// instances by using virtual nodes", "Use ACS compute power through ACK edge clusters", and for the legacy ones "Deploy
/// ack-virtual-node in an ACK cluster".
pub mod trigger_label {
    /// On a pod or a namespace, value `"true"`: ECI instances.
    pub const ECI: &str = "alibabacloud.com/eci";
    /// On a pod, value `"true"`: an ACS instance.
    pub const ACS: &str = super::compute_label::ACS;
    /// On a pod, value `"true"`: the older spelling of [`ECI`].
    pub const LEGACY_ECI: &str = "eci";
    /// On a namespace, value [`LEGACY_INJECTION_VALUE`]: the older form of [`ECI`].
    pub const LEGACY_INJECTION: &str = "virtual-node-affinity-injection";
    /// Value of [`LEGACY_INJECTION`].
    pub const LEGACY_INJECTION_VALUE: &str = "enabled";
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
