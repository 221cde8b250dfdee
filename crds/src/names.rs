//! Names that other tools and other versions of the operator rely on. None may change within `v1alpha1`.

/// API group of `VirtualNodePool`, and prefix of all labels, annotations and finalizers below.
pub const GROUP: &str = "virtualnodes.dev";

/// The API version served.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of a pool.
pub const API_VERSION: &str = "virtualnodes.dev/v1alpha1";

/// `kind` of a pool.
pub const KIND: &str = "VirtualNodePool";

/// Plural resource name, as in RBAC rules.
pub const PLURAL: &str = "virtualnodepools";

/// Longest pool name, in characters: names of child objects are derived from it.
pub const MAX_POOL_NAME: usize = 40;

/// Finalizer on the pool: held until its nodes are drained.
pub const FINALIZER: &str = "virtualnodes.dev/drain";

/// Finalizer on the provider workload: keeps the providers alive when the workload is deleted by hand.
pub const WORKLOAD_FINALIZER: &str = "virtualnodes.dev/drain-first";

/// Label on the objects the operator creates, on an adopted workload and on the pool's Nodes; the value is the pool's name.
pub const POOL_LABEL: &str = "virtualnodes.dev/pool";

/// Label that names the manager of an object, from the recommended set of Kubernetes.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`] on objects that the operator creates.
pub const MANAGED_BY: &str = "virtualnodepool-operator";

/// Field manager of everything but cordons.
pub const FIELD_MANAGER: &str = "virtualnodepool-operator";

/// Field manager that owns a cordon of ours, and nothing else: who else cordoned is the API server's bookkeeping.
pub const CORDON_FIELD_MANAGER: &str = "virtualnodepool-cordon";

/// Annotation on a pool; `"true"` pauses it like `spec.paused`.
pub const PAUSED_ANNOTATION: &str = "virtualnodes.dev/paused";

/// Break-glass annotation on a pool, `<node>/<uid>`: give up a node that can never be emptied.
pub const ABANDON_ANNOTATION: &str = "virtualnodes.dev/abandon-node";

/// Fence on the workload while a shrink is being proved: `<ordinal>/<node-uid>/<term>`, the term as in
/// [`CORDON_TERM_ANNOTATION`].
pub const SHRINKING_ANNOTATION: &str = "virtualnodes.dev/shrinking";

/// On a Node that we cordoned: the term of the leader that relies on the cordon,
/// `<lease-transitions>/<namespace of the Lease>/<its holder>`. Held by [`CORDON_FIELD_MANAGER`].
pub const CORDON_TERM_ANNOTATION: &str = "virtualnodes.dev/cordoned-in-term";

/// Original values of what was taken over, on an adopted workload and on `eci-profile`, as JSON with sorted keys.
pub const ADOPTED_VALUES_ANNOTATION: &str = "virtualnodes.dev/adopted-values";

/// Hash of a template that was rolled back, on the workload: not tried again until the desired template differs.
pub const REVERTED_ANNOTATION: &str = "virtualnodes.dev/reverted";

/// Beside [`REVERTED_ANNOTATION`]: which provider did not get healthy with that template, and why, for people.
pub const REVERTED_BECAUSE_ANNOTATION: &str = "virtualnodes.dev/reverted-because";

/// Label on a pod that takes what room ordinary nodes have left, and virtual nodes for the rest: the pool whose rule says
/// `mode: Prefer`. While it is on a pending pod, the operator adds the toleration once the scheduler finds no room.
pub const OVERFLOW_LABEL: &str = "virtualnodes.dev/overflow";

/// Annotation on a pod that the webhook changed: `<pool>/<rule>`, or `<pool>/<trigger>` where a label alone brought it.
pub const PLACED_BY_ANNOTATION: &str = "virtualnodes.dev/placed-by";

/// Annotation on a pod that the webhook gave compute defaults: what they were. They are a new pod's only; where the pool's
/// are others by now, the pod is outdated.
pub const COMPUTE_ANNOTATION: &str = "virtualnodes.dev/compute-defaults";

/// Annotation on a pod; `"true"` makes the webhook answer with an admission warning for each thing it did.
pub const EXPLAIN_ANNOTATION: &str = "virtualnodes.dev/explain";

/// Label on a pod or a namespace; [`WEBHOOK_DISABLED`] keeps the webhook away from it.
pub const WEBHOOK_LABEL: &str = "virtualnodes.dev/webhook";

/// Value of [`WEBHOOK_LABEL`].
pub const WEBHOOK_DISABLED: &str = "disabled";

/// Name of the MutatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "virtualnodepool-affinity";

/// Annotation values and switches that mean yes.
pub const TRUE: &str = "true";

/// Namespace of the operator: its Lease, Secrets and ConfigMaps.
pub const OPERATOR_NAMESPACE: &str = "virtualnodepool-system";

/// Namespace of `eci-profile`, and default of `--provider-namespaces`.
pub const KUBE_SYSTEM: &str = "kube-system";

/// Namespace of the nodes' heartbeats.
pub const KUBE_NODE_LEASE: &str = "kube-node-lease";

/// Name of the ConfigMap that holds the provider's cluster-wide configuration.
pub const PROFILE_CONFIG_MAP: &str = "eci-profile";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_ours_lies_under_the_group() {
        for key in [
            FINALIZER,
            WORKLOAD_FINALIZER,
            POOL_LABEL,
            PAUSED_ANNOTATION,
            ABANDON_ANNOTATION,
            SHRINKING_ANNOTATION,
            CORDON_TERM_ANNOTATION,
            ADOPTED_VALUES_ANNOTATION,
            REVERTED_ANNOTATION,
            REVERTED_BECAUSE_ANNOTATION,
            OVERFLOW_LABEL,
            PLACED_BY_ANNOTATION,
            COMPUTE_ANNOTATION,
            EXPLAIN_ANNOTATION,
            WEBHOOK_LABEL,
            API_VERSION,
        ] {
            assert!(key.starts_with(&format!("{GROUP}/")), "{key}");
        }
    }
}
