//! The MutatingWebhookConfiguration: whether it is ours and says what it should.

use serde_json::{Value, json};
use vnp_crds::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};

use crate::step::Step;

/// How our entries in it end. Entries of others are left alone, and so are those that others add.
const OURS: &str = ".virtualnodes.dev";

/// How the configuration in the cluster stands to the one wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No pool asks for it, and none of ours is there.
    NotAsked,
    /// It is asked for and not there.
    Absent,
    /// There is one of that name that is not ours.
    Foreign,
    /// Ours is there and says something else, or should not be there.
    Differs,
    /// It says what it should, and somebody added to our entries what an apply of ours does not take away.
    Amended,
    /// It says what it should.
    InPlace,
}

/// Compares. What the API server added by itself is no difference.
pub fn standing(there: Option<&Value>, wanted: Option<&Value>) -> Standing {
    match (there, wanted) {
        (None, None) => Standing::NotAsked,
        (None, Some(_)) => Standing::Absent,
        (Some(there), _) if !ours(there) => match wanted {
            Some(_) => Standing::Foreign,
            None => Standing::NotAsked,
        },
        (Some(_), None) => Standing::Differs,
        (Some(there), Some(wanted)) if says(there, wanted) => Standing::InPlace,
        (Some(there), Some(wanted)) if says(&without_amendments(there), wanted) => Standing::Amended,
        (Some(_), Some(_)) => Standing::Differs,
    }
}

/// Whether the object is one that we made.
pub fn ours(there: &Value) -> bool {
    there["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY
}

/// The installation that a configuration of ours calls, when it is not the one in `namespace`: each of two would overwrite
/// what the other wrote. One that calls a URL does not tell.
pub fn other_installation<'a>(there: &'a Value, namespace: &str) -> Option<&'a str> {
    entries(there)
        .filter(|entry| ours(there) && is_ours(entry))
        .filter_map(|entry| entry["clientConfig"]["service"]["namespace"].as_str())
        .find(|called| *called != namespace)
}

/// Whether the object trusts somebody in our entries: `caBundle` of each, as it is written.
pub fn bundles(there: &Value) -> impl Iterator<Item = &str> {
    entries(there)
        .filter(|entry| is_ours(entry))
        .map(|entry| entry["clientConfig"]["caBundle"].as_str().unwrap_or_default())
}

/// When we wrote it last.
pub fn written(there: &Value) -> Option<&str> {
    let managers = there["metadata"]["managedFields"].as_array()?;
    let mine = managers
        .iter()
        .find(|m| m["manager"] == FIELD_MANAGER && m["operation"] == "Apply")?;
    mine["time"].as_str()
}

pub(super) fn call_by_url(wanted: &mut Value, url: &str) {
    for entry in wanted["webhooks"].as_array_mut().into_iter().flatten() {
        if let Some(client) = entry["clientConfig"].as_object_mut() {
            client.remove("service");
            client.insert("url".to_owned(), json!(url));
        }
    }
}

pub(super) fn plan_configuration(
    standing: Standing,
    there: Option<&Value>,
    wanted: Option<Value>,
) -> Option<Step> {
    let text = |field: &str| {
        let value = there.and_then(|t| t["metadata"][field].as_str());
        value.unwrap_or_default().to_owned()
    };
    match (standing, wanted) {
        (Standing::Absent, Some(body)) => Some(Step::ApplyWebhook { create: true, body }),
        (Standing::Differs, Some(mut body)) => {
            // With the UID an apply to an object that has just gone makes no new one.
            body["metadata"]["uid"] = json!(text("uid"));
            Some(Step::ApplyWebhook { create: false, body })
        }
        (Standing::Differs, None) => Some(Step::DeleteWebhook {
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        }),
        _ => None,
    }
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object["webhooks"].as_array().into_iter().flatten()
}

fn is_ours(entry: &Value) -> bool {
    entry["name"].as_str().is_some_and(|name| name.ends_with(OURS))
}

fn says(there: &Value, wanted: &Value) -> bool {
    let metadata = |field: &str| includes(&there["metadata"][field], &wanted["metadata"][field]);
    let found = |name: &Value| entries(there).find(|entry| entry["name"] == *name);
    let left_over = |entry: &&Value| is_ours(entry) && !entries(wanted).any(|w| w["name"] == entry["name"]);
    metadata("labels")
        && metadata("annotations")
        && entries(wanted)
            .all(|w| found(&w["name"]).is_some_and(|entry| includes(entry, w) && selects(entry, w)))
        && !entries(there).any(|entry| left_over(&entry))
}

/// Selectors have to be the same: one with a requirement more selects less.
fn selects(there: &Value, wanted: &Value) -> bool {
    let same = |field: &str| includes(&wanted[field], &there[field]);
    same("namespaceSelector") && same("objectSelector")
}

/// Without what our field manager does not own in lists of which it owns single items: entries by our names, and conditions
/// of our entries.
fn without_amendments(there: &Value) -> Value {
    let managers = there["metadata"]["managedFields"].as_array();
    let mine = managers
        .into_iter()
        .flatten()
        .find(|m| m["manager"] == FIELD_MANAGER && m["operation"] == "Apply");
    let Some(owned) = mine.and_then(|m| m["fieldsV1"]["f:webhooks"].as_object()) else {
        return there.clone();
    };
    let key = |item: &Value| format!("k:{}", json!({ "name": item["name"] }));
    let mut ours = there.clone();
    if let Some(entries) = ours["webhooks"].as_array_mut() {
        entries.retain(|entry| !is_ours(entry) || owned.contains_key(&key(entry)));
        for entry in entries.iter_mut().filter(|entry| is_ours(entry)) {
            let conditions = owned.get(&key(entry)).map(|fields| &fields["f:matchConditions"]);
            if let (Some(conditions), Some(items)) = (conditions, entry["matchConditions"].as_array_mut()) {
                items.retain(|item| conditions.get(key(item)).is_some());
            }
        }
    }
    ours
}

/// Everything in `wanted` is in `there`, lists entry by entry. What is empty need not be there.
fn includes(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| includes(there.get(key).unwrap_or(&Value::Null), value)),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(t, w)| includes(t, w))
        }
        (Value::Null, Value::Object(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "virtualnodepool-affinity", "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
            "webhooks": [
                {"name": "rules.affinity.virtualnodes.dev", "objectSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}},
                 "clientConfig": {"service": {"name": "s", "namespace": "n"}, "caBundle": "QQ=="},
                 "rules": [{"operations": ["CREATE"], "resources": ["pods"]}]},
            ],
        })
    }

    /// As the API server shows it.
    fn stored() -> Value {
        let mut there = wanted();
        there["metadata"]["uid"] = json!("u");
        there["metadata"]["resourceVersion"] = json!("7");
        there["metadata"]["managedFields"] = json!([
            {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z"},
            {"manager": FIELD_MANAGER, "operation": "Apply", "time": "2026-11-01T00:00:00Z"},
        ]);
        there["webhooks"][0]["matchPolicy"] = json!("Equivalent");
        there["webhooks"][0]["rules"][0]["scope"] = json!("*");
        there["webhooks"][0]["clientConfig"]["service"]["port"] = json!(443);
        there
    }

    fn step(there: Option<Value>, wanted: Option<Value>) -> (Standing, Option<Step>) {
        let standing = standing(there.as_ref(), wanted.as_ref());
        (standing, plan_configuration(standing, there.as_ref(), wanted))
    }

    #[test]
    fn defaults_of_the_server_and_entries_of_others_are_no_difference() {
        assert_eq!(step(Some(stored()), Some(wanted())), (Standing::InPlace, None));
        let mut shared = stored();
        let foreign = json!({"name": "other.example.com"});
        shared["webhooks"].as_array_mut().unwrap().insert(0, foreign);
        assert_eq!(standing(Some(&shared), Some(&wanted())), Standing::InPlace);
    }

    #[test]
    fn any_change_of_ours_is_applied_with_the_uid() {
        let changes: [fn(&mut Value); 6] = [
            |t| t["webhooks"][0]["namespaceSelector"]["matchLabels"]["more"] = json!("x"),
            |t| t["webhooks"][0]["clientConfig"]["caBundle"] = json!("Qg=="),
            |t| t["webhooks"][0]["namespaceSelector"]["matchLabels"]["a"] = json!("c"),
            |t| t["webhooks"][0]["rules"] = json!([]),
            |t| t["webhooks"] = json!([]),
            |t| {
                let more = json!({"name": "old.affinity.virtualnodes.dev"});
                t["webhooks"].as_array_mut().unwrap().push(more);
            },
        ];
        for change in changes {
            let mut there = stored();
            change(&mut there);
            let (standing, step) = step(Some(there), Some(wanted()));
            assert_eq!(standing, Standing::Differs);
            let Some(Step::ApplyWebhook { create: false, body }) = step else {
                panic!("{step:?}");
            };
            assert_eq!(body["metadata"]["uid"], "u");
        }
    }

    /// An apply takes away what it had set itself, and leaves what others put beside it.
    #[test]
    fn what_others_added_to_our_entries_is_told_from_what_we_mend() {
        let mut there = stored();
        there["webhooks"][0]["matchConditions"] = json!([{"name": "a", "expression": "true"}]);
        let mut body = wanted();
        body["webhooks"][0]["matchConditions"] = json!([{"name": "a", "expression": "true"}]);
        let name = there["webhooks"][0]["name"].clone();
        let own = json!({ (format!("k:{}", json!({"name": name}))): {
            "f:matchConditions": { "k:{\"name\":\"a\"}": {}, "k:{\"name\":\"old\"}": {} } } });
        let managers = there["metadata"]["managedFields"].as_array_mut().unwrap();
        managers
            .iter_mut()
            .find(|m| m["manager"] == FIELD_MANAGER)
            .unwrap()["fieldsV1"] = json!({ "f:webhooks": own });
        let off = |name: &str| json!({"name": name, "expression": "false"});
        assert_eq!(standing(Some(&there), Some(&body)), Standing::InPlace);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut there = there.clone();
            change(&mut there);
            step(Some(there), Some(body.clone()))
        };
        let conditions = |t: &mut Value, name: &str| {
            t["webhooks"][0]["matchConditions"]
                .as_array_mut()
                .unwrap()
                .push(off(name));
        };
        assert_eq!(with(&|t| conditions(t, "off")), (Standing::Amended, None));
        assert_eq!(with(&|t| conditions(t, "old")).0, Standing::Differs);
        let entry = json!({"name": "mine.virtualnodes.dev"});
        let entries = |t: &mut Value| t["webhooks"].as_array_mut().unwrap().push(entry.clone());
        assert_eq!(with(&entries), (Standing::Amended, None));
        let both = |t: &mut Value| {
            conditions(t, "off");
            t["webhooks"][0]["clientConfig"]["caBundle"] = json!("Qg==");
        };
        assert_eq!(with(&both).0, Standing::Differs);
    }

    #[test]
    fn it_is_made_and_removed_as_asked() {
        let (standing, made) = step(None, Some(wanted()));
        assert_eq!(standing, Standing::Absent);
        assert!(matches!(made, Some(Step::ApplyWebhook { create: true, .. })));
        let gone = Step::DeleteWebhook {
            uid: "u".into(),
            resource_version: "7".into(),
        };
        assert_eq!(step(Some(stored()), None), (Standing::Differs, Some(gone)));
        assert_eq!(step(None, None), (Standing::NotAsked, None));
    }

    #[test]
    fn an_object_of_somebody_else_is_not_touched() {
        let mut foreign = stored();
        foreign["metadata"]["labels"] = json!({"app": "other"});
        assert_eq!(
            step(Some(foreign.clone()), Some(wanted())),
            (Standing::Foreign, None)
        );
        assert_eq!(step(Some(foreign), None), (Standing::NotAsked, None));
    }

    #[test]
    fn what_it_trusts_and_since_when_is_read() {
        assert_eq!(bundles(&stored()).collect::<Vec<_>>(), ["QQ=="]);
        assert_eq!(written(&stored()), Some("2026-11-01T00:00:00Z"));
        assert_eq!(written(&wanted()), None);
    }

    #[test]
    fn a_url_takes_the_place_of_the_service() {
        let mut by_url = wanted();
        call_by_url(&mut by_url, "https://127.0.0.1:9443/mutate");
        assert_eq!(
            by_url["webhooks"][0]["clientConfig"],
            json!({"caBundle": "QQ==", "url": "https://127.0.0.1:9443/mutate"})
        );
        let mut there = by_url.clone();
        assert_eq!(standing(Some(&there), Some(&by_url)), Standing::InPlace);
        there["webhooks"][0]["clientConfig"]["url"] = json!("https://127.0.0.1:1/mutate");
        assert_eq!(standing(Some(&there), Some(&by_url)), Standing::Differs);
    }
}
