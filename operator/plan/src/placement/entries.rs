//! Which entry of the webhook configuration asks about which pods.
//!
//! A pod waits for each call in turn, two seconds where nobody answers. So that it is asked about once, an entry leaves out
//! the pods of those before it. CEL knows the pod but not its namespace: where only some namespaces are shared, an entry is
//! split into one for those and others for the rest.

use kube::core::{Expression, Selector};
use vnp_crds::{PLACED_BY_ANNOTATION, virtual_node};

use super::routes::{Kind, Route, Routes};
use crate::selection::Reach;

/// Length of an expression. The parser of the API server takes 100,000 characters (cel-go `ExpressionSizeCodePointLimit`).
const LENGTH: usize = 32 * 1024;
/// Length of all expressions that leave out pods: the entries have to fit into one object. Without, a pod is asked about
/// more than once, and that is all.
const LENGTH_OF_ALL: usize = 192 * 1024;
/// Entries that may come from splitting others, for the same reason.
const SPLIT: usize = 32;

/// The pods that one entry asks about.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    /// Name of the entry.
    pub(super) name: String,
    pub(super) reach: Reach,
    /// True in CEL for a pod that no other entry asks about, where `reach` does not say so.
    pub(super) of_no_other: Option<String>,
}

/// What is left of a route's pods.
#[derive(Clone)]
struct Piece {
    reach: Reach,
    /// Without the pods that any of these selects.
    except: Vec<Selector>,
}

impl Routes {
    /// An entry for each route that has pods of its own. Every pod that a route means is asked about.
    pub(super) fn asked(&self) -> Vec<Asked<'_>> {
        let mut routes: Vec<&Route> = self.places.iter().chain(&self.policies).collect();
        // Policies come last: they don't ask about every pod that they select. Many namespaces come before few, which saves
        // splitting.
        routes.sort_by_key(|route| {
            let policy = matches!(route.kind, Kind::Policy);
            (policy, route.reach.namespaces.clone().into_iter().count())
        });
        let (mut length, mut split) = (0, 0);
        let mut asked: Vec<Asked<'_>> = Vec::new();
        let mut earlier: Vec<&Reach> = Vec::new();
        for route in routes {
            let pieces = pieces(&route.reach, &earlier, SPLIT - split);
            split += pieces.len().saturating_sub(1);
            for (number, piece) in (1..).zip(pieces) {
                let expression = piece.of_no_other(route, LENGTH_OF_ALL.saturating_sub(length));
                length += expression.as_ref().map_or(0, String::len);
                asked.push(Asked {
                    route,
                    name: match number {
                        1 => route.entry.clone(),
                        _ => format!("part-{number}.{}", route.entry),
                    },
                    reach: piece.reach,
                    of_no_other: expression,
                });
            }
            earlier.push(&route.reach);
        }
        asked
    }

    /// True in CEL for a pod that no rule has placed: it is no news to a trigger, whose very label the rule may have added.
    pub(super) fn of_no_rule(&self) -> Option<String> {
        let rules = self.places.iter();
        let rules = rules.filter(|route| matches!(route.kind, Kind::Rule { .. }));
        let mut ids = rules.map(|rule| &rule.id).peekable();
        ids.peek()?;
        let expression = format!(
            "!{} || !has(object.spec.nodeSelector) || !('{}' in object.spec.nodeSelector) || \
             !has(object.spec.tolerations) || !object.spec.tolerations.exists(t, !has(t.key) || t.key == '{}')",
            placed_by(ids),
            virtual_node::LABEL,
            virtual_node::TAINT
        );
        (expression.len() <= LENGTH).then_some(expression)
    }
}

/// The pods of `reach` that none of the earlier ones means, in at most one piece more than `split`.
fn pieces(reach: &Reach, earlier: &[&Reach], mut split: usize) -> Vec<Piece> {
    let mut pieces = vec![Piece {
        reach: reach.clone(),
        except: Vec::new(),
    }];
    pieces.retain(|piece| !piece.reach.is_void());
    for other in earlier {
        let mut left = Vec::new();
        for piece in pieces {
            if piece.reach.is_apart_from(other) {
                left.push(piece);
                continue;
            }
            let (outside, inside) = piece.reach.split_by_namespaces_of(other);
            let all_inside = other.covers(&inside);
            let more = (outside.len() + usize::from(!all_inside)).saturating_sub(1);
            if more > split {
                left.push(piece);
                continue;
            }
            split -= more;
            left.extend(outside.into_iter().map(|reach| Piece {
                reach,
                except: piece.except.clone(),
            }));
            if !all_inside {
                let mut except = piece.except;
                except.push(other.pods.clone());
                left.push(Piece {
                    reach: inside,
                    except,
                });
            }
        }
        pieces = left;
    }
    pieces
}

impl Piece {
    /// True in CEL for a pod that no other entry asks about. One that the route has placed stays its own, whatever labels it
    /// got, for when the API server asks once more. An error would mean that no call is needed.
    fn of_no_other(&self, route: &Route, room: usize) -> Option<String> {
        let placed = placed_by([&route.id]);
        let mut length = placed.len();
        let except = self.except.iter().map(not_selected).take_while(|expression| {
            length += expression.len() + " && ".len();
            length <= LENGTH.min(room)
        });
        let except: Vec<String> = except.collect();
        (!except.is_empty()).then(|| format!("{placed} || ({})", except.join(" && ")))
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
