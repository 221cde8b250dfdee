//! The module as a whole, against the stand-in of an API server in `server`.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use vnp_crds::{EventReason, VirtualNodePool};

use super::server::Server;
use super::*;
use crate::observed::CordonOwner;
use crate::testing::{bind, pod, pool};

fn create(spec: Value) -> VirtualNodePool {
    pool(spec)
}

fn adopt(spec: Value) -> VirtualNodePool {
    let mut base = json!({ "provider": { "management": "Adopt", "image": null } });
    json_patch::merge(&mut base, &spec);
    pool(base)
}

fn deleted(mut pool: VirtualNodePool) -> VirtualNodePool {
    pool.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        crate::testing::now(),
    ));
    pool
}

/// A StatefulSet that somebody made: a sidecar, foreign variables, a reference behind our key, a space after the comma,
/// the same name twice.
fn foreign() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "virtual-node-eci", "namespace": "kube-system", "uid": "theirs", "resourceVersion": "5",
            "generation": 1, "labels": { "team": "infra" },
        },
        "spec": {
            "replicas": 3,
            "serviceName": "virtual-node-eci",
            "selector": { "matchLabels": { "app": "vk" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "somethingNew": { "b": 1, "a": [2] },
            "template": {
                "metadata": { "labels": { "app": "vk" } },
                "spec": { "containers": [
                    { "name": "side", "image": "side:1" },
                    { "name": "vk", "image": "vk:1", "env": [
                        { "name": "ECI_REGION", "value": "cn-hangzhou" },
                        { "name": "ECI_VSWITCH", "value": "vsw-a, vsw-b" },
                        { "name": "COPY", "value": "$(ECI_VSWITCH)" },
                        { "name": "ECI_SECURITY_GROUP", "value": "sg-a" },
                        { "name": "TWICE", "value": "1" },
                        { "name": "TWICE", "value": "2" },
                    ] },
                ] },
            },
        },
    })
}

const ZONES: &str = "vsw-a,vsw-b";

fn zones(switches: &str) -> Value {
    let ids: Vec<&str> = switches.split(',').collect();
    json!({ "zones": [{ "zone": "cn-hangzhou-j", "vSwitchIds": ids }] })
}

fn env_of(workload: &Workload, container: usize) -> Vec<(String, String)> {
    let env = workload.containers()[container]["env"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    env.iter()
        .map(|e| (text(&e["name"]), text(&e["value"])))
        .collect()
}

/// Nothing on the workload holds it for the pool any more; a created one keeps its label.
fn released(seen: &Observed) -> bool {
    let adopted = seen.pool.spec.provider.management() == Management::Adopt;
    let held = seen.held_workload().is_some_and(|w| adopted || w.has_finalizer());
    !held && seen.restore_copy.is_none() && seen.template_copy.is_none()
}

/// Without what the server and our bookkeeping change.
fn bare(workload: &Workload) -> String {
    let mut raw = workload.raw.clone();
    let metadata = raw["metadata"].as_object_mut().unwrap();
    metadata.shift_remove("resourceVersion");
    metadata.shift_remove("generation");
    raw.as_object_mut().unwrap().shift_remove("status");
    raw.to_string()
}

fn stalled(part: &Part) -> Vec<&str> {
    let message = |f: &'_ Finding| matches!(f, Finding::Stalled { .. });
    part.findings
        .iter()
        .filter(|f| message(f))
        .filter_map(|f| {
            if let Finding::Stalled { message, .. } = f {
                Some(message.as_str())
            } else {
                None
            }
        })
        .collect()
}

fn told(part: &Part, reason: EventReason) -> bool {
    part.findings
        .iter()
        .any(|f| matches!(f, Finding::Event(e) if e.reason == reason))
}

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
fn a_created_workload_is_deleted_after_the_drain_and_left_by_retain() {
    let mut server = Server::new(create(json!({ "replicas": 0 })), None);
    server.run();
    server.set_pool(deleted(create(json!({ "replicas": 0 }))));
    assert!(!released(&server.seen));
    assert_eq!(server.plan().steps, Vec::new());
    server.draining.drained = true;
    server.run();
    assert!(server.seen.workload.is_none());
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

/// `kubectl delete statefulset`, with the process dying after any number of steps, again and again.
#[test]
fn a_deleted_workload_comes_back_as_it_was_with_the_same_providers() {
    for foreground in [false, true] {
        for most in 1..4 {
            let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
            server.run();
            let before = (bare(server.workload()), server.seen.provider_pods.clone());
            server.meddle(|raw| {
                raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                raw["metadata"]["annotations"][vnp_crds::SHRINKING_ANNOTATION] = json!("2/x/1");
                if foreground {
                    raw["metadata"]["finalizers"]
                        .as_array_mut()
                        .unwrap()
                        .push(json!("foregroundDeletion"));
                }
            });
            let mut restored = false;
            for _ in 0..20 {
                let part = server.pass(most);
                restored |= told(&part, EventReason::WorkloadRestored);
                let orphans = server
                    .seen
                    .provider_pods
                    .values()
                    .all(|p| p.owner_uids.is_empty());
                let ours = server.seen.workload.as_ref().is_some_and(|w| w.has_finalizer());
                assert!(
                    ours || orphans && server.seen.restore_copy.is_some(),
                    "nothing goes before the copy is kept"
                );
                // The garbage collector: done once nobody is owned any more.
                if foreground
                    && orphans
                    && server
                        .seen
                        .workload
                        .as_ref()
                        .is_some_and(|w| w.deleting() && !w.has_finalizer())
                {
                    server.meddle(|raw| {
                        raw["metadata"]
                            .as_object_mut()
                            .unwrap()
                            .shift_remove("finalizers");
                    });
                }
            }
            let mut after: Value = serde_json::from_str(&bare(server.workload())).unwrap();
            assert_ne!(after["metadata"]["uid"], "theirs");
            after["metadata"]["uid"] = json!("theirs");
            let before_raw: Value = serde_json::from_str(&before.0).unwrap();
            assert_eq!(after, before_raw);
            let uids = |pods: &BTreeMap<Ordinal, Arc<ProviderPod>>| {
                pods.values().map(|p| p.uid.clone()).collect::<Vec<_>>()
            };
            assert_eq!(uids(&server.seen.provider_pods), uids(&before.1));
            assert_eq!(server.seen.restore_copy, None);
            assert!(restored);
            assert_eq!(server.started, Vec::<Ordinal>::new());
            assert_eq!(server.plan().steps, Vec::new());
        }
    }
}

#[test]
fn a_stale_copy_is_not_replayed() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    let delete = |raw: &mut Value| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    server.meddle(delete);
    server.pass(1);
    // Edited after the copy was kept.
    server.meddle(|raw| raw["spec"]["replicas"] = json!(5));
    server.run();
    assert_eq!(server.workload().replicas(), 5);
    // A look from before the deletion does not lose the copy.
    let living = server.workload().clone();
    server.meddle(delete);
    server.pass(1);
    server.seen.workload = Some(Arc::new(living));
    assert_eq!(server.plan().steps, Vec::new());
}

#[test]
fn what_somebody_made_faster_is_taken_over() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    while server.seen.workload.is_some() {
        server.pass(usize::MAX);
    }
    let mut theirs = foreign();
    theirs["metadata"]["uid"] = json!("newer");
    theirs["spec"]["replicas"] = json!(1);
    server.seen.workload = Some(Arc::new(Workload::new(theirs)));
    bind(&mut server.seen, 2, vec![pod("a")]);
    server.run();
    assert_eq!(server.workload().uid(), "newer");
    assert!(adopt::taken_over(&server.seen.pool, server.workload()));
    assert_eq!(server.workload().replicas(), 3, "pods are bound to ordinal 2");
    assert_eq!(server.seen.restore_copy, None);
}

#[test]
fn a_deleted_workload_on_which_nothing_runs_is_let_go() {
    let mut server = Server::new(create(json!({ "replicas": 0 })), None);
    server.run();
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    let part = server.pass(usize::MAX);
    assert!(matches!(&part.steps[..], [Step::PatchWorkload(p)] if p.purpose == PatchPurpose::LetGo));
    // Finished pods are instances too.
    let mut server = Server::new(create(json!({ "replicas": 0 })), None);
    server.run();
    bind(&mut server.seen, 0, vec![pod("a")]);
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    assert!(matches!(&server.plan().steps[..], [Step::SaveCopy { .. }]));
}

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
fn a_paused_pool_shows_all_that_it_would_write() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.set_pool(adopt(
        json!({ "paused": true, "replicas": 4, "network": zones("vsw-c") }),
    ));
    let lines: Vec<String> = server
        .plan()
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

#[test]
fn rolled_means_every_provider_runs_what_the_pool_wants() {
    let rolled = |s: &Server| super::rolled(&s.seen.pool, s.seen.workload.as_deref(), &s.seen.provider_pods);
    let mut server = Server::new(create(json!({ "replicas": 2 })), None);
    assert!(rolled(&server));
    server.run();
    assert!(rolled(&server));
    server.set_pool(create(
        json!({ "replicas": 2, "network": { "securityGroupId": "sg-b" } }),
    ));
    let mut seen = 0;
    while !rolled(&server) {
        seen += 1;
        assert!(seen < 100);
        server.pass(usize::MAX);
        server.tick();
    }
    assert!(
        server
            .seen
            .provider_pods
            .values()
            .all(|p| Some(p.revision.as_str()) == server.workload().update_revision())
    );
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
