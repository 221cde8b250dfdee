//! Which entry of the webhook configuration asks about which pods.
//!
//! A pod waits for each call in turn, two seconds where nobody answers. So that it is asked about once, an entry leaves out
//! the pods of those before it. Namespaces of which none are known to be among the other's may still share pods.

use kube::core::{Expression, Selector};
use vnp_crds::PLACED_BY_ANNOTATION;

use super::routes::{Kind, Route, Routes};
use crate::selection::Reach;

/// Of how many entries one leaves out the pods by CEL. The API server takes 64 conditions in all, and all entries together
/// have to fit into one object.
const EXCEPT: usize = 16;

/// The pods that one entry asks about.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) reach: Reach,
    /// Without the pods that any of these selects.
    pub(super) except: Vec<Selector>,
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
        except.truncate(EXCEPT);
        Self { route, reach, except }
    }
}

/// True in CEL for a pod that another entry with this selector does not ask about. One that the route has placed stays its
/// own, whatever labels it got, for when the API server asks once more. Errors would mean that no call is needed.
pub(super) fn not_selected(selector: &Selector, route: &Route) -> String {
    let all: Vec<String> = selector.clone().into_iter().map(|e| selected(&e)).collect();
    format!("!({}) || {}", all.join(" && "), placed_by(&[&route.id]))
}

/// True in CEL for a pod that one of these routes has placed.
pub(super) fn placed_by(ids: &[&String]) -> String {
    let key = literal(PLACED_BY_ANNOTATION);
    let ids: Vec<String> = ids.iter().map(|id| literal(id)).collect();
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
