//! A full node: how fast it drains, and what that costs the API server. The audit log has the times.
//!
//! The pods are bound to the node when they are created and nothing replaces them: what is measured is the drain, not
//! the scheduler. Settles and the cloud's quota are short; the rate law is as it ships.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use vnp_e2e::EnvironmentOptions;
use vnp_e2e::audit::{AuditEvent, OPERATOR};
use vnp_e2e::cloud::Quota;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{
    emptied_before_shrink, evictions_are_precise, get_pool, misbehave, ready, shrunk, tell,
};

/// What one virtual node takes.
const PODS: usize = 3000;
/// Pods that are created at the same time.
const SIDE_BY_SIDE: usize = 50;
/// Instances that the cloud of these scenarios deletes per second: more than any drain here asks for.
const DELETES_PER_SECOND: u32 = 1000;

/// The pool with `replicas` nodes and settles of a second, drained by `drain`.
fn pool(s: &Scenario<'_>, replicas: u32, drain: &Value) -> Value {
    let mut pool = s.pool(replicas);
    let settings = &mut pool["spec"]["drain"];
    settings["instanceDeletesPerSecond"] = json!(DELETES_PER_SECOND);
    // Nothing makes them again.
    settings["barePods"] = json!("Evict");
    if let (Some(settings), Some(drain)) = (settings.as_object_mut(), drain.as_object()) {
        settings.extend(drain.clone());
    }
    pool
}

/// Fills the n-th node with [`PODS`] running pods of one controller.
async fn crowd(s: &Scenario<'_>, ordinal: usize) -> Result<()> {
    let owners: Api<ConfigMap> = Api::namespaced(s.client(), s.namespace());
    let owner = serde_json::from_value(json!({"metadata": {"name": "crowd"}}))?;
    let owner = owners.create(&PostParams::default(), &owner).await?;
    let pods: Api<Pod> = Api::namespaced(s.client(), s.namespace());
    let create = |number: usize| {
        let mut pod = manifests::bare_pod(s.namespace(), &format!("crowd-{number:04}"));
        pod["metadata"]["labels"] = json!({"app": "crowd"});
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "crowd", "uid": owner.uid(), "controller": true,
        }]);
        pod["spec"]["nodeName"] = json!(s.node(ordinal));
        let pods = pods.clone();
        async move {
            let pod: Pod = serde_json::from_value(pod)?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        }
    };
    let started = Instant::now();
    futures::stream::iter((0..PODS).map(create))
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    s.pods_running("app=crowd", PODS, Duration::from_secs(120))
        .await?;
    tell(&format!("{PODS} pods ran after {:.1?}", started.elapsed()));
    Ok(())
}

/// What a drain came to, by the audit log.
struct Bill {
    /// When each eviction that was accepted had been received, in order.
    accepted: Vec<Timestamp>,
    /// Evictions, whatever they were answered.
    evictions: usize,
    /// LISTs of the pods of one node without a resourceVersion, by the time of the shrink.
    lists: Vec<Timestamp>,
    /// GETs of pods in the scenario's namespace.
    gets: usize,
    /// When the fence was set, before the first of the two lists.
    fenced: Timestamp,
    /// When the count was lowered.
    lowered: Timestamp,
}

fn bill(s: &Scenario<'_>, since: Timestamp) -> Result<Bill> {
    let mut events = s.audit_log().events()?;
    events.retain(|e| e.user == OPERATOR && e.received >= since);
    events.sort_by_key(|e| e.received);
    let patched = |word: &str| {
        let hit = |e: &&AuditEvent| {
            let body = e.request.as_ref().map(Value::to_string).unwrap_or_default();
            e.is("statefulsets", None) && e.is_success() && body.contains(word)
        };
        events.iter().find(hit).map(|e| e.received)
    };
    let eviction = |e: &&AuditEvent| e.verb == "create" && e.is("pods", Some("eviction"));
    let list = |e: &&AuditEvent| e.verb == "list" && e.is("pods", None) && e.uri.contains("spec.nodeName");
    Ok(Bill {
        accepted: events
            .iter()
            .filter(eviction)
            .filter(|e| e.code == 201)
            .map(|e| e.received)
            .collect(),
        evictions: events.iter().filter(eviction).count(),
        lists: events.iter().filter(list).map(|e| e.received).collect(),
        gets: events
            .iter()
            .filter(|e| e.verb == "get" && e.is("pods", None))
            .filter(|e| e.namespace.as_deref() == Some(s.namespace()))
            .count(),
        fenced: patched("shrinking").context("no fence in the audit log")?,
        lowered: patched("/spec/replicas").context("no shrink in the audit log")?,
    })
}

impl Bill {
    /// Every pod was asked for about once, none was read, and two LISTs proved the node empty.
    fn is_small(&self) -> Result<()> {
        let proof = self
            .lists
            .iter()
            .filter(|at| (self.fenced..self.lowered).contains(at))
            .count();
        tell(&format!(
            "{} evictions for {PODS} pods, {} accepted; {proof} LISTs between fence and shrink, {} in all; {} GETs of pods",
            self.evictions,
            self.accepted.len(),
            self.lists.len(),
            self.gets
        ));
        ensure!(
            self.accepted.len() == PODS,
            "{} evictions were accepted",
            self.accepted.len()
        );
        ensure!(
            self.evictions * 100 <= PODS * 105,
            "{} evictions for {PODS} pods",
            self.evictions
        );
        ensure!(proof == 2, "{proof} LISTs for the proof");
        ensure!(self.gets == 0, "{} GETs of pods", self.gets);
        Ok(())
    }

    /// Seconds from the first accepted eviction to the n-th, counted from 0.
    fn seconds(&self, n: usize) -> Result<f64> {
        let first = self.accepted.first().context("no eviction was accepted")?;
        let nth = self.accepted.get(n).context("not so many were accepted")?;
        Ok(nth.duration_since(*first).as_secs_f64())
    }
}

/// Drains a full node; within that time it is gone.
async fn drain(s: &Scenario<'_>, settings: Value, within: Duration) -> Result<Bill> {
    misbehave(s);
    s.cloud().set_delete_quota(Quota {
        burst: 100,
        per_second: f64::from(DELETES_PER_SECOND),
    });
    s.start_operator(&OperatorOptions::default()).await?;
    s.apply(&pool(s, 2, &settings)).await?;
    ready(s, Duration::from_secs(60)).await?;
    crowd(s, 1).await?;
    eventually("the operator counts them", Duration::from_secs(90), async || {
        let pods = get_pool(s).await?["status"]["pods"].clone();
        ensure!(pods == PODS, "it counts {pods}");
        Ok(())
    })
    .await?;

    let since = Timestamp::now();
    s.apply(&pool(s, 1, &settings)).await?;
    shrunk(s, 1, within).await?;
    let took = Timestamp::now().duration_since(since);
    let bill = bill(s, since)?;
    tell(&format!(
        "{PODS} pods: {:.1} s from the change to the shrink, {:.1} s until the pool was Ready; the last eviction {:.1} s after the first",
        bill.lowered.duration_since(since).as_secs_f64(),
        took.as_secs_f64(),
        bill.seconds(bill.accepted.len().saturating_sub(1))?
    ));
    emptied_before_shrink(s, 2)?;
    evictions_are_precise(s)?;
    s.no_leak_within(Duration::from_secs(30)).await?;
    Ok(bill)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_pods_go_at_the_rate_that_is_set() -> Result<()> {
    const RATE: f64 = 20.0;
    const BURST: usize = 100;
    Scenario::run_alone("rate", EnvironmentOptions::default(), async |s| {
        let bill = drain(s, json!({}), Duration::from_secs(240)).await?;
        bill.is_small()?;
        // Past the burst: on a busy machine it takes a while until what was saved, and refilled meanwhile, is spent.
        let (from, to) = (10 * BURST, PODS - 1);
        let seconds = bill.seconds(to)? - bill.seconds(from)?;
        let rate = (to - from) as f64 / seconds;
        println!("{rate:.2} evictions per second over {seconds:.1} s after the burst");
        ensure!((0.95 * RATE..=1.05 * RATE).contains(&rate), "{rate} per second");
        // The law itself, in every stretch from the first on: never more than the burst and what was refilled, but for
        // those that were under way.
        for n in 0..bill.accepted.len() {
            let most = (BURST + 10) as f64 + RATE * bill.seconds(n)?;
            ensure!(n as f64 <= most, "{n} evictions after {:.2} s", bill.seconds(n)?);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_pods_go_as_fast_as_the_api_server_allows() -> Result<()> {
    Scenario::run_alone("unlimited", EnvironmentOptions::default(), async |s| {
        let settings = json!({"pace": "Unlimited", "maxTerminating": PODS});
        let bill = drain(s, settings, Duration::from_secs(240)).await?;
        bill.is_small()
    })
    .await
}
