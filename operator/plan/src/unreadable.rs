//! What can't be seen: objects that do not fit their type, as far as they concern a pool, and watches that fail. What each holds is decided where it is looked at;
//! this names them.

use std::collections::BTreeSet;

use vnp_crds::{EventReason, Reason};

use crate::finding::{EventNote, Finding, ProfileState};
use crate::observed::{FailingWatch, Flaw, Observed};

/// So many are told of; the metric counts all.
const NAMED: usize = 5;

/// Names what can't be read.
pub(crate) fn findings(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for flaw in seen.flaws.iter().filter(|f| concerns(seen, f)).take(NAMED) {
        let Flaw { kind, key, error } = flaw;
        findings.push(Finding::Event(EventNote {
            reason: EventReason::ConfigWarning,
            subject: format!("{kind} {key}"),
            note: format!(
                "{kind} {key} can't be read by this version of the operator ({error}), so it is taken for the worst that it \
                 may be; correct the value, or delete the object"
            ),
        }));
    }
    for FailingWatch { kind, error } in &seen.failing {
        findings.push(Finding::Stalled {
            reason: Reason::WatchFailing,
            message: format!(
                "the watch of {kind} objects fails ({error}), so what is seen of them may be out of date; grant what config/rbac \
                 grants, and look at the API server"
            ),
        });
    }
    let other = seen.flaws.iter().find(|f| f.kind == vnp_crds::KIND);
    if let Some(flaw) = other.filter(|_| seen.pool.spec.profile().sync.is_enabled()) {
        let message = format!(
            "VirtualNodePool {} can't be read ({}), and what it asks of the profile is not known: keys and feature gates stay \
             as they are until that pool is corrected",
            flaw.key, flaw.error
        );
        findings.push(Finding::Profile {
            state: ProfileState::Pending,
            message,
        });
    }
    findings
}

fn concerns(seen: &Observed, flaw: &Flaw) -> bool {
    let namespaces = || -> BTreeSet<&str> {
        let pods = seen.bound.keys().flat_map(|o| seen.pods_on(*o));
        pods.map(|p| p.key.namespace.as_str()).collect()
    };
    let (namespace, name) = flaw.key.split_once('/').unwrap_or(("", &flaw.key));
    match flaw.kind {
        "Pod" => {
            let provider = seen.provider_pods.values().any(|p| p.key.to_string() == flaw.key);
            let bound = || seen.bound.values().flat_map(|pods| pods.iter());
            provider || bound().any(|p| p.key.to_string() == flaw.key)
        }
        "Node" | "Lease" => seen.nodes.values().any(|n| n.name == name),
        "PodDisruptionBudget" => namespaces().contains(namespace),
        "Namespace" => namespaces().contains(name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{bind, observed, pod, pool};

    #[test]
    fn what_cannot_be_seen_is_named_when_it_concerns_the_pool() {
        let mut seen = observed(pool(json!({ "replicas": 2 })), 2);
        bind(&mut seen, 1, vec![pod("a")]);
        let flaw = |kind: &'static str, key: &str| Flaw {
            kind,
            key: key.to_owned(),
            error: "bad".to_owned(),
        };
        let named = |seen: &Observed| {
            let subjects = findings(seen).into_iter().map(|f| match f {
                Finding::Event(note) => note.subject,
                Finding::Stalled { reason, .. } => reason.to_string(),
                Finding::Profile { message, .. } => message.split(' ').take(2).collect::<Vec<_>>().join(" "),
                other => panic!("{other:?}"),
            });
            subjects.collect::<Vec<_>>()
        };
        seen.flaws = vec![
            flaw("Pod", "shop/a"),
            flaw("Pod", "shop/elsewhere"),
            flaw("Node", "virtual-node-eci-0"),
            flaw("Lease", "kube-node-lease/virtual-node-eci-1"),
            flaw("PodDisruptionBudget", "shop/web"),
            flaw("PodDisruptionBudget", "bank/web"),
        ];
        let concerned = [
            "Pod shop/a",
            "Node virtual-node-eci-0",
            "Lease kube-node-lease/virtual-node-eci-1",
        ];
        assert_eq!(
            named(&seen),
            [&concerned[..], &["PodDisruptionBudget shop/web"]].concat()
        );
        seen.flaws = vec![flaw("VirtualNodePool", "other")];
        assert_eq!(named(&seen), ["VirtualNodePool other", "VirtualNodePool other"]);
        seen.flaws.clear();
        seen.failing = vec![FailingWatch {
            kind: "Pod",
            error: "pods is forbidden".to_owned(),
        }];
        assert_eq!(named(&seen), ["WatchFailing"]);
    }
}
