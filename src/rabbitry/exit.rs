//! Exit codes, as sysexits.h has them.

/// Done.
pub const OK: u8 = 0;
/// The command was refused (4xx), or something is wrong with what was looked at.
pub const REFUSED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The broker is not reachable, or the queue is missing.
pub const UNAVAILABLE: u8 = 69;
/// A fault of ours.
pub const INTERNAL: u8 = 70;
/// The outcome is not known, or it is worth trying again.
pub const TRY_AGAIN: u8 = 75;
/// The login is refused or lacks a right.
pub const NOT_PERMITTED: u8 = 77;
/// The configuration has to be changed.
pub const CONFIG: u8 = 78;
/// Interrupted by a signal.
pub const INTERRUPTED: u8 = 130;
