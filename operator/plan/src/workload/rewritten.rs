//! Writes to the StatefulSet that were answered with success and stored with other values, see [`crate::rewritten`].

use jiff::Timestamp;
use vnp_crds::Reason;

use super::change;
use super::contest::{self, contested};
use crate::finding::{Finding, ProviderState};
use crate::observed::{Observed, Recall, Rewritten, Workload};
use crate::plan::Part;
use crate::rewritten::{self, AGAIN_AFTER};
use crate::step::{PatchPurpose, Step};

/// The count that a shrink lowers. Of the target nothing else is known that way: a count above it may be wanted for the time.
pub(crate) const LOWERED: &str = "replicas lowered";

/// The field was written, something else was stored, and it is not time to try again.
pub(crate) fn held_off(recall: &Recall, field: &str) -> bool {
    recall.rewritten.get(field).is_some_and(|r| !r.due)
}

/// A shrink from this count was made, another count was stored, and it is not time to try again.
pub(crate) fn shrink_held_off(recall: &Recall, count: i32) -> bool {
    let entry = recall.rewritten.get(LOWERED).filter(|r| !r.due);
    entry.is_some_and(|r| r.wanted == count.saturating_sub(1).to_string())
}

/// Notes of a write that was answered with success what became of it. `stored` is the workload as the answer shows it.
pub fn note_stored(recall: &mut Recall, observed: &Observed, step: &Step, stored: &Workload, now: Timestamp) {
    let writes = |field: &str| match step {
        Step::ApplyWorkload { purpose, .. } => {
            *purpose == PatchPurpose::Configure && field == contest::TEMPLATE
        }
        Step::PatchWorkload(patch) => match patch.purpose {
            PatchPurpose::TakeOver => field == contest::TAKEOVER,
            PatchPurpose::Configure => field == "image" || field.starts_with("env "),
            PatchPurpose::ScaleUp => field == contest::REPLICAS,
            _ => false,
        },
        _ => false,
    };
    let mut before = std::mem::take(&mut recall.rewritten);
    let lowered = before.remove_entry(LOWERED);
    if let Step::Shrink(_) = step {
        let count = observed.workload.there().map_or(0, |w| w.replicas());
        let wanted = count - 1;
        recall.rewritten.extend(lowered);
        if stored.replicas() > wanted {
            let difference = format!("spec.replicas {} -> {wanted}", stored.replicas());
            let what = LOWERED.to_owned();
            rewritten::note(&mut recall.rewritten, what, wanted.to_string(), difference, now);
        } else {
            recall.rewritten.remove(LOWERED);
        }
    } else {
        recall.rewritten.extend(lowered);
    }
    let fields = contest::fields(observed, stored);
    for (field, (seen, by)) in fields {
        let known = before.get(&field).filter(|r| r.wanted == seen.wanted);
        if seen.in_place {
            continue;
        }
        // What was left alone on purpose was not written.
        let written = writes(&field)
            && contested(&observed.recall, &field).is_none()
            && !held_off(&observed.recall, &field);
        let entry = match (written, known) {
            (true, known) => Rewritten {
                wanted: seen.wanted,
                difference: difference(observed, stored, &field),
                by: Some(by).filter(|by| by != contest::NOBODY),
                since: known.map_or(now, |r| r.since),
                tried: now,
                due: false,
            },
            (false, Some(known)) => known.clone(),
            (false, None) => continue,
        };
        recall.rewritten.insert(field, entry);
    }
}

/// Drops what has come true or is wanted otherwise now, and lets the rest be tried again when it is time.
pub(super) fn age(recall: &mut Recall, observed: &Observed, workload: &Workload, now: Timestamp) {
    if recall.rewritten.is_empty() {
        return;
    }
    rewritten::age(&mut recall.rewritten, now);
    let fields = contest::fields(observed, workload);
    recall.rewritten.retain(|field, r| {
        if field == LOWERED {
            // A target above it wants no such shrink any more.
            let target = crate::target::target(observed);
            let still = |wanted: i32| workload.replicas() > wanted && target.is_some_and(|t| t <= wanted);
            return r.wanted.parse().is_ok_and(still);
        }
        fields
            .get(field)
            .is_some_and(|(seen, _)| !seen.in_place && seen.wanted == r.wanted)
    });
}

/// Which value stands there for which, in one line for people.
fn difference(observed: &Observed, stored: &Workload, field: &str) -> String {
    if field == contest::TAKEOVER {
        return "the operator's label, finalizer or annotation is missing".to_owned();
    }
    if field == contest::REPLICAS {
        let wanted = crate::target::target(observed).unwrap_or_default();
        return format!("spec.replicas {} -> {wanted}", stored.replicas());
    }
    let lines = match change::wanted(observed, stored) {
        Some(change) => change.differences(stored),
        None => Vec::new(),
    };
    let own = format!("{field} ");
    let mine: Vec<String> = lines
        .iter()
        .filter(|line| field == contest::TEMPLATE || line.starts_with(&own))
        .cloned()
        .collect();
    if mine.is_empty() {
        field.to_owned()
    } else {
        mine.join(", ")
    }
}

/// Says what does not take.
pub(super) fn findings(observed: &Observed, part: &mut Part) {
    for entry in observed.recall.rewritten.values() {
        if !entry.due {
            part.wake(entry.tried + AGAIN_AFTER);
        }
        let message = rewritten::said(entry, "StatefulSet", "StatefulSets");
        part.findings.push(Finding::Provider {
            state: ProviderState::Updating,
            message: message.clone(),
        });
        part.findings.push(Finding::Stalled {
            reason: Reason::FieldContested,
            message,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::testing::{after, now, observed, pool, workload};
    use crate::workload::remember;

    const WANTED: &str = "registry.example/virtual-nodes-eci:v2";
    const STORED: &str = "mirror.example/virtual-nodes-eci:v2";

    fn adopted(image: &str) -> Observed {
        let mut seen = observed(
            pool(json!({ "provider": { "management": "Adopt", "image": WANTED } })),
            2,
        );
        set_image(&mut seen, image);
        seen
    }

    fn set_image(seen: &mut Observed, image: &str) {
        let mut raw = workload(2).raw;
        raw["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        raw["metadata"]["annotations"] =
            json!({ vnp_crds::ADOPTED_VALUES_ANNOTATION: json!({"env": {}, "image": "old"}).to_string() });
        seen.workload = Workload::new(raw).into();
    }

    fn configure() -> Step {
        Step::PatchWorkload(crate::step::WorkloadPatch {
            patch: json_patch::Patch(Vec::new()),
            purpose: PatchPurpose::Configure,
            changes: Vec::new(),
        })
    }

    fn due(seen: &Observed) -> bool {
        let workload = seen.workload.there().cloned().unwrap();
        change::forward(seen, &workload).unwrap().is_some()
    }

    fn said(seen: &Observed) -> Vec<String> {
        let mut part = Part::default();
        findings(seen, &mut part);
        let next_try = seen
            .recall
            .rewritten
            .values()
            .map(|r| r.tried + AGAIN_AFTER)
            .min();
        assert_eq!(part.wake_at, next_try, "nothing else brings the next try");
        let messages = part.findings.into_iter().filter_map(|f| match f {
            Finding::Stalled { reason, message } => Some(format!("{reason}: {message}")),
            _ => None,
        });
        messages.collect()
    }

    #[test]
    fn a_write_that_is_stored_otherwise_is_said_and_not_made_again_for_a_while() {
        let mut seen = adopted("old");
        assert!(due(&seen));
        // The answer shows another image than was written.
        let stored = adopted(STORED).workload.there().cloned().unwrap();
        let at = seen.clone();
        note_stored(&mut seen.recall, &at, &configure(), &stored, now());
        set_image(&mut seen, STORED);
        assert!(!due(&seen));
        let messages = said(&seen);
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(
            messages[0].contains(&format!("image {STORED} -> {WANTED}")),
            "{messages:?}"
        );
        assert!(
            messages[0].starts_with("FieldContested: since 2027-01-15T08:00:00Z "),
            "{messages:?}"
        );
        for (seconds, again) in [(1, false), (599, false), (600, true)] {
            seen.recall = remember(&seen, after(seconds));
            assert_eq!(due(&seen), again, "after {seconds} s");
        }
        // Once more in vain: it stays known since when.
        let at = seen.clone();
        note_stored(&mut seen.recall, &at, &configure(), &stored, after(600));
        assert!(!due(&seen));
        assert_eq!(said(&seen), messages);
        // Another wish is tried at once, and one that has come true is forgotten.
        let mut other = seen.clone();
        let mut pool = (*other.pool).clone();
        pool.spec.provider.image = Some("registry.example/virtual-nodes-eci:v3".to_owned());
        other.pool = Arc::new(pool);
        other.recall = remember(&other, after(601));
        assert!(due(&other));
        set_image(&mut seen, WANTED);
        seen.recall = remember(&seen, after(602));
        assert!(seen.recall.rewritten.is_empty() && said(&seen).is_empty());
    }

    #[test]
    fn a_raise_that_is_stored_otherwise_is_said_and_made_again_after_a_while() {
        let mut seen = observed(pool(json!({ "replicas": 3 })), 2);
        let raises = |seen: &Observed| {
            let workload = seen.workload.there().cloned().unwrap();
            crate::workload::scale::plan(seen, &workload, Some(3), true).steps
        };
        let step = raises(&seen).remove(0);
        let stored = workload(2);
        let at = seen.clone();
        note_stored(&mut seen.recall, &at, &step, &stored, now());
        let messages = said(&seen);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].contains("spec.replicas 2 -> 3"), "{messages:?}");
        for (seconds, again) in [(1, false), (599, false), (600, true)] {
            seen.recall = remember(&seen, after(seconds));
            assert_eq!(!raises(&seen).is_empty(), again, "after {seconds} s");
        }
        // Who needs a provider to have its instances deleted does not wait.
        seen.recall = remember(&seen, after(1));
        crate::testing::with_node(&mut seen, 2, |_| {});
        crate::testing::bind(&mut seen, 2, vec![crate::testing::pod("a")]);
        assert!(!raises(&seen).is_empty());
    }

    #[test]
    fn a_write_that_took_and_one_about_something_else_are_no_news() {
        let mut seen = adopted("old");
        let took = adopted(WANTED).workload.there().cloned().unwrap();
        let at = seen.clone();
        note_stored(&mut seen.recall, &at, &configure(), &took, now());
        let Step::PatchWorkload(mut roll) = configure() else {
            unreachable!()
        };
        roll.purpose = PatchPurpose::Roll;
        let stored = adopted(STORED).workload.there().cloned().unwrap();
        let at = seen.clone();
        note_stored(&mut seen.recall, &at, &Step::PatchWorkload(roll), &stored, now());
        assert!(seen.recall.rewritten.is_empty());
    }
}
