//! What goes wrong between a client and the server.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::call::Call;
use crate::refusal::Refusal;

/// What happens to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It never arrives, and never fails either.
    ParkBefore,
    /// It is carried out, and the answer never comes.
    ParkAfter,
    /// It is not carried out; this is the answer.
    Refuse(Refusal),
    /// It never arrives; the connection is reset.
    ResetBefore,
    /// It is carried out, and the connection is reset before the answer.
    ResetAfter,
    /// It is carried out, and the answer breaks off in the middle.
    Truncate,
}

/// Decides about each request of each client before it is carried out. It may wait: then the request waits.
pub type Gate = Arc<dyn Fn(&Call) -> BoxFuture<'static, Fault> + Send + Sync>;

/// Gate that lets everything pass.
pub(crate) fn open() -> Gate {
    Arc::new(|_| Box::pin(std::future::ready(Fault::Pass)))
}

/// How one client's view of the server is disturbed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disturbance {
    /// Nothing arrives any more, in both directions.
    pub(crate) cut: bool,
    /// Watches and reads of the cache are this many writes behind.
    pub(crate) lag: usize,
    /// Watches and reads of the cache see nothing newer than this version.
    pub(crate) frozen: Option<u64>,
    /// Numbers of watch events that are swallowed.
    pub(crate) dropped: BTreeSet<u64>,
    /// Watch events so far, swallowed ones included.
    pub(crate) delivered: u64,
    /// Requests so far.
    pub(crate) calls: u64,
    /// Counts up when all watches are to break.
    pub(crate) breaks: u64,
}
