//! Entries of the key `selectors` in a ConfigMap that others write too.

use super::*;
use crate::finding::Finding;

const FOREIGN: &str = "[ {\"name\": \"x\"} ,\n {\"name\":\"y\", \"effect\": {}}]";

fn ruled(names: &[&str]) -> Value {
    let rule = |name: &&str| json!({ "name": name, "mode": "Require", "podSelector": { "matchLabels": { "a": name } } });
    json!({ "spec": { "placement": { "rules": names.iter().map(rule).collect::<Vec<_>>() } } })
}

fn with_selectors(text: Option<&str>, pool: PoolInCluster) -> Cluster {
    let mut data = basic();
    if let Some(text) = text {
        data["selectors"] = json!(text);
    }
    let mut cluster = Cluster::with(Some(data));
    cluster.pools = vec![pool];
    cluster.settle();
    cluster
}

fn text(cluster: &Cluster) -> Option<String> {
    cluster.data()["selectors"].as_str().map(str::to_owned)
}

fn names(cluster: &Cluster) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(&text(cluster).unwrap()).unwrap();
    let name = |entry: &Value| entry["name"].as_str().unwrap().to_owned();
    list.iter().map(name).collect()
}

#[test]
fn rules_come_and_go_and_the_rest_keeps_its_bytes() {
    for original in [Some(FOREIGN), Some("[]"), Some(""), Some(" \n"), None] {
        let mut cluster = with_selectors(original, acting(ruled(&["a", "b"])));
        let there = names(&cluster);
        assert!(
            there.ends_with(&["burst.a".to_owned(), "burst.b".to_owned()]),
            "{there:?}"
        );
        if original == Some(FOREIGN) {
            assert!(text(&cluster).unwrap().starts_with(FOREIGN.trim_end_matches(']')));
        }
        cluster.pools[0].pool = Arc::new(pool(ruled(&["b", "a"])));
        cluster.settle();
        assert!(names(&cluster).ends_with(&["burst.b".to_owned(), "burst.a".to_owned()]));
        cluster.pools[0].pool = Arc::new(pool(json!({})));
        cluster.settle();
        assert_eq!(text(&cluster).as_deref(), original);
        assert!(!cluster.record().unwrap_or_default().contains("selectors"));
    }
}

#[test]
fn what_is_written_is_said() {
    let mut cluster = Cluster::with(Some(basic()));
    cluster.pools = vec![acting(ruled(&["a"]))];
    let pending = format!("{:?}", profile_findings(&seen_by(&cluster, 0)));
    assert!(pending.contains("selector burst.a is absent"), "{pending}");
    assert_eq!(cluster.pass(), ["eci-profile selector burst.a set"]);
    assert_eq!(profile_findings(&seen_by(&cluster, 0)), []);
    cluster.pools[0].pool = Arc::new(pool(json!({})));
    assert_eq!(cluster.pass(), ["eci-profile selector burst.a removed"]);
}

#[test]
fn a_pool_that_goes_takes_its_entries_first() {
    for policy in ["Drain", "Retain"] {
        let mut cluster = with_selectors(Some(FOREIGN), acting(ruled(&["a"])));
        assert!(cluster.record().unwrap().contains(r#""selectors":["burst.a"]"#));
        cluster.pools[0].pool = Arc::new(pool(merged(ruled(&["a"]), deleted(policy))));
        assert!(!released(&seen_by(&cluster, 0)), "{policy}");
        cluster.pass();
        assert_eq!(
            text(&cluster).as_deref(),
            Some(FOREIGN),
            "{policy}: before the drain is over"
        );
    }
}

#[test]
fn a_paused_or_refused_pool_keeps_its_entries() {
    let mut cluster = with_selectors(Some(FOREIGN), acting(ruled(&["a"])));
    let before = text(&cluster);
    cluster.pools[0].pool = Arc::new(pool(json!({ "spec": { "paused": true } })));
    cluster.settle();
    assert_eq!(text(&cluster), before);
    cluster.pools[0].pool = Arc::new(pool(json!({})));
    cluster.pools[0].accepted = false;
    cluster.settle();
    assert_eq!(text(&cluster), before);
}

#[test]
fn an_entry_of_somebody_else_with_our_name_is_left() {
    let theirs = r#"[{"name":"burst.a","effect":{}}]"#;
    let cluster = with_selectors(Some(theirs), acting(ruled(&["a"])));
    assert_eq!(text(&cluster).as_deref(), Some(theirs));
    let findings = profile_findings(&seen_by(&cluster, 0));
    let told = |f: &Finding| format!("{f:?}").contains("selector burst.a is there and not ours");
    assert!(findings.iter().any(told), "{findings:?}");
}

#[test]
fn a_list_that_can_not_be_read_is_left() {
    let broken = "[ # comment\n]";
    let cluster = with_selectors(Some(broken), acting(ruled(&["a"])));
    assert_eq!(text(&cluster).as_deref(), Some(broken));
    let findings = format!("{:?}", profile_findings(&seen_by(&cluster, 0)));
    assert!(
        findings.contains("ProfileUnreadable") && !findings.contains("Pending"),
        "{findings}"
    );
}

#[test]
fn an_entry_that_somebody_changes_comes_back_until_it_is_a_fight() {
    let mut cluster = with_selectors(Some(FOREIGN), acting(ruled(&["a"])));
    let right = text(&cluster);
    for minute in 0..4 {
        let profile = cluster.profile.as_mut().unwrap();
        profile["data"]["selectors"] = json!(FOREIGN);
        profile["metadata"]["managedFields"] = json!([{
            "manager": "helm", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": format!("2026-03-01T00:0{minute}:00Z"), "fieldsV1": { "f:data": { "f:selectors": {} } },
        }]);
        let plan = plan_profile(&cluster.observed());
        for seen in plan.set_back {
            cluster
                .set_back
                .entry(seen.path)
                .or_default()
                .push((seen.at, seen.manager));
        }
        cluster.pass();
        if minute < 1 {
            assert_eq!(text(&cluster), right);
        }
    }
    assert_eq!(text(&cluster).as_deref(), Some(FOREIGN));
    let mut seen = seen_by(&cluster, 0);
    seen.recall.profile_set_back = cluster.set_back.clone();
    let findings = format!("{:?}", profile_findings(&seen));
    assert!(
        findings.contains("FieldContested") && findings.contains("helm"),
        "{findings}"
    );
}
