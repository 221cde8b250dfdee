//! Another installation of the operator that drains the same nodes. Its fences and cordons are left to it for a while, so
//! that the two do not overwrite each other without end, and taken over when it does nothing more with them: it may have
//! been moved to another namespace or removed.

use jiff::Timestamp;
use vnp_crds::BlockerReason;

use super::{DrainPlan, Scene, seconds};
use crate::observed::{NodeView, Observed, Ordinal};

/// How long a fence or cordon of another installation is left alone after it was first seen as it is.
const PATIENCE_SECONDS: i64 = 120;

/// The fence on the pool's workload, when another installation set it.
pub(crate) fn other_fence(seen: &Observed) -> Option<&str> {
    let fence = seen.held_workload()?.annotation(vnp_crds::SHRINKING_ANNOTATION)?;
    owner(seen, fence).map(|_| fence)
}

/// The installation that set the fence `<ordinal>/<node-uid>/<term>`, when it is another one.
fn owner<'a>(seen: &Observed, fence: &'a str) -> Option<&'a str> {
    seen.operator
        .term
        .other_installation(fence.splitn(3, '/').nth(2)?)
}

/// True while the fence is left to the installation that set it for a node that goes.
pub(super) fn keeps_fence(scene: &Scene<'_>, fence: &str, chosen: &[Ordinal], plan: &mut DrainPlan) -> bool {
    let ordinal = fence.split_once('/').and_then(|(o, _)| o.parse().ok());
    let Some(ordinal) = ordinal.filter(|o| chosen.contains(o)) else {
        return false;
    };
    let Some(other) = owner(scene.seen, fence) else {
        return false;
    };
    let known = scene.seen.recall.other_fence.as_ref();
    let since = known.filter(|(known, _)| known == fence).map(|(_, since)| *since);
    waits(scene, ordinal, ("fence", other), since, plan)
}

/// True while the cordon is left to the installation that set it.
pub(super) fn keeps_cordon(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    node: &NodeView,
    plan: &mut DrainPlan,
) -> bool {
    let written = node.cordon_term.as_deref().filter(|_| node.holds_our_cordon());
    let Some(other) = written.and_then(|term| scene.seen.operator.term.other_installation(term)) else {
        return false;
    };
    let since = scene.seen.memory.get(&ordinal).and_then(|m| m.cordoned_since);
    waits(scene, ordinal, ("cordon", other), since, plan)
}

/// `held_by`: what holds it, and the installation that set that. Whether that one still runs is not seen.
fn waits(
    scene: &Scene<'_>,
    ordinal: Ordinal,
    held_by: (&str, &str),
    since: Option<Timestamp>,
    plan: &mut DrainPlan,
) -> bool {
    let until = since.unwrap_or(scene.now) + seconds(PATIENCE_SECONDS);
    if scene.now >= until {
        return false;
    }
    let node = scene.seen.node_name(ordinal);
    let (what, other) = held_by;
    let message = format!(
        "the {what} of {node} is that of an installation of this operator in namespace {other}; if that one runs, remove \
         one of the two; if it leaves {node} as it is, this one goes on at {until:.0}"
    );
    let pods = scene.seen.holding(ordinal).count();
    plan.block(scene.blocker(BlockerReason::CordonContested, node, pods, message));
    plan.wake(until);
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vnp_crds::SHRINKING_ANNOTATION;

    use super::super::tests::{blockers, cordon, plan_at, ripe, set_fence, shrinks};
    use super::*;
    use crate::observed::Term;
    use crate::step::Step;
    use crate::testing::{after, bind, now, observed, pod, pool, term, with_node};
    use crate::workload::remember;

    fn elsewhere() -> Term {
        Term {
            installation: "elsewhere".to_owned(),
            ..term()
        }
    }

    #[test]
    fn a_cordon_of_another_installation_is_left_to_it_for_two_minutes() {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
        bind(&mut seen, 2, vec![pod("a")]);
        cordon(&mut seen, 2);
        with_node(&mut seen, 2, |n| n.cordon_term = Some(elsewhere().to_string()));
        let memory = |seen: &mut Observed, since| {
            seen.memory.get_mut(&2).unwrap().cordoned_since = since;
        };
        for since in [None, Some(after(-119))] {
            memory(&mut seen, since);
            let plan = plan_at(&seen, 2, now());
            assert_eq!((plan.steps.len(), plan.orders.len()), (0, 0), "{since:?}");
            assert_eq!(blockers(&plan), [BlockerReason::CordonContested]);
            let told = format!("{:?}", plan.findings);
            let who = "the cordon of virtual-node-eci-2 is that of an installation of this operator in namespace elsewhere; if";
            assert!(told.contains(who) && told.contains("if that one runs"), "{told}");
            assert!(plan.wake_at.is_some_and(|at| at <= after(120)));
        }
        memory(&mut seen, Some(after(-120)));
        let plan = plan_at(&seen, 2, now());
        assert!(
            matches!(&plan.steps[..], [Step::Cordon { term: t, .. }] if *t == term()),
            "{:?}",
            plan.steps
        );
        // Wanted again: nobody's cordon of ours is left, and no patience either.
        memory(&mut seen, Some(now()));
        assert!(matches!(
            plan_at(&seen, 3, now()).steps[..],
            [Step::Uncordon { .. }]
        ));
    }

    #[test]
    fn a_fence_of_another_installation_is_left_to_it_for_two_minutes() {
        let fence = format!("2/node-2/{}", elsewhere());
        let mut seen = ripe();
        set_fence(&mut seen, &fence);
        seen.recall = remember(&seen, after(-119));
        assert_eq!(seen.recall.other_fence, Some((fence.clone(), after(-119))));
        let plan = plan_at(&seen, 2, now());
        assert_eq!((plan.steps.len(), shrinks(&plan)), (0, Vec::new()));
        assert_eq!(blockers(&plan), [BlockerReason::CordonContested]);
        let told = format!("{:?}", plan.findings);
        assert!(
            told.contains("the fence of virtual-node-eci-2 is that of"),
            "{told}"
        );
        assert_eq!(remember(&seen, now()).other_fence, seen.recall.other_fence);
        let first = |seen: &Observed, target| plan_at(seen, target, now()).steps.into_iter().next();
        // What is wanted again is not left to anybody.
        assert!(matches!(first(&seen, 3), Some(Step::PatchWorkload(_))));
        seen.recall.other_fence = Some((fence, after(-120)));
        assert!(matches!(first(&seen, 2), Some(Step::PatchWorkload(_))));
        let mut later = seen.clone();
        set_fence(&mut later, &crate::testing::fence_of(2, "node-2"));
        assert_eq!(remember(&later, after(1)).other_fence, None);
        assert!(
            later
                .workload
                .there()
                .unwrap()
                .annotation(SHRINKING_ANNOTATION)
                .is_some()
        );
    }
}
