//! Everybody else who writes to the cluster. Each antagonist joins a pool's life: the promises hold, writes stay few, what is
//! in the way is said, and all goes on by itself when the antagonist goes. The proofs have the same ones under the same
//! names.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use vnp_e2e::antagonists::{ANTAGONISTS, Antagonist, SECOND_INSTALLATION, Whom};
use vnp_e2e::cloud::{DeletionOrder, ProviderKnobs};
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, manifests};
use vnp_e2e::simulation::FIRST_HOST;

use crate::fixture::{condition, tell};
use crate::promises::{Times, Trail, messages};

/// Writes of the operator for one pool in any minute, refused ones included, as in the proofs.
const WRITES_PER_MINUTE: usize = 150;
/// How long a part of a life lasts when an antagonist prevents what the part is about and that was said.
const PART: Duration = Duration::from_secs(8);
/// How long it lasts at most.
const LONG_PART: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(240);
/// A dozen lives ask at the same time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const PODS: u32 = 4;

/// A pool's life.
struct Life<'s, 'e> {
    s: &'s Scenario<'e>,
    whom: Whom,
    antagonist: Antagonist,
}

/// When the pool was changed, and when the antagonist left.
struct Lived {
    times: Times,
    left: Timestamp,
}

impl Life<'_, '_> {
    /// A pool shrinks, grows again, loses a provider and is deleted, all beside the antagonist.
    async fn live(&self) -> Result<Lived> {
        self.begin().await?;
        let mut at_work = Some(
            self.antagonist
                .join(self.s.environment(), self.whom.clone())
                .await?,
        );
        let mut left = Timestamp::MAX;
        let mut leave = async || -> Result<()> {
            if let Some(at_work) = at_work.take() {
                let acted = at_work.acted();
                let operator = self.antagonist.name == SECOND_INSTALLATION.name;
                ensure!(acted > 0 || operator, "it found nothing to do");
                left = Timestamp::now();
                at_work.leave().await?;
            }
            Ok(())
        };

        self.resize(1).await?;
        self.for_a_while(async || self.has_nodes(1).await).await?;
        self.resize(2).await?;
        let raised = Timestamp::now();
        self.eventually("its cordon is undone", async || self.is_wanted(1).await)
            .await?;
        self.for_a_while(async || self.has_nodes(2).await).await?;
        if self.antagonist.name == SECOND_INSTALLATION.name {
            // A cordon that it left behind would hold the drain for two minutes.
            leave().await?;
        }
        let down = self.node(0);
        self.s
            .cloud()
            .configure_node(&down, |knobs| knobs.restart_delay = Duration::from_secs(8));
        self.s.cloud().crash_provider(&down);
        let deleted = Timestamp::now();
        self.pools()
            .delete(&self.whom.pool, &DeleteParams::default())
            .await?;
        self.for_a_while(async || self.is_gone().await).await?;
        leave().await?;
        self.eventually("nobody is in the way", async || self.is_gone().await)
            .await?;
        Ok(Lived {
            times: Times { raised, deleted },
            left,
        })
    }

    /// What it came to.
    fn judge(&self, trail: &Trail<'_>, lived: &Lived) -> Result<()> {
        let (writes, kinds) = trail.busiest_minute(&self.whom);
        tell(&format!("{:?}: {writes} writes in a minute", self.antagonist));
        ensure!(
            writes <= WRITES_PER_MINUTE,
            "{writes} writes in a minute: {kinds:?}"
        );
        let (said, evidence) = (trail.said(&self.whom, lived.left), self.antagonist.evidence);
        ensure!(
            said.iter().any(|words| words.contains(evidence)),
            "nothing says {evidence:?}: {said:#?}"
        );
        trail.nothing_leaked(&self.whom)?;
        trail.no_budget_was_passed(&self.whom, lived.times)?;
        trail.the_raise_ended_the_drain(&self.whom, lived.times)
    }

    fn node(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.whom.provider)
    }

    fn pool(&self, replicas: u32) -> Value {
        manifests::pool(&self.whom.pool, &self.whom.provider, replicas)
    }

    async fn resize(&self, replicas: u32) -> Result<()> {
        let pool = self.pool(replicas);
        self.pools()
            .patch(&self.whom.pool, &applying(), &Patch::Apply(pool))
            .await?;
        Ok(())
    }

    fn pools(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("virtualnodes.dev", "v1alpha1", "VirtualNodePool");
        Api::all_with(self.s.client(), &ApiResource::from_gvk(&kind))
    }

    /// Two nodes with pods under a budget. They may go to the ordinary node and would rather not.
    async fn begin(&self) -> Result<()> {
        let Whom { pool, namespace, .. } = &self.whom;
        self.resize(2).await?;
        self.eventually("its nodes are there", async || self.has_nodes(2).await)
            .await?;
        let mut web = manifests::deployment(namespace, pool, PODS);
        let on = |nodes: &[String]| json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]});
        let own = [self.node(0), self.node(1)];
        let any = [&own[..], &[FIRST_HOST.to_owned()]].concat();
        let spec = &mut web["spec"]["template"]["spec"];
        spec["nodeSelector"] = Value::Null;
        spec["terminationGracePeriodSeconds"] = json!(1);
        spec["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [on(&any)]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": on(&own)}],
        }});
        let deployments: Api<Deployment> = Api::namespaced(self.s.client(), namespace);
        deployments.patch(pool, &applying(), &Patch::Apply(web)).await?;
        let budget = manifests::budget(namespace, pool, pool, 2);
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.s.client(), namespace);
        budgets.patch(pool, &applying(), &Patch::Apply(budget)).await?;
        self.s
            .pods_running(&format!("app={pool}"), PODS as usize, SOON)
            .await?;
        ensure!(self.pods_on(1).await? > 0, "its second node is empty");
        Ok(())
    }

    async fn pods_on(&self, ordinal: usize) -> Result<usize> {
        let bound = ListParams::default().fields(&format!("spec.nodeName={}", self.node(ordinal)));
        let pods: Api<Pod> = Api::namespaced(self.s.client(), &self.whom.namespace);
        Ok(pods.list(&bound).await?.items.len())
    }

    async fn object(&self) -> Result<Option<Value>> {
        Ok(self
            .pools()
            .get_opt(&self.whom.pool)
            .await?
            .map(|pool| json!(pool)))
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        let mut nodes = self.s.nodes().await?;
        let prefix = format!("{}-", self.whom.provider);
        nodes.retain(|node| node.name_any().starts_with(&prefix));
        Ok(nodes)
    }

    /// It is Ready with so many.
    async fn has_nodes(&self, count: usize) -> Result<()> {
        let pool = self.object().await?.context("the pool is gone")?;
        let ready = condition(&pool, "Ready").context("no condition Ready")?;
        let status = &pool["status"];
        ensure!(
            ready["status"] == "True"
                && status["observedGeneration"] == pool["metadata"]["generation"]
                && status["nodes"] == count,
            "{status}"
        );
        Ok(())
    }

    /// The operator does not cordon the node, unless it is past that.
    async fn is_wanted(&self, ordinal: usize) -> Result<()> {
        let name = self.node(ordinal);
        let nodes = self.nodes().await?;
        let Some(node) = nodes.iter().find(|node| node.name_any() == name) else {
            return Ok(());
        };
        let ours = node.managed_fields().iter().any(|entry| {
            let fields = entry.fields_v1.as_ref().map(|f| f.0.to_string());
            entry.manager.as_deref() == Some("virtualnodepool-cordon")
                && fields.is_some_and(|f| f.contains("f:unschedulable"))
        });
        ensure!(
            !ours || node.metadata.deletion_timestamp.is_some(),
            "{name} is cordoned"
        );
        Ok(())
    }

    async fn is_gone(&self) -> Result<()> {
        if let Some(pool) = self.object().await? {
            bail!("it is there: {}", pool["status"]);
        }
        let sets: Api<StatefulSet> = Api::namespaced(self.s.client(), "kube-system");
        ensure!(
            sets.get_opt(&self.whom.provider).await?.is_none(),
            "its workload is there"
        );
        let nodes = self.nodes().await?.len();
        ensure!(nodes == 0, "{nodes} nodes are there");
        Ok(())
    }

    async fn eventually(&self, what: &str, mut hoped: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = hoped().await {
            if begun.elapsed() > SOON {
                return Err(error).with_context(|| format!("waited {SOON:?} until {what}"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits for what the antagonist may prevent, until that was said.
    async fn for_a_while(&self, mut hoped: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let evidence = self.antagonist.evidence;
        let mut said = false;
        while hoped().await.is_err() {
            let pool = self.object().await?.unwrap_or_default();
            let messages = messages(&pool);
            said |= !evidence.is_empty() && messages.iter().any(|m| m.contains(evidence));
            if begun.elapsed() > if said { PART } else { LONG_PART } {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

fn applying() -> PatchParams {
    PatchParams::apply("user").force()
}

/// Runs a life beside each of them, all at the same time.
async fn together(name: &str, antagonists: impl Iterator<Item = Antagonist>) -> Result<()> {
    Scenario::run(name, async |s| {
        s.cloud().configure(|knobs| {
            *knobs = ProviderKnobs {
                deletion_order: DeletionOrder::ObjectFirst,
                forget: 0.1,
                heartbeat_interval: Duration::from_secs(2),
                ..ProviderKnobs::default()
            };
        });
        s.start_operator(&OperatorOptions::default()).await?;
        let lives = antagonists.enumerate().map(|(number, antagonist)| Life {
            s,
            antagonist,
            whom: Whom {
                pool: format!("{}-{number}", s.name()),
                provider: format!("{}-{number}", s.provider()),
                namespace: s.namespace().to_owned(),
            },
        });
        let lives: Vec<Life<'_, '_>> = lives.collect();
        let lived = join_all(lives.iter().map(async |life| {
            let begun = Instant::now();
            let lived = life.live().await;
            tell(&format!("{:?}: {:.0?}", life.antagonist, begun.elapsed()));
            lived
        }))
        .await;
        let trail = Trail::read(s)?;
        let mut failed = Vec::new();
        for (life, lived) in lives.iter().zip(lived) {
            let outcome = lived.and_then(|lived| life.judge(&trail, &lived));
            failed.extend(
                outcome
                    .err()
                    .map(|e| format!("{}, {:?}: {e:#}", life.whom.pool, life.antagonist)),
            );
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_lives_with_one_half_of_them() -> Result<()> {
    together("one-half", ANTAGONISTS.into_iter().step_by(2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_lives_with_the_other_half_of_them() -> Result<()> {
    together("other-half", ANTAGONISTS.into_iter().skip(1).step_by(2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_lives_with_a_second_installation() -> Result<()> {
    together("twice", [SECOND_INSTALLATION].into_iter()).await
}
