//! Manifests as a user would write them, as JSON values: change a field before applying them.

use serde_json::{Value, json};

use crate::node_agent::BROKEN_TAG;
use crate::virtual_kubelet::PROVIDER_TAINT;

/// An image that runs. Nothing is ever pulled.
pub const PROVIDER_IMAGE: &str = "registry.cn-hangzhou.aliyuncs.com/acs/virtual-nodes-eci:v1.0.0.2-aliyun";

/// A provider image that can't be pulled.
#[must_use]
pub fn broken_provider_image() -> String {
    format!("registry.cn-hangzhou.aliyuncs.com/acs/virtual-nodes-eci:{BROKEN_TAG}")
}

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A pool that creates its provider in kube-system. Its settles are a second each; everything else is default.
#[must_use]
pub fn pool(name: &str, provider: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "virtualnodes.dev/v1alpha1",
        "kind": "VirtualNodePool",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "region": "cn-hangzhou",
            "network": {
                "vpcId": "vpc-bp1aevy8sofi8mh1q",
                "zones": [{"zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-bp1fn8u46ph"]}],
                "securityGroupId": "sg-bp1crrcq8a3",
            },
            "provider": {
                "type": "StatefulSet",
                "management": "Create",
                "namespace": "kube-system",
                "name": provider,
                "image": PROVIDER_IMAGE,
            },
            "drain": {"cordonSettleSeconds": 1, "emptySettleSeconds": 1},
        },
    })
}

/// The provider as the vendor's pages have it, made by hand: a StatefulSet in kube-system.
#[must_use]
pub fn provider(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{
                        "name": "provider",
                        "image": PROVIDER_IMAGE,
                        "args": ["--provider", "alibabacloud"],
                        "env": [
                            {"name": "ECI_REGION", "value": "cn-hangzhou"},
                            {"name": "ECI_VPC", "value": "vpc-bp1aevy8sofi8mh1q"},
                            {"name": "ECI_VSWITCH", "value": "vsw-bp1fn8u46ph"},
                            {"name": "ECI_SECURITY_GROUP", "value": "sg-bp1crrcq8a3"},
                        ],
                    }],
                },
            },
        },
    })
}

/// A Deployment whose pods run on virtual nodes only, labelled `app: <name>`; [`on_node`] pins them to one.
#[must_use]
pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": on_virtual_nodes("web", "Always")},
        },
    })
}

/// A Job whose pods run on virtual nodes and end by themselves (`ProviderKnobs::job_runtime`), labelled `app: <name>`:
/// finished pods, whose instances stay until the pods are deleted.
#[must_use]
pub fn job(namespace: &str, name: &str, pods: u32) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "template": {"metadata": {"labels": {"app": name}}, "spec": on_virtual_nodes("job", "Never")},
        },
    })
}

/// A pod without a controller, on a virtual node, labelled `app: <name>`.
#[must_use]
pub fn bare_pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": on_virtual_nodes("web", "Always"),
    })
}

/// Makes the pods of a Deployment, a Job or a bare pod ask for one virtual node.
#[must_use]
pub fn on_node(mut workload: Value, node: &str) -> Value {
    let spec = if workload["kind"] == "Pod" {
        &mut workload["spec"]
    } else {
        &mut workload["spec"]["template"]["spec"]
    };
    spec["nodeSelector"] = json!({"type": "virtual-kubelet", "kubernetes.io/hostname": node});
    workload
}

/// A PodDisruptionBudget over the pods labelled `app: <app>`. `max_unavailable` is a count or a percentage.
#[must_use]
pub fn budget(namespace: &str, name: &str, app: &str, max_unavailable: impl Into<Value>) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"maxUnavailable": max_unavailable.into(), "selector": {"matchLabels": {"app": app}}},
    })
}

fn on_virtual_nodes(container: &str, restart_policy: &str) -> Value {
    json!({
        "restartPolicy": restart_policy,
        "nodeSelector": {"type": "virtual-kubelet"},
        "tolerations": [{"key": PROVIDER_TAINT, "operator": "Exists"}],
        "containers": [{"name": container, "image": "registry.example/web:1"}],
    })
}
