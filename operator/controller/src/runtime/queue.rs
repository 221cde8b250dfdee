//! Which keys are due for a pass, and when. A key is in work at most once at a time; being woken meanwhile makes it due
//! again afterwards.
//!
//! kube's Controller is not used for this: its triggers come from streams that swallow deletions of shared kinds, and it
//! knows neither "not before" for errors nor a pause of one key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Due keys, shared by everyone who wakes and the one loop that works. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    debounce: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: BTreeMap<String, Instant>,
    /// After an error: not before this, whatever wakes the key.
    held: BTreeMap<String, Instant>,
    working: BTreeSet<String>,
}

impl State {
    /// The key that is due first, leaving out those in work.
    fn first(&self) -> Option<(&String, Instant)> {
        let due = self.due.iter().filter(|(key, _)| !self.working.contains(*key));
        due.map(|(key, at)| (key, self.held.get(key).map_or(*at, |held| *at.max(held))))
            .min_by_key(|(_, at)| *at)
    }
}

impl Queue {
    /// A queue that waits `debounce` after a wake for others to join it.
    pub fn new(debounce: Duration) -> Self {
        Self(Arc::new(Inner {
            debounce,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that concerns `key`.
    pub fn wake(&self, key: &str) {
        self.wake_at(key, Instant::now() + self.0.debounce);
    }

    /// `key` wants to be looked at then, or earlier if that is known already.
    pub fn wake_at(&self, key: &str, at: Instant) {
        let mut state = self.state();
        match state.due.get_mut(key) {
            Some(known) if *known <= at => return,
            Some(known) => *known = at,
            None => drop(state.due.insert(key.to_owned(), at)),
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// No pass for `key` before `until`, whatever wakes it.
    pub fn hold(&self, key: &str, until: Instant) {
        self.state().held.insert(key.to_owned(), until);
    }

    /// Waits for the next key that is due and takes it into work, until [`Self::done`].
    pub async fn next(&self) -> String {
        loop {
            let at = {
                let mut state = self.state();
                match state.first().map(|(key, at)| (key.clone(), at)) {
                    Some((key, at)) if at <= Instant::now() => {
                        state.due.remove(&key);
                        state.held.remove(&key);
                        state.working.insert(key.clone());
                        return key;
                    }
                    found => found.map(|(_, at)| at),
                }
            };
            match at {
                None => self.0.changed.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.0.changed.notified() => {}
                    }
                }
            }
        }
    }

    /// The work on `key` has ended.
    pub fn done(&self, key: &str) {
        self.state().working.remove(key);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(100);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    async fn next_within(queue: &Queue, limit: u64) -> Option<String> {
        timeout(millis(limit), queue.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_within_the_debounce_are_one() {
        let queue = Queue::new(DEBOUNCE);
        queue.wake("a");
        advance(millis(50)).await;
        queue.wake("a");
        assert_eq!(next_within(&queue, 60).await.as_deref(), Some("a"));
        queue.done("a");
        assert_eq!(next_within(&queue, 10_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_is_not_handed_out_again_before_it_is_done() {
        let queue = Queue::new(DEBOUNCE);
        queue.wake("a");
        queue.next().await;
        queue.wake("a");
        assert_eq!(next_within(&queue, 10_000).await, None);
        queue.wake("b");
        assert_eq!(
            next_within(&queue, 200).await.as_deref(),
            Some("b"),
            "others go on"
        );
        queue.done("a");
        assert_eq!(
            next_within(&queue, 1).await.as_deref(),
            Some("a"),
            "the wake meanwhile is not lost"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_key_waits_whatever_wakes_it() {
        let queue = Queue::new(DEBOUNCE);
        queue.hold("a", Instant::now() + millis(5000));
        queue.wake("a");
        assert_eq!(next_within(&queue, 4900).await, None);
        assert_eq!(next_within(&queue, 200).await.as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = Queue::new(DEBOUNCE);
        queue.wake_at("a", Instant::now() + millis(300_000));
        queue.wake("a");
        assert_eq!(next_within(&queue, 200).await.as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_loop_hears_of_an_earlier_key() {
        let queue = Queue::new(DEBOUNCE);
        queue.wake_at("late", Instant::now() + millis(60_000));
        let waker = queue.clone();
        let waiting = tokio::spawn(async move { queue.next().await });
        tokio::task::yield_now().await;
        waker.wake("soon");
        assert_eq!(waiting.await.unwrap(), "soon");
    }
}
