//! Proof 7: anything in any order. People edit the pool and scale by hand, pods come and go, budgets get tight, providers
//! get sick, Nodes are deleted, the operator dies or is joined by another; at the end everybody leaves it alone, and it is
//! as it should be.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::bench::{Bench, PROVIDER, runtime};
use crate::cluster::{name, number};
use crate::operator::Running;
use crate::world::Kubelet;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The pool asks for so many nodes.
    Resize(i64),
    /// So many may drain at once.
    AtOnce(i64),
    /// Paused or not.
    Pause(bool),
    /// An application wants so many pods.
    Pods(usize, usize),
    /// A budget allows so many pods of the application to be away.
    Budget(usize, i64),
    /// The provider with that ordinal does not get Ready any more, or does again.
    Sick(i64, bool),
    /// Somebody scales the StatefulSet.
    ScaleByHand(i64),
    /// Somebody cordons a node.
    Cordon(i64),
    /// Somebody deletes a Node.
    DeleteNode(i64),
    /// Somebody deletes the StatefulSet.
    DeleteWorkload,
    /// The leader dies, and another one starts.
    Die,
    /// The leader is told to stop, as an update of its Deployment does, and another one starts.
    Stop,
    /// One more operator starts.
    Join,
    /// Time passes.
    Wait(u64),
}

const APPLICATIONS: [&str; 2] = ["web", "db"];

/// What matters for what may happen next: nothing, everything may.
pub(crate) struct Anything;

impl ReferenceStateMachine for Anything {
    type State = Kubelet;
    type Transition = Happening;

    fn init_state() -> BoxedStrategy<Kubelet> {
        prop_oneof![Just(Kubelet::V0_10), Just(Kubelet::V1_12)].boxed()
    }

    fn transitions(_: &Kubelet) -> BoxedStrategy<Happening> {
        prop_oneof![
            4 => (0..=4_i64).prop_map(Happening::Resize),
            1 => (1..=3_i64).prop_map(Happening::AtOnce),
            1 => any::<bool>().prop_map(Happening::Pause),
            2 => (0..2_usize, 0..=8_usize).prop_map(|(app, pods)| Happening::Pods(app, pods)),
            2 => (0..2_usize, 0..=2_i64).prop_map(|(app, away)| Happening::Budget(app, away)),
            2 => (0..4_i64, any::<bool>()).prop_map(|(ordinal, sick)| Happening::Sick(ordinal, sick)),
            1 => (0..=4_i64).prop_map(Happening::ScaleByHand),
            1 => (0..4_i64).prop_map(Happening::DeleteNode),
            1 => (0..4_i64).prop_map(Happening::Cordon),
            1 => Just(Happening::DeleteWorkload),
            2 => Just(Happening::Die),
            1 => Just(Happening::Stop),
            1 => Just(Happening::Join),
            8 => (1..20_u64).prop_map(Happening::Wait),
        ]
        .boxed()
    }

    fn apply(kubelet: Kubelet, _: &Happening) -> Kubelet {
        kubelet
    }
}

/// The system under test.
pub(crate) struct Run {
    runtime: Runtime,
    bench: Bench,
    operators: Vec<Running>,
    started: usize,
}

impl Run {
    fn start_one(&mut self) {
        let _inside = self.runtime.enter();
        let operator = Running::start(&self.bench.cluster, &format!("operator-{}", self.started));
        self.started += 1;
        self.operators.push(operator);
    }

    fn happen(&mut self, happening: &Happening) {
        let cluster = &self.bench.cluster;
        match *happening {
            Happening::Resize(nodes) => self.bench.edit(json!({ "replicas": nodes })),
            Happening::AtOnce(nodes) => self.bench.edit(json!({"drain": {"maxConcurrentNodes": nodes}})),
            Happening::Pause(paused) => self.bench.edit(json!({ "paused": paused })),
            Happening::Pods(app, pods) => self.bench.world.parts().applications[app].pods = pods,
            Happening::Budget(app, away) => {
                let patch = json!({"spec": {"maxUnavailable": away}});
                cluster.patch("poddisruptionbudgets.policy", "shop", APPLICATIONS[app], patch);
            }
            Happening::Sick(ordinal, sick) => {
                let provider = format!("{PROVIDER}-{ordinal}");
                let mut parts = self.bench.world.parts();
                parts.sick.retain(|s| *s != provider);
                if sick {
                    parts.sick.push(provider);
                }
            }
            Happening::ScaleByHand(replicas) => {
                if self.bench.workload().is_some() {
                    let patch = json!({"spec": {"replicas": replicas}});
                    cluster.patch("statefulsets.apps", "kube-system", PROVIDER, patch);
                }
            }
            Happening::DeleteNode(ordinal) => cluster.delete("nodes", "", &format!("{PROVIDER}-{ordinal}")),
            Happening::Cordon(ordinal) => self.bench.cordon(ordinal, true),
            Happening::DeleteWorkload => cluster.delete("statefulsets.apps", "kube-system", PROVIDER),
            Happening::Die => {
                if !self.operators.is_empty() {
                    self.operators.remove(0).kill();
                }
                self.start_one();
            }
            Happening::Stop => {
                if !self.operators.is_empty() {
                    let leader = self.operators.remove(0);
                    self.runtime.block_on(leader.stop());
                }
                self.start_one();
            }
            Happening::Join => {
                if self.operators.len() < 2 {
                    self.start_one();
                }
            }
            Happening::Wait(_) => {}
        }
        let wait = match happening {
            Happening::Wait(seconds) => Duration::from_secs(*seconds),
            // Things that happen at once happen between two looks of the others.
            _ => Duration::from_millis(150),
        };
        self.runtime.block_on(async { tokio::time::sleep(wait).await });
        // An operator that lost its lease ends, and its Deployment starts it again.
        let before = self.operators.len();
        self.operators.retain(|o| !o.ended());
        for _ in self.operators.len()..before {
            self.start_one();
        }
    }

    /// Everybody leaves it alone, with room to work.
    fn leave_alone(&mut self) {
        self.bench.world.parts().sick.clear();
        for at in 0..APPLICATIONS.len() {
            self.happen(&Happening::Budget(at, 3));
        }
        self.happen(&Happening::Pause(false));
        for ordinal in 0..4 {
            self.bench.cordon(ordinal, false);
            let node = format!("{PROVIDER}-{ordinal}");
            if self.bench.cluster.get("nodes", "", &node).is_none()
                && self.bench.cluster.get("pods", "kube-system", &node).is_some()
            {
                // As NodeMissing advises.
                self.bench.cluster.delete("pods", "kube-system", &node);
            }
        }
    }
}

impl StateMachineTest for Run {
    type SystemUnderTest = Self;
    type Reference = Anything;

    fn init_test(kubelet: &Kubelet) -> Self {
        let runtime = runtime();
        let bench = {
            let _inside = runtime.enter();
            Bench::new()
        };
        bench.world.parts().kubelet = *kubelet;
        let mut run = Self {
            runtime,
            bench,
            operators: Vec::new(),
            started: 0,
        };
        run.start_one();
        run.runtime.block_on(async { run.bench.until_settled(3).await });
        run
    }

    fn apply(mut run: Self, _: &Kubelet, happening: Happening) -> Self {
        run.happen(&happening);
        run
    }

    fn check_invariants(run: &Self, _: &Kubelet) {
        run.bench.assert_safe();
    }

    fn teardown(mut run: Self, _: Kubelet) {
        let nodes = number(&run.bench.pool(), "/spec/replicas");
        run.happen(&Happening::Resize(nodes.max(1)));
        run.leave_alone();
        let bench = &run.bench;
        run.runtime.block_on(async {
            let nodes = usize::try_from(nodes.max(1)).unwrap_or(1);
            bench.until("an end", |b| b.ready(nodes)).await;
            bench.assert_quiet(Duration::from_secs(20)).await;
        });
        bench.assert_safe();
        let names: Vec<String> = bench
            .cluster
            .list("nodes")
            .iter()
            .map(|n| name(n).to_owned())
            .collect();
        let parts = bench.world.parts();
        let leaked: Vec<_> = parts
            .cloud
            .instances()
            .values()
            .filter(|i| !names.contains(&i.node))
            .collect();
        assert!(leaked.is_empty(), "P1: instances that nobody deletes: {leaked:?}");
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 60, ..Config::default() })]

    #[test]
    fn whatever_happens_it_ends_well(sequential 1..24 => Run);
}
