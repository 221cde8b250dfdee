//! One pass over one pool: the parts are planned one after the other and put together.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vnp_crds::{DeletionPolicy, Management, ProviderStatus, ProviderType};

use crate::accept::{Acceptance, accept};
use crate::availability::unavailable;
use crate::drain::health::HEARTBEAT_LIMIT;
use crate::drain::identity::foreign;
use crate::drain::{self, DrainPlan, Holds, break_glass, plan_drain};
use crate::observed::{NodeView, Observed, Ordinal, Workload, WorkloadSeen};
use crate::placement::outdated;
use crate::plan::{Facts, Plan, Track, TrackKind};
use crate::step::{PatchPurpose, Step};
use crate::target::target;
use crate::workload::{self, DrainState, plan_workload, roll_in_step};
use crate::{pause, profile, scheduling, unreadable, webhook};

/// Plans one pass.
pub fn plan(seen: &Observed, now: Timestamp) -> Plan {
    let acceptance = accept(seen);
    let target = target(seen);
    let drain = drain(seen, &acceptance, target, now);
    let state = DrainState {
        busy: drain.busy(),
        held_by_provider: drain.held_by_provider,
        drained: drained(seen),
    };
    let profile_released = profile::released(seen);
    let policies_released = scheduling::released(seen);
    let policies = scheduling::plan_scheduling(seen, acceptance.workload);
    let workload = plan_workload(seen, &acceptance, target, &state, now);
    let labels = labels(seen);
    let pool_track = finalizer(
        seen,
        &acceptance,
        profile_released && policies_released && (state.drained || retains(seen)),
    );

    let mut plan = Plan {
        facts: Facts {
            workload_refused: !acceptance.workload,
            ..facts(seen, target, &drain, now)
        },
        reads: drain.reads,
        // Policies go first: a pod that leaves must not be sent back to virtual nodes by one.
        orders: if seen.deleting() && !policies_released {
            Vec::new()
        } else {
            drain.orders
        },
        settles: drain.settles,
        progress: drain.progress,
        ..Plan::default()
    };
    plan.findings.extend(acceptance.findings);
    plan.findings.extend(drain.findings);
    plan.findings.extend(workload.findings);
    plan.findings.extend(workload::unlabelled(seen));
    plan.findings.extend(profile::profile_findings(seen));
    plan.findings.extend(policies.findings);
    plan.findings.extend(webhook::webhook_findings(seen, now));
    plan.findings.extend(unreadable::findings(seen));
    plan.wake_at = drain
        .wake_at
        .into_iter()
        .chain(workload.wake_at)
        .chain(heartbeat_expiry(seen, now))
        .chain(webhook::vendor::selectors_due(seen, now))
        .min();
    let drain_steps: Vec<Step> = drain.steps.into_iter().chain(labels).collect();
    let bare = pool_track.first() == Some(&Step::AddPoolFinalizer);
    if bare {
        // Before anything is made or taken over, it must be certain that it will be given back.
        plan.add(TrackKind::Pool, pool_track.clone());
    }
    // Of a pool that is paused the rest is still listed as what waits.
    if !bare || seen.pool.is_paused() {
        // Our cordons, labels and profile entries go while the workload still says that they are ours.
        let hold = seen.deleting() && (!drain_steps.is_empty() || !profile_released || !policies_released);
        let release = |s: &Step| !(hold && lets_go(seen, s));
        plan.add(
            TrackKind::Workload,
            workload.steps.into_iter().take_while(release).collect(),
        );
        for steps in by_object(drain_steps) {
            plan.add(TrackKind::Drain, steps);
        }
        for step in policies.steps {
            plan.add(TrackKind::Policies, vec![step]);
        }
        plan.add(TrackKind::Audit, drain.audit);
        plan.add(TrackKind::Pool, if bare { Vec::new() } else { pool_track });
    }
    if seen.pool.is_paused() {
        pause::pause(seen, plan)
    } else {
        plan
    }
}

/// Steps about different Nodes do not rely on each other: one that is refused must not stop the others. But where the fence
/// goes, all that follows relies on that.
fn by_object(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let unfences = |s: &Step| matches!(s, Step::PatchWorkload(p) if p.purpose == PatchPurpose::Unfence);
    if steps.iter().any(unfences) {
        return vec![steps];
    }
    let mut tracks: Vec<(Option<String>, Vec<Step>)> = Vec::new();
    for step in steps {
        let node = step.node().map(ToOwned::to_owned);
        match tracks.iter_mut().find(|(known, _)| *known == node) {
            Some((_, track)) => track.push(step),
            None => tracks.push((node, vec![step])),
        }
    }
    tracks.into_iter().map(|(_, steps)| steps).collect()
}

impl Plan {
    fn add(&mut self, kind: TrackKind, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.tracks.push(Track { kind, steps });
        }
    }
}

fn retains(seen: &Observed) -> bool {
    seen.pool.spec.deletion_policy() == DeletionPolicy::Retain
}

/// The step gives the workload up for good. With a copy kept, letting go of the object is part of bringing it back.
fn lets_go(seen: &Observed, step: &Step) -> bool {
    match step {
        Step::PatchWorkload(p) => match p.purpose {
            PatchPurpose::Release => true,
            PatchPurpose::LetGo => seen.restore_copy.is_none(),
            _ => false,
        },
        Step::DeleteWorkload { .. } => true,
        _ => false,
    }
}

fn drain(seen: &Observed, acceptance: &Acceptance, target: Option<i32>, now: Timestamp) -> DrainPlan {
    // A workload that is gone for good keeps nothing: its Nodes are removed as those of any ordinal that went.
    let none = Workload::new(json!({ "spec": { "replicas": 0 } }));
    let workload = match &seen.workload {
        WorkloadSeen::There(_) => match seen.held_workload() {
            Some(held) => held,
            None => return DrainPlan::default(),
        },
        WorkloadSeen::Absent if seen.deleting() && seen.restore_copy.is_none() => &none,
        // About to be made again: its drains go on then.
        WorkloadSeen::Absent if seen.restore_copy.is_some() => return drain::as_reported(seen, now),
        WorkloadSeen::Absent => return DrainPlan::default(),
        WorkloadSeen::Unknown(_) => return drain::as_reported(seen, now),
    };
    let holds = Holds {
        refused: acceptance.drain_held.clone(),
        roll_in_step: roll_in_step(seen, now),
    };
    plan_drain(
        seen,
        workload,
        target.unwrap_or_else(|| workload.replicas()),
        &holds,
        now,
    )
}

/// Nothing of ours is left to drain: no replica, no provider, no Node that carries our label. A workload that somebody
/// else holds is none of our business, and neither are its Nodes.
pub fn drained(seen: &Observed) -> bool {
    let held = seen.held_workload();
    match &seen.workload {
        WorkloadSeen::Unknown(_) => return false,
        WorkloadSeen::There(_) if held.is_none() => return true,
        WorkloadSeen::There(_) | WorkloadSeen::Absent => {}
    }
    let providers = held.is_some() && !seen.provider_pods.is_empty();
    let ours = |n: &NodeView| n.pool_label() == Some(seen.pool_name()) && !n.reserved();
    held.is_none_or(|w| w.replicas() == 0) && !providers && !seen.nodes.values().any(|n| ours(n))
}

/// When the first heartbeat gets too old, if no other comes: nothing else would tell.
fn heartbeat_expiry(seen: &Observed, now: Timestamp) -> Option<Timestamp> {
    let beats = seen.nodes.values().filter_map(|n| n.heartbeat.as_ref());
    beats
        .map(|b| b.seen_at + HEARTBEAT_LIMIT + SignedDuration::from_secs(1))
        .filter(|t| *t > now)
        .min()
}

/// The pool's finalizer: on before anything else, off when nothing is left to give back.
fn finalizer(seen: &Observed, acceptance: &Acceptance, nothing_left: bool) -> Vec<Step> {
    let present = seen
        .pool
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == vnp_crds::FINALIZER);
    if !seen.deleting() {
        let acts = acceptance.workload || acceptance.profile;
        return if acts && !present {
            vec![Step::AddPoolFinalizer]
        } else {
            Vec::new()
        };
    }
    let retained = retains(seen);
    let let_go = match seen.held_workload() {
        None => seen.workload.unknown().is_none() && workload::unlabelled(seen).is_none(),
        // A Create pool of the same name may take it up again: it keeps our label, and nothing else of ours.
        Some(w) => {
            retained && seen.pool.spec.provider.management() == Management::Create && !w.has_finalizer()
        }
    };
    let copies = seen.restore_copy.is_some() || seen.template_copy.is_some();
    let over = present && let_go && !copies && nothing_left;
    if over {
        vec![Step::RemovePoolFinalizer]
    } else {
        Vec::new()
    }
}

/// Our label on the pool's Nodes, put back when a Node registered again; taken back by Retain from adopted ones.
fn labels(seen: &Observed) -> Vec<Step> {
    let Some(workload) = seen.held_workload() else {
        return Vec::new();
    };
    let name = seen.pool_name();
    let give_back =
        seen.deleting() && retains(seen) && seen.pool.spec.provider.management() == Management::Adopt;
    // A Node that registers again in the middle of anything is still ours: what removes it goes by the label.
    let keep = !(seen.deleting() && retains(seen));
    seen.nodes
        .iter()
        .filter(|(o, n)| workload.ordinals().contains(o) && !n.reserved() && !n.deleting)
        // What a takeover before this took for ours is given back all the same.
        .filter(|(o, n)| give_back || !foreign(n, seen.provider_pods.get(o).map(AsRef::as_ref)))
        .filter_map(|(_, n)| {
            let wanted = if give_back { None } else { Some(name.to_owned()) };
            let wrong = if give_back {
                n.pool_label() == Some(name)
            } else {
                keep && n.pool_label() != Some(name)
            };
            wrong.then(|| Step::LabelNode {
                node: n.name.clone(),
                uid: n.uid.clone(),
                pool: wanted,
            })
        })
        .collect()
}

fn facts(seen: &Observed, target: Option<i32>, drain: &DrainPlan, now: Timestamp) -> Facts {
    let served = seen.pool.spec.provider.type_ == ProviderType::StatefulSet;
    let held = seen.held_workload().map(|w| w.ordinals()).unwrap_or(0..0);
    // While the workload can't be seen, the Nodes that carry the pool's label are its own.
    let labelled = |o: &Ordinal| {
        let node = seen.nodes.get(o).filter(|_| seen.workload.unknown().is_some());
        node.is_some_and(|n| n.pool_label() == Some(seen.pool_name()))
    };
    let ours = |o: &Ordinal| held.contains(o) || labelled(o);
    let in_pool = |o: &Ordinal| ours(o) || drain.nodes.iter().any(|n| n.ordinal == *o);
    let provider = |o: &Ordinal| seen.provider_pods.get(o).map(AsRef::as_ref);
    let own = |o: &Ordinal, n: &NodeView| !n.reserved() && !foreign(n, provider(o));
    let nodes = seen.nodes.iter().filter(|(o, n)| in_pool(o) && own(o, n));
    let wanted = target.map_or(Ordinal::MAX, |t| held.start.saturating_add(t));
    let mut available = 0;
    let mut unavailable_nodes = Vec::new();
    for (ordinal, node) in seen.nodes.iter().filter(|(o, n)| ours(o) && !n.reserved()) {
        match unavailable(seen, *ordinal, node, now) {
            None => available += 1,
            Some(why) if *ordinal < wanted => unavailable_nodes.push(format!("{}: {why}", node.name)),
            Some(_) => {}
        }
    }
    let pods = || {
        let ordinals = seen.bound.keys().copied().filter(|o| in_pool(o));
        ordinals.flat_map(|o| seen.pods_on(o))
    };
    Facts {
        target,
        workload_refused: false,
        deletion_policy: served.then(|| seen.pool.spec.deletion_policy()),
        nodes: int(nodes.count()),
        available,
        unavailable: unavailable_nodes,
        pods: int(pods().count()),
        outdated: outdated(seen, pods()).map(int),
        registered: registered(seen),
        started: started(seen),
        retired: drain.retired.clone(),
        break_glass: break_glass::to_record(seen),
        pending_changes: Vec::new(),
        pending_total: 0,
        draining: drain.nodes.clone(),
        limited_by: drain.limited_by,
        done_at: drain.done_at,
    }
}

/// Ordinals whose Node was ever seen.
fn registered(seen: &Observed) -> Vec<Ordinal> {
    ever(seen, |s| Some(&s.registered), |o| seen.nodes.contains_key(o))
}

/// Ordinals whose provider was ever Ready.
fn started(seen: &Observed) -> Vec<Ordinal> {
    let ready = |o: &Ordinal| seen.provider_pods.get(o).is_some_and(|p| p.ready);
    ever(seen, |s| s.started.as_ref(), ready)
}

/// Ordinals of which something is so now, or was before by the status. At a takeover it was so of all that are there,
/// because nobody knows; a count in the status says that this workload was held before. Nor does anybody know where the
/// operator that wrote the status did not note it.
fn ever(
    seen: &Observed,
    reported: impl Fn(&ProviderStatus) -> Option<&Vec<Ordinal>>,
    now: impl Fn(&Ordinal) -> bool,
) -> Vec<Ordinal> {
    let before = seen.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    let Some(workload) = seen.held_workload() else {
        return before.and_then(reported).cloned().unwrap_or_default();
    };
    let known = |o: &Ordinal| match before {
        Some(status) if status.replicas.is_some() => reported(status).is_none_or(|known| known.contains(o)),
        _ => true,
    };
    workload.ordinals().filter(|o| known(o) || now(o)).collect()
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use vnp_crds::VirtualNodePool;

    use super::*;
    use crate::observed::Blind;
    use crate::testing::{node, now, observed, pool, set_our_cordon, with_node};

    fn with_status(seen: &mut Observed, status: serde_json::Value) {
        let mut pool = (*seen.pool).clone();
        pool.status = serde_json::from_value(status).unwrap();
        seen.pool = Arc::new(pool);
    }

    #[test]
    fn a_takeover_takes_ordinals_without_a_node_for_registered() {
        let mut seen = observed(pool(json!({ "replicas": 3 })), 3);
        seen.nodes.remove(&2);
        // What the pass before the takeover reports: a provider, and no count.
        with_status(
            &mut seen,
            json!({ "provider": { "type": "StatefulSet", "registered": [] } }),
        );
        let facts = plan(&seen, now()).facts;
        assert_eq!((facts.registered, facts.started), (vec![0, 1, 2], vec![0, 1, 2]));
        // Held before: an ordinal that never came up is known as such.
        let held = json!({ "provider": { "type": "StatefulSet", "registered": [0, 1], "replicas": 3 } });
        with_status(&mut seen, held);
        assert_eq!(plan(&seen, now()).facts.registered, [0, 1]);
        // A workload that is gone for a moment takes nothing with it.
        seen.workload = WorkloadSeen::Absent;
        assert_eq!(plan(&seen, now()).facts.registered, [0, 1]);
    }

    /// The pool when nobody can look at its workload: its namespace was dropped from `--provider-namespaces`, or its Role.
    fn unseen(mut pool: VirtualNodePool, deleted: Option<&str>, blind: &Blind) -> Observed {
        if let Some(policy) = deleted {
            pool.spec.deletion_policy = serde_json::from_value(json!(policy)).unwrap();
            pool.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        }
        pool.metadata.finalizers = Some(vec![vnp_crds::FINALIZER.to_owned()]);
        let mut seen = observed(pool, 3);
        let node = json!({ "name": "virtual-node-eci-2", "uid": "node-2", "ordinal": 2, "phase": "Evicting",
            "startedAt": "2026-12-31T00:00:00Z", "recordons": 1, "podsTotal": 4, "podsRemaining": 3 });
        let status = json!({
            "provider": { "type": "StatefulSet", "registered": [0, 1, 2], "replicas": 3,
                "retired": [{ "ordinal": 3, "nodeUid": "n", "time": "2027-01-14T00:00:00Z", "abandoned": false }] },
            "drain": { "summary": "3/4", "podsTotal": 4, "podsRemaining": 3, "podsTerminating": 0, "podsBlocked": 0,
                "limitedBy": "Rate", "blockers": [], "nodes": [node] },
        });
        with_status(&mut seen, status);
        crate::testing::bind(&mut seen, 2, vec![crate::testing::pod("a")]);
        if *blind == Blind::NotWatched {
            seen.operator.provider_namespaces = vec!["elsewhere".to_owned()];
        }
        seen.workload = WorkloadSeen::Unknown(blind.clone());
        seen
    }

    #[test]
    fn a_workload_that_can_t_be_seen_is_not_one_that_is_not_there() {
        let copy = crate::observed::SavedCopy {
            name: "vnp-restore-pool-uid".to_owned(),
            uid: "copy".to_owned(),
            content: json!({ "uid": "gone", "object": { "spec": { "replicas": 3 } } }),
        };
        for blind in [
            Blind::NotWatched,
            Blind::Refused("statefulsets is forbidden".to_owned()),
        ] {
            for management in ["Adopt", "Create"] {
                for deleted in [None, Some("Retain"), Some("Drain")] {
                    for kept in [None, Some(copy.clone())] {
                        let spec = json!({ "replicas": 3, "provider": { "management": management } });
                        let mut seen = unseen(pool(spec), deleted, &blind);
                        seen.restore_copy.clone_from(&kept);
                        seen.template_copy = kept;
                        let plan = plan(&seen, now());
                        let state = format!("{blind:?} {management} {deleted:?}");
                        assert!(plan.tracks.is_empty(), "{state}: {:?}", plan.tracks);
                        assert!(plan.orders.is_empty() && plan.reads.is_empty(), "{state}");
                        assert!(!drained(&seen) && !crate::workload::rolled(&seen), "{state}");
                        let told: Vec<_> = plan
                            .findings
                            .iter()
                            .filter_map(|f| match f {
                                crate::finding::Finding::Refused { reason, message } => {
                                    Some((*reason, message))
                                }
                                crate::finding::Finding::Blocker(b) => panic!("{state}: {b}"),
                                _ => None,
                            })
                            .collect();
                        assert_eq!(told[0].0, vnp_crds::Reason::NamespaceNotAllowed, "{state}");
                        assert_eq!(
                            told[0].1.contains(vnp_crds::FINALIZER),
                            deleted.is_some(),
                            "{}",
                            told[0].1
                        );
                        // Nothing is forgotten that must survive.
                        assert_eq!(
                            (plan.facts.nodes, plan.facts.available, plan.facts.pods),
                            (3, 3, 1),
                            "{state}"
                        );
                        assert_eq!(plan.facts.registered, [0, 1, 2]);
                        assert_eq!(plan.facts.retired.len(), 1);
                        let going = &plan.facts.draining[0];
                        assert_eq!(
                            (going.phase, going.recordons),
                            (vnp_crds::DrainPhase::Evicting, 1)
                        );
                        assert_eq!(going.started_at, "2026-12-31T00:00:00Z".parse().unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn a_pool_that_goes_keeps_its_claim_on_a_workload_whose_label_somebody_took_off() {
        for management in ["Adopt", "Create"] {
            for policy in ["Drain", "Retain"] {
                for (ran, finalizer, label, goes) in [
                    (json!([0]), true, None, false),
                    (json!(null), true, None, false),
                    // It never ran here, is not ours any more, or another pool's.
                    (json!([]), true, None, true),
                    (json!([0]), false, None, true),
                    (json!([0]), true, Some("other"), true),
                ] {
                    let mut pool =
                        pool(json!({ "deletionPolicy": policy, "provider": { "management": management } }));
                    pool.metadata.finalizers = Some(vec![vnp_crds::FINALIZER.to_owned()]);
                    pool.metadata.deletion_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
                    let mut seen = observed(pool, 1);
                    with_status(
                        &mut seen,
                        json!({ "provider": { "type": "StatefulSet", "started": ran } }),
                    );
                    let mut raw = seen.workload.there().unwrap().raw.clone();
                    raw["metadata"]["labels"] = json!({});
                    if let Some(label) = label {
                        raw["metadata"]["labels"][vnp_crds::POOL_LABEL] = json!(label);
                    }
                    raw["metadata"]["finalizers"] = json!([]);
                    if finalizer {
                        raw["metadata"]["finalizers"] = json!([vnp_crds::WORKLOAD_FINALIZER]);
                    }
                    seen.workload = crate::observed::Workload::new(raw).into();
                    let plan = plan(&seen, now());
                    let off = plan
                        .tracks
                        .iter()
                        .any(|t| t.steps.contains(&Step::RemovePoolFinalizer));
                    let state = format!(
                        "{management} {policy} {ran} {finalizer} {label:?}: {:?}",
                        plan.findings
                    );
                    assert_eq!(off, goes, "{state}");
                    let told =
                        format!("{:?}", plan.findings).contains("put the label virtualnodes.dev/pool: ");
                    assert_eq!(told, !goes, "{state}");
                }
            }
        }
    }

    #[test]
    fn a_refused_uncordon_stops_neither_another_nor_what_lies_behind_it() {
        let mut seen = observed(pool(json!({ "replicas": 3 })), 3);
        for ordinal in [0, 1] {
            with_node(&mut seen, ordinal, set_our_cordon);
        }
        with_node(&mut seen, 2, |n| drop(n.labels.remove(vnp_crds::POOL_LABEL)));
        let firsts = |seen: &Observed| {
            let plan = plan(seen, now());
            let drain = plan.tracks.iter().filter(|t| t.kind == TrackKind::Drain);
            drain
                .map(|t| t.steps.iter().map(|s| s.node().map(ToOwned::to_owned)).collect())
                .collect::<Vec<Vec<_>>>()
        };
        let nodes = [0, 1, 2].map(|o| vec![Some(node(o).name)]);
        assert_eq!(firsts(&seen), nodes);
        // The fence goes before any cordon does.
        let mut raw = seen.workload.there().unwrap().raw.clone();
        raw["metadata"]["annotations"] = json!({ vnp_crds::SHRINKING_ANNOTATION: "2/node-2/3" });
        seen.workload = Workload::new(raw).into();
        let one = firsts(&seen);
        assert_eq!((one.len(), one[0].len(), &one[0][0]), (1, 4, &None));
    }

    #[test]
    fn a_node_that_registers_again_while_its_pool_goes_gets_the_label_back() {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        let mut deleted = (*seen.pool).clone();
        deleted.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        seen.pool = Arc::new(deleted);
        with_node(&mut seen, 0, |n| drop(n.labels.remove(vnp_crds::POOL_LABEL)));
        let label = Step::LabelNode {
            node: node(0).name,
            uid: node(0).uid,
            pool: Some("burst".to_owned()),
        };
        let plan = plan(&seen, now());
        assert!(
            plan.tracks.iter().any(|t| t.steps.contains(&label)),
            "{:?}",
            plan.tracks
        );
    }

    #[test]
    fn a_pool_that_was_never_unpaused_lists_what_it_would_take_over() {
        let spec =
            json!({ "replicas": 2, "paused": true, "provider": { "management": "Adopt", "image": null } });
        let mut new = pool(spec);
        new.metadata.finalizers = None;
        let mut seen = observed(new, 2);
        let mut raw = seen.workload.there().unwrap().raw.clone();
        raw["metadata"]["labels"] = json!({});
        raw["metadata"]["finalizers"] = json!([]);
        seen.workload = Workload::new(raw).into();
        let preview = plan(&seen, now());
        let lines = &preview.facts.pending_changes;
        assert_eq!(lines[0], "add the pool's finalizer");
        assert!(
            lines.contains(&format!("label {} (unset) -> burst", vnp_crds::POOL_LABEL)),
            "{lines:?}"
        );
        assert_eq!(preview.tracks, []);
        // What comes back while a pool is paused comes back only for one that has its finalizer.
        seen.workload = WorkloadSeen::Absent;
        seen.restore_copy = Some(crate::observed::SavedCopy {
            name: "vnp-restore-pool-uid".to_owned(),
            uid: "copy".to_owned(),
            content: json!({ "uid": "gone", "object": { "spec": { "replicas": 3 } } }),
        });
        assert_eq!(plan(&seen, now()).tracks, []);
    }
}
