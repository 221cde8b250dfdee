//! The scheduler that a field needs. Source: ACK documentation, "Custom elastic resource priority scheduling".

/// Fields and the first scheduler that knows them, the oldest first.
const FIELDS: [(&str, &str); 7] = [
    ("max", "5.0"),
    ("preemptPolicy", "6.1"),
    ("ignorePreviousPod", "6.1"),
    ("ignoreTerminatingPod", "6.1"),
    ("matchLabelKeys", "6.2"),
    ("whenTryNextUnits", "6.4"),
    ("maxResources", "6.9.5"),
];

/// Kinds of resource and the first scheduler that knows them.
const RESOURCES: [(&str, &str); 2] = [("elastic", "6.4.3"), ("acs", "6.7.1")];

/// The first scheduler that knows a field, named without the place where it stands.
pub(super) fn of_field(field: &str) -> Option<&'static str> {
    find(&FIELDS, field)
}

/// The first scheduler that knows a kind of resource.
pub(super) fn of_resource(resource: &str) -> Option<&'static str> {
    find(&RESOURCES, resource)
}

/// The newest of these fields that a schema has tells how old the scheduler is at most.
pub(super) fn at_least(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    let known = FIELDS.iter().rev().find(|(field, _)| has(field));
    known.map(|(_, version)| *version)
}

fn find(list: &[(&str, &'static str)], word: &str) -> Option<&'static str> {
    list.iter()
        .find(|(known, _)| *known == word)
        .map(|(_, version)| *version)
}
