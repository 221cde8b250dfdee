//! Whether the workload that the pool names may be written.

use serde_json::Value;
use vnp_crds::{Management, Reason, env_key};

use super::container::{ContainerDoubt, env_entries, provider_container};
use super::{Refusal, node_name, rivals};
use crate::observed::{Blind, Observed, Workload, WorkloadSeen};

/// The first thing that forbids to write the workload.
pub(super) fn check(observed: &Observed) -> Option<Refusal> {
    namespace(observed)
        .or_else(|| rivals::check(observed))
        .or_else(
            || match (observed.pool.spec.provider.management(), &observed.workload) {
                (_, WorkloadSeen::Unknown(blind)) => Some(unknown(observed, blind)),
                (Management::Create, WorkloadSeen::There(there)) if observed.held_workload().is_none() => {
                    Some(exists(observed, there))
                }
                (Management::Create, _) => node_name::refusal(observed),
                (Management::Adopt, WorkloadSeen::Absent) => missing(observed),
                (Management::Adopt, WorkloadSeen::There(there)) => adoptable(observed, there),
            },
        )
}

fn namespace(observed: &Observed) -> Option<Refusal> {
    let named = observed.pool.spec.provider.workload()?.namespace;
    let allowed = &observed.operator.provider_namespaces;
    (!allowed.iter().any(|n| n == named)).then(|| unknown(observed, &Blind::NotWatched))
}

/// What was not looked at is left as it is, and so is everything that depends on it.
fn unknown(observed: &Observed, blind: &Blind) -> Refusal {
    let workload = observed.pool.spec.provider.workload();
    let named = workload.map(|w| w.namespace).unwrap_or_default();
    let (why, remedy) = match blind {
        Blind::NotWatched => (
            format!(
                "spec.provider.namespace is {named}, and this operator manages providers in {} only",
                list(&observed.operator.provider_namespaces)
            ),
            format!("start it with --provider-namespaces that names {named}, and grant its Role there"),
        ),
        Blind::Refused(words) => (
            format!("the operator may not look at StatefulSets in {named} ({words})"),
            format!("grant it its Role in {named}, see config/rbac/provider-namespace"),
        ),
    };
    let taken_over = observed.deleting()
        || observed
            .pool
            .status
            .as_ref()
            .is_some_and(|s| s.nodes.unwrap_or(0) > 0);
    let meanwhile = if observed.deleting() {
        format!(
            "Until then the pool keeps its finalizer {}, nothing is drained and nothing is given back; when the StatefulSet \
             and its nodes are gone for good, take that finalizer off the pool by hand",
            vnp_crds::FINALIZER
        )
    } else if taken_over {
        "Until then nothing is written to it and no node is drained".to_owned()
    } else {
        "Or use another namespace in a new pool".to_owned()
    };
    Refusal::new(
        Reason::NamespaceNotAllowed,
        format!("{why}; {remedy}. {meanwhile}"),
    )
}

/// What helps where a StatefulSet of that name is somebody else's.
const OTHERWISE: &str = "use management: Adopt in a new pool, choose another spec.provider.name, or delete the StatefulSet \
                         when nothing runs on its nodes";

fn exists(observed: &Observed, there: &Workload) -> Refusal {
    // Without the label it may still be ours: somebody took the label off.
    let made_here = there.annotation(crate::workload::APPLIED_ANNOTATION).is_some() || there.has_finalizer();
    let label = format!("{}: {}", vnp_crds::POOL_LABEL, observed.pool_name());
    let remedy = if there.deleting() {
        "it is being deleted and is created anew when it is gone".to_owned()
    } else if made_here {
        format!(
            "it carries marks of this operator: put the label back if it was made for this pool, {OTHERWISE}"
        )
    } else {
        OTHERWISE.to_owned()
    };
    Refusal::new(
        Reason::WorkloadExists,
        format!(
            "spec.provider.management is Create, and StatefulSet {} exists without the label {label}, by which a pool \
             knows its own; {remedy}",
            reference(observed)
        ),
    )
}

/// A workload that was deleted by somebody and is about to be restored is not missing, and a pool that goes has no
/// use for one.
fn missing(observed: &Observed) -> Option<Refusal> {
    (observed.restore_copy.is_none() && !observed.deleting()).then(|| {
        Refusal::new(
            Reason::WorkloadNotFound,
            format!(
                "spec.provider.management is Adopt, and there is no StatefulSet {}; install the provider, or use \
                 management: Create in a new pool",
                reference(observed)
            ),
        )
    })
}

fn adoptable(observed: &Observed, there: &Workload) -> Option<Refusal> {
    let held = observed.held_workload().is_some();
    if there.deleting() && !held {
        return Some(Refusal::new(
            Reason::WorkloadNotFound,
            format!(
                "spec.provider.management is Adopt, and StatefulSet {} is being deleted; create it again",
                reference(observed)
            ),
        ));
    }
    match provider_container(there, observed.pool.spec.provider.container()) {
        Ok(index) => {
            let container = there.containers().get(index)?;
            not_a_provider(observed, there)
                .filter(|_| !held)
                .or_else(|| other_region(observed, container).filter(|_| !held))
                .or_else(|| env_from_reference(observed, container))
        }
        Err(doubt) => not_a_provider(observed, there)
            .filter(|_| !held && matches!(doubt, ContainerDoubt::None(_)))
            .or_else(|| Some(ambiguous(observed, doubt))),
    }
}

/// Neither `ECI_REGION` in a container nor a virtual node of that name: whatever it is, it is left alone.
fn not_a_provider(observed: &Observed, there: &Workload) -> Option<Refusal> {
    let region = there
        .containers()
        .iter()
        .any(|c| env_entries(c, env_key::REGION).next().is_some());
    let node = observed
        .nodes
        .values()
        .any(|n| n.labels.get("type").is_some_and(|v| v == "virtual-kubelet"));
    (!region && !node).then(|| {
        Refusal::new(
            Reason::NotAProvider,
            format!(
                "StatefulSet {} runs no virtual node provider: no container has {}, and no Node {}-<ordinal> has the label \
                 type=virtual-kubelet; correct spec.provider.name in a new pool",
                reference(observed),
                env_key::REGION,
                observed.pool.spec.provider.name.as_deref().unwrap_or_default(),
            ),
        )
    })
}

/// Instances can't move between regions: with another one the provider would lose sight of all that it runs.
fn other_region(observed: &Observed, container: &Value) -> Option<Refusal> {
    let wanted = observed.pool.spec.region.as_str();
    let there = env_entries(container, env_key::REGION)
        .last()?
        .get("value")?
        .as_str()?
        .trim();
    (!there.is_empty() && there != wanted).then(|| {
        Refusal::new(
            Reason::InvalidSpec,
            format!(
                "spec.region is {wanted}, and {} of StatefulSet {} is {there}: its instances run there and can't be moved; \
                 make a pool with region {there}",
                env_key::REGION,
                reference(observed)
            ),
        )
    })
}

fn ambiguous(observed: &Observed, doubt: ContainerDoubt) -> Refusal {
    let workload = reference(observed);
    match doubt {
        ContainerDoubt::Missing(names) => Refusal::new(
            Reason::InvalidSpec,
            format!(
                "spec.provider.container is {}, and the containers of StatefulSet {workload} are {}; name one of them",
                observed.pool.spec.provider.container().unwrap_or_default(),
                list(&names)
            ),
        ),
        ContainerDoubt::Several(names) => Refusal::new(
            Reason::ContainerAmbiguous,
            format!(
                "several containers of StatefulSet {workload} have {}: {}; say which one is the provider in \
                 spec.provider.container",
                env_key::REGION,
                list(&names)
            ),
        ),
        ContainerDoubt::None(names) => Refusal::new(
            Reason::ContainerAmbiguous,
            format!(
                "no container of StatefulSet {workload} has {}; say in spec.provider.container which of {} is the provider",
                env_key::REGION,
                list(&names)
            ),
        ),
    }
}

/// `valueFrom` and `value` exclude each other, and a value of ours beside it would be lost with the next edit.
fn env_from_reference(observed: &Observed, container: &Value) -> Option<Refusal> {
    let spec = &observed.pool.spec;
    let keys = [
        Some(("spec.region", env_key::REGION)),
        spec.network
            .vpc_id
            .as_ref()
            .map(|_| ("spec.network.vpcId", env_key::VPC)),
        Some(("spec.network.zones", env_key::VSWITCH)),
        Some(("spec.network.securityGroupId", env_key::SECURITY_GROUP)),
        Some(("spec.network.kubeProxy", env_key::KUBE_PROXY)),
        spec.resource_group_id
            .as_ref()
            .map(|_| ("spec.resourceGroupId", env_key::RESOURCE_GROUP)),
        spec.provider
            .cluster_id()
            .map(|_| ("spec.provider.clusterId", env_key::CLUSTER_ID)),
    ];
    let (field, key) = keys.into_iter().flatten().find(|(_, key)| {
        env_entries(container, key).any(|e| e.get("valueFrom").is_some_and(|v| !v.is_null()))
    })?;
    Some(Refusal::new(
        Reason::EnvFromReference,
        format!(
            "variable {key} in container {} of StatefulSet {} is set by valueFrom, and {field} is to set its value; give it a \
             plain value in the StatefulSet",
            container.get("name").and_then(Value::as_str).unwrap_or_default(),
            reference(observed)
        ),
    ))
}

fn reference(observed: &Observed) -> String {
    observed
        .pool
        .spec
        .provider
        .workload()
        .map(|w| w.to_string())
        .unwrap_or_default()
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::accept::testing::{adopting, held, observed, pool, with_workload, workload};
    use crate::observed::{NodeView, SavedCopy};

    fn containers(list: Value) -> Value {
        json!({ "spec": { "template": { "spec": { "containers": list } } } })
    }

    fn adopt(pool_overlay: Value, workload_overlay: Value) -> Option<Refusal> {
        check(&with_workload(
            observed(adopting(pool_overlay)),
            workload(workload_overlay),
        ))
    }

    fn also_held(mut overlay: Value) -> Value {
        json_patch::merge(&mut overlay, &held());
        overlay
    }

    #[track_caller]
    fn refused(refusal: Option<Refusal>, reason: Reason, words: &[&str]) {
        let refusal = refusal.expect("a refusal");
        assert_eq!(refusal.reason, reason, "{}", refusal.message);
        for word in words {
            assert!(refusal.message.contains(word), "{word}: {}", refusal.message);
        }
    }

    #[test]
    fn a_namespace_outside_the_operators_list() {
        let p = pool(json!({ "spec": { "provider": { "namespace": "apps" } } }));
        refused(
            check(&observed(p)),
            Reason::NamespaceNotAllowed,
            &[
                "spec.provider.namespace is apps",
                "kube-system",
                "--provider-namespaces",
            ],
        );
    }

    #[test]
    fn create_takes_nothing_that_stands_there() {
        assert_eq!(check(&observed(pool(json!({})))), None);
        let there = with_workload(observed(pool(json!({}))), workload(json!({})));
        refused(
            check(&there),
            Reason::WorkloadExists,
            &[
                "spec.provider.management is Create",
                "kube-system/virtual-node-eci",
                "management: Adopt",
            ],
        );
        assert_eq!(
            check(&with_workload(observed(pool(json!({}))), workload(held()))),
            None
        );
    }

    #[test]
    fn adopt_needs_something_to_adopt() {
        refused(
            check(&observed(adopting(json!({})))),
            Reason::WorkloadNotFound,
            &["management: Create"],
        );
        assert_eq!(adopt(json!({}), json!({})), None);
        let going = json!({ "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z" } });
        refused(
            adopt(json!({}), going.clone()),
            Reason::WorkloadNotFound,
            &["is being deleted"],
        );
        assert_eq!(
            adopt(json!({}), also_held(going)),
            None,
            "what we hold is restored"
        );
    }

    #[test]
    fn a_workload_to_be_restored_is_not_missing() {
        let mut seen = observed(adopting(json!({})));
        seen.restore_copy = Some(SavedCopy {
            name: "s".into(),
            uid: "u".into(),
            content: json!({}),
        });
        assert_eq!(check(&seen), None);
    }

    #[test]
    fn a_deleted_pool_misses_nothing() {
        let going = json!({ "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z" } });
        assert_eq!(check(&observed(adopting(going))), None);
    }

    #[test]
    fn something_else_is_not_a_provider_unless_it_has_a_virtual_node() {
        let plain = containers(json!([{ "name": "db" }]));
        refused(
            adopt(json!({}), plain.clone()),
            Reason::NotAProvider,
            &["ECI_REGION", "type=virtual-kubelet"],
        );
        let two = containers(json!([{ "name": "db" }, { "name": "proxy" }]));
        refused(
            adopt(json!({}), two.clone()),
            Reason::NotAProvider,
            &["ECI_REGION"],
        );
        let named = json!({ "spec": { "provider": { "container": "db" } } });
        refused(adopt(named.clone(), plain.clone()), Reason::NotAProvider, &[]);
        let unknown = json!({ "spec": { "provider": { "container": "x" } } });
        refused(
            adopt(unknown, plain.clone()),
            Reason::InvalidSpec,
            &["spec.provider.container is x", "db"],
        );

        let node = |labels: &[(&str, &str)]| NodeView {
            name: "virtual-node-eci-0".into(),
            uid: "n".into(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            ready: true,
            ..NodeView::default()
        };
        let with_node = |workload_overlay: Value, labels: &[(&str, &str)]| {
            let mut seen = with_workload(observed(adopting(json!({}))), workload(workload_overlay));
            seen.nodes.insert(0, Arc::new(node(labels)));
            check(&seen)
        };
        assert_eq!(with_node(plain.clone(), &[("type", "virtual-kubelet")]), None);
        refused(with_node(plain.clone(), &[]), Reason::NotAProvider, &[]);
        refused(
            with_node(two, &[("type", "virtual-kubelet")]),
            Reason::ContainerAmbiguous,
            &["db, proxy"],
        );
        assert_eq!(
            adopt(json!({}), also_held(plain)),
            None,
            "a workload that we hold stays a provider"
        );
    }

    #[test]
    fn two_candidates_need_a_name() {
        let env = json!([{ "name": "ECI_REGION", "value": "cn-hangzhou" }]);
        let two = containers(json!([{ "name": "a", "env": env }, { "name": "b", "env": env }]));
        refused(
            adopt(json!({}), two.clone()),
            Reason::ContainerAmbiguous,
            &["a, b", "spec.provider.container", "ECI_REGION"],
        );
        assert_eq!(
            adopt(json!({ "spec": { "provider": { "container": "b" } } }), two),
            None
        );
    }

    #[test]
    fn a_provider_of_another_region_is_not_taken_over() {
        let env = |region: &str| {
            containers(json!([{ "name": "a", "env": [{ "name": "ECI_REGION", "value": region }] }]))
        };
        refused(
            adopt(json!({}), env("cn-beijing")),
            Reason::InvalidSpec,
            &["spec.region is cn-hangzhou", "ECI_REGION", "cn-beijing"],
        );
        assert_eq!(adopt(json!({}), env(" cn-hangzhou")), None);
        assert_eq!(
            adopt(json!({}), also_held(env("cn-beijing"))),
            None,
            "somebody's edit is set back"
        );
    }

    #[test]
    fn value_from_is_refused_on_keys_that_the_pool_sets_and_on_no_others() {
        let env = |key: &str| {
            containers(json!([{ "name": "vk", "env": [
                { "name": "ECI_REGION", "value": "cn-hangzhou" },
                { "name": key, "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
            ] }]))
        };
        for key in [
            "ECI_REGION",
            "ECI_VSWITCH",
            "ECI_SECURITY_GROUP",
            "ECI_KUBE_PROXY",
        ] {
            refused(
                adopt(json!({}), env(key)),
                Reason::EnvFromReference,
                &[key, "vk", "plain value"],
            );
            refused(
                adopt(json!({}), also_held(env(key))),
                Reason::EnvFromReference,
                &[key],
            );
        }
        for (key, overlay) in [
            ("ECI_VPC", json!({ "spec": { "network": { "vpcId": "vpc-1" } } })),
            (
                "ALIYUN_RESOURCEGROUP_ID",
                json!({ "spec": { "resourceGroupId": "rg-1" } }),
            ),
        ] {
            assert_eq!(adopt(json!({}), env(key)), None, "{key}");
            refused(adopt(overlay, env(key)), Reason::EnvFromReference, &[key]);
        }
        for key in ["ECI_ACCESS_KEY", "ALIYUN_CLUSTERID", "VKUBELET_POD_IP"] {
            assert_eq!(adopt(json!({}), env(key)), None, "{key}");
        }
    }
}
