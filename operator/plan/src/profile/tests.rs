//! Scenarios over a ConfigMap that is patched the way an API server does it.

use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_crds::{ADOPTED_VALUES_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL};

use super::*;
use crate::accept::testing::pool;
use crate::finding::{Finding, ProfileState};

const DELETED: &str = "2026-02-01T00:00:00Z";

/// The cluster's ConfigMaps and pools, with the API server's part played by hand.
#[derive(Clone, Debug, Default)]
struct Cluster {
    pools: Vec<PoolInCluster>,
    profile: Option<Value>,
    acs: Option<Value>,
    set_back: SetBackHistory,
}

impl Cluster {
    fn with(profile: Option<Value>) -> Self {
        let profile = profile.map(|data| config_map("eci-profile", data));
        Self {
            profile,
            ..Self::default()
        }
    }

    fn observed(&self) -> ClusterObserved {
        let read = |cm: &Option<Value>| {
            cm.clone()
                .map(|v| Arc::new(serde_json::from_value::<ConfigMap>(v).unwrap()))
        };
        ClusterObserved {
            pools: self.pools.clone(),
            profile: read(&self.profile),
            acs_profile: read(&self.acs),
            set_back: self.set_back.clone(),
        }
    }

    /// One pass. Says what it wrote.
    fn pass(&mut self) -> Vec<String> {
        let plan = plan_profile(&self.observed());
        let mut lines = Vec::new();
        for step in plan.steps {
            match step {
                Step::CreateProfile(create) => {
                    assert!(self.profile.is_none(), "409");
                    lines.extend(create.changes);
                    let mut body = create.body;
                    body["metadata"]["resourceVersion"] = json!("1");
                    body["metadata"]["uid"] = json!("uid-created");
                    self.profile = Some(body);
                }
                Step::PatchProfile(patch) => {
                    let slot = if patch.config_map.name == "eci-profile" {
                        &mut self.profile
                    } else {
                        &mut self.acs
                    };
                    let object = slot.as_mut().expect("404");
                    assert_eq!(
                        patch.body["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"],
                        "409"
                    );
                    json_patch::merge(object, &patch.body);
                    let version: u64 = object["metadata"]["resourceVersion"]
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap();
                    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    lines.extend(patch.changes);
                }
                Step::DeleteProfile {
                    config_map,
                    uid,
                    resource_version,
                } => {
                    let object = self.profile.take().expect("404");
                    assert_eq!(config_map.to_string(), "kube-system/eci-profile");
                    assert_eq!(object["metadata"]["uid"], uid);
                    assert_eq!(object["metadata"]["resourceVersion"], resource_version);
                    lines.push("removed".to_owned());
                }
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    /// Passes until nothing is written; one write is enough for any change.
    fn settle(&mut self) {
        self.pass();
        assert_eq!(self.pass(), [""; 0], "quiet after one pass");
    }

    fn data(&self) -> Value {
        self.profile.as_ref().map_or(Value::Null, |p| p["data"].clone())
    }

    fn record(&self) -> Option<&str> {
        self.profile.as_ref()?["metadata"]["annotations"]
            .get(ADOPTED_VALUES_ANNOTATION)?
            .as_str()
    }
}

fn config_map(name: &str, data: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "kube-system", "uid": "uid-cm", "resourceVersion": "5" },
        "data": data,
    })
}

fn acting(overlay: Value) -> PoolInCluster {
    PoolInCluster {
        pool: Arc::new(pool(overlay)),
        accepted: true,
        rolled: true,
        drained: false,
    }
}

fn adopting(overlay: Value) -> PoolInCluster {
    acting(merged(
        json!({ "spec": { "provider": { "management": "Adopt" } } }),
        overlay,
    ))
}

fn merged(mut base: Value, overlay: Value) -> Value {
    json_patch::merge(&mut base, &overlay);
    base
}

fn deleted(policy: &str) -> Value {
    json!({
        "metadata": { "deletionTimestamp": DELETED, "finalizers": [vnp_crds::FINALIZER] },
        "spec": { "deletionPolicy": policy },
    })
}

fn basic() -> Value {
    json!({
        "enableClusterIp": "true", "enablePrivateZone": "false", "securityGroupId": "sg-1", "vSwitchIds": "vsw-1",
    })
}

fn template() -> Value {
    json!({
        "enableClusterIp": "true", "enableHybridMode": "false", "enablePrivateZone": "false",
        "featureGates": "MetricsVpcNet=true, ProtectionFinalizers=false,WaitForFirstConsumer=false",
        "securityGroupId": "sg-old", "selectors": "[ {\"name\": \"x\"} ]", "vSwitchIds": "vsw-a, vsw-b", "vpcId": "vpc-1",
    })
}

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
                seen.recall.set_back = set_back;
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

fn seen_by(cluster: &Cluster, index: usize) -> Observed {
    let facts = cluster.observed();
    let mut pools: Vec<Arc<VirtualNodePool>> = facts.pools.into_iter().map(|p| p.pool).collect();
    let pool = pools.remove(index);
    let mut seen = crate::accept::testing::observed((*pool).clone());
    seen.others = pools;
    seen.profile = facts.profile;
    seen.acs_profile = facts.acs_profile;
    seen
}

fn states(findings: &[Finding]) -> Vec<ProfileState> {
    let states = findings.iter().filter_map(|f| match f {
        Finding::Profile { state, .. } => Some(*state),
        _ => None,
    });
    states.collect()
}

#[test]
fn what_is_not_written_yet_is_named() {
    let mut cluster = Cluster::with(Some(template()));
    let overlay = json!({ "spec": { "profile": { "featureGates": { "WaitForFirstConsumer": "true" } } } });
    cluster.pools = vec![acting(overlay)];
    let findings = profile_findings(&seen_by(&cluster, 0));
    assert_eq!(states(&findings), [ProfileState::Pending]);
    let told = format!("{findings:?}");
    for word in [
        "kube-system/eci-profile",
        "securityGroupId is sg-old, to be sg-1",
        "feature gate WaitForFirstConsumer is false, to be true",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    cluster.settle();
    assert_eq!(profile_findings(&seen_by(&cluster, 0)), []);
}

#[test]
fn conflict_rejection_and_misspellings_are_told() {
    let older = json!({ "metadata": { "name": "a", "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": { "network": { "securityGroupId": "sg-2" } } });
    let mut cluster = Cluster::with(Some(merged(basic(), json!({ "vswitchIds": "x" }))));
    cluster.pools = vec![acting(json!({})), acting(older)];
    let mut seen = seen_by(&cluster, 0);
    seen.profile_rejection = Some("bad format".to_owned());
    let findings = profile_findings(&seen);
    assert_eq!(
        states(&findings),
        [ProfileState::Conflict, ProfileState::Rejected]
    );
    let told = format!("{findings:?}");
    assert!(
        told.contains("bad format") && told.contains("vSwitchIds is meant"),
        "{told}"
    );

    let off = acting(json!({ "spec": { "profile": { "sync": "Disabled" } } }));
    cluster.pools = vec![off];
    assert_eq!(profile_findings(&seen_by(&cluster, 0)), []);
}

#[test]
fn broken_selectors_are_told_and_stop_nothing_else() {
    for (text, broken) in [
        ("", false),
        ("  ", false),
        ("[]", false),
        ("[{\"name\":\"a\"}]", false),
        ("[{\"name\":\"a\"} # comment\n]", true),
        ("{}", true),
        ("[1]", true),
    ] {
        let mut cluster = Cluster::with(Some(json!({ "selectors": text })));
        cluster.pools = vec![acting(json!({}))];
        cluster.settle();
        assert_eq!(cluster.data(), merged(basic(), json!({ "selectors": text })));
        let findings = profile_findings(&seen_by(&cluster, 0));
        assert_eq!(
            states(&findings) == [ProfileState::Unreadable],
            broken,
            "{text:?} {findings:?}"
        );
        assert_eq!(format!("{findings:?}").contains("Stalled"), broken);
    }
}

#[test]
fn a_paused_pool_lists_what_it_would_write() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(
        json!({ "metadata": { "annotations": { (vnp_crds::PAUSED_ANNOTATION): "true" } } }),
    )];
    let seen = seen_by(&cluster, 0);
    assert_eq!(
        pending_profile_changes(&seen),
        [
            "eci-profile securityGroupId sg-old -> sg-1",
            "eci-profile vSwitchIds vsw-a, vsw-b -> vsw-1",
        ]
    );
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    assert_eq!(pending_profile_changes(&seen_by(&cluster, 0)), [""; 0]);
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
