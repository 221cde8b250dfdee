//! What is kept of one node.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::observed::{BoundPod, Ordinal};

/// How a pod of a removed node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// Through the Eviction API. Its mark on the pod does not say who asked: another drain of the node counts too.
    Evicted,
    /// By itself, before anybody asked for its deletion.
    Finished,
    /// By a DELETE that was no eviction.
    Deleted,
    /// Nobody watched it go.
    Unknown,
    /// It was still bound when the node was given up: its instance is left to a person.
    Abandoned,
}

/// One pod, one cloud instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// `<namespace>/<name>`.
    pub pod: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Id of the instance, absent when the provider never wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How it ended, absent while it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// When its object was seen to be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

impl PodRecord {
    /// A pod that is bound.
    pub fn bound(pod: &BoundPod) -> Self {
        Self {
            pod: pod.key.to_string(),
            uid: pod.uid.clone(),
            instance: pod.instance_id.clone(),
            ended: None,
            at: None,
        }
    }

    fn key(&self) -> (String, String) {
        (self.pod.clone(), self.uid.clone())
    }

    /// Takes over what `other` knows and this one does not.
    fn learn(&mut self, other: &Self, ending: bool) {
        if self.instance.is_none() {
            self.instance.clone_from(&other.instance);
        }
        if ending && matches!(self.ended, None | Some(Ended::Unknown)) && other.ended.is_some() {
            self.ended = other.ended;
            self.at.clone_from(&other.at);
        }
    }
}

/// One node, as the value of one key of the ConfigMap. Times are whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// Name of the Node.
    pub node: String,
    /// Its UID.
    pub uid: String,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Name of the pool.
    pub pool: String,
    /// Start of the drain, as in `status.drain.nodes`.
    pub started_at: Time,
    /// Since when no pod is bound; absent while the drain goes on or when it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emptied_at: Option<Time>,
    /// When the node was given up by annotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abandoned_at: Option<Time>,
    /// Pods that the drain met on the node.
    pub pods_total: usize,
    /// Of these: not listed, for want of room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pods_left_out: usize,
    /// The pods, sorted by name.
    pub pods: Vec<PodRecord>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl NodeRecord {
    /// Its key in the ConfigMap.
    pub fn key(&self) -> String {
        format!("{}.{}.json", self.node, self.uid)
    }

    /// The newest time in it, by which records are told old or new.
    pub(super) fn time(&self) -> Timestamp {
        let ends = [&self.emptied_at, &self.abandoned_at];
        ends.into_iter()
            .flatten()
            .map(|t| t.0)
            .max()
            .unwrap_or(self.started_at.0)
    }
}

/// What one pass knows of a node that drains.
#[derive(Clone, Debug)]
pub(super) struct Look<'a> {
    pub(super) node: &'a str,
    pub(super) uid: &'a str,
    pub(super) ordinal: Ordinal,
    pub(super) pool: &'a str,
    pub(super) started_at: Timestamp,
    pub(super) emptied_at: Option<Timestamp>,
    /// A person gave the node up.
    pub(super) abandoned: bool,
    pub(super) bound: Vec<&'a BoundPod>,
    /// Pods that this process saw go, by UID.
    pub(super) left: &'a BTreeMap<String, PodRecord>,
    pub(super) now: Timestamp,
}

impl Look<'_> {
    /// True when there is surely nothing to add to `before`: asked with every pass while thousands of pods leave.
    pub(super) fn adds_nothing(&self, before: &NodeRecord) -> bool {
        let open = [
            &self.emptied_at.map(whole),
            &before.emptied_at,
            &before.abandoned_at,
        ];
        if before.uid != self.uid || self.abandoned || open.into_iter().any(Option::is_some) {
            return false;
        }
        let known: HashMap<&str, &PodRecord> = before.pods.iter().map(|p| (p.uid.as_str(), p)).collect();
        let told = |uid: &String, instance: &Option<String>| {
            known
                .get(uid.as_str())
                .is_some_and(|p| p.instance.is_some() || instance.is_none())
        };
        self.bound.iter().all(|p| told(&p.uid, &p.instance_id))
            && self.left.values().all(|p| told(&p.uid, &p.instance))
    }

    /// The record after this look; `before` is what the same drain recorded earlier. Until the node is empty or given
    /// up, pods are only added: how each ended is written once, at the end, and not with every pod that goes. Looked at
    /// again with its own result, it changes nothing (P6).
    pub(super) fn over(&self, before: Option<&NodeRecord>) -> NodeRecord {
        let ending = self.emptied_at.is_some() || self.abandoned;
        let mut pods: BTreeMap<(String, String), PodRecord> = before
            .iter()
            .flat_map(|r| &r.pods)
            .map(|p| (p.key(), p.clone()))
            .collect();
        for gone in self.left.values() {
            pods.entry(gone.key())
                .or_insert_with(|| gone.clone())
                .learn(gone, ending);
        }
        let bound: BTreeMap<(String, String), PodRecord> = self
            .bound
            .iter()
            .map(|p| PodRecord::bound(p))
            .map(|p| (p.key(), p))
            .collect();
        for (key, pod) in &bound {
            pods.entry(key.clone())
                .or_insert_with(|| pod.clone())
                .learn(pod, false);
        }
        if ending {
            for (key, pod) in pods.iter_mut().filter(|(_, p)| p.ended.is_none()) {
                pod.ended = match (bound.contains_key(key), self.abandoned) {
                    (true, true) => Some(Ended::Abandoned),
                    (true, false) => None,
                    (false, _) => Some(Ended::Unknown),
                };
            }
        }
        let abandoned_before = before.and_then(|r| r.abandoned_at.clone());
        NodeRecord {
            node: self.node.to_owned(),
            uid: self.uid.to_owned(),
            ordinal: self.ordinal,
            pool: self.pool.to_owned(),
            started_at: whole(self.started_at),
            emptied_at: self.emptied_at.map(whole),
            abandoned_at: self
                .abandoned
                .then(|| abandoned_before.unwrap_or_else(|| whole(self.now))),
            pods_total: before.map_or(0, |r| r.pods_total).max(pods.len()),
            pods_left_out: 0,
            pods: pods.into_values().collect(),
        }
    }
}

/// Cut to the second, as times in a status are.
pub(super) fn whole(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
