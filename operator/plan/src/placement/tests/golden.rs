//! The exact patch of the four kinds of pods.

use serde_json::{Value, json};

use super::{labelled, mutation, ruled};

fn patch_of(pod: &Value, namespace: &[(&str, &str)]) -> (Value, Option<String>) {
    let pools = [ruled(json!([{
        "name": "batch", "mode": "Require",
        "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["report"] }] },
        "labels": { "team": "batch" },
        "annotations": { "k8s.aliyun.com/eci-use-specs": "2-4Gi" },
    }]))];
    let mutation = mutation(&pools, pod, namespace);
    (json!(mutation.patch), mutation.placed_by)
}

#[test]
fn a_pod_of_a_labelled_namespace() {
    let (patch, by) = patch_of(&labelled(&[("app", "web")]), &[("alibabacloud.com/eci", "true")]);
    let id = "burst/namespace alibabacloud.com/eci=true";
    assert_eq!(by.as_deref(), Some(id));
    assert_eq!(
        patch,
        json!([
            { "op": "add", "path": "/spec/tolerations",
              "value": [{ "key": "virtual-kubelet.io/provider", "operator": "Exists" }] },
            { "op": "add", "path": "/spec/nodeSelector", "value": { "type": "virtual-kubelet" } },
            { "op": "add", "path": "/metadata/annotations", "value": { "virtualnodes.dev/placed-by": id } },
        ])
    );
}

#[test]
fn a_labelled_pod() {
    let (patch, by) = patch_of(&labelled(&[("alibabacloud.com/eci", "true")]), &[]);
    let id = "burst/alibabacloud.com/eci=true";
    assert_eq!(by.as_deref(), Some(id));
    assert_eq!(
        patch,
        json!([
            { "op": "add", "path": "/spec/tolerations",
              "value": [{ "key": "virtual-kubelet.io/provider", "operator": "Exists" }] },
            { "op": "add", "path": "/spec/nodeSelector", "value": { "type": "virtual-kubelet" } },
            { "op": "add", "path": "/metadata/annotations", "value": { "virtualnodes.dev/placed-by": id } },
        ])
    );
}

#[test]
fn a_pod_of_a_rule() {
    let (patch, by) = patch_of(&labelled(&[("app", "report")]), &[]);
    assert_eq!(by.as_deref(), Some("burst/batch"));
    assert_eq!(
        patch,
        json!([
            { "op": "add", "path": "/spec/tolerations",
              "value": [{ "key": "virtual-kubelet.io/provider", "operator": "Exists" }] },
            { "op": "add", "path": "/metadata/labels/team", "value": "batch" },
            { "op": "add", "path": "/spec/nodeSelector", "value": { "type": "virtual-kubelet" } },
            { "op": "add", "path": "/metadata/annotations", "value": {
                "k8s.aliyun.com/eci-use-specs": "2-4Gi", "virtualnodes.dev/placed-by": "burst/batch" } },
        ])
    );
}

#[test]
fn a_pod_that_nothing_means() {
    assert_eq!(patch_of(&labelled(&[("app", "web")]), &[]), (json!([]), None));
}

#[test]
fn a_pod_that_has_some_of_it() {
    let pod = json!({
        "metadata": { "labels": { "app": "report", "team": "own" }, "annotations": { "a": "b" } },
        "spec": {
            "tolerations": [{ "key": "x", "operator": "Exists" }],
            "nodeSelector": { "zone": "a" },
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "zone", "operator": "Exists" }] },
                { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] },
                {},
            ] } } },
        },
    });
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let wanted = json!({ "key": "type", "operator": "In", "values": ["virtual-kubelet"] });
    assert_eq!(
        patch_of(&pod, &[]).0,
        json!([
            { "op": "add", "path": format!("{terms}/0/matchExpressions/-"), "value": wanted },
            { "op": "add", "path": format!("{terms}/1/matchExpressions"), "value": [wanted] },
            { "op": "add", "path": "/spec/tolerations/-",
              "value": { "key": "virtual-kubelet.io/provider", "operator": "Exists" } },
            { "op": "add", "path": "/spec/nodeSelector/type", "value": "virtual-kubelet" },
            { "op": "add", "path": "/metadata/annotations/k8s.aliyun.com~1eci-use-specs", "value": "2-4Gi" },
            { "op": "add", "path": "/metadata/annotations/virtualnodes.dev~1placed-by", "value": "burst/batch" },
        ])
    );
}
