//! Flux and Argo CD judge a pool by its status alone. Each state that a pool can be in is built by the real status
//! builder and put before both: kstatus, and `config/argocd/health.lua` as it is shipped.

use mlua::{Lua, LuaOptions, LuaSerdeExt, StdLib};
use serde_json::{Value, json};
use vnp_crds::{BlockerReason, Reason, VirtualNodePool};
use vnp_plan::finding::{Finding, ProviderState};
use vnp_plan::plan::Plan;

use super::kstatus::{self, Verdict};
use crate::report::testing::{Story, blocked, draining, pool, provider, saying, settled};

const HEALTH: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../config/argocd/health.lua"
));

/// Runs the script as Argo CD does: the object is the global `obj`, and of the libraries only the base is there.
fn argo(object: &Value) -> (String, String) {
    let lua = Lua::new_with(StdLib::NONE, LuaOptions::default()).unwrap();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let verdict: mlua::Table = lua.load(HEALTH).eval().unwrap();
    (verdict.get("status").unwrap(), verdict.get("message").unwrap())
}

fn refused() -> Finding {
    Finding::Refused {
        reason: Reason::NotAProvider,
        message: "no container has ECI_REGION".to_owned(),
    }
}

/// The object as the API server hands it out: without null.
fn served(pool: &VirtualNodePool) -> Value {
    let mut object = json!({});
    json_patch::merge(&mut object, &serde_json::to_value(pool).unwrap());
    object
}

/// The object as it is after passes at these seconds over this plan.
fn after(pool: VirtualNodePool, plan: &Plan, seconds: &[i64]) -> Value {
    let mut story = Story::of(pool);
    for second in seconds {
        story.pass(plan, *second);
    }
    served(&story.observed.pool)
}

fn unseen(status: Value) -> Value {
    served(&pool(json!({"status": status})))
}

fn shrunk() -> Plan {
    let mut plan = settled();
    plan.facts.nodes = 1;
    plan.facts.available = 1;
    plan
}

#[test]
fn both_judges_see_every_state_for_what_it_is() {
    let plain = || pool(json!({}));
    let paused = |overlay: Value| {
        let mut value = json!({"spec": {"paused": true}});
        json_patch::merge(&mut value, &overlay);
        pool(value)
    };
    let annotated = || pool(json!({"metadata": {"annotations": {(vnp_crds::PAUSED_ANNOTATION): "true"}}}));
    let deleted = || pool(json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    let stale = {
        let mut value = after(plain(), &settled(), &[0]);
        value["metadata"]["generation"] = json!(5);
        value
    };
    let budget = || [blocked(BlockerReason::BlockedByBudget)];
    let mut waiting = settled();
    waiting.facts.pending_changes = vec!["replicas 3 -> 4".to_owned()];

    use Verdict::{Current, Failed, InProgress, Terminating};
    let table: Vec<(&str, Value, Verdict, &str, &str)> = vec![
        (
            "never seen, no default",
            unseen(Value::Null),
            Current,
            "Progressing",
            "has not reported",
        ),
        (
            "never seen",
            unseen(json!({"observedGeneration": -1})),
            InProgress,
            "Progressing",
            "has not reported",
        ),
        (
            "older generation",
            stale,
            InProgress,
            "Progressing",
            "newest spec",
        ),
        (
            "provisioning",
            after(plain(), &shrunk(), &[0]),
            InProgress,
            "Progressing",
            "Provisioning: ",
        ),
        (
            "scaling up",
            {
                let mut story = Story::of(plain());
                story.pass(&settled(), 0);
                story.pass(&shrunk(), 10);
                served(&story.observed.pool)
            },
            InProgress,
            "Progressing",
            "ScalingUp: ",
        ),
        (
            "draining",
            after(plain(), &draining(9, []), &[10]),
            InProgress,
            "Progressing",
            "Draining: ",
        ),
        (
            "a budget blocks, within the deadline",
            after(plain(), &draining(0, budget()), &[30]),
            InProgress,
            "Progressing",
            "DrainBlocked: draining virtual-node-eci-2 (Evicting, 140 of 300 pods left, 10 being deleted); 2 pods are held by BlockedByBudget shop/checkout: ",
        ),
        (
            "a budget blocks, past the deadline",
            after(plain(), &draining(0, budget()), &[0, 30, 600]),
            Failed,
            "Degraded",
            "DrainBlocked: draining virtual-node-eci-2 (Evicting, 140 of 300 pods left, 10 being deleted); 2 pods are held by BlockedByBudget shop/checkout: ",
        ),
        (
            "nodes not ready",
            after(plain(), &saying([provider(ProviderState::Unhealthy)]), &[0]),
            InProgress,
            "Progressing",
            "NodesNotReady: ",
        ),
        (
            "nodes not ready, given up",
            after(
                plain(),
                &saying([provider(ProviderState::Unhealthy)]),
                &[0, 300, 600],
            ),
            Failed,
            "Degraded",
            "ProviderUnavailable: ",
        ),
        (
            "invalid spec",
            after(plain(), &saying([refused()]), &[0]),
            Failed,
            "Degraded",
            "NotAProvider: ",
        ),
        (
            "ready",
            after(plain(), &settled(), &[0]),
            Current,
            "Healthy",
            "3 virtual nodes",
        ),
        (
            "paused, realised",
            after(paused(json!({})), &settled(), &[0]),
            Current,
            "Suspended",
            "Paused",
        ),
        (
            "paused, changes wait",
            after(paused(json!({})), &waiting, &[0]),
            InProgress,
            "Suspended",
            "Paused",
        ),
        (
            "paused in a drain",
            after(paused(json!({})), &draining(0, budget()), &[900]),
            InProgress,
            "Suspended",
            "Paused",
        ),
        (
            "paused by annotation",
            after(annotated(), &settled(), &[0]),
            Current,
            "Suspended",
            "Paused",
        ),
        // Argo CD does not ask the script about an object that is being deleted; if it did, the answer would be the same.
        (
            "deleting",
            after(deleted(), &draining(9, []), &[10]),
            Terminating,
            "Progressing",
            "Deleting: ",
        ),
    ];
    for (state, object, flux, argo_status, argo_message) in table {
        assert_eq!(kstatus::judge(&object), flux, "kstatus of {state}: {object:#}");
        let (status, message) = argo(&object);
        assert_eq!(status, argo_status, "Argo CD on {state}: {message}");
        assert!(message.contains(argo_message), "Argo CD on {state}: {message}");
    }
}
