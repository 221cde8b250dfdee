//! Live reads: what a decision that destroys is made on. The only place where a list may be called complete.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;
use vnp_crds::{KUBE_NODE_LEASE, VirtualNodePool};
use vnp_plan::drain::identity::{elsewhere, unclaimed};
use vnp_plan::observed::{NodeTrace, Observed, Ordinal, UnclaimedNode, Workload};
use vnp_plan::proof::{IncompleteList, ListAnswer, LiveFacts, QuorumList};

use super::cluster::Cluster;
use super::heartbeat::Sign;
use super::read::Read;
use super::scope;
use super::wire::{RawWorkload, SlimNode, SlimPod};

/// Longest time for the reads of one ordinal; the pass that asked goes on with the time at which it began.
const LIMIT: Duration = Duration::from_secs(5);
/// The same where all Nodes have to be read, page by page.
const LIMIT_WITH_NODES: Duration = Duration::from_secs(20);
/// Nodes or pods in one page.
const PAGE: u32 = 500;

/// The reads did not succeed, so nothing is known. They are made again by the next pass.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// An answer was an error.
    #[error("the API server could not be asked about {what}")]
    Api {
        /// What was asked.
        what: String,
        /// Cause.
        #[source]
        source: kube::Error,
    },
    /// The list is not the whole truth.
    #[error("the list of pods of {node} can't be used")]
    Incomplete {
        /// The node.
        node: String,
        /// Cause.
        #[source]
        source: IncompleteList,
    },
    /// What answered is not a list of pods.
    #[error(
        "the list of pods of {node} came back as {kind}; something between here and the API server answers for it"
    )]
    NotPods {
        /// The node.
        node: String,
        /// Its kind.
        kind: String,
    },
    /// No pool of that UID any more.
    #[error("the pool is gone")]
    PoolGone,
    /// The pool names no workload.
    #[error("the pool names no workload")]
    NoWorkload,
    /// Too slow.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// A list that does not say where in the API server's history it stands.
    #[error("the list of Nodes can't be used")]
    NoNodes(#[source] IncompleteList),
}

fn api(what: &str) -> impl FnOnce(kube::Error) -> LiveError + '_ {
    move |source| LiveError::Api {
        what: what.to_owned(),
        source,
    }
}

/// Reads everything about one ordinal: the list of its pods first, the rest after it, so that the rest is at least as new.
///
/// # Errors
/// [`LiveError`] when any of it could not be read; an object that is not there is no error.
pub async fn read(
    cluster: &Cluster,
    client: &Client,
    seen: &Observed,
    ordinal: Ordinal,
) -> Result<LiveFacts, LiveError> {
    // Without a Node of its name, the ordinal may have one of another.
    let nameless = !seen.nodes.contains_key(&ordinal);
    let limit = if nameless { LIMIT_WITH_NODES } else { LIMIT };
    let all = async {
        let mut facts = read_all(cluster, client, seen, ordinal).await?;
        if nameless {
            facts.unclaimed = Some(Arc::new(
                unclaimed_nodes(client, seen, ordinal, cluster.clock.now()).await?,
            ));
        }
        Ok::<_, LiveError>(facts)
    };
    timeout(limit, all)
        .await
        .map_err(|_| LiveError::TimedOut(limit))?
}

/// Virtual nodes that bear no name of a pool's node, with the number of pods on each. Read from the store, the Nodes first.
async fn unclaimed_nodes(
    client: &Client,
    seen: &Observed,
    ordinal: Ordinal,
    now: Timestamp,
) -> Result<Vec<UnclaimedNode>, LiveError> {
    let mut found = Vec::new();
    for mut node in all_nodes(client).await? {
        // A Node that does not look like a virtual one is asked no further, so that each of thousands costs nothing.
        if !unclaimed(seen, &node) {
            continue;
        }
        let leases: Api<Lease> = Api::namespaced(client.clone(), KUBE_NODE_LEASE);
        let lease = leases
            .get_opt(&node.name)
            .await
            .map_err(api("the Node's Lease"))?;
        if let Some(spec) = lease.and_then(|l| l.spec) {
            node.beat = node.beat.max(spec.renew_time.map(|t| t.0));
            node.lease_holder = spec.holder_identity;
        }
        let pods: Api<Read<SlimPod>> = Api::all(client.clone());
        let params = ListParams::default()
            .fields(&format!("spec.nodeName={}", node.name))
            .limit(PAGE);
        let page = pods.list(&params).await.map_err(api("the pods of the Node"))?;
        if page.types.kind != "PodList" {
            return Err(LiveError::NotPods {
                node: node.name,
                kind: page.types.kind,
            });
        }
        let more = page.metadata.continue_.is_some_and(|t| !t.is_empty());
        let pods = page.items.into_iter().map(|p| p.or_worst(SlimPod::worst));
        let pods = pods.filter(|p| !p.bound.mirror).count();
        let elsewhere = elsewhere(seen, ordinal, &node, now);
        found.push(UnclaimedNode {
            node,
            pods,
            more,
            elsewhere,
        });
    }
    Ok(found)
}

async fn all_nodes(client: &Client) -> Result<Vec<NodeTrace>, LiveError> {
    let nodes: Api<Read<SlimNode>> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = nodes.list(&params).await.map_err(api("the Nodes"))?;
        if page.metadata.resource_version.is_none_or(|v| v.is_empty()) || page.types.kind != "NodeList" {
            return Err(LiveError::NoNodes(IncompleteList::NoResourceVersion));
        }
        let read = page.items.into_iter().map(|n| n.or_worst(SlimNode::worst));
        all.extend(read.map(SlimNode::trace));
        match page.metadata.continue_.filter(|t| !t.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

async fn read_all(
    cluster: &Cluster,
    client: &Client,
    seen: &Observed,
    ordinal: Ordinal,
) -> Result<LiveFacts, LiveError> {
    let provider = scope::provider(&seen.pool).ok_or(LiveError::NoWorkload)?;
    let name = seen.node_name(ordinal);
    // What counts is the time before the question: everything after it may be in the answer or not.
    let asked_at = cluster.clock.now();
    let list = list(client, &name, asked_at).await?;

    let pools: Api<VirtualNodePool> = Api::all(client.clone());
    let workloads: Api<RawWorkload> = Api::namespaced(client.clone(), &provider.namespace);
    let nodes: Api<Read<SlimNode>> = Api::all(client.clone());
    let pods: Api<Read<SlimPod>> = Api::namespaced(client.clone(), &provider.namespace);
    let (pool, workload, node, pod) = futures::join!(
        pools.get_opt(seen.pool_name()),
        workloads.get_opt(&provider.name),
        nodes.get_opt(&name),
        pods.get_opt(&name),
    );
    let pool = pool.map_err(api("the pool"))?.ok_or(LiveError::PoolGone)?;
    if pool.metadata.uid.as_deref() != Some(seen.pool_uid()) {
        return Err(LiveError::PoolGone);
    }
    let workload = workload.map_err(api("the workload"))?;
    let node = node.map_err(api("the Node"))?;
    let pod = pod.map_err(api("the provider pod"))?;
    let node = node.map(|node| {
        let node = node.or_worst(SlimNode::worst);
        if let Some(stamp) = node.status_beat {
            cluster
                .heartbeats
                .note(&name, Sign::Status, stamp, cluster.clock.read());
        }
        let version = node.metadata.resource_version.as_deref().unwrap_or_default();
        Arc::new(cluster.node(&node.view, version))
    });
    Ok(LiveFacts {
        list,
        pool: Arc::new(pool),
        workload: workload.map(|w| Arc::new(Workload::new(w.raw))),
        node,
        provider_pod: pod.map(|pod| Arc::new(pod.or_worst(SlimPod::worst).provider())),
        unclaimed: None,
    })
}

/// Lists the pods of a node from the store: no resourceVersion, so no cache may answer, and no limit, so it is one page.
async fn list(client: &Client, node: &str, asked_at: Timestamp) -> Result<QuorumList, LiveError> {
    let pods: Api<Read<SlimPod>> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let answer = pods.list(&params).await.map_err(api("the pods of the node"))?;
    if answer.types.kind != "PodList" {
        return Err(LiveError::NotPods {
            node: node.to_owned(),
            kind: answer.types.kind,
        });
    }
    let items = answer.items.into_iter();
    let answer = ListAnswer {
        resource_version: answer.metadata.resource_version,
        continue_token: answer.metadata.continue_,
        pods: items.map(|pod| pod.or_worst(SlimPod::worst).bound).collect(),
    };
    complete(asked_at, answer).map_err(|source| LiveError::Incomplete {
        node: node.to_owned(),
        source,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that the lint reserves it for"
)]
fn complete(asked_at: Timestamp, answer: ListAnswer) -> Result<QuorumList, IncompleteList> {
    QuorumList::complete(asked_at, answer)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A client that answers every request with this, and the URIs asked for.
    fn client(answer: Value) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            log.lock().unwrap().push(request.uri().to_string());
            let body = answer.to_string().into_bytes();
            async move { Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::from(body))) }
        });
        (Client::new(service, "default"), asked)
    }

    fn pod_list(metadata: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": [
            {"metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "spec": {"nodeName": "v-1"}}]})
    }

    #[tokio::test]
    async fn the_list_is_asked_of_the_store_in_one_page() {
        let (client, asked) = client(pod_list(json!({"resourceVersion": "5"})));
        let list = list(&client, "v-1", Timestamp::now()).await.unwrap();
        assert_eq!(list.holding().count(), 1);
        let asked = asked.lock().unwrap();
        assert!(
            asked[0].contains("fieldSelector=spec.nodeName%3Dv-1"),
            "{asked:?}"
        );
        assert!(
            !asked[0].contains("resourceVersion") && !asked[0].contains("limit"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_read_holds_its_node() {
        let (client, _) = client(
            json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [
            {"metadata": {"name": "p", "namespace": "shop", "uid": "u", "deletionTimestamp": "9999-12-31T23:59:59Z"},
             "spec": {"nodeName": "v-1"}, "status": {"phase": "Succeeded"}}]}),
        );
        let list = list(&client, "v-1", Timestamp::now()).await.unwrap();
        let held: Vec<_> = list
            .holding()
            .map(|p| (p.key.to_string(), p.unreadable))
            .collect();
        assert_eq!(held, [("shop/p".to_owned(), true)]);
    }

    #[tokio::test]
    async fn half_a_list_is_none() {
        for metadata in [json!({"resourceVersion": "5", "continue": "x"}), json!({})] {
            let (client, _) = client(pod_list(metadata));
            assert!(matches!(
                list(&client, "v-1", Timestamp::now()).await,
                Err(LiveError::Incomplete { .. })
            ));
        }
    }

    #[tokio::test]
    async fn what_is_no_list_of_pods_shows_no_emptiness() {
        for answer in [
            json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": []}),
            json!({"metadata": {"resourceVersion": "5"}, "items": []}),
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}}),
        ] {
            let (client, _) = client(answer.clone());
            assert!(list(&client, "v-1", Timestamp::now()).await.is_err(), "{answer}");
        }
    }

    /// A client that answers one after the other.
    fn in_turn(answers: Vec<Value>) -> Client {
        let left = Arc::new(Mutex::new(answers.into_iter()));
        let service = tower::service_fn(move |_: axum::http::Request<Body>| {
            let answer = left.lock().unwrap().next().unwrap();
            async move {
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(axum::http::Response::new(body))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn all_nodes_are_read_page_by_page_or_none() {
        let page = |kind: &str, metadata: Value, name: &str| json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": [{"metadata": {"name": name}}]});
        let first = || page("NodeList", json!({"resourceVersion": "5", "continue": "x"}), "a");
        let last = page("NodeList", json!({"resourceVersion": "5"}), "b");
        let nodes = all_nodes(&in_turn(vec![first(), last])).await.unwrap();
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        for second in [
            page("NodeList", json!({}), "b"),
            page("PodList", json!({"resourceVersion": "5"}), "b"),
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "x"}),
        ] {
            assert!(
                all_nodes(&in_turn(vec![first(), second.clone()])).await.is_err(),
                "{second}"
            );
        }
    }
}
