//! Decisions that destroy carry their proof as a value. A [`Shrink`] can be made from an [`Empty`], an [`Abandoned`] or
//! a [`NeverCameUp`] only; those only from [`LiveFacts`], and these only from answers that were complete. An error
//! can't be an empty list here, and a wrong shrink does not type-check (P1).

use std::sync::Arc;

use jiff::Timestamp;
use json_patch::{Patch, PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::{Value, json};
use vnp_crds::{DaemonSetPods, VirtualNodePool};

use crate::drain::health::health;
use crate::drain::identity::unaccounted;
use crate::drain::settle::Settle;
use crate::observed::{BoundPod, NodeView, Ordinal, ProviderPod, Term, UnclaimedNode, Workload};

/// The pods of one node in a complete answer of the API server to a LIST without `resourceVersion`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuorumList {
    taken_at: Timestamp,
    pods: Vec<BoundPod>,
}

/// What a LIST answered, before it is known to be complete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListAnswer {
    /// `metadata.resourceVersion` of the list.
    pub resource_version: Option<String>,
    /// `metadata.continue`: there is more.
    pub continue_token: Option<String>,
    /// The items, already read as pods.
    pub pods: Vec<BoundPod>,
}

/// Why an answer can't stand for the whole node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteList {
    /// There is another page.
    #[error("the API server answered with a part of the list only; it is read again")]
    Partial,
    /// It is not a list from the store.
    #[error(
        "the answer carries no resourceVersion, so it is not a list from the API server's store; it is read again"
    )]
    NoResourceVersion,
}

impl QuorumList {
    /// Takes the answer for complete, or says why not. Call it from `observe` (and test support) only, with the answer
    /// to a LIST by `spec.nodeName` that had `resourceVersion` unset.
    ///
    /// # Errors
    /// [`IncompleteList`] when the answer is one page of several or no list at all.
    pub fn complete(taken_at: Timestamp, answer: ListAnswer) -> Result<Self, IncompleteList> {
        if answer.continue_token.is_some_and(|t| !t.is_empty()) {
            return Err(IncompleteList::Partial);
        }
        if answer.resource_version.is_none_or(|v| v.is_empty()) {
            return Err(IncompleteList::NoResourceVersion);
        }
        Ok(Self {
            taken_at,
            pods: answer.pods,
        })
    }

    /// When it was asked for.
    pub fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    /// The pods that hold the node, whatever the pool leaves out: all but mirror pods.
    pub fn holding(&self) -> impl Iterator<Item = &BoundPod> {
        self.pods.iter().filter(|p| !p.mirror)
    }

    /// The pods that hold the node under this `spec.drain.daemonSetPods`.
    pub fn holding_under(&self, setting: DaemonSetPods) -> impl Iterator<Item = &BoundPod> {
        self.holding().filter(move |p| !p.left_out(setting))
    }
}

/// What was read live about one ordinal, the list first, the rest after it.
#[derive(Clone, Debug)]
pub struct LiveFacts {
    /// The node's pods.
    pub list: QuorumList,
    /// The pool after the list.
    pub pool: Arc<VirtualNodePool>,
    /// The workload after the list.
    pub workload: Option<Arc<Workload>>,
    /// The Node after the list.
    pub node: Option<Arc<NodeView>>,
    /// The provider pod after the list.
    pub provider_pod: Option<Arc<ProviderPod>>,
    /// The virtual nodes that bear no name of a pool's node; `None` when they were not asked for, as for an ordinal that
    /// has its Node.
    pub unclaimed: Option<Arc<Vec<UnclaimedNode>>>,
}

impl LiveFacts {
    /// `spec.drain.daemonSetPods` of the pool as read live.
    pub fn daemon_set_pods(&self) -> DaemonSetPods {
        self.pool.spec.drain().daemon_set_pods
    }

    /// The pods that hold the node under the setting of the live pool.
    pub fn holding(&self) -> impl Iterator<Item = &BoundPod> {
        self.list.holding_under(self.daemon_set_pods())
    }
}

/// A node that held no pod in two lists with a settle between them, its provider unchanged and alive.
#[derive(Clone, Debug)]
pub struct Empty(Subject);

/// A node that a person gave up by name and UID.
#[derive(Clone, Debug)]
pub struct Abandoned(Subject);

/// An ordinal whose provider never was Ready, whose Node never registered, under its own name or under another, and to
/// which no pod is bound.
#[derive(Clone, Debug)]
pub struct NeverCameUp(Subject);

#[derive(Clone, Debug)]
struct Subject {
    workload: Arc<Workload>,
    ordinal: Ordinal,
    fence: String,
}

/// Why emptiness is not proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// A pod is bound.
    #[error("pod {0} is bound to it")]
    Pod(String),
    /// The settle is not over.
    #[error("it has not been empty for long enough")]
    TooEarly,
    /// Something that had to stay the same did not.
    #[error("{0} changed while it was watched")]
    Changed(&'static str),
    /// The provider gave no sign of life since the last pod disappeared.
    #[error("its provider has not sent a heartbeat since the last pod disappeared")]
    NoHeartbeatSince,
    /// The pool, read live, does not want it gone.
    #[error("the pool wants it again")]
    Wanted,
    /// Only the highest ordinal can be shrunk away.
    #[error("it is not the highest ordinal")]
    NotHighest,
    /// Its provider works, or has worked.
    #[error("its provider is or was Ready, so it may have a Node under another name")]
    CameUp,
    /// Pods are bound to a virtual node that nobody claims and that may be its own.
    #[error("pods are bound to the virtual node {0}, which may be its own under another name")]
    Unclaimed(String),
}

/// What the second look at a node must confirm.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// The ordinal.
    pub ordinal: Ordinal,
    /// The settle that the first look began.
    pub settle: &'a Settle,
    /// When the second list may be taken at the earliest.
    pub not_before: Timestamp,
    /// Heartbeats counted when the last pod disappeared, if this process saw one disappear.
    pub beats_at_last_departure: Option<u64>,
    /// The target that the live pool asks for, in replicas.
    pub target: i32,
    /// This leader's term.
    pub term: &'a Term,
    /// Now.
    pub now: Timestamp,
}

fn subject(live: &LiveFacts, ordinal: Ordinal, fence: &str, target: i32) -> Result<Subject, Doubt> {
    let workload = live.workload.clone().ok_or(Doubt::Changed("the workload"))?;
    if workload.annotation(vnp_crds::SHRINKING_ANNOTATION) != Some(fence) {
        return Err(Doubt::Changed("the fence"));
    }
    if ordinal.checked_add(1) != Some(workload.ordinals().end) {
        return Err(Doubt::NotHighest);
    }
    if target >= workload.replicas() {
        return Err(Doubt::Wanted);
    }
    Ok(Subject {
        workload,
        ordinal,
        fence: fence.to_owned(),
    })
}

impl Empty {
    /// Proves that the node is empty from a settle and a second look at everything.
    ///
    /// # Errors
    /// A [`Doubt`]: the settle is void, or not over.
    pub fn prove(live: &LiveFacts, expect: &Expectation<'_>) -> Result<Self, Doubt> {
        // The first list too, by the setting as it is now: the one it was taken under may have been another.
        let setting = live.daemon_set_pods();
        let lists = [&expect.settle.first, &live.list];
        if let Some(pod) = lists.into_iter().find_map(|l| l.holding_under(setting).next()) {
            return Err(Doubt::Pod(pod.key.to_string()));
        }
        if live.list.taken_at() < expect.not_before {
            return Err(Doubt::TooEarly);
        }
        let node = live.node.as_deref().ok_or(Doubt::Changed("the Node"))?;
        let mark = health(Some(node), live.provider_pod.as_deref(), expect.now)
            .map_err(|_| Doubt::Changed("the provider's health"))?;
        if Some(&mark) != expect.settle.provider.as_ref() {
            return Err(Doubt::Changed("the provider"));
        }
        if !node.cordoned_in_term(expect.term) {
            return Err(Doubt::Changed("the cordon"));
        }
        let beats = node.heartbeat.as_ref().map_or(0, |b| b.beats);
        // Alive at both ends: without memory of a departure, a sign of life during the settle has to do.
        if beats
            <= expect
                .settle
                .beats
                .max(expect.beats_at_last_departure.unwrap_or(0))
        {
            return Err(Doubt::NoHeartbeatSince);
        }
        subject(live, expect.ordinal, &expect.settle.fence, expect.target).map(Self)
    }
}

impl Abandoned {
    /// Follows the pool's annotation, as read live, when it names this node.
    ///
    /// # Errors
    /// A [`Doubt`] when the annotation is not there (any more), or the ordinal is not the highest doomed one.
    pub fn declared(
        live: &LiveFacts,
        ordinal: Ordinal,
        expected: &str,
        fence: &str,
        target: i32,
    ) -> Result<Self, Doubt> {
        let annotations = live.pool.metadata.annotations.as_ref();
        let declared = annotations.and_then(|a| a.get(vnp_crds::ABANDON_ANNOTATION));
        if declared.map(String::as_str) != Some(expected) {
            return Err(Doubt::Changed("the annotation"));
        }
        subject(live, ordinal, fence, target).map(Self)
    }
}

impl NeverCameUp {
    /// No Node, and no pod in two lists, for an ordinal that never registered. A Node can bear another name than its
    /// provider's: no virtual node with pods may be left over that could be this one's.
    ///
    /// # Errors
    /// A [`Doubt`] when there is a pod or a Node after all, or when it is not known.
    pub fn prove(
        live: &LiveFacts,
        ordinal: Ordinal,
        settle: &Settle,
        target: i32,
        now: Timestamp,
    ) -> Result<Self, Doubt> {
        if let Some(pod) = live.list.holding().next() {
            return Err(Doubt::Pod(pod.key.to_string()));
        }
        if settle.first.taken_at() >= live.list.taken_at() {
            return Err(Doubt::TooEarly);
        }
        if settle.provider.is_some() {
            return Err(Doubt::Changed("the provider"));
        }
        if live.node.is_some() {
            return Err(Doubt::Changed("the Node"));
        }
        let provider = live.provider_pod.as_deref();
        if provider.is_some_and(|p| p.ready) {
            return Err(Doubt::CameUp);
        }
        let unclaimed = live
            .unclaimed
            .as_ref()
            .ok_or(Doubt::Changed("what is known of other virtual nodes"))?;
        if let Some(other) = unclaimed.iter().find(|n| unaccounted(n, provider, now)) {
            return Err(Doubt::Unclaimed(other.node.name.clone()));
        }
        subject(live, ordinal, &settle.fence, target).map(Self)
    }
}

/// The one write that takes a provider away: the replica count lowered by one, tested against UID, resourceVersion,
/// fence and old count. The API server answers 422 when any of them moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    ordinal: Ordinal,
    patch: Patch,
}

impl Shrink {
    fn of(subject: Subject) -> Self {
        let Subject {
            workload,
            ordinal,
            fence,
        } = subject;
        let replicas = workload.replicas();
        let test = |path: PointerBuf, value: Value| PatchOperation::Test(TestOperation { path, value });
        let annotation = PointerBuf::from_tokens(["metadata", "annotations", vnp_crds::SHRINKING_ANNOTATION]);
        let count = PointerBuf::from_tokens(["spec", "replicas"]);
        let patch = Patch(vec![
            test(
                PointerBuf::from_tokens(["metadata", "uid"]),
                json!(workload.uid()),
            ),
            test(
                PointerBuf::from_tokens(["metadata", "resourceVersion"]),
                json!(workload.resource_version()),
            ),
            test(annotation, json!(fence)),
            test(count.clone(), json!(replicas)),
            PatchOperation::Replace(ReplaceOperation {
                path: count,
                value: json!(replicas - 1),
            }),
        ]);
        Self { ordinal, patch }
    }

    /// The ordinal that goes.
    pub fn ordinal(&self) -> Ordinal {
        self.ordinal
    }

    /// The patch.
    pub fn patch(&self) -> &Patch {
        &self.patch
    }
}

impl From<Empty> for Shrink {
    fn from(proof: Empty) -> Self {
        Self::of(proof.0)
    }
}

impl From<Abandoned> for Shrink {
    fn from(proof: Abandoned) -> Self {
        Self::of(proof.0)
    }
}

impl From<NeverCameUp> for Shrink {
    fn from(proof: NeverCameUp) -> Self {
        Self::of(proof.0)
    }
}
