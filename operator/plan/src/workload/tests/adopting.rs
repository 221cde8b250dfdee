//! Somebody else's workload: `adopt` and `release`.

use super::*;

#[test]
fn adopting_changes_label_finalizer_and_annotation_and_restarts_nothing() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    let before = server.workload().template().to_string();
    server.run();
    let workload = server.workload();
    assert_eq!(workload.template().to_string(), before);
    assert_eq!(workload.pool_label(), Some("burst"));
    assert_eq!(workload.label("team"), Some("infra"));
    assert!(workload.has_finalizer());
    assert_eq!(
        workload.annotation(vnp_crds::ADOPTED_VALUES_ANNOTATION),
        Some(
            "{\"env\":{\"ECI_KUBE_PROXY\":null,\"ECI_REGION\":\"cn-hangzhou\",\"ECI_SECURITY_GROUP\":\"sg-a\",\
             \"ECI_VSWITCH\":\"vsw-a, vsw-b\"}}"
        )
    );
    assert_eq!(server.started, Vec::<Ordinal>::new());
    assert_eq!(server.log.len(), 1);
}

#[test]
fn adopted_values_follow_the_pool_and_come_back_when_let_go() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    let before = bare(server.workload());
    server.run();
    server.set_pool(adopt(json!({
        "network": { "vpcId": "vpc-1", "kubeProxy": "Disabled", "zones": zones("vsw-c")["zones"] },
        "provider": { "image": "vk:2" },
    })));
    server.run();
    let expected = [
        ("ECI_REGION", "cn-hangzhou"),
        ("ECI_VSWITCH", "vsw-c"),
        ("COPY", "$(ECI_VSWITCH)"),
        ("ECI_SECURITY_GROUP", "sg-a"),
        ("TWICE", "1"),
        ("TWICE", "2"),
        ("ECI_KUBE_PROXY", "false"),
        ("ECI_VPC", "vpc-1"),
    ];
    assert_eq!(
        env_of(server.workload(), 1),
        expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
    assert_eq!(server.workload().containers()[1]["image"], "vk:2");
    assert_eq!(server.started, [2, 1, 0], "one by one, highest first");
    // Letting single fields go.
    server.set_pool(adopt(
        json!({ "network": { "kubeProxy": "Disabled", "zones": zones("vsw-c")["zones"] } }),
    ));
    server.run();
    assert_eq!(env::value(&server.workload().containers()[1], "ECI_VPC"), None);
    assert_eq!(server.workload().containers()[1]["image"], "vk:1");
    // Letting all go.
    server.set_pool(deleted(adopt(json!({ "network": zones("vsw-c") }))));
    let part = server.pass(usize::MAX);
    assert!(matches!(&part.steps[..], [Step::PatchWorkload(p)] if p.purpose == PatchPurpose::Release));
    assert_eq!(bare(server.workload()), before);
    assert!(released(&server.seen));
    server.run();
}

#[test]
fn an_edit_that_is_taken_back_leaves_what_stood_there_before() {
    let spec = adopt(json!({ "network": zones(ZONES) }));
    let mut server = Server::new(spec.clone(), Some(foreign()));
    server.run();
    let adopted = server.workload().template().to_string();
    server.set_pool(adopt(
        json!({ "network": { "kubeProxy": "Disabled", "zones": zones("vsw-c")["zones"] } }),
    ));
    server.run();
    assert_ne!(server.workload().template().to_string(), adopted);
    server.set_pool(spec);
    server.run();
    // Absent, and with a space after the comma: what the pool asks for, in the words of whoever wrote it.
    assert_eq!(server.workload().template().to_string(), adopted);
}

#[test]
fn release_waits_for_own_cordons_and_a_drain() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.set_pool(deleted(adopt(json!({ "network": zones(ZONES) }))));
    let cordon = |server: &mut Server, owner| {
        let node = server.seen.nodes.get_mut(&1).unwrap();
        Arc::make_mut(node).cordon_owner = owner;
    };
    cordon(&mut server, CordonOwner::Both);
    assert_eq!(server.plan().steps, Vec::new());
    cordon(&mut server, CordonOwner::Others);
    assert_eq!(server.plan().steps.len(), 1);
    // With Drain the values go back when the last node is gone.
    server.set_pool(deleted(adopt(
        json!({ "network": zones(ZONES), "deletionPolicy": "Drain" }),
    )));
    assert_eq!(server.plan().steps, Vec::new());
    server.draining.drained = true;
    assert!(
        matches!(&server.plan().steps[..], [Step::PatchWorkload(p)] if p.purpose == PatchPurpose::Release)
    );
}

#[test]
fn a_paused_pool_shows_all_that_it_would_write() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.set_pool(adopt(
        json!({ "paused": true, "replicas": 4, "network": zones("vsw-c") }),
    ));
    // Beside a drain, which a template change would wait for, as well.
    for busy in [false, true] {
        server.draining.busy = busy;
        let plan = server.plan();
        let lines: Vec<String> = plan
            .steps
            .into_iter()
            .filter_map(|s| {
                if let Step::PatchWorkload(p) = s {
                    Some(p.changes)
                } else {
                    None
                }
            })
            .flatten()
            .collect();
        assert_eq!(
            lines,
            [
                "replicas 3 -> 4",
                "env ECI_VSWITCH vsw-a, vsw-b -> vsw-c: restarts 3 providers"
            ]
        );
        let waits = |f: &Finding| matches!(f, Finding::Provider { message, .. } if message.contains("end of the pause"));
        assert!(plan.findings.iter().any(waits), "{:?}", plan.findings);
    }
}

#[test]
fn an_unreadable_annotation_stops_changes_but_not_the_release() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.meddle(|raw| raw["metadata"]["annotations"][vnp_crds::ADOPTED_VALUES_ANNOTATION] = json!("{"));
    server.set_pool(adopt(json!({ "network": zones("vsw-c") })));
    let part = server.plan();
    assert_eq!(part.steps, Vec::new());
    assert!(
        stalled(&part)[0].contains("adopted-values"),
        "{:?}",
        stalled(&part)
    );
    server.set_pool(deleted(adopt(json!({ "network": zones("vsw-c") }))));
    let part = server.pass(usize::MAX);
    assert!(told(&part, EventReason::ConfigWarning));
    assert!(released(&server.seen));
}

fn variable() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("ECI_VPC"),
        Just("ECI_VSWITCH"),
        Just("ECI_KUBE_PROXY"),
        Just("ECI_SECURITY_GROUP"),
        Just("ALIYUN_RESOURCEGROUP_ID"),
        Just("FOREIGN"),
        Just("OTHER"),
    ];
    let value = prop_oneof![
        Just(None),
        Just(Some("a, b")),
        Just(Some("true")),
        Just(Some("False")),
        Just(Some("$(FOREIGN)")),
        Just(Some("sg-a")),
    ];
    (name, value).prop_map(|(name, value)| match value {
        Some(value) => json!({ "name": name, "value": value }),
        None => json!({ "name": name }),
    })
}

fn wish() -> impl Strategy<Value = Value> {
    let vpc = proptest::option::of(Just("vpc-1"));
    let group = proptest::option::of(Just("rg-1"));
    let image = proptest::option::of(prop_oneof![Just("vk:1"), Just("vk:2")]);
    let proxy = prop_oneof![Just("Enabled"), Just("Disabled")];
    let switches = prop_oneof![Just("a,b"), Just("c")];
    (vpc, group, image, proxy, switches).prop_map(|(vpc, group, image, proxy, switches)| {
        json!({
            "resourceGroupId": group,
            "network": { "vpcId": vpc, "kubeProxy": proxy, "zones": zones(switches)["zones"] },
            "provider": { "image": image },
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// P4: whatever stands there and whatever is wished in turn, foreign entries keep value and order, a second look
    /// finds nothing to do, and letting go gives back every byte.
    #[test]
    fn what_is_taken_over_is_given_back(
        env in proptest::collection::vec(variable(), 0..8),
        wishes in proptest::collection::vec(wish(), 1..4),
        labelled in any::<bool>(),
    ) {
        let mut raw = foreign();
        let list = raw["spec"]["template"]["spec"]["containers"][1]["env"].as_array_mut().unwrap();
        list.truncate(1);
        list.extend(env);
        if !labelled {
            raw["metadata"].as_object_mut().unwrap().shift_remove("labels");
        }
        let ours = |name: &str| name.starts_with("ECI_") || name.starts_with("ALIYUN_");
        let foreign_entries = |w: &Workload| {
            env_of(w, 1).into_iter().filter(|(name, _)| !ours(name)).collect::<Vec<_>>()
        };
        let mut server = Server::new(adopt(wishes[0].clone()), Some(raw));
        let before = bare(server.workload());
        let theirs = foreign_entries(server.workload());
        for wish in &wishes {
            server.set_pool(adopt(wish.clone()));
            server.run();
            prop_assert_eq!(server.plan().steps, Vec::new());
            prop_assert_eq!(foreign_entries(server.workload()), theirs.clone());
            for (name, value) in &desired::Desired::of(&server.seen.pool).env {
                let there = env::value(&server.workload().containers()[1], name);
                prop_assert!(desired::same_meaning(name, there, value), "{} {:?} {}", name, there, value);
            }
        }
        server.set_pool(deleted(adopt(wishes[0].clone())));
        server.run();
        prop_assert_eq!(bare(server.workload()), before);
    }
}
