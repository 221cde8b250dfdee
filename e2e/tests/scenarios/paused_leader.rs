//! A leader is paused past its lease with a write on its way, another one takes over and changes the world, and then the
//! write arrives. One kind of write after the other: what gets through must do no harm.
//!
//! Each leader has a gate of its own, so the audit log tells whose write it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_e2e::audit::{AuditEvent, OPERATOR};
use vnp_e2e::call_gate::{Call, CallGate, Fate};
use vnp_e2e::operator::Operator;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{
    counts, emptied_before_shrink, fill, get, get_pool, get_workload, in_phase, misbehave, pool, quick_lease,
    ready, resize, shrunk, start_pool, tell,
};

/// Within this, whatever a leader has to notice is noticed, also on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Evictions that are on their way at a rate of 20 per second.
const EVICTIONS_IN_FLIGHT: usize = 10;

/// One operator and the gate that it goes through.
struct Leader {
    operator: Operator,
    gate: CallGate,
}

impl Leader {
    async fn start(s: &Scenario<'_>) -> Result<Self> {
        let gate = CallGate::open(s.environment().install_operator().await?).await?;
        let name = gate.user_agent().replace('/', "-");
        let folder = s.environment().control_plane().folder();
        let path = gate.write_kubeconfig(folder.join(format!("{name}.kubeconfig")))?;
        let mut options = quick_lease();
        options
            .env
            .push(("KUBECONFIG".to_owned(), path.display().to_string()));
        let operator = s.spawn_operator(&options).await?;
        Ok(Self { operator, gate })
    }
}

/// The leader of now; each that was paused hands over to the next.
struct Relay<'s, 'e> {
    s: &'s Scenario<'e>,
    leader: Leader,
}

impl<'s, 'e> Relay<'s, 'e> {
    async fn begin(s: &'s Scenario<'e>) -> Result<Self> {
        let leader = Leader::start(s).await?;
        Ok(Self { s, leader })
    }

    /// Pauses the leader with the first write that `pick` picks on its way, makes a `change`, lets another one take over
    /// and act on it `meanwhile`, then lets the write arrive and the leader go on. Returns what the API server said to the
    /// write.
    ///
    /// # Errors
    /// When anything else of the paused leader arrives as well, or it does not end. A task has one write on its way; only
    /// evictions and forced deletions go side by side.
    async fn pause_at(
        &mut self,
        kind: &str,
        pick: impl Fn(&Call) -> bool + Send + 'static,
        provoke: impl AsyncFnOnce() -> Result<()>,
        change: impl AsyncFnOnce() -> Result<()>,
        meanwhile: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<AuditEvent> {
        let next = Leader::start(self.s).await?;
        let mut held = self.leader.gate.trap(Fate::Held, pick);
        provoke().await.with_context(|| format!("provoke a {kind}"))?;
        let caught = tokio::time::timeout(SOON, held.wait()).await;
        caught.with_context(|| format!("there was no {kind}"))??;
        self.leader.operator.pause()?;
        let terms = terms(self.s).await?;
        change().await?;
        eventually("another one leads", SOON, async || {
            ensure!(self::terms(self.s).await? > terms, "not yet");
            Ok(())
        })
        .await?;
        meanwhile()
            .await
            .with_context(|| format!("while a {kind} was on its way"))?;

        let since = Timestamp::now();
        held.let_go();
        let user_agent = self.leader.gate.user_agent();
        let late = || late(self.s, &user_agent, since);
        eventually(&format!("the {kind} has arrived"), SOON, async || {
            ensure!(!late()?.is_empty(), "not yet");
            Ok(())
        })
        .await?;
        let mut paused = std::mem::replace(&mut self.leader, next);
        paused.operator.resume()?;
        let code = paused.operator.ended().await?;
        ensure!(
            !code.success(),
            "it lost its lease with a {kind} on its way and ended with {code}"
        );
        let mut late = late()?;
        let arrived = late.remove(0);
        let moves = late.iter().all(moves_a_pod) && moves_a_pod(&arrived);
        ensure!(
            late.is_empty() || moves && late.len() < EVICTIONS_IN_FLIGHT,
            "more than the {kind} arrived: {late:#?}"
        );
        tell(&format!("{kind}: answered {}", arrived.code));
        Ok(arrived)
    }
}

/// How often the leader has changed.
async fn terms(s: &Scenario<'_>) -> Result<u64> {
    let lease = get(
        s,
        "lease virtualnodepool-operator --namespace virtualnodepool-system",
    )
    .await?;
    Ok(lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default())
}

/// What came through that gate since then, the lease apart: it belongs to the other one.
fn late(s: &Scenario<'_>, user_agent: &str, since: Timestamp) -> Result<Vec<AuditEvent>> {
    let mut writes = s.audit_log().writes_by(OPERATOR, since)?;
    writes.retain(|e| e.user_agent == user_agent && e.resource != "leases");
    Ok(writes)
}

/// An eviction, or past the deadline a deletion, of a user's pod.
fn moves_a_pod(event: &AuditEvent) -> bool {
    let of_user = event.namespace.as_deref() != Some("kube-system");
    event.is("pods", Some("eviction")) || event.is("pods", None) && event.verb == "delete" && of_user
}

fn to(call: &Call, method: &str, part: &str) -> bool {
    call.method.as_str() == method && call.path.contains(part)
}

fn cordon(call: &Call) -> bool {
    to(call, "PATCH", "/nodes/") && call.body.contains("unschedulable")
}

fn label(call: &Call) -> bool {
    to(call, "PATCH", "/nodes/") && call.body.contains("\"labels\"")
}

fn uncordon(call: &Call) -> bool {
    to(call, "PATCH", "/nodes/") && !cordon(call) && !label(call)
}

fn eviction(call: &Call) -> bool {
    to(call, "POST", "/eviction")
}

fn forced(call: &Call) -> bool {
    to(call, "DELETE", "/pods/") && !reap(call)
}

fn reap(call: &Call) -> bool {
    to(call, "DELETE", "/namespaces/kube-system/pods/")
}

fn node_deletion(call: &Call) -> bool {
    to(call, "DELETE", "/nodes/")
}

fn status(call: &Call) -> bool {
    to(call, "PATCH", "/virtualnodepools/") && call.path.ends_with("/status")
}

fn event(call: &Call) -> bool {
    to(call, "POST", "/events")
}

fn profile(call: &Call) -> bool {
    to(call, "PATCH", "/configmaps/eci-profile")
}

fn workload(call: &Call, what: &[&str], but: &[&str]) -> bool {
    to(call, "PATCH", "/statefulsets/")
        && what.iter().all(|word| call.body.contains(word))
        && !but.iter().any(|word| call.body.contains(word))
}

fn fence(call: &Call) -> bool {
    workload(call, &["virtualnodes.dev~1shrinking", "\"add\""], &[])
}

fn shrink(call: &Call) -> bool {
    workload(call, &["virtualnodes.dev~1shrinking", "\"/spec/replicas\""], &[])
}

fn scale_up(call: &Call) -> bool {
    workload(call, &["\"/spec/replicas\""], &["shrinking"])
}

fn roll_step(call: &Call) -> bool {
    workload(call, &["/partition\""], &["\"template\""])
}

/// No node is cordoned, there is no fence, and there are so many nodes.
async fn at_rest(s: &Scenario<'_>, replicas: u32) -> Result<()> {
    eventually("nothing of a drain is left", SOON, async || {
        let workload = get_workload(s).await?;
        let fence = &workload["metadata"]["annotations"]["virtualnodes.dev/shrinking"];
        ensure!(fence.is_null(), "the fence stands: {fence}");
        ensure!(
            workload["spec"]["replicas"] == replicas,
            "replicas is {}",
            workload["spec"]["replicas"]
        );
        let nodes = s.nodes().await?;
        ensure!(nodes.len() == replicas as usize, "{} nodes", nodes.len());
        let cordoned = nodes
            .iter()
            .filter(|n| n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)))
            .count();
        ensure!(cordoned == 0, "{cordoned} nodes are cordoned");
        Ok(())
    })
    .await?;
    ready(s, SOON).await
}

/// UIDs and instances of the pods labelled `app=<app>`: what a write that does no harm leaves alone.
async fn running(s: &Scenario<'_>, app: &str) -> Result<Vec<(String, String)>> {
    let pods = s.pods_running(&format!("app={app}"), 3, SOON).await?;
    let mut running: Vec<(String, String)> = pods
        .into_iter()
        .map(|pod| {
            let uid = pod.metadata.uid.unwrap_or_default();
            let living = s.ledger().living_for(&uid);
            (uid, living.iter().map(|i| i.id.to_string()).collect())
        })
        .collect();
    running.sort();
    Ok(running)
}

/// The next leader has given the drain up, and pods come to the node again.
async fn taken_back(s: &Scenario<'_>, app: &str) -> Result<Vec<(String, String)>> {
    at_rest(s, 2).await?;
    fill(s, 1, 2, app, 3).await?;
    running(s, app).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_a_drain_that_was_taken_back_comes_too_late_to_harm() -> Result<()> {
    Scenario::run("late-drain", async |s| {
        misbehave(s);
        let mut relay = Relay::begin(s).await?;
        start_pool(s, 2).await?;
        let lower = async || resize(s, 1).await;
        let raise = async || resize(s, 2).await;

        // It arrives: the node is wanted, so its cordon is undone.
        fill(s, 1, 2, "a", 3).await?;
        let before = running(s, "a").await?;
        let arrived = relay
            .pause_at("cordon", cordon, lower, raise, async || at_rest(s, 2).await)
            .await?;
        ensure!(arrived.code == 200, "{arrived}");
        at_rest(s, 2).await?;
        ensure!(running(s, "a").await? == before, "a pod was touched");

        // It arrives: one pod of a drain that was wanted until just now moves, by the rules of any eviction.
        let arrived = relay
            .pause_at("eviction", eviction, lower, raise, async || at_rest(s, 2).await)
            .await?;
        ensure!([201, 404].contains(&arrived.code), "{arrived}");
        let meant = arrived
            .request
            .as_ref()
            .and_then(|body| body.pointer("/deleteOptions/preconditions/uid"));
        ensure!(meant.is_some(), "it names no UID: {arrived}");
        running(s, "a").await?;

        // It arrives, past a budget: its time had come and everybody was told. It takes the pod that it means, with a grace.
        // Those that were made since the drain was taken back are not meant.
        s.apply(&manifests::budget(s.namespace(), "f", "f", 0)).await?;
        fill(s, 1, 2, "f", 3).await?;
        let old = running(s, "f").await?;
        let by_force = async || {
            let mut pool = pool(s, 1);
            pool["spec"]["drain"]["onTimeout"] = json!("ForceDelete");
            pool["spec"]["drain"]["timeoutSeconds"] = json!(5);
            s.apply(&pool).await
        };
        let mut new = Vec::new();
        let arrived = relay
            .pause_at("forced deletion", forced, by_force, raise, async || {
                at_rest(s, 2).await?;
                new = running(s, "f").await?;
                new.retain(|pod| !old.contains(pod));
                Ok(())
            })
            .await?;
        ensure!([200, 404].contains(&arrived.code), "{arrived}");
        let options = arrived.request.clone().unwrap_or_default();
        let meant = options["preconditions"]["uid"].as_str();
        ensure!(
            meant.is_some_and(|uid| old.iter().any(|(old, _)| old == uid)),
            "it means no pod of the drain: {arrived}"
        );
        ensure!(
            options["gracePeriodSeconds"].as_i64() > Some(0),
            "it leaves no grace: {arrived}"
        );
        let now = running(s, "f").await?;
        ensure!(
            new.iter().all(|pod| now.contains(pod)),
            "{new:?} was touched: {now:?}"
        );
        s.kubectl(&format!(
            "delete poddisruptionbudget f --namespace {}",
            s.namespace()
        ))
        .await?;

        // It arrives: a provider is started once more, which neither its pods nor their instances notice.
        let provider = async || -> Result<Value> {
            let pod = get(s, &format!("pod {} --namespace kube-system", s.node(1))).await?;
            Ok(pod["metadata"]["uid"].clone())
        };
        let mut before = Vec::new();
        let mut restarted = Value::Null;
        let arrived = relay
            .pause_at("provider pod delete", reap, lower, raise, async || {
                before = taken_back(s, "b").await?;
                restarted = provider().await?;
                Ok(())
            })
            .await?;
        ensure!(arrived.code == 200, "{arrived}");
        eventually("another provider pod runs", SOON, async || {
            ensure!(provider().await? != restarted, "still the same");
            Ok(())
        })
        .await?;
        at_rest(s, 2).await?;
        ensure!(running(s, "b").await? == before, "a pod was touched");

        // It may arrive, and then names a term that is over: the next leader takes it off.
        let arrived = relay
            .pause_at("fence", fence, lower, raise, async || {
                before = taken_back(s, "c").await?;
                Ok(())
            })
            .await?;
        ensure!([200, 422].contains(&arrived.code), "{arrived}");
        at_rest(s, 2).await?;
        ensure!(running(s, "c").await? == before, "a pod was touched");

        // It fails on its fence.
        let arrived = relay
            .pause_at("shrink", shrink, lower, raise, async || {
                before = taken_back(s, "d").await?;
                Ok(())
            })
            .await?;
        ensure!(arrived.code == 422, "{arrived}");
        at_rest(s, 2).await?;
        ensure!(running(s, "d").await? == before, "a pod was touched");
        let lowered = counts(s)?.into_iter().find(|c| c.to < 2 && c.from == Some(2));
        ensure!(lowered.is_none(), "{lowered:?}");

        relay.leader.operator.terminate().await?;
        s.no_leak_within(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_from_before_the_target_moved_comes_too_late_to_harm() -> Result<()> {
    Scenario::run("late-target", async |s| {
        misbehave(s);
        // Node 1 stays after a drain was taken back. What its provider forgot would be found at its next start only.
        s.cloud().configure(|knobs| knobs.forget = 0.0);
        let mut relay = Relay::begin(s).await?;
        start_pool(s, 2).await?;

        // It fails: the next leader has made the cordon its own, and the drain that goes on rests on it.
        fill(s, 1, 2, "a", 3).await?;
        let arrived = relay
            .pause_at(
                "uncordon",
                uncordon,
                async || {
                    resize(s, 1).await?;
                    in_phase(s, &["Settling", "Evicting", "Reaping"], SOON).await?;
                    resize(s, 2).await
                },
                async || {
                    let mut slow = pool(s, 1);
                    slow["spec"]["drain"]["emptySettleSeconds"] = json!(8);
                    s.apply(&slow).await
                },
                async || {
                    in_phase(s, &["Emptying"], SOON).await?;
                    Ok(())
                },
            )
            .await?;
        ensure!(arrived.code == 409, "{arrived}");
        ensure!(
            get(s, &format!("node {}", s.node(1))).await?["spec"]["unschedulable"] == true,
            "it is uncordoned"
        );
        shrunk(s, 1, SOON).await?;
        emptied_before_shrink(s, 2)?;

        // It arrives on a Node that its provider took over again: it registers once more, its pods stay.
        resize(s, 2).await?;
        at_rest(s, 2).await?;
        let mut before = Vec::new();
        let arrived = relay
            .pause_at(
                "node delete",
                node_deletion,
                async || resize(s, 1).await,
                async || resize(s, 2).await,
                async || {
                    before = taken_back(s, "b").await?;
                    Ok(())
                },
            )
            .await?;
        ensure!(arrived.code == 200, "{arrived}");
        s.nodes_ready(2, SOON).await?;
        at_rest(s, 2).await?;
        ensure!(running(s, "b").await? == before, "a pod was touched");

        // It arrives: a node too many, which is drained like any other.
        let arrived = relay
            .pause_at(
                "scale up",
                scale_up,
                async || resize(s, 3).await,
                async || resize(s, 2).await,
                async || at_rest(s, 2).await,
            )
            .await?;
        ensure!(arrived.code == 200, "{arrived}");
        shrunk(s, 2, SOON).await?;
        ensure!(running(s, "b").await? == before, "a pod was touched");

        // It fails: the status is newer by now.
        let arrived = relay
            .pause_at(
                "status",
                status,
                async || resize(s, 1).await,
                async || resize(s, 2).await,
                async || at_rest(s, 2).await,
            )
            .await?;
        ensure!(arrived.code == 409, "{arrived}");
        let told = get_pool(s).await?["status"]["drain"].clone();
        ensure!(told.is_null(), "{told}");

        // It arrives: news of what was true.
        let arrived = relay
            .pause_at(
                "event",
                event,
                async || resize(s, 1).await,
                async || resize(s, 2).await,
                async || at_rest(s, 2).await,
            )
            .await?;
        ensure!([201, 409].contains(&arrived.code), "{arrived}");
        at_rest(s, 2).await?;

        // It fails: the Node that it meant is gone, and the one that came after has its label.
        let node = s.node(1);
        let registered = async || -> Result<Value> { get(s, &format!("node {node}")).await };
        let old = registered().await?["metadata"]["uid"].clone();
        let arrived = relay
            .pause_at(
                "label",
                label,
                async || {
                    s.kubectl(&format!("label node {node} virtualnodes.dev/pool-"))
                        .await?;
                    Ok(())
                },
                async || {
                    s.kubectl(&format!("delete node {node} --wait=false")).await?;
                    Ok(())
                },
                async || {
                    eventually("it registers again and is labelled", SOON, async || {
                        let node = registered().await?;
                        ensure!(node["metadata"]["uid"] != old, "still the old one");
                        let label = &node["metadata"]["labels"]["virtualnodes.dev/pool"];
                        ensure!(label == s.name(), "its label is {label}");
                        Ok(())
                    })
                    .await
                },
            )
            .await?;
        ensure!([409, 422].contains(&arrived.code), "{arrived}");
        at_rest(s, 2).await?;
        running(s, "b").await?;

        relay.leader.operator.terminate().await?;
        s.no_leak_within(SOON).await
    })
    .await
}

/// The pool with this security group, which rolls, and this private zone, which only the profile says.
fn settings(s: &Scenario<'_>, group: &str, private_zone: &str) -> Value {
    let mut pool = pool(s, 2);
    pool["spec"]["network"]["securityGroupId"] = json!(group);
    pool["spec"]["network"]["privateZone"] = json!(private_zone);
    pool
}

/// Template and profile say these values, and all providers run the template.
async fn in_place(s: &Scenario<'_>, group: &str, private_zone: &str) -> Result<()> {
    eventually("template and profile say it", 2 * SOON, async || {
        let workload = get_workload(s).await?;
        let env = workload["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        ensure!(env.contains(&format!("\"{group}\"")), "{env}");
        ensure!(
            workload["status"]["updatedReplicas"] == 2,
            "{}",
            workload["status"]
        );
        let profile = get(s, "configmap eci-profile --namespace kube-system").await?["data"].clone();
        ensure!(profile["securityGroupId"] == group, "{profile}");
        ensure!(profile["enablePrivateZone"] == private_zone, "{profile}");
        Ok(())
    })
    .await?;
    at_rest(s, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_settings_that_changed_since_comes_too_late_to_harm() -> Result<()> {
    Scenario::run("late-change", async |s| {
        misbehave(s);
        let mut relay = Relay::begin(s).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "a", 3).await?;
        let before = running(s, "a").await?;
        let set = async |group: &str, zone: &str| s.apply(&settings(s, group, zone)).await;

        // It fails: somebody wrote the profile since it was read.
        let arrived = relay
            .pause_at(
                "profile patch",
                profile,
                async || set("sg-bp1crrcq8a3", "Enabled").await,
                async || set("sg-one", "Enabled").await,
                async || in_place(s, "sg-one", "true").await,
            )
            .await?;
        ensure!(arrived.code == 409, "{arrived}");
        in_place(s, "sg-one", "true").await?;

        // It may arrive: the template is old, behind a partition that restarts nobody, and is written again.
        let arrived = relay
            .pause_at(
                "template",
                |call| workload(call, &["\"template\"", "sg-two"], &[]),
                async || set("sg-two", "Enabled").await,
                async || set("sg-three", "Enabled").await,
                async || in_place(s, "sg-three", "true").await,
            )
            .await?;
        ensure!([200, 409].contains(&arrived.code), "{arrived}");
        in_place(s, "sg-three", "true").await?;

        // It fails: the roll is over, or further on.
        let arrived = relay
            .pause_at(
                "roll step",
                roll_step,
                async || set("sg-four", "Enabled").await,
                async || Ok(()),
                async || in_place(s, "sg-four", "true").await,
            )
            .await?;
        ensure!([409, 422].contains(&arrived.code), "{arrived}");
        in_place(s, "sg-four", "true").await?;

        ensure!(running(s, "a").await? == before, "a pod was touched");
        relay.leader.operator.terminate().await?;
        s.no_leak_within(SOON).await
    })
    .await
}
