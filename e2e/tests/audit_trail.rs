//! Writes of the audit trail, against a real API server: what its preconditions keep out, and what has room.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config};
use serde_json::json;
use vnp_e2e::control_plane::{ControlPlane, ControlPlaneOptions, Identity};
use vnp_operator::apply::{Applier, PoolRef, Retry};
use vnp_operator::runtime::clients::Clients;
use vnp_operator::runtime::clock::Clock;
use vnp_operator::runtime::lease::{Elector, Timing};
use vnp_operator::runtime::metrics::Metrics;
use vnp_plan::drain::audit::Trail;
use vnp_plan::observed::ObjectKey;
use vnp_plan::plan::{Track, TrackKind};
use vnp_plan::step::{AuditPatch, Step};

const NAMESPACE: &str = "audit";
const NAME: &str = "vnp-audit-burst";

fn patch(namespace: &str, resource_version: Option<&str>, data: &[(&str, Option<&str>)]) -> Step {
    let data: BTreeMap<String, Option<String>> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
        .collect();
    Step::RecordAudit(AuditPatch {
        config_map: ObjectKey {
            namespace: namespace.to_owned(),
            name: NAME.to_owned(),
        },
        resource_version: resource_version.map(str::to_owned),
        data,
    })
}

fn keys(map: &ConfigMap) -> Vec<&str> {
    map.data
        .iter()
        .flat_map(BTreeMap::keys)
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_changes_its_own_keys_of_the_object_it_was_planned_for() -> Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    let admin = control_plane.client().await?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::all(admin.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin, NAMESPACE);

    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig_as(&Identity::admin())?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let fast = Clients::new(config, Timing::default(), &Clock::of_host())?.fast;
    // Long enough to never be renewed here.
    let hour = Duration::from_secs(3600);
    let timing = Timing {
        duration: 2 * hour,
        renew_deadline: hour,
        retry_period: Duration::from_secs(1),
    };
    let mut elector = Elector::new(fast.clone(), NAMESPACE, timing, Clock::of_host());
    elector.acquire().await;
    let applier = Applier::new(fast, elector.claim(), Metrics::default(), NAMESPACE.to_owned());
    let pool = PoolRef {
        name: "burst".into(),
        uid: "pool-uid".into(),
        ..PoolRef::default()
    };
    let write = async |step: Step| {
        let track = Track {
            kind: TrackKind::Audit,
            steps: vec![step],
        };
        applier
            .run(&pool, &[track])
            .await
            .remove(0)
            .result
            .map_err(|e| e.retry())
    };

    // It is made once, with labels and without an owner; whoever comes second looks again.
    assert_eq!(
        write(patch(NAMESPACE, None, &[("a", Some("1")), ("b", None)])).await,
        Ok(())
    );
    let first = maps.get(NAME).await?;
    assert_eq!(keys(&first), ["a"]);
    let labels = first.metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels[vnp_crds::MANAGED_BY_LABEL], vnp_crds::MANAGED_BY);
    assert_eq!(labels[vnp_crds::POOL_LABEL], "burst");
    assert_eq!(first.metadata.owner_references, None);
    assert_eq!(
        write(patch(NAMESPACE, None, &[("a", Some("2"))])).await,
        Err(Retry::LookAgain)
    );

    // Somebody's key comes in between: the write that did not know it is refused, the next one leaves it alone.
    let theirs = json!({"data": {"note": "theirs"}, "metadata": {"labels": {"team": "billing"}}});
    maps.patch(NAME, &PatchParams::default(), &Patch::Merge(&theirs))
        .await?;
    let stale = first.metadata.resource_version.as_deref();
    let change = [("a", None), ("b", Some("1"))];
    assert_eq!(
        write(patch(NAMESPACE, stale, &change)).await,
        Err(Retry::LookAgain)
    );
    let second = maps.get(NAME).await?;
    let fresh = second.metadata.resource_version.as_deref();
    assert_eq!(write(patch(NAMESPACE, fresh, &change)).await, Ok(()));
    let third = maps.get(NAME).await?;
    assert_eq!(keys(&third), ["b", "note"]);
    assert_eq!(
        third.metadata.labels.clone().unwrap_or_default()["team"],
        "billing"
    );
    assert_eq!(
        Trail::read(&third).resource_version,
        third.metadata.resource_version
    );

    // The bound has room: 900 KiB full of quotes, which the request carries escaped.
    let large = "\"".repeat(900 * 1024 - 100);
    let fresh = third.metadata.resource_version.as_deref();
    assert_eq!(
        write(patch(NAMESPACE, fresh, &[("b", Some(&large))])).await,
        Ok(())
    );

    // Where it can never be written, a person is asked.
    assert_eq!(
        write(patch("absent", None, &[("a", Some("1"))])).await,
        Err(Retry::Person)
    );
    Ok(())
}
