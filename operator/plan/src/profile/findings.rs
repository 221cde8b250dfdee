//! What one pool has to say about the profile.

use k8s_openapi::api::core::v1::ConfigMap;
use vnp_crds::{ADOPTED_VALUES_ANNOTATION, EventReason, Reason, profile_key};

use super::contest::{SetBack, contested_by, foreign_writer};
use super::gates::GateList;
use super::originals::Originals;
use super::parties::Parties;
use super::place::Place;
use super::reconcile::{LISTS, path, reconcile, rewritten_path};
use super::said::{contradiction, misspelt, said, same, same_scalar, syncs};
use super::selectors::{self, SelectorList, pool_of};
use super::{PoolInCluster, SetBackHistory};
use crate::finding::{EventNote, Finding, ProfileState};
use crate::observed::Observed;
use crate::rewritten::{Rewrites, said as said_of};

/// Why ProfileSynced is not True for this pool; nothing for a pool that does not sync.
pub fn profile_findings(observed: &Observed) -> Vec<Finding> {
    // A pool that goes may have to give back what it wrote before it stopped to sync.
    let owes = observed.deleting() && !released(observed);
    if !syncs(&observed.pool) && !owes {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (place, there) in places(observed) {
        if let Some(there) = there {
            findings.extend(unreadable(&place, there));
            findings.extend(misspellings(&place, there));
        }
    }
    if observed.deleting() {
        return findings;
    }
    if let Some(conflict) = contradiction(&observed.pool, &observed.others) {
        findings.push(profile(ProfileState::Conflict, conflict.to_string()));
    }
    if let Some(rejection) = &observed.profile_rejection {
        let message = format!(
            "the provider says that it did not take eci-profile: {}; correct what it names, in the pool or in the ConfigMap",
            rejection.trim()
        );
        findings.push(profile(ProfileState::Rejected, message));
    }
    for (place, there) in places(observed) {
        findings.extend(differences(observed, &place, there));
    }
    findings
}

/// What would be written to the profile if the pool were not paused and its providers were up to date; one line each.
pub fn pending_profile_changes(observed: &Observed) -> Vec<String> {
    let mut unpaused = (*observed.pool).clone();
    unpaused.spec.paused = false;
    if let Some(annotations) = &mut unpaused.metadata.annotations {
        annotations.remove(vnp_crds::PAUSED_ANNOTATION);
    }
    let accepted = contradiction(&observed.pool, &observed.others).is_none();
    let ours = PoolInCluster {
        pool: unpaused.into(),
        accepted,
        rolled: true,
        drained: false,
        unknown: observed.workload.unknown().is_some(),
    };
    let others = observed.others.iter();
    // Of the others only what they name is known here: it stays.
    let others = others.map(|pool| PoolInCluster {
        pool: pool.clone(),
        accepted: false,
        rolled: true,
        drained: false,
        unknown: false,
    });
    let parties = Parties::of(&others.chain([ours]).collect::<Vec<_>>());
    places(observed)
        .into_iter()
        .flat_map(|(place, there)| {
            reconcile(&place, there, &parties, &SetBackHistory::new(), &Rewrites::new())
                .changes()
                .to_vec()
        })
        .collect()
}

/// Whether the profile holds nothing more that has to be given back when this pool goes: then its finalizer may go. Ask it
/// of a pool that is deleted and drained.
pub fn released(observed: &Observed) -> bool {
    let others: Vec<_> = observed.others.iter().map(|pool| said(pool)).collect();
    places(observed)
        .into_iter()
        .filter_map(|(_, there)| there)
        .all(|there| {
            let Ok(originals) = Originals::of(there) else {
                return false;
            };
            let keys = originals.data.keys().filter(|k| !LISTS.contains(&k.as_str()));
            let mut orphans = keys.filter(|key| !others.iter().any(|said| said.keys.contains_key(*key)));
            let mut orphan_gates = originals
                .gates
                .keys()
                .filter(|gate| !others.iter().any(|said| said.gates.contains_key(*gate)));
            let named = |pool: &str| {
                observed
                    .others
                    .iter()
                    .any(|o| o.metadata.name.as_deref() == Some(pool))
            };
            let orphan_entries = originals.selectors.iter().any(|name| !named(pool_of(name)));
            orphans.next().is_none() && orphan_gates.next().is_none() && !orphan_entries
        })
}

fn places(observed: &Observed) -> [(Place, Option<&ConfigMap>); 2] {
    [
        (Place::eci(), observed.profile.as_deref()),
        (Place::acs(), observed.acs_profile.as_deref()),
    ]
}

fn profile(state: ProfileState, message: String) -> Finding {
    Finding::Profile { state, message }
}

/// What can't be read is left alone, and a person has to look.
fn unreadable(place: &Place, there: &ConfigMap) -> Vec<Finding> {
    let mut troubles = Vec::new();
    if let Err(cause) = Originals::of(there) {
        troubles.push(format!(
            "annotation {ADOPTED_VALUES_ANNOTATION} of ConfigMap {} can't be read ({cause}), and holds the values to give back; \
             nothing is written there until it is repaired or removed",
            place.key
        ));
    }
    if let Some(cause) = broken_selectors(there) {
        troubles.push(format!(
            "key selectors of ConfigMap {} is not a JSON list of objects ({cause}), and the provider ignores it; remove comments \
             and correct it, it is left as it is",
            place.key
        ));
    }
    if there.immutable == Some(true) {
        troubles.push(format!(
            "ConfigMap {} is immutable, so nothing can be written there; delete it and create it without immutable: true",
            place.key
        ));
    }
    troubles
        .into_iter()
        .flat_map(|message| {
            let reason = Reason::ProfileUnreadable;
            [
                profile(ProfileState::Unreadable, message.clone()),
                Finding::Stalled { reason, message },
            ]
        })
        .collect()
}

fn broken_selectors(there: &ConfigMap) -> Option<String> {
    let text = there
        .data
        .as_ref()?
        .get(profile_key::SELECTORS)
        .filter(|t| !t.trim().is_empty())?;
    SelectorList::parse(text).err().map(|cause| cause.to_string())
}

fn misspellings(place: &Place, there: &ConfigMap) -> Vec<Finding> {
    let keys = there.data.iter().flatten().map(|(key, _)| key);
    keys.filter_map(|key| Some((key, misspelt(key)?)))
        .map(|(key, meant)| {
            Finding::Event(EventNote {
                reason: EventReason::ConfigWarning,
                subject: format!("{} {key}", place.key),
                note: format!(
                    "ConfigMap {} has the key {key}, which no provider reads: {meant} is meant; remove it, it is left as it is",
                    place.key
                ),
            })
        })
        .collect()
}

/// What the ConfigMap does not say yet, and who keeps it from doing so.
fn differences(observed: &Observed, place: &Place, there: Option<&ConfigMap>) -> Vec<Finding> {
    let absent = ConfigMap::default();
    if there.is_none() && !place.created_when_absent {
        return Vec::new();
    }
    let wanted = said(&observed.pool);
    let current = there.unwrap_or(&absent);
    let taken = Originals::of(current).unwrap_or_default();
    let value = |key: &str| current.data.as_ref().and_then(|d| d.get(key)).map(String::as_str);
    let mut missing = Vec::new();
    let mut findings = Vec::new();
    let rewritten = |key: &str| {
        let rewrites = &observed.recall.profile_rewritten;
        let entry = rewrites.get(&rewritten_path(&place.key.name, key))?;
        Some(Finding::Stalled {
            reason: Reason::FieldContested,
            message: said_of(entry, &format!("ConfigMap {}", place.key), "ConfigMaps"),
        })
    };
    for (key, item) in &wanted.keys {
        let is = value(key);
        let known = place.knows(key, current) || taken.data.contains_key(key);
        if !known || is.is_some_and(|is| same(key, is, &item.value)) {
            continue;
        }
        missing.push(format!(
            "{key} is {}, to be {}",
            is.unwrap_or("absent"),
            item.value
        ));
        findings.extend(rewritten(key));
        if let Some((at, manager)) = foreign_writer(current, key).filter(|_| taken.data.contains_key(key)) {
            let seen = SetBack {
                path: path(place, key, &item.value),
                at,
                manager,
            };
            if let Some(manager) = contested_by(&observed.recall.profile_set_back, &seen) {
                let message = format!(
                    "key {key} of ConfigMap {} was set back three times in ten minutes, last to {} by field manager {manager}, and {} \
                     is {}: it is not written any more; stop {manager} from writing it and set the key, or change the field",
                    place.key,
                    is.unwrap_or("nothing"),
                    item.field,
                    item.value
                );
                findings.push(Finding::Stalled {
                    reason: Reason::FieldContested,
                    message,
                });
            }
        }
    }
    let gates = GateList::parse(value(profile_key::FEATURE_GATES).unwrap_or_default());
    let knows_gates = place.knows(profile_key::FEATURE_GATES, current) || !taken.gates.is_empty();
    let before_gates = missing.len();
    for (gate, item) in wanted.gates.iter().filter(|_| knows_gates) {
        let is = gates.get(gate);
        if !is.is_some_and(|is| same_scalar(is, &item.value)) {
            missing.push(format!(
                "feature gate {gate} is {}, to be {}",
                is.unwrap_or("absent").trim(),
                item.value
            ));
        }
    }
    if missing.len() > before_gates {
        findings.extend(rewritten(profile_key::FEATURE_GATES));
    }
    if place.knows(profile_key::SELECTORS, current) || !taken.selectors.is_empty() {
        let (lacking, contested) = selector_differences(observed, place, current, &taken);
        if !lacking.is_empty() {
            findings.extend(rewritten(profile_key::SELECTORS));
        }
        missing.extend(lacking);
        findings.extend(contested);
    }
    if !missing.is_empty() {
        let message = format!("ConfigMap {}: {}", place.key, missing.join("; "));
        findings.insert(0, profile(ProfileState::Pending, message));
    }
    findings
}

/// Entries of `selectors` that are not there as the rules say. Of a list that can't be read something else is said.
fn selector_differences(
    observed: &Observed,
    place: &Place,
    current: &ConfigMap,
    taken: &Originals,
) -> (Vec<String>, Option<Finding>) {
    let text = current.data.as_ref().and_then(|d| d.get(profile_key::SELECTORS));
    let Ok(list) = SelectorList::parse(text.map(String::as_str).unwrap_or_default()) else {
        return (Vec::new(), None);
    };
    let missing: Vec<String> = selectors::wanted(&observed.pool)
        .into_iter()
        .filter_map(|wanted| {
            let name = &wanted.name;
            match list.get(name) {
                Some(there) if *there == wanted.value => None,
                Some(_) if !taken.selectors.contains(name) => Some(format!(
                    "selector {name} is there and not ours, it is left as it is; rename the rule or remove the entry"
                )),
                Some(_) => Some(format!("selector {name} is another than the rule asks for")),
                None => Some(format!("selector {name} is absent")),
            }
        })
        .collect();
    let writer = foreign_writer(current, profile_key::SELECTORS);
    let writer = writer.filter(|_| !missing.is_empty() && !taken.selectors.is_empty());
    let contested = writer.and_then(|(at, manager)| {
        let path = path(place, profile_key::SELECTORS, "");
        let seen = SetBack { path, at, manager };
        let manager = contested_by(&observed.recall.profile_set_back, &seen)?;
        Some(Finding::Stalled {
            reason: Reason::FieldContested,
            message: format!(
                "key selectors of ConfigMap {} was changed against spec.placement.rules three times in ten minutes, last by field \
                 manager {manager}: it is not written any more; stop {manager} from writing it, or remove the rules",
                place.key
            ),
        })
    });
    (missing, contested)
}
