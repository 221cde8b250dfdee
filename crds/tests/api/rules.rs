//! Every rule and every bound of the schema: accepted, and refused with a message that names field and value.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{cases, server::Server};

/// What went wrong with a case, and which CEL rules refused something in it.
fn run(server: &Server, case: &cases::Case) -> (Vec<String>, Vec<String>) {
    let (mut faults, mut rules) = (Vec::new(), Vec::new());
    let mut old: Option<&Value> = None;
    for (index, step) in case.steps.iter().enumerate() {
        let place = format!("{:?}, step {}", case.name, index + 1);
        match server.judge(&step.pool, old) {
            Ok(()) if step.refused.is_empty() => old = Some(&step.pool),
            Ok(()) => faults.push(format!(
                "{place}: accepted, should be refused with {:?}",
                step.refused
            )),
            Err(refusal) if step.refused.is_empty() => {
                faults.push(format!("{place}: refused: {}", refusal.text))
            }
            Err(refusal) => {
                for expected in step
                    .refused
                    .iter()
                    .filter(|&expected| !refusal.text.contains(expected))
                {
                    faults.push(format!(
                        "{place}: the refusal does not say {expected:?}: {}",
                        refusal.text
                    ));
                }
                rules.extend(refusal.rules);
            }
        }
    }
    (faults, rules)
}

#[test]
fn each_case_is_accepted_or_refused_as_told() {
    let server = Server::new();
    let faults: Vec<String> = cases::all(&server.schema)
        .iter()
        .flat_map(|case| run(&server, case).0)
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_rule_refuses_something_in_a_case() {
    let server = Server::new();
    let refused: BTreeSet<String> = cases::written()
        .iter()
        .flat_map(|case| run(&server, case).1)
        .collect();
    let mut declared = BTreeSet::new();
    collect_rules(&server.schema, &mut declared);
    assert!(declared.len() > 30, "{}", declared.len());
    let untried: Vec<_> = declared.difference(&refused).collect();
    assert!(
        untried.is_empty(),
        "no case of crds/tests/cases breaks {untried:#?}"
    );
}

fn collect_rules(schema: &Value, rules: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                rules.extend(rule["rule"].as_str().map(str::to_owned));
            }
            fields.values().for_each(|inner| collect_rules(inner, rules));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_rules(inner, rules)),
        _ => {}
    }
}

#[test]
fn names_of_cases_are_unique() {
    let mut seen = BTreeSet::new();
    for case in cases::all(&Server::new().schema) {
        assert!(seen.insert(case.name.clone()), "{}", case.name);
    }
}

#[test]
fn a_base_names_no_name_of_its_own() {
    for base in ["create", "adopt", "deployment", "addon", "everything"] {
        assert_eq!(cases::base(base)["metadata"]["name"], cases::ANY_NAME);
    }
}
