//! Policies of the scheduler for pods that a rule of the webhook brings to virtual nodes before it sees them.

use std::collections::BTreeMap;

use kube::core::SelectorExt;
use vnp_crds::{PlacementMode, ResourcePolicy};

use super::rules::{placing, rules};
use super::warnings::warning;
use crate::finding::Finding;
use crate::observed::Observed;
use crate::placement::{NAME_LABEL, policy_reach, rule_reach, trouble};
use crate::selection::Reach;

/// One warning for each policy that a rule leaves nothing to choose, for all of its pods where there is such a rule.
pub(super) fn warnings(observed: &Observed) -> Vec<Finding> {
    let scheduling = observed.pool.spec.scheduling.as_ref();
    let policies = scheduling.map_or(&[][..], |scheduling| &scheduling.resource_policies);
    if policies.is_empty() {
        return Vec::new();
    }
    let placing = placing(observed);
    let requiring: Vec<Requiring<'_>> = placing.iter().flat_map(|pool| Requiring::of(pool)).collect();
    policies
        .iter()
        .filter_map(|policy| overruled(observed, &requiring, policy))
        .collect()
}

/// A rule whose pods run nowhere but on virtual nodes.
struct Requiring<'a> {
    pool: &'a str,
    name: &'a str,
    reach: Reach,
}

impl<'a> Requiring<'a> {
    fn of(pool: &'a vnp_crds::VirtualNodePool) -> impl Iterator<Item = Self> {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let followed =
            |rule: &&vnp_crds::PlacementRule| rule.mode == PlacementMode::Require && trouble(rule).is_none();
        rules(pool).iter().filter(followed).filter_map(move |rule| {
            Some(Self {
                pool: name,
                name: &rule.name,
                reach: rule_reach(rule).ok().filter(|reach| !reach.is_void())?,
            })
        })
    }
}

fn overruled(observed: &Observed, requiring: &[Requiring<'_>], policy: &ResourcePolicy) -> Option<Finding> {
    let reach = policy_reach(policy).ok().filter(|reach| !reach.is_void())?;
    let shares = requiring.iter().filter_map(|rule| {
        let share = share(observed, &rule.reach, &reach)?;
        Some((share, rule))
    });
    let (share, rule) = shares.min_by(|(one, _), (other, _)| one.cmp(other))?;
    let subject = format!("spec.scheduling.resourcePolicies[name={}]", policy.name);
    let pods = match share {
        Share::All => "all of its pods".to_owned(),
        Share::OfNamespace(namespace) => format!("all of its pods in namespace {namespace}"),
        Share::Some(namespace) => format!("some of its pods in namespace {namespace}"),
    };
    let note = format!(
        "{subject} has no effect on {pods}: rule {} of pool {} requires virtual nodes for them; narrow the rule, set its mode to \
         Prefer, or narrow or remove the policy",
        rule.name, rule.pool
    );
    Some(warning(&format!("{subject} and rules"), note))
}

/// Which pods of a policy a rule takes, the most first. Said only where it is certain: two selectors on different labels
/// may have pods in common or not.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    All,
    OfNamespace(String),
    Some(String),
}

fn share(observed: &Observed, rule: &Reach, policy: &Reach) -> Option<Share> {
    if rule.covers(policy) {
        return Some(Share::All);
    }
    let all = rule.covers_pods_of(policy);
    if !all && !policy.covers_pods_of(rule) {
        return None;
    }
    let both = |(name, labels): (&String, &BTreeMap<String, String>)| {
        let mut labels = labels.clone();
        labels.insert(NAME_LABEL.to_owned(), name.clone());
        [rule, policy].iter().all(|of| of.namespaces.matches(&labels))
    };
    let (namespace, _) = observed
        .namespaces
        .iter()
        .find(|(name, labels)| both((name, labels)))?;
    Some(if all {
        Share::OfNamespace(namespace.clone())
    } else {
        Share::Some(namespace.clone())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::{observed, pool};
    use crate::finding::EventNote;

    const SHOP: &str = "spec.scheduling.resourcePolicies[name=p] has no effect on";

    /// What is said of policy `p` for pods `app: a` in `shop`, next to a rule, with namespace `shop` (`team: web`) there.
    fn told(policy: Value, rule: Value) -> Vec<String> {
        let mut p = json!({ "name": "p", "namespaces": ["shop"], "selector": { "app": "a" } });
        json_patch::merge(&mut p, &policy);
        let mut r = json!({ "name": "r", "mode": "Require" });
        json_patch::merge(&mut r, &rule);
        let mut seen = observed(pool(json!({ "spec": {
            "placement": { "rules": [r] }, "scheduling": { "resourcePolicies": [p] },
        } })));
        let team = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
        seen.namespaces = Arc::new(
            [("bank", team("ops")), ("shop", team("web"))]
                .map(|(n, l)| (n.to_owned(), l))
                .into(),
        );
        let note = |finding| match finding {
            Finding::Event(EventNote { note, .. }) => note,
            other => panic!("{other:?}"),
        };
        warnings(&seen).into_iter().map(note).collect()
    }

    #[track_caller]
    fn says(told: &[String], pods: &str) {
        let start = format!("{SHOP} {pods}: rule r of pool burst requires");
        assert!(told.len() == 1 && told[0].starts_with(&start), "{told:?}");
    }

    fn pods(app: &str) -> Value {
        json!({ "podSelector": { "matchLabels": { "app": app } } })
    }

    fn team(team: &str) -> Value {
        json!({ "namespaceSelector": { "matchLabels": { "team": team } } })
    }

    #[test]
    fn rules_that_require_all_pods_of_a_policy() {
        says(&told(json!({}), pods("a")), "all of its pods");
        says(&told(json!({}), json!({})), "all of its pods");
        says(
            &told(json!({ "namespaces": null, "namespaceSelector": {} }), json!({})),
            "all of its pods",
        );
        assert_eq!(
            told(
                json!({}),
                json!({ "podSelector": { "matchLabels": { "app": "a" } }, "mode": "Prefer" })
            ),
            [""; 0]
        );
    }

    #[test]
    fn rules_that_share_a_namespace_that_is_there() {
        says(&told(json!({}), team("web")), "all of its pods in namespace shop");
        says(
            &told(json!({ "namespaces": ["bank", "shop", "later"] }), team("web")),
            "all of its pods in namespace shop",
        );
        assert_eq!(told(json!({}), team("ops")), [""; 0]);
        assert_eq!(told(json!({ "namespaces": ["later"] }), team("web")), [""; 0]);
    }

    #[test]
    fn rules_for_some_of_the_pods() {
        let mut narrower = team("web");
        narrower["podSelector"] = json!({ "matchLabels": { "app": "a", "tier": "x" } });
        says(&told(json!({}), narrower), "some of its pods in namespace shop");
        // By labels that a pod may have both of, or only one.
        assert_eq!(
            told(
                json!({}),
                json!({ "podSelector": { "matchLabels": { "tier": "x" } } })
            ),
            [""; 0]
        );
        assert_eq!(told(json!({}), pods("b")), [""; 0]);
    }
}
