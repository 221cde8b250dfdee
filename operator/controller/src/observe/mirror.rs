//! One fold from a watch into a map, for every kind. kube's reflector is not used because it tells nobody of deletions
//! and keeps whole objects.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::runtime::clients::WATCH_SECONDS;
use crate::runtime::metrics::Metrics;

/// Objects of one page of a list; bounds the memory that a list takes.
const PAGE: u32 = 250;

/// What is kept of the objects of one watch.
pub trait Shelf: Send + Sync + 'static {
    /// As it comes over the wire.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What is told when something changed that matters.
    type Change: Send;

    /// Whether the object concerns us at all.
    fn wants(&self, object: &Self::Object) -> bool;
    /// Adds or replaces an object.
    fn put(&mut self, object: Self::Object) -> Vec<Self::Change>;
    /// Removes an object.
    fn take(&mut self, object: &Self::Object) -> Vec<Self::Change>;
    /// Removes all objects but those with these UIDs.
    fn retain(&mut self, uids: &HashSet<String>) -> Vec<Self::Change>;
}

/// What a watch keeps up to date.
#[derive(Debug)]
pub struct Mirror<S> {
    kind: &'static str,
    shelf: RwLock<S>,
    complete: AtomicBool,
    refused: RwLock<Option<String>>,
}

/// An event as the effects of a mirror see it.
#[derive(Debug, PartialEq, Eq)]
pub enum Told<C> {
    /// Something changed. `initial`: it was found by a list that is the first one, so it may be older than this process.
    Changed {
        /// What.
        change: C,
        /// Found by the first list.
        initial: bool,
    },
    /// The mirror is complete (again).
    Complete,
    /// The API server refuses to show what is mirrored: see [`Mirror::refused`].
    Refused,
}

/// The words of an API server that refuses to show something, which it does until somebody grants it.
fn refusal(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403 => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

impl<S: Shelf> Mirror<S> {
    /// An empty mirror; `kind` names it for people.
    pub fn new(kind: &'static str, shelf: S) -> Arc<Self> {
        Arc::new(Self {
            kind,
            shelf: RwLock::new(shelf),
            complete: AtomicBool::new(false),
            refused: RwLock::default(),
        })
    }

    /// What it mirrors.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Looks at what is kept.
    pub fn read<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        f(&self.shelf.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is kept, or what is to be kept.
    pub fn write<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.shelf.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// A list has been taken over in full.
    pub fn complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// The API server's words, while it refuses to list what is mirrored and has not shown it before.
    pub fn refused(&self) -> Option<String> {
        self.refused
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|_| !self.complete())
    }

    /// Notes a refusal; true when it is a new one.
    fn refuse(&self, words: Option<String>) -> bool {
        let mut known = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        let new = words.is_some() && *known != words && !self.complete();
        *known = words;
        new
    }

    /// A new list is needed before this is complete.
    pub fn reset(&self) {
        self.complete.store(false, Ordering::Release);
    }

    fn fold(&self, fresh: &mut HashSet<String>, event: Event<S::Object>) -> Vec<S::Change> {
        match event {
            Event::Init => {
                fresh.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                if self.read(|s| s.wants(&object)) {
                    fresh.extend(object.meta().uid.clone());
                    self.write(|s| s.put(object))
                } else {
                    Vec::new()
                }
            }
            // What a list does not show is gone, also when nobody watched it go.
            Event::InitDone => self.write(|s| s.retain(&std::mem::take(fresh))),
            Event::Apply(object) if self.read(|s| s.wants(&object)) => self.write(|s| s.put(object)),
            Event::Apply(object) | Event::Delete(object) => self.write(|s| s.take(&object)),
        }
    }

    /// Follows a watch for as long as it lasts, and tells of changes. Errors are waited out with growing pauses.
    pub async fn follow(
        &self,
        events: impl Stream<Item = watcher::Result<Event<S::Object>>> + Send,
        metrics: &Metrics,
        mut tell: impl FnMut(Told<S::Change>) + Send,
    ) {
        let mut events = pin!(events);
        let mut fresh = HashSet::new();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    metrics.watch_failed(self.kind);
                    tracing::warn!(
                        kind = self.kind,
                        error = &error as &dyn std::error::Error,
                        "watch failed"
                    );
                    if let Some(words) = refusal(&error)
                        && self.refuse(Some(words))
                    {
                        tell(Told::Refused);
                    }
                    continue;
                }
            };
            let done = matches!(event, Event::InitDone);
            for change in self.fold(&mut fresh, event) {
                tell(Told::Changed {
                    change,
                    initial: !self.complete(),
                });
            }
            if done {
                self.refuse(None);
                self.complete.store(true, Ordering::Release);
                tell(Told::Complete);
            }
        }
    }
}

/// The watch of an API, with pauses after errors.
pub fn watch<K>(
    api: Api<K>,
    fields: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let config = match fields {
        Some(fields) => config.fields(fields),
        None => config,
    };
    watcher(api, config).default_backoff()
}

/// A kind that is kept as one view per object.
pub trait Kind: Send + Sync + 'static {
    /// As it comes over the wire.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What is kept. When it is equal, nothing changed.
    type View: PartialEq + Debug + Send + Sync + 'static;

    /// Whether the object concerns us.
    fn wants(&self, object: &Self::Object) -> bool;
    /// Its view; `before` is the one it replaces.
    fn view(&self, object: Self::Object, before: Option<&Self::View>) -> Self::View;
}

/// A shelf with one view per object, by `<namespace>/<name>` or `<name>`.
#[derive(Debug)]
pub struct Table<K: Kind> {
    /// The kind, with what it needs to know.
    pub kind: K,
    rows: BTreeMap<String, Row<K::View>>,
}

#[derive(Debug)]
struct Row<V> {
    uid: String,
    view: Arc<V>,
}

/// A change in a [`Table`].
#[derive(Debug, PartialEq, Eq)]
pub struct RowChange<V> {
    /// Key of the row.
    pub key: String,
    /// Before.
    pub old: Option<Arc<V>>,
    /// After.
    pub new: Option<Arc<V>>,
}

impl<K: Kind> Table<K> {
    /// An empty table.
    pub fn new(kind: K) -> Self {
        Self {
            kind,
            rows: BTreeMap::new(),
        }
    }

    /// The view with that key.
    pub fn get(&self, key: &str) -> Option<Arc<K::View>> {
        self.rows.get(key).map(|row| row.view.clone())
    }

    /// All views, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<K::View>)> {
        self.rows.iter().map(|(key, row)| (key.as_str(), &row.view))
    }

    /// All keys that begin with `prefix`, with their views.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Arc<K::View>)> {
        let rows = self
            .rows
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        rows.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, row)| (key.as_str(), &row.view))
    }
}

fn key<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

impl<K: Kind> Shelf for Table<K> {
    type Object = K::Object;
    type Change = RowChange<K::View>;

    fn wants(&self, object: &K::Object) -> bool {
        self.kind.wants(object)
    }

    fn put(&mut self, object: K::Object) -> Vec<Self::Change> {
        let key = key(&object);
        let uid = object.meta().uid.clone().unwrap_or_default();
        let before = self.rows.get(&key);
        // An object that was made anew has nothing in common with the one before.
        let same = before.filter(|row| row.uid == uid).map(|row| row.view.as_ref());
        let view = self.kind.view(object, same);
        if same == Some(&view) {
            return Vec::new();
        }
        let new = Arc::new(view);
        let old = self
            .rows
            .insert(
                key.clone(),
                Row {
                    uid,
                    view: new.clone(),
                },
            )
            .map(|row| row.view);
        vec![RowChange {
            key,
            old,
            new: Some(new),
        }]
    }

    fn take(&mut self, object: &K::Object) -> Vec<Self::Change> {
        let key = key(object);
        let old = self.rows.remove(&key);
        old.map(|row| RowChange {
            key,
            old: Some(row.view),
            new: None,
        })
        .into_iter()
        .collect()
    }

    fn retain(&mut self, uids: &HashSet<String>) -> Vec<Self::Change> {
        let gone: Vec<String> = self
            .rows
            .iter()
            .filter(|(_, row)| !uids.contains(&row.uid))
            .map(|(key, _)| key.clone())
            .collect();
        let removed = |key: String| {
            let old = self.rows.remove(&key)?.view;
            Some(RowChange {
                key,
                old: Some(old),
                new: None,
            })
        };
        gone.into_iter().filter_map(removed).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    struct Names;

    impl Kind for Names {
        type Object = ConfigMap;
        type View = String;

        fn wants(&self, object: &ConfigMap) -> bool {
            object.metadata.name.as_deref() != Some("foreign")
        }

        fn view(&self, object: ConfigMap, before: Option<&String>) -> String {
            let value = object.data.and_then(|d| d.get("v").cloned()).unwrap_or_default();
            if value == "keep" {
                before.cloned().unwrap_or(value)
            } else {
                value
            }
        }
    }

    fn map(name: &str, uid: &str, value: &str) -> ConfigMap {
        let object: Value = json!({"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": "1"},
                                   "data": {"v": value}});
        serde_json::from_value(object).unwrap()
    }

    /// What is told, as `key old->new`, a `*` before what the first list found.
    async fn told(mirror: &Mirror<Table<Names>>, events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let mut lines = Vec::new();
        let events = futures::stream::iter(events.into_iter().map(Ok));
        mirror
            .follow(events, &Metrics::default(), |told| {
                lines.push(match told {
                    Told::Complete => "complete".to_owned(),
                    Told::Refused => "refused".to_owned(),
                    Told::Changed {
                        change: RowChange { key, old, new },
                        initial,
                    } => {
                        let show = |v: Option<Arc<String>>| v.map_or("-".to_owned(), |v| v.to_string());
                        format!(
                            "{}{key} {}->{}",
                            if initial { "*" } else { "" },
                            show(old),
                            show(new)
                        )
                    }
                });
            })
            .await;
        lines
    }

    #[tokio::test]
    async fn a_list_shows_what_came_and_what_went_while_nobody_watched() {
        let mirror = Mirror::new("names", Table::new(Names));
        let first = vec![
            Event::Init,
            Event::InitApply(map("a", "1", "x")),
            Event::InitApply(map("b", "2", "x")),
            Event::InitApply(map("foreign", "3", "x")),
            Event::InitDone,
        ];
        assert_eq!(told(&mirror, first).await, ["*n/a -->x", "*n/b -->x", "complete"]);
        let second = vec![
            Event::Init,
            Event::InitApply(map("b", "9", "x")),
            Event::InitApply(map("c", "4", "y")),
            Event::InitDone,
        ];
        assert_eq!(
            told(&mirror, second).await,
            ["n/b x->x", "n/c -->y", "n/a x->-", "complete"]
        );
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_removes_nothing() {
        let mirror = Mirror::new("names", Table::new(Names));
        let first = vec![Event::Init, Event::InitApply(map("a", "1", "x")), Event::InitDone];
        assert_eq!(told(&mirror, first).await.len(), 2);
        let broken = vec![Event::Init, Event::Init, Event::InitApply(map("b", "2", "x"))];
        assert_eq!(told(&mirror, broken).await, ["n/b -->x"]);
        assert!(mirror.read(|t| t.get("n/a").is_some()));
    }

    #[tokio::test]
    async fn a_refusal_is_told_once_and_ends_with_the_first_list() {
        let mirror = Mirror::new("names", Table::new(Names));
        let refused = |words: &str| {
            let status = kube::core::Status::failure(words, "Forbidden").with_code(403);
            Err(watcher::Error::InitialListFailed(kube::Error::Api(
                status.boxed(),
            )))
        };
        let mut lines = Vec::new();
        let mut follow = async |events: Vec<watcher::Result<Event<ConfigMap>>>| {
            let told = |told| lines.push(matches!(told, Told::Refused));
            mirror
                .follow(futures::stream::iter(events), &Metrics::default(), told)
                .await;
            mirror.refused()
        };
        let known = follow(vec![refused("no"), refused("no")]).await;
        assert_eq!(known.as_deref(), Some("no"));
        assert_eq!(follow(vec![Ok(Event::Init), Ok(Event::InitDone)]).await, None);
        // What was shown once is known, if not the newest.
        assert_eq!(follow(vec![refused("no")]).await, None);
        assert_eq!(lines, [true, false]);
    }

    #[tokio::test]
    async fn only_what_changed_is_told_and_deletions_are() {
        let mirror = Mirror::new("names", Table::new(Names));
        let events = vec![
            Event::Init,
            Event::InitDone,
            Event::Apply(map("a", "1", "x")),
            Event::Apply(map("a", "1", "keep")),
            Event::Apply(map("a", "1", "y")),
            Event::Delete(map("a", "1", "y")),
            Event::Delete(map("foreign", "7", "y")),
        ];
        assert_eq!(
            told(&mirror, events).await,
            ["complete", "n/a -->x", "n/a x->y", "n/a y->-"]
        );
        assert!(mirror.complete());
    }
}
