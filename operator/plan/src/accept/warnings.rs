//! What works as it is written and is probably not meant.

use vnp_crds::{ABANDON_ANNOTATION, EventReason, Management, WebhookMode};

use crate::compute::is_gpu_class;
use crate::drain::break_glass::{NO_NODE, spent};
use crate::finding::{EventNote, Finding};
use crate::observed::{Observed, Ordinal};
use crate::target::target;

pub(super) fn warnings(observed: &Observed) -> Vec<Finding> {
    [
        network(observed),
        private_zone(observed),
        logs(observed),
        abandon(observed),
        gpu_class(observed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn warning(subject: &str, note: String) -> Finding {
    Finding::Event(EventNote {
        reason: EventReason::ConfigWarning,
        subject: subject.to_owned(),
        note,
    })
}

/// Source: ack-virtual-node documentation, `ECI_KUBE_PROXY`: without it Services are reached through PrivateZone only.
fn network(observed: &Observed) -> Option<Finding> {
    let network = &observed.pool.spec.network;
    (!network.kube_proxy.is_enabled() && !network.private_zone.is_enabled()).then(|| {
        warning(
            "spec.network.kubeProxy",
            "spec.network.kubeProxy is Disabled and privateZone is Disabled: pods on these nodes reach no Service by name or \
             ClusterIP; fine for jobs, otherwise set privateZone: Enabled"
                .to_owned(),
        )
    })
}

/// Source: ECI documentation on PrivateZone: it needs the VPC, and a cluster id that is neither empty nor `default`. An
/// adopted provider may have both from elsewhere.
fn private_zone(observed: &Observed) -> Option<Finding> {
    let spec = &observed.pool.spec;
    if !spec.network.private_zone.is_enabled() || spec.provider.management() != Management::Create {
        return None;
    }
    let mut lacking = Vec::new();
    if spec.network.vpc_id.as_deref().is_none_or(str::is_empty) {
        lacking.push("spec.network.vpcId is not set");
    }
    match spec.provider.cluster_id() {
        None => lacking.push("spec.provider.clusterId is not set"),
        Some("default") => lacking.push("spec.provider.clusterId is default, which is no cluster's id"),
        Some(_) => {}
    }
    (!lacking.is_empty()).then(|| {
        warning(
            "spec.network.privateZone",
            format!(
                "spec.network.privateZone is Enabled and does nothing without its VPC and cluster: {}",
                lacking.join(", ")
            ),
        )
    })
}

/// Source: ECI documentation on `eci-profile`: `slsMachineGroup` is required with `enableLogController`.
fn logs(observed: &Observed) -> Option<Finding> {
    let profile = observed.pool.spec.profile();
    let there = observed
        .profile
        .as_ref()
        .and_then(|p| p.data.as_ref()?.get("slsMachineGroup"));
    let group = profile
        .settings
        .get("slsMachineGroup")
        .or(there)
        .is_some_and(|g| !g.trim().is_empty());
    let on = profile
        .settings
        .get("enableLogController")
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
    (profile.sync.is_enabled() && on && !group).then(|| {
        warning(
            "spec.profile.settings.enableLogController",
            "spec.profile.settings.enableLogController is true and needs slsMachineGroup, which neither the settings nor \
             eci-profile has; add it to the settings"
                .to_owned(),
        )
    })
}

/// What `profile` leaves out: an entry of `eci-profile` selects by labels. Units of a policy do give the class.
fn gpu_class(observed: &Observed) -> Option<Finding> {
    let spec = &observed.pool.spec;
    let webhook = spec.webhook();
    let class = spec.compute_defaults.as_ref()?.class.as_deref()?;
    let rules = spec.placement.as_ref().is_some_and(|p| !p.rules.is_empty());
    let policies = spec
        .scheduling
        .as_ref()
        .is_some_and(|s| !s.resource_policies.is_empty());
    (is_gpu_class(class) && webhook != WebhookMode::Operator && (rules || !policies)).then(|| {
        let field = "spec.computeDefaults.class";
        let note = format!(
            "{field} is {class} and spec.placement.webhook is {webhook}: no rule gives it to pods, because an entry of \
             eci-profile can't tell which of them request a GPU; set webhook: Operator, or label the pods themselves"
        );
        warning(field, note)
    })
}

/// The break-glass annotation acts on one doomed node, by name and UID. On anything else it does nothing, and says so.
fn abandon(observed: &Observed) -> Option<Finding> {
    let value = observed
        .pool
        .metadata
        .annotations
        .as_ref()?
        .get(ABANDON_ANNOTATION)?;
    let trouble = abandon_trouble(observed, value)?;
    Some(warning(
        &format!("metadata.annotations[{ABANDON_ANNOTATION}]"),
        format!(
            "annotation {ABANDON_ANNOTATION} is {value}, and gives up no node: {trouble}; correct or remove it"
        ),
    ))
}

fn abandon_trouble(observed: &Observed, value: &str) -> Option<String> {
    let Some((node, uid)) = value
        .split_once('/')
        .filter(|(n, u)| !n.is_empty() && !u.is_empty())
    else {
        return Some("it has to be <node>/<uid>".to_owned());
    };
    let prefix = format!(
        "{}-",
        observed.pool.spec.provider.name.as_deref().unwrap_or_default()
    );
    let ordinal = node.strip_prefix(&prefix).and_then(|o| o.parse::<Ordinal>().ok());
    let Some(ordinal) = ordinal.filter(|o| observed.node_name(*o) == node) else {
        return Some(format!("the nodes of this pool are named {prefix}<ordinal>"));
    };
    let status = observed.pool.status.as_ref();
    let retired = status
        .and_then(|s| s.provider.as_ref())
        .map_or(&[][..], |p| p.retired.as_slice());
    // Done already: the annotation may stay.
    if retired
        .iter()
        .any(|r| r.ordinal == ordinal && r.node_uid.as_deref().unwrap_or(NO_NODE) == uid)
    {
        return None;
    }
    if observed.workload.unknown().is_some() {
        // Which nodes it has can't be told.
        return None;
    }
    let workload = observed
        .held_workload()
        .filter(|w| w.ordinals().contains(&ordinal));
    let Some(workload) = workload else {
        return Some(format!("{node} is not one of the nodes that this pool has"));
    };
    let boundary = target(observed).map(|t| workload.start_ordinal().saturating_add(t));
    if boundary.is_none_or(|b| ordinal < b) {
        return Some(format!("{node} is wanted, lower spec.replicas first"));
    }
    let reported = status
        .and_then(|s| s.draining(ordinal))
        .and_then(|n| n.uid.as_deref());
    let known = observed
        .nodes
        .get(&ordinal)
        .map(|n| n.uid.as_str())
        .or(reported)
        .unwrap_or(NO_NODE);
    if known != uid {
        return Some(format!("the UID of {node} is {known}"));
    }
    spent(observed, ordinal, value).then(|| {
        format!(
            "it was set for an earlier drain of {node} and serves one only; to give it up again, set it anew"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::accept::testing::{adopting, held, observed, pool, with_workload, workload};
    use crate::observed::NodeView;

    fn notes(seen: &Observed) -> Vec<String> {
        warnings(seen)
            .into_iter()
            .map(|f| match f {
                Finding::Event(EventNote {
                    reason: EventReason::ConfigWarning,
                    note,
                    ..
                }) => note,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn of(overlay: Value) -> Vec<String> {
        notes(&observed(pool(overlay)))
    }

    #[test]
    fn a_plain_pool_has_none() {
        assert_eq!(of(json!({})), [""; 0]);
    }

    #[test]
    fn no_way_to_services_is_worth_a_word() {
        let off = of(json!({ "spec": { "network": { "kubeProxy": "Disabled" } } }));
        assert!(off[0].contains("spec.network.kubeProxy is Disabled"), "{off:?}");
        let zone = json!({ "spec": {
            "network": { "kubeProxy": "Disabled", "privateZone": "Enabled", "vpcId": "vpc-1" },
            "provider": { "clusterId": "c1" },
        } });
        assert_eq!(of(zone), [""; 0]);
    }

    #[test]
    fn private_zone_needs_vpc_and_cluster() {
        let on = json!({ "spec": { "network": { "privateZone": "Enabled" } } });
        let told = of(on.clone());
        assert!(
            told[0].contains("vpcId is not set") && told[0].contains("clusterId is not set"),
            "{told:?}"
        );
        assert_eq!(notes(&observed(adopting(on))), [""; 0]);
        let default = json!({ "spec": {
            "network": { "privateZone": "Enabled", "vpcId": "vpc-1" }, "provider": { "clusterId": "default" },
        } });
        assert!(of(default)[0].contains("clusterId is default"));
    }

    #[test]
    fn log_collection_needs_a_machine_group() {
        let on = json!({ "spec": { "profile": { "settings": { "enableLogController": "true" } } } });
        assert!(of(on.clone())[0].contains("slsMachineGroup"));
        let mut seen = observed(pool(on));
        seen.profile = Some(Arc::new(ConfigMap {
            data: Some([("slsMachineGroup".to_owned(), "g".to_owned())].into()),
            ..ConfigMap::default()
        }));
        assert_eq!(notes(&seen), [""; 0]);
    }

    #[test]
    fn a_gpu_class_needs_our_webhook() {
        let spec = |class: &str, webhook: &str| json!({ "spec": { "computeDefaults": { "class": class }, "placement": { "webhook": webhook } } });
        for (class, webhook, says) in [
            ("gpu", "None", true),
            ("gpu-hpn", "Vendor", true),
            ("gpu", "Operator", false),
            ("general-purpose", "None", false),
        ] {
            let told = of(spec(class, webhook));
            assert_eq!(told.len(), usize::from(says), "{class} {webhook}: {told:?}");
            assert!(
                told.iter().all(|t| t.contains(class) && t.contains(webhook)),
                "{told:?}"
            );
        }
        let mut policies = spec("gpu", "None");
        policies["spec"]["scheduling"] =
            json!({ "resourcePolicies": [{ "name": "p", "namespaces": ["shop"] }] });
        assert_eq!(of(policies.clone()), [""; 0]);
        policies["spec"]["placement"]["rules"] = json!([{ "name": "r", "mode": "Require" }]);
        assert_eq!(of(policies).len(), 1);
    }

    fn abandoning(value: &str, status: Value) -> Observed {
        let p = pool(json!({
            "metadata": { "annotations": { (ABANDON_ANNOTATION): value } },
            "spec": { "replicas": 2 },
            "status": status,
        }));
        let mut seen = with_workload(observed(p), workload(held()));
        let node = |ordinal: i32| NodeView {
            name: format!("virtual-node-eci-{ordinal}"),
            uid: format!("n{ordinal}"),
            labels: Default::default(),
            ready: true,
            ..NodeView::default()
        };
        seen.nodes = (0..3).map(|o| (o, Arc::new(node(o)))).collect();
        seen
    }

    #[test]
    fn the_break_glass_annotation_says_why_it_does_nothing() {
        for (value, word) in [
            ("virtual-node-eci-2", "<node>/<uid>"),
            ("virtual-node-eci-2/", "<node>/<uid>"),
            ("other-2/n2", "virtual-node-eci-<ordinal>"),
            ("virtual-node-eci-02/n2", "virtual-node-eci-<ordinal>"),
            ("virtual-node-eci-7/n7", "not one of the nodes"),
            ("virtual-node-eci-1/n1", "is wanted"),
            ("virtual-node-eci-2/none", "the UID of virtual-node-eci-2 is n2"),
        ] {
            let told = notes(&abandoning(value, json!({})));
            assert!(
                told.len() == 1 && told[0].contains(word) && told[0].contains(value),
                "{value}: {told:?}"
            );
        }
        assert_eq!(notes(&abandoning("virtual-node-eci-2/n2", json!({}))), [""; 0]);
    }

    #[test]
    fn nothing_is_said_of_break_glass_while_the_workload_is_unseen() {
        let mut seen = abandoning("virtual-node-eci-2/n2", json!({}));
        seen.workload = crate::observed::WorkloadSeen::Unknown(crate::observed::Blind::NotWatched);
        assert_eq!(notes(&seen), [""; 0]);
        seen.workload = crate::observed::WorkloadSeen::Absent;
        assert!(notes(&seen)[0].contains("not one of the nodes"));
    }

    #[test]
    fn a_vanished_node_goes_by_its_last_known_uid_or_none() {
        let drain = json!({ "drain": {
            "summary": "0/0", "podsTotal": 0, "podsRemaining": 0, "podsTerminating": 0, "podsBlocked": 0,
            "limitedBy": "Nothing",
            "nodes": [{
                "name": "virtual-node-eci-2", "uid": "old", "ordinal": 2, "phase": "Evicting",
                "startedAt": "2026-01-01T00:00:00Z", "recordons": 0, "podsTotal": 0, "podsRemaining": 0,
            }],
        } });
        let mut seen = abandoning("virtual-node-eci-2/old", drain);
        seen.nodes.remove(&2);
        assert_eq!(notes(&seen), [""; 0]);
        let mut seen = abandoning("virtual-node-eci-2/none", json!({}));
        seen.nodes.remove(&2);
        assert_eq!(notes(&seen), [""; 0]);
    }

    #[test]
    fn the_annotation_may_stay_after_it_acted() {
        let retired = json!({ "provider": { "type": "StatefulSet", "retired": [
            { "ordinal": 2, "nodeUid": "n2", "time": "2026-01-01T00:00:00Z", "abandoned": true },
        ] } });
        let mut seen = abandoning("virtual-node-eci-2/n2", retired);
        seen.nodes.remove(&2);
        assert_eq!(notes(&seen), [""; 0]);
    }
}
