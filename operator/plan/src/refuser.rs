//! Who refused a write at admission. A webhook chooses the HTTP code, reason and details of its refusal, so the code says
//! nothing: 404 is not "gone", 409 no lost race, 429 no overload and 500 no server in trouble when a webhook stands in the
//! text. Source of the texts: Kubernetes 1.37 `apiserver`, `pkg/admission/plugin/webhook/errors/statuserror.go`,
//! `pkg/util/webhook/error.go`, `pkg/admission/plugin/policy/validating/dispatcher.go` and
//! `pkg/admission/plugin/policy/generic/policy_dispatcher.go`.

use std::fmt;

/// Who refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// An admission webhook denied the request.
    Webhook(String),
    /// The API server could not call an admission webhook whose failurePolicy is Fail.
    SilentWebhook(String),
    /// A ValidatingAdmissionPolicy denied the request.
    ValidatingPolicy(String),
    /// A MutatingAdmissionPolicy could not do its work, and its failurePolicy is Fail.
    MutatingPolicy(String),
}

/// Makes a refuser of the name that stands in the text.
type Made = fn(String) -> Refuser;

/// What stands before the name, what quotes it, and what follows somewhere behind it.
const TEXTS: [(&str, char, &str, Made); 5] = [
    (
        "admission webhook \"",
        '"',
        " denied the request",
        Refuser::Webhook,
    ),
    ("failed calling webhook \"", '"', ":", Refuser::SilentWebhook),
    (
        "ValidatingAdmissionPolicy '",
        '\'',
        " denied request",
        Refuser::ValidatingPolicy,
    ),
    ("policy '", '\'', " denied request", Refuser::MutatingPolicy),
    ("policy \"", '"', " denied request", Refuser::MutatingPolicy),
];

impl Refuser {
    /// Who refused by the message of a `Status`; `None` when the server itself speaks. Of several the first one that is
    /// named refused: what it quotes follows.
    pub fn of(message: &str) -> Option<Self> {
        let found = TEXTS.iter().filter_map(|(before, quote, behind, made)| {
            let at = message.find(before)?;
            let (name, rest) = message.get(at + before.len()..)?.split_once(*quote)?;
            (rest.contains(behind) && !name.is_empty()).then(|| (at, made(name.to_owned())))
        });
        found.min_by_key(|(at, _)| *at).map(|(_, refuser)| refuser)
    }

    /// As an object of `status.drain.blockers`: `<kind>/<name>`.
    pub fn object(&self) -> String {
        match self {
            Self::Webhook(name) | Self::SilentWebhook(name) => format!("webhook/{name}"),
            Self::ValidatingPolicy(name) => format!("ValidatingAdmissionPolicy/{name}"),
            Self::MutatingPolicy(name) => format!("MutatingAdmissionPolicy/{name}"),
        }
    }
}

impl fmt::Display for Refuser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(name) | Self::SilentWebhook(name) => write!(f, "admission webhook {name}"),
            Self::ValidatingPolicy(name) => write!(f, "ValidatingAdmissionPolicy {name}"),
            Self::MutatingPolicy(name) => write!(f, "MutatingAdmissionPolicy {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_of_the_server_names_who_refused() {
        let name = || "guard.example.com".to_owned();
        for (message, refuser) in [
            (
                "admission webhook \"guard.example.com\" denied the request: not found",
                Refuser::Webhook(name()),
            ),
            (
                "admission webhook \"guard.example.com\" denied the request without explanation",
                Refuser::Webhook(name()),
            ),
            (
                "Internal error occurred: failed calling webhook \"guard.example.com\": failed to call webhook: Post \
                 \"https://127.0.0.1:1/\": connect: connection refused",
                Refuser::SilentWebhook(name()),
            ),
            (
                "pods \"web\" is forbidden: ValidatingAdmissionPolicy 'guard.example.com' with binding 'b' denied request: no",
                Refuser::ValidatingPolicy(name()),
            ),
            (
                "pods \"web\" is forbidden: ValidatingAdmissionPolicy 'guard.example.com' denied request: no",
                Refuser::ValidatingPolicy(name()),
            ),
            (
                "pods \"web\" is forbidden: policy 'guard.example.com' with binding 'b' denied request: no such key",
                Refuser::MutatingPolicy(name()),
            ),
        ] {
            assert_eq!(Refuser::of(message), Some(refuser), "{message}");
        }
    }

    #[test]
    fn who_is_quoted_did_not_refuse() {
        let quotes =
            "admission webhook \"outer\" denied the request: failed calling webhook \"inner\": no route";
        assert_eq!(Refuser::of(quotes), Some(Refuser::Webhook("outer".into())));
    }

    #[test]
    fn the_server_itself_is_nobody() {
        for message in [
            "",
            "pods \"web\" not found",
            "etcdserver: request timed out",
            "Operation cannot be fulfilled on poddisruptionbudgets.policy \"web\": the object has been modified",
            "pods \"web\" is forbidden: User \"x\" cannot create resource \"pods/eviction\" in API group \"\"",
            "admission webhook \"",
        ] {
            assert_eq!(Refuser::of(message), None, "{message}");
        }
    }
}
