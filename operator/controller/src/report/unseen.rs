//! The status of pools that no pass reports on: they can't be read, or a cache for them never came. What stands there was
//! true once, so nobody may go on reading it as the answer to the pool of today.

use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_crds::{ConditionType, Reason};

use super::conditions::MESSAGE_LIMIT;
use super::seconds::whole;
use super::wording::cut;

/// What to apply: the status with what there is to say in it, everything else of ours as it stands, conditions of others
/// left out. `None` where it says that already.
///
/// Pool and answer are JSON: what can't be read as our type is kept as well. `reason` is that of Stalled;
/// Ready and Accepted have it too where the spec itself is at fault.
pub(super) fn status(pool: &Value, reason: Reason, note: &str, now: Timestamp) -> Option<Value> {
    let mut status = match &pool["status"] {
        Value::Object(status) => Value::Object(status.clone()),
        _ => json!({}),
    };
    let note = cut(note.to_owned(), MESSAGE_LIMIT);
    let generation = pool["metadata"]["generation"].clone();
    let own = |c: &&Value| ConditionType::ALL.iter().any(|kind| c["type"] == kind.as_str());
    let all = status["conditions"].as_array();
    // Those of others are not ours to apply.
    let before: Vec<Value> = all.into_iter().flatten().filter(own).cloned().collect();
    let mut conditions: Vec<Value> = before
        .iter()
        .filter(|c| c["type"] != ConditionType::Reconciling.as_str())
        .cloned()
        .collect();
    let mut say = |kind: ConditionType, value: &str, reason: Reason| {
        let kind = kind.to_string();
        let there = conditions.iter().position(|c| c["type"] == kind);
        let same = there.filter(|i| conditions[*i]["status"] == value);
        let since = same.map_or_else(
            || json!(whole(now)),
            |i| conditions[i]["lastTransitionTime"].clone(),
        );
        let condition = json!({
            "type": kind, "status": value, "reason": reason.to_string(), "message": note,
            "lastTransitionTime": since, "observedGeneration": generation,
        });
        match there {
            Some(i) => conditions[i] = condition,
            None => conditions.push(condition),
        }
    };
    let at_fault = reason == Reason::InvalidSpec;
    let ready = if at_fault {
        reason
    } else {
        Reason::ProviderUnavailable
    };
    say(ConditionType::Ready, "False", ready);
    say(ConditionType::Stalled, "True", reason);
    if at_fault {
        say(ConditionType::Accepted, "False", reason);
    }
    let told = conditions == before && status["observedGeneration"] == generation;
    status["conditions"] = json!(conditions);
    status["observedGeneration"] = generation;
    (!told).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn conditions(status: &Value) -> Vec<String> {
        let all = status["conditions"].as_array().unwrap();
        let line = |c: &Value| {
            format!(
                "{}={} {} {}",
                c["type"], c["status"], c["reason"], c["lastTransitionTime"]
            )
            .replace('"', "")
        };
        all.iter().map(line).collect()
    }

    #[test]
    fn what_is_no_longer_known_is_not_left_standing_and_nothing_else_is_lost() {
        let drain = json!({ "nodes": [{ "name": "virtual-node-eci-1", "phase": "OfANewerVersion" }] });
        let mut pool = json!({
            "metadata": { "generation": 7 },
            "status": { "observedGeneration": 6, "drain": drain, "conditions": [
                { "type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "1970-01-01T00:00:01Z" },
                { "type": "Reconciling", "status": "True", "reason": "Updating" },
                { "type": "Theirs", "status": "True", "reason": "Foreign", "lastTransitionTime": "1970-01-01T00:00:02Z" },
            ] },
        });
        let status = status(&pool, Reason::InvalidSpec, "it can't be read", at(9)).unwrap();
        assert_eq!(
            conditions(&status),
            [
                "Ready=False InvalidSpec 1970-01-01T00:00:09Z",
                "Stalled=True InvalidSpec 1970-01-01T00:00:09Z",
                "Accepted=False InvalidSpec 1970-01-01T00:00:09Z",
            ]
        );
        assert_eq!(
            (&status["drain"], &status["observedGeneration"]),
            (&drain, &json!(7))
        );
        pool["status"] = status;
        assert_eq!(
            super::status(&pool, Reason::InvalidSpec, "it can't be read", at(20)),
            None
        );
        let other = super::status(&pool, Reason::InvalidSpec, "another value", at(20)).unwrap();
        assert_eq!(
            conditions(&other),
            conditions(&pool["status"]),
            "since when it is so stays"
        );
    }

    #[test]
    fn a_pool_without_a_status_gets_one() {
        let pool = json!({ "metadata": { "generation": 1 } });
        let status = status(&pool, Reason::WatchFailing, "the watch fails", at(9)).unwrap();
        assert_eq!(
            conditions(&status),
            [
                "Ready=False ProviderUnavailable 1970-01-01T00:00:09Z",
                "Stalled=True WatchFailing 1970-01-01T00:00:09Z",
            ]
        );
    }
}
