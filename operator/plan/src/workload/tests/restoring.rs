//! A workload that somebody deleted: `restore`.

use super::*;

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
                let ours = server.seen.workload.there().is_some_and(|w| w.has_finalizer());
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
                        .there()
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
    server.seen.workload = living.into();
    assert_eq!(server.plan().steps, Vec::new());
}

#[test]
fn what_somebody_made_faster_is_taken_over() {
    let mut server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(foreign()));
    server.run();
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    for _ in 0..5 {
        if server.seen.workload.there().is_some() {
            server.pass(usize::MAX);
        }
    }
    assert_eq!(server.seen.workload, WorkloadSeen::Absent);
    let mut theirs = foreign();
    theirs["metadata"]["uid"] = json!("newer");
    theirs["spec"]["replicas"] = json!(1);
    server.seen.workload = Workload::new(theirs).into();
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

/// Up to the moment at which the object is there again.
fn created_again(server: &mut Server) {
    for _ in 0..5 {
        if server.seen.workload.there().is_none_or(|w| w.deleting()) {
            server.pass(usize::MAX);
        }
    }
    assert!(!server.workload().deleting());
}

#[test]
fn fields_go_back_to_their_managers() {
    let mut server = Server::new(create(json!({ "replicas": 1 })), None);
    server.run();
    let manager = |name: &str, subresource: &str| json!({ "manager": name, "operation": "Update", "subresource": subresource });
    server.meddle(|raw| {
        let managers = raw["metadata"]["managedFields"].as_array_mut().unwrap();
        managers.extend([
            manager("argocd", ""),
            manager("kube-controller-manager", "status"),
        ]);
    });
    let before = server.workload().raw["metadata"]["managedFields"].clone();
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    created_again(&mut server);
    // As the server books a POST, and the status that the controller wrote since.
    server.meddle(|raw| {
        raw["metadata"]["managedFields"] =
            json!([manager(vnp_crds::FIELD_MANAGER, ""), manager("kcm", "status")]);
    });
    server.run();
    let after = &server.workload().raw["metadata"]["managedFields"];
    assert_eq!(after, &json!([before[0], before[1], manager("kcm", "status")]));
    // So what the pool drops still goes.
    assert_eq!(server.plan(), Part::default());
}

#[test]
fn the_managers_of_another_object_are_left_alone() {
    let mut server = Server::new(create(json!({ "replicas": 1 })), None);
    server.run();
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    created_again(&mut server);
    server.meddle(|raw| {
        raw["metadata"]["managedFields"] =
            json!([{ "manager": vnp_crds::FIELD_MANAGER, "operation": "Update" }]);
        raw["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    });
    assert!(matches!(&server.plan().steps[..], [Step::DropCopy { .. }]));
}

#[test]
fn the_last_provider_of_a_deleted_workload_may_finish() {
    let mut server = Server::new(create(json!({ "replicas": 1 })), None);
    server.run();
    server.set_pool(create(json!({ "replicas": 0 })));
    server.meddle(|raw| {
        raw["spec"]["replicas"] = json!(0);
        raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    let terminating = |server: &mut Server, yes| {
        Arc::make_mut(server.seen.provider_pods.get_mut(&0).unwrap()).deleting = yes;
    };
    terminating(&mut server, true);
    assert_eq!(server.plan().steps, Vec::new());
    // Its controller does not delete it any more.
    terminating(&mut server, false);
    assert!(matches!(
        &server.plan().steps[..],
        [Step::SaveCopy { .. }, Step::OrphanProviderPod { .. }]
    ));
    server.seen.provider_pods.clear();
    assert!(matches!(&server.plan().steps[..], [Step::PatchWorkload(p)] if p.purpose == PatchPurpose::LetGo));
}

#[test]
fn a_workload_of_another_pool_is_not_restored() {
    let mut raw = foreign();
    raw["metadata"]["labels"] = json!({ vnp_crds::POOL_LABEL: "another" });
    raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    raw["metadata"]["finalizers"] = json!([vnp_crds::WORKLOAD_FINALIZER]);
    let server = Server::new(adopt(json!({ "network": zones(ZONES) })), Some(raw));
    assert_eq!(server.plan().steps, Vec::new());
}

#[test]
fn what_comes_back_and_when_is_said_as_it_is() {
    let mut server = Server::new(create(json!({ "replicas": 0 })), None);
    server.run();
    bind(&mut server.seen, 0, vec![pod("a")]);
    server.meddle(|raw| raw["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    let waits = |server: &Server| format!("{:?}", server.plan().findings);
    assert!(
        waits(&server).contains("is made again once it is gone;"),
        "{}",
        waits(&server)
    );
    // Nothing keeps a copy of it while the pool is paused, so it is held.
    server.set_pool(create(json!({ "replicas": 0, "paused": true })));
    let told = waits(&server);
    assert!(
        told.contains("is made again once it is gone and the pool is not paused any more;"),
        "{told}"
    );
    server.set_pool(create(json!({ "replicas": 0 })));
    let mut restored = None;
    for _ in 0..10 {
        let part = server.pass(usize::MAX);
        restored = restored.or_else(|| {
            part.findings.into_iter().find_map(|f| match f {
                Finding::Event(e) if e.reason == EventReason::WorkloadRestored => Some(e.note),
                _ => None,
            })
        });
    }
    let restored = restored.unwrap();
    assert!(restored.contains("it has no providers"), "{restored}");
}
