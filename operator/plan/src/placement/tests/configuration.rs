//! Which pods the API server would ask about.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Context, Program};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration,
};
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::{labels, pool};
use crate::placement::{Placing, Serving};

type Labels = BTreeMap<String, String>;

pub(super) const SERVING: Serving<'static> = Serving {
    namespace: "virtualnodepool-system",
    service: "virtualnodepool-webhook",
    port: 443,
    ca_bundle: b"PEM",
};

pub(super) fn configuration(pools: &[Arc<VirtualNodePool>]) -> Option<MutatingWebhookConfiguration> {
    let raw = Placing::compile(pools).configuration(&SERVING)?;
    Some(serde_json::from_value(raw).unwrap())
}

/// Whether the API server asks about a pod with these labels.
pub(super) fn asks(entry: &MutatingWebhook, namespace: &str, of: &Labels, pod: &Labels) -> bool {
    let pod = json!({ "metadata": { "labels": pod }, "spec": { "containers": [] } });
    asks_about(entry, namespace, of, &pod)
}

/// Whether the API server asks about a pod.
pub(super) fn asks_about(entry: &MutatingWebhook, namespace: &str, of: &Labels, pod: &Value) -> bool {
    let mut context = Context::default();
    context.add_variable("object", without_nulls(pod)).unwrap();
    let holds = |condition: &MatchCondition| {
        let program = Program::compile(&condition.expression).unwrap();
        match program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => holds,
            other => panic!("{}: {other:?}", condition.expression),
        }
    };
    selects(entry, namespace, of, pod) && entry.match_conditions.iter().flatten().all(holds)
}

/// Whether the selectors of an entry have a pod.
pub(super) fn selects(entry: &MutatingWebhook, namespace: &str, of: &Labels, pod: &Value) -> bool {
    let mut namespace_labels = of.clone();
    namespace_labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    let labels: Labels = serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let read = |selector: &Option<_>| Selector::try_from(Option::clone(selector).unwrap()).unwrap();
    read(&entry.namespace_selector).matches(&namespace_labels)
        && read(&entry.object_selector).matches(&labels)
}

/// The API server shows CEL no field that is null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect()
        }
        other => other.clone(),
    }
}

fn names(pools: &[Arc<VirtualNodePool>]) -> Vec<String> {
    let entries = configuration(pools).and_then(|c| c.webhooks).unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn rule(name: &str, app: &str) -> Value {
    json!({ "name": name, "mode": "Require", "podSelector": { "matchLabels": { "app": app } } })
}

#[test]
fn nobody_asks_nothing_is_installed() {
    for webhook in ["Vendor", "None"] {
        let pool = pool(
            "burst",
            2026,
            json!({ "placement": { "webhook": webhook, "rules": [rule("a", "a")] } }),
        );
        assert_eq!(configuration(&[pool]), None);
    }
    assert_eq!(configuration(&[]), None);
}

#[test]
fn one_entry_for_each_rule_trigger_and_policy_that_names_a_scheduler() {
    let scheduling = json!({
        "schedulerName": "s",
        "resourcePolicies": [{ "name": "p", "namespaces": ["shop"] }],
    });
    let first = pool(
        "one",
        2024,
        json!({
            "placement": { "rules": [rule("b", "b"), rule("a", "a")] }, "scheduling": scheduling,
        }),
    );
    let unnamed = json!({ "resourcePolicies": [{ "name": "q", "namespaces": ["shop"] }] });
    let void = json!({ "name": "void", "mode": "Require", "podSelector": { "matchExpressions": [
        { "key": "x", "operator": "Exists" }, { "key": "x", "operator": "DoesNotExist" }] } });
    let second = pool(
        "two",
        2025,
        json!({
            "placement": { "rules": [rule("same", "a"), rule("c", "c"), void] }, "scheduling": unnamed,
        }),
    );
    let expected = [
        "b.one.rules.virtualnodes.dev",
        "a.one.rules.virtualnodes.dev",
        "c.two.rules.virtualnodes.dev",
        "pod-eci.triggers.virtualnodes.dev",
        "pod-acs.triggers.virtualnodes.dev",
        "pod-eci-legacy.triggers.virtualnodes.dev",
        "namespace-eci.triggers.virtualnodes.dev",
        "namespace-injection.triggers.virtualnodes.dev",
        "p.one.policies.virtualnodes.dev",
    ];
    for pools in [[first.clone(), second.clone()], [second, first]] {
        assert_eq!(names(&pools), expected);
    }
}

#[test]
fn an_entry_has_the_pods_of_its_rule_and_no_others() {
    let selectors = json!({ "name": "a", "mode": "Require",
        "namespaceSelector": { "matchLabels": { "team": "batch" } },
        "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["report"] }] } });
    let entries = configuration(&[pool(
        "burst",
        2026,
        json!({ "placement": { "rules": [selectors] } }),
    )]);
    let mut entries = entries.unwrap().webhooks.unwrap().into_iter();
    let entry = &entries.find(|e| e.name.starts_with("a.burst.rules.")).unwrap();
    let asks = |namespace: &str, of: &[(&str, &str)], pod: &[(&str, &str)]| {
        asks(entry, namespace, &labels(of), &labels(pod))
    };
    let team = &[("team", "batch")][..];
    let report = &[("app", "report")][..];
    assert!(asks("shop", team, report));
    assert!(!asks("shop", team, &[("app", "web")]));
    assert!(!asks("shop", &[], report));
    for system in ["kube-system", "kube-node-lease", "virtualnodepool-system"] {
        assert!(!asks(system, team, report), "{system}");
    }
    let off = ("virtualnodes.dev/webhook", "disabled");
    assert!(!asks("shop", &[team[0], off], report));
    assert!(!asks("shop", team, &[report[0], off]));
}

#[test]
fn the_whole_of_an_entry() {
    let entries = configuration(&[pool(
        "burst",
        2026,
        json!({ "placement": { "rules": [rule("a", "a")] } }),
    )]);
    let raw = json!(entries.unwrap());
    assert_eq!(raw["metadata"]["name"], "virtualnodepool-affinity");
    let mut entry = raw["webhooks"][0].clone();
    let conditions = entry["matchConditions"].take();
    assert!(
        conditions.as_array().unwrap().len() <= 64,
        "the API server takes 64"
    );
    assert_eq!(
        entry,
        json!({
            "name": "a.burst.rules.virtualnodes.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "caBundle": "UEVN",
                "service": { "namespace": "virtualnodepool-system", "name": "virtualnodepool-webhook",
                             "path": "/mutate", "port": 443 },
            },
            "failurePolicy": "Ignore",
            "matchConditions": null,
            "matchPolicy": "Equivalent",
            "namespaceSelector": { "matchExpressions": [
                { "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                  "values": ["kube-node-lease", "kube-system", "virtualnodepool-system"] },
                { "key": "virtualnodes.dev/webhook", "operator": "NotIn", "values": ["disabled"] },
            ] },
            "objectSelector": {
                "matchLabels": { "app": "a" },
                "matchExpressions": [
                    { "key": "virtualnodes.dev/webhook", "operator": "NotIn", "values": ["disabled"] },
                ],
            },
            "reinvocationPolicy": "IfNeeded",
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                        "scope": "Namespaced" }],
            "sideEffects": "None",
            "timeoutSeconds": 2,
        })
    );
}

/// A rule for some namespaces comes after one for all, whatever their order in the pool: only so can one leave out the other.
#[test]
fn rules_that_share_pods_ask_about_them_once() {
    let team = "batch";
    let some = |name: &str, pods: Value| {
        json!({ "name": name, "mode": "Require", "namespaceSelector": { "matchLabels": { "team": team } },
                "podSelector": { "matchLabels": pods } })
    };
    let rules = [
        some("one", json!({ "tier": "a" })),
        rule("two", "a"),
        some("three", json!({ "app": "b", "zone": "z" })),
        some("four", json!({ "zone": team })),
    ];
    let entries = configuration(&[pool("burst", 2026, json!({ "placement": { "rules": rules } }))]);
    let entries = entries.unwrap().webhooks.unwrap();
    let rules: Vec<_> = entries.iter().filter(|e| e.name.contains(".rules.")).collect();
    let asking = |pod: &[(&str, &str)]| -> Vec<&str> {
        let of = labels(&[("team", team)]);
        let entries = rules.iter().filter(|e| asks(e, "shop", &of, &labels(pod)));
        entries.filter_map(|e| e.name.split('.').next()).collect()
    };
    assert_eq!(asking(&[("tier", "a")]), ["one"]);
    assert_eq!(asking(&[("tier", "a"), ("app", "a")]), ["two"]);
    assert_eq!(asking(&[("app", "b"), ("zone", "z")]), ["three"]);
    assert_eq!(asking(&[("app", "b"), ("zone", "z"), ("tier", "a")]), ["one"]);
    assert_eq!(asking(&[("zone", team)]), ["four"]);
    assert_eq!(asking(&[("zone", team), ("tier", "a"), ("app", "a")]), ["two"]);
    assert_eq!(asking(&[("zone", "z")]), [""; 0]);
}

/// The API server refuses the whole configuration for an expression that it can't parse, and etcd for its size.
#[test]
fn many_rules_fit_into_one_object() {
    let long = |n: u32| format!("a-rule-with-a-name-as-long-as-a-name-of-a-rule-may-be-and-no-l-{n}");
    let rules = |from: u32, label: fn(u32) -> (String, String)| -> Vec<Value> {
        let rules = (from..from + 32).map(|n| {
            let (key, value) = label(n);
            json!({ "name": long(n), "mode": "Require", "namespaceSelector": { "matchLabels": { "team": "batch" } },
                    "podSelector": { "matchLabels": { (key): value, "environment": "production" } } })
        });
        rules.collect()
    };
    let apart: fn(u32) -> (String, String) = |n| ("app.example.com/name".to_owned(), format!("report-{n}"));
    let shared: fn(u32) -> (String, String) = |n| (format!("app.example.com/name-{n}"), "report".to_owned());
    for (label, policies) in [(apart, false), (shared, false), (shared, true)] {
        let pools: Vec<_> = (0..5)
            .map(|p| {
                let policy = |n: u32| json!({ "name": format!("p-{n}"), "namespaces": ["shop"], "selector": { (format!("l-{n}")): "v" } });
                let scheduling = json!({ "schedulerName": "s", "resourcePolicies": (0..32).map(policy).collect::<Vec<_>>() });
                let scheduling = if policies { scheduling } else { Value::Null };
                let spec = json!({ "placement": { "rules": rules(p * 32, label) }, "scheduling": scheduling });
                pool(&format!("a-pool-with-a-name-as-long-as-may-be-{p}"), 2020 + p as i32, spec)
            })
            .collect();
        let configuration = configuration(&pools).unwrap();
        let entries = configuration.webhooks.iter().flatten();
        let mut leaves_out = 0;
        for condition in entries.clone().flat_map(|w| w.match_conditions.iter().flatten()) {
            assert!(condition.expression.len() <= 40_000, "{}", condition.expression);
            if condition.name == "of-no-other-entry" {
                leaves_out += condition.expression.len();
            }
        }
        for condition in entries
            .clone()
            .step_by(24)
            .flat_map(|w| w.match_conditions.iter().flatten())
        {
            Program::compile(&condition.expression).unwrap();
        }
        assert!(leaves_out <= 192 * 1024, "{leaves_out}");
        let rules = entries
            .filter(|w| w.name.ends_with(".rules.virtualnodes.dev"))
            .count();
        assert!(rules >= 160, "{rules}");
        // The rest of what etcd takes is for certificates and the bookkeeping of field managers.
        let size = json!(configuration).to_string().len();
        assert!(policies || size < 600_000, "{size}");
    }
}

/// Each call may take two seconds when nobody answers.
#[test]
fn triggers_never_ask_about_a_pod_twice() {
    let mut rules: Vec<Value> = (0..31)
        .map(|n| rule(&format!("r{n}"), &format!("other-{n}")))
        .collect();
    rules.push(rule("a", "a"));
    let pools = [pool("burst", 2026, json!({ "placement": { "rules": rules } }))];
    let entries = configuration(&pools).unwrap().webhooks.unwrap();
    let keys = [
        ("alibabacloud.com/eci", "true"),
        ("alibabacloud.com/acs", "true"),
        ("eci", "true"),
        ("app", "a"),
    ];
    let of = [
        ("alibabacloud.com/eci", "true"),
        ("virtual-node-affinity-injection", "enabled"),
    ];
    let some = |from: &[(&str, &str)], bits: usize| -> Labels {
        let chosen = from.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0);
        chosen
            .map(|(_, (k, v))| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    for (pod, namespace) in (0..16).flat_map(|p| (0..4).map(move |n| (p, n))) {
        let (pod, namespace) = (some(&keys, pod), some(&of, namespace));
        let asked = entries
            .iter()
            .filter(|e| asks(e, "shop", &namespace, &pod))
            .count();
        let meant = !pod.is_empty() || !namespace.is_empty();
        assert_eq!(asked, usize::from(meant), "{pod:?} in {namespace:?}");
    }
}
