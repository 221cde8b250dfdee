//! Replays the corpus of the fuzz target `admission` (`make fuzz`), so that it goes on reaching what it was made for.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, where a panic is the report"
)]

mod endpoint;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use endpoint::{Became, Endpoint};
use vnp_operator::admission::desk::BODY_LIMIT;

/// Bodies by name.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/admission"
    ));
    let entries = fs::read_dir(folder).expect("the corpus");
    let files = entries.map(|e| {
        let path = e.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("a body"))
    });
    files.collect()
}

#[test]
fn the_corpus_reaches_what_its_names_say() {
    let endpoint = Endpoint::new();
    let corpus = corpus();
    assert!(corpus.len() >= 20, "{} bodies", corpus.len());
    for (name, body) in &corpus {
        let became = endpoint.check(body);
        // Names of bodies that the fuzzer found are hashes and promise nothing.
        let promised = match name.split('-').next() {
            Some("mutated") => Some(Became::Mutated),
            Some("unchanged") => Some(Became::Unchanged),
            Some("bad") => Some(Became::BadRequest),
            _ => None,
        };
        assert!(promised.is_none_or(|p| p == became), "{name} is {became:?}");
    }
}

#[test]
fn a_body_that_breaks_off_is_a_bad_request() {
    let endpoint = Endpoint::new();
    for (name, body) in corpus().iter().filter(|(_, body)| body.ends_with(b"}\n")) {
        for end in 0..body.len() - 1 {
            let became = endpoint.check(&body[..end]);
            assert_eq!(became, Became::BadRequest, "{name} up to byte {end}");
        }
    }
}

#[test]
fn a_body_over_the_limit_is_cut_off() {
    let endpoint = Endpoint::new();
    let mut body = corpus().remove("mutated-rule.json").expect("a body");
    body.resize(BODY_LIMIT, b' ');
    assert_eq!(endpoint.check(&body), Became::Mutated);
    body.push(b' ');
    assert_eq!(endpoint.check(&body), Became::TooLong);
}
