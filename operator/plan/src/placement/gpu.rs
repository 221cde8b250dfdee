//! Pods that ask for a GPU.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::PodView;

type Quantities = BTreeMap<String, Quantity>;

/// Resources that are GPUs on virtual nodes. Source: ACK documentation, "Use ACS compute power through ACK edge clusters";
/// PPU cards go by their own name.
const RESOURCES: [&str; 2] = ["nvidia.com/gpu", "alibabacloud.com/ppu"];

/// Whether any container asks for one.
pub(super) fn requests_gpu(pod: &PodView) -> bool {
    pod.containers().any(|container| {
        let asks = |list: &Option<Quantities>| {
            let asked = |(name, quantity): (&String, &Quantity)| {
                RESOURCES.contains(&name.as_str()) && quantity.0.trim() != "0"
            };
            list.iter().flatten().any(asked)
        };
        let resources = container.resources.as_ref();
        resources.is_some_and(|r| asks(&r.requests) || asks(&r.limits))
    })
}

/// The first container that keeps the pod from QoS class Guaranteed, which GPU pods of ACS must have (ACS documentation,
/// "ACS pod overview"); resources of the pod as a whole count for all (KEP-2837). Quantities are compared as written: the
/// API server sends them in canonical form.
pub(super) fn not_guaranteed(pod: &PodView) -> Option<&str> {
    if pod.spec.resources.as_ref().is_some_and(is_guaranteed) {
        return None;
    }
    let mut short = pod
        .containers()
        .filter(|container| !container.resources.as_ref().is_some_and(is_guaranteed));
    Some(short.next()?.name.as_str())
}

/// Limits for CPU and memory, and no request below its limit. An absent request is the limit.
fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].into_iter().all(|name| {
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
        let request = resources
            .requests
            .as_ref()
            .and_then(|requests| requests.get(name));
        limit.is_some() && (request.is_none() || request == limit)
    })
}
