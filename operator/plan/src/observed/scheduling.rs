//! The vendor's scheduler as seen: which ResourcePolicies it takes, and which are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use vnp_crds::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL, POOL_LABEL};

use crate::observed::ObjectKey;
use crate::scheduling::PolicySchema;
use crate::workload::APPLIED_ANNOTATION;

/// What a pass sees of the scheduler.
#[derive(Clone, Debug, Default)]
pub struct SchedulingSeen {
    /// The ResourcePolicy CRD.
    pub crd: PolicyCrd,
    /// All ResourcePolicies of the cluster, by key; `None` while they are not known, and then none is written.
    pub policies: Option<Arc<Policies>>,
    /// Namespaces that are being deleted.
    pub leaving: Arc<BTreeSet<String>>,
}

/// ResourcePolicies by key.
pub type Policies = BTreeMap<ObjectKey, Arc<PolicySeen>>;

/// The ResourcePolicy CRD as installed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PolicyCrd {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Not installed, or not served in the version that is written; with what to do about it.
    Missing(String),
    /// Served.
    Installed(Arc<PolicySchema>),
}

/// A ResourcePolicy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySeen {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// UIDs of its owners.
    pub owners: Vec<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// Digest of what was applied last.
    pub applied: Option<String>,
    /// Its spec.
    pub spec: Value,
    /// `fieldsV1` of our server-side apply, `None` before the first one.
    pub fields: Option<Value>,
}

impl PolicySeen {
    /// From the object as the API server shows it.
    pub fn read(raw: &Value) -> Self {
        let meta = &raw["metadata"];
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let labels = meta["labels"].as_object();
        let labels = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value)));
        let owners = meta["ownerReferences"].as_array();
        let ours = |entry: &&Value| {
            entry["manager"] == FIELD_MANAGER
                && entry["operation"] == "Apply"
                && entry["subresource"].as_str().unwrap_or_default().is_empty()
        };
        let managed = meta["managedFields"].as_array();
        Self {
            key: ObjectKey {
                namespace: text(&meta["namespace"]),
                name: text(&meta["name"]),
            },
            uid: text(&meta["uid"]),
            labels: labels.collect(),
            owners: owners.into_iter().flatten().map(|o| text(&o["uid"])).collect(),
            deleting: !meta["deletionTimestamp"].is_null(),
            applied: meta["annotations"][APPLIED_ANNOTATION]
                .as_str()
                .map(str::to_owned),
            spec: raw["spec"].clone(),
            fields: managed
                .into_iter()
                .flatten()
                .find(ours)
                .map(|entry| entry["fieldsV1"].clone()),
        }
    }

    /// It carries our labels, which name this pool.
    pub fn belongs_to(&self, pool: &str) -> bool {
        let label = |key| self.labels.get(key).map(String::as_str);
        label(POOL_LABEL) == Some(pool) && label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_read_with_what_we_applied_of_it() {
        let entry = |manager: &str, operation: &str| json!({ "manager": manager, "operation": operation, "fieldsV1": { "f:spec": { manager: {} } } });
        let policy = PolicySeen::read(&json!({
            "metadata": {
                "name": "burst.web", "namespace": "shop", "uid": "u",
                "labels": { (POOL_LABEL): "burst", (MANAGED_BY_LABEL): MANAGED_BY },
                "annotations": { (APPLIED_ANNOTATION): "d" },
                "ownerReferences": [{ "uid": "pool-uid" }],
                "managedFields": [
                    entry("kubectl", "Apply"), entry(FIELD_MANAGER, "Update"), entry(FIELD_MANAGER, "Apply"),
                ],
            },
            "spec": { "units": [] },
        }));
        assert!(policy.belongs_to("burst") && !policy.belongs_to("other"));
        assert_eq!(policy.key.to_string(), "shop/burst.web");
        assert_eq!(
            (policy.owners.as_slice(), policy.deleting),
            (&["pool-uid".to_owned()][..], false)
        );
        assert_eq!(policy.applied.as_deref(), Some("d"));
        assert_eq!(policy.fields.unwrap()["f:spec"], json!({ FIELD_MANAGER: {} }));
    }

    #[test]
    fn a_policy_without_anything_is_nobody_s() {
        let policy = PolicySeen::read(&json!({ "metadata": { "name": "x", "namespace": "n" } }));
        assert!(!policy.belongs_to("") && policy.fields.is_none() && policy.owners.is_empty());
    }
}
