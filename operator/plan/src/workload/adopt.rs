//! A StatefulSet that somebody else made: single values of its template become the pool's, and are given back.
//!
//! Never by server-side apply, which would reorder `env` (and break `$(NAME)`), merge duplicates, collide with `valueFrom`
//! and lose the former values.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vnp_crds::{Management, VirtualNodePool};

use super::desired::{Desired, same_meaning};
use super::{create, env, patch};
use crate::accept::{ContainerDoubt, provider_container};
use crate::observed::Workload;

/// What stood in the template before the pool took it over; the value of annotation `adopted-values`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Originals {
    /// By variable; `None` was absent.
    #[serde(default)]
    env: BTreeMap<String, Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

/// Why the template can't be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdoptError {
    /// Accept tells which containers there are.
    #[error(
        "it is not clear which container of the workload is the provider; name it in spec.provider.container"
    )]
    Container(ContainerDoubt),
    /// Writing on would lose the originals.
    #[error(
        "annotation virtualnodes.dev/adopted-values of the workload can't be read ({0}); put its JSON right, or remove the \
         annotation to take the present values for the originals"
    )]
    Originals(String),
}

/// Values of the template to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values {
    container: usize,
    env: BTreeMap<String, Option<String>>,
    image: Option<String>,
    /// Annotation `adopted-values` as it must be with them.
    originals: Originals,
    /// For people.
    pub(super) changes: Vec<String>,
}

fn originals(workload: &Workload) -> Result<Option<Originals>, AdoptError> {
    let Some(text) = workload.annotation(vnp_crds::ADOPTED_VALUES_ANNOTATION) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|e| AdoptError::Originals(e.to_string()))
}

fn image(container: &Value) -> Option<&str> {
    container.get("image").and_then(Value::as_str)
}

fn provider<'a>(pool: &VirtualNodePool, workload: &'a Workload) -> Result<(usize, &'a Value), AdoptError> {
    let index =
        provider_container(workload, pool.spec.provider.container()).map_err(AdoptError::Container)?;
    let missing = || AdoptError::Container(ContainerDoubt::None(Vec::new()));
    workload
        .containers()
        .get(index)
        .map(|c| (index, c))
        .ok_or_else(missing)
}

impl Values {
    fn of(container: usize) -> Self {
        Self {
            container,
            ..Self::default()
        }
    }

    fn set_env(&mut self, there: &Value, name: &str, new: Option<&str>) {
        self.changes.push(super::change_line(
            &format!("env {name}"),
            env::value(there, name),
            new,
        ));
        self.env.insert(name.to_owned(), new.map(str::to_owned));
    }

    fn set_image(&mut self, there: &Value, new: &str) {
        self.changes
            .push(super::change_line("image", image(there), Some(new)));
        self.image = Some(new.to_owned());
    }

    /// Whether the template changes.
    pub(super) fn any(&self) -> bool {
        !self.env.is_empty() || self.image.is_some()
    }

    /// Annotation `adopted-values` with these values in place.
    pub(super) fn annotation(&self) -> String {
        json!(self.originals).to_string()
    }

    /// The operations on the template.
    pub(super) fn operations(&self, workload: &Workload) -> Vec<PatchOperation> {
        let Some(container) = workload.containers().get(self.container) else {
            return Vec::new();
        };
        let mut operations = env::operations(container, self.container, &self.env);
        if let Some(image) = &self.image {
            let index = self.container.to_string();
            let path = ["spec", "template", "spec", "containers", &index, "image"];
            operations.push(patch::add(patch::pointer(&path), json!(image)));
        }
        operations
    }
}

/// The values that differ from what the pool wants. A key that it let go gets its original back; one that it wants for the
/// first time is noted. `contested` keys are left alone.
pub(super) fn due(
    pool: &VirtualNodePool,
    workload: &Workload,
    contested: &dyn Fn(&str) -> bool,
) -> Result<Option<Values>, AdoptError> {
    let (index, there) = provider(pool, workload)?;
    let desired = Desired::of(pool);
    let noted = originals(workload)?.unwrap_or_default();
    let mut values = Values {
        originals: noted.clone(),
        ..Values::of(index)
    };
    for (name, wanted) in &desired.env {
        let present = env::value(there, name);
        // Accept refuses a reference; a value beside it would be an invalid entry.
        let free = !contested(&format!("env {name}")) && !env::is_reference(there, name);
        if free && !same_meaning(name, present, wanted) {
            let original = values
                .originals
                .env
                .entry((*name).to_owned())
                .or_insert_with(|| present.map(str::to_owned))
                .clone();
            // An original that means the same is what giving it back would write: no provider restarts for that later.
            let original = Some(original).filter(|o| same_meaning(name, o.as_deref(), wanted));
            let new = original.unwrap_or_else(|| Some(wanted.clone()));
            values.set_env(there, name, new.as_deref());
        }
    }
    for (name, original) in noted.env.iter().filter(|(name, _)| desired.value(name).is_none()) {
        values.originals.env.remove(name);
        if env::value(there, name) != original.as_deref() && !env::is_reference(there, name) {
            values.set_env(there, name, original.as_deref());
        }
    }
    let wanted = match (&desired.image, &noted.image) {
        (Some(wanted), _) => {
            if image(there) != Some(wanted.as_str()) && !contested("image") {
                values.originals.image = noted.image.clone().or_else(|| image(there).map(str::to_owned));
            }
            Some(wanted).filter(|_| !contested("image"))
        }
        (None, original) => {
            values.originals.image = None;
            original.as_ref()
        }
    };
    if let Some(wanted) = wanted.filter(|w| image(there) != Some(w.as_str())) {
        values.set_image(there, wanted);
    }
    Ok((values.any() || values.originals != noted).then_some(values))
}

/// The fields that the pool owns, back to what they are in `template`.
pub(super) fn due_back(
    pool: &VirtualNodePool,
    workload: &Workload,
    template: &Value,
) -> Result<Option<Values>, AdoptError> {
    let (index, there) = provider(pool, workload)?;
    let desired = Desired::of(pool);
    let noted = originals(workload)?.unwrap_or_default();
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    let same = |c: &&Value| c.get("name") == there.get("name");
    let Some(before) = containers.into_iter().flatten().find(same) else {
        return Ok(None);
    };
    let mut values = Values {
        originals: noted.clone(),
        ..Values::of(index)
    };
    let names = desired
        .env
        .iter()
        .map(|(name, _)| *name)
        .chain(noted.env.keys().map(String::as_str));
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let plain = !env::is_reference(there, name) && !env::is_reference(before, name);
        if plain && env::value(there, name) != env::value(before, name) {
            values.set_env(there, name, env::value(before, name));
        }
    }
    if (desired.image.is_some() || noted.image.is_some())
        && let Some(old) = image(before).filter(|old| image(there) != Some(old))
    {
        values.set_image(there, old);
    }
    Ok(values.any().then_some(values))
}

/// Whether label, finalizer and the originals are on the workload.
pub(super) fn taken_over(pool: &VirtualNodePool, workload: &Workload) -> bool {
    let adopted = pool.spec.provider.management() == Management::Adopt;
    workload.pool_label() == pool.metadata.name.as_deref()
        && workload.has_finalizer()
        && (!adopted || workload.annotation(vnp_crds::ADOPTED_VALUES_ANNOTATION).is_some())
}

/// Label and finalizer, with Adopt also the originals of all that the pool wants. The template is not touched.
pub(super) fn take_over(
    pool: &VirtualNodePool,
    workload: &Workload,
) -> Result<(Vec<PatchOperation>, Vec<String>), AdoptError> {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let mut changes = Vec::new();
    if workload.pool_label() != Some(name.as_str()) {
        changes.push(super::change_line(
            &format!("label {}", vnp_crds::POOL_LABEL),
            workload.pool_label(),
            Some(&name),
        ));
    }
    if !workload.has_finalizer() {
        changes.push(format!("finalizer {}", vnp_crds::WORKLOAD_FINALIZER));
    }
    let labels = BTreeMap::from([(vnp_crds::POOL_LABEL, Some(name))]);
    let mut operations = patch::metadata_map(&workload.raw, "labels", &labels);
    if pool.spec.provider.management() == Management::Adopt {
        let noted = originals(workload)?;
        if noted.is_none() {
            changes.push(format!("annotation {}", vnp_crds::ADOPTED_VALUES_ANNOTATION));
        }
        let (_, there) = provider(pool, workload)?;
        let mut noted = noted.unwrap_or_default();
        let desired = Desired::of(pool);
        for (name, _) in &desired.env {
            let present = env::value(there, name).map(str::to_owned);
            noted.env.entry((*name).to_owned()).or_insert(present);
        }
        if desired.image.is_some() && noted.image.is_none() {
            noted.image = image(there).map(str::to_owned);
        }
        let annotation = BTreeMap::from([(
            vnp_crds::ADOPTED_VALUES_ANNOTATION,
            Some(json!(noted).to_string()),
        )]);
        operations.extend(patch::metadata_map(&workload.raw, "annotations", &annotation));
    }
    operations.extend(patch::add_finalizer(workload));
    Ok((operations, changes))
}

/// Everything given back: the originals, our labels, annotations and finalizer. What can't be given back is told by the
/// error beside it, and holds nothing up.
pub(super) fn give_back(
    pool: &VirtualNodePool,
    workload: &Workload,
) -> (Vec<PatchOperation>, Vec<String>, Option<AdoptError>) {
    let (values, error) = match restored(pool, workload) {
        Ok(values) => (values, None),
        Err(error) => (Values::default(), Some(error)),
    };
    let mut operations = values.operations(workload);
    let made_by_us = workload.label(vnp_crds::MANAGED_BY_LABEL) == Some(vnp_crds::MANAGED_BY);
    let mut labels = BTreeMap::from([(vnp_crds::POOL_LABEL, None)]);
    labels.extend(made_by_us.then_some((vnp_crds::MANAGED_BY_LABEL, None)));
    operations.extend(patch::metadata_map(&workload.raw, "labels", &labels));
    let annotations = [
        vnp_crds::ADOPTED_VALUES_ANNOTATION,
        vnp_crds::REVERTED_ANNOTATION,
        vnp_crds::REVERTED_BECAUSE_ANNOTATION,
        vnp_crds::SHRINKING_ANNOTATION,
        create::APPLIED_ANNOTATION,
    ];
    let annotations = annotations.into_iter().map(|key| (key, None)).collect();
    operations.extend(patch::metadata_map(&workload.raw, "annotations", &annotations));
    operations.extend(patch::remove_finalizer(workload));
    let mut changes = values.changes;
    changes.push(format!(
        "label {} and finalizer {} removed",
        vnp_crds::POOL_LABEL,
        vnp_crds::WORKLOAD_FINALIZER
    ));
    (operations, changes, error)
}

/// Every original, exactly as it was.
fn restored(pool: &VirtualNodePool, workload: &Workload) -> Result<Values, AdoptError> {
    let noted = originals(workload)?.unwrap_or_default();
    let (index, there) = provider(pool, workload)?;
    let mut values = Values::of(index);
    for (name, original) in &noted.env {
        if env::value(there, name) != original.as_deref() && !env::is_reference(there, name) {
            values.set_env(there, name, original.as_deref());
        }
    }
    if let Some(original) = noted.image.filter(|i| image(there) != Some(i)) {
        values.set_image(there, &original);
    }
    Ok(values)
}
