//! Whose turn it is, where several share what there is: the pools the operator's cap and the places in flight, the nodes
//! of a pool its rate and its window. Start-time fair queueing with equal weights: whoever got least goes first among
//! those who wait, so that shares are equal among those who want them, and what one does not use the others get.
//! Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use vnp_crds::LimitedBy;

/// How long one that waits is waited for after it could have come. It looks again whenever something changes; if it
/// does not, it must not hold up the others.
const PATIENCE: SignedDuration = SignedDuration::from_secs(1);

/// The turns at one thing that is shared.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Start of the newest turn. One who comes back begins here: not having wanted anything earns nothing.
    now_at: u64,
    shares: HashMap<String, Share>,
}

#[derive(Debug, Default)]
struct Share {
    /// End of its newest turn.
    ended_at: u64,
    /// Nodes that wait, until when they are waited for, and for what.
    waiting: HashMap<String, (Timestamp, LimitedBy)>,
}

impl Turns {
    /// A node of `who` waits, for something that is there at `until`, or with the next answer.
    pub(super) fn wait(
        &mut self,
        who: &str,
        node: &str,
        until: Option<Timestamp>,
        by: LimitedBy,
        now: Timestamp,
    ) {
        let patient = until
            .unwrap_or(now)
            .checked_add(PATIENCE)
            .unwrap_or(Timestamp::MAX);
        let share = self.shares.entry(who.to_owned()).or_default();
        share.waiting.insert(node.to_owned(), (patient, by));
    }

    /// The node does not wait any more.
    pub(super) fn done(&mut self, who: &str, node: &str) {
        if let Some(share) = self.shares.get_mut(who) {
            share.waiting.remove(node);
        }
    }

    /// What somebody else waits for who got less.
    pub(super) fn yields(&self, who: &str, now: Timestamp) -> Option<LimitedBy> {
        let mine = self.begins(self.shares.get(who));
        let behind = self
            .shares
            .iter()
            .filter(|(other, share)| *other != who && self.begins(Some(share)) < mine)
            .flat_map(|(_, share)| share.waiting.values());
        behind.filter(|(until, _)| now < *until).map(|(_, by)| *by).next()
    }

    /// `who` had its turn.
    pub(super) fn took(&mut self, who: &str) {
        let began = self.begins(self.shares.get(who));
        self.now_at = began;
        self.shares.entry(who.to_owned()).or_default().ended_at = began.saturating_add(1);
    }

    /// Forgets all but those.
    pub(super) fn keep(&mut self, which: impl Fn(&str) -> bool) {
        self.shares.retain(|who, _| which(who));
    }

    fn begins(&self, share: Option<&Share>) -> u64 {
        share.map_or(self.now_at, |s| s.ended_at.max(self.now_at))
    }
}
