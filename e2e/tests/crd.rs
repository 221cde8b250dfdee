//! The CustomResourceDefinition on a real API server: the server takes it, judges each case as told, and shows it well.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../crds/tests/cases/mod.rs"]
mod cases;

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use vnp_e2e::control_plane::{ControlPlane, ControlPlaneOptions};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");

/// The control plane of this binary, with the CRD.
async fn control_plane() -> Result<&'static ControlPlane> {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    let start = || async {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        control_plane
            .kubectl(["apply", "--server-side", "--kustomize", &format!("{CONFIG}/crd")])
            .await?;
        let definition = "crd/virtualnodepools.virtualnodes.dev";
        control_plane
            .kubectl(["wait", "--for=condition=Established", "--timeout=30s", definition])
            .await?;
        anyhow::Ok(control_plane)
    };
    SHARED.get_or_try_init(start).await
}

/// Pools as plain JSON: the typed client could not even say what most cases say.
async fn pools() -> Result<Api<DynamicObject>> {
    let kind = GroupVersionKind::gvk(vnp_crds::GROUP, vnp_crds::VERSION, vnp_crds::KIND);
    let resource = ApiResource::from_gvk_with_plural(&kind, vnp_crds::PLURAL);
    Ok(Api::all_with(control_plane().await?.client().await?, &resource))
}

/// Writes the steps of one case; what went wrong.
async fn run(pools: &Api<DynamicObject>, case: &cases::Case, number: usize) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut stored: Option<DynamicObject> = None;
    for (index, step) in case.steps.iter().enumerate() {
        let place = format!("{:?}, step {}", case.name, index + 1);
        let mut pool = step.pool.clone();
        if pool["metadata"]["name"] == cases::ANY_NAME {
            pool["metadata"]["name"] = json!(format!("case-{number}"));
        }
        let mut pool: DynamicObject = serde_json::from_value(pool)?;
        let only_step = case.steps.len() == 1;
        let params = PostParams {
            dry_run: only_step,
            ..PostParams::default()
        };
        let written = match &stored {
            None => pools.create(&params, &pool).await,
            Some(before) => {
                pool.metadata
                    .resource_version
                    .clone_from(&before.metadata.resource_version);
                let name = before
                    .metadata
                    .name
                    .clone()
                    .context("a stored pool without name")?;
                pools.replace(&name, &params, &pool).await
            }
        };
        match written {
            Ok(_) if !step.refused.is_empty() => {
                faults.push(format!(
                    "{place}: accepted, should be refused with {:?}",
                    step.refused
                ));
            }
            Ok(accepted) => stored = Some(accepted),
            Err(kube::Error::Api(status)) if step.refused.is_empty() => {
                faults.push(format!("{place}: refused: {}", status.message));
            }
            Err(kube::Error::Api(status)) => {
                for expected in step
                    .refused
                    .iter()
                    .filter(|&expected| !status.message.contains(expected))
                {
                    faults.push(format!(
                        "{place}: the refusal does not say {expected:?}: {}",
                        status.message
                    ));
                }
            }
            Err(error) => bail!("{place}: {error}"),
        }
    }
    Ok(faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_accepted_or_refused_as_told() -> Result<()> {
    let pools = pools().await?;
    let definition = serde_json::to_value(vnp_crds::definition()?)?;
    let schema = definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .context("no schema")?;
    let cases = cases::all(schema);
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        faults.extend(run(&pools, case, number).await?);
    }
    ensure!(
        faults.is_empty(),
        "{} of {} cases:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
    Ok(())
}

/// Creates the pool `name` of the base `base`, changed by a merge patch.
async fn create(name: &str, base: &str, change: Value) -> Result<DynamicObject> {
    let mut pool = cases::base(base);
    pool["metadata"]["name"] = json!(name);
    json_patch::merge(&mut pool, &change);
    Ok(pools()
        .await?
        .create(&PostParams::default(), &serde_json::from_value(pool)?)
        .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_pool_has_its_defaults_and_is_not_taken_for_done() -> Result<()> {
    create(
        "defaults",
        "create",
        json!({ "spec": { "profile": {}, "drain": {} } }),
    )
    .await?;
    let pool = pools().await?.get("defaults").await?.data;
    assert_eq!(pool["status"], json!({ "observedGeneration": -1 }));
    assert_eq!(pool["spec"]["paused"], false);
    assert_eq!(pool["spec"]["network"]["kubeProxy"], "Enabled");
    assert_eq!(pool["spec"]["network"]["privateZone"], "Disabled");
    assert_eq!(pool["spec"]["profile"], json!({ "sync": "Enabled" }));
    assert_eq!(
        pool["spec"]["drain"],
        serde_json::to_value(vnp_crds::Drain::default())?
    );
    assert_eq!(pool["spec"].get("replicas"), None);
    assert_eq!(pool["spec"].get("deletionPolicy"), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_left_out_stay_out() -> Result<()> {
    let pool = create("sections", "adopt", json!({})).await?.data;
    for section in ["drain", "profile", "placement", "scheduling", "computeDefaults"] {
        assert_eq!(pool["spec"].get(section), None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_null_means_absent() -> Result<()> {
    // Not through a merge patch, which would take the nulls as removals.
    let mut pool = cases::base("create");
    pool["metadata"]["name"] = json!("nulls");
    pool["spec"]["replicas"] = Value::Null;
    pool["spec"]["drain"] = json!({ "burst": null, "reap": null });
    let pool = pools()
        .await?
        .create(&PostParams::default(), &serde_json::from_value(pool)?)
        .await?
        .data;
    assert_eq!(pool["spec"].get("replicas"), None);
    assert_eq!(pool["spec"]["drain"]["burst"], 100);
    assert_eq!(pool["spec"]["drain"].get("reap"), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_the_columns() -> Result<()> {
    create(
        "columns",
        "create",
        json!({ "spec": { "computeDefaults": { "class": "performance" } } }),
    )
    .await?;
    let status = json!({ "status": {
        "observedGeneration": 1, "targetReplicas": 3, "nodes": 4, "availableNodes": 2, "pods": 2500,
        "drain": {
            "summary": "2412/3000", "podsTotal": 3000, "podsRemaining": 2412, "podsTerminating": 0, "podsBlocked": 0,
            "limitedBy": "Rate",
        },
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "Draining", "message": "draining virtual-node-eci-3",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }],
    } });
    pools()
        .await?
        .patch_status("columns", &PatchParams::default(), &Patch::Merge(&status))
        .await?;

    let control_plane = control_plane().await?;
    let words = |text: String| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    let table = words(
        control_plane
            .kubectl(["get", "virtualnodepools", "columns"])
            .await?,
    );
    assert_eq!(
        table[0],
        [
            "NAME",
            "DESIRED",
            "NODES",
            "AVAILABLE",
            "READY",
            "STATUS",
            "PODS-LEFT",
            "AGE"
        ]
    );
    assert_eq!(
        table[1][..7],
        ["columns", "3", "4", "2", "False", "Draining", "2412/3000"]
    );

    let table = words(
        control_plane
            .kubectl(["get", "vnp", "columns", "--output", "wide"])
            .await?,
    );
    assert_eq!(table[0][8..], ["PODS", "CLASS", "SINCE", "MESSAGE"]);
    assert_eq!(table[1][8..10], ["2500", "performance"]);
    assert_eq!(table[1][11..], ["draining", "virtual-node-eci-3"]);

    let all = control_plane
        .kubectl(["get", "virtualnodes", "--output", "name"])
        .await?;
    assert!(all.contains("virtualnodepool.virtualnodes.dev/columns"), "{all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_scales_a_pool() -> Result<()> {
    create("scaled", "create", json!({ "spec": { "replicas": 1 } })).await?;
    let control_plane = control_plane().await?;
    control_plane
        .kubectl(["scale", "vnp/scaled", "--replicas", "4"])
        .await?;
    assert_eq!(pools().await?.get("scaled").await?.data["spec"]["replicas"], 4);

    let beyond = control_plane
        .kubectl(["scale", "vnp/scaled", "--replicas", "101"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        beyond.contains("spec.replicas") && beyond.contains("100"),
        "{beyond}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_selected_by_field() -> Result<()> {
    create("paused-adopt", "adopt", json!({ "spec": { "paused": true } })).await?;
    create("paused-addon", "addon", json!({ "spec": { "paused": true } })).await?;
    let selector = "spec.paused=true,spec.provider.type=Addon";
    let names = control_plane()
        .await?
        .kubectl(["get", "vnp", "--output", "name", "--field-selector", selector])
        .await?;
    assert_eq!(names.trim(), "virtualnodepool.virtualnodes.dev/paused-addon");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_the_network() -> Result<()> {
    let text = control_plane()
        .await?
        .kubectl(["explain", "virtualnodepool.spec.network"])
        .await?;
    for word in [
        "zones",
        "-required-",
        "ECI_VSWITCH",
        "Default: Enabled",
        "enum: Enabled, Disabled",
        "1 to 10",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_says_how_it_is_kept() -> Result<()> {
    // Server-side apply has no size limit of its own; client-side apply keeps a copy in an annotation of at most 256 KiB.
    let copy = serde_json::to_string(&vnp_crds::definition()?)?;
    assert!(copy.len() < 256 * 1024, "{} bytes", copy.len());
    let definition = "crd/virtualnodepools.virtualnodes.dev";
    let annotations = control_plane()
        .await?
        .kubectl(["get", definition, "--output", "jsonpath={.metadata.annotations}"])
        .await?;
    assert!(annotations.contains("Prune=false,Delete=false"), "{annotations}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_applied_as_they_are() -> Result<()> {
    let control_plane = control_plane().await?;
    let mut samples = 0;
    for entry in std::fs::read_dir(format!("{CONFIG}/samples"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "kustomization.yaml") {
            continue;
        }
        samples += 1;
        let path = path.to_str().context("a path that is no UTF-8")?;
        for mode in [
            ["--server-side", "--dry-run=server"],
            ["--dry-run=server", "--validate=strict"],
        ] {
            control_plane
                .kubectl(["apply", mode[0], mode[1], "--filename", path])
                .await?;
        }
    }
    assert!(samples >= 3, "{samples}");
    Ok(())
}
