//! What the operator writes, against a real API server: each write has the precondition that its step promises.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use anyhow::{Context, Result};
use json_patch::Patch as JsonPatch;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use vnp_e2e::control_plane::Identity;
use vnp_operator::apply::{Applier, Outcome, PoolRef, Retry};
use vnp_operator::runtime::metrics::Metrics;
use vnp_plan::observed::{ObjectKey, Term};
use vnp_plan::plan::{Track, TrackKind};
use vnp_plan::step::{PatchPurpose, RestartReason, Step, WorkloadPatch};

use crate::fixture::{Bench, create, fast, uid};

impl Bench {
    fn applier(&self) -> Applier {
        Applier::new(
            self.fast.clone(),
            self.claim.clone(),
            Metrics::default(),
            self.namespace.clone(),
        )
    }

    fn pool(&self) -> PoolRef {
        PoolRef {
            name: "burst".into(),
            uid: "pool-uid".into(),
            provider_namespace: self.namespace.clone(),
            provider_name: "virtual-node-eci".into(),
            ..PoolRef::default()
        }
    }

    /// What one step gets.
    async fn step(&self, step: Step) -> Outcome {
        let track = Track {
            kind: TrackKind::Workload,
            steps: vec![step],
        };
        self.applier().run(&self.pool(), &[track]).await.remove(0)
    }
}

fn term(transitions: i32) -> Term {
    Term {
        transitions,
        installation: "virtualnodepool-system".into(),
        leader: "operator_1".into(),
    }
}

fn retry(outcome: &Outcome) -> Option<Retry> {
    outcome
        .result
        .as_ref()
        .err()
        .map(vnp_operator::apply::ApplyError::retry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_is_undone_without_touching_a_persons() -> Result<()> {
    let bench = Bench::new("cordons").await?;
    let nodes = Api::<Node>::all(bench.admin.clone());
    let node = |name: &str| json!({"metadata": {"name": name}});
    let (ours, theirs) = (
        create(&nodes, node("cordon-a")).await?,
        create(&nodes, node("cordon-b")).await?,
    );
    bench.control_plane.kubectl(["cordon", "cordon-b"]).await?;
    for node in [&ours, &theirs] {
        let (node, uid) = (node.name_any(), uid(node));
        assert!(
            bench
                .step(Step::Cordon {
                    node: node.clone(),
                    uid: uid.clone(),
                    term: term(1),
                })
                .await
                .result
                .is_ok()
        );
        assert_eq!(
            nodes.get(&node).await?.spec.and_then(|s| s.unschedulable),
            Some(true)
        );
        let uncordon = |resource_version: String| Step::Uncordon {
            node: node.clone(),
            uid: uid.clone(),
            resource_version,
        };
        let version = nodes.get(&node).await?.resource_version().context("no version")?;
        // The next leader makes the cordon its own: the one before comes too late to undo it.
        let next = Step::Cordon {
            node: node.clone(),
            uid: uid.clone(),
            term: term(2),
        };
        assert!(bench.step(next).await.result.is_ok());
        let late = bench.step(uncordon(version)).await;
        assert_eq!(retry(&late), Some(Retry::LookAgain));
        let current = nodes.get(&node).await?;
        assert_eq!(
            current.annotations()[vnp_crds::CORDON_TERM_ANNOTATION],
            term(2).to_string()
        );
        let version = current.resource_version().context("no version")?;
        assert!(bench.step(uncordon(version)).await.result.is_ok());
        let after = nodes.get(&node).await?;
        assert!(!after.annotations().contains_key(vnp_crds::CORDON_TERM_ANNOTATION));
    }
    assert_eq!(
        nodes.get("cordon-a").await?.spec.and_then(|s| s.unschedulable),
        None
    );
    assert_eq!(
        nodes.get("cordon-b").await?.spec.and_then(|s| s.unschedulable),
        Some(true)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanished_or_came_back_is_not_written() -> Result<()> {
    let bench = Bench::new("nodes").await?;
    let nodes = Api::<Node>::all(bench.admin.clone());
    let before = create(&nodes, json!({"metadata": {"name": "vn-back"}})).await?;
    nodes.delete("vn-back", &DeleteParams::default()).await?;
    let cordon = || Step::Cordon {
        node: "vn-back".into(),
        uid: uid(&before),
        term: term(1),
    };
    let label = || Step::LabelNode {
        node: "vn-back".into(),
        uid: uid(&before),
        pool: Some("burst".into()),
    };
    for step in [
        cordon(),
        label(),
        Step::Uncordon {
            node: "vn-back".into(),
            uid: uid(&before),
            resource_version: before.resource_version().unwrap_or_default(),
        },
    ] {
        assert_eq!(retry(&bench.step(step).await), Some(Retry::LookAgain));
    }
    assert!(
        nodes.get_opt("vn-back").await?.is_none(),
        "an apply made the Node"
    );
    assert!(
        bench
            .step(Step::DeleteNode {
                node: "vn-back".into(),
                uid: uid(&before)
            })
            .await
            .result
            .is_ok()
    );

    let after = create(&nodes, json!({"metadata": {"name": "vn-back"}})).await?;
    assert_eq!(retry(&bench.step(cordon()).await), Some(Retry::LookAgain));
    let delete = |uid| Step::DeleteNode {
        node: "vn-back".into(),
        uid,
    };
    assert_eq!(
        retry(&bench.step(delete(uid(&before))).await),
        Some(Retry::LookAgain)
    );
    let label = |pool| Step::LabelNode {
        node: "vn-back".into(),
        uid: uid(&after),
        pool,
    };
    assert!(bench.step(label(Some("burst".into()))).await.result.is_ok());
    assert_eq!(
        nodes.get("vn-back").await?.labels()[vnp_crds::POOL_LABEL],
        "burst"
    );
    assert!(bench.step(label(None)).await.result.is_ok());
    assert!(
        !nodes
            .get("vn-back")
            .await?
            .labels()
            .contains_key(vnp_crds::POOL_LABEL)
    );
    assert!(bench.step(delete(uid(&after))).await.result.is_ok());
    assert!(nodes.get_opt("vn-back").await?.is_none());
    Ok(())
}

fn stateful_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "virtual-node-eci"},
        "spec": {"replicas": 0, "serviceName": "", "selector": {"matchLabels": {"app": "v"}},
                 "template": {"metadata": {"labels": {"app": "v"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    })
}

fn patch(operations: Value) -> Result<Step> {
    let patch: JsonPatch = serde_json::from_value(operations)?;
    Ok(Step::PatchWorkload(WorkloadPatch {
        patch,
        purpose: PatchPurpose::Configure,
        changes: vec![],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_made_once_and_patched_only_as_it_was_read() -> Result<()> {
    let bench = Bench::new("workloads").await?;
    let post = || Step::CreateWorkload { body: stateful_set() };
    assert!(bench.step(post()).await.result.is_ok());
    assert_eq!(retry(&bench.step(post()).await), Some(Retry::LookAgain));
    let sets = bench.api::<StatefulSet>();
    let set = sets.get("virtual-node-eci").await?;
    let label = |uid: &str| {
        patch(json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ]))
    };
    assert_eq!(
        retry(&bench.step(label("another")?).await),
        Some(Retry::LookAgain)
    );
    assert!(bench.step(label(&uid(&set))?).await.result.is_ok());
    assert_eq!(sets.get("virtual-node-eci").await?.labels()["a"], "b");

    let immutable = patch(json!([{"op": "replace", "path": "/spec/serviceName", "value": "other"}]))?;
    let refused = bench.step(immutable).await;
    assert_eq!(retry(&refused), Some(Retry::Person));
    let message = refused.result.unwrap_err().to_string();
    assert!(message.contains("spec.serviceName"), "{message}");

    let misspelt = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "virtual-node-eci", "uid": uid(&set)}, "spec": {"minReadySecond": 3}});
    let refused = bench
        .step(Step::ApplyWorkload {
            body: misspelt,
            purpose: PatchPurpose::Configure,
            changes: vec![],
        })
        .await;
    assert_eq!(retry(&refused), Some(Retry::Person));
    let message = refused.result.unwrap_err().to_string();
    assert!(message.contains("minReadySecond"), "{message}");

    assert_eq!(
        retry(
            &bench
                .step(Step::DeleteWorkload {
                    uid: "another".into()
                })
                .await
        ),
        Some(Retry::LookAgain)
    );
    assert!(
        bench
            .step(Step::DeleteWorkload { uid: uid(&set) })
            .await
            .result
            .is_ok()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_or_a_permission_that_is_missing_is_for_a_person() -> Result<()> {
    let bench = Bench::new("missing").await?;
    let pool = PoolRef {
        provider_namespace: "nowhere".into(),
        ..bench.pool()
    };
    let steps = vec![Step::CreateWorkload { body: stateful_set() }];
    let track = Track {
        kind: TrackKind::Workload,
        steps,
    };
    let outcome = bench
        .applier()
        .run(&pool, std::slice::from_ref(&track))
        .await
        .remove(0);
    assert_eq!(retry(&outcome), Some(Retry::Person));

    let stranger = fast(bench.control_plane, &Identity::unprivileged("stranger")).await?;
    let applier = Applier::new(
        stranger,
        bench.claim.clone(),
        Metrics::default(),
        bench.namespace.clone(),
    );
    let outcome = applier.run(&bench.pool(), &[track]).await.remove(0);
    assert_eq!(retry(&outcome), Some(Retry::Person));
    let message = outcome.result.unwrap_err().to_string();
    assert!(
        message.starts_with("not allowed to create statefulsets.apps missing/virtual-node-eci"),
        "{message}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_orphaned_by_owner_and_deleted_by_uid() -> Result<()> {
    let bench = Bench::new("orphans").await?;
    let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": name == "a"});
    let pods = bench.api::<Pod>();
    // The owners exist, or the garbage collector would take the pod.
    let configs = bench.api::<ConfigMap>();
    let a = uid(&create(&configs, json!({"metadata": {"name": "a"}})).await?);
    let b = uid(&create(&configs, json!({"metadata": {"name": "b"}})).await?);
    let pod = create(
        &pods,
        json!({
            "metadata": {"name": "vn-0", "ownerReferences": [owner("a", &a), owner("b", &b)]},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }),
    )
    .await?;
    let key = ObjectKey {
        namespace: bench.namespace.clone(),
        name: "vn-0".into(),
    };
    let orphan = |uid: String| Step::OrphanProviderPod {
        pod: key.clone(),
        uid,
        owner_uid: a.clone(),
    };
    assert_eq!(
        retry(&bench.step(orphan("another".into())).await),
        Some(Retry::LookAgain)
    );
    assert!(bench.step(orphan(uid(&pod))).await.result.is_ok());
    let left: Vec<String> = pods
        .get("vn-0")
        .await?
        .owner_references()
        .iter()
        .map(|o| o.uid.clone())
        .collect();
    assert_eq!(left, [b]);

    let delete = |uid| Step::DeleteProviderPod {
        pod: key.clone(),
        uid,
        why: RestartReason::Reap,
    };
    assert_eq!(
        retry(&bench.step(delete("another".into())).await),
        Some(Retry::LookAgain)
    );
    assert!(bench.step(delete(uid(&pod))).await.result.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_kept_as_it_was_first_written() -> Result<()> {
    let bench = Bench::new("copies").await?;
    let save = |content| Step::SaveCopy {
        name: "vnp-restore-x".into(),
        content,
    };
    assert!(
        bench
            .step(save(json!({"b": 1, "a": {"z": [1], "c": null}})))
            .await
            .result
            .is_ok()
    );
    assert_eq!(retry(&bench.step(save(json!({}))).await), Some(Retry::LookAgain));
    let secret = bench.api::<Secret>().get("vnp-restore-x").await?;
    let data = secret.data.as_ref().context("no data")?;
    let text = std::str::from_utf8(&data[vnp_operator::apply::COPY_KEY].0)?;
    assert_eq!(text, r#"{"b":1,"a":{"z":[1],"c":null}}"#, "also in its order");
    let drop_copy = |uid| Step::DropCopy {
        name: "vnp-restore-x".into(),
        uid,
    };
    assert_eq!(
        retry(&bench.step(drop_copy("another".into())).await),
        Some(Retry::LookAgain)
    );
    assert!(bench.step(drop_copy(uid(&secret))).await.result.is_ok());
    Ok(())
}
