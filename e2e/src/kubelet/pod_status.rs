//! The status a kubelet writes to its pods.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::insist;

/// What there is to say about a pod.
#[derive(Clone, Debug)]
pub(crate) enum PodReport<'a> {
    /// Its image can't be pulled.
    ImagePullBackOff,
    /// Its containers run and all probes have passed.
    Running { address: &'a str, restarts: i32 },
    /// Its containers have crashed and are about to be started again.
    Crashed { address: &'a str, restarts: i32 },
    /// Its containers have ended well and stay so.
    Succeeded { address: &'a str },
}

/// Writes status and annotations in one call, as the ECI provider does. Does nothing when the pod is gone.
pub(crate) async fn report_pod(
    client: &Client,
    pod: &Pod,
    report: &PodReport<'_>,
    host_address: &str,
    annotations: &BTreeMap<String, String>,
) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let status = status(pod, report, host_address, Timestamp::now());
    // The UID makes the server refuse the patch when another pod has taken the name.
    let metadata = json!({"uid": pod.uid(), "annotations": annotations});
    let patch = Patch::Strategic(json!({"metadata": metadata, "status": status}));
    let params = PatchParams::default();
    let name = pod.name_any();
    insist("write the status of pod", &name, || {
        pods.patch_status(&name, &params, &patch)
    })
    .await;
}

fn status(pod: &Pod, report: &PodReport<'_>, host_address: &str, now: Timestamp) -> PodStatus {
    let (phase, ready, address) = match *report {
        PodReport::ImagePullBackOff => ("Pending", false, None),
        PodReport::Running { address, .. } => ("Running", true, Some(address)),
        PodReport::Crashed { address, .. } => ("Running", false, Some(address)),
        PodReport::Succeeded { address } => ("Succeeded", false, Some(address)),
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions(ready, phase == "Succeeded", now)),
        container_statuses: Some(
            containers
                .map(|container| ContainerStatus {
                    name: container.name.clone(),
                    image: container.image.clone().unwrap_or_default(),
                    image_id: container.image.clone().unwrap_or_default(),
                    container_id: address.map(|address| format!("simulated://{address}/{}", container.name)),
                    ready,
                    started: Some(ready),
                    restart_count: match *report {
                        PodReport::Running { restarts, .. } | PodReport::Crashed { restarts, .. } => restarts,
                        PodReport::ImagePullBackOff | PodReport::Succeeded { .. } => 0,
                    },
                    state: Some(container_state(report, now)),
                    ..ContainerStatus::default()
                })
                .collect(),
        ),
        host_ip: Some(host_address.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: host_address.to_owned(),
        }]),
        pod_ip: address.map(str::to_owned),
        pod_ips: address.map(|address| {
            vec![PodIP {
                ip: address.to_owned(),
            }]
        }),
        // Set once: a restart of the container or of the kubelet does not start the pod again.
        start_time: pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.clone())
            .or(Some(Time(now))),
        ..PodStatus::default()
    }
}

fn conditions(ready: bool, succeeded: bool, now: Timestamp) -> Vec<PodCondition> {
    // PodScheduled is the scheduler's; a strategic merge patch leaves it alone.
    [
        ("Initialized", true),
        ("ContainersReady", ready),
        ("Ready", ready),
    ]
    .map(|(type_, is_true)| PodCondition {
        type_: type_.into(),
        status: if is_true { "True" } else { "False" }.into(),
        reason: (succeeded && !is_true).then(|| "PodCompleted".into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    })
    .into()
}

fn container_state(report: &PodReport<'_>, now: Timestamp) -> ContainerState {
    let waiting = |reason: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message: None,
        }),
        ..ContainerState::default()
    };
    match report {
        PodReport::ImagePullBackOff => waiting("ImagePullBackOff"),
        PodReport::Crashed { .. } => waiting("CrashLoopBackOff"),
        PodReport::Running { .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(now)),
            }),
            ..ContainerState::default()
        },
        PodReport::Succeeded { .. } => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 0,
                reason: Some("Completed".into()),
                finished_at: Some(Time(now)),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    }
}
