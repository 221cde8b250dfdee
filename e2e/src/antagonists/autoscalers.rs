//! Autoscalers that aim at the StatefulSet, by its scale.

use std::time::Duration;

use anyhow::Result;
use kube::api::Patch;
use serde_json::json;

use super::place::Place;
use super::{Antagonist, every};

/// Wants three replicas. Each time it costs a drain of what it raised: more, or more often, is more writes than a pool may
/// cost, because the operator takes up each raise anew.
pub const AUTOSCALER_UP: Antagonist = every("autoscaler-up", Duration::from_secs(60), |hpa| {
    Box::pin(scale(hpa, 3))
});

/// Wants one.
pub const AUTOSCALER_DOWN: Antagonist = every("autoscaler-down", Duration::from_secs(6), |hpa| {
    Box::pin(scale(hpa, 1))
});

async fn scale(hpa: &Place, replicas: i32) -> Result<bool> {
    let there = hpa.sets().get_scale(&hpa.whom.provider).await?;
    if there.spec.and_then(|spec| spec.replicas) == Some(replicas) {
        return Ok(false);
    }
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    hpa.sets()
        .patch_scale(&hpa.whom.provider, &hpa.patching(), &patch)
        .await?;
    Ok(true)
}
