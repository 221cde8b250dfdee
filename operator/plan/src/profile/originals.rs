//! What the profile held before it was ours, kept in an annotation of the ConfigMap itself so that it is written in the
//! same patch as the change and lives exactly as long.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vnp_crds::ADOPTED_VALUES_ANNOTATION;

/// Original values by key; `None` stands for a key that was absent. A key in here is one that we wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Originals {
    #[serde(default)]
    pub(super) data: BTreeMap<String, Option<String>>,
    /// Single gates of the key `featureGates`, which has other owners too. Their values keep the blanks around them.
    #[serde(default, rename = "featureGates", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) gates: BTreeMap<String, Option<String>>,
    /// Names of the entries of the key `selectors` that we wrote; entries without their name here are somebody else's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) selectors: BTreeSet<String>,
    /// Whatever another version of the operator keeps here.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Originals {
    /// Reads the annotation; absent is empty.
    ///
    /// # Errors
    /// The annotation's text is not what we write. Nothing may be written then: what is recorded there would be lost.
    pub(super) fn of(config_map: &ConfigMap) -> Result<Self, serde_json::Error> {
        let annotations = config_map.metadata.annotations.as_ref();
        let text = annotations.and_then(|a| a.get(ADOPTED_VALUES_ANNOTATION));
        text.map_or_else(|| Ok(Self::default()), |t| serde_json::from_str(t))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.gates.is_empty() && self.selectors.is_empty() && self.rest.is_empty()
    }

    /// The annotation's value, `None` when there is nothing to keep.
    pub(super) fn text(&self) -> Option<String> {
        (!self.is_empty()).then(|| serde_json::json!(self).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(text: &str) -> ConfigMap {
        let mut cm = ConfigMap::default();
        cm.metadata.annotations = Some([(ADOPTED_VALUES_ANNOTATION.to_owned(), text.to_owned())].into());
        cm
    }

    #[test]
    fn the_text_is_stable_and_sorted() {
        let mut originals = Originals::default();
        assert_eq!(originals.text(), None);
        originals.data.insert("vpcId".into(), None);
        originals.data.insert("vSwitchIds".into(), Some("a, b".into()));
        assert_eq!(
            originals.text().unwrap(),
            r#"{"data":{"vSwitchIds":"a, b","vpcId":null}}"#
        );
        originals.gates.insert("G".into(), Some(" False".into()));
        let text = originals.text().unwrap();
        assert_eq!(
            text,
            r#"{"data":{"vSwitchIds":"a, b","vpcId":null},"featureGates":{"G":" False"}}"#
        );
        assert_eq!(Originals::of(&config_map(&text)).unwrap(), originals);
    }

    #[test]
    fn what_another_version_keeps_is_kept() {
        let text = r#"{"data":{},"selectors":["x"],"taints":["y"]}"#;
        assert_eq!(Originals::of(&config_map(text)).unwrap().text().unwrap(), text);
    }

    #[test]
    fn a_broken_text_is_an_error_and_not_empty() {
        for text in ["", "{", "[]", r#"{"data":{"a":1}}"#] {
            assert!(Originals::of(&config_map(text)).is_err(), "{text:?}");
        }
        assert_eq!(
            Originals::of(&ConfigMap::default()).unwrap(),
            Originals::default()
        );
    }
}
