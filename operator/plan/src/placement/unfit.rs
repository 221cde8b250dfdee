//! Pods that a virtual node can't run: they are left alone.

use std::fmt;

use super::pod::PodView;

/// CSI drivers whose inline volumes are disks of the machine that the pod runs on. Source: the drivers' own documentation.
const NODE_LOCAL_DRIVERS: [&str; 5] = [
    "local.csi.aliyun.com",
    "localplugin.csi.alibabacloud.com",
    "yodaplugin.csi.alibabacloud.com",
    "hostpath.csi.k8s.io",
    "local.csi.openebs.io",
];

/// Why a pod that a rule or a label selects is left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It says itself that it wants no virtual node.
    Declines,
    /// Its own choice of node leaves no virtual node.
    NodeChoice,
    /// It needs something that virtual nodes don't have.
    Need(Need),
}

/// Something that virtual nodes don't have. Source: ACK documentation, "Virtual nodes", limits: no HostPath, HostNetwork and
/// privileged containers; instances are virtual machines of their own, so the other namespaces of a host are not there either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// `hostNetwork`.
    HostNetwork,
    /// `hostPID`.
    HostPid,
    /// `hostIPC`.
    HostIpc,
    /// The volume of that name is a path of the host.
    HostPath(String),
    /// The volume of that name is a disk of the host.
    LocalVolume(String),
    /// The container of that name is privileged.
    Privileged(String),
    /// `os.name` is windows.
    Windows,
}

impl Unfit {
    /// One word for it, as in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Declines => "Declines",
            Self::NodeChoice => "NodeChoice",
            Self::Need(need) => match need {
                Need::HostNetwork => "HostNetwork",
                Need::HostPid => "HostPID",
                Need::HostIpc => "HostIPC",
                Need::HostPath(_) => "HostPath",
                Need::LocalVolume(_) => "LocalVolume",
                Need::Privileged(_) => "Privileged",
                Need::Windows => "Windows",
            },
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declines => write!(
                f,
                "its own node selector or affinity rules out type=virtual-kubelet"
            ),
            Self::NodeChoice => write!(
                f,
                "its own node selector or affinity leaves no virtual node that is there"
            ),
            Self::Need(need) => write!(f, "virtual nodes can't run it: {need}"),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => write!(f, "spec.hostNetwork is true"),
            Self::HostPid => write!(f, "spec.hostPID is true"),
            Self::HostIpc => write!(f, "spec.hostIPC is true"),
            Self::HostPath(volume) => write!(f, "volume {volume} is a hostPath"),
            Self::LocalVolume(volume) => write!(f, "volume {volume} is a local disk of a node"),
            Self::Privileged(container) => write!(f, "container {container} is privileged"),
            Self::Windows => write!(f, "spec.os.name is windows"),
        }
    }
}

/// The first thing that the pod needs and virtual nodes don't have. What a PersistentVolumeClaim stands for is not in the pod.
pub(super) fn need(pod: &PodView) -> Option<Need> {
    let spec = &pod.spec;
    let on = |field: Option<bool>| field == Some(true);
    if on(spec.host_network) {
        return Some(Need::HostNetwork);
    }
    if on(spec.host_pid) {
        return Some(Need::HostPid);
    }
    if on(spec.host_ipc) {
        return Some(Need::HostIpc);
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Some(Need::Windows);
    }
    let privileged =
        |context: &Option<super::pod::SecurityView>| context.as_ref().is_some_and(|c| on(c.privileged));
    if let Some(container) = pod.containers().find(|c| privileged(&c.security_context)) {
        return Some(Need::Privileged(container.name.clone()));
    }
    spec.volumes.iter().flatten().find_map(|volume| {
        let name = || volume.name.clone();
        let local = volume
            .csi
            .as_ref()
            .is_some_and(|csi| NODE_LOCAL_DRIVERS.contains(&csi.driver.as_str()));
        if volume.host_path.is_some() {
            Some(Need::HostPath(name()))
        } else {
            local.then(|| Need::LocalVolume(name()))
        }
    })
}
