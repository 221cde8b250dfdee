//! The samples are valid, say nothing that would be dropped, and carry only what this version acts on.

use std::fs;

use serde_json::Value;
use vnp_crds::{
    DaemonSetPods, DeletionPolicy, Drain, Management, OnTimeout, ProviderType, Reap, VirtualNodePool,
};

use crate::server::Server;

const SAMPLES: [&str; 3] = ["minimal", "full", "adopt"];

fn read(name: &str) -> Value {
    let file = format!("{}/../config/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn pool(name: &str) -> VirtualNodePool {
    serde_json::from_value(read(name)).unwrap()
}

/// Whether everything in `part` stands in `whole`, too.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn samples_are_valid() {
    let server = Server::new();
    for name in SAMPLES {
        let refusal = server.judge(&read(name), None).err().map(|refusal| refusal.text);
        assert_eq!(refusal, None, "{name}");
    }
}

#[test]
fn samples_hold_no_unknown_field() {
    for name in SAMPLES {
        let known = serde_json::to_value(pool(name)).unwrap();
        assert!(holds(&known, &read(name)), "{name}: {known:#}");
    }
}

#[test]
fn samples_carry_only_what_acts() {
    for name in SAMPLES {
        let spec = pool(name).spec;
        assert_eq!(spec.provider.type_, ProviderType::StatefulSet, "{name}");
        let sections = [
            spec.placement.is_some(),
            spec.scheduling.is_some(),
            spec.compute_defaults.is_some(),
        ];
        assert_eq!(sections, [name == "full"; 3], "{name}");
        let drain = spec.drain.unwrap_or_default();
        assert_eq!((drain.timeout_seconds, drain.stages.len()), (None, 0), "{name}");
        assert_eq!(
            (drain.on_timeout, drain.daemon_set_pods),
            (OnTimeout::Wait, DaemonSetPods::Evict),
            "{name}"
        );
    }
}

#[test]
fn the_full_sample_shows_every_section_that_acts() {
    let spec = read("full")["spec"].clone();
    let everything = serde_json::to_value(pool("full").spec).unwrap();
    for (field, value) in everything.as_object().unwrap() {
        assert!(spec.get(field).is_some(), "spec.{field} is {value}");
    }
    let fields = spec["provider"].as_object().unwrap().len();
    // All of provider but `container`, which is for adoption.
    assert_eq!(fields, 15, "{:#}", spec["provider"]);
}

#[test]
fn the_full_sample_says_its_drain_values_are_the_defaults() {
    let drain = pool("full").spec.drain.unwrap();
    assert_eq!(
        drain,
        Drain {
            reap: Some(Reap::RestartProvider),
            ..Drain::default()
        }
    );
    assert_eq!(
        drain.settings(ProviderType::StatefulSet),
        Drain::default().settings(ProviderType::StatefulSet)
    );
}

#[test]
fn the_adopting_sample_changes_nothing_by_itself() {
    let pool = pool("adopt");
    assert!(pool.is_paused());
    assert_eq!(pool.spec.replicas, None);
    assert_eq!(pool.spec.provider.management(), Management::Adopt);
    assert_eq!(pool.spec.deletion_policy(), DeletionPolicy::Retain);
    assert_eq!(pool.spec.provider.image(), None);
}
