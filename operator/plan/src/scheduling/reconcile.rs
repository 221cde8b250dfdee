//! What there is compared with what is asked for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use vnp_crds::{EventReason, Reason, ResourcePolicy};

use super::schema::{Fitted, PolicySchema};
use super::{desired, field, finding, minima, namespaces, warnings};
use crate::finding::{EventNote, Finding, SchedulingState};
use crate::observed::{ObjectKey, Observed, Policies, PolicySeen, Recall};
use crate::plan::Part;
use crate::rewritten::{AGAIN_AFTER, note, said};
use crate::step::{PolicyApply, Step};
use crate::workload::first_lost;

/// Adds to `part` what makes `policies` those that are `wanted`.
pub(super) fn reconcile(
    seen: &Observed,
    wanted: &[ResourcePolicy],
    schema: &PolicySchema,
    policies: &Policies,
    may_write: bool,
    part: &mut Part,
) {
    let mut kept = BTreeSet::new();
    let mut changes = Vec::new();
    for policy in wanted {
        let name = desired::name(&seen.pool, policy);
        let fitted = schema.fit(desired::spec(&seen.pool, policy, schema));
        let homes = match namespaces::of(policy, seen) {
            Ok(homes) => homes,
            Err(error) => {
                let message = format!(
                    "{}.namespaceSelector can't be read ({error}): the operators are In and NotIn with values, Exists and \
                     DoesNotExist without",
                    field(policy)
                );
                part.findings.push(finding(SchedulingState::Unfit, message));
                kept.extend(of_name(policies, &name));
                continue;
            }
        };
        if !homes.absent.is_empty() {
            let absent = homes.absent.iter().copied().collect::<Vec<_>>().join(", ");
            let message = format!(
                "{}.namespaces names {absent}, of which nothing is there yet; the policy is made as soon as that is",
                field(policy)
            );
            part.findings.push(finding(SchedulingState::Pending, message));
        }
        if let Some(message) = unfit(policy, &fitted) {
            part.findings.push(finding(SchedulingState::Unfit, message));
            kept.extend(of_name(policies, &name));
            continue;
        }
        say_left_out(policy, &fitted.left_out, part);
        part.findings.extend(warnings::warnings(seen, policy, &homes));
        for namespace in homes.present {
            let key = ObjectKey {
                namespace: namespace.to_owned(),
                name: name.clone(),
            };
            let there = policies.get(&key).map(AsRef::as_ref);
            match there {
                Some(other) if !other.belongs_to(seen.pool_name()) => {
                    let message = format!(
                        "ResourcePolicy {key} is not this pool's and is left alone; delete it, or rename policy {} of the pool",
                        policy.name
                    );
                    part.findings.push(finding(SchedulingState::Foreign, message));
                }
                Some(going) if going.deleting => {
                    changes.push(format!(
                        "ResourcePolicy {key} is going and is made again after that"
                    ));
                }
                Some(ours) if in_place(seen, ours, &fitted.spec) => {}
                _ => {
                    let digest = desired::digest(&seen.pool, &fitted.spec);
                    let rewrites = &seen.recall.policies_rewritten;
                    let known = rewrites.get(&key.to_string()).filter(|r| r.wanted == digest);
                    if let Some(rewritten) = known {
                        let message = said(rewritten, &format!("ResourcePolicy {key}"), "ResourcePolicies");
                        part.findings
                            .push(finding(SchedulingState::Pending, message.clone()));
                        part.findings.push(Finding::Stalled {
                            reason: Reason::FieldContested,
                            message,
                        });
                    } else {
                        changes.push(format!("ResourcePolicy {key} is to be written"));
                    }
                    if let Some(rewritten) = known.filter(|r| !r.due) {
                        part.wake(rewritten.tried + AGAIN_AFTER);
                        kept.insert(key);
                        continue;
                    }
                    let uid = there.map(|p| p.uid.as_str());
                    part.steps.push(Step::ApplyPolicy(PolicyApply {
                        body: desired::body(&seen.pool, &key, uid, &fitted.spec),
                        create: uid.is_none(),
                        policy: key.clone(),
                    }));
                }
            }
            kept.insert(key);
        }
    }
    let ours = policies.values().filter(|p| p.belongs_to(seen.pool_name()));
    for gone in ours.filter(|p| !kept.contains(&p.key)) {
        changes.push(format!("ResourcePolicy {} is to be removed", gone.key));
        if !gone.deleting {
            part.steps.push(Step::DeletePolicy {
                policy: gone.key.clone(),
                uid: gone.uid.clone(),
            });
        }
    }
    let when = match may_write || seen.deleting() {
        true => "",
        false => " when the spec can be followed",
    };
    let changes = changes.into_iter().map(|change| change + when);
    let pending = changes.map(|c| finding(SchedulingState::Pending, c));
    part.findings.extend(pending);
    if !(may_write || seen.deleting()) {
        part.steps.clear();
    }
}

/// Notes of a ResourcePolicy that was applied with success what became of it.
pub fn note_stored_policy(
    recall: &mut Recall,
    seen: &Observed,
    apply: &PolicyApply,
    stored: &PolicySeen,
    now: Timestamp,
) {
    let rewrites = &mut recall.policies_rewritten;
    let key = apply.policy.to_string();
    let wanted = &apply.body["spec"];
    if in_place(seen, stored, wanted) {
        rewrites.remove(&key);
        return;
    }
    let difference = first_difference("spec", wanted, &stored.spec)
        .unwrap_or_else(|| "the operator's annotation, owner or fields are missing".to_owned());
    note(
        rewrites,
        key,
        desired::digest(&seen.pool, wanted),
        difference,
        now,
    );
}

/// The first value that is another one than `wanted`, with both.
fn first_difference(path: &str, wanted: &Value, live: &Value) -> Option<String> {
    match (wanted, live) {
        _ if says(wanted, live) => None,
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(key, value)| {
            first_difference(
                &format!("{path}.{key}"),
                value,
                live.get(key).unwrap_or(&Value::Null),
            )
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            let mut pairs = wanted.iter().zip(live).enumerate();
            pairs.find_map(|(at, (w, l))| first_difference(&format!("{path}[{at}]"), w, l))
        }
        _ => Some(format!("{path} {live} -> {wanted}")),
    }
}

fn of_name<'a>(policies: &'a Policies, name: &'a str) -> impl Iterator<Item = ObjectKey> + 'a {
    policies.keys().filter(move |key| key.name == name).cloned()
}

/// Whether the object says what was applied last, that is what is wanted now, and nobody took any of it.
fn in_place(seen: &Observed, policy: &PolicySeen, spec: &Value) -> bool {
    let applied = policy.applied.as_deref() == Some(&desired::digest(&seen.pool, spec));
    let owned = policy.owners.iter().any(|uid| uid == seen.pool_uid());
    let fields = policy.fields.as_ref().and_then(|fields| fields.get("f:spec"));
    let ours = fields.is_some_and(|fields| first_lost(fields, spec).is_none());
    applied && owned && ours && says(spec, &policy.spec)
}

/// Whether `live` says all that is `wanted`; what the server's defaults added does not count.
fn says(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| says(value, live.get(key).unwrap_or(&Value::Null))),
        // An empty map may be dropped on the way.
        (Value::Object(wanted), Value::Null) => wanted.is_empty(),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(w, l)| says(w, l))
        }
        _ => wanted == live,
    }
}

/// Why the policy can't be written: what it needs is not in it. Without its selector it would order the pods of others,
/// without units or their kinds it orders nothing.
fn unfit(policy: &ResourcePolicy, fitted: &Fitted) -> Option<String> {
    let mut missing: BTreeSet<String> = fitted.missing.iter().cloned().collect();
    if !policy.selector.is_empty() && fitted.spec.get("selector").is_none() {
        missing.insert("selector".to_owned());
    }
    match fitted.spec["units"].as_array() {
        Some(units) if !units.is_empty() => {
            let nameless = units
                .iter()
                .enumerate()
                .filter(|(_, u)| u.get("resource").is_none());
            missing.extend(nameless.map(|(index, _)| format!("units[{index}].resource")));
        }
        _ => drop(missing.insert("units".to_owned())),
    }
    let why = |name: &String| match fitted.left_out.get(name) {
        Some(why) => format!("{name} can't be written ({why}{})", since(policy, name)),
        None => format!("{name} is required by the installed CRD and has no field in the pool"),
    };
    let missing: Vec<String> = missing.iter().map(why).collect();
    (!missing.is_empty()).then(|| format!("{} can't be followed: {}", field(policy), missing.join(", ")))
}

/// What is left out is told once as an event and stays in the condition.
fn say_left_out(policy: &ResourcePolicy, left_out: &BTreeMap<String, String>, part: &mut Part) {
    for (name, why) in left_out {
        let text = format!(
            "{}.{} is left out: {why}{}",
            field(policy),
            ours(name),
            since(policy, name)
        );
        part.findings
            .push(finding(SchedulingState::LeftOut, text.clone()));
        part.findings.push(Finding::Event(EventNote {
            reason: EventReason::ConfigWarning,
            subject: format!("{}.{name}", field(policy)),
            note: text,
        }));
    }
}

/// The pool's name of a field of the vendor.
fn ours(name: &str) -> &str {
    match name {
        "whenTryNextUnits.timeout" => "whenTryNextUnits.timeoutSeconds",
        other => other,
    }
}

/// The scheduler that is needed, when the vendor says so.
fn since(policy: &ResourcePolicy, name: &str) -> String {
    let field = name.rsplit('.').next().unwrap_or(name);
    let version = match field {
        "resource" => unit(policy, name).and_then(minima::of_resource),
        field => minima::of_field(field),
    };
    version.map_or_else(String::new, |v| format!("; it needs scheduler {v} or later"))
}

/// The kind of resource of the unit that a path leads to.
fn unit<'a>(policy: &'a ResourcePolicy, path: &str) -> Option<&'a str> {
    let (index, _) = path.strip_prefix("units[")?.split_once(']')?;
    let unit = policy.units.get(index.parse::<usize>().ok()?)?;
    Some(&unit.resource)
}
