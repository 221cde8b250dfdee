//! Somebody else who writes the status of a pool: a second installation of the operator, whose leader reports on all pools as
//! this one does. Each would correct the other without end. The same comes of a CRD that is older than the operator: what it
//! does not know is dropped from each status.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_crds::{EventReason, VirtualNodePoolStatus};
use vnp_plan::finding::EventNote;

const TIMES: usize = 3;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// The status is written so often then.
const SELDOM: SignedDuration = SignedDuration::from_mins(2);

/// What is known of it. Lost at a restart: then it has to be found out again.
#[derive(Debug, Default)]
pub(super) struct Rivalry {
    /// The status as this process wrote it last, until it is seen otherwise.
    wrote: Option<VirtualNodePoolStatus>,
    /// What a pass relies on of the status that this process wrote last, whoever wrote after it.
    relied_on: Option<Value>,
    /// When it was found to be another one.
    changed: Vec<Timestamp>,
}

impl Rivalry {
    /// This process wrote it.
    pub(super) fn wrote(&mut self, status: &VirtualNodePoolStatus) {
        self.relied_on = Some(relied_on(status));
        // As it is read again.
        self.wrote = serde_json::to_value(status)
            .ok()
            .and_then(|status| serde_json::from_value(status).ok());
    }

    /// Looks whether it is still as this process wrote it. What is shown is as new as that at least.
    pub(super) fn look(&mut self, shown: Option<&VirtualNodePoolStatus>, now: Timestamp) {
        let changed = |wrote: &mut VirtualNodePoolStatus| shown.is_none_or(|shown| !keeps(wrote, shown));
        if self.wrote.take_if(changed).is_some() {
            self.changed.push(now);
        }
        self.changed.retain(|at| now.duration_since(*at) <= WINDOW);
    }

    /// It was changed again and again.
    pub(super) fn found(&self) -> bool {
        self.changed.len() >= TIMES
    }

    /// Whether the status says nothing new of what must survive a restart. News of that is never held back: the plan knows it
    /// from the status alone.
    pub(super) fn repeats(&self, status: &VirtualNodePoolStatus) -> bool {
        self.relied_on.as_ref() == Some(&relied_on(status))
    }

    /// What there is to say.
    pub(super) fn said(&self) -> Option<EventNote> {
        self.found().then(|| EventNote {
            reason: EventReason::ConfigWarning,
            subject: "status".to_owned(),
            note: format!(
                "the status of this pool was changed {TIMES} times in {} minutes after this operator wrote it: a second installation \
                 writes it too (kubectl get leases -A), or the CRD is older than the operator and drops fields of it; remove the \
                 one that is not wanted, or apply config/crd. Until then it is written every {} minutes only",
                WINDOW.as_mins(),
                SELDOM.as_mins()
            ),
        })
    }
}

/// When the status may be written again.
pub(super) fn due(last_write: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let due = last_write.checked_add(SELDOM).unwrap_or(Timestamp::MAX);
    // A clock that was set back must not silence the pool.
    (last_write <= now && now < due).then_some(due)
}

/// Ordinals and drains, without the counts that change with each pod.
fn relied_on(status: &VirtualNodePoolStatus) -> Value {
    let provider = status.provider.as_ref();
    let mut nodes = json!(status.drain.as_ref().map(|drain| &drain.nodes));
    for node in nodes.as_array_mut().into_iter().flatten() {
        if let Some(node) = node.as_object_mut() {
            node.retain(|key, _| !matches!(key.as_str(), "podsTotal" | "podsRemaining" | "lastProgressTime"));
        }
    }
    json!({
        "registered": provider.map(|p| &p.registered),
        "started": provider.map(|p| &p.started),
        "retired": provider.map(|p| &p.retired),
        "breakGlass": provider.map(|p| &p.break_glass),
        "nodes": nodes,
    })
}

/// Conditions of others may be there too.
fn keeps(wrote: &VirtualNodePoolStatus, shown: &VirtualNodePoolStatus) -> bool {
    let mut shown = shown.clone();
    let place = |type_: &str| wrote.conditions.iter().position(|c| c.type_ == type_);
    shown.conditions.retain(|c| place(&c.type_).is_some());
    shown.conditions.sort_by_key(|c| place(&c.type_));
    shown == *wrote
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn status(nodes: i32, conditions: &[&str]) -> VirtualNodePoolStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|t| json!({ "type": t, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }))
            .collect();
        serde_json::from_value(json!({ "nodes": nodes, "conditions": conditions })).unwrap()
    }

    #[test]
    fn who_is_overwritten_three_times_in_ten_minutes_says_so_and_writes_seldom() {
        let mut rivalry = Rivalry::default();
        for (round, second) in [0, 100, 200].into_iter().enumerate() {
            rivalry.wrote(&status(1, &["Ready"]));
            assert_eq!((rivalry.found(), rivalry.said()), (false, None), "{round}");
            rivalry.look(Some(&status(2, &["Ready"])), at(second));
            rivalry.look(Some(&status(2, &["Ready"])), at(second + 1));
        }
        assert!(rivalry.found() && rivalry.said().is_some());
        assert_eq!(due(at(200), at(319)), Some(at(320)));
        assert_eq!((due(at(200), at(320)), due(at(200), at(100))), (None, None));
        rivalry.wrote(&status(1, &["Ready"]));
        rivalry.look(Some(&status(1, &["Ready"])), at(601));
        assert!(!rivalry.found(), "the first one is too long ago");
    }

    #[test]
    fn what_is_there_beside_ours_is_no_change() {
        let mut rivalry = Rivalry::default();
        for second in 0..5 {
            rivalry.wrote(&status(1, &["Ready", "Stalled"]));
            rivalry.look(Some(&status(1, &["Foreign", "Stalled", "Ready"])), at(second));
        }
        assert!(!rivalry.found());
        for second in 0..3 {
            rivalry.wrote(&status(1, &["Ready"]));
            rivalry.look(None, at(second));
        }
        assert!(rivalry.found(), "it is gone");
    }

    #[test]
    fn what_must_survive_a_restart_is_news_and_counts_are_not() {
        let status = |started: &[i32], reaped: Option<&str>, left: i32| -> VirtualNodePoolStatus {
            let node = json!({ "name": "virtual-node-eci-2", "ordinal": 2, "phase": "Reaping", "recordons": 0,
                "startedAt": "2027-01-15T08:00:00Z", "podsTotal": 4, "podsRemaining": left, "reapedProviderUid": reaped });
            let drain = json!({ "summary": "1/4", "podsTotal": 4, "podsRemaining": left, "podsTerminating": 0,
                "podsBlocked": 0, "limitedBy": "Rate", "blockers": [], "nodes": [node] });
            let provider = json!({ "type": "StatefulSet", "started": started });
            serde_json::from_value(json!({ "provider": provider, "drain": drain })).unwrap()
        };
        let mut rivalry = Rivalry::default();
        assert!(!rivalry.repeats(&status(&[0], None, 3)));
        rivalry.wrote(&status(&[0], Some("u"), 3));
        // The other one's write does not change what this one wrote.
        rivalry.look(None, at(0));
        assert!(rivalry.repeats(&status(&[0], Some("u"), 1)));
        assert!(!rivalry.repeats(&status(&[0, 1], Some("u"), 1)));
        assert!(!rivalry.repeats(&status(&[0], None, 1)));
    }
}
