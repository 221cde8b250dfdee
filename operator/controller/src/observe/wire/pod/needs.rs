//! What a pod asks of its node, as the scheduler sums it up.

use k8s_openapi::api::core;
use serde_json::Value;
use vnp_plan::room::{Amounts, Expression, Needs, Term, Toleration, amount, sum};

use super::{Affinity, Container, ContainerStatus, PodSpec, PodStatus, Quantities};

pub(super) fn needs(spec: &PodSpec, status: &PodStatus) -> Needs {
    let tolerations = spec.tolerations.iter().flatten();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Needs {
        requests: requests(spec, status),
        tolerations: tolerations
            .map(|t| Toleration {
                key: text(&t.key),
                operator: text(&t.operator),
                value: text(&t.value),
                effect: text(&t.effect),
            })
            .collect(),
        selector: spec.node_selector.clone().unwrap_or_default(),
        terms: spec.affinity.as_ref().and_then(terms),
    }
}

/// What is no quantity is more than any node has.
fn amounts(quantities: Option<&Quantities>) -> Amounts {
    let read = |(resource, quantity): (&String, &Value)| {
        let text = match quantity {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (
            resource.clone(),
            amount(resource, &text).unwrap_or(i64::MAX).max(0),
        )
    };
    quantities.into_iter().flatten().map(read).collect()
}

fn at_least(amounts: &mut Amounts, other: &Amounts) {
    for (resource, amount) in other {
        let known = amounts.entry(resource.clone()).or_default();
        *known = (*known).max(*amount);
    }
}

/// Of a container whose resources are being changed, the larger of what it asks for and what it has.
fn of(container: &Container, statuses: &[ContainerStatus]) -> Amounts {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut asked = amounts(requests);
    let status = statuses.iter().find(|s| s.name == container.name);
    at_least(
        &mut asked,
        &amounts(status.and_then(|s| s.allocated_resources.as_ref())),
    );
    asked
}

/// Source: `PodRequests` in k8s.io/component-helpers `resource/helpers.go`: the containers together with the sidecars, or
/// the hungriest init container with the sidecars before it; what the pod as a whole asks for instead; the overhead on top.
fn requests(spec: &PodSpec, status: &PodStatus) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        sum(&mut total, &of(container, &status.container_statuses));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let asked = of(container, &status.init_container_statuses);
        if container.restart_policy.as_deref() == Some("Always") {
            sum(&mut total, &asked);
            sum(&mut sidecars, &asked);
            at_least(&mut starting, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            sum(&mut with_sidecars, &asked);
            at_least(&mut starting, &with_sidecars);
        }
    }
    at_least(&mut total, &starting);
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    total.extend(amounts(whole));
    sum(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

fn terms(affinity: &Affinity) -> Option<Vec<Term>> {
    let node = affinity.node_affinity.as_ref()?;
    let required = node
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let read = |expressions: &Option<Vec<core::v1::NodeSelectorRequirement>>| {
        let expressions = expressions.iter().flatten();
        expressions
            .map(|e| Expression {
                key: e.key.clone(),
                operator: e.operator.clone(),
                values: e.values.clone().unwrap_or_default(),
            })
            .collect()
    };
    let term = |term: &core::v1::NodeSelectorTerm| Term {
        labels: read(&term.match_expressions),
        fields: read(&term.match_fields),
    };
    Some(required.node_selector_terms.iter().map(term).collect())
}
