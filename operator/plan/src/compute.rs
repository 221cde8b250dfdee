//! `spec.computeDefaults`: what they make of a pod. The one place that knows, so that profile, policies and webhook can't
//! differ.
//!
//! Sources: ACS documentation, "ACS pod overview" (classes, QoS and their pairs) and "Specify GPU models and driver
//! versions" (the series is a pod label with class gpu, a node label with class gpu-hpn); ACK documentation, "Use ACS
//! compute power through ACK edge clusters" (a pod on a virtual node is ECI unless it has a class).

use std::collections::BTreeMap;

use vnp_crds::{ComputeDefaults, TRUE, compute_label, trigger_label};

/// Class of GPU instances whose model is a pod label.
const GPU: &str = "gpu";
/// Class of reserved GPU instances, whose model is a label of their nodes.
pub(crate) const GPU_HPN: &str = "gpu-hpn";

/// Pods of this class have a GPU.
pub(crate) fn is_gpu_class(class: &str) -> bool {
    [GPU, GPU_HPN].contains(&class)
}

/// Names in a stamp.
const CLASS: &str = "class";
const SERIES: &str = "series";

/// A pod that is there, as far as compute defaults go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StampedPod<'a> {
    /// What it got.
    pub(crate) stamp: Option<&'a str>,
    /// Its class, whoever chose it.
    pub(crate) class: Option<&'a str>,
    /// It has a QoS, whoever chose it.
    pub(crate) qos: bool,
    /// It asks for ECI, itself or by its namespace.
    pub(crate) eci: bool,
    /// It has a label with a series, whoever chose it.
    pub(crate) series: bool,
    /// It requests a GPU.
    pub(crate) gpu: bool,
}

/// What compute defaults give a pod that says nothing itself. Empty: a plain ECI instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComputeEffect {
    /// Pod labels that choose the instance: class, QoS, GPU series.
    pub labels: BTreeMap<&'static str, String>,
    /// Node labels that the pod asks for.
    pub node_selector: BTreeMap<&'static str, String>,
    /// Only for pods that request a GPU.
    pub gpu_only: bool,
}

impl ComputeEffect {
    /// What these defaults give. A class is open-ended: one that is not known is passed on.
    pub fn of(defaults: Option<&ComputeDefaults>) -> Self {
        let mut effect = Self::default();
        let Some(defaults) = defaults else {
            return effect;
        };
        let set = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
        // ECI has neither QoS nor series: without a class there is nothing to say.
        let Some(class) = set(&defaults.class) else {
            return effect;
        };
        let series = set(&defaults.gpu_model_series);
        match class.as_str() {
            GPU => effect
                .labels
                .extend(series.map(|series| (compute_label::GPU_SERIES, series))),
            GPU_HPN => effect
                .node_selector
                .extend(series.map(|series| (compute_label::GPU_SERIES, series))),
            _ => {}
        }
        effect.gpu_only = is_gpu_class(&class);
        effect.labels.insert(compute_label::CLASS, class);
        effect
            .labels
            .extend(defaults.qos.map(|qos| (compute_label::QOS, qos.to_string())));
        effect
    }

    /// ACS instances are meant, not ECI.
    pub fn is_acs(&self) -> bool {
        !self.labels.is_empty()
    }

    /// What is added to what is said: the one answer that pods, rules' entries and units get. Class and QoS are a pair: who
    /// says one of them has chosen. The series completes a class that is ours, or the same.
    pub(crate) fn complete(&self, said: &Said<'_>) -> Completion<'_> {
        let class = self.labels.get(compute_label::CLASS).map(String::as_str);
        let silent = said.class.is_none() && !said.qos;
        if said.eci || class.is_none() || !(silent || said.class == class) {
            return Completion::default();
        }
        let given = |key: &str| match key {
            compute_label::GPU_SERIES => !said.series,
            _ => silent,
        };
        Completion {
            labels: pick(&self.labels, given),
            node_selector: pick(&self.node_selector, given),
            trigger: silent.then_some((compute_label::ACS, TRUE)),
        }
    }

    /// The series stands in the pod's node selector, not in a label of the pod.
    pub(crate) fn series_is_node_label(&self) -> bool {
        self.node_selector.contains_key(compute_label::GPU_SERIES)
    }

    /// Whether the pod would get something else now than it got. One that got no series may have its own: of reserved GPU
    /// nodes it stands in the node selector.
    pub(crate) fn outdates(&self, pod: &StampedPod<'_>) -> bool {
        let names = |part: &str| {
            let mut parts = pod.stamp.into_iter().flat_map(|stamp| stamp.split(','));
            parts.any(|p| p.split_once('=').is_some_and(|(name, _)| name == part))
        };
        let own_class = pod.class.filter(|_| !names(CLASS));
        let reserved = self
            .labels
            .get(compute_label::CLASS)
            .is_some_and(|class| class == GPU_HPN);
        let said = Said {
            class: own_class,
            qos: pod.stamp.is_none() && pod.qos,
            eci: pod.stamp.is_none() && pod.eci,
            series: !names(SERIES) && (pod.series || reserved),
        };
        let gets_none = self.gpu_only && !pod.gpu;
        let now = self.complete(&said).stamp().filter(|_| !gets_none);
        now.as_deref() != pod.stamp
    }
}

fn pick<'a>(
    from: &'a BTreeMap<&'static str, String>,
    given: impl Fn(&str) -> bool,
) -> BTreeMap<&'static str, &'a str> {
    let given = from.iter().filter(|(key, _)| given(key));
    given.map(|(key, value)| (*key, value.as_str())).collect()
}

/// What is said about the instance already: by a pod, by the rule that places it or by the unit that takes it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'a> {
    /// A class.
    pub(crate) class: Option<&'a str>,
    /// A QoS.
    pub(crate) qos: bool,
    /// ECI is meant.
    pub(crate) eci: bool,
    /// A GPU series, where the defaults would say theirs; or none can be said there.
    pub(crate) series: bool,
}

impl<'a> Said<'a> {
    /// What these pod labels say. `node_series`: the node selector beside them has a series.
    pub(crate) fn by(
        effect: &ComputeEffect,
        label: impl Fn(&str) -> Option<&'a str>,
        node_series: bool,
    ) -> Self {
        let asks = |key: &str| label(key) == Some(TRUE);
        Self {
            class: label(compute_label::CLASS),
            qos: label(compute_label::QOS).is_some(),
            eci: asks(trigger_label::ECI) || asks(trigger_label::LEGACY_ECI),
            series: if effect.series_is_node_label() {
                node_series
            } else {
                label(compute_label::GPU_SERIES).is_some()
            },
        }
    }
}

/// What compute defaults add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion<'a> {
    /// Pod labels.
    pub(crate) labels: BTreeMap<&'static str, &'a str>,
    /// Node labels that the pod asks for.
    pub(crate) node_selector: BTreeMap<&'static str, &'a str>,
    /// The label that brings a pod to ACS by itself, where ACS is meant. Never for a pod that may stay on an ordinary node,
    /// and not needed in a ResourcePolicy, whose unit says acs.
    pub(crate) trigger: Option<(&'static str, &'static str)>,
}

impl Completion<'_> {
    /// The text that is kept on the pod; `None` when it gets nothing.
    pub(crate) fn stamp(&self) -> Option<String> {
        let part = |name: &str, key: &str| {
            let value = self.labels.get(key).or_else(|| self.node_selector.get(key))?;
            Some(format!("{name}={value}"))
        };
        let parts = [
            part(CLASS, compute_label::CLASS),
            part("qos", compute_label::QOS),
            part(SERIES, compute_label::GPU_SERIES),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn effect(defaults: Value) -> ComputeEffect {
        ComputeEffect::of(Some(&serde_json::from_value(defaults).unwrap()))
    }

    fn map(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
        pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()
    }

    #[test]
    fn nothing_said_is_plain_eci() {
        for defaults in [
            json!({}),
            json!({ "class": "" }),
            json!({ "qos": "best-effort" }),
            json!({ "gpuModelSeries": "T4" }),
        ] {
            let effect = effect(defaults.clone());
            assert_eq!(effect, ComputeEffect::default(), "{defaults}");
            assert_eq!(effect.complete(&Said::default()), Completion::default());
        }
        assert_eq!(ComputeEffect::of(None), ComputeEffect::default());
    }

    #[test]
    fn class_and_qos_are_pod_labels() {
        let effect = effect(json!({ "class": "performance", "qos": "best-effort" }));
        let labels = map(&[
            ("alibabacloud.com/compute-class", "performance"),
            ("alibabacloud.com/compute-qos", "best-effort"),
        ]);
        assert_eq!((effect.labels.clone(), effect.gpu_only), (labels, false));
        let trigger = effect.complete(&Said::default()).trigger;
        assert_eq!(trigger, Some(("alibabacloud.com/acs", "true")));
    }

    #[test]
    fn the_series_stands_where_its_class_wants_it() {
        let series = ("alibabacloud.com/gpu-model-series", "T4");
        let gpu = effect(json!({ "class": "gpu", "gpuModelSeries": "T4" }));
        assert_eq!(
            gpu.labels,
            map(&[("alibabacloud.com/compute-class", "gpu"), series])
        );
        assert!(gpu.node_selector.is_empty() && gpu.gpu_only);
        let hpn = effect(json!({ "class": "gpu-hpn", "gpuModelSeries": "T4" }));
        assert_eq!(hpn.labels, map(&[("alibabacloud.com/compute-class", "gpu-hpn")]));
        assert_eq!(hpn.node_selector, map(&[series]));
        assert!(hpn.gpu_only);
    }

    #[test]
    fn a_stamp_says_what_was_given() {
        let gpu = effect(json!({ "class": "gpu", "qos": "best-effort", "gpuModelSeries": "T4" }));
        let given = |effect: &ComputeEffect, class, series| {
            let said = Said {
                class,
                series,
                ..Said::default()
            };
            effect.complete(&said).stamp()
        };
        let stamp = |class, series| given(&gpu, class, series);
        assert_eq!(
            stamp(None, false).as_deref(),
            Some("class=gpu,qos=best-effort,series=T4")
        );
        assert_eq!(stamp(None, true).as_deref(), Some("class=gpu,qos=best-effort"));
        assert_eq!(stamp(Some("gpu"), false).as_deref(), Some("series=T4"));
        assert_eq!(stamp(Some("gpu"), true), None);
        assert_eq!(stamp(Some("performance"), false), None);
        let hpn = effect(json!({ "class": "gpu-hpn", "gpuModelSeries": "T4" }));
        assert_eq!(
            given(&hpn, None, false).as_deref(),
            Some("class=gpu-hpn,series=T4")
        );
        assert_eq!(given(&ComputeEffect::default(), None, false), None);
    }

    #[test]
    fn a_class_that_is_not_known_is_passed_on() {
        let effect = effect(json!({ "class": "agent-sandbox" }));
        assert_eq!(
            effect.labels,
            map(&[("alibabacloud.com/compute-class", "agent-sandbox")])
        );
        assert!(!effect.gpu_only);
    }
}
