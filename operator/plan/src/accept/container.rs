//! Which container of an adopted workload is the provider.

use serde_json::Value;
use vnp_crds::env_key;

use crate::observed::Workload;

/// Why it is not clear which container is the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerDoubt {
    /// The one named is not there; the names of those that are.
    Missing(Vec<String>),
    /// Several have `ECI_REGION`; their names.
    Several(Vec<String>),
    /// None has `ECI_REGION`; the names of all.
    None(Vec<String>),
}

/// Position of the provider's container in `spec.template.spec.containers`: the one named, else the only one with
/// `ECI_REGION`, else the only one there is.
///
/// # Errors
/// [`ContainerDoubt`] when the workload leaves a choice or has no such container.
pub fn provider_container(workload: &Workload, named: Option<&str>) -> Result<usize, ContainerDoubt> {
    let containers = workload.containers();
    let names = |of: &[usize]| {
        of.iter()
            .filter_map(|i| containers.get(*i))
            .map(name)
            .collect::<Vec<_>>()
    };
    let all: Vec<usize> = (0..containers.len()).collect();
    if let Some(named) = named {
        let found = containers.iter().position(|c| name(c) == named);
        return found.ok_or_else(|| ContainerDoubt::Missing(names(&all)));
    }
    let with_region: Vec<usize> = containers
        .iter()
        .enumerate()
        .filter(|(_, c)| env_entries(c, env_key::REGION).next().is_some())
        .map(|(i, _)| i)
        .collect();
    match (with_region.as_slice(), all.as_slice()) {
        ([only], _) | ([], [only]) => Ok(*only),
        ([], _) => Err(ContainerDoubt::None(names(&all))),
        (several, _) => Err(ContainerDoubt::Several(names(several))),
    }
}

/// The entries of that name in a container's `env`; a container may have several, of which the last one counts.
pub(super) fn env_entries<'a>(container: &'a Value, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let entries = container
        .get("env")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .filter(move |e| e.get("name").and_then(Value::as_str) == Some(name))
}

fn name(container: &Value) -> String {
    container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::accept::testing::workload;

    fn containers(list: Value) -> Workload {
        workload(json!({ "spec": { "template": { "spec": { "containers": list } } } }))
    }

    fn region(name: &str) -> Value {
        json!({ "name": name, "env": [{ "name": "ECI_REGION", "value": "cn-hangzhou" }] })
    }

    #[test]
    fn the_name_decides_before_the_region_and_the_region_before_being_alone() {
        let side = json!({ "name": "side" });
        let cases = [
            (json!([side, region("vk")]), Some("side"), Ok(0)),
            (json!([side, region("vk")]), None, Ok(1)),
            (json!([side]), None, Ok(0)),
            (
                json!([side, region("vk")]),
                Some("x"),
                Err(ContainerDoubt::Missing(vec!["side".into(), "vk".into()])),
            ),
            (
                json!([region("a"), side, region("b")]),
                None,
                Err(ContainerDoubt::Several(vec!["a".into(), "b".into()])),
            ),
            (
                json!([side, { "name": "vk" }]),
                None,
                Err(ContainerDoubt::None(vec!["side".into(), "vk".into()])),
            ),
            (json!([]), None, Err(ContainerDoubt::None(vec![]))),
        ];
        for (list, named, expected) in cases {
            assert_eq!(
                provider_container(&containers(list.clone()), named),
                expected,
                "{list} {named:?}"
            );
        }
    }
}
