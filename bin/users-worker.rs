//! The worker of the users service.

use std::process::ExitCode;

use users::Users;

fn main() -> ExitCode {
    rabbitry::worker::main::<Users>()
}
