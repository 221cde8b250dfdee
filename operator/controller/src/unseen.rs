//! What no pass can say: pools that can't be read, pools for which a cache never came, and watches that begin to fail, which
//! wake nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::pool::{Broken, PoolLoop};

/// How often it is looked for. Nothing is asked of the API server for it.
const EVERY: Duration = Duration::from_secs(5);

impl PoolLoop {
    /// Says it until `stop` says true.
    ///
    /// # Errors
    /// None; it is one of the loops.
    pub async fn tell_the_unseen(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<(), Broken> {
        let mut failing = BTreeSet::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                () = sleep(EVERY) => {}
            }
            let now_failing = self.cluster.failing_watches();
            if now_failing != failing {
                failing = now_failing;
                self.cluster.wake_all();
            }
            self.reporter
                .unseen(self.cluster.unseen(), self.cluster.clock.now())
                .await;
        }
    }
}
