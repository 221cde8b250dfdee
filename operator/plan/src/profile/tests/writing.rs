//! What is written while pools are there.

use super::*;

#[test]
fn what_means_the_same_is_not_touched() {
    let mut cluster = Cluster::with(Some(json!({
        "enableClusterIp": "True", "enablePrivateZone": " false", "securityGroupId": "sg-1", "vSwitchIds": "vsw-1 , ",
    })));
    cluster.pools = vec![acting(json!({}))];
    assert_eq!(cluster.pass(), [""; 0]);
}

#[test]
fn changed_keys_are_written_and_their_originals_kept() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({ "spec": {
        "resourceGroupId": "rg-1",
        "profile": { "settings": { "enableLinuxArm64Node": "false" }, "featureGates": { "WaitForFirstConsumer": "true" } },
    } }))];
    let lines = cluster.pass();
    assert_eq!(
        lines,
        [
            "eci-profile enableLinuxArm64Node (absent) -> false",
            "eci-profile resourceGroupId (absent) -> rg-1",
            "eci-profile securityGroupId sg-old -> sg-1",
            "eci-profile vSwitchIds vsw-a, vsw-b -> vsw-1",
            "eci-profile featureGates MetricsVpcNet=true, ProtectionFinalizers=false,WaitForFirstConsumer=false -> \
         MetricsVpcNet=true, ProtectionFinalizers=false,WaitForFirstConsumer=true",
        ]
    );
    assert_eq!(
        cluster.record().unwrap(),
        "{\"data\":{\"enableLinuxArm64Node\":null,\"resourceGroupId\":null,\"securityGroupId\":\"sg-old\",\
         \"vSwitchIds\":\"vsw-a, vsw-b\"},\"featureGates\":{\"WaitForFirstConsumer\":\"false\"}}"
    );
    assert_eq!(cluster.data()["selectors"], template()["selectors"]);
    assert_eq!(cluster.pass(), [""; 0]);

    // What a pool lets go returns; what it keeps stays.
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    let mut expected = template();
    expected["securityGroupId"] = json!("sg-1");
    expected["vSwitchIds"] = json!("vsw-1");
    assert_eq!(cluster.data(), expected);
}

#[test]
fn a_second_change_keeps_the_first_original() {
    let mut cluster = Cluster::with(Some(template()));
    for group in ["sg-1", "sg-2"] {
        cluster.pools = vec![acting(
            json!({ "spec": { "network": { "securityGroupId": group } } }),
        )];
        cluster.settle();
        assert_eq!(cluster.data()["securityGroupId"], group);
    }
    cluster.pools = vec![acting(json!({ "spec": { "profile": { "sync": "Disabled" } } }))];
    cluster.settle();
    assert_eq!(cluster.data(), template());
    assert_eq!(cluster.record(), None);
}

#[test]
fn network_keys_wait_for_the_roll_and_settings_do_not() {
    let mut cluster = Cluster::with(Some(template()));
    let overlay = json!({ "spec": { "profile": { "settings": { "enableHybridMode": "true" } } } });
    cluster.pools = vec![PoolInCluster {
        rolled: false,
        ..acting(overlay)
    }];
    assert_eq!(cluster.pass(), ["eci-profile enableHybridMode false -> true"]);
    cluster.pools[0].rolled = true;
    assert_eq!(cluster.pass().len(), 2);
}

#[test]
fn one_pool_that_still_rolls_holds_the_network_of_all() {
    let mut cluster = Cluster::with(Some(template()));
    let second = json!({ "metadata": { "name": "second" } });
    cluster.pools = vec![
        acting(json!({})),
        PoolInCluster {
            rolled: false,
            ..acting(second)
        },
    ];
    assert_eq!(cluster.pass(), [""; 0]);
    cluster.pools[1].rolled = true;
    assert_eq!(cluster.pass().len(), 2);
}

#[test]
fn an_absent_profile_is_created_and_goes_with_the_last_pool() {
    let mut cluster = Cluster::with(None);
    cluster.pools = vec![acting(json!({}))];
    assert_eq!(cluster.pass()[0], "eci-profile created");
    assert_eq!(cluster.data(), basic());
    assert_eq!(
        cluster.profile.as_ref().unwrap()["metadata"]["labels"][MANAGED_BY_LABEL],
        MANAGED_BY
    );
    assert_eq!(cluster.pass(), [""; 0]);
    cluster.pools = Vec::new();
    assert_eq!(cluster.pass(), ["removed"]);
    assert_eq!(cluster.pass(), [""; 0]);
}

#[test]
fn nothing_is_created_for_pools_without_a_say() {
    for overlay in [
        json!({ "spec": { "profile": { "sync": "Disabled" } } }),
        json!({ "spec": { "paused": true } }),
        json!({ "spec": { "provider": { "type": "Addon" } } }),
    ] {
        let mut cluster = Cluster::with(None);
        cluster.pools = vec![acting(overlay.clone())];
        assert_eq!(cluster.pass(), [""; 0], "{overlay}");
    }
    let mut cluster = Cluster::with(None);
    cluster.pools = vec![PoolInCluster {
        accepted: false,
        ..acting(json!({}))
    }];
    assert_eq!(cluster.pass(), [""; 0]);
    cluster.pools = vec![PoolInCluster {
        rolled: false,
        ..acting(json!({}))
    }];
    assert_eq!(cluster.pass(), [""; 0], "there is nothing to say before the roll");
}

#[test]
fn a_refused_pool_keeps_what_it_wrote() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    let overlay = json!({ "spec": { "network": { "securityGroupId": "sg-9" } } });
    cluster.pools = vec![PoolInCluster {
        accepted: false,
        ..acting(overlay)
    }];
    assert_eq!(cluster.pass(), [""; 0]);
}

#[test]
fn an_older_pool_that_does_not_act_is_not_overruled() {
    let mut cluster = Cluster::with(Some(template()));
    let older = json!({ "metadata": { "name": "a", "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": { "paused": true, "network": { "securityGroupId": "sg-2" } } });
    cluster.pools = vec![acting(json!({})), acting(older)];
    cluster.pass();
    assert_eq!(cluster.data()["securityGroupId"], "sg-old");
}

#[test]
fn a_key_that_is_set_back_three_times_is_left_to_the_other_one() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    for minute in 0..3 {
        let profile = cluster.profile.as_mut().unwrap();
        profile["data"]["securityGroupId"] = json!("sg-theirs");
        profile["metadata"]["managedFields"] = json!([{
            "manager": "helm", "operation": "Update", "time": format!("2026-01-01T00:0{minute}:00Z"),
            "fieldsV1": { "f:data": { "f:securityGroupId": {} } },
        }]);
        let plan = plan_profile(&cluster.observed());
        let [seen] = plan.set_back.as_slice() else {
            panic!("{plan:?}")
        };
        assert_eq!(seen.manager, "helm");
        assert_eq!(plan.steps.is_empty(), minute == 2, "minute {minute}");
        let known = cluster.set_back.clone();
        cluster
            .set_back
            .entry(seen.path.clone())
            .or_default()
            .push((seen.at, seen.manager.clone()));
        if minute < 2 {
            cluster.pass();
        } else {
            // The pool says so, with the history before this pass or after it.
            for set_back in [known, cluster.set_back.clone()] {
                let mut seen = seen_by(&cluster, 0);
                seen.recall.profile_set_back = set_back;
                let told = format!("{:?}", profile_findings(&seen));
                assert!(told.contains("FieldContested") && told.contains("helm"), "{told}");
            }
        }
    }
    // Another wish starts anew.
    cluster.pools = vec![acting(
        json!({ "spec": { "network": { "securityGroupId": "sg-3" } } }),
    )];
    assert_eq!(cluster.pass(), ["eci-profile securityGroupId sg-theirs -> sg-3"]);
}

/// A policy of the API server changes the key on its way.
#[test]
fn a_key_that_is_stored_otherwise_is_said_and_written_again_once_in_a_while() {
    use crate::rewritten::age;
    use crate::testing::{after, now};
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(json!({}))];
    let patch_of = |cluster: &Cluster| {
        let plan = plan_profile(&cluster.observed());
        plan.steps.into_iter().find_map(|s| match s {
            Step::PatchProfile(patch) => Some(patch),
            _ => None,
        })
    };
    let patch = patch_of(&cluster).unwrap();
    cluster.settle();
    let read =
        |cluster: &Cluster| serde_json::from_value::<ConfigMap>(cluster.profile.clone().unwrap()).unwrap();
    let stored = read(&cluster);
    note_stored(&mut cluster.rewrites, &patch, &stored, now());
    assert!(cluster.rewrites.is_empty(), "it took: {:?}", cluster.rewrites);

    cluster.profile.as_mut().unwrap()["data"]["securityGroupId"] = json!("sg-theirs");
    let stored = read(&cluster);
    note_stored(&mut cluster.rewrites, &patch, &stored, now());
    assert_eq!(
        cluster.rewrites.keys().collect::<Vec<_>>(),
        ["eci-profile securityGroupId"]
    );
    for (seconds, again) in [(1, false), (599, false), (600, true)] {
        age(&mut cluster.rewrites, after(seconds));
        let plan = plan_profile(&cluster.observed());
        assert_eq!(!plan.steps.is_empty(), again, "after {seconds} s");
        assert_eq!(plan.open, ["eci-profile securityGroupId"]);
    }
    let mut seen = seen_by(&cluster, 0);
    seen.recall.profile_rewritten = cluster.rewrites.clone();
    let told = format!("{:?}", profile_findings(&seen));
    assert!(
        told.contains("FieldContested") && told.contains("securityGroupId sg-theirs -> sg-1"),
        "{told}"
    );
    // In vain once more: since when stays.
    let since = cluster.rewrites["eci-profile securityGroupId"].since;
    let stored = read(&cluster);
    note_stored(&mut cluster.rewrites, &patch, &stored, after(600));
    assert_eq!(cluster.rewrites["eci-profile securityGroupId"].since, since);
    assert_eq!(patch_of(&cluster), None);
    // Another wish is tried at once.
    cluster.pools = vec![acting(
        json!({ "spec": { "network": { "securityGroupId": "sg-3" } } }),
    )];
    assert!(patch_of(&cluster).is_some());
}

#[test]
fn a_profile_that_cannot_be_read_or_written_is_left_alone() {
    for overlay in [
        json!({ "metadata": { "annotations": { (ADOPTED_VALUES_ANNOTATION): "{" } } }),
        json!({ "immutable": true }),
    ] {
        let mut cluster = Cluster::with(Some(template()));
        json_patch::merge(cluster.profile.as_mut().unwrap(), &overlay);
        cluster.pools = vec![acting(json!({}))];
        assert_eq!(cluster.pass(), [""; 0], "{overlay}");
        let told = format!("{:?}", profile_findings(&seen_by(&cluster, 0)));
        assert!(told.contains("ProfileUnreadable"), "{told}");
    }
}

#[test]
fn the_acs_profile_gets_what_it_knows_where_it_exists() {
    let mut cluster = Cluster::with(Some(basic()));
    cluster.acs = Some(config_map(
        "acs-profile",
        json!({ "securityGroupId": "sg-old", "enableHybridMode": "x" }),
    ));
    let overlay = json!({ "spec": { "profile": {
        "settings": { "enableHybridMode": "y", "enableReuseSSLKey": "true" }, "featureGates": { "G": "true" },
    } } });
    cluster.pools = vec![acting(overlay)];
    cluster.settle();
    assert_eq!(
        cluster.acs.as_ref().unwrap()["data"],
        json!({
            "securityGroupId": "sg-1", "enableHybridMode": "y", "enablePrivateZone": "false", "vSwitchIds": "vsw-1",
        })
    );
    cluster.pools = Vec::new();
    cluster.settle();
    assert_eq!(
        cluster.acs.unwrap()["data"],
        json!({ "securityGroupId": "sg-old", "enableHybridMode": "x" })
    );
}

#[test]
fn taking_a_key_over_is_no_contest() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.profile.as_mut().unwrap()["metadata"]["managedFields"] = json!([{
        "manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:00Z",
        "fieldsV1": { "f:data": { "f:securityGroupId": {} } },
    }]);
    cluster.pools = vec![acting(json!({}))];
    let plan = plan_profile(&cluster.observed());
    assert_eq!((plan.steps.len(), plan.set_back), (1, Vec::new()));
}
