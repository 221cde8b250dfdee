//! The command lines of the control plane's processes.

use std::fmt::Display;
use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{ControlPlane, ControlPlaneOptions, Identity};

impl ControlPlane {
    pub(super) fn etcd(&self, client: u16, peer: u16) -> Command {
        let client = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = Command::new(self.binaries.path("etcd"));
        command
            .arg("--name=etcd")
            .arg(flag("data-dir", self.folder.scratch().join("etcd").display()))
            .arg(flag("listen-client-urls", &client))
            .arg(flag("advertise-client-urls", &client))
            .arg(flag("listen-peer-urls", &peer))
            .arg(flag("initial-advertise-peer-urls", &peer))
            .arg(flag("initial-cluster", format!("etcd={peer}")))
            // The data dies with the run: waiting for the disk buys nothing.
            .arg("--unsafe-no-fsync")
            .arg("--log-level=warn");
        command
    }

    pub(super) fn apiserver(&self, etcd: u16, port: u16, options: &ControlPlaneOptions) -> Result<Command> {
        let policy = self.folder.path().join("audit-policy.yaml");
        fs::write(&policy, include_str!("audit_policy.yaml"))?;
        let mut command = Command::new(self.binaries.path("kube-apiserver"));
        command
            .arg(flag("etcd-servers", format!("http://127.0.0.1:{etcd}")))
            .arg("--bind-address=127.0.0.1")
            .arg("--advertise-address=127.0.0.1")
            .arg(flag("secure-port", port))
            .arg(flag("cert-dir", self.folder.scratch().display()))
            .arg(flag("tls-cert-file", self.pki.path("apiserver.crt").display()))
            .arg(flag(
                "tls-private-key-file",
                self.pki.path("apiserver.key").display(),
            ))
            .arg(flag("client-ca-file", self.pki.path("ca.crt").display()))
            .arg("--authorization-mode=Node,RBAC")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(flag(
                "service-account-key-file",
                self.pki.path("service-account.pub").display(),
            ))
            .arg(flag(
                "service-account-signing-key-file",
                self.pki.path("service-account.key").display(),
            ))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            // No endpoint of ours is reachable from a pod: nothing here has a pod network.
            .arg("--endpoint-reconciler-type=none")
            .arg("--profiling=false")
            .arg(flag("audit-policy-file", policy.display()))
            .arg(flag("audit-log-path", self.audit_log_path().display()))
            // Blocking (the default of the log backend): a write that was answered is in the log.
            .arg("--audit-log-mode=blocking")
            // In MiB; a rotated log would hide the begin of a run.
            .arg("--audit-log-maxsize=4096")
            .args(&options.apiserver_args);
        Ok(command)
    }

    pub(super) fn controller_manager(&self, options: &ControlPlaneOptions) -> Result<Command> {
        let kubeconfig = self.kubeconfig_as(&Identity::component("kube-controller-manager"))?;
        let mut command = Command::new(self.binaries.path("kube-controller-manager"));
        command
            .arg(flag("kubeconfig", kubeconfig.display()))
            .arg(flag("authentication-kubeconfig", kubeconfig.display()))
            .arg(flag("authorization-kubeconfig", kubeconfig.display()))
            .arg("--use-service-account-credentials=true")
            .arg(flag(
                "service-account-private-key-file",
                self.pki.path("service-account.key").display(),
            ))
            .arg(flag("root-ca-file", self.pki.path("ca.crt").display()))
            .arg("--leader-elect=false")
            .arg("--secure-port=0")
            .arg("--profiling=false")
            // The default of 20 requests a second makes a ReplicaSet of hundreds of pods the slowest part of a test.
            .arg("--kube-api-qps=200")
            .arg("--kube-api-burst=400");
        if let Some(grace) = options.node_monitor_grace_period {
            command.arg(flag(
                "node-monitor-grace-period",
                format!("{}ms", grace.as_millis()),
            ));
        }
        Ok(command)
    }

    pub(super) fn scheduler(&self) -> Result<Command> {
        let kubeconfig = self.kubeconfig_as(&Identity::component("kube-scheduler"))?;
        let config = self.folder.path().join("scheduler.json");
        let content = serde_json::json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig, "qps": 200, "burst": 400},
            "leaderElection": {"leaderElect": false},
            "enableProfiling": false,
        });
        fs::write(&config, content.to_string())?;
        let mut command = Command::new(self.binaries.path("kube-scheduler"));
        command
            .arg(flag("config", config.display()))
            .arg(flag("authentication-kubeconfig", kubeconfig.display()))
            .arg(flag("authorization-kubeconfig", kubeconfig.display()))
            .arg("--secure-port=0");
        Ok(command)
    }
}

fn flag(name: &str, value: impl Display) -> String {
    format!("--{name}={value}")
}
