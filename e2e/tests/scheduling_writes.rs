//! What the operator writes for schedulers, against a real API server: a name that is taken stays its owner's, and a pod
//! that has been bound meanwhile is left as it is.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use vnp_operator::apply::{Applier, Outcome, Retry};
use vnp_operator::runtime::metrics::Metrics;
use vnp_plan::observed::{ObjectKey, WaitingPod};
use vnp_plan::scheduling::{CRD_NAME, GROUP, KIND, PLURAL, VERSION};
use vnp_plan::step::{PolicyApply, Step};

use crate::fixture::{Bench, create, uid};

const CRD: &str = include_str!("scenarios/schedulers/newer.yaml");

impl Bench {
    async fn step(&self, step: Step) -> Outcome {
        let applier = Applier::new(
            self.fast.clone(),
            self.claim.clone(),
            Metrics::default(),
            self.namespace.clone(),
        );
        applier.run_overflow(vec![step]).await.remove(0)
    }
}

fn retry(outcome: &Outcome) -> Option<Retry> {
    let error = outcome.result.as_ref().err();
    error.map(vnp_operator::apply::ApplyError::retry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_somebody_made_meanwhile_stays_theirs() -> Result<()> {
    let bench = Bench::new("policy-writes").await?;
    let crds = Api::<CustomResourceDefinition>::all(bench.admin.clone());
    let crd: Value = serde_saphyr::from_str(CRD)?;
    create(&crds, crd).await?;
    let established = await_condition(crds, CRD_NAME, conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(30), established).await??;
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
    let policies: Api<DynamicObject> = Api::namespaced_with(bench.admin.clone(), &bench.namespace, &kind);
    let body = |uid: Option<String>, resource: &str| {
        let mut body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            "metadata": {"name": "burst.web", "namespace": bench.namespace, "labels": {"app": "ours"}},
            "spec": {"units": [{"resource": resource}]},
        });
        body["metadata"]
            .as_object_mut()
            .unwrap()
            .extend(uid.map(|uid| ("uid".to_owned(), json!(uid))));
        body
    };
    let apply = |create, body| {
        Step::ApplyPolicy(PolicyApply {
            policy: ObjectKey {
                namespace: bench.namespace.clone(),
                name: "burst.web".into(),
            },
            create,
            body,
        })
    };
    let mut theirs = body(None, "ecs");
    theirs["metadata"]["labels"] = json!({"app": "theirs"});
    let theirs = policies
        .create(&PostParams::default(), &serde_json::from_value(theirs)?)
        .await?;
    let late = bench.step(apply(true, body(None, "eci"))).await;
    assert_eq!(retry(&late), Some(Retry::LookAgain), "{late:?}");
    let still = policies.get("burst.web").await?;
    assert_eq!(still.resource_version(), theirs.resource_version());

    // One of ours is forced, but only the one that was seen.
    let gone = bench
        .step(apply(false, body(Some("another".into()), "eci")))
        .await;
    assert_eq!(retry(&gone), Some(Retry::LookAgain), "{gone:?}");
    let forced = bench.step(apply(false, body(Some(uid(&theirs)), "eci"))).await;
    assert!(forced.result.is_ok(), "{forced:?}");
    assert_eq!(
        policies.get("burst.web").await?.data["spec"]["units"][0]["resource"],
        "eci"
    );
    let delete = |uid| Step::DeletePolicy {
        policy: ObjectKey {
            namespace: bench.namespace.clone(),
            name: "burst.web".into(),
        },
        uid,
    };
    assert_eq!(
        retry(&bench.step(delete("another".into())).await),
        Some(Retry::LookAgain)
    );
    assert!(bench.step(delete(uid(&theirs))).await.result.is_ok());
    Ok(())
}

/// The step for a pod as it was seen.
fn tolerate(pod: &Pod) -> Step {
    let seen = WaitingPod {
        key: ObjectKey {
            namespace: pod.namespace().unwrap(),
            name: pod.name_any(),
        },
        uid: uid(pod),
        resource_version: pod.resource_version().unwrap(),
        has_tolerations: pod.spec.as_ref().unwrap().tolerations.is_some(),
        ..WaitingPod::default()
    };
    Step::Tolerate(vnp_plan::overflow::tolerate(&seen))
}

fn tolerations(pod: &Pod) -> Vec<String> {
    let all = pod.spec.as_ref().unwrap().tolerations.iter().flatten();
    all.filter_map(|t| t.key.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_overflows_unless_it_was_bound_meanwhile() -> Result<()> {
    let bench = Bench::new("overflow-writes").await?;
    let pods = bench.api::<Pod>();
    // No scheduler of that name exists, so they wait.
    let pod = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"virtualnodes.dev/overflow": "burst"}},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]},
        })
    };
    let waiting = create(&pods, pod("waiting")).await?;
    assert!(bench.step(tolerate(&waiting)).await.result.is_ok());
    let after = tolerations(&pods.get("waiting").await?);
    assert_eq!(
        after.last().map(String::as_str),
        Some("virtual-kubelet.io/provider"),
        "{after:?}"
    );

    let bound = create(&pods, pod("bound")).await?;
    create(
        &Api::<Node>::all(bench.admin.clone()),
        json!({"metadata": {"name": "ordinary"}}),
    )
    .await?;
    let binding = json!({"metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "ordinary"}});
    pods.create_subresource::<Value, Value>("binding", "bound", &PostParams::default(), &binding)
        .await
        .context("bind")?;
    let late = bench.step(tolerate(&bound)).await;
    assert_eq!(retry(&late), Some(Retry::LookAgain), "{late:?}");
    let after = tolerations(&pods.get("bound").await?);
    assert!(
        !after.iter().any(|key| key.starts_with("virtual-kubelet")),
        "{after:?}"
    );

    // A finished patch leaves nothing of the operator but the toleration.
    let owners = pods
        .get("waiting")
        .await?
        .metadata
        .managed_fields
        .unwrap_or_default();
    let ours = owners
        .iter()
        .find(|f| f.manager.as_deref() == Some(vnp_crds::FIELD_MANAGER))
        .context("no field of ours")?;
    let fields = serde_json::to_value(&ours.fields_v1)?;
    assert_eq!(fields, json!({"f:spec": {"f:tolerations": {}}}), "{fields}");
    Ok(())
}
