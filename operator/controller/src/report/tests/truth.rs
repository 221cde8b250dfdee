//! What holds between every text of a pass and what that pass saw, over lives of a pool.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use vnp_crds::VirtualNodePoolStatus;
use vnp_plan::finding::EventNote;
use vnp_plan::observed::Ordinal;

use super::facts::Judge;
use super::life::Life;
use super::turns::{Turn, turns};

/// One text, and where it stands.
pub(super) struct Text {
    pub(super) place: String,
    /// Reason of a condition that is True.
    pub(super) true_by: Option<String>,
    pub(super) text: String,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

fn texts(status: &VirtualNodePoolStatus, events: impl IntoIterator<Item = EventNote>) -> Vec<Text> {
    let conditions = status.conditions.iter().map(|c| Text {
        place: format!("{}={} {}", c.type_, c.status, c.reason),
        true_by: (c.status == "True").then(|| c.reason.clone()),
        text: c.message.clone(),
    });
    let drain = status.drain.iter();
    let blockers = drain.flat_map(|d| &d.blockers).map(|b| Text {
        place: format!("blocker {} {}", b.reason, b.object),
        true_by: None,
        text: b.message.clone(),
    });
    let events = events.into_iter().map(|e| Text {
        place: format!("event {}", e.reason),
        true_by: None,
        text: e.note,
    });
    conditions.chain(blockers).chain(events).collect()
}

/// What was told, and what of it is not so.
#[derive(Default)]
struct Told {
    texts: Vec<Text>,
    faults: Vec<String>,
}

impl Told {
    /// Makes a pass, tells of it, and looks whether what is told is so.
    fn pass(&mut self, life: &mut Life) {
        let passed = life.pass();
        let attempts = passed.attempts();
        let (report, events) = life
            .story
            .told(&passed.seen, &passed.plan, &attempts, life.seconds);
        let judge = Judge {
            passed: &passed,
            report: &report,
        };
        for text in texts(&report.status, events) {
            let fault = judge.fault(&text).map(|fault| {
                let nodes = &passed.plan.facts.draining;
                format!("{fault}\n  {text}\n  {nodes:?}\n  done {:?}", passed.done)
            });
            self.faults.extend(fault);
            self.texts.push(text);
        }
    }
}

/// What is told over a life.
fn live(management: &str, start: Ordinal, turns: &[Turn]) -> Told {
    let mut life = Life::new(management, start);
    let mut told = Told::default();
    told.pass(&mut life);
    for turn in turns {
        life.take(turn);
        told.pass(&mut life);
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_is_told_is_so(adopts in any::<bool>(), start in 0..2i32, turns in turns(1..40)) {
        let management = if adopts { "Adopt" } else { "Create" };
        let told = live(management, start, &turns);
        prop_assert!(told.faults.is_empty(), "{}", told.faults[0]);
    }
}

/// The lives get to what there is to tell: else nothing would be compared.
#[test]
fn lives_get_to_each_word() {
    let mut runner = TestRunner::deterministic();
    let (mut told, mut faults) = (String::new(), BTreeSet::new());
    for (adopts, start) in [(true, 0), (false, 1), (true, 1), (false, 0)].repeat(40) {
        let turns = turns(20..40);
        let turns = turns.new_tree(&mut runner).unwrap().current();
        let life = live(if adopts { "Adopt" } else { "Create" }, start, &turns);
        faults.extend(
            life.faults
                .iter()
                .filter_map(|f| Some(f.lines().next()?.to_owned())),
        );
        life.texts
            .iter()
            .for_each(|text| told.push_str(&format!("{text}\n")));
    }
    let words = [
        "Ready=True Ready: ",
        "Ready=False Paused: ",
        "Ready=False Draining: ",
        "Ready=False DrainBlocked: ",
        "Ready=False DrainTimedOut: ",
        "Ready=False Deleting: ",
        "ProfileSynced=True Synced: ",
        "WebhookReady=True Verified: ",
        "event RaceLost: ",
        "event ForeignScale: ",
        "event ForceAnnounced: ",
        "event DrainCancelled: ",
        "event UnknownOrdinal: ",
        "holds no pod",
        "no pod left",
        "to keep the node",
        "scaled up from",
        "our cordon is off",
        "our cordon on virtual-node-eci-2 is still to be taken off",
        "raise spec.replicas",
        "set spec.replicas",
        "are deleted past their budgets",
        "then the node is kept",
        "as specified",
        "nothing waits to be written",
    ];
    let missed: Vec<&str> = words.into_iter().filter(|word| !told.contains(word)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(missed.is_empty(), "never told: {missed:?}");
}
