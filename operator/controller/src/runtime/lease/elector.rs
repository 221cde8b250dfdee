//! Carries out the rules against the API server.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use vnp_plan::observed::Term;
use vnp_plan::refuser::Refuser;

use super::election::{Attempt, Election};
use super::{Claim, LEASE_NAME, LeaseLost, Timing};
use crate::runtime::clock::Clock;
use crate::runtime::jitter::{random, spread};

/// Takes, holds and hands over the lease.
pub struct Elector {
    api: Api<Lease>,
    election: Election,
    claim: Claim,
    clock: Clock,
}

/// An attempt that failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refused or could not be reached.
    #[error("the Lease {LEASE_NAME} can't be read or written")]
    Api(#[from] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer in time about the Lease {LEASE_NAME}")]
    Timeout,
}

/// How others are told apart from earlier runs on the same host: each process is a term of its own.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty());
    format!("{}_{:016x}", host.as_deref().unwrap_or("vnp-operator"), random())
}

impl Elector {
    /// For the Lease in `namespace`; `fast` is the client that does not retry.
    pub fn new(fast: Client, namespace: &str, timing: Timing, clock: Clock) -> Self {
        let election = Election::new(identity(), namespace.to_owned(), timing);
        Self {
            api: Api::namespaced(fast, namespace),
            election,
            claim: Claim::vacant(),
            clock,
        }
    }

    /// The claim; void until [`Self::acquire`] has returned.
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// The term of the claim.
    pub fn term(&self) -> Term {
        Term {
            transitions: self.election.transitions(),
            installation: self.election.namespace().to_owned(),
            leader: self.election.identity().to_owned(),
        }
    }

    /// What this process is called in the Lease.
    pub fn identity(&self) -> &str {
        self.election.identity()
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        let period = self.election.timing().retry_period;
        let mut told = None;
        loop {
            match self.bounded_try().await {
                Ok(true) => {
                    tracing::info!(
                        identity = self.election.identity(),
                        transitions = self.election.transitions(),
                        "this process leads"
                    );
                    return;
                }
                Ok(false) => {
                    let holder = self.election.holder().map(ToOwned::to_owned);
                    if holder != told {
                        tracing::info!(
                            holder = holder.as_deref().unwrap_or("nobody"),
                            "waiting for the leader lease"
                        );
                        told = holder;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "leader lease not taken")
                }
            }
            // Spread, so that candidates which started together do not meet again and again.
            sleep(spread(period, 0.2)).await;
        }
    }

    /// Renews the lease until it is lost. It is safe to drop in the middle.
    pub async fn hold(&mut self) -> LeaseLost {
        let period = self.election.timing().retry_period;
        loop {
            sleep(period).await;
            match self.bounded_try().await {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    holder = self.election.holder(),
                    "the leader lease has another holder, or was deleted"
                ),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "leader lease not renewed"
                ),
            }
            match self.election.acts_until() {
                Some(until) if Instant::now() < until => {}
                _ => {
                    self.claim.revoke();
                    return LeaseLost;
                }
            }
        }
    }

    /// Ends the claim and hands the lease over, so that the next leader need not wait for it to run out.
    ///
    /// # Errors
    /// [`LeaseError`]: then it runs out by itself.
    pub async fn release(mut self) -> Result<(), LeaseError> {
        self.claim.revoke();
        // Read first: a renewal that was cut off may have gone through.
        let lease = self.api.get_opt(LEASE_NAME).await?;
        self.election.read(lease, Instant::now());
        if let Some(lease) = self.election.release(self.clock.now()) {
            self.api
                .replace(LEASE_NAME, &PostParams::default(), &lease)
                .await?;
            tracing::info!("leader lease handed over");
        }
        Ok(())
    }

    async fn bounded_try(&mut self) -> Result<bool, LeaseError> {
        let limit = self.election.timing().renew_deadline / 2;
        timeout(limit, self.try_once())
            .await
            .map_err(|_| LeaseError::Timeout)?
    }

    /// One attempt: replace what is known to be ours, or read and then write if it can be had.
    async fn try_once(&mut self) -> Result<bool, LeaseError> {
        if self.election.acts_until().is_none() {
            self.read().await?;
        }
        if self.write().await? {
            return Ok(true);
        }
        // What we knew was stale. A read and a second try cost less than waiting for the next period.
        self.read().await?;
        self.write().await
    }

    async fn read(&mut self) -> Result<(), LeaseError> {
        let lease = self.api.get_opt(LEASE_NAME).await?;
        self.election.read(lease, Instant::now());
        Ok(())
    }

    /// Whether the lease was written and is ours.
    async fn write(&mut self) -> Result<bool, LeaseError> {
        let sent = Instant::now();
        let params = PostParams::default();
        let answer = match self.election.attempt(sent, self.clock.now()) {
            Attempt::Wait => return Ok(false),
            Attempt::Create(lease) => self.api.create(&params, &lease).await,
            Attempt::Replace(lease) => self.api.replace(LEASE_NAME, &params, &lease).await,
        };
        match answer {
            Ok(lease) => {
                self.election.written(lease, sent);
                if let Some(until) = self.election.acts_until() {
                    self.claim.extend(until);
                }
                Ok(true)
            }
            // 409 on create: somebody was faster; on replace: it changed. 404: it was deleted. Not so when a webhook chose
            // the code.
            Err(kube::Error::Api(status))
                if matches!(status.code, 404 | 409) && Refuser::of(&status.message).is_none() =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::advance;

    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    /// An API server with one Lease, which keeps the rules of resourceVersion.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Store>>);

    #[derive(Default)]
    struct Store {
        lease: Option<Value>,
        version: u64,
        down: bool,
        /// A webhook refuses writes with that code.
        refuses: Option<u16>,
    }

    impl Server {
        fn elector(&self) -> Elector {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let method = request.method().clone();
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let (code, answer) = server.answer(&method, serde_json::from_slice(&body).ok());
                    let body = Body::from(answer.to_string().into_bytes());
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
            });
            Elector::new(Client::new(service, "ops"), "ops", TIMING, Clock::of_host())
        }

        fn answer(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
            let mut store = self.0.lock().unwrap();
            let failure = |code: u16| {
                let reason = match code {
                    404 => "NotFound",
                    409 => "Conflict",
                    _ => "InternalError",
                };
                (
                    code,
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": ""}),
                )
            };
            if store.down {
                return failure(500);
            }
            if let Some(code) = store.refuses.filter(|_| method != Method::GET) {
                let (code, mut refusal) = failure(code);
                refusal["message"] = json!("admission webhook \"guard\" denied the request: no");
                return (code, refusal);
            }
            match (method, body, store.lease.clone()) {
                (&Method::GET, _, None) => return failure(404),
                (&Method::GET, _, Some(lease)) => return (200, lease),
                (&Method::POST, _, Some(_)) => return failure(409),
                (&Method::POST, Some(mut body), None) => {
                    body["metadata"]["uid"] = json!(format!("lease-{}", store.version));
                    store.lease = Some(body);
                }
                (&Method::PUT, _, None) => return failure(404),
                (&Method::PUT, Some(body), Some(known)) => {
                    if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
                        return failure(409);
                    }
                    store.lease = Some(body);
                }
                other => panic!("{other:?}"),
            }
            store.version += 1;
            let version = store.version.to_string();
            let lease = store.lease.as_mut().unwrap();
            lease["metadata"]["resourceVersion"] = json!(version);
            (200, lease.clone())
        }

        fn delete(&self) {
            self.0.lock().unwrap().lease = None;
        }

        fn down(&self, down: bool) {
            self.0.lock().unwrap().down = down;
        }

        fn holder(&self) -> Value {
            self.0.lock().unwrap().lease.as_ref().unwrap()["spec"]["holderIdentity"].clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_reaches_nobody_stops_before_the_lease_can_be_taken() {
        let server = Server::default();
        let mut a = server.elector();
        a.acquire().await;
        let claim = a.claim();
        assert_eq!(claim.check(), Ok(()));
        assert!(
            tokio::time::timeout(Duration::from_secs(120), a.hold())
                .await
                .is_err(),
            "renewed as long as it lives"
        );
        assert_eq!(claim.check(), Ok(()));

        server.down(true);
        let began = Instant::now();
        assert_eq!(a.hold().await, LeaseLost);
        assert!(
            began.elapsed() <= TIMING.renew_deadline + TIMING.retry_period,
            "{:?}",
            began.elapsed()
        );
        assert_eq!(claim.check(), Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_refuses_the_lease_is_no_other_leader() {
        for code in [404, 409] {
            let server = Server::default();
            server.0.lock().unwrap().refuses = Some(code);
            let answer = server.elector().try_once().await;
            assert!(matches!(answer, Err(LeaseError::Api(_))), "{code}: {answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_ends_by_itself_even_if_nobody_looks_after_it() {
        let mut a = Server::default().elector();
        a.acquire().await;
        let claim = a.claim();
        advance(TIMING.renew_deadline - Duration::from_millis(1)).await;
        assert_eq!(claim.check(), Ok(()));
        advance(Duration::from_millis(1)).await;
        assert_eq!(claim.check(), Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_leader_finds_its_lease_taken() {
        let server = Server::default();
        let (mut a, mut b) = (server.elector(), server.elector());
        a.acquire().await;
        let began = Instant::now();
        b.acquire().await;
        assert!(began.elapsed() >= TIMING.duration);
        assert_eq!((b.claim().check(), b.term().transitions), (Ok(()), 1));
        assert_eq!(a.claim().check(), Err(LeaseLost));
        assert_eq!(a.hold().await, LeaseLost);
        assert_eq!(server.holder(), json!(b.identity()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handed_over_lease_is_taken_without_waiting() {
        let server = Server::default();
        let (mut a, mut b) = (server.elector(), server.elector());
        a.acquire().await;
        let claim = a.claim();
        a.release().await.unwrap();
        assert_eq!(claim.check(), Err(LeaseLost));
        assert_eq!(server.holder(), json!(""));
        let began = Instant::now();
        b.acquire().await;
        assert!(began.elapsed() < TIMING.retry_period);
        assert_eq!(b.term().transitions, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_lease_is_not_made_again_by_the_leader_that_lost_it() {
        let server = Server::default();
        let (mut a, mut b) = (server.elector(), server.elector());
        a.acquire().await;
        server.delete();
        let lost = tokio::time::timeout(Duration::from_secs(60), a.hold()).await;
        assert_eq!(lost, Ok(LeaseLost), "others may have led in the meantime");
        assert_eq!(a.claim().check(), Err(LeaseLost));
        b.acquire().await;
        assert_eq!((a.term().transitions, b.term().transitions), (0, 0));
        assert_ne!(a.term(), b.term());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_made_anew_is_not_taken_for_the_one_before() {
        let server = Server::default();
        let (mut first, mut a, mut b) = (server.elector(), server.elector(), server.elector());
        first.acquire().await;
        first.release().await.unwrap();
        a.acquire().await;
        assert_eq!(a.term().transitions, 1);
        // While it is paused, the Lease is deleted, and another process leads by the new one and hands it over.
        server.delete();
        b.acquire().await;
        b.release().await.unwrap();
        // Its count would be 1 again.
        assert_eq!(a.hold().await, LeaseLost);
        assert_eq!(a.claim().check(), Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_another_holds_is_not_released() {
        let server = Server::default();
        let (mut a, mut b) = (server.elector(), server.elector());
        a.acquire().await;
        b.acquire().await;
        a.release().await.unwrap();
        assert_eq!(server.holder(), json!(b.identity()));
    }
}
