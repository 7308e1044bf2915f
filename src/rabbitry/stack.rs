//! Stacks that no message overflows.
//!
//! lapin reads headers by recursion, on a thread of its own, and headers may nest as deep as fits into a frame; who
//! copies or drops them recurses again. On a stack of the usual 2 MiB (8 MiB for a program's first thread) a single such
//! message would end the process, each time that it is delivered. The size of the stacks of threads that a library
//! starts is the standard library's, and is chosen by `RUST_MIN_STACK` alone, which it reads once.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt,
    panic::resume_unwind,
    process::{Command, id},
    thread,
};

use crate::{limits::STACK_BYTES, telemetry::report};

const VARIABLE: &str = "RUST_MIN_STACK";
/// What a thread has unless it is told: with less, the programs end before they begin.
const LEAST: usize = 2 << 20;

/// Runs a program, and every thread that it starts, with stacks of [`STACK_BYTES`], unless `RUST_MIN_STACK` says another
/// size of at least [`LEAST`]. To be called first of all: the process begins anew, and what is passed is run on a thread that is not its
/// first. Memory is taken only for what is used of a stack.
///
/// # Panics
/// If the program does, or no thread can be started.
pub fn with_room<T: Send>(program: impl FnOnce() -> T + Send) -> T {
    choose_size();
    thread::scope(|scope| scope.spawn(program).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

fn is_enough(chosen: &OsStr) -> bool {
    chosen.to_str().and_then(|text| text.parse().ok()).is_some_and(|bytes: usize| bytes >= LEAST)
}

/// Returns if a size was chosen before, or none can be.
fn choose_size() {
    match env::var_os(VARIABLE).filter(|chosen| !chosen.is_empty()) {
        Some(chosen) if is_enough(&chosen) => return,
        Some(chosen) => report(format_args!(
            "process {}: {VARIABLE}={} is not taken: it is the bytes of a stack, at least {LEAST}",
            id(),
            chosen.to_string_lossy().escape_debug()
        )),
        None => {}
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into());
    // What is not optimised takes much more of a stack.
    let bytes = if cfg!(debug_assertions) { 16 * STACK_BYTES } else { STACK_BYTES };
    let mut again = Command::new(program);
    let error = again.arg0(name).args(arguments).env(VARIABLE, bytes.to_string()).exec();
    report(format_args!(
        "process {}: stacks stay small, and deeply nested headers can end it: {error}",
        id()
    ));
}
