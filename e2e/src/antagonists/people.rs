//! People with kubectl.

use std::time::Duration;

use serde_json::{Value, json};

use super::place::{Whom, finished};
use super::{Antagonist, every};

/// Puts in a file without labels and annotations, such as from before the pool took the StatefulSet over.
pub const PERSON_WHO_REPLACES: Antagonist = every("person-who-replaces", Duration::from_secs(15), |person| {
    Box::pin(async move {
        let provider = &person.whom.provider;
        let get = format!("get statefulset {provider} --namespace kube-system --output json");
        let mut file: Value = serde_json::from_str(&person.run(&get).await?)?;
        let finalizers = file["metadata"]["finalizers"].take();
        file["metadata"] = json!({"name": provider, "namespace": "kube-system", "finalizers": finalizers});
        let replace = format!("replace --field-manager {} --filename -", person.name);
        person.feed(&replace, &file).await?;
        Ok(true)
    })
})
.leads_to("put the label back")
// As the pool asks.
.leaves(|person| {
    Box::pin(async move {
        let Whom { pool, provider, .. } = &person.whom;
        let label = format!(
            "label statefulset {provider} --namespace kube-system --overwrite virtualnodes.dev/pool={pool}"
        );
        // The StatefulSet may be gone as it was meant to.
        Ok(person.run(&label).await.is_ok())
    })
});

/// Edits the vSwitch.
pub const PERSON_WHO_EDITS: Antagonist = every("person-who-edits", Duration::from_secs(5), |person| {
    Box::pin(async move {
        let mut edit = person.kubectl();
        edit.env(
            "KUBE_EDITOR",
            "sed -i '/name: ECI_VSWITCH/{n;s/value: .*/value: vsw-mine/}'",
        );
        edit.args(["edit", "statefulset", &person.whom.provider]);
        edit.args(["--namespace", "kube-system", "--field-manager", person.name]);
        finished(&mut edit).await?;
        Ok(true)
    })
});

/// Restarts the providers.
pub const PERSON_WHO_RESTARTS: Antagonist = every("person-who-restarts", Duration::from_secs(12), |person| {
    Box::pin(async move {
        let restart = format!(
            "rollout restart statefulset {} --namespace kube-system --field-manager {}",
            person.whom.provider, person.name
        );
        person.run(&restart).await?;
        Ok(true)
    })
})
.leads_to("its provider pod is being deleted");

/// Drains the node that stays.
pub const PERSON_WHO_DRAINS: Antagonist = every("person-who-drains", Duration::from_secs(5), |person| {
    Box::pin(async move {
        let drain = format!(
            "drain {} --ignore-daemonsets --force --timeout 5s",
            person.node(0)
        );
        // Budgets hold it for longer, and it comes again.
        person.run(&drain).await.ok();
        Ok(true)
    })
})
.leads_to("it is cordoned");
