//! `mode: Prefer`: virtual nodes only for what ordinary nodes can't take, decided by the real scheduler.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use vnp_e2e::EnvironmentOptions;
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually};

use crate::fixture::{condition, get_pool, pool, tell};

/// Ordinary nodes, each with 256 CPUs.
const HOSTS: usize = 3;
/// Pods of 8 CPUs that they have room for.
const ROOM: usize = HOSTS * 256 / 8;
/// Of these taken before the burst: 80 %.
const FILLED: usize = ROOM * 4 / 5;
/// More than there is room for, and less than keeps the scheduler busy for long: as long as it is, pods wait for its back-off.
const BURST: usize = 60;
const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/components/overflow");

/// Pods of 8 CPUs for ordinary nodes; with `spill` the pool's rule with `mode: Prefer` selects them.
fn deployment(s: &Scenario<'_>, name: &str, replicas: usize, spill: bool) -> Value {
    let mut labels = json!({"app": name});
    if spill {
        labels["spill"] = json!(s.name());
    }
    let container = json!({"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "8"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": s.namespace()},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels},
                         "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}},
        },
    })
}

/// How many pods of an app are bound to ordinary and to virtual nodes.
async fn places(s: &Scenario<'_>, app: &str) -> Result<(usize, usize)> {
    let pods = s.pods(&format!("app={app}")).await?;
    let nodes = pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.as_deref());
    let (ordinary, others): (Vec<&str>, Vec<&str>) = nodes.partition(|n| n.starts_with("host-"));
    Ok((ordinary.len(), others.len()))
}

async fn placed(s: &Scenario<'_>, app: &str, expected: (usize, usize), within: Duration) -> Result<()> {
    let what = format!("{expected:?} pods of {app} are on ordinary and virtual nodes");
    eventually(&what, within, async || {
        let there = places(s, app).await?;
        ensure!(there == expected, "there are {there:?}");
        Ok(())
    })
    .await
}

/// When each pod was first found unschedulable, let overflow, and bound to which node.
#[derive(Debug, Default)]
struct Course {
    unschedulable: Option<Timestamp>,
    tolerated: Option<Timestamp>,
    bound: Option<Timestamp>,
}

fn courses(s: &Scenario<'_>, prefix: &str) -> Result<BTreeMap<String, Course>> {
    let mut courses: BTreeMap<String, Course> = BTreeMap::new();
    for event in s.audit_log().events()? {
        let ours = event.resource == "pods" && event.namespace.as_deref() == Some(s.namespace());
        let Some(name) = event.name.as_deref().filter(|n| ours && n.starts_with(prefix)) else {
            continue;
        };
        if !event.is_success() {
            continue;
        }
        let course = courses.entry(name.to_owned()).or_default();
        let unschedulable = || {
            event
                .request
                .as_ref()
                .is_some_and(|r| r.to_string().contains("Unschedulable"))
        };
        match event.subresource.as_deref() {
            Some("status") if unschedulable() => {
                course.unschedulable.get_or_insert(event.answered);
            }
            Some("binding") => course.bound = Some(event.answered),
            None if event.user == OPERATOR && event.verb == "patch" => {
                ensure!(course.tolerated.is_none(), "{name} was patched twice");
                course.tolerated = Some(event.answered);
            }
            _ => {}
        }
    }
    Ok(courses)
}

/// The worst and the median of the times from being unschedulable to what `end` says.
fn times(courses: &BTreeMap<String, Course>, end: fn(&Course) -> Option<Timestamp>) -> Result<(f64, f64)> {
    let took = |c: &Course| Some(end(c)?.duration_since(c.unschedulable?).as_secs_f64());
    let mut all: Vec<f64> = courses.values().filter_map(took).collect();
    all.sort_by(f64::total_cmp);
    let worst = all.last().context("nobody overflowed")?;
    Ok((*worst, all[all.len() / 2]))
}

/// All `count` pods of an app say that the webhook has let them overflow for the rule, or none of them does.
async fn marked(s: &Scenario<'_>, app: &str, count: usize, by_rule: bool) -> Result<()> {
    let pods = s.pods(&format!("app={app}")).await?;
    ensure!(pods.len() == count, "{} pods of {app}", pods.len());
    let rule = format!("{}/spill", s.name());
    let expected = by_rule.then_some((s.name(), rule.as_str()));
    for pod in pods {
        let (labels, annotations) = (pod.labels(), pod.annotations());
        let mark = labels.get("virtualnodes.dev/overflow").map(String::as_str);
        let by = annotations.get("virtualnodes.dev/placed-by").map(String::as_str);
        ensure!(
            mark.zip(by) == expected && mark.is_some() == by.is_some(),
            "{} is marked {mark:?} by {by:?}",
            pod.name_any()
        );
    }
    Ok(())
}

async fn accepted(s: &Scenario<'_>, complains: bool) -> Result<()> {
    let what = format!("Accepted speaks of the missing right: {complains}");
    eventually(&what, Duration::from_secs(45), async || {
        let pool = get_pool(s).await?;
        let said = condition(&pool, "Accepted").context("no condition Accepted")?;
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains("config/components/overflow") == complains,
            "{said}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_overflows_only_when_ordinary_nodes_are_full() -> Result<()> {
    let options = EnvironmentOptions {
        hosts: HOSTS,
        ..EnvironmentOptions::default()
    };
    Scenario::run_alone("overflow", options, async |s| {
        s.start_operator(&OperatorOptions::default()).await?;
        let mut wanted = pool(s, 2);
        wanted["spec"]["placement"] = json!({ "rules": [
            {"name": "spill", "podSelector": {"matchLabels": {"spill": s.name()}}, "mode": "Prefer"},
        ] });
        s.apply(&wanted).await?;
        s.nodes_ready(2, Duration::from_secs(60)).await?;
        // The right is one of its own, and its absence is told.
        accepted(s, true).await?;
        s.environment()
            .kubectl(["apply", "--server-side", "--filename", &format!("{COMPONENT}/cluster_role.yaml")])
            .await?;
        s.environment()
            .kubectl(["apply", "--server-side", "--filename", &format!("{COMPONENT}/admission_policy.yaml")])
            .await?;
        accepted(s, false).await?;
        eventually("the webhook is verified", Duration::from_secs(60), async || {
            let pool = get_pool(s).await?;
            let said = condition(&pool, "WebhookReady").context("no condition WebhookReady")?;
            ensure!(said["status"] == "True" && said["reason"] == "Verified", "{said}");
            Ok(())
        })
        .await?;

        s.apply(&deployment(s, "base", FILLED, false)).await?;
        s.pods_running("app=base", FILLED, Duration::from_secs(60)).await?;
        marked(s, "base", FILLED, false).await?;
        s.apply(&deployment(s, "burst", BURST, true)).await?;
        let room = ROOM - FILLED;
        placed(s, "burst", (room, BURST - room), Duration::from_secs(60)).await?;
        marked(s, "burst", BURST, true).await?;

        let courses_of = courses(s, "burst-")?;
        let mut bound: Vec<(Timestamp, bool)> = courses_of
            .values()
            .filter_map(|c| Some((c.bound?, c.tolerated.is_some())))
            .collect();
        bound.sort();
        let early = bound.iter().take(room).filter(|(_, overflowed)| *overflowed).count();
        ensure!(early == 0, "{early} pods overflowed while ordinary nodes had room");
        let overflowed = bound.iter().filter(|(_, overflowed)| *overflowed).count();
        ensure!(overflowed == BURST - room, "{overflowed} pods were let overflow");
        let (patched, patched_median) = times(&courses_of, |c| c.tolerated)?;
        let (placed_last, placed_median) = times(&courses_of, |c| c.bound)?;
        tell(&format!(
            "{overflowed} pods overflowed; from Unschedulable to the toleration {patched_median:.3} s median, {patched:.3} s \
             worst, to the binding {placed_median:.3} s median, {placed_last:.3} s worst"
        ));
        ensure!(placed_last <= 2.0, "a pod that overflowed was bound after {placed_last} s");

        // Ordinary nodes that are free again come first.
        s.apply(&deployment(s, "base", FILLED - 8, false)).await?;
        eventually("8 pods have gone", Duration::from_secs(30), async || {
            let left = s.pods("app=base").await?.len();
            ensure!(left == FILLED - 8, "{left} pods are left");
            Ok(())
        })
        .await?;
        s.apply(&deployment(s, "again", 8, true)).await?;
        placed(s, "again", (8, 0), Duration::from_secs(20)).await?;
        marked(s, "again", 8, true).await?;
        ensure!(
            courses(s, "again-")?.values().all(|c| c.tolerated.is_none()),
            "a pod that had room on an ordinary node was let overflow"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_let_pods_overflow_changes_nothing_else() -> Result<()> {
    Scenario::run("narrow", async |s| {
        let operator = ["--as", OPERATOR, "--namespace", s.namespace()];
        s.apply(&deployment(s, "web", 1, false)).await?;
        let pods = s.pods_running("app=web", 1, Duration::from_secs(30)).await?;
        let name = pods[0].metadata.name.clone().context("a pod without name")?;
        s.environment().install_operator().await?;
        for file in ["cluster_role.yaml", "admission_policy.yaml"] {
            let path = format!("{COMPONENT}/{file}");
            s.environment()
                .kubectl(["apply", "--server-side", "--filename", &path])
                .await?;
        }
        let patch = async |patch: Value| {
            let mut args = vec![
                "patch",
                "pod",
                &name,
                "--type",
                "strategic",
                "--dry-run=server",
                "--patch",
            ];
            let patch = patch.to_string();
            args.push(&patch);
            args.extend(operator);
            s.environment().control_plane().kubectl(args).await
        };
        let tolerate = |key: &str| json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}});
        let refused = [
            json!({"spec": {"containers": [{"name": "web", "image": "mine:1"}]}}),
            json!({"spec": {"activeDeadlineSeconds": 1}}),
            json!({"metadata": {"labels": {"app": "other"}}}),
            json!({"metadata": {"annotations": {"a": "b"}}}),
            json!({"metadata": {"finalizers": ["example.com/mine"]}}),
        ];
        // A policy acts a moment after it was made.
        eventually("the policy acts", Duration::from_secs(20), async || {
            let answer = patch(refused[0].clone()).await;
            ensure!(answer.is_err(), "{answer:?}");
            Ok(())
        })
        .await?;
        for change in refused {
            let answer = patch(change.clone()).await;
            let told = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
            ensure!(told.contains("the operator may"), "{change}: {answer:?}");
        }
        // Strategic merge replaces tolerations as a whole, so the list carries those that are there.
        let mut there = serde_json::to_value(pods[0].spec.as_ref().and_then(|s| s.tolerations.clone()))?;
        let with = |there: &Value, key: &str| {
            let mut all = there.as_array().cloned().unwrap_or_default();
            all.push(tolerate(key)["spec"]["tolerations"][0].clone());
            json!({"spec": {"tolerations": all}})
        };
        let answer = patch(with(&there, "dedicated")).await;
        let told = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
        ensure!(told.contains("virtual-kubelet.io/provider"), "{answer:?}");
        patch(with(&there.take(), "virtual-kubelet.io/provider")).await?;
        for file in ["admission_policy.yaml", "cluster_role.yaml"] {
            let path = format!("{COMPONENT}/{file}");
            s.environment()
                .kubectl([
                    "delete",
                    "--filename",
                    &path,
                    "--ignore-not-found",
                    "--wait=false",
                ])
                .await?;
        }
        Ok(())
    })
    .await
}
