//! Each answer of the Eviction API is taken for what it is, and what follows from it, against a real API server.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config};
use serde_json::json;
use vnp_e2e::call_gate::{CallGate, Fate};
use vnp_e2e::control_plane::Identity;
use vnp_e2e::scenario::eventually;
use vnp_operator::runtime::clients::Clients;
use vnp_operator::runtime::clock::Clock;
use vnp_operator::runtime::lease::Timing;

use crate::fixture::evicting::SOON;
use crate::fixture::{Bench, create, fast, uid};

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
async fn a_namespace_that_terminates_is_asked_about_once_and_not_pod_by_pod() -> Result<()> {
    let bench = Bench::new("evict-terminating").await?;
    let pods = bench.running_pods(4).await?;
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    let free = json!({"metadata": {"finalizers": null}});
    for (name, _) in &pods {
        bench
            .api::<Pod>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&held))
            .await?;
    }
    let namespaces = Api::<Namespace>::all(bench.admin.clone());
    namespaces
        .delete(&bench.namespace, &DeleteParams::default())
        .await?;
    let drain = bench.drain(bench.fast.clone(), &pods, &[]);
    drain.answered("namespace_terminating", 1, SOON).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked: u32 = drain.answers()?.values().sum();
    // All four were on their way before the first answer came; none is asked for again.
    ensure!(asked <= 4, "answers: {:?}", drain.answers()?);
    drain.tasks.stop().await;
    for (name, _) in &pods {
        bench
            .api::<Pod>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&free))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_without_an_answer_is_asked_for_again_by_its_uid() -> Result<()> {
    let bench = Bench::new("evict-lost").await?;
    let kubeconfig = bench.control_plane.kubeconfig_as(&Identity::admin())?;
    let gate = CallGate::open(&kubeconfig).await?;
    let folder = bench.control_plane.folder().join("evict-lost.kubeconfig");
    let through = Kubeconfig::read_from(gate.write_kubeconfig(folder)?)?;
    let config = Config::from_custom_kubeconfig(through, &KubeConfigOptions::default()).await?;
    let client = Clients::new(config, Timing::default(), &Clock::of_host())?.fast;
    for (name, fate) in [
        ("before", Fate::LostBefore),
        ("after", Fate::LostAfter),
        ("held", Fate::Held),
    ] {
        let pod = bench.running_pod(name).await?;
        let mut lost = gate.trap(fate, |call| call.path.ends_with("/eviction"));
        let drain = bench.drain(client.clone(), &[(name.to_owned(), uid(&pod))], &[]);
        lost.wait().await?;
        if fate != Fate::Held {
            lost.let_go();
        }
        // The one that is held is given up after 5 s.
        drain.answered("unknown", 1, SOON).await?;
        ensure!(drain.refusals().is_empty(), "{name}: it passes by itself");
        drain.answered("accepted", 1, SOON).await?;
        lost.let_go();
        drain.tasks.stop().await;
        let answers = drain.answers()?;
        ensure!(answers.values().sum::<u32>() == 2, "{name}: {answers:?}");
        let now = bench.api::<Pod>().get(name).await?;
        ensure!(
            now.metadata.deletion_timestamp.is_some()
                && now.metadata.deletion_grace_period_seconds == Some(30),
            "{name}: {:?}",
            now.metadata
        );
    }
    Ok(())
}
