//! Which entry of the webhook configuration asks about which pods.
//!
//! A pod waits for each call in turn, two seconds where nobody answers. So that it is asked about once, an entry leaves out
//! the pods of those before it. Namespaces of which none are known to be among the other's may still share pods.

use kube::core::{Expression, Selector};
use vnp_crds::{PLACED_BY_ANNOTATION, virtual_node};

use super::routes::{Kind, Route, Routes};
use crate::selection::Reach;

/// Of how many others a rule's entry leaves out the pods. There are many rules, and all entries have to fit into one object.
const EXCEPT: usize = 4;
/// Length of an expression. The parser of the API server takes 100,000 characters (cel-go `ExpressionSizeCodePointLimit`).
const LENGTH: usize = 32 * 1024;

/// The pods that one entry asks about.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) reach: Reach,
    /// Without the pods that any of these selects.
    except: Vec<Selector>,
}

impl Routes {
    /// An entry for each route that has pods of its own. Every pod that a route means is asked about.
    pub(super) fn asked(&self) -> Vec<Asked<'_>> {
        let routes = self.places.iter().chain(&self.policies);
        let mut routes: Vec<&Route> = routes.filter(|route| !route.reach.is_void()).collect();
        // Policies come last: they don't ask about every pod that they select. Many namespaces come before few: pods of a
        // few can be left out of no entry for more.
        routes.sort_by_key(|route| {
            let policy = matches!(route.kind, Kind::Policy);
            (policy, route.reach.namespaces.clone().into_iter().count())
        });
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for route in routes {
            let mut pods = asked.iter().map(|earlier| &earlier.route.reach);
            if !pods.any(|earlier| earlier.covers(&route.reach)) {
                let entry = Asked::of(route, &asked);
                asked.push(entry);
            }
        }
        asked
    }
}

impl<'a> Asked<'a> {
    fn of(route: &'a Route, earlier: &[Asked<'_>]) -> Self {
        let mut reach = route.reach.clone();
        let mut except = Vec::new();
        for other in earlier.iter().map(|earlier| &earlier.route.reach) {
            if reach.is_apart_from(other) {
                continue;
            }
            if reach.shares_all_namespaces_with(other) {
                except.push(other.pods.clone());
            } else {
                reach.leave_namespaces_of(other);
            }
        }
        if matches!(route.kind, Kind::Rule { .. }) {
            except.truncate(EXCEPT);
        }
        Self { route, reach, except }
    }

    /// True in CEL for a pod that no other entry asks about. One that the route has placed stays its own, whatever labels it
    /// got, for when the API server asks once more. An error would mean that no call is needed.
    pub(super) fn of_no_other(&self) -> Option<String> {
        let placed = placed_by([&self.route.id]);
        let mut length = placed.len();
        let except = self.except.iter().map(not_selected).take_while(|expression| {
            length += expression.len() + " && ".len();
            length <= LENGTH
        });
        let except: Vec<String> = except.collect();
        (!except.is_empty()).then(|| format!("{placed} || ({})", except.join(" && ")))
    }
}

impl Routes {
    /// True in CEL for a pod that no rule has placed: it is no news to a trigger, whose very label the rule may have added.
    pub(super) fn of_no_rule(&self) -> Option<String> {
        let rules = self.places.iter();
        let rules = rules.filter(|route| matches!(route.kind, Kind::Rule { .. }));
        let mut ids = rules.map(|rule| &rule.id).peekable();
        ids.peek()?;
        let expression = format!(
            "!{} || !has(object.spec.nodeSelector) || !('{}' in object.spec.nodeSelector)",
            placed_by(ids),
            virtual_node::LABEL
        );
        (expression.len() <= LENGTH).then_some(expression)
    }
}

/// True in CEL for a pod that the selector does not select.
fn not_selected(selector: &Selector) -> String {
    let all: Vec<String> = selector.clone().into_iter().map(|e| selected(&e)).collect();
    format!("!({})", all.join(" && "))
}

/// True in CEL for a pod that one of these routes has placed.
fn placed_by<'a>(ids: impl IntoIterator<Item = &'a String>) -> String {
    let key = literal(PLACED_BY_ANNOTATION);
    let ids: Vec<String> = ids.into_iter().map(|id| literal(id)).collect();
    format!(
        "(has(object.metadata.annotations) && {key} in object.metadata.annotations && \
         object.metadata.annotations[{key}] in [{}])",
        ids.join(", ")
    )
}

fn selected(expression: &Expression) -> String {
    let has = |key: &str| {
        format!(
            "has(object.metadata.labels) && {} in object.metadata.labels",
            literal(key)
        )
    };
    let among = |key: &str, values: &mut dyn Iterator<Item = &String>| {
        let values: Vec<String> = values.map(|value| literal(value)).collect();
        let label = format!("object.metadata.labels[{}]", literal(key));
        format!("{} && {label} in [{}]", has(key), values.join(", "))
    };
    match expression {
        Expression::In(key, values) => among(key, &mut values.iter()),
        Expression::Equal(key, value) => among(key, &mut [value].into_iter()),
        Expression::NotIn(key, values) => format!("!({})", among(key, &mut values.iter())),
        Expression::NotEqual(key, value) => format!("!({})", among(key, &mut [value].into_iter())),
        Expression::Exists(key) => has(key),
        Expression::DoesNotExist(key) => format!("!({})", has(key)),
    }
}

/// A string in CEL, which knows the escapes of JSON.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
