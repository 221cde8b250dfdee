//! What a pool says about the profile.

use super::*;
use crate::finding::{Finding, ProfileState};

fn states(findings: &[Finding]) -> Vec<ProfileState> {
    let states = findings.iter().filter_map(|f| match f {
        Finding::Profile { state, .. } => Some(*state),
        _ => None,
    });
    states.collect()
}

#[test]
fn what_is_not_written_yet_is_named() {
    let mut cluster = Cluster::with(Some(template()));
    let overlay = json!({ "spec": { "profile": { "featureGates": { "WaitForFirstConsumer": "true" } } } });
    cluster.pools = vec![acting(overlay)];
    let findings = profile_findings(&seen_by(&cluster, 0));
    assert_eq!(states(&findings), [ProfileState::Pending]);
    let told = format!("{findings:?}");
    for word in [
        "kube-system/eci-profile",
        "securityGroupId is sg-old, to be sg-1",
        "feature gate WaitForFirstConsumer is false, to be true",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    cluster.settle();
    assert_eq!(profile_findings(&seen_by(&cluster, 0)), []);
}

#[test]
fn conflict_rejection_and_misspellings_are_told() {
    let older = json!({ "metadata": { "name": "a", "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": { "network": { "securityGroupId": "sg-2" } } });
    let mut cluster = Cluster::with(Some(merged(basic(), json!({ "vswitchIds": "x" }))));
    cluster.pools = vec![acting(json!({})), acting(older)];
    let mut seen = seen_by(&cluster, 0);
    seen.profile_rejection = Some("bad format".to_owned());
    let findings = profile_findings(&seen);
    assert_eq!(
        states(&findings),
        [ProfileState::Conflict, ProfileState::Rejected]
    );
    let told = format!("{findings:?}");
    assert!(
        told.contains("bad format") && told.contains("vSwitchIds is meant"),
        "{told}"
    );

    let off = acting(json!({ "spec": { "profile": { "sync": "Disabled" } } }));
    cluster.pools = vec![off];
    assert_eq!(profile_findings(&seen_by(&cluster, 0)), []);
}

#[test]
fn broken_selectors_are_told_and_stop_nothing_else() {
    for (text, broken) in [
        ("", false),
        ("  ", false),
        ("[]", false),
        ("[{\"name\":\"a\"}]", false),
        ("[{\"name\":\"a\"} # comment\n]", true),
        ("{}", true),
        ("[1]", true),
    ] {
        let mut cluster = Cluster::with(Some(json!({ "selectors": text })));
        cluster.pools = vec![acting(json!({}))];
        cluster.settle();
        assert_eq!(cluster.data(), merged(basic(), json!({ "selectors": text })));
        let findings = profile_findings(&seen_by(&cluster, 0));
        assert_eq!(
            states(&findings) == [ProfileState::Unreadable],
            broken,
            "{text:?} {findings:?}"
        );
        assert_eq!(format!("{findings:?}").contains("Stalled"), broken);
    }
}

#[test]
fn a_paused_pool_lists_what_it_would_write() {
    let mut cluster = Cluster::with(Some(template()));
    cluster.pools = vec![acting(
        json!({ "metadata": { "annotations": { (vnp_crds::PAUSED_ANNOTATION): "true" } } }),
    )];
    let seen = seen_by(&cluster, 0);
    assert_eq!(
        pending_profile_changes(&seen),
        [
            "eci-profile securityGroupId sg-old -> sg-1",
            "eci-profile vSwitchIds vsw-a, vsw-b -> vsw-1",
        ]
    );
    cluster.pools = vec![acting(json!({}))];
    cluster.settle();
    assert_eq!(pending_profile_changes(&seen_by(&cluster, 0)), [""; 0]);
}
