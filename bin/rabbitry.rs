//! The CLI producer and the operator's tools.

use std::process::ExitCode;

use rabbitry::cli;
use users::Users;

fn main() -> ExitCode {
    cli::main(&[cli::About::of::<Users>()])
}
