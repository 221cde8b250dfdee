//! What the overflow loop is woken by, and whether the operator may do its work.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vnp_plan::observed::Right;

use super::cluster::Cluster;
use crate::runtime::queue::Queue;

/// A burst of pods is refused by the scheduler one after the other. The first of them should not wait for the last.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Pods that may go to virtual nodes.
#[derive(Debug)]
pub struct Overflow {
    /// Wakes the overflow loop, by pool name.
    pub queue: Queue,
    right: Mutex<Right>,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            queue: Queue::new(DEBOUNCE),
            right: Mutex::default(),
        }
    }
}

impl Overflow {
    /// Whether the operator may patch pods.
    pub fn right(&self) -> Right {
        *self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// It was found out whether the operator may patch pods: every pool with such a rule has to say it.
    pub fn overflow_right(&self, right: Right) {
        let before = {
            let mut known = self.overflow.right.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, right)
        };
        if before != right {
            self.wake_all();
        }
    }
}
