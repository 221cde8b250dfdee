//! The pod webhook on a real API server: what it does to pods, what happens without it, and its certificates under load.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use vnp_e2e::interposed::{Relay, Route};
use vnp_e2e::operator::{Operator, OperatorOptions};
use vnp_e2e::scenario::{Scenario, eventually};
use vnp_operator::admission::issue::carry_out;
use vnp_operator::admission::keyring::{Keyring, TLS_SECRET, TlsSecret};
use vnp_operator::admission::server::{self, Served};
use vnp_plan::webhook::certificates::Rotation;

use crate::fixture::{condition, get, get_pool, quick_lease, ready, start_pool, tell};

const CONFIGURATION: &str = "mutatingwebhookconfiguration virtualnodepool-affinity";
const SECRET: &str = "secret virtualnodepool-webhook-tls --namespace virtualnodepool-system";
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

async fn bundle(s: &Scenario<'_>) -> Result<Value> {
    let configuration = get(s, CONFIGURATION).await?;
    Ok(configuration["webhooks"][0]["clientConfig"]["caBundle"].clone())
}

/// A server that shows a leaf of the operator's authority that ended days ago, until the sender goes.
async fn expired(s: &Scenario<'_>) -> Result<(SocketAddr, watch::Sender<bool>)> {
    let secrets: Api<Secret> = Api::namespaced(s.client(), "virtualnodepool-system");
    let authority = TlsSecret::from(secrets.get(TLS_SECRET).await?);
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    let then = Timestamp::now() - SignedDuration::from_hours(30 * 24);
    let data = carry_out(Rotation::Leaf, Some(&authority), &names, then)?;
    let keyring = Keyring::read(&TlsSecret::from(Secret {
        data: Some(data),
        ..Secret::default()
    }));
    let leaf = keyring.facts.leaf.context("no leaf")?;
    ensure!(
        leaf.issuer.is_some() && leaf.not_after < Timestamp::now(),
        "{leaf:?}"
    );
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
    Scenario::run("webhook-down", async |s| {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_answers_and_mends_what_the_leader_can_not() -> Result<()> {
    Scenario::run("webhook-standby", async |s| {
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
        let names = BTreeSet::from(["127.0.0.1".to_owned()]);
        let other = carry_out(Rotation::Anew, None, &names, Timestamp::now())?;
        let wrong = json!([{
            "op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": other["ca.crt"],
        }]);
        s.kubectl(&format!("patch {CONFIGURATION} --type json --patch {wrong}"))
            .await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_loses_no_call() -> Result<()> {
    const PER_SECOND: u64 = 100;
    Scenario::run("webhook-rotates", async |s| {
        s.start_operator(&trying(None)).await?;
        start_pool(s, 1).await?;
        webhook_is(s, "True", "Verified", Duration::from_secs(20)).await?;
        let leaf = async || -> Result<Value> { Ok(get(s, SECRET).await?["data"]["tls.crt"].clone()) };
        let (before, first) = (bundle(s).await?, leaf().await?);

        let client = s.environment().client().await?;
        let namespace = s.namespace().to_owned();
        let (made, missed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (made.clone(), missed.clone());
        let load = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
            let mut calls = JoinSet::new();
            loop {
                tick.tick().await;
                while calls.try_join_next().is_some() {}
                let (client, namespace, counts) = (client.clone(), namespace.clone(), counts.clone());
                calls.spawn(async move {
                    let answer = create(&client, &namespace).await;
                    counts.0.fetch_add(1, Ordering::Relaxed);
                    if !matches!(answer, Ok((true, _))) {
                        counts.1.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(?answer, "a call got lost");
                    }
                });
            }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
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
        tokio::time::sleep(Duration::from_secs(5)).await;
        load.abort();
        let (made, missed) = (made.load(Ordering::Relaxed), missed.load(Ordering::Relaxed));
        tell(&format!(
            "{made} pods while authority and leaf changed, {missed} not mutated"
        ));
        ensure!(missed == 0, "{missed} of {made} pods were not mutated");
        Ok(())
    })
    .await
}
