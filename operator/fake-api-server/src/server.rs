//! The server: its state, its clients and the handle that tests hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::ClientService;
use crate::clock::Clock;
use crate::faults::{Disturbance, Gate, open};
use crate::journal::Entry;
use crate::refusal::Refusal;
use crate::store::{Key, Objects, Store};
use crate::{kinds, world::Actor};

/// Namespaces of a new cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) journal: Vec<Entry>,
    pub(crate) gate: Gate,
    disturbances: BTreeMap<String, Disturbance>,
}

impl State {
    pub(crate) fn disturbance(&mut self, client: &str) -> &mut Disturbance {
        self.disturbances.entry(client.to_owned()).or_default()
    }

    /// The newest version that this client's watches and cached reads see.
    pub(crate) fn visible(&mut self, client: &str) -> u64 {
        let Disturbance { lag, frozen, .. } = *self.disturbance(client);
        let history = self.store.history();
        let lagging = match history.len().checked_sub(lag + 1) {
            _ if lag == 0 => self.store.version(),
            Some(at) => history[at].version,
            None => 0,
        };
        lagging.min(frozen.unwrap_or(u64::MAX))
    }
}

pub(crate) struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes everybody who waits for a change of objects or disturbances.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The server. Clones are handles on the same one.
#[derive(Clone)]
pub struct FakeApiServer {
    pub(crate) inner: Arc<Inner>,
}

impl Default for FakeApiServer {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeApiServer {
    /// A server with the namespaces of a new cluster and the CRD, and nothing else. Its clock starts now.
    pub fn new() -> Self {
        let state = State {
            store: Store::new(Clock::start()),
            journal: Vec::new(),
            gate: open(),
            disturbances: BTreeMap::new(),
        };
        let inner = Inner {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        };
        let server = Self {
            inner: Arc::new(inner),
        };
        for namespace in NAMESPACES {
            let made = server.actor("kube-apiserver").create(
                "namespaces",
                "",
                json!({"metadata": {"name": namespace}}),
            );
            made.expect("a new server takes its namespaces");
        }
        server
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.inner.lock().store.clock
    }

    /// A client of that name. All clients of one name share faults, lag and counters: one operator process has one.
    pub fn client(&self, name: &str) -> kube::Client {
        kube::Client::new(self.service(name), "default")
    }

    /// What [`Self::client`] is made of, to put layers such as timeouts and retries around.
    pub fn service(&self, name: &str) -> ClientService {
        ClientService::new(self.inner.clone(), name)
    }

    /// A part of the world, which reads and writes without HTTP and without faults.
    pub fn actor(&self, name: &str) -> Actor {
        Actor::new(self.inner.clone(), name)
    }

    /// Decides from now on what goes wrong with requests.
    pub fn set_gate(&self, gate: Gate) {
        self.inner.lock().gate = gate;
    }

    /// Lets everything pass from now on.
    pub fn open_gate(&self) {
        self.set_gate(open());
    }

    /// Cuts a client off: what it asks and what its watches would tell is parked until [`Self::mend`].
    pub fn cut(&self, client: &str) {
        self.disturb(client, |d| d.cut = true);
    }

    /// Ends a cut. Requests that were made meanwhile stay lost; watches go on where they were.
    pub fn mend(&self, client: &str) {
        self.disturb(client, |d| d.cut = false);
    }

    /// Lets watches and cached reads of a client be so many writes behind from now on; 0 lets them catch up.
    pub fn lag(&self, client: &str, writes: usize) {
        self.disturb(client, |d| d.lag = writes);
    }

    /// Lets watches and cached reads of a client see nothing that is newer than now, until [`Self::thaw`].
    pub fn freeze(&self, client: &str) {
        let version = self.version();
        self.disturb(client, |d| d.frozen = Some(version));
    }

    /// Ends a freeze.
    pub fn thaw(&self, client: &str) {
        self.disturb(client, |d| d.frozen = None);
    }

    /// Swallows the watch event with that number, counted from 0 over all watches of the client.
    pub fn drop_event(&self, client: &str, number: u64) {
        self.disturb(client, |d| d.dropped.extend([number]));
    }

    /// How many watch events a client was sent, swallowed ones included.
    pub fn events_of(&self, client: &str) -> u64 {
        self.inner.lock().disturbance(client).delivered
    }

    /// How many requests a client made.
    pub fn calls_of(&self, client: &str) -> u64 {
        self.inner.lock().disturbance(client).calls
    }

    /// Breaks all watches of a client as a reset connection does.
    pub fn break_watches(&self, client: &str) {
        self.disturb(client, |d| d.breaks += 1);
    }

    /// Forgets old versions: watches from before and further pages of older lists get 410.
    pub fn compact(&self) {
        self.inner.lock().store.compact();
    }

    fn disturb(&self, client: &str, change: impl FnOnce(&mut Disturbance)) {
        change(self.inner.lock().disturbance(client));
        self.inner.wake();
    }

    /// Tells of every change of objects or disturbances, by a number that counts up.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed()
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.inner.lock().store.version()
    }

    /// All objects now.
    pub fn objects(&self) -> Objects {
        self.inner.lock().store.objects().clone()
    }

    /// All objects as they were at a version.
    pub fn snapshot(&self, version: u64) -> Objects {
        self.inner.lock().store.snapshot(version)
    }

    /// Looks at the store, its history included.
    pub fn inspect<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        look(&self.inner.lock().store)
    }

    /// All writes so far, refused ones included.
    pub fn journal(&self) -> Vec<Entry> {
        self.inner.lock().journal.clone()
    }

    /// Writes from that place in the journal on.
    pub fn journal_from(&self, number: usize) -> Vec<Entry> {
        self.inner
            .lock()
            .journal
            .get(number..)
            .unwrap_or_default()
            .to_vec()
    }

    /// An object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = kinds::named(resource)?;
        self.inner
            .lock()
            .store
            .get(&Key::new(kind, namespace, name))
            .cloned()
    }
}

/// A resource that this server does not have.
pub(crate) fn unknown(resource: &str) -> Refusal {
    Refusal::new(
        404,
        "NotFound",
        format!("the server could not find the requested resource {resource:?}"),
    )
}
