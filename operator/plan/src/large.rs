//! A pass over a pool as large as they get: it must be over long before the next change, or the status goes stale and
//! orders come late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;

use crate::observed::{Budget, ObjectKey, Observed};
use crate::pass::plan;
use crate::plan::TrackKind;
use crate::testing::{after, bind, now, observed, pod, pool, set_our_cordon, with_node};

const NODES: i32 = 4;
const PODS: usize = 3_000;
const BUDGETS: usize = 300;

/// Four nodes that drain at once, 3,000 pods each, ten of them under each of 300 budgets of one namespace.
fn large() -> Observed {
    let spec = json!({ "replicas": 0, "drain": { "maxConcurrentNodes": NODES } });
    let mut seen = observed(pool(spec), NODES);
    for ordinal in 0..NODES {
        with_node(&mut seen, ordinal, set_our_cordon);
        seen.memory.entry(ordinal).or_default().cordoned_since = Some(after(-60));
        let pods = (0..PODS).map(|n| {
            let mut pod = pod(&format!("web-{ordinal}-{n}"));
            pod.labels.insert("app".into(), format!("app-{}", n % BUDGETS));
            pod
        });
        bind(&mut seen, ordinal, pods.collect());
    }
    let budget = |n: usize| {
        let labels = BTreeMap::from([("app".to_owned(), format!("app-{n}"))]);
        Budget {
            key: ObjectKey {
                namespace: "shop".into(),
                name: format!("budget-{n}"),
            },
            selector: Some(LabelSelector {
                match_labels: Some(labels),
                match_expressions: None,
            }),
            allowed: i32::try_from(n % 2).unwrap(),
            current: true,
            changed_at: after(-600),
            ..Budget::default()
        }
    };
    seen.budgets = Arc::new((0..BUDGETS).map(budget).collect());
    // In the status, so that what is bound is recorded as well.
    let entry = |ordinal: i32| {
        json!({
            "name": format!("virtual-node-eci-{ordinal}"), "uid": format!("node-{ordinal}"), "ordinal": ordinal,
            "phase": "Evicting", "startedAt": now().to_string(), "recordons": 0, "podsTotal": PODS, "podsRemaining": PODS,
        })
    };
    let mut pool = (*seen.pool).clone();
    pool.status = serde_json::from_value(json!({ "drain": {
        "summary": "0/12000", "podsTotal": 12_000, "podsRemaining": 12_000, "podsTerminating": 0, "podsBlocked": 0,
        "limitedBy": "Rate", "nodes": (0..NODES).map(entry).collect::<Vec<_>>(),
    } }))
    .unwrap();
    seen.pool = Arc::new(pool);
    seen
}

/// Time that this thread spent on a processor: other work on the machine makes no pass slow. `None` where the kernel does
/// not say. Source: Linux `Documentation/scheduler/sched-stats.rst`.
fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

#[test]
fn a_pass_over_twelve_thousand_pods_takes_well_under_a_second() {
    let seen = large();
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let began = on_processor();
        let plan = plan(&seen, now());
        assert_eq!(plan.orders.len(), usize::try_from(NODES).unwrap());
        assert!(plan.tracks.iter().any(|t| t.kind == TrackKind::Audit));
        assert!(
            plan.orders
                .iter()
                .all(|o| o.pods.len() == PODS && o.budgets.len() == BUDGETS)
        );
        let Some((began, ended)) = began.zip(on_processor()) else {
            return;
        };
        quickest = quickest.min(ended - began);
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
}
