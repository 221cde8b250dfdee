//! Whether a provider names its Node after its pod. All that knows which Node belongs to which ordinal goes by that name.
//! Sources: virtual-kubelet, flag `--nodename`; virtual-kubelet/alibabacloud-eci, `DEFAULT_NODE_NAME`.

use serde_json::{Value, json};
use vnp_crds::{Management, Reason};

use super::Refusal;
use super::container::{env_entries, provider_container};
use super::warnings::warning;
use crate::finding::Finding;
use crate::observed::Observed;

const FLAGS: [&str; 2] = ["--nodename", "-nodename"];
const VARIABLE: &str = "DEFAULT_NODE_NAME";
/// Variables that refer to variables are followed so far; the kubelet itself follows only those defined before.
const DEPTH: usize = 8;

const WHY: &str = "nodes are known by the name of their provider's pod, and all replicas share one template, so no node of \
                      this pool could be drained";

/// `spec.provider` of a pool that creates its workload.
pub(super) fn refusal(observed: &Observed) -> Option<Refusal> {
    let provider = &observed.pool.spec.provider;
    if provider.management() != Management::Create {
        return None;
    }
    // Where nobody else sets the variable, the operator does.
    let own = json!({ "name": VARIABLE, "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } });
    let env: Vec<Value> = std::iter::once(own)
        .chain(provider.env.iter().map(|entry| json!(entry)))
        .collect();
    let container = json!({ "args": provider.args, "env": env });
    let found = renamed(&container)?;
    Some(Refusal::new(
        Reason::InvalidSpec,
        format!(
            "spec.provider names the Node by {found}; {WHY}; remove it, the operator sets {VARIABLE} to the pod's name"
        ),
    ))
}

/// The template of a workload that is adopted.
pub(super) fn warnings(observed: &Observed) -> Option<Finding> {
    let provider = &observed.pool.spec.provider;
    let workload = observed.workload.there()?;
    if provider.management() != Management::Adopt {
        return None;
    }
    let index = provider_container(workload, provider.container()).ok()?;
    let found = renamed(workload.containers().get(index)?)?;
    let subject = format!("StatefulSet {}", workload.name());
    let note = format!(
        "{subject} names the Node by {found}; {WHY}; drain its Nodes by hand, then let it take {VARIABLE} from metadata.name"
    );
    Some(warning(&subject, note))
}

/// What gives the Node another name than the pod's, if anything does.
fn renamed(container: &Value) -> Option<String> {
    let words = ["command", "args"]
        .iter()
        .filter_map(|key| container.get(key)?.as_array());
    let words: Vec<&str> = words.flatten().filter_map(Value::as_str).collect();
    for (at, word) in words.iter().enumerate() {
        let given = FLAGS.iter().find_map(|flag| match word.strip_prefix(flag)? {
            "" => Some(words.get(at + 1).copied().unwrap_or_default()),
            rest => rest.strip_prefix('='),
        });
        if let Some(name) = given
            && !of_pod(container, name, DEPTH)
        {
            return Some(format!("--nodename {name}"));
        }
    }
    let entry = env_entries(container, VARIABLE).last()?;
    (!entry_of_pod(container, entry, DEPTH)).then(|| match entry.get("value").and_then(Value::as_str) {
        Some(name) => format!("{VARIABLE}={name}"),
        None => format!("{VARIABLE} from a reference that is not metadata.name"),
    })
}

/// `$(VARIABLE)` of a variable that holds the pod's name.
fn of_pod(container: &Value, text: &str, depth: usize) -> bool {
    let Some(name) = text.strip_prefix("$(").and_then(|t| t.strip_suffix(')')) else {
        return false;
    };
    let entry = env_entries(container, name).last();
    entry.is_some_and(|entry| entry_of_pod(container, entry, depth))
}

fn entry_of_pod(container: &Value, entry: &Value, depth: usize) -> bool {
    let path = entry
        .pointer("/valueFrom/fieldRef/fieldPath")
        .and_then(Value::as_str);
    let value = entry.get("value").and_then(Value::as_str);
    path == Some("metadata.name") || depth > 0 && value.is_some_and(|text| of_pod(container, text, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::testing::{adopting, observed, pool, with_workload, workload};
    use crate::finding::EventNote;

    fn pod_name(name: &str) -> Value {
        json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } })
    }

    fn cases() -> Vec<(Value, Option<&'static str>)> {
        vec![
            (json!({}), None),
            (json!({ "args": ["--provider", "alibabacloud"] }), None),
            (json!({ "args": ["--nodename=burst"] }), Some("--nodename burst")),
            (
                json!({ "args": ["--nodename", "burst"] }),
                Some("--nodename burst"),
            ),
            (json!({ "args": ["--nodename"] }), Some("--nodename ")),
            (
                json!({ "args": ["--nodename=$(POD)"], "env": [pod_name("POD")] }),
                None,
            ),
            (
                json!({ "args": ["--nodename=x-$(POD)"], "env": [pod_name("POD")] }),
                Some("--nodename x-$(POD)"),
            ),
            (
                json!({ "args": ["--nodename=$(POD)"], "env": [{ "name": "POD", "value": "burst" }] }),
                Some("--nodename $(POD)"),
            ),
            (json!({ "env": [pod_name("DEFAULT_NODE_NAME")] }), None),
            (
                json!({ "env": [pod_name("POD"), { "name": "DEFAULT_NODE_NAME", "value": "$(POD)" }] }),
                None,
            ),
            (
                json!({ "env": [{ "name": "DEFAULT_NODE_NAME", "value": "burst" }] }),
                Some("DEFAULT_NODE_NAME=burst"),
            ),
            (
                json!({ "env": [{ "name": "DEFAULT_NODE_NAME", "value": "$(DEFAULT_NODE_NAME)" }] }),
                Some("DEFAULT_NODE_NAME=$(DEFAULT_NODE_NAME)"),
            ),
            (
                json!({ "env": [{ "name": "DEFAULT_NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }] }),
                Some("not metadata.name"),
            ),
        ]
    }

    #[test]
    fn create_refuses_another_name_than_the_pod_s() {
        for (provider, found) in cases() {
            let refusal = refusal(&observed(pool(json!({ "spec": { "provider": provider } }))));
            let told = refusal.map(|r| (r.reason, r.message));
            match found {
                None => assert_eq!(told, None, "{provider}"),
                Some(found) => assert!(
                    told.as_ref()
                        .is_some_and(|(r, m)| *r == Reason::InvalidSpec && m.contains(found)),
                    "{provider}: {told:?}"
                ),
            }
        }
    }

    #[test]
    fn the_variable_that_the_operator_sets_may_be_used() {
        let provider = json!({ "args": ["--nodename=$(DEFAULT_NODE_NAME)"] });
        let seen = observed(pool(json!({ "spec": { "provider": provider } })));
        assert_eq!(refusal(&seen), None);
    }

    #[test]
    fn adopt_warns_of_it() {
        for (container, found) in cases() {
            let mut container = container;
            container["name"] = json!("vk");
            let there =
                workload(json!({ "spec": { "template": { "spec": { "containers": [container] } } } }));
            let seen = with_workload(observed(adopting(json!({}))), there);
            let told = match warnings(&seen) {
                None => None,
                Some(Finding::Event(EventNote { note, .. })) => Some(note),
                other => panic!("{other:?}"),
            };
            assert_eq!(told.is_some(), found.is_some(), "{container}: {told:?}");
            assert!(told.unwrap_or_default().contains(found.unwrap_or_default()));
        }
    }
}
