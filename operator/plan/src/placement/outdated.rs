//! Pods that run with compute defaults which new ones no longer get: a changed default changes no pod that is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use vnp_crds::{TRUE, VirtualNodePool, WebhookMode, compute_label, trigger_label};

use crate::compute::{ComputeEffect, StampedPod};
use crate::observed::{BoundPod, Observed};

/// How many of these pods are outdated; `None` when the pool's pods are not placed by the operator's webhook, which is the
/// only one that records what it gave. Each is compared with the defaults of the pool that placed it; one whose pool is
/// gone, or that others placed, is not outdated. Nor is one that has ended or is on its way.
pub(crate) fn outdated<'a>(seen: &Observed, pods: impl Iterator<Item = &'a BoundPod>) -> Option<usize> {
    if seen.pool.spec.webhook() != WebhookMode::Operator {
        return None;
    }
    let pools = seen.others.iter().chain([&seen.pool]);
    let effects: BTreeMap<&str, ComputeEffect> = pools
        .filter(|pool| pool.spec.webhook() == WebhookMode::Operator)
        .filter_map(|pool| Some((pool.metadata.name.as_deref()?, effect(pool))))
        .collect();
    let is_outdated = |pod: &&BoundPod| {
        let placed = pod
            .placed
            .as_ref()
            .filter(|_| !pod.finished() && pod.deletion.is_none());
        let effect = placed.and_then(|placed| {
            let (pool, route) = placed.by.split_once('/')?;
            // A policy names a scheduler and gives nothing.
            effects.get(pool).filter(|_| !route.starts_with("policy."))
        });
        effect.is_some_and(|effect| effect.outdates(&stamped(seen, pod)))
    };
    Some(pods.filter(is_outdated).count())
}

fn effect(pool: &Arc<VirtualNodePool>) -> ComputeEffect {
    ComputeEffect::of(pool.spec.compute_defaults.as_ref())
}

fn stamped<'a>(seen: &Observed, pod: &'a BoundPod) -> StampedPod<'a> {
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    let says = |key: &str| label(key) == Some(TRUE);
    let namespace = seen.namespaces.get(&pod.key.namespace);
    let namespace_means_eci = namespace.is_some_and(|n| n.get(trigger_label::ECI).is_some_and(|v| v == TRUE));
    let class = label(compute_label::CLASS);
    let eci = says(trigger_label::ECI)
        || says(trigger_label::LEGACY_ECI)
        || (namespace_means_eci && !says(trigger_label::ACS) && class.is_none());
    StampedPod {
        stamp: pod.placed.as_ref().and_then(|placed| placed.compute.as_deref()),
        class,
        qos: label(compute_label::QOS).is_some(),
        eci,
        series: label(compute_label::GPU_SERIES).is_some(),
        gpu: pod.gpu,
    }
}
