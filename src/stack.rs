//! Stacks that no message overflows.
//!
//! lapin reads headers by recursion, on a thread of its own, and headers may nest as deep as fits into a frame. On a
//! stack of the usual 2 MiB a single such message would end the process, each time that it is delivered. The size of
//! the stacks of threads that a library starts is the standard library's, and is chosen by `RUST_MIN_STACK` alone, which
//! it reads once.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, id},
};

use crate::limits::STACK_BYTES;

const VARIABLE: &str = "RUST_MIN_STACK";

/// Starts this program anew in the same process, with stacks of [`STACK_BYTES`], unless `RUST_MIN_STACK` says another
/// size. To be called first of all. Memory is taken only for what is used of a stack.
///
/// Returns if that was done before, or is not possible.
pub fn make_roomy() {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into());
    // What is not optimised takes much more of a stack.
    let bytes = if cfg!(debug_assertions) { 16 * STACK_BYTES } else { STACK_BYTES };
    let mut again = Command::new(program);
    let error = again.arg0(name).args(arguments).env(VARIABLE, bytes.to_string()).exec();
    eprintln!("process {}: stacks stay small, and deeply nested headers can end it: {error}", id());
}
