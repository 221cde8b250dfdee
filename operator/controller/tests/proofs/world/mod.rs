//! What a cluster does by itself, in virtual time: StatefulSets keep provider pods, providers keep Nodes and instances,
//! applications replace pods, a scheduler binds them, budgets are accounted for. Each part is one look at the stored
//! objects followed by what it would write, several times a second, in a fixed order: so a run is repeatable.

mod antagonists;
mod applications;
mod budgets;
pub(crate) mod cloud;
mod garbage;
mod node_lifecycle;
mod providers;
mod statefulsets;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinHandle;
use vnp_fake_api_server::stateful_sets::StatefulSets;

use crate::cluster::Cluster;
pub(crate) use antagonists::{ANTAGONISTS, Antagonist};
pub(crate) use applications::Application;
use cloud::Cloud;
pub(crate) use providers::Kubelet;

/// How often every part looks.
const TICK: Duration = Duration::from_millis(500);
/// The same while nobody writes anything.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// The world of one test.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Parts>>);

/// What its parts remember between two looks.
pub(crate) struct Parts {
    cluster: Cluster,
    /// The cloud account.
    pub(crate) cloud: Cloud,
    /// What keeps pods up. Change it at any time.
    pub(crate) applications: Vec<Application>,
    /// What the providers are built on.
    pub(crate) kubelet: Kubelet,
    /// Providers that don't get Ready, by pod name.
    pub(crate) sick: Vec<String>,
    /// Who else is there.
    pub(crate) antagonists: Vec<antagonists::Program>,
    stateful_sets: StatefulSets,
    providers: providers::Providers,
    scheduler: applications::Scheduler,
    serial: u64,
}

impl World {
    /// A world over these objects, which runs until the task is dropped with its runtime.
    pub(crate) fn start(cluster: &Cluster) -> (Self, JoinHandle<()>) {
        let parts = Parts {
            cluster: cluster.clone(),
            cloud: Cloud::default(),
            applications: Vec::new(),
            kubelet: Kubelet::default(),
            sick: Vec::new(),
            antagonists: Vec::new(),
            stateful_sets: StatefulSets::default(),
            providers: providers::Providers::default(),
            scheduler: applications::Scheduler::default(),
            serial: 0,
        };
        let world = Self(Arc::new(Mutex::new(parts)));
        let running = world.clone();
        let task = tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let version = running.parts().cluster.server.version();
                tokio::time::sleep(if version == seen { IDLE_TICK } else { TICK }).await;
                seen = version;
                running.parts().look();
            }
        });
        (world, task)
    }

    /// Its parts, to change them or to look at the cloud.
    pub(crate) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().expect("a part of the world panicked")
    }
}

impl Parts {
    fn look(&mut self) {
        garbage::collect(&self.cluster);
        garbage::collect_leases(&self.cluster);
        garbage::release(&self.cluster);
        statefulsets::control(&self.cluster, &mut self.stateful_sets);
        self.providers
            .run(&self.cluster, &mut self.cloud, self.kubelet, &self.sick);
        node_lifecycle::taint(&self.cluster);
        applications::control(&self.cluster, &self.applications, &mut self.serial);
        self.scheduler.bind(&self.cluster);
        budgets::account(&self.cluster);
        for program in &mut self.antagonists {
            program.look(&self.cluster);
        }
    }
}
