//! StatefulSets as people have them: pods in order, ordinals from a number, updates by hand or in parts, slow to count
//! as available. Each loses its highest node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnp_e2e::audit::{AuditEvent, OPERATOR};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};
use vnp_e2e::simulation::SIMULATION_USER;

use crate::fixture::{DELETES_PER_SECOND, condition, get, misbehave};

const SOON: Duration = Duration::from_secs(90);

/// A StatefulSet that people made and a pool that adopted it.
struct Adopted<'s, 'e> {
    s: &'s Scenario<'e>,
    pool: String,
    provider: String,
}

impl<'s, 'e> Adopted<'s, 'e> {
    /// Makes the StatefulSet with `spec` over the usual one, then the pool, and waits for both.
    async fn new(s: &'s Scenario<'e>, variant: &str, replicas: u32, spec: Value) -> Result<Self> {
        let this = Self {
            s,
            pool: format!("{}-{variant}", s.name()),
            provider: format!("{}-{variant}", s.provider()),
        };
        let mut workload = manifests::provider(&this.provider, replicas);
        json_patch::merge(&mut workload["spec"], &spec);
        s.apply(&workload).await?;
        eventually("its providers run", SOON, async || {
            let status = this.workload().await?["status"].clone();
            ensure!(status["readyReplicas"] == replicas, "{status}");
            Ok(())
        })
        .await?;
        this.resize(replicas, json!({})).await?;
        eventually("it is adopted", SOON, async || {
            let pool = get(s, &format!("virtualnodepool {}", this.pool)).await?;
            let ready = condition(&pool, "Ready").context("no condition Ready")?;
            ensure!(ready["status"] == "True", "{ready}");
            Ok(())
        })
        .await?;
        Ok(this)
    }

    fn node(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.provider)
    }

    async fn workload(&self) -> Result<Value> {
        get(
            self.s,
            &format!("statefulset {} --namespace kube-system", self.provider),
        )
        .await
    }

    async fn provider_uid(&self, ordinal: u32) -> Result<Value> {
        let pod = get(
            self.s,
            &format!("pod {} --namespace kube-system", self.node(ordinal)),
        )
        .await?;
        Ok(pod["metadata"]["uid"].clone())
    }

    async fn resize(&self, replicas: u32, drain: Value) -> Result<()> {
        let mut pool = manifests::pool(&self.pool, &self.provider, replicas);
        pool["spec"]["provider"] = json!({
            "type": "StatefulSet", "management": "Adopt", "namespace": "kube-system", "name": self.provider,
        });
        pool["spec"]["drain"] = json!({
            "cordonSettleSeconds": 1, "emptySettleSeconds": 3, "instanceDeletesPerSecond": DELETES_PER_SECOND,
        });
        json_patch::merge(&mut pool["spec"]["drain"], &drain);
        self.s.apply(&pool).await
    }

    /// Runs three pods on the node.
    async fn fill(&self, ordinal: u32) -> Result<()> {
        let node = self.node(ordinal);
        let pods = manifests::deployment(self.s.namespace(), &node, 3);
        self.s.apply(&manifests::on_node(pods, &node)).await?;
        self.s.pods_running(&format!("app={node}"), 3, SOON).await?;
        Ok(())
    }

    async fn crash(&self, ordinal: u32, down: Duration) -> Result<()> {
        let node = self.node(ordinal);
        self.s
            .cloud()
            .configure_node(&node, |knobs| knobs.restart_delay = down);
        self.s.cloud().crash_provider(&node);
        eventually("it is down", SOON, async || {
            let pod = get(self.s, &format!("pod {node} --namespace kube-system")).await?;
            let ready = condition(&pod, "Ready").context("no condition Ready")?;
            ensure!(ready["status"] == "False", "{ready}");
            Ok(())
        })
        .await
    }

    /// Waits until the StatefulSet is told to be stuck by something that says `why`.
    async fn stuck(&self, why: &str) -> Result<()> {
        eventually("it is told to be stuck", SOON, async || {
            let pool = get(self.s, &format!("virtualnodepool {}", self.pool)).await?;
            let drain = &pool["status"]["drain"];
            let told = |b: &Value| {
                b["reason"] == "StatefulSetStuck"
                    && b["object"] == self.provider.as_str()
                    && b["message"].as_str().is_some_and(|m| m.contains(why))
            };
            let blockers = drain["blockers"].as_array();
            ensure!(
                blockers.is_some_and(|b| b.iter().any(told)),
                "status.drain is {drain}"
            );
            Ok(())
        })
        .await
    }

    /// Waits until the StatefulSet has this count and the ordinal no Node; no instance was left when it was lowered.
    async fn lost(&self, ordinal: u32, replicas: u32) -> Result<()> {
        let node = self.node(ordinal);
        eventually(&format!("{node} is gone"), SOON, async || {
            let workload = self.workload().await?;
            ensure!(
                workload["spec"]["replicas"] == replicas,
                "{}",
                workload["spec"]["replicas"]
            );
            let names = self.s.nodes().await?.into_iter().filter_map(|n| n.metadata.name);
            ensure!(names.into_iter().all(|n| n != node), "its Node is there");
            Ok(())
        })
        .await?;
        let changes = self
            .s
            .audit_log()
            .replicas_changes("kube-system", &self.provider)?;
        let lowered = changes
            .into_iter()
            .rfind(|c| c.user == OPERATOR && c.to == i64::from(replicas));
        let lowered = lowered.context("the operator did not lower it")?;
        let alive = self.s.ledger().living_on_at(&node, lowered.received);
        ensure!(alive == 0, "{alive} instances of {node} lived at {lowered:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_lower_ordinal_holds_one_that_goes_and_is_named() -> Result<()> {
    const DOWN: Duration = Duration::from_secs(20);
    Scenario::run("in-order", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        let set = Adopted::new(s, "a", 3, json!({"podManagementPolicy": "OrderedReady"})).await?;
        set.fill(2).await?;

        // Its provider would not come back from the restart that removes forgotten instances.
        set.crash(0, DOWN).await?;
        let provider = set.provider_uid(2).await?;
        set.resize(2, json!({})).await?;
        set.stuck(&format!("{} is not Ready", set.node(0))).await?;
        always("its provider is kept", Duration::from_secs(3), async || {
            ensure!(
                set.provider_uid(2).await? == provider,
                "the provider was restarted"
            );
            ensure!(
                set.workload().await?["spec"]["replicas"] == 3,
                "the count was lowered"
            );
            Ok(())
        })
        .await?;
        set.lost(2, 2).await?;

        // The count is lowered, and the StatefulSet controller waits. Nothing is reaped, so nothing may be forgotten.
        s.cloud().configure(|knobs| knobs.forget = 0.0);
        set.fill(1).await?;
        set.crash(0, DOWN).await?;
        set.resize(1, json!({"reap": "None"})).await?;
        set.stuck(&format!("{} is not Ready, so the provider pod", set.node(0)))
            .await?;
        ensure!(
            set.workload().await?["spec"]["replicas"] == 1,
            "the count was not lowered"
        );
        let there = s.nodes().await?.len();
        ensure!(there == 2, "{there} nodes while a provider runs");
        set.lost(1, 1).await?;
        let name = set.node(1);
        let removed = |e: &&AuditEvent, user: &str, resource: &str| {
            e.user == user
                && e.verb == "delete"
                && e.is(resource, None)
                && e.name.as_deref() == Some(&name)
                && e.is_success()
        };
        let events = s.audit_log().events()?;
        let provider = events.iter().rfind(|e| removed(e, SIMULATION_USER, "pods"));
        let node = events.iter().rfind(|e| removed(e, OPERATOR, "nodes"));
        let (provider, node) = provider.zip(node).context("provider or Node was never deleted")?;
        ensure!(
            node.received >= provider.received,
            "the Node went first: {node} {provider}"
        );
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_stateful_set_loses_its_highest_node() -> Result<()> {
    Scenario::run("kinds", async |s| {
        misbehave(s);
        s.start_operator(&OperatorOptions::default()).await?;
        let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
        let lose = async |variant: &str, spec: Value, lowest: u32, newer: bool| -> Result<()> {
            let set = Adopted::new(s, variant, 2, spec).await?;
            set.fill(lowest + 1).await?;
            if newer {
                // Written by a person, and not to be rolled out by anybody.
                let image = "registry.cn-hangzhou.aliyuncs.com/acs/virtual-nodes-eci:v1.0.0.3-aliyun";
                s.kubectl(&format!(
                    "set image statefulset/{} --namespace kube-system provider={image}",
                    set.provider
                ))
                .await?;
            }
            let stays = set.provider_uid(lowest).await?;
            let before = set.workload().await?["spec"].clone();
            set.resize(1, json!({})).await?;
            set.lost(lowest + 1, 1).await?;
            ensure!(
                set.provider_uid(lowest).await? == stays,
                "the provider that stays was restarted"
            );
            let mut after = set.workload().await?["spec"].clone();
            after["replicas"] = json!(2);
            ensure!(after == before, "more than the count changed: {before} {after}");
            Ok(())
        };
        let from_three = lose("from-three", json!({"ordinals": {"start": 3}}), 3, false);
        let on_delete = lose(
            "on-delete",
            json!({"updateStrategy": {"type": "OnDelete"}}),
            0,
            true,
        );
        let in_parts = lose("in-parts", json!({"updateStrategy": partition}), 0, true);
        let slow = json!({"minReadySeconds": 6, "podManagementPolicy": "OrderedReady"});
        let slow = lose("slow", slow, 0, false);
        let (from_three, on_delete, in_parts, slow) = tokio::join!(from_three, on_delete, in_parts, slow);
        from_three.context("ordinals.start 3")?;
        on_delete.context("OnDelete")?;
        in_parts.context("partition 2")?;
        slow.context("minReadySeconds 6")?;
        s.no_leak_within(SOON).await
    })
    .await
}
