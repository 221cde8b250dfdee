//! What the operator writes, against a real API server: each answer of the Eviction API is taken for what it is, and
//! each write has the precondition that its step promises.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use json_patch::Patch as JsonPatch;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use vnp_e2e::control_plane::{ControlPlane, ControlPlaneOptions, Identity};
use vnp_e2e::scenario::eventually;
use vnp_operator::apply::{Applier, Outcome, PoolRef, Retry};
use vnp_operator::drain::DrainTasks;
use vnp_operator::observe::memory::DrainMemories;
use vnp_operator::runtime::clients::Clients;
use vnp_operator::runtime::clock::Clock;
use vnp_operator::runtime::lease::{Claim, Elector, Timing};
use vnp_operator::runtime::metrics::Metrics;
use vnp_plan::drain::order::{DrainLimits, DrainOrder, EvictionCandidate};
use vnp_plan::observed::ObjectKey;
use vnp_plan::plan::{Track, TrackKind};
use vnp_plan::step::{PatchPurpose, RestartReason, Step, WorkloadPatch};

const SOON: Duration = Duration::from_secs(20);

/// One namespace of the control plane that the tests share, and the operator's clients and lease in it.
struct Bench {
    control_plane: &'static ControlPlane,
    admin: Client,
    fast: Client,
    claim: Claim,
    namespace: String,
}

impl Bench {
    async fn new(namespace: &str) -> Result<Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        let start = || ControlPlane::start(ControlPlaneOptions::default());
        let control_plane = SHARED.get_or_try_init(start).await?;
        let admin = control_plane.client().await?;
        create(
            &Api::<Namespace>::all(admin.clone()),
            json!({"metadata": {"name": namespace}}),
        )
        .await?;
        let fast = fast(control_plane, &Identity::admin()).await?;
        // Long enough to never be renewed here.
        let hour = Duration::from_secs(3600);
        let timing = Timing {
            duration: 2 * hour,
            renew_deadline: hour,
            retry_period: Duration::from_secs(1),
        };
        let mut elector = Elector::new(fast.clone(), namespace, timing, Clock::of_host());
        elector.acquire().await;
        let claim = elector.claim();
        Ok(Self {
            control_plane,
            admin,
            fast,
            claim,
            namespace: namespace.to_owned(),
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

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

    /// A running and ready pod, as far as the API server knows.
    async fn running_pod(&self, name: &str) -> Result<Pod> {
        self.owned_pod(name, json!([])).await
    }

    async fn owned_pod(&self, name: &str, owners: Value) -> Result<Pod> {
        let pods = self.api::<Pod>();
        let pod = create(
            &pods,
            json!({
                "metadata": {"name": name, "labels": {"app": name}, "ownerReferences": owners},
                "spec": {"nodeName": "somewhere", "containers": [{"name": "c", "image": "i"}],
                         "tolerations": [{"operator": "Exists"}]},
            }),
        )
        .await?;
        let status =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(pod)
    }

    async fn budget(&self, name: &str, app: &str, bounds: Value) -> Result<PodDisruptionBudget> {
        let mut spec = json!({"selector": {"matchLabels": {"app": app}}});
        spec.as_object_mut()
            .context("an object")?
            .extend(bounds.as_object().cloned().unwrap_or_default());
        create(&self.api(), json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// What the operator takes the answer to the eviction of this pod for, and the refusal that it would report.
    async fn evict(
        &self,
        client: Client,
        name: &str,
        uid: &str,
        budgets: &[&str],
    ) -> Result<(String, Option<String>)> {
        let key = |name: &str| ObjectKey {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        };
        let pod = EvictionCandidate {
            pod: key(name),
            uid: uid.to_owned(),
            budgets: budgets.iter().map(|b| key(b)).collect(),
        };
        let order = DrainOrder {
            node: "somewhere".into(),
            node_uid: "n".into(),
            ordinal: 0,
            provider_uid: "p".into(),
            pods: vec![pod],
            terminating: 0,
            overdue: 0,
            departed: 0,
            limits: DrainLimits {
                per_second: Some(20.0),
                burst: 100,
                max_terminating: 1000,
                max_per_budget: 16,
            },
            budgets: Vec::new(),
        };
        let metrics = Metrics::default();
        let memories = Arc::new(DrainMemories::default());
        let wake = Arc::new(|_: &str| {});
        let tasks = DrainTasks::new(
            client,
            self.claim.clone(),
            metrics.clone(),
            0,
            Arc::clone(&memories),
            Clock::of_host(),
            wake,
        );
        tasks.update("pool-uid", vec![order]);
        let answer = eventually("the eviction is answered", SOON, async || {
            let text = metrics.render()?;
            let line = text
                .lines()
                .find(|l| l.contains("evictions_total{"))
                .context("no answer yet")?;
            Ok(line.split('"').nth(1).context("no label")?.to_owned())
        })
        .await?;
        tasks.stop().await;
        let refusals = &memories.snapshot("pool-uid")[&0].refusals;
        let refusal = refusals
            .get(uid)
            .map(|r| format!("{} {}: {}", r.reason, r.object, r.message));
        Ok((answer, refusal))
    }
}

async fn fast(control_plane: &ControlPlane, identity: &Identity) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig_as(identity)?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Clients::new(
        config,
        vnp_operator::runtime::lease::Timing::default(),
        &Clock::of_host(),
    )?
    .fast)
}

async fn create<K>(api: &Api<K>, body: Value) -> Result<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    Ok(api
        .create(&PostParams::default(), &serde_json::from_value(body)?)
        .await?)
}

fn retry(outcome: &Outcome) -> Option<Retry> {
    outcome
        .result
        .as_ref()
        .err()
        .map(vnp_operator::apply::ApplyError::retry)
}

fn uid<K: ResourceExt>(object: &K) -> String {
    object.uid().expect("an object from the server has a UID")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_budget_goes_once_and_only_by_its_uid() -> Result<()> {
    let bench = Bench::new("evict-plain").await?;
    let pod = bench.running_pod("web").await?;
    let evict = |name, uid| bench.evict(bench.fast.clone(), name, uid, &[]);
    assert_eq!(evict("web", "another-uid").await?.0, "other_uid");
    assert!(
        bench
            .api::<Pod>()
            .get("web")
            .await?
            .metadata
            .deletion_timestamp
            .is_none()
    );
    let real = uid(&pod);
    assert_eq!(evict("web", &real).await?.0, "accepted");
    let pod = bench.api::<Pod>().get("web").await?;
    assert!(pod.metadata.deletion_timestamp.is_some());
    assert_eq!(
        pod.metadata.deletion_grace_period_seconds,
        Some(30),
        "its own grace period"
    );
    assert_eq!(evict("nobody", "u").await?.0, "gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_allows_nothing_is_named() -> Result<()> {
    let bench = Bench::new("evict-budget").await?;
    let pod = bench.running_pod("web").await?;
    bench.budget("keep", "web", json!({"minAvailable": 1})).await?;
    eventually("the budget is accounted for", SOON, async || {
        let status = bench
            .api::<PodDisruptionBudget>()
            .get("keep")
            .await?
            .status
            .context("no status")?;
        ensure!(
            status.current_healthy == Some(1) && status.observed_generation == Some(1),
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    let (answer, refusal) = bench
        .evict(bench.fast.clone(), "web", &uid(&pod), &["keep"])
        .await?;
    assert_eq!(answer, "budget");
    let refusal = refusal.context("no refusal")?;
    assert!(
        refusal.starts_with("BlockedByBudget evict-budget/keep: "),
        "{refusal}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_nobody_accounts_for_is_stale_and_one_with_a_full_map_is_full() -> Result<()> {
    let bench = Bench::new("evict-stale").await?;
    // Nobody can say how many pods this owner wants, so a budget in shares of them is never accounted for.
    let owner = create(&bench.api::<ConfigMap>(), json!({"metadata": {"name": "owner"}})).await?;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid(&owner), "controller": true}]);
    let pod = bench.owned_pod("web", owner).await?;
    bench.budget("share", "web", json!({"maxUnavailable": 1})).await?;
    let evict = || bench.evict(bench.fast.clone(), "web", uid(&pod).leak(), &["share"]);
    assert_eq!(evict().await?.0, "budget_stale");

    let pending: BTreeMap<String, &str> = (0..2001)
        .map(|n| (format!("gone-{n}"), "2026-01-01T00:00:00Z"))
        .collect();
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 5, "disruptedPods": pending,
        "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1}});
    let budgets = bench.api::<PodDisruptionBudget>();
    budgets
        .patch_status("share", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let (answer, refusal) = evict().await?;
    assert_eq!(answer, "budget_map_full");
    assert!(
        refusal
            .context("no refusal")?
            .starts_with("BlockedByBudget evict-stale/share: ")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_budgets_over_one_pod_are_told() -> Result<()> {
    let bench = Bench::new("evict-several").await?;
    let pod = bench.running_pod("web").await?;
    for name in ["one", "two"] {
        bench.budget(name, "web", json!({"minAvailable": 0})).await?;
    }
    let (answer, refusal) = bench
        .evict(bench.fast.clone(), "web", &uid(&pod), &["one", "two"])
        .await?;
    assert_eq!(answer, "several_budgets");
    let refusal = refusal.context("no refusal")?;
    assert!(
        refusal.starts_with("MultipleBudgets evict-several/one, evict-several/two: "),
        "{refusal}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permission_and_a_terminating_namespace_are_two_things() -> Result<()> {
    let bench = Bench::new("evict-forbidden").await?;
    let pod = bench.running_pod("web").await?;
    let stranger = fast(bench.control_plane, &Identity::unprivileged("stranger")).await?;
    let (answer, refusal) = bench.evict(stranger, "web", &uid(&pod), &[]).await?;
    assert_eq!(answer, "forbidden");
    let refusal = refusal.context("no refusal")?;
    assert!(
        refusal.starts_with("EvictionForbidden evict-forbidden: "),
        "{refusal}"
    );
    assert!(
        refusal.contains("pods/eviction") && !refusal.contains("\"web\""),
        "{refusal}"
    );

    let namespaces = Api::<Namespace>::all(bench.admin.clone());
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    bench
        .api::<Pod>()
        .patch("web", &PatchParams::default(), &Patch::Merge(&held))
        .await?;
    namespaces
        .delete(&bench.namespace, &DeleteParams::default())
        .await?;
    eventually("the namespace terminates", SOON, async || {
        let phase = namespaces
            .get(&bench.namespace)
            .await?
            .status
            .and_then(|s| s.phase);
        ensure!(phase.as_deref() == Some("Terminating"), "{phase:?}");
        Ok(())
    })
    .await?;
    let (answer, refusal) = bench.evict(bench.fast.clone(), "web", &uid(&pod), &[]).await?;
    assert_eq!(answer, "namespace_terminating");
    assert!(
        refusal
            .context("no refusal")?
            .starts_with("NamespaceTerminating evict-forbidden: ")
    );
    let free = json!({"metadata": {"finalizers": null}});
    bench
        .api::<Pod>()
        .patch("web", &PatchParams::default(), &Patch::Merge(&free))
        .await?;
    Ok(())
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
                    uid: uid.clone()
                })
                .await
                .result
                .is_ok()
        );
        assert_eq!(
            nodes.get(&node).await?.spec.and_then(|s| s.unschedulable),
            Some(true)
        );
        assert!(bench.step(Step::Uncordon { node, uid }).await.result.is_ok());
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
