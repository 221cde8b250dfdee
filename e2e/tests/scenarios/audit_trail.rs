//! What removed nodes held last, compared with the cloud's own book.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{
    catch_up, fill, get, in_phase, misbehave_on_1_12, quick_lease, resize, shrunk, start_pool,
};

const SOON: Duration = Duration::from_secs(30);

/// The record of the n-th node.
pub(crate) async fn record(s: &Scenario<'_>, ordinal: usize) -> Result<Value> {
    let map = get(
        s,
        &format!(
            "configmap vnp-audit-{} --namespace virtualnodepool-system",
            s.name()
        ),
    )
    .await?;
    let prefix = format!("{}.", s.node(ordinal));
    let data = map["data"].as_object().context("no data")?;
    let text = data
        .iter()
        .find(|(key, _)| key.starts_with(&prefix))
        .with_context(|| format!("no record of {prefix} among {:?}", data.keys()))?
        .1;
    Ok(serde_json::from_str(text.as_str().context("no text")?)?)
}

/// Waits for the record, so that everything bound is in it.
async fn begun(s: &Scenario<'_>, ordinal: usize, pods: usize) -> Result<()> {
    eventually("everything bound is recorded", SOON, async || {
        let record = record(s, ordinal).await?;
        ensure!(record["pods"].as_array().map(Vec::len) == Some(pods), "{record}");
        Ok(())
    })
    .await
}

/// UID and instance id of what the cloud started for pods of the n-th node, by `<namespace>/<name>`.
fn instances(s: &Scenario<'_>, ordinal: usize) -> BTreeMap<String, (String, String)> {
    let node = s.node(ordinal);
    let book = s.ledger().instances();
    book.into_iter()
        .filter(|i| i.node == node && i.pod.namespace == s.namespace())
        .map(|i| (i.pod.to_string(), (i.pod.uid, i.id.to_string())))
        .collect()
}

/// How each pod ended, once UID and instance id of every pod of the node are what the cloud's book says.
fn ends(record: &Value, book: &BTreeMap<String, (String, String)>) -> Result<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = record["pods"].as_array().context("no pods")?;
    let recorded: BTreeMap<String, (String, String)> = pods
        .iter()
        .map(|p| (text(&p["pod"]), (text(&p["uid"]), text(&p["instance"]))))
        .collect();
    ensure!(
        recorded == *book,
        "recorded {recorded:#?}, the cloud had {book:#?}"
    );
    ensure!(record["emptiedAt"].is_string(), "{record}");
    Ok(pods
        .iter()
        .map(|p| (text(&p["pod"]), text(&p["ended"])))
        .collect())
}

/// Deletes a pod as a person does, and waits until it is gone.
async fn delete_by_hand(s: &Scenario<'_>, pod: &str) -> Result<()> {
    let (namespace, name) = pod.split_once('/').context("namespace/name")?;
    s.kubectl(&format!(
        "delete pod {name} --namespace {namespace} --timeout 30s"
    ))
    .await?;
    Ok(())
}

/// The first pod of a Deployment on the n-th node.
async fn pod_of(s: &Scenario<'_>, ordinal: usize, app: &str) -> Result<String> {
    let pods = s.pods_on(ordinal).await?;
    let mut names = pods.iter().filter_map(|p| {
        let labels = p.metadata.labels.as_ref()?;
        (labels.get("app").map(String::as_str) == Some(app)).then(|| p.metadata.name.clone())?
    });
    let name = names.next().with_context(|| format!("no pod of {app}"))?;
    Ok(format!("{}/{name}", s.namespace()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_of_a_removed_node_is_recorded_with_how_its_pod_ended() -> Result<()> {
    Scenario::run("audit-trail", async |s| {
        misbehave_on_1_12(s);
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        start_pool(s, 3).await?;

        // Nobody disturbs the first drain, but for a person who deletes a pod.
        fill(s, 2, 3, "web", 4).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        let book = instances(s, 2);
        ensure!(book.len() == 6, "{book:?}");
        resize(s, 2).await?;
        begun(s, 2, 6).await?;
        let by_hand = pod_of(s, 2, "web").await?;
        delete_by_hand(s, &by_hand).await?;
        s.kubectl(&format!("delete pdb web --namespace {}", s.namespace()))
            .await?;
        shrunk(s, 2, catch_up(6) + Duration::from_secs(60)).await?;
        for (pod, ended) in ends(&record(s, 2).await?, &book)? {
            let expected = if pod == by_hand {
                "Deleted"
            } else if pod.contains("finished") {
                "Finished"
            } else {
                "Evicted"
            };
            ensure!(ended == expected, "{pod} is said to have ended {ended}");
        }

        // The second one loses its operator, and a pod while there is none.
        fill(s, 1, 2, "shop", 4).await?;
        s.apply(&manifests::budget(s.namespace(), "shop", "shop", 0))
            .await?;
        let book: BTreeMap<_, _> = {
            // Pods of the first drain may have found a place here.
            let here = s.pods_on(1).await?;
            let uids: Vec<String> = here.into_iter().filter_map(|p| p.metadata.uid).collect();
            let all = instances(s, 1).into_iter();
            all.filter(|(_, (uid, _))| uids.contains(uid)).collect()
        };
        ensure!(book.len() >= 6, "{book:?}");
        resize(s, 1).await?;
        in_phase(s, &["Evicting"], SOON).await?;
        begun(s, 1, book.len()).await?;
        operator.kill().await?;
        let unseen = pod_of(s, 1, "shop").await?;
        delete_by_hand(s, &unseen).await?;
        s.kubectl(&format!("delete pdb shop --namespace {}", s.namespace()))
            .await?;
        let mut operator = s.spawn_operator(&quick_lease()).await?;
        shrunk(s, 1, catch_up(6) + Duration::from_secs(60)).await?;
        let ended = ends(&record(s, 1).await?, &book)?;
        ensure!(ended[&unseen] == "Unknown", "{ended:?}");
        let evicted = ended.values().filter(|e| *e == "Evicted").count();
        ensure!(evicted >= 3, "{ended:?}");
        // Both are there, and stay when their pool goes.
        record(s, 2).await?;
        s.kubectl(&format!("delete virtualnodepool {} --timeout 120s", s.name()))
            .await?;
        record(s, 1).await?;
        operator.terminate().await?;
        Ok(())
    })
    .await
}
