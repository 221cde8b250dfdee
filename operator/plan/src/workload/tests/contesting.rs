//! Fields that two managers want: `contest`.

use super::*;

#[test]
fn a_field_set_back_three_times_is_left_to_the_other() {
    let mut server = Server::new(adopt(json!({ "network": zones("vsw-c") })), Some(foreign()));
    server.run();
    let mut writes = Vec::new();
    for _ in 0..5 {
        let before = server.log.len();
        server.meddle(|raw| {
            raw["spec"]["template"]["spec"]["containers"][1]["env"][1]["value"] = json!("vsw-x");
            raw["metadata"]["managedFields"] = json!([{
                "manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                "fieldsV1": { "f:spec": { "f:template": { "f:spec": { "f:containers": {
                    "k:{\"name\":\"vk\"}": { "f:env": { "k:{\"name\":\"ECI_VSWITCH\"}": { "f:value": {} } } } } } } } },
            }]);
        });
        server.run();
        writes.push(server.log.len() > before);
    }
    assert_eq!(writes, [true, true, false, false, false]);
    let part = server.plan();
    assert_eq!(stalled(&part).len(), 1);
    assert!(
        stalled(&part)[0].contains("helm keeps setting env ECI_VSWITCH"),
        "{:?}",
        stalled(&part)
    );
    // Another field still follows.
    server.set_pool(adopt(
        json!({ "network": { "vpcId": "vpc-9", "zones": zones("vsw-c")["zones"] } }),
    ));
    server.run();
    assert_eq!(
        env::value(&server.workload().containers()[1], "ECI_VPC"),
        Some("vpc-9")
    );
    assert_eq!(
        env::value(&server.workload().containers()[1], "ECI_VSWITCH"),
        Some("vsw-x")
    );
    // A new wish is tried again.
    server.set_pool(adopt(json!({ "network": zones("vsw-d") })));
    server.run();
    assert_eq!(
        env::value(&server.workload().containers()[1], "ECI_VSWITCH"),
        Some("vsw-d")
    );
}

#[test]
fn a_contested_template_of_ours_names_field_and_manager() {
    let mut server = Server::new(create(json!({ "replicas": 1 })), None);
    server.run();
    let mut writes = Vec::new();
    for _ in 0..4 {
        let before = server.log.len();
        server.meddle(|raw| {
            raw["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
            let containers = &mut raw["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"];
            containers["k:{\"name\":\"virtual-node\"}"].as_object_mut().unwrap().shift_remove("f:image");
            raw["metadata"]["managedFields"].as_array_mut().unwrap().push(json!({
                "manager": "keel", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                "fieldsV1": { "f:spec": { "f:template": { "f:spec": { "f:containers": {
                    "k:{\"name\":\"virtual-node\"}": { "f:image": {} } } } } } },
            }));
        });
        server.run();
        writes.push(server.log.len() > before);
    }
    assert_eq!(writes, [true, true, false, false]);
    let part = server.plan();
    let expected = "keel keeps setting spec.template.spec.containers[virtual-node].image";
    assert!(stalled(&part)[0].starts_with(expected), "{:?}", stalled(&part));
}

#[test]
fn nobody_is_no_field_manager() {
    let mut server = Server::new(adopt(json!({})), Some(foreign()));
    server.run();
    let times = (0..3)
        .map(|i| {
            (
                server.now - jiff::SignedDuration::from_secs(60 * i),
                contest::NOBODY.to_owned(),
            )
        })
        .rev()
        .collect();
    server
        .seen
        .recall
        .set_back
        .insert(contest::TAKEOVER.to_owned(), times);
    server.meddle(|raw| raw["metadata"]["labels"] = json!({}));
    let part = server.plan();
    let told = stalled(&part);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(!told[0].contains("field manager"), "{told:?}");
    assert!(
        told[0]
            .contains("keep it from removing them: without them nothing keeps its nodes when it is deleted"),
        "{told:?}"
    );
}
