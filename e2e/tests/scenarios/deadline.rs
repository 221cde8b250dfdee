//! What happens when the deadline of a drain passes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_e2e::audit::{AuditEvent, OPERATOR};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};

use crate::fixture::{
    blocked_by, catch_up, condition, counts, emptied_before_shrink, evictions, fill, get, get_pool, in_phase,
    misbehave, misbehave_on_1_12, pool, quick_lease, shrunk, start_pool,
};

const SOON: Duration = Duration::from_secs(30);
/// Deadline in seconds of the drains that end by force. It is shorter than a minute, and so is the notice.
const TIMEOUT: i64 = 20;

/// Asks for one node with that deadline.
async fn drain(s: &Scenario<'_>, on_timeout: &str, timeout: i64) -> Result<()> {
    let mut pool = pool(s, 1);
    pool["spec"]["drain"]["onTimeout"] = json!(on_timeout);
    pool["spec"]["drain"]["timeoutSeconds"] = json!(timeout);
    s.apply(&pool).await
}

/// Two nodes, of which the second has six pods that no eviction moves: five under a budget of zero and a bare one.
async fn stuck(s: &Scenario<'_>) -> Result<()> {
    start_pool(s, 2).await?;
    s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
        .await?;
    fill(s, 1, 2, "web", 5).await?;
    let mut bare = manifests::on_node(manifests::bare_pod(s.namespace(), "bare"), &s.node(1));
    bare["spec"]["terminationGracePeriodSeconds"] = json!(2);
    s.apply(&bare).await?;
    s.pods_running("app=bare", 1, SOON).await?;
    Ok(())
}

/// UIDs of the six pods by name.
async fn uids(s: &Scenario<'_>) -> Result<BTreeMap<String, String>> {
    let mut uids = BTreeMap::new();
    for labels in ["app=web", "app=bare"] {
        for pod in s.pods(labels).await? {
            let name = pod.metadata.name.context("a pod without a name")?;
            uids.insert(name, pod.metadata.uid.context("a pod without a UID")?);
        }
    }
    ensure!(uids.len() == 6, "{uids:?}");
    Ok(uids)
}

/// Deletions of pods of users that the operator asked for.
fn forced(s: &Scenario<'_>) -> Result<Vec<AuditEvent>> {
    let mut deletions = s.audit_log().writes_by(OPERATOR, s.began())?;
    deletions.retain(|e| {
        e.verb.starts_with("delete") && e.is("pods", None) && e.namespace.as_deref() == Some(s.namespace())
    });
    Ok(deletions)
}

async fn entry(s: &Scenario<'_>) -> Result<Value> {
    Ok(get_pool(s).await?["status"]["drain"]["nodes"][0].clone())
}

fn stamp(entry: &Value, field: &str) -> Result<Timestamp> {
    let text = entry[field]
        .as_str()
        .with_context(|| format!("no {field} in {entry}"))?;
    Ok(text.parse()?)
}

/// Waits until the announcement is stored, and returns the node's entry.
async fn announced(s: &Scenario<'_>, within: Duration) -> Result<Value> {
    eventually("forced deletion is announced", within, async || {
        let entry = entry(s).await?;
        stamp(&entry, "forceAnnouncedTime")?;
        Ok(entry)
    })
    .await
}

/// Each of the pods was deleted by its UID and with a grace period, and none before the time that was announced.
fn forced_as_announced(
    s: &Scenario<'_>,
    uids: &BTreeMap<String, String>,
    told: Timestamp,
    timeout: i64,
) -> Result<()> {
    let deletions = forced(s)?;
    for (name, uid) in uids {
        let of_pod = |e: &&AuditEvent| e.name.as_ref() == Some(name) && e.is_success();
        let deletion = deletions
            .iter()
            .find(of_pod)
            .with_context(|| format!("{name} was not deleted by force: {deletions:?}"))?;
        let body = deletion.request.as_ref().context("no body in the audit log")?;
        ensure!(body["preconditions"]["uid"] == **uid, "{deletion:?}");
    }
    for deletion in deletions {
        let body = deletion.request.as_ref().context("no body in the audit log")?;
        let grace = body["gracePeriodSeconds"].as_i64();
        ensure!(grace.is_some_and(|g| (1..=30).contains(&g)), "{deletion:?}");
        ensure!(body["preconditions"]["uid"].is_string(), "{deletion:?}");
        ensure!(
            deletion.received.duration_since(told) >= SignedDuration::from_secs(timeout),
            "announced at {told}, deleted at {}",
            deletion.received
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn force_takes_what_no_eviction_moves_after_it_was_announced() -> Result<()> {
    Scenario::run("force", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        stuck(s).await?;
        let uids = uids(s).await?;
        drain(s, "ForceDelete", TIMEOUT).await?;
        let told = stamp(&announced(s, SOON).await?, "forceAnnouncedTime")?;
        eventually("an event names the node", SOON, async || {
            let events = s
                .kubectl("get events.events.k8s.io --namespace default --field-selector reason=ForceAnnounced --output json")
                .await?;
            ensure!(events.contains(&s.node(1)), "{events}");
            Ok(())
        })
        .await?;
        shrunk(s, 1, catch_up(6) + Duration::from_secs(60)).await?;
        forced_as_announced(s, &uids, told, TIMEOUT)?;
        ensure!(
            evictions(s)?.iter().all(|e| e.code != 201 || !uids.keys().any(|name| e.pod.ends_with(name))),
            "an eviction moved a pod that none should move"
        );
        emptied_before_shrink(s, 2)?;
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_drain_gives_its_node_back_and_starts_again_with_more_time() -> Result<()> {
    Scenario::run("abort", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        stuck(s).await?;
        let before = counts(s)?.len();
        drain(s, "Abort", 10).await?;
        blocked_by(s, "BlockedByBudget", "abort/web", SOON).await?;
        let aborted = in_phase(s, &["Aborted"], SOON).await?;
        let started = aborted["status"]["drain"]["nodes"][0]["startedAt"].clone();
        let kept = async || {
            let pool = get_pool(s).await?;
            let entry = &pool["status"]["drain"]["nodes"][0];
            ensure!(
                entry["phase"] == "Aborted" && entry["startedAt"] == started,
                "{entry}"
            );
            let ready = condition(&pool, "Ready").context("no condition Ready")?;
            ensure!(
                ready["status"] == "False" && ready["reason"] == "DrainTimedOut",
                "{ready}"
            );
            let node = get(s, &format!("node {}", s.node(1))).await?;
            ensure!(node["spec"]["unschedulable"].is_null(), "{}", node["spec"]);
            Ok(())
        };
        eventually("the node is given back", SOON, kept).await?;
        always("it is kept", Duration::from_secs(8), kept).await?;
        ensure!(
            counts(s)?.len() == before,
            "the count was written: {:?}",
            counts(s)?
        );
        ensure!(forced(s)?.is_empty(), "{:?}", forced(s)?);

        drain(s, "Abort", 3600).await?;
        let again = in_phase(s, &["Evicting"], SOON).await?;
        let entry = &again["status"]["drain"]["nodes"][0];
        ensure!(
            entry["startedAt"] != started,
            "the time of the drain before still counts: {entry}"
        );
        let node = get(s, &format!("node {}", s.node(1))).await?;
        ensure!(node["spec"]["unschedulable"] == true, "{}", node["spec"]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_lowered_acts_at_once() -> Result<()> {
    Scenario::run("lowered", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        stuck(s).await?;
        let uids = uids(s).await?;
        drain(s, "ForceDelete", 3600).await?;
        blocked_by(s, "BlockedByBudget", "lowered/web", SOON).await?;
        let first = entry(s).await?;
        ensure!(
            first["forceAnnouncedTime"].is_null(),
            "announced an hour ahead: {first}"
        );

        drain(s, "ForceDelete", TIMEOUT).await?;
        let told = announced(s, Duration::from_secs(5)).await?;
        ensure!(told["startedAt"] == first["startedAt"], "{first} became {told}");
        shrunk(s, 1, catch_up(6) + Duration::from_secs(60)).await?;
        forced_as_announced(s, &uids, stamp(&told, "forceAnnouncedTime")?, TIMEOUT)?;
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_announcement_and_force_keeps_what_was_announced() -> Result<()> {
    Scenario::run("announced", async |s| {
        misbehave_on_1_12(s);
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        stuck(s).await?;
        let uids = uids(s).await?;
        drain(s, "ForceDelete", TIMEOUT).await?;
        let before = announced(s, SOON).await?;
        operator.kill().await?;
        ensure!(forced(s)?.is_empty(), "forced at once: {:?}", forced(s)?);

        let mut operator = s.spawn_operator(&quick_lease()).await?;
        eventually("a pod is deleted by force", Duration::from_secs(60), async || {
            ensure!(!forced(s)?.is_empty(), "none yet");
            Ok(())
        })
        .await?;
        let after = entry(s).await?;
        for field in ["startedAt", "forceAnnouncedTime"] {
            ensure!(after[field] == before[field], "{before} became {after}");
        }
        shrunk(s, 1, catch_up(6) + Duration::from_secs(60)).await?;
        operator.terminate().await?;
        forced_as_announced(s, &uids, stamp(&before, "forceAnnouncedTime")?, TIMEOUT)?;
        s.no_leak_within(SOON).await
    })
    .await
}
