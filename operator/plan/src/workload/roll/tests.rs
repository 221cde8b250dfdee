//! Rolls against the stand-in of a StatefulSet controller in `server`.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use vnp_crds::VirtualNodePool;

use super::*;
use crate::finding::ProviderState;
use crate::step::WorkloadPatch;
use crate::testing::{after, pool, with_node};
use crate::workload::server::{BROKEN, Server};
use crate::workload::{remember, roll_in_step};

const GOOD: &str = "registry.example/virtual-nodes-eci:v1";
const BETTER: &str = "registry.example/virtual-nodes-eci:v2";

fn wanting(adopt: bool, replicas: i32, image: &str) -> VirtualNodePool {
    let management = if adopt { "Adopt" } else { "Create" };
    pool(json!({ "replicas": replicas, "provider": { "management": management, "image": image } }))
}

fn running(adopt: bool, replicas: i32) -> Server {
    let workload = adopt.then(|| {
        let mut raw = crate::testing::workload(replicas).raw;
        raw["metadata"]["finalizers"] = Value::Null;
        raw["metadata"]["labels"] = Value::Null;
        raw
    });
    let mut server = Server::new(wanting(adopt, replicas, GOOD), workload);
    server.run();
    assert_eq!(server.workload().replicas(), replicas);
    server.started.clear();
    server.log.clear();
    server.most_down = 0;
    server
}

fn image(server: &Server) -> &str {
    server.workload().containers()[0]["image"].as_str().unwrap()
}

fn partitions(server: &Server) -> Vec<i64> {
    let set = |patch: &WorkloadPatch| {
        let last = serde_json::to_value(patch.patch.0.last().unwrap()).unwrap();
        last["path"]
            .as_str()
            .unwrap()
            .ends_with("partition")
            .then(|| last["value"].as_i64().unwrap())
    };
    server
        .log
        .iter()
        .filter_map(|step| match step {
            Step::PatchWorkload(patch) => set(patch),
            Step::ApplyWorkload { body, .. } => {
                body["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64()
            }
            _ => None,
        })
        .collect()
}

fn at_rest(server: &Server) {
    assert_eq!(server.plan().steps, Vec::new());
    assert_eq!(server.seen.template_copy, None);
    assert_eq!(server.workload().partition(), Some(0));
    assert!(!roll_in_step(&server.seen, server.now));
}

#[test]
fn one_provider_at_a_time_highest_first() {
    for adopt in [false, true] {
        let mut server = running(adopt, 3);
        server.set_pool(wanting(adopt, 3, BETTER));
        server.run();
        assert_eq!(server.started, [2, 1, 0], "adopt: {adopt}");
        assert_eq!(partitions(&server), [3, 2, 1, 0]);
        assert_eq!(server.most_down, 1);
        assert_eq!(image(&server), BETTER);
        at_rest(&server);
    }
}

#[test]
fn none_and_one() {
    for adopt in [false, true] {
        let mut server = running(adopt, 0);
        server.set_pool(wanting(adopt, 0, BETTER));
        server.run();
        assert_eq!(server.log.len(), 1, "no roll: {:?}", server.log);
        assert_eq!(image(&server), BETTER);
        at_rest(&server);

        let mut server = running(adopt, 1);
        server.set_pool(wanting(adopt, 1, BETTER));
        server.run();
        assert_eq!(server.started, [0]);
        at_rest(&server);
    }
}

#[test]
fn the_copy_is_kept_before_the_template_changes() {
    let mut server = running(true, 2);
    let before = server.workload().template().clone();
    server.set_pool(wanting(true, 2, BETTER));
    let part = server.plan();
    let [Step::SaveCopy { name, content }, Step::PatchWorkload(patch)] = &part.steps[..] else {
        panic!("{part:?}")
    };
    assert_eq!(name, "vnp-template-pool-uid");
    assert_eq!(content["template"], before);
    assert_eq!(content["partition"], 0);
    assert_eq!(content["healthy"], json!([0, 1]));
    assert_eq!(patch.purpose, PatchPurpose::Configure);
}

#[test]
fn the_next_step_waits_for_a_heartbeat_of_the_new_provider() {
    let mut server = running(true, 2);
    server.set_pool(wanting(true, 2, BETTER));
    server.until(|s| !s.started.is_empty());
    // Ready, with a heartbeat that its predecessor sent.
    let uid = server.seen.provider_pods[&1].uid.clone();
    let beats = server.seen.nodes[&1].heartbeat.as_ref().unwrap().beats;
    let memory = server.seen.memory.get_mut(&1).unwrap();
    memory.provider = None;
    memory.see_provider(&uid, beats);
    server.pass(usize::MAX);
    assert!(server.plan().steps.is_empty());
    assert!(roll_in_step(&server.seen, server.now));
    let now = server.now;
    with_node(&mut server.seen, 1, |node| {
        let beat = node.heartbeat.as_mut().unwrap();
        beat.beats += 1;
        beat.seen_at = now;
    });
    assert_eq!(server.plan().steps.len(), 1);
}

#[test]
fn a_provider_that_is_not_replaced_yet_is_not_called_new() {
    let mut server = running(true, 2);
    server.set_pool(wanting(true, 2, BETTER));
    server.until(|s| !s.started.is_empty());
    let before = server.workload().raw["status"]["currentRevision"].clone();
    let pod = Arc::make_mut(server.seen.provider_pods.get_mut(&1).unwrap());
    pod.revision = before.as_str().unwrap().to_owned();
    pod.ready = true;
    let now = server.now;
    with_node(&mut server.seen, 1, |node| {
        node.ready = true;
        node.heartbeat.as_mut().unwrap().seen_at = now;
    });
    let told = format!("{:?}", server.plan().findings);
    assert!(told.contains("its former provider still runs"), "{told}");
    assert!(!told.contains("its new provider"), "{told}");
}

#[test]
fn a_provider_that_does_not_get_healthy_goes_back() {
    for adopt in [false, true] {
        let mut server = running(adopt, 3);
        server.set_pool(wanting(adopt, 3, BROKEN));
        let start = server.now;
        server.run();
        assert!(server.now.duration_since(start) < SignedDuration::from_secs(300));
        assert_eq!(server.started, [2, 2], "the others never had it; adopt: {adopt}");
        assert_eq!(image(&server), GOOD);
        let deleted = server
            .log
            .iter()
            .filter(|s| matches!(s, Step::DeleteProviderPod { .. }))
            .count();
        assert_eq!(deleted, 1);
        at_rest(&server);
        let stalled = server.plan().findings.iter().any(|f| {
            matches!(
                f,
                Finding::Stalled {
                    reason: Reason::RolloutReverted,
                    ..
                }
            )
        });
        assert!(stalled, "{:?}", server.plan().findings);
        assert!(!crate::workload::rolled(&server.seen));
        // Not tried again by itself, nor by a new process.
        server.seen.recall = Default::default();
        server.pause(SignedDuration::from_hours(2));
        let writes = server.log.len();
        server.run();
        assert_eq!(server.log.len(), writes);
        // Another template is tried, and then the failed one may be tried again.
        server.started.clear();
        server.set_pool(wanting(adopt, 3, BETTER));
        server.run();
        assert_eq!((image(&server), &server.started[..]), (BETTER, &[2, 1, 0][..]));
        assert_eq!(server.workload().annotation(vnp_crds::REVERTED_ANNOTATION), None);
        at_rest(&server);
        server.set_pool(wanting(adopt, 3, BROKEN));
        server.run();
        assert_eq!(image(&server), BETTER);
    }
}

#[test]
fn a_revert_says_image_provider_and_cause_also_to_the_next_process() {
    for adopt in [false, true] {
        let mut server = running(adopt, 3);
        server.set_pool(wanting(adopt, 3, BROKEN));
        server.until(|s| !s.started.is_empty());
        let trouble = "ImagePullBackOff: image vk:broken of container provider can't be pulled";
        let ails = |server: &mut Server| {
            if let Some(pod) = server.seen.provider_pods.get_mut(&2).filter(|p| !p.ready) {
                Arc::make_mut(pod).trouble = Some(trouble.to_owned());
            }
        };
        let mut event = None;
        for _ in 0..400 {
            ails(&mut server);
            let part = server.pass(9);
            for finding in part.findings {
                if let Finding::Event(note) = finding
                    && note.reason == EventReason::RolloutReverted
                {
                    event = Some(note.note);
                }
            }
            if server.seen.template_copy.is_none() && event.is_some() {
                break;
            }
            server.tick();
        }
        let because = format!("its provider pod is not Ready: {trouble}");
        let event = event.unwrap();
        assert!(event.contains(&because), "adopt: {adopt}: {event}");
        // Nothing is left of the pod that failed, and the process is another one.
        server.run();
        server.seen.recall = Default::default();
        let said = server.plan().findings.into_iter().find_map(|f| match f {
            Finding::Stalled {
                reason: Reason::RolloutReverted,
                message,
            } => Some(message),
            _ => None,
        });
        let said = said.unwrap();
        let what = format!("image {BROKEN} was taken back to {GOOD}: virtual-node-eci-2: {because}, still");
        assert!(said.starts_with(&what), "adopt: {adopt}: {said}");
        at_rest(&server);
        server.set_pool(wanting(adopt, 3, BETTER));
        server.run();
        assert_eq!(
            server
                .workload()
                .annotation(vnp_crds::REVERTED_BECAUSE_ANNOTATION),
            None
        );
    }
}

#[test]
fn a_provider_in_its_roll_is_updating_with_the_time_of_its_return_and_not_sick() {
    let mut server = running(true, 3);
    server.set_pool(wanting(true, 3, BROKEN));
    server.until(|s| !s.started.is_empty());
    for _ in 0..5 {
        server.pass(9);
        server.tick();
    }
    let said: Vec<(ProviderState, String)> = server
        .plan()
        .findings
        .into_iter()
        .filter_map(|f| match f {
            Finding::Provider { state, message } => Some((state, message)),
            _ => None,
        })
        .collect();
    let [(ProviderState::Updating, message)] = &said[..] else {
        panic!("{said:?}")
    };
    let (_, since) = server.seen.recall.roll_step_since.unwrap();
    let returns = (since + DEADLINE).as_second();
    let at = Timestamp::from_second(returns).unwrap();
    assert!(
        message.starts_with("virtual-node-eci-2 takes up the template change: its provider pod is not Ready"),
        "{message}"
    );
    assert!(
        message.ends_with(&format!("its former template returns at {at}")),
        "{message}"
    );
}

#[test]
fn a_roll_that_fails_half_way_takes_all_back() {
    let mut server = running(true, 3);
    server.set_pool(wanting(true, 3, BETTER));
    server.until(|s| s.started.len() == 2);
    // Ordinal 1 has just got the new template and does not come up.
    let pod = Arc::make_mut(server.seen.provider_pods.get_mut(&1).unwrap());
    pod.ready = false;
    pod.images.insert("provider".to_owned(), BROKEN.to_owned());
    server.run();
    assert_eq!(image(&server), GOOD);
    assert_eq!(server.started, [2, 1, 1, 2]);
    assert_eq!(server.most_down, 1);
    at_rest(&server);
}

#[test]
fn a_provider_that_was_not_healthy_before_does_not_go_back() {
    let mut server = running(true, 2);
    let pod = Arc::make_mut(server.seen.provider_pods.get_mut(&1).unwrap());
    pod.ready = false;
    pod.images.insert("provider".to_owned(), BROKEN.to_owned());
    server.set_pool(wanting(true, 2, BROKEN));
    for _ in 0..400 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(image(&server), BROKEN);
    let part = server.plan();
    let stuck = part.findings.iter().any(|f| {
        matches!(
            f,
            Finding::Stalled {
                reason: Reason::ProviderUnavailable,
                ..
            }
        )
    });
    assert!(stuck, "{part:?}");
    assert!(
        !roll_in_step(&server.seen, server.now),
        "it would hold drains for ever"
    );
    // The cure is another template.
    server.set_pool(wanting(true, 2, BETTER));
    server.run();
    assert_eq!(image(&server), BETTER);
    at_rest(&server);
}

#[test]
fn a_newer_template_restarts_the_roll_and_frees_a_stuck_provider_first() {
    for adopt in [false, true] {
        let mut server = running(adopt, 3);
        server.set_pool(wanting(adopt, 3, BROKEN));
        server.until(|s| !s.started.is_empty());
        server.set_pool(wanting(adopt, 3, BETTER));
        server.run();
        assert_eq!(image(&server), BETTER);
        assert_eq!(server.started, [2, 2, 2, 1, 0], "adopt: {adopt}");
        assert_eq!(server.most_down, 1);
        at_rest(&server);
    }
}

#[test]
fn the_workloads_own_partition_returns() {
    let mut server = running(true, 3);
    server.meddle(|raw| raw["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(2));
    server.run();
    server.log.clear();
    server.set_pool(wanting(true, 3, BETTER));
    server.run();
    assert_eq!(partitions(&server), [3, 2, 1, 0, 2]);
    assert_eq!(server.workload().partition(), Some(2));
    assert_eq!(server.seen.template_copy, None);
}

#[test]
fn a_partition_counts_from_the_first_ordinal() {
    let mut raw = crate::testing::workload(3).raw;
    raw["metadata"]["finalizers"] = Value::Null;
    raw["metadata"]["labels"] = Value::Null;
    raw["spec"]["ordinals"] = json!({ "start": 5 });
    let mut server = Server::new(wanting(true, 3, GOOD), Some(raw));
    server.run();
    server.log.clear();
    server.set_pool(wanting(true, 3, BETTER));
    server.run();
    assert_eq!(server.started, [7, 6, 5]);
    assert_eq!(partitions(&server), [3, 2, 1, 0]);
    at_rest(&server);
}

#[test]
fn on_delete_leaves_the_restarts_to_a_person() {
    let mut server = running(true, 2);
    server.meddle(|raw| raw["spec"]["updateStrategy"] = json!({ "type": "OnDelete" }));
    server.run();
    server.set_pool(wanting(true, 2, BETTER));
    for _ in 0..20 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(server.started, Vec::<Ordinal>::new());
    assert_eq!(
        server.workload().raw["spec"]["updateStrategy"],
        json!({ "type": "OnDelete" })
    );
    let updating = |server: &Server| {
        server.plan().findings.into_iter().find_map(|f| match f {
            Finding::Provider {
                state: ProviderState::Updating,
                message,
            } => Some(message),
            _ => None,
        })
    };
    assert!(
        updating(&server)
            .unwrap()
            .contains("virtual-node-eci-1, virtual-node-eci-0")
    );
    assert!(!roll_in_step(&server.seen, server.now));
    for ordinal in [0, 1] {
        server.seen.provider_pods.remove(&ordinal);
        assert!(roll_in_step(&server.seen, server.now));
        server.run();
    }
    assert_eq!(server.seen.template_copy, None);
    assert_eq!(updating(&server), None);
}

#[test]
fn on_delete_goes_back_too() {
    let mut server = running(true, 2);
    server.meddle(|raw| raw["spec"]["updateStrategy"] = json!({ "type": "OnDelete" }));
    server.run();
    server.set_pool(wanting(true, 2, BROKEN));
    server.run();
    server.seen.provider_pods.remove(&1);
    server.run();
    assert_eq!(image(&server), GOOD);
    assert_eq!(server.started, [1, 1]);
    assert_eq!(server.seen.template_copy, None);
}

#[test]
fn a_raise_in_the_middle_of_a_roll_adds_nodes_with_the_new_template() {
    for raise_after in 0..12 {
        let mut server = running(false, 2);
        server.set_pool(wanting(false, 2, BETTER));
        for _ in 0..raise_after {
            server.pass(usize::MAX);
            server.tick();
        }
        server.set_pool(wanting(false, 4, BETTER));
        server.run();
        assert_eq!(server.workload().replicas(), 4);
        let (old, new): (Vec<Ordinal>, Vec<Ordinal>) = server.started.iter().copied().partition(|o| *o < 2);
        assert_eq!(old, [1, 0], "{raise_after}");
        assert!(new.len() <= 4, "{new:?}");
        let revision = server.workload().update_revision();
        assert!(
            server
                .seen
                .provider_pods
                .values()
                .all(|p| Some(p.revision.as_str()) == revision)
        );
        at_rest(&server);
    }
}

#[test]
fn a_drain_and_a_roll_step_exclude_each_other() {
    let mut server = running(true, 3);
    server.set_pool(wanting(true, 3, BETTER));
    server.draining.busy = true;
    assert_eq!(server.plan().steps, Vec::new());
    server.draining.busy = false;
    server.until(|s| !s.started.is_empty());
    for _ in 0..10 {
        server.tick();
    }
    assert!(!roll_in_step(&server.seen, server.now));
    server.draining.busy = true;
    for _ in 0..20 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(server.started, [2], "the rest follows after the drain");
    let told = format!("{:?}", server.plan().findings);
    assert!(
        told.contains("the template change reaches virtual-node-eci-1 when the drain has ended"),
        "{told}"
    );
    // A newer one begins no sooner.
    server.set_pool(wanting(true, 3, "registered.example/virtual-nodes-eci:v3"));
    let told = format!("{:?}", server.plan().findings);
    assert!(
        told.contains("a newer template change waits for the end of the drain"),
        "{told}"
    );
    server.set_pool(wanting(true, 3, BETTER));
    server.draining.busy = false;
    server.run();
    assert_eq!(server.started, [2, 1, 0]);
}

#[test]
fn a_change_may_be_the_cure_of_the_provider_that_holds_a_drain() {
    let mut server = running(true, 3);
    let pod = Arc::make_mut(server.seen.provider_pods.get_mut(&2).unwrap());
    pod.ready = false;
    pod.images.insert("provider".to_owned(), BROKEN.to_owned());
    server.set_pool(wanting(true, 3, BETTER));
    server.draining.busy = true;
    // Not the highest: no partition reaches it alone.
    server.draining.held_by_provider = Some(1);
    assert_eq!(server.plan().steps, Vec::new());
    server.draining.held_by_provider = Some(2);
    for _ in 0..20 {
        server.pass(usize::MAX);
        server.tick();
        if server.seen.provider_pods.get(&2).is_some_and(|p| p.ready) {
            server.draining.held_by_provider = None;
        }
    }
    assert_eq!(server.started, [2]);
    assert_eq!(partitions(&server), [2]);
    server.draining.busy = false;
    server.run();
    assert_eq!(server.started, [2, 1, 0]);
    at_rest(&server);
}

#[test]
fn a_revert_is_carried_out_during_a_drain_and_without_acceptance() {
    let mut server = running(true, 3);
    server.set_pool(wanting(true, 3, BROKEN));
    server.until(|s| !s.started.is_empty());
    server.draining.busy = true;
    for _ in 0..300 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(image(&server), GOOD);
    assert!(server.seen.provider_pods[&2].ready);
}

#[test]
fn a_shrink_in_the_middle_of_a_roll_does_not_confuse_it() {
    for passes in 0..12 {
        let mut server = running(true, 3);
        server.set_pool(wanting(true, 3, BETTER));
        for _ in 0..passes {
            server.pass(usize::MAX);
            server.tick();
        }
        server.set_pool(wanting(true, 1, BETTER));
        server.meddle(|raw| raw["spec"]["replicas"] = json!(1));
        server.run();
        assert_eq!(server.workload().replicas(), 1);
        assert_eq!(image(&server), BETTER);
        at_rest(&server);
    }
}

#[test]
fn losing_the_memory_only_delays_a_revert() {
    let mut server = running(true, 1);
    server.set_pool(wanting(true, 1, BROKEN));
    for _ in 0..170 {
        server.pass(usize::MAX);
        server.tick();
    }
    server.seen.recall = Default::default();
    for _ in 0..170 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(image(&server), BROKEN);
    server.run();
    assert_eq!(image(&server), GOOD);
}

#[test]
fn the_timer_belongs_to_one_ordinal() {
    let mut server = running(true, 2);
    server.set_pool(wanting(true, 2, BROKEN));
    server.pass(usize::MAX);
    server.tick();
    server.seen.recall.roll_step_since = Some((0, after(-1000)));
    assert_eq!(
        remember(&server.seen, server.now).roll_step_since.map(|(o, _)| o),
        waiting_for(&server.seen, server.now)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// P7 and P1: the process dies after any number of steps of any pass, the pool changes its mind, providers come up or
    /// don't. In the end the last wish or the last template that worked is everywhere, and at no time two providers are
    /// down.
    #[test]
    fn whatever_happens_one_provider_at_a_time(
        adopt in any::<bool>(),
        replicas in 1..4i32,
        events in proptest::collection::vec((0..3usize, 0..30usize, 0..4usize), 1..12),
    ) {
        let mut server = running(adopt, replicas);
        let images = [GOOD, BETTER, BROKEN, "registry.example/virtual-nodes-eci:v3"];
        let mut wish = GOOD;
        for (most, ticks, image) in events {
            wish = images[image];
            server.set_pool(wanting(adopt, replicas, wish));
            server.pass(most);
            for _ in 0..ticks {
                server.tick();
            }
            if most == 0 {
                server.seen.recall = Default::default();
            }
            server.pass(most);
        }
        server.run();
        prop_assert!(server.most_down <= 1, "{} down", server.most_down);
        at_rest(&server);
        if wish == BROKEN {
            prop_assert!(image(&server) != BROKEN);
        } else {
            prop_assert_eq!(image(&server), wish);
        }
        prop_assert!(server.seen.provider_pods.values().all(|p| p.ready));
    }
}

#[test]
fn a_pool_that_goes_changes_no_template() {
    for replicas in [0, 2] {
        let mut server = running(false, replicas);
        let mut going = wanting(false, 0, BETTER);
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(server.now));
        server.set_pool(going);
        assert_eq!(server.plan().steps, Vec::new());
    }
}

#[test]
fn providers_that_somebody_holds_at_an_older_template_are_named() {
    let mut server = running(true, 2);
    Arc::make_mut(server.seen.provider_pods.get_mut(&0).unwrap()).revision = "older".to_owned();
    let said = server.plan().findings.into_iter().any(|f| {
        matches!(f, Finding::Provider { state: ProviderState::Updating, message } if message.contains("virtual-node-eci-0"))
    });
    assert!(said);
}

#[test]
fn a_step_waits_for_another_provider_that_is_down_but_not_for_ever() {
    let mut server = running(true, 3);
    server.set_pool(wanting(true, 3, BETTER));
    server.pass(usize::MAX);
    // Under the old template, and on its own.
    let pod = Arc::make_mut(server.seen.provider_pods.get_mut(&0).unwrap());
    pod.ready = false;
    pod.images.insert("provider".to_owned(), BROKEN.to_owned());
    for _ in 0..20 {
        server.pass(usize::MAX);
        server.tick();
    }
    assert_eq!(server.started, Vec::<Ordinal>::new());
    assert!(!roll_in_step(&server.seen, server.now));
    assert!(server.plan().wake_at.is_some_and(|at| at > server.now));
    server.run();
    assert_eq!(server.started, [2, 1, 0]);
    assert_eq!(image(&server), BETTER);
    at_rest(&server);
}
