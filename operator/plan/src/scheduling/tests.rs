mod pages;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::observed::{ObjectKey, Policies, PolicySeen};
use crate::plan::TrackKind;
use crate::step::{PolicyApply, Step};
use crate::testing::{bind, now, observed, pod, pool};

/// The ResourcePolicy CRD of a scheduler that knows all documented fields.
fn crd() -> Value {
    let words = |words: &[&str]| json!({ "type": "string", "enum": words });
    let map = || json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let unit = json!({ "type": "object", "required": ["resource"], "properties": {
        "resource": words(&["ecs", "eci", "acs", "idc", "elastic"]), "max": { "type": "integer", "format": "int32" },
        "maxResources": { "type": "object", "additionalProperties": { "x-kubernetes-int-or-string": true } },
        "nodeSelector": map(), "podLabels": map(), "podAnnotations": map(),
    } });
    let spec = json!({ "type": "object", "required": ["units", "strategy"], "properties": {
        "selector": map(), "strategy": words(&["prefer"]), "units": { "type": "array", "items": unit },
        "preemptPolicy": { "type": "string", "enum": ["AfterAllUnits", "BeforeNextUnit"], "default": "AfterAllUnits" },
        "ignorePreviousPod": { "type": "boolean" }, "ignoreTerminatingPod": { "type": "boolean" },
        "matchLabelKeys": { "type": "array", "items": { "type": "string" } },
        "whenTryNextUnits": { "type": "object", "properties": {
            "policy": words(&["ExceedMax", "LackResourceAndNoterminating", "TimeoutOrExceedMax"]),
            "timeout": { "type": "string" },
        } },
    } });
    json!({
        "spec": { "versions": [{ "name": VERSION, "served": true, "schema": { "openAPIV3Schema": {
            "type": "object", "properties": { "spec": spec } } } }] },
        "status": { "conditions": [{ "type": "Established", "status": "True" }] },
    })
}

/// The CRD without a field of `spec`.
fn without(pointer: &str, field: &str) -> Value {
    let mut crd = crd();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let place = crd.pointer_mut(&format!("{spec}{pointer}")).unwrap();
    place.as_object_mut().unwrap().remove(field).unwrap();
    crd
}

/// A pool with these policies in a cluster with the namespaces `shop` and `bank` (label `tier: web`) and `batch`.
fn seen(policies: Value) -> Observed {
    let mut seen = observed(
        pool(json!({ "replicas": 1, "scheduling": { "resourcePolicies": policies } })),
        1,
    );
    let web = || [("tier".to_owned(), "web".to_owned())].into();
    let namespaces = [("shop", web()), ("bank", web()), ("batch", Default::default())];
    seen.namespaces = Arc::new(namespaces.map(|(name, labels)| (name.to_owned(), labels)).into());
    seen.scheduling.crd = PolicyCrd::read(Some(&crd()));
    seen.scheduling.policies = Some(Arc::default());
    seen
}

fn web() -> Value {
    json!([{ "name": "web", "namespaces": ["shop"], "selector": { "app": "nginx" } }])
}

fn plan(seen: &Observed) -> Part {
    plan_scheduling(seen, true)
}

fn applies(part: &Part) -> Vec<&PolicyApply> {
    let applies = part.steps.iter().filter_map(|step| match step {
        Step::ApplyPolicy(apply) => Some(apply),
        _ => None,
    });
    applies.collect()
}

/// The spec of the only policy that is written.
fn spec(seen: &Observed) -> Value {
    let part = plan(seen);
    let [apply] = applies(&part)[..] else {
        panic!("{part:?}")
    };
    apply.body["spec"].clone()
}

/// The states that are told, each with all its messages.
fn states(part: &Part) -> Vec<(SchedulingState, String)> {
    let told = part.findings.iter().filter_map(|f| match f {
        Finding::Scheduling { state, message } => Some((*state, message.clone())),
        _ => None,
    });
    told.collect()
}

fn only(part: &Part) -> (SchedulingState, String) {
    let [told] = <[_; 1]>::try_from(states(part)).unwrap();
    told
}

/// The ResourcePolicy that the API server makes of an apply.
fn stored(apply: &PolicyApply) -> PolicySeen {
    let mut raw = apply.body.clone();
    let fields = |value: &Value| {
        let keys = value.as_object().unwrap().keys();
        keys.map(|k| (format!("f:{k}"), json!({})))
            .collect::<serde_json::Map<_, _>>()
    };
    let fields = json!({ "f:spec": fields(&raw["spec"]) });
    raw["metadata"]["uid"] = json!(format!("uid-{}", apply.policy));
    raw["metadata"]["managedFields"] =
        json!([{ "manager": vnp_crds::FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields }]);
    let spec = raw["spec"].as_object_mut().unwrap();
    spec.entry("preemptPolicy").or_insert(json!("AfterAllUnits"));
    PolicySeen::read(&raw)
}

/// Carries the plan out.
fn settle(seen: &mut Observed) {
    let part = plan(seen);
    let mut policies: Policies = seen.scheduling.policies.as_deref().cloned().unwrap_or_default();
    for step in &part.steps {
        match step {
            Step::ApplyPolicy(apply) => {
                policies.insert(apply.policy.clone(), Arc::new(stored(apply)));
            }
            Step::DeletePolicy { policy, .. } => drop(policies.remove(policy)),
            other => panic!("{other:?}"),
        }
    }
    seen.scheduling.policies = Some(Arc::new(policies));
}

fn change(seen: &mut Observed, change: impl FnOnce(&mut PolicySeen)) {
    let mut policies = seen.scheduling.policies.as_deref().cloned().unwrap_or_default();
    let first = policies.values_mut().next().unwrap();
    change(Arc::make_mut(first));
    seen.scheduling.policies = Some(Arc::new(policies));
}

fn delete(seen: &mut Observed) {
    let mut pool = (*seen.pool).clone();
    pool.metadata.deletion_timestamp = Some(Time(now()));
    seen.pool = Arc::new(pool);
}

#[test]
fn a_policy_becomes_an_object_of_the_pool_in_each_namespace() {
    let mut seen =
        seen(json!([{ "name": "web", "namespaceSelector": { "matchLabels": { "tier": "web" } } }]));
    let part = plan(&seen);
    let keys: Vec<String> = applies(&part).iter().map(|a| a.policy.to_string()).collect();
    assert_eq!(keys, ["bank/burst.web", "shop/burst.web"]);
    let body = &applies(&part)[1].body;
    assert_eq!(
        body["metadata"]["labels"],
        json!({ "app.kubernetes.io/managed-by": "virtualnodepool-operator", "virtualnodes.dev/pool": "burst" })
    );
    assert_eq!(
        body["metadata"]["ownerReferences"],
        json!([{ "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool", "name": "burst",
                 "uid": "pool-uid", "controller": true }])
    );
    assert!(
        states(&part)
            .iter()
            .all(|(state, _)| *state == SchedulingState::Pending)
    );
    settle(&mut seen);
    assert_eq!(
        plan(&seen),
        Part::default(),
        "in place: nothing to write, nothing to say"
    );
}

#[test]
fn without_units_ordinary_nodes_come_first() {
    let ecs_then = |kind: &str| {
        json!({ "selector": { "app": "nginx" }, "strategy": "prefer",
                "units": [{ "resource": "ecs" }, { "resource": kind }] })
    };
    let mut seen = seen(web());
    assert_eq!(spec(&seen), ecs_then("eci"));
    let mut pool = (*seen.pool).clone();
    pool.spec.compute_defaults = serde_json::from_value(json!({ "class": "performance" })).unwrap();
    seen.pool = Arc::new(pool);
    let acs = json!({ "resource": "acs", "podLabels": { "alibabacloud.com/compute-class": "performance" } });
    assert_eq!(spec(&seen)["units"][1], acs);
}

#[test]
fn compute_defaults_fill_in_what_an_acs_unit_leaves_open() {
    let unit = |resource: &str, labels: Value| json!({ "resource": resource, "podLabels": labels });
    let (class, qos, series) = (
        "alibabacloud.com/compute-class",
        "alibabacloud.com/compute-qos",
        "alibabacloud.com/gpu-model-series",
    );
    let units = json!([
        unit("ecs", json!({ "a": "b" })),
        unit("acs", json!({ "a": "b" })),
        unit("acs", json!({ qos: "default" })),
        unit("acs", json!({ class: "general-purpose" })),
        { "resource": "eci" },
    ]);
    let with = |defaults: Value| {
        let mut seen = seen(json!([{ "name": "web", "namespaces": ["shop"], "units": units }]));
        let mut pool = (*seen.pool).clone();
        pool.spec.compute_defaults = serde_json::from_value(defaults).unwrap();
        seen.pool = Arc::new(pool);
        (spec(&seen)["units"].clone(), plan(&seen))
    };
    let (filled, _) = with(json!({ "class": "performance", "qos": "best-effort" }));
    let expected = json!([
        unit("ecs", json!({ "a": "b" })),
        unit("acs", json!({ "a": "b", class: "performance", qos: "best-effort" })),
        unit("acs", json!({ qos: "default" })),
        unit("acs", json!({ class: "general-purpose" })),
        { "resource": "eci" },
    ]);
    assert_eq!(filled, expected);
    let (hpn, part) = with(json!({ "class": "gpu-hpn", "gpuModelSeries": "T4" }));
    assert_eq!(hpn[1]["nodeSelector"], json!({ series: "T4" }));
    assert!(
        notes(&part)[0].contains("select only pods that request a GPU"),
        "{part:?}"
    );
}

/// The warnings.
fn notes(part: &Part) -> Vec<&str> {
    let notes = part.findings.iter().filter_map(|f| match f {
        Finding::Event(note) => Some(note.note.as_str()),
        _ => None,
    });
    notes.collect()
}

#[test]
fn a_policy_that_a_label_outranks_is_told() {
    let mut plain = seen(web());
    assert_eq!(notes(&plan(&plain)), [""; 0]);
    let label = |key: &str, value: &str| {
        Arc::new([("shop".to_owned(), [(key.to_owned(), value.to_owned())].into())].into())
    };
    for (key, value) in [
        ("alibabacloud.com/eci", "true"),
        ("virtual-node-affinity-injection", "enabled"),
    ] {
        plain.namespaces = label(key, value);
        let part = plan(&plain);
        assert!(
            notes(&part)[0].contains(key) && notes(&part)[0].contains("namespace shop"),
            "{part:?}"
        );
    }
    plain.namespaces = label("alibabacloud.com/eci", "false");
    assert_eq!(notes(&plan(&plain)), [""; 0]);
    for key in ["alibabacloud.com/eci", "alibabacloud.com/acs", "eci"] {
        let policy = json!([{ "name": "web", "namespaces": ["shop"], "selector": { key: "true" } }]);
        assert!(notes(&plan(&seen(policy)))[0].contains(key), "{key}");
    }
}

#[test]
fn all_fields_arrive_in_the_spelling_of_the_crd() {
    let seen = seen(json!([{
        "name": "web", "namespaces": ["shop"], "strategy": "prefer", "preemptPolicy": "BeforeNextUnit",
        "ignorePreviousPod": "Enabled", "ignoreTerminatingPod": "Disabled", "matchLabelKeys": ["pod-template-hash"],
        "whenTryNextUnits": { "policy": "LackResourceAndNoTerminating" },
        "units": [
            { "resource": "idc", "max": 3, "maxResources": { "cpu": "64" }, "nodeSelector": { "a": "b" } },
            { "resource": "acs", "podLabels": { "c": "d" }, "podAnnotations": { "e": "f" } },
        ],
    }]));
    assert_eq!(
        spec(&seen),
        json!({
            "selector": {}, "strategy": "prefer", "preemptPolicy": "BeforeNextUnit", "ignorePreviousPod": true,
            "ignoreTerminatingPod": false, "matchLabelKeys": ["pod-template-hash"],
            "whenTryNextUnits": { "policy": "LackResourceAndNoterminating" },
            "units": [
                { "resource": "idc", "max": 3, "maxResources": { "cpu": "64" }, "nodeSelector": { "a": "b" } },
                { "resource": "acs", "podLabels": { "c": "d" }, "podAnnotations": { "e": "f" } },
            ],
        })
    );
}

#[test]
fn a_timeout_takes_the_form_that_the_crd_wants() {
    let next = json!({ "policy": "TimeoutOrExceedMax", "timeoutSeconds": 300 });
    let mut seen = seen(json!([{ "name": "web", "namespaces": ["shop"], "whenTryNextUnits": next }]));
    assert_eq!(spec(&seen)["whenTryNextUnits"]["timeout"], "300s");
    let mut crd = crd();
    let timeout = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/whenTryNextUnits/properties/timeout";
    *crd.pointer_mut(timeout).unwrap() = json!({ "type": "integer" });
    seen.scheduling.crd = PolicyCrd::read(Some(&crd));
    assert_eq!(spec(&seen)["whenTryNextUnits"]["timeout"], 300);
}

#[test]
fn a_field_that_the_crd_lacks_is_left_out_and_said_and_comes_with_the_upgrade() {
    let policy = json!([{ "name": "web", "namespaces": ["shop"], "preemptPolicy": "BeforeNextUnit",
                          "units": [{ "resource": "ecs", "maxResources": { "cpu": "1" } }] }]);
    let mut seen = seen(policy);
    seen.scheduling.crd = PolicyCrd::read(Some(&without("/properties", "preemptPolicy")));
    assert!(spec(&seen).get("preemptPolicy").is_none());
    settle(&mut seen);
    let part = plan(&seen);
    let (state, message) = only(&part);
    assert_eq!(state, SchedulingState::LeftOut);
    assert!(
        message.contains("resourcePolicies[name=web].preemptPolicy") && message.contains("scheduler 6.1"),
        "{message}"
    );
    assert!(
        part.findings
            .iter()
            .any(|f| matches!(f, Finding::Event(note) if note.note == message))
    );
    seen.scheduling.crd = PolicyCrd::read(Some(&without(
        "/properties/units/items/properties",
        "maxResources",
    )));
    let written = spec(&seen);
    assert_eq!(written["preemptPolicy"], "BeforeNextUnit");
    assert_eq!(written["units"], json!([{ "resource": "ecs" }]));
}

#[test]
fn a_policy_without_what_it_needs_is_not_written_and_keeps_what_is_there() {
    let needs = |crd: Value, policy: Value| {
        let mut seen = seen(policy);
        settle(&mut seen);
        seen.scheduling.crd = PolicyCrd::read(Some(&crd));
        let part = plan(&seen);
        assert_eq!(part.steps, []);
        let (state, message) = only(&part);
        assert_eq!(state, SchedulingState::Unfit);
        message
    };
    let message = needs(without("/properties", "selector"), web());
    assert!(message.contains("selector can't be written"), "{message}");
    let message = needs(without("/properties", "units"), web());
    assert!(message.contains("units can't be written"), "{message}");
    let mut demanding = crd();
    demanding["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["required"] =
        json!(["units", "tenant"]);
    let message = needs(demanding, web());
    assert!(message.contains("tenant is required"), "{message}");
    let mut old = crd();
    let resource = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/units/items/properties/resource/enum";
    *old.pointer_mut(resource).unwrap() = json!(["ecs", "eci"]);
    let acs = json!([{ "name": "web", "namespaces": ["shop"], "units": [{ "resource": "ecs" }, { "resource": "acs" }] }]);
    let message = needs(old, acs);
    assert!(
        message.contains("units[1].resource") && message.contains("ecs, eci") && message.contains("6.7.1"),
        "{message}"
    );
}

#[test]
fn no_crd_is_said_only_to_who_needs_it() {
    for (policies, told) in [(web(), 1), (json!([]), 0)] {
        let mut seen = seen(policies);
        seen.scheduling.crd = PolicyCrd::read(None);
        seen.scheduling.policies = None;
        let part = plan(&seen);
        assert_eq!((part.steps.len(), states(&part).len()), (0, told));
        assert!(
            states(&part)
                .iter()
                .all(|(state, _)| *state == SchedulingState::CrdMissing)
        );
        seen.scheduling.crd = PolicyCrd::Unknown;
        assert!(
            states(&plan(&seen))
                .iter()
                .all(|(state, _)| *state == SchedulingState::Unknown)
        );
    }
}

#[test]
fn an_object_of_somebody_else_is_left_alone_and_named() {
    for labels in [json!({}), json!({ "virtualnodes.dev/pool": "burst" })] {
        let mut seen = seen(web());
        let foreign = PolicySeen::read(&json!({ "metadata": {
            "name": "burst.web", "namespace": "shop", "uid": "theirs", "labels": labels } }));
        seen.scheduling.policies = Some(Arc::new([(foreign.key.clone(), Arc::new(foreign))].into()));
        let part = plan(&seen);
        let (state, message) = only(&part);
        assert_eq!((state, part.steps.len()), (SchedulingState::Foreign, 0));
        assert!(message.contains("shop/burst.web"), "{message}");
        delete(&mut seen);
        assert_eq!(plan(&seen), Part::default(), "nor is it deleted with the pool");
    }
}

#[test]
fn namespaces_come_and_go() {
    let mut seen = seen(json!([{ "name": "web", "namespaces": ["shop", "later"] }]));
    settle(&mut seen);
    let (state, message) = only(&plan(&seen));
    assert!(
        state == SchedulingState::Pending && message.contains("later"),
        "{message}"
    );
    Arc::make_mut(&mut seen.namespaces).insert("later".into(), Default::default());
    assert_eq!(applies(&plan(&seen))[0].policy.to_string(), "later/burst.web");
    seen.scheduling.leaving = Arc::new(["shop".to_owned()].into());
    let part = plan(&seen);
    assert!(
        part.steps
            .iter()
            .any(|s| matches!(s, Step::DeletePolicy { policy, .. } if policy.namespace == "shop")),
        "{part:?}"
    );
    assert!(applies(&part).iter().all(|a| a.policy.namespace != "shop"));
}

#[test]
fn a_selector_that_is_none_is_said_and_changes_nothing() {
    let of = |operator: &str| {
        json!([{ "name": "web", "namespaceSelector": { "matchExpressions": [
            { "key": "tier", "operator": operator, "values": ["web"] }] } }])
    };
    let mut before = seen(of("In"));
    settle(&mut before);
    let mut after = seen(of("in"));
    after.scheduling = before.scheduling;
    let part = plan(&after);
    assert_eq!(only(&part).0, SchedulingState::Unfit);
    assert_eq!(part.steps, []);
}

#[test]
fn what_somebody_changed_is_written_again_and_what_they_added_is_not() {
    let broken: [fn(&mut PolicySeen); 5] = [
        |p| p.spec["units"][0]["resource"] = json!("idc"),
        |p| p.applied = None,
        |p| p.owners.clear(),
        |p| p.fields = None,
        |p| {
            drop(
                p.fields.as_mut().unwrap()["f:spec"]
                    .as_object_mut()
                    .unwrap()
                    .remove("f:units"),
            )
        },
    ];
    for damage in broken {
        let mut seen = seen(web());
        settle(&mut seen);
        change(&mut seen, damage);
        let part = plan(&seen);
        let [apply] = applies(&part)[..] else {
            panic!("{part:?}")
        };
        assert!(!apply.create);
        assert_eq!(apply.body["metadata"]["uid"], "uid-shop/burst.web");
    }
    let mut seen = seen(web());
    settle(&mut seen);
    change(&mut seen, |p| p.spec["theirs"] = json!(1));
    assert_eq!(plan(&seen), Part::default());
}

#[test]
fn a_policy_that_is_not_asked_for_any_more_goes() {
    let mut before = seen(web());
    settle(&mut before);
    let mut after = seen(json!([]));
    after.scheduling = before.scheduling.clone();
    let gone = |seen: &Observed| matches!(&plan(seen).steps[..], [Step::DeletePolicy { uid, .. }] if uid == "uid-shop/burst.web");
    assert!(gone(&after));
    change(&mut after, |p| p.deleting = true);
    assert_eq!(plan(&after).steps, [], "once");
    delete(&mut before);
    assert!(gone(&before), "and with the pool, accepted or not");
}

#[test]
fn a_pool_that_is_refused_writes_and_removes_nothing() {
    let mut asks = seen(web());
    assert_eq!(plan(&asks).steps.len(), 1);
    let part = plan_scheduling(&asks, false);
    assert_eq!(part.steps, []);
    assert_eq!(only(&part).0, SchedulingState::Pending);
    settle(&mut asks);
    let mut asks_no_more = seen(json!([]));
    asks_no_more.scheduling = asks.scheduling;
    assert_eq!(plan_scheduling(&asks_no_more, false).steps, []);
}

#[test]
fn what_a_refused_pool_would_write_waits_for_its_spec() {
    let seen = seen(web());
    for (may_write, ends) in [
        (true, " is to be written"),
        (false, " is to be written when the spec can be followed"),
    ] {
        let (state, message) = only(&plan_scheduling(&seen, may_write));
        assert_eq!(state, SchedulingState::Pending);
        assert!(message.ends_with(ends), "{message}");
    }
}

#[test]
fn a_pool_that_goes_evicts_nobody_before_its_policies_are_told_to_go() {
    let mut seen = seen(web());
    settle(&mut seen);
    bind(&mut seen, 0, vec![pod("a")]);
    delete(&mut seen);
    crate::testing::with_node(&mut seen, 0, crate::testing::set_our_cordon);
    let mut memory = seen.memory[&0].clone();
    memory.cordoned_since = Some(crate::testing::after(-60));
    seen.memory.insert(0, memory);
    let mut draining = (*seen.pool).clone();
    draining.status = serde_json::from_value(json!({ "drain": {
        "summary": "1/1", "podsTotal": 1, "podsRemaining": 1, "podsTerminating": 0, "podsBlocked": 0,
        "limitedBy": "Rate", "nodes": [{ "name": "virtual-node-eci-0", "uid": "node-0", "ordinal": 0,
        "phase": "Evicting", "startedAt": "2026-01-01T00:00:00Z", "recordons": 0, "podsTotal": 1, "podsRemaining": 1 }],
    } }))
    .unwrap();
    seen.pool = Arc::new(draining);
    let held = crate::plan(&seen, now());
    assert!(held.orders.is_empty());
    let deletes = held
        .tracks
        .iter()
        .filter(|t| t.kind == TrackKind::Policies)
        .count();
    assert_eq!(deletes, 1);
    change(&mut seen, |p| p.deleting = true);
    assert!(!crate::plan(&seen, now()).orders.is_empty(), "then it goes on");
}

#[test]
fn nothing_is_written_for_a_form_of_provider_that_is_not_served() {
    let mut seen = seen(web());
    let mut pool = (*seen.pool).clone();
    pool.spec.provider.type_ = vnp_crds::ProviderType::Addon;
    seen.pool = Arc::new(pool);
    assert_eq!(plan(&seen), Part::default());
}

proptest! {
    /// Whatever fields the installed CRD lacks, a second look finds everything in place, and nothing is written that the
    /// schema does not have.
    #[test]
    fn any_edition_of_the_crd_is_reached_in_one_write(
        lacking in proptest::sample::subsequence(
            vec!["strategy", "preemptPolicy", "ignorePreviousPod", "ignoreTerminatingPod", "matchLabelKeys", "whenTryNextUnits"], 0..6),
        unit_lacks in proptest::sample::subsequence(vec!["max", "maxResources", "nodeSelector", "podLabels", "podAnnotations"], 0..5),
    ) {
        let mut crd = crd();
        let spec = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
        spec["required"] = json!(["units"]);
        for field in &lacking {
            spec["properties"].as_object_mut().unwrap().remove(*field);
        }
        for field in &unit_lacks {
            spec["properties"]["units"]["items"]["properties"].as_object_mut().unwrap().remove(*field);
        }
        let mut seen = seen(json!([{
            "name": "web", "namespaces": ["shop"], "strategy": "prefer", "preemptPolicy": "BeforeNextUnit",
            "ignorePreviousPod": "Enabled", "ignoreTerminatingPod": "Disabled", "matchLabelKeys": ["a"],
            "whenTryNextUnits": { "policy": "ExceedMax" },
            "units": [{ "resource": "acs", "max": 1, "maxResources": { "cpu": "1" }, "nodeSelector": { "a": "b" },
                        "podLabels": { "a": "b" }, "podAnnotations": { "a": "b" } }],
        }]));
        seen.scheduling.crd = PolicyCrd::read(Some(&crd));
        settle(&mut seen);
        let part = plan(&seen);
        prop_assert_eq!(part.steps, []);
        let left = part.findings.iter().filter(|f| matches!(f, Finding::Scheduling { state: SchedulingState::LeftOut, .. }));
        prop_assert_eq!(left.count(), lacking.len() + unit_lacks.len());
        let key = ObjectKey { namespace: "shop".into(), name: "burst.web".into() };
        let written = seen.scheduling.policies.unwrap()[&key].spec.clone();
        // The server of these tests fills preemptPolicy in.
        for field in lacking.iter().filter(|f| **f != "preemptPolicy") {
            prop_assert!(written.get(field).is_none());
        }
        for field in &unit_lacks {
            prop_assert!(written["units"][0].get(field).is_none());
        }
    }
}

/// A policy of the API server changes the object on its way.
#[test]
fn a_policy_that_is_stored_otherwise_is_said_and_written_again_once_in_a_while() {
    use crate::testing::after;
    let mut seen = seen(web());
    let part = plan(&seen);
    let apply = applies(&part)[0].clone();
    let took = stored(&apply);
    let at = seen.clone();
    note_stored_policy(&mut seen.recall, &at, &apply, &took, now());
    assert!(seen.recall.policies_rewritten.is_empty());

    let mut otherwise = took;
    otherwise.spec["units"][0]["resource"] = json!("idc");
    note_stored_policy(&mut seen.recall, &at, &apply, &otherwise, now());
    seen.scheduling.policies = Some(Arc::new([(otherwise.key.clone(), Arc::new(otherwise))].into()));
    for (seconds, again) in [(1, false), (599, false), (600, true)] {
        seen.recall = crate::workload::remember(&seen, after(seconds));
        let part = plan(&seen);
        assert_eq!(!applies(&part).is_empty(), again, "after {seconds} s");
        assert_eq!(part.wake_at.is_some(), !again);
        let (state, message) = only(&part);
        assert_eq!(state, SchedulingState::Pending);
        assert!(
            message.contains("spec.units[0].resource \"idc\" -> \"ecs\""),
            "{message}"
        );
        assert!(part.findings.iter().any(|f| matches!(f, Finding::Stalled { .. })));
    }
    // Another wish is tried at once.
    seen.recall = crate::workload::remember(&seen, after(1));
    let mut pool = (*seen.pool).clone();
    pool.spec.scheduling.as_mut().unwrap().resource_policies[0]
        .selector
        .insert("tier".to_owned(), "web".to_owned());
    seen.pool = Arc::new(pool);
    assert_eq!(applies(&plan(&seen)).len(), 1);
}
