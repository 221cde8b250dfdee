//! The process's clock: the API server's time, carried on by the monotonic clock. Stamps in the cluster (start of a
//! drain, announcements, heartbeats) are written and compared by many hosts; the one clock that all of them can read is
//! the API server's, in the `Date` of each answer. So a host whose clock is wrong or is set fires no deadline (P7).
//!
//! Where API servers disagree, the slowest of them counts: what waits for a time then waits longer, never shorter, and the
//! clock stands still between answers of different servers instead of following each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{HeaderMap, Response, header};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tower::{Layer, Service};

/// A `Date` is cut to full seconds.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);
/// A deviation that is left alone. API servers of one cluster differ by less, and following each of them would be a
/// correction per answer.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
/// An answer that took longer says little about the time it was made, and comes after a pause of the process.
const LONGEST_ANSWER: SignedDuration = SignedDuration::from_secs(2);
/// The clock is set forward when every answer for so long was ahead of it. Longer than a node usually takes to settle, which
/// each correction makes void.
const ALL_AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// The clock. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    since: Instant,
    /// The time at `since`, never corrected.
    origin: Timestamp,
    correction: SignedDuration,
    corrections: u64,
    /// An answer was heard: the host's own time counts no more.
    heard: bool,
    /// Since when every answer was ahead, and by how much at least.
    ahead: Option<(Instant, SignedDuration)>,
}

/// The clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The time.
    pub now: Timestamp,
    /// How often the clock was corrected. Times read under different counts can't be compared.
    pub corrections: u64,
    /// The sum of the corrections.
    pub correction: SignedDuration,
}

impl Clock {
    /// A clock that shows `origin` now.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State {
            since: Instant::now(),
            origin,
            correction: SignedDuration::ZERO,
            corrections: 0,
            heard: false,
            ahead: None,
        })))
    }

    /// A clock that shows the host's time until the API server's is known.
    pub fn of_host() -> Self {
        Self::starting_at(Timestamp::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API server's time, as far as it is known.
    pub fn now(&self) -> Timestamp {
        self.state().now()
    }

    /// The time with the count of corrections it was read under.
    pub fn read(&self) -> Reading {
        let state = self.state();
        Reading {
            now: state.now(),
            corrections: state.corrections,
            correction: state.correction,
        }
    }

    /// A time that only ever runs on, for what is measured and paced within the process: a correction neither stalls a
    /// drain nor lets a burst through.
    pub fn steady(&self) -> Timestamp {
        self.state().steady()
    }

    /// The moment at which [`Self::steady`] shows `at`.
    pub fn steady_instant(&self, at: Timestamp) -> Instant {
        let wait = std::time::Duration::try_from(at.duration_since(self.steady())).unwrap_or_default();
        Instant::now() + wait
    }

    /// Takes over the `Date` of an answer to a request that was sent at `asked`.
    fn heard(&self, date: Timestamp, asked: Instant) {
        let mut state = self.state();
        let took = SignedDuration::try_from(asked.elapsed()).unwrap_or(SignedDuration::MAX);
        if took > LONGEST_ANSWER {
            return;
        }
        let now = state.now();
        // The server wrote the date between the question and now; only what is certainly wrong is corrected.
        let behind = date.duration_since(now);
        let ahead = (now - took).duration_since(date + RESOLUTION);
        let first = !std::mem::replace(&mut state.heard, true);
        let correction = if behind > TOLERANCE {
            let (since, least) = state.ahead.unwrap_or((Instant::now(), behind));
            let least = least.min(behind);
            let lasted = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::ZERO);
            if !first && lasted < ALL_AHEAD {
                state.ahead = Some((since, least));
                return;
            }
            least
        } else if ahead > TOLERANCE {
            -ahead
        } else {
            state.ahead = None;
            return;
        };
        state.ahead = None;
        state.correction = state.correction.saturating_add(correction);
        state.corrections += 1;
        let word = if correction.is_negative() {
            "ahead of"
        } else {
            "behind"
        };
        tracing::warn!(
            seconds = correction.abs().as_secs(),
            "this host's clock is {word} the API server's; the API server's counts"
        );
    }
}

impl State {
    fn steady(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.origin.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    fn now(&self) -> Timestamp {
        self.steady()
            .saturating_add(self.correction)
            .unwrap_or(Timestamp::MAX)
    }
}

/// Sets the clock by the answers that pass through a client.
#[derive(Clone, Debug)]
pub struct SetByAnswers(pub Clock);

impl<S> Layer<S> for SetByAnswers {
    type Service = Listening<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Listening {
            inner,
            clock: self.0.clone(),
        }
    }
}

/// See [`SetByAnswers`].
#[derive(Clone, Debug)]
pub struct Listening<S> {
    inner: S,
    clock: Clock,
}

impl<S, R, B> Service<R> for Listening<S>
where
    S: Service<R, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (clock, asked) = (self.clock.clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(date) = date(answer.headers()) {
                clock.heard(date, asked);
            }
            Ok(answer)
        })
    }
}

/// `Date` (RFC 9110 6.6.1); an obsolete form or none at all tells nothing.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::Request;
    use tokio::time::advance;
    use tower::{ServiceBuilder, ServiceExt};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn passed(clock: &Clock) -> i64 {
        clock.now().duration_since(at(0)).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_with_the_monotonic_clock() {
        let clock = Clock::starting_at(at(0));
        advance(Duration::from_secs(7)).await;
        assert_eq!((clock.now(), clock.steady()), (at(7), at(7)));
        assert_eq!(
            clock.steady_instant(at(10)) - Instant::now(),
            Duration::from_secs(3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_certainly_wrong_is_corrected_and_says_so() {
        let clock = Clock::starting_at(at(0));
        let before = clock.read();
        clock.heard(at(3600), Instant::now());
        assert_eq!((passed(&clock), clock.steady()), (3600, at(0)));
        assert_eq!(clock.read().corrections, before.corrections + 1);
        // Back again: as far as is certain, a date being cut to the second.
        clock.heard(at(0), Instant::now());
        assert_eq!(passed(&clock), 1);
        assert_eq!(clock.read().correction, SignedDuration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn of_servers_that_disagree_the_slowest_counts() {
        for order in [[0, 20], [20, 0]] {
            let clock = Clock::starting_at(at(0));
            let mut last = None;
            for round in 0..600 {
                for skew in order {
                    clock.heard(at(round + skew), Instant::now());
                }
                let reading = clock.read();
                assert!(last.is_none_or(|l| l < reading.now), "{order:?}: it went back");
                assert!(reading.corrections <= 2, "{order:?}: it follows each answer");
                assert!((round..=round + 6).contains(&passed(&clock)), "{order:?}");
                last = Some(reading.now);
                advance(Duration::from_secs(1)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_all_servers_are_ahead_of_follows_after_a_while() {
        let clock = Clock::starting_at(at(0));
        clock.heard(at(0), Instant::now());
        for minute in 0..5 {
            clock.heard(at(60 * minute + 3600), Instant::now());
            clock.heard(at(60 * minute + 30), Instant::now());
            assert_eq!((passed(&clock), clock.read().corrections), (60 * minute, 0));
            advance(Duration::from_secs(60)).await;
        }
        clock.heard(at(300 + 3600), Instant::now());
        assert_eq!(
            (passed(&clock), clock.read().corrections),
            (330, 1),
            "the least of them"
        );
        // One that agrees is enough to wait anew.
        clock.heard(at(331), Instant::now());
        advance(Duration::from_secs(299)).await;
        clock.heard(at(9999), Instant::now());
        assert_eq!(clock.read().corrections, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_differ_a_little_set_nothing() {
        let clock = Clock::starting_at(at(10));
        for seconds in [5, 15, 4] {
            clock.heard(at(seconds), Instant::now());
            assert_eq!(clock.read().corrections, 0, "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_lay_about_says_nothing() {
        let clock = Clock::starting_at(at(0));
        let asked = Instant::now();
        advance(Duration::from_secs(60)).await;
        // Written right after the question, read after the process had been paused.
        clock.heard(at(0), asked);
        assert_eq!((passed(&clock), clock.read().corrections), (60, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn every_answer_is_listened_to() {
        let clock = Clock::starting_at(at(0));
        let server = tower::service_fn(|date: Request<&'static str>| async move {
            Ok::<_, Infallible>(
                Response::builder()
                    .header("date", date.into_body())
                    .body(())
                    .unwrap(),
            )
        });
        let client = ServiceBuilder::new()
            .layer(SetByAnswers(clock.clone()))
            .service(server);
        for unreadable in ["", "yesterday"] {
            client.clone().oneshot(Request::new(unreadable)).await.unwrap();
            assert_eq!(clock.read().corrections, 0);
        }
        client
            .oneshot(Request::new("Fri, 15 Jan 2027 09:00:00 GMT"))
            .await
            .unwrap();
        assert_eq!(clock.now(), "2027-01-15T09:00:00Z".parse().unwrap());
    }
}
