//! `mode: Prefer`: a pod goes to a virtual node only when no ordinary one takes it. The scheduler is asked first, every
//! time: the pod lacks the toleration until the scheduler has said Unschedulable, and gets it then. Adding a toleration is
//! one of the few changes that a pod allows. Preferred affinity does not do it: a virtual node is so large that it wins
//! scores while ordinary nodes still have room.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use serde::Serialize;
use serde_json::json;
use vnp_crds::virtual_node;

use crate::accept::{accept, served};
use crate::observed::{Observed, WaitingPod};
use crate::step::{Step, Tolerate};

#[derive(Serialize)]
struct Toleration {
    key: &'static str,
    operator: &'static str,
}

const TOLERATION: Toleration = Toleration {
    key: virtual_node::TAINT,
    operator: "Exists",
};

/// The pods that may go to virtual nodes now, of those that wait and name the pool.
pub fn plan_overflow<'a>(seen: &Observed, waiting: impl IntoIterator<Item = &'a WaitingPod>) -> Vec<Step> {
    // A pool that is refused, paused or going asks for nothing; one that is only not fully supported does.
    let acts = served(&seen.pool) && !seen.deleting() && !seen.pool.is_paused() && accept(seen).workload;
    if !acts {
        return Vec::new();
    }
    let ours = waiting
        .into_iter()
        .filter(|p| p.pool == seen.pool_name() && overflows(p));
    ours.map(|pod| Step::Tolerate(tolerate(pod))).collect()
}

/// No ordinary node takes it. One for which the scheduler makes room does get an ordinary node.
pub fn overflows(pod: &WaitingPod) -> bool {
    pod.unschedulable && !pod.nominated && !pod.deleting && !pod.tolerates
}

/// The change for one pod. Its tests hold it to the pod that was seen: one that has been bound meanwhile has another version.
pub fn tolerate(pod: &WaitingPod) -> Tolerate {
    let test = |field: &'static str, value: &str| {
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", field]),
            value: value.into(),
        })
    };
    let (path, value) = if pod.has_tolerations {
        (vec!["spec", "tolerations", "-"], json!(TOLERATION))
    } else {
        (vec!["spec", "tolerations"], json!([TOLERATION]))
    };
    Tolerate {
        pod: pod.key.clone(),
        patch: Patch(vec![
            test("uid", &pod.uid),
            test("resourceVersion", &pod.resource_version),
            PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(path),
                value,
            }),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::observed::ObjectKey;
    use crate::testing::{now, observed, pool};

    fn waiting() -> WaitingPod {
        WaitingPod {
            key: ObjectKey {
                namespace: "shop".into(),
                name: "web-1".into(),
            },
            uid: "u".into(),
            resource_version: "7".into(),
            pool: "burst".into(),
            unschedulable: true,
            has_tolerations: true,
            ..WaitingPod::default()
        }
    }

    fn seen(spec: Value) -> Observed {
        observed(pool(spec), 1)
    }

    /// The pod after its patch.
    fn patched(pod: &WaitingPod, mut object: Value) -> Result<Value, json_patch::PatchError> {
        let steps = plan_overflow(&seen(json!({})), [pod]);
        let [Step::Tolerate(tolerate)] = &steps[..] else {
            panic!("{steps:?}")
        };
        json_patch::patch(&mut object, &tolerate.patch).map(|()| object)
    }

    #[test]
    fn the_toleration_is_appended_to_the_pod_that_was_seen_and_to_no_other() {
        let default = json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists" });
        let ours = json!({ "key": "virtual-kubelet.io/provider", "operator": "Exists" });
        let object = |version: &str| json!({ "metadata": { "uid": "u", "resourceVersion": version }, "spec": { "tolerations": [default] } });
        let after = patched(&waiting(), object("7")).unwrap();
        assert_eq!(after["spec"]["tolerations"], json!([default, ours]));
        assert!(patched(&waiting(), object("8")).is_err(), "bound meanwhile");
        let bare = WaitingPod {
            has_tolerations: false,
            ..waiting()
        };
        let object = json!({ "metadata": { "uid": "u", "resourceVersion": "7" }, "spec": {} });
        assert_eq!(
            patched(&bare, object).unwrap()["spec"]["tolerations"],
            json!([ours])
        );
    }

    #[test]
    fn a_pool_that_is_going_paused_or_refused_lets_nobody_overflow() {
        let steps = |seen: &Observed| plan_overflow(seen, [&waiting()]).len();
        assert_eq!(steps(&seen(json!({}))), 1);
        assert_eq!(steps(&seen(json!({ "placement": { "webhook": "None" } }))), 1);
        assert_eq!(steps(&seen(json!({ "paused": true }))), 0);
        assert_eq!(
            steps(&seen(json!({ "provider": { "namespace": "elsewhere" } }))),
            0
        );
        let mut going = seen(json!({}));
        let mut pool = (*going.pool).clone();
        pool.metadata.deletion_timestamp = Some(Time(now()));
        going.pool = Arc::new(pool);
        assert_eq!(steps(&going), 0);
    }

    proptest! {
        /// Only a pod that the scheduler has given up, and only by its own pool.
        #[test]
        fn nobody_goes_who_has_another_way(
            unschedulable: bool, nominated: bool, deleting: bool, tolerates: bool, other: bool,
        ) {
            let pool = if other { "other" } else { "burst" }.to_owned();
            let pod = WaitingPod { unschedulable, nominated, deleting, tolerates, pool, ..waiting() };
            let goes = plan_overflow(&seen(json!({})), [&pod]).len() == 1;
            prop_assert_eq!(goes, unschedulable && !nominated && !deleting && !tolerates && !other);
        }
    }
}
