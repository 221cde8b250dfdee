//! The pod by which the webhook is tried: created as a dry run, so that nothing is ever stored.

use serde_json::{Value, json};
use vnp_crds::{
    EXPLAIN_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, PLACED_BY_ANNOTATION, TRUE, WEBHOOK_DISABLED,
    WEBHOOK_LABEL, trigger_label,
};

use super::refusal::Refusal;

/// Image of the pod where the operator doesn't know its own. Nobody pulls it.
const NO_IMAGE: &str = "probe.invalid/never-pulled:v1";
/// How an admission warning of ours about what was added begins.
const EXPLAINED: &str = "virtualnodes.dev: ";

/// What came of the last dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probed {
    /// There was none yet.
    #[default]
    NotYet,
    /// The pod came back mutated.
    Mutated,
    /// It came back as it was sent.
    Unmutated,
    /// It was refused after the webhook had changed it.
    RefusedMutated {
        /// By whom.
        refusal: Refusal,
        /// What became of the same pod without anything of ours.
        plain: Plain,
    },
    /// It was refused by somebody who looks at pods when webhooks have changed them, and the webhook had not.
    RefusedUnmutated(Refusal),
    /// It was refused, and whether the webhook was asked at all is not known.
    Refused(Refusal),
    /// The API server did not answer.
    Unanswered(String),
}

/// What became of a pod that the webhook leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// It was taken: the other one was refused for what the webhook adds.
    Taken,
    /// It was refused as well.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Probed {
    /// The webhook was asked and answered.
    pub fn answers(&self) -> bool {
        matches!(self, Self::Mutated | Self::RefusedMutated { .. })
    }

    /// What an answer with a pod says.
    pub fn taken(pod: &Value) -> Self {
        // Changed by our webhook, and not by another one.
        if pod["metadata"]["annotations"][PLACED_BY_ANNOTATION].is_string() {
            Self::Mutated
        } else {
            Self::Unmutated
        }
    }

    /// What a refusal says. Admission warnings come with it: ours tell that the webhook had been asked.
    pub fn refused<'a>(refusal: Refusal, warnings: impl IntoIterator<Item = &'a str>) -> Self {
        if warnings.into_iter().any(is_ours) {
            Self::RefusedMutated {
                refusal,
                plain: Plain::Unknown,
            }
        } else if refusal.by.comes_after_webhooks() {
            Self::RefusedUnmutated(refusal)
        } else {
            Self::Refused(refusal)
        }
    }

    /// With what became of the pod that the webhook leaves alone; of use after [`Self::RefusedMutated`] only.
    pub fn compared(self, pod: Plain) -> Self {
        match self {
            Self::RefusedMutated { refusal, .. } => Self::RefusedMutated { refusal, plain: pod },
            other => other,
        }
    }
}

/// A `Warning` header is a code, an agent and a quoted text (RFC 9111, 5.5).
fn is_ours(warning: &str) -> bool {
    let text = warning.split_once('"').map_or(warning, |(_, text)| text);
    text.starts_with(EXPLAINED) && text.contains(" added ")
}

/// A pod that a documented trigger sends to virtual nodes. It is one that common policies take: labels, requests and limits,
/// probes, the strictest Pod Security Standard, an image that runs in the cluster already.
pub fn probe_pod(image: Option<&str>) -> Value {
    let port = json!({ "tcpSocket": { "port": 8081 } });
    let resources = json!({ "cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi" });
    let name = "virtualnodepool-probe";
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            // Not generated: whoever refuses it may say its name, and the same refusal must give the same words.
            "name": "webhook-probe",
            "labels": {
                (trigger_label::ECI): TRUE,
                (MANAGED_BY_LABEL): MANAGED_BY,
                "app": name,
                "app.kubernetes.io/name": name,
                "app.kubernetes.io/instance": name,
                "app.kubernetes.io/component": "probe",
                "app.kubernetes.io/part-of": "virtualnodepool",
                "app.kubernetes.io/version": "v1",
            },
            "annotations": { (EXPLAIN_ANNOTATION): TRUE },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "probe",
                "image": image.unwrap_or(NO_IMAGE),
                "imagePullPolicy": "IfNotPresent",
                "resources": { "requests": resources, "limits": resources },
                "livenessProbe": port,
                "readinessProbe": port,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
                    "runAsNonRoot": true, "capabilities": { "drop": ["ALL"] },
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
            }],
        },
    })
}

/// The same pod, which no webhook of ours looks at.
pub fn plain_pod(image: Option<&str>) -> Value {
    let mut pod = probe_pod(image);
    if let Some(labels) = pod["metadata"]["labels"].as_object_mut() {
        labels.remove(trigger_label::ECI);
        labels.insert(WEBHOOK_LABEL.to_owned(), WEBHOOK_DISABLED.into());
    }
    pod
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::placement::{Placing, Review, VirtualNodes};
    use crate::testing::pool;

    fn mutation(pod: &Value) -> crate::placement::Mutation {
        Placing::compile(&[Arc::new(pool(json!({})))]).mutate(&Review {
            pod,
            namespace: "virtualnodepool-probe",
            namespace_labels: &BTreeMap::new(),
            nodes: &VirtualNodes::default(),
        })
    }

    #[test]
    fn the_webhook_changes_the_one_and_says_so_and_leaves_the_other_alone() {
        let mut pod = probe_pod(Some("registry.example/operator:v1"));
        let first = mutation(&pod);
        let warnings: Vec<String> = first
            .warnings
            .iter()
            .map(|text| format!("299 - \"{text}\""))
            .collect();
        json_patch::patch(&mut pod, &first.patch).unwrap();
        assert_eq!(Probed::taken(&pod), Probed::Mutated);
        let plain = plain_pod(None);
        assert_eq!(mutation(&plain).patch.0.len(), 0);
        assert_eq!(Probed::taken(&plain), Probed::Unmutated);
        for pod in [pod, plain] {
            assert!(serde_json::from_value::<Pod>(pod).is_ok());
        }

        let policy = || {
            Refusal::read(
                422,
                "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            )
        };
        let warnings = || warnings.iter().map(String::as_str);
        let refused = Probed::refused(policy(), warnings());
        let of = |plain| Probed::RefusedMutated {
            refusal: policy(),
            plain,
        };
        assert_eq!(refused, of(Plain::Unknown));
        assert!(refused.answers());
        assert_eq!(refused.compared(Plain::Taken), of(Plain::Taken));
        // Warnings of others prove nothing, nor does the refusal of a webhook that may have come before ours.
        let others = [
            "299 - \"would violate PodSecurity\"",
            "299 - \"virtualnodes.dev: mirror pods are left as they are\"",
        ];
        assert_eq!(
            Probed::refused(policy(), others),
            Probed::RefusedUnmutated(policy())
        );
        let webhook = || Refusal::read(400, "admission webhook \"a.example\" denied the request: no");
        assert_eq!(Probed::refused(webhook(), others), Probed::Refused(webhook()));
        assert!(Probed::refused(webhook(), warnings()).answers());
    }
}
