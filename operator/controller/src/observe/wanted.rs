//! How many pods a StatefulSet wants, by its scale subresource. Only asked while a pod of it is missing whose return the
//! others wait for: it may have been scaled away instead, and then it never returns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};
use vnp_plan::observed::{Members, ObjectKey, PodOwner, Wanted, missing};

use super::cluster::Cluster;

/// Pauses between two looks; a pod that comes back within one is never asked about.
const LOOK: Duration = Duration::from_secs(5);
/// An answer is good for so long, and a question is asked for so long after a pass wanted to know.
const FRESH: Duration = Duration::from_secs(15);

/// StatefulSets with a pod that is missing, by UID.
#[derive(Debug, Default)]
pub struct WantedCounts(Mutex<BTreeMap<String, Row>>);

#[derive(Debug)]
struct Row {
    set: ObjectKey,
    api_version: String,
    /// When a pass wanted to know it last.
    asked: Instant,
    told: Option<(Wanted, Instant)>,
}

impl WantedCounts {
    /// What is known of the StatefulSet, when a pod of it is missing. It is asked for from then on, and news wake.
    pub fn of(&self, owner: &PodOwner, namespace: &str, members: &Members) -> Option<Wanted> {
        if !missing(members) {
            return None;
        }
        let now = Instant::now();
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry(owner.uid.clone()).or_insert_with(|| Row {
            set: ObjectKey {
                namespace: namespace.to_owned(),
                name: owner.name.clone(),
            },
            api_version: owner.api_version.clone(),
            asked: now,
            told: None,
        });
        row.asked = now;
        let fresh = row
            .told
            .as_ref()
            .filter(|(_, at)| now.duration_since(*at) < FRESH);
        fresh.map(|(wanted, _)| wanted.clone())
    }

    /// What to ask for.
    fn due(&self) -> Vec<(String, ObjectKey, String)> {
        let now = Instant::now();
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, row| now.duration_since(row.asked) < FRESH);
        let due = rows.iter();
        due.map(|(uid, row)| (uid.clone(), row.set.clone(), row.api_version.clone()))
            .collect()
    }

    /// Takes over an answer. True when it says something new.
    fn learn(&self, uid: &str, wanted: Wanted) -> bool {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = rows.get_mut(uid) else {
            return false;
        };
        let before = row.told.replace((wanted.clone(), Instant::now()));
        before.map(|(wanted, _)| wanted) != Some(wanted)
    }
}

/// The kinds of StatefulSets whose scale the operator may read, as its ClusterRole says.
const GROUPS: [&str; 2] = ["apps", "apps.kruise.io"];

async fn ask(client: &Client, uid: &str, set: &ObjectKey, api_version: &str) -> Wanted {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    if !GROUPS.contains(&group) || !plain(version) || !plain(&set.name) {
        return Wanted::Unknown {
            error: format!("the scale of StatefulSets of {api_version} is not read"),
        };
    }
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: "StatefulSet".to_owned(),
        plural: "statefulsets".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &set.namespace, &resource);
    read(api.get_scale(&set.name).await, uid, set)
}

fn read(answer: kube::Result<Scale>, uid: &str, set: &ObjectKey) -> Wanted {
    match answer {
        // One that was made anew under its name does not want the pods of the one before.
        Ok(scale) if scale.metadata.uid.as_deref().is_some_and(|u| u != uid) => Wanted::Pods(0),
        // A count of zero may be left out.
        Ok(scale) => Wanted::Pods(scale.spec.and_then(|s| s.replicas).unwrap_or(0)),
        // Without its name, it is the path that is not served.
        Err(kube::Error::Api(status))
            if status.code == 404 && status.details.as_ref().is_some_and(|d| d.name == set.name) =>
        {
            Wanted::Pods(0)
        }
        Err(kube::Error::Api(status)) => Wanted::Unknown {
            error: status.message.clone(),
        },
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, %set, "no scale");
            Wanted::Unknown {
                error: "no answer".to_owned(),
            }
        }
    }
}

/// Asks for ever.
pub async fn follow(client: Client, cluster: Arc<Cluster>) {
    loop {
        sleep(LOOK).await;
        let mut news = false;
        for (uid, set, api_version) in cluster.wanted.due() {
            let wanted = ask(&client, &uid, &set, &api_version).await;
            news |= cluster.wanted.learn(&uid, wanted);
        }
        if news {
            cluster.wake_draining();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vnp_plan::observed::{Member, MemberState};

    use super::*;

    fn set() -> ObjectKey {
        ObjectKey {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
        }
    }

    fn failure(code: u16, details: Value) -> kube::Error {
        let status = json!({"status": "Failure", "code": code, "message": "no", "details": details});
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn the_count_is_read_and_an_error_is_no_count() {
        let scale = |replicas: Value, uid: &str| -> Scale {
            serde_json::from_value(json!({"metadata": {"name": "db", "uid": uid}, "spec": replicas})).unwrap()
        };
        let unknown = || Wanted::Unknown {
            error: "no".to_owned(),
        };
        for (answer, wanted) in [
            (Ok(scale(json!({"replicas": 2}), "u")), Wanted::Pods(2)),
            (Ok(scale(json!({}), "u")), Wanted::Pods(0)),
            (Ok(scale(json!({"replicas": 2}), "another")), Wanted::Pods(0)),
            (
                Err(failure(404, json!({"name": "db", "kind": "statefulsets"}))),
                Wanted::Pods(0),
            ),
            (Err(failure(404, json!({}))), unknown()),
            (Err(failure(403, json!({"name": "db"}))), unknown()),
            (Err(failure(500, json!({"name": "db"}))), unknown()),
        ] {
            assert_eq!(read(answer, "u", &set()), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_for_while_a_pass_wants_it_and_an_old_answer_is_none() {
        let counts = WantedCounts::default();
        let owner = PodOwner {
            api_version: "apps/v1".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: "db".to_owned(),
            uid: "u".to_owned(),
        };
        let member = |state| {
            let member = Member {
                uid: "p".to_owned(),
                state,
                since: None,
            };
            Members::from([("db-2".to_owned(), member)])
        };
        let gone = member(MemberState::Gone { disrupted: true });
        assert_eq!(counts.of(&owner, "shop", &member(MemberState::Ready)), None);
        assert!(counts.due().is_empty(), "nothing is missing");
        assert_eq!(counts.of(&owner, "shop", &gone), None);
        let due = vec![("u".to_owned(), set(), "apps/v1".to_owned())];
        assert_eq!(counts.due(), due);
        assert!(counts.learn("u", Wanted::Pods(2)) && !counts.learn("u", Wanted::Pods(2)));
        assert_eq!(counts.of(&owner, "shop", &gone), Some(Wanted::Pods(2)));
        sleep(FRESH).await;
        assert_eq!(
            counts.of(&owner, "shop", &gone),
            None,
            "it may have been scaled since"
        );
        sleep(FRESH).await;
        assert!(counts.due().is_empty() && !counts.learn("u", Wanted::Pods(2)));
    }
}
