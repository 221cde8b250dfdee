//! Promises that hold for any content and any pools.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn foreign_data()(
        keys in proptest::collection::btree_map("[a-z]{1,6}", "[ -~]{0,12}", 0..4),
        selectors in proptest::option::of("[ -~\n]{0,20}"),
        gates in proptest::option::of("[ABG]=(true|false| x )(,[ABG]=(true|false)){0,3},?"),
        switches in proptest::option::of("vsw-[ab], ?vsw-c"),
        group in proptest::option::of("sg-[12]|"),
    ) -> Value {
        let mut data: serde_json::Map<String, Value> =
            keys.into_iter().map(|(k, v)| (format!("x-{k}"), json!(v))).collect();
        for (key, value) in [
            ("selectors", selectors), ("featureGates", gates), ("vSwitchIds", switches), ("securityGroupId", group),
        ] {
            if let Some(value) = value {
                data.insert(key.to_owned(), json!(value));
            }
        }
        Value::Object(data)
    }
}

prop_compose! {
    fn pool_overlay()(
        name in "[a-d]",
        vpc in proptest::option::of("vpc-[12]"),
        group in "sg-[12]",
        gate in proptest::option::of("true|false"),
        setting in proptest::option::of("[a-z]{0,4}"),
        year in 2020..2024,
    ) -> Value {
        let mut spec = json!({ "network": { "securityGroupId": group }, "profile": {} });
        if let Some(vpc) = vpc {
            spec["network"]["vpcId"] = json!(vpc);
        }
        if let Some(gate) = gate {
            spec["profile"]["featureGates"] = json!({ "G": gate });
        }
        if let Some(setting) = setting {
            spec["profile"]["settings"] = json!({ "pinned": setting });
        }
        json!({
            "metadata": { "name": name, "creationTimestamp": format!("{year}-01-01T00:00:00Z") }, "spec": spec,
        })
    }
}

fn untouched(data: &Value) -> Vec<(String, Value)> {
    let keys = data.as_object().cloned().into_iter().flatten();
    keys.filter(|(key, _)| key.starts_with("x-") || key == "selectors")
        .collect()
}

proptest! {
    #[test]
    fn coming_and_going_leaves_every_byte(start in foreign_data(), first in pool_overlay(), then in pool_overlay()) {
        let mut cluster = Cluster::with(Some(start.clone()));
        cluster.pools = vec![acting(first)];
        cluster.settle();
        prop_assert_eq!(untouched(&cluster.data()), untouched(&start));
        cluster.pools = vec![acting(then)];
        cluster.settle();
        prop_assert_eq!(untouched(&cluster.data()), untouched(&start));
        cluster.pools = Vec::new();
        cluster.settle();
        prop_assert_eq!(cluster.data(), start);
        prop_assert_eq!(cluster.record(), None);
    }

    #[test]
    fn foreign_gates_keep_their_bytes(start in foreign_data(), overlay in pool_overlay()) {
        let others = |data: &Value| -> Vec<String> {
            let text = data["featureGates"].as_str().unwrap_or_default().to_owned();
            text.split(',').filter(|s| !s.starts_with("G=") && !s.is_empty()).map(str::to_owned).collect()
        };
        let mut cluster = Cluster::with(Some(start.clone()));
        cluster.pools = vec![acting(overlay)];
        cluster.settle();
        prop_assert_eq!(others(&cluster.data()), others(&start));
    }

    #[test]
    fn the_order_of_pools_does_not_matter(
        start in proptest::option::of(foreign_data()),
        pools in proptest::collection::vec((pool_overlay(), any::<(bool, bool, bool)>(), 0..4u8), 1..4),
    ) {
        let mut cluster = Cluster::with(start);
        cluster.pools = pools
            .into_iter()
            .enumerate()
            .map(|(i, (overlay, (accepted, rolled, drained), fate))| {
                let fate = match fate {
                    0 => json!({}),
                    1 => json!({ "spec": { "paused": true } }),
                    2 => deleted("Drain"),
                    _ => deleted("Retain"),
                };
                let name = json!({ "metadata": { "name": format!("p{i}") } });
                let overlay = merged(merged(overlay, fate), name);
                PoolInCluster { accepted, rolled, drained, ..acting(overlay) }
            })
            .collect();
        let mut reversed = cluster.clone();
        reversed.pools.reverse();
        prop_assert_eq!(plan_profile(&cluster.observed()), plan_profile(&reversed.observed()));
        cluster.settle();
    }

    #[test]
    fn a_death_between_any_two_passes_changes_nothing(
        start in foreign_data(), first in pool_overlay(), then in pool_overlay(), missed in any::<bool>(),
    ) {
        // A pass that never happened because the process died is made up for by the next.
        let mut all = Cluster::with(Some(start.clone()));
        let mut some = all.clone();
        all.pools = vec![acting(first.clone())];
        all.settle();
        if !missed {
            some.pools = vec![acting(first)];
            some.settle();
        }
        for cluster in [&mut all, &mut some] {
            cluster.pools = vec![acting(then.clone())];
            cluster.settle();
            cluster.pools = vec![PoolInCluster { drained: true, ..acting(merged(then.clone(), deleted("Drain"))) }];
            cluster.settle();
            prop_assert_eq!(&cluster.data(), &start);
        }
    }
}
