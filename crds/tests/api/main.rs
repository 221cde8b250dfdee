//! The API as the server sees it, judged in process. The cases also run against a real API server, in `e2e/tests/crd.rs`.

// Test support around the test functions, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../cases/mod.rs"]
mod cases;
mod rules;
mod samples;
mod server;
