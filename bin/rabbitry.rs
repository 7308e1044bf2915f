//! The CLI producer and the operator's tools.

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
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure { code: exit::INTERNAL, message: error.to_string() }),
    };
    let tells = cli.tells_of_interruption();
    let result = runtime.block_on(async {
        tokio::select! {
            result = cli::run(cli) => result,
            _ = tokio::signal::ctrl_c(), if !tells => Err(Failure { code: exit::INTERRUPTED, message: "interrupted".into() }),
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
    if !failure.message.is_empty() {
        eprintln!("rabbitry: {}", failure.message);
    }
    failure.code.into()
}
