//! The simulated cloud behaves like the real providers that were measured, and can show the failure that the operator
//! is there to prevent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use serde_json::json;
use vnp_e2e::cloud::{DeletionOrder, Heartbeat, LedgerEventKind, ProviderKnobs, Quota, SlowTerminators};
use vnp_e2e::control_plane::Identity;
use vnp_e2e::scenario::{Scenario, always, eventually, manifests};
use vnp_e2e::virtual_kubelet::{INSTANCE_ID_ANNOTATION, PROVIDER_TAINT};

const SOON: Duration = Duration::from_secs(20);

/// A provider made by hand, with all its nodes up.
async fn provider(s: &Scenario<'_>, replicas: u32) -> Result<()> {
    s.apply(&manifests::provider(&s.provider(), replicas)).await?;
    s.nodes_ready(replicas as usize, SOON).await?;
    Ok(())
}

async fn scale_provider(s: &Scenario<'_>, replicas: u32) -> Result<()> {
    s.kubectl(&format!(
        "scale statefulset {} --namespace kube-system --replicas {replicas}",
        s.provider()
    ))
    .await?;
    Ok(())
}

async fn living(s: &Scenario<'_>, ordinal: usize, count: usize, within: Duration) -> Result<()> {
    let node = s.node(ordinal);
    eventually(&format!("{count} instances live on {node}"), within, async || {
        let living = s.ledger().living_on(&node).len();
        ensure!(living == count, "{living} live");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_pod_becomes_a_node_that_runs_pods() -> Result<()> {
    Scenario::run("becomes-a-node", async |s| {
        provider(s, 2).await?;
        let nodes = s.nodes().await?;
        let node = &nodes[1];
        assert_eq!(node.name_any(), s.node(1));
        assert_eq!(node.labels()["type"], "virtual-kubelet");
        assert_eq!(node.labels()["topology.kubernetes.io/region"], "cn-hangzhou");
        let spec = node.spec.as_ref().context("no spec")?;
        let taint = spec
            .taints
            .iter()
            .flatten()
            .find(|taint| taint.key == PROVIDER_TAINT)
            .context("no taint")?;
        assert_eq!(
            (taint.value.as_deref(), taint.effect.as_str()),
            (Some("alibabacloud"), "NoSchedule")
        );
        assert_eq!(spec.provider_id, None);

        s.apply(&manifests::deployment(s.namespace(), "web", 20)).await?;
        let pods = s.pods_running("app=web", 20, SOON).await?;
        let instances: BTreeMap<String, String> = s
            .ledger()
            .living()
            .into_iter()
            .map(|instance| (instance.pod.uid, format!("{} {}", instance.id, instance.node)))
            .collect();
        for pod in &pods {
            let status = pod.status.as_ref().context("no status")?;
            assert!(
                status.pod_ip.is_some() && status.container_statuses.as_ref().is_some_and(|all| all[0].ready)
            );
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .context("not bound")?;
            let id = pod
                .annotations()
                .get(INSTANCE_ID_ANNOTATION)
                .context("no instance id")?;
            assert_eq!(instances[&pod.uid().context("no UID")?], format!("{id} {node}"));
        }
        // The Deployment counts them as available, so budgets and rollouts work on them.
        s.kubectl(&format!(
            "rollout status deployment/web --namespace {} --timeout 10s",
            s.namespace()
        ))
        .await?;
        s.no_leak_within(Duration::from_secs(1)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_checked() -> Result<()> {
    Scenario::run("rights", async |s| {
        let nobody = Identity::unprivileged("nobody");
        let client = s.environment().control_plane().client_as(&nobody).await?;
        let nodes: Api<Node> = Api::all(client);
        let refused = nodes.list(&kube::api::ListParams::default()).await;
        assert!(
            matches!(&refused, Err(kube::Error::Api(status)) if status.is_forbidden()),
            "{refused:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_node_is_registered_again_without_cordon() -> Result<()> {
    Scenario::run("vanished-node", async |s| {
        provider(s, 1).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 5)).await?;
        s.pods_running("app=web", 5, SOON).await?;
        let before = s.nodes().await?.remove(0);
        s.kubectl(&format!("cordon {}", s.node(0))).await?;
        let deleted = Instant::now();
        s.kubectl(&format!("delete node {} --wait=false", s.node(0)))
            .await?;
        let after = eventually("another Node of that name is Ready", SOON, async || {
            let node = s.nodes_ready(1, Duration::ZERO).await?.remove(0);
            ensure!(node.uid() != before.uid(), "it is still the old one");
            Ok(node)
        })
        .await?;
        assert!(
            deleted.elapsed() >= Duration::from_secs(2),
            "it came back after {:?}",
            deleted.elapsed()
        );
        let spec = after.spec.context("no spec")?;
        assert_eq!(spec.unschedulable, None);
        assert!(
            spec.taints
                .into_iter()
                .flatten()
                .any(|taint| taint.key == PROVIDER_TAINT)
        );
        s.pods_running("app=web", 5, SOON).await?;
        living(s, 0, 5, Duration::ZERO).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_kubelet_1_12_registers_once_and_keeps_objects_for_their_grace() -> Result<()> {
    Scenario::run("once", async |s| {
        s.cloud().configure(|knobs| {
            *knobs = ProviderKnobs {
                heartbeat_interval: Duration::from_secs(1),
                own_labels_interval: Some(Duration::from_secs(2)),
                ..ProviderKnobs::virtual_kubelet_1_12()
            };
        });
        provider(s, 1).await?;
        let mut pod = manifests::bare_pod(s.namespace(), "slow");
        pod["spec"]["terminationGracePeriodSeconds"] = json!(3);
        s.apply(&pod).await?;
        s.pods_running("app=slow", 1, SOON).await?;

        s.kubectl(&format!("label node {} type- theirs=kept", s.node(0)))
            .await?;
        eventually("its own label is back", SOON, async || {
            let node = get_node(s).await?;
            ensure!(
                node.labels().get("type").is_some_and(|t| t == "virtual-kubelet"),
                "not yet"
            );
            ensure!(node.labels().contains_key("theirs"), "the other one went");
            Ok(())
        })
        .await?;

        let deleted = Instant::now();
        s.kubectl(&format!(
            "delete pod slow --namespace {} --wait=false",
            s.namespace()
        ))
        .await?;
        living(s, 0, 0, Duration::from_secs(2)).await?;
        s.kubectl(&format!(
            "wait pod slow --namespace {} --for=delete",
            s.namespace()
        ))
        .await?;
        assert!(
            deleted.elapsed() >= Duration::from_secs(3),
            "{:?}",
            deleted.elapsed()
        );

        s.apply(&manifests::job(s.namespace(), "done", 1)).await?;
        s.pods_in_phase("app=done", "Succeeded", 1, SOON).await?;
        s.kubectl(&format!(
            "delete pod --selector app=done --namespace {} --timeout=10s",
            s.namespace()
        ))
        .await?;

        let leases: Api<Lease> = Api::namespaced(s.client(), "kube-node-lease");
        let (deleted, lease) = (Timestamp::now(), format!("kube-node-lease/{}", s.node(0)));
        s.kubectl(&format!("delete node {} --wait=false", s.node(0)))
            .await?;
        // The garbage collector leaves it for milliseconds only, so the audit log has to say that it was there.
        eventually("another Lease without a Node", SOON, async || {
            let events = s.audit_log().events()?;
            let created = events.iter().any(|event| {
                event.received >= deleted
                    && event.is("leases", None)
                    && event.verb == "create"
                    && event.code == 201
                    && event.object() == lease
            });
            ensure!(created, "none yet");
            Ok(())
        })
        .await?;
        eventually("the Lease is collected", SOON, async || {
            ensure!(leases.get_opt(&s.node(0)).await?.is_none(), "it is there");
            Ok(())
        })
        .await?;
        always("no Node comes back", Duration::from_secs(3), async || {
            ensure!(s.nodes().await?.is_empty(), "there is one");
            Ok(())
        })
        .await?;
        s.kubectl(&format!("delete pod {} --namespace kube-system", s.node(0)))
            .await?;
        s.nodes_ready(1, SOON).await?;
        Ok(())
    })
    .await
}

async fn get_node(s: &Scenario<'_>) -> Result<Node> {
    Ok(Api::<Node>::all(s.client()).get(&s.node(0)).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reaps_what_was_forgotten_and_keeps_the_cordon() -> Result<()> {
    Scenario::run("reaps", async |s| {
        s.cloud().configure(|knobs| knobs.forget = 1.0);
        provider(s, 1).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 10)).await?;
        s.pods_running("app=web", 10, SOON).await?;
        s.kubectl(&format!("cordon {}", s.node(0))).await?;
        s.kubectl(&format!(
            "scale deployment web --namespace {} --replicas 4",
            s.namespace()
        ))
        .await?;
        s.pods_running("app=web", 4, SOON).await?;
        eventually(
            "six Pod objects are gone, their instances not",
            SOON,
            async || {
                let leaks = s.leaks().await?;
                ensure!(leaks.orphans.len() == 6, "{leaks}");
                Ok(())
            },
        )
        .await?;
        s.cloud().crash_provider(&s.node(0));
        s.no_leak_within(SOON).await?;
        living(s, 0, 4, Duration::ZERO).await?;
        s.pods_running("app=web", 4, Duration::ZERO).await?;
        let node = s.nodes_ready(1, Duration::ZERO).await?.remove(0);
        assert_eq!(node.spec.and_then(|spec| spec.unschedulable), Some(true));
        let restarts = ["get", "pod", &s.node(0), "-n", "kube-system", "-o"];
        let restarts = [
            &restarts[..],
            &["jsonpath={.status.containerStatuses[0].restartCount}"],
        ]
        .concat();
        assert_eq!(s.environment().control_plane().kubectl(restarts).await?, "1");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_wait_for_the_quota() -> Result<()> {
    Scenario::run("quota", async |s| {
        s.cloud()
            .configure(|knobs| knobs.deletion_order = DeletionOrder::ObjectFirst);
        s.cloud().set_delete_quota(Quota {
            burst: 4,
            per_second: 4.0,
        });
        provider(s, 1).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 12)).await?;
        s.pods_running("app=web", 12, SOON).await?;
        s.kubectl(&format!(
            "delete deployment web --namespace {} --wait=false",
            s.namespace()
        ))
        .await?;
        eventually("all Pod objects are gone", SOON, async || {
            let pods = s.pods("app=web").await?.len();
            ensure!(pods == 0, "{pods} are left");
            Ok(())
        })
        .await?;
        let left = s.ledger().living_on(&s.node(0)).len();
        assert!(left > 0, "objects go at once, instances after the quota");
        living(s, 0, 0, SOON).await?;
        let deletions: Vec<_> = s
            .ledger()
            .history()
            .into_iter()
            .filter(|event| event.kind == LedgerEventKind::Deleted && event.node == s.node(0))
            .map(|event| event.mark.time)
            .collect();
        let took = deletions[11].duration_since(deletions[0]).as_secs_f64();
        assert!(
            (1.7..4.0).contains(&took),
            "12 deletions, 4 at once and 4 per second, took {took} s"
        );
        s.no_leak_within(Duration::from_secs(1)).await
    })
    .await
}

/// Where the deletion of the Pod object (answered by the API server) and that of the instance stand in time.
#[tokio::test(flavor = "multi_thread")]
async fn object_and_instance_go_in_the_order_asked_for() -> Result<()> {
    Scenario::run("order", async |s| {
        provider(s, 1).await?;
        for (name, order) in [
            ("a", DeletionOrder::ObjectFirst),
            ("b", DeletionOrder::InstanceFirst),
        ] {
            s.cloud().configure(|knobs| {
                knobs.deletion_order = order;
                knobs.deletion_lag = Duration::from_millis(300);
            });
            s.apply(&manifests::bare_pod(s.namespace(), name)).await?;
            s.pods_running(&format!("app={name}"), 1, SOON).await?;
            s.kubectl(&format!(
                "delete pod {name} --namespace {} --wait=true",
                s.namespace()
            ))
            .await?;
            living(s, 0, 0, SOON).await?;
            let object_gone = s
                .audit_log()
                .events()?
                .into_iter()
                .rfind(|event| {
                    event.verb == "delete" && event.object() == format!("{}/{name}", s.namespace())
                })
                .context("nobody deleted the object")?;
            assert_eq!(object_gone.user, vnp_e2e::simulation::SIMULATION_USER);
            let instance_gone = s.ledger().emptied(&s.node(0)).context("the instance lives")?.time;
            let object_first = object_gone.answered < instance_gone;
            assert_eq!(
                object_first,
                order == DeletionOrder::ObjectFirst,
                "{object_gone} and {instance_gone}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_provider_is_ready_and_handles_no_pod() -> Result<()> {
    Scenario::run("deaf", async |s| {
        s.cloud().configure_node(&s.node(0), |knobs| knobs.deaf = true);
        provider(s, 1).await?;
        s.apply(&manifests::bare_pod(s.namespace(), "web")).await?;
        eventually("the pod is bound", SOON, async || {
            ensure!(s.pods_on(0).await?.len() == 1);
            Ok(())
        })
        .await?;
        always("it is not run", Duration::from_secs(1), async || {
            ensure!(s.ledger().living_on(&s.node(0)).is_empty());
            Ok(())
        })
        .await?;
        s.nodes_ready(1, Duration::ZERO).await?;
        s.cloud().configure_node(&s.node(0), |knobs| knobs.deaf = false);
        s.cloud().crash_provider(&s.node(0));
        s.pods_running("app=web", 1, SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_a_lease_or_a_status_or_nothing() -> Result<()> {
    Scenario::run("heartbeat", async |s| {
        let pause = Duration::from_millis(300);
        s.cloud().configure(|knobs| knobs.heartbeat_interval = pause);
        provider(s, 1).await?;
        let leases: Api<Lease> = Api::namespaced(s.client(), "kube-node-lease");
        let name = s.node(0);
        // When the Lease was renewed and when the status was written, at two moments.
        let beats = async || {
            let lease = leases
                .get(&name)
                .await?
                .spec
                .and_then(|spec| spec.renew_time)
                .map(|time| time.0);
            let node = s.nodes().await?.remove(0);
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions
                .into_iter()
                .find(|condition| condition.type_ == "Ready");
            anyhow::Ok((
                lease,
                ready
                    .and_then(|ready| ready.last_heartbeat_time)
                    .map(|time| time.0),
            ))
        };
        for heartbeat in [Heartbeat::Lease, Heartbeat::NodeStatus, Heartbeat::Silent] {
            s.cloud().configure(|knobs| knobs.heartbeat = heartbeat);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let before = beats().await?;
            // The status counts in whole seconds.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let after = beats().await?;
            assert_eq!(
                before.0 != after.0,
                heartbeat == Heartbeat::Lease,
                "{heartbeat:?}: {before:?} {after:?}"
            );
            assert_eq!(
                before.1 != after.1,
                heartbeat == Heartbeat::NodeStatus,
                "{heartbeat:?}: {before:?} {after:?}"
            );
        }
        s.nodes_ready(1, Duration::ZERO).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_finish_and_keep_their_instances_until_their_pods_go() -> Result<()> {
    Scenario::run("jobs", async |s| {
        provider(s, 1).await?;
        s.apply(&manifests::job(s.namespace(), "report", 5)).await?;
        s.pods_in_phase("app=report", "Succeeded", 5, SOON).await?;
        living(s, 0, 5, Duration::ZERO).await?;
        s.kubectl(&format!("delete job report --namespace {}", s.namespace()))
            .await?;
        living(s, 0, 0, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_pods_take_their_time() -> Result<()> {
    Scenario::run("slow", async |s| {
        let delay = Duration::from_secs(2);
        s.cloud()
            .configure(|knobs| knobs.slow_terminators = SlowTerminators { fraction: 1.0, delay });
        provider(s, 1).await?;
        s.apply(&manifests::bare_pod(s.namespace(), "web")).await?;
        s.pods_running("app=web", 1, SOON).await?;
        let asked = Instant::now();
        s.kubectl(&format!(
            "delete pod web --namespace {} --wait=true",
            s.namespace()
        ))
        .await?;
        assert!(asked.elapsed() >= delay, "gone after {:?}", asked.elapsed());
        living(s, 0, 0, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_never_becomes_ready() -> Result<()> {
    Scenario::run("broken-image", async |s| {
        let mut provider = manifests::provider(&s.provider(), 1);
        provider["spec"]["template"]["spec"]["containers"][0]["image"] =
            json!(manifests::broken_provider_image());
        s.apply(&provider).await?;
        let reason = ["get", "pod", &s.node(0), "--namespace", "kube-system", "--output"];
        let reason = [
            &reason[..],
            &["jsonpath={.status.containerStatuses[0].state.waiting.reason}"],
        ]
        .concat();
        eventually("its kubelet says so", SOON, async || {
            let reason = s.environment().control_plane().kubectl(&reason).await?;
            ensure!(reason == "ImagePullBackOff", "it says {reason:?}");
            Ok(())
        })
        .await?;
        assert!(s.nodes().await?.is_empty());
        Ok(())
    })
    .await
}

/// What people do by hand: scale the provider, then look after the pods.
#[tokio::test(flavor = "multi_thread")]
async fn a_naive_shrink_leaks() -> Result<()> {
    Scenario::run("naive-shrink", async |s| {
        s.cloud().configure(|knobs| {
            knobs.deletion_order = DeletionOrder::ObjectFirst;
            knobs.forget = 0.1;
        });
        s.cloud().set_delete_quota(Quota {
            burst: 2,
            per_second: 2.0,
        });
        provider(s, 2).await?;
        s.apply(&manifests::deployment(s.namespace(), "web", 40)).await?;
        s.pods_running("app=web", 40, SOON).await?;
        let doomed = s.ledger().living_on(&s.node(1)).len();
        assert!(doomed > 0, "the scheduler put nothing on {}", s.node(1));

        scale_provider(s, 1).await?;
        eventually("the provider is gone", SOON, async || {
            let running = s.cloud().running_providers();
            ensure!(!running.contains(&s.node(1)), "{running:?} run");
            Ok(())
        })
        .await?;
        s.kubectl(&format!("cordon {}", s.node(1))).await?;
        for pod in s.pods_on(1).await? {
            s.kubectl(&format!(
                "delete pod {} --namespace {} --force --grace-period=0",
                pod.name_any(),
                s.namespace()
            ))
            .await?;
        }
        s.kubectl(&format!("delete node {}", s.node(1))).await?;
        s.pods_running("app=web", 40, SOON).await?;

        always(
            "nobody deletes the instances",
            Duration::from_secs(3),
            async || {
                let leaks = s.leaks().await?;
                let leaked = leaks.without_provider.len();
                ensure!(
                    leaked == doomed && leaks.orphans.len() == doomed,
                    "{doomed} were there: {leaks}"
                );
                Ok(())
            },
        )
        .await?;

        // The way back, as measured: the provider returns and reaps.
        s.cloud().set_delete_quota(Quota::default());
        scale_provider(s, 2).await?;
        s.no_leak_within(SOON).await
    })
    .await
}

/// What the operator runs with in every scenario: a missing right shows, and so does one too many.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_gets_the_rights_of_its_service_account_and_no_more() -> Result<()> {
    Scenario::run("operator-rights", async |s| {
        let kubeconfig = s.environment().install_operator().await?.display().to_string();
        let may = async |what: &str| {
            let kubectl = s.environment().control_plane();
            let args = ["auth", "can-i", "--kubeconfig", &kubeconfig];
            let answer = kubectl.kubectl(args.into_iter().chain(what.split(' '))).await;
            answer.is_ok()
        };
        assert!(may("create pods --subresource eviction --all-namespaces").await);
        assert!(may("patch statefulsets.apps --namespace kube-system").await);
        assert!(!may("get secrets --namespace kube-system").await);
        assert!(!may("update nodes --subresource status").await);
        Ok(())
    })
    .await
}
