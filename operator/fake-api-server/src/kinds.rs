//! The resources that are served.

/// One resource and what differs from others.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Group, empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// `kind` of an object.
    pub kind: &'static str,
    /// Name with group as errors have it, for instance `statefulsets.apps`. Also the name of its storage.
    pub resource: &'static str,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Has a status subresource, so that status and the rest are written apart.
    pub status: bool,
    /// Has `metadata.generation`.
    pub generation: bool,
    /// Takes a PUT without resourceVersion.
    pub unconditional: bool,
    /// Folder below /registry in etcd, which some messages name.
    pub registry: &'static str,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Defined by a CustomResourceDefinition.
    pub fn custom(&self) -> bool {
        self.group == vnp_crds::GROUP
    }

    pub(crate) fn pod(&self) -> bool {
        self.resource == "pods"
    }
}

const CORE: Kind = Kind {
    group: "",
    version: "v1",
    plural: "",
    kind: "",
    resource: "",
    namespaced: true,
    status: false,
    generation: false,
    unconditional: true,
    registry: "",
};

/// All resources.
pub static KINDS: [Kind; 11] = [
    Kind {
        plural: "pods",
        kind: "Pod",
        resource: "pods",
        status: true,
        generation: true,
        registry: "pods",
        ..CORE
    },
    Kind {
        plural: "nodes",
        kind: "Node",
        resource: "nodes",
        namespaced: false,
        status: true,
        registry: "minions",
        ..CORE
    },
    Kind {
        plural: "namespaces",
        kind: "Namespace",
        resource: "namespaces",
        namespaced: false,
        status: true,
        registry: "namespaces",
        ..CORE
    },
    Kind {
        plural: "configmaps",
        kind: "ConfigMap",
        resource: "configmaps",
        registry: "configmaps",
        ..CORE
    },
    Kind {
        plural: "secrets",
        kind: "Secret",
        resource: "secrets",
        registry: "secrets",
        ..CORE
    },
    Kind {
        plural: "events",
        kind: "Event",
        resource: "events",
        registry: "events",
        ..CORE
    },
    Kind {
        group: "apps",
        plural: "statefulsets",
        kind: "StatefulSet",
        resource: "statefulsets.apps",
        status: true,
        generation: true,
        registry: "statefulsets",
        ..CORE
    },
    Kind {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        resource: "leases.coordination.k8s.io",
        unconditional: false,
        registry: "leases",
        ..CORE
    },
    Kind {
        group: "policy",
        plural: "poddisruptionbudgets",
        kind: "PodDisruptionBudget",
        resource: "poddisruptionbudgets.policy",
        status: true,
        generation: true,
        unconditional: false,
        registry: "poddisruptionbudgets",
        ..CORE
    },
    Kind {
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        resource: "customresourcedefinitions.apiextensions.k8s.io",
        namespaced: false,
        status: true,
        generation: true,
        unconditional: false,
        registry: "apiextensions.k8s.io/customresourcedefinitions",
        ..CORE
    },
    Kind {
        group: vnp_crds::GROUP,
        version: vnp_crds::VERSION,
        plural: vnp_crds::PLURAL,
        kind: vnp_crds::KIND,
        resource: "virtualnodepools.virtualnodes.dev",
        namespaced: false,
        status: true,
        generation: true,
        unconditional: false,
        registry: "virtualnodes.dev/virtualnodepools",
    },
];

/// The resource with that name, for instance `pods` or `statefulsets.apps`.
pub fn named(resource: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.resource == resource)
}

/// The resource that a URL names.
pub(crate) fn served(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    if group == "events.k8s.io" && plural == "events" {
        return named("events");
    }
    KINDS
        .iter()
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}
