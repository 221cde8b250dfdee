//! What a field is: a struct, a map, a list with keys, a set, or something that is taken as a whole. Types come from the
//! client library and the CRD; the list types of built-in kinds, which the library's schemas leave out, from the API
//! reference of Kubernetes 1.37 (`x-kubernetes-list-type`, `x-kubernetes-map-type`).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::schema_for;
use serde_json::{Value, json};

use crate::kinds::Kind;

/// Built-in types that are taken as a whole.
const ATOMIC: [&str; 10] = [
    "LabelSelector",
    "NodeSelector",
    "ObjectReference",
    "LocalObjectReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "OwnerReference",
    "FieldsV1",
];

/// Lists of built-in types that are merged by keys, by the name of the field.
const KEYED: [(&str, &[&str]); 15] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("volumes", &["name"]),
    ("ownerReferences", &["uid"]),
    ("conditions", &["type"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("addresses", &["type"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("claims", &["name"]),
];

const SETS: [&str; 2] = ["finalizers", "podCIDRs"];

/// How a value is owned and merged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a whole.
    Leaf,
    /// Named fields.
    Struct,
    /// Entries, each of its own.
    Map,
    /// Items, told apart by these fields.
    Keyed(Vec<String>),
    /// Values, each of its own.
    Set,
}

/// The schema of one value.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    root: &'a Value,
    node: &'a Value,
    field: &'a str,
    builtin: bool,
    /// Reached through a reference to an atomic type.
    atomic: bool,
}

static UNKNOWN: Value = Value::Null;

/// The schema of a kind.
pub(crate) fn of(kind: &Kind) -> Shape<'static> {
    static ALL: OnceLock<BTreeMap<&'static str, Value>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        BTreeMap::from([
            ("pods", schema_for!(Pod).to_value()),
            ("nodes", schema_for!(Node).to_value()),
            ("namespaces", schema_for!(Namespace).to_value()),
            ("configmaps", schema_for!(ConfigMap).to_value()),
            ("secrets", schema_for!(Secret).to_value()),
            ("events", schema_for!(Event).to_value()),
            ("statefulsets.apps", schema_for!(StatefulSet).to_value()),
            ("leases.coordination.k8s.io", schema_for!(Lease).to_value()),
            (
                "poddisruptionbudgets.policy",
                schema_for!(PodDisruptionBudget).to_value(),
            ),
            ("virtualnodepools.virtualnodes.dev", custom()),
        ])
    });
    let root = all.get(kind.resource).unwrap_or(&UNKNOWN);
    Shape {
        root,
        node: root,
        field: "",
        builtin: !kind.custom(),
        atomic: false,
    }
}

fn custom() -> Value {
    let definition = vnp_crds::definition().expect("the definition fits its types");
    let mut definition = serde_json::to_value(definition).expect("a definition is JSON");
    let mut schema = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .map(Value::take)
        .expect("the definition has a schema");
    let mut meta = schema_for!(ObjectMeta).to_value();
    schema["$defs"] = meta["$defs"].take();
    meta["$schema"].take();
    schema["properties"]["metadata"] = meta;
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = json!({"type": "string"});
    }
    schema
}

impl<'a> Shape<'a> {
    fn resolve(self, node: &'a Value, field: &'a str) -> Self {
        let (mut node, mut atomic) = (node, false);
        while let Some(name) = node["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
            let short = name.rsplit('.').next().unwrap_or(name);
            atomic |= ATOMIC.contains(&short);
            node = &self.root["$defs"][name];
        }
        let builtin = self.builtin || field == "metadata";
        Self {
            root: self.root,
            node,
            field,
            builtin,
            atomic,
        }
    }

    /// A field of a struct or an entry of a map; `None` when there is no such field.
    pub(crate) fn field(self, name: &'a str) -> Option<Self> {
        let declared = self.node["properties"].get(name);
        match declared {
            Some(node) => Some(self.resolve(node, name)),
            None if self.node["additionalProperties"].is_object() => {
                Some(self.resolve(&self.node["additionalProperties"], ""))
            }
            None if self.open() => Some(Self {
                node: &UNKNOWN,
                field: "",
                ..self
            }),
            None => None,
        }
    }

    /// An item of a list.
    pub(crate) fn item(self) -> Self {
        self.resolve(&self.node["items"], "")
    }

    /// A field with this name is declared, so it is a field of a struct and not an entry of a map.
    pub(crate) fn declares(self, name: &str) -> bool {
        self.node["properties"].get(name).is_some()
    }

    /// Belongs to a type that Go defines.
    pub(crate) fn builtin(self) -> bool {
        self.builtin
    }

    /// Takes any field.
    pub(crate) fn open(self) -> bool {
        self.node.is_null()
            || self.node["x-kubernetes-preserve-unknown-fields"] == true
            || (self.node["properties"].is_null() && self.node["additionalProperties"].is_null())
    }

    /// A map of texts in a built-in type.
    fn texts(self) -> bool {
        let values = &self.node["additionalProperties"];
        self.builtin && values["type"] == "string" && values["format"].is_null()
    }

    pub(crate) fn form(self) -> Form {
        let text = |key: &str| self.node[key].as_str();
        if self.atomic || text("x-kubernetes-map-type") == Some("atomic") {
            return Form::Leaf;
        }
        match text("type") {
            Some("array") => self.list(),
            Some("object") if self.node["properties"].is_object() => Form::Struct,
            Some("object") if self.builtin && self.field == "nodeSelector" => Form::Leaf,
            Some("object") if self.node["additionalProperties"].is_object() => Form::Map,
            _ if self.node["properties"].is_object() => Form::Struct,
            _ => Form::Leaf,
        }
    }

    fn list(self) -> Form {
        if !self.builtin {
            return match self.node["x-kubernetes-list-type"].as_str() {
                Some("set") => Form::Set,
                Some("map") => Form::Keyed(
                    self.node["x-kubernetes-list-map-keys"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|k| k.as_str().map(str::to_owned))
                        .collect(),
                ),
                _ => Form::Leaf,
            };
        }
        if SETS.contains(&self.field) {
            return Form::Set;
        }
        match KEYED.iter().find(|(field, _)| *field == self.field) {
            Some((_, keys)) => Form::Keyed(keys.iter().map(|k| (*k).to_owned()).collect()),
            None => Form::Leaf,
        }
    }

    /// The default of the CRD.
    pub(crate) fn default(self) -> Option<&'a Value> {
        if self.builtin {
            None
        } else {
            self.node.get("default")
        }
    }

    pub(crate) fn properties(self) -> impl Iterator<Item = (&'a String, Self)> {
        self.node["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(name, node)| (name, self.resolve(node, name)))
    }
}

/// The key of an item in a keyed list, as field sets write it.
pub(crate) fn key_of(keys: &[String], item: &Value) -> Value {
    let mut sorted: Vec<&String> = keys.iter().collect();
    sorted.sort();
    let field = |key: &String| match item.get(key) {
        None | Some(Value::Null) if key == "protocol" => json!("TCP"),
        other => other.cloned().unwrap_or_default(),
    };
    Value::Object(sorted.into_iter().map(|k| (k.clone(), field(k))).collect())
}

/// Paths of fields that the schema does not have.
pub(crate) fn unknown(shape: Shape<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !shape.open() => {
            for (name, inner) in map {
                let place = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match shape.field(name) {
                    Some(shape) => unknown(shape, inner, &place, found),
                    None => found.push(place),
                }
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                unknown(shape.item(), inner, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Removes what the schema does not have, and nulls.
pub(crate) fn prune(shape: Shape<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let open = shape.open();
            if shape.texts() {
                // What Go reads null as.
                let nulls = map.iter_mut().filter(|(_, inner)| inner.is_null());
                nulls.for_each(|(_, inner)| *inner = json!(""));
            }
            map.retain(|name, inner| !inner.is_null() && (open || shape.field(name).is_some()));
            for (name, inner) in map.iter_mut() {
                if let Some(shape) = shape.field(name) {
                    prune(shape, inner);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| prune(shape.item(), inner)),
        _ => {}
    }
}

/// Puts in the defaults of the CRD.
pub(crate) fn fill_defaults(shape: Shape<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in shape.properties() {
                if !map.contains_key(name)
                    && let Some(default) = inner.default()
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(shape) = shape.field(name) {
                    fill_defaults(shape, inner);
                }
            }
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|inner| fill_defaults(shape.item(), inner)),
        _ => {}
    }
}
