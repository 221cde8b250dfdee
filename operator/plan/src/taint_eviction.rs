//! Pods that kube-controller-manager deletes because of a NoExecute taint of their Node, past all budgets. It sets such a
//! taint on a Node that is not Ready, or from which nobody hears, and each pod goes when its tolerationSeconds are over:
//! 300 for a pod that says nothing itself. Source: Kubernetes 1.37 `pkg/controller/tainteviction` and
//! `pkg/controller/nodelifecycle`; seen on 1.37.2, the taint comes 23 s after the one of effect NoSchedule.

use jiff::{SignedDuration, Timestamp};

use crate::observed::{BoundPod, NodeView, Patience, Silence};

/// Says that pods of a node will be deleted, and from when on; empty when none will. No number that moves stands in it: it
/// is part of conditions, and each of its forms is a write.
pub(crate) fn running_clock<'a>(node: &NodeView, pods: impl Iterator<Item = &'a BoundPod>) -> String {
    let staying = pods.filter(|p| p.deletion.is_none());
    let due: Vec<(Timestamp, Silence)> = staying.filter_map(|p| first_due(node, p)).collect();
    let Some((first, why)) = due.iter().min_by_key(|(at, _)| *at) else {
        return String::new();
    };
    format!(
        "; kube-controller-manager deletes its pods past all budgets from {first} on (taint {}:NoExecute, tolerationSeconds of the \
         pods), unless the Node is Ready before",
        why.taint()
    )
}

/// When the pod is deleted, and for which taint.
fn first_due(node: &NodeView, pod: &BoundPod) -> Option<(Timestamp, Silence)> {
    let due = node.no_execute.iter().filter_map(|(why, since)| {
        let patience = match why {
            Silence::Unreachable => pod.patience.unreachable,
            Silence::NotReady => pod.patience.not_ready,
        };
        match patience {
            Patience::Forever => None,
            Patience::Seconds(seconds) => {
                let wait = SignedDuration::from_secs(i64::from(seconds));
                Some((since.checked_add(wait).unwrap_or(Timestamp::MAX), *why))
            }
        }
    });
    due.min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vnp_crds::BlockerReason;

    use super::*;
    use crate::finding::{Finding, ProviderState};
    use crate::observed::{Patiences, PodPhase};
    use crate::pass::plan;
    use crate::testing::{after, bind, node, now, observed, pod, pool, set_our_cordon, with_node};

    fn patient(name: &str, seconds: Option<u32>) -> BoundPod {
        let patience = seconds.map_or(Patience::Forever, Patience::Seconds);
        BoundPod {
            patience: Patiences {
                unreachable: patience,
                not_ready: patience,
            },
            ..pod(name)
        }
    }

    fn unreachable(node: &mut NodeView) {
        node.ready = false;
        node.no_execute = vec![(Silence::Unreachable, after(-100))];
    }

    #[test]
    fn the_first_pod_that_goes_tells_the_time() {
        let mut node = node(0);
        unreachable(&mut node);
        let mut leaving = patient("d", Some(1));
        leaving.deletion = Some(after(5));
        let pods = [
            patient("a", Some(300)),
            patient("b", Some(600)),
            patient("c", None),
            leaving,
        ];
        let said = running_clock(&node, pods.iter());
        let at = after(200);
        assert!(
            said.contains(&format!("deletes its pods past all budgets from {at} on"))
                && said.contains("node.kubernetes.io/unreachable:NoExecute"),
            "{said}"
        );
        // Pods that come and go change nothing in it as long as the time stays.
        assert_eq!(running_clock(&node, pods[..1].iter()), said);
        assert_eq!(running_clock(&node, pods[2..].iter()), "");
        node.no_execute.clear();
        assert_eq!(running_clock(&node, pods.iter()), "");
    }

    /// Each of two taints has its own clock; the first one to end counts.
    #[test]
    fn of_two_taints_the_sooner_end_counts() {
        let mut node = node(0);
        node.no_execute = vec![
            (Silence::NotReady, after(-10)),
            (Silence::Unreachable, after(-100)),
        ];
        let pod = BoundPod {
            patience: Patiences {
                unreachable: Patience::Seconds(300),
                not_ready: Patience::Seconds(0),
            },
            ..pod("a")
        };
        assert_eq!(first_due(&node, &pod), Some((after(-10), Silence::NotReady)));
    }

    #[test]
    fn the_clock_is_told_of_wanted_nodes_and_in_the_blocker_of_those_that_drain() {
        let at = after(200).to_string();
        let sick = |replicas: i32| {
            let mut seen = observed(pool(json!({ "replicas": replicas })), 3);
            let unknown = BoundPod {
                phase: PodPhase::Unknown,
                ready: false,
                ..patient("b", Some(300))
            };
            bind(&mut seen, 2, vec![patient("a", Some(300)), unknown]);
            with_node(&mut seen, 2, |node| {
                set_our_cordon(node);
                unreachable(node);
            });
            seen
        };
        let wanted = plan(&sick(3), now());
        let told = wanted.findings.iter().find_map(|f| match f {
            Finding::Provider {
                state: ProviderState::Unhealthy,
                message,
            } => Some(message.clone()),
            _ => None,
        });
        let message = told.unwrap();
        assert!(
            message.contains("deletes its pods") && message.contains(&at),
            "{message}"
        );

        let draining = plan(&sick(2), now());
        let told = draining.findings.iter().find_map(|f| match f {
            Finding::Blocker(b) if b.reason == BlockerReason::ProviderUnavailable => Some(b.message.clone()),
            _ => None,
        });
        let message = told.unwrap();
        assert!(
            message.contains("deletes its pods") && message.contains(&at),
            "{message}"
        );
    }
}
