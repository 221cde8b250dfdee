//! What this version does not act on yet. It is refused by name, never accepted in silence.

use vnp_crds::{ProviderType, Reason, VirtualNodePoolSpec};

use super::Refusal;

/// A form of the provider that is not served: nothing at all is written for it.
pub(super) fn provider_type(spec: &VirtualNodePoolSpec) -> Option<Refusal> {
    let other = match spec.provider.type_ {
        ProviderType::StatefulSet => return None,
        other => other,
    };
    Some(Refusal::new(
        Reason::NotSupportedYet,
        format!(
            "spec.provider.type is {other}, which this version does not act on; nothing is written for this pool; delete it, or \
             make one with type StatefulSet."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::accept::testing::pool;

    #[test]
    fn forms_that_are_not_served() {
        let refused =
            |form: &str| provider_type(&pool(json!({ "spec": { "provider": { "type": form } } })).spec);
        assert_eq!(refused("StatefulSet"), None);
        for form in ["Deployment", "Addon"] {
            let refused = refused(form).unwrap();
            assert!(refused.message.contains(form), "{refused:?}");
        }
    }
}
