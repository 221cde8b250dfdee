//! The StatefulSet that the operator makes itself: the POST, and the server-side apply of everything after it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EnvVar, EnvVarSource, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, SeccompProfile, SecretKeySelector, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde_json::{Value, json};
use vnp_crds::{Provider, VirtualNodePool, env_key};

use super::change::Reverted;
use super::desired::{self, Desired};
use super::{env, owned};
use crate::observed::Workload;

/// Name of the provider's container.
pub(super) const CONTAINER: &str = "virtual-node";

/// Digest of what was applied last, on the object: tells a body with a field less from one that is in place.
pub(crate) const APPLIED_ANNOTATION: &str = "virtualnodes.dev/applied";

/// Nothing of the provider asks for root: it listens above 1024 and writes no files.
const USER: i64 = 65532;

/// The body of the POST: only what is never dropped, because no later apply takes away what a POST wrote.
pub(super) fn post_body(pool: &VirtualNodePool) -> Value {
    let provider = &pool.spec.provider;
    let name = provider.name.clone();
    let labels = selector_labels(provider);
    json!(StatefulSet {
        metadata: ObjectMeta {
            name: name.clone(),
            namespace: provider.namespace.clone(),
            labels: Some(labels_of(pool)),
            finalizers: Some(vec![vnp_crds::WORKLOAD_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: StatefulSetSpec {
            replicas: Some(0),
            service_name: name,
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(labels.clone()),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: CONTAINER.to_owned(),
                        image: provider.image.clone(),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            },
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    })
}

/// What is applied. There is no field for replicas: each write of the count is a patch that tests the old one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplyBody<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ApplyMetadata<'a>,
    spec: ApplySpec<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplyMetadata<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
    resource_version: &'a str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplySpec<'a> {
    update_strategy: StatefulSetUpdateStrategy,
    template: &'a Value,
}

/// The body of the apply. `partition` counts from the first ordinal.
pub(super) fn apply_body(
    pool: &VirtualNodePool,
    workload: &Workload,
    template: &Value,
    partition: i32,
    reverted: Option<Reverted<'_>>,
) -> Value {
    let labels = labels_of(pool);
    let mut annotations = BTreeMap::from([(
        APPLIED_ANNOTATION,
        desired::digest(&(&labels, template, reverted.map(|r| r.hash))),
    )]);
    annotations.extend(reverted.iter().flat_map(Reverted::annotations));
    json!(ApplyBody {
        api_version: "apps/v1",
        kind: "StatefulSet",
        metadata: ApplyMetadata {
            name: workload.name(),
            namespace: workload.namespace(),
            uid: workload.uid(),
            resource_version: workload.resource_version(),
            labels,
            annotations,
        },
        spec: ApplySpec {
            update_strategy: StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateStatefulSetStrategy {
                    partition: Some(partition),
                    ..RollingUpdateStatefulSetStrategy::default()
                }),
            },
            template,
        },
    })
}

/// What keeps the workload from being what `body` says, as a path of `fieldsV1` keys: a field that somebody took from us,
/// or, when the body itself is another one than the last applied, an empty path. The partition does not count: it moves
/// while a template is rolled out.
pub(super) fn first_difference(workload: &Workload, body: &Value) -> Option<Vec<String>> {
    let annotation = |body: &Value| {
        body["metadata"]["annotations"][APPLIED_ANNOTATION]
            .as_str()
            .map(str::to_owned)
    };
    let Some(fields) = owned::applied(workload) else {
        return Some(Vec::new());
    };
    if workload.annotation(APPLIED_ANNOTATION) != annotation(body).as_deref() {
        return Some(Vec::new());
    }
    let metadata = &body["metadata"];
    let tracked = json!({
        "metadata": { "labels": metadata["labels"], "annotations": metadata["annotations"] },
        "spec": {
            "updateStrategy": { "type": body["spec"]["updateStrategy"]["type"] },
            "template": body["spec"]["template"],
        },
    });
    owned::first_lost(fields, &tracked).or_else(|| first_rewritten(workload, body))
}

/// The first image or variable that we own and that has another value all the same: admission changes what a write says
/// without taking the field away from its manager.
fn first_rewritten(workload: &Workload, body: &Value) -> Option<Vec<String>> {
    let wanted = body["spec"]["template"]["spec"]["containers"].as_array()?;
    wanted.iter().find_map(|container| {
        let there = workload
            .containers()
            .iter()
            .find(|c| c["name"] == container["name"])?;
        let path = |rest: &[String]| {
            let containers = ["f:spec", "f:template", "f:spec", "f:containers"].map(str::to_owned);
            let key = format!("k:{}", json!({ "name": container["name"] }));
            containers
                .into_iter()
                .chain([key])
                .chain(rest.iter().cloned())
                .collect()
        };
        if there["image"] != container["image"] {
            return Some(path(&["f:image".to_owned()]));
        }
        let variables = container["env"].as_array().into_iter().flatten();
        let mut plain = variables.filter(|v| v["value"].is_string());
        let changed = plain.find(|v| {
            let stored = there["env"].as_array().into_iter().flatten();
            stored
                .filter(|s| s["name"] == v["name"])
                .any(|s| s["value"] != v["value"])
        })?;
        let key = format!("k:{}", json!({ "name": changed["name"] }));
        Some(path(&["f:env".to_owned(), key, "f:value".to_owned()]))
    })
}

/// The template that we applied last, as it is in the workload; the whole template when we own none of it.
pub(super) fn applied_template(workload: &Workload) -> Value {
    let ours = owned::applied(workload).and_then(|f| f.pointer("/f:spec/f:template"));
    ours.map_or_else(
        || workload.template().clone(),
        |fields| owned::extract(fields, workload.template()),
    )
}

/// What `template` changes in the workload, for people.
pub(super) fn changes(workload: &Workload, template: &Value) -> Vec<String> {
    let none = Value::Null;
    let there = workload
        .containers()
        .iter()
        .find(|c| c["name"] == CONTAINER)
        .unwrap_or(&none);
    let wanted = template.pointer("/spec/containers/0").unwrap_or(&none);
    let mut lines = Vec::new();
    if there["image"] != wanted["image"] {
        lines.push(super::change_line(
            "image",
            there["image"].as_str(),
            wanted["image"].as_str(),
        ));
    }
    let variables = wanted["env"].as_array().map_or(&[][..], Vec::as_slice);
    for name in variables.iter().filter_map(|v| v["name"].as_str()) {
        let (old, new) = (
            env::entry(there, name).map(|e| e.1),
            env::entry(wanted, name).map(|e| e.1),
        );
        if old.is_none_or(|old| owned::differs(new.unwrap_or(&none), old)) {
            lines.push(variable_line(name, there, wanted));
        }
    }
    let applied = applied_template(workload);
    let before = applied
        .pointer("/spec/containers/0/env")
        .and_then(Value::as_array);
    for name in before.into_iter().flatten().filter_map(|v| v["name"].as_str()) {
        if env::entry(wanted, name).is_none() {
            lines.push(variable_line(name, there, wanted));
        }
    }
    if lines.is_empty() {
        lines.push("other fields of the pod template".to_owned());
    }
    lines
}

/// Values of `provider.env` stay out of status and logs: they are not ours to publish. References have none.
fn variable_line(name: &str, there: &Value, wanted: &Value) -> String {
    let plain = !env::is_reference(there, name) && !env::is_reference(wanted, name);
    if plain && vnp_crds::OWN_ENV.contains(&name) {
        return super::change_line(
            &format!("env {name}"),
            env::value(there, name),
            env::value(wanted, name),
        );
    }
    format!("env {name} changes")
}

fn labels_of(pool: &VirtualNodePool) -> BTreeMap<String, String> {
    let pool = pool.metadata.name.clone().unwrap_or_default();
    BTreeMap::from([
        (
            vnp_crds::MANAGED_BY_LABEL.to_owned(),
            vnp_crds::MANAGED_BY.to_owned(),
        ),
        (vnp_crds::POOL_LABEL.to_owned(), pool),
    ])
}

fn selector_labels(provider: &Provider) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), provider.name.clone().unwrap_or_default())])
}

/// The pod template that the pool wants.
pub(super) fn template(pool: &VirtualNodePool) -> PodTemplateSpec {
    let provider = &pool.spec.provider;
    let given = |field: &Option<String>| field.clone().filter(|v| !v.is_empty());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(selector_labels(provider)),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            affinity: Some(never_on_virtual_nodes()),
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                image: provider.image.clone(),
                args: Some(provider.args.clone()).filter(|a| !a.is_empty()),
                env: Some(variables(pool)),
                resources: provider.resources.clone(),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".to_owned()]),
                        add: None,
                    }),
                    ..SecurityContext::default()
                }),
                ..Container::default()
            }],
            image_pull_secrets: Some(provider.image_pull_secrets.clone()).filter(|s| !s.is_empty()),
            node_selector: Some(provider.node_selector.clone()).filter(|s| !s.is_empty()),
            priority_class_name: given(&provider.priority_class_name),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            service_account_name: given(&provider.service_account_name),
            tolerations: Some(provider.tolerations.clone()).filter(|t| !t.is_empty()),
            ..PodSpec::default()
        }),
    }
}

/// A provider on a virtual node would run as an instance of another provider, or of itself.
fn never_on_virtual_nodes() -> Affinity {
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(vec![NodeSelectorRequirement {
                        key: "type".to_owned(),
                        operator: "NotIn".to_owned(),
                        values: Some(vec!["virtual-kubelet".to_owned()]),
                    }]),
                    ..NodeSelectorTerm::default()
                }],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Ours first, so that `provider.env` may refer to them as `$(ECI_VSWITCH)`.
fn variables(pool: &VirtualNodePool) -> Vec<EnvVar> {
    let provider = &pool.spec.provider;
    let plain = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    let secret = |name: &str, key: &str| {
        let secret = provider.credentials_secret_name()?;
        let source = SecretKeySelector {
            name: secret.to_owned(),
            key: key.to_owned(),
            optional: None,
        };
        Some(from(
            name,
            EnvVarSource {
                secret_key_ref: Some(source),
                ..EnvVarSource::default()
            },
        ))
    };
    let pod = |name: &str, path: &str| {
        let given = provider.env.iter().any(|v| v.name == name);
        let source = ObjectFieldSelector {
            field_path: path.to_owned(),
            api_version: None,
        };
        (!given).then(|| {
            from(
                name,
                EnvVarSource {
                    field_ref: Some(source),
                    ..EnvVarSource::default()
                },
            )
        })
    };
    Desired::of(pool)
        .env
        .iter()
        .map(|(name, value)| plain(name, value))
        .chain(provider.cluster_id().map(|id| plain(env_key::CLUSTER_ID, id)))
        .chain(secret(env_key::ACCESS_KEY, "access-key-id"))
        .chain(secret(env_key::SECRET_KEY, "access-key-secret"))
        // The open-source provider (virtual-kubelet/alibabacloud-eci) takes its Node's name and address from these. The
        // name has to be the pod's, which is how ordinals and Nodes belong together; other builds ignore them.
        .chain(pod("DEFAULT_NODE_NAME", "metadata.name"))
        .chain(pod("VKUBELET_POD_IP", "status.podIP"))
        .chain(provider.env.iter().cloned())
        .collect()
}

fn from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    }
}
