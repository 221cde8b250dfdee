//! One ConfigMap: from what the pools want and what is there to one write, or none.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};
use vnp_crds::{ADOPTED_VALUES_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, profile_key};

use super::contest::{SetBack, SetBackHistory, contested_by, foreign_writer};
use super::gates::GateList;
use super::originals::Originals;
use super::parties::{Parties, Release, Wish};
use super::place::Place;
use super::said::{same, same_scalar};
use super::selectors::{SelectorList, pool_of};
use crate::rewritten::{Rewrites, held_off, note};
use crate::step::{ProfilePatch, Step};

/// Keys that have other owners too, and are released entry by entry.
pub(super) const LISTS: [&str; 2] = [profile_key::FEATURE_GATES, profile_key::SELECTORS];

/// What there is to do about one ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Work {
    pub(super) step: Option<Step>,
    pub(super) set_back: Vec<SetBack>,
    /// Keys that do not say what they should, whether they are written now or not.
    pub(super) open: Vec<String>,
}

impl Work {
    /// What the step changes, for people.
    pub(super) fn changes(&self) -> &[String] {
        match &self.step {
            Some(Step::CreateProfile(patch) | Step::PatchProfile(patch)) => &patch.changes,
            _ => &[],
        }
    }
}

/// The ConfigMap as it is to become.
struct Draft<'a> {
    place: &'a Place,
    there: &'a ConfigMap,
    /// Changed keys; `None` removes.
    data: BTreeMap<String, Option<String>>,
    originals: Originals,
    /// Lines for people, each with its key.
    changes: Vec<(String, String)>,
    set_back: Vec<SetBack>,
}

/// Plans the one write that brings the ConfigMap to what the pools want. Nothing is written to one that can't be read or
/// is immutable.
pub(super) fn reconcile(
    place: &Place,
    there: Option<&ConfigMap>,
    parties: &Parties,
    history: &SetBackHistory,
    rewrites: &Rewrites,
) -> Work {
    let absent = ConfigMap::default();
    if there.is_none() && !place.created_when_absent {
        return Work::default();
    }
    let current = there.unwrap_or(&absent);
    let Ok(originals) = Originals::of(current) else {
        return Work::default();
    };
    if current.immutable == Some(true) {
        return Work::default();
    }
    let mut draft = Draft {
        place,
        there: current,
        data: BTreeMap::new(),
        originals: originals.clone(),
        changes: Vec::new(),
        set_back: Vec::new(),
    };
    if !parties.incomplete() {
        draft.write_keys(parties, history);
        draft.release_keys(parties);
        draft.gates(parties);
    }
    draft.selectors(parties, history);
    let open = draft.hold_off(rewrites);
    Work {
        open,
        ..draft.finish(there.is_some(), &originals, parties)
    }
}

impl Draft<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        match self.data.get(key) {
            Some(changed) => changed.as_deref(),
            None => self.original_value(key),
        }
    }

    fn original_value(&self, key: &str) -> Option<&str> {
        self.there.data.as_ref()?.get(key).map(String::as_str)
    }

    fn change(&mut self, key: &str, value: Option<String>) {
        let (before, after) = (shown(self.value(key)), shown(value.as_deref()));
        let line = format!("{} {key} {before} -> {after}", self.place.key.name);
        self.changes.push((key.to_owned(), line));
        self.data.insert(key.to_owned(), value);
    }

    fn write_keys(&mut self, parties: &Parties, history: &SetBackHistory) {
        for key in parties.keys() {
            let Wish::Write(value) = parties.key(key) else {
                continue;
            };
            let taken = self.originals.data.contains_key(key);
            if !(taken || self.place.knows(key, self.there)) {
                continue;
            }
            let there = self.original_value(key).map(str::to_owned);
            if there.as_deref().is_some_and(|t| same(key, t, value)) {
                continue;
            }
            if let Some((at, manager)) = foreign_writer(self.there, key).filter(|_| taken) {
                let seen = SetBack {
                    path: path(self.place, key, value),
                    at,
                    manager,
                };
                let contested = contested_by(history, &seen).is_some();
                self.set_back.push(seen);
                if contested {
                    continue;
                }
            }
            self.originals.data.entry(key.to_owned()).or_insert(there);
            self.change(key, Some(value.to_owned()));
        }
    }

    fn release_keys(&mut self, parties: &Parties) {
        for (key, original) in self.originals.data.clone() {
            // Lists are recorded only to know that they were absent; their entries decide about them.
            if LISTS.contains(&key.as_str()) || parties.key(&key) != Wish::Unnamed {
                continue;
            }
            match parties.release(&key) {
                Release::Wait => continue,
                // Somebody else wrote it since: then it is theirs.
                Release::Restore if foreign_writer(self.there, &key).is_none() => {
                    if self.value(&key) != original.as_deref() {
                        self.change(&key, original);
                    }
                }
                Release::Restore | Release::Forget => {}
            }
            self.originals.data.remove(&key);
        }
    }

    fn gates(&mut self, parties: &Parties) {
        const KEY: &str = profile_key::FEATURE_GATES;
        let there = self.original_value(KEY).map(str::to_owned);
        if !self.place.knows(KEY, self.there) && self.originals.gates.is_empty() {
            return;
        }
        let mut list = GateList::parse(there.as_deref().unwrap_or_default());
        for gate in parties.gates() {
            let Wish::Write(value) = parties.gate(gate) else {
                continue;
            };
            let before = list.get(gate).map(str::to_owned);
            if before.as_deref().is_some_and(|b| same_scalar(b, value)) {
                continue;
            }
            self.originals.gates.entry(gate.to_owned()).or_insert(before);
            if there.is_none() {
                self.originals.data.entry(KEY.to_owned()).or_insert(None);
            }
            list.set(gate, value);
        }
        for (gate, original) in self.originals.gates.clone() {
            if parties.gate(&gate) != Wish::Unnamed {
                continue;
            }
            match parties.release_gate(&gate) {
                Release::Wait => continue,
                Release::Forget => {}
                Release::Restore => match original {
                    Some(original) if list.get(&gate).is_some() => list.set(&gate, &original),
                    Some(_) => {}
                    None => list.remove(&gate),
                },
            }
            self.originals.gates.remove(&gate);
        }
        let ours_alone = self.originals.gates.is_empty() && self.originals.data.remove(KEY).is_some();
        let text = list.to_string();
        let wanted = (there.is_some() || !text.is_empty()).then_some(text);
        let wanted = wanted.filter(|text| !(ours_alone && text.is_empty()));
        if wanted != there {
            self.change(KEY, wanted);
        }
    }

    /// A list that can't be read is left alone, and so is an entry of somebody else that has the name of one of ours.
    fn selectors(&mut self, parties: &Parties, history: &SetBackHistory) {
        const KEY: &str = profile_key::SELECTORS;
        let there = self.original_value(KEY).map(str::to_owned);
        let recorded = self.originals.selectors.clone();
        if !self.place.knows(KEY, self.there) && recorded.is_empty() {
            return;
        }
        let Ok(list) = SelectorList::parse(there.as_deref().unwrap_or_default()) else {
            return;
        };
        let (kept, ours): (BTreeSet<String>, BTreeSet<String>) = recorded
            .iter()
            .cloned()
            .partition(|name| parties.keeps_selectors_of(pool_of(name)));
        let mut wanted = parties.selectors();
        wanted.retain(|s| recorded.contains(&s.name) || list.get(&s.name).is_none());
        if wanted.is_empty() && recorded.is_empty() {
            return;
        }
        let right = list.holds(&ours, &wanted);
        if !right && let Some((at, manager)) = foreign_writer(self.there, KEY).filter(|_| !ours.is_empty()) {
            let path = path(self.place, KEY, "");
            let seen = SetBack { path, at, manager };
            let contested = contested_by(history, &seen).is_some();
            self.set_back.push(seen);
            if contested {
                return;
            }
        }
        let Ok(after) = (if right {
            Ok(list.clone())
        } else {
            list.replace(&ours, &wanted)
        }) else {
            return;
        };
        self.originals.selectors = wanted.iter().map(|s| s.name.clone()).chain(kept).collect();
        let released = self.originals.selectors.is_empty();
        if !released && there.as_deref().is_none_or(|text| text.trim().is_empty()) {
            self.originals.data.entry(KEY.to_owned()).or_insert(there.clone());
        }
        let original = released.then(|| self.originals.data.remove(KEY)).flatten();
        let text = match original {
            Some(original) if after.is_empty() => original,
            _ if right => there.clone(),
            _ => Some(after.to_string()),
        };
        if text == there {
            return;
        }
        let place = &self.place.key.name;
        let set = wanted.iter().filter(|s| list.get(&s.name) != Some(&s.value));
        let gone = ours
            .iter()
            .filter(|name| after.get(name).is_none() && list.get(name).is_some());
        let before = self.changes.len();
        let set = set.map(|s| format!("{place} selector {} set", s.name));
        let gone = gone.map(|name| format!("{place} selector {name} removed"));
        let lines = set.chain(gone).map(|line| (KEY.to_owned(), line));
        self.changes.extend(lines);
        if self.changes.len() == before {
            self.changes
                .push((KEY.to_owned(), format!("{place} selectors put in order")));
        }
        self.data.insert(KEY.to_owned(), text);
    }

    /// Leaves out what was just written and stored otherwise. Gives all keys that are to be written, those too.
    fn hold_off(&mut self, rewrites: &Rewrites) -> Vec<String> {
        let name = &self.place.key.name;
        let open = self.data.keys().map(|key| rewritten_path(name, key)).collect();
        self.data
            .retain(|key, value| !held_off(rewrites, &rewritten_path(name, key), shown(value.as_deref())));
        self.changes.retain(|(key, _)| self.data.contains_key(key));
        open
    }

    fn finish(self, exists: bool, before: &Originals, parties: &Parties) -> Work {
        let there = self.there;
        let mut changes: Vec<String> = self.changes.iter().map(|(_, line)| line.clone()).collect();
        let config_map = self.place.key.clone();
        let unchanged = self.data.is_empty() && self.originals == *before;
        let unneeded = made_by_us(there) && self.originals.is_empty() && !parties.any();
        let step = if unneeded && self.nothing_left() {
            let uid = there.metadata.uid.clone().unwrap_or_default();
            let resource_version = there.metadata.resource_version.clone().unwrap_or_default();
            Some(Step::DeleteProfile {
                config_map,
                uid,
                resource_version,
            })
        } else if unchanged && !unneeded {
            None
        } else if exists {
            let body = patch_body(there, self.data, &self.originals, before, unneeded);
            Some(Step::PatchProfile(ProfilePatch {
                config_map,
                body,
                changes,
            }))
        } else {
            changes.insert(0, format!("{} created", config_map.name));
            let body = create_body(self.place, self.data, &self.originals);
            Some(Step::CreateProfile(ProfilePatch {
                config_map,
                body,
                changes,
            }))
        };
        Work {
            step,
            set_back: self.set_back,
            open: Vec::new(),
        }
    }

    /// The ConfigMap would be empty.
    fn nothing_left(&self) -> bool {
        let mut kept = self.there.data.iter().flatten().map(|(key, _)| key);
        let removed = |key: &String| self.data.get(key).is_some_and(Option::is_none);
        kept.all(removed) && self.there.binary_data.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

/// What is remembered of a key that was stored otherwise goes by this.
pub(super) fn rewritten_path(config_map: &str, key: &str) -> String {
    format!("{config_map} {key}")
}

/// Notes of keys that were written with success what became of them.
pub fn note_stored(rewrites: &mut Rewrites, patch: &ProfilePatch, stored: &ConfigMap, now: Timestamp) {
    for (key, value) in patch.body["data"].as_object().into_iter().flatten() {
        let path = rewritten_path(&patch.config_map.name, key);
        let wanted = value.as_str();
        let is = stored.data.as_ref().and_then(|d| d.get(key)).map(String::as_str);
        let took = match (is, wanted) {
            (Some(is), Some(wanted)) => same(key, is, wanted),
            (is, wanted) => is == wanted,
        };
        if took {
            rewrites.remove(&path);
        } else {
            let difference = format!("{key} {} -> {}", shown(is), shown(wanted));
            note(rewrites, path, shown(wanted).to_owned(), difference, now);
        }
    }
}

fn shown(value: Option<&str>) -> &str {
    match value {
        None => "(absent)",
        Some("") => "\"\"",
        Some(value) => value,
    }
}

/// Key of the history of one wish for one key of one ConfigMap.
pub(super) fn path(place: &Place, key: &str, value: &str) -> String {
    format!("{} {key}={value}", place.key.name)
}

fn made_by_us(config_map: &ConfigMap) -> bool {
    config_map
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(MANAGED_BY_LABEL))
        .is_some_and(|v| v == MANAGED_BY)
}

/// Merge patch of a ConfigMap; null removes.
#[derive(Serialize)]
struct PatchBody<'a> {
    metadata: PatchMetadata<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PatchMetadata<'a> {
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, Option<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, Option<String>>,
}

fn patch_body(
    there: &ConfigMap,
    data: BTreeMap<String, Option<String>>,
    originals: &Originals,
    before: &Originals,
    drop_label: bool,
) -> Value {
    let record = (originals != before).then(|| (ADOPTED_VALUES_ANNOTATION, originals.text()));
    let label = drop_label.then_some((MANAGED_BY_LABEL, None));
    let metadata = PatchMetadata {
        resource_version: there.metadata.resource_version.as_deref(),
        annotations: record.into_iter().collect(),
        labels: label.into_iter().collect(),
    };
    json!(PatchBody { metadata, data })
}

fn create_body(place: &Place, data: BTreeMap<String, Option<String>>, originals: &Originals) -> Value {
    let record = originals
        .text()
        .map(|text| (ADOPTED_VALUES_ANNOTATION.to_owned(), text));
    let metadata = ObjectMeta {
        name: Some(place.key.name.clone()),
        namespace: Some(place.key.namespace.clone()),
        labels: Some(BTreeMap::from([(
            MANAGED_BY_LABEL.to_owned(),
            MANAGED_BY.to_owned(),
        )])),
        annotations: Some(record.into_iter().collect()),
        ..ObjectMeta::default()
    };
    let data = data
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    json!(ConfigMap {
        metadata,
        data: Some(data),
        ..ConfigMap::default()
    })
}
