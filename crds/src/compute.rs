//! `spec.computeDefaults`: what kind of instance a pod gets that says nothing itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire_enum::wire_enum;

wire_enum! {
    /// Quality of service of an ACS instance.
    pub enum ComputeQos {
        /// Kept until deleted.
        Default = "default",
        /// Cheaper; the cloud may take it back at five minutes' notice.
        BestEffort = "best-effort",
    }
}

/// Compute class of pods that this pool's rules and policies select and that say nothing themselves. Default: absent, they
/// become plain ECI instances.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeDefaults {
    /// ACS compute class, the value of the pod label `alibabacloud.com/compute-class`. An open set; known are
    /// general-purpose, performance, gpu and gpu-hpn. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,

    /// ACS quality of service, the value of the pod label `alibabacloud.com/compute-qos`: default or best-effort. Default:
    /// the cloud's, which is default. Class gpu-hpn knows only default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<ComputeQos>,

    /// GPU model, a label value such as T4 (`alibabacloud.com/gpu-model-series`). Required by class gpu, where it becomes a
    /// pod label; optional with gpu-hpn, where it becomes a node selector; refused otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_model_series: Option<String>,
}
