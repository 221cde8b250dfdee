//! The whole operator against an API server in process and a simulated world, in virtual time: what no real cluster can be
//! brought to do at will. docs/safety.md says what each part proves.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, where a panic is the report"
)]

mod antagonists;
mod bench;
mod cluster;
mod crash;
mod end_state;
mod errors;
mod machine;
mod missed;
mod operator;
mod safety;
mod scenarios;
mod skew;
mod specs;
mod stale;
mod unreadable;
mod unseen;
mod world;
