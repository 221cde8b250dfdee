//! Which pools have a say in the profile right now, and what they agree on.

use vnp_crds::{DeletionPolicy, Management};

use super::PoolInCluster;
use super::said::{Item, Said, network_key, said, syncs};
use super::selectors::{self, Selector};
use crate::accept::{seniority, served};

/// What a pool does with its part of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes it.
    Acts,
    /// Leaves what is there as it is: paused, refused, not known, or still draining.
    Keeps,
    /// Gives it back.
    Restores,
    /// Leaves it there for good.
    Forgets,
    /// Has no part in it.
    None,
}

fn role(entry: &PoolInCluster) -> Role {
    let pool = &entry.pool;
    let deleting = pool.metadata.deletion_timestamp.is_some();
    if !served(pool) {
        return Role::None;
    }
    // Env and profile must say the same, and the env stays while its workload can't be seen.
    if pool.is_paused() || entry.unknown {
        return Role::Keeps;
    }
    match (
        deleting,
        pool.spec.deletion_policy(),
        pool.spec.provider.management(),
    ) {
        (true, DeletionPolicy::Drain, _) if entry.drained => Role::Restores,
        (true, DeletionPolicy::Drain, _) => Role::Keeps,
        (true, DeletionPolicy::Retain, Management::Adopt) => Role::Restores,
        (true, DeletionPolicy::Retain, Management::Create) => Role::Forgets,
        (false, _, _) if !syncs(pool) => Role::None,
        (false, _, _) if !entry.accepted => Role::Keeps,
        (false, _, _) => Role::Acts,
    }
}

struct Party {
    role: Role,
    said: Said,
    rolled: bool,
    paused: bool,
    deleting: bool,
    name: String,
    selectors: Vec<Selector>,
}

/// All pools that can be read, the oldest first; and whether there are others. Keys and gates are shared, so any of them may
/// be what one of these asks for. Entries of `selectors` bear the name of their pool.
pub(super) struct Parties(Vec<Party>, bool);

/// What is to become of a key or gate that pools name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish<'a> {
    /// It is to have this value.
    Write(&'a str),
    /// It stays as it is for now.
    Leave,
    /// Nobody names it.
    Unnamed,
}

/// What is to become of a key that was ours and that nobody names any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Nothing yet.
    Wait,
    /// The original comes back.
    Restore,
    /// The value stays and is nobody's.
    Forget,
}

impl Parties {
    pub(super) fn of(pools: &[PoolInCluster]) -> Self {
        Self::among(pools, false)
    }

    /// `unreadable`: there are other pools, of which nothing is known.
    pub(super) fn among(pools: &[PoolInCluster], unreadable: bool) -> Self {
        let mut sorted: Vec<&PoolInCluster> = pools.iter().collect();
        sorted.sort_by(|a, b| seniority(&a.pool).cmp(&seniority(&b.pool)));
        let party = |entry: &&PoolInCluster| Party {
            role: role(entry),
            said: said(&entry.pool),
            rolled: entry.rolled,
            paused: served(&entry.pool) && entry.pool.is_paused(),
            deleting: entry.pool.metadata.deletion_timestamp.is_some(),
            name: entry.pool.metadata.name.clone().unwrap_or_default(),
            selectors: selectors::wanted(&entry.pool),
        };
        Self(sorted.iter().map(party).collect(), unreadable)
    }

    fn stay(&self) -> impl Iterator<Item = &Party> {
        self.0
            .iter()
            .filter(|p| matches!(p.role, Role::Acts | Role::Keeps))
    }

    /// Nobody knows all that is asked of keys and gates: they stay as they are.
    pub(super) fn incomplete(&self) -> bool {
        self.1
    }

    /// Some pool still has a say.
    pub(super) fn any(&self) -> bool {
        self.1 || self.stay().any(|p| p.said != Said::default())
    }

    /// Every key that a pool which acts names.
    pub(super) fn keys(&self) -> Vec<&str> {
        self.names(|said| said.keys.keys())
    }

    /// Every gate that a pool which acts names.
    pub(super) fn gates(&self) -> Vec<&str> {
        self.names(|said| said.gates.keys())
    }

    fn names<'a, I: Iterator<Item = &'a String>>(&'a self, of: impl Fn(&'a Said) -> I) -> Vec<&'a str> {
        let acting = self.0.iter().filter(|p| p.role == Role::Acts);
        let mut names: Vec<&str> = acting.flat_map(|p| of(&p.said)).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The entries that the pools ask for, the oldest pool's first.
    pub(super) fn selectors(&self) -> Vec<Selector> {
        let acting = self.0.iter().filter(|p| p.role == Role::Acts);
        acting.flat_map(|p| p.selectors.clone()).collect()
    }

    /// The entries of that pool stay as they are. They go before anything else does when a pool goes: nothing shall bring
    /// pods to nodes that are drained.
    pub(super) fn keeps_selectors_of(&self, pool: &str) -> bool {
        let mut named = self.0.iter().filter(|p| p.name == pool).peekable();
        if named.peek().is_none() {
            return self.1;
        }
        named.any(|p| p.paused || (p.role == Role::Keeps && !p.deleting))
    }

    /// What is to become of a key. Network keys wait until every pool that wants the value has rolled its providers.
    pub(super) fn key(&self, key: &str) -> Wish<'_> {
        self.wish(
            |said| said.keys.get(key),
            |a, b| super::said::same(key, a, b),
            network_key(key),
        )
    }

    /// What is to become of a gate.
    pub(super) fn gate(&self, gate: &str) -> Wish<'_> {
        self.wish(|said| said.gates.get(gate), super::said::same_scalar, false)
    }

    fn wish<'a>(
        &'a self,
        item: impl Fn(&'a Said) -> Option<&'a Item>,
        same: impl Fn(&str, &str) -> bool,
        after_roll: bool,
    ) -> Wish<'a> {
        let naming = || {
            self.stay()
                .filter_map(|p| Some((p, item(&p.said)?.value.as_str())))
        };
        let Some((_, value)) = naming().next() else {
            return Wish::Unnamed;
        };
        let mut acting = naming()
            .filter(|(p, v)| p.role == Role::Acts && same(v, value))
            .peekable();
        if acting.peek().is_some() && acting.all(|(p, _)| p.rolled || !after_roll) {
            Wish::Write(value)
        } else {
            Wish::Leave
        }
    }

    /// What is to become of a key that nobody names any more. What a paused pool may have written stays while it is paused,
    /// unless another pool is leaving and would have to wait for it.
    pub(super) fn release(&self, key: &str) -> Release {
        self.releases(|said| said.keys.contains_key(key), network_key(key))
    }

    /// The same for a gate.
    pub(super) fn release_gate(&self, gate: &str) -> Release {
        self.releases(|said| said.gates.contains_key(gate), false)
    }

    fn releases(&self, names: impl Fn(&Said) -> bool, after_roll: bool) -> Release {
        let leaving = self
            .0
            .iter()
            .any(|p| matches!(p.role, Role::Restores | Role::Forgets));
        let paused = self.0.iter().any(|p| p.paused);
        let rolling = after_roll && self.0.iter().any(|p| p.role == Role::Acts && !p.rolled);
        if self.0.iter().any(|p| p.role == Role::Forgets && names(&p.said)) {
            Release::Forget
        } else if !leaving && (paused || rolling) {
            Release::Wait
        } else {
            Release::Restore
        }
    }
}
