//! What `kubectl describe` says of a pool, against the files of `docs/states`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vnp_e2e::scenario::{Scenario, eventually};

/// Set by `make states`: the files are written.
const WRITE: &str = "VNP_WRITE_STATES";
const WITHIN: Duration = Duration::from_secs(60);
/// A state is written when it has not changed for so long.
const STEADY: Duration = Duration::from_secs(5);

/// Waits until `kubectl describe` says what `docs/states/<state>.txt` says. When that file is to be written: until
/// STATUS is `status` and all is steady.
pub(crate) async fn described(s: &Scenario<'_>, pool: &str, state: &str, status: &str) -> Result<()> {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/states")).join(format!("{state}.txt"));
    let text = async || {
        let reason = s
            .kubectl(&format!(
                "get virtualnodepool {pool} --output jsonpath={{.status.conditions[?(@.type==\"Ready\")].reason}}"
            ))
            .await?;
        ensure!(reason.trim() == status, "{state}: STATUS is {reason}");
        Ok(steadied(
            &s.kubectl(&format!("describe virtualnodepool {pool}")).await?,
        ))
    };
    if std::env::var_os(WRITE).is_none() {
        let wanted = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        return eventually(&format!("docs/states/{state}.txt holds"), WITHIN, async || {
            same(&wanted, &text().await?)
        })
        .await;
    }
    let mut last = String::new();
    let steady = eventually(&format!("{state} is steady"), WITHIN, async || {
        let now = text().await?;
        let before = std::mem::replace(&mut last, now.clone());
        tokio::time::sleep(STEADY).await;
        ensure!(before == now && now == text().await?, "it changes: {now}");
        Ok(now)
    })
    .await?;
    fs::write(&path, steady).with_context(|| format!("write {}", path.display()))
}

/// The first line that differs is the report.
fn same(wanted: &str, found: &str) -> Result<()> {
    let (mut wanted, mut found) = (wanted.lines(), found.lines());
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Ok(()),
            (wanted, found) if wanted == found => {}
            (wanted, found) => bail!("run `make states` when this is meant:\n- {wanted:?}\n+ {found:?}"),
        }
    }
}

/// Without what differs from one run to the next: times, UIDs, counters of the server, and events, which are told as they
/// come.
fn steadied(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().take_while(|line| !line.starts_with("Events:")) {
        let key = line.trim_start();
        let counter = ["Resource Version:", "Generation:", "Observed Generation:"];
        // Of all nodes and counted once a minute; those of a blocker are indented further.
        let counted = line.starts_with("  Pods:");
        if counted || counter.iter().any(|counter| key.starts_with(counter)) {
            continue;
        }
        lines.push(
            replaced(&replaced(line, TIME, "<time>"), UID, "<uid>")
                .trim_end()
                .to_owned(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

/// `0` stands for a digit, `x` for a hexadecimal one.
const TIME: &str = "0000-00-00T00:00:00Z";
const UID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

fn replaced(text: &str, shape: &str, by: &str) -> String {
    let fits = |text: &str| {
        text.len() >= shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(found, wanted)| match wanted {
                    b'0' => found.is_ascii_digit(),
                    b'x' => found.is_ascii_hexdigit(),
                    _ => found == wanted,
                })
    };
    let mut made = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if fits(rest) {
            made.push_str(by);
            rest = &rest[shape.len()..];
        } else {
            made.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    made
}
