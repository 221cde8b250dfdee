//! Watches: a stream of changes from a version on, for one client.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::{About, Call};
use crate::event;
use crate::list::covers;
use crate::refusal::Refusal;
use crate::select::Selection;
use crate::server::{Inner, State};
use crate::store::Change;

/// Without `timeoutSeconds` the real server picks between half an hour and an hour.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2400);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// An open watch.
pub(crate) struct Watch {
    inner: Arc<Inner>,
    changed: watch::Receiver<u64>,
    client: String,
    about: About,
    selection: Selection,
    bookmarks: bool,
    position: u64,
    pending: VecDeque<Value>,
    ends: Instant,
    bookmark_at: Instant,
    breaks: u64,
    done: bool,
}

enum Next {
    Frame(Value),
    Wait,
    Parked,
    Broken,
}

impl Watch {
    pub(crate) fn open(inner: &Arc<Inner>, call: &Call) -> Result<Self, Refusal> {
        let selection = Selection::parse(call.param("labelSelector"), call.param("fieldSelector"))?;
        let mut state = inner.lock();
        let head = state.visible(&call.client);
        let begin = call.param("resourceVersion").filter(|v| *v != "0");
        let initial = begin.is_none() || call.flag("sendInitialEvents");
        let mut pending = VecDeque::new();
        let mut position = head;
        if initial && call.param("sendInitialEvents") != Some("false") {
            for (key, object) in state.store.snapshot(head) {
                if key.resource == call.about.kind.resource
                    && covers(&call.about, &key.namespace)
                    && selection.matches(&object)
                {
                    pending.push_back(frame("ADDED", &call.about, Value::clone(&object)));
                }
            }
            if call.flag("sendInitialEvents") {
                let mut end = bookmark(&call.about, head);
                end["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                pending.push_back(end);
            }
        } else if let Some(begin) = begin {
            position = begin.parse().map_err(|_| {
                Refusal::bad_request(format!("Invalid value: {begin:?}: invalid resource version"))
            })?;
        }
        let oldest = state.store.compacted();
        if position < oldest {
            let gone = Refusal::expired(format!("too old resource version: {position} ({oldest})"));
            pending = VecDeque::from([json!({"type": "ERROR", "object": gone.body()})]);
        }
        let timeout = call
            .param("timeoutSeconds")
            .and_then(|t| t.parse().ok())
            .filter(|t| *t > 0);
        let now = Instant::now();
        let breaks = state.disturbance(&call.client).breaks;
        let done = position < oldest;
        drop(state);
        Ok(Self {
            inner: inner.clone(),
            changed: inner.changed(),
            client: call.client.clone(),
            about: call.about.clone(),
            selection,
            bookmarks: call.flag("allowWatchBookmarks"),
            position,
            pending,
            ends: now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            bookmark_at: now + BOOKMARK_EVERY,
            breaks,
            done,
        })
    }

    /// The body of the answer.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Some(Ok(frame)) => {
                    let mut line = frame.to_string().into_bytes();
                    line.push(b'\n');
                    Some((Ok(Bytes::from(line)), Some(watch)))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }

    async fn next(&mut self) -> Option<io::Result<Value>> {
        loop {
            self.changed.borrow_and_update();
            let next = self.poll();
            let parked = matches!(next, Next::Parked);
            match next {
                Next::Frame(frame) => return Some(Ok(frame)),
                Next::Broken => return Some(Err(io::ErrorKind::ConnectionReset.into())),
                Next::Wait if self.done => return None,
                Next::Wait | Next::Parked => {}
            }
            let wake = if self.bookmarks {
                self.bookmark_at.min(self.ends)
            } else {
                self.ends
            };
            tokio::select! {
                biased;
                more = self.changed.changed() => if more.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep_until(wake), if !parked => {
                    self.done = Instant::now() >= self.ends;
                    self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    if self.bookmarks {
                        return Some(Ok(bookmark(&self.about, self.position)));
                    }
                }
            }
        }
    }

    fn poll(&mut self) -> Next {
        let inner = self.inner.clone();
        let mut state = inner.lock();
        let disturbance = state.disturbance(&self.client);
        if disturbance.cut {
            return Next::Parked;
        }
        if disturbance.breaks != self.breaks {
            return Next::Broken;
        }
        if self.pending.is_empty() && !self.done {
            self.advance(&mut state);
        }
        while let Some(frame) = self.pending.pop_front() {
            let event = matches!(frame["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED"));
            let disturbance = state.disturbance(&self.client);
            let number = disturbance.delivered;
            disturbance.delivered += u64::from(event);
            if !event || !disturbance.dropped.contains(&number) {
                return Next::Frame(frame);
            }
        }
        Next::Wait
    }

    fn advance(&mut self, state: &mut State) {
        let head = state.visible(&self.client);
        for change in state.store.after(self.position) {
            if change.version > head {
                break;
            }
            self.position = change.version;
            if change.key.resource == self.about.kind.resource && covers(&self.about, &change.key.namespace) {
                self.pending.extend(self.event(change));
            }
        }
        self.position = self.position.max(head);
    }

    /// What this watch sees of a change: an object that no longer matches is gone for it.
    fn event(&self, change: &Change) -> Option<Value> {
        let before = change.before.as_ref().filter(|b| self.selection.matches(b));
        let now = !change.deleted && self.selection.matches(&change.after);
        match (before, now) {
            (None, false) => None,
            (None, true) => Some(frame("ADDED", &self.about, Value::clone(&change.after))),
            (Some(_), true) => Some(frame("MODIFIED", &self.about, Value::clone(&change.after))),
            (Some(before), false) => {
                let mut last = Value::clone(before);
                last["metadata"]["resourceVersion"] = change.after["metadata"]["resourceVersion"].clone();
                Some(frame("DELETED", &self.about, last))
            }
        }
    }
}

fn frame(kind: &str, about: &About, object: Value) -> Value {
    json!({"type": kind, "object": event::outgoing(&about.group, object)})
}

fn bookmark(about: &About, version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {
        "kind": about.kind.kind, "apiVersion": about.kind.api_version(),
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
    }})
}
