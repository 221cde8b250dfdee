//! Policies of the cluster, each about one pool only.

use anyhow::{Result, bail, ensure};
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::place::Place;
use super::{Antagonist, ONCE, every};
use crate::audit::OPERATOR;
use crate::scenario::manifests::PROVIDER_IMAGE;

const GROUP: &str = "admissionregistration.k8s.io/v1";
/// Where images come from when nobody rewrites them.
pub const REGISTRY: &str = "registry.cn-hangzhou.aliyuncs.com/";
/// Where they come from then.
pub const MIRROR: &str = "mirror.example/";

/// Refuses every change that operators make to the StatefulSet.
pub const POLICY_THAT_REFUSES_WORKLOADS: Antagonist = every("policy-that-refuses-workloads", ONCE, |place| {
    Box::pin(async move {
        let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                              "resources": ["statefulsets"]});
        let about = format!(
            "request.name == '{}' && request.userInfo.username == '{OPERATOR}'",
            place.whom.provider
        );
        refuse(place, rule, &about, "Invalid").await?;
        let args = format!(
            "annotate statefulset {} --namespace kube-system tried=yes --dry-run=server --as {OPERATOR}",
            place.whom.provider
        );
        place
            .takes("the policy", || async {
                match place.run(&args).await {
                    Err(error) if format!("{error:#}").contains(place.name) => Ok(()),
                    other => bail!("{other:?}"),
                }
            })
            .await?;
        Ok(true)
    })
})
.leaves(|place| Box::pin(withdraw(place, "validating")));

/// Refuses all evictions of the pool's pods.
pub const POLICY_THAT_REFUSES_EVICTIONS: Antagonist = every("policy-that-refuses-evictions", ONCE, |place| {
    Box::pin(async move {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                              "resources": ["pods/eviction"]});
        let about = format!(
            "request.namespace == '{}' && request.name.startsWith('{}')",
            place.whom.namespace, place.whom.pool
        );
        refuse(place, rule, &about, "Forbidden").await?;
        let theirs = ListParams::default().labels(&format!("app={}", place.whom.pool));
        let dry_run = EvictParams {
            post_options: PostParams {
                dry_run: true,
                ..PostParams::default()
            },
            ..EvictParams::default()
        };
        place
            .takes("the policy", || async {
                let pods = place.pods().list(&theirs).await?;
                let Some(pod) = pods.items.first() else {
                    bail!("the pool has no pods");
                };
                match place.pods().evict(&pod.name_any(), &dry_run).await {
                    Err(kube::Error::Api(status)) if status.message.contains(place.name) => Ok(()),
                    other => bail!("{other:?}"),
                }
            })
            .await?;
        Ok(true)
    })
})
.leaves(|place| Box::pin(withdraw(place, "validating")));

/// Lets the provider's image come from a mirror.
pub const POLICY_THAT_REWRITES: Antagonist = every("policy-that-rewrites", ONCE, |place| {
    Box::pin(async move {
        let image = "object.spec.template.spec.containers[0].image";
        let mirrored = format!(
            "[JSONPatch{{op: 'replace', path: '/spec/template/spec/containers/0/image', \
             value: {image}.replace('{REGISTRY}', '{MIRROR}')}}]"
        );
        let spec = json!({
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                                                    "operations": ["CREATE", "UPDATE"], "resources": ["statefulsets"]}]},
            "matchConditions": [{"name": "provider",
                                 "expression": format!("object.metadata.name == '{}'", place.whom.provider)}],
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mirrored}}],
        });
        put(place, "MutatingAdmissionPolicy", spec).await?;
        put(place, "MutatingAdmissionPolicyBinding", json!({"policyName": place.own()})).await?;
        let dry_run = PatchParams {
            dry_run: true,
            ..place.patching()
        };
        let container = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": PROVIDER_IMAGE}]);
        let patch: Patch<Value> = Patch::Json(serde_json::from_value(container)?);
        place
            .takes("the policy", || async {
                let stored = place.sets().patch(&place.whom.provider, &dry_run, &patch).await?;
                ensure!(json!(stored).to_string().contains(MIRROR), "not yet");
                Ok(())
            })
            .await?;
        Ok(true)
    })
})
.leads_to("mutating admission policy")
.leaves(|place| Box::pin(withdraw(place, "mutating")));

/// Refuses what the rule matches and the expression is true of.
async fn refuse(place: &Place, rule: Value, about: &str, reason: &str) -> Result<()> {
    let spec = json!({
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "about", "expression": about}],
        "validations": [{"expression": "false", "message": "frozen", "reason": reason}],
    });
    put(place, "ValidatingAdmissionPolicy", spec).await?;
    let binding = json!({"policyName": place.own(), "validationActions": ["Deny"]});
    put(place, "ValidatingAdmissionPolicyBinding", binding).await
}

/// The label is by what a scenario finds all that it leaves.
async fn put(place: &Place, kind: &str, spec: Value) -> Result<()> {
    let metadata = json!({"name": place.own(), "labels": {"scenario": place.whom.pool}});
    place
        .apply(&json!({"apiVersion": GROUP, "kind": kind, "metadata": metadata, "spec": spec}))
        .await
}

async fn withdraw(place: &Place, how: &str) -> Result<bool> {
    let kinds = format!("{how}admissionpolicybinding,{how}admissionpolicy");
    place.run(&format!("delete {kinds} {}", place.own())).await?;
    Ok(true)
}
