//! What kinds of controllers there are behind the pods of virtual nodes, and whether these are scaled, by the API server's
//! discovery: every client may read it. A kind is asked for when it is first met, and again now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use vnp_plan::observed::{ControllerKind, ControllerKinds, PodOwner, Scaling, remade_by_nature};

use super::cluster::Cluster;
use crate::runtime::jitter::spread;

const ASK_AGAIN: Duration = Duration::from_secs(10 * 60);
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Kinds that are asked for: anybody who may make pods may invent some.
const KINDS: usize = 256;

/// The kinds that were met.
#[derive(Debug, Default)]
pub struct Controllers {
    kinds: Mutex<Kinds>,
    met: Notify,
}

#[derive(Debug, Default)]
struct Kinds {
    /// Each with whether it was met since all of them were asked for last.
    met: BTreeMap<ControllerKind, bool>,
    told: Arc<ControllerKinds>,
}

/// What the API server says of one `apiVersion`; no list when it does not serve it.
type Answer = Result<Option<Vec<APIResource>>, String>;

impl Controllers {
    /// What is known of the kinds of these controllers. What is not is asked for, and the answer wakes.
    pub fn of<'a>(&self, owners: impl Iterator<Item = &'a PodOwner>) -> Arc<ControllerKinds> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = false;
        for owner in owners.filter(|o| remade_by_nature(o).is_none()) {
            let kind = ControllerKind::from(owner);
            if let Some(met) = kinds.met.get_mut(&kind) {
                *met = true;
            } else if kinds.met.len() < KINDS {
                kinds.met.insert(kind, true);
                new = true;
            } else {
                let error = format!("pods name more than {KINDS} kinds of controllers");
                Arc::make_mut(&mut kinds.told).insert(kind, Scaling::Unknown { error });
            }
        }
        if new {
            self.met.notify_one();
        }
        kinds.told.clone()
    }

    /// The versions to ask for: all of them, or those with a kind of which nothing is known.
    fn due(&self, all: bool) -> BTreeSet<String> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if all {
            kinds.met.retain(|_, met| std::mem::take(met));
            let Kinds { met, told } = &mut *kinds;
            Arc::make_mut(told).retain(|kind, _| met.contains_key(kind));
        }
        let unknown = |kind: &&ControllerKind| {
            all || !matches!(kinds.told.get(*kind), Some(Scaling::Scaled | Scaling::Fixed))
        };
        let due = kinds.met.keys().filter(unknown);
        due.map(|kind| kind.api_version.clone()).collect()
    }

    /// Takes over an answer about all kinds of a version that were met. True when it says something new.
    fn learn(&self, api_version: &str, answer: &Answer) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Kinds { met, told } = &mut *kinds;
        let before = told.clone();
        for kind in met.keys().filter(|k| k.api_version == api_version) {
            let scaling = match answer {
                Ok(Some(resources)) => scaling(resources, &kind.kind),
                Ok(None) => Scaling::Fixed,
                // What was told before still holds.
                Err(_) if matches!(told.get(kind), Some(Scaling::Scaled | Scaling::Fixed)) => continue,
                Err(error) => Scaling::Unknown { error: error.clone() },
            };
            if told.get(kind) != Some(&scaling) {
                Arc::make_mut(told).insert(kind.clone(), scaling);
            }
        }
        before != *told
    }
}

fn scaling(resources: &[APIResource], kind: &str) -> Scaling {
    let mut plurals = resources
        .iter()
        .filter(|r| r.kind == kind && !r.name.contains('/'))
        .map(|r| format!("{}/scale", r.name));
    if plurals.any(|scale| resources.iter().any(|r| r.name == scale)) {
        Scaling::Scaled
    } else {
        Scaling::Fixed
    }
}

/// Whether this can be the `apiVersion` of a custom kind. It becomes part of a URL, and who makes a pod chooses it.
fn well_formed(api_version: &str) -> bool {
    let plain = |part: &str| {
        let mut outer = part.bytes().next().into_iter().chain(part.bytes().next_back());
        !part.is_empty()
            && outer.all(|b| b.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    api_version
        .split_once('/')
        .is_some_and(|(group, version)| plain(group) && plain(version))
}

async fn ask(client: &Client, api_version: &str) -> Answer {
    if !well_formed(api_version) {
        return Ok(None);
    }
    match client.list_api_group_resources(api_version).await {
        Ok(list) => Ok(Some(list.resources)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) => Err(format!("{}: {}", status.code, status.message)),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                api_version,
                "no discovery"
            );
            Err("no answer".to_owned())
        }
    }
}

/// Asks for ever.
pub async fn follow(client: Client, cluster: Arc<Cluster>) {
    let mut all_at = Instant::now() + spread(ASK_AGAIN, 0.2);
    loop {
        let all = Instant::now() >= all_at;
        if all {
            all_at = Instant::now() + spread(ASK_AGAIN, 0.2);
        }
        let (mut news, mut failed) = (false, false);
        for api_version in cluster.controllers.due(all) {
            let answer = ask(&client, &api_version).await;
            failed |= answer.is_err();
            news |= cluster.controllers.learn(&api_version, &answer);
        }
        if news {
            cluster.wake_all();
        }
        let next = if failed {
            all_at.min(Instant::now() + spread(AFTER_FAILURE, 0.2))
        } else {
            all_at
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = cluster.controllers.met.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const VERSION: &str = "game.example/v1";

    fn owner(api_version: &str, kind: &str) -> PodOwner {
        PodOwner {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            ..PodOwner::default()
        }
    }

    fn resources(names: &[(&str, &str)]) -> Vec<APIResource> {
        let one = |(name, kind): &(&str, &str)| -> Value {
            json!({"name": name, "kind": kind, "namespaced": true, "singularName": "", "verbs": []})
        };
        serde_json::from_value(names.iter().map(one).collect()).unwrap()
    }

    fn told(controllers: &Controllers, kind: &str) -> Option<Scaling> {
        let owner = owner(VERSION, kind);
        let known = controllers.of(std::iter::once(&owner));
        known.get(&ControllerKind::from(&owner)).cloned()
    }

    #[test]
    fn a_kind_is_scaled_when_its_own_resource_has_the_subresource() {
        let list = resources(&[
            ("fleets", "Fleet"),
            ("fleets/status", "Fleet"),
            ("fleets/scale", "Scale"),
            ("runners", "Runner"),
            ("runners/status", "Runner"),
        ]);
        assert_eq!(scaling(&list, "Fleet"), Scaling::Scaled);
        assert_eq!(scaling(&list, "Runner"), Scaling::Fixed);
        assert_eq!(scaling(&list, "Scale"), Scaling::Fixed);
        assert_eq!(scaling(&list, "Gone"), Scaling::Fixed);
    }

    #[test]
    fn an_error_is_neither_yes_nor_no_and_forgets_no_answer() {
        let controllers = Controllers::default();
        assert_eq!(told(&controllers, "Fleet"), None);
        assert_eq!(controllers.due(false), BTreeSet::from([VERSION.to_owned()]));
        let error = || Err("503: no".to_owned());
        assert!(controllers.learn(VERSION, &error()) && !controllers.learn(VERSION, &error()));
        let unknown = Scaling::Unknown {
            error: "503: no".to_owned(),
        };
        assert_eq!(told(&controllers, "Fleet"), Some(unknown));
        assert_eq!(controllers.due(false).len(), 1, "it is asked for again");
        assert!(controllers.learn(
            VERSION,
            &Ok(Some(resources(&[("fleets", "Fleet"), ("fleets/scale", "Scale")])))
        ));
        assert_eq!(controllers.due(false).len(), 0);
        assert!(!controllers.learn(VERSION, &error()));
        assert_eq!(told(&controllers, "Fleet"), Some(Scaling::Scaled));
        // Another kind of the same version is new, and the whole version is read again.
        assert_eq!(told(&controllers, "Runner"), None);
        assert_eq!(controllers.due(false).len(), 1);
        // Its definition was removed.
        assert!(controllers.learn(VERSION, &Ok(None)));
        assert_eq!(told(&controllers, "Fleet"), Some(Scaling::Fixed));
    }

    #[test]
    fn kinds_that_nobody_has_any_more_are_forgotten_and_too_many_are_not_known() {
        let controllers = Controllers::default();
        told(&controllers, "Fleet");
        assert_eq!(controllers.due(true).len(), 1);
        assert_eq!(controllers.due(true).len(), 0, "nobody met it in between");
        for n in 0..KINDS {
            assert_eq!(told(&controllers, &format!("K{n}")), None);
        }
        assert!(matches!(
            told(&controllers, "Fleet"),
            Some(Scaling::Unknown { .. })
        ));
        assert_eq!(told(&controllers, "K0"), None);
    }

    #[test]
    fn known_makers_are_not_asked_for() {
        let controllers = Controllers::default();
        controllers.of([owner("apps/v1", "ReplicaSet"), owner("v1", "Pod")].iter());
        assert!(controllers.due(false).is_empty());
    }

    #[tokio::test]
    async fn discovery_is_read_for_what_can_be_a_version_and_404_is_an_answer() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let (code, body) = match path.as_str() {
                "/apis/game.example/v1" => (
                    200,
                    json!({"kind": "APIResourceList", "groupVersion": VERSION, "resources": [
                    {"name": "fleets", "kind": "Fleet", "namespaced": true, "singularName": "", "verbs": []}]}),
                ),
                "/apis/gone.example/v1" => (
                    404,
                    json!({"kind": "Status", "code": 404, "message": "404 page not found"}),
                ),
                _ => (
                    503,
                    json!({"kind": "Status", "code": 503, "message": "overloaded"}),
                ),
            };
            log.lock().unwrap().push(path);
            async move {
                let body = kube::client::Body::from(body.to_string().into_bytes());
                let response = axum::http::Response::builder().status(code).body(body);
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        let client = Client::new(service, "default");
        let names = |answer: Answer| {
            answer.map(|list| list.map(|r| r.into_iter().map(|r| r.name).collect::<Vec<_>>()))
        };
        assert_eq!(
            names(ask(&client, VERSION).await),
            Ok(Some(vec!["fleets".to_owned()]))
        );
        assert_eq!(names(ask(&client, "gone.example/v1").await), Ok(None));
        assert_eq!(
            names(ask(&client, "sick.example/v1").await),
            Err("503: overloaded".to_owned())
        );
        for odd in ["v1", "a/b/c", "../v1", "a/..", "a?x/v1", "", "a/", "a b/v1"] {
            assert_eq!(names(ask(&client, odd).await), Ok(None), "{odd}");
        }
        assert_eq!(asked.lock().unwrap().len(), 3, "{asked:?}");
    }
}
