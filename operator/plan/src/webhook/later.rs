//! What may change a pod after the operator's webhook could have been asked about it. The API server asks a webhook once more
//! after others changed the pod, but only one that it had asked before: a label that comes later brings no pod to a rule
//! (seen with Kubernetes 1.37.2).

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, RuleWithOperations};
use serde::Deserialize;
use vnp_crds::{EventReason, WEBHOOK_CONFIGURATION};

use crate::finding::{EventNote, Finding};
use crate::observed::Observed;
use crate::placement::{places, rule_reach};

/// Most names in one text.
const NAMED: usize = 8;
/// How an event about them is told from others.
const SUBJECT: &str = "spec.placement.rules/later";

/// What there is of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LaterMutators {
    /// Not looked at, because no pool asks for it, or there was no answer yet.
    #[default]
    Unknown,
    /// A right is missing, in the API server's words.
    Forbidden(String),
    /// These, each with its kind; empty when there is none.
    Known(BTreeSet<String>),
}

/// The spec of a MutatingAdmissionPolicy, as far as it is of interest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MutatingPolicy {
    /// `spec.reinvocationPolicy`.
    pub reinvocation_policy: String,
    /// `spec.matchConstraints`.
    pub match_constraints: MatchConstraints,
    /// `spec.mutations`.
    pub mutations: Vec<Mutation>,
}

/// What a policy looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchConstraints {
    /// Any of these.
    pub resource_rules: Vec<RuleWithOperations>,
}

/// What a policy does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mutation {
    json_patch: Option<Expression>,
    apply_configuration: Option<Expression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Expression {
    expression: String,
}

impl MutatingPolicy {
    /// It may label a pod when webhooks have changed it. All policies are applied before any webhook, those that are
    /// reinvoked once more after them.
    fn labels_late(&self) -> bool {
        let rules = &self.match_constraints.resource_rules;
        let labels = |expression: &Option<Expression>| {
            expression
                .as_ref()
                .is_some_and(|e| e.expression.contains("labels"))
        };
        self.reinvocation_policy == "IfNeeded"
            && rules.iter().any(creates_pods)
            && self
                .mutations
                .iter()
                .any(|m| labels(&m.json_patch) || labels(&m.apply_configuration))
    }
}

/// The configurations whose name sorts after ours, which is the order in which the API server asks, and the policies that
/// come after webhooks. What a webhook does nobody can tell from outside: each that is asked about new pods counts, and so
/// does a policy that can't be read (`None`).
pub fn later_mutators<'a>(
    configurations: &[MutatingWebhookConfiguration],
    policies: impl IntoIterator<Item = (&'a str, Option<&'a MutatingPolicy>)>,
) -> BTreeSet<String> {
    let webhooks = configurations.iter().filter_map(|configuration| {
        let name = configuration.metadata.name.as_deref()?;
        let mut rules = configuration
            .webhooks
            .iter()
            .flatten()
            .flat_map(|entry| entry.rules.iter().flatten());
        (name > WEBHOOK_CONFIGURATION && rules.any(creates_pods))
            .then(|| format!("MutatingWebhookConfiguration {name}"))
    });
    let policies = policies
        .into_iter()
        .filter(|(_, policy)| policy.is_none_or(MutatingPolicy::labels_late));
    webhooks
        .chain(policies.map(|(name, _)| format!("MutatingAdmissionPolicy {name}")))
        .collect()
}

fn creates_pods(rule: &RuleWithOperations) -> bool {
    let has = |list: &Option<Vec<String>>, words: &[&str]| {
        list.iter().flatten().any(|word| words.contains(&word.as_str()))
    };
    has(&rule.operations, &["CREATE", "*"])
        && has(&rule.api_groups, &["", "*"])
        && has(&rule.resources, &["pods", "*", "*/*"])
        && rule.scope.as_deref() != Some("Cluster")
}

/// Said of a pool with a rule that wants labels.
pub(super) fn finding(seen: &Observed) -> Option<Finding> {
    let rules = seen
        .pool
        .spec
        .placement
        .iter()
        .flat_map(|placement| &placement.rules);
    let mut reaches = rules.filter_map(|rule| rule_reach(rule).ok());
    if !places(&seen.pool) || !reaches.any(|reach| reach.pods.into_iter().next().is_some()) {
        return None;
    }
    let note = match &seen.later {
        LaterMutators::Unknown => return None,
        LaterMutators::Known(known) if known.is_empty() => return None,
        LaterMutators::Forbidden(why) => format!(
            "whether a label that a rule of spec.placement wants may come too late for it is not known: {why}; apply the \
             ClusterRole of config/rbac/webhook.yaml"
        ),
        LaterMutators::Known(known) => {
            let mut names: Vec<&str> = known.iter().map(String::as_str).take(NAMED).collect();
            let more = format!("{} more", known.len().saturating_sub(NAMED));
            if known.len() > NAMED {
                names.push(&more);
            }
            format!(
                "these can change pods after {WEBHOOK_CONFIGURATION} was asked about them: {}. A label that one of these adds \
                 brings no pod to a rule of spec.placement. Let rules select labels that pods have when they are sent, or \
                 give the configuration a name that sorts before {WEBHOOK_CONFIGURATION}",
                names.join(", ")
            )
        }
    };
    Some(Finding::Event(EventNote {
        reason: EventReason::ConfigWarning,
        subject: SUBJECT.to_owned(),
        note,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{observed, pool};

    fn pods(overlay: Value) -> Value {
        let mut rule = json!({ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] });
        json_patch::merge(&mut rule, &overlay);
        rule
    }

    fn configuration(name: &str, rule: Value) -> MutatingWebhookConfiguration {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "webhooks": [{ "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                           "clientConfig": {}, "rules": [rule] }],
        }))
        .unwrap()
    }

    fn policy(overlay: Value) -> MutatingPolicy {
        let mut policy = json!({
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": { "resourceRules": [pods(json!({}))] },
            "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}" } }],
        });
        json_patch::merge(&mut policy, &overlay);
        serde_json::from_value(policy).unwrap()
    }

    fn late(
        configurations: &[MutatingWebhookConfiguration],
        policies: &[(&str, MutatingPolicy)],
    ) -> Vec<String> {
        let policies = policies.iter().map(|(name, policy)| (*name, Some(policy)));
        later_mutators(configurations, policies).into_iter().collect()
    }

    #[test]
    fn what_is_asked_about_new_pods_after_us_is_named() {
        let named = |name: &str, rule: Value| !late(&[configuration(name, pods(rule))], &[]).is_empty();
        for (name, rule, comes) in [
            ("zzz", json!({}), true),
            ("virtualnodepool-affinity", json!({}), false),
            ("virtualnodepool-affinity-2", json!({}), true),
            ("istio-sidecar-injector", json!({}), false),
            (
                "zzz",
                json!({ "resources": ["*"], "apiGroups": ["*"], "operations": ["*"] }),
                true,
            ),
            ("zzz", json!({ "resources": ["*/*"] }), true),
            ("zzz", json!({ "resources": ["pods/eviction"] }), false),
            ("zzz", json!({ "apiGroups": ["apps"] }), false),
            ("zzz", json!({ "operations": ["UPDATE"] }), false),
            ("zzz", json!({ "scope": "Cluster" }), false),
            ("zzz", json!({ "scope": "Namespaced" }), true),
        ] {
            assert_eq!(named(name, rule.clone()), comes, "{name} {rule}");
        }
        assert_eq!(
            late(&[configuration("zzz", pods(json!({})))], &[]),
            ["MutatingWebhookConfiguration zzz"]
        );
    }

    #[test]
    fn policies_come_first_and_reinvoked_ones_last_too() {
        for (overlay, comes) in [
            (json!({}), true),
            (json!({ "reinvocationPolicy": "Never" }), false),
            (
                json!({ "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": "[JSONPatch{op: 'add', path: '/metadata/labels/a', value: 'b'}]" } }] }),
                true,
            ),
            (
                json!({ "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": "[JSONPatch{op: 'add', path: '/spec/priority', value: 1}]" } }] }),
                false,
            ),
            (
                json!({ "matchConstraints": { "resourceRules": [pods(json!({ "resources": ["services"] }))] } }),
                false,
            ),
        ] {
            assert_eq!(
                !late(&[], &[("p", policy(overlay.clone()))]).is_empty(),
                comes,
                "{overlay}"
            );
        }
    }

    #[test]
    fn a_policy_that_can_not_be_read_counts() {
        assert_eq!(later_mutators(&[], [("p", None)]).len(), 1);
    }

    #[test]
    fn a_pool_is_told_when_one_of_its_rules_wants_a_label() {
        let told = |rules: Value, webhook: &str, later: LaterMutators| {
            let mut seen = observed(
                pool(json!({ "placement": { "webhook": webhook, "rules": rules } })),
                1,
            );
            seen.later = later;
            finding(&seen).map(|finding| match finding {
                Finding::Event(note) => note.note,
                other => panic!("{other:?}"),
            })
        };
        let known = |names: &[&str]| LaterMutators::Known(names.iter().map(|n| (*n).to_owned()).collect());
        let wants = || json!([{ "name": "a", "mode": "Require", "podSelector": { "matchLabels": { "app": "web" } } }]);
        let all = || json!([{ "name": "a", "mode": "Require", "namespaceSelector": { "matchLabels": { "team": "a" } } }]);
        let note = told(wants(), "Operator", known(&["MutatingWebhookConfiguration zzz"])).unwrap();
        assert!(
            note.starts_with("these can change pods after virtualnodepool-affinity was asked about them: MutatingWebhookConfiguration zzz. A label"),
            "{note}"
        );
        let many: Vec<String> = (0..10).map(|i| format!("X {i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(
            told(wants(), "Operator", known(&many))
                .unwrap()
                .contains("X 7, 2 more.")
        );
        let note = told(wants(), "Operator", LaterMutators::Forbidden("no".into())).unwrap();
        assert!(note.contains("not known: no; apply"), "{note}");
        for (rules, webhook, later) in [
            (wants(), "Operator", known(&[])),
            (wants(), "Operator", LaterMutators::Unknown),
            (wants(), "Vendor", known(&["X"])),
            (all(), "Operator", known(&["X"])),
        ] {
            assert_eq!(told(rules, webhook, later), None);
        }
    }
}
