//! Pods of a StatefulSet that no PodDisruptionBudget covers leave one at a time: nothing else protects a quorum, and the
//! Eviction API would let all of them go at once.

use jiff::Timestamp;

use super::seconds;
use crate::observed::{BoundPod, Member, MemberState, Members, Wanted};

/// A replacement usually serves within a minute; what takes longer is worth a word.
const USUAL_SECONDS: i64 = 60;

/// Whose turn it is in one StatefulSet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn<'a> {
    /// This pod may leave.
    Leaves(&'a BoundPod),
    /// None of them, for as long as this is usual.
    Waits {
        /// When it is not usual any more.
        until: Option<Timestamp>,
    },
    /// None of them, for longer than usual.
    Held {
        /// The pod that they wait for.
        by: String,
        /// What is wrong with it.
        state: MemberState,
        /// Since when.
        since: Timestamp,
    },
}

/// Decides between the pods of one StatefulSet that could leave a node now. A pod that does not serve may leave as long as
/// no other is leaving. One that serves may leave only when all the others serve. `wanted`: where it is known.
pub(super) fn turn<'a>(
    members: &Members,
    wanted: Option<&Wanted>,
    eligible: &[&'a BoundPod],
    now: Timestamp,
) -> Turn<'a> {
    let standing: Vec<(&String, &Member)> = members
        .iter()
        .filter(|(name, m)| awaited(m, now) && !scaled_away(members, wanted, name, m))
        .collect();
    let leaving = standing.iter().find(|(_, m)| m.state == MemberState::Terminating);
    if let Some((name, member)) = leaving {
        return wait(name, member, now);
    }
    let serves = |pod: &BoundPod| {
        members
            .get(&pod.key.name)
            .is_none_or(|m| m.uid != pod.uid || m.state == MemberState::Ready)
    };
    if let Some(sick) = last(eligible.iter().copied().filter(|p| !serves(p))) {
        return Turn::Leaves(sick);
    }
    match standing.first() {
        Some((name, member)) => wait(name, member, now),
        None => last(eligible.iter().copied()).map_or(Turn::Waits { until: None }, Turn::Leaves),
    }
}

/// Whether the others wait for this pod. One that was not disrupted and does not come back soon was scaled away.
fn awaited(member: &Member, now: Timestamp) -> bool {
    match member.state {
        MemberState::Ready => false,
        MemberState::NotReady | MemberState::Terminating | MemberState::Gone { disrupted: true } => true,
        MemberState::Gone { disrupted: false } => member
            .since
            .is_some_and(|since| now < since + seconds(USUAL_SECONDS)),
    }
}

/// The pod is gone, and so many pods with lower ordinals are there as the StatefulSet wants: it is not made again,
/// whichever ordinal it starts from.
fn scaled_away(members: &Members, wanted: Option<&Wanted>, name: &str, member: &Member) -> bool {
    let (MemberState::Gone { .. }, Some(Wanted::Pods(wanted))) = (member.state, wanted) else {
        return false;
    };
    let stays = |m: &Member| matches!(m.state, MemberState::Ready | MemberState::NotReady);
    let lower = members
        .iter()
        .filter(|(other, m)| (other.len(), other.as_str()) < (name.len(), name) && stays(m));
    lower.count() >= usize::try_from(*wanted).unwrap_or(0)
}

fn wait<'a>(name: &str, member: &Member, now: Timestamp) -> Turn<'a> {
    let Some(since) = member.since else {
        return Turn::Waits { until: None };
    };
    let until = since + seconds(USUAL_SECONDS);
    if now < until {
        return Turn::Waits { until: Some(until) };
    }
    Turn::Held {
        by: name.to_owned(),
        state: member.state,
        since,
    }
}

/// The highest ordinal, as StatefulSets scale down; names of equal length sort by it.
fn last<'a>(pods: impl Iterator<Item = &'a BoundPod>) -> Option<&'a BoundPod> {
    pods.max_by_key(|p| (p.key.name.len(), &p.key))
}

/// What is said about a StatefulSet whose pods wait for one of them for longer than usual.
pub(super) fn held(set: &str, by: &str, state: MemberState, wanted: Option<&Wanted>) -> String {
    let unknown = match (state, wanted) {
        (MemberState::Gone { .. }, Some(Wanted::Unknown { error })) => {
            format!(" (whether it is still wanted is not known: {error})")
        }
        _ => String::new(),
    };
    let what = match state {
        MemberState::Gone { .. } => "has not come back",
        MemberState::Terminating => "is still being deleted",
        MemberState::NotReady | MemberState::Ready => "is not Ready",
    };
    format!(
        "no PodDisruptionBudget covers StatefulSet {set}, so its pods leave one at a time, and {by} {what}{unknown}; repair {by}, or \
         give the StatefulSet a PodDisruptionBudget, which then decides"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{after, now, pod};

    fn member(name: &str, state: MemberState, since: i64) -> (String, Member) {
        (
            name.to_owned(),
            Member {
                uid: format!("uid-{name}"),
                state,
                since: Some(after(since)),
            },
        )
    }

    use MemberState::{Gone, NotReady, Ready, Terminating};

    fn says(members: &[(String, Member)], eligible: &[&str]) -> String {
        says_wanted(members, None, eligible)
    }

    fn says_wanted(members: &[(String, Member)], wanted: Option<Wanted>, eligible: &[&str]) -> String {
        let members: Members = members.iter().cloned().collect();
        let pods: Vec<BoundPod> = eligible.iter().map(|n| pod(n)).collect();
        match turn(&members, wanted.as_ref(), &pods.iter().collect::<Vec<_>>(), now()) {
            Turn::Leaves(pod) => format!("{} leaves", pod.key.name),
            Turn::Waits { until } => format!("waits {until:?}"),
            Turn::Held { by, state, .. } => held("shop/db", &by, state, wanted.as_ref()),
        }
    }

    #[test]
    fn the_highest_leaves_when_all_serve() {
        let all = ["db-2", "db-9", "db-10"].map(|n| member(n, Ready, -600));
        assert_eq!(says(&all, &["db-2", "db-9", "db-10"]), "db-10 leaves");
        assert_eq!(says(&all, &["db-2"]), "db-2 leaves");
    }

    #[test]
    fn nobody_leaves_while_one_is_leaving_missing_or_not_ready_elsewhere() {
        for state in [
            Terminating,
            NotReady,
            Gone { disrupted: true },
            Gone { disrupted: false },
        ] {
            let members = [member("db-0", Ready, -600), member("db-1", state, -30)];
            assert_eq!(
                says(&members, &["db-0"]),
                format!("waits {:?}", Some(after(30))),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_pod_that_does_not_serve_leaves_first_but_not_beside_another() {
        let mut members = vec![
            member("db-0", Ready, -600),
            member("db-1", NotReady, -10),
            member("db-2", Gone { disrupted: true }, -10),
        ];
        assert_eq!(says(&members, &["db-0", "db-1"]), "db-1 leaves");
        members.push(member("db-3", Terminating, -10));
        assert_eq!(
            says(&members, &["db-0", "db-1"]),
            format!("waits {:?}", Some(after(50)))
        );
    }

    #[test]
    fn what_takes_longer_than_usual_is_told_with_what_helps() {
        for (state, words) in [
            (NotReady, "db-1 is not Ready"),
            (Gone { disrupted: true }, "db-1 has not come back"),
            (Terminating, "db-1 is still being deleted"),
        ] {
            let told = says(
                &[member("db-0", Ready, -600), member("db-1", state, -60)],
                &["db-0"],
            );
            assert!(
                told.contains(words) && told.contains("StatefulSet shop/db"),
                "{told}"
            );
            assert!(told.contains("PodDisruptionBudget, which then decides"), "{told}");
        }
    }

    #[test]
    fn a_pod_that_was_scaled_away_is_not_waited_for() {
        let members = [
            member("db-0", Ready, -600),
            member("db-1", Gone { disrupted: false }, -60),
        ];
        assert_eq!(says(&members, &["db-0"]), "db-0 leaves");
    }

    #[test]
    fn an_evicted_pod_that_the_count_leaves_out_is_not_waited_for() {
        let gone = Gone { disrupted: true };
        let members = [
            member("db-8", Ready, -600),
            member("db-9", Ready, -600),
            member("db-10", gone, -600),
        ];
        let says = |wanted| says_wanted(&members, wanted, &["db-8", "db-9"]);
        assert_eq!(says(Some(Wanted::Pods(2))), "db-9 leaves", "ordinals start at 8");
        assert_eq!(says(Some(Wanted::Pods(0))), "db-9 leaves");
        assert!(says(Some(Wanted::Pods(3))).contains("db-10 has not come back;"));
        assert!(says(None).contains("db-10 has not come back;"));
        let unknown = Wanted::Unknown {
            error: "forbidden".to_owned(),
        };
        let told = says(Some(unknown));
        assert!(told.contains("not known: forbidden"), "{told}");
    }

    #[test]
    fn a_lower_pod_is_waited_for_while_higher_ones_are_scaled_away() {
        let gone = Gone { disrupted: true };
        // From four to three, with db-1 on its way back: db-3 is there until it is.
        let members = [
            member("db-0", Ready, -600),
            member("db-1", gone, -30),
            member("db-2", Ready, -600),
            member("db-3", Ready, -600),
        ];
        let says = |members: &[_]| says_wanted(members, Some(Wanted::Pods(3)), &["db-0"]);
        assert!(says(&members).starts_with("waits"));
        // One that is leaving makes no room for another to be left out.
        let leaving = [
            member("db-0", Ready, -600),
            member("db-1", Terminating, -30),
            member("db-2", gone, -30),
        ];
        assert!(says_wanted(&leaving, Some(Wanted::Pods(2)), &["db-0"]).starts_with("waits"));
    }

    fn any_state() -> impl Strategy<Value = MemberState> {
        prop_oneof![
            3 => Just(Ready),
            1 => Just(NotReady),
            1 => Just(Terminating),
            1 => any::<bool>().prop_map(|disrupted| Gone { disrupted }),
        ]
    }

    proptest! {
        #[test]
        fn nobody_serving_leaves_while_another_is_away(
            states in prop::collection::vec((any_state(), -120..0i64), 1..8), here in any::<u8>()
        ) {
            let members: Members = states
                .iter()
                .enumerate()
                .map(|(i, (state, since))| member(&format!("db-{i}"), *state, *since))
                .collect();
            let pods: Vec<BoundPod> = members
                .iter()
                .enumerate()
                .filter(|(i, (_, m))| here & (1 << i) != 0 && matches!(m.state, Ready | NotReady))
                .map(|(_, (name, _))| pod(name))
                .collect();
            if let Turn::Leaves(chosen) = turn(&members, None, &pods.iter().collect::<Vec<_>>(), now()) {
                let own = members[&chosen.key.name].state;
                let others: BTreeMap<_, _> = members.iter().filter(|(n, _)| **n != chosen.key.name).collect();
                prop_assert!(others.values().all(|m| m.state != Terminating));
                if own == Ready {
                    let away = others
                        .values()
                        .any(|m| matches!(m.state, NotReady | Gone { disrupted: true }));
                    prop_assert!(!away, "{members:?}");
                }
            }
        }
    }
}
