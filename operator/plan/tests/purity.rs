//! The plan decides and does nothing else. That it can reach no API server and no executor is a fact of its dependency
//! tree; that it reads no clock is kept by `disallowed-methods` in this crate's `clippy.toml`.

#![expect(clippy::expect_used, reason = "a test that can't ask cargo has failed")]

use std::process::Command;

/// What would let a plan do I/O, and what each would bring in.
const FORBIDDEN: [&str; 7] = [
    "kube-client",
    "kube-runtime",
    "tokio",
    "hyper",
    "tower",
    "rustls",
    "mio",
];

/// Crates that `vnp-plan` links, by name, without its tests' own.
fn linked() -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "vnp-plan",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(["--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo, which runs this test, runs");
    assert!(
        tree.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&tree.stderr)
    );
    String::from_utf8(tree.stdout)
        .expect("cargo prints UTF-8")
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn links_nothing_that_does_io() {
    let linked = linked();
    // Without this an empty or misread tree would pass.
    for known in ["vnp-plan", "vnp-crds", "kube-core"] {
        assert!(
            linked.iter().any(|name| name == known),
            "{known} is missing from the tree: {linked:?}"
        );
    }
    for forbidden in FORBIDDEN {
        assert!(
            !linked.iter().any(|name| name == forbidden),
            "vnp-plan links {forbidden}; `cargo tree -p vnp-plan -e normal -i {forbidden}` says through whom"
        );
    }
}

#[test]
fn forbids_every_clock() {
    let lints = include_str!("../clippy.toml");
    for clock in [
        "jiff::Timestamp::now",
        "jiff::Zoned::now",
        "std::time::Instant::now",
        "std::time::SystemTime::now",
    ] {
        assert!(
            lints.contains(&format!("\"{clock}\"")),
            "clippy.toml no longer disallows {clock}"
        );
    }
}
