//! Small builders for unit tests: a pool, what one pass sees of it, and reports that build on each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vnp_crds::{BlockerReason, DrainPhase, VirtualNodePool};
use vnp_plan::finding::{Blocker, EventNote, Finding, ProviderState};
use vnp_plan::observed::{Observed, OperatorFacts, Workload};
use vnp_plan::plan::{Facts, NodeInDrain, Plan};

use super::attempts::Attempts;
use super::situation::{Pass, Standstill};
use super::status::{Report, report};
use super::transitions::{at_once, between};

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A Create pool `burst` of 3 in generation 4, overlaid with a merge patch.
pub(crate) fn pool(overlay: Value) -> VirtualNodePool {
    let mut value = json!({
        "apiVersion": vnp_crds::API_VERSION,
        "kind": vnp_crds::KIND,
        "metadata": {"name": "burst", "uid": "uid-burst", "generation": 4, "resourceVersion": "100"},
        "spec": {
            "replicas": 3,
            "region": "cn-hangzhou",
            "network": {
                "zones": [{"zone": "cn-hangzhou-j", "vSwitchIds": ["vsw-1"]}],
                "securityGroupId": "sg-1",
            },
            "provider": {
                "type": "StatefulSet", "management": "Create", "namespace": "kube-system",
                "name": "virtual-node-eci", "image": "registry.example/vk:1",
            },
        },
    });
    json_patch::merge(&mut value, &overlay);
    serde_json::from_value(value).unwrap()
}

/// The workload of that pool, with 3 replicas.
pub(crate) fn workload() -> Workload {
    Workload::new(json!({
        "metadata": {"name": "virtual-node-eci", "namespace": "kube-system", "uid": "uid-sts",
                     "labels": {(vnp_crds::POOL_LABEL): "burst"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "virtual-node-eci"}},
                 "template": {"spec": {"containers": [
                     {"name": "side", "image": "side:1"},
                     {"name": "vk", "image": "registry.example/vk:1", "env": [{"name": "ECI_REGION", "value": "x"}]}]}}},
        "status": {"readyReplicas": 3},
    }))
}

pub(crate) fn observed(pool: VirtualNodePool) -> Observed {
    Observed {
        pool: Arc::new(pool),
        others: Vec::new(),
        operator: OperatorFacts::default(),
        workload: workload().into(),
        provider_pods: Default::default(),
        nodes: Default::default(),
        bound: Default::default(),
        budgets: Default::default(),
        stateful_sets: Default::default(),
        controllers: Default::default(),
        wanted: Default::default(),
        namespaces: Default::default(),
        restore_copy: None,
        template_copy: None,
        audit: None,
        profile: None,
        acs_profile: None,
        profile_rejection: None,
        scheduling: Default::default(),
        kubernetes: None,
        webhook: Default::default(),
        vendor_webhook: Default::default(),
        later: Default::default(),
        left_alone: Default::default(),
        overflow: Default::default(),
        flaws: Vec::new(),
        failing: Vec::new(),
        memory: Default::default(),
        recall: Default::default(),
        live: Default::default(),
    }
}

/// Nothing to do: three nodes wanted, three there.
pub(crate) fn settled() -> Plan {
    Plan {
        facts: Facts {
            target: Some(3),
            nodes: 3,
            available: 3,
            pods: 200,
            ..Facts::default()
        },
        ..Plan::default()
    }
}

/// The same with something to say.
pub(crate) fn saying(findings: impl IntoIterator<Item = Finding>) -> Plan {
    Plan {
        findings: findings.into_iter().collect(),
        ..settled()
    }
}

/// Node 2 drains since second 0, and the last pod left at `progress`.
pub(crate) fn draining(progress: i64, findings: impl IntoIterator<Item = Finding>) -> Plan {
    let mut plan = saying(findings);
    plan.facts.target = Some(2);
    plan.facts.draining = vec![in_drain(2, progress)];
    plan
}

pub(crate) fn in_drain(ordinal: i32, progress: i64) -> NodeInDrain {
    NodeInDrain {
        name: format!("virtual-node-eci-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        ordinal,
        phase: DrainPhase::Evicting,
        started_at: at(0),
        last_progress: at(progress),
        empty_since: None,
        recordons: 0,
        force_announced: None,
        force_at: None,
        reaped_provider_uid: None,
        pods_total: 300,
        pods_remaining: 140,
        pods_terminating: 10,
        pods_blocked: 2,
    }
}

pub(crate) fn blocked(reason: BlockerReason) -> Finding {
    Finding::Blocker(Blocker {
        reason,
        object: "shop/checkout".to_owned(),
        pods: 2,
        since: Some(at(0)),
        message: "no disruption is allowed; add replicas or relax it".to_owned(),
        terminal: false,
    })
}

pub(crate) fn provider(state: ProviderState) -> Finding {
    Finding::Provider {
        state,
        message: "virtual-node-eci-2: its Node is not Ready".to_owned(),
    }
}

/// A pool whose status the server keeps: reports build on each other as they do in a cluster.
pub(crate) struct Story {
    pub(crate) observed: Observed,
    standstill: Option<Standstill>,
    done_at: Option<Timestamp>,
}

impl Story {
    pub(crate) fn of(pool: VirtualNodePool) -> Self {
        Self {
            observed: observed(pool),
            standstill: None,
            done_at: None,
        }
    }

    /// Reports a pass at that second and keeps its status, as it comes back from the API server.
    pub(super) fn pass(&mut self, plan: &Plan, seconds: i64) -> Report {
        self.pass_with(plan, &Attempts::default(), seconds)
    }

    pub(super) fn pass_with(&mut self, plan: &Plan, attempts: &Attempts<'_>, seconds: i64) -> Report {
        // Never on the second: times lose their fraction on the wire.
        let now = at(seconds) + SignedDuration::from_millis(400);
        let pass = Pass {
            observed: &self.observed,
            plan,
            attempts,
            standstill: self.standstill.as_ref(),
            done_at: self.done_at,
            now,
        };
        let report = report(&pass);
        self.standstill.clone_from(&report.standstill);
        self.done_at = report.done_at;
        let wire = serde_json::to_value(&report.status).unwrap();
        Arc::make_mut(&mut self.observed.pool).status = Some(serde_json::from_value(wire).unwrap());
        report
    }

    /// The same of a pass that saw `seen`, with the events that it is worth.
    pub(super) fn told(
        &mut self,
        seen: &Observed,
        plan: &Plan,
        attempts: &Attempts<'_>,
        seconds: i64,
    ) -> (Report, BTreeSet<EventNote>) {
        let pass = Pass {
            observed: seen,
            plan,
            attempts,
            standstill: self.standstill.as_ref(),
            done_at: self.done_at,
            now: at(seconds) + SignedDuration::from_millis(400),
        };
        let report = report(&pass);
        let mut notes = at_once(&pass, &report.held_by);
        notes.extend(between(&pass, &report.status));
        self.standstill.clone_from(&report.standstill);
        self.done_at = report.done_at;
        let wire = serde_json::to_value(&report.status).unwrap();
        Arc::make_mut(&mut self.observed.pool).status = Some(serde_json::from_value(wire).unwrap());
        (report, notes)
    }

    /// The operator starts anew: what only it remembered is gone.
    pub(crate) fn restart(&mut self) {
        self.standstill = None;
        self.done_at = None;
    }
}
