//! `spec.computeDefaults`: what kind of instance a pod gets that says nothing itself.

use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rule, shape, wire_enum::wire_enum};

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
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct ComputeDefaults {
    /// ACS compute class, the value of the pod label `alibabacloud.com/compute-class`. An open set; known are
    /// general-purpose, performance, gpu and gpu-hpn. Default: none.
    #[schemars(regex(pattern = shape::LABEL_VALUE), length(max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,

    /// ACS quality of service, the value of the pod label `alibabacloud.com/compute-qos`: default or best-effort. Default:
    /// the cloud's, which is default. Class gpu-hpn knows only default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<ComputeQos>,

    /// GPU model, a label value such as T4 (`alibabacloud.com/gpu-model-series`). Required by class gpu, where it becomes a
    /// pod label; optional with gpu-hpn, where it becomes a node selector; refused otherwise.
    #[schemars(regex(pattern = shape::LABEL_VALUE), length(max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_model_series: Option<String>,
}

fn rules() -> Vec<Rule> {
    vec![
        rule::required(
            "!(has(self.class) && self.class == 'gpu') || has(self.gpuModelSeries)",
            "gpuModelSeries",
            "gpuModelSeries is required with class gpu: set the GPU model as a label value, for example T4",
            &[],
        ),
        rule::forbidden(
            "!has(self.gpuModelSeries) || (has(self.class) && self.class in ['gpu', 'gpu-hpn'])",
            "gpuModelSeries",
            "gpuModelSeries %s has no meaning with %s: remove it, or set class gpu or gpu-hpn",
            &[
                "self.gpuModelSeries",
                "has(self.class) ? 'class ' + self.class : 'no class'",
            ],
        ),
        rule::invalid_at(
            "!(has(self.class) && self.class == 'gpu-hpn') || !has(self.qos) || self.qos == 'default'",
            "qos",
            "qos %s does not exist for class gpu-hpn: remove it or set default",
            &["self.qos"],
        ),
        rule::forbidden(
            "!has(self.qos) || has(self.class)",
            "qos",
            "qos %s has no meaning without class, plain ECI instances have none: set class or remove qos",
            &["self.qos"],
        ),
    ]
}
