//! Every form of asking for virtual nodes that the vendor documents, in the YAML of its pages: each pod ends where its page
//! says, whatever the pool's own defaults are.

use std::sync::Arc;

use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::{is_virtual, label, patched, pool};
use crate::placement::tests::{labels, mutation, with};

/// What the page says becomes of the pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// An ECI instance on a virtual node.
    Eci,
    /// An ACS instance of this class, QoS and series on a virtual node.
    Acs(&'static str, &'static str, Option<&'static str>),
    /// Nothing on the pod says: the policy decides when it is scheduled.
    Policy,
}

struct Case {
    page: &'static str,
    namespace: &'static [(&'static str, &'static str)],
    /// Labels that a command line of the page adds.
    labels: &'static [(&'static str, &'static str)],
    end: End,
}

const ECI_NAMESPACE: &[(&str, &str)] = &[("alibabacloud.com/eci", "true")];
const LEGACY_NAMESPACE: &[(&str, &str)] = &[("virtual-node-affinity-injection", "enabled")];

fn cases() -> Vec<Case> {
    let case = |page, end| Case {
        page,
        namespace: &[],
        labels: &[],
        end,
    };
    let cpu = End::Acs("general-purpose", "default", None);
    let gpu = End::Acs("gpu", "default", Some("example-model"));
    vec![
        case(include_str!("pages/node-selector.yaml"), End::Eci),
        case(include_str!("pages/eci-label.yaml"), End::Eci),
        case(include_str!("pages/eci-label-gpu.yaml"), End::Eci),
        Case {
            namespace: ECI_NAMESPACE,
            ..case(include_str!("pages/eci-namespace.yaml"), End::Eci)
        },
        Case {
            namespace: ECI_NAMESPACE,
            ..case(include_str!("pages/run.yaml"), End::Eci)
        },
        Case {
            labels: &[("alibabacloud.com/eci", "true")],
            ..case(include_str!("pages/run.yaml"), End::Eci)
        },
        Case {
            labels: &[("eci", "true")],
            ..case(include_str!("pages/run.yaml"), End::Eci)
        },
        case(include_str!("pages/acs-node-selector.yaml"), cpu),
        case(include_str!("pages/acs-label.yaml"), cpu),
        case(include_str!("pages/acs-node-selector-gpu.yaml"), gpu),
        case(include_str!("pages/acs-label-gpu.yaml"), gpu),
        case(include_str!("pages/acs-resource-policy-gpu.yaml"), End::Policy),
        case(include_str!("pages/co-scheduler.yaml"), End::Policy),
    ]
}

/// The pod of a manifest, of its template where it is a workload.
fn pod_of(case: &Case) -> Value {
    let manifest: Value = serde_saphyr::from_str(case.page).unwrap();
    let pod = match manifest.pointer("/spec/template") {
        Some(template) => json!({ "metadata": template["metadata"], "spec": template["spec"] }),
        None => manifest,
    };
    with(pod, json!({ "metadata": { "labels": labels(case.labels) } }))
}

fn pools(defaults: Value) -> [Arc<VirtualNodePool>; 1] {
    [pool("burst", 2026, json!({ "computeDefaults": defaults }))]
}

#[test]
fn every_form_ends_where_its_page_says() {
    for defaults in [
        json!(null),
        json!({ "class": "performance", "qos": "best-effort" }),
        json!({ "class": "gpu", "qos": "best-effort", "gpuModelSeries": "A10" }),
        json!({ "class": "gpu-hpn", "gpuModelSeries": "A10" }),
    ] {
        for case in cases() {
            let pod = pod_of(&case);
            let mutation = mutation(&pools(defaults.clone()), &pod, case.namespace);
            let stored = patched(&pod, &mutation);
            let told = format!("{defaults} {} {:?}: {stored}", case.page, case.namespace);
            assert_eq!(mutation.unreadable, None, "{told}");
            let class = label(&stored, "alibabacloud.com/compute-class");
            let qos = label(&stored, "alibabacloud.com/compute-qos");
            let series = label(&stored, "alibabacloud.com/gpu-model-series");
            match case.end {
                End::Eci => {
                    assert!(is_virtual(&stored) && class.is_none(), "{told}");
                    assert_ne!(label(&stored, "alibabacloud.com/acs"), Some("true"), "{told}");
                }
                End::Acs(own_class, own_qos, own_series) => {
                    assert!(is_virtual(&stored), "{told}");
                    assert_eq!(
                        (class, qos, series),
                        (Some(own_class), Some(own_qos), own_series),
                        "{told}"
                    );
                }
                End::Policy => assert_eq!(stored, pod, "{told}"),
            }
        }
    }
}

#[test]
fn the_manual_form_needs_nothing_more() {
    for page in [
        include_str!("pages/node-selector.yaml"),
        include_str!("pages/acs-node-selector.yaml"),
        include_str!("pages/acs-node-selector-gpu.yaml"),
    ] {
        let case = Case {
            page,
            namespace: ECI_NAMESPACE,
            labels: &[],
            end: End::Eci,
        };
        let pod = pod_of(&case);
        let mutation = mutation(&pools(json!(null)), &pod, case.namespace);
        assert_eq!(json!(mutation.patch), json!([]), "{page}");
    }
}

#[test]
fn the_legacy_namespace_label_brings_pods_that_get_the_pools_class() {
    let case = Case {
        page: include_str!("pages/run.yaml"),
        namespace: LEGACY_NAMESPACE,
        labels: &[],
        end: End::Eci,
    };
    let pod = pod_of(&case);
    let plain = super::stored(&pools(json!(null)), &pod, case.namespace);
    assert!(is_virtual(&plain) && label(&plain, "alibabacloud.com/compute-class").is_none());
    let classed = super::stored(&pools(json!({ "class": "performance" })), &pod, case.namespace);
    assert!(is_virtual(&classed));
    assert_eq!(
        label(&classed, "alibabacloud.com/compute-class"),
        Some("performance")
    );
}

/// The page names the scheduler on the pod; with `schedulerName` and a policy in the pool nobody has to.
#[test]
fn a_policy_names_the_scheduler() {
    let pools = [pool(
        "burst",
        2026,
        json!({ "scheduling": {
            "schedulerName": "ack-co-scheduler",
            "resourcePolicies": [{ "name": "cost-balance-policy", "namespaces": ["shop"], "selector": { "app": "nginx" } }],
        } }),
    )];
    let case = Case {
        page: include_str!("pages/co-scheduler.yaml"),
        namespace: &[],
        labels: &[],
        end: End::Policy,
    };
    let named = pod_of(&case);
    assert_eq!(super::stored(&pools, &named, &[]), named);
    let unnamed = with(named.clone(), json!({ "spec": { "schedulerName": null } }));
    let stored = super::stored(&pools, &unnamed, &[]);
    assert_eq!(stored["spec"]["schedulerName"], "ack-co-scheduler");
    assert_eq!(stored["spec"]["nodeSelector"], json!(null));
}
