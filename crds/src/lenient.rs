//! How the words of a status are read. A newer version of the operator may have written words that this one does not know; a
//! pool that can't be read for that would be without an operator. Each unknown word is taken for the one that knows least:
//! what follows from it is looked at anew.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{DrainPhase, LimitedBy};

/// An unknown word is none.
pub(crate) fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

/// Entries with an unknown word are left out.
pub(crate) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let entries = Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default();
    let known = entries
        .into_iter()
        .filter_map(|entry| serde_json::from_value(entry).ok());
    Ok(known.collect())
}

/// An unknown limit is none.
pub(crate) fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<LimitedBy, D::Error> {
    Ok(word(from)?.unwrap_or(LimitedBy::Nothing))
}

/// An unknown phase is the first one: nothing is taken for done.
pub(crate) fn phase<'de, D: Deserializer<'de>>(from: D) -> Result<DrainPhase, D::Error> {
    Ok(word(from)?.unwrap_or(DrainPhase::Cordoning))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{BlockerReason, DrainPhase, LimitedBy, VirtualNodePoolStatus};

    #[test]
    fn a_status_with_words_of_a_newer_version_can_be_read() {
        let blocker = |reason: &str| json!({ "reason": reason, "object": "shop/a", "pods": 1, "since": "2026-12-31T00:00:00Z", "message": "m" });
        let status: VirtualNodePoolStatus = serde_json::from_value(json!({
            "deletionPolicy": "Hibernate",
            "provider": { "type": "StatefulSet", "registered": [0], "started": [0], "retired": [] },
            "drain": {
                "summary": "1/2", "podsTotal": 2, "podsRemaining": 1, "podsTerminating": 0, "podsBlocked": 0,
                "limitedBy": "Weather",
                "nodes": [{
                    "name": "n-0", "ordinal": 0, "phase": "Thinking", "startedAt": "2026-12-31T00:00:00Z", "recordons": 0,
                    "reapedProviderUid": "u", "podsTotal": 2, "podsRemaining": 1,
                }],
                "blockers": [blocker("BarePods"), blocker("Weather")],
            },
        }))
        .unwrap();
        let drain = status.drain.unwrap();
        assert_eq!(
            (status.deletion_policy, drain.limited_by),
            (None, LimitedBy::Nothing)
        );
        assert_eq!(drain.nodes[0].phase, DrainPhase::Cordoning);
        // What must survive is there.
        assert_eq!(drain.nodes[0].reaped_provider_uid.as_deref(), Some("u"));
        assert_eq!(status.provider.unwrap().started, Some(vec![0]));
        let reasons: Vec<BlockerReason> = drain.blockers.iter().map(|b| b.reason).collect();
        assert_eq!(reasons, [BlockerReason::BarePods]);
    }

    #[test]
    fn the_words_of_this_version_are_read_as_they_are() {
        let phases = DrainPhase::ALL.iter().map(|p| {
            let node = json!({
                "name": "n", "ordinal": 0, "phase": p.as_str(), "startedAt": "2026-12-31T00:00:00Z", "recordons": 0,
                "podsTotal": 0, "podsRemaining": 0,
            });
            serde_json::from_value::<crate::DrainingNode>(node).unwrap().phase
        });
        assert!(phases.eq(DrainPhase::ALL.iter().copied()));
    }
}
