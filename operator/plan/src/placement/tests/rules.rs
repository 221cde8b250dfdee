//! What rules, triggers and defaults do to single pods.

use serde_json::{Value, json};

use super::{
    is_virtual, label, labelled, labels, may_run_on, mutation, patched, pool, ruled, stored, virtual_node,
    with,
};
use crate::placement::{Placing, Review, VirtualNodes};

fn selecting(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

fn gpu_pod(labels: &[(&str, &str)]) -> Value {
    let all = json!({ "cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1" });
    let containers = json!([{ "name": "app", "resources": { "limits": all, "requests": all } }]);
    with(labelled(labels), json!({ "spec": { "containers": containers } }))
}

#[test]
fn the_first_rule_of_the_oldest_pool_places_the_pod() {
    let rule = |name: &str| json!({ "rules": [{ "name": name, "mode": "Require", "podSelector": selecting("web") }] });
    let old = pool("old", 2024, json!({ "placement": rule("a") }));
    let young = pool("young", 2025, json!({ "placement": rule("b") }));
    let pod = labelled(&[("app", "web"), ("alibabacloud.com/eci", "true")]);
    for pools in [[old.clone(), young.clone()], [young, old]] {
        assert_eq!(mutation(&pools, &pod, &[]).placed_by.as_deref(), Some("old/a"));
        let other = labelled(&[("eci", "true")]);
        assert_eq!(
            mutation(&pools, &other, &[]).placed_by.as_deref(),
            Some("old/eci=true")
        );
    }
}

#[test]
fn pools_that_do_not_ask_for_the_webhook_place_nothing() {
    let rules = json!([{ "name": "a", "mode": "Require", "podSelector": {} }]);
    let of = |webhook: &str| {
        pool(
            "burst",
            2026,
            json!({ "placement": { "webhook": webhook, "rules": rules } }),
        )
    };
    let pod = labelled(&[("eci", "true")]);
    for webhook in ["Vendor", "None"] {
        assert_eq!(mutation(&[of(webhook)], &pod, &[]), Default::default());
    }
    let mut going = (*of("Operator")).clone();
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    assert_eq!(mutation(&[going.into()], &pod, &[]), Default::default());
    assert!(mutation(&[of("Operator")], &pod, &[]).placed_by.is_some());
}

#[test]
fn a_pool_that_gets_no_nodes_places_nothing() {
    let rules = json!([{ "name": "a", "mode": "Require", "podSelector": {} }]);
    let old = pool("old", 2024, json!({}));
    let refused = |reason: &str, nodes: i32| {
        let mut pool = (*pool("young", 2025, json!({ "placement": { "rules": rules } }))).clone();
        let accepted = json!({ "type": "Accepted", "status": "False", "reason": reason, "message": "",
                               "lastTransitionTime": "2026-01-01T00:00:00Z" });
        pool.status = serde_json::from_value(json!({ "nodes": nodes, "conditions": [accepted] })).unwrap();
        std::sync::Arc::new(pool)
    };
    let placed = |young| mutation(&[old.clone(), young], &labelled(&[]), &[]).placed_by;
    for reason in [
        "Conflict",
        "WorkloadExists",
        "WorkloadNotFound",
        "NamespaceNotAllowed",
    ] {
        assert_eq!(placed(refused(reason, 0)), None, "{reason}");
        assert_eq!(
            placed(refused(reason, 1)).as_deref(),
            Some("young/a"),
            "{reason}, with nodes"
        );
    }
    let young = refused("InvalidSpec", 0);
    assert_eq!(placed(young).as_deref(), Some("young/a"), "its nodes come");
}

#[test]
fn a_paused_pool_goes_on_placing() {
    let rules = json!([{ "name": "a", "mode": "Require", "podSelector": {} }]);
    let pools = [pool(
        "burst",
        2026,
        json!({ "paused": true, "placement": { "rules": rules } }),
    )];
    let placed = mutation(&pools, &labelled(&[]), &[]).placed_by;
    assert_eq!(placed.as_deref(), Some("burst/a"));
}

#[test]
fn a_rule_that_can_not_be_read_places_nothing_and_stops_no_other() {
    let pools = [ruled(json!([
        { "name": "broken", "mode": "Require",
          "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Like", "values": ["web"] }] } },
        { "name": "key", "mode": "Require", "podSelector": {}, "labels": { "no key": "x" } },
        { "name": "cost", "mode": "Require", "podSelector": {},
          "annotations": { "controller.kubernetes.io/pod-deletion-cost": "low" } },
        { "name": "mirror", "mode": "Require", "podSelector": {}, "annotations": { "kubernetes.io/config.mirror": "x" } },
        { "name": "fine", "mode": "Require", "podSelector": selecting("web") },
    ]))];
    let by = mutation(&pools, &labelled(&[("app", "web")]), &[]).placed_by;
    assert_eq!(by.as_deref(), Some("burst/fine"));
    let cost = json!([{ "name": "cost", "mode": "Require", "podSelector": selecting("web"),
                        "annotations": { "controller.kubernetes.io/pod-deletion-cost": "-5" } }]);
    let by = mutation(&[ruled(cost)], &labelled(&[("app", "web")]), &[]).placed_by;
    assert_eq!(by.as_deref(), Some("burst/cost"));
}

#[test]
fn prefer_only_marks() {
    let pools = [pool(
        "burst",
        2026,
        json!({
            "computeDefaults": { "class": "performance" },
            "placement": { "rules": [{ "name": "web", "mode": "Prefer", "podSelector": selecting("web") }] },
        }),
    )];
    let stored = stored(&pools, &labelled(&[("app", "web")]), &[]);
    assert_eq!(label(&stored, "virtualnodes.dev/overflow"), Some("burst"));
    assert_eq!(
        label(&stored, "alibabacloud.com/compute-class"),
        Some("performance")
    );
    assert_eq!(
        label(&stored, "alibabacloud.com/acs"),
        None,
        "it would be a trigger"
    );
    assert_eq!(stored["spec"], labelled(&[])["spec"]);
}

#[test]
fn a_trigger_is_stronger_than_prefer() {
    let pools = [ruled(json!([
        { "name": "web", "mode": "Prefer", "podSelector": selecting("web") },
        { "name": "own", "mode": "Prefer", "podSelector": selecting("own"), "labels": { "alibabacloud.com/eci": "true" } },
    ]))];
    for (pod, namespace) in [
        (
            labelled(&[("app", "web"), ("alibabacloud.com/acs", "true")]),
            &[][..],
        ),
        (labelled(&[("app", "web")]), &[("alibabacloud.com/eci", "true")]),
        (labelled(&[("app", "own")]), &[]),
    ] {
        let stored = stored(&pools, &pod, namespace);
        assert!(
            is_virtual(&stored) && label(&stored, "virtualnodes.dev/overflow").is_none(),
            "{stored}"
        );
    }
}

#[test]
fn pods_that_overflow_keep_off_the_nodes_of_other_pools() {
    let spec = json!({
        "placement": { "rules": [{ "name": "a", "mode": "Prefer", "podSelector": selecting("web") }] },
    });
    let (first, second) = (pool("burst", 2026, spec), pool("other", 2027, json!({})));
    let alone = stored(std::slice::from_ref(&first), &labelled(&[("app", "web")]), &[]);
    assert!(may_run_on(&alone, &virtual_node("other")));
    let pools = [first, second];
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |terms: Value| json!({ "nodeAffinity": { required: { "nodeSelectorTerms": terms } } });
    let zone = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] });
    for affinity in [
        json!(null),
        json!({ "podAffinity": {} }),
        json!({ "nodeAffinity": {} }),
        terms(json!([zone])),
        terms(json!([zone, { "matchExpressions": [{ "key": "gpu", "operator": "Exists" }] }])),
    ] {
        let own = json!({ "spec": { "affinity": affinity } });
        let stored = stored(&pools, &with(labelled(&[("app", "web")]), own), &[]);
        for (node, fits) in [
            (labels(&[("zone", "a")]), true),
            (virtual_node("burst"), true),
            (virtual_node("other"), false),
        ] {
            assert_eq!(may_run_on(&stored, &node), fits, "{node:?}: {stored}");
        }
        assert_eq!(stored["spec"]["affinity"]["podAffinity"], affinity["podAffinity"]);
    }
    let node = json!({ "spec": { "nodeSelector": { "virtualnodes.dev/pool": "other" } } });
    let other = labelled(&[("app", "web"), ("virtualnodes.dev/overflow", "other")]);
    for own in [with(labelled(&[("app", "web")]), node), other] {
        assert_eq!(stored(&pools, &own, &[])["spec"], own["spec"]);
    }
}

#[test]
fn a_copy_in_another_namespace_is_another_pod() {
    let rule = |name: &str, team: &str| json!({ "name": name, "mode": "Require", "namespaceSelector": { "matchLabels": { "team": team } } });
    let pools = [ruled(json!([rule("a", "a"), rule("b", "b")]))];
    let copied = with(
        labelled(&[]),
        json!({ "metadata": { "annotations": { "virtualnodes.dev/placed-by": "burst/a" } } }),
    );
    for (team, by) in [("a", Some("burst/a")), ("b", Some("burst/b")), ("c", None)] {
        assert_eq!(
            mutation(&pools, &copied, &[("team", team)]).placed_by.as_deref(),
            by,
            "{team}"
        );
    }
}

#[test]
fn pods_of_a_rule_go_to_its_pool_and_others_to_any() {
    let spec = json!({
        "computeDefaults": { "class": "gpu-hpn" },
        "placement": { "rules": [{ "name": "a", "mode": "Require", "podSelector": selecting("web") }] },
    });
    let (first, second) = (pool("burst", 2026, spec), pool("other", 2027, json!({})));
    let alone = stored(std::slice::from_ref(&first), &labelled(&[("app", "web")]), &[]);
    assert!(may_run_on(&alone, &virtual_node("other")));
    let pools = [first, second];
    let ruled = stored(&pools, &labelled(&[("app", "web")]), &[]);
    assert!(may_run_on(&ruled, &virtual_node("burst")) && !may_run_on(&ruled, &virtual_node("other")));
    let triggered = stored(&pools, &labelled(&[("alibabacloud.com/eci", "true")]), &[]);
    assert!(may_run_on(&triggered, &virtual_node("other")));
    let own = json!({ "spec": { "nodeSelector": { "virtualnodes.dev/pool": "other" } } });
    let own = stored(&pools, &with(labelled(&[("app", "web")]), own), &[]);
    assert!(may_run_on(&own, &virtual_node("other")));
    let reserved = stored(&pools, &gpu_pod(&[("app", "web")]), &[]);
    let node = labels(&[
        ("type", "virtual-kubelet"),
        ("alibabacloud.com/node-type", "reserved"),
    ]);
    assert!(may_run_on(&reserved, &node), "{reserved}");
}

#[test]
fn what_looks_after_a_node_is_left_alone() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {} }]),
    )];
    let owner = |kind: &str, controller: bool| {
        json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": controller }] } })
    };
    for (overlay, alone) in [
        (owner("DaemonSet", true), true),
        (owner("DaemonSet", false), false),
        (owner("ReplicaSet", true), false),
        (json!({ "spec": { "nodeName": "n" } }), true),
        (json!({ "spec": { "nodeName": "" } }), false),
        (
            json!({ "metadata": {
                "annotations": { "kubernetes.io/config.mirror": "" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true }],
            } }),
            true,
        ),
        // Anybody may set the annotation.
        (
            json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "" } } }),
            false,
        ),
        (
            json!({ "metadata": { "labels": { "virtualnodes.dev/webhook": "disabled" } } }),
            true,
        ),
        (
            json!({ "metadata": { "labels": { "virtualnodes.dev/webhook": "x" } } }),
            false,
        ),
    ] {
        let pod = with(labelled(&[]), overlay.clone());
        assert_eq!(
            mutation(&pools, &pod, &[]).placed_by.is_none(),
            alone,
            "{overlay}"
        );
    }
    let disabled = [("virtualnodes.dev/webhook", "disabled")];
    assert_eq!(mutation(&pools, &labelled(&[]), &disabled).placed_by, None);
    for namespace in ["kube-system", "kube-node-lease"] {
        let review = Review {
            pod: &labelled(&[]),
            namespace,
            namespace_labels: &labels(&[]),
            nodes: &VirtualNodes::default(),
        };
        assert_eq!(Placing::compile(&pools).mutate(&review).placed_by, None);
    }
}

#[test]
fn a_pod_that_rules_virtual_nodes_out_has_spoken() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {}, "labels": { "x": "y" } }]),
    )];
    let terms = |terms: Value| {
        json!({ "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } } })
    };
    let no = json!({ "matchExpressions": [{ "key": "type", "operator": "NotIn", "values": ["virtual-kubelet"] }] });
    let absent = json!({ "matchExpressions": [{ "key": "type", "operator": "DoesNotExist" }] });
    let zone = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] });
    for (overlay, left) in [
        (json!({ "spec": { "nodeSelector": { "type": "ssd" } } }), true),
        (terms(json!([no])), true),
        (terms(json!([no, absent, {}])), true),
        (terms(json!([no, zone])), false),
        (terms(json!([])), false),
    ] {
        let pod = with(labelled(&[]), overlay.clone());
        let stored = stored(&pools, &pod, &[]);
        assert_eq!(stored == pod, left, "{overlay}");
        assert!(left || is_virtual(&stored), "{stored}");
    }
}

#[test]
fn the_pods_own_word_on_its_class_wins() {
    let defaults = json!({ "class": "gpu", "qos": "best-effort", "gpuModelSeries": "T4" });
    let rules = json!([{ "name": "all", "mode": "Require", "podSelector": {} }]);
    let pools = [pool(
        "burst",
        2026,
        json!({ "computeDefaults": defaults, "placement": { "rules": rules } }),
    )];
    let (class, qos, series) = (
        "alibabacloud.com/compute-class",
        "alibabacloud.com/compute-qos",
        "alibabacloud.com/gpu-model-series",
    );
    type Expected = [Option<&'static str>; 4];
    let cases: [(&[(&str, &str)], Expected); 7] = [
        (&[], [Some("gpu"), Some("best-effort"), Some("T4"), Some("true")]),
        (
            &[(series, "A10")],
            [Some("gpu"), Some("best-effort"), Some("A10"), Some("true")],
        ),
        (&[(class, "gpu")], [Some("gpu"), None, Some("T4"), None]),
        (&[(class, "gpu-hpn")], [Some("gpu-hpn"), None, None, None]),
        (&[(qos, "default")], [None, Some("default"), None, None]),
        (&[("alibabacloud.com/eci", "true")], [None; 4]),
        (&[("eci", "true")], [None; 4]),
    ];
    for (own, expected) in cases {
        let stored = stored(&pools, &gpu_pod(own), &[]);
        let got = [class, qos, series, "alibabacloud.com/acs"].map(|key| label(&stored, key));
        assert_eq!(got, expected, "{own:?}");
        assert!(is_virtual(&stored));
    }
    let plain = stored(&pools, &labelled(&[]), &[]);
    assert_eq!(label(&plain, class), None, "no GPU is requested");
}

#[test]
fn a_gpu_in_any_container_counts() {
    let rules = json!([{ "name": "all", "mode": "Require", "podSelector": {} }]);
    let defaults = json!({ "class": "gpu", "gpuModelSeries": "T4" });
    let pools = [pool(
        "burst",
        2026,
        json!({ "computeDefaults": defaults, "placement": { "rules": rules } }),
    )];
    let asking = |quantity: &str| {
        json!([{ "name": "x", "restartPolicy": "Always",
        "resources": { "limits": { "nvidia.com/gpu": quantity } } }])
    };
    for (overlay, gets) in [
        (json!({ "spec": { "initContainers": asking("1") } }), true),
        (json!({ "spec": { "containers": asking("1") } }), true),
        (json!({ "spec": { "containers": asking("0") } }), false),
    ] {
        let stored = stored(&pools, &with(labelled(&[]), overlay.clone()), &[]);
        assert_eq!(
            label(&stored, "alibabacloud.com/compute-class").is_some(),
            gets,
            "{overlay}"
        );
    }
}

#[test]
fn reserved_gpu_nodes_are_asked_for_by_series() {
    let rules = json!([{ "name": "all", "mode": "Require", "podSelector": {} }]);
    let defaults = json!({ "class": "gpu-hpn", "gpuModelSeries": "T4" });
    let pools = [pool(
        "burst",
        2026,
        json!({ "computeDefaults": defaults, "placement": { "rules": rules } }),
    )];
    let asked = stored(&pools, &gpu_pod(&[]), &[]);
    assert_eq!(
        asked["spec"]["nodeSelector"]["alibabacloud.com/gpu-model-series"],
        "T4"
    );
    assert_eq!(label(&asked, "alibabacloud.com/gpu-model-series"), None);
}

#[test]
fn a_gpu_pod_that_is_not_guaranteed_is_warned_of() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {},
        "labels": { "alibabacloud.com/compute-class": "gpu" } }]),
    )];
    let warned = |pod: &Value| !mutation(&pools, pod, &[]).warnings.is_empty();
    assert!(!warned(&gpu_pod(&[])));
    let sidecar = json!({ "spec": { "initContainers": [{ "name": "mesh", "restartPolicy": "Always" }] } });
    let pod = with(gpu_pod(&[]), sidecar);
    let told = mutation(&pools, &pod, &[]).warnings;
    assert!(
        told.len() == 1 && told[0].contains("container mesh") && told[0].contains("Guaranteed"),
        "{told:?}"
    );
    let whole = json!({ "spec": { "resources": { "limits": { "cpu": "2", "memory": "2Gi" } } } });
    assert!(!warned(&with(pod, whole)));
    let eci = [("alibabacloud.com/compute-class", "x")];
    assert!(!warned(&labelled(&eci)), "no GPU is requested");
}

#[test]
fn a_scheduler_is_named_where_nobody_chose_one() {
    let pools = [pool(
        "burst",
        2026,
        json!({
            "placement": { "rules": [{ "name": "a", "mode": "Require", "podSelector": selecting("web") }] },
            "scheduling": {
                "schedulerName": "ack-co-scheduler",
                "resourcePolicies": [{ "name": "p", "namespaceSelector": { "matchLabels": { "team": "a" } } }],
            },
        }),
    )];
    let (rule, other) = (labelled(&[("app", "web")]), labelled(&[("eci", "true")]));
    let team = &[("team", "a")][..];
    for (own, pod, namespace, named) in [
        (json!(null), &rule, &[][..], "ack-co-scheduler"),
        (json!("default-scheduler"), &rule, &[], "ack-co-scheduler"),
        (json!("mine"), &rule, &[], "mine"),
        (json!("default-scheduler"), &other, &[], "default-scheduler"),
        (json!("default-scheduler"), &other, team, "ack-co-scheduler"),
        (
            json!("default-scheduler"),
            &labelled(&[]),
            team,
            "ack-co-scheduler",
        ),
    ] {
        let pod = with(pod.clone(), json!({ "spec": { "schedulerName": own } }));
        let stored = stored(&pools, &pod, namespace);
        assert_eq!(stored["spec"]["schedulerName"], named, "{pod} {namespace:?}");
    }
    let by = mutation(&pools, &labelled(&[]), team).placed_by;
    assert_eq!(by.as_deref(), Some("burst/policy.p"));
}

#[test]
fn warnings_are_for_those_who_ask() {
    let pools = [ruled(
        json!([{ "name": "a", "mode": "Require", "podSelector": selecting("web"), "labels": { "x": "y" } }]),
    )];
    let asking = json!({ "metadata": { "annotations": { "virtualnodes.dev/explain": "true" } } });
    let told = |pod: Value| mutation(&pools, &pod, &[]).warnings;
    assert_eq!(told(labelled(&[("app", "web")])), [""; 0]);
    assert_eq!(
        told(with(labelled(&[("app", "web")]), asking.clone())),
        [
            "virtualnodes.dev: burst/a added label x=y",
            "virtualnodes.dev: burst/a added nodeSelector type=virtual-kubelet",
            "virtualnodes.dev: burst/a added toleration virtual-kubelet.io/provider",
        ]
    );
    let bound = with(
        labelled(&[("app", "web")]),
        json!({ "spec": { "nodeName": "n" } }),
    );
    assert!(told(with(bound, asking.clone()))[0].contains("nodeName"));
    let unwilling = with(
        labelled(&[("app", "web")]),
        json!({ "spec": { "nodeSelector": { "type": "ssd" } } }),
    );
    assert!(told(with(unwilling, asking))[0].contains("rules out type=virtual-kubelet"));
}

#[test]
fn what_is_no_pod_stays_as_it_is() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {} }]),
    )];
    for broken in [
        json!(null),
        json!([]),
        json!({}),
        json!({ "metadata": {}, "spec": null }),
        json!({ "metadata": { "labels": ["x"] }, "spec": {} }),
        json!({ "metadata": { "labels": { "x": 1 } }, "spec": {} }),
        json!({ "metadata": {}, "spec": { "tolerations": {} } }),
        json!({ "metadata": {}, "spec": { "nodeSelector": [] } }),
        json!({ "metadata": {}, "spec": { "affinity": { "nodeAffinity": 1 } } }),
        json!([{}, {}]),
        json!({ "metadata": [null, null, null], "spec": {} }),
        json!({ "metadata": {}, "spec": [null, null, null, null, null, null, null, null] }),
        json!({ "metadata": {}, "spec": { "affinity": [null] } }),
    ] {
        let mutation = mutation(&pools, &broken, &[]);
        assert!(
            mutation.unreadable.is_some() && mutation.patch.0.is_empty(),
            "{broken}"
        );
    }
    let nulls = json!({
        "metadata": { "labels": null, "annotations": null, "ownerReferences": null },
        "spec": { "tolerations": null, "nodeSelector": null, "affinity": null, "schedulerName": null },
    });
    assert!(is_virtual(&patched(&nulls, &mutation(&pools, &nulls, &[]))));
}
