//! Scenarios over a ConfigMap that is patched the way an API server does it.

mod leaving;
mod properties;
mod saying;
mod selectors;
mod writing;

use serde_json::{Value, json};
use vnp_crds::{ADOPTED_VALUES_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL};

use super::*;
use crate::accept::testing::pool;

const DELETED: &str = "2026-02-01T00:00:00Z";

/// The cluster's ConfigMaps and pools, with the API server's part played by hand.
#[derive(Clone, Debug, Default)]
struct Cluster {
    pools: Vec<PoolInCluster>,
    profile: Option<Value>,
    acs: Option<Value>,
    set_back: SetBackHistory,
    rewrites: Rewrites,
    unreadable: bool,
}

impl Cluster {
    fn with(profile: Option<Value>) -> Self {
        let profile = profile.map(|data| config_map("eci-profile", data));
        Self {
            profile,
            ..Self::default()
        }
    }

    fn observed(&self) -> ClusterObserved {
        let read = |cm: &Option<Value>| {
            cm.clone()
                .map(|v| Arc::new(serde_json::from_value::<ConfigMap>(v).unwrap()))
        };
        ClusterObserved {
            pools: self.pools.clone(),
            profile: read(&self.profile),
            acs_profile: read(&self.acs),
            set_back: self.set_back.clone(),
            rewrites: self.rewrites.clone(),
            unreadable: self.unreadable,
        }
    }

    /// One pass. Says what it wrote.
    fn pass(&mut self) -> Vec<String> {
        let plan = plan_profile(&self.observed());
        let mut lines = Vec::new();
        for step in plan.steps {
            match step {
                Step::CreateProfile(create) => {
                    assert!(self.profile.is_none(), "409");
                    lines.extend(create.changes);
                    let mut body = create.body;
                    body["metadata"]["resourceVersion"] = json!("1");
                    body["metadata"]["uid"] = json!("uid-created");
                    self.profile = Some(body);
                }
                Step::PatchProfile(patch) => {
                    let slot = if patch.config_map.name == "eci-profile" {
                        &mut self.profile
                    } else {
                        &mut self.acs
                    };
                    let object = slot.as_mut().expect("404");
                    assert_eq!(
                        patch.body["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"],
                        "409"
                    );
                    json_patch::merge(object, &patch.body);
                    let version: u64 = object["metadata"]["resourceVersion"]
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap();
                    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    lines.extend(patch.changes);
                }
                Step::DeleteProfile {
                    config_map,
                    uid,
                    resource_version,
                } => {
                    let object = self.profile.take().expect("404");
                    assert_eq!(config_map.to_string(), "kube-system/eci-profile");
                    assert_eq!(object["metadata"]["uid"], uid);
                    assert_eq!(object["metadata"]["resourceVersion"], resource_version);
                    lines.push("removed".to_owned());
                }
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    /// Passes until nothing is written; one write is enough for any change.
    fn settle(&mut self) {
        self.pass();
        assert_eq!(self.pass(), [""; 0], "quiet after one pass");
    }

    fn data(&self) -> Value {
        self.profile.as_ref().map_or(Value::Null, |p| p["data"].clone())
    }

    fn record(&self) -> Option<&str> {
        self.profile.as_ref()?["metadata"]["annotations"]
            .get(ADOPTED_VALUES_ANNOTATION)?
            .as_str()
    }
}

fn config_map(name: &str, data: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "kube-system", "uid": "uid-cm", "resourceVersion": "5" },
        "data": data,
    })
}

fn acting(overlay: Value) -> PoolInCluster {
    PoolInCluster {
        pool: Arc::new(pool(overlay)),
        accepted: true,
        rolled: true,
        drained: false,
        unknown: false,
    }
}

fn adopting(overlay: Value) -> PoolInCluster {
    acting(merged(
        json!({ "spec": { "provider": { "management": "Adopt" } } }),
        overlay,
    ))
}

fn merged(mut base: Value, overlay: Value) -> Value {
    json_patch::merge(&mut base, &overlay);
    base
}

fn deleted(policy: &str) -> Value {
    json!({
        "metadata": { "deletionTimestamp": DELETED, "finalizers": [vnp_crds::FINALIZER] },
        "spec": { "deletionPolicy": policy },
    })
}

fn basic() -> Value {
    json!({
        "enableClusterIp": "true", "enablePrivateZone": "false", "securityGroupId": "sg-1", "vSwitchIds": "vsw-1",
    })
}

fn template() -> Value {
    json!({
        "enableClusterIp": "true", "enableHybridMode": "false", "enablePrivateZone": "false",
        "featureGates": "MetricsVpcNet=true, ProtectionFinalizers=false,WaitForFirstConsumer=false",
        "securityGroupId": "sg-old", "selectors": "[ {\"name\": \"x\"} ]", "vSwitchIds": "vsw-a, vsw-b", "vpcId": "vpc-1",
    })
}

fn seen_by(cluster: &Cluster, index: usize) -> Observed {
    let facts = cluster.observed();
    let mut pools: Vec<Arc<VirtualNodePool>> = facts.pools.into_iter().map(|p| p.pool).collect();
    let pool = pools.remove(index);
    let mut seen = crate::accept::testing::observed((*pool).clone());
    seen.others = pools;
    seen.profile = facts.profile;
    seen.acs_profile = facts.acs_profile;
    seen
}
