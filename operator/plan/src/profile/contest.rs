//! Somebody else who writes what is ours. After three times in ten minutes we stop: a fight helps nobody.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use vnp_crds::FIELD_MANAGER;

/// Times at which a value of ours was found replaced, with who did it, by place and value.
pub type SetBackHistory = BTreeMap<String, Vec<(Timestamp, String)>>;

const TIMES: usize = 3;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A value of ours that somebody replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetBack {
    /// Key in [`SetBackHistory`]: the place and the value that we want there. Another wish starts anew.
    pub path: String,
    /// When the other one wrote, by the server's stamp: the same write seen twice counts once.
    pub at: Timestamp,
    /// Field manager of the other one.
    pub manager: String,
}

/// When the key was written last, by whomever. `None` when `managedFields` do not tell.
pub(crate) fn last_write(config_map: &ConfigMap, key: &str) -> Option<Timestamp> {
    let holders = holders(config_map, key);
    holders.filter_map(|e| Some(e.time.as_ref()?.0)).max()
}

/// Who wrote the key last, when that was not us. `None` as well when `managedFields` do not tell.
pub(super) fn foreign_writer(config_map: &ConfigMap, key: &str) -> Option<(Timestamp, String)> {
    let holders: Vec<_> = holders(config_map, key).collect();
    if holders
        .iter()
        .any(|e| e.manager.as_deref() == Some(FIELD_MANAGER))
    {
        return None;
    }
    holders
        .into_iter()
        .filter_map(|e| Some((e.time.as_ref()?.0, e.manager.clone()?)))
        .max_by_key(|(time, _)| *time)
}

/// Who contests the place, when the three newest of these and `now_seen` lie within ten minutes.
pub(super) fn contested_by(history: &SetBackHistory, seen: &SetBack) -> Option<String> {
    let mut times: Vec<Timestamp> = history
        .get(&seen.path)
        .into_iter()
        .flatten()
        .map(|(at, _)| *at)
        .collect();
    times.push(seen.at);
    times.sort_unstable();
    times.dedup();
    let newest = times.len().checked_sub(TIMES).and_then(|i| times.get(i..))?;
    let (first, last) = (newest.first()?, newest.last()?);
    (last.duration_since(*first) <= WINDOW).then(|| seen.manager.clone())
}

/// The entries of `managedFields` that name the key.
fn holders<'a>(config_map: &'a ConfigMap, key: &str) -> impl Iterator<Item = &'a ManagedFieldsEntry> {
    let field = format!("f:{key}");
    let entries = config_map.metadata.managed_fields.iter().flatten();
    entries.filter(move |e| {
        let fields = e.fields_v1.as_ref();
        let data = fields.and_then(|f| f.0.get("f:data"));
        data.and_then(|d| d.get(&field)).is_some()
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, Time};
    use serde_json::json;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn seen(minute: i64) -> SetBack {
        SetBack {
            path: "p".into(),
            at: at(minute),
            manager: "helm".into(),
        }
    }

    fn history(minutes: &[i64]) -> SetBackHistory {
        [(
            "p".to_owned(),
            minutes.iter().map(|m| (at(*m), "helm".to_owned())).collect(),
        )]
        .into()
    }

    #[test]
    fn three_times_in_ten_minutes_is_a_contest() {
        for (known, now, contested) in [
            (&[][..], 0, false),
            (&[0], 5, false),
            (&[0, 5], 10, true),
            (&[0, 5], 11, false),
            (&[0, 5], 5, false),
            (&[0, 100, 104], 109, true),
        ] {
            assert_eq!(
                contested_by(&history(known), &seen(now)).is_some(),
                contested,
                "{known:?} {now}"
            );
        }
        let other = SetBack {
            path: "q".into(),
            ..seen(10)
        };
        assert_eq!(contested_by(&history(&[0, 5]), &other), None);
    }

    #[test]
    fn the_last_writer_is_known_by_managed_fields() {
        let entry = |manager: &str, minute: i64, key: &str| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            time: Some(Time(at(minute))),
            fields_v1: Some(FieldsV1(json!({ "f:data": { (format!("f:{key}")): {} } }))),
            ..ManagedFieldsEntry::default()
        };
        let cm = |entries: Vec<ManagedFieldsEntry>| {
            let mut cm = ConfigMap::default();
            cm.metadata.managed_fields = Some(entries);
            cm
        };
        let theirs = cm(vec![
            entry("helm", 1, "k"),
            entry("kubectl", 2, "k"),
            entry(FIELD_MANAGER, 3, "other"),
        ]);
        assert_eq!(foreign_writer(&theirs, "k"), Some((at(2), "kubectl".to_owned())));
        assert_eq!(foreign_writer(&theirs, "other"), None);
        assert_eq!(
            foreign_writer(
                &cm(vec![entry(FIELD_MANAGER, 1, "k"), entry("helm", 2, "k")]),
                "k"
            ),
            None
        );
        assert_eq!(foreign_writer(&ConfigMap::default(), "k"), None);
    }
}
