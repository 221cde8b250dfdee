//! Placement rules that can't be followed, and ones that work as they are written and are probably not meant so.

use std::sync::Arc;

use kube::core::{Expression, Selector};
use vnp_crds::{
    KUBE_NODE_LEASE, KUBE_SYSTEM, PlacementMode, PlacementRule, Reason, TRUE, VirtualNodePool, WebhookMode,
    trigger_label,
};

use super::warnings::warning;
use super::{Refusal, seniority, served};
use crate::finding::Finding;
use crate::observed::Observed;
use crate::placement::{NAME_LABEL, places, rule_reach, trouble};
use crate::selection::Reach;

/// Rules that place nothing until they are repaired; the others do.
pub(super) fn refusals(observed: &Observed) -> Vec<Refusal> {
    let troubles = rules(&observed.pool).iter().filter_map(trouble);
    let refusal = |trouble| {
        Refusal::new(
            Reason::InvalidSpec,
            format!("{trouble}. The rule places nothing until it is repaired"),
        )
    };
    troubles.map(refusal).collect()
}

pub(super) fn warnings(observed: &Observed) -> Vec<Finding> {
    let own = rules(&observed.pool).iter();
    let each = own.flat_map(|rule| {
        [
            unreachable(observed, rule),
            shadowed(observed, rule),
            idle(observed, rule),
            forced(rule),
            spread(rule),
        ]
    });
    each.flatten().collect()
}

pub(super) fn rules(pool: &VirtualNodePool) -> &[PlacementRule] {
    pool.spec
        .placement
        .as_ref()
        .map_or(&[], |placement| &placement.rules)
}

fn field(rule: &PlacementRule) -> String {
    format!("spec.placement.rules[name={}]", rule.name)
}

/// Labels that no pod has, or namespaces whose pods are never asked about.
fn unreachable(observed: &Observed, rule: &PlacementRule) -> Option<Finding> {
    let reach = rule_reach(rule).ok()?;
    let field = field(rule);
    if reach.is_void() {
        let note =
            format!("{field} can never match: its selectors contradict themselves; correct or remove it");
        return Some(warning(&field, note));
    }
    let pools = observed.others.iter().chain([&observed.pool]);
    let providers = pools.filter_map(|pool| Some(pool.spec.provider.workload()?.namespace));
    let excluded = providers.chain([KUBE_SYSTEM, KUBE_NODE_LEASE, observed.operator.namespace.as_str()]);
    let excluded = excluded.map(str::to_owned).collect();
    let system = Reach {
        namespaces: Expression::In(NAME_LABEL.to_owned(), excluded).into(),
        pods: Selector::default(),
    };
    system.covers(&reach).then(|| {
        let note = format!(
            "{field} can never match: its namespaceSelector selects only namespaces that are left alone, those of the system, of \
             the operator and of providers; select others, or remove it"
        );
        warning(&field, note)
    })
}

/// Pools that place pods by their own rules, the oldest first.
pub(super) fn placing(observed: &Observed) -> Vec<&Arc<VirtualNodePool>> {
    let pools = observed.others.iter().chain([&observed.pool]);
    let mut placing: Vec<_> = pools.filter(|pool| served(pool) && places(pool)).collect();
    placing.sort_by(|a, b| seniority(a).cmp(&seniority(b)));
    placing
}

/// All pods of the rule belong to one that is tried before.
fn shadowed(observed: &Observed, rule: &PlacementRule) -> Option<Finding> {
    let reach = rule_reach(rule).ok().filter(|reach| !reach.is_void())?;
    let name = observed.pool_name();
    let all = placing(observed).into_iter().flat_map(|pool| {
        let pool_name = pool.metadata.name.as_deref().unwrap_or_default();
        rules(pool).iter().map(move |earlier| (pool_name, earlier))
    });
    let mut earlier = all.take_while(|(pool, earlier)| (*pool, &earlier.name) != (name, &rule.name));
    let (pool, first) = earlier.find(|(_, earlier)| {
        trouble(earlier).is_none() && rule_reach(earlier).is_ok_and(|earlier| earlier.covers(&reach))
    })?;
    let owner = if pool == name {
        "before it".to_owned()
    } else {
        format!("of the older pool {pool}")
    };
    let (field, first) = (field(rule), &first.name);
    let note = format!(
        "{field} never places a pod: rule {first} {owner} selects all of its pods and is tried first; narrow that one, or remove \
         this one"
    );
    Some(warning(&field, note))
}

/// Nothing acts on the rule: neither our webhook nor the provider's profile.
fn idle(observed: &Observed, rule: &PlacementRule) -> Option<Finding> {
    let spec = &observed.pool.spec;
    let (field, webhook) = (field(rule), spec.webhook());
    if webhook == WebhookMode::Operator {
        return None;
    }
    if rule.mode == PlacementMode::Prefer {
        let note = format!(
            "{field}.mode is Prefer and spec.placement.webhook is {webhook}: the rule does nothing, only the operator's own \
             webhook can prefer; set webhook: Operator, or mode Require"
        );
        return Some(warning(&field, note));
    }
    (!spec.profile().sync.is_enabled()).then(|| {
        let note = format!(
            "{field} does nothing: spec.placement.webhook is {webhook} and spec.profile.sync is Disabled; enable one of them"
        );
        warning(&field, note)
    })
}

/// A rule that prefers, and adds a label that requires.
fn forced(rule: &PlacementRule) -> Option<Finding> {
    let triggers = [trigger_label::ECI, trigger_label::ACS, trigger_label::LEGACY_ECI];
    let added = |label: &&str| rule.labels.get(*label).is_some_and(|value| value == TRUE);
    let label = triggers.into_iter().find(added)?;
    (rule.mode == PlacementMode::Prefer).then(|| {
        let field = field(rule);
        let note = format!(
            "{field}.mode is Prefer and its labels add {label}, which brings a pod to virtual nodes wherever there is room; \
             remove the label, or say mode Require"
        );
        warning(&format!("{field}.labels"), note)
    })
}

/// Source: ACK documentation on zone spread of ECI pods: with either annotation topology spread does nothing.
fn spread(rule: &PlacementRule) -> Option<Finding> {
    const BREAKING: [(&str, &str); 2] = [
        ("k8s.aliyun.com/eci-schedule-strategy", "VSwitchOrdered"),
        ("k8s.aliyun.com/eci-fail-strategy", "fail-fast"),
    ];
    let set = |(key, value): &(&str, &str)| {
        let there = rule.annotations.get(*key);
        there.is_some_and(|there| there.trim().eq_ignore_ascii_case(value))
    };
    let (key, value) = BREAKING.into_iter().find(set)?;
    let field = field(rule);
    let note = format!(
        "{field}.annotations sets {key} to {value}: topologySpreadConstraints over zones do nothing on these pods; remove it \
         where pods are to be spread"
    );
    Some(warning(&format!("{field}.annotations"), note))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::accept;
    use crate::accept::testing::{observed, pool};
    use crate::finding::EventNote;

    fn rule(name: &str, overlay: Value) -> Value {
        let mut rule =
            json!({ "name": name, "mode": "Require", "podSelector": { "matchLabels": { "app": name } } });
        json_patch::merge(&mut rule, &overlay);
        rule
    }

    fn placing(rules: Value) -> Value {
        json!({ "spec": { "placement": { "rules": rules } } })
    }

    fn notes(seen: &Observed) -> Vec<String> {
        let note = |finding| match finding {
            Finding::Event(EventNote { note, .. }) => note,
            other => panic!("{other:?}"),
        };
        warnings(seen).into_iter().map(note).collect()
    }

    fn of(overlay: Value) -> Vec<String> {
        notes(&observed(pool(overlay)))
    }

    fn with_older(mut seen: Observed, overlay: Value) -> Observed {
        let mut older =
            json!({ "metadata": { "name": "old", "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z" } });
        json_patch::merge(&mut older, &overlay);
        seen.others = vec![Arc::new(pool(older))];
        seen
    }

    #[test]
    fn ordinary_rules_need_no_word() {
        let rules = json!([
            rule("a", json!({})),
            rule(
                "b",
                json!({ "mode": "Prefer", "annotations": { "k8s.aliyun.com/eci-fail-strategy": "fail-over" } })
            ),
            rule("all", json!({ "podSelector": { "matchLabels": null } })),
        ]);
        assert_eq!(of(placing(rules)), [""; 0]);
    }

    #[test]
    fn what_can_not_be_read_is_refused_and_the_rest_works() {
        let broken = json!({ "podSelector": { "matchLabels": null, "matchExpressions": [
            { "key": "app", "operator": "Like", "values": ["x"] }] } });
        let key = json!({ "labels": { "no key": "x" } });
        let seen = observed(pool(placing(json!([
            rule("a", broken),
            rule("b", key),
            rule("c", json!({}))
        ]))));
        let refused: Vec<String> = refusals(&seen).into_iter().map(|r| r.message).collect();
        assert!(
            refused.len() == 2
                && refused[0].contains("spec.placement.rules[name=a].podSelector can't be read")
                && refused[1].contains("spec.placement.rules[name=b].labels has the key \"no key\""),
            "{refused:?}"
        );
        let acceptance = accept(&seen);
        assert!(!acceptance.accepted() && acceptance.workload && acceptance.profile);
    }

    #[test]
    fn rules_that_can_never_match() {
        let contradiction =
            json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "DoesNotExist" }] } });
        let told = of(placing(json!([rule("a", contradiction)])));
        assert!(
            told.len() == 1 && told[0].contains("contradict themselves"),
            "{told:?}"
        );
        let system = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } });
        let told = of(placing(json!([rule("a", system)])));
        assert!(told.len() == 1 && told[0].contains("left alone"), "{told:?}");
    }

    #[test]
    fn rules_behind_wider_ones() {
        let all = rule("all", json!({ "podSelector": { "matchLabels": null } }));
        let told = of(placing(json!([all, rule("b", json!({}))])));
        assert!(
            told.len() == 1 && told[0].contains("rule all before it"),
            "{told:?}"
        );
        let plain = || observed(pool(placing(json!([rule("b", json!({}))]))));
        let told = notes(&with_older(plain(), placing(json!([all]))));
        assert!(
            told.len() == 1 && told[0].contains("rule all of the older pool old"),
            "{told:?}"
        );
        let vendor = json!({ "spec": { "placement": { "webhook": "None", "rules": [all] } } });
        assert_eq!(notes(&with_older(plain(), vendor)), [""; 0]);
    }

    #[test]
    fn rules_that_nothing_acts_on() {
        for (mode, webhook, sync, told) in [
            ("Prefer", "None", "Enabled", true),
            ("Require", "None", "Enabled", false),
            ("Require", "None", "Disabled", true),
            ("Require", "Operator", "Disabled", false),
            ("Prefer", "Operator", "Disabled", false),
        ] {
            let rules = json!([rule("a", json!({ "mode": mode }))]);
            let spec =
                json!({ "placement": { "webhook": webhook, "rules": rules }, "profile": { "sync": sync } });
            assert_eq!(
                of(json!({ "spec": spec })).len(),
                usize::from(told),
                "{mode} {webhook} {sync}"
            );
        }
    }

    #[test]
    fn rules_that_do_more_than_they_say() {
        for (overlay, word) in [
            (
                json!({ "mode": "Prefer", "labels": { "alibabacloud.com/eci": "true" } }),
                "labels add alibabacloud.com/eci",
            ),
            (
                json!({ "annotations": { "k8s.aliyun.com/eci-schedule-strategy": "vSwitchOrdered" } }),
                "VSwitchOrdered",
            ),
            (
                json!({ "annotations": { "k8s.aliyun.com/eci-fail-strategy": "fail-fast" } }),
                "fail-fast",
            ),
        ] {
            let told = of(placing(json!([rule("a", overlay)])));
            assert!(told.len() == 1 && told[0].contains(word), "{told:?}");
        }
    }
}
