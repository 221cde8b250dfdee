//! Whether the webhook does what a pool asks of it, and how to say so.

use jiff::Timestamp;
use vnp_crds::{WEBHOOK_CONFIGURATION, WebhookMode};

use crate::accept::warning;
use crate::finding::{Finding, WebhookFault};
use crate::observed::{ObjectKey, Observed};
use crate::placement::{Unfit, places};

use super::fit::{Misfit, misfit};
use super::probe::{Plain, Probed};
use super::refusal::Refuser;
use super::{later, vendor};

/// Most reasons for which pods were left alone in one message.
const LEFT_ALONE: usize = 5;
/// What of the dry run policies may be told to exempt.
const EXEMPT: &str = "exempt pods with the label app.kubernetes.io/managed-by: virtualnodepool-operator, or the namespace of the \
     probe (virtualnodepool-probe, unless --webhook-probe-namespace names another): it holds dry runs only";

/// How the operator's own webhook is, for all pools that ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WebhookState {
    /// This operator serves none (`--no-webhook`).
    #[default]
    Off,
    /// Not looked at yet.
    Unknown,
    /// No pool has anything for it to do.
    NotAsked,
    /// A name that it needs is taken by somebody else.
    Foreign(Foreign),
    /// Certificates or configuration are not written yet, and why.
    Pending(Option<String>),
    /// Everything is in place.
    InPlace(Probed),
}

/// What is not ours and has the name of something that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The MutatingWebhookConfiguration.
    Configuration,
    /// The MutatingWebhookConfiguration of another installation of this operator, by its namespace.
    Installation(String),
    /// The Secret for the certificates.
    Secret(ObjectKey),
}

/// What there is to say about the webhook of this pool.
pub fn webhook_findings(seen: &Observed, now: Timestamp) -> Vec<Finding> {
    if seen.deleting() {
        return Vec::new();
    }
    let said = match seen.pool.spec.webhook() {
        WebhookMode::Operator => operator(seen),
        WebhookMode::Vendor => vendor::fault(seen, now),
        WebhookMode::None => None,
    };
    let fault = |(fault, message)| Finding::Webhook { fault, message };
    let mut findings: Vec<Finding> = said.map(fault).into_iter().collect();
    if places(&seen.pool) && matches!(seen.webhook, WebhookState::InPlace(_)) {
        findings.extend(nodes(seen).map(fault));
        findings.extend(left_alone(seen));
        findings.extend(later::finding(seen));
    }
    findings
}

fn nodes(seen: &Observed) -> Option<(WebhookFault, String)> {
    Some(match misfit(seen)? {
        Misfit::All(message) => (
            WebhookFault::Misfit,
            format!(
                "no node of this pool takes a pod that has only what the webhook adds, so such a pod stays Pending: {message}"
            ),
        ),
        Misfit::Some(message) => (
            WebhookFault::Note,
            format!("some virtual nodes take no pod that has only what the webhook adds: {message}"),
        ),
    })
}

/// Pods that could not run on a virtual node and were left as they are. Those that say so themselves are no news.
fn left_alone(seen: &Observed) -> Vec<Finding> {
    let news = seen.left_alone.iter().filter(|left| left.why != Unfit::Declines);
    let said = news.take(LEFT_ALONE).map(|left| {
        let (by, pod, why) = (&left.by, &left.pod, &left.why);
        let message = if left.placed {
            format!(
                "{by} placed pods that were changed after that, such as {pod}: {why}; what was added to them stays, so they may never \
                 run"
            )
        } else {
            format!("{by} left pods as they are, such as {pod}: {why}")
        };
        let subject = format!("{by}/{}{}", why.word(), if left.placed { "/placed" } else { "" });
        let source = if left.placed {
            "; find the webhook or policy that changes them (kubectl get \
             mutatingwebhookconfigurations,mutatingadmissionpolicies)"
        } else {
            ""
        };
        let note = format!(
            "{message}{source}; narrow the rule, or give such pods the label virtualnodes.dev/webhook: disabled"
        );
        [
            Finding::Webhook {
                fault: WebhookFault::Note,
                message,
            },
            warning(&subject, note),
        ]
    });
    said.flatten().collect()
}

const NO_ANSWER: &str = "the API server does not ask the webhook, or gets no patch back";
const LOOK: &str = "Look at the Service of the operator, at what stands between API server and port 9443, and at \
     virtualnodepool_webhook_requests_total";

fn operator(seen: &Observed) -> Option<(WebhookFault, String)> {
    let placement = seen.pool.spec.placement.as_ref();
    let explicit = placement.is_some_and(|p| p.webhook.is_some() || !p.rules.is_empty());
    let (fault, message) = match &seen.webhook {
        WebhookState::InPlace(Probed::Mutated) | WebhookState::NotAsked => return None,
        WebhookState::Off if !explicit => return None,
        WebhookState::Off => (
            WebhookFault::Off,
            "this operator was started with --no-webhook and places no pods: start it without, or set \
             spec.placement.webhook to Vendor or None"
                .to_owned(),
        ),
        WebhookState::Unknown => (
            WebhookFault::Unknown,
            "certificates and configuration of the webhook are not looked at yet".to_owned(),
        ),
        WebhookState::Foreign(Foreign::Configuration) => (
            WebhookFault::Foreign,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} exists and is not the operator's, so no pod is placed: delete or rename it"
            ),
        ),
        WebhookState::Foreign(Foreign::Installation(namespace)) => (
            WebhookFault::Foreign,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} calls the installation of this operator in namespace \
                 {namespace}: one of the two has to go. When the other is gone already, delete that object, which is then made \
                 for this one"
            ),
        ),
        WebhookState::Foreign(Foreign::Secret(key)) => (
            WebhookFault::Foreign,
            format!(
                "Secret {}/{} exists and is not the operator's, so the webhook gets no certificate: delete or rename it",
                key.namespace, key.name
            ),
        ),
        WebhookState::Pending(None) => (
            WebhookFault::Pending,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} and its certificates are being written"
            ),
        ),
        WebhookState::Pending(Some(why)) => (
            WebhookFault::Pending,
            format!(
                "MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} and its certificates are not in place: {why}"
            ),
        ),
        WebhookState::InPlace(Probed::NotYet) => (WebhookFault::Unknown, "no pod was tried yet".to_owned()),
        WebhookState::InPlace(Probed::Unmutated) => (
            WebhookFault::Unanswered,
            format!("{NO_ANSWER}: a pod created as a dry run came back as it was sent. {LOOK}"),
        ),
        WebhookState::InPlace(Probed::RefusedUnmutated(refusal)) => (
            WebhookFault::Unanswered,
            format!(
                "{NO_ANSWER}: {} refused a pod created as a dry run, which no webhook of ours had changed. {LOOK}",
                refusal.by
            ),
        ),
        WebhookState::InPlace(Probed::RefusedMutated {
            refusal,
            plain: Plain::Taken,
        }) => (
            WebhookFault::Refused,
            format!(
                "the webhook answers, and {} refuses the pods that it changes; the same pod is taken as it was sent: {}. Let it \
                 allow what is added: the node selector type: virtual-kubelet, the toleration of virtual-kubelet.io/provider \
                 and annotations of virtualnodes.dev",
                refusal.by, refusal.message
            ),
        ),
        WebhookState::InPlace(Probed::RefusedMutated { refusal, .. }) => (
            WebhookFault::Note,
            format!(
                "{} refused the pod of the last try after that: {}; {EXEMPT}",
                refusal.by, refusal.message
            ),
        ),
        WebhookState::InPlace(Probed::Refused(refusal)) if refusal.by == Refuser::Rights => (
            WebhookFault::Unanswered,
            format!(
                "whether the webhook answers is not known, a pod could not be created as a dry run: {}",
                refusal.message
            ),
        ),
        WebhookState::InPlace(Probed::Refused(refusal)) => (
            WebhookFault::Untold,
            format!(
                "whether the webhook answers is not known, {} refused a pod created as a dry run: {}; {EXEMPT}",
                refusal.by, refusal.message
            ),
        ),
        WebhookState::InPlace(Probed::Unanswered(why)) => (
            WebhookFault::Unanswered,
            format!(
                "whether the webhook answers is not known, a pod could not be created as a dry run: {why}"
            ),
        ),
    };
    Some((fault, message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::observed::LeftAlonePod;
    use crate::placement::Need;
    use crate::testing::{now, observed, pool};
    use crate::webhook::refusal::Refusal;
    use vendor::VendorSeen;

    fn told(webhook: &str, state: WebhookState) -> Option<(WebhookFault, String)> {
        let mut seen = observed(pool(json!({ "placement": { "webhook": webhook } })), 1);
        seen.webhook = state;
        seen.vendor_webhook = VendorSeen::Absent;
        webhook_findings(&seen, now())
            .into_iter()
            .find_map(|finding| match finding {
                Finding::Webhook { fault, message } => Some((fault, message)),
                _ => None,
            })
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let secret = ObjectKey {
            namespace: "ns".into(),
            name: "tls".into(),
        };
        for (foreign, name) in [
            (
                Foreign::Configuration,
                "MutatingWebhookConfiguration virtualnodepool-affinity",
            ),
            (
                Foreign::Installation("elsewhere".into()),
                "MutatingWebhookConfiguration virtualnodepool-affinity calls the installation of this operator in namespace elsewhere",
            ),
            (Foreign::Secret(secret), "Secret ns/tls"),
        ] {
            let (fault, message) = told("Operator", WebhookState::Foreign(foreign)).unwrap();
            assert_eq!(fault, WebhookFault::Foreign);
            assert!(message.starts_with(name), "{message}");
        }
    }

    #[test]
    fn a_policy_that_refuses_the_probe_is_told_from_a_webhook_that_does_not_answer() {
        let policy = || {
            Refusal::read(
                422,
                "ValidatingAdmissionPolicy 'owners' with binding 'b' denied request: no owner",
            )
        };
        let webhook = || Refusal::read(400, "admission webhook \"v.example.com\" denied the request: no");
        let rights = || Refusal::read(403, "you cannot create pods");
        let changed = |plain| Probed::RefusedMutated {
            refusal: policy(),
            plain,
        };
        for (probed, fault, words) in [
            (
                changed(Plain::Refused),
                WebhookFault::Note,
                [
                    "ValidatingAdmissionPolicy owners refused",
                    "exempt pods with the label",
                ],
            ),
            (
                changed(Plain::Unknown),
                WebhookFault::Note,
                ["ValidatingAdmissionPolicy owners refused", "no owner"],
            ),
            (
                changed(Plain::Taken),
                WebhookFault::Refused,
                [
                    "ValidatingAdmissionPolicy owners refuses the pods",
                    "Let it allow",
                ],
            ),
            (
                Probed::RefusedUnmutated(policy()),
                WebhookFault::Unanswered,
                ["gets no patch back", "ValidatingAdmissionPolicy owners"],
            ),
            (
                Probed::Refused(webhook()),
                WebhookFault::Untold,
                ["is not known", "admission webhook v.example.com"],
            ),
            (
                Probed::Refused(rights()),
                WebhookFault::Unanswered,
                ["is not known", "cannot create"],
            ),
            (
                Probed::Unmutated,
                WebhookFault::Unanswered,
                ["gets no patch back", "came back as it was sent"],
            ),
        ] {
            let (said, message) = told("Operator", WebhookState::InPlace(probed.clone())).unwrap();
            assert_eq!(said, fault, "{probed:?}");
            for word in words {
                assert!(message.contains(word), "{message}");
            }
        }
        assert_eq!(told("Operator", WebhookState::InPlace(Probed::Mutated)), None);
    }

    #[test]
    fn pods_that_were_left_alone_are_named_with_rule_and_reason() {
        let mut seen = observed(pool(json!({})), 1);
        seen.webhook = WebhookState::InPlace(Probed::Mutated);
        let left = |why| LeftAlonePod {
            by: "burst/all".into(),
            why,
            placed: false,
            pod: "shop/agent-x".into(),
        };
        seen.left_alone = vec![
            left(Unfit::Declines),
            left(Unfit::NodeChoice),
            left(Unfit::Need(Need::HostNetwork)),
            LeftAlonePod {
                placed: true,
                ..left(Unfit::Need(Need::HostPid))
            },
        ];
        let findings = webhook_findings(&seen, now());
        let notes: Vec<&str> = findings
            .iter()
            .filter_map(|finding| match finding {
                Finding::Webhook {
                    fault: WebhookFault::Note,
                    message,
                } => Some(message.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(
            notes,
            [
                "burst/all left pods as they are, such as shop/agent-x: its own node selector or affinity leaves no virtual node that is there",
                "burst/all left pods as they are, such as shop/agent-x: virtual nodes can't run it: spec.hostNetwork is true",
                "burst/all placed pods that were changed after that, such as shop/agent-x: virtual nodes can't run it: spec.hostPID is \
                 true; what was added to them stays, so they may never run",
            ]
        );
        let events = findings
            .iter()
            .filter(|finding| matches!(finding, Finding::Event(_)));
        assert_eq!(events.count(), 3);
    }

    #[test]
    fn nodes_that_take_no_placed_pod_make_it_not_ready() {
        let mut seen = observed(pool(json!({})), 2);
        seen.webhook = WebhookState::InPlace(Probed::Mutated);
        assert_eq!(webhook_findings(&seen, now()), []);
        let taint = |seen: &mut Observed, ordinal| {
            let node = Arc::make_mut(seen.nodes.get_mut(&ordinal).unwrap());
            node.taints =
                serde_json::from_value(json!([{ "key": "alibabacloud.com/eci", "effect": "NoSchedule" }]))
                    .unwrap();
        };
        for (ordinal, fault) in [(0, WebhookFault::Note), (1, WebhookFault::Misfit)] {
            taint(&mut seen, ordinal);
            let findings = webhook_findings(&seen, now());
            let [Finding::Webhook { fault: said, message }] = &findings[..] else {
                panic!("{findings:?}")
            };
            assert_eq!(*said, fault);
            assert!(
                message.contains("taint alibabacloud.com/eci=:NoSchedule"),
                "{message}"
            );
        }
        // Another webhook adds what it likes.
        seen.webhook = WebhookState::Off;
        assert_eq!(webhook_findings(&seen, now()), []);
    }

    #[test]
    fn who_asks_for_none_is_told_of_none() {
        for state in [
            WebhookState::Off,
            WebhookState::Pending(None),
            WebhookState::Foreign(Foreign::Configuration),
            WebhookState::InPlace(Probed::Unmutated),
        ] {
            assert_eq!(told("None", state.clone()), None);
            assert_eq!(told("Vendor", state).unwrap().0, WebhookFault::Unanswered);
        }
    }
}
