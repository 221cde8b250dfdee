//! Each answer of the Eviction API is taken for what it is, and what follows from it, against a real API server.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use vnp_crds::BlockerReason;
use vnp_e2e::call_gate::{CallGate, Fate};
use vnp_e2e::control_plane::Identity;
use vnp_e2e::scenario::eventually;
use vnp_operator::observe::kinds::Budgets;
use vnp_operator::observe::mirror::Kind;
use vnp_operator::observe::wire::SlimPod;
use vnp_operator::runtime::clients::Clients;
use vnp_operator::runtime::clock::Clock;
use vnp_operator::runtime::lease::Timing;
use vnp_plan::drain::budgets::passes;
use vnp_plan::drain::pace::MAX_IN_FLIGHT;

use crate::fixture::evicting::SOON;
use crate::fixture::refusing::Refusing;
use crate::fixture::{Bench, NODE, create, fast, uid};

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

/// A policy that gives every write of a budget's status that comes from the Eviction API in this namespace an old
/// resourceVersion, as if somebody had always been faster. Back when the server abides by it for this budget.
async fn lose_every_race(bench: &Bench, budget: &str) -> Result<()> {
    let name = &bench.namespace;
    create(
        &Api::<MutatingAdmissionPolicy>::all(bench.admin.clone()),
        json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                    "resourceRules": [{"apiGroups": ["policy"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                                       "resources": ["poddisruptionbudgets/status"]}],
                },
                "matchConditions": [{"name": "loser", "expression":
                    format!("request.userInfo.username in ['system:apiserver', '{name}']")}],
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'replace', path: '/metadata/resourceVersion', value: '1'}]"}}],
            },
        }),
    )
    .await?;
    create(
        &Api::<MutatingAdmissionPolicyBinding>::all(bench.admin.clone()),
        json!({"metadata": {"name": name}, "spec": {"policyName": name}}),
    )
    .await?;
    let loser = fast(bench.control_plane, &Identity::privileged(name)).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(loser, name);
    eventually("the policy is in force", SOON, async || {
        let seen = budgets.get(budget).await?;
        match budgets
            .replace_status(budget, &PostParams::default(), &seen)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
}

/// A client that waits as long as the Eviction API may take, which tries its own write 20 times in 10 s.
async fn patient(bench: &Bench) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(bench.control_plane.kubeconfig_as(&Identity::admin())?)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_on_a_budgets_status_is_no_refusal_and_passes_with_the_race() -> Result<()> {
    let bench = Bench::new("evict-race").await?;
    let pods = bench.running_pods(2).await?;
    for (name, _) in &pods {
        bench.budget(name, name, json!({"minAvailable": 0})).await?;
    }
    let budgets = bench.api::<PodDisruptionBudget>();
    for (name, _) in &pods {
        eventually("the budget allows one", SOON, async || {
            let status = budgets.get(name).await?.status.context("no status")?;
            ensure!(status.disruptions_allowed == Some(1), "{status:?}");
            Ok(())
        })
        .await?;
    }
    let [own, other] = pods.as_slice() else {
        anyhow::bail!("two pods");
    };
    lose_every_race(&bench, &own.0).await?;
    let waits = bench.drain(patient(&bench).await?, std::slice::from_ref(own), &[&own.0]);
    // The operator's own client does not wait for so long: it asks again.
    let asks = bench.drain(bench.fast.clone(), std::slice::from_ref(other), &[&other.0]);
    waits.answered("budget_race_lost", 1, 2 * SOON).await?;
    asks.answered("unknown", 1, SOON).await?;
    for drain in [&waits, &asks] {
        ensure!(drain.refusals().is_empty(), "it passes by itself");
        ensure!(drain.count("accepted")? == 0, "answers: {:?}", drain.answers()?);
    }
    Api::<MutatingAdmissionPolicyBinding>::all(bench.admin.clone())
        .delete(&bench.namespace, &DeleteParams::default())
        .await?;
    for (drain, (name, uid)) in [(&waits, own), (&asks, other)] {
        // An attempt that outlives its caller may take from the budget and not the pod: the disruption controller gives
        // back after two minutes.
        drain.answered("accepted", 1, 8 * SOON).await?;
        let pod = bench.api::<Pod>().get(name).await?;
        ensure!(
            pod.metadata.uid.as_ref() == Some(uid) && pod.metadata.deletion_timestamp.is_some(),
            "{name}: {:?}",
            pod.metadata
        );
        drain.tasks.stop().await;
    }
    Ok(())
}

/// A user whose evictions share two seats of the API server, without a queue.
async fn two_seats(bench: &Bench) -> Result<Client> {
    let user = &bench.namespace;
    let level = |name: String, shares: u32| {
        json!({"metadata": {"name": name},
               "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "borrowingLimitPercent": 0,
                        "lendablePercent": 0, "limitResponse": {"type": "Reject"}}}})
    };
    let levels = Api::<PriorityLevelConfiguration>::all(bench.admin.clone());
    // 600 seats (the server's default) are shared out; those who ask for nothing make one share worth two seats at most.
    create(&levels, level(format!("{user}-idle"), 100)).await?;
    create(&levels, level(user.clone(), 1)).await?;
    create(
        &Api::<FlowSchema>::all(bench.admin.clone()),
        json!({"metadata": {"name": user},
               "spec": {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": user},
                        "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
                                   "resourceRules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["pods/eviction"],
                                                      "namespaces": ["*"]}]}]}}),
    )
    .await?;
    create(
        &Api::<ClusterRole>::all(bench.admin.clone()),
        json!({"metadata": {"name": user},
               "rules": [{"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}]}),
    )
    .await?;
    create(
        &bench.api::<RoleBinding>(),
        json!({"metadata": {"name": user},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]}),
    )
    .await?;
    let seats = format!("apiserver_flowcontrol_nominal_limit_seats{{priority_level=\"{user}\"}} ");
    eventually("the server has two seats for the user", SOON, async || {
        let metrics = http::Request::get("/metrics").body(Vec::new())?;
        let text = bench.admin.request_text(metrics).await?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(&seats))
            .context("no such level yet")?;
        ensure!(line == "2", "{line} seats");
        Ok(())
    })
    .await?;
    fast(bench.control_plane, &Identity::unprivileged(user)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_is_not_taken_for_a_budget_and_slows_evictions_down_to_what_the_server_takes()
-> Result<()> {
    const PODS: usize = 60;
    let bench = Bench::new("evict-seats").await?;
    let client = two_seats(&bench).await?;
    let pods = bench.running_pods(PODS).await?;
    let began = std::time::Instant::now();
    let drain = bench.drain(client, &pods, &[]);
    drain.answered("flow_control", 1, SOON).await?;
    let refusals = drain.refusals();
    ensure!(
        refusals.values().all(|r| r.object == "kube-apiserver"),
        "{refusals:?}"
    );
    // Not counted by answers: this order is never replaced, so that after a while it asks for a pod a second time.
    eventually("all pods are evicted", 6 * SOON, async || {
        let left = bench.api::<Pod>().list(&ListParams::default()).await?;
        let staying: Vec<String> = left
            .iter()
            .filter(|p| p.metadata.deletion_timestamp.is_none())
            .map(ResourceExt::name_any)
            .collect();
        ensure!(staying.is_empty(), "not evicted: {staying:?}");
        Ok(())
    })
    .await?;
    // The first storm is as large as it gets, each later one half of that; then the brake finds the two seats.
    let refused = drain.count("flow_control")?;
    ensure!(refused <= 3 * MAX_IN_FLIGHT, "answers: {:?}", drain.answers()?);
    println!("{PODS} pods in {:?}: {:?}", began.elapsed(), drain.answers()?);
    drain.tasks.stop().await;
    Ok(())
}

/// Asks for the eviction of a pod without carrying it out.
async fn dry_run(bench: &Bench, pod: &str) -> Result<(), kube::Error> {
    let params = EvictParams {
        post_options: PostParams {
            dry_run: true,
            ..PostParams::default()
        },
        ..EvictParams::default()
    };
    // The other client asks again when it is refused with 429, for minutes.
    let pods = Api::<Pod>::namespaced(bench.fast.clone(), &bench.namespace);
    pods.evict(pod, &params).await.map(|_| ())
}

/// Sets up three who refuse evictions in the namespace: a webhook that chooses its code, one that nobody can reach, and a
/// policy.
async fn refuse_evictions(bench: &Bench, webhook: &Refusing) -> Result<()> {
    let name = &bench.namespace;
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let evictions = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                            "resources": ["pods/eviction"]}]);
    let hook = |hook: &str, condition: &str, client: &Value| {
        json!({"name": format!("{hook}.{name}.example.com"), "clientConfig": client, "rules": evictions,
               "namespaceSelector": here, "failurePolicy": "Fail", "sideEffects": "None",
               "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
               "matchConditions": [{"name": "which", "expression": condition}]})
    };
    let nowhere = json!({"url": "https://127.0.0.1:1/"});
    let hooks = json!([
        hook(
            "guard",
            "request.name.startsWith('code-')",
            &webhook.client_config
        ),
        hook("dead", "request.name == 'dead'", &nowhere),
    ]);
    create(
        &Api::<ValidatingWebhookConfiguration>::all(bench.admin.clone()),
        json!({"metadata": {"name": name}, "webhooks": hooks}),
    )
    .await?;
    create(
        &Api::<ValidatingAdmissionPolicy>::all(bench.admin.clone()),
        json!({
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"namespaceSelector": here, "resourceRules": evictions},
                "matchConditions": [{"name": "which", "expression": "request.name == 'policy'"}],
                "validations": [{"expression": "false", "message": "not this one"}],
            },
        }),
    )
    .await?;
    create(
        &Api::<ValidatingAdmissionPolicyBinding>::all(bench.admin.clone()),
        json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}),
    )
    .await?;
    for pod in ["code-403", "dead", "policy"] {
        eventually("evictions are refused", SOON, async || {
            match dry_run(bench, pod).await {
                Err(kube::Error::Api(_)) => Ok(()),
                other => anyhow::bail!("{pod}: {other:?}"),
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_refuses_at_admission_is_named_whatever_code_it_chooses() -> Result<()> {
    let bench = Bench::new("evict-refused").await?;
    let named = |what: &str| format!("webhook/{what}.evict-refused.example.com");
    let mut expected: BTreeMap<String, String> = [400, 403, 404, 409, 422, 429, 500, 503]
        .map(|code| (format!("code-{code}"), named("guard")))
        .into();
    expected.insert("dead".into(), named("dead"));
    expected.insert("policy".into(), "ValidatingAdmissionPolicy/evict-refused".into());
    let mut pods = Vec::new();
    for name in expected.keys() {
        pods.push((name.clone(), uid(&bench.running_pod(name).await?)));
    }
    let webhook = Refusing::start().await?;
    refuse_evictions(&bench, &webhook).await?;
    pods.extend(bench.running_pods(10).await?);
    let drain = bench.drain(bench.fast.clone(), &pods, &[]);
    let refused = u32::try_from(expected.len())?;
    drain.answered("forbidden", refused, SOON).await?;
    drain.answered("accepted", 10, SOON).await?;
    drain.tasks.stop().await;
    assert_eq!(
        drain.answers()?,
        [("accepted".to_owned(), 10), ("forbidden".to_owned(), refused)].into(),
        "nothing is gone, no race is lost, and no server is silent"
    );
    let refusals = drain.refusals();
    for (name, pod_uid) in pods.iter().take(expected.len()) {
        let refusal = refusals
            .get(pod_uid)
            .with_context(|| format!("{name}: no refusal"))?;
        assert_eq!(refusal.reason, BlockerReason::EvictionForbidden, "{name}");
        assert_eq!(refusal.object, expected[name], "{name}");
    }
    Ok(())
}

/// The operator's own rule for which pods go past a budget, against the server's.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_lets_those_pods_go_past_a_spent_budget_of_which_ours_says_so() -> Result<()> {
    const STATES: [(&str, &str, &str); 4] = [
        ("healthy", "Running", "True"),
        ("unready", "Running", "False"),
        ("pending", "Pending", "False"),
        ("unknown", "Unknown", "False"),
    ];
    // Each group has one healthy pod; the budget allows nothing.
    let groups = [
        (
            "always",
            json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"}),
            3,
        ),
        ("healthy", json!({"minAvailable": 1}), 3),
        ("short", json!({"minAvailable": 2}), 1),
    ];
    let bench = Bench::new("evict-unready").await?;
    let pods = bench.api::<Pod>();
    for (group, bounds, _) in &groups {
        for (state, phase, ready) in STATES {
            let name = format!("{group}-{state}");
            let body = json!({"metadata": {"name": name, "labels": {"app": group}},
                              "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}],
                                       "tolerations": [{"operator": "Exists"}]}});
            create(&pods, body).await?;
            let status =
                json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
                .await?;
        }
        bench.budget(group, group, bounds.clone()).await?;
    }
    let budgets = Budgets(Clock::of_host());
    for (group, _, past) in groups {
        let budget = eventually("the budget is accounted for", SOON, async || {
            let seen = bench.api::<PodDisruptionBudget>().get(group).await?;
            let view = budgets.view(seen, None);
            ensure!(view.current && view.healthy == 1 && view.allowed == 0, "{view:?}");
            Ok(view)
        })
        .await?;
        let mut passing = 0;
        for (state, ..) in STATES {
            let name = format!("{group}-{state}");
            let pod = bench.api::<SlimPod>().get(&name).await?.bound;
            let ours = passes(&pod, &[&budget]);
            let server = match dry_run(&bench, &name).await {
                Ok(()) => true,
                Err(kube::Error::Api(status)) if status.code == 429 => false,
                Err(error) => return Err(error.into()),
            };
            assert_eq!(ours, server, "{name}: {pod:?} under {budget:?}");
            passing += u32::from(server);
        }
        assert_eq!(passing, past, "{group}");
    }
    Ok(())
}

/// The controller of the pod that comes has no scale, so that the budget can't be worked out any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_whose_sync_fails_is_named_as_that_with_the_reason() -> Result<()> {
    let bench = Bench::new("evict-unsynced").await?;
    bench.budget("share", "web", json!({"maxUnavailable": 1})).await?;
    let budgets = bench.api::<PodDisruptionBudget>();
    eventually("the budget is accounted for without pods", SOON, async || {
        let status = budgets.get("share").await?.status.context("no status")?;
        ensure!(status.observed_generation == Some(1), "{status:?}");
        Ok(())
    })
    .await?;
    let owner = create(&bench.api::<ConfigMap>(), json!({"metadata": {"name": "owner"}})).await?;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid(&owner), "controller": true}]);
    let pod = bench.owned_pod("web", owner).await?;
    eventually("its sync fails", SOON, async || {
        let view = Budgets(Clock::of_host()).view(budgets.get("share").await?, None);
        ensure!(view.sync_failed.is_some() && view.current, "{view:?}");
        Ok(())
    })
    .await?;
    let (answer, refusal) = bench
        .evict(bench.fast.clone(), "web", &uid(&pod), &["share"])
        .await?;
    assert_eq!(answer, "budget_unsynced");
    let refusal = refusal.context("no refusal")?;
    assert!(
        refusal.starts_with("BlockedByBudget evict-unsynced/share: ")
            && refusal.contains("does not implement the scale subresource"),
        "{refusal}"
    );
    Ok(())
}
