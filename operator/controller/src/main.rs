//! Entry point of `vnp-operator`.

use std::process::ExitCode;

use clap::Parser;
use vnp_operator::runtime::args::{Cli, Command};

fn main() -> ExitCode {
    let Cli {
        command: Command::Run(args),
    } = Cli::parse();
    vnp_operator::runtime::run::main(args)
}
