//! Pods that virtual nodes can't run.

use serde_json::{Value, json};

use super::{labelled, mutation, patched, ruled, with};
use crate::placement::Need;
use crate::placement::Unfit;

fn needing(spec: Value) -> Value {
    with(labelled(&[("app", "web")]), json!({ "spec": spec }))
}

fn container(security: Value) -> Value {
    json!({ "name": "app", "image": "app", "securityContext": security })
}

/// Each need and the smallest spec that has it.
fn needs() -> Vec<(Need, Value)> {
    let volume = |source: Value| json!({ "volumes": [{ "name": "plain", "emptyDir": {} }, with(json!({ "name": "v" }), source)] });
    vec![
        (Need::HostNetwork, json!({ "hostNetwork": true })),
        (Need::HostPid, json!({ "hostPID": true })),
        (Need::HostIpc, json!({ "hostIPC": true })),
        (Need::Windows, json!({ "os": { "name": "windows" } })),
        (
            Need::Privileged("app".into()),
            json!({ "containers": [container(json!({ "privileged": true }))] }),
        ),
        (
            Need::Privileged("app".into()),
            json!({ "initContainers": [container(json!({ "privileged": true }))] }),
        ),
        (
            Need::HostPath("v".into()),
            volume(json!({ "hostPath": { "path": "/var/log" } })),
        ),
        (
            Need::LocalVolume("v".into()),
            volume(json!({ "csi": { "driver": "local.csi.aliyun.com" } })),
        ),
    ]
}

#[test]
fn what_a_virtual_node_can_not_run_is_left_alone_and_said() {
    let rule = |mode: &str| {
        [ruled(
            json!([{ "name": "all", "mode": mode, "podSelector": {}, "labels": { "x": "y" } }]),
        )]
    };
    for (need, spec) in needs() {
        for mode in ["Require", "Prefer"] {
            let pod = needing(spec.clone());
            let mutation = mutation(&rule(mode), &pod, &[]);
            assert_eq!(patched(&pod, &mutation), pod, "{need}");
            let left = mutation.left_alone.unwrap();
            assert_eq!((left.pool.as_str(), left.by.as_str()), ("burst", "burst/all"));
            assert_eq!(left.why, Unfit::Need(need.clone()));
            let warning = format!(
                "virtualnodes.dev: burst/all selects the pod, but virtual nodes can't run it: {need}; it is left as it is"
            );
            assert_eq!(mutation.warnings, [warning]);
        }
    }
    // A label on the pod brings it no further.
    let pod = with(
        needing(json!({ "hostNetwork": true })),
        json!({ "metadata": { "labels": { "alibabacloud.com/eci": "true" } } }),
    );
    let mutation = mutation(&[ruled(json!([]))], &pod, &[]);
    assert_eq!(patched(&pod, &mutation), pod);
    assert_eq!(mutation.left_alone.unwrap().by, "burst/alibabacloud.com/eci=true");
}

/// Asked once more (`reinvocationPolicy: IfNeeded`), after another webhook has made the pod unfit: it is not as it was.
#[test]
fn a_pod_that_was_placed_and_then_made_unfit_is_told_as_that() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {} }]),
    )];
    let pod = needing(json!({}));
    let placed = patched(&pod, &mutation(&pools, &pod, &[]));
    let changed = with(placed, json!({ "spec": { "hostNetwork": true } }));
    let again = mutation(&pools, &changed, &[]);
    assert_eq!(patched(&changed, &again), changed);
    assert_eq!(
        again.warnings,
        [
            "virtualnodes.dev: burst/all has placed the pod, and it was changed after that: virtual nodes can't run it: \
             spec.hostNetwork is true; what was added to it stays, so it may never run"
        ]
    );
    assert!(again.left_alone.unwrap().placed);
    // The same pod without a past.
    let fresh = mutation(&pools, &needing(json!({ "hostNetwork": true })), &[]);
    assert!(!fresh.left_alone.unwrap().placed);
}

#[test]
fn what_only_looks_like_it_goes() {
    let pools = [ruled(
        json!([{ "name": "all", "mode": "Require", "podSelector": {} }]),
    )];
    for spec in [
        json!({ "hostNetwork": false, "hostPID": false, "hostIPC": null, "os": { "name": "linux" } }),
        json!({ "containers": [container(json!({ "privileged": false }))] }),
        json!({ "containers": [container(json!({ "runAsUser": 0 }))] }),
        json!({ "volumes": [{ "name": "v", "csi": { "driver": "diskplugin.csi.alibabacloud.com" } }] }),
        json!({ "volumes": [{ "name": "v", "hostPath": null, "emptyDir": {} }] }),
        json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] }),
    ] {
        let mutation = mutation(&pools, &needing(spec.clone()), &[]);
        assert_eq!(mutation.left_alone, None, "{spec}");
        assert!(mutation.placed_by.is_some(), "{spec}");
    }
}
