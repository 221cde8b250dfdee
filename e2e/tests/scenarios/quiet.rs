//! When nothing changes, nothing is written.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use vnp_e2e::audit::OPERATOR;
use vnp_e2e::operator::OperatorOptions;
use vnp_e2e::scenario::{Scenario, eventually, manifests};

use crate::fixture::{condition, fill, get_pool, misbehave_on_1_12, resize, start_pool};

const WATCHED: Duration = Duration::from_secs(60);

/// Watches for a minute that the operator writes nothing but its lease.
async fn silent(s: &Scenario<'_>, when: &str) -> Result<()> {
    // A write that was under way when the state was reached may still come.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let since = Timestamp::now();
    tokio::time::sleep(WATCHED).await;
    let writes: Vec<String> = s
        .audit_log()
        .writes_by(OPERATOR, since)?
        .into_iter()
        .filter(|e| e.resource != "leases")
        .map(|e| e.to_string())
        .collect();
    ensure!(writes.is_empty(), "{when} it wrote {writes:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_or_blocked_it_writes_nothing() -> Result<()> {
    Scenario::run("quiet", async |s| {
        misbehave_on_1_12(s);
        s.start_operator(&OperatorOptions::default()).await?;
        start_pool(s, 2).await?;
        fill(s, 1, 2, "web", 200).await?;
        silent(s, "idle").await?;

        s.apply(&manifests::budget(s.namespace(), "web", "web", 0))
            .await?;
        resize(s, 1).await?;
        eventually("the drain is blocked", Duration::from_secs(30), async || {
            let pool = get_pool(s).await?;
            let ready = condition(&pool, "Ready").cloned().unwrap_or_default();
            ensure!(ready["reason"] == "DrainBlocked", "{ready}");
            Ok(())
        })
        .await?;
        // Probes of the budget are evictions that are refused; they change nothing and are allowed two a minute.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let since = Timestamp::now();
        tokio::time::sleep(WATCHED).await;
        let (probes, writes): (Vec<_>, Vec<_>) = s
            .audit_log()
            .writes_by(OPERATOR, since)?
            .into_iter()
            .filter(|e| e.resource != "leases")
            .partition(|e| e.is("pods", Some("eviction")));
        ensure!(writes.is_empty(), "blocked it wrote {writes:#?}");
        ensure!(
            probes.len() <= 4,
            "{} probes of one budget in a minute",
            probes.len()
        );
        Ok(())
    })
    .await
}
