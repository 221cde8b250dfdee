//! A workload of our own: `create`, its removal, and what is said about it.

use super::*;

#[test]
fn a_pool_makes_its_workload_in_three_writes_and_then_rests() {
    let mut server = Server::new(create(json!({ "replicas": 2 })), None);
    server.run();
    let [
        Step::CreateWorkload { body },
        Step::ApplyWorkload { .. },
        Step::PatchWorkload(scale),
    ] = &server.log[..]
    else {
        panic!("{:?}", server.log);
    };
    assert_eq!(scale.purpose, PatchPurpose::ScaleUp);
    assert_eq!(body["spec"]["replicas"], 0);
    assert_eq!(body["spec"]["podManagementPolicy"], "Parallel");
    assert_eq!(
        body["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let keys: Vec<&String> = body["spec"]["template"]["spec"]["containers"][0]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(keys, ["image", "name"]);
    assert_eq!(server.workload().replicas(), 2);
    assert_eq!(server.plan(), Part::default());
    assert!(
        server.started.len() == 2,
        "no provider starts twice: {:?}",
        server.started
    );
}

/// Admission changes what is stored and leaves us its manager: only the value tells.
#[test]
fn a_value_that_is_stored_otherwise_under_our_own_name_is_a_difference() {
    for path in ["/containers/0/image", "/containers/0/env/0/value"] {
        let mut server = Server::new(create(json!({ "replicas": 1 })), None);
        server.run();
        let full = format!("/spec/template/spec{path}");
        let written = server.workload().raw.pointer(&full).cloned().unwrap();
        server.meddle(|raw| *raw.pointer_mut(&full).unwrap() = json!("other"));
        let steps = server.plan().steps;
        assert!(
            matches!(steps.last(), Some(Step::ApplyWorkload { .. })),
            "{path}: {steps:?}"
        );
        server.run();
        assert_eq!(server.workload().raw.pointer(&full), Some(&written), "{path}");
        assert_eq!(server.plan().steps, []);
    }
}

#[test]
fn the_template_says_what_the_pool_says() {
    let spec = json!({
        "replicas": 1,
        "network": { "vpcId": "vpc-1", "kubeProxy": "Disabled" },
        "provider": {
            "args": ["--provider", "alibabacloud"], "clusterId": "c1", "credentialsSecretName": "cred",
            "serviceAccountName": "vk", "priorityClassName": "system-cluster-critical",
            "nodeSelector": { "pool": "infra" }, "imagePullSecrets": [{ "name": "pull" }],
            "tolerations": [{ "key": "infra", "operator": "Exists" }],
            "resources": { "requests": { "cpu": "1000m" } },
            "env": [{ "name": "ECI_QUOTA_POD", "value": "3000" }, { "name": "VKUBELET_POD_IP", "value": "$(ECI_VPC)" }],
        },
    });
    let mut server = Server::new(create(spec), None);
    server.run();
    let spec = &server.workload().template()["spec"];
    assert_eq!(spec["serviceAccountName"], "vk");
    assert_eq!(spec["priorityClassName"], "system-cluster-critical");
    assert_eq!(spec["nodeSelector"], json!({ "pool": "infra" }));
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert_eq!(spec["tolerations"][0]["key"], "infra");
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let term = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(
        term[0]["matchExpressions"][0],
        json!({ "key": "type", "operator": "NotIn", "values": ["virtual-kubelet"] })
    );
    let container = &spec["containers"][0];
    assert_eq!(container["args"], json!(["--provider", "alibabacloud"]));
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    let names: Vec<&str> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "ECI_REGION",
            "ECI_VPC",
            "ECI_VSWITCH",
            "ECI_SECURITY_GROUP",
            "ECI_KUBE_PROXY",
            "ALIYUN_CLUSTERID",
            "ECI_ACCESS_KEY",
            "ECI_SECRET_KEY",
            "DEFAULT_NODE_NAME",
            "ECI_QUOTA_POD",
            "VKUBELET_POD_IP"
        ]
    );
    assert_eq!(env::value(container, "ECI_KUBE_PROXY"), Some("false"));
    assert_eq!(
        env::entry(container, "ECI_ACCESS_KEY").unwrap().1["valueFrom"]["secretKeyRef"],
        json!({ "key": "access-key-id", "name": "cred" })
    );
    assert_eq!(server.plan(), Part::default());
}

#[test]
fn a_variable_that_the_pool_drops_goes_and_a_foreign_one_stays() {
    let with = json!({ "replicas": 1, "provider": { "env": [{ "name": "OURS", "value": "1" }] } });
    let mut server = Server::new(create(with), None);
    server.run();
    server.meddle(|raw| {
        let env = raw["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array_mut()
            .unwrap();
        env.push(json!({ "name": "THEIRS", "value": "2" }));
    });
    server.set_pool(create(json!({ "replicas": 1 })));
    server.run();
    let container = &server.workload().containers()[0];
    assert_eq!(env::value(container, "OURS"), None);
    assert_eq!(env::value(container, "THEIRS"), Some("2"));
    assert_eq!(server.plan(), Part::default());
}

#[test]
fn what_the_server_makes_of_values_is_no_reason_to_apply_again() {
    let spec = json!({ "replicas": 1, "provider": { "resources": { "requests": { "cpu": "1000m" } } } });
    let mut server = Server::new(create(spec), None);
    server.run();
    server.meddle(|raw| {
        let pod = &mut raw["spec"]["template"]["spec"];
        pod["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
        pod["dnsPolicy"] = json!("ClusterFirst");
    });
    server.run();
    assert_eq!(server.plan().steps, Vec::new());
}

#[test]
fn a_refused_pool_writes_nothing_to_the_workload() {
    let mut server = Server::new(create(json!({ "replicas": 2 })), Some(foreign()));
    server.run();
    assert_eq!(server.log, Vec::new());
}

#[test]
fn a_created_workload_is_deleted_after_the_drain_and_left_by_retain() {
    let mut server = Server::new(create(json!({ "replicas": 0 })), None);
    server.run();
    server.set_pool(deleted(create(json!({ "replicas": 0 }))));
    assert!(!released(&server.seen));
    assert_eq!(server.plan().steps, Vec::new());
    server.draining.drained = true;
    server.run();
    assert!(server.seen.workload.there().is_none());
    assert!(released(&server.seen));

    let mut server = Server::new(create(json!({ "replicas": 2 })), None);
    server.run();
    let before = (server.workload().template().clone(), server.workload().replicas());
    server.set_pool(deleted(create(
        json!({ "replicas": 2, "deletionPolicy": "Retain" }),
    )));
    server.run();
    assert!(!server.workload().has_finalizer());
    assert_eq!(
        (server.workload().template().clone(), server.workload().replicas()),
        before
    );
    assert!(released(&server.seen));
    // A pool of the same name takes it up again, and nothing restarts.
    server.started.clear();
    server.set_pool(create(json!({ "replicas": 2 })));
    server.run();
    assert!(server.workload().has_finalizer());
    assert_eq!(server.started, Vec::<Ordinal>::new());
}

#[test]
fn values_of_foreign_variables_stay_out_of_the_lines() {
    let mut server = Server::new(create(json!({ "replicas": 1 })), None);
    server.run();
    let env = json!([{ "name": "TOKEN", "value": "hush" }]);
    server.set_pool(create(
        json!({ "paused": true, "replicas": 1, "provider": { "env": env, "image": "v2" } }),
    ));
    let lines: Vec<String> = server
        .plan()
        .steps
        .into_iter()
        .filter_map(|s| {
            if let Step::ApplyWorkload { changes, .. } = s {
                Some(changes)
            } else {
                None
            }
        })
        .flatten()
        .collect();
    assert_eq!(
        lines,
        [
            "image registry.example/virtual-nodes-eci:v1 -> v2: restarts 1 provider",
            "env TOKEN changes: restarts 1 provider"
        ]
    );
}

#[test]
fn rolled_means_every_provider_runs_what_the_pool_wants() {
    let rolled = |s: &Server| super::rolled(&s.seen);
    let mut server = Server::new(create(json!({ "replicas": 2 })), None);
    assert!(rolled(&server));
    server.run();
    assert!(rolled(&server));
    server.set_pool(create(
        json!({ "replicas": 2, "network": { "securityGroupId": "sg-b" } }),
    ));
    server.until(|s| rolled(s));
    assert!(
        server
            .seen
            .provider_pods
            .values()
            .all(|p| Some(p.revision.as_str()) == server.workload().update_revision())
    );
}
