//! The mutation of one pod.

use std::collections::BTreeMap;

use kube::core::SelectorExt;
use vnp_crds::{
    COMPUTE_ANNOTATION, EXPLAIN_ANNOTATION, OVERFLOW_LABEL, PLACED_BY_ANNOTATION, POOL_LABEL, PlacementMode,
    TRUE, WEBHOOK_DISABLED, WEBHOOK_LABEL, compute_label, trigger_label, virtual_node,
};

use super::additions::Additions;
use super::node_choice::{rules_out_virtual_nodes, speaks_of};
use super::pod::{Aloof, PodView};
use super::routes::{Kind, NAME_LABEL, Provider, Route, Routes};
use super::unfit::{Unfit, need};
use super::virtual_nodes::{Candidate, VirtualNodes};
use super::{LeftAlone, Mutation, Placing, Review, gpu};
use crate::compute::{GPU_HPN, Said};

type Labels = BTreeMap<String, String>;

impl Placing {
    /// What becomes of the pod. Applied to its own result it changes nothing: what was decided once is read from the pod.
    pub fn mutate(&self, review: &Review<'_>) -> Mutation {
        let pod = match PodView::read(review.pod) {
            Ok(pod) => pod,
            Err(unreadable) => {
                return Mutation {
                    unreadable: Some(unreadable),
                    ..Mutation::default()
                };
            }
        };
        let explains = pod.annotation(EXPLAIN_ANNOTATION) == Some(TRUE);
        let explain = |text: String| explains.then(|| format!("virtualnodes.dev: {text}"));
        if let Some(why) = self.left_alone(&pod, review) {
            return Mutation {
                warnings: explain(why.to_owned()).into_iter().collect(),
                ..Mutation::default()
            };
        }
        let mut namespace = review.namespace_labels.clone();
        namespace.insert(NAME_LABEL.to_owned(), review.namespace.to_owned());

        let mut mutation = Mutation::default();
        let mut additions = Additions::to(&pod, review.nodes);
        let mut route = self.routes.of_pod(&pod, &namespace);
        if let Some(selecting) = route {
            let on_route = PodOnRoute {
                pod: &pod,
                namespace: &namespace,
                route: selecting,
                routes: &self.routes,
            };
            if let Some(why) = on_route.unfit(review.nodes) {
                // Asked once more, after somebody else has changed what was asked about first.
                let placed = pod.annotation(PLACED_BY_ANNOTATION) == Some(selecting.id.as_str());
                let text = if placed {
                    format!(
                        "{} has placed the pod, and it was changed after that: {why}; what was added to it stays, so it may \
                         never run",
                        selecting.id
                    )
                } else {
                    format!("{} selects the pod, but {why}; it is left as it is", selecting.id)
                };
                mutation.warnings.extend(match why {
                    // Who says so knows.
                    Unfit::Declines => explain(text),
                    _ => Some(format!("virtualnodes.dev: {text}")),
                });
                mutation.left_alone = Some(LeftAlone {
                    pool: selecting.pool.name.clone(),
                    by: selecting.id.clone(),
                    why,
                    placed,
                });
                route = None;
            } else {
                on_route.add_to(&mut additions);
                mutation.warnings.extend(gpu_warning(&pod, &additions));
            }
        }
        // The scheduler sees the labels that the pod ends with.
        let labels = additions.all_labels();
        let policy = self
            .routes
            .policies
            .iter()
            .find(|p| p.reach.has(&namespace, &labels));
        if let Some(scheduler) = policy.and_then(|policy| policy.pool.scheduler.as_deref()) {
            additions.schedule_by(scheduler);
        }
        let Some(by) = route.or(policy) else {
            return mutation;
        };
        let lines = additions.lines().into_iter();
        let lines = lines.map(|what| format!("{} added {what}", by.id));
        mutation.warnings.extend(lines.filter_map(explain));
        mutation.patch = additions.patch(&by.id);
        mutation.placed_by = Some(by.id.clone());
        mutation
    }

    /// Why no rule is asked at all.
    fn left_alone(&self, pod: &PodView, review: &Review<'_>) -> Option<&'static str> {
        let disabled = review.namespace_labels.get(WEBHOOK_LABEL).map(String::as_str);
        if self.excluded.contains(review.namespace) {
            return Some("pods of this namespace are left alone: what makes the cluster work runs here");
        }
        if disabled == Some(WEBHOOK_DISABLED) {
            return Some("the namespace has the label virtualnodes.dev/webhook=disabled");
        }
        Some(match pod.aloof()? {
            Aloof::Bound => "spec.nodeName is set; the pod is left as it is",
            Aloof::Mirror => "mirror pods are left as they are",
            Aloof::DaemonSet => "pods of DaemonSets are left as they are",
            Aloof::Disabled => "the pod has the label virtualnodes.dev/webhook=disabled",
        })
    }
}

impl Routes {
    /// The route that places the pod. The one that did so before does it again: what it added may have brought the pod
    /// within reach of another. A pod copied from another namespace is another pod.
    fn of_pod(&self, pod: &PodView, namespace: &Labels) -> Option<&Route> {
        let recorded = pod
            .annotation(PLACED_BY_ANNOTATION)
            .and_then(|id| self.places.iter().find(|route| route.id == id))
            .filter(|route| route.reach.namespaces.matches(namespace));
        let none = Labels::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        recorded.or_else(|| {
            self.places
                .iter()
                .find(|route| route.reach.has(namespace, labels))
        })
    }
}

/// One pod on its way to virtual nodes.
struct PodOnRoute<'a> {
    pod: &'a PodView,
    namespace: &'a Labels,
    route: &'a Route,
    routes: &'a Routes,
}

impl PodOnRoute<'_> {
    /// Why the pod can't run on a virtual node.
    fn unfit(&self, nodes: &VirtualNodes) -> Option<Unfit> {
        if rules_out_virtual_nodes(self.pod) {
            return Some(Unfit::Declines);
        }
        if let Some(need) = need(self.pod) {
            return Some(Unfit::Need(need));
        }
        // Reserved GPU nodes belong to no pool, and come by another way. A pod that is bound for ECI, and one for which the rule
        // has a class, is not given the pool's.
        let default = self
            .route
            .pool
            .compute
            .labels
            .get(compute_label::CLASS)
            .map(String::as_str);
        let given = default.filter(|class| {
            let mut additions = Additions::to(self.pod, nodes);
            self.add_to(&mut additions);
            additions.says(compute_label::CLASS) == Some(*class)
        });
        let class = self.pod.label(compute_label::CLASS).or(given);
        let reserved = class == Some(GPU_HPN);
        if reserved && Candidate::unknown().suits(self.pod) {
            return None;
        }
        let narrowed = self.is_rule() && self.routes.pools.len() > 1 && !speaks_of(self.pod, POOL_LABEL);
        let of_route = |provider: &&Provider| !narrowed || provider.pool == self.route.pool.name;
        let providers: Vec<&Provider> = self.routes.pools.iter().filter(of_route).collect();
        (!nodes.has_one_for(self.pod, &providers, !narrowed)).then_some(Unfit::NodeChoice)
    }

    fn is_rule(&self) -> bool {
        matches!(self.route.kind, Kind::Rule { .. })
    }

    fn add_to(&self, additions: &mut Additions<'_>) {
        if let Kind::Rule {
            labels, annotations, ..
        } = &self.route.kind
        {
            for (key, value) in labels {
                additions.label(key, value);
            }
            for (key, value) in annotations {
                additions.annotation(key, value);
            }
            if let Some(scheduler) = &self.route.pool.scheduler {
                additions.schedule_by(scheduler);
            }
        }
        let required = self.requires(additions);
        self.add_compute(additions, required);
        if required {
            additions.node_label(virtual_node::LABEL, virtual_node::LABEL_VALUE);
            additions.tolerate();
        } else if !additions.tolerated() {
            additions.label(OVERFLOW_LABEL, &self.route.pool.name);
        }
        self.add_pool(additions, required);
    }

    /// Only virtual nodes will do. A trigger on the pod, added by the rule itself even, says so whatever the mode.
    fn requires(&self, additions: &Additions<'_>) -> bool {
        let labels = additions.all_labels();
        let mut triggers = self.routes.triggers();
        match self.route.kind {
            Kind::Rule { mode, .. } => {
                mode == PlacementMode::Require || triggers.any(|t| t.reach.has(self.namespace, &labels))
            }
            Kind::Trigger | Kind::Policy => true,
        }
    }

    /// Class, QoS and series where the pod says nothing. What stands in the node selector, and what brings a pod to ACS by
    /// itself, is only for pods that may not stay on ordinary nodes.
    fn add_compute(&self, additions: &mut Additions<'_>, required: bool) {
        let compute = &self.route.pool.compute;
        if compute.gpu_only && !gpu::requests_gpu(self.pod) {
            return;
        }
        let node_series = !required || speaks_of(self.pod, compute_label::GPU_SERIES);
        let said = Said {
            eci: self.means_eci(additions),
            ..Said::by(compute, |key| additions.says(key), node_series)
        };
        let given = compute.complete(&said);
        if let Some(stamp) = given.stamp() {
            additions.annotation(COMPUTE_ANNOTATION, &stamp);
        }
        for (key, value) in given.labels {
            additions.label(key, value);
        }
        if let Some((key, value)) = given.trigger.filter(|_| required) {
            additions.label(key, value);
        }
        for (key, value) in given.node_selector {
            additions.node_label(key, value);
        }
    }

    /// A documented label asks for ECI, and no other for ACS.
    fn means_eci(&self, additions: &Additions<'_>) -> bool {
        let says = |key: &str| additions.says(key) == Some(TRUE);
        let namespace = self.namespace.get(trigger_label::ECI).is_some_and(|v| v == TRUE);
        let acs = says(trigger_label::ACS) || additions.says(compute_label::CLASS).is_some();
        says(trigger_label::ECI) || says(trigger_label::LEGACY_ECI) || (namespace && !acs)
    }

    /// Pods of a rule run on the virtual nodes of its pool. Where ordinary nodes do as well, they are only kept off those of
    /// the others. Reserved GPU nodes belong to no pool (ACS documentation on GPU-HPN: they are made from a capacity
    /// reservation).
    fn add_pool(&self, additions: &mut Additions<'_>, required: bool) {
        let own = &self.route.pool.name;
        let others = self.routes.pools.iter().map(|provider| &provider.pool);
        let others: Vec<String> = others.filter(|pool| *pool != own).cloned().collect();
        if !self.is_rule() || others.is_empty() || speaks_of(self.pod, POOL_LABEL) {
            return;
        }
        let reserved = additions.says(compute_label::CLASS) == Some(GPU_HPN);
        if !required {
            // The pod's own word may be that another pool lets it overflow.
            if additions.says(OVERFLOW_LABEL).is_some_and(|pool| pool != own) {
                return;
            }
            additions.no_node_label(POOL_LABEL, others);
        } else if !reserved {
            additions.node_label(POOL_LABEL, own);
        }
    }
}

/// GPU pods of ACS must have requests equal to limits, or the cloud refuses them when it is too late to say so here.
fn gpu_warning(pod: &PodView, additions: &Additions<'_>) -> Option<String> {
    additions.says(compute_label::CLASS)?;
    let container = gpu::requests_gpu(pod).then(|| gpu::not_guaranteed(pod))??;
    Some(format!(
        "virtualnodes.dev: container {container} of a GPU pod has no limits for cpu and memory that equal its requests; ACS takes \
         GPU pods of QoS class Guaranteed only"
    ))
}
