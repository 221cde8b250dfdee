//! The two kinds of writes that reporting makes: the status of a pool, and events about it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{
    Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::json;
use vnp_crds::{Reason, VirtualNodePool, VirtualNodePoolStatus};
use vnp_plan::refuser::Refuser;

use super::told::{News, event_name};
use super::unseen;
use super::wording::cut;
use crate::observe::sight::Unseen;
use crate::runtime::lease::{Claim, LeaseLost};

/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Events about cluster-scoped objects live here; the API server takes them nowhere else.
const EVENT_NAMESPACE: &str = "default";
/// Longest note of an event, in bytes, by the rules of events.k8s.io/v1.
const NOTE_LIMIT: usize = 1024;

/// Why the status was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Another replica leads, or may lead.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// The API server did not answer.
    #[error("the API server did not answer a status write within {} seconds; it is tried again", WRITE_TIMEOUT.as_secs())]
    TimedOut,
    /// The API server refused it.
    #[error("the status of the pool could not be written; it is tried again")]
    Refused(#[source] kube::Error),
}

/// How a status write ended, errors aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Taken; the pool's resourceVersion since then.
    Yes(Option<String>),
    /// The pool is not what it was when it was observed. It will be observed again.
    Moved,
    /// There is no such pool any more.
    Gone,
}

/// Server-side apply of the status: fields that are not in it any more go, conditions of others stay. It carries the
/// resourceVersion of the pool observed, so neither a newer status nor a pool that was created again under the same name
/// is overwritten: both have another one. The UID would not help, the status subresource does not look at it (seen).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusApply<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Precondition<'a>,
    status: &'a VirtualNodePoolStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Precondition<'a> {
    name: &'a str,
    resource_version: Option<&'a str>,
}

/// Writes for one process.
pub(super) struct Writer {
    client: Client,
    claim: Claim,
    /// Name of this process in events.
    instance: String,
}

impl Writer {
    pub(super) fn new(client: Client, claim: Claim, instance: String) -> Self {
        Self {
            client,
            claim,
            instance,
        }
    }

    /// Writes the status of the pool as observed.
    pub(super) async fn status(
        &self,
        pool: &VirtualNodePool,
        status: &VirtualNodePoolStatus,
    ) -> Result<Written, ReportError> {
        let meta = &pool.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let apply = StatusApply {
            api_version: vnp_crds::API_VERSION,
            kind: vnp_crds::KIND,
            metadata: Precondition {
                name,
                resource_version: meta.resource_version.as_deref(),
            },
            status,
        };
        let params = PatchParams {
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(vnp_crds::FIELD_MANAGER).force()
        };
        let pools: Api<VirtualNodePool> = Api::all(self.client.clone());
        self.claim.check()?;
        let patch = Patch::Apply(&apply);
        let answer = tokio::time::timeout(WRITE_TIMEOUT, pools.patch_status(name, &params, &patch)).await;
        match answer.map_err(|_| ReportError::TimedOut)? {
            Ok(pool) => Ok(Written::Yes(pool.metadata.resource_version)),
            // Whoever refuses at admission chooses the code: 404 is not "gone" then, and 409 no lost race.
            Err(kube::Error::Api(status)) if Refuser::of(&status.message).is_some() => {
                Err(ReportError::Refused(kube::Error::Api(status)))
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Written::Gone),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Written::Moved),
            Err(error) => Err(ReportError::Refused(error)),
        }
    }

    /// Says in the status of a pool that no pass reports on what there is to say. False when it could not be said, which
    /// stops nothing.
    pub(super) async fn unseen(&self, pool: &Unseen, now: Timestamp) -> bool {
        let Unseen {
            name,
            uid,
            reason,
            note,
        } = pool;
        let write = async {
            let kind = ApiResource::erase::<VirtualNodePool>(&());
            let pools: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
            let Some(pool) = pools
                .get_opt(name)
                .await?
                .filter(|p| p.metadata.uid.as_ref() == Some(uid))
            else {
                return Ok(());
            };
            let version = pool.metadata.resource_version.clone();
            let pool = serde_json::to_value(&pool).map_err(kube::Error::SerdeError)?;
            if *reason == Reason::InvalidSpec && VirtualNodePool::deserialize(&pool).is_ok() {
                // It was mended since it was looked at, and its passes report on it.
                return Ok(());
            }
            let Some(status) = unseen::status(&pool, *reason, note, now) else {
                return Ok(());
            };
            let apply = json!({
                "apiVersion": vnp_crds::API_VERSION, "kind": vnp_crds::KIND,
                "metadata": { "name": name, "resourceVersion": version }, "status": status,
            });
            // Another replica may lead by now.
            if self.claim.check().is_err() {
                return Ok(());
            }
            // Not strict: what stands there may be of a version that knows more fields than the CRD of now.
            let params = PatchParams::apply(vnp_crds::FIELD_MANAGER).force();
            pools
                .patch_status(name, &params, &Patch::Apply(&apply))
                .await
                .map(drop)
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(pool = name, %error, "the status of a pool that no pass reports on could not be written");
                false
            }
            Err(_) => {
                tracing::warn!(
                    pool = name,
                    "the status of a pool that no pass reports on could not be written in time"
                );
                false
            }
        }
    }

    /// Tells an event about the pool. False when it could not be told, which stops nothing.
    pub(super) async fn event(&self, pool: &VirtualNodePool, news: &News) -> bool {
        self.event_of(pool.object_ref(&()), news).await
    }

    /// The same about a pool of which no more is known than this.
    pub(super) async fn event_of(&self, pool: ObjectReference, news: &News) -> bool {
        if self.claim.check().is_err() {
            return false;
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), EVENT_NAMESPACE);
        let note = &news.note;
        let event = event(pool, news, &self.instance);
        let params = PostParams::default();
        match tokio::time::timeout(WRITE_TIMEOUT, events.create(&params, &event)).await {
            Ok(Ok(_)) => true,
            // Told within the last ten minutes, by this process or another.
            Ok(Err(kube::Error::Api(status)))
                if status.is_already_exists() && Refuser::of(&status.message).is_none() =>
            {
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(reason = %note.reason, %error, "an event could not be told");
                false
            }
            Err(_) => {
                tracing::warn!(reason = %note.reason, "an event could not be told in time");
                false
            }
        }
    }
}

fn event(pool: ObjectReference, news: &News, instance: &str) -> Event {
    let note = &news.note;
    let name = pool.name.as_deref().unwrap_or_default();
    let uid = pool.uid.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(event_name(name, uid, news)),
            namespace: Some(EVENT_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(news.at)),
        type_: Some(
            if note.reason.is_warning() {
                "Warning"
            } else {
                "Normal"
            }
            .to_owned(),
        ),
        reason: Some(note.reason.to_string()),
        // The API asks for an action; what happened is the reason already.
        action: Some(note.reason.to_string()),
        note: Some(cut(note.note.clone(), NOTE_LIMIT)),
        regarding: Some(pool),
        reporting_controller: Some(vnp_crds::FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use vnp_crds::EventReason;
    use vnp_plan::finding::EventNote;

    use super::*;
    use crate::report::testing::pool;

    #[test]
    fn a_status_names_the_version_it_is_made_from() {
        let pool = pool(json!({"metadata": {"resourceVersion": "41"}}));
        let status = VirtualNodePoolStatus {
            nodes: Some(2),
            ..VirtualNodePoolStatus::default()
        };
        let meta = &pool.metadata;
        let body = StatusApply {
            api_version: vnp_crds::API_VERSION,
            kind: vnp_crds::KIND,
            metadata: Precondition {
                name: "burst",
                resource_version: meta.resource_version.as_deref(),
            },
            status: &status,
        };
        let expected = json!({
            "apiVersion": "virtualnodes.dev/v1alpha1", "kind": "VirtualNodePool",
            "metadata": {"name": "burst", "resourceVersion": "41"}, "status": {"nodes": 2},
        });
        assert_eq!(serde_json::to_value(body).unwrap(), expected);
    }

    #[test]
    fn an_event_fits_what_the_api_takes() {
        let note = EventNote {
            reason: EventReason::DrainBlocked,
            subject: "BlockedByBudget shop/checkout".to_owned(),
            note: "ä".repeat(800),
        };
        let news = News {
            note,
            at: Timestamp::UNIX_EPOCH,
        };
        let event = event(pool(json!({})).object_ref(&()), &news, "operator-0");
        assert!(event.note.as_ref().unwrap().len() <= 1024);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(
            event.regarding.as_ref().unwrap().kind.as_deref(),
            Some("VirtualNodePool")
        );
        assert_eq!(
            event.regarding.as_ref().unwrap().uid.as_deref(),
            Some("uid-burst")
        );
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.as_ref().unwrap().starts_with("burst."));
    }
}
