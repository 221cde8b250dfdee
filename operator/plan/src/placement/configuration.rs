//! The MutatingWebhookConfiguration: which pods the API server asks about at all.
//!
//! One entry for each route, so that what asks about a pod can be read off its name. Every entry is as narrow as its rule:
//! a pod that no rule means costs no call. A rule whose pods another entry has already needs none of its own, because the
//! answer to a call looks at all rules.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{Expression, Selector};
use serde_json::{Value, json};
use vnp_crds::{GROUP, MANAGED_BY, MANAGED_BY_LABEL, WEBHOOK_CONFIGURATION, WEBHOOK_DISABLED, WEBHOOK_LABEL};

use super::Placing;
use super::entries::Asked;
use super::routes::{Kind, NAME_LABEL};

/// URL path of the webhook.
pub const PATH: &str = "/mutate";

/// How long a pod waits for a webhook that does not answer.
const TIMEOUT_SECONDS: i32 = 2;

/// Where the webhook is served.
#[derive(Clone, Debug)]
pub struct Serving<'a> {
    /// Namespace of the operator, whose pods are never asked about.
    pub namespace: &'a str,
    /// Name of the Service there.
    pub service: &'a str,
    /// Port of the Service.
    pub port: u16,
    /// Certificates that the API server trusts, PEM.
    pub ca_bundle: &'a [u8],
}

impl Placing {
    /// The MutatingWebhookConfiguration, the same for the same pools in any order; `None` when no pool asks for the
    /// webhook.
    pub fn configuration(&self, serving: &Serving<'_>) -> Option<Value> {
        let asked = self.routes.asked();
        if asked.is_empty() {
            return None;
        }
        let metadata = ObjectMeta {
            name: Some(WEBHOOK_CONFIGURATION.to_owned()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY_LABEL.to_owned(),
                MANAGED_BY.to_owned(),
            )])),
            ..ObjectMeta::default()
        };
        let mut excluded: BTreeSet<String> = self.excluded.clone();
        excluded.insert(serving.namespace.to_owned());
        let of_no_rule = self
            .routes
            .of_no_rule()
            .map(|expression| condition("of-no-rule", expression));
        let entry = |asked: &Asked<'_>| {
            let mut conditions = conditions(asked);
            if matches!(asked.route.kind, Kind::Trigger) {
                conditions.extend(of_no_rule.clone());
            }
            entry(asked, conditions, &excluded, serving)
        };
        Some(json!(MutatingWebhookConfiguration {
            metadata,
            webhooks: Some(asked.iter().map(entry).collect()),
        }))
    }
}

/// The fields that the API server fills in are spelt out: an absent one would look like a difference for good.
fn entry(
    asked: &Asked<'_>,
    conditions: Vec<MatchCondition>,
    excluded: &BTreeSet<String>,
    serving: &Serving<'_>,
) -> MutatingWebhook {
    let enabled = || Expression::NotIn(WEBHOOK_LABEL.to_owned(), [WEBHOOK_DISABLED.to_owned()].into());
    let mut namespaces: Selector = asked.reach.namespaces.clone();
    namespaces.extend(Expression::NotIn(NAME_LABEL.to_owned(), excluded.clone()));
    namespaces.extend(enabled());
    let mut pods = asked.reach.pods.clone();
    pods.extend(enabled());
    MutatingWebhook {
        name: format!("{}.{GROUP}", asked.name),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: WebhookClientConfig {
            ca_bundle: Some(ByteString(serving.ca_bundle.to_vec())),
            service: Some(ServiceReference {
                namespace: serving.namespace.to_owned(),
                name: serving.service.to_owned(),
                path: Some(PATH.to_owned()),
                port: Some(serving.port.into()),
            }),
            url: None,
        },
        failure_policy: Some("Ignore".to_owned()),
        match_conditions: Some(conditions),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(namespaces.into()),
        object_selector: Some(pods.into()),
        reinvocation_policy: Some("IfNeeded".to_owned()),
        rules: Some(vec![RuleWithOperations {
            api_groups: Some(vec![String::new()]),
            api_versions: Some(vec!["v1".to_owned()]),
            operations: Some(vec!["CREATE".to_owned()]),
            resources: Some(vec!["pods".to_owned()]),
            scope: Some("Namespaced".to_owned()),
        }]),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
    }
}

fn condition(name: &str, expression: impl Into<String>) -> MatchCondition {
    MatchCondition {
        name: name.to_owned(),
        expression: expression.into(),
    }
}

/// What no selector tells, in CEL.
fn conditions(asked: &Asked<'_>) -> Vec<MatchCondition> {
    let mut conditions = vec![
        // Mirror pods are among these. Without a node, their annotation is nobody's but the user's.
        condition(
            "not-bound",
            "!has(object.spec.nodeName) || object.spec.nodeName == ''",
        ),
        condition(
            "not-of-a-daemonset",
            "!has(object.metadata.ownerReferences) || !object.metadata.ownerReferences.exists(o, \
             o.kind == 'DaemonSet' && has(o.controller) && o.controller)",
        ),
    ];
    // A policy only names the scheduler.
    if matches!(asked.route.kind, Kind::Policy) {
        conditions.push(condition(
            "default-scheduler",
            "!has(object.spec.schedulerName) || object.spec.schedulerName in ['', 'default-scheduler']",
        ));
    }
    let of_no_other = asked.of_no_other.as_ref();
    conditions.extend(of_no_other.map(|expression| condition("of-no-other-entry", expression)));
    conditions
}
