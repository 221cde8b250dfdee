//! One watch for all kubelets: each gets the objects of its own node.
//!
//! A kubelet of its own would watch with a field selector; a dozen of them in one process share what the API server
//! has to send.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// News about one object.
#[derive(Debug)]
pub(crate) enum Change<K> {
    /// Created, changed, or there already when the subscription began.
    Applied(Arc<K>),
    /// Gone.
    Deleted(Arc<K>),
}

/// Clones share the watch.
#[derive(Debug)]
pub(crate) struct Feed<K> {
    state: Arc<Mutex<State<K>>>,
    /// Which node an object belongs to.
    node_of: fn(&K) -> Option<&str>,
}

#[derive(Debug)]
struct State<K> {
    by_uid: HashMap<String, Arc<K>>,
    /// What a relist has shown so far.
    relisted: HashMap<String, Arc<K>>,
    subscribers: HashMap<String, Vec<mpsc::UnboundedSender<Change<K>>>>,
}

impl<K> Clone for Feed<K> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            node_of: self.node_of,
        }
    }
}

impl<K> Feed<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    pub(crate) fn new(node_of: fn(&K) -> Option<&str>) -> Self {
        let state = State {
            by_uid: HashMap::new(),
            relisted: HashMap::new(),
            subscribers: HashMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            node_of,
        }
    }

    /// Watches until it is dropped.
    pub(crate) async fn run(&self, api: Api<K>) {
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event),
                Err(error) => tracing::debug!("the watch starts over: {error}"),
            }
        }
    }

    /// Changes of objects of one node; those there already come first.
    pub(crate) fn subscribe(&self, node: &str) -> mpsc::UnboundedReceiver<Change<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.lock();
        for object in state
            .by_uid
            .values()
            .filter(|object| (self.node_of)(object) == Some(node))
        {
            // Can't fail: the receiver is in our hands.
            sender.send(Change::Applied(Arc::clone(object))).ok();
        }
        state.subscribers.entry(node.to_owned()).or_default().push(sender);
        receiver
    }

    fn apply(&self, event: watcher::Event<K>) {
        let mut state = self.lock();
        match event {
            watcher::Event::Init => state.relisted.clear(),
            watcher::Event::InitApply(object) => {
                let object = Arc::new(object);
                if let Some(uid) = object.uid() {
                    state.relisted.insert(uid, Arc::clone(&object));
                }
                self.applied(&mut state, object);
            }
            watcher::Event::InitDone => {
                let relisted = std::mem::take(&mut state.relisted);
                let gone: Vec<Arc<K>> = state
                    .by_uid
                    .iter()
                    .filter(|(uid, _)| !relisted.contains_key(*uid))
                    .map(|(_, object)| Arc::clone(object))
                    .collect();
                for object in gone {
                    self.deleted(&mut state, object);
                }
            }
            watcher::Event::Apply(object) => self.applied(&mut state, Arc::new(object)),
            watcher::Event::Delete(object) => self.deleted(&mut state, Arc::new(object)),
        }
    }

    fn applied(&self, state: &mut State<K>, object: Arc<K>) {
        let Some(uid) = object.uid() else { return };
        state.by_uid.insert(uid, Arc::clone(&object));
        self.tell(state, &object, Change::Applied);
    }

    fn deleted(&self, state: &mut State<K>, object: Arc<K>) {
        let Some(uid) = object.uid() else { return };
        state.by_uid.remove(&uid);
        self.tell(state, &object, Change::Deleted);
    }

    fn tell(&self, state: &mut State<K>, object: &Arc<K>, change: fn(Arc<K>) -> Change<K>) {
        let Some(subscribers) = (self.node_of)(object).and_then(|node| state.subscribers.get_mut(node))
        else {
            return;
        };
        subscribers.retain(|subscriber| subscriber.send(change(Arc::clone(object))).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::api::ObjectMeta;
    use watcher::Event;

    use super::*;

    fn node(name: &str, uid: &str) -> Node {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectMeta::default()
        };
        Node {
            metadata,
            ..Node::default()
        }
    }

    fn uids(changes: &mut mpsc::UnboundedReceiver<Change<Node>>) -> Vec<String> {
        std::iter::from_fn(|| changes.try_recv().ok())
            .map(|change| match change {
                Change::Applied(object) => format!("+{}", object.uid().unwrap()),
                Change::Deleted(object) => format!("-{}", object.uid().unwrap()),
            })
            .collect()
    }

    #[test]
    fn a_subscriber_sees_what_is_there_and_only_its_own() {
        let feed = Feed::new(|node: &Node| node.metadata.name.as_deref());
        feed.apply(Event::Apply(node("a", "1")));
        let mut changes = feed.subscribe("a");
        feed.apply(Event::Apply(node("b", "2")));
        feed.apply(Event::Delete(node("a", "1")));
        assert_eq!(uids(&mut changes), ["+1", "-1"]);
    }

    #[test]
    fn what_went_while_the_watch_was_broken_is_told_after_the_relist() {
        let feed = Feed::new(|node: &Node| node.metadata.name.as_deref());
        feed.apply(Event::Apply(node("a", "1")));
        let mut changes = feed.subscribe("a");
        feed.apply(Event::Init);
        feed.apply(Event::InitApply(node("a", "2")));
        feed.apply(Event::InitDone);
        assert_eq!(uids(&mut changes), ["+1", "+2", "-1"]);
    }
}
