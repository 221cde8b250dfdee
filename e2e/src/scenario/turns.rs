//! Which scenario runs when, and on which environment.

use anyhow::Result;
use tokio::sync::{Mutex, MutexGuard, OnceCell, Semaphore, SemaphorePermit};

use crate::environment::{Environment, EnvironmentOptions};

/// Scenarios mostly wait: for settles, graces and deadlines. Two of them keep two cores half busy, more of them would
/// test the machine.
const AT_A_TIME: u32 = 2;

type Lane = Mutex<OnceCell<Environment>>;

/// The environments that the tests of one binary share. They end with the process.
static LANES: [Lane; AT_A_TIME as usize] =
    [const { Mutex::const_new(OnceCell::const_new()) }; AT_A_TIME as usize];

/// As many as there are lanes: who has one finds a lane that is free.
static PERMITS: Semaphore = Semaphore::const_new(AT_A_TIME as usize);

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    // The order matters: the lane is free before the permit is.
    lane: MutexGuard<'static, OnceCell<Environment>>,
    _permit: SemaphorePermit<'static>,
}

impl Turn {
    /// Beside others.
    pub(super) async fn beside_others() -> Result<Self> {
        Self::take(1).await
    }

    /// While no other scenario of this binary runs: for those that measure, or that take all there is.
    pub(super) async fn alone() -> Result<Self> {
        Self::take(AT_A_TIME).await
    }

    async fn take(permits: u32) -> Result<Self> {
        let permit = PERMITS.acquire_many(permits).await?;
        let mut free = LANES.iter().filter_map(|lane| lane.try_lock().ok());
        let lane = match free.next() {
            Some(lane) => lane,
            None => anyhow::bail!("a permit, and no lane that is free"),
        };
        Ok(Self {
            lane,
            _permit: permit,
        })
    }

    /// The environment of this turn's lane.
    ///
    /// # Errors
    /// As [`Environment::start`]; the next one to come tries again.
    pub(super) async fn environment(&self) -> Result<&Environment> {
        let start = || Environment::start(EnvironmentOptions::default());
        self.lane.get_or_try_init(start).await
    }
}
