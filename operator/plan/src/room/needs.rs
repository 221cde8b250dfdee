//! What a pod asks of its node.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core;

use super::Amounts;

/// What the scheduler looks at in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// What it requests, over all its containers.
    pub requests: Amounts,
    /// Which taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// `spec.nodeSelector`.
    pub selector: BTreeMap<String, String>,
    /// The alternatives of its required node affinity; `None` without one.
    pub terms: Option<Vec<Term>>,
}

/// A taint of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, empty when there is none.
    pub value: String,
    /// Effect.
    pub effect: Effect,
}

impl Taint {
    /// Reads a taint. `None` for one that keeps nobody away.
    pub fn of(taint: &core::v1::Taint) -> Option<Self> {
        Some(Self {
            effect: Effect::read(&taint.effect)?,
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
        })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{}", self.key, self.value, self.effect)
    }
}

/// What a taint does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// New pods stay away.
    #[default]
    NoSchedule,
    /// Pods stay away, and those that are there go.
    NoExecute,
}

impl Effect {
    /// Reads `effect` of a taint. `None` for one that keeps nobody away.
    pub fn read(effect: &str) -> Option<Self> {
        match effect {
            "PreferNoSchedule" => None,
            "NoExecute" => Some(Self::NoExecute),
            // What this version does not know is taken for the one that keeps pods away.
            _ => Some(Self::NoSchedule),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSchedule => "NoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// A toleration of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toleration {
    /// Key; empty with `Exists` tolerates all.
    pub key: String,
    /// `Exists`, or `Equal` when empty.
    pub operator: String,
    /// Value.
    pub value: String,
    /// Effect; empty tolerates all.
    pub effect: String,
}

impl Toleration {
    /// Source: `ToleratesTaint` in k8s.io/api. An operator that is not known there tolerates nothing.
    fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect.to_string() {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            _ => false,
        }
    }
}

/// One alternative of a node affinity: all of it has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// About labels.
    pub labels: Vec<Expression>,
    /// About fields, of which there is `metadata.name`.
    pub fields: Vec<Expression>,
}

/// A requirement on a label or a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expression {
    /// Key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: String,
    /// Values.
    pub values: Vec<String>,
}

impl Expression {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|known| known == v);
        let compared = |by: fn(&i64, &i64) -> bool| {
            let limit = self.values.first().and_then(|v| v.parse().ok());
            let value = value.and_then(|v| v.parse().ok());
            value.zip(limit).is_some_and(|(value, limit)| by(&value, &limit))
        };
        match self.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compared(i64::gt),
            "Lt" => compared(i64::lt),
            _ => false,
        }
    }
}

impl Needs {
    /// It may come to a node with this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }

    /// It asks for nodes by name. No other node takes it, however much room there is.
    pub fn names_nodes(&self) -> bool {
        const HOSTNAME: &str = "kubernetes.io/hostname";
        let by_name = |term: &Term| {
            let listed = |e: &Expression| e.operator == "In";
            let label = term.labels.iter().any(|e| e.key == HOSTNAME && listed(e));
            label || term.fields.iter().any(listed)
        };
        let terms = self.terms.as_ref();
        self.selector.contains_key(HOSTNAME)
            || terms.is_some_and(|terms| !terms.is_empty() && terms.iter().all(by_name))
    }

    /// Its node choice leads to a node of this name and these labels.
    pub fn means(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let selected = self
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        let holds = |term: &Term| {
            // A term that asks for nothing matches nothing.
            let empty = term.labels.is_empty() && term.fields.is_empty();
            let label = |e: &Expression| e.holds(labels.get(&e.key).map(String::as_str));
            let field = |e: &Expression| e.key == "metadata.name" && e.holds(Some(name));
            !empty && term.labels.iter().all(label) && term.fields.iter().all(field)
        };
        selected && self.terms.as_ref().is_none_or(|terms| terms.iter().any(holds))
    }
}
