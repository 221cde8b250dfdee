//! What is needed to understand a failure, gathered before the scenario is cleaned up.

use std::fmt::Write;

use super::Scenario;
use crate::control_plane::log_tail;

const LOG_LINES: usize = 60;
const AUDIT_LINES: usize = 50;

impl Scenario<'_> {
    /// Pool, nodes, workload, pods, events, operator logs, the last audit lines about them, and the ledger. Whatever
    /// can't be had is replaced by the reason.
    pub async fn explain(&self) -> String {
        let mut report = format!("\n######## scenario {} failed\n", self.name());
        let provider = self.provider();
        let questions = [
            format!("get virtualnodepools {} --output yaml", self.name()),
            format!("get statefulset {provider} --namespace kube-system --output yaml"),
            "get nodes --output wide".to_owned(),
            "get pods --all-namespaces --output wide --field-selector metadata.namespace!=".to_owned()
                + self.namespace(),
            format!("get pods,pdb --namespace {} --output wide", self.namespace()),
            format!(
                "get events.events.k8s.io --namespace default --field-selector regarding.name={}",
                self.name()
            ),
            format!(
                "get events --namespace {} --field-selector type!=Normal",
                self.namespace()
            ),
        ];
        for question in questions {
            let answer = self
                .kubectl(&question)
                .await
                .unwrap_or_else(|error| format!("{error:#}"));
            section(&mut report, &format!("kubectl {question}"), &shortened(&answer));
        }
        for log in self.operators().logs.clone() {
            section(
                &mut report,
                &format!("end of {}", log.display()),
                &log_tail(&log, LOG_LINES),
            );
        }
        section(&mut report, "audit log", &self.audit_lines());
        section(&mut report, "ledger", &self.ledger().to_string());
        let leaks = self
            .leaks()
            .await
            .map_or_else(|error| format!("{error:#}"), |leaks| leaks.to_string());
        section(&mut report, "leaks", &leaks);
        let folder = self.environment().control_plane().folder();
        section(&mut report, "all logs", &folder.display().to_string());
        report
    }

    fn audit_lines(&self) -> String {
        const NODES_NAMED: usize = 12;
        let provider = self.provider();
        let nodes: Vec<String> = (0..NODES_NAMED).map(|ordinal| self.node(ordinal)).collect();
        let mut names = vec![self.name(), provider.as_str(), "eci-profile"];
        names.extend(nodes.iter().map(String::as_str));
        match self.audit_log().last_about(&names, AUDIT_LINES) {
            Ok(events) => events.iter().map(|event| format!("{event}\n")).collect(),
            Err(error) => format!("{error:#}"),
        }
    }
}

/// To where the test harness collects the output of a test.
#[expect(clippy::print_stderr, reason = "it is the test's own output")]
pub(super) fn print(report: &str) {
    eprintln!("{report}");
}

fn section(report: &mut String, title: &str, content: &str) {
    // Writing to a String can't fail.
    write!(report, "\n==== {title}\n{}\n", content.trim_end()).ok();
}

/// Hundreds of pods explain no more than the first and the last of them.
fn shortened(text: &str) -> String {
    const KEPT: usize = 60;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 3 * KEPT {
        return text.to_owned();
    }
    let (first, last) = (&lines[..2 * KEPT], &lines[lines.len() - KEPT..]);
    let left_out = lines.len() - first.len() - last.len();
    format!(
        "{}\n... {left_out} lines ...\n{}",
        first.join("\n"),
        last.join("\n")
    )
}
