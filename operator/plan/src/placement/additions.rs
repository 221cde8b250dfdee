//! What is added to a pod. Nothing in here can replace what the pod says itself (P4).

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Toleration};
use serde_json::{Value, json};
use vnp_crds::{PLACED_BY_ANNOTATION, virtual_node};

use super::node_choice::{is_empty, requirement};
use super::pod::PodView;
use super::virtual_nodes::VirtualNodes;

/// Additions to one pod.
#[derive(Debug)]
pub(super) struct Additions<'a> {
    pod: &'a PodView,
    /// The pod tolerates the taints of virtual nodes itself.
    tolerated: bool,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    node_selector: BTreeMap<String, String>,
    /// Each is meant by every alternative of the required node affinity.
    requirements: Vec<NodeSelectorRequirement>,
    /// One of them can't be said by the node selector: a pod without a required node affinity gets one.
    needs_affinity: bool,
    tolerates: bool,
    scheduler: Option<String>,
}

impl<'a> Additions<'a> {
    pub(super) fn to(pod: &'a PodView, nodes: &VirtualNodes) -> Self {
        Self {
            pod,
            tolerated: nodes.taints().iter().all(|taint| pod.tolerates(taint)),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            requirements: Vec::new(),
            needs_affinity: false,
            tolerates: false,
            scheduler: None,
        }
    }

    /// Adds a label, unless there is one with that key.
    pub(super) fn label(&mut self, key: &str, value: &str) {
        add_absent(&mut self.labels, self.pod.metadata.labels.as_ref(), key, value);
    }

    /// Adds an annotation, unless there is one with that key.
    pub(super) fn annotation(&mut self, key: &str, value: &str) {
        add_absent(
            &mut self.annotations,
            self.pod.metadata.annotations.as_ref(),
            key,
            value,
        );
    }

    /// The pod shall run only on nodes with this label: its node selector says so and, where it has a required node
    /// affinity, every alternative of it. The selector alone would do for the scheduler; it is the one form that the vendor
    /// documents, and the affinity must not seem to allow more.
    pub(super) fn node_label(&mut self, key: &str, value: &str) {
        let own = self.pod.spec.node_selector.as_ref();
        add_absent(&mut self.node_selector, own, key, value);
        self.requirements.push(requirement(key, value));
    }

    /// The pod shall not run on nodes where the label has one of these values. Nodes without it will do.
    pub(super) fn no_node_label(&mut self, key: &str, values: Vec<String>) {
        self.requirements.push(NodeSelectorRequirement {
            key: key.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(values),
        });
        self.needs_affinity = true;
    }

    /// Tolerates the taint of virtual nodes, unless the pod does.
    pub(super) fn tolerate(&mut self) {
        self.tolerates = !self.tolerated;
    }

    /// The pod tolerates the taint of virtual nodes itself.
    pub(super) fn tolerated(&self) -> bool {
        self.tolerated
    }

    /// Names the scheduler, unless somebody chose one.
    pub(super) fn schedule_by(&mut self, scheduler: &str) {
        if self.pod.has_default_scheduler() && self.scheduler.is_none() {
            self.scheduler = Some(scheduler.to_owned());
        }
    }

    /// The value of a label, the pod's own or an added one.
    pub(super) fn says(&self, key: &str) -> Option<&str> {
        self.pod
            .label(key)
            .or_else(|| self.labels.get(key).map(String::as_str))
    }

    /// All labels that the pod will have.
    pub(super) fn all_labels(&self) -> BTreeMap<String, String> {
        let own = self.pod.metadata.labels.iter().flatten();
        own.chain(&self.labels)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// A line for each thing that is added.
    pub(super) fn lines(&self) -> Vec<String> {
        let map = |what: &'static str, added: &BTreeMap<String, String>| {
            let line = |(key, value): (&String, &String)| format!("{what} {key}={value}");
            added.iter().map(line).collect::<Vec<_>>()
        };
        let terms = self.incomplete_terms();
        let terms = terms.flat_map(|(index, missing)| {
            missing
                .into_iter()
                .map(move |r| format!("{} to term {index} of the node affinity", r.key))
        });
        let affinity = self.new_affinity().into_iter().flatten();
        let affinity = affinity.map(|r| {
            let values = r.values.as_deref().unwrap_or_default().join(", ");
            format!("node affinity {} {} ({values})", r.key, r.operator)
        });
        let tolerates = self
            .tolerates
            .then(|| format!("toleration {}", virtual_node::TAINT));
        let scheduler = self.scheduler.iter().map(|name| format!("schedulerName {name}"));
        map("label", &self.labels)
            .into_iter()
            .chain(map("annotation", &self.annotations))
            .chain(map("nodeSelector", &self.node_selector))
            .chain(terms)
            .chain(affinity)
            .chain(tolerates)
            .chain(scheduler)
            .collect()
    }

    /// The patch. Where anything is added, the pod says by what.
    pub(super) fn patch(&self, placed_by: &str) -> Patch {
        let mut operations = Vec::new();
        let (metadata, spec) = (&self.pod.metadata, &self.pod.spec);
        for (index, missing) in self.incomplete_terms() {
            operations.extend(add_to_term(index, self.pod, &missing));
        }
        if let Some(requirements) = self.new_affinity() {
            operations.push(add_affinity(self.pod, requirements));
        }
        if self.tolerates {
            operations.push(add_toleration(spec.tolerations.as_deref()));
        }
        if let Some(scheduler) = &self.scheduler {
            operations.push(add(&["spec", "schedulerName"], json!(scheduler)));
        }
        operations.extend(add_to_map(
            ["metadata", "labels"],
            metadata.labels.as_ref(),
            &self.labels,
        ));
        operations.extend(add_to_map(
            ["spec", "nodeSelector"],
            spec.node_selector.as_ref(),
            &self.node_selector,
        ));
        let mut annotations = self.annotations.clone();
        let adds = !operations.is_empty() || !annotations.is_empty();
        if adds && self.pod.annotation(PLACED_BY_ANNOTATION) != Some(placed_by) {
            annotations.insert(PLACED_BY_ANNOTATION.to_owned(), placed_by.to_owned());
        }
        operations.extend(add_to_map(
            ["metadata", "annotations"],
            metadata.annotations.as_ref(),
            &annotations,
        ));
        Patch(operations)
    }

    /// What a required node affinity of our own has to state, where the pod has none.
    fn new_affinity(&self) -> Option<&[NodeSelectorRequirement]> {
        let wanted = self.needs_affinity && self.pod.affinity_depth() < 3;
        wanted.then_some(self.requirements.as_slice())
    }

    /// Alternatives of the required node affinity and what they do not state yet. One with nothing in it matches no node,
    /// and has to stay so.
    fn incomplete_terms(&self) -> impl Iterator<Item = (usize, Vec<&NodeSelectorRequirement>)> {
        let terms = self.pod.required_terms().iter().enumerate();
        terms
            .filter(|(_, term)| !is_empty(term))
            .filter_map(|(index, term)| {
                let own = term.match_expressions.as_deref().unwrap_or_default();
                let missing: Vec<_> = self.requirements.iter().filter(|r| !own.contains(r)).collect();
                (!missing.is_empty()).then_some((index, missing))
            })
    }
}

/// Where a required node affinity is, from the outside in.
const TERMS: [&str; 5] = [
    "spec",
    "affinity",
    "nodeAffinity",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "nodeSelectorTerms",
];

fn add_absent(
    added: &mut BTreeMap<String, String>,
    own: Option<&BTreeMap<String, String>>,
    key: &str,
    value: &str,
) {
    if own.is_none_or(|own| !own.contains_key(key)) {
        added.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

/// A map that is absent or null is added whole.
fn add_to_map(
    path: [&str; 2],
    own: Option<&BTreeMap<String, String>>,
    added: &BTreeMap<String, String>,
) -> Vec<PatchOperation> {
    if added.is_empty() {
        return Vec::new();
    }
    if own.is_none() {
        return vec![add(&path, json!(added))];
    }
    let [section, field] = path;
    added
        .iter()
        .map(|(key, value)| add(&[section, field, key], json!(value)))
        .collect()
}

fn add_to_term(index: usize, pod: &PodView, missing: &[&NodeSelectorRequirement]) -> Vec<PatchOperation> {
    let position = index.to_string();
    let path = [TERMS.as_slice(), &[&position, "matchExpressions"]].concat();
    let own = pod
        .required_terms()
        .get(index)
        .and_then(|term| term.match_expressions.as_ref());
    match own {
        None => vec![add(&path, json!(missing))],
        Some(_) => {
            let path = [path.as_slice(), &["-"]].concat();
            missing.iter().map(|r| add(&path, json!(r))).collect()
        }
    }
}

/// A required node affinity with one alternative, beside whatever other affinity the pod has.
fn add_affinity(pod: &PodView, requirements: &[NodeSelectorRequirement]) -> PatchOperation {
    let (there, missing) = TERMS.split_at(pod.affinity_depth() + 2);
    let terms = json!([{ "matchExpressions": requirements }]);
    let value = missing
        .iter()
        .rev()
        .fold(terms, |inner, key| json!({ *key: inner }));
    add(there, value)
}

fn add_toleration(own: Option<&[Toleration]>) -> PatchOperation {
    let toleration = Toleration {
        key: Some(virtual_node::TAINT.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    match own {
        None => add(&["spec", "tolerations"], json!([toleration])),
        Some(_) => add(&["spec", "tolerations", "-"], json!(toleration)),
    }
}
