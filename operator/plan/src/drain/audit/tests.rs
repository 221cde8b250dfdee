use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::record::Look;
use super::trail::{BYTES, NODES};
use super::*;
use crate::drain::{Holds, plan_drain};
use crate::observed::{BoundPod, Observed, PodPhase};
use crate::pass;
use crate::plan::TrackKind;
use crate::testing::{after, bind, node, now, observed, pod, pool, set_our_cordon, with_node, workload};

const KEY: &str = "virtual-node-eci-2.node-2.json";

/// Node 2 of 3 drains: cordoned for long enough, in the status since [`now`].
fn draining(drain: Value) -> Observed {
    let mut seen = observed(pool(json!({ "replicas": 2 })), 3);
    with_node(&mut seen, 2, set_our_cordon);
    if let Some(memory) = seen.memory.get_mut(&2) {
        memory.cordoned_since = Some(after(-60));
    }
    report(&mut seen, drain, json!([]));
    seen
}

fn report(seen: &mut Observed, drain: Value, retired: Value) {
    let mut entry = json!({
        "name": "virtual-node-eci-2", "uid": "node-2", "ordinal": 2, "phase": "Evicting", "startedAt": now().to_string(),
        "recordons": 0, "podsTotal": 3, "podsRemaining": 3,
    });
    json_patch::merge(&mut entry, &drain);
    let mut pool = (*seen.pool).clone();
    pool.status = Some(
        serde_json::from_value(json!({
            "provider": { "type": "StatefulSet", "registered": [0, 1, 2], "retired": retired },
            "drain": {
                "summary": "0/3", "podsTotal": 3, "podsRemaining": 3, "podsTerminating": 0, "podsBlocked": 0,
                "limitedBy": "Rate", "blockers": [], "nodes": [entry],
            },
        }))
        .unwrap(),
    );
    seen.pool = Arc::new(pool);
}

fn emptied() -> Value {
    json!({ "phase": "Emptying", "emptySince": after(30).to_string(), "podsRemaining": 0 })
}

fn plan(seen: &Observed) -> DrainPlan {
    let workload = seen
        .workload
        .there()
        .cloned()
        .unwrap_or_else(|| Arc::new(workload(0)));
    plan_drain(seen, &workload, 2, &Holds::default(), after(40))
}

/// Carries out what is to be recorded, as the API server would.
fn written(seen: &mut Observed) -> bool {
    let steps = plan(seen).audit;
    let mut map = as_map(seen.audit.as_deref().unwrap());
    for step in &steps {
        let Step::RecordAudit(patch) = step else {
            panic!("{step:?}")
        };
        assert_eq!(
            patch.config_map.to_string(),
            "virtualnodepool-system/vnp-audit-burst"
        );
        assert_eq!(patch.resource_version, map.metadata.resource_version);
        apply(&mut map, &patch.data);
    }
    seen.audit = Some(Arc::new(Trail::read(&map)));
    !steps.is_empty()
}

fn apply(map: &mut ConfigMap, changes: &std::collections::BTreeMap<String, Option<String>>) {
    let data = map.data.get_or_insert_default();
    for (key, value) in changes {
        match value {
            Some(text) => drop(data.insert(key.clone(), text.clone())),
            None => drop(data.remove(key)),
        }
    }
    map.metadata.resource_version = Some("7".to_owned());
}

fn as_map(trail: &Trail) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.resource_version.clone_from(&trail.resource_version);
    let ours = trail
        .records
        .iter()
        .map(|(key, record)| (key.clone(), serde_json::to_string(record).unwrap()));
    let theirs = trail
        .foreign
        .iter()
        .map(|(key, size)| (key.clone(), "x".repeat(size - key.len())));
    map.data = Some(ours.chain(theirs).collect());
    map
}

/// `name ended` of each pod of the record.
fn ends(seen: &Observed) -> Vec<String> {
    let record = &seen.audit.as_deref().unwrap().records[KEY];
    let ended = |p: &PodRecord| p.ended.map_or("bound".to_owned(), |e| format!("{e:?}"));
    record
        .pods
        .iter()
        .map(|p| format!("{} {}", p.pod, ended(p)))
        .collect()
}

fn see_gone(seen: &mut Observed, change: impl FnOnce(&mut BoundPod), name: &str) {
    let mut pod = pod(name);
    change(&mut pod);
    seen.memory.get_mut(&2).unwrap().witness.see_gone(&pod, after(20));
}

#[test]
fn what_is_bound_is_recorded_with_the_first_order_and_how_it_ended_at_the_end() {
    let mut seen = draining(json!({}));
    bind(&mut seen, 2, vec![pod("a"), pod("b"), pod("c"), pod("d")]);
    let first = plan(&seen);
    assert_eq!(
        (first.orders.len(), first.audit.len()),
        (1, 1),
        "in the same pass"
    );
    assert!(written(&mut seen));
    assert_eq!(
        ends(&seen),
        ["shop/a bound", "shop/b bound", "shop/c bound", "shop/d bound"]
    );
    // Pods that go are not written one by one.
    see_gone(&mut seen, |p| p.evicted = true, "a");
    see_gone(&mut seen, |p| p.before_deletion = Some(PodPhase::Succeeded), "b");
    bind(&mut seen, 2, vec![pod("c"), pod("d")]);
    assert!(!written(&mut seen));
    see_gone(&mut seen, |_| (), "c");
    bind(&mut seen, 2, Vec::new());
    report(&mut seen, emptied(), json!([]));
    assert!(written(&mut seen));
    assert_eq!(
        ends(&seen),
        [
            "shop/a Evicted",
            "shop/b Finished",
            "shop/c Deleted",
            "shop/d Unknown"
        ]
    );
    assert!(!written(&mut seen), "it is written once");
    let record = serde_json::to_value(&seen.audit.as_deref().unwrap().records[KEY]).unwrap();
    assert_eq!(record["emptiedAt"], "2027-01-15T08:00:30Z");
    assert_eq!(record["podsTotal"], 4);
    assert_eq!(
        record["pods"][0],
        json!({"pod": "shop/a", "uid": "uid-a", "instance": "eci-a", "ended": "Evicted", "at": "2027-01-15T08:00:20Z"})
    );
}

#[test]
fn what_arrives_later_is_added_and_an_instance_that_gets_its_id_too() {
    let mut seen = draining(json!({}));
    let mut starting = pod("a");
    starting.instance_id = None;
    bind(&mut seen, 2, vec![starting]);
    assert!(written(&mut seen));
    bind(&mut seen, 2, vec![pod("a"), pod("late")]);
    assert!(written(&mut seen));
    let pods = &seen.audit.as_deref().unwrap().records[KEY].pods;
    assert_eq!(pods[0].instance.as_deref(), Some("eci-a"));
    assert_eq!(ends(&seen), ["shop/a bound", "shop/late bound"]);
}

#[test]
fn a_node_that_registers_again_keeps_its_record_under_its_new_uid() {
    let mut seen = draining(json!({}));
    bind(&mut seen, 2, vec![pod("a")]);
    assert!(written(&mut seen));
    with_node(&mut seen, 2, |n| n.uid = "node-2-again".to_owned());
    bind(&mut seen, 2, vec![pod("b")]);
    assert!(written(&mut seen));
    let records = &seen.audit.as_deref().unwrap().records;
    assert_eq!(
        records.keys().collect::<Vec<_>>(),
        ["virtual-node-eci-2.node-2-again.json"]
    );
    assert_eq!(records.values().next().unwrap().pods.len(), 2);
    assert!(!written(&mut seen));
}

#[test]
fn another_drain_of_the_same_node_begins_another_record() {
    let mut seen = draining(json!({}));
    bind(&mut seen, 2, vec![pod("a")]);
    assert!(written(&mut seen));
    // Cancelled, `a` moved away in peace, drained again.
    bind(&mut seen, 2, vec![pod("b")]);
    report(
        &mut seen,
        json!({ "startedAt": after(20).to_string() }),
        json!([]),
    );
    assert!(written(&mut seen));
    assert_eq!(ends(&seen), ["shop/b bound"]);
}

#[test]
fn what_is_bound_to_a_node_that_is_given_up_is_recorded_as_abandoned() {
    let mut seen = draining(json!({}));
    bind(&mut seen, 2, vec![pod("a"), pod("b")]);
    assert!(written(&mut seen));
    bind(&mut seen, 2, vec![pod("b")]);
    see_gone(&mut seen, |p| p.evicted = true, "a");
    let mut pool = (*seen.pool).clone();
    pool.metadata.annotations = Some(
        [(
            vnp_crds::ABANDON_ANNOTATION.to_owned(),
            "virtual-node-eci-2/node-2".to_owned(),
        )]
        .into(),
    );
    seen.pool = Arc::new(pool);
    assert!(written(&mut seen));
    assert_eq!(ends(&seen), ["shop/a Evicted", "shop/b Abandoned"]);
    assert!(!written(&mut seen));
}

#[test]
fn a_node_without_pods_a_paused_pool_and_an_unknown_trail_write_nothing() {
    let mut seen = draining(emptied());
    assert!(plan(&seen).audit.is_empty(), "no pod was ever on it");
    bind(&mut seen, 2, vec![pod("a")]);
    let audit = |seen: &Observed| {
        let tracks = pass::plan(seen, after(40)).tracks;
        tracks.into_iter().any(|t| t.kind == TrackKind::Audit)
    };
    assert!(audit(&seen));
    let mut paused = seen.clone();
    let mut pool = (*paused.pool).clone();
    pool.spec.paused = true;
    paused.pool = Arc::new(pool);
    assert!(!audit(&paused));
    seen.audit = None;
    assert!(!audit(&seen));
}

/// Node 2 is empty, its provider is gone; `held` seconds ago that was reported.
fn removable(held: i64) -> Observed {
    let mut seen = draining(emptied());
    seen.workload = workload(2).into();
    seen.provider_pods.remove(&2);
    let retired = json!([{ "ordinal": 2, "nodeUid": "node-2", "time": after(40 - held).to_string(), "abandoned": false }]);
    report(&mut seen, emptied(), retired);
    let live = crate::proof::LiveFacts {
        list: crate::proof::QuorumList::complete(
            after(39),
            crate::proof::ListAnswer {
                resource_version: Some("1".to_owned()),
                ..crate::proof::ListAnswer::default()
            },
        )
        .unwrap(),
        pool: seen.pool.clone(),
        workload: seen.workload.there().cloned(),
        node: seen.nodes.get(&2).cloned(),
        provider_pod: None,
        unclaimed: None,
    };
    seen.live.insert(2, live);
    see_gone(&mut seen, |_| (), "a");
    seen
}

fn deletes(plan: &DrainPlan) -> bool {
    let delete = Step::DeleteNode {
        node: node(2).name,
        uid: node(2).uid,
    };
    plan.steps.contains(&delete)
}

#[test]
fn a_node_goes_after_its_record_and_not_for_ever_after() {
    let mut seen = removable(5);
    let waiting = plan(&seen);
    assert!(!deletes(&waiting) && waiting.audit.len() == 1);
    assert_eq!(waiting.wake_at, Some(after(40 - 5 + 60)));
    let refused = plan(&removable(60));
    assert!(
        deletes(&refused) && refused.audit.len() == 1,
        "a refusal that lasts holds nothing"
    );
    assert!(written(&mut seen));
    assert!(deletes(&plan(&seen)));
    // A trail that can't be read is waited for as long.
    seen.audit = None;
    assert!(!deletes(&plan(&seen)));
    let mut unread = removable(60);
    unread.audit = None;
    assert!(deletes(&plan(&unread)));
}

fn look<'a>(
    name: &'a str,
    uid: &'a str,
    bound: Vec<&'a BoundPod>,
    left: &'a Witness,
    started: Timestamp,
) -> Look<'a> {
    Look {
        node: name,
        uid,
        ordinal: 0,
        pool: "burst",
        started_at: started,
        emptied_at: None,
        abandoned: false,
        bound,
        left: left.left(),
        now: now(),
    }
}

/// A ConfigMap with records of `past` nodes with so many pods, and a key of somebody else.
fn trail(past: &[usize], padding: usize, foreign: usize) -> Trail {
    let mut trail = Trail {
        resource_version: Some("1".to_owned()),
        ..Trail::default()
    };
    for (index, pods) in past.iter().enumerate() {
        let pods: Vec<BoundPod> = (0..*pods).map(|n| large(100 + index, n, padding)).collect();
        let uid = format!("old-{index}");
        let witness = Witness::default();
        let started = after(-1000 - i64::try_from(index).unwrap());
        let record = look("n", &uid, pods.iter().collect(), &witness, started).over(None);
        trail.records.insert(record.key(), record);
    }
    if foreign > 0 {
        trail
            .foreign
            .insert("theirs".to_owned(), foreign + "theirs".len());
    }
    trail
}

fn size(map: &ConfigMap) -> usize {
    map.data.iter().flatten().map(|(k, v)| k.len() + v.len()).sum()
}

#[derive(Clone, Debug)]
struct Draining {
    bound: Vec<usize>,
    left: Vec<usize>,
    recorded: usize,
    started: i64,
    emptied: bool,
    abandoned: bool,
}

fn nodes() -> impl Strategy<Value = Vec<Draining>> {
    // A few hundred pods with long names fill the ConfigMap.
    let node = (
        proptest::collection::vec(0..40_usize, 0..30),
        proptest::collection::vec(0..40_usize, 0..30),
        0..40_usize,
        0..3_i64,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(bound, left, recorded, started, emptied, abandoned)| Draining {
            bound,
            left,
            recorded,
            started,
            emptied,
            abandoned,
        });
    proptest::collection::vec(node, 1..8)
}

#[test]
fn a_cancelled_drain_makes_room_before_a_node_that_went() {
    let none = Witness::default();
    let record = |uid: &str, started: i64, emptied: bool| {
        let look = Look {
            emptied_at: emptied.then(|| after(started + 9)),
            ..look("n", uid, Vec::new(), &none, after(started))
        };
        look.over(None)
    };
    let mut trail = Trail::default();
    for record in [record("gone", -1_000, true)]
        .into_iter()
        .chain((0..4).map(|n| record(&format!("cancelled-{n}"), -100 + n, false)))
    {
        trail.records.insert(record.key(), record);
    }
    let changes = trail.changes(vec![record("now", 0, false)], &[]);
    let removed: Vec<&str> = changes
        .iter()
        .filter(|(_, v)| v.is_none())
        .map(|(k, _)| k.as_str())
        .collect();
    assert_eq!(removed, ["n.cancelled-0.json"]);
}

/// A pod that stands for many: its name is as long as their records.
fn large(node: usize, n: usize, padding: usize) -> BoundPod {
    pod(&format!("{node}-{n}-{}", "x".repeat(padding)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever there is: what is written leaves at most five nodes and 900 KiB with what others keep there, the newest
    /// among them, others' keys as they were, and a second look at the result changes nothing (P4, P6). Where nothing is
    /// to be written, a map that others made larger stays as it is.
    #[test]
    fn the_newest_nodes_stay_within_their_bounds(
        draining in nodes(),
        past in proptest::collection::vec(0..40_usize, 0..7),
        foreign in 0..600_000_usize,
        padding in 0..12_000_usize,
    ) {
        let mut trail = trail(&past, padding / 3, foreign);
        let pods: Vec<(Vec<BoundPod>, Witness, Vec<BoundPod>)> = draining
            .iter()
            .enumerate()
            .map(|(node, d)| {
                // A pod that left is not bound.
                let left: BTreeSet<usize> = d.left.iter().copied().collect();
                let bound: BTreeSet<usize> = d.bound.iter().copied().filter(|n| !left.contains(n)).collect();
                let mut witness = Witness::default();
                for n in &left {
                    witness.see_gone(&large(node, *n, padding), now());
                }
                let recorded = (0..d.recorded).map(|n| large(node, n, padding)).collect();
                (bound.iter().map(|n| large(node, *n, padding)).collect(), witness, recorded)
            })
            .collect();
        let uid = |node: usize| format!("uid-{node}");
        let started = |node: usize| after(draining[node].started);
        let uids: Vec<String> = (0..draining.len()).map(uid).collect();
        let first = Witness::default();
        for (node, (_, _, recorded)) in pods.iter().enumerate().filter(|(_, p)| !p.2.is_empty()) {
            let record = look("n", &uids[node], recorded.iter().collect(), &first, started(node)).over(None);
            trail.records.insert(record.key(), record);
        }
        let quick = std::cell::Cell::new(true);
        let records = |trail: &Trail| -> Vec<NodeRecord> {
            pods.iter()
                .enumerate()
                .map(|(node, (bound, witness, _))| {
                    let look = Look {
                        emptied_at: (draining[node].emptied && bound.is_empty()).then(|| after(9)),
                        abandoned: draining[node].abandoned,
                        ..look("n", &uids[node], bound.iter().collect(), witness, started(node))
                    };
                    let before = trail.records.get(&format!("n.{}.json", uids[node]));
                    let record = look.over(before);
                    let said = before.is_none_or(|b| {
                        let pods_left_out = b.pods_left_out;
                        !look.adds_nothing(b) || *b == NodeRecord { pods_left_out, ..record.clone() }
                    });
                    quick.set(quick.get() && said);
                    record
                })
                .collect()
        };
        let wanted = records(&trail);
        let mut map = as_map(&trail);
        let theirs = map.data.as_ref().and_then(|d| d.get("theirs")).cloned();
        let changes = trail.changes(wanted.clone(), &[]);
        apply(&mut map, &changes);
        let data = map.data.clone().unwrap_or_default();
        let written = !changes.is_empty();
        prop_assert!(!written || size(&map) <= BYTES, "{} bytes", size(&map));
        prop_assert_eq!(data.get("theirs").cloned(), theirs);
        let kept = Trail::read(&map);
        prop_assert!(!written || kept.records.len() <= NODES);
        let newest = wanted.iter().map(|r| r.started_at.0).max();
        let drains: Vec<&NodeRecord> = wanted.iter().filter_map(|r| kept.records.get(&r.key())).collect();
        prop_assert_eq!(drains.iter().map(|r| r.started_at.0).max(), newest);
        for record in &drains {
            prop_assert_eq!(record.pods.len() + record.pods_left_out, record.pods_total);
        }
        prop_assert_eq!(kept.changes(records(&kept), &[]), std::collections::BTreeMap::new());
        prop_assert!(quick.get(), "the quick answer is another one than the long way's");
    }
}

#[test]
fn three_thousand_pods_fit_and_push_out_what_is_old() {
    let pods: Vec<BoundPod> = (0..3000)
        .map(|n| pod(&format!("checkout-6f7d8c9b5-{n:05}")))
        .collect();
    let trail = trail(&[6000, 5000, 10], 0, 0);
    let witness = Witness::default();
    let record = look("n", "new", pods.iter().collect(), &witness, now()).over(None);
    let mut map = as_map(&trail);
    apply(&mut map, &trail.changes(vec![record], &[]));
    let kept = Trail::read(&map);
    let counts: Vec<(&str, usize, usize)> = kept
        .records
        .values()
        .map(|r| (r.uid.as_str(), r.pods.len(), r.pods_left_out))
        .collect();
    assert_eq!(
        counts,
        [("new", 3000, 0), ("old-0", 6000, 0)],
        "the oldest goes although it is small"
    );
}

#[test]
fn what_is_no_record_of_ours_is_left_alone() {
    let record = r#"{"node":"n","uid":"u","ordinal":1,"pool":"burst","startedAt":"2026-11-01T00:00:00Z","podsTotal":0,"pods":[]}"#;
    let map = ConfigMap {
        data: Some(
            [("n.u.json", record), ("n.other.json", record), ("note", "mine")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        ),
        binary_data: Some([("raw".to_owned(), ByteString(vec![0; 10]))].into()),
        ..ConfigMap::default()
    };
    let trail = Trail::read(&map);
    assert_eq!(trail.records.keys().collect::<Vec<_>>(), ["n.u.json"]);
    assert_eq!(trail.foreign["raw"], 13);
    assert_eq!(trail.foreign.len(), 3);
}
