//! Pools that claim the same nodes. The one that holds the workload keeps it, else the oldest gets it.

use std::sync::Arc;

use jiff::Timestamp;
use vnp_crds::{Reason, VirtualNodePool};

use super::{Refusal, served};
use crate::observed::Observed;

/// What pools are sorted by: creation, then name. A pool without a stamp is the youngest.
pub(crate) fn seniority(pool: &VirtualNodePool) -> (Timestamp, &str) {
    let created = pool
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::MAX, |t| t.0);
    (created, pool.metadata.name.as_deref().unwrap_or_default())
}

/// Refuses a workload that belongs to another pool by its label, or by the age of a pool that names it as well. Node
/// names derive from the workload's name alone, so the same name in another namespace is a rival too.
pub(super) fn check(observed: &Observed) -> Option<Refusal> {
    let provider = &observed.pool.spec.provider;
    let ours = provider.workload()?;
    let label = observed.workload.there().and_then(|w| w.pool_label());
    if label == Some(observed.pool_name()) {
        return None;
    }
    if let Some(owner) = label {
        let exists = observed
            .others
            .iter()
            .any(|p| p.metadata.name.as_deref() == Some(owner));
        let remedy = if exists {
            format!("{}; leave pool {owner} as it is", instead(observed))
        } else {
            format!(
                "there is no such pool: create it again, or remove the label {} from the StatefulSet",
                vnp_crds::POOL_LABEL
            )
        };
        return Some(Refusal::new(
            Reason::Conflict,
            format!("spec.provider names StatefulSet {ours}, which belongs to pool {owner}; {remedy}"),
        ));
    }
    if let Some(flaw) = observed.flaws.iter().find(|f| f.kind == vnp_crds::KIND) {
        return Some(Refusal::new(
            Reason::Conflict,
            format!(
                "pool {} can't be read ({}) and may name StatefulSet {ours} as well; correct that pool or delete it",
                flaw.key, flaw.error
            ),
        ));
    }
    let rival = older(observed, |other| {
        other
            .spec
            .provider
            .workload()
            .is_some_and(|theirs| theirs.name == ours.name)
    })?;
    let theirs = rival.spec.provider.workload()?;
    let why = if theirs == ours {
        "as well".to_owned()
    } else {
        format!(
            "in namespace {}, and nodes are named after spec.provider.name alone",
            theirs.namespace
        )
    };
    Some(Refusal::new(
        Reason::Conflict,
        format!(
            "spec.provider.name is {}, which the older pool {1} names {why}; {2}; leave pool {1} as it is",
            ours.name,
            rival.metadata.name.as_deref().unwrap_or_default(),
            instead(observed),
        ),
    ))
}

/// What to do with the pool whose workload another one has. It may have run that before, when somebody took its label off.
fn instead(observed: &Observed) -> String {
    let pool = observed.pool_name();
    let status = observed.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    if status.is_some_and(|provider| !provider.registered.is_empty()) {
        format!(
            "pool {pool} has had nodes: put the label {}: {pool} back on the StatefulSet if it is {pool}'s",
            vnp_crds::POOL_LABEL
        )
    } else {
        format!(
            "nothing was made for pool {pool}: delete {pool}, and where its nodes are wanted make a pool with another \
             spec.provider.name"
        )
    }
}

/// The oldest pool that is older than this one, lives, and is meant by `claims`.
fn older(observed: &Observed, claims: impl Fn(&VirtualNodePool) -> bool) -> Option<&Arc<VirtualNodePool>> {
    observed
        .others
        .iter()
        .filter(|other| served(other) && other.metadata.deletion_timestamp.is_none())
        .filter(|other| seniority(other) < seniority(&observed.pool))
        .filter(|other| claims(other))
        .min_by(|a, b| seniority(a).cmp(&seniority(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::{held, observed, pool, with_workload, workload};

    fn rival(created: &str, overlay: Value) -> Arc<VirtualNodePool> {
        let mut p =
            json!({ "metadata": { "name": "rival", "uid": "uid-rival", "creationTimestamp": created } });
        json_patch::merge(&mut p, &overlay);
        Arc::new(pool(p))
    }

    fn against(rival: Arc<VirtualNodePool>) -> Observed {
        Observed {
            others: vec![rival],
            ..observed(pool(json!({})))
        }
    }

    const OLDER: &str = "2025-01-01T00:00:00Z";
    const YOUNGER: &str = "2027-01-01T00:00:00Z";
    const SAME: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn the_older_pool_wins_a_name_and_names_decide_between_twins() {
        let refused = check(&against(rival(OLDER, json!({})))).unwrap();
        assert_eq!(refused.reason, Reason::Conflict);
        assert!(
            refused.message.contains("virtual-node-eci") && refused.message.contains("pool rival"),
            "{refused:?}"
        );
        assert_eq!(check(&against(rival(YOUNGER, json!({})))), None);
        // `burst` comes before `rival`.
        assert_eq!(check(&against(rival(SAME, json!({})))), None);
        let before = rival(SAME, json!({ "metadata": { "name": "a" } }));
        assert!(check(&against(before)).is_some());
    }

    #[test]
    fn the_same_name_in_another_namespace_means_the_same_nodes() {
        let other = rival(
            OLDER,
            json!({ "spec": { "provider": { "namespace": "elsewhere" } } }),
        );
        assert!(
            check(&against(other))
                .unwrap()
                .message
                .contains("in namespace elsewhere")
        );
    }

    #[test]
    fn others_are_no_rivals() {
        for overlay in [
            json!({ "spec": { "provider": { "name": "other" } } }),
            json!({ "spec": { "provider": { "type": "Deployment" } } }),
            json!({ "metadata": { "deletionTimestamp": OLDER } }),
        ] {
            assert_eq!(check(&against(rival(OLDER, overlay.clone()))), None, "{overlay}");
        }
    }

    #[test]
    fn who_holds_the_workload_keeps_it_from_older_pools() {
        let seen = with_workload(against(rival(OLDER, json!({}))), workload(held()));
        assert_eq!(check(&seen), None);
    }

    #[test]
    fn a_label_of_another_pool_refuses_even_the_oldest() {
        let labelled = json!({ "metadata": { "labels": { (vnp_crds::POOL_LABEL): "rival" } } });
        let seen = with_workload(against(rival(YOUNGER, json!({}))), workload(labelled.clone()));
        assert!(check(&seen).unwrap().message.contains("belongs to pool rival"));
        let gone = with_workload(observed(pool(json!({}))), workload(labelled));
        assert!(
            check(&gone)
                .unwrap()
                .message
                .contains("remove the label virtualnodes.dev/pool")
        );
    }

    #[test]
    fn a_pool_whose_label_was_taken_off_is_not_told_that_nothing_was_made() {
        let provider = |registered: &[i32]| json!({ "status": { "provider": { "type": "StatefulSet", "registered": registered } } });
        for (registered, made) in [(&[][..], false), (&[0, 1], true)] {
            let mut labelled = held();
            labelled["metadata"]["labels"][vnp_crds::POOL_LABEL] = json!("rival");
            let taken = Observed {
                others: vec![rival(YOUNGER, json!({}))],
                ..with_workload(observed(pool(provider(registered))), workload(labelled))
            };
            let older = Observed {
                others: vec![rival(OLDER, json!({}))],
                ..observed(pool(provider(registered)))
            };
            for seen in [taken, older] {
                let told = check(&seen).unwrap().message;
                assert_eq!(told.contains("nothing was made for pool burst"), !made, "{told}");
                let back =
                    "put the label virtualnodes.dev/pool: burst back on the StatefulSet if it is burst's";
                assert_eq!(told.contains(back), made, "{told}");
                assert!(!told.contains("it runs them"), "{told}");
            }
        }
    }
}
