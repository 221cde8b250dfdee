//! What an answer of the Eviction API means. The same HTTP code means different things here (409 and 429 have two
//! meanings each, 403 has three), and a drainer that takes one for the other stops too early or asks too often.
//! Source of codes, texts and causes: Kubernetes 1.37 `pkg/registry/core/pod/storage/eviction.go`, and
//! `pkg/admission/plugin/namespace/lifecycle` and `pkg/server/filters/priority-and-fairness.go` of its `apiserver`.

use jiff::SignedDuration;
use kube::core::Status;
use vnp_crds::BlockerReason;

use super::budgets::{no_disruptions, unsynced};
use super::order::EvictionCandidate;
use crate::observed::ObjectKey;
use crate::refuser::Refuser;

/// Cause of every refusal that comes from a PodDisruptionBudget.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// What stands before the reason when the disruption controller can't work a budget out.
const SYNC_FAILED: &str = "because it failed sync: ";
/// Cause of a refusal to create anything in a namespace that is being deleted.
const TERMINATING_CAUSE: &str = "NamespaceTerminating";
/// Longest piece of a foreign text that is passed on, in characters: `status.drain.blockers` stays readable.
const LONGEST_TEXT: usize = 240;

/// What an eviction got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod is being deleted now; it is not gone yet.
    Accepted,
    /// There is no such pod any more.
    Gone,
    /// A pod of that name exists, but it is another one.
    OtherUid,
    /// Somebody else wrote the budget's status at the same time, 20 times in a row. Nothing was evicted.
    BudgetRaceLost,
    /// The pod changed while the server looked at it. Nothing was evicted.
    PodRaceLost,
    /// The budget allows no disruption now.
    Budget,
    /// The disruption controller can't work the budget out, so that it allows nothing.
    BudgetUnsynced {
        /// Why it can't.
        text: String,
    },
    /// The disruption controller has not accounted for the budget since it changed; it never does where it could not do
    /// so from the first.
    BudgetStale {
        /// When the server wants to be asked again.
        retry_after: SignedDuration,
    },
    /// More than 2,000 evictions under this budget are not confirmed by the disruption controller yet.
    BudgetMapFull,
    /// Several budgets select the pod, and the Eviction API then evicts it under none.
    SeveralBudgets,
    /// The API server protects itself. It says nothing about this pod.
    FlowControl {
        /// When the server wants to be asked again, if it said so.
        retry_after: Option<SignedDuration>,
    },
    /// The pod's namespace is being deleted, and its pods with it.
    NamespaceTerminating,
    /// Permissions, an admission policy or a webhook refuse.
    Forbidden {
        /// Permissions refuse: that holds for every pod of the namespace.
        rbac: bool,
        /// The webhook or policy that refuses.
        by: Option<Refuser>,
        /// The server's words without what differs from pod to pod.
        text: String,
    },
    /// It may have been evicted or not: a timeout, a cut connection, a server error.
    Unknown {
        /// What happened.
        text: String,
    },
}

/// An answer as the HTTP client hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status code.
    pub code: u16,
    /// The `Status` object of the body; for a body that is none (flow control answers with plain text) one that holds
    /// the body as its message.
    pub status: &'a Status,
    /// Header `Retry-After` in seconds.
    pub retry_after: Option<u32>,
}

impl Answer {
    /// Tells the answers apart. `pod` is the pod that was to be evicted.
    pub fn of(reply: Reply<'_>, pod: &ObjectKey) -> Self {
        let Reply { code, status, .. } = reply;
        match code {
            // Never seen with a failure inside, but a failure must not count as evicted if it ever comes.
            200..=299 if status.is_failure() && status.code >= 400 => Self::of(
                Reply {
                    code: status.code,
                    ..reply
                },
                pod,
            ),
            200..=299 => Self::Accepted,
            // Whoever refuses at admission chooses the code.
            _ if Refuser::of(&status.message).is_some() => refused(status, pod),
            404 => Self::Gone,
            409 => conflict(status),
            429 => too_many(reply, pod),
            500 if status.message.contains("more than one PodDisruptionBudget") => Self::SeveralBudgets,
            504 if status.message.contains("couldn't update PodDisruptionBudget") => Self::BudgetRaceLost,
            400..=499 => forbidden(status, pod),
            _ => Self::Unknown {
                text: steady(&status.message, pod),
            },
        }
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::OtherUid => "other_uid",
            Self::BudgetRaceLost => "budget_race_lost",
            Self::PodRaceLost => "pod_race_lost",
            Self::Budget => "budget",
            Self::BudgetUnsynced { .. } => "budget_unsynced",
            Self::BudgetStale { .. } => "budget_stale",
            Self::BudgetMapFull => "budget_map_full",
            Self::SeveralBudgets => "several_budgets",
            Self::FlowControl { .. } => "flow_control",
            Self::NamespaceTerminating => "namespace_terminating",
            Self::Forbidden { .. } => "forbidden",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Nothing more is to be asked for this pod.
    pub fn settled(&self) -> bool {
        matches!(self, Self::Accepted | Self::Gone | Self::OtherUid)
    }

    /// What people are told: reason, object that blocks, message. `None` when it passes by itself within seconds.
    /// The message is the same for every pod that the same thing blocks, and the same each time it is asked.
    pub fn blocker(&self, of: &EvictionCandidate) -> Option<(BlockerReason, String, String)> {
        let budget = of.budgets.first();
        let under = |message: &dyn Fn(&ObjectKey) -> String| {
            let (object, message) = match budget {
                Some(budget) => (budget.to_string(), message(budget)),
                None => (
                    of.pod.to_string(),
                    "a PodDisruptionBudget that was not seen yet allows no disruption of it now".to_owned(),
                ),
            };
            Some((BlockerReason::BlockedByBudget, object, message))
        };
        match self {
            Self::Accepted | Self::Gone | Self::OtherUid => None,
            Self::BudgetRaceLost | Self::PodRaceLost | Self::Unknown { .. } => None,
            Self::Budget => under(&no_disruptions),
            Self::BudgetUnsynced { text } => under(&|budget| unsynced(budget, text)),
            Self::BudgetStale { .. } => under(&|budget| {
                format!(
                    "kube-controller-manager has not accounted for PodDisruptionBudget {budget} yet; if it stays so, see \
                     its condition DisruptionAllowed and whether kube-controller-manager runs"
                )
            }),
            Self::BudgetMapFull => under(&|budget| {
                format!(
                    "PodDisruptionBudget {budget} has more evictions than kube-controller-manager has confirmed; it \
                     goes on when they are"
                )
            }),
            Self::SeveralBudgets => {
                let object = match of.budgets.as_slice() {
                    [] | [_] => of.pod.to_string(),
                    many => many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                let message = "several PodDisruptionBudgets select the same pods, and the API server then evicts none \
                               of them; narrow their selectors so that one selects each pod";
                Some((BlockerReason::MultipleBudgets, object, message.to_owned()))
            }
            Self::FlowControl { .. } => Some((
                BlockerReason::Throttled,
                "kube-apiserver".to_owned(),
                "the API server is overloaded and asks for fewer requests; evictions go on at a lower rate".to_owned(),
            )),
            Self::NamespaceTerminating => Some((
                BlockerReason::NamespaceTerminating,
                of.pod.namespace.clone(),
                "the namespace is being deleted, its pods go with it; if they stay, see the namespace's conditions"
                    .to_owned(),
            )),
            Self::Forbidden { rbac: true, text, .. } => Some((
                BlockerReason::EvictionForbidden,
                of.pod.namespace.clone(),
                match of.force {
                    None => format!("the operator needs verb create on pods/eviction (config/rbac grants it): {text}"),
                    Some(_) => format!(
                        "spec.drain.onTimeout: ForceDelete needs verb delete on pods for the operator (ClusterRole \
                         virtualnodepool-operator-force-delete in config/rbac grants it): {text}"
                    ),
                },
            )),
            Self::Forbidden {
                rbac: false,
                by,
                text,
            } => Some((
                BlockerReason::EvictionForbidden,
                by.as_ref().map_or_else(|| of.pod.to_string(), Refuser::object),
                at_admission(by.as_ref(), text, of.force.is_some()),
            )),
        }
    }
}

/// What a webhook or policy refused, in words that are the same for every pod of which it says the same.
fn at_admission(by: Option<&Refuser>, text: &str, forced: bool) -> String {
    let what = if forced { "deletion" } else { "eviction" };
    match by {
        None => format!("the API server refuses the {what}: {text}"),
        Some(webhook @ Refuser::SilentWebhook(_)) => format!(
            "{webhook} could not be called, and its failurePolicy is Fail, so the API server refuses the {what}; repair it, or set \
             failurePolicy: Ignore: {text}"
        ),
        Some(refuser) => format!(
            "{refuser} refuses the {what}; meet what it asks for, or have it let the operator's ServiceAccount through: {text}"
        ),
    }
}

/// 409: the UID precondition, or one of two lost races.
fn conflict(status: &Status) -> Answer {
    let details = status.details.as_ref();
    if details.is_some_and(|d| d.kind.starts_with("poddisruptionbudget")) {
        Answer::BudgetRaceLost
    } else if status.message.contains("recondition") && status.message.contains("UID") {
        Answer::OtherUid
    } else {
        Answer::PodRaceLost
    }
}

/// 429: a budget, or the API server's flow control.
fn too_many(reply: Reply<'_>, pod: &ObjectKey) -> Answer {
    let Reply {
        status, retry_after, ..
    } = reply;
    let in_body = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    let wait = Some(in_body).filter(|s| *s > 0).or(retry_after);
    let wait = wait
        .filter(|s| *s > 0)
        .map(|s| SignedDuration::from_secs(i64::from(s)));
    match (has_cause(status, BUDGET_CAUSE), wait) {
        (true, Some(retry_after)) => Answer::BudgetStale { retry_after },
        (true, None) => sync_failure(status).map_or(Answer::Budget, |why| Answer::BudgetUnsynced {
            text: steady(why, pod),
        }),
        (false, retry_after) => Answer::FlowControl { retry_after },
    }
}

/// 403 and its neighbours.
fn forbidden(status: &Status, pod: &ObjectKey) -> Answer {
    if has_cause(status, TERMINATING_CAUSE) {
        return Answer::NamespaceTerminating;
    }
    if has_cause(status, BUDGET_CAUSE) {
        // Either the map is full, or the count of allowed disruptions is negative.
        return if status.message.contains("DisruptedPods map too big") {
            Answer::BudgetMapFull
        } else {
            Answer::Budget
        };
    }
    refused(status, pod)
}

fn refused(status: &Status, pod: &ObjectKey) -> Answer {
    let by = Refuser::of(&status.message);
    let rbac = ["cannot create resource", "cannot delete resource"]
        .iter()
        .any(|words| status.message.contains(words));
    Answer::Forbidden {
        rbac: rbac && by.is_none(),
        by,
        text: steady(&status.message, pod),
    }
}

/// Why the disruption controller can't work the budget out.
fn sync_failure(status: &Status) -> Option<&str> {
    let causes = status.details.as_ref().map_or(&[][..], |d| &d.causes);
    let told = causes.iter().filter(|c| c.reason == BUDGET_CAUSE);
    told.filter_map(|c| c.message.split_once(SYNC_FAILED))
        .map(|(_, why)| why)
        .next()
}

fn has_cause(status: &Status, cause: &str) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|d| d.causes.iter().any(|c| c.reason == cause))
}

/// The text without the pod's name and without numbers that stand alone: those change from answer to answer, and the
/// status would be written each time.
fn steady(text: &str, pod: &ObjectKey) -> String {
    let text = text
        .split_once(" is forbidden: ")
        .map_or(text, |(_, words)| words);
    let text = if pod.name.is_empty() {
        text.to_owned()
    } else {
        text.replace(&pod.name, "<pod>")
    };
    let words: Vec<&str> = text
        .split_whitespace()
        .map(|word| {
            let digits = word
                .trim_end_matches([',', '.', ';', ':', 's', ')'])
                .trim_start_matches('(');
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                "N"
            } else {
                word
            }
        })
        .collect();
    words.join(" ").chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> ObjectKey {
        ObjectKey {
            namespace: "shop".into(),
            name: "web-5d9c-x7x2p".into(),
        }
    }

    fn candidate(budgets: &[&str]) -> EvictionCandidate {
        let budgets = budgets
            .iter()
            .map(|n| ObjectKey {
                namespace: "shop".into(),
                name: (*n).into(),
            })
            .collect();
        EvictionCandidate {
            pod: pod(),
            uid: "u-1".into(),
            budgets,
            exempt: false,
            turn_of: None,
            force: None,
        }
    }

    fn answer(body: Value) -> Answer {
        let status: Status = serde_json::from_value(body).unwrap();
        Answer::of(
            Reply {
                code: status.code,
                status: &status,
                retry_after: None,
            },
            &pod(),
        )
    }

    fn failure(code: u16, reason: &str, message: &str, details: Value) -> Answer {
        answer(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message, "details": details,
        }))
    }

    fn by_budget(text: &str, retry_after: u32) -> Answer {
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": text}]});
        if retry_after > 0 {
            details["retryAfterSeconds"] = retry_after.into();
        }
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        failure(429, "TooManyRequests", message, details)
    }

    #[test]
    fn accepted_gone_and_another_pod_are_settled() {
        let accepted = answer(
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        );
        assert_eq!(accepted, Answer::Accepted);
        let gone = failure(
            404,
            "NotFound",
            "pods \"web\" not found",
            json!({"name": "web", "kind": "pods"}),
        );
        assert_eq!(gone, Answer::Gone);
        let of_update = failure(
            409,
            "Conflict",
            "Operation cannot be fulfilled on Pod \"web\": the UID in the precondition (a) does not match the UID in record (b). The object might have been deleted and then recreated",
            json!({"name": "web", "kind": "Pod"}),
        );
        assert_eq!(of_update, Answer::OtherUid);
        let of_delete = failure(
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"web\": Precondition failed: UID in precondition: a, UID in object meta: b",
            json!({"name": "web", "kind": "pods"}),
        );
        assert_eq!(of_delete, Answer::OtherUid);
        for settled in [accepted, gone, of_update, of_delete] {
            assert!(settled.settled());
            assert_eq!(settled.blocker(&candidate(&["web"])), None);
        }
    }

    #[test]
    fn a_conflict_on_the_budget_is_not_another_pod() {
        let lost = failure(
            409,
            "Conflict",
            "Operation cannot be fulfilled on poddisruptionbudgets.policy \"web\": the object has been modified; please apply your changes to the latest version and try again",
            json!({"name": "web", "group": "policy", "kind": "poddisruptionbudgets"}),
        );
        assert_eq!(lost, Answer::BudgetRaceLost);
        assert!(!lost.settled());
        let timed_out = failure(
            504,
            "Timeout",
            "Timeout: couldn't update PodDisruptionBudget \"web\" due to conflicts",
            json!({"retryAfterSeconds": 10}),
        );
        assert_eq!(timed_out, Answer::BudgetRaceLost);
        let of_pod = failure(
            409,
            "Conflict",
            "Operation cannot be fulfilled on Pod \"web\": the ResourceVersion in the precondition (7) does not match the ResourceVersion in record (9). The object might have been modified",
            json!({"name": "web", "kind": "Pod"}),
        );
        assert_eq!(of_pod, Answer::PodRaceLost);
        assert_eq!(of_pod.blocker(&candidate(&["web"])), None);
    }

    #[test]
    fn a_spent_budget_gives_the_same_words_whatever_its_counts() {
        let at_8 = by_budget(
            "The disruption budget web needs 9 healthy pods and has 8 currently",
            0,
        );
        let at_7 = by_budget(
            "The disruption budget web needs 9 healthy pods and has 7 currently",
            0,
        );
        assert_eq!(at_8, Answer::Budget);
        let told = at_8.blocker(&candidate(&["web"])).unwrap();
        assert_eq!(Some(&told), at_7.blocker(&candidate(&["web"])).as_ref());
        assert_eq!(
            (told.0, told.1.as_str()),
            (BlockerReason::BlockedByBudget, "shop/web")
        );
        assert!(told.2.contains("shop/web") && !told.2.contains('8'), "{}", told.2);
        let negative = failure(
            403,
            "Forbidden",
            "poddisruptionbudget.policy \"web\" is forbidden: pdb disruptions allowed is negative",
            json!({"causes": [{"reason": "DisruptionBudget", "message": "negative"}]}),
        );
        assert_eq!(negative, Answer::Budget);
    }

    #[test]
    fn a_budget_that_can_t_be_worked_out_says_why() {
        let unsynced = by_budget(
            "The disruption budget web does not allow evicting pods currently because it failed sync: jobs.batch does not \
             implement the scale subresource",
            0,
        );
        assert_eq!(
            unsynced,
            Answer::BudgetUnsynced {
                text: "jobs.batch does not implement the scale subresource".into()
            }
        );
        let (reason, object, message) = unsynced.blocker(&candidate(&["web"])).unwrap();
        assert_eq!(
            (reason, object.as_str()),
            (BlockerReason::BlockedByBudget, "shop/web")
        );
        assert!(
            message.contains("jobs.batch does not implement the scale subresource"),
            "{message}"
        );
    }

    #[test]
    fn a_stale_budget_says_when_to_ask_again() {
        let stale = by_budget(
            "The disruption budget web is still being processed by the server.",
            10,
        );
        assert_eq!(
            stale,
            Answer::BudgetStale {
                retry_after: SignedDuration::from_secs(10)
            }
        );
        let (reason, object, _) = stale.blocker(&candidate(&["web"])).unwrap();
        assert_eq!(
            (reason, object.as_str()),
            (BlockerReason::BlockedByBudget, "shop/web")
        );
    }

    #[test]
    fn a_full_map_is_no_lack_of_permission() {
        let full = failure(
            403,
            "Forbidden",
            "poddisruptionbudget.policy \"web\" is forbidden: DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            json!({"name": "web", "group": "policy", "kind": "poddisruptionbudget", "causes": [{"reason": "DisruptionBudget",
                "message": "The disruption budget web does not allow evicting pods currently: too many pending evictions not confirmed by PDB controller"}]}),
        );
        assert_eq!(full, Answer::BudgetMapFull);
    }

    #[test]
    fn several_budgets_are_named() {
        let several = failure(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            json!({}),
        );
        assert_eq!(several, Answer::SeveralBudgets);
        let (reason, object, _) = several.blocker(&candidate(&["web", "all"])).unwrap();
        assert_eq!(
            (reason, object.as_str()),
            (BlockerReason::MultipleBudgets, "shop/web, shop/all")
        );
        assert_eq!(several.blocker(&candidate(&[])).unwrap().1, "shop/web-5d9c-x7x2p");
    }

    #[test]
    fn flow_control_speaks_in_a_header_and_plain_text() {
        let text = Status::failure(
            "Too many requests, please try again later.",
            "Failed to parse error data",
        );
        let reply = Reply {
            code: 429,
            status: &text,
            retry_after: Some(2),
        };
        let throttled = Answer::of(reply, &pod());
        assert_eq!(
            throttled,
            Answer::FlowControl {
                retry_after: Some(SignedDuration::from_secs(2))
            }
        );
        assert_eq!(
            throttled.blocker(&candidate(&["web"])).unwrap().0,
            BlockerReason::Throttled
        );
        let starting = failure(
            429,
            "TooManyRequests",
            "storage is (re)initializing",
            json!({"retryAfterSeconds": 1}),
        );
        assert_eq!(
            starting,
            Answer::FlowControl {
                retry_after: Some(SignedDuration::from_secs(1))
            }
        );
    }

    #[test]
    fn a_webhook_that_answers_429_is_a_refusal_and_not_overload() {
        let guarded = failure(
            429,
            "",
            "admission webhook \"guard.example.com\" denied the request: not now",
            json!({}),
        );
        assert!(
            matches!(guarded, Answer::Forbidden { rbac: false, .. }),
            "{guarded:?}"
        );
    }

    #[test]
    fn a_terminating_namespace_is_told_by_its_cause() {
        let terminating = failure(
            403,
            "Forbidden",
            "pods \"web\" is forbidden: unable to create new content in namespace shop because it is being terminated",
            json!({"name": "web", "kind": "pods", "causes": [{"reason": "NamespaceTerminating",
                "message": "namespace shop is being terminated", "field": "metadata.namespace"}]}),
        );
        assert_eq!(terminating, Answer::NamespaceTerminating);
        let (reason, object, _) = terminating.blocker(&candidate(&[])).unwrap();
        assert_eq!(
            (reason, object.as_str()),
            (BlockerReason::NamespaceTerminating, "shop")
        );
    }

    #[test]
    fn missing_permission_is_one_blocker_for_the_namespace() {
        let denied = failure(
            403,
            "Forbidden",
            "pods \"web-5d9c-x7x2p\" is forbidden: User \"system:serviceaccount:virtualnodepool-system:operator\" cannot create resource \"pods/eviction\" in API group \"\" in the namespace \"shop\"",
            json!({"name": "web-5d9c-x7x2p", "kind": "pods"}),
        );
        let (reason, object, message) = denied.blocker(&candidate(&[])).unwrap();
        assert_eq!(
            (reason, object.as_str()),
            (BlockerReason::EvictionForbidden, "shop")
        );
        assert!(
            message.contains("pods/eviction") && !message.contains("x7x2p"),
            "{message}"
        );
    }

    #[test]
    fn a_webhooks_refusal_is_passed_on_without_what_changes() {
        let say = |seconds: u32| {
            failure(
                403,
                "Forbidden",
                &format!(
                    "admission webhook \"guard\" denied the request: web-5d9c-x7x2p busy, retry in {seconds} s"
                ),
                json!({}),
            )
        };
        assert_eq!(say(7), say(12));
        let (_, object, message) = say(7).blocker(&candidate(&[])).unwrap();
        assert_eq!(object, "webhook/guard");
        assert!(message.contains("<pod> busy, retry in N s"), "{message}");
    }

    #[test]
    fn whoever_refuses_at_admission_is_named_whatever_code_and_details_it_chooses() {
        let texts = [
            (
                "admission webhook \"guard\" denied the request: no",
                "webhook/guard",
            ),
            (
                "admission webhook \"guard\" denied the request without explanation",
                "webhook/guard",
            ),
            (
                "Internal error occurred: failed calling webhook \"guard\": failed to call webhook: timeout",
                "webhook/guard",
            ),
            (
                "pods \"web-5d9c-x7x2p\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'b' denied request: no",
                "ValidatingAdmissionPolicy/guard",
            ),
        ];
        // What makes another answer of each code when the server itself gives it.
        let details = [
            json!({}),
            json!({"name": "web", "kind": "pods"}),
            json!({"name": "web", "group": "policy", "kind": "poddisruptionbudgets"}),
            json!({"causes": [{"reason": "DisruptionBudget", "message": "m"}], "retryAfterSeconds": 10}),
            json!({"causes": [{"reason": "NamespaceTerminating", "message": "m"}]}),
        ];
        for code in [400, 401, 403, 404, 409, 410, 418, 422, 429, 500, 503, 504] {
            for ((text, named), details) in texts.iter().flat_map(|t| details.iter().map(move |d| (t, d))) {
                let refused = failure(code, "Whatever", text, details.clone());
                assert_eq!(refused.label(), "forbidden", "{code} {text} {details}");
                let (reason, object, message) = refused.blocker(&candidate(&["web"])).unwrap();
                assert_eq!(
                    (reason, object.as_str()),
                    (BlockerReason::EvictionForbidden, *named)
                );
                assert!(
                    message.contains("guard") && !message.contains("x7x2p"),
                    "{message}"
                );
                let forced = EvictionCandidate {
                    force: std::num::NonZeroU32::new(1),
                    ..candidate(&[])
                };
                let (.., message) = refused.blocker(&forced).unwrap();
                assert!(message.contains("the deletion"), "{message}");
            }
        }
    }

    #[test]
    fn a_webhook_that_speaks_of_permissions_is_no_lack_of_them() {
        let quotes = failure(
            403,
            "Forbidden",
            "admission webhook \"guard\" denied the request: user cannot create resource pods/eviction here",
            json!({}),
        );
        assert!(
            matches!(quotes, Answer::Forbidden { rbac: false, .. }),
            "{quotes:?}"
        );
    }

    #[test]
    fn server_errors_leave_the_outcome_open() {
        for code in [500, 502, 503, 504] {
            let open = failure(code, "InternalError", "etcdserver: request timed out", json!({}));
            assert!(matches!(open, Answer::Unknown { .. }), "{open:?}");
            assert!(!open.settled());
        }
        let dead_webhook = failure(
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"guard\": connection refused",
            json!({}),
        );
        assert!(
            matches!(dead_webhook, Answer::Forbidden { rbac: false, .. }),
            "{dead_webhook:?}"
        );
    }

    #[test]
    fn a_failure_inside_a_success_is_a_failure() {
        let several =
            Status::failure("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", "")
                .with_code(500);
        let reply = Reply {
            code: 201,
            status: &several,
            retry_after: None,
        };
        assert_eq!(Answer::of(reply, &pod()), Answer::SeveralBudgets);
    }

    #[test]
    fn every_answer_has_its_own_label() {
        let all = [
            Answer::Accepted,
            Answer::Gone,
            Answer::OtherUid,
            Answer::BudgetRaceLost,
            Answer::PodRaceLost,
            Answer::Budget,
            Answer::BudgetUnsynced { text: String::new() },
            Answer::BudgetStale {
                retry_after: SignedDuration::ZERO,
            },
            Answer::BudgetMapFull,
            Answer::SeveralBudgets,
            Answer::FlowControl { retry_after: None },
            Answer::NamespaceTerminating,
            Answer::Forbidden {
                rbac: false,
                by: None,
                text: String::new(),
            },
            Answer::Unknown { text: String::new() },
        ];
        let labels: std::collections::BTreeSet<&str> = all.iter().map(Answer::label).collect();
        assert_eq!(labels.len(), all.len());
    }

    #[test]
    fn who_refused_is_not_guessed() {
        let by_server = failure(401, "Unauthorized", "Unauthorized", json!({}));
        let (_, _, message) = by_server.blocker(&candidate(&[])).unwrap();
        assert_eq!(message, "the API server refuses the eviction: Unauthorized");
        let badly = "Internal error occurred: failed calling webhook \"guard\": failed to call webhook: tls: failed to verify \
                     certificate: x509: certificate has expired";
        let (_, _, message) = failure(500, "InternalError", badly, json!({}))
            .blocker(&candidate(&[]))
            .unwrap();
        assert!(
            message.starts_with(
                "admission webhook guard could not be called, and its failurePolicy is Fail, so"
            ),
            "{message}"
        );
    }
}
