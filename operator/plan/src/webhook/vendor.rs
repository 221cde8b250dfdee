//! The vendor's own webhook (`placement.webhook: Vendor`). It is looked at and never changed: the provider keeps its
//! configuration itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use vnp_crds::WebhookMode;

use crate::finding::WebhookFault;
use crate::observed::{ObjectKey, Observed};
use crate::profile::last_write;
use crate::selection::{self, Reach};

/// What the configuration of ACK Virtual Node is called. Source: ACK documentation, "Configure an eci-profile", which
/// also says that the selectors of the profile show in it.
const CURRENT: &str = "vk-webhook";
/// The admission controller that came before it. It decides by itself, without selectors. Its Deployment is documented
/// under this name, and its chart is taken to call the configuration the same.
const LEGACY: &str = "ack-virtual-node-affinity-admission-controller";
/// The configurations under which it is looked for, the first one first.
pub const CONFIGURATIONS: [&str; 2] = [CURRENT, LEGACY];
/// The key of a profile that holds selectors.
const SELECTORS: &str = "selectors";
/// How long the provider takes to take selectors over, at most. A generous guess: the vendor says no number.
const TAKEN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// The vendor's webhook as it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum VendorSeen {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// A right is missing, in the API server's words.
    Forbidden(String),
    /// There is none.
    Absent,
    /// There is one.
    Installed(Installed),
}

/// An installed one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    /// Name of the MutatingWebhookConfiguration.
    pub name: String,
    /// Its entries.
    pub entries: Vec<MutatingWebhook>,
    /// The Services of these that have a ready endpoint.
    pub ready: BTreeSet<ObjectKey>,
}

impl Installed {
    /// The Services that its entries name.
    pub fn services(&self) -> BTreeSet<ObjectKey> {
        let services = self
            .entries
            .iter()
            .filter_map(|e| e.client_config.service.as_ref());
        let key = |s: &k8s_openapi::api::admissionregistration::v1::ServiceReference| ObjectKey {
            namespace: s.namespace.clone(),
            name: s.name.clone(),
        };
        services.map(key).collect()
    }

    fn trouble(&self) -> Option<String> {
        let name = &self.name;
        if self.entries.is_empty() {
            return Some(format!(
                "MutatingWebhookConfiguration {name} has no entry, so the API server asks about no pod: restart the provider, \
                 which writes it"
            ));
        }
        let bare = self.entries.iter().filter(|e| {
            let bundle = e.client_config.ca_bundle.as_ref();
            bundle.is_none_or(|bundle| bundle.0.is_empty())
        });
        let bare: BTreeSet<&str> = bare.map(|e| e.name.as_str()).collect();
        if !bare.is_empty() {
            return Some(format!(
                "MutatingWebhookConfiguration {name} has no caBundle in {}, so the API server trusts nobody there and pods stay as \
                 they are: restart the provider, which writes it",
                list(bare)
            ));
        }
        let services = self.services();
        let dead: BTreeSet<String> = services
            .difference(&self.ready)
            .map(|key| format!("{}/{}", key.namespace, key.name))
            .collect();
        (!dead.is_empty()).then(|| {
            format!(
                "Service {}, which MutatingWebhookConfiguration {name} names, has no ready endpoint, so pods stay as they are: \
                 look at the pods behind it",
                list(dead.iter().map(String::as_str))
            )
        })
    }

    /// Whether an entry asks about no other pods than `wanted` means, as the provider makes one of each selector.
    fn shows(&self, wanted: &Reach) -> bool {
        let read = |selector: &Option<LabelSelector>| selection::read(&selector.clone().unwrap_or_default());
        self.entries.iter().any(|entry| {
            let reach = (read(&entry.namespace_selector), read(&entry.object_selector));
            let (Ok(namespaces), Ok(pods)) = reach else {
                return false;
            };
            wanted.covers(&Reach { namespaces, pods })
        })
    }
}

/// A selector of a profile, but for its effect.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    #[serde(default)]
    name: String,
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
}

/// What is wrong with it, for a pool that relies on it.
pub(super) fn fault(seen: &Observed, now: Timestamp) -> Option<(WebhookFault, String)> {
    let unavailable = |message| Some((WebhookFault::Unanswered, message));
    let installed = match &seen.vendor_webhook {
        VendorSeen::Unknown => {
            let message = "the vendor's webhook is not looked at yet".to_owned();
            return Some((WebhookFault::Unknown, message));
        }
        VendorSeen::Forbidden(why) => {
            return unavailable(format!(
                "whether the vendor's webhook works is not known: {why}; add config/components/vendor-webhook to the \
                 kustomization"
            ));
        }
        VendorSeen::Absent => {
            return unavailable(format!(
                "there is no MutatingWebhookConfiguration {CURRENT} and no {LEGACY}, so no pod is placed: install the webhook of ACK \
                 Virtual Node, or set spec.placement.webhook to Operator"
            ));
        }
        VendorSeen::Installed(installed) => installed,
    };
    if let Some(trouble) = installed.trouble() {
        return unavailable(trouble);
    }
    let missing = missing(seen, installed);
    let names = list(missing.keys().map(String::as_str));
    let last = missing.values().max()?;
    Some(if now < *last {
        let message =
            format!("MutatingWebhookConfiguration {CURRENT} does not show the selectors {names} yet");
        (WebhookFault::Untold, message)
    } else {
        let message = format!(
            "MutatingWebhookConfiguration {CURRENT} does not show the selectors {names} a minute after they were written, so \
             the provider did not take them: look at the events of the profile and at the provider's log"
        );
        (WebhookFault::Pending, message)
    })
}

/// When time alone makes a fault of what is missing.
pub fn selectors_due(seen: &Observed, now: Timestamp) -> Option<Timestamp> {
    let VendorSeen::Installed(installed) = &seen.vendor_webhook else {
        return None;
    };
    if seen.deleting() || seen.pool.spec.webhook() != WebhookMode::Vendor {
        return None;
    }
    missing(seen, installed)
        .into_values()
        .filter(|due| now < *due)
        .max()
}

/// The selectors of this pool that are in a profile and don't show, each with the time until which that is in order.
fn missing(seen: &Observed, installed: &Installed) -> BTreeMap<String, Timestamp> {
    let mut missing = BTreeMap::new();
    if installed.name == LEGACY {
        return missing;
    }
    for profile in [&seen.profile, &seen.acs_profile].into_iter().flatten() {
        let written = last_write(profile, SELECTORS).unwrap_or(Timestamp::MIN);
        let due = written.checked_add(TAKEN_WITHIN).unwrap_or(Timestamp::MAX);
        for selector in selectors(profile) {
            let ours = selector
                .name
                .rsplit_once('.')
                .is_some_and(|(pool, _)| pool == seen.pool_name());
            let shows = || selector.reach().is_none_or(|reach| installed.shows(&reach));
            if ours && !shows() {
                missing.insert(selector.name.clone(), due);
            }
        }
    }
    missing
}

/// What is no list is told by ProfileSynced.
fn selectors(profile: &ConfigMap) -> Vec<Selector> {
    let text = profile.data.as_ref().and_then(|data| data.get(SELECTORS));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

impl Selector {
    /// `None` when it is none that anybody could take over, which ProfileSynced tells.
    fn reach(&self) -> Option<Reach> {
        let read =
            |selector: &Option<LabelSelector>| selection::read(&selector.clone().unwrap_or_default()).ok();
        Some(Reach {
            namespaces: read(&self.namespace_selector)?,
            pods: read(&self.object_selector)?,
        })
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{after, now, observed, pool};

    const WRITTEN: i64 = -30;

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "kube-system".into(),
            name: "vk-webhook".into(),
        }
    }

    fn entry(overlay: Value) -> Value {
        let mut entry = json!({
            "name": "a.vk.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"caBundle": "QQ==", "service": {"namespace": "kube-system", "name": "vk-webhook"}},
            "namespaceSelector": {"matchLabels": {"team": "batch"}},
            "objectSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["report"]}]},
        });
        json_patch::merge(&mut entry, &overlay);
        entry
    }

    fn installed(entries: Value) -> Installed {
        Installed {
            name: CURRENT.into(),
            entries: serde_json::from_value(entries).unwrap(),
            ready: [key()].into(),
        }
    }

    /// A pool that relies on the vendor, with one selector in the profile.
    fn seen(vendor: VendorSeen) -> Observed {
        let mut seen = observed(pool(json!({ "placement": { "webhook": "Vendor" } })), 1);
        let selectors = json!([
            {"name": "burst.a", "namespaceSelector": {"matchLabels": {"team": "batch"}},
             "objectSelector": {"matchLabels": {"app": "report"}}},
            {"name": "somebody-else", "objectSelector": {"matchLabels": {"x": "y"}}},
            {"name": "other.a", "objectSelector": {"matchLabels": {"x": "y"}}},
        ]);
        let profile = json!({
            "metadata": {"name": "eci-profile", "managedFields": [
                {"manager": "a", "time": after(WRITTEN).to_string(), "fieldsV1": {"f:data": {"f:selectors": {}}}},
                {"manager": "b", "time": after(0).to_string(), "fieldsV1": {"f:data": {"f:other": {}}}},
            ]},
            "data": {"selectors": selectors.to_string()},
        });
        seen.profile = Some(Arc::new(serde_json::from_value(profile).unwrap()));
        seen.vendor_webhook = vendor;
        seen
    }

    fn told(vendor: VendorSeen) -> Option<(WebhookFault, String)> {
        fault(&seen(vendor), after(60))
    }

    #[test]
    fn nothing_is_said_of_one_that_works() {
        let whole = installed(json!([entry(json!({}))]));
        assert_eq!(told(VendorSeen::Installed(whole.clone())), None);
        let narrower = json!({"namespaceSelector": {"matchLabels": {"zone": "a"}}});
        assert_eq!(
            told(VendorSeen::Installed(installed(json!([entry(narrower)])))),
            None
        );
        let by_url = json!({"clientConfig": {"service": null, "url": "https://10.0.0.1/inject"}});
        let by_url = Installed {
            ready: BTreeSet::new(),
            ..installed(json!([entry(by_url)]))
        };
        assert_eq!(told(VendorSeen::Installed(by_url)), None);
        let legacy = Installed {
            name: LEGACY.into(),
            ..installed(json!([entry(
                json!({"objectSelector": null, "namespaceSelector": null})
            )]))
        };
        assert_eq!(told(VendorSeen::Installed(legacy)), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = || installed(json!([entry(json!({}))]));
        let unready = Installed {
            ready: BTreeSet::new(),
            ..whole()
        };
        let no_bundle =
            |bundle: Value| installed(json!([entry(json!({"clientConfig": {"caBundle": bundle}}))]));
        for (vendor, word) in [
            (VendorSeen::Absent, "no MutatingWebhookConfiguration vk-webhook"),
            (
                VendorSeen::Forbidden("can't".into()),
                "config/components/vendor-webhook",
            ),
            (VendorSeen::Installed(installed(json!([]))), "has no entry"),
            (
                VendorSeen::Installed(no_bundle(Value::Null)),
                "no caBundle in a.vk.example",
            ),
            (
                VendorSeen::Installed(no_bundle(json!(""))),
                "no caBundle in a.vk.example",
            ),
            (VendorSeen::Installed(unready), "Service kube-system/vk-webhook"),
        ] {
            let (fault, message) = told(vendor).unwrap();
            assert_eq!(fault, WebhookFault::Unanswered, "{message}");
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_selector_has_a_minute_to_show() {
        for narrow in [
            json!({"objectSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
            json!({"namespaceSelector": null}),
        ] {
            let seen = seen(VendorSeen::Installed(installed(json!([entry(narrow)]))));
            let due = after(WRITTEN + 60);
            assert_eq!(selectors_due(&seen, now()), Some(due));
            // That was seen, so nothing that was found before holds instead.
            assert_eq!(fault(&seen, now()).unwrap().0, WebhookFault::Untold);
            let (kind, message) = fault(&seen, due).unwrap();
            assert_eq!(kind, WebhookFault::Pending);
            assert!(message.contains("selectors burst.a a minute"), "{message}");
            assert_eq!(selectors_due(&seen, due), None);
        }
    }
}
