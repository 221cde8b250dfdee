//! Whether what the webhook adds to pods fits the Nodes of the pool.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use vnp_crds::virtual_node;

use crate::observed::{NodeView, Observed, Ordinal};
use crate::taints::{KEY_VARIABLE, Origin, configured, origin};

/// How far it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// No Node takes a pod that the webhook has changed.
    All(String),
    /// Some don't.
    Some(String),
}

/// What of the Nodes keeps pods away that the webhook has changed. The operator's own cordon and Nodes that go don't count.
pub(super) fn misfit(seen: &Observed) -> Option<Misfit> {
    let nodes: Vec<(Ordinal, &NodeView)> = seen
        .nodes
        .iter()
        .map(|(ordinal, node)| (*ordinal, node.as_ref()))
        .filter(|(_, node)| !node.deleting && !node.reserved())
        .collect();
    let mut by_trouble: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (ordinal, node) in &nodes {
        if let Some(trouble) = trouble(seen, *ordinal, node) {
            by_trouble.entry(trouble).or_default().push(&node.name);
        }
    }
    let unfit: usize = by_trouble.values().map(Vec::len).sum();
    let said: Vec<String> = by_trouble
        .into_iter()
        .map(|(trouble, names)| match names.as_slice() {
            [first, _, ..] => format!("{trouble} (Node {first} and {} more)", names.len() - 1),
            _ => format!("{trouble} (Node {})", names.concat()),
        })
        .collect();
    let remedy = if configured(seen).is_some() {
        format!("remove {KEY_VARIABLE} from the provider's environment, or add the toleration to the pods")
    } else {
        "remove it from the Node, or add what it asks for to the pods".to_owned()
    };
    let message = format!("{}: {remedy}", said.join("; "));
    if unfit == 0 {
        None
    } else if unfit == nodes.len() {
        Some(Misfit::All(message))
    } else {
        Some(Misfit::Some(message))
    }
}

fn trouble(seen: &Observed, ordinal: Ordinal, node: &NodeView) -> Option<String> {
    if node
        .labels
        .get(virtual_node::LABEL)
        .is_none_or(|value| value != virtual_node::LABEL_VALUE)
    {
        return Some(format!(
            "the label {}={}, which pods are held to, is not there",
            virtual_node::LABEL,
            virtual_node::LABEL_VALUE
        ));
    }
    let taint = node
        .taints
        .iter()
        .find(|taint| keeps_away(seen, ordinal, taint))?;
    Some(format!(
        "the taint {}={}:{} is not what pods get a toleration for, which is {}",
        taint.key,
        taint.value.as_deref().unwrap_or_default(),
        taint.effect,
        virtual_node::TAINT
    ))
}

/// What the webhook adds tolerates one key only. States of a Node pass. Where a pod that was sent there has brought the
/// toleration itself, the taint is known to those who send pods.
fn keeps_away(seen: &Observed, ordinal: Ordinal, taint: &Taint) -> bool {
    let Some(tolerable) = crate::room::Taint::of(taint) else {
        return false;
    };
    taint.key != virtual_node::TAINT
        && origin(seen, &taint.key) != Origin::State
        && !seen
            .pods_on(ordinal)
            .filter(|p| p.meant_for_virtual_nodes())
            .any(|p| p.needs.tolerates(&tolerable))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::observed::Workload;
    use crate::testing::{bind, observed, pod, pool, tolerant, workload};

    fn taint(key: &str, effect: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            value: Some("alibabacloud".to_owned()),
            effect: effect.to_owned(),
            time_added: None,
        }
    }

    /// Two Nodes with these taints.
    fn tainted(taints: [Vec<Taint>; 2]) -> Observed {
        let mut seen = observed(pool(json!({})), 2);
        for (ordinal, taints) in (0..).zip(taints) {
            let node = seen.nodes.get_mut(&ordinal).unwrap();
            let node = Arc::make_mut(node);
            node.taints = taints;
        }
        seen
    }

    fn known() -> Vec<Taint> {
        vec![
            taint("virtual-kubelet.io/provider", "NoSchedule"),
            taint("node.kubernetes.io/unschedulable", "NoSchedule"),
            taint("node.kubernetes.io/unreachable", "NoExecute"),
            taint("mine", "PreferNoSchedule"),
        ]
    }

    #[test]
    fn what_the_webhook_tolerates_and_what_passes_is_no_misfit() {
        assert_eq!(misfit(&tainted([known(), Vec::new()])), None);
        assert_eq!(misfit(&observed(pool(json!({})), 0)), None);
    }

    #[test]
    fn another_taint_key_is_named_with_its_node_and_its_cause() {
        let eci = || vec![taint("alibabacloud.com/eci", "NoSchedule")];
        let mut seen = tainted([eci(), eci()]);
        let Some(Misfit::All(message)) = misfit(&seen) else {
            panic!()
        };
        assert_eq!(
            message,
            "the taint alibabacloud.com/eci=alibabacloud:NoSchedule is not what pods get a toleration for, which is \
             virtual-kubelet.io/provider (Node virtual-node-eci-0 and 1 more): remove it from the Node, or add what it asks for to \
             the pods"
        );
        let mut raw = workload(2).raw;
        let variable = json!({ "name": "VKUBELET_TAINT_KEY", "value": "alibabacloud.com/eci" });
        raw["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array_mut()
            .unwrap()
            .push(variable);
        seen.workload = Workload::new(raw).into();
        let Some(Misfit::All(message)) = misfit(&seen) else {
            panic!()
        };
        assert!(
            message.contains("remove VKUBELET_TAINT_KEY from the provider's environment"),
            "{message}"
        );
        let Some(Misfit::Some(message)) = misfit(&tainted([eci(), known()])) else {
            panic!()
        };
        assert!(message.contains("(Node virtual-node-eci-0)"), "{message}");
        // A Node that goes takes nobody anyway.
        let mut seen = tainted([eci(), known()]);
        Arc::make_mut(seen.nodes.get_mut(&0).unwrap()).deleting = true;
        assert_eq!(misfit(&seen), None);
    }

    #[test]
    fn a_taint_that_the_pods_on_it_tolerate_keeps_nobody_away() {
        let own = || vec![taint("team", "NoSchedule")];
        let mut seen = tainted([own(), own()]);
        let tolerant = tolerant("a", "team");
        bind(&mut seen, 0, vec![pod("b"), tolerant.clone()]);
        let Some(Misfit::Some(message)) = misfit(&seen) else {
            panic!()
        };
        assert!(message.contains("(Node virtual-node-eci-1)"), "{message}");
        bind(&mut seen, 1, vec![tolerant]);
        assert_eq!(misfit(&seen), None);
    }

    #[test]
    fn a_node_without_the_label_takes_nobody() {
        let mut seen = tainted([known(), known()]);
        for node in seen.nodes.values_mut() {
            Arc::make_mut(node).labels.remove("type");
        }
        let Some(Misfit::All(message)) = misfit(&seen) else {
            panic!()
        };
        assert!(message.starts_with("the label type=virtual-kubelet"), "{message}");
    }
}
