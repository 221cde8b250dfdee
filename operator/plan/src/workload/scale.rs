//! The replica count upwards. Downwards there is only [`crate::proof::Shrink`].

use serde_json::json;
use vnp_crds::EventReason;

use super::contest::{self, contested};
use super::patch::{pointer, replace, test};
use super::{rewritten, stalled_by};
use crate::drain::break_glass;
use crate::drain::returns::came_after;
use crate::finding::{EventNote, Finding, ProviderState};
use crate::observed::{BoundPod, Observed, Ordinal, Workload};
use crate::plan::Part;
use crate::step::{PatchPurpose, Step, WorkloadPatch};
use crate::wording::counted;

/// Raises the count to the target, and in any case so far that every ordinal of ours that still holds pods has its
/// provider: who took it away, and whether the pool wants the node, does not matter while instances run.
pub(super) fn plan(observed: &Observed, workload: &Workload, target: Option<i32>, accepted: bool) -> Part {
    let mut part = Part::default();
    let count = workload.replicas();
    let rescued = rescue(observed, workload, &mut part);
    part.findings.extend(raised_by_others(observed, workload, target));
    let mut raised = target.filter(|t| accepted && *t > count);
    if let (Some(target), Some(by)) = (raised, contested(&observed.recall, contest::REPLICAS)) {
        let message = format!("{by} keeps lowering spec.replicas of the StatefulSet below {target}");
        part.findings
            .push(stalled_by(by, &message, "let it leave spec.replicas to the pool"));
        raised = None;
    }
    // A rescue is tried each time: nobody deletes the instances meanwhile.
    if rewritten::held_off(&observed.recall, contest::REPLICAS) {
        raised = None;
    }
    let Some(wanted) = rescued.into_iter().chain(raised).max().filter(|w| *w > count) else {
        return part;
    };
    part.steps.push(raise(workload, wanted));
    part.findings.push(Finding::Provider {
        state: ProviderState::ScalingUp,
        message: format!(
            "the StatefulSet has {} instead of {wanted}",
            counted(count, "replica")
        ),
    });
    if raised == Some(wanted) {
        part.findings.push(Finding::Event(EventNote {
            reason: EventReason::ScalingUp,
            // Each raise is one: the same numbers may come again, the object that was raised does not.
            subject: format!(
                "{} {count} {wanted} {}",
                workload.name(),
                workload.resource_version()
            ),
            note: format!(
                "StatefulSet {} scaled up from {count} to {}",
                workload.name(),
                counted(wanted, "replica")
            ),
        }));
    }
    part
}

/// Whoever raised the count above the target since the status was written. Its nodes are drained like those of a lower
/// target, and only the count's field manager tells the two apart.
fn raised_by_others(observed: &Observed, workload: &Workload, target: Option<i32>) -> Option<Finding> {
    let (count, target) = (workload.replicas(), target?);
    let by = workload
        .replicas_manager()
        .filter(|m| *m != vnp_crds::FIELD_MANAGER)?;
    let before = observed.pool.status.as_ref()?.provider.as_ref()?.replicas?;
    (count > target && count > before).then(|| {
        Finding::Event(EventNote {
            reason: EventReason::ForeignScale,
            subject: format!("{} {before} {count}", workload.name()),
            note: format!(
                "{by} raised StatefulSet {} from {before} to {}, and the pool wants {target}: the nodes above have to go; change \
                 spec.replicas of the pool instead",
                workload.name(),
                counted(count, "replica")
            ),
        })
    })
}

/// The patch tests UID and old count only: a change of anything else must not delay it.
fn raise(workload: &Workload, wanted: i32) -> Step {
    let count = workload.replicas();
    let path = pointer(&["spec", "replicas"]);
    Step::PatchWorkload(WorkloadPatch {
        patch: json_patch::Patch(vec![
            test(pointer(&["metadata", "uid"]), json!(workload.uid())),
            test(path.clone(), json!(count)),
            replace(path, json!(wanted)),
        ]),
        purpose: PatchPurpose::ScaleUp,
        changes: vec![super::change_line(
            "replicas",
            Some(&count.to_string()),
            Some(&wanted.to_string()),
        )],
    })
}

/// The count that gives back their provider to all ordinals of ours that hold pods, and who took it.
fn rescue(observed: &Observed, workload: &Workload, part: &mut Part) -> Option<i32> {
    let status = observed.pool.status.as_ref();
    let retired = status
        .and_then(|s| s.provider.as_ref())
        .map_or(&[][..], |p| p.retired.as_slice());
    let end = workload.ordinals().end;
    let mut highest = None;
    for ordinal in observed.bound.keys().copied().filter(|o| *o >= end) {
        let entry = retired.iter().find(|r| r.ordinal == ordinal);
        let labelled = observed
            .nodes
            .get(&ordinal)
            .is_some_and(|n| n.pool_label() == Some(observed.pool_name()) && !n.reserved());
        // Made for an ordinal of which nothing was left, a pod has no instance: its provider would only start it, to lose it.
        let late = |p: &&BoundPod| !labelled && entry.is_some_and(|r| came_after(r, p));
        let pods = observed.holding(ordinal).filter(|p| !late(p)).count();
        let given_up = entry.is_some_and(|r| r.abandoned) || abandoned(observed, ordinal);
        if pods == 0 || given_up || !(labelled || entry.is_some()) {
            continue;
        }
        highest = highest.max(Some(ordinal));
        let node = observed.node_name(ordinal);
        let by = workload.replicas_manager();
        // The evidence of the object counts. Where nobody knows who wrote it, the status says whether the ordinal went.
        let ours = by.map_or(entry.is_some(), |by| by == vnp_crds::FIELD_MANAGER);
        let count = ordinal.saturating_sub(workload.start_ordinal()).saturating_add(1);
        let then = match observed.pool.is_paused() {
            true => "the pool is paused, so it stays so until that ends".to_owned(),
            false => format!("the count has to go back up to {count}"),
        };
        let (reason, note) = if ours {
            let note = format!(
                "{node} was removed as empty, with {} bound to it: nobody can delete their instances meanwhile; {then}",
                counted(pods, "pod")
            );
            (EventReason::RaceLost, note)
        } else {
            let by = by.unwrap_or("somebody");
            let note = format!(
                "{by} lowered StatefulSet {} to {}, with {} bound to {node}: nobody can delete their instances meanwhile; {then}; \
                 change spec.replicas of the pool instead",
                workload.name(),
                counted(workload.replicas(), "replica"),
                counted(pods, "pod")
            );
            (EventReason::ForeignScale, note)
        };
        part.findings.push(Finding::Event(EventNote {
            reason,
            subject: node,
            note,
        }));
    }
    highest?.checked_sub(workload.start_ordinal())?.checked_add(1)
}

/// Given up by a person, in a pass whose status is not written yet. The UID counts: a node that came back under the name
/// is another one.
fn abandoned(observed: &Observed, ordinal: Ordinal) -> bool {
    let reported = || {
        let status = observed.pool.status.as_ref()?;
        status.draining(ordinal)?.uid.clone()
    };
    let uid = observed
        .nodes
        .get(&ordinal)
        .map(|n| n.uid.clone())
        .or_else(reported);
    break_glass::given_up(observed, ordinal, uid.as_deref().unwrap_or(break_glass::NO_NODE))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::testing::{bind, observed, pod, pool, with_node};

    fn raised(part: &Part) -> Option<i32> {
        part.steps.iter().find_map(|s| match s {
            Step::PatchWorkload(p) if p.purpose == PatchPurpose::ScaleUp => {
                let last = serde_json::to_value(p.patch.0.last().unwrap()).unwrap();
                last["value"].as_i64().map(|n| n as i32)
            }
            _ => None,
        })
    }

    fn events(part: &Part) -> Vec<EventReason> {
        part.findings
            .iter()
            .filter_map(|f| {
                if let Finding::Event(e) = f {
                    Some(e.reason)
                } else {
                    None
                }
            })
            .collect()
    }

    fn look(seen: &Observed, target: Option<i32>, accepted: bool) -> Part {
        plan(seen, seen.workload.there().unwrap(), target, accepted)
    }

    fn retire(seen: &mut Observed, ordinal: Ordinal, abandoned: bool) {
        let mut pool = (*seen.pool).clone();
        pool.status = serde_json::from_value(json!({ "provider": {
            "type": "StatefulSet",
            "retired": [{ "ordinal": ordinal, "time": "2026-12-31T00:00:00Z", "abandoned": abandoned }],
        } }))
        .unwrap();
        seen.pool = Arc::new(pool);
    }

    fn managed(seen: &mut Observed, manager: &str) {
        let mut raw = seen.workload.there().unwrap().raw.clone();
        raw["metadata"]["managedFields"] = json!([{
            "manager": manager, "operation": "Update", "time": "2026-01-01T00:00:00Z",
            "fieldsV1": { "f:spec": { "f:replicas": {} } },
        }]);
        seen.workload = Workload::new(raw).into();
    }

    #[test]
    fn the_count_only_goes_up() {
        let seen = observed(pool(json!({})), 3);
        for (target, accepted, expected) in [
            (None, true, None),
            (Some(0), true, None),
            (Some(2), true, None),
            (Some(3), true, None),
            (Some(5), true, Some(5)),
            (Some(5), false, None),
        ] {
            assert_eq!(
                raised(&look(&seen, target, accepted)),
                expected,
                "{target:?} {accepted}"
            );
        }
    }

    #[test]
    fn the_raise_tests_uid_and_old_count_and_writes_nothing_else() {
        let seen = observed(pool(json!({})), 3);
        let part = look(&seen, Some(4), true);
        let Step::PatchWorkload(patch) = &part.steps[0] else {
            panic!()
        };
        let mut raw = seen.workload.there().unwrap().raw.clone();
        let before = raw.clone();
        json_patch::patch(&mut raw, &patch.patch).unwrap();
        assert_eq!(raw["spec"]["replicas"], 4);
        raw["spec"]["replicas"] = json!(3);
        assert_eq!(raw, before);
        raw["spec"]["replicas"] = json!(2);
        assert!(json_patch::patch(&mut raw, &patch.patch).is_err());
    }

    #[test]
    fn lowered_by_somebody_under_pods_is_raised_back_wanted_or_not() {
        for target in [0, 1, 3] {
            let mut seen = observed(pool(json!({})), 1);
            with_node(&mut seen, 1, |_| {});
            with_node(&mut seen, 2, |_| {});
            bind(&mut seen, 1, vec![pod("a")]);
            let part = look(&seen, Some(target), false);
            assert_eq!(raised(&part), Some(2), "{target}");
            assert_eq!(events(&part), [EventReason::ForeignScale]);
        }
    }

    #[test]
    fn who_raised_the_count_is_named_once() {
        let notes = |manager: &str, before: i32, target: i32| {
            let mut pool = pool(json!({}));
            pool.status = Some(
                serde_json::from_value(json!({ "provider": { "type": "StatefulSet", "replicas": before } }))
                    .unwrap(),
            );
            let mut seen = observed(pool, 4);
            managed(&mut seen, manager);
            let findings = look(&seen, Some(target), true).findings;
            let notes = findings.into_iter().filter_map(|f| match f {
                Finding::Event(e) if e.reason == EventReason::ForeignScale => Some(e.note),
                _ => None,
            });
            notes.collect::<Vec<_>>()
        };
        let told = "keda raised StatefulSet virtual-node-eci from 2 to 4 replicas, and the pool wants 2: the nodes above have \
                    to go; change spec.replicas of the pool instead";
        assert_eq!(notes("keda", 2, 2), [told]);
        // The status knows of it, the pool wants it, or it was us.
        for (manager, before, target) in [("keda", 4, 2), ("keda", 2, 4), (vnp_crds::FIELD_MANAGER, 2, 2)] {
            assert!(
                notes(manager, before, target).is_empty(),
                "{manager} {before} {target}"
            );
        }
    }

    #[test]
    fn the_note_names_who_lowered_it() {
        let mut seen = observed(pool(json!({})), 1);
        managed(&mut seen, "kubectl-scale");
        with_node(&mut seen, 1, |_| {});
        bind(&mut seen, 1, vec![pod("a")]);
        let part = look(&seen, Some(1), true);
        let note = part.findings.iter().find_map(|f| {
            if let Finding::Event(e) = f {
                Some(&e.note)
            } else {
                None
            }
        });
        assert!(note.unwrap().starts_with("kubectl-scale lowered"), "{note:?}");
    }

    #[test]
    fn our_own_shrink_that_lost_its_race_is_told_as_that_before_its_node_is_gone() {
        let mut seen = observed(pool(json!({})), 2);
        managed(&mut seen, vnp_crds::FIELD_MANAGER);
        with_node(&mut seen, 2, |_| {});
        bind(&mut seen, 2, vec![pod("a")]);
        let part = look(&seen, Some(2), true);
        assert_eq!(
            (raised(&part), events(&part)),
            (Some(3), vec![EventReason::RaceLost])
        );
        let note = part.findings.iter().find_map(|f| match f {
            Finding::Event(e) => Some(&e.note),
            _ => None,
        });
        assert!(!note.unwrap().contains(vnp_crds::FIELD_MANAGER), "{note:?}");
    }

    #[test]
    fn a_pod_on_a_retired_ordinal_is_a_lost_race_unless_a_person_gave_it_up() {
        let mut seen = observed(pool(json!({})), 2);
        bind(&mut seen, 2, vec![pod("a")]);
        retire(&mut seen, 2, false);
        let part = look(&seen, Some(2), true);
        assert_eq!(
            (raised(&part), events(&part)),
            (Some(3), vec![EventReason::RaceLost])
        );

        retire(&mut seen, 2, true);
        assert_eq!(look(&seen, Some(2), true), Part::default());

        // The same before the status is written: the Node is still there with our label.
        let mut seen = observed(pool(json!({})), 2);
        with_node(&mut seen, 2, |_| {});
        bind(&mut seen, 2, vec![pod("a")]);
        let mut given_up = (*seen.pool).clone();
        given_up.metadata.annotations = Some(
            [(
                vnp_crds::ABANDON_ANNOTATION.to_owned(),
                "virtual-node-eci-2/node-2".to_owned(),
            )]
            .into(),
        );
        seen.pool = Arc::new(given_up);
        assert_eq!(look(&seen, Some(2), true), Part::default());
    }

    #[test]
    fn ordinals_that_were_never_ours_are_not_scaled_to() {
        let mut seen = observed(pool(json!({})), 2);
        bind(&mut seen, 99, vec![pod("a")]);
        with_node(&mut seen, 7, |n| n.labels.clear());
        bind(&mut seen, 7, vec![pod("b")]);
        let mut mirror = pod("m");
        mirror.mirror = true;
        with_node(&mut seen, 3, |_| {});
        bind(&mut seen, 3, vec![mirror]);
        assert_eq!(look(&seen, Some(2), true), Part::default());
    }

    #[test]
    fn ordinals_count_from_the_start() {
        let mut seen = observed(pool(json!({})), 1);
        let mut raw: Value = seen.workload.there().unwrap().raw.clone();
        raw["spec"]["ordinals"] = json!({ "start": 5 });
        seen.workload = Workload::new(raw).into();
        with_node(&mut seen, 7, |_| {});
        bind(&mut seen, 7, vec![pod("a")]);
        assert_eq!(raised(&look(&seen, Some(1), true)), Some(3));
    }

    #[test]
    fn a_contested_count_is_left_alone_but_not_under_pods() {
        let mut seen = observed(pool(json!({})), 1);
        let times = (0..3)
            .map(|i| (crate::testing::after(-60 * i), "hpa".to_owned()))
            .rev()
            .collect();
        seen.recall.set_back.insert(contest::REPLICAS.to_owned(), times);
        let part = look(&seen, Some(4), true);
        assert_eq!(raised(&part), None);
        assert!(matches!(&part.findings[0], Finding::Stalled { message, .. } if message.contains("hpa")));
        with_node(&mut seen, 2, |_| {});
        bind(&mut seen, 2, vec![pod("a")]);
        assert_eq!(raised(&look(&seen, Some(4), true)), Some(3));
    }

    #[test]
    fn a_break_glass_for_an_earlier_node_of_that_name_does_not_stop_a_rescue() {
        for (value, rescued) in [
            ("virtual-node-eci-2/node-2", false),
            ("virtual-node-eci-2/an-earlier-node", true),
        ] {
            let mut seen = observed(pool(serde_json::json!({ "replicas": 3 })), 2);
            bind(&mut seen, 2, vec![pod("a")]);
            with_node(&mut seen, 2, |_| {});
            let mut pool = (*seen.pool).clone();
            pool.metadata.annotations =
                Some([(vnp_crds::ABANDON_ANNOTATION.to_owned(), value.to_owned())].into());
            seen.pool = Arc::new(pool);
            let mut part = Part::default();
            let workload = seen.workload.there().unwrap().clone();
            assert_eq!(rescue(&seen, &workload, &mut part).is_some(), rescued, "{value}");
        }
    }

    fn notes(part: &Part) -> Vec<&str> {
        let notes = part.findings.iter().filter_map(|f| match f {
            Finding::Event(e) => Some(e.note.as_str()),
            _ => None,
        });
        notes.collect()
    }

    #[test]
    fn who_lowered_it_is_told_also_after_the_status_says_it_went() {
        for (manager, reason, starts) in [
            (
                "kubectl-scale",
                EventReason::ForeignScale,
                "kubectl-scale lowered",
            ),
            (
                vnp_crds::FIELD_MANAGER,
                EventReason::RaceLost,
                "virtual-node-eci-2 was removed as empty",
            ),
        ] {
            let mut seen = observed(pool(json!({})), 2);
            managed(&mut seen, manager);
            bind(&mut seen, 2, vec![pod("a")]);
            retire(&mut seen, 2, false);
            let part = look(&seen, Some(2), true);
            assert_eq!((raised(&part), events(&part)), (Some(3), vec![reason]));
            assert!(notes(&part)[0].starts_with(starts), "{:?}", notes(&part));
        }
    }

    #[test]
    fn a_paused_pool_does_not_say_that_it_scales_back() {
        for (manager, paused) in [
            ("kubectl-scale", true),
            (vnp_crds::FIELD_MANAGER, true),
            ("kubectl-scale", false),
        ] {
            let mut seen = observed(pool(json!({ "paused": paused })), 2);
            managed(&mut seen, manager);
            with_node(&mut seen, 2, |_| {});
            bind(&mut seen, 2, vec![pod("a")]);
            let part = look(&seen, Some(2), true);
            let note = notes(&part)[0];
            assert!(
                note.contains("nobody can delete their instances meanwhile"),
                "{note}"
            );
            assert!(
                !note.contains("scaled back up") && !note.contains("brought back"),
                "{note}"
            );
            assert_eq!(note.contains("has to go back up to 3"), !paused, "{note}");
            assert_eq!(note.contains("the pool is paused"), paused, "{note}");
        }
    }
}
