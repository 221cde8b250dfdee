//! What became of the promises to one pool of several, by the audit log and the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use vnp_e2e::antagonists::Whom;
use vnp_e2e::audit::{AuditEvent, OPERATOR, evictions, replicas_changes};
use vnp_e2e::cloud::Ledger;
use vnp_e2e::scenario::Scenario;

/// Everything that happened since the scenario began, read once.
pub(crate) struct Trail<'e> {
    events: Vec<AuditEvent>,
    ledger: &'e Ledger,
    /// Where each pod ran, by UID.
    nodes: HashMap<String, String>,
}

/// When the target of a pool was raised, and when the pool was deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) raised: Timestamp,
    pub(crate) deleted: Timestamp,
}

impl<'e> Trail<'e> {
    pub(crate) fn read(s: &Scenario<'e>) -> Result<Self> {
        let mut events = s.audit_log().events()?;
        events.retain(|e| e.received >= s.began() && e.is_write() && !e.is_dry_run());
        let instances = s.ledger().instances().into_iter();
        Ok(Self {
            events,
            ledger: s.ledger(),
            nodes: instances.map(|i| (i.pod.uid, i.node)).collect(),
        })
    }

    /// What the operator wrote for this pool, refused attempts included.
    fn writes(&self, whom: &Whom) -> Vec<&AuditEvent> {
        let pool = whom.pool.as_str();
        let about = |e: &&AuditEvent| {
            let told = || {
                e.request
                    .as_ref()
                    .is_some_and(|event| event.to_string().contains(pool))
            };
            e.user == OPERATOR && (e.object().contains(pool) || e.resource == "events" && told())
        };
        self.events.iter().filter(about).collect()
    }

    /// The most writes for this pool in any minute, and of which kinds they were.
    pub(crate) fn busiest_minute(&self, whom: &Whom) -> (usize, BTreeMap<String, usize>) {
        let mut writes = self.writes(whom);
        writes.sort_by_key(|e| e.received);
        let minute = |first: usize| {
            let end = writes[first].received + SignedDuration::from_mins(1);
            let count = writes[first..].partition_point(|e| e.received < end);
            &writes[first..first + count]
        };
        let busiest = (0..writes.len()).map(minute).max_by_key(|m| m.len());
        let mut kinds = BTreeMap::new();
        for write in busiest.unwrap_or_default() {
            let subresource = write.subresource.as_deref().unwrap_or_default();
            let kind = format!("{} {} {subresource} {}", write.verb, write.resource, write.code);
            *kinds.entry(kind).or_default() += 1;
        }
        (kinds.values().sum(), kinds)
    }

    /// What the pool's status and its events said until then.
    pub(crate) fn said(&self, whom: &Whom, until: Timestamp) -> BTreeSet<String> {
        let mut said = BTreeSet::new();
        for write in self.writes(whom) {
            if !write.is_success() || write.received > until {
                continue;
            }
            match (write.resource.as_str(), &write.request, &write.response) {
                ("events", Some(event), _) => {
                    said.insert(words(event, &["reason", "note"]));
                }
                ("virtualnodepools", _, Some(pool)) => said.extend(messages(pool)),
                _ => {}
            }
        }
        said
    }

    /// P1: the operator counted no provider away and removed no Node while the node had an instance.
    pub(crate) fn nothing_leaked(&self, whom: &Whom) -> Result<()> {
        for change in replicas_changes(&self.events, "kube-system", &whom.provider) {
            if change.user != OPERATOR {
                continue;
            }
            for ordinal in change.to..change.from.unwrap_or(change.to) {
                let node = format!("{}-{ordinal}", whom.provider);
                let alive = self.ledger.living_on_at(&node, change.received);
                ensure!(alive == 0, "{alive} instances of {node} lived at {change:?}");
            }
        }
        let writes = self.writes(whom).into_iter();
        for gone in writes.filter(|e| e.verb == "delete" && e.is("nodes", None) && e.is_success()) {
            let alive = self.ledger.living_on_at(&gone.object(), gone.received);
            ensure!(alive == 0, "{alive} instances lived at {gone}");
        }
        Ok(())
    }

    /// P2: pods left by evictions that named their UID, and before the pool went only from nodes that went.
    pub(crate) fn no_budget_was_passed(&self, whom: &Whom, times: Times) -> Result<()> {
        let own = |e: &AuditEvent| e.namespace.as_deref() == Some(&whom.namespace) && e.is("pods", None);
        let deleted = self
            .writes(whom)
            .into_iter()
            .find(|e| e.verb == "delete" && own(e));
        ensure!(deleted.is_none(), "{deleted:?}");
        let stays = format!("{}-0", whom.provider);
        for (node, eviction) in self.evictions(whom)? {
            ensure!(
                eviction >= times.deleted || node != stays,
                "a pod of {node} was evicted at {eviction}, and the pool deleted at {}",
                times.deleted
            );
        }
        Ok(())
    }

    /// P3: nothing was evicted while all nodes were wanted.
    pub(crate) fn the_raise_ended_the_drain(&self, whom: &Whom, times: Times) -> Result<()> {
        let wanted = times.raised + SignedDuration::from_secs(1)..times.deleted;
        for (node, eviction) in self.evictions(whom)? {
            ensure!(
                !wanted.contains(&eviction),
                "a pod of {node} was evicted at {eviction}, when all nodes were wanted: {wanted:?}"
            );
        }
        Ok(())
    }

    /// The pool's nodes from which the operator asked to evict something, and when.
    fn evictions(&self, whom: &Whom) -> Result<Vec<(&str, Timestamp)>> {
        let prefix = format!("{}-", whom.provider);
        let mut found = Vec::new();
        for eviction in evictions(&self.events) {
            if eviction.user != OPERATOR {
                continue;
            }
            let uid = eviction.uid_precondition.as_deref();
            let uid = uid.with_context(|| format!("{eviction:?} names no UID"))?;
            let node = self.nodes.get(uid).filter(|node| node.starts_with(&prefix));
            found.extend(node.map(|node| (node.as_str(), eviction.received)));
        }
        Ok(found)
    }
}

/// What the status of a pool says.
pub(crate) fn messages(pool: &Value) -> Vec<String> {
    let status = &pool["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let blockers = status["drain"]["blockers"].as_array().into_iter().flatten();
    let conditions = conditions.map(|c| words(c, &["reason", "message"]));
    let blockers = blockers.map(|b| words(b, &["reason", "object", "message"]));
    conditions.chain(blockers).collect()
}

fn words(object: &Value, fields: &[&str]) -> String {
    let words = fields.iter().filter_map(|field| object[field].as_str());
    words.collect::<Vec<_>>().join(" ")
}
