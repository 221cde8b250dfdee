use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use vnp_plan::observed::{CordonOwner, MemberState, Patience, Placed, PodPhase, Silence, Term};

use super::*;

fn pod(value: Value) -> SlimPod {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_pod_is_read_as_instance_and_as_provider() {
    let pod = pod(json!({
        "metadata": {
            "name": "virtual-node-eci-1", "namespace": "kube-system", "uid": "u", "resourceVersion": "7",
            "labels": {"app": "virtual-node-eci", "controller-revision-hash": "r1"},
            "annotations": {"kubernetes.io/config.mirror": "x"}, "finalizers": ["a/b"],
            "creationTimestamp": "2026-11-01T00:00:00Z", "deletionTimestamp": "2026-11-01T01:00:00Z",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "virtual-node-eci", "uid": "2", "controller": true}],
            "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {"f:containers": {}}}}],
        },
        "spec": {"nodeName": "host-a", "containers": [{"name": "vk", "image": "vk:1", "env": [{"name": "A"}]}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null,
                            "lastTransitionTime": "2026-11-01T00:01:00Z"}],
            "containerStatuses": [{"name": "vk", "restartCount": 2, "ready": true}, {"name": "log", "restartCount": 1}],
            "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
        },
    }));
    assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(pod.node.as_deref(), Some("host-a"));
    assert!(!pod.bound.mirror && !pod.bound.requires_virtual);
    assert_eq!(pod.bound.finalizers.as_deref(), Some("a/b"));
    assert_eq!(pod.bound.phase, PodPhase::Running);
    assert_eq!(pod.bound.controller.as_ref().unwrap().kind, "StatefulSet");
    let provider = pod.provider();
    assert!(provider.ready && provider.deleting);
    let since = provider.ready_since.map(|t| t.to_string());
    assert_eq!(since.as_deref(), Some("2026-11-01T00:01:00Z"));
    assert_eq!((provider.restarts, provider.revision.as_str()), (3, "r1"));
    assert_eq!(provider.owner_uids, ["1", "2"]);
    assert_eq!(provider.addresses, ["10.0.0.7", "fd00::7"]);
    assert_eq!((provider.host.as_deref(), provider.ran), (Some("host-a"), true));
    assert_eq!(
        provider.images,
        BTreeMap::from([("vk".to_owned(), "vk:1".to_owned())])
    );
}

#[test]
fn a_pod_that_is_not_ready_says_why_in_words_that_stay() {
    let of = |status: Value| {
        pod(json!({"metadata": {"name": "p"}, "status": status}))
            .provider()
            .trouble
    };
    let container = |state: Value, last: Value| {
        of(json!({"containerStatuses": [{"name": "vk", "image": "vk:2", "state": state, "lastState": last}]}))
    };
    let unscheduled = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                            "message": "0/3 nodes are available: 3 Insufficient cpu."}]});
    assert_eq!(
        of(unscheduled).as_deref(),
        Some("no node takes it: 0/3 nodes are available: 3 Insufficient cpu.")
    );
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        let waiting = json!({"waiting": {"reason": reason, "message": format!("{reason} for 20s")}});
        assert_eq!(
            container(waiting, json!({})).as_deref(),
            Some("ImagePullBackOff: image vk:2 of container vk can't be pulled")
        );
    }
    let end = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let crash = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
    for (state, last) in [
        (end.clone(), json!({})),
        (crash, end.clone()),
        (json!({"running": {}}), end.clone()),
        (json!({"waiting": {"reason": "ContainerCreating"}}), end),
    ] {
        assert_eq!(
            container(state, last).as_deref(),
            Some("container vk ended with exit code 137 (OOMKilled)")
        );
    }
    let secret = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"alibaba\" not found"}});
    assert_eq!(
        container(secret, json!({})).as_deref(),
        Some("CreateContainerConfigError: container vk: secret \"alibaba\" not found")
    );
    let creating = json!({"waiting": {"reason": "ContainerCreating"}});
    assert_eq!(container(creating, json!({})), None);
    assert_eq!(
        of(json!({"reason": "Evicted"})).as_deref(),
        Some("the pod is Evicted")
    );
    let long = json!({"waiting": {"reason": "X", "message": "ä".repeat(900)}});
    assert!(container(long, json!({})).unwrap().chars().count() < 270);
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
        {"name": "vk", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}]});
    assert_eq!(of(ready), None);
}

#[test]
fn a_phase_that_nobody_knows_is_not_taken_for_pending() {
    let phase = |phase: Value| pod(json!({"status": {"phase": phase}})).bound.phase;
    assert_eq!(phase(json!("Pending")), PodPhase::Pending);
    assert_eq!(phase(json!("Unknown")), PodPhase::Unknown);
    assert_eq!(phase(json!("Paused")), PodPhase::Unknown);
    assert_eq!(phase(json!(null)), PodPhase::Unknown);
}

#[test]
fn a_pods_patience_is_that_of_the_first_toleration_that_matches() {
    let unreachable = "node.kubernetes.io/unreachable";
    for (tolerations, seconds) in [
        (json!([]), Some(0)),
        (json!(null), Some(0)),
        (json!([{"operator": "Exists"}]), None),
        (
            json!([{"key": unreachable, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
            Some(300),
        ),
        (
            json!([{"key": unreachable, "effect": "NoExecute", "tolerationSeconds": 7}]),
            Some(7),
        ),
        (
            json!([{"key": unreachable, "value": "x", "effect": "NoExecute"}]),
            Some(0),
        ),
        (
            json!([{"key": unreachable, "operator": "Exists", "effect": "NoSchedule"}]),
            Some(0),
        ),
        (json!([{"key": "other", "operator": "Exists"}]), Some(0)),
        (
            json!([{"operator": "Exists", "tolerationSeconds": -1}, {"operator": "Exists"}]),
            Some(0),
        ),
    ] {
        let patience = pod(json!({"spec": {"tolerations": tolerations}}))
            .bound
            .patience
            .unreachable;
        assert_eq!(
            patience,
            seconds.map_or(Patience::Forever, Patience::Seconds),
            "{tolerations}"
        );
    }
}

#[test]
fn a_node_tells_since_when_its_pods_have_to_go() {
    let node: SlimNode = serde_json::from_value(json!({
        "metadata": {"name": "vn-0", "uid": "u"},
        "spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2026-11-01T00:00:00Z"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-11-01T00:00:23Z"},
            {"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"},
        ]},
    }))
    .unwrap();
    let since: Timestamp = "2026-11-01T00:00:23Z".parse().unwrap();
    assert_eq!(node.view.no_execute, [(Silence::Unreachable, since)]);
}

#[test]
fn a_pod_waits_while_it_has_the_label_and_no_node() {
    let of = |overlay: Value| {
        let mut raw = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7",
                         "labels": {"virtualnodes.dev/overflow": "burst"}},
            "spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]},
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]},
        });
        json_patch::merge(&mut raw, &overlay);
        pod(raw).waiting
    };
    let plain = of(json!({})).unwrap();
    assert_eq!(
        (plain.pool.as_str(), plain.resource_version.as_str()),
        ("burst", "7")
    );
    assert!(plain.unschedulable && plain.has_tolerations && !plain.tolerates && !plain.nominated);
    assert_eq!(of(json!({"spec": {"nodeName": "host"}})), None);
    assert_eq!(of(json!({"metadata": {"labels": null}})), None);
    let gated = json!({"status": {"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}});
    assert!(!of(gated).unwrap().unschedulable);
    assert!(!of(json!({"status": {"conditions": null}})).is_some_and(|p| p.unschedulable));
    assert!(
        of(json!({"status": {"nominatedNodeName": "host"}}))
            .unwrap()
            .nominated
    );
    assert!(
        !of(json!({"spec": {"tolerations": null}}))
            .unwrap()
            .has_tolerations
    );
    for (toleration, tolerates) in [
        (
            json!({"key": "virtual-kubelet.io/provider", "operator": "Exists"}),
            true,
        ),
        (
            json!({"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}),
            true,
        ),
        (json!({"operator": "Exists"}), true),
        (json!({"operator": "Exists", "effect": "NoExecute"}), false),
        (
            json!({"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoExecute"}),
            false,
        ),
    ] {
        let there = of(json!({"spec": {"tolerations": [toleration]}})).unwrap();
        assert_eq!(there.tolerates, tolerates, "{toleration}");
    }
}

#[test]
fn either_vendor_s_annotation_names_the_instance() {
    let id = |annotations: Value| {
        let metadata = json!({"name": "p", "namespace": "n", "annotations": annotations});
        pod(json!({"metadata": metadata})).bound.instance_id
    };
    assert_eq!(
        id(json!({"k8s.aliyun.com/eci-instance-id": "eci-1"})).as_deref(),
        Some("eci-1")
    );
    assert_eq!(
        id(json!({"alibabacloud.com/instance-id": "acs-1"})).as_deref(),
        Some("acs-1")
    );
    assert_eq!(
        id(json!({"k8s.aliyun.com/eci-instance-id": "", "other": "x"})),
        None
    );
}

#[test]
fn what_the_webhook_recorded_is_read() {
    let placed = |annotations: Value| {
        pod(json!({"metadata": {"name": "a", "annotations": annotations}}))
            .bound
            .placed
    };
    assert_eq!(
        placed(json!({"virtualnodes.dev/compute-defaults": "class=gpu"})),
        None
    );
    let both =
        json!({"virtualnodes.dev/placed-by": "burst/all", "virtualnodes.dev/compute-defaults": "class=gpu"});
    let expected = Placed {
        by: "burst/all".into(),
        compute: Some("class=gpu".into()),
    };
    assert_eq!(placed(both), Some(Box::new(expected)));
}

#[test]
fn a_gpu_in_any_container_is_seen_whatever_its_quantity_looks_like() {
    let gpu = |containers: Value, init: Value| {
        let spec = json!({"containers": containers, "initContainers": init});
        pod(json!({"metadata": {"name": "a"}, "spec": spec})).bound.gpu
    };
    let asks = |list: &str, name: &str, quantity: Value| json!([{"name": "c", "resources": {list: {name: quantity}}}]);
    let none = || json!([{"name": "c"}]);
    assert!(gpu(asks("limits", "nvidia.com/gpu", json!("1")), json!(null)));
    assert!(gpu(none(), asks("requests", "alibabacloud.com/ppu", json!(2))));
    assert!(!gpu(none(), none()));
    assert!(!gpu(asks("limits", "nvidia.com/gpu", json!("0")), none()));
    assert!(!gpu(asks("limits", "cpu", json!("1")), none()));
}

#[test]
fn a_bare_pending_pod_needs_nothing_but_a_name() {
    let pod = pod(json!({"metadata": {"name": "p", "namespace": "n"}}));
    assert_eq!(pod.node, None);
    assert!(pod.bound.controller.is_none() && !pod.bound.finished());
}

#[test]
fn how_a_pod_asks_not_to_be_disturbed() {
    let asks = |metadata: Value| pod(json!({"metadata": metadata})).bound.undisturbed;
    let annotated = |key: &str, value: &str| asks(json!({"annotations": {key: value}}));
    let karpenter = "karpenter.sh/do-not-disrupt";
    let autoscaler = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    let vendor = "alibabacloud.com/drain-pod";
    assert!(annotated(karpenter, "true").unwrap().starts_with(karpenter));
    assert!(annotated(autoscaler, "false").unwrap().starts_with(autoscaler));
    assert!(annotated(vendor, "skip").unwrap().starts_with(vendor));
    assert!(
        asks(json!({"labels": {vendor: "skip"}}))
            .unwrap()
            .starts_with(vendor)
    );
    for (key, value) in [
        (karpenter, "false"),
        (autoscaler, "true"),
        (vendor, "evict"),
        ("x", "true"),
    ] {
        assert_eq!(annotated(key, value), None, "{key}: {value}");
    }
    assert_eq!(asks(json!({})), None);
}

/// A pod as it was bound and never taken up by its provider.
fn untouched() -> Value {
    json!({
        "metadata": {"name": "logs-x", "namespace": "n", "uid": "u", "annotations": {"team": "a"}},
        "spec": {"nodeName": "v-1"},
        "status": {"phase": "Pending",
                   "conditions": [{"type": "PodScheduled", "status": "True"}],
                   "containerStatuses": [{"name": "c", "restartCount": 0, "started": false, "containerID": "",
                                          "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}}]},
    })
}

/// One trace of an instance each, as merge patches.
fn traces() -> Vec<Value> {
    let status = |key: &str, value: Value| json!({"status": {key: value}});
    let container = |trace: Value| json!([{"name": "a"}, trace]);
    let mut traces = vec![
        status("podIP", json!("10.0.0.1")),
        status("podIPs", json!([{"ip": "10.0.0.1"}])),
        status("phase", json!("Running")),
        status("phase", json!("Failed")),
        status("phase", json!("Unknown")),
        status("phase", Value::Null),
        json!({"metadata": {"annotations": {"k8s.aliyun.com/eci-instance-id": "eci-1"}}}),
        json!({"metadata": {"annotations": {"alibabacloud.com/instance-id": "acs-1"}}}),
    ];
    for kind in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        for trace in [
            json!({"started": true}),
            json!({"restartCount": 1}),
            json!({"containerID": "eci://1"}),
            json!({"state": {"running": {}}}),
            json!({"state": {"terminated": {"exitCode": 1}}}),
            json!({"lastState": {"terminated": {"exitCode": 1}}}),
        ] {
            traces.push(status(kind, container(trace)));
        }
    }
    traces
}

#[test]
fn any_trace_of_an_instance_makes_a_pod_one_that_started() {
    assert!(pod(untouched()).bound.never_started);
    for trace in traces() {
        let mut value = untouched();
        json_patch::merge(&mut value, &trace);
        assert!(!pod(value).bound.never_started, "{trace}");
    }
}

#[test]
fn a_pod_is_read_as_a_member_of_its_statefulset() {
    let with = |deletion: Value, ready: &str| {
        pod(
            json!({"metadata": {"uid": "u", "creationTimestamp": "2026-11-01T00:00:00Z", "deletionTimestamp": deletion},
                   "status": {"conditions": [
                       {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-01T00:01:00Z"},
                       {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}}),
        )
    };
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let seen = |pod: &SlimPod| (pod.member().state, pod.member().since);
    let minute = at("2026-11-01T00:01:00Z");
    assert_eq!(seen(&with(Value::Null, "True")), (MemberState::Ready, minute));
    assert_eq!(seen(&with(Value::Null, "False")), (MemberState::NotReady, minute));
    let leaving = with(json!("2026-11-01T00:02:00Z"), "True");
    assert_eq!(
        seen(&leaving),
        (MemberState::Terminating, at("2026-11-01T00:02:00Z"))
    );
    assert_eq!(leaving.gone().state, MemberState::Gone { disrupted: true });
    let fresh = pod(json!({"metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"}}));
    assert_eq!(seen(&fresh), (MemberState::NotReady, at("2026-11-01T00:00:00Z")));
}

#[test]
fn only_pods_without_an_alternative_require_virtual_nodes() {
    let with = |spec: Value| pod(json!({"metadata": {}, "spec": spec})).bound.requires_virtual;
    let term =
        |values: Value| json!({"matchExpressions": [{"key": "type", "operator": "In", "values": values}]});
    let affinity = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    assert!(with(json!({"nodeSelector": {"type": "virtual-kubelet"}})));
    assert!(!with(json!({"nodeSelector": {"type": "gpu"}})));
    let virtual_only = term(json!(["virtual-kubelet"]));
    assert!(with(affinity(json!([virtual_only]))));
    assert!(!with(affinity(json!([virtual_only, term(json!(["gpu"]))]))));
    assert!(!with(affinity(json!([term(json!(["virtual-kubelet", "gpu"]))]))));
}

fn node(managed: Value, unschedulable: bool) -> SlimNode {
    serde_json::from_value(json!({
        "metadata": {"name": "v-0", "uid": "u", "resourceVersion": "3", "labels": {"type": "virtual-kubelet"},
                     "annotations": {vnp_crds::CORDON_TERM_ANNOTATION: term().to_string(), "other": "x"}, "managedFields": managed},
        "spec": {"unschedulable": unschedulable, "taints": []},
        "status": {"capacity": {"cpu": "1k", "pods": "3k"}, "conditions": [
            {"type": "DiskPressure", "status": "False"},
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-01T00:00:10Z"}]},
    }))
    .unwrap()
}

fn entry(manager: &str, operation: &str, field: &str) -> Value {
    json!({"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {field: {}}}})
}

fn term() -> Term {
    Term {
        transitions: 4,
        installation: "ns".to_owned(),
        leader: "pod_1".to_owned(),
    }
}

#[test]
fn a_node_says_who_cordoned_it() {
    let ours = entry("virtualnodepool-cordon", "Apply", "f:unschedulable");
    let kubectl = entry("kubectl-cordon", "Update", "f:unschedulable");
    let taints = entry("kubectl", "Update", "f:taints");
    let owner = |managed: Value, on| node(managed, on).view.cordon_owner;
    assert_eq!(owner(json!([ours, taints]), true), CordonOwner::Us);
    assert_eq!(owner(json!([kubectl, ours]), true), CordonOwner::Both);
    assert_eq!(owner(json!([kubectl, taints]), true), CordonOwner::Others);
    assert_eq!(owner(json!([]), true), CordonOwner::Others);
    assert_eq!(owner(json!([ours]), false), CordonOwner::Nobody);
    assert!(node(json!([ours]), true).view.cordoned_in_term(&term()));
}

#[test]
fn a_node_says_its_taints() {
    let taint = json!({"key": "alibabacloud.com/eci", "effect": "NoSchedule"});
    let node: SlimNode =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [taint]}})).unwrap();
    assert_eq!(json!(node.view.taints), json!([taint]));
}

#[test]
fn a_node_says_its_size_and_its_last_status_update() {
    let node = node(json!([]), false);
    assert_eq!(
        node.view.allocatable,
        BTreeMap::from([("cpu".to_owned(), 1_000_000), ("pods".to_owned(), 3000)])
    );
    assert!(node.view.ready);
    assert_eq!(node.status_beat, Some("2026-11-01T00:00:10Z".parse().unwrap()));
    assert_eq!(node.view.labels["type"], "virtual-kubelet");
}

#[test]
fn a_node_says_what_it_offers_and_whom_it_keeps_away() {
    let node: SlimNode = serde_json::from_value(json!({
        "metadata": {"name": "v-1", "uid": "u"},
        "spec": {"taints": [
            {"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "PreferNoSchedule"},
            {"key": "d", "effect": "NoExecute"}]},
        "status": {"capacity": {"cpu": "96", "pods": "3k"},
                   "allocatable": {"cpu": "95500m", "memory": "1Ki", "pods": "1k", "odd": "x"}},
    }))
    .unwrap();
    let taints = node.view.taints.iter().filter_map(vnp_plan::room::Taint::of);
    let taints: Vec<String> = taints.map(|t| t.to_string()).collect();
    assert_eq!(taints, ["a=b:NoSchedule", "d:NoExecute"]);
    let offered = [("cpu", 95_500), ("memory", 1024), ("pods", 1000)];
    assert_eq!(
        node.view.allocatable,
        offered.map(|(r, a)| (r.to_owned(), a)).into()
    );
}

#[test]
fn a_pod_asks_for_what_its_containers_ask_for_together() {
    let asked = |spec: Value, status: Value| {
        let needs = pod(json!({"metadata": {"name": "p"}, "spec": spec, "status": status}))
            .bound
            .needs;
        let asked: Vec<String> = needs.requests.iter().map(|(r, a)| format!("{r} {a}")).collect();
        asked.join(", ")
    };
    let c = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}}});
    let mut sidecar = c("side", "300m");
    sidecar["restartPolicy"] = json!("Always");
    let both = json!([c("a", "1"), c("b", "500m")]);
    assert_eq!(asked(json!({"containers": both}), json!({})), "cpu 1500");
    let init = json!({"containers": both, "initContainers": [c("i", "2")]});
    assert_eq!(asked(init, json!({})), "cpu 2000", "the hungriest init container");
    let with_sidecar = json!({"containers": both, "initContainers": [sidecar, c("i", "1600m")]});
    assert_eq!(
        asked(with_sidecar, json!({})),
        "cpu 1900",
        "after the sidecar before it"
    );
    let whole =
        json!({"containers": both, "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "100m"}});
    assert_eq!(asked(whole, json!({})), "cpu 3100");
    let resized = json!({"containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "4"}}]});
    assert_eq!(asked(json!({"containers": both}), resized), "cpu 4500");
    let odd =
        json!({"containers": [{"name": "a", "resources": {"requests": {"nvidia.com/gpu": 1, "cpu": "x"}}}]});
    assert_eq!(
        asked(odd, json!({})),
        format!("cpu {}, nvidia.com/gpu 1", i64::MAX)
    );
}

#[test]
fn a_pod_says_what_it_tolerates_and_which_nodes_it_means() {
    let needs = pod(json!({"metadata": {"name": "p"}, "spec": {
        "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
        "nodeSelector": {"type": "virtual-kubelet"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["v-1"]}]}]}}}}}))
    .bound
    .needs;
    let labels = BTreeMap::from([("type".to_owned(), "virtual-kubelet".to_owned())]);
    assert!(
        needs.means("v-1", &labels) && !needs.means("v-0", &labels) && !needs.means("v-1", &BTreeMap::new())
    );
    assert_eq!(needs.tolerations[0].key, "virtual-kubelet.io/provider");
}

#[test]
fn a_workload_is_kept_as_it_came() {
    let raw = json!({"metadata": {"zeta": 1, "name": "w", "resourceVersion": "9"}, "spec": {"unknown": [3, 1]}, "a": null});
    let workload: RawWorkload = serde_json::from_str(&raw.to_string()).unwrap();
    assert_eq!(workload.raw.to_string(), raw.to_string());
    assert_eq!(workload.metadata.resource_version.as_deref(), Some("9"));
}

#[test]
fn a_mirror_pod_has_the_annotation_and_its_node_for_an_owner() {
    let mirror = |annotation: Option<&str>, owner: Value| {
        let annotations = annotation.map(|value| json!({"kubernetes.io/config.mirror": value}));
        let metadata = json!({"name": "p", "annotations": annotations, "ownerReferences": [owner]});
        pod(json!({"metadata": metadata, "spec": {"nodeName": "v-1"}}))
            .bound
            .mirror
    };
    let node = |version: &str, kind: &str, name: &str, controller: bool| json!({"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": controller});
    assert!(mirror(Some("x"), node("v1", "Node", "v-1", true)));
    assert!(!mirror(None, node("v1", "Node", "v-1", true)));
    for owner in [
        node("v1", "Node", "v-2", true),
        node("v1", "Node", "v-1", false),
        node("v1", "Pod", "v-1", true),
        node("apps/v1", "Node", "v-1", true),
        node("apps/v1", "ReplicaSet", "web", true),
    ] {
        assert!(!mirror(Some("x"), owner.clone()), "{owner}");
    }
    let alone = pod(json!({
        "metadata": {"name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "v-1"}}));
    assert!(!alone.bound.mirror, "anybody may set the annotation");
}

#[test]
fn a_container_that_waits_for_its_image_never_ran() {
    let ran = |status: Value| {
        pod(json!({"metadata": {"name": "v-1"}, "status": status}))
            .provider()
            .ran
    };
    let waits = json!({"name": "vk", "restartCount": 0, "started": false, "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    assert!(!ran(json!({"phase": "Pending", "containerStatuses": [waits]})));
    let crashed = json!({"name": "vk", "restartCount": 0, "lastState": {"terminated": {"exitCode": 1}}});
    assert!(ran(json!({"phase": "Running", "containerStatuses": [crashed]})));
}

#[test]
fn a_node_is_read_with_what_tells_whose_it_is() {
    let node: SlimNode = serde_json::from_value(json!({
        "metadata": {"name": "burst", "uid": "u", "labels": {"type": "virtual-kubelet"}},
        "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": "x", "effect": "NoSchedule"}]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "burst"}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-01T00:00:10Z"}],
        },
    }))
    .unwrap();
    let trace = node.trace();
    assert_eq!((trace.name.as_str(), trace.ready), ("burst", true));
    assert_eq!(trace.addresses, ["10.0.0.7", "burst"]);
    assert_eq!(trace.taints, ["virtual-kubelet.io/provider"]);
    assert_eq!(trace.labels["type"], "virtual-kubelet");
    assert_eq!(trace.beat.unwrap().to_string(), "2026-11-01T00:00:10Z");
}

#[test]
fn a_provider_has_stopped_when_none_of_its_containers_runs_and_it_is_known_since_when() {
    let stopped = |containers: Value| {
        pod(json!({"metadata": {"name": "v-1"}, "status": {"containerStatuses": containers}}))
            .provider()
            .stopped
            .map(|at| at.to_string())
    };
    let end = |at: &str| json!({"terminated": {"exitCode": 1, "finishedAt": at}});
    let backs_off = |at: &str| json!({"name": "vk", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": end(at)});
    assert_eq!(stopped(json!([])), None);
    assert_eq!(
        stopped(json!([backs_off("2026-11-01T00:00:10Z")])).as_deref(),
        Some("2026-11-01T00:00:10Z")
    );
    let ended =
        json!({"name": "b", "state": end("2026-11-01T00:00:20Z"), "lastState": end("2026-11-01T00:00:01Z")});
    assert_eq!(
        stopped(json!([backs_off("2026-11-01T00:00:10Z"), ended])).as_deref(),
        Some("2026-11-01T00:00:20Z"),
        "the last of them counts"
    );
    let runs = json!({"name": "b", "state": {"running": {}}});
    // As between two crashes: what ended before says nothing of now.
    let again = end("2026-11-01T00:00:05Z");
    for other in [
        runs,
        json!({"name": "b", "state": {"running": {}}, "lastState": again}),
        json!({"name": "b", "started": true, "lastState": again}),
        json!({"name": "b", "started": true}),
        json!({"name": "b", "restartCount": 1}),
        json!({"name": "b", "lastState": {"terminated": {"exitCode": 1}}}),
        json!({"name": "b", "lastState": {"terminated": {"exitCode": 1, "finishedAt": "99999-01-01T00:00:00Z"}}}),
    ] {
        assert_eq!(
            stopped(json!([backs_off("2026-11-01T00:00:10Z"), other])),
            None,
            "{other}"
        );
    }
}
