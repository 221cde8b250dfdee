//! One fold from a watch into a map, for every kind. kube's reflector is not used because it tells nobody of deletions
//! and keeps whole objects.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use vnp_plan::observed::Flaw;

use super::read::{Read, Unreadable};
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
    /// Adds or replaces an object that can't be read, as the worst that it may be. `None` when it does not concern us.
    fn put_unreadable(&mut self, object: &Unreadable) -> Option<Vec<Self::Change>>;
    /// Removes such an object.
    fn take_unreadable(&mut self, object: &Unreadable) -> Vec<Self::Change>;
}

/// Failures of a watch in a row.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

/// A watch that has failed for so long does not come back by itself.
pub const FAILS_FOR_GOOD: Duration = Duration::from_secs(60);
/// Failures that are further apart have something between them that worked: the longest pause between two tries is 30 s,
/// and a call takes its time.
const IN_A_ROW: Duration = Duration::from_secs(90);

/// What a watch keeps up to date.
#[derive(Debug)]
pub struct Mirror<S> {
    kind: &'static str,
    shelf: RwLock<S>,
    /// By UID.
    flaws: RwLock<BTreeMap<String, Flaw>>,
    failing: RwLock<Option<Failing>>,
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
            flaws: RwLock::default(),
            failing: RwLock::default(),
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

    /// How long the watch has failed without a break, and how it failed last.
    pub fn failing(&self) -> Option<(Duration, String)> {
        let failing = self.failing.read().unwrap_or_else(PoisonError::into_inner);
        let failing = failing.as_ref().filter(|f| f.last.elapsed() < IN_A_ROW)?;
        Some((failing.since.elapsed(), failing.error.clone()))
    }

    fn failed(&self, error: &watcher::Error) {
        // The outermost words only say that a watch failed.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let (now, error) = (Instant::now(), cause.to_string());
        let mut failing = self.failing.write().unwrap_or_else(PoisonError::into_inner);
        let since = failing
            .as_ref()
            .filter(|f| f.last.elapsed() < IN_A_ROW)
            .map(|f| f.since);
        *failing = Some(Failing {
            since: since.unwrap_or(now),
            last: now,
            error,
        });
    }

    /// The objects that are there and can't be read.
    pub fn flaws(&self) -> Vec<Flaw> {
        let flaws = self.flaws.read().unwrap_or_else(PoisonError::into_inner);
        flaws.values().cloned().collect()
    }

    /// The same by UID.
    pub fn flaws_by_uid(&self) -> BTreeMap<String, Flaw> {
        self.flaws.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fold(
        &self,
        fresh: &mut HashSet<String>,
        event: Event<Read<S::Object>>,
        metrics: &Metrics,
    ) -> Vec<S::Change> {
        match event {
            Event::Init => {
                fresh.clear();
                Vec::new()
            }
            Event::InitApply(Read::Object(object)) => {
                self.readable(&object, metrics);
                if self.read(|s| s.wants(&object)) {
                    fresh.extend(object.meta().uid.clone());
                    self.write(|s| s.put(object))
                } else {
                    Vec::new()
                }
            }
            Event::InitApply(Read::Unreadable(object)) => {
                fresh.extend(object.metadata.uid.clone());
                self.unreadable(&object, metrics)
            }
            // What a list does not show is gone, also when nobody watched it go.
            Event::InitDone => {
                let fresh = std::mem::take(fresh);
                self.keep_flaws(metrics, |uid| fresh.contains(uid));
                self.write(|s| s.retain(&fresh))
            }
            Event::Apply(Read::Object(object)) if self.read(|s| s.wants(&object)) => {
                self.readable(&object, metrics);
                self.write(|s| s.put(object))
            }
            Event::Apply(Read::Object(object)) | Event::Delete(Read::Object(object)) => {
                self.readable(&object, metrics);
                self.write(|s| s.take(&object))
            }
            Event::Apply(Read::Unreadable(object)) => self.unreadable(&object, metrics),
            Event::Delete(Read::Unreadable(object)) => {
                let uid = object.metadata.uid.as_deref().unwrap_or_default();
                self.keep_flaws(metrics, |known| known != uid);
                self.write(|s| s.take_unreadable(&object))
            }
        }
    }

    /// Takes an object that can't be read for the worst that it may be.
    fn unreadable(&self, object: &Unreadable, metrics: &Metrics) -> Vec<S::Change> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let Some(changes) = self.write(|s| s.put_unreadable(object)) else {
            self.keep_flaws(metrics, |known| *known != uid);
            return Vec::new();
        };
        let (key, error) = (object.key(), object.error.clone());
        let mut flaws = self.flaws.write().unwrap_or_else(PoisonError::into_inner);
        let kind = self.kind;
        let flaw = Flaw { kind, key, error };
        if flaws.get(&uid) != Some(&flaw) {
            tracing::warn!(
                kind = self.kind,
                object = flaw.key,
                error = flaw.error,
                "an object can't be read"
            );
        }
        if flaws.insert(uid, flaw).is_none() {
            metrics.unreadable(self.kind, 1);
        }
        changes
    }

    fn readable(&self, object: &S::Object, metrics: &Metrics) {
        let none = self
            .flaws
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty();
        if let Some(uid) = object.meta().uid.as_deref().filter(|_| !none) {
            self.keep_flaws(metrics, |known| known != uid);
        }
    }

    fn keep_flaws(&self, metrics: &Metrics, keep: impl Fn(&str) -> bool) {
        let mut flaws = self.flaws.write().unwrap_or_else(PoisonError::into_inner);
        let before = flaws.len();
        flaws.retain(|uid, _| keep(uid));
        let gone = i64::try_from(before - flaws.len()).unwrap_or(i64::MAX);
        if gone > 0 {
            metrics.unreadable(self.kind, -gone);
        }
    }

    /// Follows a watch for as long as it lasts, and tells of changes. Errors are waited out with growing pauses.
    pub async fn follow(
        &self,
        events: impl Stream<Item = watcher::Result<Event<Read<S::Object>>>> + Send,
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
                    self.failed(&error);
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
            // A list begins before it is answered.
            if !matches!(event, Event::Init) {
                self.failing
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
            }
            let done = matches!(event, Event::InitDone);
            for change in self.fold(&mut fresh, event, metrics) {
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
    api: Api<Read<K>>,
    fields: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<Read<K>>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
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
    /// What stands for an object that can't be read.
    fn worst(&self, _: &Unreadable) -> Worst<Self::View> {
        Worst::AsBefore
    }
}

/// What stands for an object that can't be read.
#[derive(Debug)]
pub enum Worst<V> {
    /// It does not concern us.
    Foreign,
    /// What it was when it could be read last, if it ever could: nothing is worse.
    AsBefore,
    /// This.
    View(V),
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

impl<K: Kind> Table<K> {
    fn replace(&mut self, key: String, uid: String, view: K::View) -> Vec<RowChange<K::View>> {
        if self
            .rows
            .get(&key)
            .is_some_and(|row| row.uid == uid && *row.view == view)
        {
            return Vec::new();
        }
        let new = Arc::new(view);
        let row = Row {
            uid,
            view: new.clone(),
        };
        let old = self.rows.insert(key.clone(), row).map(|row| row.view);
        vec![RowChange {
            key,
            old,
            new: Some(new),
        }]
    }

    fn remove(&mut self, key: String) -> Vec<RowChange<K::View>> {
        let old = self.rows.remove(&key);
        let change = old.map(|row| RowChange {
            key,
            old: Some(row.view),
            new: None,
        });
        change.into_iter().collect()
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
        self.replace(key, uid, view)
    }

    fn take(&mut self, object: &K::Object) -> Vec<Self::Change> {
        self.remove(key(object))
    }

    fn put_unreadable(&mut self, object: &Unreadable) -> Option<Vec<Self::Change>> {
        match self.kind.worst(object) {
            Worst::Foreign => None,
            Worst::AsBefore => Some(Vec::new()),
            Worst::View(view) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                Some(self.replace(object.key(), uid, view))
            }
        }
    }

    fn take_unreadable(&mut self, object: &Unreadable) -> Vec<Self::Change> {
        self.remove(object.key())
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
        let events = events.into_iter().map(|event| match event {
            Event::Apply(object) => Event::Apply(object.into()),
            Event::Delete(object) => Event::Delete(object.into()),
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(object.into()),
            Event::InitDone => Event::InitDone,
        });
        told_read(mirror, events.collect()).await
    }

    async fn told_read(mirror: &Mirror<Table<Names>>, events: Vec<Event<Read<ConfigMap>>>) -> Vec<String> {
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

    fn bad(name: &str, uid: &str) -> Read<ConfigMap> {
        let object = json!({"metadata": {"namespace": "n", "name": name, "uid": uid}, "data": 7});
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[tokio::test]
    async fn one_bad_object_stops_no_cache_and_is_known_until_it_is_mended_or_gone() {
        let mirror = Mirror::new("names", Table::new(Names));
        let flawed = || mirror.flaws().into_iter().map(|f| f.key).collect::<Vec<_>>();
        let first = vec![
            Event::Init,
            Event::InitApply(map("a", "1", "x").into()),
            Event::InitApply(bad("b", "2")),
            Event::InitApply(map("c", "3", "x").into()),
            Event::InitDone,
        ];
        assert_eq!(
            told_read(&mirror, first).await,
            ["*n/a -->x", "*n/c -->x", "complete"]
        );
        assert_eq!(flawed(), ["n/b"]);
        // What could be read before stays as it was, through a list too.
        let second = vec![
            Event::Apply(bad("a", "1")),
            Event::Init,
            Event::InitApply(bad("a", "1")),
            Event::InitApply(map("b", "2", "y").into()),
            Event::InitDone,
        ];
        assert_eq!(
            told_read(&mirror, second).await,
            ["n/b -->y", "n/c x->-", "complete"]
        );
        assert_eq!(flawed(), ["n/a"]);
        assert!(mirror.read(|t| t.get("n/a").is_some()));
        assert_eq!(
            told_read(&mirror, vec![Event::Delete(bad("a", "1"))]).await,
            ["n/a x->-"]
        );
        assert!(flawed().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_for_ever_is_known_with_its_cause_until_something_works() {
        let mirror = Mirror::new("names", Table::new(Names));
        let follow = async |events: Vec<watcher::Result<Event<Read<ConfigMap>>>>| {
            mirror
                .follow(futures::stream::iter(events), &Metrics::default(), |_| {})
                .await;
        };
        let fail = || {
            let status = kube::core::Status::failure("configmaps is forbidden", "Forbidden").with_code(403);
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
        };
        follow(vec![fail()]).await;
        tokio::time::advance(Duration::from_secs(80)).await;
        follow(vec![fail(), Ok(Event::Init)]).await;
        let (long, error) = mirror.failing().unwrap();
        assert!(
            long >= FAILS_FOR_GOOD && error.contains("configmaps is forbidden"),
            "{error}"
        );
        // A watch that works again may have nothing to tell.
        tokio::time::advance(IN_A_ROW).await;
        assert!(mirror.failing().is_none());
        follow(vec![fail()]).await;
        assert_eq!(mirror.failing().unwrap().0, Duration::ZERO);
        follow(vec![Ok(Event::InitDone)]).await;
        assert!(mirror.failing().is_none());
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
        let mut follow = async |events: Vec<watcher::Result<Event<Read<ConfigMap>>>>| {
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
