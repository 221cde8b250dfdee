//! The pod webhook on a real API server: what it does to pods, what happens without it, and its certificates under load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::interposed::{Relay, Route};
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::{Scenario, eventually};
use vnp_operator::admission::issue::carry_out;
use vnp_operator::admission::keyring::{Keyring, TLS_SECRET, TlsSecret};
use vnp_operator::admission::server::{self, Served};
use vnp_plan::webhook::certificates::{Leaf, Rotation};

use crate::fixture::{condition, get, get_pool, quick_lease, ready, start_pool, tell};

const CONFIGURATION: &str = "mutatingwebhookconfiguration virtualnodepool-affinity";
const SECRET: &str = "secret virtualnodepool-webhook-tls --namespace virtualnodepool-system";
/// Pods created each second while certificates change.
const PER_SECOND: u32 = 100;
/// A pod is never held up longer: 2 s for the webhook, and what the rest takes.
const AT_MOST: Duration = Duration::from_secs(3);

/// An operator that tries its webhook every other second and is called by `url`, when one is given.
fn trying(url: Option<String>) -> OperatorOptions {
    let mut options = quick_lease();
    let flags = ["--webhook-probe-seconds", "2"].map(str::to_owned);
    options.args.extend(flags);
    options
        .args
        .extend(url.into_iter().flat_map(|url| ["--webhook-url".to_owned(), url]));
    options
}

/// A pod that a documented trigger sends to virtual nodes.
fn triggered() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "tried-", "labels": {"alibabacloud.com/eci": "true"}},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/none"}]},
    }))?)
}

/// Creates it as a dry run, and says whether it came back mutated and how long that took.
async fn create(client: &Client, namespace: &str) -> Result<(bool, Duration)> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let began = Instant::now();
    let pod = pods.create(&dry_run, &triggered()?).await?;
    let selector = pod.spec.and_then(|s| s.node_selector).unwrap_or_default();
    let mutated = selector.get("type").map(String::as_str) == Some("virtual-kubelet");
    Ok((mutated, began.elapsed()))
}

/// Creates pods until one comes back mutated, or until one does not; none may take long.
async fn becomes(s: &Scenario<'_>, mutated: bool, within: Duration) -> Result<()> {
    let what = if mutated {
        "pods are mutated"
    } else {
        "pods are not mutated"
    };
    eventually(what, within, async || {
        let (is, took) = create(&s.client(), s.namespace()).await?;
        ensure!(took < AT_MOST, "a pod took {took:?}");
        ensure!(is == mutated, "mutated: {is}");
        Ok(())
    })
    .await
}

/// Waits for WebhookReady to be so, and says its message.
async fn webhook_is(s: &Scenario<'_>, status: &str, reason: &str, within: Duration) -> Result<String> {
    eventually(
        &format!("WebhookReady is {status} {reason}"),
        within,
        async || {
            let pool = get_pool(s).await?;
            let webhook = condition(&pool, "WebhookReady").context("no WebhookReady")?;
            ensure!(
                webhook["status"] == status && webhook["reason"] == reason,
                "{webhook}"
            );
            Ok(webhook["message"].as_str().unwrap_or_default().to_owned())
        },
    )
    .await
}

async fn metric(operator: &Operator, line: &str) -> Result<bool> {
    Ok(operator.metrics().await?.lines().any(|l| l.starts_with(line)))
}

/// The metric says whether the webhook answers.
async fn answers(operator: &Operator, says: u8) -> Result<()> {
    let line = format!("virtualnodepool_webhook_answers {says}");
    eventually(&line, Duration::from_secs(20), async || {
        let metrics = operator.metrics().await?;
        let said: Vec<_> = metrics
            .lines()
            .filter(|l| l.contains("webhook_answers"))
            .collect();
        ensure!(said.contains(&line.as_str()), "{said:?}");
        Ok(())
    })
    .await
}

async fn bundle(s: &Scenario<'_>) -> Result<Value> {
    let configuration = get(s, CONFIGURATION).await?;
    Ok(configuration["webhooks"][0]["clientConfig"]["caBundle"].clone())
}

async fn tls_secret(s: &Scenario<'_>) -> Result<Secret> {
    let secrets: Api<Secret> = Api::namespaced(s.client(), "virtualnodepool-system");
    Ok(secrets.get(TLS_SECRET).await?)
}

/// What the Secret holds, with a leaf of the operator's authority that ended days ago.
async fn expired_leaf(s: &Scenario<'_>) -> Result<BTreeMap<String, ByteString>> {
    let authority = TlsSecret::from(tls_secret(s).await?);
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    let then = Timestamp::now() - SignedDuration::from_hours(30 * 24);
    let data = carry_out(Rotation::Leaf, Some(&authority), &names, then)?;
    let leaf = leaf_in(Some(data.clone()))?;
    ensure!(
        leaf.issuer.is_some() && leaf.not_after < Timestamp::now(),
        "{leaf:?}"
    );
    Ok(data)
}

fn leaf_in(data: Option<BTreeMap<String, ByteString>>) -> Result<Leaf> {
    let secret = TlsSecret::from(Secret {
        data,
        ..Secret::default()
    });
    Keyring::read(&secret).facts.leaf.context("no leaf")
}

/// Puts a leaf that ended days ago into the operator's own Secret.
async fn let_the_leaf_expire(s: &Scenario<'_>) -> Result<()> {
    let data = expired_leaf(s).await?;
    let secrets: Api<Secret> = Api::namespaced(s.client(), "virtualnodepool-system");
    let patch = Patch::Merge(json!({"data": data}));
    secrets.patch(TLS_SECRET, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A server that shows a leaf of the operator's authority that ended days ago, until the sender goes.
async fn expired(s: &Scenario<'_>) -> Result<(SocketAddr, watch::Sender<bool>)> {
    let keyring = Keyring::read(&TlsSecret::from(Secret {
        data: Some(expired_leaf(s).await?),
        ..Secret::default()
    }));
    let served = Served::default();
    served.set(keyring.served.context("no key")?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(server::serve(
        listener,
        server::tls(served)?,
        Router::new(),
        stopped,
    ));
    Ok((address, stop))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_configuration_and_certificates_heals() -> Result<()> {
    Scenario::run("webhook-heals", async |s| {
        let operator = s.spawn_operator(&trying(None)).await?;
        start_pool(s, 1).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        becomes(s, true, Duration::from_secs(5)).await?;

        s.kubectl(&format!("delete {CONFIGURATION}")).await?;
        becomes(s, true, Duration::from_secs(10)).await?;

        let webhooks = async || -> Result<Value> { Ok(get(s, CONFIGURATION).await?["webhooks"].clone()) };
        let (right, before) = (webhooks().await?, bundle(s).await?);
        for wrong in [
            r#"{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":"Cg=="}"#,
            r#"{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}"#,
            r#"{"op":"replace","path":"/webhooks/0/objectSelector","value":{}}"#,
            r#"{"op":"add","path":"/webhooks/0/objectSelector/matchLabels/nobody","value":"here"}"#,
            r#"{"op":"remove","path":"/webhooks/1"}"#,
        ] {
            s.kubectl(&format!("patch {CONFIGURATION} --type json --patch [{wrong}]"))
                .await?;
            eventually("every entry is right again", Duration::from_secs(10), async || {
                let now = webhooks().await?;
                ensure!(now == right, "{wrong}: {now}");
                Ok(())
            })
            .await?;
        }
        becomes(s, true, Duration::from_secs(10)).await?;

        s.kubectl(&format!("delete {SECRET}")).await?;
        eventually("there is another authority", Duration::from_secs(10), async || {
            ensure!(bundle(s).await? != before, "caBundle is what it was");
            Ok(())
        })
        .await?;
        becomes(s, true, Duration::from_secs(10)).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        eventually("the metric says so", Duration::from_secs(10), async || {
            ensure!(metric(&operator, "virtualnodepool_webhook_answers 1").await?);
            Ok(())
        })
        .await?;

        // What others add is not the operator's to take away, but it is said.
        let off = r#"{"op":"add","path":"/webhooks/0/matchConditions/-","value":{"name":"off","expression":"false"}}"#;
        s.kubectl(&format!("patch {CONFIGURATION} --type json --patch [{off}]"))
            .await?;
        let message = webhook_is(s, "False", "ConfigNotSynced", Duration::from_secs(20)).await?;
        ensure!(message.contains("somebody added"), "{message}");
        s.kubectl(&format!("delete {CONFIGURATION}")).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;

        // The last pool that asks takes the configuration with it.
        s.kubectl(&format!(
            r#"patch virtualnodepool {} --type merge --patch {{"spec":{{"placement":{{"webhook":"None"}}}}}}"#,
            s.name()
        ))
        .await?;
        eventually("the configuration is gone", Duration::from_secs(10), async || {
            ensure!(get(s, CONFIGURATION).await.is_err(), "it is still there");
            Ok(())
        })
        .await?;
        webhook_is(s, "True", "NotRequired", Duration::from_secs(10)).await?;
        eventually("the metric is gone", Duration::from_secs(5), async || {
            let there = metric(&operator, "virtualnodepool_webhook_answers ").await?;
            ensure!(!there, "it says what was before");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_somebody_else_is_left_alone_and_named() -> Result<()> {
    Scenario::run("webhook-foreign", async |s| {
        let foreign = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "virtualnodepool-affinity", "labels": {"app": "other"}},
        });
        s.apply(&foreign).await?;
        let before = get(s, CONFIGURATION).await?;
        let operator = s.spawn_operator(&trying(None)).await?;
        s.apply(&crate::fixture::pool(s, 1)).await?;
        let message = webhook_is(s, "False", "Conflict", Duration::from_secs(30)).await?;
        ensure!(message.contains("delete or rename"), "{message}");
        ensure!(get(s, CONFIGURATION).await? == before, "it was changed");
        s.kubectl(&format!("delete {CONFIGURATION}")).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;

        // A Secret that is not ours any more, of which much would have to be made anew.
        s.kubectl(&format!(
            r#"patch {SECRET} --type json --patch [{{"op":"remove","path":"/metadata/labels"}},{{"op":"remove","path":"/data/ca.key"}}]"#
        ))
        .await?;
        let (secret, configuration) = (get(s, SECRET).await?, get(s, CONFIGURATION).await?);
        let message = webhook_is(s, "False", "Conflict", Duration::from_secs(10)).await?;
        let named = "Secret virtualnodepool-system/virtualnodepool-webhook-tls";
        ensure!(message.starts_with(named), "{message}");
        ensure!(metric(&operator, "virtualnodepool_webhook_answers 0").await?);
        ensure!(get(s, SECRET).await? == secret, "the Secret was changed");
        ensure!(get(s, CONFIGURATION).await? == configuration, "it trusts somebody else");
        // What is served goes on, and no replica is taken out of service for it.
        ensure!(operator.waits_for().await?.is_none(), "it is not ready");
        becomes(s, true, Duration::from_secs(5)).await?;
        s.kubectl(&format!("delete {SECRET}")).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        becomes(s, true, Duration::from_secs(10)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook_pods_are_made_as_they_are_and_it_is_said() -> Result<()> {
    Scenario::run_undisturbed("webhook-down", async |s| {
        let relay = Relay::start(Route::Closed).await?;
        let url = format!("https://{}/mutate", relay.address());
        let mut operator = s.spawn_operator(&trying(Some(url))).await?;
        relay.route(Route::To(operator.webhook()));
        start_pool(s, 1).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        // Whatever brings a pod to virtual nodes, it waits only once.
        s.kubectl(&format!(
            "label namespace {} alibabacloud.com/eci=true virtual-node-affinity-injection=enabled",
            s.namespace()
        ))
        .await?;

        let control_plane = s.environment().control_plane();
        let api_server = control_plane.server_address()?;
        let (expired, _stop) = expired(s).await?;
        let faults = [
            ("nothing listens", Route::Closed),
            ("nothing answers", Route::Silent),
            // It shows a certificate of another authority: to the API server the same as a wrong caBundle.
            ("somebody else answers", Route::To(api_server)),
            ("the certificate has expired", Route::To(expired)),
        ];
        for (fault, route) in faults {
            relay.route(route);
            becomes(s, false, Duration::from_secs(10)).await.context(fault)?;
            let message = webhook_is(s, "False", "WebhookUnavailable", Duration::from_secs(30))
                .await
                .context(fault)?;
            ensure!(message.contains("came back as it was sent"), "{fault}: {message}");
            ensure!(
                metric(&operator, "virtualnodepool_webhook_answers 0").await?,
                "{fault}"
            );
            relay.route(Route::To(operator.webhook()));
            becomes(s, true, Duration::from_secs(30)).await.context(fault)?;
            webhook_is(s, "True", "Verified", Duration::from_secs(40))
                .await
                .context(fault)?;
            ready(s, Duration::from_secs(10)).await.context(fault)?;
        }

        operator.pause()?;
        becomes(s, false, Duration::from_secs(10)).await?;
        operator.resume()?;
        Ok(())
    })
    .await
}

/// Puts the certificate of somebody else into `caBundle`.
async fn let_another_authority_be_trusted(s: &Scenario<'_>) -> Result<()> {
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    let other = carry_out(Rotation::Anew, None, &names, Timestamp::now())?;
    let entries = get(s, CONFIGURATION).await?["webhooks"]
        .as_array()
        .map_or(0, Vec::len);
    let wrong = |entry| json!({"op": "replace", "path": format!("/webhooks/{entry}/clientConfig/caBundle"), "value": other["ca.crt"]});
    let wrong: Value = (0..entries).map(wrong).collect();
    s.kubectl(&format!("patch {CONFIGURATION} --type json --patch {wrong}"))
        .await?;
    Ok(())
}

/// Whether the operator may write what the webhook needs.
async fn operator_may_write(s: &Scenario<'_>, may: bool) -> Result<()> {
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/rbac/webhook.yaml");
    if may {
        s.kubectl(&format!(
            "apply --server-side --force-conflicts --filename {rights}"
        ))
        .await?;
    } else {
        for (role, verbs) in [
            (
                "clusterrole virtualnodepool-operator-webhook",
                r#"["get","list","watch"]"#,
            ),
            (
                "role virtualnodepool-operator-webhook --namespace virtualnodepool-system",
                r#"["get"]"#,
            ),
        ] {
            s.kubectl(&format!(
                r#"patch {role} --type json --patch [{{"op":"replace","path":"/rules/0/verbs","value":{verbs}}}]"#
            ))
            .await?;
        }
    }
    for what in [
        "mutatingwebhookconfigurations/virtualnodepool-affinity",
        "secrets/virtualnodepool-webhook-tls --namespace virtualnodepool-system",
    ] {
        eventually(
            &format!("the operator may write {what}: {may}"),
            Duration::from_secs(20),
            async || {
                let asked = s
                    .kubectl(&format!("auth can-i patch {what} --as {OPERATOR}"))
                    .await;
                ensure!(asked.is_ok() == may, "{asked:?}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// What the operator would mend at once stays for as long as it has not the right to.
async fn stays_while_nobody_may_mend(s: &Scenario<'_>) -> Result<()> {
    let relay = Relay::start(Route::Closed).await?;
    let url = format!("https://{}/mutate", relay.address());
    let mut operator = s.spawn_operator(&trying(Some(url.clone()))).await?;
    relay.route(Route::To(operator.webhook()));
    start_pool(s, 1).await?;
    webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
    becomes(s, true, Duration::from_secs(5)).await?;
    let trusted = bundle(s).await?;

    for fault in ["wrong caBundle", "expired leaf"] {
        operator_may_write(s, false).await?;
        match fault {
            "wrong caBundle" => let_another_authority_be_trusted(s).await?,
            _ => let_the_leaf_expire(s).await?,
        }
        eventually("it is not ready", Duration::from_secs(10), async || {
            let missing = operator.waits_for().await?.context("it is ready")?;
            ensure!(missing.contains("certificate of the webhook"), "{missing}");
            Ok(())
        })
        .await
        .context(fault)?;
        // Connections that exist go on with what they began with.
        relay.route(Route::To(operator.webhook()));
        becomes(s, false, Duration::from_secs(10)).await.context(fault)?;
        let message = webhook_is(s, "False", "ConfigNotSynced", Duration::from_secs(30))
            .await
            .context(fault)?;
        ensure!(
            message.contains("forbidden") || message.contains("not allowed"),
            "{fault}: {message}"
        );
        answers(&operator, 0).await.context(fault)?;
        becomes(s, false, Duration::ZERO).await.context(fault)?;

        operator_may_write(s, true).await?;
        becomes(s, true, Duration::from_secs(90)).await.context(fault)?;
        webhook_is(s, "True", "Verified", Duration::from_secs(40))
            .await
            .context(fault)?;
        answers(&operator, 1).await.context(fault)?;
        operator.ready().await.context(fault)?;
        ensure!(bundle(s).await? == trusted, "{fault}: it trusts somebody else");
        let leaf = leaf_in(tls_secret(s).await?.data)?;
        ensure!(leaf.not_after > Timestamp::now(), "{fault}: {leaf:?}");
    }

    // It expires while no operator runs: the next one renews it before it says that it is ready.
    operator.terminate().await?;
    let_the_leaf_expire(s).await?;
    becomes(s, false, Duration::ZERO).await?;
    let mut next = s.spawn_operator(&trying(Some(url))).await?;
    let leaf = leaf_in(tls_secret(s).await?.data)?;
    ensure!(leaf.not_after > Timestamp::now(), "{leaf:?}");
    ensure!(bundle(s).await? == trusted, "it trusts somebody else");
    relay.route(Route::To(next.webhook()));
    becomes(s, true, Duration::from_secs(20)).await?;
    webhook_is(s, "True", "Verified", Duration::from_secs(40)).await?;
    next.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bundle_and_an_expired_leaf_are_said_and_heal() -> Result<()> {
    Scenario::run("webhook-unmended", async |s| {
        let result = stays_while_nobody_may_mend(s).await;
        // The rights are those of all scenarios.
        operator_may_write(s, true).await?;
        result
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_answers_and_mends_what_the_leader_can_not() -> Result<()> {
    Scenario::run_undisturbed("webhook-standby", async |s| {
        let relay = Relay::start(Route::Closed).await?;
        let url = format!("https://{}/mutate", relay.address());
        let mut leader = s.spawn_operator(&trying(Some(url.clone()))).await?;
        relay.route(Route::To(leader.webhook()));
        start_pool(s, 1).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;

        let mut standby = s.spawn_operator(&trying(Some(url))).await?;
        standby.ready().await?;
        relay.route(Route::To(standby.webhook()));
        becomes(s, true, Duration::from_secs(5)).await?;
        ensure!(metric(&standby, "virtualnodepool_leader 0").await?, "it leads");
        let answered = "virtualnodepool_webhook_requests_total{result=\"mutated\"}";
        ensure!(metric(&standby, answered).await?, "it was not asked");

        leader.pause()?;
        let_another_authority_be_trusted(s).await?;
        eventually("it is not ready", Duration::from_secs(3), async || {
            let missing = standby.waits_for().await?.context("it is ready")?;
            ensure!(missing.contains("certificate of the webhook"), "{missing}");
            Ok(())
        })
        .await?;
        becomes(s, false, Duration::from_secs(3)).await?;
        // It leads as soon as the lease has run out.
        becomes(s, true, Duration::from_secs(20)).await?;
        standby.ready().await?;
        ensure!(
            metric(&standby, "virtualnodepool_leader 1").await?,
            "it does not lead"
        );
        Ok(())
    })
    .await
}

/// Creations of pods that go on by the clock, whether those before are answered or not.
struct Load {
    stop: Arc<OnceLock<Instant>>,
    answered: Arc<AtomicUsize>,
    /// What the others got, with how long it took: two seconds are a webhook that did not answer.
    missed: Arc<Mutex<Vec<String>>>,
    made: JoinHandle<(u32, Duration)>,
}

impl Load {
    fn start(client: Client, namespace: String) -> Self {
        let (stop, answered, missed) = (Arc::default(), Arc::default(), Arc::default());
        let load = (
            Arc::<OnceLock<Instant>>::clone(&stop),
            Arc::<AtomicUsize>::clone(&answered),
            Arc::<Mutex<Vec<String>>>::clone(&missed),
        );
        let made = tokio::spawn(async move {
            let (stop, answered, missed) = load;
            let began = Instant::now();
            let mut calls = JoinSet::new();
            let mut made = 0;
            loop {
                let due = began + Duration::from_secs(1) / PER_SECOND * made;
                if stop.get().is_some_and(|stop| due > *stop) {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                while calls.try_join_next().is_some() {}
                let (client, namespace) = (client.clone(), namespace.clone());
                let (answered, missed) = (answered.clone(), missed.clone());
                calls.spawn(async move {
                    let answer = create(&client, &namespace).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    if !matches!(answer, Ok((true, _))) {
                        let mut missed = missed.lock().unwrap_or_else(PoisonError::into_inner);
                        missed.push(format!("{answer:?}"));
                        tracing::warn!(?answer, "a call got lost");
                    }
                });
                made += 1;
            }
            calls.join_all().await;
            (made, began.elapsed())
        });
        Self {
            stop,
            answered,
            missed,
            made,
        }
    }

    /// Waits for that many more answers.
    async fn goes_on(&self, answers: usize) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("the load goes on", Duration::from_secs(60), async || {
            let now = self.answered.load(Ordering::Relaxed);
            ensure!(now >= before + answers, "{} answers", now - before);
            Ok(())
        })
        .await
    }

    /// Ends it and waits for every answer: none may be lost, and they came at the pace of the clock.
    async fn end(self) -> Result<usize> {
        self.stop.set(Instant::now()).ok();
        let (made, took) = self.made.await?;
        let missed = std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner));
        let pace = f64::from(made) / took.as_secs_f64();
        tell(&format!(
            "{made} pods while authority and leaf changed, {pace:.1} each second, {} not mutated",
            missed.len()
        ));
        ensure!(missed.is_empty(), "of {made} pods were not mutated: {missed:?}");
        ensure!(
            pace >= 0.95 * f64::from(PER_SECOND),
            "{made} pods took {took:?}: {pace:.1} each second"
        );
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// How many pods this replica has mutated.
async fn mutated_by(operator: &Operator) -> Result<usize> {
    let metrics = operator.metrics().await?;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("virtualnodepool_webhook_requests_total{result=\"mutated\"} "));
    Ok(count.map_or(Ok(0), str::parse)?)
}

/// Both replicas mutate further pods while the load goes on.
async fn both_are_asked(replicas: [&Operator; 2]) -> Result<()> {
    for replica in replicas {
        let before = mutated_by(replica).await?;
        eventually("both replicas are asked", Duration::from_secs(60), async || {
            ensure!(mutated_by(replica).await? > before, "one was not");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Who listens there shows a certificate that the newest authority of the Secret has signed.
async fn shows_a_leaf_of_the_newest_authority(s: &Scenario<'_>, address: SocketAddr) -> Result<()> {
    let data = tls_secret(s).await?.data.unwrap_or_default();
    let bundle = String::from_utf8(data.get("ca.crt").context("no authority")?.0.clone())?;
    let newest = bundle
        .split_inclusive("-----END CERTIFICATE-----")
        .next()
        .context("no authority")?;
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": ByteString(newest.as_bytes().to_vec()),
        }}],
        "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let request = http::Request::get("/").body(Vec::new())?;
    // There is nothing at /, and only who trusts the certificate is told so.
    match Client::try_from(config)?.request_text(request).await {
        Err(kube::Error::Api(_)) => Ok(()),
        answer => bail!("{answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_loses_no_call() -> Result<()> {
    Scenario::run_undisturbed("webhook-rotates", async |s| {
        let relay = Relay::start(Route::Closed).await?;
        let url = format!("https://{}/mutate", relay.address());
        // A lease that lasts: the load is no reason to lose it.
        let options = OperatorOptions {
            args: ["--webhook-probe-seconds", "2", "--webhook-url", &url]
                .map(str::to_owned)
                .to_vec(),
            ..OperatorOptions::default()
        };
        let mut leader = s.spawn_operator(&options).await?;
        relay.route(Route::To(leader.webhook()));
        start_pool(s, 1).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        let mut standby = s.spawn_operator(&options).await?;
        relay.route(Route::InTurn([leader.webhook(), standby.webhook()]));
        becomes(s, true, Duration::from_secs(5)).await?;
        let leaf = async || -> Result<Value> { Ok(get(s, SECRET).await?["data"]["tls.crt"].clone()) };
        let (before, first) = (bundle(s).await?, leaf().await?);
        let replicas = [leader.webhook(), standby.webhook()];

        let load = Load::start(s.environment().client().await?, s.namespace().to_owned());
        load.goes_on(300).await?;
        both_are_asked([&leader, &standby]).await?;
        // Without its key the authority can sign no more: a new one takes its place, the way it also does by age.
        s.kubectl(&format!(
            r#"patch {SECRET} --type json --patch [{{"op":"remove","path":"/data/ca.key"}}]"#
        ))
        .await?;
        eventually(
            "both authorities are trusted",
            Duration::from_secs(15),
            async || {
                let (old, new) = (before.as_str().map(str::len), bundle(s).await?);
                ensure!(new.as_str().map(str::len) > old, "only one authority");
                Ok(())
            },
        )
        .await?;
        for replica in replicas {
            let early = shows_a_leaf_of_the_newest_authority(s, replica).await;
            ensure!(early.is_err(), "the new authority signed before it was known");
        }
        ensure!(
            leaf().await? == first,
            "the new authority signed before it was known"
        );
        eventually(
            "the new authority has signed",
            Duration::from_secs(90),
            async || {
                ensure!(leaf().await? != first, "the leaf is the old one");
                Ok(())
            },
        )
        .await?;
        // Leader or not, each has read it anew.
        for replica in replicas {
            eventually("the new leaf is served", Duration::from_secs(10), async || {
                shows_a_leaf_of_the_newest_authority(s, replica).await
            })
            .await?;
        }
        both_are_asked([&leader, &standby]).await?;
        load.goes_on(500).await?;
        load.end().await?;

        // A call by a new connection meets the new leaf.
        for replica in [&leader, &standby] {
            let before = mutated_by(replica).await?;
            relay.route(Route::To(replica.webhook()));
            becomes(s, true, Duration::from_secs(5)).await?;
            ensure!(mutated_by(replica).await? > before, "it was not asked");
        }
        ensure!(
            metric(&leader, "virtualnodepool_leader 1").await?,
            "it leads no more"
        );
        ensure!(metric(&standby, "virtualnodepool_leader 0").await?, "it leads");
        // A clean end hands the lease to the next scenario.
        standby.terminate().await?;
        leader.terminate().await?;
        Ok(())
    })
    .await
}
