//! The MutatingWebhookConfiguration: which pods the API server asks about at all.
//!
//! One entry for each route, so that what asks about a pod can be read off its name. Every entry is as narrow as its rule:
//! a pod that no rule means costs no call. A rule whose pods an earlier entry has already needs none of its own, because
//! the answer to a call looks at all rules.

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
use super::routes::{Kind, NAME_LABEL, Route};
use crate::selection::Reach;

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
        let mut asked: Vec<(&Route, Reach)> = Vec::new();
        for route in self.routes.places.iter().chain(&self.routes.policies) {
            let known = asked
                .iter()
                .any(|(earlier, _)| earlier.reach.covers(&route.reach));
            if known || route.reach.is_void() {
                continue;
            }
            let mut reach = route.reach.clone();
            // A pod waits for each call in turn. Of rules, Accepted says that they share pods; triggers do by their nature.
            if matches!(route.kind, Kind::Trigger) {
                reach = asked
                    .iter()
                    .fold(reach, |reach, (earlier, _)| reach.without(&earlier.reach));
            }
            asked.push((route, reach));
        }
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
        let entry = |(route, reach): &(&Route, Reach)| entry(route, reach, &excluded, serving);
        Some(json!(MutatingWebhookConfiguration {
            metadata,
            webhooks: Some(asked.iter().map(entry).collect()),
        }))
    }
}

/// The fields that the API server fills in are spelt out: an absent one would look like a difference for good.
fn entry(
    route: &Route,
    reach: &Reach,
    excluded: &BTreeSet<String>,
    serving: &Serving<'_>,
) -> MutatingWebhook {
    let enabled = || Expression::NotIn(WEBHOOK_LABEL.to_owned(), [WEBHOOK_DISABLED.to_owned()].into());
    let mut namespaces: Selector = reach.namespaces.clone();
    namespaces.extend(Expression::NotIn(NAME_LABEL.to_owned(), excluded.clone()));
    namespaces.extend(enabled());
    let mut pods = reach.pods.clone();
    pods.extend(enabled());
    MutatingWebhook {
        name: format!("{}.{GROUP}", route.entry),
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
        match_conditions: Some(conditions(route)),
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

/// What no label tells, in CEL.
fn conditions(route: &Route) -> Vec<MatchCondition> {
    let condition = |name: &str, expression: &str| MatchCondition {
        name: name.to_owned(),
        expression: expression.to_owned(),
    };
    let mut conditions = vec![
        condition(
            "not-bound",
            "!has(object.spec.nodeName) || object.spec.nodeName == ''",
        ),
        condition(
            "not-a-mirror",
            "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)",
        ),
        condition(
            "not-of-a-daemonset",
            "!has(object.metadata.ownerReferences) || !object.metadata.ownerReferences.exists(o, \
             o.kind == 'DaemonSet' && has(o.controller) && o.controller)",
        ),
    ];
    // A policy only names the scheduler.
    if matches!(route.kind, Kind::Policy) {
        conditions.push(condition(
            "default-scheduler",
            "!has(object.spec.schedulerName) || object.spec.schedulerName in ['', 'default-scheduler']",
        ));
    }
    conditions
}
