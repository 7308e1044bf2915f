//! The fault suite: workers, broker, store and lines are broken on purpose while clients go on; what is left is checked.
//! `make faults`, `make soak` and `make mutants` run it on a private broker, see README.
#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod bank;
mod broker;
mod cells;
mod check;
mod fleet;
mod gauge;
mod history;
mod judge;
mod mutants;
mod options;
#[allow(dead_code, reason = "the proxy's own tests use the rest")]
mod proxy;
mod report;
mod run;
mod script;
mod stage;
mod store;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest")]
mod support;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use options::{Mode, Options};

fn main() -> ExitCode {
    if let Some(code) = bank::worker() {
        return code;
    }
    let options = Options::parse();
    if let Some(code) = run::in_own_mounts() {
        return code;
    }
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let clean = runtime.block_on(async {
        match options.mode() {
            Mode::Matrix => run::matrix(&options).await,
            Mode::Soak(time) => run::soak(&options, time).await,
            Mode::Mutants => mutants::hunt(&options).await,
        }
    });
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
