//! The CLI producer and the operator's tools.

// They panic where nothing can be written; see `telemetry::report` and `cli::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use rabbitry::{
    cli::{self, Cli, Failure},
    exit, stack,
};

fn main() -> ExitCode {
    stack::with_room(program)
}

fn program() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::end_before_it_began(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(exit::INTERNAL, error.to_string())),
    };
    let tells = cli.tells_of_interruption();
    let result = runtime.block_on(async {
        tokio::select! {
            result = cli::run(cli) => result,
            _ = tokio::signal::ctrl_c(), if !tells => Err(Failure::new(exit::INTERRUPTED, "interrupted")),
        }
    });
    // A read of standard input cannot be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    cli::report_failure(failure);
    failure.code.into()
}
