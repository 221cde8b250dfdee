//! What a drain does not get rid of by itself is told by name, and holds the node for as long as it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{
    catch_up, counts, fill, get_pool, get_workload, misbehave, misbehave_on_1_12, resize, shrunk, start_pool,
};

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_stay_are_named_and_hold_the_node() -> Result<()> {
    Scenario::run("reported", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 3).await?;
        let ending = format!("{}-ending", s.namespace());
        s.apply(&manifests::namespace(&ending)).await?;
        let node = s.node(1);
        s.apply(&manifests::on_node(
            manifests::bare_pod(s.namespace(), "bare"),
            &node,
        ))
        .await?;
        for namespace in [s.namespace(), &ending] {
            let mut held = manifests::on_node(manifests::bare_pod(namespace, "held"), &node);
            held["metadata"]["finalizers"] = json!(["example.com/held"]);
            held["spec"]["terminationGracePeriodSeconds"] = json!(1);
            s.apply(&held).await?;
        }
        eventually("all pods are bound", Duration::from_secs(60), async || {
            for (namespace, pod) in [
                (s.namespace(), "bare"),
                (s.namespace(), "held"),
                (&*ending, "held"),
            ] {
                let bound = s
                    .kubectl(&format!(
                        "get pod {pod} --namespace {namespace} --output jsonpath={{.spec.nodeName}}"
                    ))
                    .await?;
                ensure!(bound.trim() == node, "{namespace}/{pod} is on {bound:?}");
            }
            Ok(())
        })
        .await?;
        s.kubectl(&format!(
            "delete pod held --namespace {} --wait=false",
            s.namespace()
        ))
        .await?;
        s.kubectl(&format!("delete namespace {ending} --wait=false"))
            .await?;
        let before = counts(s)?.len();

        resize(s, 1).await?;
        eventually("the node drains", Duration::from_secs(30), async || {
            let gone = s.pods("app=web").await?;
            let left = gone
                .iter()
                .filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&node));
            ensure!(left.count() == 0, "some are left");
            Ok(())
        })
        .await?;
        // A manifest that names the node passes the scheduler by, and with it the cordon.
        for n in 0..3 {
            let mut placed = manifests::bare_pod(s.namespace(), &format!("placed-{n}"));
            placed["spec"]["nodeName"] = json!(node);
            s.apply(&placed).await?;
        }

        let mut expected: BTreeMap<(String, String), i64> = BTreeMap::new();
        for pod in ["bare", "placed-0", "placed-1", "placed-2"] {
            expected.insert(("BarePods".into(), format!("{}/{pod}", s.namespace())), 1);
        }
        for namespace in [s.namespace(), &ending] {
            expected.insert(("StuckTerminating".into(), format!("{namespace}/held")), 1);
        }
        let keeps_coming = format!("Namespace/{}", s.namespace());
        expected.insert(("NewPodsKeepArriving".into(), keeps_coming), 3);
        eventually("each is named", Duration::from_secs(90), async || {
            let drain = get_pool(s).await?["status"]["drain"].clone();
            let told = blockers(&drain)?;
            ensure!(told == expected, "blockers are {told:?}");
            let numbers = ["podsRemaining", "podsTerminating", "podsBlocked"].map(|n| drain[n].as_i64());
            ensure!(numbers == [Some(6), Some(2), Some(6)], "{drain}");
            Ok(())
        })
        .await?;
        ensure!(
            get_workload(s).await?["spec"]["replicas"] == 2,
            "the node went with pods on it"
        );
        ensure!(
            counts(s)?.len() == before,
            "replicas was written: {:?}",
            counts(s)?
        );

        for namespace in [s.namespace(), &ending] {
            let free = r#"{"metadata":{"finalizers":null}}"#;
            s.kubectl(&format!(
                "patch pod held --namespace {namespace} --type merge --patch {free}"
            ))
            .await?;
        }
        s.kubectl(&format!(
            "delete pod bare placed-0 placed-1 placed-2 --namespace {} --wait=false",
            s.namespace()
        ))
        .await?;
        shrunk(s, 1, catch_up(11) + Duration::from_secs(120)).await?;
        s.no_leak_within(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_freed_is_used_within_two_seconds() -> Result<()> {
    Scenario::run_undisturbed("freed", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 6).await?;
        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        resize(s, 1).await?;
        eventually(
            "the budget holds the drain",
            Duration::from_secs(30),
            async || {
                let drain = get_pool(s).await?["status"]["drain"].clone();
                let told = blockers(&drain)?;
                let budget = ("BlockedByBudget".to_owned(), format!("{}/web", s.namespace()));
                ensure!(
                    told.contains_key(&budget) && drain["limitedBy"] == "Budget",
                    "{drain}"
                );
                Ok(())
            },
        )
        .await?;
        // Past the first probe, so that the next one is half a minute away.
        tokio::time::sleep(Duration::from_secs(17)).await;
        let refused = crate::fixture::evictions(s)?;
        let last = refused
            .iter()
            .filter(|e| e.code == 429)
            .map(|e| e.received)
            .max()
            .context("no eviction was refused")?;

        let freed = jiff::Timestamp::now();
        ensure!(
            freed.duration_since(last) < jiff::SignedDuration::from_secs(20),
            "the next probe is due anyway"
        );
        s.apply(&manifests::budget(s.namespace(), "web", "web", 1))
            .await?;
        let next = eventually("an eviction is accepted", Duration::from_secs(20), async || {
            let evictions = crate::fixture::evictions(s)?;
            let accepted = evictions
                .into_iter()
                .filter(|e| e.code == 201 && e.pod.contains("/web-") && e.received > freed)
                .map(|e| e.received)
                .min();
            accepted.context("none yet")
        })
        .await?;
        let took = next.duration_since(freed);
        println!("next eviction {took:#} after the budget was raised");
        ensure!(took <= jiff::SignedDuration::from_secs(2), "it took {took:#}");
        Ok(())
    })
    .await
}

fn blockers(drain: &Value) -> Result<BTreeMap<(String, String), i64>> {
    let list = drain["blockers"].as_array().context("no blockers")?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Ok(list
        .iter()
        .map(|b| {
            (
                (text(&b["reason"]), text(&b["object"])),
                b["pods"].as_i64().unwrap_or(0),
            )
        })
        .collect())
}
