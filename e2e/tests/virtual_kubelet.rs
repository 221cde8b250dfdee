//! The real virtual-kubelet as provider, and the proof that the simulated one does the same things in the same order.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use vnp_e2e::cloud::LedgerEventKind;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};
use vnp_e2e::simulation::SIMULATION_USER;
use vnp_e2e::{EnvironmentOptions, Providers};

const SOON: Duration = Duration::from_secs(30);
const VIRTUAL_KUBELET_USER: &str = "system:serviceaccount:kube-system:virtual-node-eci";
/// virtual-kubelet keeps the Pod object for the grace period, although the mock's pods end at once. One worker tells the
/// end and another one deletes the object after the grace period, so this is also how long a machine may stall before
/// the two come in any order.
const GRACE_SECONDS: u64 = 10;

/// What a provider does for its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeStep {
    Registered,
    LeaseCreated,
}

/// What a provider does for one pod, from being bound to being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodStep {
    InstanceCreated,
    Reported(Phase),
    InstanceDeleted,
    ObjectDeleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Succeeded,
}

#[derive(Debug, PartialEq, Eq)]
struct Story {
    node: Vec<NodeStep>,
    pod: Vec<PodStep>,
}

/// Two nodes with pods, then the shrink to one by the book: cordon and drain, scale, delete the Node.
async fn shrink(s: &Scenario<'_>) -> Result<Vec<Pod>> {
    s.apply(&manifests::provider(&s.provider(), 2)).await?;
    s.nodes_ready(2, SOON).await?;
    let mut deployment = manifests::deployment(s.namespace(), "web", 10);
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(GRACE_SECONDS);
    // All of them on the node that goes: which one the scheduler would take depends on which it has seen.
    s.kubectl(&format!("cordon {}", s.node(0))).await?;
    s.apply(&deployment).await?;
    s.pods_running("app=web", 10, SOON).await?;
    s.kubectl(&format!("uncordon {}", s.node(0))).await?;
    let drained = s.pods_on(1).await?;
    ensure!(!drained.is_empty(), "the scheduler put nothing on {}", s.node(1));

    s.kubectl(&format!("drain {} --timeout 60s", s.node(1))).await?;
    let running = s.pods_running("app=web", 10, SOON).await?;
    let node_of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    ensure!(
        running.iter().all(|pod| node_of(pod) == Some(s.node(0))),
        "not all pods have moved to {}",
        s.node(0)
    );

    s.kubectl(&format!(
        "scale statefulset {} --namespace kube-system --replicas 1",
        s.provider()
    ))
    .await?;
    eventually("the provider has stopped", SOON, async || {
        ensure!(!s.cloud().running_providers().contains(&s.node(1)));
        Ok(())
    })
    .await?;
    ensure!(
        s.nodes().await?.len() == 2,
        "a provider that stops leaves its Node"
    );
    s.kubectl(&format!("delete node {}", s.node(1))).await?;
    always("the Node stays gone", Duration::from_secs(3), async || {
        let nodes = s.nodes().await?.len();
        ensure!(nodes == 1, "there are {nodes} nodes");
        Ok(())
    })
    .await?;
    s.pods_running("app=web", 10, SOON).await?;
    Ok(drained)
}

/// The provider's own writes about the node that went, by the audit log.
fn node_story(s: &Scenario<'_>, user: &str) -> Result<Vec<NodeStep>> {
    let mut events = s.audit_log().writes_by(user, s.began())?;
    events.retain(|event| event.is_success() && event.name.as_ref() == Some(&s.node(1)));
    events.sort_by_key(|event| event.answered);
    let step = |resource: &str| match resource {
        "nodes" => Some(NodeStep::Registered),
        "leases" => Some(NodeStep::LeaseCreated),
        _ => None,
    };
    Ok(events
        .iter()
        .filter(|event| event.verb == "create")
        .filter_map(|event| step(&event.resource))
        .collect())
}

/// The real provider tells its story in its log; the times there are whole seconds, the order of the lines is exact.
fn real_pod_story(s: &Scenario<'_>, pod: &Pod) -> Result<Vec<PodStep>> {
    let log = s
        .environment()
        .control_plane()
        .folder()
        .join(format!("{}.log", s.node(1)));
    let log = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    let key = format!("key={}/{}", s.namespace(), pod.name_any());
    let told = [
        ("receive CreatePod", PodStep::InstanceCreated),
        ("new phase=Running", PodStep::Reported(Phase::Running)),
        ("receive DeletePod", PodStep::InstanceDeleted),
        ("new phase=Succeeded", PodStep::Reported(Phase::Succeeded)),
    ];
    let step = |line: &str| {
        told.iter()
            .find(|(text, _)| line.contains(text))
            .map(|(_, step)| *step)
    };
    let mut story: Vec<PodStep> = log
        .lines()
        .filter(|line| line.contains(&key))
        .filter_map(step)
        .collect();
    // It repeats what the API server knows already.
    story.dedup();
    // Its workers write their log side by side; what reached the API server first is in the audit log.
    let object = format!("{}/{}", s.namespace(), pod.name_any());
    let writes = s.audit_log().writes_by(VIRTUAL_KUBELET_USER, s.began())?;
    let about = || writes.iter().filter(|e| e.object() == object && e.is_success());
    let deleted = about().find(|e| e.verb == "delete");
    let told = about().rfind(|e| e.is("pods", Some("status")));
    match (deleted, told) {
        (Some(deleted), Some(told)) if told.received > deleted.received => {
            story.insert(story.len().saturating_sub(1), PodStep::ObjectDeleted);
        }
        (Some(_), _) => story.push(PodStep::ObjectDeleted),
        (None, _) => {}
    }
    Ok(story)
}

/// The simulated one's story is in the ledger and in the audit log.
fn simulated_pod_story(s: &Scenario<'_>, pod: &Pod) -> Result<Vec<PodStep>> {
    let instances = s
        .ledger()
        .history()
        .into_iter()
        .filter(|event| Some(&event.pod.uid) == pod.uid().as_ref());
    let mut story: Vec<(Timestamp, PodStep)> = instances
        .map(|event| {
            let step = match event.kind {
                LedgerEventKind::Created => PodStep::InstanceCreated,
                LedgerEventKind::Deleted => PodStep::InstanceDeleted,
            };
            (event.mark.time, step)
        })
        .collect();
    let object = format!("{}/{}", s.namespace(), pod.name_any());
    for event in s.audit_log().writes_by(SIMULATION_USER, s.began())? {
        if event.object() != object || !event.is_success() {
            continue;
        }
        let phase = event
            .request
            .as_ref()
            .and_then(|body| body.pointer("/status/phase")?.as_str());
        let step = match (event.verb.as_str(), phase) {
            ("delete", _) => PodStep::ObjectDeleted,
            (_, Some("Running")) => PodStep::Reported(Phase::Running),
            (_, Some("Succeeded")) => PodStep::Reported(Phase::Succeeded),
            _ => continue,
        };
        story.push((event.received, step));
    }
    story.sort_by_key(|(time, _)| *time);
    Ok(story.into_iter().map(|(_, step)| step).collect())
}

/// The drain's evictions are answered before the provider ends anything, and its deletions name the pod's UID.
fn deletions_follow_evictions(s: &Scenario<'_>, user: &str, pods: &[Pod]) -> Result<()> {
    let evictions = s.audit_log().evictions()?;
    let writes = s.audit_log().writes_by(user, s.began())?;
    for pod in pods {
        let object = format!("{}/{}", s.namespace(), pod.name_any());
        let eviction = evictions
            .iter()
            .find(|eviction| eviction.pod == object && eviction.code == 201);
        let eviction = eviction.with_context(|| format!("{object} was not evicted"))?;
        let mut deletions = writes
            .iter()
            .filter(|event| event.verb == "delete" && event.object() == object);
        let deletion = deletions
            .next()
            .with_context(|| format!("{user} did not delete {object}"))?;
        assert!(
            deletion.received > eviction.received,
            "{deletion} came before the eviction"
        );
        let options = deletion.request.as_ref().context("a deletion without options")?;
        assert_eq!(options["gracePeriodSeconds"], 0);
        assert_eq!(
            options["preconditions"]["uid"].as_str().map(str::to_owned),
            pod.uid()
        );
    }
    Ok(())
}

async fn real() -> Result<Story> {
    let options = EnvironmentOptions {
        providers: Providers::VirtualKubelet,
        ..EnvironmentOptions::default()
    };
    let mut told = None;
    Scenario::run_alone("real", options, async |s| {
        let drained = shrink(s).await?;
        deletions_follow_evictions(s, VIRTUAL_KUBELET_USER, &drained)?;
        told = Some(tell(s, VIRTUAL_KUBELET_USER, &drained, real_pod_story)?);
        Ok(())
    })
    .await?;
    told.context("no story")
}

async fn simulated() -> Result<Story> {
    let mut told = None;
    Scenario::run("simulated", async |s| {
        s.cloud()
            .configure(|knobs| knobs.deletion_lag = Duration::from_secs(GRACE_SECONDS));
        let drained = shrink(s).await?;
        deletions_follow_evictions(s, SIMULATION_USER, &drained)?;
        told = Some(tell(s, SIMULATION_USER, &drained, simulated_pod_story)?);
        s.no_leak_within(Duration::from_secs(1)).await
    })
    .await?;
    told.context("no story")
}

/// All pods must have the same story, which is then the provider's.
fn tell(
    s: &Scenario<'_>,
    user: &str,
    pods: &[Pod],
    pod_story: impl Fn(&Scenario<'_>, &Pod) -> Result<Vec<PodStep>>,
) -> Result<Story> {
    let stories = pods
        .iter()
        .map(|pod| pod_story(s, pod))
        .collect::<Result<Vec<_>>>()?;
    let pod = stories.first().context("no pod was drained")?.clone();
    ensure!(
        stories.iter().all(|story| *story == pod),
        "the pods' stories differ: {stories:?}"
    );
    Ok(Story {
        node: node_story(s, user)?,
        pod,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_provider_does_what_the_real_one_does_in_the_same_order() -> Result<()> {
    let real = real().await?;
    let steps = [
        PodStep::InstanceCreated,
        PodStep::Reported(Phase::Running),
        PodStep::InstanceDeleted,
        PodStep::Reported(Phase::Succeeded),
        PodStep::ObjectDeleted,
    ];
    assert_eq!(
        real,
        Story {
            node: vec![NodeStep::Registered, NodeStep::LeaseCreated],
            pod: steps.into()
        }
    );
    assert_eq!(simulated().await?, real);
    Ok(())
}
