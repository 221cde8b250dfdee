//! Who refused the pod that was created as a dry run, read from what the API server answered.

use std::fmt;

use crate::refuser::Refuser as Admission;

/// Who refused a pod, and what with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who.
    pub by: Refuser,
    /// The API server's words.
    pub message: String,
}

/// What refuses pods. Sources of the wordings, all of Kubernetes 1.37: `pkg/admission/plugin/webhook/errors`,
/// `plugin/pkg/admission`, `k8s.io/pod-security-admission`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// The operator lacks the right, or the namespace is missing.
    Rights,
    /// A webhook, by the name of its entry. Whether a mutating or a validating one, nobody says.
    Webhook(String),
    /// A webhook that could not be asked, and without which nothing is taken.
    SilentWebhook(String),
    /// A ValidatingAdmissionPolicy.
    Policy(String),
    /// A MutatingAdmissionPolicy that could not do its work. It may come before the webhooks or after them.
    MutatingPolicy(String),
    /// The Pod Security Standard of the namespace.
    PodSecurity(String),
    /// A ResourceQuota.
    Quota(String),
    /// A LimitRange of the namespace.
    LimitRange,
    /// The whitelist of tolerations, by an annotation of the namespace or for the whole cluster.
    Tolerations,
    /// Somebody else.
    Other,
}

impl Refusal {
    /// Reads an answer.
    pub fn read(code: u16, message: &str) -> Self {
        Self {
            by: refuser(code, message),
            message: message.to_owned(),
        }
    }
}

impl Refuser {
    /// It judges what a pod has become: all mutating webhooks were asked before.
    pub fn comes_after_webhooks(&self) -> bool {
        matches!(
            self,
            Self::Policy(_) | Self::PodSecurity(_) | Self::Quota(_) | Self::LimitRange | Self::Tolerations
        )
    }
}

impl fmt::Display for Refuser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rights => write!(f, "the API server"),
            Self::Webhook(name) => write!(f, "admission webhook {name}"),
            Self::SilentWebhook(name) => {
                write!(
                    f,
                    "the API server, which could not call admission webhook {name},"
                )
            }
            Self::Policy(name) => write!(f, "ValidatingAdmissionPolicy {name}"),
            Self::MutatingPolicy(name) => write!(f, "MutatingAdmissionPolicy {name}"),
            Self::PodSecurity(level) => write!(f, "Pod Security {level}"),
            Self::Quota(name) => write!(f, "ResourceQuota {name}"),
            Self::LimitRange => write!(f, "a LimitRange"),
            Self::Tolerations => write!(f, "the whitelist of tolerations (PodTolerationRestriction)"),
            Self::Other => write!(f, "the API server"),
        }
    }
}

fn refuser(code: u16, message: &str) -> Refuser {
    let between = |before: &str, after: &str| {
        let (_, rest) = message.split_once(before)?;
        let (name, _) = rest.split_once(after)?;
        Some(name.to_owned())
    };
    // Of several that are named the first one refused: what it quotes follows.
    if let Some(by) = Admission::of(message) {
        match by {
            Admission::Webhook(name) => Refuser::Webhook(name),
            Admission::SilentWebhook(name) => Refuser::SilentWebhook(name),
            Admission::ValidatingPolicy(name) => Refuser::Policy(name),
            Admission::MutatingPolicy(name) => Refuser::MutatingPolicy(name),
        }
    } else if let Some(level) = between("violates PodSecurity \"", "\"") {
        Refuser::PodSecurity(level)
    } else if let Some(name) = between("exceeded quota: ", ",").or_else(|| between("failed quota: ", ":")) {
        Refuser::Quota(name)
    } else if message.contains("usage per Container") || message.contains("usage per Pod") {
        Refuser::LimitRange
    } else if message.contains("pod tolerations") {
        Refuser::Tolerations
    } else if code == 404 || (code == 403 && message.contains(" cannot ")) {
        Refuser::Rights
    } else {
        Refuser::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refused_is_read_from_the_words_of_the_api_server() {
        let forbidden = |rest: &str| format!("pods \"webhook-probe-x\" is forbidden: {rest}");
        for (code, message, by, after) in [
            (
                422,
                forbidden("ValidatingAdmissionPolicy 'labels' with binding 'all' denied request: no owner"),
                Refuser::Policy("labels".into()),
                true,
            ),
            (
                400,
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: \n\nlabels".to_owned(),
                Refuser::Webhook("validate.kyverno.svc-fail".into()),
                false,
            ),
            (
                500,
                "Internal error occurred: failed calling webhook \"v.example.com\": Post \"https://x\": refused".to_owned(),
                Refuser::SilentWebhook("v.example.com".into()),
                false,
            ),
            (
                403,
                forbidden("violates PodSecurity \"restricted:latest\": seccompProfile"),
                Refuser::PodSecurity("restricted:latest".into()),
                true,
            ),
            (
                403,
                forbidden("exceeded quota: small, requested: pods=1, used: pods=0, limited: pods=0"),
                Refuser::Quota("small".into()),
                true,
            ),
            (
                403,
                forbidden("failed quota: small: must specify requests.ephemeral-storage"),
                Refuser::Quota("small".into()),
                true,
            ),
            (
                403,
                forbidden("minimum cpu usage per Container is 100m, but request is 10m"),
                Refuser::LimitRange,
                true,
            ),
            (
                403,
                forbidden("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"),
                Refuser::Tolerations,
                true,
            ),
            (
                403,
                forbidden("User \"system:serviceaccount:a:b\" cannot create resource \"pods\" in API group \"\""),
                Refuser::Rights,
                false,
            ),
            (404, "namespaces \"virtualnodepool-probe\" not found".to_owned(), Refuser::Rights, false),
            (403, forbidden("error looking up service account a/default"), Refuser::Other, false),
        ] {
            let refusal = Refusal::read(code, &message);
            assert_eq!(refusal.by, by, "{message}");
            assert_eq!(refusal.by.comes_after_webhooks(), after, "{message}");
        }
    }
}
