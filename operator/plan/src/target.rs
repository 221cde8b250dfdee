//! How many virtual nodes the pool is to have.

use vnp_crds::{DeletionPolicy, Management, ProviderType, VirtualNodePool};

use crate::observed::{Observed, Workload};

/// The accepted target in replicas; `None` while nobody can know it. See [`target_of`].
pub fn target(observed: &Observed) -> Option<i32> {
    target_of(&observed.pool, observed.workload.there().map(AsRef::as_ref))
}

/// The accepted target by the pool and its workload, cached or read live.
///
/// * A pool that is deleted with policy Drain wants no node; with Retain it wants what is there.
/// * `spec.replicas` counts when it is set, above or below what is there.
/// * Absent, it can't lower anything, not even by a drain that was under way when it was removed: the target is the one
///   accepted before (`status.targetReplicas`) or the count of the workload that we hold, whichever is larger. So raises
///   by hand are accepted, and a status from before a crash or from an old cache can only keep a node too long (P7).
/// * Before anything was accepted it is the count found on a workload to adopt, and 1 for a workload to create: there
///   the count says nothing yet, because creation starts at 0.
pub fn target_of(pool: &VirtualNodePool, workload: Option<&Workload>) -> Option<i32> {
    if pool.spec.provider.type_ != ProviderType::StatefulSet {
        return None;
    }
    let held =
        workload.filter(|w| w.pool_label().is_some() && w.pool_label() == pool.metadata.name.as_deref());
    let there = held.map(Workload::replicas);
    if pool.metadata.deletion_timestamp.is_some() {
        return match pool.spec.deletion_policy() {
            DeletionPolicy::Drain => Some(0),
            DeletionPolicy::Retain => there,
        };
    }
    if pool.spec.replicas.is_some() {
        return pool.spec.replicas;
    }
    let accepted = pool.status.as_ref().and_then(|s| s.target_replicas);
    match (pool.spec.provider.management(), there) {
        (Management::Create, there) => accepted.or(Some(1)).max(there),
        (Management::Adopt, Some(there)) => accepted.max(Some(there)),
        // Not taken over yet: what an earlier spec asked for in vain is no wish any more.
        (Management::Adopt, None) => workload.map(Workload::replicas).or(accepted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::{adopting, held, pool, workload};

    fn holding(replicas: i32) -> Workload {
        let mut overlay = held();
        json_patch::merge(&mut overlay, &json!({ "spec": { "replicas": replicas } }));
        workload(overlay)
    }

    fn found(replicas: i32) -> Workload {
        workload(json!({ "spec": { "replicas": replicas } }))
    }

    fn deleted(policy: &str) -> Value {
        json!({
            "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": [vnp_crds::FINALIZER] },
            "spec": { "deletionPolicy": policy, "replicas": 3 },
        })
    }

    #[test]
    fn a_number_in_the_spec_counts_whatever_is_there() {
        for replicas in [0, 2, 5] {
            let p = pool(json!({ "spec": { "replicas": replicas }, "status": { "targetReplicas": 9 } }));
            assert_eq!(target_of(&p, None), Some(replicas));
            assert_eq!(target_of(&p, Some(&holding(3))), Some(replicas));
            assert_eq!(target_of(&p, Some(&found(3))), Some(replicas));
        }
    }

    #[test]
    fn at_first_it_is_what_is_found_or_one() {
        assert_eq!(target_of(&pool(json!({})), None), Some(1));
        assert_eq!(target_of(&adopting(json!({})), None), None);
        assert_eq!(target_of(&adopting(json!({})), Some(&found(3))), Some(3));
        assert_eq!(target_of(&adopting(json!({})), Some(&found(0))), Some(0));
        // Taken over, and the process died before the status was written.
        assert_eq!(target_of(&adopting(json!({})), Some(&holding(3))), Some(3));
    }

    #[test]
    fn a_death_between_creation_and_first_count_is_not_a_wish_for_zero() {
        assert_eq!(target_of(&pool(json!({})), Some(&holding(0))), Some(1));
    }

    #[test]
    fn a_retained_workload_keeps_its_count_under_a_new_pool_of_the_same_name() {
        assert_eq!(target_of(&pool(json!({})), Some(&holding(4))), Some(4));
    }

    #[test]
    fn removing_the_number_in_the_middle_of_a_drain_cuts_nothing() {
        // 3 -> 2 was accepted, node 2 still drains, the field goes.
        let p = pool(json!({ "status": { "targetReplicas": 2 } }));
        assert_eq!(target_of(&p, Some(&holding(3))), Some(3));
        // After the shrink it stays at what was accepted.
        assert_eq!(target_of(&p, Some(&holding(2))), Some(2));
    }

    #[test]
    fn raises_by_hand_are_accepted_and_cuts_by_hand_are_not() {
        let p = adopting(json!({ "status": { "targetReplicas": 3 } }));
        assert_eq!(target_of(&p, Some(&holding(5))), Some(5));
        assert_eq!(target_of(&p, Some(&holding(1))), Some(3));
    }

    #[test]
    fn an_absent_workload_is_restored_at_what_was_accepted() {
        let p = adopting(json!({ "status": { "targetReplicas": 3 } }));
        assert_eq!(target_of(&p, None), Some(3));
    }

    #[test]
    fn an_old_wish_does_not_raise_a_workload_that_was_not_taken_over() {
        let p = adopting(json!({ "status": { "targetReplicas": 9 } }));
        assert_eq!(target_of(&p, Some(&found(2))), Some(2));
    }

    #[test]
    fn deletion_drains_all_or_keeps_all() {
        assert_eq!(target_of(&pool(deleted("Drain")), Some(&holding(3))), Some(0));
        assert_eq!(target_of(&pool(deleted("Retain")), Some(&holding(5))), Some(5));
        assert_eq!(target_of(&pool(deleted("Retain")), Some(&found(5))), None);
        assert_eq!(target_of(&pool(deleted("Retain")), None), None);
    }

    #[test]
    fn forms_without_a_count_have_no_target() {
        let p = adopting(json!({ "spec": { "provider": { "type": "Deployment" } } }));
        assert_eq!(target_of(&p, Some(&found(3))), None);
    }

    proptest! {
        #[test]
        fn without_a_number_a_held_workload_is_never_lowered(
            status in proptest::option::of(0..100i32), there in 0..100i32, adopt in any::<bool>(),
        ) {
            let overlay = status.map_or(json!({}), |t| json!({ "status": { "targetReplicas": t } }));
            let p = if adopt { adopting(overlay) } else { pool(overlay) };
            prop_assert!(target_of(&p, Some(&holding(there))).is_some_and(|t| t >= there));
        }
    }
}
