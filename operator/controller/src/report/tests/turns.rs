//! What may happen between two passes.

use proptest::prelude::*;
use proptest::sample::select;
use vnp_plan::observed::Ordinal;
use vnp_plan::plan::TrackKind;
use vnp_plan::webhook::vendor::{Installed, VendorSeen};
use vnp_plan::webhook::{Probed, WebhookState};

use super::life::ORDINALS;

/// Merge patches of the pool.
const EDITS: [&str; 18] = [
    r#"{"spec":{"paused":true}}"#,
    r#"{"spec":{"paused":false}}"#,
    r#"{"metadata":{"annotations":{"virtualnodes.dev/paused":"true"}}}"#,
    r#"{"metadata":{"annotations":null}}"#,
    r#"{"metadata":{"annotations":{"virtualnodes.dev/abandon-node":"virtual-node-eci-2/node-2-1"}}}"#,
    r#"{"metadata":{"finalizers":null},"spec":{"paused":true}}"#,
    r#"{"spec":{"drain":{"reap":"None"}}}"#,
    r#"{"spec":{"drain":{"maxConcurrentNodes":3}}}"#,
    r#"{"spec":{"drain":{"daemonSetPods":"IgnoreNeverStarted"}}}"#,
    r#"{"spec":{"drain":{"barePods":"WaitForCompletion"}}}"#,
    r#"{"spec":{"deletionPolicy":"Retain"}}"#,
    r#"{"spec":{"deletionPolicy":"Drain"}}"#,
    r#"{"spec":{"provider":{"type":"Deployment"}}}"#,
    r#"{"spec":{"provider":{"type":"StatefulSet"}}}"#,
    r#"{"spec":{"provider":{"image":"registry.example/vk:2"}}}"#,
    r#"{"spec":{"provider":{"container":"nobody"}}}"#,
    r#"{"spec":{"provider":{"container":null}}}"#,
    r#"{"spec":{"scheduling":{"resourcePolicies":[{"name":"web","namespaces":["shop"],"selector":{"app":"nginx"}}]}}}"#,
];

/// Those about deadlines.
const DEADLINES: [&str; 4] = [
    r#"{"spec":{"drain":{"timeoutSeconds":60,"onTimeout":"Abort"}}}"#,
    r#"{"spec":{"drain":{"timeoutSeconds":60,"onTimeout":"ForceDelete"}}}"#,
    r#"{"spec":{"drain":{"timeoutSeconds":60,"onTimeout":"Wait"}}}"#,
    r#"{"spec":{"drain":{"timeoutSeconds":null}}}"#,
];

/// Those about webhooks.
const WEBHOOKS: [&str; 3] = [
    r#"{"spec":{"placement":{"webhook":"Vendor"}}}"#,
    r#"{"spec":{"placement":{"webhook":"None"}}}"#,
    r#"{"spec":{"placement":{"webhook":"Operator","rules":[{"name":"a","mode":"Require","podSelector":{"matchLabels":{"a":"b"}}}]}}}"#,
];

/// What happens before a pass.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    /// Time passes; controllers, providers and pods do what they are about to.
    Wait(i64),
    Edit(&'static str),
    Replicas(Option<i32>),
    Delete,
    /// Somebody scales the workload.
    Scale(i32),
    /// Somebody writes the pool's label of the workload.
    Relabel(Option<&'static str>),
    Workload(Seen),
    Bind(Ordinal, Kind),
    /// All pods of the ordinal are gone.
    Gone(Ordinal),
    Node(Ordinal, Fate),
    Provider(Ordinal, Fate),
    Uncordon(Ordinal),
    /// Which track of writes is refused from now on.
    Refuse(Option<TrackKind>),
    /// Evicted pods go, or nothing does.
    Stuck(bool),
    Webhook(WebhookState),
    Vendor(VendorSeen),
    Restart,
    /// Another process leads.
    Leader(u8),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    Again,
    Unknown,
    Absent,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Ordinary,
    Bare,
    NeverStarted,
    Held,
    Finished,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Gone,
    Anew,
    Sick,
    Held,
}

/// A life; half of them begin with a drain that pods hold, and that has an end.
pub(super) fn turns(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Turn>> {
    let held = (
        select(vec![Kind::Ordinary, Kind::Bare, Kind::Held]),
        select(&DEADLINES[..]),
    );
    let drain = held.prop_map(|(kind, deadline)| {
        let begun = [Turn::Bind(2, kind), Turn::Edit(deadline), Turn::Replicas(Some(1))];
        begun.into_iter().chain([Turn::Wait(6), Turn::Wait(6)]).collect()
    });
    let begin = prop_oneof![Just(Vec::new()), drain];
    (begin, proptest::collection::vec(turn(), length)).prop_map(|(begin, rest)| [begin, rest].concat())
}

fn turn() -> impl Strategy<Value = Turn> {
    let ordinal = || ORDINALS;
    let fate = || select(vec![Fate::Gone, Fate::Anew, Fate::Sick, Fate::Held]);
    let kinds = vec![
        Kind::Ordinary,
        Kind::Ordinary,
        Kind::Bare,
        Kind::NeverStarted,
        Kind::Held,
        Kind::Finished,
    ];
    let webhooks = vec![
        WebhookState::Off,
        WebhookState::Unknown,
        WebhookState::NotAsked,
        WebhookState::InPlace(Probed::NotYet),
        WebhookState::InPlace(Probed::Mutated),
        WebhookState::InPlace(Probed::Mutated),
        WebhookState::InPlace(Probed::Unmutated),
    ];
    let vendor = vec![
        VendorSeen::Unknown,
        VendorSeen::Absent,
        VendorSeen::Installed(Installed {
            name: "vk-webhook".to_owned(),
            ..Installed::default()
        }),
    ];
    let tracks = vec![
        None,
        None,
        Some(TrackKind::Workload),
        Some(TrackKind::Drain),
        Some(TrackKind::Pool),
    ];
    prop_oneof![
        14 => select(vec![1, 3, 6, 10, 31, 61, 601]).prop_map(Turn::Wait),
        6 => select(&EDITS[..]).prop_map(Turn::Edit),
        4 => select(&DEADLINES[..]).prop_map(Turn::Edit),
        1 => select(&WEBHOOKS[..]).prop_map(Turn::Edit),
        4 => proptest::option::weighted(0.9, 0..5i32).prop_map(Turn::Replicas),
        1 => Just(Turn::Delete),
        2 => (0..5i32).prop_map(Turn::Scale),
        1 => select(vec![None, Some("other"), Some("burst")]).prop_map(Turn::Relabel),
        2 => select(vec![Seen::Again, Seen::Again, Seen::Unknown, Seen::Absent]).prop_map(Turn::Workload),
        4 => (ordinal(), select(kinds)).prop_map(|(o, kind)| Turn::Bind(o, kind)),
        2 => ordinal().prop_map(Turn::Gone),
        2 => (ordinal(), fate()).prop_map(|(o, fate)| Turn::Node(o, fate)),
        2 => (ordinal(), fate()).prop_map(|(o, fate)| Turn::Provider(o, fate)),
        1 => ordinal().prop_map(Turn::Uncordon),
        2 => select(tracks).prop_map(Turn::Refuse),
        1 => any::<bool>().prop_map(Turn::Stuck),
        2 => select(webhooks).prop_map(Turn::Webhook),
        1 => select(vendor).prop_map(Turn::Vendor),
        1 => Just(Turn::Restart),
        1 => (0..3u8).prop_map(Turn::Leader),
    ]
}
