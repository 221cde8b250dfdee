//! The provider's StatefulSet: created or adopted, changed, scaled up, restored, let go. Scaling down is the drain's.

mod adopt;
mod change;
mod contest;
mod create;
mod desired;
mod env;
mod owned;
mod patch;
mod release;
mod restore;
pub(crate) mod rewritten;
mod roll;
mod scale;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use vnp_crds::{Management, ProviderType, Reason};

pub use self::contest::remember;
pub(crate) use self::create::APPLIED_ANNOTATION;
pub(crate) use self::desired::digest as digest_of;
pub(crate) use self::owned::first_lost;
pub(crate) use self::release::unlabelled;
pub use self::rewritten::note_stored;
use crate::accept::Acceptance;
use crate::availability::shut;
use crate::drain::health::sick;
use crate::finding::{Finding, ProviderState};
use crate::observed::{Observed, Ordinal, Workload};
use crate::plan::Part;
use crate::room::Refused;
use crate::step::{PatchPurpose, Step};
use crate::taint_eviction::running_clock;

/// What the drain of the same pass says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainState {
    /// A node is being drained or taken away.
    pub busy: bool,
    /// A drain waits because that ordinal's provider is not healthy. A template change may be the cure.
    pub held_by_provider: Option<Ordinal>,
    /// No node is wanted and none is left.
    pub drained: bool,
}

/// Plans the workload: at most one write to it, because each tests what the one before changes. (A pool that is paused
/// writes nothing, so its plan shows all that would be written.)
///
/// In order: a workload that somebody deleted is restored; one that we hold or may adopt gets label and finalizer; its
/// count is raised; its template follows the pool, one provider at a time; a pool that goes lets go of it.
pub fn plan_workload(
    observed: &Observed,
    acceptance: &Acceptance,
    target: Option<i32>,
    draining: &DrainState,
    now: Timestamp,
) -> Part {
    if observed.pool.spec.provider.type_ != ProviderType::StatefulSet {
        return Part::default();
    }
    if observed.workload.unknown().is_some() {
        return Part::default();
    }
    if let Some(part) = restore::plan(observed, target) {
        return part;
    }
    let mut part = Part::default();
    let Some(workload) = observed.workload.there().map(AsRef::as_ref) else {
        create_workload(observed, acceptance, &mut part);
        return part;
    };
    let held = observed.held_workload().is_some();
    if observed.deleting() && !held {
        part.steps
            .extend(observed.template_copy.as_ref().map(restore::drop_copy));
        return part;
    }
    if let Some(released) = release::plan(observed, workload, draining) {
        return released;
    }
    let preview = observed.pool.is_paused();
    if held || acceptance.workload {
        take_over(observed, workload, acceptance, &mut part);
        if !preview && !part.steps.is_empty() {
            return part;
        }
    }
    if !(held || preview && acceptance.workload) {
        return part;
    }
    let roll = roll::plan(observed, workload, acceptance.workload, draining, now);
    let scale = scale::plan(observed, workload, target, acceptance.workload);
    // Nothing runs yet: what starts now should start with the right template.
    let template_first = workload.replicas() == 0 && !roll.steps.is_empty();
    let (first, second) = if template_first {
        (roll, scale)
    } else {
        (scale, roll)
    };
    let acted = !first.steps.is_empty();
    merge(&mut part, first);
    let mut second = second;
    if acted && !preview {
        second.steps.clear();
    }
    merge(&mut part, second);
    health_findings(observed, workload, target, now, &mut part);
    contested_findings(observed, &mut part);
    rewritten::findings(observed, &mut part);
    part
}

/// Whether a provider is being restarted for its template just now. No drain may start meanwhile.
pub fn roll_in_step(observed: &Observed, now: Timestamp) -> bool {
    roll::in_step(observed, now)
}

/// Whether all providers run the template that the pool wants, so that the profile may follow. A workload that does not
/// exist runs no other one; of one that is not known nobody can say so.
pub fn rolled(observed: &Observed) -> bool {
    let (pool, provider_pods) = (&observed.pool, &observed.provider_pods);
    let Some(workload) = observed.held_workload() else {
        return observed.workload.unknown().is_none();
    };
    let in_place = match pool.spec.provider.management() {
        Management::Create => {
            let body = create::apply_body(
                pool,
                workload,
                &serde_json::json!(create::template(pool)),
                0,
                None,
            );
            create::first_difference(workload, &body).is_none()
        }
        Management::Adopt => {
            adopt::due(pool, workload, &|_| false).is_ok_and(|due| due.is_none_or(|v| !v.any()))
        }
    };
    let revision = workload.update_revision();
    let runs = |o: Ordinal| {
        provider_pods
            .get(&o)
            .is_some_and(|p| Some(p.revision.as_str()) == revision && p.ready)
    };
    in_place && (workload.replicas() == 0 || revision.is_some() && workload.ordinals().all(runs))
}

fn create_workload(observed: &Observed, acceptance: &Acceptance, part: &mut Part) {
    if observed.deleting() {
        part.steps
            .extend(observed.template_copy.as_ref().map(restore::drop_copy));
        return;
    }
    part.findings.push(Finding::Provider {
        state: ProviderState::Absent,
        message: format!(
            "StatefulSet {} does not exist",
            observed
                .pool
                .spec
                .provider
                .workload()
                .map(|w| w.to_string())
                .unwrap_or_default()
        ),
    });
    if acceptance.workload && observed.pool.spec.provider.management() == Management::Create {
        part.steps.push(Step::CreateWorkload {
            body: create::post_body(&observed.pool),
        });
    }
}

fn take_over(observed: &Observed, workload: &Workload, acceptance: &Acceptance, part: &mut Part) {
    if observed.deleting() && workload.has_finalizer() || adopt::taken_over(&observed.pool, workload) {
        return;
    }
    if rewritten::held_off(&observed.recall, contest::TAKEOVER) {
        return;
    }
    if let Some(by) = contest::contested(&observed.recall, contest::TAKEOVER) {
        let message =
            format!("{by} keeps removing the operator's label, finalizer or annotation from the StatefulSet");
        part.findings.push(stalled_by(
            by,
            &message,
            "keep it from removing them: without them nothing keeps its nodes when it is deleted",
        ));
        return;
    }
    match adopt::take_over(&observed.pool, workload) {
        Ok((operations, changes)) => {
            part.steps
                .push(patch::step(workload, operations, PatchPurpose::TakeOver, changes));
        }
        // Accept says which container it can't tell.
        Err(error) if acceptance.workload => {
            part.findings.push(Finding::Stalled {
                reason: Reason::FieldContested,
                message: error.to_string(),
            });
        }
        Err(_) => {}
    }
}

/// Sick providers of wanted nodes. One whose Node was never seen is still coming up. Those of nodes that go are the drain's business: it restarts them itself.
fn health_findings(
    observed: &Observed,
    workload: &Workload,
    target: Option<i32>,
    now: Timestamp,
    part: &mut Part,
) {
    let wanted = target.map_or(Ordinal::MAX, |t| workload.start_ordinal().saturating_add(t));
    let provider = observed.pool.status.as_ref().and_then(|s| s.provider.as_ref());
    let registered = provider.map_or(&[][..], |p| p.registered.as_slice());
    // The roll says itself how long it gives a provider that it restarts.
    let restarting = roll::restarting(observed, now);
    for ordinal in workload
        .ordinals()
        .filter(|o| *o < wanted && restarting != Some(*o))
    {
        if let Some(why) = sick(observed, ordinal, now) {
            let known = registered.contains(&ordinal) || observed.nodes.contains_key(&ordinal);
            let state = if known {
                ProviderState::Unhealthy
            } else {
                ProviderState::ScalingUp
            };
            let node = observed.nodes.get(&ordinal);
            let clock = node.map_or_else(String::new, |n| running_clock(n, observed.pods_on(ordinal)));
            let message = format!("{}: {why}{clock}", observed.node_name(ordinal));
            part.findings.push(Finding::Provider { state, message });
        } else if let Some(why) = observed
            .nodes
            .get(&ordinal)
            .and_then(|n| shut(observed, n))
            .filter(|why| *why != Refused::Cordoned)
        {
            // A cordon is a person's wish; the rest is a node that nobody can use.
            let message = format!("{}: {why}", observed.node_name(ordinal));
            let state = ProviderState::Unhealthy;
            part.findings.push(Finding::Provider { state, message });
        }
    }
}

/// Fields of the template that are left to somebody else.
fn contested_findings(observed: &Observed, part: &mut Part) {
    let recall = &observed.recall;
    let elsewhere = [contest::REPLICAS, contest::TAKEOVER];
    for field in recall
        .set_back
        .keys()
        .filter(|f| !elsewhere.contains(&f.as_str()))
    {
        if let Some(by) = contest::contested(recall, field)
            && !recall.fields.get(field).is_some_and(|seen| seen.in_place)
        {
            let field = contest::describe(observed, field);
            let message = format!(
                "{by} keeps setting {field} of the StatefulSet back to another value than the pool's"
            );
            part.findings.push(stalled_by(
                by,
                &message,
                "let it leave that field to the pool, or say the same in both",
            ));
        }
    }
}

fn stalled_by(by: &str, message: &str, remedy: &str) -> Finding {
    let who = match by {
        contest::NOBODY => String::new(),
        by => format!(" (field manager {by})"),
    };
    let message = format!("{message}; it is not written any more: {remedy}{who}");
    Finding::Stalled {
        reason: Reason::FieldContested,
        message,
    }
}

/// `env ECI_VSWITCH vsw-a -> vsw-b`.
fn change_line(what: &str, old: Option<&str>, new: Option<&str>) -> String {
    let text = |value: Option<&str>| match value {
        None => "(unset)".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(value) => value.to_owned(),
    };
    format!("{what} {} -> {}", text(old), text(new))
}

fn merge(part: &mut Part, other: Part) {
    part.steps.extend(other.steps);
    part.findings.extend(other.findings);
    if let Some(at) = other.wake_at {
        part.wake(at);
    }
}
