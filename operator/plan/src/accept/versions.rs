//! What the spec asks for that the vendor's components take from a certain version on. Where a version can't be seen, that
//! is said, once. Sources: ACK documentation, "Use ACS compute power through ACK edge clusters" (add-on, scheduler for GPU),
//! "Custom elastic resource priority scheduling" (ResourcePolicy), "Configure an eci-profile" and "Schedule pods to Arm
//! virtual nodes"; release notes of ack-virtual-node (ClusterIP).

use vnp_crds::{EventReason, TRUE, VirtualNodePoolSpec, compute_label};

use super::provider_container;
use crate::compute::{ComputeEffect, is_gpu_class};
use crate::finding::{EventNote, Finding};
use crate::observed::{Observed, PolicyCrd};

/// The oldest Kubernetes that the operator is made for.
const KUBERNETES: &str = "1.33";
/// First ACK Virtual Node with ACS instances.
const ACS: &str = "2.13.0";
/// First one that reads eci-profile.
const PROFILE: &str = "2.0.0.90";
/// First one with Arm nodes.
const ARM: &str = "2.9.0";
/// First one whose pods reach ClusterIPs.
const CLUSTER_IP: &str = "1.0.0.2";
/// First scheduler that takes more than one acs unit in a policy.
const SEVERAL_ACS: &str = "6.8.3";
/// First scheduler that places GPU pods on ACS.
const GPU: &str = "6.8.4";
/// The same by version of Kubernetes, as the vendor writes it.
const GPU_BY_KUBERNETES: [(&str, &str); 4] = [
    ("1.26", "v1.26.3-aliyun-6.8.4.4b180111"),
    ("1.28", "v1.28.12-aliyun-6.8.4.b27c0009"),
    ("1.30", "v1.30.3-aliyun.6.8.4.946f90e8"),
    ("1.31", "v1.31.0-aliyun.6.8.4.8f585f26"),
];

/// The numbers of a version: those of `v2.0.0.90-15deb126e-aliyun` are 2, 0, 0 and 90. Zeros at the end do not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u64>);

impl Version {
    /// `None` for what is no version, as `latest`.
    fn read(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next().unwrap_or_default().split('.');
        let mut numbers = numbers.map_while(|part| part.parse().ok()).collect::<Vec<u64>>();
        let read = numbers.len() > 1;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        read.then_some(Self(numbers))
    }

    fn before(&self, minimum: &str) -> bool {
        Self::read(minimum).is_some_and(|minimum| *self < minimum)
    }
}

/// One need of the spec.
struct Need<'a> {
    /// The field that has it.
    field: &'a str,
    /// The oldest version that will do.
    minimum: &'static str,
    /// What that version is the first to do.
    first: &'static str,
}

pub(super) fn warnings(observed: &Observed) -> Vec<Finding> {
    let mut told: Vec<(String, String)> = kubernetes(observed)
        .into_iter()
        .chain(several_acs(observed))
        .chain(gpu(observed))
        .collect();
    let image = image(observed);
    // A provider that is not there is told of elsewhere.
    let there = image.is_some() || observed.workload.there().is_some();
    for need in needs(observed).into_iter().filter(|_| there) {
        told.extend(provider(&need, image).map(|note| (need.field.to_owned(), note)));
    }
    told.into_iter()
        .map(|(subject, note)| {
            Finding::Event(EventNote {
                reason: EventReason::ConfigWarning,
                subject: format!("{subject} version"),
                note,
            })
        })
        .collect()
}

fn kubernetes(observed: &Observed) -> Option<(String, String)> {
    let told = observed.kubernetes.as_deref()?;
    let note = match Version::read(told) {
        Some(version) if !version.before(KUBERNETES) => return None,
        Some(_) => format!(
            "Kubernetes {told} is older than {KUBERNETES}, the oldest that the operator is made for; upgrade the cluster"
        ),
        None if told.is_empty() => format!(
            "the version of Kubernetes is not known, because the API server did not tell it; the operator is made for \
             {KUBERNETES} or later"
        ),
        None => format!(
            "the version of Kubernetes is not known: {told:?} can't be read; the operator is made for {KUBERNETES} or later"
        ),
    };
    Some(("Kubernetes".to_owned(), note))
}

/// The image of the provider: as asked for, else as it is there.
fn image(observed: &Observed) -> Option<&str> {
    let provider = &observed.pool.spec.provider;
    let there = || {
        let workload = observed.workload.there()?;
        let container = provider_container(workload, provider.container()).ok()?;
        workload.containers().get(container)?.get("image")?.as_str()
    };
    provider.image().or_else(there)
}

/// The version in an image's tag; none in a digest or in `latest`.
fn tagged(image: &str) -> Option<Version> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    Version::read(name.split_once(':')?.1)
}

fn needs(observed: &Observed) -> Vec<Need<'static>> {
    let spec = &observed.pool.spec;
    let profile = spec.profile();
    let set = |key: &str| {
        let value = profile.settings.get(key);
        value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    };
    let synced = profile.sync.is_enabled();
    let possible = [
        (
            ComputeEffect::of(spec.compute_defaults.as_ref()).is_acs(),
            Need {
                field: "spec.computeDefaults.class",
                minimum: ACS,
                first: "makes ACS instances",
            },
        ),
        (
            acs_units(spec).any(|units| units > 0),
            Need {
                field: "spec.scheduling.resourcePolicies with acs units",
                minimum: ACS,
                first: "makes ACS instances",
            },
        ),
        (
            rule_labels(spec).any(|(key, value)| {
                key == compute_label::CLASS || (key == compute_label::ACS && value == TRUE)
            }),
            Need {
                field: "spec.placement.rules with labels of ACS",
                minimum: ACS,
                first: "makes ACS instances",
            },
        ),
        (
            synced && !(profile.settings.is_empty() && profile.feature_gates.is_empty()),
            Need {
                field: "spec.profile",
                minimum: PROFILE,
                first: "reads eci-profile",
            },
        ),
        (
            synced && set("enableLinuxArm64Node"),
            Need {
                field: "spec.profile.settings.enableLinuxArm64Node",
                minimum: ARM,
                first: "has Arm nodes",
            },
        ),
    ];
    let asked = possible
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, need)| need);
    // On by default, so that nothing is said of it unless it is known to do nothing.
    let old = image(observed)
        .and_then(tagged)
        .is_some_and(|v| v.before(CLUSTER_IP));
    let cluster_ip = (spec.network.kube_proxy.is_enabled() && old).then_some(Need {
        field: "spec.network.kubeProxy",
        minimum: CLUSTER_IP,
        first: "reaches ClusterIPs",
    });
    asked.chain(cluster_ip).collect()
}

fn provider(need: &Need<'_>, image: Option<&str>) -> Option<String> {
    let Need {
        field,
        minimum,
        first,
    } = need;
    let needs = format!("{field} needs ACK Virtual Node {minimum} or later, the first that {first}");
    match (image, image.and_then(tagged)) {
        (_, Some(version)) if !version.before(minimum) => None,
        (Some(image), Some(_)) => Some(format!("{needs}; the provider's image is {image}: upgrade it")),
        (Some(image), None) => Some(format!(
            "{needs}; the version of the provider's image {image} can't be read from its tag"
        )),
        (None, _) => Some(format!("{needs}; the image of the provider is not known")),
    }
}

/// What all rules add.
fn rule_labels(spec: &VirtualNodePoolSpec) -> impl Iterator<Item = (&String, &String)> {
    let rules = spec.placement.iter().flat_map(|placement| &placement.rules);
    rules.flat_map(|rule| &rule.labels)
}

/// The field that chooses a GPU class.
fn gpu_field(spec: &VirtualNodePoolSpec) -> Option<&'static str> {
    let policies = spec.scheduling.iter().flat_map(|s| &s.resource_policies);
    let mut unit_labels = policies.flat_map(|p| &p.units).flat_map(|unit| &unit.pod_labels);
    let is_gpu = |(key, value): (&String, &String)| key == compute_label::CLASS && is_gpu_class(value);
    if ComputeEffect::of(spec.compute_defaults.as_ref()).gpu_only {
        Some("spec.computeDefaults.class")
    } else if unit_labels.any(is_gpu) {
        Some("spec.scheduling.resourcePolicies")
    } else {
        rule_labels(spec).any(is_gpu).then_some("spec.placement.rules")
    }
}

/// How many acs units each policy has.
fn acs_units(spec: &VirtualNodePoolSpec) -> impl Iterator<Item = usize> {
    let policies = spec.scheduling.iter().flat_map(|s| &s.resource_policies);
    policies.map(|p| p.units.iter().filter(|u| u.resource == "acs").count())
}

fn several_acs(observed: &Observed) -> Option<(String, String)> {
    if !acs_units(&observed.pool.spec).any(|units| units > 1) {
        return None;
    }
    scheduler(
        observed,
        "spec.scheduling.resourcePolicies",
        "more than one acs unit in a policy",
        SEVERAL_ACS,
        SEVERAL_ACS,
    )
}

fn gpu(observed: &Observed) -> Option<(String, String)> {
    let field = gpu_field(&observed.pool.spec)?;
    let kubernetes = observed.kubernetes.as_deref().unwrap_or_default();
    let minor = kubernetes.trim_start_matches('v');
    let documented = GPU_BY_KUBERNETES.iter().find(|(version, _)| {
        minor
            .strip_prefix(version)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    let named = documented.map_or(
        "6.8.4 (documented for Kubernetes 1.26, 1.28, 1.30 and 1.31)",
        |(_, named)| named,
    );
    scheduler(observed, field, "a GPU class", GPU, named)
}

/// The scheduler shows no version. Its ResourcePolicy CRD tells how old it is at most.
fn scheduler(
    observed: &Observed,
    field: &str,
    what: &str,
    minimum: &str,
    named: &str,
) -> Option<(String, String)> {
    let at_least = match &observed.scheduling.crd {
        PolicyCrd::Installed(schema) => schema.scheduler().and_then(Version::read),
        PolicyCrd::Missing(_) | PolicyCrd::Unknown => None,
    };
    let enough = at_least.is_some_and(|version| !version.before(minimum));
    (!enough).then(|| {
        let note = format!("{field}: {what} needs kube-scheduler {named} or later, and the version of the scheduler is not known here");
        (field.to_owned(), note)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::{adopting, held, observed, pool, with_workload, workload};

    fn notes(seen: &Observed) -> Vec<String> {
        let told = warnings(seen).into_iter().map(|f| match f {
            Finding::Event(note) => note.note,
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn with(image: &str, spec: Value) -> Vec<String> {
        let mut overlay = json!({ "spec": spec });
        overlay["spec"]["provider"] = json!({ "image": image });
        notes(&observed(pool(overlay)))
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let read = |text| Version::read(text);
        assert!(read("v2.0.0.90-15deb126e-aliyun") == read("2.0.0.90") && read("2.13") == read("v2.13.0"));
        assert!(read("2.0.0.618") > read("2.0.0.90") && read("v2.9.0") < read("v2.10.0"));
        assert!(read("v1.0.0.2-aliyun") < read("2.0.0.90") && read("v1.37.2+k3s1") > read("1.33"));
        for none in ["latest", "", "v1", "main-7f3"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn tags_are_found_in_any_form_of_an_image() {
        for image in [
            "registry-vpc.cn-hangzhou.aliyuncs.com/acs/virtual-nodes-eci:v2.13.0",
            "localhost:5000/vk:v2.13.0@sha256:00",
            "vk:2.13",
        ] {
            assert_eq!(tagged(image), Version::read("2.13.0"), "{image}");
        }
        for image in ["localhost:5000/vk", "vk@sha256:00", "vk:latest"] {
            assert_eq!(tagged(image), None, "{image}");
        }
    }

    #[test]
    fn an_old_provider_is_named_with_what_it_lacks() {
        let class = json!({ "computeDefaults": { "class": "performance" } });
        let told = with("vk:v1.0.0.2-aliyun", class.clone());
        assert!(
            told.len() == 1 && told[0].contains("2.13.0") && told[0].contains("v1.0.0.2-aliyun"),
            "{told:?}"
        );
        assert_eq!(with("vk:v2.13.0", class.clone()), [""; 0]);
        let unknown = with("vk:latest", class);
        assert!(unknown[0].contains("can't be read from its tag"), "{unknown:?}");

        let settings = json!({ "profile": { "settings": { "enableLinuxArm64Node": "true" } } });
        let told = with("vk:v1.0.0.2", settings.clone()).join("\n");
        assert!(told.contains("2.0.0.90") && told.contains("2.9.0"), "{told}");
        assert_eq!(with("vk:2.8.0", settings.clone()).len(), 1);
        assert_eq!(with("vk:2.9.0", settings), [""; 0]);
        let units = json!([{ "resource": "acs" }]);
        let policies = json!({ "scheduling": { "resourcePolicies": [{ "name": "a", "namespaces": ["b"], "units": units }] } });
        assert!(with("vk:2.12.0", policies)[0].contains("acs units"));
    }

    #[test]
    fn a_plain_pool_is_told_only_what_is_known_to_be_wrong() {
        for image in ["vk:v1.0.0.2-aliyun", "vk:latest", "vk"] {
            assert_eq!(with(image, json!({})), [""; 0], "{image}");
        }
        assert!(with("vk:v1.0.0.1-aliyun", json!({}))[0].contains("ClusterIPs"));
        assert_eq!(
            with("vk:v1.0.0.1", json!({ "network": { "kubeProxy": "Disabled" } })),
            [""; 0]
        );
    }

    #[test]
    fn an_adopted_provider_is_judged_by_the_image_that_is_there() {
        let class = json!({ "spec": { "computeDefaults": { "class": "performance" } } });
        let mut there = held();
        there["spec"] = json!({ "template": { "spec": { "containers": [{
            "name": "provider", "image": "vk:v1.0.0.2", "env": [{ "name": "ECI_REGION", "value": "r" }] }] } } });
        let seen = with_workload(observed(adopting(class.clone())), workload(there));
        assert!(notes(&seen)[0].contains("vk:v1.0.0.2"));
        assert_eq!(
            notes(&observed(adopting(class))),
            [""; 0],
            "nothing is there to judge"
        );
        let mut unnamed = held();
        unnamed["spec"] = json!({ "template": { "spec": { "containers": [] } } });
        let class = json!({ "spec": { "computeDefaults": { "class": "performance" } } });
        let seen = with_workload(observed(adopting(class)), workload(unnamed));
        assert!(notes(&seen)[0].contains("the image of the provider is not known"));
    }

    #[test]
    fn kubernetes_is_judged_and_said_to_be_unknown_when_it_is() {
        let mut seen = observed(pool(json!({})));
        assert_eq!(notes(&seen), [""; 0], "not asked yet");
        for (version, told) in [
            ("v1.31.1-aliyun.1", true),
            ("v1.33.0", false),
            ("v1.37.2", false),
            ("odd", true),
            ("", true),
        ] {
            seen.kubernetes = Some(version.to_owned());
            assert_eq!(notes(&seen).len() == 1, told, "{version}");
        }
        for unknown in ["odd", ""] {
            seen.kubernetes = Some(unknown.to_owned());
            assert!(notes(&seen)[0].contains("is not known"), "{unknown:?}");
        }
    }

    #[test]
    fn a_gpu_class_is_seen_wherever_it_is_chosen() {
        let class = |class: &str| json!({ "alibabacloud.com/compute-class": class });
        let rule = |labels: Value| json!({ "placement": { "rules": [{ "name": "a", "mode": "Require", "labels": labels }] } });
        let unit = |labels: Value| {
            json!({ "scheduling": { "resourcePolicies": [{ "name": "a", "namespaces": ["b"],
                "units": [{ "resource": "acs", "podLabels": labels }] }] } })
        };
        let told = |spec: Value| with("vk:2.13.0", spec);
        for gpu in ["gpu", "gpu-hpn"] {
            assert!(told(rule(class(gpu)))[0].starts_with("spec.placement.rules: a GPU class"));
            assert!(told(unit(class(gpu)))[0].starts_with("spec.scheduling.resourcePolicies: a GPU class"));
        }
        for plain in [rule(class("performance")), unit(class("performance"))] {
            assert_eq!(told(plain), [""; 0]);
        }
        for labels in [class("performance"), json!({ "alibabacloud.com/acs": "true" })] {
            assert!(with("vk:2.12.0", rule(labels))[0].contains("spec.placement.rules with labels of ACS"));
        }
        assert_eq!(
            with("vk:2.12.0", rule(json!({ "alibabacloud.com/acs": "false" }))),
            [""; 0]
        );
    }

    #[test]
    fn a_gpu_class_names_the_scheduler_that_it_needs() {
        let gpu = json!({ "spec": {
            "computeDefaults": { "class": "gpu", "gpuModelSeries": "T4" }, "provider": { "image": "vk:2.13.0" } } });
        let mut seen = observed(pool(gpu));
        let told = notes(&seen);
        assert!(
            told[0].contains("6.8.4 (documented for") && told[0].contains("not known here"),
            "{told:?}"
        );
        seen.kubernetes = Some("v1.31.4".into());
        assert!(
            notes(&seen)
                .iter()
                .any(|n| n.contains("v1.31.0-aliyun.6.8.4.8f585f26"))
        );
        seen.kubernetes = Some("v1.37.0".into());
        // A CRD with a field that came later shows that the scheduler is new enough.
        let crd = |unit: Value| {
            let spec = json!({ "properties": { "units": { "items": { "properties": unit } } } });
            let version = json!({ "name": "v1alpha1", "served": true,
                                  "schema": { "openAPIV3Schema": { "properties": { "spec": spec } } } });
            let established = json!([{ "type": "Established", "status": "True" }]);
            PolicyCrd::read(Some(
                &json!({ "spec": { "versions": [version] }, "status": { "conditions": established } }),
            ))
        };
        seen.scheduling.crd = crd(json!({ "max": { "type": "integer" } }));
        assert_eq!(notes(&seen).len(), 1);
        seen.scheduling.crd = crd(json!({ "maxResources": { "type": "object" } }));
        assert_eq!(notes(&seen), [""; 0]);
    }
}
