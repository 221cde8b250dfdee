//! When the certificates of the webhook are renewed.
//!
//! The API server trusts what `caBundle` holds and learns of changes by a watch, each API server for itself. So an
//! authority is published first, serves [`OVERLAP`] later, and is withdrawn [`LINGER`] after the last leaf of it went out
//! of use. At every moment whatever leaf a replica serves is signed by an authority that every API server trusts.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

/// How long an authority is valid.
pub const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How long a leaf is valid.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far before its making a certificate is valid, for API servers whose clock is behind. As the signer of
/// kube-controller-manager does (`pkg/controller/certificates/authority`, `Backdate`).
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// From the publication of an authority to its first leaf: every API server has heard of it by then.
pub const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// From a leaf of a new authority to the end of the old one: every replica serves the new leaf by then.
pub const LINGER: SignedDuration = SignedDuration::from_hours(1);
/// A leaf this close to its end is renewed even by an authority that is not known to be trusted.
const LAST_CALL: SignedDuration = SignedDuration::from_hours(1);

/// What the Secret holds, without the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The authorities of the bundle, newest first.
    pub authorities: Vec<Authority>,
    /// The key of the first authority is there and fits.
    pub signs: bool,
    /// The leaf, when it can be served: it is readable and its key fits.
    pub leaf: Option<Leaf>,
}

/// An authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Fingerprint.
    pub id: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// The serving certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Fingerprint of the authority of the bundle that signed it; `None` when none of them did.
    pub issuer: Option<String>,
    /// What it is valid for: DNS names and IP addresses.
    pub names: BTreeSet<String>,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// What the configuration in the cluster trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Fingerprints that every entry of it holds.
    pub authorities: BTreeSet<String>,
    /// When we wrote it last.
    pub since: Timestamp,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing before that time.
    Keep {
        /// When to decide again.
        until: Timestamp,
    },
    /// An authority and a leaf of it, at once: what is there can't be served. Authorities that are still valid stay.
    Anew,
    /// A leaf of the newest authority.
    Leaf,
    /// An authority, put before the others. The leaf stays.
    Authority,
    /// Authorities but the newest go.
    Prune,
}

/// Decides what is due for a webhook that is called by `names`.
pub fn rotation(
    now: Timestamp,
    facts: &CertificateFacts,
    names: &BTreeSet<String>,
    published: Option<&Published>,
) -> Rotation {
    let newest = facts.authorities.first().filter(|a| facts.signs && a.valid(now));
    let Some(leaf) = facts.serving(now, names) else {
        let signs = newest.is_some_and(|a| a.not_after.duration_since(now) > LEAF_LIFE);
        return if signs { Rotation::Leaf } else { Rotation::Anew };
    };
    let Some(newest) = newest.filter(|a| now < due(a.not_before, a.not_after)) else {
        return Rotation::Authority;
    };
    let renewal = due(leaf.not_before, leaf.not_after);
    let authority_due = due(newest.not_before, newest.not_after);
    if leaf.issuer.as_deref() != Some(newest.id.as_str()) {
        let known = published.filter(|p| p.authorities.contains(&newest.id));
        let last_call = after(leaf.not_after, -LAST_CALL);
        return match known.map(|p| after(p.since, OVERLAP)) {
            Some(trusted) if now >= trusted => Rotation::Leaf,
            _ if now >= last_call => Rotation::Leaf,
            Some(trusted) => keep([trusted, last_call, authority_due]),
            None => keep([last_call, authority_due]),
        };
    }
    if now >= renewal {
        return Rotation::Leaf;
    }
    if facts.authorities.len() == 1 {
        return keep([renewal, authority_due]);
    }
    let gone = after(leaf.not_before, BACKDATE + LINGER);
    if now >= gone {
        Rotation::Prune
    } else {
        keep([gone, renewal, authority_due])
    }
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// When a third of a lifetime is left.
fn due(from: Timestamp, to: Timestamp) -> Timestamp {
    to - to.duration_since(from) / 3
}

fn keep<const N: usize>(times: [Timestamp; N]) -> Rotation {
    let until = times.into_iter().min().unwrap_or(Timestamp::MAX);
    Rotation::Keep { until }
}

impl Authority {
    fn valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl CertificateFacts {
    /// The leaf, when an API server that trusts the bundle takes it for these names.
    pub fn serving(&self, now: Timestamp, names: &BTreeSet<String>) -> Option<&Leaf> {
        self.leaf.as_ref().filter(|leaf| {
            let signed = |a: &Authority| leaf.issuer.as_ref() == Some(&a.id) && a.valid(now);
            leaf.not_before <= now
                && now < leaf.not_after
                && names.is_subset(&leaf.names)
                && self.authorities.iter().any(signed)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["webhook.ns.svc".to_owned()])
    }

    /// The Secret, as the executor of a [`Rotation`] leaves it.
    fn carry_out(rotation: Rotation, facts: &CertificateFacts, now: Timestamp) -> CertificateFacts {
        let mut after = facts.clone();
        let from = now - BACKDATE;
        let authority = || Authority {
            id: format!("ca-{}", now.as_nanosecond()),
            not_before: from,
            not_after: now + AUTHORITY_LIFE,
        };
        let leaf = |issuer: &Authority| Leaf {
            issuer: Some(issuer.id.clone()),
            names: names(),
            not_before: from,
            not_after: (now + LEAF_LIFE).min(issuer.not_after),
        };
        match rotation {
            Rotation::Keep { .. } => {}
            Rotation::Anew => {
                let authority = authority();
                after.authorities.retain(|a| now < a.not_after);
                after.leaf = Some(leaf(&authority));
                after.authorities.insert(0, authority);
                after.signs = true;
            }
            Rotation::Leaf => after.leaf = Some(leaf(&facts.authorities[0])),
            Rotation::Authority => {
                after.authorities.insert(0, authority());
                after.signs = true;
            }
            Rotation::Prune => after.authorities.truncate(1),
        }
        after
    }

    fn fresh(now: Timestamp) -> CertificateFacts {
        carry_out(Rotation::Anew, &CertificateFacts::default(), now)
    }

    fn published(facts: &CertificateFacts, since: Timestamp) -> Published {
        Published {
            authorities: facts.authorities.iter().map(|a| a.id.clone()).collect(),
            since,
        }
    }

    fn decide(now: Timestamp, facts: &CertificateFacts, since: Timestamp) -> Rotation {
        rotation(now, facts, &names(), Some(&published(facts, since)))
    }

    #[test]
    fn nothing_there_is_made_anew_and_then_kept() {
        let nothing = CertificateFacts::default();
        assert_eq!(rotation(START, &nothing, &names(), None), Rotation::Anew);
        let facts = fresh(START);
        let Rotation::Keep { until } = rotation(START, &facts, &names(), None) else {
            panic!("not kept");
        };
        assert!(until > START + LEAF_LIFE / 2 && until < START + LEAF_LIFE);
        assert_eq!(rotation(until, &facts, &names(), None), Rotation::Leaf);
    }

    #[test]
    fn another_name_needs_another_leaf() {
        let facts = fresh(START);
        let other = BTreeSet::from(["other.ns.svc".to_owned()]);
        assert_eq!(rotation(START, &facts, &other, None), Rotation::Leaf);
    }

    #[test]
    fn without_the_key_of_the_authority_the_leaf_serves_on_under_a_new_one() {
        let mut facts = fresh(START);
        facts.signs = false;
        assert_eq!(decide(START, &facts, START), Rotation::Authority);
        facts.leaf = None;
        assert_eq!(decide(START, &facts, START), Rotation::Anew);
    }

    #[test]
    fn a_new_authority_signs_when_it_was_trusted_for_a_while() {
        let old = fresh(START);
        let now = START + SignedDuration::from_hours(300 * 24);
        let mut facts = carry_out(Rotation::Leaf, &old, now);
        assert_eq!(decide(now, &facts, START), Rotation::Authority);
        facts = carry_out(Rotation::Authority, &facts, now);
        // The configuration still holds the old bundle: its age says nothing about the new authority.
        let before = published(&old, START);
        assert!(matches!(
            rotation(now, &facts, &names(), Some(&before)),
            Rotation::Keep { .. }
        ));
        assert_eq!(decide(now, &facts, now), Rotation::Keep { until: now + OVERLAP });
        let now = now + OVERLAP;
        assert_eq!(decide(now, &facts, now - OVERLAP), Rotation::Leaf);
        facts = carry_out(Rotation::Leaf, &facts, now);
        assert_eq!(decide(now, &facts, now), Rotation::Keep { until: now + LINGER });
        assert_eq!(decide(now + LINGER, &facts, now), Rotation::Prune);
    }

    /// What was in force at a time, by when it came into force.
    fn at<T>(history: &[(Timestamp, T)], time: Timestamp) -> &T {
        let known = history.iter().rev().find(|(since, _)| *since <= time);
        &known.unwrap_or(&history[0]).1
    }

    proptest! {
        /// Whoever reads late, replica or API server, and whatever key is lost: what is served is valid and trusted.
        #[test]
        fn no_call_is_refused_at_any_time(
            pauses in prop::collection::vec((1i64..20 * 24 * 60, 0i64..600, 0i64..55, 0i64..55, 0u8..8), 1..120),
        ) {
            let mut now = START;
            let mut facts = fresh(now);
            let mut leaves = vec![(now, facts.leaf.clone().unwrap())];
            let mut configs = vec![(now, published(&facts, now))];
            for (minutes, late, replica_lag, server_lag, luck) in pauses {
                let config = &configs[configs.len() - 1].1;
                now = match rotation(now, &facts, &names(), Some(config)) {
                    Rotation::Keep { until } => (now + SignedDuration::from_mins(minutes))
                        .min(until + SignedDuration::from_secs(late)),
                    _ => now + SignedDuration::from_secs(late),
                };
                facts.signs &= luck > 0;
                facts = carry_out(rotation(now, &facts, &names(), Some(config)), &facts, now);
                let leaf = facts.leaf.clone().unwrap();
                if leaves[leaves.len() - 1].1 != leaf {
                    leaves.push((now, leaf));
                }
                if config.authorities != published(&facts, now).authorities {
                    configs.push((now, published(&facts, now)));
                }
                for (replica, server) in [(0, 0), (replica_lag, 0), (0, server_lag), (replica_lag, server_lag)] {
                    let served = at(&leaves, now - SignedDuration::from_secs(replica));
                    let trusted = at(&configs, now - SignedDuration::from_secs(server));
                    prop_assert!(served.not_before <= now && now < served.not_after, "{served:?} at {now}");
                    let issuer = served.issuer.clone().unwrap_or_default();
                    prop_assert!(trusted.authorities.contains(&issuer), "{issuer} is not trusted at {now}");
                }
            }
        }
    }
}
