//! `spec.drain.stages`: which pods of a node leave before which others.
//!
//! A pod belongs to the first stage that selects it, and to what comes last when none does. The stage in hand is the first
//! one with a pod on the node, terminating ones included: until they are gone, what the next stage needs may still be in
//! use. A forced drain does not ask this room.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ParseExpressionError, Selector, SelectorExt};
use vnp_crds::{DrainStage, StageWait};

use crate::observed::BoundPod;

/// Labels of namespaces by name.
pub(crate) type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// The label with its own name that the API server puts on every namespace (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A selector that can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "spec.drain.stages[name={stage}].{field} can't be read ({source}): the operators are In and NotIn with values, Exists and \
     DoesNotExist without"
)]
pub(crate) struct UnreadableSelector {
    stage: String,
    field: &'static str,
    source: ParseExpressionError,
}

/// The stages in order, their selectors read.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    stages: Vec<Compiled<'a>>,
    namespaces: &'a Namespaces,
}

#[derive(Debug)]
struct Compiled<'a> {
    stage: &'a DrainStage,
    /// `None` selects every pod.
    pods: Option<Selector>,
    /// `None` selects every namespace.
    namespaces: Option<Selector>,
}

impl<'a> Stages<'a> {
    /// Reads the selectors of all stages.
    ///
    /// # Errors
    /// [`UnreadableSelector`] for the first one that is not a selector.
    pub(crate) fn read(
        stages: &'a [DrainStage],
        namespaces: &'a Namespaces,
    ) -> Result<Self, UnreadableSelector> {
        let compile = |stage: &'a DrainStage| {
            let read = |field, selector: &Option<LabelSelector>| {
                let selector = selector.clone().map(Selector::try_from).transpose();
                selector.map_err(|source| UnreadableSelector {
                    stage: stage.name.clone(),
                    field,
                    source,
                })
            };
            Ok(Compiled {
                stage,
                pods: read("podSelector", &stage.pod_selector)?,
                namespaces: read("namespaceSelector", &stage.namespace_selector)?,
            })
        };
        Ok(Self {
            stages: stages.iter().map(compile).collect::<Result<_, _>>()?,
            namespaces,
        })
    }

    /// The position of the stage that the pod belongs to; the number of stages when it is what comes last.
    fn position(&self, pod: &BoundPod) -> usize {
        let selects = |stage: &Compiled<'_>| {
            let pods = stage.pods.as_ref();
            let namespaces = stage.namespaces.as_ref();
            pods.is_none_or(|s| s.matches(&pod.labels))
                && namespaces.is_none_or(|s| s.matches(&self.labels_of(&pod.key.namespace)))
        };
        self.stages.iter().position(selects).unwrap_or(self.stages.len())
    }

    /// A namespace that the cache does not show (yet) has its name all the same.
    fn labels_of(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
        labels
    }

    /// The order in which the pods of one node leave. `pods`: all that hold it.
    pub(crate) fn turn<'p>(&self, pods: impl IntoIterator<Item = &'p BoundPod>) -> StageInHand<'_> {
        let in_hand = if self.stages.is_empty() {
            None
        } else {
            pods.into_iter().map(|p| self.position(p)).min()
        };
        StageInHand {
            stages: self,
            in_hand,
        }
    }
}

/// The stages of one node, and which of them is in hand.
#[derive(Debug)]
pub(crate) struct StageInHand<'a> {
    stages: &'a Stages<'a>,
    /// `None` when no stage is declared, or no pod is left.
    in_hand: Option<usize>,
}

/// What the stages say about a pod that is neither finished nor being deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place<'a> {
    /// It may leave.
    Leaves,
    /// It is left to finish, by this stage.
    Finishes(&'a DrainStage),
    /// An earlier stage is not done.
    Waits,
}

impl StageInHand<'_> {
    /// The place of a pod. A finished pod has nothing left to wait for, whatever its stage.
    pub(crate) fn place(&self, pod: &BoundPod) -> Place<'_> {
        let Some(in_hand) = self.in_hand.filter(|_| !pod.finished()) else {
            return Place::Leaves;
        };
        let position = self.stages.position(pod);
        if position > in_hand {
            return Place::Waits;
        }
        match self.stages.stages.get(position) {
            Some(c) if c.stage.wait_for == StageWait::Completion => Place::Finishes(c.stage),
            _ => Place::Leaves,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::observed::PodPhase;
    use crate::testing::{now, pod};

    fn stages(value: serde_json::Value) -> Vec<DrainStage> {
        serde_json::from_value(value).unwrap()
    }

    fn labelled(name: &str, namespace: &str, tier: &str) -> BoundPod {
        let mut pod = pod(name);
        pod.key.namespace = namespace.to_owned();
        pod.labels = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
        pod
    }

    fn namespaces() -> Namespaces {
        let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
        BTreeMap::from([("shop".to_owned(), labels("a")), ("bank".to_owned(), labels("b"))])
    }

    #[test]
    fn a_pod_belongs_to_the_first_stage_that_selects_it() {
        let declared = stages(json!([
            { "name": "web", "waitFor": "Eviction", "podSelector": { "matchLabels": { "tier": "web" } } },
            { "name": "team-b", "waitFor": "Eviction", "namespaceSelector": { "matchLabels": { "team": "b" } } },
            { "name": "both", "waitFor": "Eviction", "podSelector": { "matchLabels": { "tier": "db" } },
              "namespaceSelector": { "matchExpressions": [
                { "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["new", "shop"] }] } },
        ]));
        let namespaces = namespaces();
        let stages = Stages::read(&declared, &namespaces).unwrap();
        for (namespace, tier, position) in [
            ("shop", "web", 0),
            ("bank", "web", 0),
            ("bank", "db", 1),
            ("shop", "db", 2),
            ("shop", "job", 3),
            ("new", "db", 2),
            ("other", "db", 3),
        ] {
            assert_eq!(
                stages.position(&labelled("p", namespace, tier)),
                position,
                "{namespace} {tier}"
            );
        }
    }

    #[test]
    fn an_absent_selector_selects_everything_and_so_does_an_empty_one() {
        let declared = stages(json!([
            { "name": "a", "waitFor": "Eviction", "namespaceSelector": {}, "podSelector": { "matchLabels": { "tier": "x" } } },
            { "name": "b", "waitFor": "Eviction", "podSelector": {} },
        ]));
        let namespaces = namespaces();
        let stages = Stages::read(&declared, &namespaces).unwrap();
        assert_eq!(stages.position(&labelled("p", "shop", "x")), 0);
        assert_eq!(stages.position(&labelled("p", "unheard-of", "y")), 1);
    }

    #[test]
    fn a_stage_is_done_when_its_terminating_pods_are_gone_too() {
        let declared = stages(json!([
            { "name": "web", "waitFor": "Eviction", "podSelector": { "matchLabels": { "tier": "web" } } },
        ]));
        let namespaces = namespaces();
        let stages = Stages::read(&declared, &namespaces).unwrap();
        let mut leaving = labelled("web", "shop", "web");
        leaving.deletion = Some(now());
        let db = labelled("db", "shop", "db");
        assert_eq!(stages.turn([&leaving, &db]).place(&db), Place::Waits);
        assert_eq!(stages.turn([&db]).place(&db), Place::Leaves);
        let mut ended = labelled("job", "shop", "job");
        ended.phase = PodPhase::Failed;
        assert_eq!(stages.turn([&leaving, &ended]).place(&ended), Place::Leaves);
    }

    #[test]
    fn a_completion_stage_lets_its_pods_finish_and_only_finished_ones_leave() {
        let declared = stages(json!([
            { "name": "jobs", "waitFor": "Completion", "podSelector": { "matchLabels": { "tier": "job" } } },
        ]));
        let namespaces = namespaces();
        let stages = Stages::read(&declared, &namespaces).unwrap();
        let (job, web) = (labelled("j", "shop", "job"), labelled("w", "shop", "web"));
        let turn = stages.turn([&web, &job]);
        assert_eq!(
            (turn.place(&job), turn.place(&web)),
            (Place::Finishes(&declared[0]), Place::Waits)
        );
        let mut done = job.clone();
        done.phase = PodPhase::Succeeded;
        assert_eq!(stages.turn([&web, &done]).place(&done), Place::Leaves);
    }

    #[test]
    fn what_is_not_a_selector_is_named_and_never_ignored() {
        let declared = stages(
            json!([{ "name": "web", "waitFor": "Eviction", "podSelector": { "matchExpressions": [
            { "key": "tier", "operator": "Resembles", "values": ["web"] }] } }]),
        );
        let error = Stages::read(&declared, &BTreeMap::new()).unwrap_err().to_string();
        assert!(
            error.starts_with("spec.drain.stages[name=web].podSelector can't be read"),
            "{error}"
        );
    }

    prop_compose! {
        fn any_pod()(tier in 0..4usize, space in 0..3usize, finished in prop::bool::weighted(0.2),
                     deleted in prop::bool::weighted(0.2), name in 0..1000u32) -> BoundPod {
            let mut pod = labelled(
                &format!("p-{name}"),
                ["shop", "bank", "elsewhere"][space],
                ["web", "db", "job", "none"][tier],
            );
            pod.phase = if finished { PodPhase::Succeeded } else { PodPhase::Running };
            pod.deletion = deleted.then(now);
            pod
        }
    }

    fn any_stages() -> impl Strategy<Value = Vec<DrainStage>> {
        let selector = |key: &'static str, values: [&'static str; 3]| {
            prop::option::of((0..3usize).prop_map(move |v| json!({ "matchLabels": { (key): values[v] } })))
        };
        let stage = (
            selector("tier", ["web", "db", "job"]),
            selector("team", ["a", "b", "c"]),
            any::<bool>(),
        );
        prop::collection::vec(stage, 0..5).prop_map(|list| {
            let declared = list.into_iter().enumerate().map(|(i, (pods, spaces, evict))| {
                let mut stage = json!({ "name": format!("s{i}"), "waitFor": if evict { "Eviction" } else { "Completion" } });
                if let Some(pods) = pods {
                    stage["podSelector"] = pods;
                }
                if let Some(spaces) = spaces {
                    stage["namespaceSelector"] = spaces;
                }
                stage
            });
            stages(declared.collect::<Vec<_>>().into())
        })
    }

    proptest! {
        #[test]
        fn nothing_of_a_later_stage_leaves_while_an_earlier_one_has_pods(
            declared in any_stages(), pods in prop::collection::vec(any_pod(), 0..12)
        ) {
            let namespaces = namespaces();
            let stages = Stages::read(&declared, &namespaces).unwrap();
            let turn = stages.turn(&pods);
            for pod in pods.iter().filter(|p| !p.finished() && turn.place(p) != Place::Waits) {
                let earlier = pods.iter().any(|p| stages.position(p) < stages.position(pod));
                prop_assert!(!earlier, "{pod:?}");
            }
            // And it never deadlocks: something of the stage in hand leaves, finishes or is leaving already.
            if !pods.is_empty() {
                prop_assert!(pods.iter().any(|p| turn.place(p) != Place::Waits));
            }
        }

        #[test]
        fn the_order_of_the_pods_says_nothing(
            declared in any_stages(), mut pods in prop::collection::vec(any_pod(), 0..12)
        ) {
            let namespaces = namespaces();
            let stages = Stages::read(&declared, &namespaces).unwrap();
            let mut seen: Vec<_> =
                pods.iter().map(|p| (p.clone(), format!("{:?}", stages.turn(&pods).place(p)))).collect();
            pods.reverse();
            seen.reverse();
            for (pod, place) in seen {
                prop_assert_eq!(format!("{:?}", stages.turn(&pods).place(&pod)), place);
            }
        }
    }
}
