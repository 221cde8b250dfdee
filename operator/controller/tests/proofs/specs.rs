//! Proof 6: a pool is edited and edited back, and everything is as it was: keys that the operator made are gone, values
//! that it replaced are back.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Value, json};

use crate::bench::{Bench, condition, run};
use crate::end_state;
use crate::operator::Running;
use crate::world::Kubelet;

/// Whose StatefulSet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// The pool's.
    ByPool,
    /// Somebody else's, which the pool adopted.
    ByOthers,
}

/// Parts of a spec that may be set together, boundaries included.
fn specs(made: Made, refused: bool) -> impl Strategy<Value = Value> {
    let any = prop_oneof![
        (0..=4).prop_map(|n| json!({"replicas": n})),
        prop::sample::select(vec!["vsw-b", "vsw-a,vsw-b"]).prop_map(|v| {
            let ids: Vec<&str> = v.split(',').collect();
            json!({"network": {"zones": [{"zone": "cn-hangzhou-j", "vSwitchIds": ids}]}})
        }),
        Just(json!({"network": {"securityGroupId": "sg-b"}})),
        Just(json!({"network": {"vpcId": "vpc-b"}})),
        Just(json!({"network": {"kubeProxy": "Disabled", "privateZone": "Enabled"}})),
        Just(json!({"resourceGroupId": "rg-b"})),
        Just(json!({"profile": {"settings": {"enableLinuxArm64Node": "false"}}})),
        Just(json!({"profile": {"featureGates": {"WaitForFirstConsumer": "false", "Other": "true"}}})),
        Just(json!({"profile": {"sync": "Disabled"}})),
        Just(json!({"provider": {"image": "registry.example/virtual-nodes-eci:v2"}})),
        (1..=10).prop_map(|n| json!({"drain": {"maxConcurrentNodes": n}})),
        Just(json!({"drain": {"pace": "Unlimited", "reap": "None", "emptySettleSeconds": 0}})),
        Just(json!({"paused": true})),
    ];
    let ours = prop::sample::select(vec![
        json!({"provider": {"env": [{"name": "EXTRA", "value": "1"}]}}),
        json!({"provider": {"nodeSelector": {"disk": "ssd"}}}),
        json!({"provider": {"args": ["--v=5"]}}),
        json!({"provider": {"priorityClassName": "system-cluster-critical"}}),
    ]);
    let odd = json!({"matchExpressions": [{"key": "app", "operator": "Near", "values": ["web"]}]});
    let unreadable = prop::sample::select(vec![
        json!({"profile": {"settings": {"vswitchIds": "vsw-b"}}}),
        json!({"drain": {"stages": [{"name": "odd", "podSelector": odd, "waitFor": "Eviction"}]}}),
        json!({"placement": {"rules": [{"name": "odd", "podSelector": odd, "mode": "Require"}]}}),
    ]);
    let mut parts = vec![(12, any.boxed())];
    if made == Made::ByPool {
        parts.push((4, ours.boxed()));
    }
    if refused {
        parts.push((2, unreadable.boxed()));
    }
    prop::collection::vec(Union::new_weighted(parts), 1..4).prop_map(|parts| {
        parts.into_iter().fold(json!({}), |mut spec, part| {
            json_patch::merge(&mut spec, &part);
            spec
        })
    })
}

/// Who made the StatefulSet, the pool as it begins, and an edit.
fn stories() -> impl Strategy<Value = (Made, Value, Value)> {
    let made = prop_oneof![3 => Just(Made::ByPool), 2 => Just(Made::ByOthers)];
    made.prop_flat_map(|made| (Just(made), specs(made, false), specs(made, true)))
}

/// What takes a merge patch back to what the pool had before.
fn undo(before: &Value, patch: &Value) -> Value {
    match patch {
        Value::Object(fields) if before.is_object() => fields
            .iter()
            .map(|(name, inner)| (name.clone(), undo(&before[name], inner)))
            .collect(),
        _ => before.clone(),
    }
}

fn nodes(bench: &Bench) -> usize {
    usize::try_from(bench.pool()["spec"]["replicas"].as_u64().unwrap_or(0)).unwrap_or(0)
}

/// The pool is what it is asked to be, or says that it can't.
async fn until_answered(bench: &Bench) {
    bench
        .until("an answer to the edit", |b| {
            let pool = b.pool();
            let observed = pool["status"]["observedGeneration"] == pool["metadata"]["generation"];
            // Without a reap the provider's forgotten deletions stay, as the pool asks for.
            let reaps = pool["spec"]["drain"]["reap"] != "None";
            let done = match nodes(b) {
                0 => b.without_nodes() && (!reaps || b.world.parts().cloud.instances().is_empty()),
                nodes if reaps => b.settled(nodes),
                nodes => b.ready(nodes),
            };
            observed
                && (done || condition(&pool, "Stalled") == "True" || condition(&pool, "Paused") == "True")
        })
        .await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_that_is_taken_back_leaves_nothing((made, first, second) in stories()) {
        run(|bench| async move {
            if made == Made::ByOthers {
                bench.world.parts().kubelet = Kubelet::V1_12;
                bench.adopt();
            }
            // The pool comes to a profile that others wrote: what it replaces there must come back as well.
            bench.edit(first);
            bench.edit(json!({"paused": false, "replicas": 2}));
            let _operator = Running::start(&bench.cluster, "operator-0");
            bench.until_settled(2).await;
            let (before, end) = (bench.pool()["spec"].clone(), bench.end());
            // Without nodes all pods are pending, which no budget would allow.
            let away = |app: &str, pods: i64| {
                let patch = json!({"spec": {"maxUnavailable": pods}});
                bench.cluster.patch("poddisruptionbudgets.policy", "shop", app, patch);
            };
            if second["replicas"] == 0 {
                away("web", 6);
                away("db", 2);
            }
            bench.edit(second.clone());
            until_answered(&bench).await;
            away("web", 2);
            away("db", 1);
            bench.edit(undo(&before, &second));
            bench.until_settled(2).await;
            bench.assert_quiet(Duration::from_secs(20)).await;
            bench.assert_safe();
            prop_assert_eq!(&bench.pool()["spec"], &before);
            end_state::same(&end, &bench.end(), "the pool");
            Ok(())
        })?;
    }
}
