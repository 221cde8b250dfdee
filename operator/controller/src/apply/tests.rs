use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, ReplaceOperation};
use serde_json::{Value, json};
use vnp_plan::observed::{ObjectKey, Term};
use vnp_plan::step::{PatchPurpose, PolicyApply, ProfilePatch, RestartReason, Tolerate, WorkloadPatch};

use super::testing::{Answered, Call, Calls, failure, ok, server};
use super::*;

fn pool() -> PoolRef {
    PoolRef {
        name: "burst".into(),
        uid: "pool-uid".into(),
        resource_version: "77".into(),
        finalizers: vec!["example.com/other".into()],
        provider_namespace: "kube-system".into(),
        provider_name: "virtual-node-eci".into(),
    }
}

fn applier(answer: fn(&Call) -> Answered) -> (Applier, Calls, Claim) {
    let (client, calls) = server(move |call| {
        let answered = answer(&call);
        async move { answered }
    });
    let claim = Claim::lasting();
    let applier = Applier::new(
        client,
        claim.clone(),
        Metrics::default(),
        "virtualnodepool-system".into(),
    );
    (applier, calls, claim)
}

fn track(kind: TrackKind, steps: Vec<Step>) -> Track {
    Track { kind, steps }
}

/// The request that a step becomes.
async fn request(step: Step) -> (String, String, String, Value) {
    request_for(&pool(), step).await
}

async fn request_for(pool: &PoolRef, step: Step) -> (String, String, String, Value) {
    let (applier, calls, _) = applier(|_| ok(json!({})));
    let outcomes = applier.run(pool, &[track(TrackKind::Workload, vec![step])]).await;
    assert!(outcomes[0].result.is_ok(), "{:?}", outcomes[0].result);
    let [call] = calls.all().try_into().unwrap();
    (call.method, call.uri, call.content_type, call.body)
}

const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";

#[tokio::test]
async fn a_cordon_carries_the_uid_and_names_its_leader() {
    let (method, uri, content_type, body) = request(Step::Cordon {
        node: "vn-2".into(),
        uid: "n".into(),
        term: Term {
            transitions: 3,
            installation: "ns".into(),
            leader: "pod_1".into(),
        },
    })
    .await;
    assert_eq!((method.as_str(), content_type.as_str()), ("PATCH", APPLY));
    assert_eq!(
        uri,
        "/api/v1/nodes/vn-2?&force=true&fieldManager=virtualnodepool-cordon&fieldValidation=Strict"
    );
    assert_eq!(
        body,
        json!({"apiVersion": "v1", "kind": "Node",
               "metadata": {"name": "vn-2", "uid": "n", "annotations": {"virtualnodes.dev/cordoned-in-term": "3/ns/pod_1"}},
               "spec": {"unschedulable": true}})
    );
}

#[tokio::test]
async fn an_uncordon_gives_up_what_the_cordon_owned_and_nothing_else() {
    let (_, uri, _, body) = request(Step::Uncordon {
        node: "vn-2".into(),
        uid: "n".into(),
        resource_version: "7".into(),
    })
    .await;
    assert!(uri.contains("fieldManager=virtualnodepool-cordon"), "{uri}");
    assert_eq!(
        body,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "vn-2", "uid": "n", "resourceVersion": "7"}})
    );
}

#[tokio::test]
async fn a_label_is_applied_and_taken_back_as_the_operator() {
    let label = |pool| Step::LabelNode {
        node: "vn-2".into(),
        uid: "n".into(),
        pool,
    };
    let (_, uri, _, body) = request(label(Some("burst".into()))).await;
    assert!(
        uri.contains("fieldManager=virtualnodepool-operator") && uri.contains("fieldValidation=Strict"),
        "{uri}"
    );
    assert_eq!(
        body["metadata"],
        json!({"name": "vn-2", "uid": "n", "labels": {"virtualnodes.dev/pool": "burst"}})
    );
    let (_, _, _, body) = request(label(None)).await;
    assert_eq!(body["metadata"], json!({"name": "vn-2", "uid": "n"}));
}

#[tokio::test]
async fn deletes_name_the_uid_and_never_a_grace_period() {
    let pod = ObjectKey {
        namespace: "kube-system".into(),
        name: "virtual-node-eci-2".into(),
    };
    let deletes = [
        (
            Step::DeleteNode {
                node: "vn-2".into(),
                uid: "u".into(),
            },
            "/api/v1/nodes/vn-2?",
        ),
        (
            Step::DeleteProviderPod {
                pod,
                uid: "u".into(),
                why: RestartReason::Reap,
            },
            "/api/v1/namespaces/kube-system/pods/virtual-node-eci-2?",
        ),
        (
            Step::DeleteWorkload { uid: "u".into() },
            "/apis/apps/v1/namespaces/kube-system/statefulsets/virtual-node-eci?",
        ),
        (
            Step::DropCopy {
                name: "vnp-restore-x".into(),
                uid: "u".into(),
            },
            "/api/v1/namespaces/virtualnodepool-system/secrets/vnp-restore-x?",
        ),
    ];
    for (step, expected) in deletes {
        let (method, uri, _, body) = request(step).await;
        assert_eq!((method.as_str(), uri.as_str()), ("DELETE", expected));
        assert_eq!(
            body,
            json!({"propagationPolicy": "Background", "preconditions": {"uid": "u"}})
        );
    }
}

#[tokio::test]
async fn the_finalizer_is_added_to_the_others_and_taken_from_among_them() {
    let (_, uri, content_type, body) = request(Step::AddPoolFinalizer).await;
    assert_eq!(
        (uri.as_str(), content_type.as_str()),
        (
            "/apis/virtualnodes.dev/v1alpha1/virtualnodepools/burst?&fieldManager=virtualnodepool-operator",
            JSON_PATCH
        )
    );
    let tests = [
        json!({"op": "test", "path": "/metadata/uid", "value": "pool-uid"}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": "77"}),
    ];
    let add = json!({"op": "add", "path": "/metadata/finalizers", "value": ["example.com/other", "virtualnodes.dev/drain"]});
    assert_eq!(body, json!([tests[0], tests[1], add]));
    let mut held = pool();
    held.finalizers.push(vnp_crds::FINALIZER.into());
    let (_, _, _, body) = request_for(&held, Step::RemovePoolFinalizer).await;
    assert_eq!(
        body,
        json!([tests[0], tests[1], {"op": "remove", "path": "/metadata/finalizers/1"}])
    );
}

#[tokio::test]
async fn a_workload_is_posted_applied_and_patched_as_planned() {
    let body = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "virtual-node-eci"}, "x": 1});
    let (method, uri, _, sent) = request(Step::CreateWorkload { body: body.clone() }).await;
    assert_eq!(method, "POST");
    assert_eq!(
        uri,
        "/apis/apps/v1/namespaces/kube-system/statefulsets?&fieldManager=virtualnodepool-operator"
    );
    assert_eq!(sent, body);
    let (method, uri, content_type, sent) = request(Step::ApplyWorkload {
        body: body.clone(),
        purpose: PatchPurpose::Configure,
        changes: vec![],
    })
    .await;
    assert_eq!((method.as_str(), content_type.as_str()), ("PATCH", APPLY));
    assert!(
        uri.ends_with("?&force=true&fieldManager=virtualnodepool-operator&fieldValidation=Strict"),
        "{uri}"
    );
    assert_eq!(sent, body);
    let path = PointerBuf::from_tokens(["spec", "replicas"]);
    let patch = Patch(vec![PatchOperation::Replace(ReplaceOperation {
        path,
        value: json!(2),
    })]);
    let step = Step::PatchWorkload(WorkloadPatch {
        patch,
        purpose: PatchPurpose::ScaleUp,
        changes: vec![],
    });
    let (_, uri, content_type, sent) = request(step).await;
    assert!(
        uri.starts_with("/apis/apps/v1/namespaces/kube-system/statefulsets/virtual-node-eci?"),
        "{uri}"
    );
    assert_eq!(content_type, JSON_PATCH);
    assert_eq!(
        sent,
        json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])
    );
}

#[tokio::test]
async fn an_orphaned_pod_loses_one_owner_by_uid() {
    let pod = ObjectKey {
        namespace: "kube-system".into(),
        name: "virtual-node-eci-2".into(),
    };
    let step = Step::OrphanProviderPod {
        pod,
        uid: "pod-uid".into(),
        owner_uid: "owner".into(),
    };
    let (_, _, content_type, body) = request(step).await;
    assert_eq!(content_type, "application/strategic-merge-patch+json");
    assert_eq!(
        body,
        json!({"metadata": {"uid": "pod-uid", "ownerReferences": [{"$patch": "delete", "uid": "owner"}]}})
    );
}

#[tokio::test]
async fn a_copy_is_a_secret_that_can_not_change() {
    let step = Step::SaveCopy {
        name: "vnp-restore-x".into(),
        content: json!({"b": 1, "a": [2]}),
    };
    let (method, uri, _, body) = request(step).await;
    assert_eq!(method, "POST");
    assert!(
        uri.starts_with("/api/v1/namespaces/virtualnodepool-system/secrets?"),
        "{uri}"
    );
    assert_eq!(
        body["metadata"]["labels"],
        json!({
            "app.kubernetes.io/managed-by": "virtualnodepool-operator", "virtualnodes.dev/pool": "burst",
        })
    );
    assert_eq!(
        body["metadata"]["annotations"],
        json!({"virtualnodes.dev/pool-uid": "pool-uid"})
    );
    assert_eq!(
        (&body["type"], &body["immutable"]),
        (&json!("Opaque"), &json!(true))
    );
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(body).unwrap();
    assert_eq!(secret.data.unwrap()[COPY_KEY].0, br#"{"b":1,"a":[2]}"#);
}

#[tokio::test]
async fn profile_writes_belong_to_no_pool() {
    let config_map = ObjectKey {
        namespace: "kube-system".into(),
        name: "eci-profile".into(),
    };
    let body = json!({"metadata": {"resourceVersion": "9"}, "data": {"vpcId": "vpc-1"}});
    let patch = ProfilePatch {
        config_map: config_map.clone(),
        body: body.clone(),
        changes: vec![],
    };
    let delete = Step::DeleteProfile {
        config_map,
        uid: "u".into(),
        resource_version: "9".into(),
    };
    let (applier, calls, _) = applier(|_| ok(json!({})));
    let steps = [
        Step::CreateProfile(patch.clone()),
        Step::PatchProfile(patch),
        delete,
    ];
    for outcome in applier.run_profile(&steps).await {
        assert!(outcome.result.is_ok() && outcome.track.is_none());
    }
    let calls = calls.all();
    let [create, patch, delete] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    // Carries the name, which RBAC needs, and is not forced.
    assert!(
        create
            .uri
            .starts_with("/api/v1/namespaces/kube-system/configmaps/eci-profile?"),
        "{}",
        create.uri
    );
    assert!(
        create.uri.contains("fieldManager=virtualnodepool-operator") && !create.uri.contains("force"),
        "{}",
        create.uri
    );
    assert_eq!(create.content_type, "application/apply-patch+yaml");
    assert_eq!(
        (patch.content_type.as_str(), &patch.body),
        ("application/merge-patch+json", &body)
    );
    assert_eq!(
        delete.body["preconditions"],
        json!({"uid": "u", "resourceVersion": "9"})
    );
}

#[tokio::test]
async fn a_policy_is_forced_only_where_it_is_ours() {
    let policy = ObjectKey {
        namespace: "shop".into(),
        name: "burst.web".into(),
    };
    let apply = |create| {
        Step::ApplyPolicy(PolicyApply {
            policy: policy.clone(),
            create,
            body: json!({"spec": {}}),
        })
    };
    let path = "/apis/scheduling.alibabacloud.com/v1alpha1/namespaces/shop/resourcepolicies/burst.web?";
    for create in [true, false] {
        let (method, uri, content_type, body) = request(apply(create)).await;
        assert_eq!((method.as_str(), content_type.as_str()), ("PATCH", APPLY));
        assert!(
            uri.starts_with(path) && uri.contains("fieldManager=virtualnodepool-operator"),
            "{uri}"
        );
        assert_eq!(uri.contains("force=true"), !create, "{uri}");
        assert_eq!(body, json!({"spec": {}}));
    }
    let (method, uri, _, body) = request(Step::DeletePolicy {
        policy,
        uid: "u".into(),
    })
    .await;
    assert_eq!((method.as_str(), uri.as_str()), ("DELETE", path));
    assert_eq!(body["preconditions"], json!({"uid": "u"}));
}

#[tokio::test]
async fn pods_overflow_side_by_side_and_none_holds_back_another() {
    let step = |n: usize| {
        Step::Tolerate(Tolerate {
            pod: ObjectKey {
                namespace: "shop".into(),
                name: format!("web-{n}"),
            },
            patch: Patch(vec![]),
        })
    };
    let (applier, calls, _) = applier(|call| match call.uri.contains("web-3?") {
        true => failure(422, "the server rejected our request", json!({})),
        false => ok(json!({})),
    });
    let outcomes = applier.run_overflow((0..40).map(step).collect()).await;
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.result.is_err()).collect();
    assert_eq!((outcomes.len(), failed.len()), (40, 1));
    assert!(matches!(failed[0].result, Err(ApplyError::Moved { .. })));
    let calls = calls.all();
    assert_eq!(calls.len(), 40);
    assert!(
        calls[0].uri.starts_with("/api/v1/namespaces/shop/pods/web-"),
        "{}",
        calls[0].uri
    );
    assert_eq!(
        (calls[0].method.as_str(), calls[0].content_type.as_str()),
        ("PATCH", JSON_PATCH)
    );
}

#[tokio::test]
async fn a_step_without_its_pool_is_never_sent() {
    let (applier, calls, _) = applier(|_| ok(json!({})));
    let outcomes = applier
        .run_profile(&[Step::DeleteWorkload { uid: "u".into() }])
        .await;
    assert!(
        matches!(outcomes[0].result, Err(ApplyError::Unwritable { .. })),
        "{outcomes:?}"
    );
    assert!(calls.all().is_empty());
}

#[tokio::test]
async fn what_is_gone_counts_as_deleted_and_what_was_replaced_does_not() {
    let delete = || {
        vec![Step::DeleteNode {
            node: "vn-2".into(),
            uid: "u".into(),
        }]
    };
    let (gone, _, _) = applier(|_| failure(404, "nodes \"vn-2\" not found", json!({"kind": "nodes"})));
    let outcomes = gone.run(&pool(), &[track(TrackKind::Drain, delete())]).await;
    assert!(outcomes[0].result.is_ok());
    let (refused, ..) = applier(|_| {
        let text = "admission webhook \"guard\" denied the request: no such ticket";
        failure(404, text, json!({"kind": "nodes"}))
    });
    let outcomes = refused.run(&pool(), &[track(TrackKind::Drain, delete())]).await;
    assert_eq!(
        outcomes[0].result.as_ref().unwrap_err().retry(),
        Retry::Person,
        "a webhook chose the code"
    );
    let (other, _, _) = applier(|_| failure(409, "Precondition failed: UID", json!({"kind": "nodes"})));
    let outcomes = other.run(&pool(), &[track(TrackKind::Drain, delete())]).await;
    assert_eq!(outcomes[0].result.as_ref().unwrap_err().retry(), Retry::LookAgain);
}

#[tokio::test]
async fn a_copy_that_exists_is_looked_at_and_not_taken_for_this_one() {
    let (applier, _, _) =
        applier(|_| failure(409, "secrets \"x\" already exists", json!({"kind": "secrets"})));
    let step = Step::SaveCopy {
        name: "x".into(),
        content: json!({}),
    };
    let outcomes = applier
        .run(&pool(), &[track(TrackKind::Workload, vec![step])])
        .await;
    assert_eq!(outcomes[0].result.as_ref().unwrap_err().retry(), Retry::LookAgain);
}

#[tokio::test]
async fn a_failed_step_ends_its_own_track_only() {
    let (applier, calls, _) = applier(|call| {
        if call.uri.contains("statefulsets") {
            failure(503, "no", json!({}))
        } else {
            ok(json!({}))
        }
    });
    let node = |n: &str| Step::Cordon {
        node: n.into(),
        uid: "u".into(),
        term: Term::default(),
    };
    let tracks = [
        track(
            TrackKind::Workload,
            vec![Step::DeleteWorkload { uid: "u".into() }, Step::AddPoolFinalizer],
        ),
        track(TrackKind::Drain, vec![node("vn-1"), node("vn-2")]),
    ];
    let outcomes = applier.run(&pool(), &tracks).await;
    let told: Vec<(Option<TrackKind>, bool)> = outcomes.iter().map(|o| (o.track, o.result.is_ok())).collect();
    assert_eq!(
        told,
        [
            (Some(TrackKind::Workload), false),
            (Some(TrackKind::Drain), true),
            (Some(TrackKind::Drain), true)
        ]
    );
    assert_eq!(calls.all().len(), 3);
    assert_eq!(outcomes[0].result.as_ref().unwrap_err().retry(), Retry::Later);
}

#[tokio::test]
async fn without_the_lease_nothing_is_sent() {
    let (applier, calls, claim) = applier(|_| ok(json!({})));
    claim.revoke();
    let outcomes = applier
        .run(&pool(), &[track(TrackKind::Pool, vec![Step::AddPoolFinalizer])])
        .await;
    assert_eq!(outcomes[0].result.as_ref().unwrap_err().retry(), Retry::Stop);
    assert!(calls.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_write_has_an_end() {
    let (client, _) = server(|_| std::future::pending());
    let applier = Applier::new(client, Claim::lasting(), Metrics::default(), "ns".into());
    let outcomes = applier
        .run(&pool(), &[track(TrackKind::Pool, vec![Step::AddPoolFinalizer])])
        .await;
    assert!(
        matches!(outcomes[0].result, Err(ApplyError::TooLate { .. })),
        "{outcomes:?}"
    );
}
