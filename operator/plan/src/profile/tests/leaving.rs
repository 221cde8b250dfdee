//! What comes back when a pool lets go.

use super::*;

#[test]
fn a_created_profile_stays_when_somebody_else_put_something_in() {
    let mut cluster = Cluster::with(None);
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    cluster.profile.as_mut().unwrap()["data"]["slsMachineGroup"] = json!("g");
    cluster.pools = Vec::new();
    cluster.settle();
    assert_eq!(cluster.data(), json!({ "slsMachineGroup": "g" }));
    assert_eq!(cluster.record(), None);
    assert!(
        cluster.profile.unwrap()["metadata"]["labels"]
            .get(MANAGED_BY_LABEL)
            .is_none()
    );
}

/// Its workload can't be seen, so its env stays, and what the profile says with it.
fn unseen_keeps(form: &Value, policy: &str) {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(form.clone())];
    cluster.settle();
    let before = cluster.data();
    cluster.pools = vec![PoolInCluster {
        unknown: true,
        drained: true,
        ..acting(merged(form.clone(), deleted(policy)))
    }];
    cluster.settle();
    assert_eq!(cluster.data(), before, "{form} {policy}");
    assert!(cluster.record().is_some());
}

#[test]
fn what_deletion_does_with_the_profile() {
    for (management, policy, drained, data, record) in [
        // While it drains its network stays.
        ("Create", "Drain", false, basic(), true),
        ("Create", "Drain", true, template(), false),
        ("Adopt", "Drain", false, basic(), true),
        ("Adopt", "Drain", true, template(), false),
        ("Adopt", "Retain", false, template(), false),
        // The profile stays, and is nobody's.
        ("Create", "Retain", false, basic(), false),
    ] {
        let form = json!({ "spec": { "provider": { "management": management } } });
        unseen_keeps(&form, policy);
        let mut cluster = Cluster::with(Some(template()));
        cluster.pools = vec![acting(form.clone())];
        cluster.settle();
        cluster.pools = vec![PoolInCluster {
            drained,
            ..acting(merged(form, deleted(policy)))
        }];
        cluster.settle();
        for (key, value) in data.as_object().unwrap() {
            assert_eq!(
                &cluster.data()[key],
                value,
                "{management} {policy} {drained} {key}"
            );
        }
        assert_eq!(
            cluster.record().is_some(),
            record,
            "{management} {policy} {drained}"
        );
        let after = cluster.profile.clone();
        if record {
            continue;
        }
        cluster.pools = Vec::new();
        assert_eq!(cluster.pass(), [""; 0], "the pool is gone");
        assert_eq!(cluster.profile, after);
    }
}

#[test]
fn a_created_profile_that_is_retained_outlives_the_pool() {
    let mut cluster = Cluster::with(None);
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    cluster.pools = vec![acting(deleted("Retain"))];
    cluster.settle();
    cluster.pools = Vec::new();
    assert_eq!(cluster.pass(), [""; 0]);
    assert_eq!(cluster.data(), basic());
    cluster.pools = vec![acting(json!({}))];
    assert_eq!(cluster.pass(), [""; 0], "a pool of the same name takes it up");
}

#[test]
fn one_of_two_equal_pools_may_go_and_nothing_changes() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![
        acting(json!({})),
        acting(json!({ "metadata": { "name": "second" } })),
    ];
    cluster.settle();
    let before = cluster.profile.clone();
    cluster.pools[0] = PoolInCluster {
        drained: true,
        ..acting(deleted("Drain"))
    };
    assert_eq!(cluster.pass(), [""; 0]);
    assert_eq!(cluster.profile, before);
    cluster.pools.clear();
    cluster.settle();
    assert_eq!(cluster.data(), template());
}

#[test]
fn a_paused_pool_writes_nothing_and_gives_nothing_back() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({ "spec": { "network": { "vpcId": "vpc-2" } } }))];
    cluster.settle();
    let before = cluster.profile.clone();
    for overlay in [
        json!({ "spec": { "network": { "securityGroupId": "sg-9" } } }),
        json!({ "spec": { "profile": { "sync": "Disabled" } } }),
        merged(deleted("Drain"), json!({})),
        merged(deleted("Retain"), json!({})),
    ] {
        let paused = merged(overlay.clone(), json!({ "spec": { "paused": true } }));
        cluster.pools = vec![PoolInCluster {
            drained: true,
            ..acting(paused)
        }];
        assert_eq!(cluster.pass(), [""; 0], "{overlay}");
        assert_eq!(cluster.profile, before);
    }
}

#[test]
fn a_paused_pool_does_not_keep_another_one_from_leaving() {
    let mut cluster = Cluster::with(Some(template()));
    let leaving =
        json!({ "metadata": { "name": "leaving" }, "spec": { "profile": { "settings": { "k": "v" } } } });
    let paused = acting(json!({ "spec": { "paused": true } }));
    cluster.pools = vec![acting(json!({})), acting(leaving.clone())];
    cluster.settle();
    cluster.pools = vec![
        paused,
        PoolInCluster {
            drained: true,
            ..acting(merged(leaving, deleted("Drain")))
        },
    ];
    assert_eq!(cluster.pass(), ["eci-profile k v -> (absent)"]);
    assert_eq!(
        cluster.data()["securityGroupId"],
        "sg-1",
        "the paused pool's values stay"
    );
}

#[test]
fn keys_that_somebody_else_wrote_since_are_theirs() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    let profile = cluster.profile.as_mut().unwrap();
    profile["data"]["securityGroupId"] = json!("sg-theirs");
    profile["metadata"]["managedFields"] = json!([{
        "manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:00Z",
        "fieldsV1": { "f:data": { "f:securityGroupId": {} } },
    }]);
    cluster.pools = Vec::new();
    cluster.settle();
    assert_eq!(cluster.data()["securityGroupId"], "sg-theirs");
    assert_eq!(cluster.data()["vSwitchIds"], "vsw-a, vsw-b");
}

#[test]
fn the_finalizer_waits_until_all_is_given_back() {
    let mut cluster = Cluster::with(Some(template()));
    let overlay = json!({ "spec": { "profile": { "featureGates": { "G": "true" } } } });
    cluster.pools = vec![acting(overlay.clone())];
    cluster.settle();
    cluster.pools = vec![PoolInCluster {
        drained: true,
        ..acting(merged(overlay, deleted("Drain")))
    }];
    assert!(!released(&seen_by(&cluster, 0)));
    cluster.settle();
    assert!(released(&seen_by(&cluster, 0)));

    // What another pool still names does not hold it.
    cluster.pools = vec![
        acting(json!({})),
        acting(json!({ "metadata": { "name": "second" } })),
    ];
    cluster.settle();
    assert!(released(&seen_by(&cluster, 0)));

    let mut seen = seen_by(&cluster, 0);
    let mut broken = (**seen.profile.as_ref().unwrap()).clone();
    broken
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(ADOPTED_VALUES_ANNOTATION.to_owned(), "{".to_owned());
    seen.profile = Some(Arc::new(broken));
    assert!(!released(&seen));
}

#[test]
fn adopted_pools_restore_at_once_when_retained() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![adopting(json!({}))];
    cluster.settle();
    cluster.pools = vec![PoolInCluster {
        rolled: false,
        ..adopting(deleted("Retain"))
    }];
    cluster.settle();
    assert_eq!(cluster.data(), template());
}

#[test]
fn a_network_key_that_is_let_go_waits_for_the_roll() {
    let mut cluster = Cluster::with(Some(basic()));
    cluster.pools = vec![acting(json!({ "spec": { "network": { "vpcId": "vpc-2" } } }))];
    cluster.settle();
    cluster.pools = vec![PoolInCluster {
        rolled: false,
        ..acting(json!({}))
    }];
    assert_eq!(cluster.pass(), [""; 0]);
    cluster.pools[0].rolled = true;
    assert_eq!(cluster.pass(), ["eci-profile vpcId vpc-2 -> (absent)"]);
}

#[test]
fn a_finalizer_that_waits_for_an_unreadable_record_says_so() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    let off = json!({ "spec": { "profile": { "sync": "Disabled" } } });
    cluster.pools = vec![PoolInCluster {
        drained: true,
        ..acting(merged(off, deleted("Drain")))
    }];
    let broken = json!({ "metadata": { "annotations": { (ADOPTED_VALUES_ANNOTATION): "{" } } });
    json_patch::merge(cluster.profile.as_mut().unwrap(), &broken);
    let seen = seen_by(&cluster, 0);
    assert!(!released(&seen));
    let told = format!("{:?}", profile_findings(&seen));
    assert!(
        told.contains("ProfileUnreadable") && told.contains("repaired or removed"),
        "{told}"
    );
}

/// Its keys may be any of those that are there; its selectors bear its name.
#[test]
fn a_pool_that_cannot_be_read_holds_keys_and_its_own_selectors_and_nothing_else() {
    let rules = |name: &str| {
        json!({ "metadata": { "name": name }, "spec": { "placement": { "rules": [
        { "name": "r", "mode": "Require", "podSelector": { "matchLabels": { "app": name } } },
    ] } } })
    };
    let mut cluster = Cluster::with(Some(json!({ "securityGroupId": "sg-old", "selectors": "" })));
    cluster.pools = vec![acting(rules("a")), acting(rules("b"))];
    cluster.settle();
    let names = |cluster: &Cluster| {
        let list: Value = serde_json::from_str(cluster.data()["selectors"].as_str().unwrap()).unwrap();
        let entries = list.as_array().unwrap().iter();
        entries
            .map(|e| e["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = cluster.data();
    assert_eq!(
        (before["securityGroupId"].as_str(), names(&cluster)),
        (Some("sg-1"), vec!["a.r".to_owned(), "b.r".to_owned()])
    );
    // Pool b can't be read any more; pool a wants another group and another rule.
    cluster.unreadable = true;
    cluster.pools = vec![acting(json!({ "metadata": { "name": "a" }, "spec": {
        "network": { "securityGroupId": "sg-2" },
        "placement": { "rules": [{ "name": "s", "mode": "Require", "podSelector": { "matchLabels": { "app": "a" } } }] },
    } }))];
    cluster.settle();
    let mut held = names(&cluster);
    held.sort();
    assert_eq!(
        (cluster.data()["securityGroupId"].as_str(), held),
        (Some("sg-1"), vec!["a.s".to_owned(), "b.r".to_owned()])
    );
    // Without any pool that can be read, nothing is given back.
    cluster.pools.clear();
    cluster.settle();
    assert_eq!(
        (cluster.data()["securityGroupId"].as_str(), names(&cluster).len()),
        (Some("sg-1"), 2)
    );
    // It was deleted.
    cluster.unreadable = false;
    cluster.settle();
    assert_eq!(
        cluster.data(),
        json!({ "securityGroupId": "sg-old", "selectors": "" })
    );
}
