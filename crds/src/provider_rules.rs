//! CEL rules of `spec.provider`: which fields each form of provider requires, allows and refuses.
//!
//! Nothing that is set may be ignored, so what a form does not use is refused. An empty value counts as not set.

use kube::core::Rule;

use crate::{OWN_ENV, rule};

const HAS_WORKLOAD: &str = "self.type in ['StatefulSet', 'Deployment']";
const CREATES: &str = "has(self.management) && self.management == 'Create'";

/// Rules on `spec.provider` itself.
pub(crate) fn all() -> Vec<Rule> {
    let mut rules = vec![rule::immutable("type")];
    rules.extend(management());
    for field in ["namespace", "name"] {
        rules.extend(part_of_workload(field));
        rules.push(rule::immutable(field));
    }
    rules.extend(image());
    rules.push(container());
    rules.extend(CREATE_ONLY.iter().map(create_only));
    rules
}

fn management() -> [Rule; 3] {
    [
        rule::required(
            &format!("!({HAS_WORKLOAD}) || has(self.management)"),
            "management",
            "management is required with type %s: set %s",
            &[
                "self.type",
                "self.type == 'StatefulSet' ? 'Create or Adopt' : 'Adopt'",
            ],
        ),
        rule::invalid_at(
            &format!("self.type == 'StatefulSet' || !({CREATES})"),
            "management",
            "management Create is only for type StatefulSet: set Adopt with type %s",
            &["self.type"],
        ),
        rule::invalid_at(
            &format!("!(has(oldSelf.management) && oldSelf.management == 'Adopt' && {CREATES})"),
            "management",
            "management can not be changed from Adopt to Create: make a new pool with a workload of its own",
            &[],
        ),
    ]
}

/// Namespace and name of the workload.
fn part_of_workload(field: &str) -> [Rule; 2] {
    let name = rule::cel_name(field);
    [
        rule::required(
            &format!("!({HAS_WORKLOAD}) || has(self.{name})"),
            field,
            &format!("{field} is required with type %s: set the {field} of the provider workload"),
            &["self.type"],
        ),
        rule::forbidden(
            &format!("{HAS_WORKLOAD} || !has(self.{name})"),
            field,
            &format!("{field} %s has no meaning with type Addon, which has no workload: remove it"),
            &[&format!("self.{name}")],
        ),
    ]
}

fn image() -> [Rule; 2] {
    [
        rule::required(
            &format!("!({CREATES}) || (has(self.image) && self.image != '')"),
            "image",
            "image is required with management Create: set the provider image with its tag",
            &[],
        ),
        rule::forbidden(
            &format!("{HAS_WORKLOAD} || !has(self.image) || self.image == ''"),
            "image",
            "image %s has no meaning with type Addon, whose version the cloud sets: remove it",
            &["self.image"],
        ),
    ]
}

fn container() -> Rule {
    rule::forbidden(
        &format!("!has(self.container) || self.container == '' || ({HAS_WORKLOAD} && !({CREATES}))"),
        "container",
        "container %s is only for a workload that is adopted, and this is %s: remove it",
        &[
            "self.container",
            "has(self.management) ? self.management : self.type",
        ],
    )
}

/// Fields that only a workload made by the operator has: the name, when it counts as set, and the value to show.
const CREATE_ONLY: [(&str, &str, &str); 10] = [
    ("args", "self.args.size() > 0", "self.args[0]"),
    ("env", "self.env.size() > 0", "self.env[0].name"),
    (
        "serviceAccountName",
        "self.serviceAccountName != ''",
        "self.serviceAccountName",
    ),
    (
        "credentialsSecretName",
        "self.credentialsSecretName != ''",
        "self.credentialsSecretName",
    ),
    ("clusterId", "self.clusterId != ''", "self.clusterId"),
    (
        "resources",
        "has(self.resources.limits) || has(self.resources.requests) || has(self.resources.claims)",
        "has(self.resources.limits) ? 'limits' : has(self.resources.requests) ? 'requests' : 'claims'",
    ),
    (
        "imagePullSecrets",
        "self.imagePullSecrets.size() > 0",
        "self.imagePullSecrets[0].name",
    ),
    (
        "nodeSelector",
        "self.nodeSelector.size() > 0",
        "self.nodeSelector.map(key, key)[0]",
    ),
    (
        "tolerations",
        "self.tolerations.size() > 0",
        "has(self.tolerations[0].key) ? self.tolerations[0].key : 'of every taint'",
    ),
    (
        "priorityClassName",
        "self.priorityClassName != ''",
        "self.priorityClassName",
    ),
];

fn create_only(&(field, set, value): &(&str, &str, &str)) -> Rule {
    rule::forbidden(
        &format!("!has(self.{field}) || !({set}) || ({CREATES})"),
        field,
        &format!(
            "{field} %s is only for management Create, and this is %s: remove it and set it in the workload itself"
        ),
        &[value, "has(self.management) ? self.management : self.type"],
    )
}

/// Rules on `spec.provider.env`.
pub(crate) fn env() -> Vec<Rule> {
    let owned = format!("variable.name in {}", rule::words(OWN_ENV));
    vec![rule::invalid(
        &format!("!self.exists(variable, {owned})"),
        "variable %s=%s belongs to another field of the pool: remove it here and set that field",
        &[
            &format!("self.filter(variable, {owned})[0].name"),
            &format!("self.map(variable, {owned}, has(variable.value) ? variable.value : '')[0]"),
        ],
    )]
}
