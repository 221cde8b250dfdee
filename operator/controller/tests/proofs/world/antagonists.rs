//! What else runs in a cluster and gets in the way: small programs, each of which can be switched on in any world.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use vnp_fake_api_server::{Actor, Call, Fault, Gate, Refusal};

use crate::bench::{OPERATORS, POOL, PROVIDER};
use crate::cluster::{Cluster, name, number, text};

const SETS: &str = "statefulsets.apps";
const POOLS: &str = "virtualnodepools.virtualnodes.dev";

/// One of them at work.
pub(crate) struct Program {
    every: Duration,
    last: Option<Timestamp>,
    act: fn(&Cluster, &Actor),
    actor: Actor,
}

/// What can be switched on.
#[derive(Clone, Copy)]
pub(crate) struct Antagonist {
    /// Its name, and the field manager of what it writes.
    pub(crate) name: &'static str,
    /// From one time that it acts to the next.
    every: Duration,
    act: fn(&Cluster, &Actor),
    /// What it says to writes of operators.
    policy: Option<fn(&Call) -> Option<Refusal>>,
    /// What it does when it goes.
    leave: fn(&Cluster, &Actor),
    /// Words that lead to it.
    pub(crate) evidence: &'static str,
}

const fn every(name: &'static str, seconds: u64, act: fn(&Cluster, &Actor)) -> Antagonist {
    let every = Duration::from_secs(seconds);
    Antagonist {
        name,
        every,
        act,
        policy: None,
        leave: |_, _| {},
        evidence: name,
    }
}

/// All of them.
pub(crate) const ANTAGONISTS: [Antagonist; 19] = [
    every("engine-that-reapplies", 10, |cluster, engine| {
        env(cluster, engine, "ECI_SECURITY_GROUP", "sg-git");
        let git = json!({"spec": {"region": "cn-hangzhou"}, "metadata": {"labels": {"git": "yes"}}});
        engine.patch(POOLS, "", POOL, git).ok();
    }),
    Antagonist {
        evidence: "had been deleted by somebody",
        ..every("engine-that-prunes", 90, |cluster, engine| {
            for (resource, namespace) in [
                ("configmaps", vnp_crds::OPERATOR_NAMESPACE),
                ("secrets", vnp_crds::OPERATOR_NAMESPACE),
                (SETS, "kube-system"),
            ] {
                for object in cluster.list(resource) {
                    if text(&object, "/metadata/namespace") == namespace {
                        engine.delete(resource, namespace, name(&object), json!({})).ok();
                    }
                }
            }
        })
    },
    every("autoscaler-up", 30, |_, hpa| scale(hpa, 4)),
    every("autoscaler-down", 30, |_, hpa| scale(hpa, 1)),
    Antagonist {
        policy: Some(|call| {
            let denied = "ValidatingAdmissionPolicy 'no-changes' with binding 'all' denied request: frozen";
            (call.about.kind.resource == SETS).then(|| Refusal::new(422, "Invalid", denied))
        }),
        evidence: "no-changes",
        ..every("policy-that-refuses-workloads", 600, |_, _| {})
    },
    Antagonist {
        policy: Some(|call| {
            let denied = "admission webhook \"evictions.example.com\" denied the request: not now";
            (call.about.subresource == "eviction").then(|| Refusal::new(403, "Forbidden", denied))
        }),
        evidence: "evictions.example.com",
        ..every("policy-that-refuses-evictions", 600, |_, _| {})
    },
    every("policy-that-rewrites", 0, |_, policy| {
        if let Some(mut set) = policy
            .get(SETS, "kube-system", PROVIDER)
            .map(|s| Value::clone(&s))
        {
            let image = &mut set["spec"]["template"]["spec"]["containers"][0]["image"];
            if image.as_str().is_some_and(|i| !i.starts_with("mirror.example/")) {
                let mirrored = image
                    .as_str()
                    .unwrap_or_default()
                    .replace("registry.example/", "mirror.example/");
                *image = json!(mirrored);
                let patch = json!({"spec": {"template": {"spec": {"containers": set["spec"]["template"]["spec"]["containers"]}}}});
                policy.patch(SETS, "kube-system", PROVIDER, patch).ok();
            }
        }
    }),
    Antagonist {
        evidence: "",
        ..every("node-repair", 20, |cluster, controller| {
            for node in cluster.list("nodes") {
                if node["status"]["conditions"][0]["status"] != "True" {
                    controller.delete("nodes", "", name(&node), json!({})).ok();
                }
            }
        })
    },
    Antagonist {
        evidence: "put the label back",
        // As the pool asks.
        leave: |_, person| {
            let label = json!({"metadata": {"labels": {vnp_crds::POOL_LABEL: POOL}}});
            person.patch(SETS, "kube-system", PROVIDER, label).ok();
        },
        ..every("person-who-replaces", 45, |_, person| {
            // A file from before the pool took it over: neither labels nor annotations nor finalizers.
            if let Some(set) = person.get(SETS, "kube-system", PROVIDER) {
                let mut file = Value::clone(&set);
                file["metadata"] = json!({"name": PROVIDER, "namespace": "kube-system"});
                person
                    .patch(
                        SETS,
                        "kube-system",
                        PROVIDER,
                        json!({"metadata": {"labels": null, "annotations": null}}),
                    )
                    .ok();
                person
                    .patch(SETS, "kube-system", PROVIDER, json!({"spec": file["spec"]}))
                    .ok();
            }
        })
    },
    every("person-who-edits", 40, |cluster, person| {
        env(cluster, person, "ECI_VSWITCH", "vsw-mine")
    }),
    Antagonist {
        evidence: "its provider pod is being deleted",
        ..every("person-who-restarts", 50, |cluster, person| {
            let at = cluster.now().to_string();
            let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}});
            person
                .patch(
                    SETS,
                    "kube-system",
                    PROVIDER,
                    json!({"spec": {"template": template}}),
                )
                .ok();
        })
    },
    Antagonist {
        evidence: "it is cordoned",
        ..every("person-who-drains", 30, |cluster, person| {
            let node = format!("{PROVIDER}-0");
            person
                .patch("nodes", "", &node, json!({"spec": {"unschedulable": true}}))
                .ok();
            for pod in cluster.list("pods") {
                if text(&pod, "/spec/nodeName") == node {
                    person.evict(text(&pod, "/metadata/namespace"), name(&pod)).ok();
                }
            }
        })
    },
    Antagonist {
        evidence: "its taint theirs",
        ..every("taints", 5, |cluster, other| {
            for node in cluster.list("nodes") {
                let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
                if !taints.iter().any(|t| t["key"] == "theirs") {
                    let theirs = json!({"key": "theirs", "effect": "NoSchedule"});
                    let all: Vec<Value> = taints.into_iter().chain([theirs]).collect();
                    other
                        .patch("nodes", "", name(&node), json!({"spec": {"taints": all}}))
                        .ok();
                }
            }
        })
    },
    Antagonist {
        leave: |cluster, other| {
            for node in cluster.list("nodes") {
                let none = json!({"metadata": {"finalizers": null}});
                other.patch("nodes", "", name(&node), none).ok();
            }
        },
        evidence: "slow.example.com/cleanup",
        ..every("finalizers", 2, |cluster, other| {
            for node in cluster.list("nodes") {
                if node["metadata"]["deletionTimestamp"].is_null() {
                    let finalizers = json!({"metadata": {"finalizers": ["slow.example.com/cleanup"]}});
                    other.patch("nodes", "", name(&node), finalizers).ok();
                }
            }
            release(cluster, other);
        })
    },
    Antagonist {
        leave: |cluster, other| {
            if cluster.get("nodes", "", "eci-of-somebody").is_some() {
                other.delete("nodes", "", "eci-of-somebody", json!({})).ok();
            }
        },
        evidence: "",
        ..every("another-name", 600, |_, other| {
            let node = json!({
                "metadata": {"name": "eci-of-somebody", "labels": {"type": "virtual-kubelet"}},
                "status": {"conditions": [{"type": "Ready", "status": "False"}]},
            });
            other.create("nodes", "", node).ok();
        })
    },
    Antagonist {
        leave: |_, other| drop(other.delete("pods", "shop", "custom", json!({}))),
        evidence: "shop/custom",
        ..every("custom-controller", 600, |_, other| {
            pod(other, "custom", "example.com/v1", "Runner", "")
        })
    },
    Antagonist {
        leave: |_, other| drop(other.delete("pods", "shop", "pinned", json!({}))),
        ..every("pinned", 2, |_, other| {
            pod(other, "pinned", "apps/v1", "ReplicaSet", &format!("{PROVIDER}-2"))
        })
    },
    Antagonist {
        evidence: "",
        ..every("unready", 1, |cluster, other| {
            for pod in cluster.list("pods") {
                if text(&pod, "/metadata/namespace") == "shop" && name(&pod).ends_with('3') {
                    let conditions = json!([{"type": "Ready", "status": "False"}]);
                    other
                        .patch_status(
                            "pods",
                            "shop",
                            name(&pod),
                            json!({"status": {"conditions": conditions}}),
                        )
                        .ok();
                }
            }
        })
    },
    Antagonist {
        evidence: "",
        ..every("small-nodes", 5, |cluster, other| {
            for node in cluster.list("nodes") {
                if number(&node, "/status/allocatable/pods") == 0 {
                    let small =
                        json!({"status": {"allocatable": {"pods": "4", "cpu": "1", "memory": "1Gi"}}});
                    other.patch_status("nodes", "", name(&node), small).ok();
                }
            }
        })
    },
];

impl Antagonist {
    /// The program.
    pub(crate) fn program(self, cluster: &Cluster) -> Program {
        Program {
            every: self.every,
            last: None,
            act: self.act,
            actor: cluster.server.actor(self.name),
        }
    }

    /// It goes.
    pub(crate) fn leave(self, cluster: &Cluster) {
        (self.leave)(cluster, &cluster.server.actor(self.name));
    }

    /// What its policy says to operators.
    pub(crate) fn gate(self) -> Option<Gate> {
        let policy = self.policy?;
        let gate: Gate = Arc::new(move |call| {
            let asked = call.client.starts_with(OPERATORS) && call.writes();
            let refusal = asked.then(|| policy(call)).flatten();
            std::future::ready(refusal.map_or(Fault::Pass, Fault::Refuse)).boxed()
        });
        Some(gate)
    }
}

impl Program {
    /// One look.
    pub(crate) fn look(&mut self, cluster: &Cluster) {
        let now = cluster.now();
        let due = self
            .last
            .is_none_or(|at| now.duration_since(at).unsigned_abs() >= self.every);
        if due {
            self.last = Some(now);
            (self.act)(cluster, &self.actor);
        }
    }
}

fn scale(actor: &Actor, replicas: i64) {
    let patch = json!({"spec": {"replicas": replicas}});
    actor.patch(SETS, "kube-system", PROVIDER, patch).ok();
}

/// Sets a variable of the provider, as it stands in somebody's file.
fn env(cluster: &Cluster, actor: &Actor, variable: &str, value: &str) {
    let Some(set) = cluster.get(SETS, "kube-system", PROVIDER) else {
        return;
    };
    let mut containers = set["spec"]["template"]["spec"]["containers"].clone();
    let entries = containers[0]["env"].as_array_mut();
    for entry in entries.into_iter().flatten().filter(|e| e["name"] == variable) {
        entry["value"] = json!(value);
    }
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    actor.patch(SETS, "kube-system", PROVIDER, patch).ok();
}

/// A pod of a controller that nobody knows here. With a node it is made again there whenever it goes.
fn pod(actor: &Actor, app: &str, version: &str, kind: &str, node: &str) {
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": app, "labels": {"app": app}, "ownerReferences": [
            {"apiVersion": version, "kind": kind, "name": app, "uid": format!("{app}-uid"), "controller": true}]},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "registry.example/c:1"}]},
    });
    if !node.is_empty() {
        if actor.get("nodes", "", node).is_none() {
            return;
        }
        pod["spec"]["nodeName"] = json!(node);
    }
    actor.create("pods", "shop", pod).ok();
}

/// Takes the finalizer off Nodes that were deleted a minute ago.
fn release(cluster: &Cluster, actor: &Actor) {
    for node in cluster.list("nodes") {
        let deleted = text(&node, "/metadata/deletionTimestamp").parse::<Timestamp>();
        if deleted.is_ok_and(|at| cluster.now().duration_since(at).as_secs() >= 60) {
            let none = json!({"metadata": {"finalizers": null}});
            actor.patch("nodes", "", name(&node), none).ok();
        }
    }
}
